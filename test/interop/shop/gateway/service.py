import json
import os
from decimal import Decimal

from marshmallow import EXCLUDE, Schema, ValidationError, fields
from nameko.rpc import RpcProxy
from nameko.web.handlers import HttpRequestHandler
from werkzeug.wrappers import Response

from gateway.exceptions import BadRequest, HttpError, Invalid, ProductNotFound

IMAGE_ROOT = os.environ.get("PRODUCT_IMAGE_ROOT", "http://www.example.com/airship/images")


class ProductSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    id = fields.String(required=True)
    title = fields.String(required=True)
    passenger_capacity = fields.Integer(required=True)
    maximum_speed = fields.Integer(required=True)
    in_stock = fields.Integer(required=True)


class LineSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    product_id = fields.String(required=True)
    price = fields.Decimal(required=True, as_string=True)
    quantity = fields.Integer(required=True)


class NewOrderSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    order_details = fields.Nested(LineSchema, many=True, required=True)


def _answer(value, status=200):
    return Response(json.dumps(value), status=status, mimetype="application/json")


class JsonHandler(HttpRequestHandler):
    def response_from_exception(self, exc):
        status, code = (exc.status, exc.code) if isinstance(exc, HttpError) else (500, "UNEXPECTED_ERROR")
        return _answer({"error": code, "message": str(exc)}, status)


def route(method, url):
    return JsonHandler.decorator(method, url, expected_exceptions=HttpError)


def _body_of(request, schema):
    try:
        body = json.loads(request.get_data(as_text=True), parse_float=Decimal)
    except ValueError as error:
        raise BadRequest(f"Invalid json: {error}") from None
    try:
        return schema.load(body)
    except ValidationError as error:
        raise Invalid(str(error.messages)) from None


class GatewayService:
    name = "gateway"
    products = RpcProxy("products")
    orders = RpcProxy("orders")

    @route("POST", "/products")
    def create_product(self, request):
        product = _body_of(request, ProductSchema())
        self.products.create(product)
        return _answer({"id": product["id"]})

    @route("GET", "/products/<string:product_id>")
    def get_product(self, request, product_id):
        return _answer(self.products.get(product_id))

    @route("DELETE", "/products/<string:product_id>")
    def delete_product(self, request, product_id):
        self.products.delete(product_id)
        return Response(status=204, mimetype="application/json")

    @route("POST", "/orders")
    def create_order(self, request):
        lines = _body_of(request, NewOrderSchema())["order_details"]
        ids = list(dict.fromkeys(line["product_id"] for line in lines))
        calls = [(product_id, self.products.exists.call_async(product_id)) for product_id in ids]
        exist = {product_id: call.result() for product_id, call in calls}
        for product_id in ids:
            if not exist[product_id]:
                raise ProductNotFound(f"Product Id {product_id}")
        order = self.orders.create_order([LineSchema().dump(line) for line in lines])
        return _answer({"id": order["id"]})

    @route("GET", "/orders/<int:order_id>")
    def get_order(self, request, order_id):
        order = self.orders.get_order(order_id)
        ids = dict.fromkeys(detail["product_id"] for detail in order["order_details"])
        calls = [(product_id, self.products.get.call_async(product_id)) for product_id in ids]
        products = {product_id: self._product_or_none(call) for product_id, call in calls}
        for detail in order["order_details"]:
            detail["product"] = products[detail["product_id"]]
            detail["image"] = f"{IMAGE_ROOT}/{detail['product_id']}.jpg"
        return _answer(order)

    @staticmethod
    def _product_or_none(call):
        try:
            return call.result()
        except ProductNotFound:
            return None

    @route("GET", "/orders")
    def list_orders(self, request):
        return _answer(self.orders.list_orders())

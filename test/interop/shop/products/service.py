from marshmallow import EXCLUDE, Schema, fields
from nameko.events import event_handler
from nameko.rpc import rpc

from products.storage import StorageProvider


class ProductSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    id = fields.String(required=True)
    title = fields.String(required=True)
    passenger_capacity = fields.Integer(required=True)
    maximum_speed = fields.Integer(required=True)
    in_stock = fields.Integer(required=True)


class ProductsService:
    name = "products"
    storage = StorageProvider()

    @rpc
    def get(self, product_id):
        return self.storage.get(product_id)

    @rpc
    def exists(self, product_id):
        return self.storage.exists(product_id)

    @rpc
    def list(self):
        return self.storage.list()

    @rpc
    def create(self, product):
        self.storage.create(ProductSchema().load(product))

    @rpc
    def delete(self, product_id):
        self.storage.delete(product_id)

    @event_handler("orders", "order_created")
    def handle_order_created(self, payload):
        for detail in payload["order"]["order_details"]:
            self.storage.take_from_stock(detail["product_id"], detail["quantity"])

"""Errors as the gateway's clients see them, and what other services raise as the gateway sees it."""
from nameko.exceptions import registry


class HttpError(Exception):
    status, code = 500, "UNEXPECTED_ERROR"


class BadRequest(HttpError):
    status, code = 400, "BAD_REQUEST"


class Invalid(HttpError):
    status, code = 400, "VALIDATION_ERROR"


class ProductNotFound(HttpError):
    status, code = 404, "PRODUCT_NOT_FOUND"


class OrderNotFound(HttpError):
    status, code = 404, "ORDER_NOT_FOUND"


registry["products.exceptions.NotFound"] = ProductNotFound
registry["orders.exceptions.NotFound"] = OrderNotFound
registry["marshmallow.exceptions.ValidationError"] = Invalid

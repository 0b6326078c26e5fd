"""Products in Redis: one hash a product, under products:<id>."""
import os

import redis
from nameko.extensions import DependencyProvider

from products.exceptions import NotFound

PREFIX = "products:"
SCAN_COUNT = 500
INTEGERS = ("passenger_capacity", "maximum_speed", "in_stock")


def _key(product_id):
    return f"{PREFIX}{product_id}"


def _product(fields):
    return {name: int(value) if name in INTEGERS else value for name, value in fields.items()}


class Storage:
    def __init__(self, client):
        self._client = client

    def get(self, product_id):
        fields = self._client.hgetall(_key(product_id))
        if not fields:
            raise NotFound(f"Product ID {product_id} does not exist")
        return _product(fields)

    def exists(self, product_id):
        return bool(self._client.exists(_key(product_id)))

    def list(self):
        keys = list(dict.fromkeys(self._client.scan_iter(PREFIX + "*", count=SCAN_COUNT)))
        products = []
        for begin in range(0, len(keys), SCAN_COUNT):
            pipeline = self._client.pipeline(transaction=False)
            for key in keys[begin : begin + SCAN_COUNT]:
                pipeline.hgetall(key)
            products += [_product(fields) for fields in pipeline.execute() if fields]
        return products

    def create(self, product):
        self._client.hset(_key(product["id"]), mapping=product)

    def delete(self, product_id):
        self._client.delete(_key(product_id))

    def take_from_stock(self, product_id, quantity):
        self._client.hincrby(_key(product_id), "in_stock", -quantity)


class StorageProvider(DependencyProvider):
    def setup(self):
        uri = os.environ.get("REDIS_URI", "redis://localhost:6379/0")
        self._client = redis.Redis.from_url(uri, decode_responses=True)

    def stop(self):
        self._client.close()

    def get_dependency(self, worker_ctx):
        return Storage(self._client)

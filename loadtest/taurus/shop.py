"""What one customer of the load test does, again and again: run by Taurus (shop.yml) in as many threads as there are users.

Every answer is checked; its time counts until its last byte is there, without the check.
"""
import os
import re
import threading
import time
import unittest
import uuid
from pathlib import Path

import apiritif
import requests

URL = os.environ.get("SHOP_URL", "http://127.0.0.1:8000").rstrip("/")
TIMEOUT_S = 10  # twice the gateway's own limit: it answers first
NUMBERS = ("passenger_capacity", "maximum_speed", "in_stock")
PRICE, QUANTITY = "100000.99", 1

products = apiritif.CSVReaderPerThread(str(Path(__file__).resolve().with_name("products.csv")), delimiter=",", quoted=False)
of_thread = threading.local()


def connection():
    """A customer keeps his connection."""
    if not hasattr(of_thread, "session"):
        of_thread.session = requests.Session()
        of_thread.session.trust_env = False  # no proxy: what is measured is the shop
    return of_thread.session


class Customer(unittest.TestCase):
    def setUp(self):
        products.read_vars()
        row = products.get_vars()
        self.product = {name: int(row[name]) if name in NUMBERS else row[name] for name in row}
        self.product["id"] = f"{row['id']}_{uuid.uuid4()}"
        self.path = f"/products/{self.product['id']}"

    def ask(self, label, method, path, check, body=None, status=200):
        """The answer, as an object; one that fails ends this round, since the next request needs it."""
        with apiritif.transaction(label) as sample:
            answer = connection().request(method, URL + path, json=body, timeout=TIMEOUT_S)
            ended = time.time()
            sample.set_response_code(str(answer.status_code))
            assert answer.status_code == status, f"{answer.status_code} instead of {status}: {answer.text[:200]}"
            found = answer.json() if answer.content else None
            assert check(found), f"a wrong answer: {answer.text[:200]}"
            sample.finish(ended)
        return found

    def test_customer(self):
        self.ask("create product", "POST", "/products", lambda a: a == {"id": self.product["id"]}, self.product)
        self.ask("get product", "GET", self.path, lambda a: a == self.product)
        line = {"product_id": self.product["id"], "price": PRICE, "quantity": QUANTITY}
        created = self.ask("create order", "POST", "/orders", lambda a: type(a["id"]) is int, {"order_details": [line]})
        self.ask("get order", "GET", f"/orders/{created['id']}", lambda a: self.is_order(a, created["id"], line))
        self.ask("delete product", "DELETE", self.path, lambda a: a is None, status=204)
        self.ask("list orders", "GET", "/orders", self.is_list)

    def is_order(self, found, order_id, line):
        (detail,) = found["order_details"]
        product = {**detail["product"], "in_stock": self.product["in_stock"]}  # lowered by now, or soon
        return (
            found["id"] == order_id
            and {name: detail[name] for name in line} == line
            and product == self.product
            and detail["image"].endswith(f"/{self.product['id']}.jpg")
        )

    @staticmethod
    def is_list(found):
        ids = [order["id"] for order in found]
        return ids and ids == sorted(set(ids)) and all(re.fullmatch(r"\d+\.\d\d", d["price"]) for d in found[-1]["order_details"])

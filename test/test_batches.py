"""Calls of one moment share a message between programs of ours; a Nameko service on the same queue never notices."""
import json

import pytest

from support.amqp import FakeService
from support.http import raw_get as get
from support.http import requests_at_once
from support.shop import a_line, a_product

CLIENTS = 12
BATCH = "rpclib_batch"
MARK = "tests.mark"


class Shop:
    """A shop, and whoever listens to what goes through its exchange of requests and answers."""

    def __init__(self, shop):
        self.shop = shop
        self.spy = shop.peer()
        self.messages = self.spy.listen("nameko-rpc", "#")

    def heard(self):
        """What went through since the last time; what was answered by now was heard before the mark."""
        self.spy.send(MARK, {})
        self.spy.wait_for(lambda: self.messages and self.messages[-1].routing_key == MARK, "the mark")
        heard, self.messages[:] = self.messages[:-1], []
        return heard

    def keys(self):
        """The routing keys of requests; answers go to a uuid, which has no dot."""
        return [message.routing_key for message in self.heard() if "." in message.routing_key]

    def teach(self, product):
        """One answer tells the gateway what kind of service it talks to."""
        self.shop.http.get_product(product["id"])
        self.heard()

    def at_once(self, *requests):
        return requests_at_once(self.shop.the("gateway"), self.shop.port, requests)


def post(path, body):
    text = json.dumps(body)
    return f"POST {path} HTTP/1.1\r\nHost: shop\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


@pytest.fixture(scope="module")
def batches(make_shop):
    return Shop(make_shop().start())


@pytest.fixture(scope="module")
def products(batches):
    return [batches.shop.http.make_product(a_product()) for _ in range(CLIENTS)]


def test_reads_share_a_message_and_each_gets_its_own_answer(batches, products):
    batches.teach(products[0])
    answers = batches.at_once(*(get(f"/products/{product['id']}") for product in products))
    assert [answer.status for answer in answers] == [200] * CLIENTS
    assert [answer.json for answer in answers] == products
    keys = batches.keys()
    assert f"products.{BATCH}" in keys
    assert len(keys) < CLIENTS, f"{len(keys)} messages for {CLIENTS} requests: {keys}"


def test_errors_among_them_are_their_own(batches, products):
    batches.teach(products[0])
    answers = batches.at_once(*(get(f"/products/{product['id']}{'x' * (n % 2)}") for n, product in enumerate(products)))
    assert [answer.status for answer in answers] == [200, 404] * (CLIENTS // 2)
    assert all(product["id"] + "x" in answer.json["message"] for product, answer in list(zip(products, answers))[1::2])


def test_orders_share_messages_and_each_is_made_once(batches, products):
    batches.teach(products[0])
    stock = batches.shop.stock_in_redis(products[0]["id"])
    batches.shop.http.make_order([a_line(products[0]["id"])])
    answers = batches.at_once(*(post("/orders", {"order_details": [a_line(products[0]["id"])]}) for _ in range(CLIENTS)))
    assert [answer.status for answer in answers] == [200] * CLIENTS
    made = {answer.json["id"] for answer in answers}
    assert len(made) == CLIENTS
    batches.shop.wait_stock(products[0]["id"], stock - CLIENTS - 1)
    answers = batches.at_once(*(get(f"/orders/{order_id}") for order_id in made))
    assert {answer.json["id"] for answer in answers} == made
    assert f"orders.{BATCH}" in batches.keys()


def test_a_request_alone_is_as_nameko_sends_it(batches, products):
    batches.teach(products[0])
    batches.shop.http.get_product(products[1]["id"])
    assert batches.keys() == ["products.get"]


def test_batches_can_be_turned_off(batches, products):
    gateway = batches.shop.the("gateway")
    gateway.stop()
    gateway.environment["RPC_BATCHES"] = "no"
    gateway.start()
    gateway.wait_ready()
    try:
        batches.shop.wait_working()
        batches.teach(products[0])
        answers = batches.at_once(*(get(f"/products/{product['id']}") for product in products))
        assert [answer.json["id"] for answer in answers] == [product["id"] for product in products]
        assert batches.keys() == ["products.get"] * CLIENTS
    finally:
        gateway.stop()
        del gateway.environment["RPC_BATCHES"]
        gateway.start()
        gateway.wait_ready()
        batches.shop.wait_working()


def test_a_nameko_service_that_takes_over_refuses_one_and_answers_all(batches, products):
    """C products leaves, a service by Nameko's book takes its queue over: every request is answered all the same."""
    batches.teach(products[0])
    batches.shop.the("products").stop()

    def handle(incoming):
        if incoming.method == "get":
            incoming.answer({"id": incoming.parameter(0, "product_id"), "title": "by Nameko"})
        else:
            incoming.fail("MethodNotFound", "nameko.exceptions.MethodNotFound", incoming.method)

    service = FakeService(batches.shop.room.amqp_uri, "products", handle)
    try:
        for refuses in (True, False):
            answers = batches.at_once(*(get(f"/products/{product['id']}") for product in products))
            assert [answer.json["id"] for answer in answers] == [product["id"] for product in products]
            methods, service.requests = [incoming.method for incoming in service.requests], []
            assert (BATCH in methods) == refuses, f"after the first refusal calls go alone: {methods}"
            assert methods.count("get") == CLIENTS
    finally:
        service.stop()
        batches.shop.the("products").start()
        batches.shop.wait_working()

"""Calls of one moment share a message between programs of ours; a Nameko service on the same queue never notices."""
import json
import struct

import psycopg2
import pytest

from support.amqp import FakeService, result_of
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
            incoming.answer(a_product(incoming.parameter(0, "product_id")))
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


# ---- a batch that comes again -----------------------------------------------------------------------------------


def send_batch(peer, service, *requests):
    """Requests (method, arguments) in one message, as a client of rpclib sends them; their correlation ids."""
    index, bodies, correlation_ids = b"", [], []
    for method, *arguments in requests:
        key, body = f"{service}.{method}".encode(), json.dumps({"args": arguments, "kwargs": {}}).encode()
        properties = peer.properties()
        encoded = b"".join(properties.encode())
        index += struct.pack(">B", len(key)) + key + struct.pack(">H", len(encoded)) + encoded + struct.pack(">I", len(body))
        bodies.append(body)
        correlation_ids.append(properties.correlation_id)
    peer.send(f"{service}.{BATCH}", b"[" + b",".join(bodies) + b"]", headers={"rpclib-batch": index})
    return correlation_ids


def a_change(order, quantity):
    return {"id": order["id"], "order_details": [{"id": order["order_details"][0]["id"], "price": "1", "quantity": quantity}]}


def test_what_a_killed_service_had_answered_is_not_done_again(make_shop):
    """A slow request keeps an answered one unacknowledged; both come again, and what was changed since stays."""
    shop = make_shop()
    orders, peer = shop.add("orders", STORE_TIMEOUT_MS="60000").start().wait_ready(), shop.peer()
    answered, slow = (peer.call("orders.create_order", [a_line("p")]) for _ in range(2))
    lock = psycopg2.connect(shop.room.postgres_uri)
    try:
        with lock.cursor() as cursor:
            cursor.execute("SELECT 1 FROM order_details WHERE order_id = %s FOR UPDATE", (slow["id"],))
            first, second = send_batch(peer, "orders", ("update_order", a_change(answered, 2)), ("update_order", a_change(slow, 2)))
            assert result_of(peer.reply(first))["order_details"][0]["quantity"] == 2
            assert peer.call("orders.update_order", a_change(answered, 3))["order_details"][0]["quantity"] == 3
            assert not peer.replies.get(second)
            orders.kill()
    finally:
        lock.close()
    orders.start().wait_ready()
    assert result_of(peer.reply(second))["order_details"][0]["quantity"] == 2
    assert result_of(peer.reply(first))["order_details"][0]["quantity"] == 3
    assert peer.call("orders.get_order", answered["id"])["order_details"][0]["quantity"] == 3

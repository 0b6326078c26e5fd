#!/usr/bin/python3
"""Does the shop on Moleculer promise what ours does, where the comparison counts on it?  An extra suite: it needs Node and npm.

    loadtest/moleculer/test_shop.py     ends with "N passed, N failed"; BUILD_DIR names the build folder (build)
"""
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pika
import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.dont_write_bytecode = True

from measure import data, invariants, load, peers, suite  # noqa: E402
from measure.runs import one_shop  # noqa: E402
from measure.waiting import wait_until  # noqa: E402

PRODUCTS, ORDERS = 1000, 2000
EVENTS = "MOL.EVENTB.products.order.created"
CREATE = "MOL.REQB.orders.create"
DEADLINE_S = 10
PAUSE_MS = 60_000  # longer than it is needed; it is ended


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    if not peers.install(peers.MOLECULER):
        pytest.fail("Moleculer is not here (the words above)")
    with one_shop(tmp_path_factory.mktemp("moleculer"), "moleculer", peers.MOLECULER) as bench:
        yield bench


@pytest.fixture
def workload(bench):
    return bench.fill(bench.shops[0], PRODUCTS, ORDERS)


@pytest.fixture
def channel(bench):
    connection = pika.BlockingConnection(pika.URLParameters(bench.shops[0].room.amqp_uri))
    try:
        yield connection.channel()
    finally:
        connection.close()


def ask(shop, method, path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{shop.ports[0]}{path}", body and body.encode(), method=method)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def line(number, quantity=1, price=data.PRICE):
    return {"product_id": data.product_id(number), "price": price, "quantity": quantity}


def packet(**fields):
    common = {"ver": "4", "sender": "test", "id": "test-1", "meta": {}, "level": 1, "tracing": None, "requestID": "test-1"}
    return json.dumps({**common, **fields}).encode()


def stock(shop, number):
    with shop.room.redis() as redis:
        return int(redis.hget(f"products:{data.product_id(number)}", "in_stock"))


def orders_count(shop):
    return shop.room.query("SELECT count(*) FROM orders")[0][0]


@pytest.mark.parametrize("name", ["get_product", "post_order", "get_order", "list_orders", "mixed"])
def test_every_answer_is_right_and_the_invariants_hold(bench, workload, name):
    result = bench.generator.closed_exact(workload, name, 16, 1)
    assert load.faults(result) == [] and result["answered"] > 0
    found = invariants.check(workload.shop, workload.ledger)
    if name == "post_order":
        assert found["orders_made"] >= found["acknowledged"] >= result["answered"]


def test_an_order_of_many_lines_lowers_each_products_stock(workload):
    shop = workload.shop
    lines = [line(1, 2), line(2, 3), line(1, 5)]
    status, answer = ask(shop, "POST", "/orders", json.dumps({"order_details": lines}))
    assert status == 200
    status, order = ask(shop, "GET", f"/orders/{answer['id']}")
    assert [(one["product_id"], one["quantity"]) for one in order["order_details"]] == [
        (one["product_id"], one["quantity"]) for one in lines
    ]
    wait_until(lambda: stock(shop, 1) == data.STOCK - 7 and stock(shop, 2) == data.STOCK - 3, "the stock", DEADLINE_S)


def test_an_unknown_product_is_not_found_and_no_order_is_made(workload):
    shop, before = workload.shop, orders_count(workload.shop)
    assert ask(shop, "GET", "/products/none")[0] == 404
    lines = [line(1), {**line(1), "product_id": "none"}]
    status, answer = ask(shop, "POST", "/orders", json.dumps({"order_details": lines}))
    assert (status, answer["error"]) == (404, "PRODUCT_NOT_FOUND")
    assert ask(shop, "GET", f"/orders/{10**9}") == (404, {"error": "ORDER_NOT_FOUND", "message": f"Order with id {10**9} not found"})
    assert orders_count(shop) == before


@pytest.mark.parametrize("bad", [{"quantity": 0}, {"quantity": 1.5}, {"price": "1.005"}, {"price": "-1"}, {"product_id": 7}])
def test_a_bad_line_is_refused(workload, bad):
    before = orders_count(workload.shop)
    status, answer = ask(workload.shop, "POST", "/orders", json.dumps({"order_details": [{**line(1), **bad}]}))
    assert (status, answer["error"]) == (400, "VALIDATION_ERROR")
    assert orders_count(workload.shop) == before


def test_an_event_that_comes_twice_has_its_effect_once(workload, channel):
    shop = workload.shop
    for order in (10**6, 10**6, 10**6 + 1):
        body = {"order": {"id": order, "order_details": [{"id": 1, **line(3, 4)}]}}
        channel.basic_publish("", EVENTS, packet(event="order.created", data=body, groups=["products"], broadcast=False))
    wait_until(lambda: stock(shop, 3) <= data.STOCK - 8, "both orders' events have been handled", DEADLINE_S)
    assert stock(shop, 3) == data.STOCK - 8


def test_a_program_is_ready_when_its_queues_are_consumed(bench, workload, channel):
    """A request to a queue that is not there is lost, and there is no deadline."""
    shop = workload.shop
    for name, queues in (("products", ("MOL.REQB.products.get", "MOL.REQB.products.exists", EVENTS)), ("orders", (CREATE,))):
        shop.programs[name].pop().stop()
        for queue in queues:
            channel.queue_delete(queue)
        shop.add(name)
        for queue in queues:
            assert channel.queue_declare(queue, passive=True).method.consumer_count == 1


def test_an_event_waits_on_disk_for_products_that_is_away(bench, workload, channel):
    shop = workload.shop
    shop.programs["products"].pop().stop()
    before = orders_count(shop)
    channel.basic_publish("", CREATE, packet(action="orders.create", params={"lines": [line(5, 6)]}, timeout=0, caller=None))
    method, properties, body = wait_until(
        lambda: next((got for got in [channel.basic_get(EVENTS)] if got[0] is not None), None), "the event", DEADLINE_S
    )
    assert orders_count(shop) == before + 1, "the event comes after the commit"
    assert properties.delivery_mode == pika.spec.PERSISTENT_DELIVERY_MODE
    channel.queue_declare(EVENTS, durable=True)  # the channel would be closed if it were not
    channel.basic_nack(method.delivery_tag, requeue=True)
    assert stock(shop, 5) == data.STOCK
    shop.add("products")
    wait_until(lambda: stock(shop, 5) == data.STOCK - 6, "the stock is lowered", DEADLINE_S)


def test_an_event_is_acknowledged_after_it_was_handled(bench, workload, channel):
    """products is killed with events in hand, while its store does not answer: all of them have their effect in the end."""
    shop = workload.shop
    events = 20
    with shop.room.redis() as redis:
        redis.execute_command("CLIENT PAUSE", PAUSE_MS, "WRITE")
        try:
            for order in range(events):
                body = {"order": {"id": 2 * 10**6 + order, "order_details": [{"id": 1, **line(7)}]}}
                channel.basic_publish("", EVENTS, packet(event="order.created", data=body, groups=["products"], broadcast=False))
            wait_until(
                lambda: channel.queue_declare(EVENTS, passive=True).method.message_count == 0, "all delivered", DEADLINE_S
            )
            program = shop.programs["products"].pop()
            program.process.kill()
            program.process.wait()
            wait_until(
                lambda: channel.queue_declare(EVENTS, passive=True).method.message_count == events, "all are back", DEADLINE_S
            )
        finally:
            redis.execute_command("CLIENT UNPAUSE")
    shop.add("products")
    wait_until(lambda: stock(shop, 7) == data.STOCK - events, "the stock is lowered", DEADLINE_S)


if __name__ == "__main__":
    sys.exit(suite.run(__file__, sys.argv[1:]))

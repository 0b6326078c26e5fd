"""Events: what orders publishes, in which context, and what products makes of it, however often it arrives."""
import json
import re
import uuid

import pytest

from support.amqp import result_of
from support.shop import a_line, a_product, unique

QUEUE = "evt-orders-order_created--products.handle_order_created"
INT32_MAX = 2**31 - 1


@pytest.fixture(scope="module")
def events(peer):
    """All order_created events from here on."""
    return peer.listen_to_events("orders", "order_created")


def event_of(peer, events, order_id):
    def found():
        return [event for event in events if event.json["order"]["id"] == order_id]

    return peer.wait_for(found, f"the event of order {order_id}")[0]


def create_order(peer, lines, **overrides):
    return result_of(peer.exchange("orders.create_order", {"args": [lines], "kwargs": {}}, **overrides))


# ---- what orders publishes --------------------------------------------------------------------------------------


def test_order_created(peer, events):
    order = create_order(peer, [a_line(unique(), "100000.99", 1), a_line(unique("ü飛"), "0.5", 2)])
    event = event_of(peer, events, order["id"])
    assert (event.exchange, event.routing_key) == ("orders.events", "order_created")
    assert event.properties.delivery_mode == 2
    assert event.properties.content_type == "application/json"
    assert event.json == {"order": order}
    assert peer.call("orders.get_order", order["id"]) == order


def test_one_event_an_order(shop, peer, events):
    orders = [create_order(peer, [a_line(unique())])["id"] for _ in range(20)]
    for order_id in orders:
        event_of(peer, events, order_id)
    peer.wait_for(lambda: shop.outbox() == 0, "the outbox is empty")
    last = create_order(peer, [a_line(unique())])["id"]
    event_of(peer, events, last)
    counts = {order_id: sum(event.json["order"]["id"] == order_id for event in events) for order_id in orders}
    assert set(counts.values()) == {1}, counts


def test_no_event_without_an_order(peer, events):
    refused = unique("refused")
    peer.error("orders.create_order", [a_line(refused, "1.005")])
    order = create_order(peer, [a_line(unique())])
    event_of(peer, events, order["id"])
    assert not [event for event in events if refused.encode() in event.body]


@pytest.mark.parametrize("method", ["update_order", "delete_order"])
def test_changes_publish_no_order_created(peer, events, method):
    order = create_order(peer, [a_line(unique())])
    event_of(peer, events, order["id"])
    peer.call(f"orders.{method}", order if method == "update_order" else order["id"])
    event_of(peer, events, create_order(peer, [a_line(unique())])["id"])
    assert sum(event.json["order"]["id"] == order["id"] for event in events) == 1


# ---- the context that an event carries --------------------------------------------------------------------------


def headers_of_event(peer, events, headers):
    order = create_order(peer, [a_line(unique())], headers=headers)
    return event_of(peer, events, order["id"]).headers


def test_call_id_stack_is_extended(peer, events):
    parents = [f"web.index.{uuid.uuid4()}", f"shop.buy.{uuid.uuid4()}"]
    stack = headers_of_event(peer, events, {"nameko.call_id_stack": parents})["nameko.call_id_stack"]
    assert stack[:2] == parents and len(stack) == 3
    assert re.fullmatch(r"orders\.create_order\.[0-9a-f-]{36}", stack[2]), stack


def test_call_id_stack_keeps_ten_parents(peer, events):
    parents = [f"service.method.{number}" for number in range(15)]
    stack = headers_of_event(peer, events, {"nameko.call_id_stack": parents})["nameko.call_id_stack"]
    assert stack[:-1] == parents[-10:]
    assert stack[-1].startswith("orders.create_order.")


def test_call_id_stack_begins_here_if_nowhere(peer, events):
    stack = headers_of_event(peer, events, {})["nameko.call_id_stack"]
    assert len(stack) == 1 and stack[0].startswith("orders.create_order.")


KNOWN = {
    "nameko.auth_token": "secret-token",
    "nameko.language": "en-gb",
    "nameko.user_id": "wallace",
    "nameko.user_agent": "trousers/1.0",
}


@pytest.mark.parametrize(
    "sent, expected",
    [
        pytest.param(KNOWN, KNOWN, id="nameko's own"),
        pytest.param({"nameko.x": "1"}, {"nameko.x": "1"}, id="unknown"),
        pytest.param({"y": "2"}, {"nameko.y": "2"}, id="bare"),
        pytest.param({"nameko.a.b-c": "ü飛"}, {"nameko.a.b-c": "ü飛"}, id="utf-8"),
        pytest.param({"nameko.n": 5, "nameko.big": 2**40}, {"nameko.n": 5, "nameko.big": 2**40}, id="integers"),
        pytest.param({"nameko.t": True, "nameko.f": False}, {"nameko.t": True, "nameko.f": False}, id="booleans"),
        pytest.param({"nameko.l": ["a", 1, ["b"]]}, {"nameko.l": ["a", 1, ["b"]]}, id="array"),
        pytest.param({"nameko.o": {"k": "v", "n": {"m": 1}}}, {"nameko.o": {"k": "v", "n": {"m": 1}}}, id="table"),
        pytest.param({"nameko.e": ""}, {"nameko.e": ""}, id="empty"),
        pytest.param({"nameko.long": "v" * 20_000}, {"nameko.long": "v" * 20_000}, id="long"),
    ],
)
def test_context_is_passed_on(peer, events, sent, expected):
    got = headers_of_event(peer, events, {"nameko.call_id_stack": ["a.b.c"], **sent})
    assert {name: got.get(name) for name in expected} == expected
    assert all(name.startswith("nameko.") for name in got), f"each header is prefixed: {sorted(got)}"


def test_null_context_is_dropped(peer, events):
    got = headers_of_event(peer, events, {"nameko.call_id_stack": ["a.b.c"], "nameko.x": None, "y": None})
    assert not {"nameko.x", "nameko.y", "x", "y"} & set(got)


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize("name", ["nameko.traceparent", "traceparent"])
def test_trace_context_goes_on(peer, events, name):
    state = name.replace("parent", "state")
    got = headers_of_event(
        peer, events, {"nameko.call_id_stack": ["a"], name: f"00-{TRACE}-00f067aa0ba902b7-01", state: "vendor=1"}
    )
    version, trace, span, flags = got["nameko.traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01") and len(span) == 16
    assert got["nameko.tracestate"] == "vendor=1"


# ---- what products does with it ---------------------------------------------------------------------------------


def event_body(lines, order_id=None):
    """An order as orders would publish it, with an id that no other test has."""
    if order_id is None:
        order_id = uuid.uuid4().int % INT32_MAX + 1
    details = [
        {"id": number, "product_id": product_id, "price": "1.00", "quantity": quantity}
        for number, (product_id, quantity) in enumerate(lines, 1)
    ]
    return {"order": {"id": order_id, "order_details": details}}


def product_with_stock(peer, in_stock=100):
    product = a_product(in_stock=in_stock)
    peer.call("products.create", product)
    return product["id"]


def publish(peer, body, **overrides):
    peer.publish_event("orders", "order_created", body, **overrides)


def settle(shop, peer):
    """A later event has had its effect, and with one consumer a queue so had those before it."""
    probe = product_with_stock(peer, 1)
    publish(peer, event_body([(probe, 1)]))
    shop.wait_stock(probe, 0)


def test_stock_follows_an_order(shop, peer):
    product_id = product_with_stock(peer, 10)
    create_order(peer, [a_line(product_id, quantity=3)])
    shop.wait_stock(product_id, 7)
    assert peer.call("products.get", product_id)["in_stock"] == 7


def test_an_event_delivered_often_counts_once(shop, peer):
    product_id = product_with_stock(peer)
    body = event_body([(product_id, 3)])
    for _ in range(20):
        publish(peer, body)
    settle(shop, peer)
    shop.wait_stock(product_id, 97)


def test_an_event_of_a_real_order_delivered_again_counts_once(shop, peer, events):
    product_id = product_with_stock(peer)
    order = create_order(peer, [a_line(product_id, quantity=5)])
    event = event_of(peer, events, order["id"])
    shop.wait_stock(product_id, 95)
    publish(peer, event.body, headers=event.headers)
    settle(shop, peer)
    shop.wait_stock(product_id, 95)


def test_two_lines_of_one_product_count_together(shop, peer):
    product_id, other = product_with_stock(peer), product_with_stock(peer)
    body = event_body([(product_id, 3), (other, 1), (product_id, 4)])
    publish(peer, body)
    publish(peer, body)
    settle(shop, peer)
    shop.wait_stock(product_id, 93)
    shop.wait_stock(other, 99)


def test_each_order_counts(shop, peer):
    product_id = product_with_stock(peer)
    for _ in range(10):
        publish(peer, event_body([(product_id, 2)]))
    shop.wait_stock(product_id, 80)


def test_stock_may_become_negative(shop, peer):
    product_id = product_with_stock(peer, 1)
    publish(peer, event_body([(product_id, 5)]))
    shop.wait_stock(product_id, -4)
    assert peer.call("products.get", product_id)["in_stock"] == -4


def test_a_deleted_product_is_not_recreated(shop, peer):
    gone, there = product_with_stock(peer), product_with_stock(peer)
    peer.call("products.delete", gone)
    publish(peer, event_body([(gone, 1), (there, 1)]))
    shop.wait_stock(there, 99)
    settle(shop, peer)
    assert not shop.redis().exists(f"products:{gone}")
    assert peer.call("products.exists", gone) is False


@pytest.mark.parametrize("product_id", ["a b", "*", "a\nb", "x:y", "{tag}", "飛行船", "x" * 1024], ids=lambda x: repr(x)[:12])
def test_any_id(shop, peer, product_id):
    peer.call("products.create", a_product(product_id, in_stock=10))
    publish(peer, event_body([(product_id, 4)]))
    shop.wait_stock(product_id, 6)
    peer.call("products.delete", product_id)


def test_a_thousand_lines(shop, peer):
    ids = [product_with_stock(peer) for _ in range(10)]
    publish(peer, event_body([(ids[number % 10], 1) for number in range(1000)]))
    for product_id in ids:
        shop.wait_stock(product_id, 0)


def test_what_is_remembered_lies_elsewhere_and_ends(shop, peer):
    """Nothing under the prefix that the original lists, and nothing for ever."""
    product_id = product_with_stock(peer)
    publish(peer, event_body([(product_id, 1)]))
    shop.wait_stock(product_id, 99)
    redis = shop.redis()
    listed = {product["id"] for product in peer.call("products.list")}
    for key in redis.scan_iter(count=1000):
        if key.startswith("products:"):
            assert redis.type(key) == "hash" and set(redis.hgetall(key)) == {
                "id",
                "title",
                "passenger_capacity",
                "maximum_speed",
                "in_stock",
            }, key
            assert key[len("products:") :] in listed
        elif redis.type(key) == "string":
            assert redis.ttl(key) > 0, f"{key} stays for ever"


def _replaced(**changes):
    def change(product_id):
        body = event_body([(product_id, 1)])
        body["order"]["order_details"][0].update(changes)
        return json.dumps(body).encode()

    return change


POISON = {
    "empty": lambda _: b"",
    "text": lambda _: b"hello",
    "half": lambda _: b'{"order": {',
    "bad-utf-8": lambda _: b'{"order": "\xff"}',
    "null": lambda _: b"null",
    "array": lambda _: b"[]",
    "number": lambda _: b"5",
    "no-order": lambda _: b"{}",
    "null-order": lambda _: b'{"order": null}',
    "text-order": lambda _: b'{"order": "x"}',
    "empty-order": lambda _: b'{"order": {}}',
    "no-id": lambda p: json.dumps({"order": {"order_details": [{"product_id": p, "quantity": 1}]}}).encode(),
    "text-id": lambda p: json.dumps({"order": {"id": {}, "order_details": [{"product_id": p, "quantity": 1}]}}).encode(),
    "null-details": lambda _: b'{"order": {"id": 1, "order_details": null}}',
    "details-no-objects": lambda _: b'{"order": {"id": 1, "order_details": [null, 5, "x", []]}}',
    "product-no-string": _replaced(product_id=5),
    "product-null": _replaced(product_id=None),
    "quantity-text": _replaced(quantity="many"),
    "quantity-null": _replaced(quantity=None),
    "quantity-float": _replaced(quantity=1.5),
    "quantity-true": _replaced(quantity=True),
    "quantity-object": _replaced(quantity={}),
    "quantity-negative": _replaced(quantity=-5),
    "quantity-zero": _replaced(quantity=0),
    "quantity-2^63": _replaced(quantity=2**63),
    "quantity-2^64": _replaced(quantity=2**64),
    "quantity-10^30": _replaced(quantity=10**30),
    "deep": lambda _: b"[" * 10_000 + b"]" * 10_000,
    "huge": lambda p: json.dumps({"order": {"id": "x" * 2_000_000, "order_details": []}}).encode(),
}


@pytest.mark.parametrize("case", POISON)
def test_poison_blocks_nothing_and_changes_nothing(shop, peer, case):
    product_id = product_with_stock(peer)
    for _ in range(3):
        publish(peer, POISON[case](product_id))
    settle(shop, peer)
    assert shop.stock_in_redis(product_id) == 100
    peer.wait_for(lambda: peer.depth(QUEUE)[0] == 0, "the queue is empty")
    shop.assert_running()


@pytest.mark.parametrize(
    "overrides",
    [
        {"content_type": "text/plain"},
        {"content_type": None},
        {"headers": {"nameko.call_id_stack": 5}},
        {"headers": {"nameko.call_id_stack": [1, None]}},
        {"headers": {}},
    ],
    ids=lambda overrides: str(overrides)[:40],
)
def test_odd_properties_block_nothing(shop, peer, overrides):
    publish(peer, event_body([(product_with_stock(peer), 1)]), **overrides)
    settle(shop, peer)
    peer.wait_for(lambda: peer.depth(QUEUE)[0] == 0, "the queue is empty")


def test_stock_at_the_edge_of_its_type(shop, peer):
    """What no longer fits 64 bits is refused; nothing wraps around, nothing is stuck."""
    product_id = product_with_stock(peer, -(2**63))
    publish(peer, event_body([(product_id, 1)]))
    settle(shop, peer)
    assert shop.stock_in_redis(product_id) == -(2**63)
    assert peer.call("products.get", product_id)["in_stock"] == -(2**63)

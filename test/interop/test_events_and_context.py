"""Events both ways, and what travels with a call: user, call stack and unknown values survive a hop through C."""
import re

import pytest
from support.amqp import Peer
from support.clock import wait_until
from support.shop import a_line, a_product, unique

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
CONTEXT = {
    "user_id": "h\u00e9ctor \U0001f6a2",
    "auth_token": "t0k3n",
    "language": "en-gb",
    "user_agent": "tests/1.0",
    "tenant": "north",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "number": 7,
    "flag": True,
    "ratio": 2.5,
}


@pytest.fixture(scope="module")
def shop(make_mixed):
    shop = make_mixed()
    shop.listeners = [shop.add_listener(), shop.add_listener()]
    return shop


@pytest.fixture
def c_shop(shop):
    shop.use_all("C", "C", "C")
    return shop


def heard_once(shop, order_id):
    """The handler of the pool has it; a second copy would stand beside it."""
    wait_until(lambda: shop.heard("pool", order_id), f"order {order_id} is heard of")
    (one,) = shop.heard("pool", order_id)
    return one


# ---- ours, handled by Nameko --------------------------------------------------------------------------------------


def test_nameko_handles_our_event_in_all_three_ways(c_shop):
    with c_shop.rpc() as client:
        orders = [client.orders.create_order([a_line("anything", "1.50", 2)]) for _ in range(10)]
    for order in orders:
        wait_until(lambda: len(c_shop.heard("broadcast", order["id"])) == 2, "both instances hear a broadcast")
        wait_until(lambda: c_shop.heard("pool", order["id"]), "one instance of the pool hears it")
        wait_until(lambda: c_shop.heard("singleton", order["id"]), "one handler of all hears it")
    for order in orders:  # behind the last one's arrival nothing of an earlier one is still to come
        assert len(c_shop.heard("pool", order["id"])) == 1
        assert len(c_shop.heard("singleton", order["id"])) == 1
        for kind in ("pool", "singleton", "broadcast"):
            assert all(one["payload"] == {"order": order} for one in c_shop.heard(kind, order["id"]))


def test_our_event_travels_as_nameko_s(c_shop):
    """The message itself, beside that of a Python service."""
    with_peer = Peer(c_shop.room.amqp_uri)
    inbox = with_peer.listen_to_events("orders", "order_created")
    messages = {}
    for language in ("C", "Python"):
        c_shop.use("orders", language)
        with c_shop.rpc(context={"user_id": "u"}) as client:
            order = client.orders.create_order([a_line("anything")])
        messages[language] = with_peer.wait_for(
            lambda: [one for one in inbox if one.json["order"]["id"] == order["id"]], f"the event of order {order['id']}"
        )[0]
    ours, python_s = messages["C"], messages["Python"]
    for name in ("content_type", "content_encoding", "delivery_mode"):
        assert getattr(ours.properties, name) == getattr(python_s.properties, name), name
    assert set(ours.headers) == set(python_s.headers)
    assert (ours.exchange, ours.routing_key) == (python_s.exchange, python_s.routing_key)
    assert set(ours.json) == set(python_s.json) and set(ours.json["order"]) == set(python_s.json["order"])
    with_peer.close()


# ---- Nameko's, handled by ours ------------------------------------------------------------------------------------


@pytest.mark.parametrize("orders", ["C", "Python"])
@pytest.mark.parametrize("products", ["C", "Python"])
def test_stock_follows_orders(shop, products, orders):
    shop.use("products", products)
    shop.use("orders", orders)
    product = a_product(unique("events"), in_stock=100)
    with shop.rpc() as client:
        client.products.create(product)
        for quantity in (1, 2, 3):
            client.orders.create_order([a_line(product["id"], "1.00", quantity)] * 2)
    shop.wait_stock(product["id"], 88)


def test_an_event_of_nameko_s_dispatcher_counts_once(c_shop):
    """It sends no headers at all; and delivered twice, the same order still counts once."""
    product = a_product(unique("dispatched"), in_stock=100)
    order = {"id": 2_000_000_001, "order_details": [{"id": 1, "product_id": product["id"], "price": "1.00", "quantity": 7}]}
    other = {**order, "id": 2_000_000_002}
    with c_shop.rpc() as client:
        client.products.create(product)
    c_shop.dispatch("orders", "order_created", {"order": order})
    c_shop.wait_stock(product["id"], 93)
    c_shop.dispatch("orders", "order_created", {"order": order})
    c_shop.dispatch("orders", "order_created", {"order": other})
    c_shop.wait_stock(product["id"], 86)  # 79 if the second copy had counted: events are handled in turn
    assert heard_once(c_shop, other["id"])


def test_an_event_of_a_deleted_product_makes_none(c_shop):
    gone, kept = a_product(unique("gone")), a_product(unique("kept"), in_stock=50)
    order = {
        "id": 2_000_000_003,
        "order_details": [
            {"id": 1, "product_id": gone["id"], "price": "1.00", "quantity": 1},
            {"id": 2, "product_id": kept["id"], "price": "1.00", "quantity": 1},
        ],
    }
    with c_shop.rpc() as client:
        client.products.create(kept)
    c_shop.dispatch("orders", "order_created", {"order": order})
    c_shop.wait_stock(kept["id"], 49)
    assert c_shop.redis().exists(f"products:{gone['id']}") == 0


# ---- context ------------------------------------------------------------------------------------------------------


def check_stack(stack, *expected):
    assert isinstance(stack, list) and len(stack) == len(expected), stack
    for entry, pattern in zip(stack, expected):
        assert re.fullmatch(pattern, entry), f"{entry} in {stack}"


STANDALONE = rf"standalone_rpc_(client|proxy)\.({UUID}|call)\.{UUID}"


@pytest.mark.parametrize("language", ["C", "Python"])
def test_context_survives_a_hop(shop, language):
    """Nameko's client -> orders, in each language -> Nameko's handler: the handler cannot tell which it was."""
    shop.use("orders", language)
    with shop.rpc(context=dict(CONTEXT)) as client:
        order = client.orders.create_order([a_line("anything")])
    context = heard_once(shop, order["id"])["context"]
    stack = context.pop("call_id_stack")
    assert context == CONTEXT
    check_stack(stack, STANDALONE, rf"orders\.create_order\.{UUID}", rf"listener\.on_pool\.{UUID}")


@pytest.mark.parametrize("gateway, orders", [("C", "Python"), ("Python", "C"), ("C", "C")])
def test_the_stack_from_http_to_the_event(shop, gateway, orders):
    shop.use_all("C", orders, gateway)
    product = shop.http.make_product(a_product(unique("stack")))
    order_id = shop.http.make_order([a_line(product["id"])])
    stack = heard_once(shop, order_id)["context"]["call_id_stack"]
    check_stack(stack, rf"gateway\.[a-z_]+\.{UUID}", rf"orders\.create_order\.{UUID}", rf"listener\.on_pool\.{UUID}")


@pytest.mark.parametrize("language", ["C", "Python"])
def test_a_long_stack_keeps_its_newest(shop, language):
    """Ten parents and the call itself."""
    shop.use("orders", language)
    peer = Peer(shop.room.amqp_uri)
    parents = [f"service.method.{number}" for number in range(30)]
    headers = {"nameko.call_id_stack": parents, "nameko.nothing": None, "bare": "value"}
    answer = peer.exchange("orders.create_order", {"args": [[a_line("anything")]], "kwargs": {}}, headers=headers)
    peer.close()
    context = heard_once(shop, answer.json["result"]["id"])["context"]
    stack = context.pop("call_id_stack")
    check_stack(stack[-2:], rf"orders\.create_order\.{UUID}", rf"listener\.on_pool\.{UUID}")
    assert stack[:-2] == parents[-9:]
    assert context == {"bare": "value"}

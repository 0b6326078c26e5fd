"""A C gateway before Python services: what it can check itself it checks, and whatever they do, clients get an answer."""
import time

import pytest
from support.clock import ANSWER_S, RPC_TIMEOUT_SHORT_MS, SLACK_S
from support.http import check_error, path_of
from support.shop import a_line, a_product, unique

TIMEOUT_MS = RPC_TIMEOUT_SHORT_MS


@pytest.fixture(scope="module")
def shop(make_mixed):
    shop = make_mixed()
    shop.use("products", "Python")
    shop.use("orders", "Python")
    shop.use("gateway", "C", RPC_TIMEOUT_MS=str(TIMEOUT_MS))
    return shop


@pytest.fixture(scope="module")
def product(shop):
    return shop.http.make_product(a_product(unique("before-python"), in_stock=1000))


def orders_and_stock(shop, product):
    return shop.query("SELECT count(*), max(id) FROM orders"), shop.redis().hgetall(f"products:{product['id']}")


@pytest.mark.parametrize(
    "field, value",
    [
        ("price", "1.005"),
        ("price", 1.005),
        ("price", "-1"),
        ("price", "1e3"),
        ("price", " 1"),
        ("price", "NaN"),
        ("price", "1" + "0" * 16),
        ("price", "\u0661\u0662"),
        ("quantity", 0),
        ("quantity", -1),
        ("quantity", 2**31),
        ("quantity", 3.7),
        ("quantity", True),
        ("quantity", "x"),
        ("product_id", ""),
        ("product_id", "x" * 1025),
        ("product_id", "a\0b"),
    ],
)
def test_a_line_that_python_would_take_or_choke_on(shop, product, field, value):
    before = orders_and_stock(shop, product)
    response = shop.http.post("/orders", {"order_details": [{**a_line(product["id"]), field: value}]})
    assert response.status == 400 and response.json["error"] in ("VALIDATION_ERROR", "BAD_REQUEST"), str(response)
    if value != "a\0b":
        check_error(response, 400, "VALIDATION_ERROR", field)
    assert orders_and_stock(shop, product) == before


@pytest.mark.parametrize("lines", [[], [None], None, "text", {}])
def test_no_order_from_no_lines(shop, product, lines):
    before = orders_and_stock(shop, product)
    check_error(shop.http.post("/orders", {"order_details": lines}), 400, "VALIDATION_ERROR")
    assert orders_and_stock(shop, product) == before


def test_more_lines_than_allowed(shop, product):
    before = orders_and_stock(shop, product)
    lines = [a_line(product["id"], "1.00")] * 1001
    check_error(shop.http.post("/orders", {"order_details": lines}), 400, "VALIDATION_ERROR")
    assert orders_and_stock(shop, product) == before


@pytest.mark.parametrize(
    "field, value",
    [("in_stock", 3.7), ("in_stock", True), ("maximum_speed", 2**63), ("id", ""), ("id", "x" * 1025), ("title", 5)],
)
def test_a_product_that_python_would_bend(shop, field, value):
    body = a_product(unique("bent"), **{field: value})
    keys = set(shop.redis().keys("products:*"))
    check_error(shop.http.post("/products", body), 400, "VALIDATION_ERROR", field)
    assert set(shop.redis().keys("products:*")) == keys


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": NaN}',
        b'{"id": "a", "id": "b"}',
        b'{"id": "\\ud800"}',
        b'{"id": "\xff"}',
        b"{} {}",
        b"[" * 10000,
    ],
)
@pytest.mark.parametrize("path", ["/products", "/orders"])
def test_what_is_no_strict_json(shop, path, body):
    check_error(shop.http.post(path, body), 400, "BAD_REQUEST", "Invalid json: ")


@pytest.mark.parametrize("path", ["/products", "/orders"])
def test_a_body_of_null(shop, path):
    check_error(shop.http.post(path, b"null"), 400, "VALIDATION_ERROR")


@pytest.mark.parametrize("order_id", ["0", "-1", "2147483648", "9" * 30, "abc", "1.5"])
def test_an_order_id_that_cannot_exist(shop, order_id):
    check_error(shop.http.get(f"/orders/{order_id}"), 404, "ORDER_NOT_FOUND")


def test_unknown_paths_and_methods(shop):
    assert shop.http.get("/nowhere").status == 404
    response = shop.http.request("PUT", "/orders", b"{}")
    assert response.status == 405 and response.header("Allow"), str(response)
    assert set(response.json) == {"error", "message"}


@pytest.mark.parametrize("product_id", ["a/b.c", "a b*#\n", "über/\u2708", "x" * 1024, ".", "..", "%41"])
def test_any_id_lives_its_whole_life(shop, product_id):
    http = shop.http
    product = http.make_product(a_product(product_id, in_stock=9))
    assert http.get_product(product_id) == product
    order = http.get_order(http.make_order([a_line(product_id, "2.00", 2)]))
    assert order["order_details"][0]["product"]["id"] == product_id
    shop.wait_stock(product_id, 7)
    assert http.delete(path_of("products", product_id)).status == 204
    check_error(http.get(path_of("products", product_id)), 404, "PRODUCT_NOT_FOUND")
    assert http.get_order(order["id"])["order_details"][0]["product"] is None


def test_the_same_product_in_many_lines(shop, product):
    order = shop.http.get_order(shop.http.make_order([a_line(product["id"], "0.50")] * 20))
    assert len(order["order_details"]) == 20
    assert {detail["product"]["id"] for detail in order["order_details"]} == {product["id"]}


def test_a_list_without_parameters_asks_only_what_python_knows(shop, product):
    made = shop.http.make_order([a_line(product["id"])])
    response = shop.http.get("/orders")
    assert response.status == 200 and made in [order["id"] for order in response.json]


def test_a_page_is_right_or_an_error_but_never_wrong(shop, product):
    first, second = shop.http.make_order([a_line(product["id"])]), shop.http.make_order([a_line(product["id"])])
    response = shop.http.get(f"/orders?after={first - 1}&limit=1")
    if response.status == 200:
        assert [order["id"] for order in response.json] == [first]
    else:
        check_error(response, 500, "UNEXPECTED_ERROR")
    for query in ("limit=0", "limit=x", "after=-1", "after=x"):
        check_error(shop.http.get(f"/orders?{query}"), 400, "VALIDATION_ERROR")
    assert second > first


def test_an_exception_it_does_not_know(shop, product):
    """The Python service raises psycopg2's own error: nothing of it is shown, and nothing hangs."""
    order_id = shop.http.make_order([a_line(product["id"])])
    shop.query("ALTER TABLE order_details RENAME TO hidden_details")
    try:
        for response in (shop.http.get(f"/orders/{order_id}"), shop.http.get("/orders")):
            message = check_error(response, 500, "UNEXPECTED_ERROR")
            for word in ("order_details", "relation", "psycopg", "SELECT", "Undefined"):
                assert word not in message, message
    finally:
        shop.query("ALTER TABLE hidden_details RENAME TO order_details")
    assert shop.http.get_order(order_id)["id"] == order_id


def test_an_idempotency_key_that_python_does_not_know(shop, product):
    """Whatever ours asks of orders for it, a Python service has never heard of: the answers are as without a key."""
    headers = {"Idempotency-Key": unique("key")}
    missing = unique("missing")
    response = shop.http.post("/orders", {"order_details": [a_line(missing)]}, headers=headers)
    assert check_error(response, 404, "PRODUCT_NOT_FOUND") == f"Product Id {missing}"
    order_id = shop.http.make_order([a_line(product["id"])], headers={"Idempotency-Key": unique("key")})
    assert shop.http.get_order(order_id)["id"] == order_id


def timed(call):
    began = time.monotonic()
    response = call()
    return response, time.monotonic() - began


def test_a_service_that_does_not_answer(shop, product):
    """Python stands still: 504 in time, told apart by what may have happened; then all is well again."""
    order_id = shop.http.make_order([a_line(product["id"])])
    limit_s = TIMEOUT_MS / 1000 + SLACK_S
    orders = shop.the("orders")
    orders.pause()
    try:
        response, took_s = timed(lambda: shop.http.get(f"/orders/{order_id}"))
        check_error(response, 504, "TIMEOUT")
        assert took_s < limit_s, took_s
        response, took_s = timed(lambda: shop.http.post("/orders", {"order_details": [a_line(product["id"])]}))
        check_error(response, 504, "OUTCOME_UNKNOWN")
        assert took_s < limit_s, took_s
        assert shop.http.get_product(product["id"])["id"] == product["id"]  # products is not concerned
    finally:
        orders.resume()
    assert shop.http.get_order(order_id)["id"] == order_id


def test_a_service_that_nobody_runs(make_mixed):
    """No queue is bound: 503 at once, long before the deadline."""
    shop = make_mixed()
    shop.use("gateway", "C", RPC_TIMEOUT_MS=str(int(ANSWER_S * 1000)))
    for call in (
        lambda: shop.http.get("/products/x"),
        lambda: shop.http.get("/orders"),
        lambda: shop.http.post("/products", a_product()),
        lambda: shop.http.post("/orders", {"order_details": [a_line("x")]}),
    ):
        response, took_s = timed(call)
        check_error(response, 503, "SERVICE_UNAVAILABLE")
        assert took_s < ANSWER_S / 4, took_s
    shop.use("products", "Python")
    assert shop.http.make_product(a_product(unique()))

"""The gateway between HTTP and services that the tests play themselves: what it asks, and what it makes of any answer."""
import contextlib
import json
import re
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.amqp import FakeService
from support.clock import ANSWER_S, RPC_TIMEOUT_SHORT_MS, SLACK_S, TIME_SCALE, wait_until
from support.http import RawConnection, check_error, path_of, raw_request
from support.shop import a_line, a_product

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
TIMEOUT_MS = RPC_TIMEOUT_SHORT_MS


class Backends:
    """products and orders as the tests want them; each request is answered by `answers`, or kept for later."""

    def __init__(self, uri):
        self.answers = {}
        self.kept = []
        self.services = [FakeService(uri, name, self._handle) for name in ("products", "orders")]

    def _handle(self, incoming):
        answer = self.answers.get(incoming.routing_key)
        if answer is None:
            self.kept.append(incoming)
        elif callable(answer):
            answer(incoming)
        else:
            incoming.answer(answer)

    def of(self, routing_key):
        return [one for service in self.services for one in service.requests if one.routing_key == routing_key]

    def reset(self):
        self.answers.clear()
        self.kept.clear()
        for service in self.services:
            service.requests.clear()

    def stop(self):
        for service in self.services:
            service.stop()


@pytest.fixture(scope="module")
def gateway_shop(make_shop):
    return make_shop(rpc_timeout_ms=TIMEOUT_MS)


@pytest.fixture(scope="module")
def all_backends(gateway_shop):
    backends = Backends(gateway_shop.room.amqp_uri)
    gateway_shop.start(products=0, orders=0, gateways=1)
    yield backends
    backends.stop()


@pytest.fixture
def backends(all_backends):
    all_backends.reset()
    return all_backends


@pytest.fixture
def http(gateway_shop, backends):
    return gateway_shop.http


def in_background(function, *args, **kwargs):
    pool = ThreadPoolExecutor(1)
    future = pool.submit(function, *args, **kwargs)
    pool.shutdown(wait=False)
    return future


ORDER = {
    "id": 7,
    "order_details": [
        {"id": 1, "product_id": "a", "price": "1.00", "quantity": 1},
        {"id": 2, "product_id": "b", "price": "2.50", "quantity": 2},
        {"id": 3, "product_id": "a", "price": "3.00", "quantity": 3},
    ],
}


# ---- what it asks -----------------------------------------------------------------------------------------------


def test_a_request_by_the_book(http, backends):
    product = a_product("a b/ü")
    backends.answers["products.get"] = product
    response = http.get(path_of("products", product["id"]))
    assert (response.status, response.json) == (200, product)
    (request,) = backends.of("products.get")
    properties = request.properties
    assert (request.exchange, request.routing_key) == ("nameko-rpc", "products.get")
    assert properties.content_type == "application/json"
    assert properties.content_encoding == "utf-8"
    assert re.fullmatch(UUID, properties.correlation_id), properties.correlation_id
    assert properties.reply_to
    assert properties.delivery_mode == 1
    assert 0 < int(properties.expiration) <= TIMEOUT_MS
    assert set(request.json) == {"args", "kwargs"}
    assert request.parameter(0, "product_id") == product["id"]
    args, kwargs = request.parameters
    assert len(args) + len(kwargs) == 1
    stack = request.headers["nameko.call_id_stack"]
    assert stack and all(re.fullmatch(r"[^.]+\.[^.]+\.[^.]+", one) for one in stack), stack
    assert all(name.startswith("nameko.") for name in request.headers), request.headers


def test_each_request_has_ids_of_its_own(http, backends):
    backends.answers["products.get"] = a_product("x")
    for _ in range(5):
        assert http.get("/products/x").status == 200
    requests = backends.of("products.get")
    assert len({one.properties.correlation_id for one in requests}) == 5
    assert len({one.headers["nameko.call_id_stack"][-1] for one in requests}) == 5


def test_product_routes_ask_for_that_product_alone(http, backends):
    product = a_product()
    backends.answers.update({"products.create": None, "products.delete": None})
    backends.answers["products.create"] = lambda incoming: incoming.answer(None)
    backends.answers["products.delete"] = lambda incoming: incoming.answer(None)
    assert http.post("/products", {**product, "unknown": 1}).status == 200
    assert http.delete(path_of("products", product["id"])).status == 204
    (create,) = backends.of("products.create")
    assert {name: value for name, value in create.parameter(0, "product").items() if name != "unknown"} == product
    (delete,) = backends.of("products.delete")
    assert delete.parameter(0, "product_id") == product["id"]
    assert sum(len(service.requests) for service in backends.services) == 2


def test_get_order_asks_for_each_product_once_and_all_at_the_same_time(http, backends):
    backends.answers["orders.get_order"] = ORDER
    future = in_background(http.get, "/orders/7")
    wait_until(lambda: len(backends.kept) == 2, "both products are asked for before either has answered")
    assert sorted(one.parameter(0, "product_id") for one in backends.kept) == ["a", "b"]
    assert {one.routing_key for one in backends.kept} == {"products.get"}
    for one in sorted(backends.kept, key=lambda one: one.parameter(0, "product_id"), reverse=True):
        one.answer(a_product(one.parameter(0, "product_id")))
    order = future.result(ANSWER_S).json
    assert [line["product"]["id"] for line in order["order_details"]] == ["a", "b", "a"]
    assert [line["price"] for line in order["order_details"]] == ["1.00", "2.50", "3.00"]
    (request,) = backends.of("orders.get_order")
    assert request.parameter(0, "order_id") == 7
    assert len(backends.kept) == 2


MEBIBYTE = 1024 * 1024


def an_order_of(product_ids):
    return {"id": 7, "order_details": [{"id": at, **a_line(one)} for at, one in enumerate(product_ids)]}


def peak_of_worker(gateway):
    """The most memory that the process which does the work ever had, in bytes."""
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
    status = Path(f"/proc/{children[0]}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def test_a_large_product_on_many_lines_is_refused_before_it_is_printed(gateway_shop, http, backends):
    backends.answers["products.get"] = a_product("large", title="x" * MEBIBYTE)
    backends.answers["orders.get_order"] = an_order_of(["large"] * 32)
    assert len(http.get("/orders/7").body) > 32 * MEBIBYTE
    before = peak_of_worker(gateway_shop.the("gateway"))
    backends.answers["orders.get_order"] = an_order_of(["large"] * 1000)
    check_error(http.get("/orders/7"), 500, "UNEXPECTED_ERROR", "larger than 64 MiB")
    assert peak_of_worker(gateway_shop.the("gateway")) < before + 16 * MEBIBYTE


def test_post_order_asks_whether_each_product_exists_all_at_the_same_time(http, backends):
    lines = [a_line(product_id) for product_id in ("x", "y", "z", "x", "y")]
    future = in_background(http.post, "/orders", {"order_details": lines})
    wait_until(lambda: len(backends.kept) == 3, "all three products are asked for before any has answered")
    assert {one.routing_key for one in backends.kept} == {"products.exists"}
    assert sorted(one.parameter(0, "product_id") for one in backends.kept) == ["x", "y", "z"]
    for one in list(backends.kept):
        assert not backends.of("orders.create_order"), "the order is made before its products are known to exist"
        one.answer(True)
    wait_until(lambda: backends.of("orders.create_order"), "the order is made")
    (create,) = backends.of("orders.create_order")
    details = create.parameter(0, "order_details")
    assert [(line["product_id"], line["price"], line["quantity"]) for line in details] == [
        (line["product_id"], line["price"], line["quantity"]) for line in lines
    ]
    create.answer({"id": 42, "order_details": []})
    assert future.result(ANSWER_S).json == {"id": 42}


def test_a_missing_product_is_named_whatever_order_the_answers_come_in(http, backends):
    lines = [a_line(product_id) for product_id in ("there", "first", "second")]
    future = in_background(http.post, "/orders", {"order_details": lines})
    wait_until(lambda: len(backends.kept) == 3, "all products are asked for")
    by_id = {one.parameter(0, "product_id"): one for one in backends.kept}
    by_id["second"].answer(False)
    by_id["there"].answer(True)
    by_id["first"].answer(False)
    message = check_error(future.result(ANSWER_S), 404, "PRODUCT_NOT_FOUND")
    assert message == "Product Id first"
    assert not backends.of("orders.create_order")


def test_the_idempotency_key_travels_as_context(http, backends):
    backends.answers["products.exists"] = True
    backends.answers["orders.create_order"] = {"id": 1, "order_details": []}
    key = str(uuid.uuid4())
    http.post("/orders", {"order_details": [a_line("x")]}, headers={"Idempotency-Key": key})
    http.post("/orders", {"order_details": [a_line("x")]})
    first, second = backends.of("orders.create_order")
    assert first.headers["nameko.idempotency_key"] == key
    assert "nameko.idempotency_key" not in second.headers


def test_a_price_stays_text_on_its_way(http, backends):
    """No float between HTTP and the order."""
    backends.answers["products.exists"] = True
    backends.answers["orders.create_order"] = {"id": 1, "order_details": []}
    for price in ("9007199254740993.01", "0.1", "100000.99"):
        http.post("/orders", {"order_details": [a_line("x", price)]})
        sent = backends.of("orders.create_order")[-1].parameter(0, "order_details")[0]["price"]
        assert isinstance(sent, str) and float(sent) == float(price) and sent.startswith(price)


def test_a_python_service_gets_no_parameter_that_it_does_not_know(http, backends):
    backends.answers["orders.list_orders"] = [ORDER]
    response = http.get("/orders")
    assert (response.status, response.json) == (200, [ORDER])
    (request,) = backends.of("orders.list_orders")
    assert request.parameters == ([], {})


def test_pages_are_asked_for_by_name_or_position(http, backends):
    backends.answers["orders.list_orders"] = []
    assert http.get("/orders?after=5&limit=3").json == []
    (request,) = backends.of("orders.list_orders")
    args, kwargs = request.parameters
    assert len(args) + len(kwargs) <= 2
    assert request.parameter(0, "after") == 5
    assert 3 <= request.parameter(1, "limit") <= 4  # one more than asked for tells whether more follow


@pytest.mark.parametrize(
    "path", ["/orders/0", "/orders/-1", "/orders/2147483648", "/orders/abc", "/orders?limit=0", "/orders?after=x", "/nothing"]
)
def test_what_it_can_tell_itself_it_asks_nobody(http, backends, path):
    http.get(path)
    assert sum(len(service.requests) for service in backends.services) == 0


@pytest.mark.parametrize(
    "line", [a_line("x", "1.005"), a_line("x", quantity=0), a_line("x", quantity=2**31), a_line("x", "-1"), a_line("x", True),
             a_line("", "1"), a_line("x" * 1025, "1"), a_line("x", quantity=3.7), a_line("x", quantity=True)],
    ids=lambda line: str(line)[:60],
)  # fmt: skip
def test_a_bad_order_bothers_nobody(http, backends, line):
    """A Python orders service would have rounded it, cut it, or broken on it."""
    check_error(http.post("/orders", {"order_details": [line]}), 400, "VALIDATION_ERROR")
    assert sum(len(service.requests) for service in backends.services) == 0


# ---- what it makes of errors ------------------------------------------------------------------------------------


def failing(exc_type, exc_path, value="the reason", exc_args=None):
    return lambda incoming: incoming.fail(exc_type, exc_path, value, exc_args)


ERRORS = [
    ("NotFound", "products.exceptions.NotFound", 404, "PRODUCT_NOT_FOUND"),
    ("ServiceUnavailable", "products.exceptions.ServiceUnavailable", 503, "SERVICE_UNAVAILABLE"),
    ("ServiceBusy", "products.exceptions.ServiceBusy", 503, "SERVICE_UNAVAILABLE"),
    ("OutcomeUnknown", "products.exceptions.OutcomeUnknown", 504, None),
    ("UnexpectedError", "products.exceptions.UnexpectedError", 500, "UNEXPECTED_ERROR"),
    ("KeyError", "builtins.KeyError", 500, "UNEXPECTED_ERROR"),
    ("MethodNotFound", "nameko.exceptions.MethodNotFound", 500, "UNEXPECTED_ERROR"),
    ("IncorrectSignature", "nameko.exceptions.IncorrectSignature", 500, "UNEXPECTED_ERROR"),
    ("MalformedRequest", "nameko.exceptions.MalformedRequest", 500, "UNEXPECTED_ERROR"),
    ("Wonderful", "made.up.Wonderful", 500, "UNEXPECTED_ERROR"),
    ("", "", 500, "UNEXPECTED_ERROR"),
]


@pytest.mark.parametrize("exc_type, exc_path, status, code", ERRORS, ids=[one[0] for one in ERRORS])
def test_an_error_of_products(http, backends, exc_type, exc_path, status, code):
    backends.answers["products.get"] = failing(exc_type, exc_path)
    response = http.get("/products/x")
    check_error(response, status, code)
    if exc_type == "ServiceBusy":
        assert int(response.header("Retry-After")) > 0, str(response)


@pytest.mark.parametrize("exc_type, exc_path, status, code", ERRORS, ids=[one[0] for one in ERRORS])
def test_the_same_error_of_orders(http, backends, exc_type, exc_path, status, code):
    backends.answers["orders.get_order"] = failing(exc_type, exc_path.replace("products.", "orders."))
    check_error(http.get("/orders/1"), status, {"PRODUCT_NOT_FOUND": "ORDER_NOT_FOUND"}.get(code, code))


def test_validation_error_of_a_service(http, backends):
    data = {"in_stock": ["Not a valid integer."]}
    backends.answers["products.create"] = failing(
        "ValidationError", "marshmallow.exceptions.ValidationError", repr(data), [data]
    )
    check_error(http.post("/products", a_product()), 400, "VALIDATION_ERROR", "in_stock")


@pytest.mark.parametrize(
    "exc_type, status, code",
    [
        ("OutcomeUnknown", 504, "OUTCOME_UNKNOWN"),
        ("ServiceUnavailable", 503, "SERVICE_UNAVAILABLE"),
        ("ServiceBusy", 503, "SERVICE_UNAVAILABLE"),
        ("DataError", 500, "UNEXPECTED_ERROR"),
    ],
)
def test_an_error_of_create_order(http, backends, exc_type, status, code):
    backends.answers["products.exists"] = True
    backends.answers["orders.create_order"] = failing(exc_type, f"orders.exceptions.{exc_type}")
    check_error(http.post("/orders", {"order_details": [a_line("x")]}), status, code)


def test_errors_of_a_service_do_not_leak(http, backends):
    """Whatever a neighbour blurts out stays inside."""
    secret = 'relation "orders" does not exist LINE 1: SELECT * FROM orders /srv/app/models.py'
    backends.answers["orders.get_order"] = failing("ProgrammingError", "psycopg2.errors.ProgrammingError", secret)
    message = check_error(http.get("/orders/1"), 500, "UNEXPECTED_ERROR")
    for word in ("SELECT", "relation", "models.py", "psycopg2"):
        assert word not in message, message


def test_the_product_of_a_line_was_deleted(http, backends):
    backends.answers["orders.get_order"] = ORDER

    def get(incoming):
        if incoming.parameter(0, "product_id") == "b":
            incoming.fail("NotFound", "products.exceptions.NotFound", "Product ID b does not exist")
        else:
            incoming.answer(a_product("a"))

    backends.answers["products.get"] = get
    response = http.get("/orders/7")
    assert response.status == 200, str(response)
    assert [line["product"] and line["product"]["id"] for line in response.json["order_details"]] == ["a", None, "a"]


def test_one_product_fails_for_another_reason(http, backends):
    """Half an order is no order: the failure is told."""
    backends.answers["orders.get_order"] = ORDER

    def get(incoming):
        if incoming.parameter(0, "product_id") == "b":
            incoming.fail("ServiceUnavailable", "products.exceptions.ServiceUnavailable", "redis since 12:00")
        else:
            incoming.answer(a_product("a"))

    backends.answers["products.get"] = get
    check_error(http.get("/orders/7"), 503, "SERVICE_UNAVAILABLE")


# ---- what it makes of nonsense ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"result": {}}',
        b'{"error": null}',
        b'{"error": {}, "result": null}',
        b'{"error": "text", "result": null}',
        b'{"error": 5, "result": null}',
        b'{"error": {"exc_type": 5, "exc_path": null, "exc_args": {}, "value": []}, "result": null}',
        b'{"result": "\xff", "error": null}',
        b'{"result": NaN, "error": null}',
        b'{"result": null, "error": null} x',
        b"[" * 10_000,
    ],
    ids=lambda body: repr(body)[:50],
)
def test_a_malformed_response(gateway_shop, http, backends, body):
    """The fault of a neighbour: 500 at once, not a hang, and never a 200 of nonsense."""
    backends.answers["products.get"] = lambda incoming: incoming.answer_raw(body)
    response = http.get("/products/x")
    check_error(response, 500, "UNEXPECTED_ERROR")
    gateway_shop.assert_running()


@pytest.mark.parametrize("result", [None, 5, "yes", {}, []], ids=repr)
def test_neither_there_nor_not(gateway_shop, http, backends, result):
    """products.exists says something else than true or false: that is no reason to say that there is no such product."""
    backends.answers["products.exists"] = lambda incoming: incoming.answer(result)
    check_error(http.post("/orders", {"order_details": [a_line("x")]}), 500, "UNEXPECTED_ERROR")
    assert not backends.of("orders.create_order")


def without(product, field):
    return {name: value for name, value in product.items() if name != field}


FIELDS = ("id", "title", "passenger_capacity", "maximum_speed", "in_stock")
NO_PRODUCTS = {
    "null": None,
    "a number": 5,
    "a text": "x",
    "a list": [a_product("x")],
    "nothing": {},
    "an id alone": {"id": "x"},
    "another one": a_product("y"),
    "another spelling": a_product("X"),
    "more of an id": a_product("xx"),
    **{f"without {field}": without(a_product("x"), field) for field in FIELDS},
    **{f"{field} null": a_product("x", **{field: None}) for field in FIELDS},
    **{f"{field} a list": a_product("x", **{field: []}) for field in FIELDS},
    **{f"{field} true": a_product("x", **{field: True}) for field in FIELDS},
    "title a number": a_product("x", title=5),
    **{f"{field} a text": a_product("x", **{field: "5"}) for field in FIELDS[2:]},
    **{f"{field} a fraction": a_product("x", **{field: 5.5}) for field in FIELDS[2:]},
    **{f"{field} beyond 64 bits": a_product("x", **{field: 2**63}) for field in FIELDS[2:]},
}


def answer_as_printed(incoming, result):
    """As the C service prints it: without any space."""
    incoming.answer_raw(json.dumps({"result": result, "error": None}, separators=(",", ":"), ensure_ascii=False).encode())


def answer_by_nameko(incoming, result):
    incoming.answer(result)


PRINTERS = [answer_as_printed, answer_by_nameko]
ONE_OF_X = {"id": 7, "order_details": [{"id": 1, "product_id": "x", "price": "1.00", "quantity": 1}]}


@pytest.mark.parametrize("printed", PRINTERS)
@pytest.mark.parametrize("what", NO_PRODUCTS)
def test_a_product_that_is_none(http, backends, what, printed):
    """What a service says of a product is checked like what a client says of one; nothing of it goes out."""
    backends.answers["products.get"] = lambda incoming: printed(incoming, NO_PRODUCTS[what])
    backends.answers["orders.get_order"] = ONE_OF_X
    for path in ("/products/x", "/orders/7"):
        check_error(http.get(path), 500, "UNEXPECTED_ERROR")


@pytest.mark.parametrize("field", FIELDS)
def test_a_product_that_says_a_field_twice(http, backends, field):
    text = json.dumps(a_product("x"))
    text = f'{text[:-1]}, "{field}": {json.dumps(a_product("x")[field])}}}'
    backends.answers["products.get"] = lambda incoming: incoming.answer_raw(f'{{"result": {text}, "error": null}}'.encode())
    backends.answers["orders.get_order"] = ONE_OF_X
    for path in ("/products/x", "/orders/7"):
        check_error(http.get(path), 500, "UNEXPECTED_ERROR")


@pytest.mark.parametrize("printed", PRINTERS)
def test_what_else_a_service_knows_of_a_product_stays_inside(http, backends, printed):
    """As behind the original's gateway: a service can learn more fields without any of them going out."""
    product = a_product("x", title="] } , \\ \"cost\": 1", in_stock=-(2**63))
    known = {"cost": 7, **product, "supplier": {"id": "y", "in_stock": [1, "}"]}, "": None}
    backends.answers["products.get"] = lambda incoming: printed(incoming, known)
    backends.answers["orders.get_order"] = ONE_OF_X
    assert http.get("/products/x").json == product
    (line,) = http.get("/orders/7").json["order_details"]
    assert line["product"] == product


LINE = ONE_OF_X["order_details"][0]
LINE_FIELDS = tuple(LINE)


def of_lines(*lines):
    return {**ONE_OF_X, "order_details": list(lines)}


NO_LINES = {
    "null": None,
    "a number": 5,
    "a list": [LINE],
    "nothing": {},
    **{f"without {field}": without(LINE, field) for field in LINE_FIELDS},
    **{f"{field} null": {**LINE, field: None} for field in LINE_FIELDS},
    **{f"{field} a list": {**LINE, field: []} for field in LINE_FIELDS},
    **{f"{field} true": {**LINE, field: True} for field in LINE_FIELDS},
    **{f"{field} a number": {**LINE, field: 5} for field in ("product_id", "price")},
    **{f"price {price!r}": {**LINE, "price": price} for price in (1.5, "", "-", "1.", ".5", "1e5", "1,5", " 1", "NaN", "x")},
    **{f"{field} a text": {**LINE, field: "5"} for field in ("id", "quantity")},
    **{f"{field} a fraction": {**LINE, field: 5.5} for field in ("id", "quantity")},
    **{f"{field} beyond 64 bits": {**LINE, field: 2**63} for field in ("id", "quantity")},
}
NO_ORDERS = {
    "null": None,
    "a number": 5,
    "a text": "x",
    "true": True,
    "an empty list": [],
    "a list": [ONE_OF_X],
    "nothing": {},
    **{f"without {field}": without(ONE_OF_X, field) for field in ONE_OF_X},
    **{f"id {value!r}": {**ONE_OF_X, "id": value} for value in (None, "7", 7.5, True, [7], 2**63, 2**64 + 7)},
    **{f"lines {value!r}": {**ONE_OF_X, "order_details": value} for value in (None, 5, "[]", {})},
    **{f"a line: {what}": of_lines(LINE, line) for what, line in NO_LINES.items()},
}


def ask_for_orders(http, backends, answer, in_list):
    """What comes of such an answer: of an order that is read, that is listed, that was made, that may have been made before."""
    backends.answers.update({f"orders.{method}": answer for method in ("get_order", "create_order", "recall_order")})
    backends.answers["orders.list_orders"] = in_list
    read, listed = http.get("/orders/7"), http.get("/orders")
    backends.answers["products.exists"] = True
    made = http.post("/orders", {"order_details": [a_line("x")]})
    backends.answers["products.exists"] = False
    recalled = http.post("/orders", {"order_details": [a_line("x")]}, headers={"Idempotency-Key": "k"})
    return read, listed, made, recalled


def check_no_orders(http, backends, answer, in_list):
    """Nothing of it goes out, nothing is promised; and only null says that there was no such order before."""
    read, listed, made, recalled = ask_for_orders(http, backends, answer, in_list)
    check_error(read, 500, "UNEXPECTED_ERROR")
    check_error(listed, 500, "UNEXPECTED_ERROR")
    check_error(made, 504, "OUTCOME_UNKNOWN")
    return recalled


@pytest.mark.parametrize("printed", PRINTERS)
@pytest.mark.parametrize("what", NO_ORDERS)
def test_an_order_that_is_none(gateway_shop, http, backends, what, printed):
    """What a service says of an order is checked as what one says of a product."""
    none = NO_ORDERS[what]
    recalled = check_no_orders(
        http, backends, lambda incoming: printed(incoming, none), lambda incoming: printed(incoming, [ONE_OF_X, none])
    )
    if none is None:
        check_error(recalled, 404, "PRODUCT_NOT_FOUND")
    else:
        check_error(recalled, 500, "UNEXPECTED_ERROR")
    gateway_shop.assert_running()


TWICE = {
    **{field: (json.dumps(ONE_OF_X)[:-1] + f', "{field}": {json.dumps(ONE_OF_X[field])}}}') for field in ONE_OF_X},
    **{
        f"a line's {field}": json.dumps(of_lines(None)).replace("null", f'{json.dumps(LINE)[:-1]}, "{field}": {json.dumps(LINE[field])}}}')
        for field in LINE_FIELDS
    },
}


@pytest.mark.parametrize("what", TWICE)
def test_an_order_that_says_a_field_twice(http, backends, what):
    def answer(text):
        return lambda incoming: incoming.answer_raw(f'{{"result": {text}, "error": null}}'.encode())

    recalled = check_no_orders(http, backends, answer(TWICE[what]), answer(f"[{TWICE[what]}]"))
    check_error(recalled, 500, "UNEXPECTED_ERROR")


@pytest.mark.parametrize("result", [None, 5, "x", {}, {"id": 7}, ONE_OF_X], ids=str)
def test_a_list_of_orders_that_is_none(http, backends, result):
    backends.answers["orders.list_orders"] = lambda incoming: incoming.answer(result)
    for path in ("/orders", "/orders?limit=2"):
        check_error(http.get(path), 500, "UNEXPECTED_ERROR")


def test_another_order_than_the_one_that_is_asked_for(http, backends):
    backends.answers["orders.get_order"] = ORDER
    check_error(http.get("/orders/8"), 500, "UNEXPECTED_ERROR")


@pytest.mark.parametrize("printed", PRINTERS)
def test_what_else_a_service_knows_of_an_order_stays_inside(http, backends, printed):
    """Nor does it say itself what the gateway puts in."""
    line = {"cost": 7, **LINE, "product": {"id": "y"}, "image": "y", "supplier": [{"id": 3, "price": "]}"}], "": None}
    order = {"customer": {"id": 8, "order_details": []}, **of_lines(line, line), "total": 5}
    backends.answers["products.get"] = a_product("x")
    read, listed, made, recalled = ask_for_orders(
        http, backends, lambda incoming: printed(incoming, order), lambda incoming: printed(incoming, [order, order])
    )
    shown = read.json
    for one in shown["order_details"]:
        assert one.pop("product") == a_product("x")
        assert one.pop("image").endswith("/x.jpg")
    assert shown == of_lines(LINE, LINE)
    assert listed.json == [shown, shown]
    assert made.json == recalled.json == {"id": 7}


@pytest.mark.parametrize("printed", PRINTERS)
@pytest.mark.parametrize("order_printed", PRINTERS)
@pytest.mark.parametrize("product_id", ["ü飛🛩", 'quo"te\\back', "a/b\n\x01\x7f", "\\u0041", "%41", " "])
def test_an_id_is_the_same_however_it_is_spelled(http, backends, product_id, printed, order_printed):
    """One service escapes what another one sends as it is."""
    order = {"id": 7, "order_details": [{**ORDER["order_details"][0], "product_id": product_id}]}
    product = a_product(product_id)
    backends.answers["products.get"] = lambda incoming: printed(incoming, product)
    backends.answers["orders.get_order"] = lambda incoming: order_printed(incoming, order)
    assert http.get(path_of("products", product_id)).json == product
    (line,) = http.get("/orders/7").json["order_details"]
    assert (line["product_id"], line["product"]) == (product_id, product)


# ---- answers that come late, twice, or never --------------------------------------------------------------------


def assert_in_time(response):
    assert response.took_s <= TIMEOUT_MS / 1000 + SLACK_S, f"{response.took_s:.1f} s: {response}"


@pytest.mark.parametrize("path", ["/products/x", "/orders/1", "/orders"])
def test_a_read_that_nobody_answers_is_a_timeout(http, backends, path):
    response = http.get(path)
    check_error(response, 504, "TIMEOUT")
    assert_in_time(response)
    assert response.took_s >= TIMEOUT_MS / 1000 * 0.9, "given up before the time is over"


def test_an_order_whose_products_nobody_answers_for_was_not_made(http, backends):
    response = http.post("/orders", {"order_details": [a_line("x")]})
    check_error(response, 503, "SERVICE_UNAVAILABLE")
    assert_in_time(response)
    assert not backends.of("orders.create_order")


def test_an_order_that_nobody_answers_is_of_unknown_outcome(http, backends):
    backends.answers["products.exists"] = True
    response = http.post("/orders", {"order_details": [a_line("x")]})
    check_error(response, 504, "OUTCOME_UNKNOWN")
    assert_in_time(response)


def test_the_limit_is_one_for_the_whole_request(http, backends):
    """Two calls one after the other share the time; each does not get it anew."""
    backends.answers["orders.get_order"] = None
    future = in_background(http.get, "/orders/7")
    wait_until(lambda: backends.kept, "the order is asked for")
    began = backends.kept[0].arrived
    wait_until(lambda: time.monotonic() - began > TIMEOUT_MS / 1000 * 0.6, "most of the time is over")
    backends.kept[0].answer(ORDER)
    response = future.result(ANSWER_S)
    check_error(response, 504, "TIMEOUT")
    assert_in_time(response)
    expirations = [int(one.properties.expiration) for one in backends.of("products.get")]
    assert expirations and max(expirations) <= TIMEOUT_MS * 0.5, f"what is left, not the whole limit: {expirations}"


def test_slow_answers_hold_nobody_else_up(http, backends):
    """Fifty requests wait; another one is served at once."""
    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(http.get, f"/orders/{number}") for number in range(1, 51)]
        wait_until(lambda: len(backends.of("orders.get_order")) == 50, "fifty requests are in flight")
        backends.answers["products.get"] = a_product("x")
        assert http.get("/products/x").status == 200
        for one in list(backends.kept):
            one.answer({"id": one.parameter(0, "order_id"), "order_details": []})
        for number, future in enumerate(waiting, 1):
            assert future.result(ANSWER_S).json["id"] == number


def test_answers_in_reverse_order_find_their_requests(http, backends):
    with ThreadPoolExecutor(20) as pool:
        waiting = {name: pool.submit(http.get, f"/products/{name}") for name in (f"p{number}" for number in range(20))}
        wait_until(lambda: len(backends.kept) == 20, "twenty requests are in flight")
        for one in reversed(list(backends.kept)):
            one.answer(a_product(one.parameter(0, "product_id")))
        for name, future in waiting.items():
            assert future.result(ANSWER_S).json["id"] == name


def test_pipelined_answers_stay_in_order(gateway_shop, backends):
    """Their answers come the other way round; or only one is asked for at a time, and that is fine, too."""
    names = [f"p{number}" for number in range(5)]

    def answer_backwards():
        answered = 0
        while answered < len(names):
            wait_until(lambda: len(backends.kept) > answered, "the next request is in flight")
            waiting = list(backends.kept)[answered:]
            for one in reversed(waiting):
                one.answer(a_product(one.parameter(0, "product_id")))
            answered += len(waiting)

    with RawConnection(gateway_shop.port) as raw:
        raw.send(b"".join(raw_request("GET", f"/products/{name}") for name in names))
        future = in_background(answer_backwards)
        assert [raw.response().json["id"] for _ in names] == names
        future.result(ANSWER_S)


def test_late_double_and_foreign_answers_reach_nobody(http, backends):
    check_error(http.get("/products/late"), 504, "TIMEOUT")
    (late,) = list(backends.kept)

    def mischief(incoming):
        late.answer(a_product("late"))
        incoming.answer_raw(b'{"result": "foreign", "error": null}', correlation_id=str(uuid.uuid4()))
        incoming.answer_raw(b'{"result": "nobody", "error": null}', correlation_id=None)
        incoming.answer_raw(b'{"result": "empty", "error": null}', correlation_id="")
        incoming.answer_raw(b'{"result": "long", "error": null}', correlation_id="x" * 255)
        incoming.answer(a_product(incoming.parameter(0, "product_id")))
        incoming.answer(a_product("twice"))

    backends.answers["products.get"] = mischief
    for number in range(10):
        assert http.get(f"/products/right-{number}").json["id"] == f"right-{number}"


def test_answers_to_a_client_that_has_left(gateway_shop, http, backends):
    for number in range(10):
        raw = RawConnection(gateway_shop.port)
        raw.send(raw_request("GET", "/products/left"))
        wait_until(lambda: len(backends.kept) == number + 1, "the request is in flight")
        raw.reset() if number % 2 else raw.close()
    for one in list(backends.kept):
        one.answer(a_product("left"))
    backends.answers["products.get"] = lambda incoming: incoming.answer(a_product(incoming.parameter(0, "product_id")))
    for number in range(10):
        assert http.get(f"/products/p{number}").json["id"] == f"p{number}"
    gateway_shop.assert_running()


def check_refused(response, *service):
    """For now: it says when to come back."""
    check_error(response, 503, "SERVICE_UNAVAILABLE", *service)
    assert int(response.header("Retry-After")) > 0


def test_more_calls_than_fit_are_refused_at_once(make_shop):
    """A bound, and past it an immediate 503 that says when to come back; nothing waits in a hidden queue."""
    shop = make_shop(rpc_timeout_ms=int(20_000 * TIME_SCALE))
    backends = Backends(shop.room.amqp_uri)
    try:
        shop.add("gateway", CALLS_MAX="4").start().wait_ready()
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(shop.http.get, f"/products/p{number}") for number in range(4)]
            wait_until(lambda: len(backends.kept) == 4, "four calls are in flight")
            check_refused(shop.http.get("/products/one-too-many"))
            response = shop.http.post("/orders", {"order_details": [a_line("x")]})
            check_error(response, 503, "SERVICE_UNAVAILABLE")
            assert len(backends.kept) == 4
            for one in list(backends.kept):
                one.answer(a_product(one.parameter(0, "product_id")))
            assert [future.result(ANSWER_S).json["id"] for future in waiting] == [f"p{number}" for number in range(4)]
        backends.answers["products.get"] = a_product("again")
        assert shop.http.get("/products/again").status == 200
        # An order of more products than calls fit cannot be served, now or later; it is told so, and leaves nothing behind.
        lines = [a_line(f"x{number}") for number in range(10)]
        assert shop.http.post("/orders", {"order_details": lines}).status == 503
        assert not backends.of("orders.create_order")
        assert shop.http.get("/products/again").status == 200
    finally:
        backends.stop()


def test_a_gateway_with_all_it_takes_is_alive(make_shop):
    """One request too many is refused; who asks for its health is not: a probe must not end what merely has much to do."""
    shop = make_shop(rpc_timeout_ms=int(20_000 * TIME_SCALE))
    backends = Backends(shop.room.amqp_uri)
    try:
        shop.add("gateway", REQUESTS_MAX="2").start().wait_ready()
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(shop.http.get, f"/products/p{number}") for number in range(2)]
            wait_until(lambda: len(backends.kept) == 2, "two requests are under way")
            check_refused(shop.http.get("/products/one-too-many"))
            assert shop.http.get("/healthz").status == 200
            assert shop.http.get("/readyz").status == 200
            assert shop.http.get("/nothing").status == 404
            for one in list(backends.kept):
                one.answer(a_product(one.parameter(0, "product_id")))
            assert {future.result(ANSWER_S).status for future in waiting} == {200}
    finally:
        backends.stop()


def refusal_lines(gateway):
    """Warnings about refused requests."""
    lines = [json.loads(line) for line in gateway.log().splitlines() if line.startswith(b"{")]
    return [line for line in lines if line["level"] == "warning" and line.get("status") == 503]


# What needs two services in turn: (what is asked, who answers at once, and what; who is slow, and what it answers)
ONE_LINE = {**ORDER, "order_details": ORDER["order_details"][:1]}
TWO_IN_TURN = {
    "POST order": (
        lambda http: http.post("/orders", {"order_details": [a_line("a")]}),
        ("products.exists", True),
        ("orders.create_order", ONE_LINE),
    ),
    "GET order": (lambda http: http.get("/orders/7"), ("orders.get_order", ONE_LINE), ("products.get", a_product("a"))),
}


@pytest.mark.parametrize("what", TWO_IN_TURN)
def test_nobody_works_for_a_request_that_will_be_refused(make_shop, what):
    """The second service has enough to do: refused at once, before the first one is asked, and with one line for all."""
    ask, (first, first_answer), (second, second_answer) = TWO_IN_TURN[what]
    shop = make_shop(rpc_timeout_ms=int(16_000 * TIME_SCALE))
    slow_s = 16 * TIME_SCALE / 8  # as the README says
    backends = Backends(shop.room.amqp_uri)
    backends.answers[first] = first_answer
    try:
        gateway = shop.add("gateway").start().wait_ready()
        with ThreadPoolExecutor(16) as pool:
            waiting = [pool.submit(ask, shop.http) for _ in range(16)]
            wait_until(lambda: len(backends.kept) == 16, "as many wait as always may")
            kept_at = time.monotonic()
            wait_until(lambda: time.monotonic() > kept_at + slow_s, "the service is slow")
            asked = len(backends.of(first))
            for _ in range(20):
                check_refused(ask(shop.http), second.partition(".")[0])
            assert (len(backends.of(first)), len(backends.kept)) == (asked, 16)
            assert len(refusal_lines(gateway)) == 1
            backends.answers[second] = second_answer
            for one in list(backends.kept):
                one.answer(second_answer)
            assert {future.result(ANSWER_S).status for future in waiting} == {200}
        assert ask(shop.http).status == 200
    finally:
        backends.stop()


# ---- a service that is not there --------------------------------------------------------------------------------


def test_a_service_that_nobody_has_ever_started(make_shop):
    """No queue: the broker hands the request back, and the gateway does not wait for its limit."""
    shop = make_shop(rpc_timeout_ms=int(60_000 * TIME_SCALE))
    shop.start(products=0, orders=0, gateways=1)
    for method, path, body in (
        ("GET", "/products/x", None),
        ("DELETE", "/products/x", None),
        ("POST", "/products", a_product()),
        ("GET", "/orders/1", None),
        ("GET", "/orders", None),
        ("POST", "/orders", {"order_details": [a_line("x")]}),
    ):
        response = shop.http.request(method, path, body)
        check_error(response, 503, "SERVICE_UNAVAILABLE")
    gateway = shop.the("gateway")
    gateway.stop()


# ---- leaving ----------------------------------------------------------------------------------------------------


def test_sigterm_lets_every_request_finish(make_shop):
    """Requests whose services are slow are still answered, each with its own answer; then the gateway leaves with 0."""
    shop = make_shop(rpc_timeout_ms=int(20_000 * TIME_SCALE))
    backends = Backends(shop.room.amqp_uri)
    try:
        shop.start(products=0, orders=0, gateways=1)
        gateway = shop.the("gateway")
        backends.answers["products.exists"] = True
        order = {"order_details": [a_line("x")]}
        with ThreadPoolExecutor(20) as pool:
            gets = {f"p{number}": pool.submit(shop.http.get, f"/products/p{number}") for number in range(10)}
            posts = [pool.submit(shop.http.post, "/orders", order) for _ in range(10)]
            wait_until(lambda: len(backends.kept) == 20, "twenty requests are in flight")
            gateway.terminate()
            with contextlib.suppress(AssertionError):  # that is how it shows; no harm if it shows otherwise
                wait_until(lambda: not accepts(shop.port) or not gateway.running, "it takes no connections", SLACK_S)
            assert gateway.running, "the gateway has left its requests alone"
            for number, one in enumerate(list(backends.kept), 1):
                one.answer(a_product(one.parameter(0, "product_id")) if one.method == "get" else {"id": number, "order_details": []})
            for name, future in gets.items():
                response = future.result(ANSWER_S)
                assert (response.status, response.json["id"]) == (200, name)
            ids = {future.result(ANSWER_S).json["id"] for future in posts}
            assert len(ids) == 10
        assert gateway.wait_exit() == 0
    finally:
        backends.stop()


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_sigterm_with_nothing_to_do(make_shop):
    shop = make_shop()
    shop.start(products=0, orders=0, gateways=1)
    with RawConnection(shop.port) as idle:  # a client that keeps its connection open holds nobody up
        idle.send(raw_request("GET", "/orders/0"))
        check_error(idle.response(), 404, "ORDER_NOT_FOUND")
        shop.the("gateway").stop()

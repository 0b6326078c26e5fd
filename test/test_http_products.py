"""HTTP: products, the routes themselves, and what a body must be."""
import json

import pytest

from support.http import RawConnection, check_error, path_of, raw_request
from support.shop import a_line, a_product, unique

INT64_MAX = 2**63 - 1
FIELDS = ("id", "title", "passenger_capacity", "maximum_speed", "in_stock")
BODY_MAX = 2**20


# ---- the life of a product --------------------------------------------------------------------------------------


def test_a_product_lives(http):
    product = a_product()
    path = path_of("products", product["id"])
    check_error(http.get(path), 404, "PRODUCT_NOT_FOUND", product["id"])
    made = http.post("/products", product)
    assert (made.status, made.json) == (200, {"id": product["id"]})
    got = http.get(path)
    assert (got.status, got.json) == (200, product)
    gone = http.delete(path)
    assert (gone.status, gone.body) == (204, b"")
    check_error(http.get(path), 404, "PRODUCT_NOT_FOUND", product["id"])


def test_a_delete_of_nothing_is_204(http):
    response = http.delete(path_of("products", unique("never")))
    assert (response.status, response.body) == (204, b"")


def test_a_second_post_replaces(http):
    product = http.make_product(a_product())
    http.make_product({**product, "title": "Another", "in_stock": 1})
    assert http.get_product(product["id"]) == {**product, "title": "Another", "in_stock": 1}


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain", "application/x-www-form-urlencoded", ""])
def test_the_content_type_of_a_body_is_not_enforced(http, content_type):
    product = a_product()
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert http.post("/products", product, headers=headers).status == 200
    assert http.get_product(product["id"]) == product


def test_unknown_fields_are_ignored_and_never_stored(shop, http):
    product = a_product()
    http.make_product({**product, "colour": "red", "x": {"y": [None, 1.5]}})
    assert http.get_product(product["id"]) == product
    assert set(shop.redis().hgetall(f"products:{product['id']}")) == set(FIELDS)


@pytest.mark.parametrize("field", FIELDS[2:])
@pytest.mark.parametrize("value", [INT64_MAX, -INT64_MAX - 1, 0, -1, 2**53 + 1, str(INT64_MAX)])
def test_integers_are_kept_exactly(http, field, value):
    product = http.make_product(a_product(**{field: value}))
    assert http.get_product(product["id"]) == {**product, field: int(value)}


def test_a_title_as_long_as_the_body_lets_it_be(http):
    product = a_product(title="")
    product["title"] = "t" * (BODY_MAX - len(json.dumps(product).encode()))
    assert len(json.dumps(product).encode()) == BODY_MAX
    http.make_product(product)
    assert http.get_product(product["id"]) == product
    http.delete(path_of("products", product["id"]))


IDS = [
    pytest.param("with space", id="space"),
    pytest.param(" ", id="only-space"),
    pytest.param("+", id="plus"),
    pytest.param("a+b%20c%2Fd", id="percents"),
    pytest.param("%00", id="looks-like-nul"),
    pytest.param(".", id="dot"),
    pytest.param("..", id="dotdot"),
    pytest.param("a/b", id="slash"),
    pytest.param("/", id="only-slash"),
    pytest.param("/../../etc/passwd", id="traversal"),
    pytest.param("a?b=c&d#e;f", id="query"),
    pytest.param("*", id="star"),
    pytest.param("#", id="hash"),
    pytest.param("line\nbreak\r\nX-Injected: yes", id="newline"),
    pytest.param("\x01\x7f\t", id="control"),
    pytest.param('quo"te\\back', id="quotes"),
    pytest.param("Lüftschiff-飛行船-🛩", id="utf-8"),
    pytest.param("$(id)`id`'; --", id="shell"),
    pytest.param("%s%n%d", id="format"),
    pytest.param("x" * 1024, id="1024-bytes"),
    pytest.param("ü" * 512, id="1024-bytes-utf-8"),
    pytest.param(" " * 1024, id="1024-spaces"),
]


@pytest.mark.parametrize("product_id", IDS)
def test_any_id_lives_its_whole_life(shop, http, product_id):
    product = a_product(product_id)
    path = path_of("products", product_id)
    http.make_product(product)
    assert shop.redis().exists(f"products:{product_id}")
    got = http.get(path)
    assert (got.status, got.json) == (200, product)
    assert got.header("X-Injected") is None
    order_id = http.make_order([a_line(product_id)])
    (line,) = http.get_order(order_id)["order_details"]
    assert line["product_id"] == product_id
    assert {**line["product"], "in_stock": 0} == {**product, "in_stock": 0}
    assert line["product"]["in_stock"] in (10, 9)  # the event may be under way yet
    assert http.delete(path).status == 204
    check_error(http.get(path), 404, "PRODUCT_NOT_FOUND")
    assert http.get_order(order_id)["order_details"][0]["product"] is None


@pytest.mark.parametrize(
    "path",
    ["/products/%00", "/products/a%00b", "/products/%ff", "/products/%C0%AF", "/products/%ED%A0%80", "/products/%F5%80%80%80"],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_id_that_no_product_can_have(http, method, path):
    response = http.request(method, path)
    if method == "DELETE" and response.status == 204:
        return  # deleting what is not there is no error
    assert response.status in (400, 404), str(response)
    check_error(response, response.status, None)


@pytest.mark.parametrize("path", ["/products/%", "/products/%4", "/products/%zz", "/products/a%g0"])
def test_a_broken_percent_encoding(http, path):
    response = http.get(path)
    assert response.status in (400, 404), str(response)
    check_error(response, response.status, None)


def test_an_id_of_1025_bytes_in_a_path(http):
    response = http.get(path_of("products", "x" * 1025))
    assert response.status in (400, 404), str(response)
    check_error(response, response.status, None)


# ---- what a product must be -------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("how", ["missing", "null", "object", "array", "true"])
def test_a_bad_field_is_named(http, field, how):
    product = a_product()
    if how == "missing":
        del product[field]
    else:
        product[field] = {"null": None, "object": {}, "array": [], "true": True}[how]
    check_error(http.post("/products", product), 400, "VALIDATION_ERROR", field)


@pytest.mark.parametrize(
    "changes",
    [{"id": ""}, {"id": "x" * 1025}, {"id": "ü" * 513}, {"id": "x" * 10_240}, {"id": 5}, {"title": 5}]
    + [
        {field: value}
        for field in FIELDS[2:]
        for value in (INT64_MAX + 1, -INT64_MAX - 2, 2**64, 10**30, str(2**63), 3.7, "abc", "", "1.5", False)
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_value_beyond_its_limits(http, changes):
    (field,) = changes
    product = {**a_product(), **changes}
    check_error(http.post("/products", product), 400, "VALIDATION_ERROR", field)
    if product["id"] != "" and isinstance(product["id"], str) and len(product["id"]) <= 100:
        check_error(http.get(path_of("products", product["id"])), 404, "PRODUCT_NOT_FOUND")


# ---- bodies -----------------------------------------------------------------------------------------------------

ROUTES = ["/products", "/orders"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"}",
        b"hello",
        b"nul",
        b"{'id': 1}",
        b'{"id": 1,}',
        b'{"id" 1}',
        b'{"id": 01}',
        b'{"id": 1} x',
        b"{}{}",
        b'{"id": NaN}',
        b'{"id": Infinity}',
        b'{"id": -Infinity}',
        b'{"id": "\xff"}',
        b'{"id": "\xc0\xaf"}',
        b'{"id": "\xed\xa0\x80"}',
        b'{"id": "\\ud800"}',
        b'{"id": "\\udc00\\ud800"}',
        b'{"id": "a\x00b"}',
        b'{"id": "a\nb"}',
        b'{"id": "\\x41"}',
        b"{}\x00",
        "{}".encode("utf-16"),
        b"id=1&title=x",
        b"// comment\n{}",
    ],
    ids=lambda body: repr(body)[:30],
)
@pytest.mark.parametrize("route", ROUTES)
def test_no_json(http, route, body):
    message = check_error(http.post(route, body), 400, "BAD_REQUEST")
    assert message.startswith("Invalid json: "), message


@pytest.mark.parametrize("body", [b"null", b"[]", b"[{}]", b"5", b"1.5", b"true", b'"text"', b'""'], ids=repr)
@pytest.mark.parametrize("route", ROUTES)
def test_json_that_is_no_object(http, route, body):
    check_error(http.post(route, body), 400, "VALIDATION_ERROR")


# Refused as strict JSON or by a limit; either way it is the client's fault, in the error shape.
LAX = {
    "duplicate": b'{"id": "a", "id": "b", "title": "t", "passenger_capacity": 1, "maximum_speed": 1, "in_stock": 1}',
    "escaped-duplicate": b'{"id": "a", "\\u0069d": "b", "title": "t", "passenger_capacity": 1, "maximum_speed": 1, "in_stock": 1}',
    "nested-duplicate": b'{"x": {"a": 1, "a": 2}, "id": "a", "title": "t", "passenger_capacity": 1, "maximum_speed": 1, "in_stock": 1}',
    "nul-escape": b'{"id": "a\\u0000b", "title": "t", "passenger_capacity": 1, "maximum_speed": 1, "in_stock": 1}',
    "nul-in-title": b'{"id": "a", "title": "\\u0000", "passenger_capacity": 1, "maximum_speed": 1, "in_stock": 1}',
    "nul-in-name": b'{"\\u0000": 1, "id": "a", "title": "t", "passenger_capacity": 1, "maximum_speed": 1, "in_stock": 1}',
    "1e400": b'{"id": "a", "title": "t", "passenger_capacity": 1e400, "maximum_speed": 1, "in_stock": 1}',
    "deep-65": b'{"x": ' + b"[" * 64 + b"]" * 64 + b"}",
    "deep-10000": b"[" * 10_000 + b"]" * 10_000,
    "deep-400000-open": b"[" * 400_000,
    "deep-objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
}


@pytest.mark.parametrize("case", LAX)
@pytest.mark.parametrize("route", ROUTES)
def test_lax_json_is_never_taken(http, route, case):
    response = http.post(route, LAX[case])
    assert response.status == 400, str(response)
    check_error(response, 400, "BAD_REQUEST" if response.json["error"] == "BAD_REQUEST" else "VALIDATION_ERROR")


def test_sixty_four_levels_are_taken(http):
    """Also where the document travels on within another one."""
    product = a_product()
    body = json.dumps(product)[:-1] + ', "x": ' + "[" * 63 + "]" * 63 + "}"
    response = http.post("/products", body.encode())
    assert response.status == 200, str(response)
    assert http.get_product(product["id"]) == product


def test_white_space_around_a_body(http):
    product = a_product()
    assert http.post("/products", b" \r\n\t" + json.dumps(product).encode() + b"\n ").status == 200
    assert http.get_product(product["id"]) == product


@pytest.mark.parametrize("route", ROUTES)
def test_a_body_of_one_mebibyte_is_read(http, route):
    body = b"{}".ljust(BODY_MAX)
    check_error(http.post(route, body), 400, "VALIDATION_ERROR")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("size", [BODY_MAX + 1, 3 * 2**20, 2**31, 2**40])
def test_a_larger_body_is_413(shop, http, route, size):
    with RawConnection(shop.port) as raw:
        raw.send(f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        if size < 2**22:
            raw.send_tolerant(b"{}".ljust(size))
        check_error(raw.response(), 413, None)
    assert http.get(path_of("products", "x")).status in (200, 404)


# ---- routes -----------------------------------------------------------------------------------------------------


UNKNOWN = ["/", "/nothing", "/product", "/productsx", "/products/a/b", "/orders/1/2", "/Orders", "/ORDERS/1", "//orders",
           "/orders//1", "/etc/passwd", "/..", "/../orders", "/orders.json"]  # fmt: skip


@pytest.mark.parametrize("path", UNKNOWN)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
def test_an_unknown_path_is_404(http, method, path):
    check_error(http.request(method, path, b"{}" if method in ("POST", "PUT") else None), 404, None)


@pytest.mark.parametrize("path", ["/products/", "/orders/"])
def test_no_id_at_all_is_404(http, path):
    check_error(http.get(path), 404, None)


ALLOWED = {
    "/products": {"POST"},
    "/products/x": {"GET", "HEAD", "DELETE"},
    "/orders": {"GET", "HEAD", "POST"},
    "/orders/1": {"GET", "HEAD"},
}


@pytest.mark.parametrize("path", ALLOWED)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_another_method_is_405(http, method, path):
    if method in ALLOWED[path]:
        return
    response = http.request(method, path, b"{}" if method in ("POST", "PUT", "PATCH") else None)
    if method == "HEAD":
        assert (response.status, response.body) == (405, b"")
    else:
        check_error(response, 405, None)
    allowed = {word.strip() for word in response.header("Allow").split(",")}
    assert allowed - {"OPTIONS"} == ALLOWED[path], str(response)


@pytest.mark.parametrize("path", ["/orders?", "/orders?limit=1", "/orders?unknown=x", "/orders?&&="])
def test_a_query_is_no_part_of_the_path(http, path):
    assert http.get(path).status == 200


def test_head_answers_as_get_without_a_body(shop, http):
    product = http.make_product(a_product())
    for path in (path_of("products", product["id"]), path_of("products", unique("never")), "/orders?limit=1", "/orders/0", "/no"):
        got, head = http.get(path), http.request("HEAD", path)
        assert head.status == got.status and head.body == b"", path
        volatile = ("date", "connection", "keep-alive")
        assert [one for one in head.headers if one[0].lower() not in volatile] == [
            one for one in got.headers if one[0].lower() not in volatile
        ], path
    with RawConnection(shop.port) as raw:  # nothing behind the header, and the connection goes on
        raw.send(raw_request("HEAD", path_of("products", product["id"])))
        assert raw.response(head=True).status == 200
        raw.send(raw_request("GET", path_of("products", product["id"])))
        assert raw.response().json == product


def test_a_failure_shows_nothing_of_the_inside(shop, http):
    """A damaged product is the shop's fault: 500, and no word of Redis, files or libraries."""
    key = unique("damaged")
    shop.redis().set(f"products:{key}", "no hash")
    try:
        message = check_error(http.get(path_of("products", key)), 500, "UNEXPECTED_ERROR")
        for word in ("WRONGTYPE", "redis", "hiredis", ".c:", "SELECT", "HGETALL"):
            assert word.lower() not in message.lower(), message
    finally:
        shop.redis().delete(f"products:{key}")

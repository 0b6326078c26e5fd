"""HTTP: orders, their pages, and the key that makes a repeated order one order."""
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest

from support.clock import wait_until
from support.http import check_error, path_of
from support.shop import IMAGE_ROOT, a_line, a_product, unique

INT32_MAX = 2**31 - 1
LINES_MAX = 1000


@pytest.fixture(scope="module")
def product(http):
    """A product that every test may order."""
    return http.make_product(a_product(in_stock=1_000_000))


def orders_in_database(shop):
    return shop.query("SELECT count(*) FROM orders")[0][0]


def without_stock(product):
    return {name: value for name, value in product.items() if name != "in_stock"}


# ---- the life of an order ---------------------------------------------------------------------------------------


def test_an_order_lives(shop, http):
    first = http.make_product(a_product(title="The Odyssey"))
    second = http.make_product(a_product(title="The Enigma"))
    order_id = http.make_order([a_line(first["id"], "100000.99", 1), a_line(second["id"], "0.5", 8)])
    order = http.get_order(order_id)
    ids = [line["id"] for line in order["order_details"]]
    assert all(type(one) is int for one in ids) and ids == sorted(set(ids))
    for line, product in zip(order["order_details"], (first, second)):
        assert without_stock(line.pop("product")) == without_stock(product)
    assert order == {
        "id": order_id,
        "order_details": [
            {
                "id": ids[0],
                "product_id": first["id"],
                "price": "100000.99",
                "quantity": 1,
                "image": f"{IMAGE_ROOT}/{first['id']}.jpg",
            },
            {
                "id": ids[1],
                "product_id": second["id"],
                "price": "0.50",
                "quantity": 8,
                "image": f"{IMAGE_ROOT}/{second['id']}.jpg",
            },
        ],
    }
    shop.wait_stock(first["id"], 9)
    shop.wait_stock(second["id"], 2)
    assert http.get_order(order_id)["order_details"][0]["product"] == {**first, "in_stock": 9}


def test_one_product_on_many_lines(shop, http):
    product = http.make_product(a_product(in_stock=100))
    order_id = http.make_order([a_line(product["id"], "1", quantity) for quantity in (1, 2, 3)])
    lines = http.get_order(order_id)["order_details"]
    assert [line["quantity"] for line in lines] == [1, 2, 3]
    assert all(without_stock(line["product"]) == without_stock(product) for line in lines)
    shop.wait_stock(product["id"], 94)


def test_an_order_of_a_thousand_lines(shop, http):
    products = [http.make_product(a_product(in_stock=10_000)) for _ in range(20)]
    lines = [a_line(products[number % 20]["id"], f"{number}.99", number % 5 + 1) for number in range(LINES_MAX)]
    order_id = http.make_order(lines)
    got = http.get_order(order_id)["order_details"]
    assert [{name: line[name] for name in ("product_id", "price", "quantity")} for line in got] == lines
    assert all(line["product"]["id"] == line["product_id"] for line in got)
    for number, product in enumerate(products):
        shop.wait_stock(product["id"], 10_000 - 50 * (number % 5 + 1))


@pytest.mark.parametrize(
    "price, stored",
    [
        ("100000.99", "100000.99"),
        ("0", "0.00"),
        ("0.1", "0.10"),
        ("5", "5.00"),
        ("9999999999999999.99", "9999999999999999.99"),
        ("9007199254740993.01", "9007199254740993.01"),
        (100000.99, "100000.99"),
        (0, "0.00"),
        (0.1, "0.10"),
        (0.29, "0.29"),
        (1.15, "1.15"),
        (5, "5.00"),
    ],
    ids=repr,
)
def test_prices_are_exact(http, product, price, stored):
    order_id = http.make_order([a_line(product["id"], price)])
    assert http.get_order(order_id)["order_details"][0]["price"] == stored


@pytest.mark.parametrize("quantity, stored", [(1, 1), (INT32_MAX, INT32_MAX), ("7", 7)])
def test_quantities(http, product, quantity, stored):
    order_id = http.make_order([a_line(product["id"], quantity=quantity)])
    assert http.get_order(order_id)["order_details"][0]["quantity"] == stored


def test_unknown_fields_are_ignored(http, product):
    body = {"order_details": [{**a_line(product["id"]), "id": 5, "x": {"y": [None]}}], "id": 7, "customer": "x"}
    response = http.post("/orders", body)
    assert response.status == 200, str(response)
    (line,) = http.get_order(response.json["id"])["order_details"]
    assert set(line) == {"id", "product_id", "price", "quantity", "product", "image"}


def test_a_product_that_was_deleted_since(http, product):
    gone = http.make_product(a_product())
    order_id = http.make_order([a_line(gone["id"]), a_line(product["id"])])
    http.delete(path_of("products", gone["id"]))
    first, second = http.get_order(order_id)["order_details"]
    assert first["product"] is None and first["product_id"] == gone["id"]
    assert first["image"] == f"{IMAGE_ROOT}/{gone['id']}.jpg"
    assert without_stock(second["product"]) == without_stock(product)


@pytest.mark.parametrize(
    "order_id",
    ["0", "-1", str(INT32_MAX), str(INT32_MAX + 1), str(2**32 + 1), str(2**63), str(2**64 + 1), "9" * 100, "abc", "1a", "a1",
     "1.0", "1e1", "0x1", "%31x", "%00", "1%00", "%20", "%20999999999", "+", "-", "null", "..", "%2e", "%d9%a1", "%ff", "%2F", "*"],
)  # fmt: skip
def test_an_order_that_cannot_exist(http, order_id):
    check_error(http.get(f"/orders/{order_id}"), 404, "ORDER_NOT_FOUND")


# ---- what an order must be --------------------------------------------------------------------------------------


def test_a_product_that_does_not_exist(shop, http, product):
    before = orders_in_database(shop)
    missing, other = unique("missing"), unique("missing")
    lines = [a_line(product["id"]), a_line(missing), a_line(other), a_line(product["id"])]
    message = check_error(http.post("/orders", {"order_details": lines}), 404, "PRODUCT_NOT_FOUND")
    assert message == f"Product Id {missing}"
    message = check_error(http.post("/orders", {"order_details": lines[::-1]}), 404, "PRODUCT_NOT_FOUND")
    assert message == f"Product Id {other}"
    assert orders_in_database(shop) == before


def test_the_first_of_many_missing_products_is_named(http):
    ids = [unique("missing") for _ in range(100)]
    message = check_error(
        http.post("/orders", {"order_details": [a_line(one) for one in ids]}), 404, "PRODUCT_NOT_FOUND"
    )
    assert message == f"Product Id {ids[0]}"


@pytest.mark.parametrize("product_id", ["quo\"te", "ü飛", "a\nb", "x" * 1024, "%s%n", "</script>"], ids=lambda x: repr(x)[:12])
def test_any_missing_id_is_named(http, product_id):
    message = check_error(
        http.post("/orders", {"order_details": [a_line(product_id)]}), 404, "PRODUCT_NOT_FOUND"
    )
    assert message == f"Product Id {product_id}"


BAD_LINES = (
    [{"price": price} for price in (
        "1.005", "0.001", 1.005, "10000000000000000", 10**16, 10**30, "-1", -1, "-0.01", "+1", "1e2", " 1", "1 ", "", "abc",
        "1,5", "NaN", "Infinity", "١٢", "１２", True, None, [], {}, "9" * 10_000, 1e300,
    )]
    + [{"quantity": quantity} for quantity in (
        0, -1, INT32_MAX + 1, 2**63, 2**64 + 1, 10**30, 1.5, 3.7, "0", "-1", "1.5", "abc", "", True, False, None, [], {},
    )]
    + [{"product_id": product_id} for product_id in ("", "x" * 1025, "x" * 10_240, 5, 1.5, True, None, [], {})]
)  # fmt: skip


@pytest.mark.parametrize("changes", BAD_LINES, ids=lambda changes: str(changes)[:40])
def test_a_bad_line(shop, http, product, changes):
    before = orders_in_database(shop)
    (field,) = changes
    body = {"order_details": [a_line(product["id"]), {**a_line(product["id"]), **changes}]}
    check_error(http.post("/orders", body), 400, "VALIDATION_ERROR", field)
    assert orders_in_database(shop) == before


@pytest.mark.parametrize("field", ["product_id", "price", "quantity"])
def test_a_missing_field(http, product, field):
    line = a_line(product["id"])
    del line[field]
    check_error(http.post("/orders", {"order_details": [line]}), 400, "VALIDATION_ERROR", field)


@pytest.mark.parametrize(
    "body",
    [{}, {"details": []}, {"order_details": None}, {"order_details": []}, {"order_details": {}}, {"order_details": "x"},
     {"order_details": 5}, {"order_details": True}, {"order_details": [None]}, {"order_details": [[]]},
     {"order_details": ["x"]}, {"order_details": [5]}, {"order_details": [{}]}],
    ids=json.dumps,
)  # fmt: skip
def test_no_lines(shop, http, body):
    before = orders_in_database(shop)
    check_error(http.post("/orders", body), 400, "VALIDATION_ERROR")
    assert orders_in_database(shop) == before


def test_a_thousand_and_one_lines(shop, http, product):
    before = orders_in_database(shop)
    body = {"order_details": [a_line(product["id"]) for _ in range(LINES_MAX + 1)]}
    check_error(http.post("/orders", body), 400, "VALIDATION_ERROR", "order_details")
    assert orders_in_database(shop) == before


# ---- pages ------------------------------------------------------------------------------------------------------


def next_of(response):
    """The target of the Link header, as path and query; None where there is no next page."""
    links = response.header_all("Link")
    if not links:
        return None
    (link,) = links
    target, _, parameters = link.partition(";")
    assert target.startswith("<") and target.endswith(">") and parameters.strip() == 'rel="next"', link
    parts = urlsplit(urljoin("http://localhost/orders", target[1:-1]))
    return f"{parts.path}?{parts.query}"


def walk(http, path):
    """All pages from here: [[order, ...], ...]"""
    pages = []
    while path is not None:
        response = http.get(path)
        assert response.status == 200, str(response)
        pages.append(response.json)
        assert len(pages) < 1000, "the pages never end"
        path = next_of(response)
    return pages


def test_pages(http, product):
    ids = [http.make_order([a_line(product["id"]), a_line(product["id"], "2.5", 2)]) for _ in range(7)]
    pages = walk(http, f"/orders?after={ids[0] - 1}&limit=3")
    assert [[order["id"] for order in page] for page in pages] == [ids[0:3], ids[3:6], ids[6:7]]
    for order in sum(pages, []):
        assert set(order) == {"id", "order_details"}
        for line in order["order_details"]:
            assert set(line) == {"id", "product_id", "price", "quantity"}
    assert [line["price"] for line in pages[0][0]["order_details"]] == ["100000.99", "2.50"]


def test_no_next_page_behind_a_full_last_one(http, product):
    ids = [http.make_order([a_line(product["id"])]) for _ in range(4)]
    response = http.get(f"/orders?after={ids[0] - 1}&limit=4")
    assert [order["id"] for order in response.json] == ids
    assert next_of(response) is None
    response = http.get(f"/orders?after={ids[0] - 1}&limit=3")
    assert parse_qs(urlsplit(next_of(response)).query) == {"after": [str(ids[2])], "limit": ["3"]}
    response = http.get(f"/orders?after={ids[-1]}&limit=3")
    assert response.json == [] and next_of(response) is None


def test_all_orders_by_id(http, product):
    made = http.make_order([a_line(product["id"])])
    ids = [order["id"] for page in walk(http, "/orders") for order in page]
    assert ids == sorted(set(ids)) and made in ids


@pytest.mark.parametrize("value", ["0", "-1", "abc", "", "1.5", "1e1", "0x10", "%20", "1%00", "1x", "%c3%bc", "%d9%a1"])
def test_a_bad_limit(http, value):
    check_error(http.get(f"/orders?limit={value}"), 400, "VALIDATION_ERROR", "limit")


@pytest.mark.parametrize("value", ["-1", "abc", "", "1.5", "1e1", "0x10", "%20", "1%00", "1x", "%d9%a1"])
def test_a_bad_after(http, value):
    check_error(http.get(f"/orders?after={value}"), 400, "VALIDATION_ERROR", "after")


BEYOND = [str(2**31), str(2**63 - 1), str(2**63), str(2**64 + 1), "9" * 1000]


@pytest.mark.parametrize("value", BEYOND, ids=lambda value: value[:20])
def test_behind_the_last_order_there_can_be_is_no_other(http, product, value):
    http.make_order([a_line(product["id"])])
    for query in (f"after={value}", f"after={value}&limit=3"):
        response = http.get(f"/orders?{query}")
        assert (response.status, response.json, next_of(response)) == (200, [], None), str(response)


@pytest.mark.parametrize("value", BEYOND, ids=lambda value: value[:20])
def test_a_limit_beyond_all_limits(http, value):
    check_error(http.get(f"/orders?limit={value}"), 400, "VALIDATION_ERROR", "limit: Must be", "10000")


LIST_MAX = 10_000


def test_more_orders_than_one_answer_holds(make_shop):
    """Without parameters a list is bounded, says so, and leads on to the rest."""
    shop = make_shop()
    total = LIST_MAX + 50
    shop.query(
        "WITH made AS (INSERT INTO orders (created_at, updated_at) SELECT now(), now() FROM generate_series(1, %s)"
        " RETURNING id) INSERT INTO order_details (order_id, product_id, price, quantity, created_at, updated_at)"
        " SELECT id, 'x', 1.5, 1, now(), now() FROM made",
        total,
    )
    shop.start(products=1, orders=1, gateways=1)
    assert len(shop.peer().call("orders.list_orders")) == LIST_MAX
    first = shop.http.get("/orders")
    assert next_of(first) is not None
    pages = walk(shop.http, "/orders")
    ids = [order["id"] for page in pages for order in page]
    assert max(len(page) for page in pages) <= LIST_MAX
    assert ids == [row[0] for row in shop.query("SELECT id FROM orders ORDER BY id")] and len(ids) == total
    assert all(len(order["order_details"]) == 1 for page in pages for order in page)


# ---- the idempotency key ----------------------------------------------------------------------------------------


def key_header():
    return {"Idempotency-Key": str(uuid.uuid4())}


def test_the_same_key_gives_the_same_answer(shop, http):
    product = http.make_product(a_product(in_stock=100))
    headers = key_header()
    body = json.dumps({"order_details": [a_line(product["id"], quantity=5)]}).encode()
    answers = [http.post("/orders", body, headers=headers) for _ in range(3)]
    assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
    assert shop.query("SELECT count(*) FROM order_details WHERE product_id = %s", product["id"]) == [(1,)]
    http.make_order([a_line(product["id"])])
    shop.wait_stock(product["id"], 94)


def test_the_same_key_after_the_product_is_gone(http):
    """The order was made; that its product has gone since does not undo the answer."""
    product = http.make_product(a_product())
    headers = key_header()
    body = {"order_details": [a_line(product["id"])]}
    first = http.post("/orders", body, headers=headers)
    assert first.status == 200
    http.delete(path_of("products", product["id"]))
    again = http.post("/orders", body, headers=headers)
    assert (again.status, again.body) == (200, first.body), str(again)


@pytest.mark.parametrize(
    "change",
    [{"quantity": 2}, {"price": "1.00"}, {"product_id": None}],
    ids=lambda change: next(iter(change)),
)
def test_the_same_key_with_another_body_is_422(shop, http, product, change):
    other = http.make_product(a_product())
    headers = key_header()
    line = a_line(product["id"])
    order_id = http.make_order([line], headers=headers)
    before = orders_in_database(shop)
    changed = {**line, **({"product_id": other["id"]} if "product_id" in change else change)}
    check_error(http.post("/orders", {"order_details": [changed]}, headers=headers), 422, "IDEMPOTENCY_KEY_REUSED")
    check_error(http.post("/orders", {"order_details": [line, line]}, headers=headers), 422, "IDEMPOTENCY_KEY_REUSED")
    assert orders_in_database(shop) == before
    assert http.make_order([line], headers=headers) == order_id


def test_the_same_key_at_the_same_time(shop, http):
    """Each waits for the first and gets its answer, or is told that it is under way; one order in all."""
    product = http.make_product(a_product(in_stock=100))
    body = {"order_details": [a_line(product["id"])]}
    for _ in range(5):
        headers = key_header()
        together = threading.Barrier(8)

        def post(_, headers=headers, together=together):
            together.wait()
            return http.post("/orders", body, headers=headers)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(post, range(8)))
        assert {answer.status for answer in answers} <= {200, 409}, [str(answer) for answer in answers]
        assert len({answer.body for answer in answers if answer.status == 200}) == 1
        for answer in answers:
            if answer.status == 409:
                check_error(answer, 409, None)
    assert shop.query("SELECT count(*) FROM order_details WHERE product_id = %s", product["id"]) == [(5,)]
    shop.wait_stock(product["id"], 95)


def test_keys_are_apart(http, product):
    line = a_line(product["id"])
    keys = [str(uuid.uuid4()) for _ in range(3)]
    keys += [keys[0].upper(), keys[0] + "x", keys[0][:-1], f'"{keys[1]}x"']
    assert len({http.make_order([line], headers={"Idempotency-Key": key}) for key in keys}) == len(keys)


def test_without_a_key_each_order_is_one_of_its_own(http, product):
    assert http.make_order([a_line(product["id"])]) != http.make_order([a_line(product["id"])])


def test_a_refused_order_does_not_use_up_its_key(http, product):
    headers = key_header()
    check_error(
        http.post("/orders", {"order_details": [a_line(product["id"], "1.005")]}, headers=headers), 400, "VALIDATION_ERROR"
    )
    order_id = http.make_order([a_line(product["id"], "1.00")], headers=headers)
    assert http.make_order([a_line(product["id"], "1.00")], headers=headers) == order_id


@pytest.mark.parametrize("key", ["", "x", "a b", "'", "x" * 255, "x" * 2000, "\xfc", "%00"], ids=lambda key: repr(key)[:12])
def test_any_key_is_kept_or_refused(http, product, key):
    """An odd key is the client's fault or a key like any other; it is never dropped."""
    headers = {"Idempotency-Key": key}
    body = {"order_details": [a_line(product["id"])]}
    first, second = (http.post("/orders", body, headers=headers) for _ in range(2))
    if first.status == 200 and key:
        assert (second.status, second.body) == (200, first.body)
    elif first.status != 200:
        check_error(first, first.status, None)
        assert 400 <= first.status < 500, str(first)


def test_a_key_of_one_shop_survives_a_restart(make_shop):
    """Keys live with the orders, not in a program's memory."""
    shop = make_shop().start()
    product = shop.http.make_product(a_product())
    headers = key_header()
    order_id = shop.http.make_order([a_line(product["id"])], headers=headers)
    for program in shop.programs:
        program.stop()
    for program in shop.programs:
        program.start()
    for program in shop.programs:
        program.wait_ready()
    assert shop.http.make_order([a_line(product["id"])], headers=headers) == order_id
    assert orders_in_database(shop) == 1
    wait_until(lambda: shop.outbox() == 0, "the outbox is empty")
    shop.wait_stock(product["id"], 9)


def test_a_key_is_forgotten_when_its_time_is_over(make_shop):
    """IDEMPOTENCY_TTL_S: after it the key is like new."""
    shop = make_shop()
    for name, settings in (("products", {}), ("orders", {"IDEMPOTENCY_TTL_S": "1"}), ("gateway", {})):
        shop.add(name, **settings).start()
    for program in shop.programs:
        program.wait_ready()
    product = shop.http.make_product(a_product())
    headers = key_header()
    first = shop.http.make_order([a_line(product["id"])], headers=headers)
    wait_until(lambda: shop.http.make_order([a_line(product["id"])], headers=headers) != first, "the key makes a new order")
    assert orders_in_database(shop) == 2

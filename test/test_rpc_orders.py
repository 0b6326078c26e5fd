"""orders over raw AMQP: its methods, its limits, and its data in PostgreSQL."""
import datetime
import uuid
from decimal import Decimal

import pytest

from support.amqp import RemoteError, result_of
from support.shop import a_line, unique

INT32_MAX = 2**31 - 1
LINES_MAX = 1000


def create(peer, *lines):
    return peer.call("orders.create_order", list(lines) or [a_line(unique())])


def count(shop):
    return shop.query("SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM order_details)")[0]


def assert_validation_error(error, *mentions):
    assert (error.exc_type, error.exc_path) == ("ValidationError", "marshmallow.exceptions.ValidationError"), error.error
    assert len(error.exc_args) == 1 and isinstance(error.exc_args[0], dict) and error.exc_args[0], error.error
    assert error.value == repr(error.exc_args[0]), error.error
    for mention in mentions:
        assert mention in error.value, error.error


def assert_not_found(error, order_id=None):
    assert (error.exc_type, error.exc_path) == ("NotFound", "orders.exceptions.NotFound"), error.error
    assert error.exc_args == [error.value]
    if order_id is not None:
        assert error.value == f"Order with id {order_id} not found"


# ---- create and get ---------------------------------------------------------------------------------------------


def test_an_order_to_the_letter(peer):
    first, second = unique(), unique()
    order = create(peer, a_line(first, "100000.99", 1), a_line(second, "0.1", 8))
    assert type(order["id"]) is int
    ids = [line["id"] for line in order["order_details"]]
    assert all(type(one) is int for one in ids) and ids == sorted(set(ids))
    assert order == {
        "id": order["id"],
        "order_details": [
            {"id": ids[0], "product_id": first, "price": "100000.99", "quantity": 1},
            {"id": ids[1], "product_id": second, "price": "0.10", "quantity": 8},
        ],
    }
    assert peer.call("orders.get_order", order["id"]) == order


def test_parameters_by_name(peer):
    order = peer.call("orders.create_order", order_details=[a_line(unique())])
    assert peer.call("orders.get_order", order_id=order["id"]) == order
    order["order_details"][0]["quantity"] = 9
    assert peer.call("orders.update_order", order=order) == order
    assert peer.call("orders.list_orders", after=order["id"] - 1, limit=1) == [order]
    assert peer.call("orders.delete_order", order_id=order["id"]) is None


def test_one_product_on_two_lines(peer):
    product_id = unique()
    order = create(peer, a_line(product_id, "1", 1), a_line(product_id, "2", 2))
    assert [(line["product_id"], line["price"], line["quantity"]) for line in order["order_details"]] == [
        (product_id, "1.00", 1),
        (product_id, "2.00", 2),
    ]


def test_stored_as_the_original_stores(shop, peer):
    """Types to the letter; timestamps are UTC, whatever zone the program and its session live in."""
    product_id = unique("Zeppelin ü飛")
    order = create(peer, a_line(product_id, "100000.99", 3))
    ((order_created, order_updated),) = shop.query("SELECT created_at, updated_at FROM orders WHERE id = %s", order["id"])
    rows = shop.query(
        "SELECT id, order_id, product_id, price, quantity, created_at, updated_at FROM order_details WHERE order_id = %s",
        order["id"],
    )
    assert len(rows) == 1
    line_id, order_id, stored_product_id, price, quantity, created, updated = rows[0]
    assert (line_id, order_id) == (order["order_details"][0]["id"], order["id"])
    assert (stored_product_id, quantity) == (product_id, 3)
    assert price == Decimal("100000.99") and price.as_tuple().exponent == -2
    now = datetime.datetime.utcnow()
    for moment in (order_created, order_updated, created, updated):
        assert moment.tzinfo is None
        assert abs(now - moment) < datetime.timedelta(minutes=5), f"{moment} is not UTC ({now})"


def test_orders_of_the_original_are_adopted(shop, peer):
    """Rows as the Python service writes them."""
    with shop.database() as cursor:
        cursor.execute("INSERT INTO orders (created_at, updated_at) VALUES (now(), now()) RETURNING id")
        (order_id,) = cursor.fetchone()
        cursor.execute(
            "INSERT INTO order_details (order_id, product_id, price, quantity, created_at, updated_at)"
            " VALUES (%s, 'the_odyssey', 99.5, 2, now(), now()), (%s, 'the_enigma', 0, 1, now(), now()) RETURNING id",
            (order_id, order_id),
        )
        ids = [row[0] for row in cursor.fetchall()]
    assert peer.call("orders.get_order", order_id) == {
        "id": order_id,
        "order_details": [
            {"id": ids[0], "product_id": "the_odyssey", "price": "99.50", "quantity": 2},
            {"id": ids[1], "product_id": "the_enigma", "price": "0.00", "quantity": 1},
        ],
    }


@pytest.mark.parametrize("order_id", [0, -1, INT32_MAX, INT32_MAX + 1, -(2**31) - 1, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30])
@pytest.mark.parametrize("method", ["get_order", "delete_order"])
def test_an_order_that_does_not_exist(peer, method, order_id):
    assert_not_found(peer.error(f"orders.{method}", order_id), order_id)


BEYOND_64_BITS = [2**63, 2**64 - 1, 2**70, -(2**70), 10**30 + 1, 123456789012345678901234567890]


@pytest.mark.parametrize("order_id", [*BEYOND_64_BITS, *map(str, BEYOND_64_BITS)], ids=repr)
def test_an_id_beyond_64_bits_comes_back_whole(peer, order_id):
    """No digit is lost, however it was given."""
    for method in ("get_order", "delete_order"):
        assert_not_found(peer.error(f"orders.{method}", order_id), order_id)
        assert_not_found(peer.error(f"orders.{method}", order_id=order_id), order_id)
    change = {"order_details": [], "id": order_id}
    assert_not_found(peer.error("orders.update_order", change), order_id)
    assert_not_found(peer.error("orders.update_order", order=change), order_id)


@pytest.mark.parametrize("after", [INT32_MAX, 2**63 - 1, *(one for one in BEYOND_64_BITS if one > 0)], ids=repr)
def test_a_page_behind_the_last_order_there_can_be(peer, after):
    create(peer)
    assert peer.call("orders.list_orders", after) == []
    assert peer.call("orders.list_orders", after=str(after), limit=1) == []


@pytest.mark.parametrize("order_id", ["abc", "", "1; DROP TABLE orders", None, True, 1.5, [], {}, [1]], ids=repr)
@pytest.mark.parametrize("method", ["get_order", "delete_order"])
def test_an_order_id_that_is_none(shop, peer, method, order_id):
    before = count(shop)
    error = peer.error(f"orders.{method}", order_id)
    assert error.exc_type in ("NotFound", "ValidationError"), error.error
    assert count(shop) == before


# ---- prices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "price, stored",
    [
        ("100000.99", "100000.99"),
        ("0", "0.00"),
        ("0.00", "0.00"),
        ("0.1", "0.10"),
        ("0.01", "0.01"),
        ("1.5", "1.50"),
        ("5", "5.00"),
        ("19.99", "19.99"),
        ("9999999999999999.99", "9999999999999999.99"),
        ("9999999999999999", "9999999999999999.00"),
        ("9007199254740993.01", "9007199254740993.01"),
        (100000.99, "100000.99"),
        (0, "0.00"),
        (0.1, "0.10"),
        (0.29, "0.29"),
        (1.15, "1.15"),
        (5, "5.00"),
        (5.0, "5.00"),
        (99999999999.99, "99999999999.99"),
        (9999999999999999, "9999999999999999.00"),
    ],
    ids=repr,
)
def test_prices_are_exact(shop, peer, price, stored):
    order = create(peer, a_line(unique(), price, 1))
    assert order["order_details"][0]["price"] == stored
    assert peer.call("orders.get_order", order["id"]) == order
    assert str(shop.order_in_database(order["id"])[0][2]) == stored


BAD_PRICES = [
    "1.005",
    "0.001",
    "1.500",
    1.005,
    0.001,
    100000.999,
    "10000000000000000",
    "10000000000000000.00",
    "99999999999999999.99",
    10_000_000_000_000_000,
    10**30,
    1e300,
    "9" * 10_000,
    "-1",
    "-0.01",
    -1,
    -0.01,
    "+1",
    "1e2",
    "1E2",
    "1.0e1",
    " 1",
    "1 ",
    "1 0",
    "\n1",
    "1\n",
    "",
    " ",
    ".",
    "-",
    "1,50",
    "1_000",
    "1'000",
    "0x10",
    "$1",
    "1.2.3",
    "NaN",
    "nan",
    "Infinity",
    "-Infinity",
    "abc",
    "١٢",
    "１２",
    "1.٥",
    "1\u00a0",
    True,
    False,
    None,
    [],
    {},
    ["1"],
]


def _short(value):
    return repr(value)[:30]


@pytest.mark.parametrize("price", BAD_PRICES, ids=_short)
def test_a_bad_price(shop, peer, price):
    before = count(shop)
    assert_validation_error(peer.error("orders.create_order", [a_line(unique(), price)]), "price")
    assert count(shop) == before


# ---- quantities, product ids, lines -----------------------------------------------------------------------------


@pytest.mark.parametrize("quantity, stored", [(1, 1), (INT32_MAX, INT32_MAX), ("3", 3), (str(INT32_MAX), INT32_MAX)])
def test_quantities(peer, quantity, stored):
    order = create(peer, a_line(unique(), quantity=quantity))
    assert order["order_details"][0]["quantity"] == stored


BAD_QUANTITIES = [
    0,
    -1,
    INT32_MAX + 1,
    2**32 + 1,
    2**63,
    2**64 + 1,
    10**30,
    3.7,
    0.5,
    1e300,
    "0",
    "-1",
    "2147483648",
    "1.5",
    "1e1",
    "abc",
    "",
    True,
    False,
    None,
    [],
    {},
    [1],
]


@pytest.mark.parametrize("quantity", BAD_QUANTITIES, ids=_short)
def test_a_bad_quantity(shop, peer, quantity):
    before = count(shop)
    assert_validation_error(peer.error("orders.create_order", [a_line(unique(), quantity=quantity)]), "quantity")
    assert count(shop) == before


@pytest.mark.parametrize(
    "product_id",
    ["", "x" * 1025, "ü" * 513, "x" * 10_240, 5, 1.5, True, None, [], {}, ["a"]],
    ids=lambda value: _short(value),
)
def test_a_bad_product_id(shop, peer, product_id):
    before = count(shop)
    assert_validation_error(peer.error("orders.create_order", [a_line(product_id)]), "product_id")
    assert count(shop) == before


@pytest.mark.parametrize(
    "product_id",
    [" ", ".", "*", "#", "a\nb\r\n", "'; DROP TABLE orders; --", "\\", '"', "{1,2}", "NULL", "飛行船🛩", "x" * 1024, "ü" * 512],
    ids=_short,
)
def test_any_product_id(shop, peer, product_id):
    order = create(peer, a_line(product_id))
    assert order["order_details"][0]["product_id"] == product_id
    assert peer.call("orders.get_order", order["id"]) == order
    assert shop.order_in_database(order["id"])[0][1] == product_id


@pytest.mark.parametrize("field", ["product_id", "price", "quantity"])
def test_a_missing_field(shop, peer, field):
    before = count(shop)
    line = a_line(unique())
    del line[field]
    assert_validation_error(peer.error("orders.create_order", [line]), field)
    assert_validation_error(peer.error("orders.create_order", [a_line(unique()), line]), field)
    assert count(shop) == before


@pytest.mark.parametrize("details", [None, {}, a_line("x"), "text", "", 5, True, [], [None], [5], ["x"], [[]], [{}]], ids=_short)
def test_order_details_that_are_none(shop, peer, details):
    before = count(shop)
    assert_validation_error(peer.error("orders.create_order", details))
    assert count(shop) == before


def test_a_thousand_lines(shop, peer):
    lines = [a_line(f"bulk-{number % 7}", f"{number}.{number % 100:02}", number + 1) for number in range(LINES_MAX)]
    order = create(peer, *lines)
    assert [{key: line[key] for key in ("product_id", "price", "quantity")} for line in order["order_details"]] == lines
    assert peer.call("orders.get_order", order["id"]) == order
    assert len(shop.order_in_database(order["id"])) == LINES_MAX


def test_a_thousand_and_one_lines(shop, peer):
    before = count(shop)
    assert_validation_error(peer.error("orders.create_order", [a_line(f"p{number}") for number in range(LINES_MAX + 1)]))
    assert count(shop) == before


def test_one_bad_line_refuses_the_order(shop, peer):
    before = count(shop)
    lines = [a_line(unique()) for _ in range(5)] + [a_line(unique(), quantity=0)]
    assert_validation_error(peer.error("orders.create_order", lines), "quantity")
    assert count(shop) == before


def test_unknown_fields_are_ignored(peer):
    product_id = unique()
    order = create(peer, {**a_line(product_id), "id": 1, "colour": "red", "order_id": 1, "x": {"deep": [None]}})
    assert set(order["order_details"][0]) == {"id", "product_id", "price", "quantity"}
    assert peer.call("orders.get_order", order["id"]) == order


# ---- once -------------------------------------------------------------------------------------------------------


def test_a_request_delivered_twice_makes_one_order(shop, peer):
    """A broker redelivers after a lost link: the same message, the same correlation id."""
    product_id = unique()
    body = {"args": [[a_line(product_id)]], "kwargs": {}}
    correlation_id = str(uuid.uuid4())
    for _ in range(3):
        peer.send("orders.create_order", body, correlation_id=correlation_id)
    orders = [result_of(peer.reply(correlation_id)) for _ in range(3)]
    assert orders[0] == orders[1] == orders[2]
    assert shop.query("SELECT count(*) FROM order_details WHERE product_id = %s", product_id) == [(1,)]


def test_equal_orders_of_two_requests_are_two(peer):
    line = a_line(unique())
    assert create(peer, line)["id"] != create(peer, line)["id"]


def test_one_idempotency_key_makes_one_order(shop, peer):
    product_id = unique()
    headers = {"nameko.call_id_stack": ["gateway.1"], "nameko.idempotency_key": str(uuid.uuid4())}
    body = {"args": [[a_line(product_id)]], "kwargs": {}}
    sent = [peer.send("orders.create_order", body, headers=headers) for _ in range(8)]
    made = []
    for one in sent:
        try:
            made.append(result_of(peer.reply(one)))
        except RemoteError as error:  # still under way: an honest refusal, never a second order
            assert error.exc_type != "UnexpectedError", error.error
    assert made and all(order == made[0] for order in made)
    assert result_of(peer.exchange("orders.create_order", body, headers=headers)) == made[0]
    assert shop.query("SELECT count(*) FROM order_details WHERE product_id = %s", product_id) == [(1,)]


def test_one_idempotency_key_with_another_order_is_refused(shop, peer):
    headers = {"nameko.call_id_stack": ["gateway.1"], "nameko.idempotency_key": str(uuid.uuid4())}
    order = result_of(
        peer.exchange("orders.create_order", {"args": [[a_line(unique())]], "kwargs": {}}, headers=headers)
    )
    before = count(shop)
    response = peer.exchange("orders.create_order", {"args": [[a_line(unique())]], "kwargs": {}}, headers=headers)
    assert response.json["error"] is not None and response.json["error"]["exc_type"] != "UnexpectedError"
    assert count(shop) == before
    assert peer.call("orders.get_order", order["id"]) == order


# ---- update -----------------------------------------------------------------------------------------------------


def test_update_changes_price_and_quantity_alone(shop, peer):
    first, second = unique(), unique()
    order = create(peer, a_line(first, "1.00", 1), a_line(second, "2.00", 2))
    one, two = order["order_details"]
    changed = peer.call(
        "orders.update_order",
        {"id": order["id"], "order_details": [{"id": two["id"], "product_id": "other", "price": "9.99", "quantity": 7}]},
    )
    expected = {
        "id": order["id"],
        "order_details": [one, {"id": two["id"], "product_id": second, "price": "9.99", "quantity": 7}],
    }
    assert changed == expected
    assert peer.call("orders.get_order", order["id"]) == expected
    rows = shop.query(
        "SELECT id, updated_at > created_at, created_at < updated_at + interval '1 minute' FROM order_details"
        " WHERE order_id = %s ORDER BY id",
        order["id"],
    )
    assert rows == [(one["id"], False, True), (two["id"], True, True)]


def test_update_takes_what_get_gave(peer):
    order = create(peer, a_line(unique(), "1.00", 1), a_line(unique(), "2.00", 2))
    order["order_details"][0]["price"] = "0.00"
    order["order_details"][1]["quantity"] = INT32_MAX
    assert peer.call("orders.update_order", order) == order
    assert peer.call("orders.get_order", order["id"]) == order


@pytest.mark.parametrize("order_id", [0, -1, INT32_MAX, INT32_MAX + 1, 2**64])
def test_update_of_nothing(shop, peer, order_id):
    line = {"id": 1, "price": "1.00", "quantity": 1}
    assert_not_found(peer.error("orders.update_order", {"id": order_id, "order_details": [line]}), order_id)


def test_update_with_a_line_of_another_order_changes_nothing(peer):
    order, other = create(peer, a_line(unique(), "1", 1)), create(peer, a_line(unique(), "2", 2))
    own, foreign = order["order_details"][0]["id"], other["order_details"][0]["id"]
    for line_id in (foreign, INT32_MAX, INT32_MAX + 1, 0, -1):
        lines = [{"id": own, "price": "5", "quantity": 5}, {"id": line_id, "price": "6", "quantity": 6}]
        for attempt in (lines, lines[::-1]):
            error = peer.error("orders.update_order", {"id": order["id"], "order_details": attempt})
            assert_not_found(error)
    assert peer.call("orders.get_order", order["id"]) == order
    assert peer.call("orders.get_order", other["id"]) == other


@pytest.mark.parametrize(
    "line",
    [{"price": price, "quantity": 1} for price in ("1.005", -1, "abc", "10000000000000000", True, None)]
    + [{"price": "1", "quantity": quantity} for quantity in (0, -1, INT32_MAX + 1, 1.5, True, "x", None)],
    ids=_short,
)
def test_update_with_a_bad_line_changes_nothing(peer, line):
    order = create(peer, a_line(unique()), a_line(unique()))
    one, two = order["order_details"]
    lines = [{"id": one["id"], "price": "5", "quantity": 5}, {"id": two["id"], **line}]
    field = "quantity" if line["price"] == "1" else "price"
    assert_validation_error(peer.error("orders.update_order", {"id": order["id"], "order_details": lines}), field)
    assert peer.call("orders.get_order", order["id"]) == order


@pytest.mark.parametrize(
    "argument",
    [None, [], "text", 5, True, {}, {"order_details": []}, {"id": "abc", "order_details": []}, {"id": None, "order_details": []}],
    ids=_short,
)
def test_update_of_no_order(peer, argument):
    error = peer.error("orders.update_order", argument)
    assert error.exc_type in ("ValidationError", "NotFound"), error.error


@pytest.mark.parametrize("details", [None, {}, "text", 5, [None], [5], [{}], [{"price": "1", "quantity": 1}]], ids=_short)
def test_update_with_no_lines_changes_nothing(peer, details):
    order = create(peer)
    assert_validation_error(peer.error("orders.update_order", {"id": order["id"], "order_details": details}))
    assert peer.call("orders.get_order", order["id"]) == order


def test_update_that_comes_again_changes_nothing(peer):
    """As after a lost link: what others changed in between was acknowledged, and stays."""
    order = create(peer, a_line(unique(), "1.00", 1))
    line = order["order_details"][0]

    def change(quantity):
        return {"args": [{"id": order["id"], "order_details": [dict(line, quantity=quantity)]}], "kwargs": {}}

    first = peer.send("orders.update_order", change(2))
    assert result_of(peer.reply(first))["order_details"][0]["quantity"] == 2
    assert peer.call("orders.update_order", *change(3)["args"])["order_details"][0]["quantity"] == 3
    peer.send("orders.update_order", change(2), correlation_id=first)
    assert result_of(peer.reply(first))["order_details"][0]["quantity"] == 3
    assert peer.call("orders.get_order", order["id"])["order_details"][0]["quantity"] == 3


# ---- delete -----------------------------------------------------------------------------------------------------


def test_delete_that_comes_again_is_answered_as_the_first(peer):
    order = create(peer)
    body = {"args": [order["id"]], "kwargs": {}}
    first = peer.send("orders.delete_order", body)
    answer = peer.reply(first)
    assert result_of(answer) is None
    peer.send("orders.delete_order", body, correlation_id=first)
    assert peer.reply(first).body == answer.body
    assert_not_found(peer.error("orders.delete_order", order["id"]), order["id"])


def test_delete_takes_the_lines_along(shop, peer):
    order, other = create(peer, a_line(unique()), a_line(unique())), create(peer)
    assert peer.call("orders.delete_order", order["id"]) is None
    assert_not_found(peer.error("orders.get_order", order["id"]), order["id"])
    assert_not_found(peer.error("orders.delete_order", order["id"]), order["id"])
    assert shop.order_in_database(order["id"]) is None
    assert shop.query("SELECT count(*) FROM order_details WHERE order_id = %s", order["id"]) == [(0,)]
    assert peer.call("orders.get_order", other["id"]) == other


# ---- list -------------------------------------------------------------------------------------------------------


def test_list_by_id(peer):
    orders = [create(peer, a_line(unique()), a_line(unique())) for _ in range(7)]
    before = orders[0]["id"] - 1
    listed = [order for order in peer.call("orders.list_orders") if order["id"] > before]
    assert listed[:7] == orders
    assert peer.call("orders.list_orders", before, 3) == orders[:3]
    assert peer.call("orders.list_orders", after=orders[2]["id"], limit=3) == orders[3:6]
    assert peer.call("orders.list_orders", after=orders[5]["id"])[:1] == orders[6:]
    assert peer.call("orders.list_orders", limit=1)[0]["id"] <= orders[0]["id"]
    assert peer.call("orders.list_orders", None, None)[-1] == peer.call("orders.list_orders")[-1]


def test_list_behind_the_last(peer):
    order = create(peer)
    assert peer.call("orders.list_orders", order["id"]) == []
    assert peer.call("orders.list_orders", INT32_MAX, 5) == []


def test_a_deleted_order_leaves_the_list(peer):
    orders = [create(peer) for _ in range(3)]
    peer.call("orders.delete_order", orders[1]["id"])
    assert peer.call("orders.list_orders", orders[0]["id"] - 1, 2) == [orders[0], orders[2]]


@pytest.mark.parametrize("name", ["after", "limit"])
@pytest.mark.parametrize("value", [-1, "abc", "", 1.5, True, [], {}], ids=_short)
def test_a_bad_page(peer, name, value):
    error = peer.error("orders.list_orders", **{name: value})
    assert_validation_error(error, name)


def test_a_limit_of_nothing(peer):
    assert_validation_error(peer.error("orders.list_orders", limit=0), "limit")

"""products over raw AMQP: its methods, its limits, and its data in Redis."""
import pytest

from support.shop import a_product, unique

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
FIELDS = ("id", "title", "passenger_capacity", "maximum_speed", "in_stock")
INTEGERS = FIELDS[2:]

# Product ids that live their whole life like any other.
IDS = [
    pytest.param("a", id="one-byte"),
    pytest.param("with space", id="space"),
    pytest.param(" ", id="only-space"),
    pytest.param("with.dots..", id="dots"),
    pytest.param(".", id="dot"),
    pytest.param("..", id="dotdot"),
    pytest.param("a/b/../c", id="slashes"),
    pytest.param("*", id="star"),
    pytest.param("#", id="hash"),
    pytest.param("[a-z]?*", id="glob"),
    pytest.param("line\nbreak\r\n", id="newline"),
    pytest.param("tab\tbell\x07del\x7f", id="control"),
    pytest.param('quo"te\\back\'s', id="quotes"),
    pytest.param("%41%00%", id="percents"),
    pytest.param("a?b=c&d+e;f", id="query"),
    pytest.param("products:nested:1", id="colons"),
    pytest.param("Zeppelin-Lüftschiff-飛行船-🛩", id="utf-8"),
    pytest.param("e\u0301 \u202e\ufeff\uffff", id="odd-unicode"),
    pytest.param("0", id="zero"),
    pytest.param("null", id="null-word"),
    pytest.param("x" * 1024, id="1024-bytes"),
    pytest.param("ü" * 512, id="1024-bytes-utf-8"),
]


def as_stored(product):
    return {name: str(value) for name, value in product.items()}


def make(peer, **changes):
    product = a_product(**changes)
    assert peer.call("products.create", product) is None
    return product


def assert_validation_error(error):
    assert (error.exc_type, error.exc_path) == ("ValidationError", "marshmallow.exceptions.ValidationError"), error.error
    assert len(error.exc_args) == 1 and isinstance(error.exc_args[0], dict) and error.exc_args[0], error.error
    assert error.value == repr(error.exc_args[0]), error.error
    for messages in error.exc_args[0].values():
        assert messages, error.error


# ---- the methods ------------------------------------------------------------------------------------------------


def test_create_get_exists_delete(peer):
    product = a_product()
    key = product["id"]
    assert peer.call("products.exists", key) is False
    assert peer.call("products.create", product) is None
    assert peer.call("products.exists", key) is True
    got = peer.call("products.get", key)
    assert got == product
    assert {name: type(value) for name, value in got.items()} == {
        name: int if name in INTEGERS else str for name in FIELDS
    }
    assert peer.call("products.delete", key) is None
    assert peer.call("products.exists", key) is False
    assert peer.error("products.get", key).exc_type == "NotFound"


def test_parameters_by_name(peer):
    product = a_product()
    assert peer.call("products.create", product=product) is None
    assert peer.call("products.get", product_id=product["id"]) == product
    assert peer.call("products.exists", product_id=product["id"]) is True
    assert peer.call("products.delete", product_id=product["id"]) is None
    assert peer.call("products.exists", product_id=product["id"]) is False


def test_delete_of_nothing_is_no_error(peer):
    assert peer.call("products.delete", unique("never")) is None


def test_create_replaces(peer):
    product = make(peer)
    replacement = a_product(product["id"], title="Another", in_stock=3, maximum_speed=7, passenger_capacity=1)
    assert peer.call("products.create", replacement) is None
    assert peer.call("products.get", product["id"]) == replacement


def test_create_that_comes_again_changes_nothing(shop, peer):
    """As after a lost link: the broker delivers a request again that was answered."""
    product = a_product(in_stock=10)
    body = {"args": [product], "kwargs": {}}
    for expiration in (None, "60000"):
        first = peer.send("products.create", body, expiration=expiration)
        answer = peer.reply(first)
        assert peer.call("products.get", product["id"])["in_stock"] == 10
        details = [{"id": 1, "product_id": product["id"], "price": "1.00", "quantity": 4}]
        order = {"id": 2_100_000_000 + bool(expiration), "order_details": details}
        peer.publish_event("orders", "order_created", {"order": order})
        shop.wait_stock(product["id"], 6)
        peer.send("products.create", body, correlation_id=first, expiration=expiration)
        assert peer.reply(first).body == answer.body
        assert peer.call("products.get", product["id"])["in_stock"] == 6


def test_delete_that_comes_again_changes_nothing(shop, peer):
    """A product that was made anew in between was acknowledged: the deletion before it may not take it."""
    product = a_product()
    body = {"args": [product["id"]], "kwargs": {}}
    for expiration in (None, "60000"):
        peer.call("products.create", product)
        first = peer.send("products.delete", body, expiration=expiration)
        answer = peer.reply(first)
        assert peer.call("products.exists", product["id"]) is False
        peer.call("products.create", product)
        peer.send("products.delete", body, correlation_id=first, expiration=expiration)
        assert peer.reply(first).body == answer.body
        assert peer.call("products.get", product["id"]) == product
    assert peer.call("products.delete", product["id"]) is None
    assert peer.call("products.exists", product["id"]) is False


def test_list_holds_every_product_once(peer):
    products = [make(peer) for _ in range(25)]
    listed = peer.call("products.list")
    ids = [product["id"] for product in listed]
    assert len(ids) == len(set(ids)), "a product is listed twice"
    for product in products:
        assert product in listed
    for product in listed:
        assert set(product) == set(FIELDS)


@pytest.mark.parametrize("product_id", ["nothing-here", "*", "products:*", "", "ü", "x" * 1024])
def test_get_of_nothing(peer, product_id):
    error = peer.error("products.get", product_id)
    assert (error.exc_type, error.exc_path) == ("NotFound", "products.exceptions.NotFound")
    assert error.value == f"Product ID {product_id} does not exist"
    assert error.exc_args == [error.value]


@pytest.mark.parametrize("product_id", [5, 1.5, True, None, [], {}, ["a"]], ids=repr)
@pytest.mark.parametrize("method", ["get", "exists", "delete"])
def test_an_id_that_is_no_string_finds_nothing(peer, method, product_id):
    """Whatever the answer is, it is one, and it is no product."""
    response = peer.exchange(f"products.{method}", {"args": [product_id], "kwargs": {}}).json
    if response["error"] is None:
        assert response["result"] in (False, None)
    else:
        assert response["error"]["exc_type"] in ("NotFound", "ValidationError")


@pytest.mark.parametrize("product_id", IDS)
def test_any_id_lives_its_whole_life(shop, peer, product_id):
    product = a_product(product_id)
    assert peer.call("products.create", product) is None
    assert shop.redis().hgetall(f"products:{product_id}") == as_stored(product)
    assert peer.call("products.get", product_id) == product
    assert peer.call("products.exists", product_id) is True
    assert product in peer.call("products.list")
    assert peer.call("products.delete", product_id) is None
    assert peer.call("products.exists", product_id) is False
    assert not shop.redis().exists(f"products:{product_id}")


# ---- what create refuses ----------------------------------------------------------------------------------------

MISSING = "Missing data for required field."
NULL = "Field may not be null."
NO_STRING = "Not a valid string."
NO_INTEGER = "Not a valid integer."

NOT_A_STRING = [5, 1.5, True, False, [], {}, ["a"]]
NOT_AN_INTEGER = ["abc", "", "1.5", "1e3", "0x10", "5 apples", 3.7, -0.5, 1e300, True, False, [], {}, [1]]


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field(peer, field):
    product = a_product()
    key = product.pop(field) if field == "id" else product["id"]
    product.pop(field, None)
    error = peer.error("products.create", product)
    assert_validation_error(error)
    assert error.exc_args[0] == {field: [MISSING]}
    assert error.value == f"{{'{field}': ['{MISSING}']}}"
    assert peer.call("products.exists", key) is False


@pytest.mark.parametrize("field", FIELDS)
def test_a_null_field(peer, field):
    error = peer.error("products.create", a_product(**{field: None}) if field != "id" else {**a_product(), "id": None})
    assert_validation_error(error)
    assert error.exc_args[0] == {field: [NULL]}


@pytest.mark.parametrize("value", NOT_A_STRING, ids=repr)
@pytest.mark.parametrize("field", ["id", "title"])
def test_no_string(peer, field, value):
    error = peer.error("products.create", {**a_product(), field: value})
    assert_validation_error(error)
    assert error.exc_args[0] == {field: [NO_STRING]}


@pytest.mark.parametrize("value", NOT_AN_INTEGER, ids=repr)
@pytest.mark.parametrize("field", INTEGERS)
def test_no_integer(peer, field, value):
    product = a_product(**{field: value})
    error = peer.error("products.create", product)
    assert_validation_error(error)
    assert error.exc_args[0] == {field: [NO_INTEGER]}
    assert peer.call("products.exists", product["id"]) is False


def test_all_fields_missing(peer):
    error = peer.error("products.create", {})
    assert_validation_error(error)
    assert error.exc_args[0] == {field: [MISSING] for field in FIELDS}


def test_each_bad_field_is_named(peer):
    error = peer.error("products.create", {"id": 1, "title": None, "passenger_capacity": "x", "maximum_speed": 3})
    assert_validation_error(error)
    assert error.exc_args[0] == {
        "id": [NO_STRING],
        "title": [NULL],
        "passenger_capacity": [NO_INTEGER],
        "in_stock": [MISSING],
    }


@pytest.mark.parametrize("product", [None, [], [a_product()], "text", 5, 1.5, True, ""], ids=repr)
def test_a_product_that_is_no_object(peer, product):
    error = peer.error("products.create", product)
    assert_validation_error(error)
    assert error.exc_args == [{"_schema": ["Invalid input type."]}]
    assert error.value == "{'_schema': ['Invalid input type.']}"


@pytest.mark.parametrize("field", INTEGERS)
@pytest.mark.parametrize(
    "value",
    [INT64_MAX + 1, INT64_MIN - 1, str(INT64_MAX + 1), str(INT64_MIN - 1), 2**64, 10**30, "9" * 400],
    ids=lambda value: repr(value)[:25],
)
def test_an_integer_beyond_64_bits(peer, field, value):
    product = a_product(**{field: value})
    error = peer.error("products.create", product)
    assert_validation_error(error)
    assert list(error.exc_args[0]) == [field]
    assert peer.call("products.exists", product["id"]) is False


@pytest.mark.parametrize("field", INTEGERS)
@pytest.mark.parametrize("value", [INT64_MAX, INT64_MIN, 0, -1, 2**31, 2**53 + 1])
@pytest.mark.parametrize("as_text", [False, True], ids=["number", "text"])
def test_integers_are_kept_exactly(shop, peer, field, value, as_text):
    product = make(peer, **{field: str(value) if as_text else value})
    assert peer.call("products.get", product["id"])[field] == value
    assert shop.redis().hget(f"products:{product['id']}", field) == str(value)


@pytest.mark.parametrize(
    "product_id", ["", "x" * 1025, "ü" * 513, "x" * 10_240], ids=["empty", "1025", "1026-utf-8", "10-kB"]
)
def test_an_id_beyond_its_limits(shop, peer, product_id):
    error = peer.error("products.create", {**a_product(), "id": product_id})
    assert_validation_error(error)
    assert list(error.exc_args[0]) == ["id"]
    assert not shop.redis().exists(f"products:{product_id}")


def test_unknown_fields_are_never_stored(shop, peer):
    product = a_product()
    extended = {**product, "colour": "red", "nested": {"deep": [1, 2, {"er": None}]}, "": 1}
    assert peer.call("products.create", extended) is None
    assert shop.redis().hgetall(f"products:{product['id']}") == as_stored(product)
    assert peer.call("products.get", product["id"]) == product


@pytest.mark.parametrize(
    "title", ["", " ", "null", "a\nb", "ü飛🛩", '"\\/\b\f', "x" * 100_000], ids=lambda title: repr(title)[:20]
)
def test_any_title(peer, title):
    product = make(peer, title=title)
    assert peer.call("products.get", product["id"]) == product


def test_a_title_of_eight_mebibytes(peer):
    product = make(peer, title="t" * 8 * 2**20)
    assert peer.call("products.get", product["id"]) == product
    assert peer.call("products.delete", product["id"]) is None


# ---- the data ---------------------------------------------------------------------------------------------------


def test_stored_as_the_original_stores(shop, peer):
    product = make(peer, title="The Ïslander")
    key = f"products:{product['id']}"
    assert shop.redis().type(key) == "hash"
    assert shop.redis().hgetall(key) == as_stored(product)
    assert shop.redis().ttl(key) == -1


def test_products_of_the_original_are_adopted(shop, peer):
    product = a_product(unique("adopted"), title="Made by ünother", in_stock=-7)
    shop.redis().hset(f"products:{product['id']}", mapping=as_stored(product))
    assert peer.call("products.exists", product["id"]) is True
    assert peer.call("products.get", product["id"]) == product
    assert product in peer.call("products.list")
    assert peer.call("products.delete", product["id"]) is None
    assert not shop.redis().exists(f"products:{product['id']}")


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "broken"},
        {"id": "broken", "title": "t", "passenger_capacity": "many", "maximum_speed": "1", "in_stock": "1"},
        {"id": "broken", "title": "t", "passenger_capacity": "1", "maximum_speed": "1", "in_stock": "9" * 40},
        {"id": "broken", "title": b"\xff\xfe", "passenger_capacity": "1", "maximum_speed": "1", "in_stock": "1"},
    ],
    ids=["half-empty", "no-number", "huge-number", "no-utf-8"],
)
def test_a_damaged_product_is_an_error_of_its_own(shop, peer, fields):
    product = make(peer)
    damaged = unique("broken")
    try:
        shop.redis().hset(f"products:{damaged}", mapping={**fields, "id": damaged})
        response = peer.exchange("products.get", {"args": [damaged], "kwargs": {}}).json
        assert response["error"] is not None and response["result"] is None
        assert peer.call("products.get", product["id"]) == product
    finally:
        shop.redis().delete(f"products:{damaged}")


def test_a_key_of_another_type_is_an_error_of_its_own(shop, peer):
    key = unique("string")
    try:
        shop.redis().set(f"products:{key}", "no hash")
        response = peer.exchange("products.get", {"args": [key], "kwargs": {}}).json
        assert response["error"] is not None and response["error"]["exc_type"] == "UnexpectedError"
        assert response["error"]["exc_path"] == "products.exceptions.UnexpectedError"
    finally:
        shop.redis().delete(f"products:{key}")
    assert peer.call("products.exists", key) is False


def test_redis_is_never_asked_for_all_keys(shop, peer):
    peer.call("products.list")
    assert "cmdstat_keys" not in shop.redis().info("commandstats")


def test_a_list_that_is_too_large_names_what_takes_the_room(shop, peer):
    """A title may be as long as a message; whoever asks for all products then hears which one it is."""
    large, small = make(peer, title="t" * 10 * 2**20), make(peer, title="t" * 7 * 2**20)
    try:
        error = peer.error("products.list")
        assert (error.exc_type, error.exc_path) == ("ListTooLong", "products.exceptions.ListTooLong"), error.error
        assert f": {large['id']}" in error.value and small["id"] not in error.value, error.error
        assert large["id"].encode() in shop.the("products").log()
    finally:
        for product in (large, small):
            peer.call("products.delete", product["id"])
    peer.call("products.list")


# ---- the list's limit -------------------------------------------------------------------------------------------

LIST_MAX = 100_000
FILL = """
for i = 1, tonumber(ARGV[1]) do
    redis.call('HSET', 'products:p' .. i, 'id', 'p' .. i, 'title', 't', 'passenger_capacity', '1', 'maximum_speed', '2',
               'in_stock', '3')
end
"""


def test_a_list_longer_than_its_limit_is_an_error_that_says_so(make_shop):
    shop = make_shop()
    shop.start(products=1, orders=0, gateways=0)
    peer = shop.peer()
    redis = shop.redis()
    redis.eval(FILL, 0, 20_000)
    listed = peer.call("products.list")
    assert sorted(product["id"] for product in listed) == sorted(f"p{i}" for i in range(1, 20_001))
    redis.eval(FILL, 0, LIST_MAX + 1)
    correlation_id = peer.send("products.list", {"args": [], "kwargs": {}})
    assert peer.call("products.get", "p7")["id"] == "p7"  # others are served meanwhile
    error = peer.reply(correlation_id, "the answer to a list of too many").json["error"]
    assert error is not None and str(LIST_MAX) in error["value"].replace(",", ""), error
    assert peer.call("products.get", "p7")["in_stock"] == 3
    redis.flushdb()

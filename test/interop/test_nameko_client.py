"""Nameko's standalone client before our services: results, and exceptions as it maps them; Python's own stand beside."""
import pytest
from nameko.exceptions import (
    IncorrectSignature,
    MalformedRequest,
    MethodNotFound,
    RemoteError,
    UnknownService,
    deserialize,
    registry,
)
from orders.exceptions import NotFound as OrderNotFound
from products.exceptions import NotFound as ProductNotFound
from support.amqp import Peer
from support.amqp import RemoteError as PeerError
from support.shop import a_line, a_product, unique


class Invalid(Exception):
    pass


@pytest.fixture(autouse=True)
def registered():
    """A caller's own classes, found by exc_path."""
    mine = {
        "products.exceptions.NotFound": ProductNotFound,
        "orders.exceptions.NotFound": OrderNotFound,
        "marshmallow.exceptions.ValidationError": Invalid,
    }
    registry.update(mine)
    yield
    for path in mine:
        registry.pop(path, None)


@pytest.fixture(scope="module")
def python_services(make_mixed):
    shop = make_mixed()
    shop.use("products", "Python")
    shop.use("orders", "Python")
    return shop


@pytest.fixture(scope="module")
def client(c_services):
    with c_services.rpc() as client:
        yield client


def test_by_position_and_by_name(c_services, client):
    product = a_product(unique("client"), title="Ünï\u2708\U0001f6a2 \"'\\\n\t", in_stock=-3)
    assert client.products.create(product=product) is None
    assert client.products.get(product["id"]) == product
    assert client.products.get(product_id=product["id"]) == product
    with c_services.service_rpc("products") as products:
        assert products.exists(product["id"]) is True
        assert products.exists(product_id="no such") is False
        assert products.delete(product_id=product["id"]) is None
    order = client.orders.create_order([a_line("anything", "0.1", 2147483647)])
    assert order["order_details"][0]["price"] == "0.10"
    assert client.orders.get_order(order_id=order["id"]) == order


def test_many_calls_in_flight(client):
    products = [a_product(unique("flight")) for _ in range(50)]
    for call in [client.products.create.call_async(product) for product in products]:
        assert call.result() is None
    calls = [client.products.get.call_async(product["id"]) for product in products]
    assert [call.result() for call in reversed(calls)] == products[::-1]


def test_optional_parameters_are_ours_alone(client):
    ids = [client.orders.create_order([a_line("x")])["id"] for _ in range(3)]
    page = client.orders.list_orders(after=ids[0] - 1, limit=2)
    assert [order["id"] for order in page] == ids[:2]
    assert [order["id"] for order in client.orders.list_orders(ids[0], 1)] == ids[1:2]


def test_exceptions_are_mapped(client):
    missing = unique("missing")
    with pytest.raises(ProductNotFound, match=f"^Product ID {missing} does not exist$"):
        client.products.get(missing)
    with pytest.raises(OrderNotFound, match="^Order with id 999999 not found$"):
        client.orders.get_order(999999)
    with pytest.raises(OrderNotFound):
        client.orders.delete_order(999999)
    with pytest.raises(OrderNotFound):
        client.orders.update_order({"id": 999999, "order_details": []})
    with pytest.raises(Invalid) as invalid:
        client.products.create({"id": missing})
    assert invalid.value.args[0]["title"] == ["Missing data for required field."]
    with pytest.raises(Invalid) as invalid:
        client.orders.create_order([a_line("x", "1.005")])
    assert "price" in str(invalid.value.args[0])
    with pytest.raises(MethodNotFound, match="^no_such_method$"):
        client.products.no_such_method()
    with pytest.raises(IncorrectSignature):
        client.orders.get_order()
    with pytest.raises(UnknownService):
        client.nobody.method()


def test_exceptions_nobody_registered(client):
    registry.pop("products.exceptions.NotFound")
    with pytest.raises(RemoteError) as error:
        client.products.get("missing")
    assert (error.value.exc_type, error.value.value) == ("NotFound", "Product ID missing does not exist")


# ---- the same errors as Python's, to the letter -------------------------------------------------------------------

PRODUCT = a_product("alike")
WRONG_CALLS = [
    ("products.get", [], {}),
    ("products.get", ["a", "b"], {}),
    ("products.get", ["a", "b", "c"], {}),
    ("products.get", [], {"x": 1}),
    ("products.get", ["a"], {"x": 1}),
    ("products.get", ["a"], {"product_id": "b"}),
    ("products.get", ["missing"], {}),
    ("products.get", [], {"product_id": "missing/é \u2708"}),
    ("products.exists", [], {}),
    ("products.list", ["a"], {}),
    ("products.list", [], {"a": 1}),
    ("products.create", [], {}),
    ("products.create", [PRODUCT, PRODUCT], {}),
    ("products.delete", [], {"id": "a"}),
    ("products.no_such_method", [], {}),
    ("products.handle_order_created", [{}], {}),
    ("products.__init__", [], {}),
    ("orders.get_order", [], {}),
    ("orders.get_order", [1, 2], {}),
    ("orders.get_order", [1], {"order_id": 1}),
    ("orders.get_order", [999999], {}),
    ("orders.create_order", [], {}),
    ("orders.create_order", [[], []], {}),
    ("orders.update_order", [], {}),
    ("orders.update_order", [{"id": 999999, "order_details": []}], {}),
    ("orders.delete_order", [], {}),
    ("orders.delete_order", [999999], {}),
    ("orders.nothing", [1], {"a": 2}),
    # Marshmallow's messages, field by field.
    ("products.create", [{}], {}),
    ("products.create", [[]], {}),
    ("products.create", ["text"], {}),
    ("products.create", [1], {}),
    ("products.create", [{**PRODUCT, "id": None}], {}),
    ("products.create", [{**PRODUCT, "title": 5}], {}),
    ("products.create", [{**PRODUCT, "title": ["x"]}], {}),
    ("products.create", [{**PRODUCT, "in_stock": "x"}], {}),
    ("products.create", [{**PRODUCT, "in_stock": None}], {}),
    ("products.create", [{**PRODUCT, "maximum_speed": {}}], {}),
    ("products.create", [{**PRODUCT, "passenger_capacity": ""}], {}),
    ("products.create", [{"id": 1, "title": None, "in_stock": "1"}], {}),
]


@pytest.fixture(scope="module")
def c_peer(c_services):
    return Peer(c_services.room.amqp_uri)


@pytest.fixture(scope="module")
def python_peer(python_services):
    return Peer(python_services.room.amqp_uri)


def error_object(peer, key, body):
    try:
        result = peer.exchange(key, body).json
    except PeerError as error:
        return error.error
    assert set(result) == {"result", "error"}
    assert result["result"] is None and result["error"], f"{key} {body} should have failed: {result}"
    return result["error"]


@pytest.mark.parametrize("key, args, kwargs", WRONG_CALLS)
def test_the_error_object_is_python_s(c_peer, python_peer, key, args, kwargs):
    body = {"args": args, "kwargs": kwargs}
    ours, python_s = error_object(c_peer, key, body), error_object(python_peer, key, body)
    for error in (ours, python_s):
        if error["exc_type"] == "ValidationError":  # the fields' order is each one's own
            assert error.pop("value") == repr(error["exc_args"][0])
    assert ours == python_s
    assert type(deserialize({"value": "", **ours})) is type(deserialize({"value": "", **python_s}))


@pytest.mark.parametrize("body", [{}, {"args": []}, {"kwargs": {}}, {"args": [], "kwarg": {}}])
@pytest.mark.parametrize("key", ["products.get", "orders.get_order"])
def test_malformed_requests_are_python_s(c_peer, python_peer, key, body):
    ours = error_object(c_peer, key, body)
    assert ours == error_object(python_peer, key, body)
    assert isinstance(deserialize(ours), MalformedRequest)


def test_answers_travel_alike(c_peer, python_peer):
    """The response's properties: what Nameko's own client reads of them."""
    answers = []
    for peer in (c_peer, python_peer):
        correlation_id = peer.send("products.exists", {"args": [unique()], "kwargs": {}})
        answer = peer.reply(correlation_id)
        assert answer.properties.correlation_id == correlation_id
        assert not answer.headers
        answers.append((answer.exchange, answer.properties.content_type, answer.properties.content_encoding, answer.json))
    assert answers[0] == answers[1]

"""All eight mixes of C and Python pass one sequence, on data that stay: each swap replaces one program of a live shop."""
import pytest
from nameko.exceptions import RemoteError
from support.clock import wait_until
from support.http import path_of
from support.shop import IMAGE_ROOT, a_line, a_product, unique

C, PYTHON = "C", "Python"
# In the order of a Gray code, so that from one mix to the next a single program is swapped.
MIXES = [
    (PYTHON, PYTHON, PYTHON),
    (PYTHON, PYTHON, C),
    (PYTHON, C, C),
    (PYTHON, C, PYTHON),
    (C, C, PYTHON),
    (C, C, C),
    (C, PYTHON, C),
    (C, PYTHON, PYTHON),
]


def of_mix(mix):
    return "-".join(f"{name}:{language}" for name, language in zip(("products", "orders", "gateway"), mix))


@pytest.fixture(scope="module")
def shop(make_mixed):
    return make_mixed()


@pytest.fixture(scope="module")
def history():
    """What earlier mixes made: [(order id, as its mix gave it, product id, as its mix left it)]."""
    return []


@pytest.fixture(params=MIXES, ids=of_mix)
def mix(request, shop):
    shop.use_all(*request.param)
    return request.param


def error_of(response):
    body = response.json
    assert set(body) == {"error", "message"}, str(response)
    return response.status, body["error"], body["message"]


def test_smoke_sequence(shop, mix, history):
    http = shop.http
    kept = http.make_product(a_product(unique("kept"), title="L'été à Zürich \u2708 \"\\/", in_stock=50, maximum_speed=-7))
    gone = http.make_product(a_product(unique("gone")))
    assert http.get_product(kept["id"]) == kept

    changed = {**kept, "title": "Another title", "in_stock": "40"}  # a numeric string is an integer
    assert http.post("/products", changed).json == {"id": kept["id"]}
    kept = {**changed, "in_stock": 40}
    assert http.get_product(kept["id"]) == kept

    lines = [a_line(kept["id"], "100000.99", 3), a_line(gone["id"], 0.1, 2), a_line(kept["id"], "7", 1)]
    order_id = http.make_order(lines)
    shop.wait_stock(kept["id"], 36)  # two lines of one product count together
    shop.wait_stock(gone["id"], 8)
    kept["in_stock"], gone["in_stock"] = 36, 8

    order = http.get_order(order_id)
    assert set(order) == {"id", "order_details"} and order["id"] == order_id
    detail_ids = [detail.pop("id") for detail in order["order_details"]]
    assert detail_ids == sorted(set(detail_ids)) and all(type(one) is int for one in detail_ids)
    stored = [("100000.99", 3, kept), ("0.10", 2, gone), ("7.00", 1, kept)]
    assert order["order_details"] == [
        {
            "product_id": product["id"],
            "price": price,
            "quantity": quantity,
            "product": product,
            "image": f"{IMAGE_ROOT}/{product['id']}.jpg",
        }
        for price, quantity, product in stored
    ]

    listed = http.get("/orders")
    assert listed.status == 200
    ids = [one["id"] for one in listed.json]
    assert ids == sorted(set(ids)) and order_id in ids
    plain = [
        {"id": detail_id, "product_id": product["id"], "price": price, "quantity": quantity}
        for detail_id, (price, quantity, product) in zip(detail_ids, stored)
    ]
    assert listed.json[ids.index(order_id)] == {"id": order_id, "order_details": plain}

    deleted = http.delete(path_of("products", gone["id"]))
    assert (deleted.status, deleted.body) == (204, b"")
    assert http.delete(path_of("products", gone["id"])).status == 204  # no error the second time
    assert http.get(path_of("products", gone["id"])).status == 404
    assert [detail["product"] for detail in http.get_order(order_id)["order_details"]] == [kept, None, kept]

    for old_order, old_product in history:
        assert http.get_order(old_order["id"]) == old_order, "an order of an earlier mix has changed"
        assert http.get_product(old_product["id"]) == old_product, "a product of an earlier mix has changed"
    history.append((http.get_order(order_id), kept))


def test_errors_alike(shop, mix):
    http = shop.http
    product = http.make_product(a_product(unique("errors")))
    orders_before = shop.query("SELECT count(*), max(id) FROM orders")
    missing = unique("missing")

    status, code, message = error_of(http.get(path_of("products", missing)))
    assert (status, code, message) == (404, "PRODUCT_NOT_FOUND", f"Product ID {missing} does not exist")
    status, code, message = error_of(http.get("/orders/999999999"))
    assert (status, code, message) == (404, "ORDER_NOT_FOUND", "Order with id 999999999 not found")
    lines = [a_line(product["id"]), a_line(missing), a_line(unique("missing too"))]
    assert error_of(http.post("/orders", {"order_details": lines})) == (404, "PRODUCT_NOT_FOUND", f"Product Id {missing}")

    for path in ("/products", "/orders"):
        for body in (b"", b"{", b"{'id': 1}", b"nonsense"):
            status, code, message = error_of(http.post(path, body))
            assert (status, code) == (400, "BAD_REQUEST") and message.startswith("Invalid json: "), (path, body, message)
        for body in ({}, [], "text", 1):
            assert error_of(http.post(path, body))[:2] == (400, "VALIDATION_ERROR"), (path, body)
    for field in ("id", "title", "passenger_capacity", "maximum_speed", "in_stock"):
        without = {name: value for name, value in a_product(missing).items() if name != field}
        with_null = a_product(missing, **{field: None})
        with_array = a_product(missing, **{field: []})
        for body in (without, with_null, with_array):
            status, code, message = error_of(http.post("/products", body))
            assert (status, code) == (400, "VALIDATION_ERROR") and field in message, (body, message)
    for field in ("product_id", "price", "quantity"):
        line = a_line(product["id"])
        for wrong in (None, [], {}):
            status, code, message = error_of(http.post("/orders", {"order_details": [{**line, field: wrong}]}))
            assert (status, code) == (400, "VALIDATION_ERROR") and field in message, (field, wrong, message)
        line.pop(field)
        assert error_of(http.post("/orders", {"order_details": [line]}))[:2] == (400, "VALIDATION_ERROR"), field

    assert shop.query("SELECT count(*), max(id) FROM orders") == orders_before
    assert shop.stock(product["id"]) == product["in_stock"] and shop.stock(missing) is None


def test_each_method_for_nameko_s_client(shop, mix):
    """The services' own methods, also those that the gateway never calls, by position and by name in turn."""
    product = a_product(unique("rpc"))
    with shop.rpc() as client:
        products, orders = client.products, client.orders
        assert products.exists(product["id"]) is False
        assert products.create(product) is None
        assert products.exists(product_id=product["id"]) is True
        assert products.get(product_id=product["id"]) == products.get(product["id"]) == product
        assert [one for one in products.list() if one["id"] == product["id"]] == [product]

        order = orders.create_order(order_details=[a_line(product["id"], "12.5", 2), a_line(product["id"], "0.01", 1)])
        assert [detail["price"] for detail in order["order_details"]] == ["12.50", "0.01"]
        shop.wait_stock(product["id"], 7)
        assert orders.get_order(order["id"]) == orders.get_order(order_id=order["id"]) == order
        first, second = order["order_details"]
        change = {"id": order["id"], "order_details": [{**second, "price": "3.10", "quantity": 5}]}
        expected = {"id": order["id"], "order_details": [first, {**second, "price": "3.10", "quantity": 5}]}
        assert orders.update_order(change) == expected
        assert orders.get_order(order["id"]) == expected
        assert [one for one in orders.list_orders() if one["id"] == order["id"]] == [expected]
        assert orders.delete_order(order_id=order["id"]) is None
        with pytest.raises(RemoteError) as caught:
            orders.get_order(order["id"])
        assert (caught.value.exc_type, caught.value.value) == ("NotFound", f"Order with id {order['id']} not found")

        assert products.delete(product["id"]) is None
        with pytest.raises(RemoteError) as caught:
            products.get(product["id"])
        assert caught.value.value == f"Product ID {product['id']} does not exist"
    wait_until(lambda: shop.stock(product["id"]) is None, "the product is gone for good")

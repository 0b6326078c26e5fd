"""A live shop changes hands: what the Python services stored is served by ours without a change, and back again."""
import pytest
from support.http import path_of
from support.shop import a_line, a_product, unique


@pytest.fixture(scope="module")
def shop(make_mixed):
    """A database as the Python service's first migration makes it, and nothing in it."""
    return make_mixed(adopted=True)


def fill(shop, count):
    """Products and orders by way of whatever serves now."""
    http = shop.http
    products = [
        http.make_product(a_product(unique("data"), title=title, in_stock=500 + number, maximum_speed=-number))
        for number, title in enumerate(("plain", "Zürich \u2708 \U0001f6a2", "'; DROP TABLE orders; --", "", " ", "1")[:count])
    ]
    prices = ("0", "0.01", "0.1", "100000.99", "9999999999999999.99", "42")
    for number in range(count):
        http.make_order([a_line(product["id"], prices[number], number + 1) for product in products[: number + 1]])
    for number, product in enumerate(products):
        taken = sum(order + 1 for order in range(number, count))
        shop.wait_stock(product["id"], product["in_stock"] - taken)


def everything(shop):
    """All that the shop serves, over HTTP and over RPC."""
    http = shop.http
    with shop.rpc() as client:
        products = sorted(client.products.list(), key=lambda product: product["id"])
        orders = client.orders.list_orders()
    assert http.get("/orders").json == orders
    return {
        "products": products,
        "one by one": [http.get(path_of("products", product["id"])).json for product in products],
        "orders": orders,
        "orders with products": [http.get_order(order["id"]) for order in orders],
    }


def stored(shop):
    """Redis and the two tables as they lie there."""
    client = shop.redis()
    return (
        {key: client.hgetall(key) for key in client.keys("products:*")},
        shop.query("SELECT * FROM orders ORDER BY id"),
        shop.query("SELECT id, created_at, updated_at, product_id, price, quantity, order_id FROM order_details ORDER BY id"),
    )


def test_from_python_to_c_and_back(shop):
    shop.use_all("Python", "Python", "Python")
    fill(shop, 6)
    deleted = shop.http.make_product(a_product(unique("deleted")))
    shop.http.make_order([a_line(deleted["id"], "5.00", 1)])
    shop.wait_stock(deleted["id"], 9)
    assert shop.http.delete(path_of("products", deleted["id"])).status == 204
    by_python, stored_by_python = everything(shop), stored(shop)
    assert len(by_python["orders"]) == 7 and len(by_python["products"]) == 6

    shop.deploy()  # while the Python service runs
    assert stored(shop) == stored_by_python
    assert everything(shop) == by_python, "the Python service is disturbed by our migration"

    shop.use_all("C", "C", "C")
    assert everything(shop) == by_python
    assert stored(shop) == stored_by_python, "reading has changed something"
    fill(shop, 4)
    order = by_python["orders"][3]
    with shop.rpc() as client:
        line = {**order["order_details"][0], "price": "77.70", "quantity": 9}
        client.orders.update_order({"id": order["id"], "order_details": [line]})
        client.orders.delete_order(by_python["orders"][0]["id"])
        client.products.delete(by_python["products"][0]["id"])
    by_c, stored_by_c = everything(shop), stored(shop)
    assert len(by_c["orders"]) == 10 and len(by_c["products"]) == 9
    assert [one["id"] for one in by_c["orders"]] == sorted(one["id"] for one in by_c["orders"])

    shop.use_all("Python", "Python", "Python")
    assert everything(shop) == by_c
    assert stored(shop) == stored_by_c
    fill(shop, 3)
    by_python_again = everything(shop)
    assert len(by_python_again["orders"]) == 13 and by_python_again["orders"][:10] == by_c["orders"]

    shop.deploy()  # again, and nothing happens
    shop.use_all("C", "C", "C")
    assert everything(shop) == by_python_again


def test_our_tables_serve_python_too(make_mixed):
    """The other way about: a database that our migrations made from nothing."""
    shop = make_mixed()
    shop.use_all("Python", "Python", "Python")
    fill(shop, 3)
    by_python = everything(shop)
    shop.use_all("C", "C", "C")
    assert everything(shop) == by_python


def test_many_products_are_listed_alike(make_mixed):
    """A list that needs many turns of SCAN: each product once, in either language."""
    shop = make_mixed()
    pipeline = shop.redis().pipeline()
    products = [a_product(f"many-{number:05}", title=f"number {number}", in_stock=number) for number in range(3000)]
    for product in products:
        pipeline.hset(f"products:{product['id']}", mapping=product)
    pipeline.execute()
    for language in ("Python", "C"):
        shop.use("products", language)
        with shop.rpc() as client:
            assert sorted(client.products.list(), key=lambda product: product["id"]) == products, language

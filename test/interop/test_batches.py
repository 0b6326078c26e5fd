"""Calls of one moment, from a C gateway to a queue that real Nameko serves, alone or beside C: every one is answered."""
import pytest
from support.http import raw_get, requests_at_once
from support.shop import a_product, unique

CLIENTS = 12


@pytest.fixture(scope="module")
def shop(make_mixed):
    shop = make_mixed()
    shop.use_all("C", "C", "C")
    return shop


@pytest.fixture(scope="module")
def products(shop):
    return [shop.http.make_product(a_product(unique("batch"))) for _ in range(CLIENTS)]


def get_all(shop, products):
    requests = [raw_get(f"/products/{product['id']}") for product in products]
    answers = requests_at_once(shop.the("gateway"), shop.port, requests)
    assert [(answer.status, answer.json) for answer in answers] == [(200, product) for product in products]


def test_nameko_takes_the_queue_over(shop, products):
    """The gateway learnt from C that batches are taken; Nameko refuses the first one, as a method that it does not have."""
    get_all(shop, products)
    get_all(shop, products)
    shop.use("products", "Python")
    for _ in range(3):
        get_all(shop, products)
    assert shop.the("products").running
    shop.use("products", "C")
    get_all(shop, products)


def test_both_on_one_queue(shop, products):
    shop.use("gateway", "Python")  # and back: a gateway that has refused no batch yet
    shop.use("gateway", "C")
    beside = shop.add("products", "Python").start()
    beside.wait_ready()
    for _ in range(10):
        get_all(shop, products)
    assert beside.running and shop.the("products").running
    beside.stop()

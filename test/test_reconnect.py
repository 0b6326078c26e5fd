"""A link to a server is cut, stalled, or loses an answer: honest errors in time, and all works again by itself."""
import socket
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from support.clock import RECOVERY_S, RPC_TIMEOUT_SHORT_MS, SLACK_S, wait_until
from support.http import Http, check_error, path_of
from support.load import Load
from support.shop import a_line, a_product, free_port, unique

pytestmark = pytest.mark.faults

LINKS = ("amqp", "redis", "postgres")
LIMIT_S = RPC_TIMEOUT_SHORT_MS / 1000 + SLACK_S


@pytest.fixture(scope="module")
def linked(make_shop):
    """A shop each of whose links can be cut."""
    return make_shop(links=True, rpc_timeout_ms=RPC_TIMEOUT_SHORT_MS).start()


@pytest.fixture(scope="module")
def product(linked):
    return linked.http.make_product(a_product(in_stock=1000))


@pytest.fixture(scope="module")
def order_id(linked, product):
    return linked.http.make_order([a_line(product["id"])])


@pytest.fixture(autouse=True)
def all_links_up(request):
    yield
    if "linked" in request.fixturenames:
        linked = request.getfixturevalue("linked")
        for link in linked.links.values():
            link.up()
        linked.assert_running()
        linked.wait_working()


@contextmanager
def same_programs(shop):
    """The programs live through it: nobody restarted them, and none of them left."""
    pids = [program.process.pid for program in shop.programs]
    yield
    shop.assert_running()
    assert [program.process.pid for program in shop.programs] == pids


def requests_of(product, order_id):
    """(what it needs, method, path, body)"""
    return [
        ({"amqp", "redis"}, "GET", path_of("products", product["id"]), None),
        ({"amqp", "redis"}, "POST", "/products", a_product()),
        ({"amqp", "redis"}, "DELETE", path_of("products", unique()), None),
        ({"amqp", "postgres"}, "GET", "/orders?limit=1", None),
        ({"amqp", "postgres", "redis"}, "GET", f"/orders/{order_id}", None),
        ({"amqp", "postgres", "redis"}, "POST", "/orders", {"order_details": [a_line(product["id"])]}),
    ]


def all_at_once(http, requests):
    with ThreadPoolExecutor(len(requests)) as pool:
        answers = [pool.submit(http.request, method, path, body) for _, method, path, body in requests]
    return [(needs, method, answer.result()) for (needs, method, _, _), answer in zip(requests, answers)]


def assert_honest_error(response, method):
    assert response.status in (503, 504), str(response)
    assert response.took_s <= LIMIT_S, f"{response.took_s:.1f} s: {response}"
    if response.status == 503:
        check_error(response, 503, "SERVICE_UNAVAILABLE")
    elif method == "GET":
        check_error(response, 504, "TIMEOUT")
    else:
        check_error(response, 504, None)


@pytest.mark.parametrize("fault", ["down", "stall"])
@pytest.mark.parametrize("link", LINKS)
def test_a_lost_link(linked, product, order_id, link, fault):
    http = linked.http
    with same_programs(linked):
        getattr(linked.links[link], fault)()
        for needs, method, response in all_at_once(http, requests_of(product, order_id)):
            if link in needs:
                assert_honest_error(response, method)
            else:  # what does not need that server goes on
                assert response.status in (200, 204), f"without {link}: {response}"
        linked.links[link].up()
        wait_until(lambda: http.get_order(order_id)["id"] == order_id, f"{link} is used again", RECOVERY_S)
        linked.wait_working()


def test_a_product_check_during_an_order_without_redis_makes_no_order(linked, product):
    before = linked.query("SELECT count(*) FROM orders")
    linked.links["redis"].down()
    response = linked.http.post("/orders", {"order_details": [a_line(product["id"])]})
    assert_honest_error(response, "POST")
    assert linked.query("SELECT count(*) FROM orders") == before


def test_an_answer_of_postgres_that_is_lost(linked, product):
    """The commit may have been carried out, or not; the caller is told the truth, and the key finds it out."""
    http = linked.http
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    marked = unique("commit")
    http.make_product(a_product(marked, in_stock=10))
    body = {"order_details": [a_line(marked)]}
    linked.links["postgres"].mute()
    response = http.post("/orders", body, headers=headers)
    linked.links["postgres"].down()
    linked.links["postgres"].up()
    assert response.status in (503, 504), str(response)
    made = linked.query("SELECT order_id FROM order_details WHERE product_id = %s", marked)
    assert len(made) <= 1
    if response.status == 503:
        check_error(response, 503, "SERVICE_UNAVAILABLE")
        assert not made, "503 promises that nothing was done"
    else:
        check_error(response, 504, "OUTCOME_UNKNOWN")
    linked.wait_working()
    again = wait_until(lambda: ok(http.post("/orders", body, headers=headers)), "the same key gets an answer", RECOVERY_S)
    made = linked.query("SELECT order_id FROM order_details WHERE product_id = %s", marked)
    assert made == [(again.json["id"],)]
    linked.wait_stock(marked, 9)


def ok(response):
    return response if response.status == 200 else None


def test_an_answer_of_redis_that_is_lost(linked):
    """The stock was lowered, but products has not heard of it: the event comes again and lowers nothing."""
    marked = unique("lowered")
    linked.http.make_product(a_product(marked, in_stock=10))
    peer = linked.peer()
    linked.links["redis"].mute()
    details = [{"id": 1, "product_id": marked, "price": "1.00", "quantity": 3}]
    peer.publish_event("orders", "order_created", {"order": {"id": 2_000_000_001, "order_details": details}})
    linked.wait_stock(marked, 7)
    linked.links["redis"].down()
    linked.links["redis"].up()
    linked.wait_working()
    queue = "evt-orders-order_created--products.handle_order_created"
    peer.wait_for(lambda: peer.depth(queue)[0] == 0, "the event is handled")
    other = unique("later")
    linked.http.make_product(a_product(other, in_stock=10))
    linked.http.make_order([a_line(other)])
    linked.wait_stock(other, 9)
    linked.wait_stock(marked, 7)


def test_an_event_while_redis_is_away(linked):
    """Not dropped, however long it takes."""
    marked = unique("waiting")
    linked.http.make_product(a_product(marked, in_stock=10))
    linked.links["redis"].down()
    peer = linked.peer()
    details = [{"id": 1, "product_id": marked, "price": "1.00", "quantity": 4}]
    peer.publish_event("orders", "order_created", {"order": {"id": 2_000_000_002, "order_details": details}})
    response = linked.http.get(path_of("products", marked))  # products knows that Redis is away
    assert_honest_error(response, "GET")
    assert linked.stock_in_redis(marked) == 10
    linked.links["redis"].up()
    linked.wait_stock(marked, 6, RECOVERY_S)


def test_links_that_break_under_load(linked):
    """Cut, muted then cut, one after another, again and again: nothing lost, nothing twice."""
    with Load(linked, linked.all("gateway")) as load:
        load.wait_for(10, "the load runs")
        for link in ("amqp", "postgres", "redis", "amqp", "postgres"):
            linked.links[link].mute()
            load.wait_for(1, f"an order fails without answers of {link}", lambda attempt: attempt.status != 200)
            linked.links[link].down()
            linked.links[link].up()
            load.wait_for(5, f"orders succeed again after {link} was cut")
    linked.wait_working()
    load.assert_honest()
    load.assert_invariants()


def test_nothing_is_there_at_the_start(make_shop):
    """Programs wait for their servers, say so honestly, and work as soon as the last one is there; and leave when asked."""
    shop = make_shop(links=True, links_state="down", rpc_timeout_ms=RPC_TIMEOUT_SHORT_MS)
    health = {"products": Http(free_port()), "orders": Http(free_port())}
    programs = [shop.add(name, METRICS_PORT=str(http.port)).start() for name, http in health.items()]
    programs.append(shop.add("gateway").start())
    wait_until(lambda: listening(shop.port), "the gateway listens")
    product = a_product()
    for _, method, response in all_at_once(shop.http, requests_of(product, 1)):
        assert_honest_error(response, method)
        assert response.status == 503, f"nothing can have been done: {response}"
    shop.assert_running()
    assert not programs[0].ready and not programs[1].ready, "a service is ready without its servers"
    assert states(health) == {"products": (200, 503), "orders": (200, 503)}
    shop.links["amqp"].up()
    assert_honest_error(shop.http.get("/products/x"), "GET")
    shop.links["redis"].up()
    wait_until(lambda: shop.http.post("/products", product).status == 200, "products works", RECOVERY_S)
    assert_honest_error(shop.http.get("/orders"), "GET")
    shop.links["postgres"].up()
    shop.wait_working()
    assert shop.http.get_product(product["id"]) == product
    for program in programs:
        program.wait_ready()
    assert states(health) == {"products": (200, 200), "orders": (200, 200)}
    shop.links["redis"].down()
    wait_until(lambda: states(health) == {"products": (200, 503), "orders": (200, 200)}, "products is not ready without Redis")
    for link in shop.links.values():
        link.down()
    wait_until(lambda: states(health) == {"products": (200, 503), "orders": (200, 503)}, "nobody is ready")
    wait_until(lambda: shop.http.get("/orders").status == 503, "the broker is missed")
    for program in programs:
        program.stop()


def states(health):
    """Alive, whatever its servers do; ready, when it can work: (/healthz, /readyz) of each service."""
    return {
        name: tuple(http.get(path, check=False).status for path in ("/healthz", "/readyz")) for name, http in health.items()
    }


def listening(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True

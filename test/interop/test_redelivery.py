"""C and Python instances of a service share its queue: what one leaves behind when it dies, the other answers."""
import threading

import pytest
from support.amqp import Peer
from support.clock import wait_until
from support.shop import a_line, a_product, unique

REQUESTS = 8  # fewer than the prefetch of either, so that one instance holds them all


@pytest.fixture(scope="module")
def one_shop(make_mixed):
    return make_mixed()


@pytest.fixture
def shop(one_shop):
    yield one_shop
    for one in one_shop.programs:  # a failed test's; nobody of it may compete in the next
        if one.running:
            one_shop.kill(one)


def hold(shop, victim, peer, queue, send):
    """Requests in the hands of an instance that stands still: delivered, not acknowledged."""
    peer.channel.confirm_delivery()  # so that a request sent is a request in its queue
    victim.pause()
    correlation_ids = [send(number) for number in range(REQUESTS)]
    peer.wait_for(lambda: peer.depth(queue) == (0, 1), "all requests were handed out")
    return correlation_ids


DIRECTIONS = pytest.mark.parametrize("dies, survives", [("C", "Python"), ("Python", "C")])


@DIRECTIONS
def test_reads_move_on(shop, dies, survives):
    peer = Peer(shop.room.amqp_uri)
    victim = shop.add("products", dies).start().wait_ready()
    product = a_product(unique("moves"))
    peer.call("products.create", product)

    def send(number):
        return peer.send("products.get", {"args": [product["id"]], "kwargs": {}})

    correlation_ids = hold(shop, victim, peer, "rpc-products", send)
    survivor = shop.add("products", survives).start().wait_ready()
    assert not any(peer.replies[one] for one in correlation_ids)
    shop.kill(victim)
    for one in correlation_ids:
        assert peer.reply(one).json == {"result": product, "error": None}
    survivor.stop()
    peer.close()


@DIRECTIONS
def test_orders_move_on(shop, dies, survives):
    peer = Peer(shop.room.amqp_uri)
    victim = shop.add("orders", dies).start().wait_ready()
    before = shop.query("SELECT count(*) FROM orders")[0][0]

    def send(number):
        return peer.send("orders.create_order", {"args": [], "kwargs": {"order_details": [a_line(f"p{number}", "1.10", 2)]}})

    correlation_ids = hold(shop, victim, peer, "rpc-orders", send)
    survivor = shop.add("orders", survives).start().wait_ready()
    shop.kill(victim)
    orders = [peer.reply(one).json["result"] for one in correlation_ids]
    assert sorted(order["order_details"][0]["product_id"] for order in orders) == [f"p{one}" for one in range(REQUESTS)]
    assert len({order["id"] for order in orders}) == REQUESTS
    assert shop.query("SELECT count(*) FROM orders")[0][0] == before + REQUESTS
    survivor.stop()
    peer.close()


@DIRECTIONS
def test_events_move_on(shop, dies, survives):
    """The handler's queue is shared as well."""
    peer = Peer(shop.room.amqp_uri)
    victim = shop.add("products", dies).start().wait_ready()
    product = a_product(unique("handed on"), in_stock=100)
    # Not by a request to the victim: one that it has answered but not yet acknowledged when it stops is delivered again,
    # and then the survivor, rightly, makes the product anew behind the events.
    shop.redis().hset(f"products:{product['id']}", mapping=product)
    base = 1_000_000 if dies == "C" else 1_100_000
    queue = "evt-orders-order_created--products.handle_order_created"

    def send(number):
        detail = {"id": number, "product_id": product["id"], "price": "1.00", "quantity": 2}
        peer.publish_event("orders", "order_created", {"order": {"id": base + number, "order_details": [detail]}})

    hold(shop, victim, peer, queue, send)
    survivor = shop.add("products", survives).start().wait_ready()
    assert shop.stock(product["id"]) == 100
    shop.kill(victim)
    shop.wait_stock(product["id"], 100 - 2 * REQUESTS)
    survivor.stop()
    peer.close()


@DIRECTIONS
def test_killed_in_full_work(shop, dies, survives):
    """Calls run through both; one is killed among them.  Each call is answered, with the right answer."""
    victim = shop.add("products", dies).start().wait_ready()
    survivor = shop.add("products", survives).start().wait_ready()
    failures, done = [], threading.Semaphore(0)

    def work(name):
        peer = Peer(shop.room.amqp_uri)
        try:
            for number in range(60):
                product = a_product(f"{name}-{number}", in_stock=number)
                peer.call("products.create", product)
                assert peer.call("products.get", product["id"]) == product
                done.release()
        except Exception as error:
            failures.append(error)
        finally:
            peer.close()

    workers = [threading.Thread(target=work, args=(unique(f"load{one}"),)) for one in range(3)]
    for worker in workers:
        worker.start()
    for _ in range(30):
        assert done.acquire(timeout=20)
    shop.kill(victim)
    for worker in workers:
        worker.join()
    assert not failures, failures
    survivor.stop()


def test_both_at_once_answer_alike(shop):
    """Declared by either, used by both; the broker deals in turn, and no caller can tell who answered."""
    peer = Peer(shop.room.amqp_uri)
    both = [shop.add("products", language).start() for language in ("C", "Python")]
    both += [shop.add("orders", language).start() for language in ("Python", "C")]
    for one in both:
        one.wait_ready()
    product = a_product(unique("both"), in_stock=1000)
    peer.call("products.create", product)
    for _ in range(20):
        assert peer.call("products.get", product["id"])["id"] == product["id"]
        order = peer.call("orders.create_order", [a_line(product["id"], "9.99", 3)])
        assert peer.call("orders.get_order", order_id=order["id"]) == order
    shop.wait_stock(product["id"], 940)
    wait_until(lambda: all(one.running for one in both), "all of them still run")
    for one in both:
        one.stop()
    peer.close()

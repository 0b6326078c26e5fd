"""SIGTERM under load: what was accepted is finished or handed back, then the program leaves with 0."""
import signal
import time

import pytest

from support.amqp import result_of
from support.clock import ANSWER_S
from support.load import Load
from support.program import PATHS
from support.shop import a_line, a_product, unique

pytestmark = pytest.mark.faults

ROUNDS_OF_ASKING = 5  # the moment in which nobody listens any more is short


@pytest.fixture(scope="module")
def drained(make_shop):
    return make_shop().start()


@pytest.mark.parametrize("name", ["orders", "products"])
def test_a_service_is_replaced_under_load(drained, name):
    """It leaves, its successor takes over what waits in the queue: no request fails."""
    program = drained.the(name)
    with Load(drained, drained.all("gateway"), threads=6) as load:
        for _ in range(2):
            load.wait_for(30, "the load runs")
            program.stop()
            program.start()
            program.wait_ready()
        load.wait_for(30, "the load goes on")
    load.assert_all_succeeded()
    load.assert_honest()
    load.assert_invariants()


def test_the_gateway_leaves_under_load(drained):
    """Every request sent before the signal is answered; those that come later may be refused, never half done."""
    gateway = drained.the("gateway")
    with Load(drained, [gateway], threads=8) as load:
        load.wait_for(50, "the load runs")
        asked = time.monotonic()
        gateway.stop()
        load.wait_for(1, "the gateway is gone", lambda attempt: attempt.failure is not None)
        gateway.start()
        load.wait_for(30, "the load goes on")
    load.assert_honest(unanswered_ok=lambda attempt: not attempt.sent or attempt.sent > asked)
    load.assert_invariants()


@pytest.mark.parametrize("name", ["orders", "products"])
def test_requests_in_flight_are_finished_or_handed_back(make_shop, name):
    """The store is slow when the signal comes: each request is answered, by the program or by its successor, and done once."""
    shop = make_shop(links=True)
    program = shop.add(name).start().wait_ready()
    peer = shop.peer()
    store = shop.links["postgres" if name == "orders" else "redis"]
    lines = [a_line(unique("in-flight"))]
    store.stall()
    if name == "orders":
        sent = [peer.send("orders.create_order", {"args": [lines], "kwargs": {}}) for _ in range(40)]
    else:
        products = [a_product() for _ in range(40)]
        sent = [peer.send("products.create", {"args": [product], "kwargs": {}}) for product in products]
    program.terminate()
    store.up()
    assert program.wait_exit() == 0
    program.start().wait_ready()
    answers = [result_of(peer.reply(one, "an answer to each request", ANSWER_S)) for one in sent]
    if name == "orders":
        made = shop.query("SELECT order_id FROM order_details WHERE product_id = %s", lines[0]["product_id"])
        assert sorted(row[0] for row in made) == sorted(answer["id"] for answer in answers)
    else:
        assert answers == [None] * 40
        assert [peer.call("products.get", product["id"]) for product in products] == products


@pytest.mark.parametrize("name", PATHS)
def test_asked_again_and_again_on_its_way_out(make_shop, name):
    """Ctrl-C, and the script's SIGTERM behind it: at whatever moment it comes, the program leaves with 0."""
    program = make_shop().add(name)
    for _ in range(ROUNDS_OF_ASKING):
        program.start().wait_ready()
        program.signal(signal.SIGINT)
        while program.running:
            program.terminate()
        assert program.wait_exit() == 0, program.tail()

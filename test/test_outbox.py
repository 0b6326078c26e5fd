"""Events of orders leave by the outbox: who claims one publishes it; a claim that nobody lives to keep is taken over."""
import json
from contextlib import contextmanager

import psycopg2
import pytest

from support.amqp import result_of
from support.backing import host_and_port, uri_through
from support.clock import wait_until
from support.http import Http
from support.proxy import Proxy
from support.shop import a_line, a_product, free_port, unique

pytestmark = pytest.mark.faults

LOCK = 4711  # an advisory lock: whoever writes an event waits for it
CREATE = "orders.create_order"
CLAIM_SOON = "UPDATE order_outbox SET claimed_until = now() + interval '1 second'"
SIDE_BY_SIDE = 300


class Outbox:
    """A shop's outbox, its events, and a way to hold an order up in the middle of its transaction."""

    def __init__(self, shop):
        self.shop = shop
        self.peer = shop.peer()
        self.events = []

    def listen(self):
        self.events = self.peer.listen_to_events("orders", "order_created")
        return self

    def create(self):
        return self.peer.call(CREATE, [a_line(unique())])["id"]

    def close(self):
        for program in self.shop.programs:
            if program.running:
                program.stop()
        self.peer.close()  # its queue goes with it

    def add_orders(self, proxy=None, **settings):
        if proxy is not None:
            settings["AMQP_URI"] = uri_through(self.shop.room.amqp_uri, proxy.port)
        return self.shop.add("orders", **settings).start()

    @contextmanager
    def held_up(self):
        """Orders are made, but not committed, within the block."""
        connection = psycopg2.connect(self.shop.room.postgres_uri)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
            yield
        finally:
            connection.close()

    def order_under_way(self, lines):
        """Ask for an order that stops before its commit; its correlation id."""
        sent = self.peer.send(CREATE, {"args": [lines], "kwargs": {}})
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
        wait_until(lambda: self.shop.query(waiting, LOCK) != [(0,)], "the order waits before its commit")
        return sent

    def wait_event(self, order_id, count=1):
        self.peer.wait_for(lambda: self.count(order_id) >= count, f"event {count} of order {order_id}")

    def wait_events(self, order_ids):
        self.peer.wait_for(lambda: {event.json["order"]["id"] for event in self.events} >= order_ids, "an event of each order")

    def count(self, order_id):
        return sum(event.json["order"]["id"] == order_id for event in self.events)

    def wait_empty(self):
        self.peer.wait_for(lambda: self.shop.outbox() == 0, "the outbox is empty")

    def assert_nothing_more(self, order_id, count):
        """Whatever was on its way has come when the event of a later order is there, and the outbox is empty."""
        self.wait_event(self.create())
        self.wait_empty()
        assert self.count(order_id) == count


@pytest.fixture(scope="module")
def shop(make_shop):
    shop = make_shop()
    shop.query(
        f"CREATE FUNCTION wait_for_the_test() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$BEGIN PERFORM pg_advisory_xact_lock_shared({LOCK}); RETURN NEW; END$$;"
        f"CREATE TRIGGER wait_for_the_test BEFORE INSERT ON order_outbox"
        f" FOR EACH ROW EXECUTE FUNCTION wait_for_the_test()"
    )
    return shop


@pytest.fixture
def outbox(shop):
    outbox = Outbox(shop)
    yield outbox
    outbox.close()


@pytest.fixture
def link(outbox):
    """A link to the broker that one instance alone goes through."""
    proxy = Proxy(*host_and_port(outbox.shop.room.amqp_uri))
    yield proxy
    proxy.up()
    outbox.close()
    proxy.close()


def committed(outbox):
    """The order that waited is there, and its event is claimed: (order id, seconds until the claim runs out)."""
    wait_until(lambda: outbox.shop.outbox() == 1, "the order is committed")
    ((left_s,),) = outbox.shop.query("SELECT extract(epoch FROM claimed_until - now())::float FROM order_outbox")
    ((order_id,),) = outbox.shop.query("SELECT max(id) FROM orders")
    return order_id, left_s


def metric(port, name):
    body = Http(port).get("/metrics", check=False).body.decode()
    (value,) = [float(line.split()[1]) for line in body.splitlines() if line.split()[0] == name]
    return value


def test_events_that_nobody_listens_to_stay(outbox):
    """basic.return: no queue is bound.  They leave when one is, each once; one at a time is tried until then."""
    ports = [free_port(), free_port()]
    for program in [outbox.add_orders(METRICS_PORT=str(port)) for port in ports]:
        program.wait_ready()
    made = {outbox.create() for _ in range(30)}
    wait_until(lambda: sum(metric(port, "orders_events_held") for port in ports) >= 1, "it is noticed that nobody listens")
    assert outbox.shop.outbox() == 30
    outbox.listen()
    outbox.wait_events(made)
    outbox.wait_empty()
    outbox.wait_event(outbox.create())
    assert len(outbox.events) == 31


def test_who_dies_between_claim_and_publish_leaves_the_event_to_another(outbox, link):
    outbox.listen()
    ((before,),) = outbox.shop.query("SELECT count(*) FROM orders")
    first = outbox.add_orders(link).wait_ready()
    with outbox.held_up():
        sent = outbox.order_under_way([a_line(unique())])
        link.stall()  # what it publishes from here on gets nowhere
    order_id, left_s = committed(outbox)
    assert left_s > 1, "the event is claimed with its order"
    first.kill()
    outbox.shop.query(CLAIM_SOON)
    ((until,),) = outbox.shop.query("SELECT claimed_until FROM order_outbox")
    outbox.add_orders().wait_ready()
    link.down()  # now the broker, too, learns that the first one has gone
    outbox.wait_event(order_id)
    assert outbox.shop.query("SELECT now() >= %s", until) == [(True,)], "nobody publishes what another one has a claim to"
    # The request comes again, and gets the answer of the order that was made.
    assert result_of(outbox.peer.reply(sent))["id"] == order_id
    outbox.wait_empty()
    outbox.assert_nothing_more(order_id, 1)
    assert outbox.shop.query("SELECT count(*) FROM orders") == [(before + 2,)]


@pytest.mark.parametrize("fault", ["stall", "mute"])
def test_a_confirm_that_comes_after_the_claim(outbox, link, fault):
    """The event leaves twice, by the first one (late, or without hearing of it) and by the second; its effect is one."""
    shop = outbox.listen().shop
    shop.add("products").start().wait_ready()
    product = a_product(in_stock=10)
    outbox.peer.call("products.create", product)
    first = outbox.add_orders(link).wait_ready()
    with outbox.held_up():
        sent = outbox.order_under_way([a_line(product["id"], quantity=3)])
        getattr(link, fault)()
    order_id, _ = committed(outbox)
    if fault == "mute":
        outbox.wait_event(order_id)  # it has left, but its confirm gets nowhere
    shop.query(CLAIM_SOON)
    second = outbox.add_orders().wait_ready()
    outbox.wait_event(order_id, 1 if fault == "stall" else 2)
    outbox.wait_empty()
    if fault == "stall":
        link.up()
        outbox.wait_event(order_id, 2)
    else:
        link.down()
        link.up()
    # The first answer, or that of the request's second delivery.
    assert result_of(outbox.peer.reply(sent))["id"] == order_id
    shop.wait_stock(product["id"], 7)
    # At least twice: if all this takes the first one's confirm timeout, it gives up a claim that is the second one's by now.
    outbox.wait_event(outbox.create())
    outbox.wait_empty()
    queue = "evt-orders-order_created--products.handle_order_created"
    outbox.peer.wait_for(lambda: outbox.peer.depth(queue)[0] == 0, "products has handled all events")
    assert shop.stock_in_redis(product["id"]) == 7
    first.assert_running()
    second.assert_running()


def test_two_instances_publish_side_by_side_without_doubling(outbox):
    outbox.listen()
    for program in [outbox.add_orders() for _ in range(2)]:
        program.wait_ready()
    peer = outbox.peer
    assert peer.depth("rpc-orders")[1] == 2
    sent = [peer.send(CREATE, {"args": [[a_line(unique())]], "kwargs": {}}) for _ in range(SIDE_BY_SIDE)]
    made = {result_of(peer.reply(one))["id"] for one in sent}
    assert len(made) == SIDE_BY_SIDE
    outbox.wait_events(made)
    outbox.wait_empty()
    outbox.wait_event(outbox.create())
    assert len(outbox.events) == SIDE_BY_SIDE + 1


def test_an_event_that_the_broker_refuses_stays(outbox):
    """basic.nack: a queue that is full and says so.  The event stays until there is room."""
    peer, channel, port = outbox.peer, outbox.peer.channel, free_port()
    channel.exchange_declare("orders.events", "topic", durable=True, auto_delete=False)
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queue = channel.queue_declare("", exclusive=True, arguments=full).method.queue
    channel.queue_bind(queue, "orders.events", "order_created")
    channel.basic_publish("", queue, b"in the way")
    outbox.add_orders(METRICS_PORT=str(port)).wait_ready()
    order_id = outbox.create()
    wait_until(lambda: metric(port, "orders_events_unconfirmed_total") >= 2, "it was refused, and tried again")
    assert outbox.shop.outbox() == 1
    assert peer.depth(queue)[0] == 1
    channel.queue_purge(queue)
    outbox.wait_empty()
    _, _, body = channel.basic_get(queue, auto_ack=True)
    assert json.loads(body)["order"]["id"] == order_id
    assert peer.depth(queue)[0] == 0

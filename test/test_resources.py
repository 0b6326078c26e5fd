"""Descriptors, memory, the log's sink, the clock and locks run out or play tricks: honest answers, and all heals by itself."""
import calendar
import json
import os
import re
import resource
import signal
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest
from pika.compat import long

from support.amqp import RemoteError, result_of
from support.clock import RECOVERY_S, RPC_TIMEOUT_SHORT_MS, SLACK_S, wait_until
from support.http import Http, RawConnection, check_error, path_of, raw_request
from support.shop import a_line, a_product, free_port, unique

pytestmark = pytest.mark.faults

EVENTS = "evt-orders-order_created--products.handle_order_created"
SUSPECTS = f"{EVENTS}.retry-0"
LIMIT_S = RPC_TIMEOUT_SHORT_MS / 1000 + SLACK_S


@pytest.fixture(scope="module")
def shop(make_shop):
    shop = make_shop(links=True, rpc_timeout_ms=RPC_TIMEOUT_SHORT_MS)
    shop.add("products", METRICS_PORT=str(free_port()))
    # A third of it is for locks: longer than PostgreSQL's deadlock_timeout (1 s), which is to find the deadlock first.
    shop.add("orders", METRICS_PORT=str(free_port()), STORE_TIMEOUT_MS="12000")
    shop.add("gateway")
    for program in shop.programs:
        program.start()
    for program in shop.programs:
        program.wait_ready()
    return shop


@pytest.fixture(autouse=True)
def all_works_afterwards(request):
    yield
    if "shop" in request.fixturenames:
        shop = request.getfixturevalue("shop")
        for link in shop.links.values():
            link.up()
        shop.wait_working()
        shop.assert_running()


def worker_of(program):
    """The process that does the work: Kore's worker, or the program itself."""
    children = Path(f"/proc/{program.process.pid}/task/{program.process.pid}/children").read_text().split()
    return int(children[0]) if program.name == "gateway" else program.process.pid


def is_sanitized(program):
    return b"libasan" in Path(f"/proc/{worker_of(program)}/maps").read_bytes()


def an_order(product_id, **changes):
    return {"order_details": [a_line(product_id, **changes)]}


# ---- descriptors ------------------------------------------------------------------------------------------------


NO_MORE = 3  # what is open stays open, and nothing is opened besides
RECONNECT_S = 3  # longer than the longest pause between two attempts to connect


@contextmanager
def limited(pid, kind, soft):
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, kind, before)


@pytest.mark.parametrize(
    "name, link", [("products", "redis"), ("orders", "postgres"), ("products", "amqp"), ("orders", "amqp"), ("gateway", "amqp")]
)
def test_no_descriptor_for_a_link(shop, name, link):
    """The link is lost, and there is no descriptor for a new one: as if the server were away, until there is one."""
    program = shop.the(name)
    pid = worker_of(program)
    product = shop.http.make_product(a_product())
    with RawConnection(shop.port) as client:  # the gateway takes no new ones either
        request = raw_request("POST", "/orders", json.dumps(an_order(product["id"])).encode())
        assert client.send(request).response().status == 200
        with limited(pid, resource.RLIMIT_NOFILE, NO_MORE):
            shop.links[link].down()
            wait_until(lambda: client.send(request).response().status in (503, 504), f"{link} is missed")
            shop.links[link].up()
            until = time.monotonic() + RECONNECT_S
            while time.monotonic() < until:
                began = time.monotonic()
                response = client.send(request).response()
                check_error(response, response.status, None)
                assert response.status in (503, 504), str(response)
                assert time.monotonic() - began < LIMIT_S
            program.assert_running()
    shop.wait_working()
    assert worker_of(program) == pid


def cpu_s(pid):
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_no_descriptor_for_a_client(shop):
    """Those that are connected are served; the others wait, or are told; then they are served, too."""
    gateway = shop.the("gateway")
    pid = worker_of(gateway)
    product = shop.http.make_product(a_product())
    request = raw_request("GET", path_of("products", product["id"]))
    with RawConnection(shop.port) as connected:
        assert connected.send(request).response().status == 200
        with limited(pid, resource.RLIMIT_NOFILE, NO_MORE):
            others = [RawConnection(shop.port) for _ in range(10)]
            for other in others:
                other.send(request)
            began, used = time.monotonic(), cpu_s(pid)
            for _ in range(200):
                assert connected.send(request).response().status == 200
            share = (cpu_s(pid) - used) / (time.monotonic() - began)
        for other in others:
            response = other.response()
            assert response is None or response.status in (200, 503), str(response)
            other.close()
    assert worker_of(gateway) == pid
    print(f"the worker took {share:.0%} of a CPU")


@pytest.mark.parametrize("name", ["products", "orders"])
def test_no_descriptor_for_whoever_asks_for_metrics(shop, name):
    program = shop.the(name)
    product = shop.http.make_product(a_product())
    order_id = shop.http.make_order([a_line(product["id"])])
    port = int(program.environment["METRICS_PORT"])
    with limited(program.process.pid, resource.RLIMIT_NOFILE, NO_MORE):
        with socket.create_connection(("127.0.0.1", port)) as probe:
            probe.sendall(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            for _ in range(20):
                assert shop.http.get_order(order_id)["id"] == order_id
            size = program.log_path.stat().st_size - program.seen
            assert size < 1_000_000, f"{size} bytes of log"
    wait_until(lambda: Http(port).get("/readyz", check=False).status == 200, "metrics are told again")


# ---- memory -----------------------------------------------------------------------------------------------------


def address_space(pid):
    return int(re.search(r"^VmSize:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M).group(1)) * 1024


@pytest.mark.parametrize("name", ["products", "orders", "gateway"])
def test_little_memory(shop, name):
    """Large requests find no memory: an honest answer, or a process that ends and is started again; never a wrong answer."""
    program = shop.the(name)
    pid = worker_of(program)
    if is_sanitized(program):
        pytest.skip("a sanitizer ends the process when memory runs out")
    title = "t" * 900_000
    known = shop.http.make_product(a_product(title=title))
    small = shop.http.make_product(a_product(in_stock=1_000_000))
    lines = [a_line(small["id"], price=f"{number}.00") for number in range(1000)]

    def one(number):
        if number % 3 == 0:
            return "get", shop.http.get(path_of("products", known["id"]))
        if number % 3 == 1:
            return "product", shop.http.post("/products", a_product(title=title))
        return "order", shop.http.post("/orders", {"order_details": lines})

    with limited(pid, resource.RLIMIT_AS, address_space(pid) + 512 * 1024):
        with ThreadPoolExecutor(12) as pool:
            answers = []
            for answer in [pool.submit(one, number) for number in range(120)]:
                try:
                    answers.append(answer.result())
                except OSError:  # hung up on: no memory to answer
                    answers.append(("nothing", None))
    seen = {(what, response.status if response else None) for what, response in answers}
    print(seen)
    for what, response in answers:
        if response is None:
            continue
        if response.status == 200:
            assert what != "get" or response.json == known
        else:
            assert response.status in (503, 504), str(response)
            unknown = "TIMEOUT" if what == "get" else "OUTCOME_UNKNOWN"
            check_error(response, response.status, "SERVICE_UNAVAILABLE" if response.status == 503 else unknown)
    if not program.running:  # it ended rather than go on with less than it needs
        assert program.process.poll() in (1, -signal.SIGABRT), program.tail()
        program.start()
        program.wait_ready()
    shop.wait_working()
    for what, response in answers:
        if what == "order" and response is not None and response.status == 200:
            assert len(shop.order_in_database(response.json["id"])) == 1000


# ---- the log's sink ---------------------------------------------------------------------------------------------


@pytest.fixture
def pipe(tmp_path):
    """A named pipe that is full, and the end that could read it."""
    path = tmp_path / "sink"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        while True:
            os.write(end, b"\n" * 4096)
    except BlockingIOError:
        pass
    yield path, end
    os.close(end)


def start_with_log(shop, sink):
    for name in ("products", "orders", "gateway"):
        program = shop.add(name, LOG_LEVEL="debug", LOG_FORMAT="json")
        file, program.log_path = program.log_path, Path(sink)
        program.start()
        program.log_path = file  # nothing will be in it
    for program in shop.programs:
        program.wait_ready()


def drained(end):
    taken = b""
    try:
        while True:
            taken += os.read(end, 65536)
    except BlockingIOError:
        return taken


def test_a_log_that_nobody_reads(make_shop, pipe):
    """Lines are dropped, requests are not; the first line that gets through says how many are missing."""
    path, end = pipe
    shop = make_shop()
    start_with_log(shop, path)
    shop.wait_working()
    product = shop.http.make_product(a_product(in_stock=100))
    for _ in range(20):
        shop.http.make_order([a_line(product["id"])])
    shop.wait_stock(product["id"], 80)
    drained(end)
    for program in shop.programs:
        program.stop()
    lines = [json.loads(line) for line in drained(end).split(b"\n") if line.startswith(b"{")]
    missing = {line["program"]: line["dropped_lines"] for line in lines if "dropped_lines" in line}
    assert missing.keys() == {"products", "orders", "kore-gateway"}
    assert all(count > 0 for count in missing.values())


def test_a_log_whose_disk_is_full(make_shop):
    shop = make_shop()
    start_with_log(shop, "/dev/full")
    shop.wait_working()
    product = shop.http.make_product(a_product(in_stock=10))
    shop.http.make_order([a_line(product["id"])])
    shop.wait_stock(product["id"], 9)
    for program in shop.programs:
        program.stop()


# ---- half-close -------------------------------------------------------------------------------------------------


def test_a_client_that_half_closes_has_gone(shop):
    """Documented: who closes his side is not answered, and waits for nothing; what he asked for may be done."""
    product = shop.http.make_product(a_product(in_stock=10))
    body = json.dumps(an_order(product["id"])).encode()
    key = str(uuid.uuid4())
    headers = (f"Idempotency-Key: {key}",)
    for request in (raw_request("GET", path_of("products", product["id"])), raw_request("POST", "/orders", body, headers)):
        shop.links["redis"].stall()  # the answer is not there yet when he closes
        began = time.monotonic()
        with RawConnection(shop.port) as client:
            client.send(request).socket.shutdown(socket.SHUT_WR)
            assert client.hung_up(), "it is answered, or waits for ever"
        assert time.monotonic() - began < RPC_TIMEOUT_SHORT_MS / 1000 + SLACK_S
        shop.links["redis"].up()
    shop.wait_working()
    response = shop.http.post("/orders", an_order(product["id"]), headers={"Idempotency-Key": key})
    assert response.status == 200, str(response)
    rows = shop.query("SELECT order_id FROM order_details WHERE product_id = %s", product["id"])
    assert rows == [(response.json["id"],)]


# ---- a consumer that dies of a message --------------------------------------------------------------------------


class Killed:
    """products, which is killed with events in hand: Redis is paused for whatever writes, so that it never lets one go."""

    def __init__(self, make_shop, links=False, **environment):
        self.shop = make_shop(links=links)
        self.products = self.shop.add("products", STORE_TIMEOUT_MS="60000", **environment)
        self.peer, self.redis = self.shop.peer(), self.shop.redis()
        self.products.start().wait_ready()
        self.product = a_product(in_stock=10)
        self.peer.call("products.create", self.product)
        self.products.stop()
        self.orders = 2_100_000_000

    def publish(self, quantity, headers=None):
        self.orders += 1
        details = [{"id": 1, "product_id": self.product["id"], "price": "1.00", "quantity": quantity}]
        order = {"id": self.orders, "order_details": details}
        self.peer.publish_event("orders", "order_created", {"order": order}, headers=headers)

    def asks_redis(self):
        return any(client["name"] == "products" and "b" in client["flags"] for client in self.redis.client_list())

    def wait_depth(self, queue, ready):
        self.peer.wait_for(lambda: self.peer.depth(queue)[0] == ready, f"{ready} in {queue}", RECOVERY_S)

    def start(self):
        """It starts, and has an event in hand."""
        self.products.start()
        wait_until(self.asks_redis, "products has the event in hand", RECOVERY_S)

    def kill(self):
        self.products.kill()
        wait_until(lambda: not self.asks_redis(), "Redis has noticed")

    def letters(self):
        """Headers of the dead letters, and what each would have taken from the stock; they stay."""
        queue, kept = "products.dead-letters", []
        for _ in range(self.peer.depth(queue)[0]):
            method, properties, body = self.peer.channel.basic_get(queue)
            kept.append((method.delivery_tag, properties.headers, json.loads(body)["order"]["order_details"][0]["quantity"]))
        for tag, _, _ in kept:
            self.peer.channel.basic_nack(tag, requeue=True)
        return [(headers, quantity) for _, headers, quantity in kept]


@pytest.fixture
def killed(make_shop):
    killed = Killed(make_shop)
    killed.redis.client_pause(600_000, all=False)
    yield killed
    killed.redis.client_unpause()


LAST_ATTEMPT = {"x-airship-attempts": long(5)}  # as an event has it that failed five times: a number of 64 bits


def test_an_event_that_kills_its_consumer_at_each_attempt_is_a_dead_letter(killed):
    """Not flagged: handled among others.  Flagged: handled alone.  Flagged there: that attempt has failed; it was the last."""
    killed.publish(3, headers=LAST_ATTEMPT)
    killed.wait_depth(EVENTS, 1)
    killed.start()
    killed.kill()
    killed.wait_depth(EVENTS, 1)
    killed.start()  # alone
    assert killed.peer.depth(EVENTS)[0] == 0
    killed.kill()
    killed.wait_depth(SUSPECTS, 1)
    killed.products.start()
    killed.wait_depth("products.dead-letters", 1)
    ((letter, _),) = killed.letters()
    assert letter["x-airship-attempts"] == 6
    assert letter["x-airship-cause"] == "its consumer went away while it was under way alone"
    assert letter["x-airship-queue"] == EVENTS
    assert (letter["x-airship-exchange"], letter["x-airship-routing-key"]) == ("orders.events", "order_created")
    assert killed.shop.stock_in_redis(killed.product["id"]) == 10
    killed.redis.client_unpause()
    killed.publish(1)  # later events are handled
    killed.shop.wait_stock(killed.product["id"], 9)
    assert [killed.peer.depth(queue)[0] for queue in (EVENTS, SUSPECTS)] == [0, 0]


def test_the_neighbours_of_an_event_that_kills_are_not_counted(killed):
    """Two consumers die with three events in hand; only the one that was alone with the second has an attempt less."""
    for quantity in (1, 2, 3):
        killed.publish(quantity, headers=LAST_ATTEMPT)
    killed.wait_depth(EVENTS, 3)
    killed.start()
    killed.wait_depth(EVENTS, 0)
    killed.kill()
    killed.wait_depth(EVENTS, 3)
    killed.start()
    killed.wait_depth(SUSPECTS, 2)  # they wait until the first is done
    killed.kill()
    killed.wait_depth(SUSPECTS, 3)
    killed.redis.client_unpause()
    killed.products.start()
    killed.wait_depth("products.dead-letters", 1)
    ((letter, quantity),) = killed.letters()  # whichever was alone
    assert letter["x-airship-attempts"] == 6
    killed.shop.wait_stock(killed.product["id"], 10 - (1 + 2 + 3 - quantity))
    assert len(killed.letters()) == 1


def test_an_event_whose_consumer_is_killed_twice_is_handled_later(killed):
    """One attempt has failed; the next is a second later, and its effect is one."""
    killed.publish(3)
    killed.wait_depth(EVENTS, 1)
    killed.start()
    killed.kill()
    killed.wait_depth(EVENTS, 1)
    killed.start()
    killed.kill()
    killed.wait_depth(SUSPECTS, 1)
    killed.redis.client_unpause()
    killed.products.start()
    killed.shop.wait_stock(killed.product["id"], 7)
    assert killed.products.log().count(b"its consumer went away") == 1
    assert killed.letters() == []


def test_a_service_that_stops_with_events_in_hand_counts_nothing(make_shop):
    """They wait for Redis and are handed back, however often: a roll-out is no attempt."""
    killed = Killed(make_shop, links=True, METRICS_PORT=str(free_port()))
    killed.shop.links["redis"].down()
    killed.publish(3, headers=LAST_ATTEMPT)

    def has_it_in_hand():
        try:
            metrics = Http(int(killed.products.environment["METRICS_PORT"])).get("/metrics", check=False).body
        except OSError:
            return False
        return b"\nproducts_orders_waiting 1\n" in metrics

    for queue in (EVENTS, EVENTS, SUSPECTS, SUSPECTS):
        killed.wait_depth(queue, 1)
        killed.products.start()
        wait_until(has_it_in_hand, f"the event that was in {queue} waits for Redis", RECOVERY_S)
        killed.products.stop()
    killed.shop.links["redis"].up()
    killed.products.start()
    killed.shop.wait_stock(killed.product["id"], 7)
    assert killed.letters() == []


# ---- locks ------------------------------------------------------------------------------------------------------


def a_change(order, quantity):
    return {"id": order["id"], "order_details": [{"id": order["order_details"][0]["id"], "price": "1", "quantity": quantity}]}


@pytest.fixture
def two_orders(shop):
    """Two orders, and a trigger on each change of one: locks 1 and 2 in this order, or in the other if quantity is even."""
    peer = shop.peer()
    made = [peer.call("orders.create_order", [a_line(unique())]) for _ in range(2)]
    shop.query(
        "CREATE SEQUENCE changes;"
        "CREATE FUNCTION lock_crosswise() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$"
        " DECLARE first integer := 1 + (NEW.quantity + 1) %% 2;"
        " BEGIN"
        "  PERFORM pg_advisory_xact_lock(47, first);"
        "  IF nextval('changes') <= 2 THEN"  # until each has its first one
        "   WHILE (SELECT last_value FROM changes) < 2 LOOP PERFORM pg_sleep(0.01); END LOOP;"
        "  END IF;"
        "  PERFORM pg_advisory_xact_lock(47, 3 - first);"
        "  RETURN NEW;"
        " END$$;"
        "CREATE TRIGGER lock_crosswise BEFORE UPDATE ON order_details FOR EACH ROW EXECUTE FUNCTION lock_crosswise()"
    )
    yield peer, made
    shop.query("DROP TRIGGER lock_crosswise ON order_details; DROP FUNCTION lock_crosswise; DROP SEQUENCE changes")


def test_a_deadlock_is_resolved_and_the_loser_runs_again(shop, two_orders):
    peer, made = two_orders
    ((before,),) = shop.query("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    sent = [
        peer.send("orders.update_order", {"args": [a_change(order, quantity)], "kwargs": {}})
        for order, quantity in zip(made, (1, 2))
    ]
    answers = [result_of(peer.reply(one)) for one in sent]
    assert [answer["order_details"][0]["quantity"] for answer in answers] == [1, 2]
    for order, quantity in zip(made, (1, 2)):
        ((_, _, _, stored),) = shop.order_in_database(order["id"])
        assert stored == quantity
    wait_until(
        lambda: shop.query("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") > [(before,)],
        "PostgreSQL tells of the deadlock",
    )


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_race_that_is_always_lost_ends(shop, state):
    """So often, and no more; then the caller is told that nothing was done."""
    peer = shop.peer()
    order = peer.call("orders.create_order", [a_line(unique())])
    shop.query(
        "CREATE SEQUENCE tries;"
        "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
        f" $$BEGIN PERFORM nextval('tries'); RAISE SQLSTATE '{state}'; END$$;"
        "CREATE TRIGGER lose BEFORE UPDATE ON order_details FOR EACH ROW EXECUTE FUNCTION lose()"
    )
    try:
        error = peer.error("orders.update_order", a_change(order, 2))
        ((tries,),) = shop.query("SELECT last_value FROM tries")
    finally:
        shop.query("DROP TRIGGER lose ON order_details; DROP FUNCTION lose; DROP SEQUENCE tries")
    assert error.exc_type == "ServiceUnavailable", error
    assert 2 <= tries <= 8
    assert shop.order_in_database(order["id"])[0][3] == 1
    assert peer.call("orders.update_order", a_change(order, 3))["order_details"][0]["quantity"] == 3


def test_a_lock_that_is_held_holds_up_nobody_else(shop):
    """Who needs the row is told in time that nothing was done; all others are served meanwhile."""
    peer = shop.peer()
    locked, free = (peer.call("orders.create_order", [a_line(unique())]) for _ in range(2))
    connection = psycopg2.connect(shop.room.postgres_uri)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM order_details WHERE order_id = %s FOR UPDATE", (locked["id"],))
            sent = [peer.send("orders.update_order", {"args": [a_change(locked, 2)], "kwargs": {}}) for _ in range(2)]
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            wait_until(lambda: shop.query(waiting) > [(0,)], "somebody waits for the lock")
            for quantity in range(2, 12):
                assert peer.call("orders.get_order", locked["id"]) == locked
                assert peer.call("orders.create_order", [a_line(unique())])["id"]
                assert peer.call("orders.update_order", a_change(free, quantity))["id"] == free["id"]
            for one in sent:
                with pytest.raises(RemoteError) as raised:
                    result_of(peer.reply(one))
                assert raised.value.exc_type == "ServiceUnavailable", raised.value
    finally:
        connection.close()
    assert peer.call("orders.get_order", locked["id"]) == locked
    assert peer.call("orders.update_order", a_change(locked, 2))["order_details"][0]["quantity"] == 2


# ---- the clock --------------------------------------------------------------------------------------------------

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


class Clock:
    """The time of day of a shop's programs; their monotonic clock goes on as it does."""

    def __init__(self, path):
        self.path = path
        self.jump(0)

    def jump(self, hours):
        fresh = self.path.with_suffix(".fresh")
        fresh.write_text(f"{hours:+d}h\n")
        fresh.rename(self.path)

    @property
    def environment(self):
        return {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self.path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0",
        }


@pytest.fixture(scope="module")
def timed(make_shop, tmp_path_factory):
    """(a shop, its clock): products and orders, whose clock can jump."""
    assert FAKETIME.exists(), "the package faketime is missing"
    clock = Clock(tmp_path_factory.mktemp("clock") / "offset")
    shop = make_shop(links=True, rpc_timeout_ms=RPC_TIMEOUT_SHORT_MS)
    for name in ("products", "orders"):
        shop.add(name, **clock.environment).start()
    shop.add("gateway").start()
    for program in shop.programs:
        program.wait_ready()
    return shop, clock


def hours_off(peer, service):
    """By how much the service's time of day is off, as it dates a dead letter."""
    queue, letters = f"{service}.dead-letters", []
    peer.channel.queue_purge(queue)
    peer.send(f"{service}.get", b"{", reply_to=None)

    def letter():
        letters[:] = peer.channel.basic_get(queue, auto_ack=True)
        return letters[0]

    peer.wait_for(letter, "the dead letter")
    said = time.strptime(letters[1].headers["x-airship-time"][:19], "%Y-%m-%dT%H:%M:%S")
    return round((calendar.timegm(said) - time.time()) / 3600)


def test_the_time_of_day_jumps(timed):
    """An hour ahead, an hour back: no request times out early or late, no key is forgotten, no order is made twice."""
    shop, clock = timed
    http, peer = shop.http, shop.peer()
    product = http.make_product(a_product(in_stock=1000))
    keys = {}
    for hours in (0, 1, -1, 25, -25, 0):
        clock.jump(hours)
        shop.wait_working()
        key = {"Idempotency-Key": str(uuid.uuid4())}
        keys[key["Idempotency-Key"]] = http.make_order([a_line(product["id"])], headers=key)
        for earlier, order_id in keys.items():
            assert http.make_order([a_line(product["id"])], headers={"Idempotency-Key": earlier}) == order_id
        assert {hours_off(peer, service) for service in ("products", "orders")} == {hours}
    assert shop.query("SELECT count(*) FROM order_details WHERE product_id = %s", product["id"]) == [(len(keys),)]
    shop.wait_stock(product["id"], 1000 - len(keys))
    shop.assert_running()


@pytest.mark.parametrize("hours", [1, -1])
def test_the_time_of_day_jumps_within_a_request(timed, hours):
    """Deadlines are not of the day: a request under way goes on, one that nobody answers ends in its time."""
    shop, clock = timed
    http = shop.http
    product = http.make_product(a_product(in_stock=10))
    with ThreadPoolExecutor(1) as pool:
        for link, path in (("redis", path_of("products", product["id"])), ("postgres", "/orders?limit=1")):
            clock.jump(0)
            shop.links[link].stall()
            under_way = pool.submit(http.get, path)
            clock.jump(hours)
            response = under_way.result()  # nobody answers
            check_error(response, response.status, None)
            assert response.status in (503, 504), str(response)
            assert response.took_s < LIMIT_S
            shop.links[link].up()
            wait_until(lambda: http.get(path).status == 200, "it is answered again", RECOVERY_S)
    shop.assert_running()

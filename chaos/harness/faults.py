"""The faults: each a context that is entered to break something and left to heal it.  Everything that varies is chosen from
the seed before the run, in choose(); nothing here draws a number."""
import http.client
import json
import os
import signal
import socket
import struct
import threading
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pika
import psycopg2
import redis

from support.amqp import connect

from support.clock import wait_until

from . import limits
from .history import INFO
from .load import STOCK
from .system import IN_NAMESPACES

PROGRAMS = ("products-1", "products-2", "orders-1", "orders-2", "gateway-1")
SERVICES = PROGRAMS[:4]
SILENCES = {  # server -> who needs it, and when they have given it up as frozen at the latest
    "rabbitmq": (PROGRAMS, limits.SILENCE_S),
    "postgres": (SERVICES[2:], limits.POSTGRES_SILENCE_S),
    "redis": (SERVICES[:2], limits.REDIS_SILENCE_S),
}
LINKS = (
    *(f"{program}~broker" for program in PROGRAMS),
    "products-1~redis",
    "products-2~redis",
    "orders-1~postgres",
    "orders-2~postgres",
)
EVENTS, EVENT = "orders.events", "order_created"
STEP_S = 0.5  # between two blows of a fault that strikes repeatedly
RESET = struct.pack("ii", 1, 0)
SLOW_CLIENTS = 20
LEAVERS_S = 0.05  # between two clients that leave


@dataclass(frozen=True)
class Fault:
    id: str
    name: str
    concerns: str  # two faults that concern the same do not overlap
    lasts_s: tuple  # from, to
    run: Callable  # (stage, **chosen): a context
    choose: Callable = lambda rng: {}
    needs: str = None  # see System.lacks


class Stage:
    """What faults act upon, and what they leave for the checker."""

    def __init__(self, system, load, history):
        self.system, self.load, self.history = system, load, history
        self.poison = {}
        self.also_sold = Counter()  # product -> what events that are no order's took of it
        self.mended = {}  # product -> its fields, once it was no product
        self.alone = True  # no other fault is meant to overlap the one that strikes now


def _label(link):
    return link.partition("~")[0]


# ---- servers, the broker above all ----------------------------------------------------------------------------------


@contextmanager
def server_killed(stage, server, labels):
    system = stage.system
    system.servers.kill(server)
    began = time.monotonic()
    try:
        yield
    finally:
        system.expect_unready(began, time.monotonic(), *labels)
        system.servers.start_one(server)


def broker_killed(stage):
    return server_killed(stage, "rabbitmq", PROGRAMS)


@contextmanager
def server_frozen(stage, server):
    """Whoever needs a store finds out by asking it, so only where nothing else keeps requests from it is it known when."""
    labels, silence_s = SILENCES[server]
    with stage.system.servers.paused(server):
        began = time.monotonic()
        yield
        if server == "rabbitmq" or stage.alone:
            stage.system.expect_unready(began + silence_s, time.monotonic(), *labels)


def _have_it_publish(system, gateway):
    """A connection is told that it is blocked when it publishes, and the load may be waiting for something frozen."""
    try:
        system.http(gateway, "/products/chaos-nothing", limits.PUBLISHED_S)
    except (OSError, http.client.HTTPException):
        pass  # no answer in that time, or the gateway itself is gone


@contextmanager
def alarm(stage, name, raised, cleared):
    system = stage.system
    system.servers.rabbitmqctl(f"set_{name}", *raised)
    _have_it_publish(system, "gateway-1")
    began = time.monotonic()
    try:
        yield
    finally:
        system.expect_unready(began, time.monotonic(), "gateway-1")
        system.servers.rabbitmqctl(f"set_{name}", *cleared)


def memory_alarm(stage):
    return alarm(stage, "vm_memory_high_watermark", ["absolute", "1MB"], ["0.4"])


def disk_alarm(stage):
    return alarm(stage, "disk_free_limit", ["1000000GB"], ["50MB"])


@contextmanager
def _channel(stage):
    connection = connect(stage.system.shop.room.amqp_uri)
    try:
        yield connection.channel()
    finally:
        connection.close()


def _publish_event(stage, body):
    """It is in the broker's hands, or this fails."""
    with _channel(stage) as channel:
        channel.confirm_delivery()
        properties = pika.BasicProperties(content_type="application/json", content_encoding="utf-8", delivery_mode=2)
        channel.basic_publish(EVENTS, EVENT, body, properties, mandatory=True)
    return True


@contextmanager
def queue_deleted(stage, queue):
    with _channel(stage) as channel:
        channel.queue_delete(queue)
    yield


BINDINGS = (
    ("rpc-products", "nameko-rpc", "products.*"),
    ("rpc-orders", "nameko-rpc", "orders.*"),
    ("evt-orders-order_created--products.handle_order_created", EVENTS, EVENT),
)


@contextmanager
def queue_unbound(stage, binding):
    """What is published meanwhile comes back to its publisher: no service, or an event that stays in the outbox."""
    queue, exchange, key = binding
    with _channel(stage) as channel:
        channel.queue_unbind(queue, exchange, key)
    try:
        yield
    finally:
        with _channel(stage) as channel:
            channel.queue_bind(queue, exchange, key)


FLOOD = Path(__file__).with_name("flood.py")
FLOODERS = 2


@contextmanager
def flood(stage):
    """Somebody else publishes in the same vhost as fast as the broker lets them."""
    command = [sys.executable, str(FLOOD), stage.system.shop.room.amqp_uri]
    flooders = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(FLOODERS)]
    try:
        yield
    finally:
        counts = [int(flooder.communicate()[0] or 0) for flooder in flooders]
    assert all(counts), f"the flood did not come: {counts} messages"


@contextmanager
def connections_closed(stage):
    room = stage.system.shop.room.name
    stage.system.servers.rabbitmqctl("close_all_connections", "-p", room, "closed by an operator")
    yield


# ---- links ---------------------------------------------------------------------------------------------------------


@contextmanager
def link_broken(stage, link, mode, **settings):
    began = time.monotonic()
    stage.system.break_link(link, mode, **settings)
    try:
        yield
    finally:
        if mode == "cut":
            stage.system.expect_unready(began, time.monotonic(), _label(link))
        stage.system.mend_link(link)


def _some_link(rng):
    return {"link": rng.choice(LINKS)}


def _blackhole(rng):
    return {**_some_link(rng), "mode": "blackhole", "direction": rng.choice(("both", "both", "c2s", "s2c"))}


def _delayed(rng):
    return {**_some_link(rng), "mode": "delay", "ms": 50, "jitter_ms": 30, "direction": "both"}


def _lossy(rng):
    chosen = rng.choice([link for link in LINKS if link.partition("~")[0] in IN_NAMESPACES])
    return {"link": chosen, "mode": "lossy", "loss": 0.05, "ms": 50, "jitter_ms": 30, "double": 0.02}


def _slow(rng):
    return {**_some_link(rng), "mode": "slow", "rate": 20_000, "direction": rng.choice(("c2s", "s2c"))}


# ---- PostgreSQL ----------------------------------------------------------------------------------------------------


@contextmanager
def _meanwhile(run, over):
    """`run` in a thread of its own until what is within the `with` is done: `over` is set then."""
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _repeatedly(strike):
    """Strike every STEP_S until the context is left."""
    over = threading.Event()

    def run():
        while not over.is_set():
            try:
                strike()
            except (OSError, psycopg2.Error, redis.RedisError):
                pass  # the server that is struck may be gone for a moment
            over.wait(STEP_S)

    return _meanwhile(run, over)


BACKENDS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"


def backends_terminated(stage):
    return _repeatedly(lambda: stage.system.shop.query(f"SELECT pg_terminate_backend(pid) {BACKENDS}"))


@contextmanager
def backend_killed(stage):
    """The whole cluster restarts, as PostgreSQL does when one of its processes dies so."""
    rows = stage.system.shop.query(f"SELECT pid {BACKENDS} ORDER BY pid LIMIT 1")
    if rows:
        os.kill(rows[0][0], signal.SIGKILL)
    yield


@contextmanager
def table_locked(stage, statement):
    connection = psycopg2.connect(stage.system.shop.room.postgres_uri)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '5s'")
            cursor.execute(statement)
        yield
    finally:
        connection.rollback()
        connection.close()


LOCKS = (
    "LOCK TABLE order_details IN EXCLUSIVE MODE",
    "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE",
    "LOCK TABLE order_idempotency IN EXCLUSIVE MODE",
    "LOCK TABLE order_outbox IN ACCESS EXCLUSIVE MODE",
    "SELECT 1 FROM orders ORDER BY id DESC LIMIT 500 FOR UPDATE",
)


@contextmanager
def deadlocks(stage):
    """A session that locks in the other order; PostgreSQL ends the transaction that waits longest, which is ours."""
    brought_about, failure = [0], []
    over = threading.Event()

    def run():
        for table in _endlessly(LOCKED_LATE):
            if over.is_set():
                return
            try:
                brought_about[0] += _deadlock(stage.system.shop.room.postgres_uri, table, over)
            except psycopg2.Error as error:
                failure.append(error)  # PostgreSQL may be what another fault strikes
                over.wait(STEP_S)

    with _meanwhile(run, over):
        yield
    assert brought_about[0], f"no deadlock came about: {failure}"


LOCKED_LATE = ("order_outbox", "order_details", "orders", "order_idempotency", "order_requests")
DEADLOCK_WAIT_S = 1.0  # until somebody waits for the first lock
VICTIM_SQL = """
    SELECT held.pid, held.relation::regclass::text
      FROM pg_locks AS wanted JOIN pg_locks AS held ON held.pid = wanted.pid AND held.granted AND held.locktype = 'relation'
     WHERE NOT wanted.granted AND wanted.relation = %s::regclass AND wanted.pid <> pg_backend_pid()
       AND held.relation::regclass::text = ANY (%s) AND held.mode = 'RowExclusiveLock' LIMIT 1"""


def _endlessly(values):
    while True:
        yield from values


def _deadlock(uri, table, over):
    """Whether one came about: a transaction that waits for our lock on this table holds another one that we then want."""
    connection = psycopg2.connect(uri)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET deadlock_timeout = '3s'")  # the other one, by default 1 s, looks first
            cursor.execute("SET lock_timeout = '5s'")
            cursor.execute(f"LOCK TABLE {table} IN SHARE MODE")
            limit = time.monotonic() + DEADLOCK_WAIT_S
            while time.monotonic() < limit and not over.is_set():
                cursor.execute(VICTIM_SQL, (table, [name for name in LOCKED_LATE if name != table]))
                victim = cursor.fetchone()
                if victim is not None:
                    try:
                        cursor.execute(f"LOCK TABLE {victim[1]} IN SHARE MODE")
                    except psycopg2.errors.DeadlockDetected:
                        pass  # it was us
                    return 1
                over.wait(0.01)
        return 0
    finally:
        connection.rollback()
        connection.close()


@contextmanager
def wal_full(stage):
    """The file system that PostgreSQL writes its log to has no room left: it panics, and starts again for as long as it can."""
    system = stage.system
    log = system.servers.run_dir / "log" / "postgres.log"
    size = log.stat().st_size
    system.fill_wal()
    try:
        over = time.monotonic() + limits.MACHINE_RECOVERY_S
        while b"PANIC: " not in log.read_bytes()[size:]:
            assert time.monotonic() < over, "PostgreSQL still finds room for its log"
            try:  # the next segment is needed now, and cannot be made
                system.shop.query("SELECT pg_switch_wal() FROM (SELECT pg_logical_emit_message(false, 'chaos', 'x')) AS x")
            except psycopg2.Error:
                time.sleep(0.05)
        began = time.monotonic()
        yield
        came_back = b"database system is ready to accept connections" in log.read_bytes()[size:]
        if stage.alone and not came_back:  # else a link that is silent hides for a while that it is gone
            system.expect_unready(began, time.monotonic(), *SERVICES[2:])
    finally:
        system.clear_wal()
        system.servers.start_one("postgres")


# ---- Redis ---------------------------------------------------------------------------------------------------------


@contextmanager
def redis_paused(stage, ms):
    with stage.system.shop.redis() as connection:
        connection.execute_command("CLIENT", "PAUSE", ms, "ALL")
    yield


def redis_scripts_flushed(stage):
    def strike():
        with stage.system.shop.redis() as connection:
            connection.script_flush()

    return _repeatedly(strike)


@contextmanager
def redis_out_of_memory(stage):
    with stage.system.shop.redis() as connection:
        connection.config_set("maxmemory", 1)
        try:
            yield
        finally:
            connection.config_set("maxmemory", 0)


# ---- clients -------------------------------------------------------------------------------------------------------


def _order_that_is_left(stage):
    """An order whose client goes before its answer: its record, and its request's head and body."""
    marker = stage.history.next_order()
    lines = [{"product_id": stage.load.shelf[0], "price": f"{marker}.00", "quantity": 1}]
    body = json.dumps({"order_details": lines}).encode()
    head = f"POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    op = stage.history.begin("order", "http", order=marker, lines=lines, left=True)
    op.sent, op.outcome = True, INFO
    return op, head, body


def _again_and_again(act, over):
    """`act` meanwhile, with pauses."""

    def run():
        while not over.wait(LEAVERS_S):
            try:
                act()
            except OSError:
                pass  # the gateway may be what another fault strikes

    return _meanwhile(run, over)


@contextmanager
def clients_leave(stage):
    """At each stage of a request: within the head, within the body, while it is handled, while the answer is written."""
    over, turn = threading.Event(), [0]

    def leave():
        turn[0] += 1
        op, head, body = _order_that_is_left(stage)
        parts = (head[:20], head + body[: len(body) // 2], head + body, b"GET /orders?limit=100 HTTP/1.1\r\nHost: shop\r\n\r\n")
        with socket.create_connection(stage.system.gateway_address, 2) as sock:
            sock.sendall(parts[turn[0] % len(parts)])
            over.wait(0.004 * (turn[0] % 7))
            if turn[0] % 2:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        op.ended = time.monotonic()

    with _again_and_again(leave, over):
        yield


@contextmanager
def clients_half_close(stage):
    """A client that has said all it has to say and shuts its side down.  Kore resets it, perhaps after the work was done."""
    over = threading.Event()
    late = []

    def ask():
        op, head, body = _order_that_is_left(stage)
        with socket.create_connection(stage.system.gateway_address, limits.HANG_S) as sock:
            sock.sendall(head + body)
            sock.shutdown(socket.SHUT_WR)
            try:
                while sock.recv(4096):
                    pass
            except socket.timeout:
                late.append(f"order {op.order}: neither an answer nor an end within {limits.HANG_S:g} s of a half-close")
            except OSError:
                pass
        op.ended = time.monotonic()

    with _again_and_again(ask, over):
        yield
    assert not late, late[0]


@contextmanager
def slow_clients(stage):
    """Some send a head byte by byte, some ask for much and read nothing."""
    sockets = []
    over = threading.Event()

    def drip():
        while not over.wait(STEP_S):
            for sock in sockets[::2]:
                try:
                    sock.send(b"x")
                except OSError:
                    pass

    with ExitStack() as stack:
        for number in range(SLOW_CLIENTS):
            try:
                sock = stack.enter_context(socket.create_connection(stage.system.gateway_address, 2))
                sock.settimeout(0)
                sock.send(b"GET /" if number % 2 == 0 else b"GET /orders?limit=1000 HTTP/1.1\r\nHost: shop\r\n\r\n" * 20)
                sockets.append(sock)
            except OSError:
                pass
        with _meanwhile(drip, over):
            yield


@contextmanager
def poison(stage, bodies):
    """Events that can never be handled; each has to be found among the dead letters."""
    for text in bodies:
        marker = f"poison {len(stage.poison)} "
        body = text.replace("@", marker).encode()
        stage.poison[body] = False
        stage.poison[body] = _publish_event(stage, body)  # from now on it must not get lost
    yield


@contextmanager
def product_damaged(stage, mends):
    """Redis holds something else where a product was: events for it fail.  One is mended in time and then applied once;
    one never is, and its event becomes a dead letter after the last attempt."""
    product_id = f"chaos-damaged-{len(stage.poison)}-{len(stage.also_sold)}"
    fields = {"id": product_id, "title": "", "passenger_capacity": 1, "maximum_speed": 1, "in_stock": STOCK}
    key = f"products:{product_id}"
    order = {"id": 2_000_000_000 + len(stage.poison) + len(stage.also_sold), "order_details": [
        {"id": 1, "product_id": product_id, "price": "1.00", "quantity": 7}]}  # fmt: skip
    body = json.dumps({"order": order, "chaos": str(uuid.UUID(int=order["id"]))}).encode()
    with stage.system.shop.redis() as connection:
        connection.set(key, "no hash")
    if mends:
        stage.also_sold[product_id] = 7
    else:
        stage.poison[body] = True
    # Another fault may hold the broker; twice is once, for the event names its order.
    wait_until(lambda: _publish_event(stage, body), "the event is published", limits.HANG_S + limits.RECOVERY_S)
    yield
    if mends:
        with stage.system.shop.redis() as connection:
            with connection.pipeline(transaction=True) as pipeline:
                pipeline.delete(key)
                pipeline.hset(key, mapping=fields)
                pipeline.execute()
        stage.mended[product_id] = fields


POISON = ('{"@', '{"order": {"id": "@", "order_details": 7}}', '["@"]', '{"@": "' + "x" * 200_000 + '"}')


# ---- clocks --------------------------------------------------------------------------------------------------------


@contextmanager
def clock_jumps(stage, hours):
    """For one of two instances of each service, the wall clock alone: what is monotonic goes on."""
    stage.system.set_clock(hours * 3600)
    try:
        yield
    finally:
        stage.system.set_clock(0)


# ---- programs ------------------------------------------------------------------------------------------------------


@contextmanager
def _without_program(system, label, take_down):
    with system.hurting(label):
        take_down(label)
        try:
            yield
        finally:
            system.start_program(label)
            system.wait_started(label)


def program_killed(stage, label):
    return _without_program(stage.system, label, stage.system.kill_program)


def program_drained(stage, label):
    """SIGTERM under load, and a new one after it has left."""
    return _without_program(stage.system, label, stage.system.drain_program)


@contextmanager
def program_frozen(stage, label):
    with stage.system.hurting(label):
        stage.system.programs[label].pause()
        try:
            yield
        finally:
            stage.system.programs[label].resume()


@contextmanager
def gateway_worker_killed(stage):
    with stage.system.hurting("gateway-1"):
        stage.system.kill_gateway_worker()
        stage.system.wait_started("gateway-1")
    yield


@contextmanager
def everything_restarted(stage, order):
    """All programs and servers die; they come back in any order."""
    system = stage.system
    with system.hurting(*PROGRAMS):
        for label in PROGRAMS:
            system.kill_program(label)
        for server in ("rabbitmq", "redis", "postgres"):
            system.servers.kill(server)
        try:
            yield
        finally:
            for name in order:
                if name in PROGRAMS:
                    system.start_program(name)
                else:
                    system.servers.start_one(name)
            for label in PROGRAMS:
                system.start_program(label)
                system.wait_started(label)


def _any_order(rng):
    names = [*PROGRAMS, "rabbitmq", "redis", "postgres"]
    rng.shuffle(names)
    return {"order": names}


CATALOGUE = (
    Fault("F1", "broker killed", "broker", (0.5, 8), broker_killed),
    Fault("F2", "broker frozen, 1 heartbeat", "broker", (5, 6), server_frozen, lambda rng: {"server": "rabbitmq"}),
    Fault("F2", "broker frozen, 3 heartbeats", "broker", (16, 18), server_frozen, lambda rng: {"server": "rabbitmq"}),
    Fault("F3", "memory alarm", "broker", (3, 8), memory_alarm),
    Fault("F4", "disk alarm", "broker", (3, 8), disk_alarm),
    Fault("F5", "flood", "broker", (4, 8), flood),
    Fault("F6", "queue deleted", "broker", (0, 1), queue_deleted, lambda rng: {"queue": rng.choice(("rpc-products", "rpc-orders"))}),
    Fault("F6", "connections closed", "broker", (0, 1), connections_closed),
    Fault(
        "F7",
        "answers and confirms lost",
        "link",
        (1, 4),
        link_broken,
        lambda rng: {"link": rng.choice(LINKS), "mode": "drop", "direction": "s2c"},
    ),
    Fault("F8", "queue unbound", "broker", (1, 5), queue_unbound, lambda rng: {"binding": rng.choice(BINDINGS)}),
    Fault("F11", "half-open link", "link", (3, 15), link_broken, lambda rng: {**_some_link(rng), "mode": "half-open"}),
    Fault("F12", "link cut", "link", (1, 8), link_broken, lambda rng: {**_some_link(rng), "mode": "cut"}),
    Fault("F12", "link black hole", "link", (2, 15), link_broken, _blackhole),
    Fault("F13", "link delayed", "link", (3, 8), link_broken, _delayed),
    Fault("F13", "packets lost, doubled, out of order", "link", (4, 10), link_broken, _lossy, "namespaces"),
    Fault("F13", "link slow", "link", (3, 8), link_broken, _slow),
    Fault("F14", "backends terminated", "postgres", (1, 3), backends_terminated),
    Fault("F14", "backend killed", "postgres", (0, 1), backend_killed),
    Fault("F14", "PostgreSQL killed", "postgres", (0.5, 7), server_killed, lambda rng: {"server": "postgres", "labels": SERVICES[2:]}),
    Fault("F15", "PostgreSQL frozen", "postgres", (2, 18), server_frozen, lambda rng: {"server": "postgres"}),
    Fault("F16", "WAL disk full", "postgres", (2, 6), wal_full, needs="file systems"),
    Fault("F17", "deadlocks", "postgres", (4, 8), deadlocks),
    Fault("F18", "lock held", "postgres", (2, 8), table_locked, lambda rng: {"statement": rng.choice(LOCKS)}),
    Fault("F19", "Redis killed", "redis", (0.5, 7), server_killed, lambda rng: {"server": "redis", "labels": SERVICES[:2]}),
    Fault("F20", "Redis frozen", "redis", (2, 14), server_frozen, lambda rng: {"server": "redis"}),
    Fault("F20", "Redis paused", "redis", (4, 5), redis_paused, lambda rng: {"ms": 4000}),
    Fault("F21", "scripts flushed", "redis", (2, 4), redis_scripts_flushed),
    Fault("F21", "Redis out of memory", "redis", (2, 5), redis_out_of_memory),
    Fault("F22", "clients leave", "clients", (3, 6), clients_leave),
    Fault("F23", "clients half-close", "clients", (2, 4), clients_half_close),
    Fault("F24", "slow clients", "clients", (5, 12), slow_clients),
    Fault("F25", "poison", "broker", (0, 1), poison, lambda rng: {"bodies": rng.sample(POISON, len(POISON))}),
    Fault("F25", "product damaged, mended", "redis", (1, 3), product_damaged, lambda rng: {"mends": True}),
    Fault("F25", "product damaged for ever", "redis", (0, 1), product_damaged, lambda rng: {"mends": False}),
    Fault("F26", "service killed", "programs", (0, 3), program_killed, lambda rng: {"label": rng.choice(SERVICES)}),
    Fault("F27", "service frozen", "programs", (2, 14), program_frozen, lambda rng: {"label": rng.choice(SERVICES)}),
    Fault("F29", "gateway worker killed", "programs", (0, 1), gateway_worker_killed),
    Fault("F29", "gateway killed", "programs", (0, 2), program_killed, lambda rng: {"label": "gateway-1"}),
    Fault("F29", "gateway frozen", "programs", (2, 14), program_frozen, lambda rng: {"label": "gateway-1"}),
    Fault("F30", "program drained", "programs", (0, 2), program_drained, lambda rng: {"label": rng.choice(PROGRAMS)}),
    Fault("F31", "clock jumps", "clock", (2, 6), clock_jumps, lambda rng: {"hours": rng.choice((1, -1))}, "faketime"),
    Fault("F36", "everything restarted", "everything", (0, 1), everything_restarted, _any_order),
)

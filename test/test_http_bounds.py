"""The gateway's bounds, as kore-gateway/README.md lists them: time to send a request and to take its answer, connections, bytes.

No servers: what reaches a bound reaches no service.  Where time is the bound, the gateway's clock is the test's
(kore-gateway/test/pushed_clock.c): it stands still until it is pushed on.
"""
import os
import re
import select
import struct
import time
from collections import Counter

import pytest

from support.clock import wait_until
from support.hostile import Watched
from support.http import Http, RawConnection, check_error, raw_request
from support.ports import free_port
from support.program import BUILD_DIR, is_sanitized
from test_guard import ANSWERS_MAX, NarrowConnection, answered_at_rest

CLOCK = BUILD_DIR / "kore-gateway" / "test" / "pushed_clock.so"
HEAD_S, BODY_S, SEND_S, IDLE_S = 10, 60, 60, 20  # as the README says
NOTICED_S = 0.25  # how late the end of a time may be noticed
LOOKS = 5  # requests one after another, each a turn of the gateway's loop or more
NOTHING = raw_request("GET", "/nothing")
MIB = 1024 * 1024

by_clock = pytest.mark.skipif(is_sanitized("gateway"), reason="the sanitizers' library is preloaded, and no clock")


class Gateway(Watched):
    def __init__(self, directory, **settings):
        if not is_sanitized("gateway"):
            assert CLOCK.exists(), f"{CLOCK} is not built"
            settings.update(LD_PRELOAD=str(CLOCK), CLOCK_FILE=str(directory / "clock"))
        super().__init__(directory, "gateway", directory.name, METRICS_PORT=str(free_port()), **settings)
        self.monitor = Http(int(self.environment["METRICS_PORT"]))
        self._clock = os.open(directory / "clock", os.O_RDWR | os.O_CREAT, 0o644)
        self._offset_ms = 0
        self._set_clock(0)

    def _set_clock(self, stopped_ms):
        os.pwrite(self._clock, struct.pack("=qq", self._offset_ms, stopped_ms), 0)
        self._stopped_ms = stopped_ms

    def stop_clock(self):
        """A second ahead, so that it never goes back however long this takes."""
        self._set_clock(int(time.monotonic() * 1000) + 1000)

    def start_clock(self):
        self._offset_ms += 1000
        self._set_clock(0)

    def push_clock(self, seconds):
        """On by so much; the gateway has noticed what that brings about."""
        self._offset_ms += int(seconds * 1000)
        self._set_clock(self._stopped_ms)
        self.look()

    def look(self):
        """Whatever was sent before has been read."""
        for _ in range(LOOKS):
            assert self.monitor.get("/healthz", check=False).status == 200

    def metric(self, name):
        text = self.monitor.get("/metrics", check=False).body.decode()
        return int(re.search(rf"^{re.escape(name)} (\d+)$", text, re.M).group(1))

    def metric_at_rest(self, name):
        before, now = None, self.metric(name)
        while now != before:
            self.look()
            before, now = now, self.metric(name)
        return now

    def connections(self):
        return self.metric("gateway_connections") - 1  # without the one that asks

    def leave(self):
        self.stop()
        os.close(self._clock)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    made = []

    def start(**settings):
        made.append(Gateway(tmp_path_factory.mktemp("bounds"), **settings))
        return made[-1].start().wait_alive()

    yield start
    try:
        for one in made:
            one.leave()
    finally:
        for one in made:
            one.kill()


@pytest.fixture(scope="module")
def gateway(start):
    return start()


@pytest.fixture
def stopped(gateway):
    """The gateway, whose clock stands still."""
    gateway.stop_clock()
    yield gateway
    gateway.start_clock()


@pytest.fixture
def connect():
    """connect(gateway): another client."""
    made = []

    def connect(gateway):
        made.append(RawConnection(gateway.port))
        return made[-1]

    yield connect
    for one in made:
        one.close()


def ask(connection):
    check_error(connection.send(NOTHING).response(), 404, None)


# ---- time -------------------------------------------------------------------------------------------------------


@by_clock
@pytest.mark.parametrize(
    "bound_s, begin, go_on, end, status",
    [
        (HEAD_S, b"GET /nothing HTTP/1.1\r\nHost: x\r\nX: ", b"x", b"\r\n\r\n", 404),
        (BODY_S, b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{", b" ", b"xx", 400),
    ],
    ids=["head", "body"],
)
def test_a_request_that_takes_too_long_is_408(stopped, connect, bound_s, begin, go_on, end, status):
    """Its time runs from its beginning, whatever still comes."""
    in_time, late = connect(stopped), connect(stopped)
    for one in (in_time, late):
        one.send(begin)
    stopped.look()
    for _ in range(2):
        stopped.push_clock((bound_s - 1) / 2)
        for one in (in_time, late):
            one.send(go_on)
        stopped.look()
    check_error(in_time.send(end).response(), status, None)
    stopped.push_clock(1 + NOTICED_S)
    check_error(late.response(), 408, "REQUEST_TIMEOUT")
    assert late.hung_up()
    ask(in_time)


@by_clock
@pytest.mark.parametrize("bound_s, has_asked", [(HEAD_S, False), (IDLE_S, True)], ids=["never asked", "asks no more"])
def test_who_says_nothing_is_hung_up_on(stopped, connect, bound_s, has_asked):
    in_time, late = connect(stopped), connect(stopped)
    for one in (in_time, late) if has_asked else ():
        ask(one)
    stopped.look()
    stopped.push_clock(bound_s - 1)
    ask(in_time)
    stopped.push_clock(1 + NOTICED_S)
    assert late.hung_up()
    ask(in_time)


@by_clock
def test_who_does_not_take_his_answer_is_hung_up_on(stopped):
    client = NarrowConnection(stopped.port)
    try:
        client.send(NOTHING * ANSWERS_MAX)
        taken = answered_at_rest(stopped.monitor)[404]
        stopped.push_clock(SEND_S - 1)
        assert stopped.connections() == 1
        stopped.push_clock(1 + NOTICED_S)
        wait_until(lambda: stopped.connections() == 0, "the connection is closed")
        got = client.everything()
        assert got is None or got.count(b"HTTP/1.1 404") < ANSWERS_MAX
        assert answered_at_rest(stopped.monitor)[404] == taken, "nothing more was read"
    finally:
        client.close()


# ---- connections ------------------------------------------------------------------------------------------------

CONNECTIONS_MAX = 4


@pytest.fixture
def small(start):
    """Each test's own: it has no connections of another test, of which it may not have seen yet that they are closed."""
    return start(CONNECTIONS_MAX=str(CONNECTIONS_MAX))


def test_one_too_many_takes_the_place_of_the_longest_idle(small, connect):
    clients = [connect(small) for _ in range(CONNECTIONS_MAX)]
    for one in [*clients, clients[0]]:
        ask(one)
    clients.append(connect(small))
    ask(clients[-1])
    assert clients.pop(1).hung_up()
    for one in clients:
        ask(one)


def test_one_too_many_beside_busy_ones_is_503(small, connect):
    busy = [connect(small).send(NOTHING[:10]) for _ in range(CONNECTIONS_MAX)]
    refused = connect(small)
    response = refused.response()
    check_error(response, 503, "SERVICE_UNAVAILABLE")
    assert int(response.header("Retry-After")) > 0
    assert refused.hung_up()
    for one in busy:
        check_error(one.send(NOTHING[10:]).response(), 404, None)
    ask(connect(small))


# ---- bytes ------------------------------------------------------------------------------------------------------

CLIENTS = 80
BODIES_MAX = 64 * MIB


def split(clients, count):
    """So many of them have been answered already: (these, the others)."""

    def answered():
        readable = select.select([one.socket for one in clients], [], [], 0)[0]
        return readable if len(readable) == count else None

    sockets = wait_until(answered, f"{count} clients are answered")
    return [one for one in clients if one.socket in sockets], [one for one in clients if one.socket not in sockets]


@by_clock  # without it, who was refused is waited for no longer than two seconds
@pytest.mark.parametrize(
    "body_size, sent_size",
    [(1_000_000, 900_000), (MIB, 1_000_000), (MIB, 100_000)],
    ids=["most of it", "nearly all of the largest", "little of the largest"],
)
def test_bodies_past_the_bound_are_refused(stopped, connect, body_size, sent_size):
    """As many as fit are kept, and each can be finished; the others are told at once, and hold no room that another one needs."""
    metric = 'gateway_refused_total{bound="input"}'
    before = stopped.metric(metric)
    head = f"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: {body_size}\r\n\r\n".encode()
    fit = BODIES_MAX // (len(head) + body_size)
    clients = [connect(stopped) for _ in range(CLIENTS)]
    for one in clients:
        one.send(head + b" " * sent_size)
    refused, kept = split(clients, CLIENTS - fit)
    assert stopped.metric_at_rest(metric) - before == len(refused)

    def finish(client):
        return client.send(b" " * (body_size - sent_size)).response().status

    assert finish(kept.pop()) == 400
    check_error(connect(stopped).send(head + b" " * body_size).response(), 400, "BAD_REQUEST")
    assert Counter(map(finish, kept)) == {400: fit - 1}
    for one in refused:
        response = one.response()
        check_error(response, 503, "SERVICE_UNAVAILABLE")
        assert int(response.header("Retry-After")) > 0
    assert stopped.metric(metric) - before == len(refused)

"""A PostgreSQL that does what no real one does: orders stays up, answers honestly and in time, and works again when it turns honest."""
import itertools
import json
import struct
import uuid

import pytest

from support.clock import RECOVERY_S, SLACK_S, TIME_SCALE, wait_until
from support.fake import Hangup, byte_by_byte, hang_up, says, says_and_ends, says_and_falls_silent, silent, whole
from support.fake_broker import Caller, FakeBroker, Message, Queue, encode_properties
from support.fake_postgres import (
    BOUND,
    NULL,
    FakePostgres,
    authentication,
    complete,
    description,
    error,
    joined,
    message,
    notice,
    ready,
    row,
)
from support.hostile import MEMORY_MAX, Watched
from support.http import check_error
from support.program import is_sanitized
from support.shop import a_line, unique

STORE_TIMEOUT_MS = int(1_200 * TIME_SCALE)  # within which a busy machine answers, too
LIMIT_S = STORE_TIMEOUT_MS / 1000 + 2 * SLACK_S
CREATE = "create_by_request"
CREATE_BY_KEY = "create_by_key"
UNAVAILABLE, UNKNOWN, UNEXPECTED = "ServiceUnavailable", "OutcomeUnknown", "UnexpectedError"
ATTEMPTS_MAX = 8
LINES_MAX = 3  # an operation is tried eight times, and each may cost a connection: a line for each reason, and one for its answer
ANSWER_SIZE_MAX = 32 * 1024 * 1024  # what libpq makes of it in memory is up to four times as much
RESERVED_MAX = 0x40000000 + 8192  # libpq takes addresses for what is announced, up to this, and touches none
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def room(make_shop):
    return make_shop()


class Bench:
    """orders between a fake PostgreSQL and a broker of its own."""

    def __init__(self, room, directory, query="", **settings):
        self.room = room
        self.directory = directory
        self.postgres = FakePostgres(room.room.postgres_uri)
        self.broker = FakeBroker()
        self.broker.hooks["basic.publish"] = self._play_products
        self.broker.queues["events"] = Queue("events")  # or they would wait in the outbox
        self.broker.exchanges["orders.events"] = [("events", "order_created")]
        self.caller = Caller(self.broker)
        self.programs = []
        self.orders = self.add(
            "orders",
            POSTGRES_URI=self.postgres.uri + query,
            STORE_TIMEOUT_MS=str(STORE_TIMEOUT_MS),
            **{"DATABASE_CONNECTIONS": "1", "LOG_LEVEL": "debug", **settings},
        )

    def add(self, name, **settings):
        label = f"hostile-postgres-{name}-{next(_numbers)}"
        program = Watched(self.directory, name, label, AMQP_URI=self.broker.uri, **settings)
        self.programs.append(program)
        return program

    @staticmethod
    def _play_products(link, channel, fields):
        """Every product exists; a reply goes back, all else as ever."""
        (request,) = fields
        if request.routing_key != "products.exists":
            link.answer(channel, "basic.publish", fields)
            return
        properties = {"content_type": "application/json", "correlation_id": request.property["correlation_id"]}
        body = b'{"result": true, "error": null}'
        reply_to = request.property["reply_to"]
        link.server.route(Message("nameko-rpc", reply_to, False, encode_properties(properties), len(body), body))

    def close(self):
        try:
            for program in self.programs:
                if program.running:
                    program.leave()
        finally:
            for program in self.programs:
                program.kill()
            self.postgres.close()
            self.broker.close()

    def send(self, method, *args):
        return self.caller.send(f"orders.{method}", json.dumps({"args": args, "kwargs": {}}).encode())

    def call(self, method, *args):
        """The result; there must be one."""
        answer = self.caller.response(self.send(method, *args))
        assert answer["error"] is None, f"{method}: {answer}"
        return answer["result"]

    def error(self, method, *args):
        """The error's type; it must be there within orders' own time limit."""
        answer = self.caller.response(self.send(method, *args), LIMIT_S)
        assert answer["error"] is not None, f"{method} gave a result: {answer}"
        return answer["error"]["exc_type"]

    def turn_honest(self):
        """Also on new connections: those at hand may have fallen silent."""
        self.postgres.hooks.clear()
        self.postgres.pieces = whole
        before = self.postgres.accepted
        self.postgres.kick()
        self.postgres.wait_accepted(before + 1)
        for program in self.programs:
            program.wait_is_ready()


@pytest.fixture(scope="module")
def whole_bench(room, directory):
    bench = Bench(room, directory)
    bench.gateway = bench.add("gateway")
    try:
        for program in bench.programs:
            program.start()
        for program in bench.programs:
            program.wait_is_ready()
        bench.known = bench.call("create_order", [a_line("known", "1.50", 2)])
        yield bench
    finally:
        bench.close()


@pytest.fixture
def bench(whole_bench):
    for program in whole_bench.programs:
        program.assert_unharmed()
    yield whole_bench
    whole_bench.turn_honest()
    for program in whole_bench.programs:
        program.assert_unharmed()
    assert whole_bench.call("get_order", whole_bench.known["id"]) == whole_bench.known


# ---- a start that goes wrong ------------------------------------------------------------------------------------------

GREETED = authentication(0) + message(b"S", b"server_version\x0015.0\0") + message(b"K", b"\0\0\0\1\0\0\0\1")

# (where, what happens, words of the line that tells)
STARTS = {
    "silence": ("encryption", silent, "in time"),
    "silence after the encryption": ("startup", silent, "in time"),
    "silence within a message": ("startup", says_and_falls_silent(b"R\0\0"), "in time"),
    "silence after the login": ("startup", says_and_falls_silent(authentication(0)), "in time"),
    "silence before the first ReadyForQuery": ("startup", says_and_falls_silent(GREETED), "in time"),
    "silence at the statements": ("prepare", silent, "in time"),
    "hung up at once": ("encryption", hang_up, ""),
    "hung up after the encryption": ("startup", hang_up, "closed"),
    "hung up after the login": ("startup", says_and_ends(GREETED), "closed"),
    "hung up at the statements": ("prepare", hang_up, "closed"),
    "a strange answer to the encryption": ("encryption", says(b"X"), "SSL"),
    "Kerberos": ("startup", says(authentication(2)), "not supported"),
    "a method of no number": ("startup", says(authentication(99)), "not supported"),
    "SASL of no known kind": ("startup", says(authentication(10, b"MAGIC-256\0\0")), "SASL"),
    "too many clients": ("startup", says_and_ends(error("53300", "sorry, too many clients already", "FATAL")), "too many clients"),
    "starting up": ("startup", says_and_ends(error("57P03", "the database system is starting up", "FATAL")), "starting up"),
    "a wrong password": ("startup", says_and_ends(error("28P01", "password authentication failed", "FATAL")), "authentication failed"),
    "no such database": ("startup", says_and_ends(error("3D000", 'database "x" does not exist', "FATAL")), "does not exist"),
    "an error without an end": ("startup", says_and_ends(message(b"E", b"SFATAL")), ""),
    "a message shorter than its own size": ("startup", says_and_ends(message(b"R", b"", 3)), ""),
    "a message of 2 GB": ("startup", says(message(b"R", b"", 0x7FFFFFFF)), ""),
    "HTTP": ("startup", says_and_ends(b"HTTP/1.1 400 Bad Request\r\n\r\n"), ""),
    "another protocol": ("startup", says_and_ends(message(b"v", struct.pack(">II", 2, 0))), ""),
    "statements that are refused": ("prepare", says(error("42P01", 'relation "orders" does not exist') + ready()), "does not exist"),
}  # fmt: skip


def test_starts_that_go_wrong(room, directory):
    """Not ready, one line that says why, again with growing delay; SIGTERM is heard, and it is ready with the server."""
    benches = {what: Bench(room, directory) for what in STARTS}
    try:
        for what, (where, hook, _) in STARTS.items():
            benches[what].postgres.hooks[where] = hook
            benches[what].orders.start()
        for bench in benches.values():
            bench.orders.wait_alive()
        for what, (_, hook, words) in STARTS.items():
            orders, postgres = benches[what].orders, benches[what].postgres
            said = orders.wait_complaint("database down", words)
            assert len(said["reason"]) > 5, f"{what}: {said}"
            postgres.wait_accepted(2 if "silence" in what or "2 GB" in what else 4)
            assert not orders.is_ready, what
            orders.assert_unharmed()
            orders.assert_terse(1)
        for number, bench in enumerate(benches.values()):
            if number % 2 == 0:  # the others heal
                bench.orders.leave()
                continue
            bench.postgres.hooks.clear()
            bench.postgres.kick()
            bench.orders.wait_is_ready()
    finally:
        for bench in benches.values():
            bench.close()


# ---- answers that are none ---------------------------------------------------------------------------------------------

INT = struct.pack(">i", 1)
COLUMNS = 5  # of `get`

# Answers to `get`.  None of them is an order, and none of them says that there is no such order.
WRONG = {
    "ReadyForQuery alone": ready(),
    "no description": BOUND + row(INT, INT, b"x", b"1.00", INT) + complete() + ready(),
    "nothing but a tag": BOUND + complete() + ready(),
    "an empty query": BOUND + message(b"I") + ready(),
    "no data": BOUND + message(b"n") + complete(b"UPDATE 0") + ready(),
    "no columns": BOUND + description(0) + row() + complete() + ready(),
    "one column": BOUND + description(1) + row(INT) + complete() + ready(),
    "four columns": BOUND + description(4) + row(INT, INT, b"x", b"1.00") + complete() + ready(),
    "more columns": BOUND + description(9) + row(*[INT] * 9) + complete() + ready(),
    "a row of fewer columns than described": BOUND + description(5) + row(INT) + complete() + ready(),
    "a row of more columns than described": BOUND + description(1) + row(INT, INT) + complete() + ready(),
    "a length below -1": BOUND + description(1) + message(b"D", struct.pack(">Hi", 1, -2)) + complete() + ready(),
    "a length beyond its row": BOUND + description(1) + message(b"D", struct.pack(">Hi", 1, 1000) + b"x") + complete() + ready(),
    "a row cut short": BOUND + description(5) + message(b"D", b"\0") + complete() + ready(),
    "a description cut short": BOUND + message(b"T", b"\0\5x") + ready(),
    "a message of no known kind": BOUND + message(b"?", b"xxxx") + ready(),
    "a size of 0": BOUND + message(b"D", b"", 0) + ready(),
    "a size of 3": BOUND + message(b"Z", b"", 3),
    "a huge ReadyForQuery": BOUND + message(b"Z", b"", 0x7FFFFFFF),
    "a size of 4 GB": BOUND + message(b"D", b"", 0xFFFFFFFF),
    "COPY in": BOUND + message(b"G", b"\0\0\0") + ready(),
    "COPY out": BOUND + message(b"H", b"\0\0\0") + message(b"d", b"data") + message(b"c") + complete(b"COPY 1") + ready(),
    "COPY both": BOUND + message(b"W", b"\0\0\0") + ready(),
    "a login": authentication(3) + ready(),
    "an error without a code": BOUND + message(b"E", b"SERROR\0Mwhat\0\0") + ready(),
    "an error without anything": BOUND + message(b"E", b"\0") + ready(),
    "an error cut short": BOUND + message(b"E", b"SERROR") + ready(),
    "rubbish": bytes(range(255, -1, -1)) * 8,
    "HTTP": b"HTTP/1.1 200 OK\r\n\r\n",
}  # fmt: skip


def nulls_for(bench):
    return BOUND + description(COLUMNS) + row(struct.pack(">i", bench.known["id"]), INT, None, None, None) + complete() + ready()


@pytest.mark.parametrize("what", [*WRONG, "NULL where none may be"])
def test_an_answer_that_is_none(bench, what):
    """An error within the time limit, and neither an order nor "there is none"."""
    wrong = WRONG[what] if what in WRONG else nulls_for(bench)
    bench.postgres.hooks["get"] = says(wrong)
    assert bench.error("get_order", bench.known["id"]) in (UNAVAILABLE, UNEXPECTED)
    bench.postgres.hooks[CREATE] = says(wrong)
    if what in WRONG:  # else it says that the key was used for another order, and there is nothing odd about that
        assert bench.error("create_order", [a_line(unique("wrong"))]) in (UNKNOWN, UNAVAILABLE, UNEXPECTED)
    bench.orders.assert_terse(LINES_MAX)


@pytest.mark.parametrize("statement", ["get", CREATE])
def test_more_answers_than_questions(bench, statement):
    """A second ReadyForQuery must not be taken for the answer to the next question: that is asked again, or said to be unanswered."""

    def more(link, unit):
        link.send(joined(link.ask(unit)) + ready() + ready())

    def ask(method, *args):
        answer = bench.caller.response(bench.send(method, *args), LIMIT_S)
        return answer["error"]["exc_type"] if answer["error"] else answer["result"]

    bench.postgres.hooks[statement] = more
    orders = []
    for _ in range(10):
        bench.orders.wait_is_ready()  # the answer too many may have cost the connection, a moment ago or in a moment
        made = ask("create_order", [a_line(unique("more"), "2.00", 3)])
        if made in (UNAVAILABLE, UNKNOWN):
            continue
        orders.append(made)
        assert ask("get_order", made["id"]) in (made, UNAVAILABLE)
        assert ask("get_order", 2_000_000_000) in ("NotFound", UNAVAILABLE)
    bench.turn_honest()
    assert orders
    for made in orders:
        assert ask("get_order", made["id"]) == made


def test_messages_that_may_come_at_any_time(bench):
    """Notices, settings and notifications between any two messages: the answers are right."""
    between = notice("nothing") + message(b"S", b"TimeZone\0UTC\0") + message(b"A", struct.pack(">I", 7) + b"channel\0text\0")

    def chatty(link, unit):
        link.send(between + between.join(message(*one) for one in link.ask(unit)) + between)

    for statement in ("get", CREATE, "claim_events", "delete_events", "ping", "prepare"):
        bench.postgres.hooks[statement] = chatty
    bench.postgres.kick()
    bench.orders.wait_is_ready()
    made = bench.call("create_order", [a_line(unique("chatty"))])
    assert bench.call("get_order", made["id"]) == made
    assert bench.error("get_order", 2_000_000_000) == "NotFound"


def test_each_byte_alone(bench):
    bench.postgres.pieces = byte_by_byte
    made = bench.call("create_order", [a_line(unique("bytes")), a_line(unique("bytes"))])
    assert bench.call("get_order", made["id"]) == made
    bench.postgres.kick()
    bench.orders.wait_is_ready()  # the start, too
    assert bench.call("get_order", made["id"]) == made


@pytest.mark.parametrize(
    "part",
    [
        BOUND + description(5) + message(b"D", struct.pack(">H", 5), 0x7FFFFFFF),
        BOUND + message(b"T", struct.pack(">H", 0xFFFF), 0x7FFFFFF0),
        BOUND + message(b"E", b"S", 0x7FFFFFFF),
        BOUND + message(b"N", b"S", 0x40000000),
        BOUND + description(1) + message(b"D", struct.pack(">Hi", 1, 0x3FFFFFFF), 0x40000006),
    ],
    ids=["a row", "a description", "an error", "a notice", "a field"],
)
def test_a_size_that_is_only_announced(bench, part):
    """Nothing is filled for what has not come."""
    before = bench.orders.memory()
    bench.postgres.hooks["get"] = says_and_falls_silent(part)
    assert bench.error("get_order", bench.known["id"]) == UNAVAILABLE
    bench.turn_honest()
    allowed = MEMORY_MAX + (RESERVED_MAX // 8 if is_sanitized("orders") else 0)  # the sanitizer's note of each eight bytes is one
    assert bench.orders.memory() - before <= allowed, f"{bench.orders.memory() - before:,} bytes more"


ROW = row(INT, INT, b"x" * 1000, b"1.00", INT)
# (how it begins, what is said again and again)
WITHOUT_AN_END = {
    "rows": (BOUND + description(COLUMNS), ROW * 64),
    "rows of nothing": (BOUND + description(COLUMNS), row(*[NULL] * COLUMNS) * 2000),
    "answers": (BOUND, (description(COLUMNS) + ROW + complete()) * 64),
    "notices": (BOUND, notice("x" * 1000) * 64),
    "settings": (BOUND, message(b"S", b"TimeZone\0UTC\0") * 2000),
    # libpq reads a row to its end for as long as the server sends faster than it reads, and is not to be stopped within.
    "a row": (BOUND + description(COLUMNS) + message(b"D", struct.pack(">H", COLUMNS), 3 * ANSWER_SIZE_MAX), b"x" * 65536),
}


@pytest.mark.parametrize("what", WITHOUT_AN_END)
def test_an_answer_without_an_end(bench, what):
    """A server that talks on and on fills no memory."""
    head, part = WITHOUT_AN_END[what]
    before = bench.orders.memory()

    def talk(link, unit):
        link.send(head)
        while True:
            link.send(part)

    def given_up():
        """For the size of what it says; what takes libpq long, for its time; and a row that came to its end, for it is none."""
        reasons = [one.get("reason", "") for one in bench.orders.records()]
        return sum(any(why in one for why in ("more than anybody", "does not answer", "insufficient data")) for one in reasons)

    bench.postgres.hooks["get"] = bench.postgres.hooks["list"] = bench.postgres.hooks[CREATE] = talk
    for count, (method_name, argument, expected) in enumerate(
        (
            ("get_order", bench.known["id"], (UNEXPECTED, UNAVAILABLE)),  # whichever comes first, size or time
            ("list_orders", 0, ("ValidationError", UNAVAILABLE)),  # a smaller page may be an answer
            ("create_order", [a_line(unique("endless"))], (UNKNOWN,)),
        ),
        1,
    ):
        bench.orders.wait_is_ready()
        assert bench.error(method_name, argument) in expected
        wait_until(lambda: given_up() >= count, f"the answer to {method_name} is given up")
    bench.turn_honest()
    allowed = MEMORY_MAX + 4 * ANSWER_SIZE_MAX * (2 if is_sanitized("orders") else 1)
    assert bench.orders.memory() - before <= allowed, f"{bench.orders.memory() - before:,} bytes more"


# ---- silence and ends --------------------------------------------------------------------------------------------------


def post(bench, product_id, key=None):
    headers = {"Idempotency-Key": key} if key else {}
    return bench.gateway.http.post("/orders", {"order_details": [a_line(product_id)]}, headers=headers)


def made_of(bench, product_id):
    return [one for (one,) in bench.room.query("SELECT order_id FROM order_details WHERE product_id = %s", product_id)]


@pytest.mark.parametrize("part", [b"", BOUND[:3], BOUND + description(5)[:20]], ids=["nothing", "half a size", "half an answer"])
@pytest.mark.parametrize("how", ["silence", "end"])
def test_half_an_answer(bench, how, part):
    """A read is tried again while there is time; then it says so.  A change that was sent is of unknown outcome."""
    hook = says_and_falls_silent(part) if how == "silence" else says_and_ends(part)
    bench.postgres.hooks["get"] = hook
    assert bench.error("get_order", bench.known["id"]) == UNAVAILABLE
    bench.turn_honest()
    bench.postgres.hooks[CREATE] = hook
    assert bench.error("create_order", [a_line(unique("half"))]) == UNKNOWN
    bench.turn_honest()
    bench.orders.assert_terse(LINES_MAX)


def test_the_end_before_the_commit(bench):
    """Always: 504, for it may have been done.  Once: it is sent again by itself, and made once."""
    product_id = unique("before")
    bench.postgres.hooks[CREATE] = hang_up
    check_error(post(bench, product_id), 504, "OUTCOME_UNKNOWN")
    bench.turn_honest()
    assert made_of(bench, product_id) == []
    again = []

    def once(link, unit):
        if not again:
            again.append(unit)
            raise Hangup
        link.send(joined(link.ask(unit)))

    bench.postgres.hooks[CREATE] = once
    response = post(bench, product_id)
    assert response.status == 200, str(response)
    assert made_of(bench, product_id) == [response.json["id"]]


def test_the_end_behind_the_commit(bench):
    """It was done, and nobody knows: 504, and the same key tells the truth; once: the second try finds the first one's."""
    product_id, key = unique("behind"), str(uuid.uuid4())

    def commit_and_go(link, unit):
        link.ask(unit)
        raise Hangup

    bench.postgres.hooks[CREATE_BY_KEY] = commit_and_go
    check_error(post(bench, product_id, key), 504, "OUTCOME_UNKNOWN")
    bench.turn_honest()
    (made,) = made_of(bench, product_id)
    assert post(bench, product_id, key).json == {"id": made}
    assert made_of(bench, product_id) == [made]

    other, gone = unique("behind"), []

    def once(link, unit):
        answer = link.ask(unit)
        if not gone:
            gone.append(answer)
            raise Hangup
        link.send(joined(answer))

    bench.postgres.hooks[CREATE] = once
    response = post(bench, other)
    assert response.status == 200, str(response)
    assert made_of(bench, other) == [response.json["id"]]


def test_the_end_between_the_commit_and_its_tag(bench):
    """The answer begins, and its ReadyForQuery never comes: the transaction may be closed, or not."""
    product_id, key = unique("between"), str(uuid.uuid4())

    def all_but_the_end(link, unit):
        link.send(joined(link.ask(unit)[:-1]))
        raise Hangup

    bench.postgres.hooks[CREATE_BY_KEY] = all_but_the_end
    check_error(post(bench, product_id, key), 504, "OUTCOME_UNKNOWN")
    bench.turn_honest()
    (made,) = made_of(bench, product_id)
    assert post(bench, product_id, key).json == {"id": made}


def test_silence_is_answered_in_time(bench):
    """503 for what was not done, 504 for what may have been; a new connection, and all is well."""
    bench.postgres.hooks["get"] = bench.postgres.hooks[CREATE] = silent
    response = bench.gateway.http.get(f"/orders/{bench.known['id']}")
    check_error(response, 503, "SERVICE_UNAVAILABLE")
    bench.turn_honest()
    bench.postgres.hooks[CREATE] = silent
    response = post(bench, unique("silent"))
    check_error(response, 504, "OUTCOME_UNKNOWN")
    assert response.took_s <= LIMIT_S
    bench.orders.assert_terse(LINES_MAX)


def test_an_idle_connection_falls_silent(bench):
    """Nobody asks for anything; the next question is asked of a connection that works."""
    before = bench.postgres.accepted
    bench.postgres.hooks["ping"] = bench.postgres.hooks["claim_events"] = silent
    bench.postgres.wait_accepted(before + 1)
    bench.orders.wait_says("database down")


# ---- errors ------------------------------------------------------------------------------------------------------------

# (code, severity, what a read says, what a change says) when it comes every time
ERRORS = {
    "serialization failure": ("40001", "ERROR", UNAVAILABLE, UNAVAILABLE),
    "deadlock": ("40P01", "ERROR", UNAVAILABLE, UNAVAILABLE),
    "shut down": ("57P01", "FATAL", UNAVAILABLE, UNAVAILABLE),
    "crash of another": ("57P02", "FATAL", UNAVAILABLE, UNAVAILABLE),
    "statement timeout": ("57014", "ERROR", UNAVAILABLE, UNAVAILABLE),
    "lock timeout": ("55P03", "ERROR", UNAVAILABLE, UNAVAILABLE),
    "too many connections": ("53300", "ERROR", UNAVAILABLE, UNAVAILABLE),
    "disk full": ("53100", "ERROR", UNAVAILABLE, UNAVAILABLE),
    "unique violation": ("23505", "ERROR", UNEXPECTED, UNEXPECTED),
    "read only": ("25006", "ERROR", UNAVAILABLE, UNAVAILABLE),
    "syntax error": ("42601", "ERROR", UNEXPECTED, UNEXPECTED),
    "internal error": ("XX000", "ERROR", UNEXPECTED, UNEXPECTED),
}


@pytest.mark.parametrize("what", ERRORS)
def test_an_error_each_time(bench, what):
    """The server says that nothing was done, and so does orders; what may pass is tried again, so many times."""
    code, severity, of_read, of_change = ERRORS[what]
    before = bench.postgres.count("get")
    bench.postgres.hooks["get"] = bench.postgres.hooks[CREATE] = says(error(code, f"{what} %s%n", severity) + ready())
    if severity == "FATAL":
        bench.postgres.hooks["get"] = bench.postgres.hooks[CREATE] = says_and_ends(error(code, what, severity))
    assert bench.error("get_order", bench.known["id"]) == of_read
    said = bench.error("create_order", [a_line(unique("refused"))])
    assert said == of_change or (severity == "FATAL" and said == UNKNOWN), said
    assert bench.postgres.count("get") - before <= 2 * ATTEMPTS_MAX


@pytest.mark.parametrize("code", ["40001", "40P01", "25006", "26000", "0A000"])
def test_an_error_once(bench, code):
    """It lost a race, or the session is of no use: once more, and nobody notices."""
    product_id, refused = unique("again"), []

    def once(link, unit):
        if len(refused) < 2:
            refused.append(unit)
            link.send(error(code, "once more") + ready())
        else:
            link.send(joined(link.ask(unit)))

    bench.postgres.hooks["get"] = bench.postgres.hooks[CREATE] = once
    made = bench.call("create_order", [a_line(product_id)])
    assert made_of(bench, product_id) == [made["id"]]
    refused.clear()
    assert bench.call("get_order", made["id"]) == made
    assert len(refused) == 2


def test_a_server_that_ends_sessions_as_they_start(bench):
    """Ready, and gone: the delay grows all the same, and the log is not filled with it."""
    bench.postgres.hooks["claim_events"] = bench.postgres.hooks["ping"] = says_and_ends(error("57P01", "terminating connection", "FATAL"))
    before, attempts = bench.postgres.accepted, 8
    bench.postgres.wait_accepted(before + attempts, RECOVERY_S)
    at = bench.postgres.accepted_at[before : before + attempts]
    gaps = [later - earlier for earlier, later in zip(at, at[1:])]
    assert max(gaps) >= 0.4, f"it tries again at once: {gaps}"
    bench.orders.assert_terse(LINES_MAX)
    bench.orders.assert_unharmed()


@pytest.mark.parametrize("connections", [1, 4])
def test_a_server_that_drops_each_statement(room, directory, connections):
    """It takes each login, and each statement costs the connection: one outage, however many calls."""
    bench = Bench(room, directory, DATABASE_CONNECTIONS=str(connections))
    try:
        bench.orders.start().wait_is_ready()
        bench.postgres.hooks["get"] = hang_up
        for _ in range(5):
            assert bench.error("get_order", 2_000_000_000) == UNAVAILABLE
            bench.orders.wait_is_ready()
        bench.orders.assert_terse(LINES_MAX)
        bench.turn_honest()
        assert bench.error("get_order", 2_000_000_000) == "NotFound"
    finally:
        bench.close()


def test_the_outbox_is_answered_oddly(bench):
    """Whatever becomes of its statements, the event goes out, and leaves the table in the end."""
    odd = itertools.cycle(
        [WRONG["ReadyForQuery alone"], WRONG["one column"], WRONG["no description"], error("40001", "again") + ready(), WRONG["rubbish"]]
    )
    seen = []

    def oddly(link, unit):
        seen.append(unit)
        if len(seen) <= 5:
            link.send(next(odd))
        else:
            link.send(joined(link.ask(unit)))

    bench.postgres.hooks["claim_events"] = bench.postgres.hooks["delete_events"] = bench.postgres.hooks["release_events"] = oddly
    made = bench.call("create_order", [a_line(unique("outbox"))])
    wait_until(lambda: any(is_event_of(one, made) for one in list(bench.broker.published)), "the event is published", RECOVERY_S)
    wait_until(lambda: bench.room.outbox() == 0, "the outbox is empty", RECOVERY_S)
    bench.orders.assert_unharmed()


def is_event_of(published, order):
    return published.exchange == "orders.events" and json.loads(published.body)["order"]["id"] == order["id"]


# ---- a change that comes again ------------------------------------------------------------------------------------------


def test_a_change_that_comes_again_while_postgres_is_away(room, directory):
    """Whoever had it before may have carried it out: only a first delivery is sure that nothing was done."""
    bench = Bench(room, directory)
    try:
        bench.orders.start().wait_is_ready()
        made = bench.call("create_order", [a_line(unique("again"))])
        changes = [("create_order", [a_line(unique("again"))]), ("update_order", made), ("delete_order", made["id"])]
        bench.postgres.hooks["encryption"] = bench.postgres.hooks["startup"] = hang_up
        bench.postgres.kick()
        bench.orders.wait_not_ready()
        for method_name, argument in changes:
            assert bench.error(method_name, argument) == UNAVAILABLE
        bench.broker.redelivered = True
        for method_name, argument in changes:
            assert bench.error(method_name, argument) == UNKNOWN
        assert bench.error("get_order", made["id"]) == UNAVAILABLE
        assert bench.error("list_orders") == UNAVAILABLE
        bench.turn_honest()
        assert bench.call("get_order", made["id"]) == made
        for method_name, argument in changes:  # and now it can be told
            bench.call(method_name, argument)
    finally:
        bench.close()

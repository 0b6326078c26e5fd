"""A Redis that does what no real one does: products stays up, answers honestly and in time, and works again when it turns honest."""
import itertools
import json

import pytest

from support.clock import ANSWER_S, RECOVERY_S, SLACK_S, TIME_SCALE, wait_until
from support.fake import Gone, Hangup, byte_by_byte, hang_up, says, says_and_ends, says_and_falls_silent, silent, whole
from support.fake_broker import Caller, FakeBroker, Message, encode_properties
from support.fake_redis import FakeRedis
from support.hostile import MEMORY_MAX, Watched
from support.shop import a_product, unique

STORE_TIMEOUT_MS = int(1_000 * TIME_SCALE)  # within which a busy machine answers, too
_numbers = itertools.count(1)
UNAVAILABLE = "ServiceUnavailable"
UNKNOWN = "OutcomeUnknown"
UNEXPECTED = "UnexpectedError"
LINES_MAX = 3  # a line for each reason, and one for an answer


@pytest.fixture(scope="module")
def room(make_shop):
    return make_shop()


class Bench:
    """products between a fake Redis and a broker of its own."""

    def __init__(self, room, directory, credentials=""):
        self.redis = FakeRedis(room.room.redis_uri)
        self.broker = FakeBroker()
        self.caller = Caller(self.broker)
        uri = self.redis.uri.replace("redis://", "redis://" + credentials)
        label = f"hostile-redis-{next(_numbers)}"
        settings = {"AMQP_URI": self.broker.uri, "REDIS_URI": uri, "STORE_TIMEOUT_MS": str(STORE_TIMEOUT_MS), "LOG_LEVEL": "debug"}
        self.products = Watched(directory, "products", label, **settings)

    def close(self):
        try:
            if self.products.running:
                self.products.leave()
        finally:
            self.products.kill()  # before its broker's port is somebody else's
        self.redis.close()
        self.broker.close()

    def call(self, method, *args):
        """The result; there must be one."""
        answer = self.caller.call(f"products.{method}", *args)
        assert answer["error"] is None, f"{method}: {answer}"
        return answer["result"]

    def send(self, method, *args, **properties):
        return self.caller.send(f"products.{method}", json.dumps({"args": args, "kwargs": {}}).encode(), **properties)

    def error(self, method, *args):
        """The error's type; it must be there within products' own time limit."""
        answer = self.caller.response(self.send(method, *args), STORE_TIMEOUT_MS / 1000 + 2 * SLACK_S)
        assert answer["error"] is not None, f"{method} gave a result: {answer}"
        return answer["error"]["exc_type"]

    def lower_stock(self, product_id, quantity):
        details = [{"id": 1, "product_id": product_id, "price": "1.00", "quantity": quantity}]
        body = json.dumps({"order": {"id": next(_numbers) + 1_700_000_000, "order_details": details}}).encode()
        properties = encode_properties({"content_type": "application/json", "delivery_mode": 2})
        assert self.broker.route(Message("orders.events", "order_created", False, properties, len(body), body))

    def turn_honest(self):
        self.redis.honest()
        self.products.wait_is_ready()


@pytest.fixture(scope="module")
def whole_bench(room, directory):
    bench = Bench(room, directory)
    bench.products.start().wait_is_ready()
    bench.known = a_product(unique("known"))
    assert bench.call("create", bench.known) is None
    yield bench
    bench.close()


@pytest.fixture
def bench(whole_bench):
    whole_bench.products.assert_unharmed()
    yield whole_bench
    whole_bench.redis.pieces = whole
    whole_bench.turn_honest()
    whole_bench.products.assert_unharmed()
    assert whole_bench.call("get", whole_bench.known["id"]) == whole_bench.known


def creating(redis, hook):
    """A product is made by either."""
    redis.hooks["HSET"] = redis.hooks["EVAL"] = hook


# ---- a greeting that goes wrong --------------------------------------------------------------------------------------

GREETINGS = {
    "silence": (None, silent, "in time"),
    "silence after AUTH": ("AUTH", silent, "in time"),
    "silence after SELECT": ("SELECT", silent, "in time"),
    "silence after the question": ("EXISTS", silent, "in time"),
    "silence within a reply": ("EXISTS", says_and_falls_silent(b":0"), "in time"),
    "hung up at once": (None, hang_up, "clos"),
    "hung up within a reply": ("EXISTS", says_and_ends(b":0\r"), "clos"),
    "WRONGPASS": ("AUTH", says(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"), "WRONGPASS"),
    "no password is set": ("AUTH", says(b"-ERR AUTH <password> called without any password configured\r\n"), "without any password"),
    "NOAUTH": ("EXISTS", says(b"-NOAUTH Authentication required.\r\n"), "NOAUTH"),
    "no such database": ("SELECT", says(b"-ERR DB index is out of range\r\n"), "out of range"),
    "LOADING": ("EXISTS", says(b"-LOADING Redis is loading the dataset in memory\r\n"), "LOADING"),
    "too many clients": (None, says_and_ends(b"-ERR max number of clients reached\r\n"), "max number of clients"),
    "HTTP": ("AUTH", says_and_ends(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "rotocol error"),
    "a giant text": ("EXISTS", says(b"$9223372036854775807\r\n"), ""),
    "a giant array": ("EXISTS", says(b"*2147483647\r\n"), ""),
    "rubbish": ("EXISTS", says(bytes(range(256)) * 64), "rotocol error"),
}  # fmt: skip


def test_greetings_that_go_wrong(room, directory):
    """Not ready, one line that says why, again with growing delay; ready as soon as the server is one; and SIGTERM is heard."""
    benches = {what: Bench(room, directory, "user:s3same@") for what in GREETINGS}
    try:
        for what, (command, hook, _) in GREETINGS.items():
            redis = benches[what].redis
            redis.hooks["AUTH"] = says(b"+OK\r\n")
            if command is None:
                redis.on_connect = hook
            else:
                redis.hooks[command] = hook
            benches[what].products.start()
        for bench in benches.values():
            bench.products.wait_alive()
        for what, (_, _, words) in GREETINGS.items():
            products = benches[what].products
            benches[what].redis.wait_accepted(3)
            products.wait_complaint("redis is away", words)
            assert not products.is_ready, what
            products.assert_unharmed()
            products.assert_terse(1)
        for number, bench in enumerate(benches.values()):
            if number % 2 == 0:  # the others heal
                bench.products.leave()
                continue
            bench.redis.honest()
            bench.redis.hooks["AUTH"] = says(b"+OK\r\n")
            bench.products.wait_is_ready()
    finally:
        for bench in benches.values():
            bench.close()


# ---- replies that are none -------------------------------------------------------------------------------------------

RUBBISH = {
    "no type": b"hello\r\n",
    "NUL": b"\0\0\0\0\r\n",
    "a number that is none": b":1x\r\n",
    "a length that is none": b"$abc\r\n",
    "a length below -1": b"$-2\r\n",
    "an array below -1": b"*-2\r\n",
    "a number too large": b":99999999999999999999999\r\n",
    "a text that ends wrongly": b"$3\r\nabcde\r\n",
    "RESP3": b"%1\r\n+a\r\n:1\r\n",
    "nested too deep": b"*1\r\n" * 10_000 + b":1\r\n",
    "nested as deep as it gets": b"*1\r\n" * 7 + b":1\r\n",
    "a giant array": b"*2147483647\r\n",
    "an array larger than any": b"*99999999999999999999\r\n",
    "a text larger than any": b"$99999999999999999999\r\n",
}
WRONG_TYPES = {
    "a status": b"+OK\r\n",
    "a number": b":5\r\n",
    "a text": b"$5\r\nhello\r\n",
    "nil": b"$-1\r\n",
    "no array": b"*-1\r\n",
    "an empty array": b"*0\r\n",
    "too short": b"*1\r\n$1\r\nx\r\n",
    "too long": b"*6\r\n" + b"$1\r\n1\r\n" * 6,
    "arrays": b"*5\r\n" + b"*0\r\n" * 5,
    "numbers": b"*5\r\n" + b":1\r\n" * 5,
    "rubbish": b"*5\r\n" + b"$2\r\n\xff\xfe\r\n" * 5,
}


@pytest.mark.parametrize("what", RUBBISH)
def test_a_reply_that_is_none(bench, what):
    """A read was not done, a change may have been; the connection is of no use any more."""
    redis, products = bench.redis, bench.products
    for method, command, args, expected in (
        ("get", "HMGET", ("x",), {UNAVAILABLE, UNEXPECTED}),
        ("create", "EVAL", (a_product(),), {UNKNOWN, UNEXPECTED}),
    ):
        before = redis.accepted
        redis.hooks[command] = redis.hooks["HSET"] = says(RUBBISH[what])
        if what == "nested as deep as it gets":  # that is a reply, of a wrong type
            assert bench.error(method, *args) in (UNEXPECTED, UNKNOWN, UNAVAILABLE)
            continue
        assert bench.error(method, *args) in expected
        redis.honest()
        wait_until(lambda: redis.accepted > before, "it is connected again")
        products.wait_is_ready()
    products.assert_terse(LINES_MAX)


@pytest.mark.parametrize("what", WRONG_TYPES)
def test_a_reply_of_a_wrong_type(bench, what):
    """Whatever it is, it is no product: no crash, and no answer but an error."""
    redis, products = bench.redis, bench.products
    before = redis.accepted
    redis.hooks["HMGET"] = redis.hooks["EXISTS"] = redis.hooks["SCAN"] = says(WRONG_TYPES[what])
    creating(redis, says(WRONG_TYPES[what]))
    assert bench.error("get", "x") not in ("NotFound", UNAVAILABLE)
    if what != "a number":
        assert bench.error("exists", "x") == UNEXPECTED
        assert bench.error("create", a_product()) in (UNEXPECTED, UNKNOWN)
    assert bench.error("list") == UNEXPECTED
    assert redis.accepted == before, "the connection is as good as before"
    products.assert_unharmed()


ERRORS = {
    "LOADING": (b"-LOADING Redis is loading the dataset in memory\r\n", UNAVAILABLE),
    "MISCONF": (b"-MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on disk.\r\n", UNAVAILABLE),
    "OOM": (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", UNAVAILABLE),
    "READONLY": (b"-READONLY You can't write against a read only replica.\r\n", UNAVAILABLE),
    "BUSY": (b"-BUSY Redis is busy running a script.\r\n", UNAVAILABLE),
    "MASTERDOWN": (b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n", UNAVAILABLE),
    "NOREPLICAS": (b"-NOREPLICAS Not enough good replicas to write.\r\n", UNAVAILABLE),
    "ERR": (b"-ERR something\r\n", UNEXPECTED),
    "empty": (b"-\r\n", UNEXPECTED),
    "formats": (b"-%s%n%s%n%x \x1b[31m\r\n", UNEXPECTED),
    "long": (b"-" + b"x" * 60_000 + b"\r\n", UNEXPECTED),
}


@pytest.mark.parametrize("what", ERRORS)
def test_an_error(bench, what):
    redis, products = bench.redis, bench.products
    reply, expected = ERRORS[what]
    redis.hooks["HMGET"] = redis.hooks["DEL"] = says(reply)
    creating(redis, says(reply))
    assert bench.error("get", "x") == expected
    assert bench.error("create", a_product()) == expected
    assert bench.error("delete", "x") == expected
    products.assert_unharmed()


def test_a_failover_makes_it_a_replica(bench, room):
    """Each change hears that nothing was done until one reaches the server that took over; an event waits for that."""
    redis, products = bench.redis, bench.products
    product = a_product(unique("failover"), in_stock=20)

    def turn_into_replica():
        last = redis.accepted  # what connects from now on reaches the new one

        def change(link, words):
            return ERRORS["READONLY"][0] if link.number <= last else link.forward(words)

        redis.hooks["EVAL"] = redis.hooks["EVALSHA"] = change

    def is_made():
        error = bench.caller.call("products.create", product)["error"]
        assert error is None or error["exc_type"] == UNAVAILABLE, error
        return error is None

    turn_into_replica()
    assert bench.error("create", product) == UNAVAILABLE
    wait_until(is_made, "a product can be made again", RECOVERY_S)
    turn_into_replica()
    bench.lower_stock(product["id"], 3)
    room.wait_stock(product["id"], 17)
    assert bench.call("get", product["id"]) == {**product, "in_stock": 17}
    products.assert_unharmed()


@pytest.mark.parametrize("reply", [b"-NOAUTH Authentication required.\r\n", b"-NOPERM this user has no permissions\r\n"], ids=["NOAUTH", "NOPERM"])
def test_permissions_that_are_taken_away(bench, reply):
    redis, products = bench.redis, bench.products
    redis.hooks["HMGET"] = says(reply)
    creating(redis, says(reply))
    assert bench.error("get", "x") in (UNAVAILABLE, UNEXPECTED)
    assert bench.error("create", a_product()) in (UNAVAILABLE, UNEXPECTED)
    products.assert_unharmed()


@pytest.mark.parametrize(
    "reply",
    [b"-NOSCRIPT No matching script. Please use EVAL.\r\n", b"+OK\r\n", b":-5\r\n", b"*0\r\n", b"$-1\r\n", b"-MISCONF no disk\r\n", b"-ERR user_script:1: oops\r\n"],
    ids=["NOSCRIPT", "status", "number", "array", "nil", "MISCONF", "script error"],
)  # fmt: skip
def test_an_event_whose_script_is_answered_oddly(bench, room, reply):
    """However it is answered, the stock is lowered once, in the end."""
    redis, products = bench.redis, bench.products
    product = a_product(unique("scripted"), in_stock=50)
    assert bench.call("create", product) is None
    odd = []

    def once(link, words):
        if len(odd) < 2:
            odd.append(words)
            return reply
        return link.forward(words)

    redis.hooks["EVALSHA"] = redis.hooks["EVAL"] = once
    bench.lower_stock(product["id"], 7)
    room.wait_stock(product["id"], 43)
    assert len(odd) >= 1
    bench.lower_stock(product["id"], 3)
    room.wait_stock(product["id"], 40)
    products.assert_unharmed()


# ---- more, less, later ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"*0\r\n", b"-ERR max number of clients reached\r\n"], ids=["status", "number", "nil", "array", "error"])
def test_replies_that_nobody_asked_for(bench, extra):
    """Nothing matches them, so nothing that follows can be trusted: connected again."""
    redis, products = bench.redis, bench.products
    before = redis.accepted
    redis.hooks["HMGET"] = says(b"*5\r\n" + b"$-1\r\n" * 5 + extra)
    assert bench.error("get", "x") == "NotFound"
    redis.honest()
    wait_until(lambda: redis.accepted > before, "it is connected again")
    products.wait_says("redis is away")
    products.wait_is_ready()
    products.assert_unharmed()


def test_a_reply_out_of_nothing(bench):
    """While nothing is under way at all."""
    redis, products = bench.redis, bench.products
    for extra in (b"+OK\r\n", b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n", b"\0"):
        before = redis.accepted
        link = redis.links[-1]
        link.send(extra)
        wait_until(lambda: redis.accepted > before, "it is connected again")
        products.wait_is_ready()
    products.assert_unharmed()


@pytest.mark.parametrize("part", [b"", b"*5", b"*5\r\n$10\r\nabc", b"$1000000\r\nabc"], ids=["nothing", "half a line", "half a reply", "half a text"])
@pytest.mark.parametrize("how", ["silence", "end"])
def test_half_a_reply(bench, part, how):
    """Answered within the time limit, and at once when the link has ended."""
    redis, products = bench.redis, bench.products
    hook = says_and_falls_silent(part) if how == "silence" else says_and_ends(part)
    redis.hooks["HMGET"] = hook
    assert bench.error("get", "x") == UNAVAILABLE
    bench.turn_honest()
    creating(redis, hook)
    assert bench.error("create", a_product()) == UNKNOWN
    products.assert_terse(LINES_MAX)


def test_each_byte_alone(bench, room):
    redis, products = bench.redis, bench.products
    redis.pieces = byte_by_byte
    product = a_product(unique("bytes"), in_stock=9)
    assert bench.call("create", product) is None
    assert bench.call("get", product["id"]) == product
    assert product in bench.call("list")
    bench.lower_stock(product["id"], 2)
    room.wait_stock(product["id"], 7)
    redis.kick()
    products.wait_is_ready()  # the greeting, too
    assert bench.call("exists", product["id"]) is True


@pytest.mark.parametrize("reply", [b"$2147483647\r\n", b"$536870912\r\n", b"*1000000\r\n", b"*1048576\r\n" * 6], ids=["2 GB", "512 MB", "a million", "millions of millions"])
def test_a_size_that_is_only_announced(bench, reply):
    """Nothing is reserved for what has not come."""
    redis, products = bench.redis, bench.products
    before = products.memory()
    redis.hooks["HMGET"] = says_and_falls_silent(reply)
    assert bench.error("get", "x") == UNAVAILABLE
    bench.turn_honest()
    assert products.memory() - before <= MEMORY_MAX, f"{products.memory() - before:,} bytes more"


@pytest.mark.parametrize("head, part", [(b"$536870912\r\n", b"x" * 65536), (b"*1000000\r\n", b"*3\r\n*0\r\n*0\r\n*0\r\n" * 8192)], ids=["a text", "an array"])
def test_a_reply_without_an_end(bench, head, part):
    """A server that talks on and on fills no memory; it is given up for its size or its time."""
    redis, products = bench.redis, bench.products
    before = products.memory()

    def talk(link, words):
        link.send(head)
        try:
            while True:
                link.send(part)
        except Gone:
            raise Hangup from None

    redis.hooks["HMGET"] = talk
    assert bench.error("get", "x") == UNAVAILABLE
    products.wait_says("redis is away")
    bench.turn_honest()
    assert products.memory() - before <= 2 * MEMORY_MAX, f"{products.memory() - before:,} bytes more"


def test_a_scan_without_an_end(bench):
    """A cursor that never comes back to 0 is not followed for ever."""
    redis, products = bench.redis, bench.products
    redis.hooks["SCAN"] = says(b"*2\r\n$2\r\n17\r\n*0\r\n")
    assert bench.caller.response(bench.send("list", expiration="2000"), ANSWER_S)["error"] is not None
    products.assert_unharmed()


@pytest.mark.parametrize(
    "reply",
    [
        b"*2\r\n$1\r\n0\r\n$1\r\nx\r\n",
        b"*2\r\n:0\r\n*0\r\n",
        b"*2\r\n$3\r\nabc\r\n*0\r\n",
        b"*2\r\n$0\r\n\r\n*0\r\n",
        b"*2\r\n$40\r\n" + b"9" * 40 + b"\r\n*0\r\n",
        b"*2\r\n$1\r\n0\r\n*1\r\n:5\r\n",
        b"*2\r\n$1\r\n0\r\n*1\r\n$0\r\n\r\n",
        b"*2\r\n$1\r\n0\r\n*1\r\n$8\r\nproducts\r\n",
        b"*2\r\n$1\r\n0\r\n*1\r\n$-1\r\n",
        b"*2\r\n$-1\r\n*0\r\n",
        b"*2\r\n*0\r\n*0\r\n",
        b"*1\r\n$1\r\n0\r\n",
    ],
    ids=repr,
)
def test_a_scan_answered_oddly(bench, reply):
    """An error, or a list that leaves out what is no product; never a crash, never a hang."""
    redis, products = bench.redis, bench.products
    redis.hooks["SCAN"] = says(reply)
    answer = bench.caller.response(bench.send("list", expiration="3000"), ANSWER_S)
    assert answer["error"] is not None or answer["result"] == []
    products.assert_unharmed()


def test_a_server_that_drops_each_command(bench):
    """It takes each login, and each command costs the connection: one outage, however many calls."""
    redis, products = bench.redis, bench.products
    redis.hooks["HMGET"] = hang_up
    for _ in range(20):
        assert bench.error("get", "x") == UNAVAILABLE
        products.wait_is_ready()
    redis.honest()
    products.assert_terse(LINES_MAX)


def test_a_server_that_drops_each_login(bench):
    """Logged in, and gone: the delay grows all the same, and the log is not filled with it."""
    redis, products = bench.redis, bench.products
    before, attempts = redis.accepted, 8
    redis.hooks["CLIENT"] = hang_up  # behind the question whose answer makes the link
    redis.kick()
    redis.wait_accepted(before + attempts, RECOVERY_S)
    at = redis.accepted_at[before : before + attempts]
    gaps = [later - earlier for earlier, later in zip(at, at[1:])]
    assert max(gaps) >= 0.4, f"it tries again at once: {gaps}"
    bench.turn_honest()
    products.assert_terse(LINES_MAX)


def test_many_calls_while_it_is_silent(bench):
    """All of them end in time; then all is well."""
    redis, products = bench.redis, bench.products
    redis.hooks["HMGET"] = silent
    asked = [bench.send("get", "x") for _ in range(200)]
    for one in asked:
        assert bench.caller.response(one)["error"]["exc_type"] in (UNAVAILABLE, "ServiceBusy")
    bench.turn_honest()
    products.assert_terse(LINES_MAX)


# ---- a change that comes again ------------------------------------------------------------------------------------------


def test_a_change_that_comes_again_while_redis_is_away(room, directory):
    """Whoever had it before may have carried it out: only a first delivery is sure that nothing was done."""
    bench = Bench(room, directory)
    changes = [("create", a_product()), ("delete", "x")]
    try:
        bench.products.start().wait_is_ready()
        bench.redis.on_connect = hang_up
        bench.redis.kick()
        bench.products.wait_not_ready()
        for method_name, argument in changes:
            assert bench.error(method_name, argument) == UNAVAILABLE
        bench.broker.redelivered = True
        for method_name, argument in changes:
            assert bench.error(method_name, argument) == UNKNOWN
        assert bench.error("get", "x") == UNAVAILABLE
        assert bench.error("exists", "x") == UNAVAILABLE
        bench.turn_honest()
        for method_name, argument in changes:  # and now it can be told
            assert bench.call(method_name, argument) is None
        bench.redis.hooks["EVAL"] = says(ERRORS["OOM"][0])  # there, and refuses
        assert bench.error("create", a_product()) == UNKNOWN
    finally:
        bench.close()

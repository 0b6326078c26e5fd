"""A broker that does what no real one does: programs stay up, say what is wrong once, and work again when it turns honest."""
import contextlib
import itertools
import json
import struct
import time
import uuid

import pytest

from support.clock import ANSWER_S, RECOVERY_S, SLACK_S, TIME_SCALE, wait_until
from support.fake import Gone, Hangup, byte_by_byte, hang_up, says, says_and_ends, whole
from support.fake_broker import (
    BODY,
    FRAME_OVERHEAD,
    HEADER,
    METHOD,
    METHODS,
    Caller,
    FakeBroker,
    Message,
    content,
    encode_properties,
    frame,
    heartbeat,
    method,
)
from support.hostile import ANSWERED_MS, MEMORY_MAX, Watched
from support.http import check_error, path_of
from support.shop import a_line, a_product, unique

REQUESTS = "rpc-products"
EVENTS = "evt-orders-order_created--products.handle_order_created"
REPLIES = "rpc.reply-gateway-"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def room(make_shop):
    """Real stores, in a room that nobody else uses."""
    return make_shop()


@pytest.fixture(scope="module")
def start(room, directory):
    """Programs before brokers of the tests' own; with their broker they are gone."""

    def begin(name, broker, query="", **settings):
        label = f"hostile-broker-{name}-{next(_numbers)}"
        stores = {"REDIS_URI": room.room.redis_uri} if name == "products" else {}
        if name == "orders":
            stores = {"POSTGRES_URI": room.room.postgres_uri}
        program = Watched(directory, name, label, AMQP_URI=broker.uri + query, **stores, **settings)
        broker.programs.append(program)
        return program.start()

    return begin


@contextlib.contextmanager
def brokers(*names, **options):
    """A broker for each name."""
    made = {name: FakeBroker(**options) for name in names}
    for broker in made.values():
        broker.programs = []
    try:
        yield made
    finally:
        for broker in made.values():
            for program in broker.programs:
                program.kill()  # has left, unless the test failed; before its broker's port is somebody else's
            broker.close()


def mute(link, channel, _fields):
    """Neither this question nor what follows it on its channel is answered; heartbeats and other channels go on."""
    link.deaf.add(channel)


# ---- one broker for a products and a gateway: each test leaves it honest -------------------------------------------


class Pair:
    """products and a gateway on one fake broker."""

    def __init__(self, broker, start, **settings):
        self.broker = broker
        self.products = start("products", broker, **settings)
        self.gateway = start("gateway", broker, **settings)
        for program in self.programs:
            program.wait_is_ready()
        self.caller = Caller(broker)
        self.product = a_product(unique("hostile"))
        assert self.caller.call("products.create", self.product) == {"result": None, "error": None}

    @property
    def programs(self):
        return (self.products, self.gateway)

    def assert_works(self):
        """Also by way of HTTP, and back."""
        for program in self.programs:
            program.wait_is_ready()
            program.assert_unharmed()
        response = self.gateway.http.get(path_of("products", self.product["id"]))
        assert (response.status, response.json) == (200, self.product), str(response)

    def consumer(self, queue):
        return wait_until(lambda: self.broker.consumer(queue), f"somebody consumes {queue}")


@pytest.fixture(scope="module")
def whole_pair(start):
    with brokers("pair") as made:
        pair = Pair(made["pair"], start)
        yield pair
        for program in pair.programs:
            program.leave()


@pytest.fixture
def pair(whole_pair):
    yield whole_pair
    broker = whole_pair.broker
    broker.hooks.clear()
    broker.pieces = whole
    broker.send_frames = lambda link, channel, frames: link.send(b"".join(frames))
    whole_pair.assert_works()


# ---- silence at each step ------------------------------------------------------------------------------------------

STEPS = {
    "start": "protocol-header",
    "tune": "connection.start-ok",
    "open-ok": "connection.open",
    "channel.open-ok": "channel.open",
    "exchange.declare-ok": "exchange.declare",
    "queue.declare-ok": "queue.declare",
    "bind-ok": "queue.bind",
    "qos-ok": "basic.qos",
    "consume-ok": "basic.consume",
    "confirm.select-ok": "confirm.select",
}
STEPS_OF_THE_GATEWAY = [step for step in STEPS if step not in ("qos-ok", "confirm.select-ok")]


STEPS_OF = {"products": list(STEPS), "gateway": STEPS_OF_THE_GATEWAY, "orders": list(STEPS)}
EACH = [(name, step) for name, steps in STEPS_OF.items() for step in steps]


def before_silent_brokers(start, made, **settings):
    """A program for each of EACH, all of them waiting for their step by now."""
    for (_, step), broker in made.items():
        broker.hooks[STEPS[step]] = mute
    programs = {each: start(each[0], broker, **settings) for each, broker in made.items()}
    for (name, step), program in programs.items():
        program.wait_alive()
        wait_until(lambda: made[name, step].count(STEPS[step]) >= 1, f"{name} waits for {step}")
        assert not program.is_ready, f"{name} is ready without {step}"
    return programs


def test_silence_at_each_step(start):
    """A bound, then again; one line, not one a try; not ready meanwhile, and ready as soon as the broker answers."""
    with brokers(*EACH) as made:
        programs = before_silent_brokers(start, made)
        for (name, step), broker in made.items():
            wait_until(lambda: broker.accepted >= 2, f"{name} gives up waiting for {step}, and tries again")
        for each, program in programs.items():
            program.wait_complaint("broker")
            program.assert_terse(2)
            assert not program.is_ready, each
            program.assert_unharmed()
        for broker in made.values():
            broker.hooks.clear()
            broker.kick()
        for program in programs.values():
            program.wait_is_ready()
            program.assert_unharmed()


def test_sigterm_while_a_step_is_not_answered(start):
    """Nothing was taken: nothing to wait for, whatever DRAIN_TIMEOUT_MS allows."""
    with brokers(*EACH) as made:
        programs = before_silent_brokers(start, made)
        for program in programs.values():
            program.terminate()
        for program in programs.values():
            program.leave()


def test_sigterm_when_close_is_not_answered(start):
    """connection.close waits for its answer, but not for ever."""
    with brokers("products", "gateway") as made:
        for broker in made.values():
            broker.hooks["connection.close"] = broker.hooks["basic.cancel"] = mute
        programs = [start(name, broker, DRAIN_TIMEOUT_MS="1000").wait_is_ready() for name, broker in made.items()]
        for program in programs:
            program.leave()


def test_a_broker_that_falls_silent(start):
    """No heartbeats: given up after two and a half of them."""
    with brokers("products", "gateway", heartbeat_s=1) as made:
        for broker in made.values():
            broker.beats = True
        programs = {name: start(name, broker, "?heartbeat=1").wait_is_ready() for name, broker in made.items()}
        for broker in made.values():
            broker.beats = False
        for name, program in programs.items():
            program.wait_complaint("silent")
            program.wait_is_ready()
            assert made[name].accepted >= 2


# ---- a handshake that goes wrong -----------------------------------------------------------------------------------


def refuse(code, text):
    return lambda link, _channel, _fields: link.close_connection(code, text)


def start_of(major=0, minor=9, properties=b"\0\0\0\0", mechanisms="PLAIN"):
    return lambda link, _channel, _fields: link.say(0, "connection.start", major, minor, properties, mechanisms, "en_US")


def tune_of(frame_max):
    return lambda link, _channel, _fields: link.say(0, "connection.tune", 0, frame_max, 0)


# What happens: (the method it answers, its answer, words of the line that tells)
REFUSALS = {
    "AMQP 1.0": ("protocol-header", says_and_ends(b"AMQP\0\1\0\0"), "AMQP"),
    "AMQP 0-8": ("protocol-header", says_and_ends(b"AMQP\1\1\x08\0"), "AMQP"),
    "SASL first": ("protocol-header", says_and_ends(b"AMQP\3\1\0\0"), "AMQP"),
    "HTTP": ("protocol-header", says_and_ends(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "AMQP"),
    "TLS": ("protocol-header", says_and_ends(b"\x15\x03\x01\0\x02\x02\x46"), "closed"),
    "nothing": ("protocol-header", hang_up, "closed"),
    "another version": ("protocol-header", start_of(major=1), "AMQP"),
    "no PLAIN": ("protocol-header", start_of(mechanisms="AMQPLAIN EXTERNAL PLAINER"), "PLAIN"),
    "no mechanism": ("protocol-header", start_of(mechanisms=""), "PLAIN"),
    "a bad table": ("protocol-header", start_of(properties=struct.pack(">I", 6) + b"\x01a?xyz"), "AMQP"),
    "a huge frame": ("protocol-header", says(struct.pack(">BHI", METHOD, 0, 0x7FFFFFFF) + b"x" * 100), "AMQP"),
    "a frame as large as can be": ("protocol-header", says(struct.pack(">BHI", METHOD, 0, 0xFFFFFFFF) + b"x" * 100), "AMQP"),
    "tune first": ("protocol-header", tune_of(131072), "TUNE"),
    "frames too small": ("connection.start-ok", tune_of(4095), "4095"),
    "access refused": ("connection.start-ok", refuse(403, "ACCESS_REFUSED - login refused"), "ACCESS_REFUSED"),
    "hung up at the login": ("connection.start-ok", hang_up, "closed"),
    "no such vhost": ("connection.open", refuse(530, "NOT_ALLOWED - vhost not found"), "NOT_ALLOWED"),
    "an unknown method": ("connection.open", says(frame(METHOD, 0, struct.pack(">HH", 10, 99))), "AMQP"),
    "a channel too early": ("connection.open", says(method(1, "channel.open-ok", b"")), "channel 1"),
    "content too early": ("connection.open", says(frame(BODY, 0, b"x")), "channel 0"),
}  # fmt: skip


def test_handshakes_that_go_wrong(start):
    """Each with a line that says why, tried again more and more slowly, and over as soon as the broker is one."""
    with brokers(*REFUSALS) as made:
        for what, (where, hook, _) in REFUSALS.items():
            made[what].hooks[where] = hook
        kinds = itertools.cycle(("products", "gateway"))
        programs = {what: start(next(kinds), broker) for what, broker in made.items()}
        for program in programs.values():
            program.wait_alive()
        for what, (_, _, word) in REFUSALS.items():
            programs[what].wait_complaint("cannot connect to the broker", word)
            if what not in ("a huge frame", "a frame as large as can be"):
                made[what].wait_accepted(3)
            assert not programs[what].is_ready, what
        for what, program in programs.items():
            program.assert_unharmed()
            program.assert_terse(1)
            made[what].hooks.clear()
        for program in programs.values():
            program.wait_is_ready()
            program.leave()


def test_a_broker_that_closes_each_connection_once_it_is_open(start):
    """That is no link: the delay grows all the same, and the log is not filled with it."""
    attempts = 8
    with brokers("products", "gateway") as made:
        for broker in made.values():
            broker.hooks["channel.open"] = refuse(541, "INTERNAL_ERROR")
        programs = {name: start(name, broker).wait_alive() for name, broker in made.items()}
        for name, broker in made.items():
            broker.wait_accepted(attempts)
            gaps = [later - earlier for earlier, later in zip(broker.accepted_at, broker.accepted_at[1:])]
            assert max(gaps[:attempts]) >= 0.4, f"{name} tries again at once: {gaps[:attempts]}"
        for name, program in programs.items():
            program.wait_complaint("INTERNAL_ERROR")
            program.assert_terse(2)
            assert not program.is_ready
            made[name].hooks.clear()
            program.wait_is_ready()
            program.assert_unharmed()
            program.leave()


# ---- frames that no broker may send ---------------------------------------------------------------------------------

NO_PROPERTIES = b"\0\0"


def deliver(channel, tag, delivery=1000):
    return method(channel, "basic.deliver", tag, delivery, False, "nameko-rpc", "products.get")


def header(channel, size, properties=NO_PROPERTIES, class_id=60):
    return frame(HEADER, channel, struct.pack(">HHQ", class_id, 0, size) + properties)


def table_header(channel, packed):
    """Headers of these bytes; the table's size is the truth."""
    return header(channel, 0, struct.pack(">H", 1 << 13) + struct.pack(">I", len(packed)) + packed)


def nested(kind, depth):
    """Tables within tables, or arrays within arrays."""
    inner = b""
    for _ in range(depth):
        packed = (b"\x01a" if kind == b"F" else b"") + kind + struct.pack(">I", len(inner)) + inner
        inner = packed
    return inner if kind == b"F" else b"\x01a" + inner


def array_in_a_table(depth):
    inner = b""
    for _ in range(depth):
        inner = b"A" + struct.pack(">I", len(inner)) + inner
    return b"\x01a" + inner


# bytes of (channel, consumer tag)
ILLEGAL = {
    "a wrong frame end": lambda channel, tag: frame(METHOD, channel, b"\0\x3c\0\x15\1x", end=0),
    "an unknown frame type": lambda channel, tag: frame(4, channel, b"xxxx"),
    "frame type 0": lambda channel, tag: frame(0, channel, b"xxxx"),
    "frame type 255": lambda channel, tag: frame(255, 0, b""),
    "a frame larger than frame_max": lambda channel, tag: struct.pack(">BHI", BODY, channel, 131072) + b"x" * 1000,
    "a frame as large as can be": lambda channel, tag: struct.pack(">BHI", BODY, channel, 0xFFFFFFFF) + b"x" * 1000,
    "a method of two bytes": lambda channel, tag: frame(METHOD, channel, b"\0\x3c"),
    "a method of none": lambda channel, tag: frame(METHOD, channel, b""),
    "an unknown method": lambda channel, tag: frame(METHOD, channel, struct.pack(">HH", 60, 200)),
    "an unknown class": lambda channel, tag: frame(METHOD, channel, struct.pack(">HH", 999, 1)),
    "a method of ours": lambda channel, tag: method(channel, "queue.declare", 0, "q", 0, 0, 0, 0, 0, b"\0\0\0\0"),
    "a method cut short": lambda channel, tag: frame(METHOD, channel, struct.pack(">HHB", 60, 60, 200) + b"x"),
    "an answer to nothing": lambda channel, tag: method(channel, "queue.declare-ok", "q", 0, 0),
    "a channel closed unasked": lambda channel, tag: method(channel, "channel.close-ok"),
    "a channel that is not open": lambda channel, tag: method(1999, "basic.cancel-ok", tag),
    "content of a channel that is not open": lambda channel, tag: frame(BODY, 1999, b"x"),
    "content on channel 0": lambda channel, tag: frame(BODY, 0, b"x"),
    "a channel's method on channel 0": lambda channel, tag: method(0, "basic.cancel-ok", tag),
    "a second start": lambda channel, tag: method(0, "connection.start", 0, 9, b"\0\0\0\0", "PLAIN", "en_US"),
    "a second open-ok": lambda channel, tag: method(0, "connection.open-ok", ""),
    "a header without a deliver": lambda channel, tag: header(channel, 5),
    "a body without a header": lambda channel, tag: deliver(channel, tag) + frame(BODY, channel, b"x"),
    "a body out of nothing": lambda channel, tag: frame(BODY, channel, b"x"),
    "two headers": lambda channel, tag: deliver(channel, tag) + header(channel, 5) + header(channel, 5),
    "a header of another class": lambda channel, tag: deliver(channel, tag) + header(channel, 5, class_id=10),
    "a header cut short": lambda channel, tag: deliver(channel, tag) + frame(HEADER, channel, b"\0\x3c\0"),
    "properties cut short": lambda channel, tag: deliver(channel, tag) + header(channel, 0, b"\xff\xff\x05"),
    "a body longer than announced": lambda channel, tag: deliver(channel, tag) + header(channel, 5) + frame(BODY, channel, b"x" * 6),
    "a method within a message": lambda channel, tag: deliver(channel, tag) + header(channel, 5) + method(channel, "basic.cancel-ok", tag),
    "a table cut short": lambda channel, tag: deliver(channel, tag)
    + header(channel, 0, struct.pack(">HI", 1 << 13, 1000) + b"\x01aS"),
    "a table entry of no known kind": lambda channel, tag: deliver(channel, tag) + table_header(channel, b"\x01a?xxxx"),
    "a text longer than its table": lambda channel, tag: deliver(channel, tag)
    + table_header(channel, b"\x01aS" + struct.pack(">I", 0xFFFFFFFF) + b"x"),
    "an array longer than its table": lambda channel, tag: deliver(channel, tag)
    + table_header(channel, b"\x01aA" + struct.pack(">I", 0x7FFFFFFF)),
}  # fmt: skip


@pytest.fixture(scope="module")
def four_pairs(start):
    """A link that was lost is made again with growing delay: so that tests need not wait for that, they take turns."""
    with brokers(*range(4)) as made:
        pairs = [Pair(broker, start, LOG_LEVEL="debug") for broker in made.values()]
        yield pairs
        for pair in pairs:
            pair.assert_works()
            for program in pair.programs:
                program.leave()


def lose_links(pairs, cases, attack):
    """`attack(link, channel, tag, case)` must cost the connection, of products and of the gateway, and no more than that."""
    while cases:
        round_of = list(zip(pairs, cases))
        cases = cases[len(round_of) :]
        before = {case: pair.broker.accepted for pair, case in round_of}
        for program in (program for pair, _ in round_of for program in pair.programs):
            program.mark()
        for pair, case in round_of:
            for queue in (REQUESTS, REPLIES):
                link, channel, tag, _ = pair.consumer(queue)
                attack(link, channel, tag, case)
        for pair, case in round_of:
            wait_until(lambda: pair.broker.accepted >= before[case] + 2, f"{case}: the connections are made again")
            pair.assert_works()
        yield round_of


def losses(program):
    """What it says of a lost broker, at whatever level."""
    return [one for one in program.records() if "lost the broker" in one["message"]]


def test_illegal_frames(four_pairs):
    """The connection is given up, with a line that says why, and made again."""
    attack = lambda link, channel, tag, what: link.send(ILLEGAL[what](channel, tag))
    for round_of in lose_links(four_pairs, list(ILLEGAL), attack):
        for pair, what in round_of:
            for program in pair.programs:
                (said,) = losses(program)
                assert "broker" in said["reason"] or "a message's body" in said["reason"], f"{what}: {said}"
                program.assert_terse(1)


@pytest.mark.parametrize("queue", [REQUESTS, REPLIES], ids=["products", "gateway"])
@pytest.mark.parametrize("kind", [b"F", b"A"], ids=["tables", "arrays"])
def test_tables_as_deep_as_a_frame_holds(pair, kind, queue):
    """Legal or not, it ends neither the program nor its memory; a message like that is no request and no reply."""
    program = pair.products if queue == REQUESTS else pair.gateway
    before = program.memory()
    depth = 120_000 // (7 if kind == b"F" else 5)
    packed = nested(kind, depth) if kind == b"F" else array_in_a_table(depth)
    link, channel, tag, _ = pair.consumer(queue)
    link.send(deliver(channel, tag) + table_header(channel, packed))
    pair.assert_works()
    assert program.memory() - before <= MEMORY_MAX


@pytest.mark.parametrize("queue", [REQUESTS, REPLIES], ids=["products", "gateway"])
@pytest.mark.parametrize("size", [17 * 1024 * 1024, 2**31, 2**63, 2**64 - 1])
def test_a_message_announced_larger_than_may_be(pair, size, queue):
    """Nothing is reserved for what has not come, nothing kept of what is too large; then the broker goes."""
    program = pair.products if queue == REQUESTS else pair.gateway
    before = program.memory()
    link, channel, tag, _ = pair.consumer(queue)
    link.send(deliver(channel, tag) + header(channel, size))
    part = frame(BODY, channel, b"x" * (131072 - FRAME_OVERHEAD))
    for _ in range(100):
        link.send(part)
    assert program.status("/healthz") == 200
    accepted = pair.broker.accepted
    link.hang_up()
    wait_until(lambda: pair.broker.accepted > accepted, "the connection is made again")
    pair.assert_works()
    assert program.memory() - before <= MEMORY_MAX


def test_rubbish(four_pairs):
    """A megabyte that means nothing."""

    def attack(link, _channel, _tag, seed):
        with contextlib.suppress(Gone):
            link.send(struct.pack(">Q", seed) * 131072)

    for _ in lose_links(four_pairs, [0x9E3779B97F4A7C15, 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53, 0], attack):
        pass


# ---- frames that any broker may send, but none does -----------------------------------------------------------------


def products_of_all_sizes(pair, frame_max):
    """Requests and answers whose bodies end just before, at and behind a frame's end."""
    fragment = frame_max - FRAME_OVERHEAD
    for size in [k * fragment + more for k in (1, 2, 3) for more in (-1, 0, 1)]:
        product = a_product(unique("sized"))
        assert pair.caller.call("products.create", product, size=size) == {"result": None, "error": None}, size
        assert pair.caller.call("products.get", product["id"], size=size)["result"] == product, size
        answer = json.dumps({"result": product, "error": None}).encode().ljust(size)
        pair.broker.hooks["basic.publish"] = answered(lambda message: [(None, answer)])
        response = pair.gateway.http.get(path_of("products", product["id"]))
        pair.broker.hooks.clear()
        assert (response.status, response.json) == (200, product), size


def answered(answers):
    """Requests of the gateway are answered with `answers(message)`: [(changes of the properties, body)]; others as ever."""

    def hook(link, channel, fields):
        (message,) = fields
        reply_to = message.property.get("reply_to")
        if reply_to is None:
            link.answer(channel, "basic.publish", fields)
            return
        for changes, body in answers(message):
            properties = {"content_type": "application/json", "correlation_id": message.property["correlation_id"]}
            reply = encode_properties({**properties, **(changes or {})})
            link.server.route(Message("nameko-rpc", reply_to, False, reply, len(body), body))

    return hook


def test_bodies_that_end_where_a_frame_does(pair):
    products_of_all_sizes(pair, pair.broker.frame_max)


def test_the_smallest_frames(start):
    with brokers("small", frame_max=4096) as made:
        pair = Pair(made["small"], start)
        products_of_all_sizes(pair, 4096)
        product = a_product(unique("long"), title="x" * 100_000)
        assert pair.caller.call("products.create", product)["error"] is None
        assert pair.gateway.http.get_product(product["id"]) == product
        for program in pair.programs:
            program.leave()


def test_each_byte_alone(pair):
    pair.broker.pieces = byte_by_byte
    for title in ("short", "y" * 2000):
        product = a_product(unique("bytes"), title=title)
        pair.gateway.http.make_product(product)
        assert pair.gateway.http.get_product(product["id"]) == product
    for link in list(pair.broker.links):
        link.hang_up()
    pair.assert_works()  # the handshake, too


def test_a_megabyte_in_one_piece(pair):
    """Hundreds of requests at once, with a heartbeat between any two."""
    link, channel, tag, _ = pair.consumer(REQUESTS)
    frames, asked = [], []
    for _ in range(400):
        body = json.dumps({"args": [pair.product["id"]], "kwargs": {}}).encode().ljust(2500)
        properties = pair.caller.properties()
        asked.append(properties["correlation_id"])
        message = Message("nameko-rpc", "products.get", False, encode_properties(properties), len(body), body)
        state = link.channels[channel]
        state.deliveries += 1
        state.unsettled[state.deliveries] = (pair.broker.queues[REQUESTS], message)
        frames += [method(channel, "basic.deliver", tag, state.deliveries, False, "nameko-rpc", "products.get")]
        frames += content(channel, message.properties, body) + [heartbeat()]
    assert len(b"".join(frames)) > 1_000_000
    link.send(b"".join(frames))
    expected = {"result": pair.product, "error": None}
    wait_until(lambda: len(pair.caller.responses(asked[-1])) == 1, "the last one is answered")
    assert all(pair.caller.responses(one) == [expected] for one in asked[:-1:20])
    wait_until(lambda: not link.channels[channel].unsettled, "all are acknowledged")


def test_heartbeats_within_a_message(pair):
    pair.broker.send_frames = lambda link, channel, frames: link.send(b"".join(one + heartbeat() for one in frames))
    products_of_all_sizes(pair, pair.broker.frame_max)


def test_channels_interleaved(pair):
    """A request and an event, frame by frame in turn, on one connection."""
    held = []

    def hold(link, channel, frames):
        held.append((link, channel, frames))

    assert pair.consumer(REQUESTS)[0] is pair.consumer(EVENTS)[0]
    assert pair.consumer(REQUESTS)[1] != pair.consumer(EVENTS)[1]
    marked = a_product(unique("interleaved"), in_stock=10)
    assert pair.caller.call("products.create", marked)["error"] is None
    details = [{"id": 1, "product_id": marked["id"], "price": "1.00", "quantity": 3}]
    event = json.dumps({"order": {"id": next(_numbers) + 1_900_000_000, "order_details": details}}).encode().ljust(300_000)
    pair.broker.send_frames = hold
    asked = pair.caller.send("products.get", json.dumps({"args": [pair.product["id"]], "kwargs": {}}).encode().ljust(300_000))
    properties = encode_properties({"content_type": "application/json", "delivery_mode": 2})
    assert pair.broker.route(Message("orders.events", "order_created", False, properties, len(event), event))
    (link, _, first), (_, _, second) = held
    assert len(first) == len(second) == 5
    for one, other in zip(first, second):
        link.send(one)
        link.send(other)
    pair.broker.send_frames = lambda link, channel, frames: link.send(b"".join(frames))
    assert pair.caller.response(asked)["result"] == pair.product
    wait_until(lambda: pair.caller.call("products.get", marked["id"])["result"]["in_stock"] == 7, "the event is applied")


def test_bodies_without_a_byte(pair):
    """No JSON: put aside, and the next one is served."""
    pair.caller.send("products.get", b"")
    assert pair.broker.route(Message("orders.events", "order_created", False, NO_PROPERTIES, 0, b""))
    pair.broker.hooks["basic.publish"] = answered(lambda message: [(None, b"")])
    check_error(pair.gateway.http.get("/products/x"), 500, "UNEXPECTED_ERROR")
    pair.broker.hooks.clear()
    pair.assert_works()


# ---- a connection or channel that is closed -------------------------------------------------------------------------

CLOSE_CODES = (200, 311, 313, 320, 402, 403, 404, 405, 406, 501, 502, 503, 504, 505, 506, 530, 540, 541, 0, 65535)


def test_the_connection_is_closed_with_any_code(four_pairs):
    attack = lambda link, _channel, _tag, code: link.close_connection(code, f"CODE_{code} - because")
    for round_of in lose_links(four_pairs, list(CLOSE_CODES), attack):
        for pair, code in round_of:
            for program in pair.programs:
                (said,) = losses(program)
                assert f"{code} CODE_{code} - because" in said["reason"], said
                program.assert_terse(1)


def test_a_channel_is_closed(pair):
    """It is opened again, the connection stays."""
    for queue in (REQUESTS, EVENTS, REPLIES):
        link, channel, _, _ = pair.consumer(queue)
        before = pair.broker.accepted
        link.close_channel(channel, 541, "INTERNAL_ERROR - for no reason")
        wait_until(lambda: pair.broker.consumer(queue), f"{queue} is consumed again")
        assert pair.broker.accepted == before, "the connection was given up for a channel"
    pair.products.wait_complaint("closed a channel", "INTERNAL_ERROR")
    pair.gateway.wait_complaint("closed a channel", "INTERNAL_ERROR")


def test_a_channel_is_closed_in_the_middle_of_a_message(pair):
    """No method may stand there; whatever is given up for it comes back."""
    for queue in (REQUESTS, EVENTS, REPLIES):
        link, channel, tag, _ = pair.consumer(queue)
        link.send(deliver(channel, tag) + header(channel, 5) + frame(BODY, channel, b"xx"))
        with contextlib.suppress(Gone):
            link.close_channel(channel, 541, "INTERNAL_ERROR - in the middle")
        wait_until(lambda: pair.broker.consumer(queue), f"{queue} is consumed again")
        pair.assert_works()


def test_a_channel_that_cannot_be_set_up(start):
    """A queue that another has declared otherwise: one line, tried again, over when the queue is right."""
    with brokers("products", "gateway") as made:
        for broker in made.values():
            broker.hooks["queue.declare"] = lambda link, channel, fields: link.close_channel(
                channel, 406, "PRECONDITION_FAILED - inequivalent arg 'durable'"
            )
        programs = {name: start(name, broker).wait_alive() for name, broker in made.items()}
        for name, broker in made.items():
            wait_until(lambda: broker.count("queue.declare") >= 6, f"{name} tries again")
            programs[name].wait_complaint("PRECONDITION_FAILED")
            programs[name].assert_terse(4)  # one for each kind of channel
            assert not programs[name].is_ready
            broker.hooks.clear()
            programs[name].wait_is_ready()
            programs[name].leave()


def test_consumers_are_cancelled(pair):
    """Somebody deleted the queue: declared and consumed again."""
    for queue in (REQUESTS, EVENTS, REPLIES):
        link, channel, tag, _ = pair.consumer(queue)
        with pair.broker.lock:
            for one in pair.broker.queues.values():
                one.consumers = [consumer for consumer in one.consumers if consumer[:3] != (link, channel, tag)]
        class_id, method_id, _ = METHODS["basic.cancel"]
        link.send(frame(METHOD, channel, struct.pack(">HHB", class_id, method_id, len(tag)) + tag.encode() + b"\x01"))
        wait_until(lambda: pair.broker.consumer(queue), f"{queue} is consumed again")
    pair.products.wait_complaint("cancelled a consumer")
    pair.gateway.wait_complaint("cancelled a consumer")
    for program in pair.programs:
        program.assert_terse(3)


def test_blocked_and_unblocked(pair):
    """Nothing is sent meanwhile, clients are told at once, and it says so: ready again with the broker."""
    link = pair.consumer(REPLIES)[0]
    for _ in range(2):
        link.say(0, "connection.blocked", "low on everything")
        pair.gateway.wait_not_ready()
        published = len(pair.broker.published)
        for response in (
            pair.gateway.http.post("/products", a_product()),
            pair.gateway.http.post("/orders", {"order_details": [a_line("x")]}),
        ):
            check_error(response, 503, "SERVICE_UNAVAILABLE")
            assert response.took_s < SLACK_S
        assert len(pair.broker.published) == published
        link.say(0, "connection.blocked", "still")
        link.say(0, "connection.unblocked")
        pair.gateway.wait_is_ready()
    link.say(0, "connection.unblocked")
    pair.gateway.wait_complaint("low on everything")
    pair.assert_works()


# ---- F28: replies that nobody waits for -----------------------------------------------------------------------------


def body_of(result):
    return json.dumps({"result": result, "error": None}).encode()


def test_replies_that_are_not_ours(pair):
    """Late, foreign, twice, without a name: dropped; each request gets the answer that was meant for it."""
    late = []

    def mischief(message):
        product_id = message.parameter(0, "product_id")
        if product_id == "late":
            late.append(message.property["correlation_id"])
            return []
        right = a_product(product_id)
        return [
            ({"correlation_id": late[0]}, body_of(a_product("late"))),
            ({"correlation_id": str(uuid.uuid4())}, body_of(a_product("foreign"))),
            ({"correlation_id": None}, body_of(a_product("nameless"))),
            ({"correlation_id": ""}, body_of(a_product("empty"))),
            ({"correlation_id": "x" * 255}, body_of(a_product("long"))),
            ({"correlation_id": message.property["correlation_id"][:-1]}, body_of(a_product("cut"))),
            ({"correlation_id": message.property["correlation_id"].upper() + "\0"}, body_of(a_product("more"))),
            (None, body_of(right)),
            (None, body_of(a_product("twice"))),
        ]

    pair.broker.hooks["basic.publish"] = answered(mischief)
    response = pair.gateway.http.get("/products/late")
    check_error(response, 504, "TIMEOUT")
    assert response.took_s <= ANSWERED_MS / 1000 + SLACK_S
    for number in range(20):
        assert pair.gateway.http.get(f"/products/right-{number}").json == a_product(f"right-{number}")
    pair.gateway.assert_terse(2)


@pytest.mark.parametrize(
    "changes, body",
    [
        (None, b"no JSON"),
        (None, b"\xff\xfe"),
        (None, b"{}"),
        (None, b'{"result": 5, "error": null}'),
        (None, b'{"result": null, "error": {"exc_type": {}}}'),
        ({"content_type": "application/x-python-pickle"}, b"\x80\x04."),
    ],
    ids=["no JSON", "no UTF-8", "empty", "no product", "no error", "pickle"],
)
def test_a_reply_of_a_wrong_shape(pair, changes, body):
    pair.broker.hooks["basic.publish"] = answered(lambda message: [(changes, body)])
    response = pair.gateway.http.get("/products/x")
    check_error(response, 500, "UNEXPECTED_ERROR")
    assert response.took_s <= ANSWERED_MS / 1000 / 2, "it waited for more"


def test_a_request_is_returned_after_it_was_answered(pair):
    """The return is about a call that has ended: nobody else's."""

    def hook(link, channel, fields):
        (message,) = fields
        answered(lambda message: [(None, body_of(a_product(message.parameter(0, "product_id"))))])(link, channel, fields)
        if message.property.get("reply_to"):
            link.give_back(message)

    pair.broker.hooks["basic.publish"] = hook
    for number in range(10):
        assert pair.gateway.http.get(f"/products/p{number}").json == a_product(f"p{number}")


# ---- F9: confirms ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_three(start, room):
    """A shop whose broker is the fake; its own room, so that the outbox is that of this orders alone."""
    with brokers("three") as made:
        broker = made["three"]
        programs = [start(name, broker).wait_is_ready() for name in ("products", "orders", "gateway")]
        yield broker, programs
        for program in programs:
            program.leave()


@pytest.fixture
def three(all_three):
    broker, programs = all_three
    yield all_three
    broker.hooks.clear()
    for program in programs:
        program.wait_is_ready()
        program.assert_unharmed()


def order_one(gateway, quantity=1):
    product = a_product(unique("confirmed"), in_stock=100)
    gateway.http.make_product(product)
    return product["id"], gateway.http.make_order([a_line(product["id"], quantity=quantity)])


def is_event(message):
    return message.exchange == "orders.events"


def test_a_publish_that_is_refused_stays_in_the_outbox(three, room):
    """basic.nack: kept, and published again until it is taken; its effect is once."""
    broker, (_, orders, gateway) = three
    refused = []

    def refuse_events(link, channel, fields):
        (message,) = fields
        if is_event(message):
            refused.append(message)
            link.say(channel, "basic.nack", message.tag, False, False)
        else:
            link.answer(channel, "basic.publish", fields)

    broker.hooks["basic.publish"] = refuse_events
    product_id, order_id = order_one(gateway, 3)
    wait_until(lambda: len(refused) >= 3, "it is published again and again")
    assert room.outbox() == 1
    gaps = len(refused)
    assert gaps < 100, f"{gaps} times already: at full speed"
    broker.hooks.clear()
    wait_until(lambda: room.outbox() == 0, "the outbox is empty")
    room.wait_stock(product_id, 97)
    assert {json.loads(one.body)["order"]["id"] for one in refused} == {order_id}
    orders.assert_terse(2)


def test_confirms_that_make_no_sense(three, room):
    """For what was never published, twice, for all at once: the right rows leave the outbox, no other does."""
    broker, (_, orders, gateway) = three

    def confuse(link, channel, fields):
        (message,) = fields
        if not is_event(message):
            link.answer(channel, "basic.publish", fields)
            return
        for tag in (message.tag + 1000, 2**63, 2**64 - 1):
            link.say(channel, "basic.ack", tag, False)
            link.say(channel, "basic.nack", tag, True, False)
        link.answer(channel, "basic.publish", fields)
        link.say(channel, "basic.ack", message.tag, False)
        link.say(channel, "basic.nack", message.tag, True, False)
        link.say(channel, "basic.ack", 0, True)

    broker.hooks["basic.publish"] = confuse
    made = [order_one(gateway) for _ in range(5)]
    wait_until(lambda: room.outbox() == 0, "the outbox is empty")
    for product_id, _ in made:
        room.wait_stock(product_id, 99)
    orders.assert_unharmed()


def test_a_publish_that_is_never_confirmed(three, room):
    """A bound, then it is published again: on a channel that confirms, or a new connection."""
    broker, (_, orders, gateway) = three
    unconfirmed = []

    def keep_quiet(link, channel, fields):
        (message,) = fields
        if is_event(message):
            unconfirmed.append(message)
        else:
            link.answer(channel, "basic.publish", fields)

    broker.hooks["basic.publish"] = keep_quiet
    product_id, _ = order_one(gateway, 2)
    wait_until(lambda: len(unconfirmed) >= 1, "it is published")
    assert room.outbox() == 1
    broker.hooks.clear()
    wait_until(lambda: room.outbox() == 0, "it is published again, and confirmed", RECOVERY_S)
    room.wait_stock(product_id, 98)
    orders.assert_unharmed()


def test_the_broker_is_lost_before_it_confirms(three, room):
    """It may have the event, or not: it comes again, and its effect is once."""
    broker, (_, _, gateway) = three
    taken = []

    def take_and_go(link, channel, fields):
        (message,) = fields
        if is_event(message) and not taken:
            taken.append(message)
            link.server.route(message)
            raise Hangup
        link.answer(channel, "basic.publish", fields)

    broker.hooks["basic.publish"] = take_and_go
    product_id, _ = order_one(gateway, 5)
    wait_until(lambda: taken, "it is published")
    wait_until(lambda: room.outbox() == 0, "the outbox is empty")
    room.wait_stock(product_id, 95)
    assert sum(is_event(one) and one.body == taken[0].body for one in broker.published) >= 2

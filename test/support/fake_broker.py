"""A broker that does what no real one does: AMQP 0-9-1 from the server's side, each frame written by hand.

Without hooks it is honest: exchanges, queues, consumers, confirms and returns work well enough for a whole shop.
A hook takes the place of the answer to one method:

    broker.hooks["queue.declare"] = lambda link, channel, fields: link.close_channel(channel, 406, "no")
    broker.hooks["basic.publish"] = lambda link, channel, message: ...          a whole message
    link.answer(channel, name, fields)                                          what would have been done without it
"""
import fnmatch
import json
import struct
import threading
import uuid
from collections import deque
from dataclasses import dataclass, field

from .clock import ANSWER_S, wait_until
from .fake import FakeServer, Gone, Link

METHOD, HEADER, BODY, HEARTBEAT, FRAME_END = 1, 2, 3, 8, 0xCE
BASIC = 60
FRAME_OVERHEAD = 8
HEARTBEAT_EVERY_S = 0.5

# Class, method, fields: o octet, h short, l long, q long long, s short string, S long string, T table, b bit.
METHODS = {
    "connection.start": (10, 10, "ooTSS"),
    "connection.start-ok": (10, 11, "TsSs"),
    "connection.tune": (10, 30, "hlh"),
    "connection.tune-ok": (10, 31, "hlh"),
    "connection.open": (10, 40, "ssb"),
    "connection.open-ok": (10, 41, "s"),
    "connection.close": (10, 50, "hshh"),
    "connection.close-ok": (10, 51, ""),
    "connection.blocked": (10, 60, "s"),
    "connection.unblocked": (10, 61, ""),
    "channel.open": (20, 10, "s"),
    "channel.open-ok": (20, 11, "S"),
    "channel.flow": (20, 20, "b"),
    "channel.close": (20, 40, "hshh"),
    "channel.close-ok": (20, 41, ""),
    "exchange.declare": (40, 10, "hssbbbbbT"),
    "exchange.declare-ok": (40, 11, ""),
    "queue.declare": (50, 10, "hsbbbbbT"),
    "queue.declare-ok": (50, 11, "sll"),
    "queue.bind": (50, 20, "hsssbT"),
    "queue.bind-ok": (50, 21, ""),
    "basic.qos": (60, 10, "lhb"),
    "basic.qos-ok": (60, 11, ""),
    "basic.consume": (60, 20, "hssbbbbT"),
    "basic.consume-ok": (60, 21, "s"),
    "basic.cancel": (60, 30, "sb"),
    "basic.cancel-ok": (60, 31, "s"),
    "basic.publish": (60, 40, "hssbb"),
    "basic.return": (60, 50, "hsss"),
    "basic.deliver": (60, 60, "sqbss"),
    "basic.ack": (60, 80, "qb"),
    "basic.reject": (60, 90, "qb"),
    "basic.nack": (60, 120, "qbb"),
    "confirm.select": (85, 10, "b"),
    "confirm.select-ok": (85, 11, ""),
}
NAMES = {(class_id, method_id): name for name, (class_id, method_id, _) in METHODS.items()}
NUMBERS = {"o": ">B", "h": ">H", "l": ">I", "q": ">Q"}
PROPERTIES = (
    ("content_type", "s"), ("content_encoding", "s"), ("headers", "T"), ("delivery_mode", "o"), ("priority", "o"),
    ("correlation_id", "s"), ("reply_to", "s"), ("expiration", "s"), ("message_id", "s"), ("timestamp", "q"),
    ("type", "s"), ("user_id", "s"), ("app_id", "s"), ("cluster_id", "s"),
)  # fmt: skip


# ---- bytes ------------------------------------------------------------------------------------------------------


def as_bytes(text):
    return text.encode() if isinstance(text, str) else text


def frame(kind, channel, payload, end=FRAME_END, size=None):
    """`size` and `end` may lie."""
    return struct.pack(">BHI", kind, channel, len(payload) if size is None else size) + payload + bytes([end])


def heartbeat():
    return frame(HEARTBEAT, 0, b"")


def encode_table(table):
    """A table is given as its bytes, or as {name: text or True}."""
    if isinstance(table, bytes):
        return table
    packed = b""
    for key, value in (table or {}).items():
        packed += bytes([len(key)]) + key.encode()
        if isinstance(value, dict):
            packed += b"F" + encode_table(value)
        elif value is True:
            packed += b"t\x01"
        else:
            packed += b"S" + struct.pack(">I", len(as_bytes(value))) + as_bytes(value)
    return struct.pack(">I", len(packed)) + packed


def encode(spec, values):
    out, bits = b"", []
    for kind, value in zip(spec + " ", [*values, None]):
        if bits and kind != "b":
            out += bytes([sum(bit << at for at, bit in enumerate(bits))])
            bits = []
        if kind in NUMBERS:
            out += struct.pack(NUMBERS[kind], value)
        elif kind == "s":
            out += bytes([len(as_bytes(value))]) + as_bytes(value)
        elif kind == "S":
            out += struct.pack(">I", len(as_bytes(value))) + as_bytes(value)
        elif kind == "T":
            out += encode_table(value)
        elif kind == "b":
            bits.append(int(value))
    return out


def decode(spec, data):
    """The fields, tables as bytes; and what is left over."""
    values, bit = [], 8
    for kind in spec:
        if kind == "b":
            if bit == 8:
                octet, data, bit = data[0], data[1:], 0
            values.append(bool(octet >> bit & 1))
            bit += 1
            continue
        bit = 8
        if kind in NUMBERS:
            size = struct.calcsize(NUMBERS[kind])
            values.append(struct.unpack(NUMBERS[kind], data[:size])[0])
        elif kind == "s":
            size = 1 + data[0]
            values.append(data[1:size].decode())
        else:
            size = 4 + struct.unpack(">I", data[:4])[0]
            values.append(data[:size] if kind == "T" else data[4:size])
        data = data[size:]
    return values, data


def method(channel, name, *fields):
    class_id, method_id, spec = METHODS[name]
    return frame(METHOD, channel, struct.pack(">HH", class_id, method_id) + encode(spec, fields))


def encode_properties(properties):
    if isinstance(properties, bytes):
        return properties
    flags, packed = 0, b""
    for place, (name, kind) in enumerate(PROPERTIES):
        if properties.get(name) is not None:
            flags |= 1 << (15 - place)
            packed += encode(kind, [properties[name]])
    return struct.pack(">H", flags) + packed


def decode_properties(data):
    (flags,), data = struct.unpack(">H", data[:2]), data[2:]
    properties = {}
    for place, (name, kind) in enumerate(PROPERTIES):
        if flags >> (15 - place) & 1:
            (properties[name],), data = decode(kind, data)
    return properties


def content(channel, properties, body, frame_max=131072, size=None):
    """The frames behind a deliver or return; `size` is what the header announces."""
    header = struct.pack(">HHQ", BASIC, 0, len(body) if size is None else size) + encode_properties(properties)
    frames = [frame(HEADER, channel, header)]
    step = frame_max - FRAME_OVERHEAD
    return frames + [frame(BODY, channel, body[at : at + step]) for at in range(0, len(body), step)]


# ---- what a broker has ------------------------------------------------------------------------------------------


@dataclass
class Message:
    exchange: str
    routing_key: str
    mandatory: bool
    properties: bytes = b""
    size: int = 0
    body: bytes = b""
    link: object = None  # its publisher
    channel: int = 0
    tag: int = 0  # on a channel with confirms

    @property
    def property(self):
        return decode_properties(self.properties)

    def parameter(self, position, name):
        """Of a request."""
        request = json.loads(self.body)
        return request["kwargs"][name] if name in request["kwargs"] else request["args"][position]


@dataclass
class Queue:
    name: str
    messages: deque = field(default_factory=deque)
    consumers: list = field(default_factory=list)  # (link, channel, consumer tag, no_ack)


class Channel:
    def __init__(self):
        self.message = None  # of which the body is still coming
        self.publishes = None  # counted once confirm.select was sent
        self.deliveries = 0
        self.unsettled = {}  # tag -> (queue, message)


class BrokerLink(Link):
    def __init__(self, server, sock, number):
        super().__init__(server, sock, number)
        self.channels = {}
        self.is_open = False
        self.frame_max = server.frame_max
        self.heartbeat_s = None
        self.deaf = set()  # channels: what comes on them is not answered any more
        self.closing = set()  # channels closed from here; 0 is the connection: nothing counts until close-ok

    def say(self, channel, name, *fields):
        self.send(method(channel, name, *fields))

    def close_channel(self, channel, code, text):
        self.closing.add(channel)
        self.drop_channel(channel)
        self.say(channel, "channel.close", code, text, 0, 0)

    def close_connection(self, code, text):
        self.closing.add(0)
        self.say(0, "connection.close", code, text, 0, 0)

    def answer(self, channel, name, fields):
        getattr(self, "on_" + name.replace(".", "_").replace("-", "_"))(channel, *fields)

    def hear(self, channel, name, fields):
        self.server.heard.append((self.number, name))
        if channel in self.deaf or (self.closing & {0, channel} and not name.endswith(".close-ok")):
            return
        hook = self.server.hooks.get(name)
        if hook is not None:
            hook(self, channel, fields)
        else:
            self.answer(channel, name, fields)

    # ---- the handshake

    def on_protocol_header(self, _channel, _header):
        capabilities = {name: True for name in ("publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked")}
        properties = {"product": "fake", "capabilities": capabilities}
        self.say(0, "connection.start", 0, 9, properties, "AMQPLAIN PLAIN", "en_US")

    def on_connection_start_ok(self, _channel, *_fields):
        self.say(0, "connection.tune", 2047, self.server.frame_max, self.server.heartbeat_s)

    def on_connection_tune_ok(self, _channel, _channel_max, frame_max, heartbeat_s):
        self.frame_max, self.heartbeat_s = frame_max, heartbeat_s

    def on_connection_open(self, _channel, *_fields):
        self.say(0, "connection.open-ok", "")
        self.is_open = True

    def on_connection_close(self, _channel, *_fields):
        self.say(0, "connection.close-ok")
        raise Gone

    def on_connection_close_ok(self, _channel):
        raise Gone

    # ---- channels

    def on_channel_open(self, channel, _reserved):
        self.channels[channel] = Channel()
        self.say(channel, "channel.open-ok", b"")

    def on_channel_close(self, channel, *_fields):
        self.drop_channel(channel)
        self.say(channel, "channel.close-ok")

    def on_channel_close_ok(self, channel):
        self.closing.discard(channel)

    def drop_channel(self, channel):
        with self.server.lock:
            for queue in self.server.queues.values():
                queue.consumers = [one for one in queue.consumers if one[:2] != (self, channel)]
            unsettled = self.channels.pop(channel, Channel()).unsettled
            for queue, message in reversed(list(unsettled.values())):
                queue.messages.appendleft(message)
            self.server.pump_all({queue.name for queue, _ in unsettled.values()})

    def on_exchange_declare(self, channel, _reserved, name, *_fields):
        self.server.exchanges.setdefault(name, [])
        self.say(channel, "exchange.declare-ok")

    def on_queue_declare(self, channel, _reserved, name, *_fields):
        with self.server.lock:
            queue = self.server.queues.setdefault(name, Queue(name))
        self.say(channel, "queue.declare-ok", name, len(queue.messages), len(queue.consumers))

    def on_queue_bind(self, channel, _reserved, queue, exchange, key, *_fields):
        self.server.exchanges.setdefault(exchange, []).append((queue, key))
        self.say(channel, "queue.bind-ok")

    def on_basic_qos(self, channel, *_fields):
        self.say(channel, "basic.qos-ok")

    def on_basic_consume(self, channel, _reserved, queue, tag, _no_local, no_ack, *_fields):
        self.say(channel, "basic.consume-ok", tag)
        with self.server.lock:
            self.server.queues[queue].consumers.append((self, channel, tag, no_ack))
            self.server.pump(queue)

    def on_basic_cancel(self, channel, tag, _no_wait):
        with self.server.lock:
            for queue in self.server.queues.values():
                queue.consumers = [one for one in queue.consumers if one[:3] != (self, channel, tag)]
        self.say(channel, "basic.cancel-ok", tag)

    def on_confirm_select(self, channel, _no_wait):
        self.channels[channel].publishes = 0
        self.say(channel, "confirm.select-ok")

    # ---- messages

    def on_basic_publish(self, channel, message):
        routed = self.server.route(message)
        if not routed and message.mandatory:
            self.give_back(message)
        if message.tag:
            self.say(channel, "basic.ack", message.tag, False)

    def give_back(self, message):
        head = method(message.channel, "basic.return", 312, "NO_ROUTE", message.exchange, message.routing_key)
        self.send(head + b"".join(content(message.channel, message.properties, message.body, self.frame_max)))

    def on_basic_ack(self, channel, tag, multiple):
        self.settle(channel, tag, multiple, False)

    def on_basic_nack(self, channel, tag, multiple, requeue):
        self.settle(channel, tag, multiple, requeue)

    def on_basic_reject(self, channel, tag, requeue):
        self.settle(channel, tag, False, requeue)

    def settle(self, channel, tag, multiple, requeue):
        with self.server.lock:
            unsettled = self.channels[channel].unsettled
            for one in [one for one in unsettled if one == tag or (multiple and one <= tag)]:
                queue, message = unsettled.pop(one)
                if requeue:
                    queue.messages.append(message)
                    self.server.pump(queue.name)

    def deliver(self, channel, tag, message, queue=None, no_ack=True):
        """To one of its consumers, in the link's own frames."""
        state = self.channels[channel]
        state.deliveries += 1
        if not no_ack:
            state.unsettled[state.deliveries] = (queue, message)
        head = method(channel, "basic.deliver", tag, state.deliveries, self.server.redelivered, message.exchange, message.routing_key)
        frames = [head, *content(channel, message.properties, message.body, self.frame_max)]
        self.server.send_frames(self, channel, frames)

    def frames(self):
        """What comes, frame by frame: (kind, channel, payload)."""
        while True:
            kind, channel, size = struct.unpack(">BHI", self.take(7))
            payload = self.take(size)
            assert self.take(1)[0] == FRAME_END, "a frame of the program without its end"
            yield kind, channel, payload

    def converse(self):
        self.hear(0, "protocol-header", [self.take(8)])
        for kind, channel, payload in self.frames():
            assert len(payload) + FRAME_OVERHEAD <= self.frame_max, "a frame of the program that is too large"
            if kind == METHOD:
                name = NAMES[struct.unpack(">HH", payload[:4])]
                fields, _ = decode(METHODS[name][2], payload[4:])
                if name == "basic.publish" and channel in self.channels:
                    self.channels[channel].message = Message(fields[1], fields[2], fields[3], link=self, channel=channel)
                elif name != "basic.publish":
                    self.hear(channel, name, fields)
            elif kind in (HEADER, BODY):
                self.collect(channel, kind, payload)

    def collect(self, channel, kind, payload):
        state = self.channels.get(channel)
        if state is None:
            return  # the channel was closed from here while that was on its way
        message = state.message
        if kind == HEADER:
            message.size, message.properties = struct.unpack(">Q", payload[4:12])[0], payload[12:]
        else:
            message.body += payload
        if len(message.body) < message.size:
            return
        state.message = None
        if state.publishes is not None:
            state.publishes += 1
            message.tag = state.publishes
        self.server.published.append(message)
        self.hear(channel, "basic.publish", [message])


class FakeBroker(FakeServer):
    link_class = BrokerLink

    def __init__(self, frame_max=131072, heartbeat_s=60):
        self.frame_max = frame_max
        self.heartbeat_s = heartbeat_s  # what tune offers
        self.lock = threading.RLock()
        self.exchanges = {}  # name -> [(queue, key)]
        self.queues = {}
        self.hooks = {}
        self.heard = deque(maxlen=100_000)  # (connection, method)
        self.published = deque(maxlen=10_000)
        self.redelivered = False  # what it says of each delivery from now on: that it may have been made before
        self.send_frames = lambda link, channel, frames: link.send(b"".join(frames))
        self.beats = True  # heartbeats to every open connection
        self._stop = threading.Event()
        super().__init__()
        threading.Thread(target=self._beat, daemon=True).start()

    @property
    def uri(self):
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def serve(self, link):
        link.converse()

    def forget(self, link):
        link.is_open = False
        for channel in list(link.channels):
            link.drop_channel(channel)

    def close(self):
        self._stop.set()
        super().close()

    def _beat(self):
        while not self._stop.wait(HEARTBEAT_EVERY_S):
            for link in list(self.links):
                if self.beats and link.is_open:
                    try:
                        link.send(heartbeat())
                    except Gone:
                        pass

    def route(self, message):
        """False when no queue took it."""
        with self.lock:
            if message.exchange == "":
                names = {message.routing_key} & set(self.queues)
            else:
                names = {queue for queue, key in self.exchanges.get(message.exchange, ()) if _matches(key, message.routing_key)}
            for name in names:
                self.queues[name].messages.append(message)
                self.pump(name)
            return bool(names)

    def pump(self, name):
        """Hands a queue's messages to its consumers in turn."""
        with self.lock:
            queue = self.queues[name]
            while queue.messages and queue.consumers:
                link, channel, tag, no_ack = consumer = queue.consumers.pop(0)
                queue.consumers.append(consumer)
                message = queue.messages.popleft()
                try:
                    link.deliver(channel, tag, message, queue, no_ack)
                except Gone:
                    queue.consumers.remove(consumer)
                    if no_ack:
                        queue.messages.appendleft(message)

    def pump_all(self, names):
        for name in names:
            self.pump(name)

    def consumer(self, queue_prefix):
        """(link, channel, consumer tag, no_ack) of the queue whose name begins so."""
        with self.lock:
            for name, queue in self.queues.items():
                if name.startswith(queue_prefix) and queue.consumers:
                    return queue.consumers[0]
        return None

    def count(self, name):
        """How often a method was heard."""
        return sum(heard == name for _, heard in list(self.heard))


def _matches(key, routing_key):
    """Enough of topic matching for the keys in use: `service.*` and whole words."""
    return key == routing_key or (key.endswith(".*") and fnmatch.fnmatchcase(routing_key, key))


def is_response(message):
    return message.exchange == "nameko-rpc" and "." not in message.routing_key


class Caller:
    """Calls methods of the services behind a fake broker, message by message."""

    def __init__(self, broker):
        self.broker = broker
        self.reply_to = str(uuid.uuid4())

    def properties(self, **changes):
        return {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "delivery_mode": 1,
            "reply_to": self.reply_to,
            "correlation_id": str(uuid.uuid4()),
            **changes,
        }

    def send(self, routing_key, body, **changes):
        """Returns the correlation id."""
        properties = self.properties(**changes)
        message = Message("nameko-rpc", routing_key, False, encode_properties(properties), len(body), body)
        assert self.broker.route(message), f"nobody listens to {routing_key}"
        return properties["correlation_id"]

    def responses(self, correlation_id):
        mine = [one for one in list(self.broker.published) if one.routing_key == self.reply_to]
        return [json.loads(one.body) for one in mine if one.property["correlation_id"] == correlation_id]

    def response(self, correlation_id, deadline_s=ANSWER_S):
        return wait_until(lambda: self.responses(correlation_id), f"a response to {correlation_id}", deadline_s)[0]

    def call(self, routing_key, *args, size=0):
        """The response's body; the request's is `size` bytes long, if that is more than it needs."""
        body = json.dumps({"args": list(args), "kwargs": {}}).encode().ljust(size)
        return self.response(self.send(routing_key, body))

"""Golden messages: what real Nameko sends and receives, byte by byte, as test data for the codec.

    capture_golden.py AMQP_URI FOLDER

A client, two services and a listener, all of real Nameko, talk through a tap that stands between them and the broker and
keeps each frame as it travelled.  FOLDER receives one .bin file a message (its method, header and body frames, as they
came), messages.json (what is in each, decoded by pika and py-amqp) and declarations.json (exchanges, queues,
bindings, prefetch).  The broker should have nothing else in it; what this run made is deleted behind it.
"""
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

DEADLINE_S = 30
HERE = Path(__file__).resolve().parent


def repeatable_uuids(seed):
    """The same identifiers in each run, so that a new capture differs only where Nameko does."""
    numbers = random.Random(seed)
    uuid.uuid4 = lambda: uuid.UUID(int=numbers.getrandbits(128), version=4)


# ---- the Nameko services ------------------------------------------------------------------------------------------


def products_services():
    from nameko.events import event_handler
    from nameko.rpc import rpc

    sys.path.insert(0, str(HERE / "shop"))
    from marshmallow import ValidationError
    from products.exceptions import NotFound

    class Unserializable:
        def __repr__(self):
            return "<no JSON>"

    class Products:
        name = "products"

        @rpc
        def get(self, product_id):
            raise NotFound(f"Product ID {product_id} does not exist")

        @rpc
        def exists(self, product_id):
            return True

        @rpc
        def list(self):
            return []

        @rpc
        def create(self, product):
            raise ValidationError({"title": ["Missing data for required field."], "in_stock": ["Not a valid integer."]})

        @rpc
        def delete(self, product_id):
            return None

        @rpc
        def echo(self, *args, **kwargs):
            return {"args": args, "kwargs": kwargs}

        @rpc
        def unserializable(self):
            return Unserializable()

        @rpc
        def fails(self):
            raise RuntimeError("no", 1, {"why": [None, 2.5]}, b"\xff")

        @event_handler("orders", "order_created")
        def handle_order_created(self, payload):
            pass

    return [Products]


def orders_services():
    from nameko.events import EventDispatcher
    from nameko.rpc import RpcProxy, rpc

    class Orders:
        name = "orders"
        products = RpcProxy("products")
        dispatch = EventDispatcher()

        @rpc
        def create_order(self, order_details):
            for line in order_details:
                self.products.exists(line["product_id"])
            lines = [{"id": number, **line} for number, line in enumerate(order_details, 1)]
            order = {"id": 1, "order_details": lines}
            self.dispatch("order_created", {"order": order})
            return order

    return [Orders]


def listener_services():
    from nameko.events import BROADCAST, SERVICE_POOL, SINGLETON, EventHandler, event_handler

    class Named(EventHandler):
        broadcast_identifier = "listener-1"

    named_event_handler = Named.decorator

    class Listener:
        name = "listener"

        @event_handler("orders", "order_created", handler_type=SERVICE_POOL)
        def on_pool(self, payload):
            pass

        @event_handler("orders", "order_created", handler_type=SERVICE_POOL, reliable_delivery=False)
        def on_pool_unreliable(self, payload):
            pass

        @event_handler("orders", "order_created", handler_type=SINGLETON)
        def on_singleton(self, payload):
            pass

        @event_handler("orders", "order_created", handler_type=BROADCAST, reliable_delivery=False)
        def on_broadcast(self, payload):
            pass

        @named_event_handler("orders", "order_created", handler_type=BROADCAST)
        def on_broadcast_reliable(self, payload):
            pass

    return [Listener]


SERVICES = {"products": products_services, "orders": orders_services, "listener": listener_services}


def serve(name, amqp_uri, ready_file):
    import eventlet

    eventlet.monkey_patch()
    repeatable_uuids(name)
    import nameko_versions

    config = nameko_versions.settings(amqp_uri, max_workers=10)
    nameko_versions.configure(config)
    nameko_versions.serve(SERVICES[name](), config, Path(ready_file).touch)


# ---- the tap ------------------------------------------------------------------------------------------------------


class Tap:
    """Forwards connections to the broker and keeps the frames of both directions."""

    def __init__(self, amqp_uri, peer, frames, lock):
        parts = urlsplit(amqp_uri)
        self._broker = (parts.hostname, parts.port or 5672)
        self._peer, self._frames, self._lock = peer, frames, lock
        self._listener = socket.create_server(("127.0.0.1", 0))
        credentials = parts.netloc.rpartition("@")[0]
        port = self._listener.getsockname()[1]
        self.uri = urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{port}", path=parts.path or "/"))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        connection = 0
        while True:
            client, _ = self._listener.accept()
            broker = socket.create_connection(self._broker)
            connection += 1
            for source, target, direction in ((client, broker, "to broker"), (broker, client, "from broker")):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                arguments = (source, target, direction, connection)
                threading.Thread(target=self._forward, args=arguments, daemon=True).start()

    def _forward(self, source, target, direction, connection):
        pending = b""
        greeting = 8 if direction == "to broker" else 0  # "AMQP" 0 0 9 1
        while True:
            try:
                data = source.recv(65536)
                target.sendall(data)
            except OSError:
                data = b""
            if not data:
                for end in (source, target):
                    try:
                        end.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
                return
            pending += data
            if greeting and len(pending) >= greeting:
                pending, greeting = pending[greeting:], 0
            while not greeting and len(pending) >= 8:
                size = struct.unpack(">I", pending[3:7])[0] + 8
                if len(pending) < size:
                    break
                with self._lock:
                    self._frames.append((self._peer, connection, direction, pending[:size]))
                pending = pending[size:]


# ---- decoding -----------------------------------------------------------------------------------------------------


def text(value):
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {text(key): text(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [text(item) for item in value]
    return value


def fields_of(method):
    hidden = ("ticket", "INDEX", "NAME")
    return {key: text(value) for key, value in vars(method).items() if key not in hidden and not key.startswith("_")}


def properties_of(header_frame):
    """By py-amqp: pika 1.4 cuts a float in a header to an integer."""
    from amqp import Message

    message = Message()
    message._load_properties(60, header_frame[7:-1], 12)
    return message.properties


def items_of(frames):
    """Methods and whole messages, in the order in which they began: (peer, direction, method, header, body, raw)."""
    from pika.frame import Body, Header, Method, decode_frame

    open_items, items = {}, []
    for peer, connection, direction, raw in frames:
        _, frame = decode_frame(raw)
        if isinstance(frame, Method):
            item = {"peer": peer, "connection": connection, "direction": direction, "channel": frame.channel_number}
            item.update(method=frame.method, properties=None, body=b"", raw=raw, missing=0)
            items.append(item)
            open_items[peer, connection, direction, frame.channel_number] = item
        elif isinstance(frame, (Header, Body)):
            item = open_items[peer, connection, direction, frame.channel_number]
            item["raw"] += raw
            if isinstance(frame, Header):
                item["properties"], item["missing"] = properties_of(raw), frame.body_size
            else:
                item["body"] += frame.fragment
                item["missing"] -= len(frame.fragment)
    return items


CARRIES_MESSAGE = ("Basic.Publish", "Basic.Deliver", "Basic.Return")


def whole_messages(items):
    return [
        item
        for item in items
        if item["method"].NAME in CARRIES_MESSAGE and item["properties"] is not None and item["missing"] == 0
    ]


# ---- the scenes ---------------------------------------------------------------------------------------------------


class Capture:
    def __init__(self, amqp_uri, folder):
        self.folder, self.amqp_uri = Path(folder), amqp_uri
        self.frames, self.lock = [], threading.Lock()
        self.taps = {peer: Tap(amqp_uri, peer, self.frames, self.lock) for peer in (*SERVICES, "client")}
        self.messages = []
        self.processes = []

    def snapshot(self, begin=0):
        with self.lock:
            return list(self.frames[begin:])

    def start_services(self):
        for name in SERVICES:
            ready = self.folder / f".{name}.ready"
            command = [sys.executable, __file__, "serve", name, self.taps[name].uri, str(ready)]
            with open(log := self.folder / f".{name}.log", "wb") as output:
                process = subprocess.Popen(command, stderr=output)
            self.processes.append(process)
            wait_for(lambda: ready.exists() or process.poll() is not None, f"{name} is ready")
            assert ready.exists(), f"{name} has ended:\n{log.read_text()}"
            ready.unlink()

    def stop_services(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(DEADLINE_S)
        for log in self.folder.glob(".*.log"):
            log.unlink()

    def scene(self, name, act, *wanted):
        """Run `act`; keep the messages that `wanted` describe: (suffix, peer, method, routing key or "reply")."""
        with self.lock:
            begin = len(self.frames)
        act()
        for suffix, peer, method, key in wanted:

            def find():
                for item in whole_messages(items_of(self.snapshot(begin))):
                    found = item["method"]
                    is_reply = len(found.routing_key) == 36 and found.routing_key.count("-") == 4
                    if item["peer"] == peer and found.NAME == method:
                        if found.routing_key == key or (key == "reply" and is_reply):
                            return item
                return None

            wait_for(lambda: find() is not None, f"{name}: {method} {key} of {peer}")
            self.keep(f"{name}-{suffix}" if suffix else name, find())

    def keep(self, name, item):
        (self.folder / f"{name}.bin").write_bytes(item["raw"])
        properties = dict(item["properties"])
        headers = properties.pop("application_headers", None)
        body = item["body"].decode("utf-8")
        self.messages.append(
            {
                "file": f"{name}.bin",
                "peer": item["peer"],
                "direction": item["direction"],
                "channel": item["channel"],
                "method": item["method"].NAME,
                "fields": fields_of(item["method"]),
                "properties": properties,
                "headers": headers,
                "body": body,
            }
        )

    def declarations(self):
        kinds = ("Exchange.Declare", "Queue.Declare", "Queue.Bind", "Basic.Qos", "Basic.Consume", "Confirm.Select")
        seen, rows = set(), []
        for item in items_of(self.snapshot()):
            method = item["method"]
            if item["direction"] != "to broker" or method.NAME not in kinds:
                continue
            row = {"peer": item["peer"], "method": method.NAME, "fields": fields_of(method)}
            identity = json.dumps({**row, "fields": {**row["fields"], "consumer_tag": None}}, sort_keys=True)
            if identity not in seen:
                seen.add(identity)
                rows.append({**row, "frame_hex": item["raw"].hex()})
        return sorted(rows, key=lambda row: (row["peer"], kinds.index(row["method"]), row["frame_hex"]))


def wait_for(condition, what):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {DEADLINE_S} s: {what}")
        time.sleep(0.02)  # between two looks at the condition


def fails(call):
    try:
        call()
    except Exception:
        return
    raise AssertionError("this call should have failed")


CONTEXT = {"user_id": "héctor", "auth_token": "t0k3n", "language": "en-gb", "user_agent": None, "idempotency_key": "k-1"}
CONTEXT.update(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", number=7, flag=True, ratio=2.5)
LINES = [
    {"product_id": "the_odyssey", "price": "100000.99", "quantity": 1},
    {"product_id": "l'été/№ 1", "price": "0.10", "quantity": 2147483647},
]
ANYTHING = {"text": 'é "quoted" \\ / \u2028 \U0001f6a2\n', "numbers": [0, -1, 2**63, 1e300, 0.1], "none": None, "yes": True}


def play(capture):
    import nameko_versions
    from kombu import Connection
    from nameko.exceptions import UnknownService

    uri = capture.taps["client"].uri
    round_trip = lambda key: (  # noqa: E731
        ("request", "client", "Basic.Publish", key),
        ("request-delivered", key.partition(".")[0], "Basic.Deliver", key),
        ("response", key.partition(".")[0], "Basic.Publish", "reply"),
        ("response-delivered", "client", "Basic.Deliver", "reply"),
    )
    answered = lambda key: round_trip(key)[:1] + round_trip(key)[2:3]  # noqa: E731
    with nameko_versions.cluster_rpc(uri, timeout_s=DEADLINE_S) as client:
        products = client.products
        capture.scene("by-position", lambda: products.exists("the_odyssey"), *round_trip("products.exists"))
        capture.scene("by-name", lambda: products.exists(product_id="the_odyssey"), *answered("products.exists"))
        capture.scene("no-parameters", lambda: products.list(), *answered("products.list"))
        capture.scene("null-result", lambda: products.delete("x"), *answered("products.delete"))
        capture.scene("any-json", lambda: products.echo(ANYTHING, [], {}, a=1, é="ü"), *answered("products.echo"))
        not_found = lambda: fails(lambda: products.get("the_odyssey"))  # noqa: E731
        capture.scene("not-found", not_found, *answered("products.get"))
        invalid = lambda: fails(lambda: products.create({"id": "x"}))  # noqa: E731
        capture.scene("validation-error", invalid, *answered("products.create"))
        no_method = lambda: fails(lambda: products.no_such_method(1))  # noqa: E731
        capture.scene("method-not-found", no_method, *answered("products.no_such_method"))
        for name, args, kwargs in (
            ("missing-argument", (), {}),
            ("too-many-arguments", (1, 2), {}),
            ("unexpected-keyword", (1,), {"x": 2}),
            ("multiple-values", (1,), {"product_id": 2}),
        ):
            wrong = lambda: fails(lambda: products.get(*args, **kwargs))  # noqa: E731
            capture.scene(f"incorrect-signature-{name}", wrong, *answered("products.get"))
        unserializable = lambda: fails(lambda: products.unserializable())  # noqa: E731
        capture.scene("unserializable-result", unserializable, *answered("products.unserializable"))
        any_error = lambda: fails(lambda: products.fails())  # noqa: E731
        capture.scene("any-error", any_error, *answered("products.fails"))

        def unknown_service():
            try:
                client.nobody.method(1)
            except UnknownService:
                return
            raise AssertionError("nobody has answered")

        published = ("request", "client", "Basic.Publish", "nobody.method")
        returned = ("returned", "client", "Basic.Return", "nobody.method")
        capture.scene("unknown-service", unknown_service, published, returned)

    with nameko_versions.cluster_rpc(uri, context=dict(CONTEXT), timeout_s=DEADLINE_S) as client:
        capture.scene(
            "create-order",
            lambda: client.orders.create_order(LINES),
            *round_trip("orders.create_order"),
            ("call-request", "orders", "Basic.Publish", "products.exists"),
            ("call-response", "products", "Basic.Publish", "reply"),
            ("event", "orders", "Basic.Publish", "order_created"),
            ("event-delivered", "products", "Basic.Deliver", "order_created"),
            ("event-delivered-broadcast", "listener", "Basic.Deliver", "order_created"),
        )
    malformed = {"without-args": {"kwargs": {}}, "without-kwargs": {"args": []}}
    with Connection(uri) as connection, connection.Producer() as producer:
        for name, body in malformed.items():
            reply_to = str(uuid.uuid4())

            def act():
                producer.publish(
                    body,
                    exchange="nameko-rpc",
                    routing_key="products.get",
                    reply_to=reply_to,
                    correlation_id=str(uuid.uuid4()),
                    serializer="json",
                )

            capture.scene(f"malformed-{name}", act, *answered("products.get"))


def forget(capture):
    """Delete the queues and exchanges of this run."""
    from kombu import Connection

    with Connection(capture.amqp_uri) as connection:
        channel = connection.channel()
        for row in capture.declarations():
            if row["method"] == "Queue.Declare":
                channel.queue_delete(row["fields"]["queue"])
        for name in ("nameko-rpc", "orders.events"):
            channel.exchange_delete(name)


def main(amqp_uri, folder):
    repeatable_uuids("client")
    import nameko_versions

    os.makedirs(folder, exist_ok=True)
    for old in Path(folder).glob("*.bin"):
        old.unlink()
    capture = Capture(amqp_uri, folder)
    try:
        capture.start_services()
        play(capture)
    finally:
        capture.stop_services()
    write_json(capture.folder / "messages.json", {"nameko": nameko_versions.VERSION, "messages": capture.messages})
    declarations = {"nameko": nameko_versions.VERSION, "declarations": capture.declarations()}
    write_json(capture.folder / "declarations.json", declarations)
    forget(capture)
    print(f"{len(capture.messages)} messages of Nameko {nameko_versions.VERSION} in {folder}")


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    elif len(sys.argv) == 3:
        main(*sys.argv[1:])
    else:
        sys.exit(__doc__)

"""An independent AMQP peer (pika): calls services message by message, listens to events, plays a service itself."""
import json
import threading
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass

import pika

from .backing import DEAD_LETTERS
from .clock import ANSWER_S

RPC_EXCHANGE = "nameko-rpc"
_TICK_S = 0.05


@dataclass
class Message:
    exchange: str
    routing_key: str
    properties: pika.BasicProperties
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def headers(self):
        return self.properties.headers or {}


@dataclass
class Returned(Message):
    code: int
    text: str


class RemoteError(Exception):
    """The error object of a response, as a caller sees it."""

    def __init__(self, error):
        super().__init__(f"{error.get('exc_type')}: {error.get('value')}")
        self.error = error
        self.exc_type = error["exc_type"]
        self.exc_path = error["exc_path"]
        self.exc_args = error["exc_args"]
        self.value = error["value"]


def connect(uri):
    parameters = pika.URLParameters(uri)
    parameters.heartbeat = 0  # a peer may be idle for as long as other tests run
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = ANSWER_S
    return pika.BlockingConnection(parameters)


def declare_rpc_exchange(channel):
    channel.exchange_declare(RPC_EXCHANGE, "topic", durable=True, auto_delete=False)


class Peer:
    """One connection.  Not for several threads."""

    def __init__(self, uri):
        self.uri = uri
        self.connection = connect(uri)
        self.channel = self.connection.channel()
        declare_rpc_exchange(self.channel)
        self.reply_to = str(uuid.uuid4())
        self.replies = defaultdict(list)  # correlation id (or None) -> messages
        self.returned = []
        self.channel.add_on_return_callback(self._on_return)
        queue = self.channel.queue_declare(f"rpc.reply-tests-{self.reply_to}", exclusive=True, auto_delete=True).method.queue
        self.channel.queue_bind(queue, RPC_EXCHANGE, self.reply_to)
        self.channel.basic_consume(queue, self._on_reply, auto_ack=True)

    def close(self):
        if self.connection.is_open:
            self.connection.close()

    def _on_reply(self, _channel, deliver, properties, body):
        self.replies[properties.correlation_id].append(Message(deliver.exchange, deliver.routing_key, properties, body))

    def _on_return(self, _channel, method, properties, body):
        self.returned.append(
            Returned(method.exchange, method.routing_key, properties, body, method.reply_code, method.reply_text)
        )

    # ---- requests ----------------------------------------------------------------------------------------------

    def properties(self, **overrides):
        """The properties of an ordinary request; an override of None leaves one out."""
        values = {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "reply_to": self.reply_to,
            "correlation_id": str(uuid.uuid4()),
            "delivery_mode": 2,
            "priority": 0,
            "headers": {"nameko.call_id_stack": [f"standalone_rpc_client.{uuid.uuid4()}"]},
        }
        values.update(overrides)
        return pika.BasicProperties(**{name: value for name, value in values.items() if value is not None})

    def send(self, routing_key, body, **overrides):
        """Publish a request; returns its correlation id (or None)."""
        properties = self.properties(**overrides)
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.channel.basic_publish(RPC_EXCHANGE, routing_key, body, properties, mandatory=True)
        return properties.correlation_id

    def turn(self, seconds=_TICK_S):
        self.connection.process_data_events(time_limit=seconds)

    def wait_for(self, condition, what, deadline_s=ANSWER_S):
        limit = time.monotonic() + deadline_s
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() >= limit:
                raise AssertionError(f"not within {deadline_s:g} s: {what}")
            self.turn()

    def reply(self, correlation_id, what="a response", deadline_s=ANSWER_S):
        def arrived():
            for returned in self.returned:
                assert returned.properties.correlation_id != correlation_id, f"{returned.routing_key}: {returned.text}"
            return self.replies.get(correlation_id)

        return self.wait_for(arrived, what, deadline_s).pop(0)

    def exchange(self, routing_key, body, **overrides):
        """Send, and return the response as it came."""
        return self.reply(self.send(routing_key, body, **overrides), f"a response to {routing_key} {_short(body)}")

    def call(self, routing_key, *args, **kwargs):
        """Call a method; the result, or RemoteError."""
        return result_of(self.exchange(routing_key, {"args": list(args), "kwargs": kwargs}))

    def error(self, routing_key, *args, **kwargs):
        """Call a method that must fail; its error."""
        try:
            result = self.call(routing_key, *args, **kwargs)
        except RemoteError as error:
            return error
        raise AssertionError(f"{routing_key}{_short([args, kwargs])} gave a result: {_short(result)}")

    # ---- queues ------------------------------------------------------------------------------------------------

    def depth(self, queue):
        """(messages ready, consumers)"""
        with_own_channel = self.connection.channel()
        try:
            method = with_own_channel.queue_declare(queue, passive=True).method
            return method.message_count, method.consumer_count
        finally:
            if with_own_channel.is_open:
                with_own_channel.close()

    def listen(self, exchange, routing_key):
        """A queue of our own behind an exchange; the list fills as the connection turns."""
        messages = []

        def on_message(_channel, deliver, properties, body):
            messages.append(Message(deliver.exchange, deliver.routing_key, properties, body))

        queue = self.channel.queue_declare("", exclusive=True, auto_delete=True).method.queue
        self.channel.queue_bind(queue, exchange, routing_key)
        self.channel.basic_consume(queue, on_message, auto_ack=True)
        return messages

    def listen_to_events(self, source, event_type):
        self.channel.exchange_declare(f"{source}.events", "topic", durable=True, auto_delete=False)
        return self.listen(f"{source}.events", event_type)

    def listen_to_dead_letters(self):
        self.channel.exchange_declare(DEAD_LETTERS, "fanout", durable=True)
        return self.listen(DEAD_LETTERS, "")

    def publish_event(self, source, event_type, body, headers=None, **overrides):
        values = {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "delivery_mode": 2,
            "priority": 0,
            "headers": {"nameko.call_id_stack": ["test.publish.1"]} if headers is None else headers,
        }
        values.update(overrides)
        properties = pika.BasicProperties(**{name: value for name, value in values.items() if value is not None})
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.channel.basic_publish(f"{source}.events", event_type, body, properties)


def result_of(message):
    body = message.json
    assert set(body) == {"result", "error"}, f"a response has result and error, nothing else: {_short(body)}"
    if body["error"] is not None:
        assert body["result"] is None, f"an error and a result: {_short(body)}"
        assert set(body["error"]) == {"exc_type", "exc_path", "exc_args", "value"}, _short(body)
        raise RemoteError(body["error"])
    return body["result"]


def _short(value):
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)})"


class Incoming(Message):
    """A request that a fake service got."""

    def __init__(self, service, deliver, properties, body):
        super().__init__(deliver.exchange, deliver.routing_key, properties, body)
        self._service = service
        self.deliver = deliver
        self.arrived = time.monotonic()

    @property
    def method(self):
        return self.routing_key.split(".", 1)[1]

    @property
    def parameters(self):
        """Positional and named ones, as sent."""
        return self.json["args"], self.json["kwargs"]

    def parameter(self, position, name):
        args, kwargs = self.parameters
        return kwargs[name] if name in kwargs else args[position]

    def answer(self, result=None, error=None):
        self.answer_raw(json.dumps({"result": result, "error": error}).encode())

    def fail(self, exc_type, exc_path, value, exc_args=None):
        self.answer(error={"exc_type": exc_type, "exc_path": exc_path, "exc_args": exc_args or [value], "value": value})

    def answer_raw(self, body, routing_key=None, exchange=RPC_EXCHANGE, **overrides):
        values = {
            "correlation_id": self.properties.correlation_id,
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "delivery_mode": 2,
        }
        values.update(overrides)
        properties = pika.BasicProperties(**{name: value for name, value in values.items() if value is not None})
        key = self.properties.reply_to if routing_key is None else routing_key
        self._service.do(lambda channel: channel.basic_publish(exchange, key, body, properties))


class FakeService(threading.Thread):
    """A service by Nameko's book, in a thread of its own; `handle(incoming)` answers now, later or never."""

    def __init__(self, uri, name, handle):
        super().__init__(daemon=True)
        self.service = name
        self.handle = handle
        self.requests = []
        self._connection = connect(uri)
        self._channel = self._connection.channel()
        declare_rpc_exchange(self._channel)
        queue = f"rpc-{name}"
        self._channel.queue_declare(queue, durable=True, exclusive=False, auto_delete=False)
        self._channel.queue_bind(queue, RPC_EXCHANGE, f"{name}.*")
        self._channel.basic_consume(queue, self._on_request)
        self._stopping = False
        self._failure = None
        self.start()

    def _on_request(self, channel, deliver, properties, body):
        incoming = Incoming(self, deliver, properties, body)
        self.requests.append(incoming)
        try:
            self.handle(incoming)
        except Exception as exc:  # shown when the test ends
            self._failure = exc
        channel.basic_ack(deliver.delivery_tag)

    def do(self, action):
        """Run action(channel) in this service's thread."""
        if threading.current_thread() is self:
            action(self._channel)
        else:
            self._connection.add_callback_threadsafe(lambda: action(self._channel))

    def run(self):
        while not self._stopping:
            self._connection.process_data_events(time_limit=0.02)
        self._connection.close()

    def stop(self):
        self._stopping = True
        self.join(ANSWER_S)
        if self._failure is not None:
            raise self._failure

"""The wire contract as any service keeps it: declarations, responses, error objects, and messages that are no requests."""
import json
import uuid

import pika
import pytest

from support.amqp import RPC_EXCHANGE, RemoteError, connect, result_of
from support.shop import a_line, a_product, unique

SERVICES = ("products", "orders")
# A call of each service that always succeeds, to see that it is still there.
HEALTHY = {"products": ("products.exists", ["nothing"]), "orders": ("orders.list_orders", [0, 1])}


def assert_alive(peer, service):
    method, args = HEALTHY[service]
    assert peer.call(method, *args) is not None


# ---- declarations -----------------------------------------------------------------------------------------------


@pytest.fixture
def channel(shop):
    connection = connect(shop.room.amqp_uri)
    yield connection.channel()
    connection.close()


def test_rpc_exchange(channel):
    channel.exchange_declare("nameko-rpc", "topic", passive=True)
    channel.exchange_declare("nameko-rpc", "topic", durable=True, auto_delete=False)


@pytest.mark.parametrize("service", SERVICES)
def test_rpc_queue(channel, service):
    channel.queue_declare(f"rpc-{service}", passive=True)
    method = channel.queue_declare(f"rpc-{service}", durable=True, exclusive=False, auto_delete=False).method
    assert method.consumer_count >= 1
    channel.queue_bind(f"rpc-{service}", "nameko-rpc", f"{service}.*")


def test_event_exchange_and_queue(channel):
    channel.exchange_declare("orders.events", "topic", durable=True, auto_delete=False)
    name = "evt-orders-order_created--products.handle_order_created"
    channel.queue_declare(name, passive=True)
    method = channel.queue_declare(name, durable=True, exclusive=False, auto_delete=False).method
    assert method.consumer_count >= 1
    channel.queue_bind(name, "orders.events", "order_created")


def test_an_unknown_service_is_returned(peer):
    correlation_id = peer.send("nobody.get", {"args": [], "kwargs": {}})
    returned = peer.wait_for(
        lambda: [one for one in peer.returned if one.properties.correlation_id == correlation_id], "the return"
    )[0]
    assert returned.code == 312


# ---- responses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
@pytest.mark.parametrize("service", SERVICES)
def test_a_response_goes_through_the_exchange(peer, service, content_type):
    method, args = HEALTHY[service]
    correlation_id = peer.send(method, {"args": args, "kwargs": {}}, content_type=content_type)
    response = peer.reply(correlation_id)
    assert response.exchange == RPC_EXCHANGE
    assert response.routing_key == peer.reply_to
    assert response.properties.correlation_id == correlation_id
    assert response.properties.content_type == content_type
    assert not response.properties.headers
    assert response.json["error"] is None


def test_an_error_response_goes_the_same_way(peer):
    correlation_id = peer.send("products.get", {"args": [], "kwargs": {}})
    response = peer.reply(correlation_id)
    assert (response.exchange, response.routing_key) == (RPC_EXCHANGE, peer.reply_to)
    assert response.properties.content_type == "application/json"
    assert not response.properties.headers
    assert set(response.json) == {"result", "error"}


def test_a_correlation_id_of_any_kind_comes_back(peer):
    for correlation_id in ("x", "with space", "ü" * 100, "0" * 255, "a\nb"):
        method, args = HEALTHY["products"]
        peer.send(method, {"args": args, "kwargs": {}}, correlation_id=correlation_id)
        assert peer.reply(correlation_id).json["error"] is None


def test_many_calls_at_once_each_get_their_own_answer(peer):
    products = [a_product() for _ in range(40)]
    sent = [peer.send("products.create", {"args": [product], "kwargs": {}}) for product in products]
    assert all(peer.reply(one).json == {"result": None, "error": None} for one in sent)
    sent = [peer.send("products.get", {"args": [product["id"]], "kwargs": {}}) for product in products]
    assert [peer.reply(one).json["result"] for one in sent] == products


@pytest.mark.parametrize("mode", [1, 2])
def test_either_delivery_mode(peer, mode):
    method, args = HEALTHY["products"]
    assert peer.exchange(method, {"args": args, "kwargs": {}}, delivery_mode=mode).json["error"] is None


def test_an_expired_request_is_not_done(shop, peer, dead_letters):
    """The program sleeps while the request expires in the queue."""
    product = a_product()
    products = shop.the("products")
    products.pause()
    try:
        # Prefetched messages no longer expire in the queue, so fill the prefetch first.
        fill = [peer.send("products.exists", {"args": ["x"], "kwargs": {}}) for _ in range(2000)]
        late = peer.send("products.create", {"args": [product], "kwargs": {}}, expiration="1")
        peer.wait_for(lambda: peer.depth("rpc-products")[0] > 0, "requests wait in the queue")
    finally:
        products.resume()
    for one in fill:
        peer.reply(one)
    (letter,) = peer.wait_for(
        lambda: [letter for letter in dead_letters if letter.properties.correlation_id == late], "the request expires"
    )
    assert letter.headers["x-death"][0]["reason"] == "expired"
    assert peer.call("products.exists", product["id"]) is False
    assert late not in peer.replies


# ---- Nameko's errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["nothing", "GET", "get ", "__init__", "dispatch", "x" * 200, ""])
@pytest.mark.parametrize("service", SERVICES)
def test_method_not_found(peer, service, method):
    error = peer.error(f"{service}.{method}")
    assert error.error == {
        "exc_type": "MethodNotFound",
        "exc_path": "nameko.exceptions.MethodNotFound",
        "exc_args": [method],
        "value": method,
    }


MALFORMED = "Message missing `args` or `kwargs`"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"args": []},
        {"kwargs": {}},
        {"Args": [], "Kwargs": {}},
        [],
        [[], {}],
        None,
        5,
        1.5,
        True,
        "text",
        "",
        {"args": None, "kwargs": {}},
        {"args": {}, "kwargs": {}},
        {"args": "x", "kwargs": {}},
        {"args": 1, "kwargs": {}},
        {"args": [], "kwargs": None},
        {"args": [], "kwargs": []},
        {"args": [], "kwargs": "x"},
        {"args": [], "kwargs": 0},
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("service", SERVICES)
def test_malformed_request(peer, service, body):
    method, _ = HEALTHY[service]
    response = peer.exchange(method, body)
    assert response.json == {
        "result": None,
        "error": {
            "exc_type": "MalformedRequest",
            "exc_path": "nameko.exceptions.MalformedRequest",
            "exc_args": [MALFORMED],
            "value": MALFORMED,
        },
    }


def test_more_than_args_and_kwargs_is_no_harm(peer):
    body = {"args": ["nothing"], "kwargs": {}, "context": {"x": 1}, "version": 2}
    assert peer.exchange("products.exists", body).json == {"result": False, "error": None}


def no(method, name):
    return f"{method}() missing 1 required positional argument: '{name}'"


def many(method, takes, given):
    return f"{method}() takes {takes} positional argument{'' if takes == 1 else 's'} but {given} were given"


def unexpected(method, name):
    return f"{method}() got an unexpected keyword argument '{name}'"


def multiple(method, name):
    return f"{method}() got multiple values for argument '{name}'"


SIGNATURES = [
    (f"{service}.{method}", args, kwargs, words)
    for service, method, name in [
        ("products", "get", "product_id"),
        ("products", "exists", "product_id"),
        ("products", "create", "product"),
        ("products", "delete", "product_id"),
        ("orders", "get_order", "order_id"),
        ("orders", "create_order", "order_details"),
        ("orders", "update_order", "order"),
        ("orders", "delete_order", "order_id"),
    ]
    for args, kwargs, words in [
        ([], {}, no(method, name)),
        ([1, 2], {}, many(method, 2, 3)),
        ([1, 2, 3], {}, many(method, 2, 4)),
        ([], {"x": 1}, unexpected(method, "x")),
        ([1], {"x": 1}, unexpected(method, "x")),
        ([1, 2], {"x": 1}, unexpected(method, "x")),
        ([1], {name: 1}, multiple(method, name)),
        ([1, 2], {name: 1}, multiple(method, name)),
    ]
] + [
    ("products.list", [1], {}, many("list", 1, 2)),
    ("products.list", [1, 2], {}, many("list", 1, 3)),
    ("products.list", [], {"limit": 1}, unexpected("list", "limit")),
    ("products.get", [], {"self": 1}, multiple("get", "self")),
    ("products.get", [], {"": 1}, unexpected("get", "")),
    ("products.get", [], {"Lüftschiff": 1}, unexpected("get", "Lüftschiff")),
    ("products.get", [], {"Product_id": "x"}, unexpected("get", "Product_id")),
    (
        "orders.list_orders",
        [1, 2, 3],
        {},
        "list_orders() takes from 1 to 3 positional arguments but 4 were given",
    ),
    ("orders.list_orders", [], {"x": 1}, unexpected("list_orders", "x")),
    ("orders.list_orders", [1], {"after": 1}, multiple("list_orders", "after")),
]


@pytest.mark.parametrize(
    "method, args, kwargs, words", SIGNATURES, ids=[f"{m}-{a}-{k}" for m, a, k, _ in SIGNATURES]
)
def test_incorrect_signature(peer, method, args, kwargs, words):
    error = failure_of(peer.exchange(method, {"args": args, "kwargs": kwargs}))
    assert error.error == {
        "exc_type": "IncorrectSignature",
        "exc_path": "nameko.exceptions.IncorrectSignature",
        "exc_args": [words],
        "value": words,
    }


def failure_of(response):
    try:
        result = result_of(response)
    except RemoteError as error:
        return error
    raise AssertionError(f"a result: {result!r}")


# ---- messages that are no requests ------------------------------------------------------------------------------


def marked(text):
    """A body that can be told from every other."""
    return text.replace("MARK", uuid.uuid4().hex).encode()


def deep(levels):
    """A request whose document is `levels` levels deep in all, and harmless."""
    inner = "[" * (levels - 3) + "]" * (levels - 3)
    product = json.dumps(a_product())[:-1]
    return '{"args": [' + product + ', "x": ' + inner + "}" + '], "kwargs": {}, "mark": "MARK"}'


def assert_rejected(peer, dead_letters, service, correlation_id, body, properties=None):
    """Rejected without requeue, unanswered, and the service goes on."""

    def arrived():
        return [message for message in dead_letters if message.body == body]

    (letter,) = peer.wait_for(arrived, f"the service rejects {body[:100]!r}")
    death = letter.headers["x-death"][0]
    assert death["reason"] == "rejected", death
    assert death["count"] == 1, death
    assert_alive(peer, service)
    assert len(arrived()) == 1
    assert correlation_id not in peer.replies


NO_JSON = {
    "empty": b"",
    "text": b"hello MARK",
    "half": b'{"args": ["MARK"], "kwargs": {',
    "python": b"{'args': ['MARK'], 'kwargs': {}}",
    "behind": b'{"args": ["MARK"], "kwargs": {}} x',
    "two": b'{"args": ["MARK"], "kwargs": {}}{"args": [], "kwargs": {}}',
    "comma": b'{"args": ["MARK",], "kwargs": {}}',
    "nan": b'{"args": ["MARK", NaN], "kwargs": {}}',
    "infinity": b'{"args": ["MARK", -Infinity], "kwargs": {}}',
    "bad-utf-8": b'{"args": ["MARK \xff"], "kwargs": {}}',
    "overlong-utf-8": b'{"args": ["MARK \xc0\xaf"], "kwargs": {}}',
    "utf-8-surrogate": b'{"args": ["MARK \xed\xa0\x80"], "kwargs": {}}',
    "latin-1": '{"args": ["MARK ü"], "kwargs": {}}'.encode("latin-1"),
    "utf-8-bom": b'\xef\xbb\xbf{"args": ["MARK"], "kwargs": {}}',
    "nul-between": b'{"args": ["MARK"], \x00"kwargs": {}}',
    "lone-surrogate": b'{"args": ["MARK \\ud800"], "kwargs": {}}',
    "swapped-surrogates": b'{"args": ["MARK \\udc00\\ud800"], "kwargs": {}}',
    "raw-nul": b'{"args": ["MARK\x00"], "kwargs": {}}',
    "nul-behind": b'{"args": ["MARK"], "kwargs": {}}\x00',
    "raw-newline": b'{"args": ["MARK\n"], "kwargs": {}}',
    "msgpack": b"\x82\xa4args\x90\xa6kwargs\x80MARK",
}


@pytest.mark.parametrize("case", NO_JSON)
@pytest.mark.parametrize("service", SERVICES)
def test_no_json_is_rejected(peer, dead_letters, service, case):
    body = NO_JSON[case].replace(b"MARK", uuid.uuid4().hex.encode())
    if not body:
        dead_letters[:] = [letter for letter in dead_letters if letter.body]
    method, _ = HEALTHY[service]
    correlation_id = peer.send(method, body)
    assert_rejected(peer, dead_letters, service, correlation_id, body)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-python-serialize", "application/octet-stream", "json", "a" * 255]
)
@pytest.mark.parametrize("service", SERVICES)
def test_another_content_type_is_rejected(peer, dead_letters, service, content_type):
    body = marked('{"args": ["MARK"], "kwargs": {}}')
    method, _ = HEALTHY[service]
    correlation_id = peer.send(method, body, content_type=content_type)
    assert_rejected(peer, dead_letters, service, correlation_id, body)


def assert_answered_or_rejected(peer, dead_letters, service, correlation_id, body, may_succeed=True):
    """Like any other malformed request; never silence, never a crash."""

    def settled():
        return peer.replies.get(correlation_id) or [letter for letter in dead_letters if letter.body == body]

    (outcome,) = peer.wait_for(settled, f"an answer to {body[:100]!r}, or its rejection")
    if outcome in peer.replies.get(correlation_id, []):
        peer.replies[correlation_id].remove(outcome)
        if not may_succeed:
            assert outcome.json["error"] is not None, f"{body[:100]!r} was taken: {outcome.json}"
    else:
        assert outcome.headers["x-death"][0]["reason"] == "rejected"
    assert_alive(peer, service)


# Strict JSON: what other parsers take, ours does not.
NOT_STRICT = {
    "duplicate-args": '{"args": [], "args": ["MARK"], "kwargs": {}}',
    "duplicate-kwargs": '{"args": ["MARK"], "kwargs": {}, "kwargs": {}}',
    "duplicate-name": '{"args": [], "kwargs": {"product_id": "MARK", "product_id": "x"}}',
    "escaped-duplicate": '{"args": [], "kwargs": {"product_id": "MARK", "product_\\u0069d": "x"}}',
    "nul-escape": '{"args": ["MARK\\u0000"], "kwargs": {}}',
    "nul-in-name": '{"args": ["MARK"], "kwargs": {"\\u0000": 1}}',
    "deep-10000": '{"args": ["MARK", ' + "[" * 10_000 + "]" * 10_000 + '], "kwargs": {}}',
    "deep-100000-open": '{"args": ["MARK", ' + "[" * 100_000,
    "deep-objects": '{"args": ["MARK", ' + '{"a":' * 5_000 + "1" + "}" * 5_000 + '], "kwargs": {}}',
}


@pytest.mark.parametrize("case", NOT_STRICT)
@pytest.mark.parametrize("service", SERVICES)
def test_lax_json_is_never_taken(peer, dead_letters, service, case):
    body = marked(NOT_STRICT[case])
    method = {"products": "products.exists", "orders": "orders.get_order"}[service]
    correlation_id = peer.send(method, body)
    assert_answered_or_rejected(peer, dead_letters, service, correlation_id, body, may_succeed=False)


def test_sixty_four_levels_are_taken(peer):
    assert peer.exchange("products.create", marked(deep(64))).json == {"result": None, "error": None}


def test_sixty_five_levels_are_not(peer, dead_letters):
    body = marked(deep(65))
    correlation_id = peer.send("products.create", body)
    assert_answered_or_rejected(peer, dead_letters, "products", correlation_id, body, may_succeed=False)


@pytest.mark.parametrize("service", SERVICES)
def test_a_body_beyond_sixteen_mebibytes(peer, dead_letters, service):
    mark = uuid.uuid4().hex
    method, _ = HEALTHY[service]
    body = json.dumps({"args": [mark], "kwargs": {}, "x": "x" * (17 * 2**20)}).encode()
    correlation_id = peer.send(method, body, delivery_mode=1)
    assert_answered_or_rejected(peer, dead_letters, service, correlation_id, body, may_succeed=False)
    dead_letters[:] = [letter for letter in dead_letters if len(letter.body) < 2**20]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("content_type", [None, ""], ids=["missing", "empty"])
def test_without_content_type(peer, dead_letters, service, content_type):
    body = marked('{"args": [], "kwargs": {}, "mark": "MARK"}')
    method, _ = HEALTHY[service]
    correlation_id = peer.send(method, body, content_type=content_type)
    assert_answered_or_rejected(peer, dead_letters, service, correlation_id, body)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("reply_to", [None, ""], ids=["missing", "empty"])
def test_without_reply_to(peer, dead_letters, service, reply_to):
    body = marked('{"args": [], "kwargs": {}, "mark": "MARK"}')
    method, _ = HEALTHY[service]
    correlation_id = peer.send(method, body, reply_to=reply_to)
    assert_rejected(peer, dead_letters, service, correlation_id, body)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("correlation_id", [None, ""], ids=["missing", "empty"])
def test_without_correlation_id(peer, dead_letters, service, correlation_id):
    """An answer then carries none, or an empty one."""
    body = marked('{"args": [], "kwargs": {}, "mark": "MARK"}')
    method, _ = HEALTHY[service]
    properties = peer.properties()
    properties.correlation_id = correlation_id
    peer.channel.basic_publish(RPC_EXCHANGE, method, body, properties)

    def settled():
        return (
            peer.replies.pop(None, None)
            or peer.replies.pop("", None)
            or [letter for letter in dead_letters if letter.body == body]
        )

    (outcome,) = peer.wait_for(settled, "an answer without correlation id, or the rejection")
    if outcome in dead_letters:
        assert outcome.headers["x-death"][0]["reason"] == "rejected"
    assert_alive(peer, service)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    "stack",
    [
        None,
        "text",
        5,
        True,
        [],
        [1, 2, 3],
        ["good", None, 5],
        [[], {}],
        {"a": 1},
        ["x" * 10_000],
        ["many"] * 5_000,
        b"bytes",
        [""],
        ["ü\n\"\\"],
    ],
    ids=lambda stack: repr(stack)[:20],
)
def test_an_odd_call_id_stack(peer, dead_letters, service, stack):
    body = marked('{"args": [], "kwargs": {}, "mark": "MARK"}')
    correlation_id = peer.send(f"{service}.nothing", body, headers={"nameko.call_id_stack": stack})
    assert_answered_or_rejected(peer, dead_letters, service, correlation_id, body)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"": "empty name"},
        {"nameko.": "no name"},
        {"nameko.call_id_stack": [], "call_id_stack": "bare"},
        {"nameko.x": {"nested": {"table": [1, 2, {"deep": True}]}}},
        {"nameko.x": b"\x00\xff\xfe"},
        {"nameko.ü": "ü"},
        {f"nameko.h{i}": "v" * 50 for i in range(500)},
        {"nameko.traceparent": "00-zz-zz-zz", "traceparent": 5, "nameko.tracestate": []},
        {"nameko.language": 5, "nameko.user_id": -1, "nameko.auth_token": True},
        {"nameko.idempotency_key": 5},
        {"nameko.idempotency_key": ""},
    ],
    ids=lambda headers: repr(headers)[:40],
)
def test_odd_headers(peer, dead_letters, service, headers):
    body = marked('{"args": [], "kwargs": {}, "mark": "MARK"}')
    method, _ = HEALTHY[service]
    correlation_id = peer.send(method, body, headers=headers)
    assert_answered_or_rejected(peer, dead_letters, service, correlation_id, body)


@pytest.mark.parametrize("expiration", ["60000", "0060000"])
def test_expiration_of_any_form(peer, expiration):
    method, args = HEALTHY["products"]
    assert peer.exchange(method, {"args": args, "kwargs": {}}, expiration=expiration).json["error"] is None


def test_a_reply_queue_that_is_gone(peer):
    """The answer reaches nobody; that is the caller's loss, not the service's."""
    for service in SERVICES:
        method, args = HEALTHY[service]
        peer.send(method, {"args": args, "kwargs": {}}, reply_to=str(uuid.uuid4()))
        assert_alive(peer, service)


def test_a_reply_to_cannot_aim_at_a_queue(shop, peer):
    """Answers go through the RPC exchange, so the name of a queue as reply_to leads nowhere."""
    queue = peer.channel.queue_declare(f"victim-{uuid.uuid4()}", exclusive=True).method.queue
    method, args = HEALTHY["products"]
    peer.send(method, {"args": args, "kwargs": {}}, reply_to=queue)
    assert_alive(peer, "products")
    assert peer.channel.basic_get(queue) == (None, None, None)


def test_nothing_malformed_was_executed(shop, peer):
    """A create_order that cannot be answered makes no order."""
    product_id = unique("never-ordered")
    lines = [a_line(product_id)]
    for overrides in ({"content_type": "text/plain"}, {"reply_to": None}):
        peer.send("orders.create_order", {"args": [lines], "kwargs": {}}, **overrides)
    assert_alive(peer, "orders")
    created = peer.call("orders.create_order", [a_line(unique())])
    assert created["id"]
    assert shop.query("SELECT count(*) FROM order_details WHERE product_id = %s", product_id) == [(0,)]

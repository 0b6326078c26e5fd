"""What stands in front of the HTTP parser: no request is ever read as two, and none gets another's answer.

Raw sockets; every vector is answered with an error and the connection closed, and the gateway goes on.
"""
import json
import random
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.clock import ANSWER_S, wait_until
from support.http import Http, RawConnection, check_error, check_headers, path_of, raw_request
from support.ports import free_port
from support.shop import a_line, a_product, unique

HEADER_FLOOD = "\r\n".join(f"X-Header-{number}: {number}" for number in range(500))


@pytest.fixture(scope="module")
def products(http):
    """Products that differ, to tell whose answer an answer is."""
    return [http.make_product(a_product(title=f"Product number {number}", in_stock=10**9)) for number in range(24)]


@pytest.fixture(scope="module")
def smuggled(http):
    """A product that the hidden second request of a vector would delete."""
    return http.make_product(a_product(unique("victim")))


@pytest.fixture(autouse=True)
def gateway_goes_on(shop, http, products):
    yield
    assert http.get_product(products[0]["id"])["id"] == products[0]["id"]
    shop.the("gateway").assert_running()


def get(product, *headers):
    return raw_request("GET", path_of("products", product["id"]), headers=headers)


def post(path, body, *headers):
    return raw_request("POST", path, body, headers)


# ---- what is refused --------------------------------------------------------------------------------------------

# HIDDEN stands for a DELETE of the victim, which must never be carried out.
VECTORS = {
    # the body's length, told twice or falsely
    "two-lengths-differ": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 200\r\n\r\n{}HIDDEN",
    "two-lengths-same": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "length-list": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 2, 2\r\n\r\n{}",
    "length-negative": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}HIDDEN",
    "length-plus": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}HIDDEN",
    "length-hex": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 0x2\r\n\r\n{}HIDDEN",
    "length-text": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: two\r\n\r\n{}HIDDEN",
    "length-empty": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n{}HIDDEN",
    "length-two-words": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 2 2\r\n\r\n{}HIDDEN",
    "length-fraction": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 2.0\r\n\r\n{}HIDDEN",
    "get-with-length": b"GET /products/x HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nHIDDEN",
    "head-with-length": b"HEAD /products/x HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nHIDDEN",
    "delete-with-length": b"DELETE /products/x HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nHIDDEN",
    "options-with-length": b"OPTIONS /products/x HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nHIDDEN",
    # another framing beside it
    "chunked": b"POST /products HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nHIDDEN",
    "chunked-extension": b"POST /products HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\n\r\n",
    "length-and-chunked": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHIDDEN",
    "chunked-and-length": b"POST /products HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nHIDDEN",
    "chunked-upper": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTRANSFER-ENCODING: Chunked\r\n\r\n0\r\n\r\n",
    "encoding-identity": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: identity\r\n\r\n{}",
    "encoding-on-get": b"GET /products/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHIDDEN",
    "encoding-space-colon": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    # line ends and bytes that other parsers read otherwise
    "bare-lf": b"GET /products/x HTTP/1.1\nHost: x\n\n",
    "one-bare-lf": b"GET /products/x HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "lf-in-value": b"GET /products/x HTTP/1.1\r\nHost: x\r\nX: a\nContent-Length: 5\r\n\r\n",
    "bare-cr": b"GET /products/x HTTP/1.1\r\nHost: x\r\nX: a\rContent-Length: 5\r\n\r\n",
    "cr-in-line": b"GET /products/x\r HTTP/1.1\r\nHost: x\r\n\r\n",
    "lf-lf-end": b"GET /products/x HTTP/1.1\r\nHost: x\r\n\n",
    "nul-in-value": b"GET /products/x HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
    "nul-in-name": b"GET /products/x HTTP/1.1\r\nHost: x\r\nX\x00: a\r\n\r\n",
    "nul-in-path": b"GET /products/x\x00y HTTP/1.1\r\nHost: x\r\n\r\n",
    "fold-space": b"GET /products/x HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "fold-tab": b"GET /products/x HTTP/1.1\r\nHost: x\r\nX: a\r\n\tb\r\n\r\n",
    "no-colon": b"GET /products/x HTTP/1.1\r\nHost: x\r\nNothing\r\n\r\n",
    "no-name": b"GET /products/x HTTP/1.1\r\nHost: x\r\n: value\r\n\r\n",
    "space-in-name": b"GET /products/x HTTP/1.1\r\nHost: x\r\nX Y: value\r\n\r\n",
    "space-before-colon": b"GET /products/x HTTP/1.1\r\nHost: x\r\nX : value\r\n\r\n",
    # whose request it is
    "no-host": b"GET /products/x HTTP/1.1\r\n\r\n",
    "hostile-is-no-host": b"GET /products/x HTTP/1.1\r\nHostile: x\r\n\r\n",
    "two-hosts": b"GET /products/x HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "two-hosts-same": b"GET /products/x HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n",
    # more than the parser sees
    "five-hundred-headers": f"GET /products/x HTTP/1.1\r\nHost: x\r\n{HEADER_FLOOD}\r\n\r\n".encode(),
}

# Not among the traps by name, and no request either: this error, then the end.
GARBAGE = {
    "nothing-http": (400, b"hello\r\n\r\n"),
    "http-0.9": (400, b"GET /products/x\r\n\r\n"),
    "http-2-preface": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "http-3.0": (505, b"GET /products/x HTTP/3.0\r\nHost: x\r\n\r\n"),
    "http-1.10": (400, b"GET /products/x HTTP/1.10\r\nHost: x\r\n\r\n"),
    "http-lower": (400, b"GET /products/x http/1.1\r\nHost: x\r\n\r\n"),
    "two-spaces": (400, b"GET  /products/x HTTP/1.1\r\nHost: x\r\n\r\n"),
    "tab-for-space": (400, b"GET\t/products/x\tHTTP/1.1\r\nHost: x\r\n\r\n"),
    "space-in-path": (400, b"GET /products/a b HTTP/1.1\r\nHost: x\r\n\r\n"),
    "no-path": (400, b"GET HTTP/1.1\r\nHost: x\r\n\r\n"),
    "relative-path": (400, b"GET products/x HTTP/1.1\r\nHost: x\r\n\r\n"),
    "star-path": (400, b"GET * HTTP/1.1\r\nHost: x\r\n\r\n"),
    "absolute-form": (400, b"GET http://evil.example.com/products/x HTTP/1.1\r\nHost: x\r\n\r\n"),
    "connect": (400, b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n"),
    "long-method": (400, b"G" * 3000 + b" /products/x HTTP/1.1\r\nHost: x\r\n\r\n"),
    "method-of-symbols": (400, b"\xff\xfe /products/x HTTP/1.1\r\nHost: x\r\n\r\n"),
    "raw-utf-8-path": (400, "GET /products/ü HTTP/1.1\r\nHost: x\r\n\r\n".encode()),
    "control-in-path": (400, b"GET /products/\x01\x7f HTTP/1.1\r\nHost: x\r\n\r\n"),
    "tls-hello": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)) + b"\r\n\r\n"),
    "path-of-64-kB": (414, b"GET /products/" + b"x" * 65_536 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    "header-of-64-kB": (431, b"GET /products/x HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 65_536 + b"\r\n\r\n"),
    "endless-header": (431, b"GET /products/x HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 1_000_000),
    "length-2^64": (413, b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551618\r\n\r\n{}"),
    "length-10^400": (413, b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 1" + b"0" * 400 + b"\r\n\r\n{}"),
    "post-without-length": (411, b"POST /products HTTP/1.1\r\nHost: x\r\n\r\n{}HIDDEN"),
}


def with_hidden(vector, victim):
    return vector.replace(b"HIDDEN", raw_request("DELETE", path_of("products", victim["id"])))


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_is_400_and_the_end(shop, http, smuggled, name):
    with RawConnection(shop.port) as raw:
        raw.send_tolerant(with_hidden(VECTORS[name], smuggled))
        response = raw.response()
        assert response is not None, "closed without a word"
        check_error(response, 400, None)
        assert raw.hung_up(), f"not closed, or more was sent: {raw.left_over[:300]!r}"
    assert http.get_product(smuggled["id"]) == smuggled


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_an_error_and_the_end(shop, http, smuggled, name):
    status, garbage = GARBAGE[name]
    with RawConnection(shop.port) as raw:
        raw.send_tolerant(with_hidden(garbage, smuggled))
        response = raw.response()
        assert response is not None, "closed without a word"
        check_error(response, status, None)
        assert raw.hung_up(), f"not closed, or more was sent: {raw.left_over[:300]!r}"
    assert http.get_product(smuggled["id"]) == smuggled


@pytest.mark.parametrize("method", ["TRACE", "BREW", "get", "OPTIONS"])
def test_a_method_that_nobody_knows_is_a_request_all_the_same(shop, products, method):
    """It is refused, and what comes behind it is read: where it ends is no question."""
    with RawConnection(shop.port) as raw:
        raw.send(raw_request(method, "/products/x") + get(products[0]))
        check_error(raw.response(), 405, None)
        assert raw.response().json["id"] == products[0]["id"]


@pytest.mark.parametrize("name", ["two-lengths-differ", "bare-lf", "chunked", "get-with-length", "two-hosts"])
def test_a_vector_behind_a_good_request(shop, http, products, smuggled, name):
    """The good one is answered; what comes behind the bad one is not read."""
    with RawConnection(shop.port) as raw:
        raw.send_tolerant(get(products[1]) + with_hidden(VECTORS[name], smuggled) + get(products[2]))
        assert raw.response().json["id"] == products[1]["id"]
        check_error(raw.response(), 400, None)
        assert raw.hung_up(), f"not closed, or more was sent: {raw.left_over[:300]!r}"
    assert http.get_product(smuggled["id"]) == smuggled


def test_a_vector_byte_by_byte(shop):
    with RawConnection(shop.port) as raw:
        for byte in VECTORS["two-lengths-same"][:-2]:
            raw.send_tolerant(bytes([byte]))
        check_error(raw.response(), 400, None)
        assert raw.hung_up()


@pytest.mark.parametrize("count", [10, 20, 30, 60, 100])
def test_a_header_never_vanishes(shop, http, products, count):
    """However many headers come first: the key behind them counts, or the request is refused."""
    key = unique("key")
    headers = [f"X-{number}: {number}" for number in range(count)] + [f"Idempotency-Key: {key}"]
    body = ('{"order_details": [{"product_id": "%s", "price": "1", "quantity": 1}]}' % products[0]["id"]).encode()
    answers = []
    for _ in range(2):
        with RawConnection(shop.port) as raw:
            raw.send_tolerant(post("/orders", body, *headers))
            answers.append(raw.response())
    if answers[0].status == 200:
        assert answers[1].body == answers[0].body
    else:
        check_error(answers[0], answers[0].status, None)
        assert answers[0].status in (400, 431) and count > 10, str(answers[0])


class NarrowConnection:
    """A client that takes in so little unread that the gateway's answers stay with the gateway after some hundred of them."""

    def __init__(self, port):
        self.socket = socket.socket()
        self.socket.settimeout(ANSWER_S)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        self.socket.connect(("127.0.0.1", port))

    def send(self, data):
        """As much of it as leaves at once."""
        try:
            return self.socket.send(data)
        except ConnectionError:
            return 0

    def everything(self):
        """All that the gateway sends until it hangs up; None when it had closed before our last byte came, which resets."""
        parts = []
        try:
            while parts[-1:] != [b""]:
                parts.append(self.socket.recv(65_536))
        except ConnectionResetError:
            return None
        return b"".join(parts)

    def close(self):
        self.socket.close()


NOTHING = raw_request("GET", "/nothing")
BAD = b"GET /nothing HTTP/1.1\n\n"
ANSWERS_MAX = 1_000  # more than fit between the gateway and a narrow connection
CONNECTIONS = 20  # at the place where the first answer stays with the gateway
CONNECTIONS_MAX = 200
LOOKS = 5  # that show no change: nothing is left to be done
LOOKS_MAX = 5_000


def answered(monitor):
    """status -> how many requests to no route were answered with it; one whose answer has not left yet counts."""
    text = monitor.get("/metrics", check=False).body.decode()
    pattern = r'^gateway_requests_total\{route="none",status="(\d+)"\} (\d+)$'
    return {int(status): int(count) for status, count in re.findall(pattern, text, re.M)}


def answered_at_rest(monitor):
    """Each look is a turn of the gateway's loop or more, in which every client's requests go on if they can."""
    looks = [answered(monitor)]
    while looks[-LOOKS:] != looks[-1:] * LOOKS:
        looks.append(answered(monitor))
        assert len(looks) < LOOKS_MAX, looks[-LOOKS:]
    return looks[-1]


def refused_at_the_edge(shop, monitor):
    """
    Clients that read nothing, each with some good requests and then a bad one.  With few good ones it is refused; with many it is
    not read yet, for an answer before it has not left; just between, the refusal itself waits to leave.  Where that is shows the
    connection before: one good request more if that one was refused, one less if not.

    (good requests, refused, connection) of each.
    """
    before = answered_at_rest(monitor).get(404, 0)
    probe = NarrowConnection(shop.port)
    probe.send(NOTHING * ANSWERS_MAX)
    good = answered_at_rest(monitor)[404] - before
    probe.close()
    assert good < ANSWERS_MAX
    connections = []
    while len(connections) < CONNECTIONS or len({refused for _, refused, _ in connections[-CONNECTIONS:]}) < 2:
        assert len(connections) < CONNECTIONS_MAX, [(good, refused) for good, refused, _ in connections]
        before = answered_at_rest(monitor).get(400, 0)
        connection = NarrowConnection(shop.port)
        assert connection.send(NOTHING * good + BAD) == good * len(NOTHING) + len(BAD)
        refused = answered_at_rest(monitor).get(400, 0) > before
        connections.append((good, refused, connection))
        good += 1 if refused else -1
    return connections


def test_a_refusal_is_given_once(make_shop):
    """A bad request is refused once, also while the refusal cannot leave and the client goes on sending."""
    shop = make_shop()
    gateway = shop.add("gateway", METRICS_PORT=str(free_port())).start().wait_ready()
    monitor = Http(int(gateway.environment["METRICS_PORT"]))
    connections = refused_at_the_edge(shop, monitor)
    for _, _, connection in connections:
        connection.send(b"x")
    answered_at_rest(monitor)
    waited = 0
    for good, refused, connection in connections:
        text = connection.everything()
        connection.close()
        if text is None:
            continue  # its refusal had left, and the gateway had closed, before the x came
        waited += refused
        found = re.findall(rb"HTTP/1\.1 (\d+) ", text)
        assert found == [b"404"] * good + [b"400"], f"{good} good requests: {found[:3]} ... {found[-3:]}"
    assert waited > 0, [(good, refused) for good, refused, _ in connections]
    assert answered_at_rest(monitor)[400] == len(connections), "each was refused once"
    shop.assert_running()


# ---- what is honest, however it arrives -------------------------------------------------------------------------


def test_keep_alive(shop, products):
    with RawConnection(shop.port) as raw:
        for product in products:
            raw.send(get(product))
            assert raw.response().json["title"] == product["title"]


def test_connection_close_is_honoured(shop, products):
    with RawConnection(shop.port) as raw:
        raw.send(get(products[3], "Connection: close"))
        assert raw.response().json["id"] == products[3]["id"]
        assert raw.hung_up()


@pytest.mark.parametrize("count", [2, 5, 24])
def test_pipelined_gets(shop, products, count):
    with RawConnection(shop.port) as raw:
        raw.send(b"".join(get(product) for product in products[:count]))
        assert [raw.response().json["id"] for _ in range(count)] == [product["id"] for product in products[:count]]


def test_pipelined_post_and_get(shop, http, products):
    """A GET that could overtake the POST before it, again and again on one connection."""
    with RawConnection(shop.port) as raw:
        for number in range(10):
            line = b'{"order_details": [{"product_id": "%s", "price": "1.00", "quantity": 1}]}' % products[number]["id"].encode()
            raw.send(post("/orders", line) + get(products[number]) + get(products[number + 1]))
            order = raw.response()
            assert order.status == 200 and set(order.json) == {"id"}, str(order)
            assert raw.response().json["id"] == products[number]["id"]
            assert raw.response().json["id"] == products[number + 1]["id"]
            (detail,) = http.get_order(order.json["id"])["order_details"]
            assert detail["product_id"] == products[number]["id"]


def test_pipelined_mix_in_order(shop):
    """Each request's answer shows that those before it had been done."""
    product = a_product()
    path = path_of("products", product["id"])
    with RawConnection(shop.port) as raw:
        raw.send(
            raw_request("GET", path)
            + post("/products", json.dumps(product).encode())
            + raw_request("GET", path)
            + raw_request("HEAD", path)
            + raw_request("DELETE", path)
            + raw_request("GET", path)
            + post("/products", b"{")
            + raw_request("GET", "/nothing")
            + raw_request("PUT", "/orders", b"{}")
            + raw_request("GET", "/orders/0")
        )
        check_error(raw.response(), 404, "PRODUCT_NOT_FOUND")
        assert raw.response().json == {"id": product["id"]}
        assert raw.response().json == product
        assert raw.response(head=True).status == 200
        assert raw.response().status == 204
        check_error(raw.response(), 404, "PRODUCT_NOT_FOUND")
        check_error(raw.response(), 400, "BAD_REQUEST")
        check_error(raw.response(), 404, None)
        check_error(raw.response(), 405, None)
        check_error(raw.response(), 404, "ORDER_NOT_FOUND")


def test_a_body_shorter_than_what_arrived_with_it(shop, products):
    """The next request in the same segment as a POST: no underflow, no lost request."""
    with RawConnection(shop.port) as raw:
        raw.send(post("/products", b"{}") + get(products[0]) + get(products[1]))
        check_error(raw.response(), 400, "VALIDATION_ERROR")
        assert [raw.response().json["id"] for _ in range(2)] == [products[0]["id"], products[1]["id"]]


def test_byte_by_byte(shop, products):
    body = b'{"order_details": [{"product_id": "%s", "price": "1.00", "quantity": 1}]}' % products[0]["id"].encode()
    with RawConnection(shop.port) as raw:
        for byte in post("/orders", body) + get(products[5]):
            raw.send(bytes([byte]))
        assert raw.response().status == 200
        assert raw.response().json["id"] == products[5]["id"]


def test_random_cuts(shop, products):
    rng = random.Random(20)
    stream = b"".join(
        post("/products", b'{"id": 5}') + get(product) if number % 3 == 0 else get(product)
        for number, product in enumerate(products)
    )
    for _ in range(5):
        with RawConnection(shop.port) as raw:
            at = 0
            while at < len(stream):
                size = rng.choice((1, 2, 7, 50, 300, 1500))
                raw.send(stream[at : at + size])
                at += size
            for number, product in enumerate(products):
                if number % 3 == 0:
                    check_error(raw.response(), 400, "VALIDATION_ERROR")
                assert raw.response().json["id"] == product["id"]


def test_a_large_body_in_pieces_then_the_next_request(shop, products):
    body = b"{}".ljust(600_000)
    with RawConnection(shop.port) as raw:
        stream = post("/products", body) + get(products[7])
        for at in range(0, len(stream), 10_000):
            raw.send(stream[at : at + 10_000])
        check_error(raw.response(), 400, "VALIDATION_ERROR")
        assert raw.response().json["id"] == products[7]["id"]


def test_nobody_gets_anothers_answer(shop, products):
    """Many connections at once, each pipelining requests whose answers only it may have."""

    def converse(number):
        rng = random.Random(number)
        with RawConnection(shop.port) as raw:
            for _ in range(10):
                chosen = [rng.choice(products) for _ in range(rng.randint(1, 8))]
                orders = [rng.random() < 0.3 for _ in chosen]
                line = '{"order_details": [{"product_id": "%s", "price": "%d.00", "quantity": 1}]}'
                raw.send(
                    b"".join(
                        post("/orders", (line % (product["id"], number)).encode()) if order else get(product)
                        for product, order in zip(chosen, orders)
                    )
                )
                for product, order in zip(chosen, orders):
                    response = raw.response()
                    assert response is not None and response.status == 200, str(response)
                    if order:
                        mine.append((response.json["id"], product["id"], number))
                    else:
                        assert response.json["title"] == product["title"]

    mine = []
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(converse, range(16)))
    assert len({order_id for order_id, _, _ in mine}) == len(mine), "two requests got the same order"
    rows = shop.query(
        "SELECT order_id, product_id, price::integer FROM order_details WHERE order_id = ANY(%s)",
        [order_id for order_id, _, _ in mine],
    )
    assert sorted(rows) == sorted(mine)


def test_requests_of_common_clients(shop, http, products):
    """python-requests sends a length of 0 with a DELETE; curl asks before it sends a large body."""
    requests = pytest.importorskip("requests")
    product = http.make_product(a_product())
    url = f"http://127.0.0.1:{shop.port}"
    with requests.Session() as session:
        assert session.get(url + path_of("products", product["id"]), timeout=ANSWER_S).json() == product
        assert session.delete(url + path_of("products", product["id"]), timeout=ANSWER_S).status_code == 204
        assert session.post(url + "/products", json=product, timeout=ANSWER_S).json() == {"id": product["id"]}
    body = b"{}".ljust(2000)
    with RawConnection(shop.port) as raw:
        head, _, _ = post("/products", body, "Expect: 100-continue").partition(b"\r\n\r\n")
        raw.send(head + b"\r\n\r\n" + body)
        response = raw.response()
        if response.status == 100:
            response = raw.response()
        assert response.status in (400, 417), str(response)
        check_headers(response)


# ---- clients that leave -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    "stage", ["connected", "half-line", "half-header", "header-no-body", "half-body", "get-sent", "order-sent", "pipelined"]
)
def test_a_client_leaves(shop, products, stage, how):
    order = b'{"order_details": [{"product_id": "%s", "price": "1.00", "quantity": 1}]}' % products[0]["id"].encode()
    sent = {
        "connected": b"",
        "half-line": b"GET /produ",
        "half-header": b"GET /products/x HTTP/1.1\r\nHost: x\r\nX-Ha",
        "header-no-body": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
        "half-body": b"POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
        "get-sent": get(products[0]),
        "order-sent": post("/orders", order),
        "pipelined": b"".join(get(product) for product in products) + post("/orders", order),
    }[stage]
    for _ in range(10):
        raw = RawConnection(shop.port)
        raw.send(sent)
        raw.reset() if how == "reset" else raw.close()


def test_a_client_that_does_not_read(shop, http):
    """Large answers pile up for a client that never reads them; others are served meanwhile."""
    product = http.make_product(a_product(title="t" * 900_000))
    lazy = [RawConnection(shop.port) for _ in range(4)]
    try:
        for raw in lazy:
            raw.send(get(product) * 20)
        assert http.get_product(product["id"]) == product
    finally:
        for number, raw in enumerate(lazy):
            raw.reset() if number % 2 else raw.close()
    http.delete(path_of("products", product["id"]))


def test_many_slow_clients_keep_nobody_out(shop, http, products):
    """Connections that send a byte and wait."""
    slow = [RawConnection(shop.port).send(b"G") for _ in range(100)]
    try:
        assert http.get_product(products[1]["id"])["id"] == products[1]["id"]
    finally:
        for raw in slow:
            raw.close()


def test_many_clients_leave_at_once_and_their_orders_are_whole(shop, http):
    """An order whose client has gone is made whole or not at all."""
    product = http.make_product(a_product(in_stock=1_000))
    body = b'{"order_details": [{"product_id": "%s", "price": "1.00", "quantity": 3}]}' % product["id"].encode()
    together = threading.Barrier(16)

    def order_and_leave(number):
        raw = RawConnection(shop.port)
        together.wait()
        raw.send(post("/orders", body))
        raw.reset() if number % 2 else raw.close()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(order_and_leave, range(16)))
    http.make_order([a_line(product["id"], quantity=3)])

    def consistent():
        ((made,),) = shop.query("SELECT count(*) FROM order_details WHERE product_id = %s", product["id"])
        return 1 <= made <= 17 and shop.stock_in_redis(product["id"]) == 1_000 - 3 * made and shop.outbox() == 0

    wait_until(consistent, "the stock follows the orders that were made")

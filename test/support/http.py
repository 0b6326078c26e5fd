"""HTTP clients: an ordinary one, and one that decides over every byte."""
import http.client
import json
import socket
import struct
import time
from dataclasses import dataclass, field
from urllib.parse import quote

from .clock import ANSWER_S

_JSON = "application/json"


def path_of(*segments):
    """A path of percent-encoded segments; nothing in an id is left to chance."""
    return "".join("/" + quote(segment.encode() if isinstance(segment, str) else segment, safe="") for segment in segments)


@dataclass
class Response:
    status: int
    headers: list  # (name, value) as sent
    body: bytes
    took_s: float = 0.0
    request: str = field(default="", repr=False)

    def header(self, name):
        values = self.header_all(name)
        return values[0] if values else None

    def header_all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def json(self):
        return json.loads(self.body)

    def __str__(self):
        text = self.body.decode("utf-8", "replace")
        return f"{self.request} -> {self.status} {self.headers} {text if len(text) <= 400 else text[:400] + '...'}"


def check_headers(response):
    """What every answer carries, and what none does."""
    assert response.header_all("Content-Type") == [_JSON], f"Content-Type: {response}"
    assert response.header_all("X-Content-Type-Options") == ["nosniff"], f"nosniff: {response}"
    for name in ("Server", "Strict-Transport-Security", "X-Powered-By"):
        assert response.header(name) is None, f"{name} is sent: {response}"
    return response


def check_error(response, status, code, *in_message):
    """The error shape, to the letter; `code` may be None (any), `in_message` are parts of the message."""
    assert response.status == status, f"expected {status} {code}: {response}"
    check_headers(response)
    body = response.json
    assert set(body) == {"error", "message"}, f"the error shape: {response}"
    assert isinstance(body["error"], str) and isinstance(body["message"], str), f"the error shape: {response}"
    assert body["error"] and body["message"], f"an error says something: {response}"
    if code is not None:
        assert body["error"] == code, f"expected {code}: {response}"
    for part in in_message:
        assert part in body["message"], f"the message should hold {part!r}: {response}"
    return body["message"]


class Http:
    """An ordinary client; every answer's headers are checked."""

    def __init__(self, port, timeout_s=ANSWER_S):
        self.port = port
        self.timeout_s = timeout_s

    def request(self, method, path, body=None, headers=None, check=True):
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout_s)
        began = time.monotonic()
        try:
            connection.request(method, path, body, headers or {})
            raw = connection.getresponse()
            response = Response(raw.status, raw.getheaders(), raw.read(), time.monotonic() - began, f"{method} {path[:200]}")
        finally:
            connection.close()
        return check_headers(response) if check else response

    def get(self, path, **kwargs):
        return self.request("GET", path, **kwargs)

    def post(self, path, body, **kwargs):
        return self.request("POST", path, body, **kwargs)

    def delete(self, path, **kwargs):
        return self.request("DELETE", path, **kwargs)

    # The shop's vocabulary: each insists on success.

    def make_product(self, product):
        response = self.post("/products", product)
        assert response.status == 200, str(response)
        assert response.json == {"id": product["id"]}, str(response)
        return product

    def get_product(self, product_id):
        response = self.get(path_of("products", product_id))
        assert response.status == 200, str(response)
        return response.json

    def stock(self, product_id):
        return self.get_product(product_id)["in_stock"]

    def make_order(self, lines, headers=None):
        response = self.post("/orders", {"order_details": lines}, headers=headers)
        assert response.status == 200, str(response)
        body = response.json
        assert set(body) == {"id"} and type(body["id"]) is int, str(response)
        return body["id"]

    def get_order(self, order_id):
        response = self.get(f"/orders/{order_id}")
        assert response.status == 200, str(response)
        return response.json


class RawConnection:
    """A socket to the gateway; sends what it is told, reads one response after another."""

    def __init__(self, port, timeout_s=ANSWER_S):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self.ended = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Leave with an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)
        return self

    def send_tolerant(self, data):
        """Send to a peer that may hang up before it has read everything."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return self

    def _fill(self):
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.ended = True
        self._buffer += data
        return bool(data)

    def response(self, head=False):
        """The next response, or None when the server has hung up instead."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._fill():
                assert not self._buffer, f"the server hung up within a response: {self._buffer[:300]!r}"
                return None
        header, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = header.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:]]
        response = Response(status, headers, b"", 0, "raw")
        if status == 100:
            return response
        length = response.header("Content-Length")
        size = 0 if head or status in (204, 304) else int(length) if length is not None else None
        assert size is not None, f"no Content-Length: {response}"
        while len(self._buffer) < size:
            assert self._fill(), f"the server hung up within a body: {response} {self._buffer[:300]!r}"
        response.body, self._buffer = self._buffer[:size], self._buffer[size:]
        return response

    def hung_up(self):
        """Waits until the server closes; true when it did so in time and sent nothing more."""
        try:
            while self._fill():
                pass
        except socket.timeout:
            return False
        return not self._buffer

    @property
    def left_over(self):
        return self._buffer


def raw_request(method, path, body=None, headers=()):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


def raw_get(path):
    return f"GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode()


def requests_at_once(gateway, port, requests):
    """Requests of as many clients, which the gateway finds in one turn of its loop; their answers, in order."""
    connections = [RawConnection(port) for _ in requests]
    try:
        gateway.pause()
        try:
            for connection, request in zip(connections, requests):
                connection.send(request)
        finally:
            gateway.resume()
        return [connection.response() for connection in connections]
    finally:
        for connection in connections:
            connection.close()

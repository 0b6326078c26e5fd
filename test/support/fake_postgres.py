"""A PostgreSQL that does what no real one does: protocol version 3 by hand.

Without hooks it passes everything on to a real server.  A conversation is a start (encryption, login) and then units:
what the program sends up to a Sync, and what comes back up to its ReadyForQuery.  A unit is called by the prepared
statement that it runs, "prepare" or "ping".  A hook takes the place of the answer to one kind of unit:

    postgres.hooks["get"] = lambda link, unit: link.send(error("40001", "again") + ready())
    postgres.hooks["get"] = lambda link, unit: link.send(joined(link.ask(unit)[:-1]))
    postgres.hooks["encryption"], postgres.hooks["startup"]             the same, before the login
"""
import socket
import struct
from collections import deque

from .backing import host_and_port, uri_through
from .clock import ANSWER_S
from .fake import FakeServer, Gone, Link

SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
AUTHENTICATED = 0
AUTHENTICATION_STEPS = (3, 5, 10, 11)  # the program has to answer these
NULL = None


# ---- bytes ------------------------------------------------------------------------------------------------------


def message(kind, payload=b"", size=None):
    """`size` may lie; it counts itself."""
    return kind + struct.pack(">I", (len(payload) + 4 if size is None else size) & 0xFFFFFFFF) + payload


def error(code, text, severity="ERROR"):
    fields = ((b"S", severity), (b"V", severity), (b"C", code), (b"M", text))
    return message(b"E", b"".join(key + value.encode() + b"\0" for key, value in fields) + b"\0")


def notice(text):
    return message(b"N", error("00000", text, "NOTICE")[5:])


def ready(state=b"I"):
    return message(b"Z", state)


def authentication(code, rest=b""):
    return message(b"R", struct.pack(">I", code) + rest)


def description(columns):
    column = b"x\0" + struct.pack(">IhIhih", 0, 0, 23, 4, -1, 1)
    return message(b"T", struct.pack(">H", columns) + column * columns)


def row(*values):
    packed = [struct.pack(">i", -1) if one is NULL else struct.pack(">i", len(one)) + one for one in values]
    return message(b"D", struct.pack(">H", len(values)) + b"".join(packed))


def complete(tag=b"SELECT 1"):
    return message(b"C", tag + b"\0")


BOUND = message(b"2")


def joined(messages):
    return b"".join(message(kind, payload) for kind, payload in messages)


# ---- the server -------------------------------------------------------------------------------------------------


class PostgresLink(Link):
    def __init__(self, server, sock, number):
        super().__init__(server, sock, number)
        self.upstream = None

    def take_message(self):
        kind = self.take(1)
        return kind, self.take(struct.unpack(">I", self.take(4))[0] - 4)

    def upstream_message(self):
        kind, size = struct.unpack(">cI", self._upstream_bytes(5))
        return kind, self._upstream_bytes(size - 4)

    def _upstream_bytes(self, size):
        data = self.upstream_file.read(size)
        if len(data) < size:
            raise Gone
        return data

    def send_upstream(self, data):
        self.upstream.sendall(data)

    def ask(self, unit):
        """The real server's answer to a unit, message by message."""
        self.send_upstream(joined(unit))
        answer = []
        while not answer or answer[-1][0] != b"Z":
            answer.append(self.upstream_message())
        return answer

    # ---- the start

    def startup_packet(self):
        """Encryption is refused as often as it is asked for."""
        while True:
            size = struct.unpack(">I", self.take(4))[0]
            packet = self.take(size - 4)
            code = struct.unpack(">I", packet[:4])[0]
            if code == CANCEL_REQUEST:
                raise Gone
            if code not in (SSL_REQUEST, GSS_REQUEST):
                return struct.pack(">I", size) + packet
            self.server.heard.append("encryption")
            hook = self.server.hooks.get("encryption")
            if hook is not None:
                hook(self, packet)
            else:
                self.send(b"N")

    def log_in(self, packet):
        self.upstream = socket.create_connection(self.server.address, ANSWER_S)
        self.upstream_file = self.upstream.makefile("rb")
        self.send_upstream(packet)
        while True:
            kind, payload = self.upstream_message()
            self.send(message(kind, payload))
            if kind == b"R" and struct.unpack(">I", payload[:4])[0] in AUTHENTICATION_STEPS:
                self.send_upstream(message(*self.take_message()))
            elif kind == b"Z":
                return
            elif kind == b"E":
                raise Gone

    # ---- units

    def units(self):
        unit = []
        while True:
            kind, payload = self.take_message()
            if kind == b"X":
                return
            unit.append((kind, payload))
            if kind == b"S":
                yield unit
                unit = []

    def close_upstream(self):
        if self.upstream is not None:
            self.upstream_file.close()
            self.upstream.close()


def name_of(unit):
    for kind, payload in unit:
        if kind == b"P":
            return "prepare"
        if kind == b"B":
            return payload.split(b"\0")[1].decode()
    return "ping"


class FakePostgres(FakeServer):
    link_class = PostgresLink

    def __init__(self, uri):
        """`uri` is the real server's."""
        self.address = host_and_port(uri)
        self.hooks = {}
        self.heard = deque(maxlen=100_000)  # names of units
        super().__init__()
        self.uri = uri_through(uri, self.port)

    def serve(self, link):
        packet = link.startup_packet()
        self.heard.append("startup")
        hook = self.hooks.get("startup")
        if hook is not None:
            hook(link, packet)
        else:
            link.log_in(packet)
        for unit in link.units():
            name = name_of(unit)
            self.heard.append(name)
            hook = self.hooks.get(name)
            if hook is not None:
                hook(link, unit)
            else:
                link.send(joined(link.ask(unit)))

    def forget(self, link):
        link.close_upstream()

    def count(self, name):
        return list(self.heard).count(name)

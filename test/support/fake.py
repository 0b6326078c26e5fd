"""What the fake servers share: a port, a thread for each connection, and ways to misbehave that are no protocol's own."""
import socket
import struct
import threading
import time

from .clock import ANSWER_S, wait_until

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for 0 s: close() sends an RST


class Gone(Exception):
    """The program, or the test, has closed the connection."""


class Silence(Exception):
    """Raised by a hook: from here on this connection is read, and nothing is ever said."""


class Hangup(Exception):
    """Raised by a hook: the connection is closed here and now."""


class Link:
    """One accepted connection.  Several threads may send."""

    def __init__(self, server, sock, number):
        self.server = server
        self.socket = sock
        self.number = number  # 1 is the server's first
        self._send_lock = threading.Lock()
        self._buffer = b""

    def send(self, data):
        with self._send_lock:
            try:
                for piece in self.server.pieces(data):
                    self.socket.sendall(piece)
            except OSError:
                raise Gone from None

    def more(self):
        """Some more bytes."""
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            raise Gone
        return data

    def take(self, size):
        """So many bytes, as soon as they are there."""
        while len(self._buffer) < size:
            self._buffer += self.more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def take_line(self):
        """Up to CR LF, without these."""
        while b"\r\n" not in self._buffer:
            self._buffer += self.more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def swallow(self):
        """Read until the other side has had enough."""
        while True:
            self.more()

    def hang_up(self, reset=False):
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class FakeServer:
    """Listens on a port of its own on 127.0.0.1; a subclass's serve() has the conversation of one connection."""

    link_class = Link

    def __init__(self):
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.port = self._listener.getsockname()[1]
        self.accepted_at = []  # monotonic seconds
        self.links = []
        self.pieces = whole
        self.failures = []  # of the fake itself: a test that provoked one proves nothing
        self._closing = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def accepted(self):
        return len(self.accepted_at)

    def serve(self, link):
        raise NotImplementedError

    def forget(self, link):
        """The connection has ended."""

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted_at.append(time.monotonic())
            link = self.link_class(self, sock, self.accepted)
            self.links.append(link)
            threading.Thread(target=self._run, args=(link,), daemon=True).start()

    def _run(self, link):
        try:
            try:
                self.serve(link)
            except Silence:
                link.swallow()
        except (Gone, Hangup):
            pass
        except Exception as error:
            if not self._closing:
                self.failures.append(error)
        finally:
            self.links.remove(link)
            self.forget(link)
            link.hang_up()
            link.socket.close()

    def wait_accepted(self, count, deadline_s=ANSWER_S):
        wait_until(lambda: self.accepted >= count, f"{count} connections were made", deadline_s)

    def kick(self, reset=False):
        for link in list(self.links):
            link.hang_up(reset)

    def close(self):
        self._closing = True
        self._listener.close()
        self.kick()
        assert not self.failures, f"the fake itself failed: {self.failures!r}"


def whole(data):
    return (data,)


def byte_by_byte(data):
    """Each byte in a segment of its own."""
    return (data[at : at + 1] for at in range(len(data)))


# ---- hooks that are no protocol's own; what they get behind the link is not looked at ---------------------------------


def says(data):
    return lambda link, *_: link.send(data)


def says_and_ends(data):
    def hook(link, *_):
        link.send(data)
        raise Hangup

    return hook


def says_and_falls_silent(data):
    def hook(link, *_):
        link.send(data)
        raise Silence

    return hook


def silent(*_):
    raise Silence


def hang_up(*_):
    raise Hangup

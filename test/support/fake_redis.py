"""A Redis that does what no real one does: RESP by hand.

Without hooks each command goes to a real server, one after another, and its reply comes back as it is.
A hook takes the place of the reply to one command; what it returns is sent:

    redis.hooks["HMGET"] = lambda link, words: b"*-7\\r\\n"
    redis.hooks["*"] = lambda link, words: link.forward(words)        any command that has no hook of its own
    redis.on_connect = lambda link: ...                               before the first command
"""
import socket
from collections import deque
from urllib.parse import unquote, urlsplit, urlunsplit

from .backing import host_and_port
from .clock import ANSWER_S
from .fake import FakeServer, Gone, Link


def command_bytes(words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class _Upstream:
    """The real server; replies are passed on unread, but for their length."""

    def __init__(self, address, login):
        self.socket = socket.create_connection(address, ANSWER_S)
        self.file = self.socket.makefile("rb")
        reply = self.ask([b"AUTH", *login])
        assert reply == b"+OK\r\n", reply

    def ask(self, words):
        self.socket.sendall(command_bytes(words))
        return self.reply()

    def reply(self):
        line = self.file.readline()
        if not line:
            raise Gone
        kind, rest = line[:1], line[1:-2]
        if kind == b"$" and int(rest) >= 0:
            return line + self.file.read(int(rest) + 2)
        if kind == b"*" and int(rest) > 0:
            return line + b"".join(self.reply() for _ in range(int(rest)))
        return line

    def close(self):
        self.file.close()
        self.socket.close()


class RedisLink(Link):
    upstream = None

    def forward(self, words):
        """The real server's reply."""
        if self.upstream is None:
            self.upstream = _Upstream(self.server.address, self.server.login)
        return self.upstream.ask(words)

    def take_command(self):
        line = self.take_line()
        assert line[:1] == b"*", line
        words = []
        for _ in range(int(line[1:])):
            size = self.take_line()
            assert size[:1] == b"$", size
            words.append(self.take(int(size[1:]) + 2)[:-2])
        return words


class FakeRedis(FakeServer):
    link_class = RedisLink

    def __init__(self, uri):
        """`uri` is the real server's, with a login there; the fake itself wants none, and passes on whom a program names."""
        self.address = host_and_port(uri)
        parts = urlsplit(uri)
        self.login = [unquote(part).encode() for part in (parts.username, parts.password)]
        self.hooks = {}
        self.on_connect = None
        self.heard = deque(maxlen=100_000)  # commands
        super().__init__()
        self.uri = urlunsplit(parts._replace(netloc=f"127.0.0.1:{self.port}"))

    def serve(self, link):
        if self.on_connect is not None:
            self.on_connect(link)
        while True:
            words = link.take_command()
            name = words[0].decode().upper()
            self.heard.append(words)
            hook = self.hooks.get(name) or self.hooks.get("*")
            reply = hook(link, words) if hook is not None else link.forward(words)
            if reply:
                link.send(reply)

    def forget(self, link):
        if link.upstream is not None:
            link.upstream.close()

    def honest(self):
        self.hooks.clear()
        self.on_connect = None

    def count(self, name):
        return sum(words[0].upper() == name.encode() for words in list(self.heard))

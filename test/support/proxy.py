"""A TCP proxy between a program and its server, so that one link can be cut, stalled or muted alone."""
import selectors
import socket
import struct
import threading

_CHUNK = 65536
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close sends RST


class Proxy:
    """Forwards 127.0.0.1:port to a server.  Its port stays its own also while it is down.

    up        forwards
    down      refuses connections; those there were are reset
    stalled   accepts and keeps connections, forwards nothing (a host that hangs)
    muted     forwards requests, drops answers (an answer lost on the way)
    """

    def __init__(self, host, port, state="up"):
        self._target = (host, port)
        self._lock = threading.RLock()
        self._state = None
        self._listener = self._bound(0)
        self.port = self._listener.getsockname()[1]
        self._pairs = {}  # socket -> its other side
        self._clients = set()  # of these, the side of the program
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._closing = False
        self.bytes_muted = 0
        self._enter(state)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @staticmethod
    def _bound(port):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.setblocking(False)
        return listener  # bound but not listening: connections are refused, and nobody else gets the port

    def up(self):
        self._enter("up")

    def down(self):
        self._enter("down")

    def stall(self):
        self._enter("stalled")

    def mute(self):
        self._enter("muted")

    def close(self):
        self._enter("down")
        self._closing = True
        self._wake_write.send(b"x")
        self._thread.join(5)
        self._listener.close()

    def _enter(self, state):
        with self._lock:
            if state == self._state:
                return
            was, self._state = self._state, state
            if was == "muted":  # what was dropped cannot be given back: these streams are of no use any more
                for sock in list(self._pairs):
                    self._reset(sock)
            if state == "down":
                if was is not None:
                    self._selector.unregister(self._listener)
                    self._listener.close()
                    self._listener = self._bound(self.port)
                for sock in list(self._pairs):
                    self._reset(sock)
            elif was in (None, "down"):
                self._listener.listen(128)
                self._selector.register(self._listener, selectors.EVENT_READ)
            if state != "muted":
                self.bytes_muted = 0
            for sock in self._pairs:
                self._watch(sock)
        self._wake_write.send(b"x")

    def _watch(self, sock):
        wanted = self._state in ("up", "muted")
        registered = sock in self._selector.get_map()
        if wanted and not registered:
            self._selector.register(sock, selectors.EVENT_READ)
        elif registered and not wanted:
            self._selector.unregister(sock)

    def _reset(self, sock):
        other = self._pairs.pop(sock, None)
        if other is None:
            return  # its other side has taken it along
        del self._pairs[other]
        for one in (sock, other):
            self._clients.discard(one)
            if one in self._selector.get_map():
                self._selector.unregister(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            one.close()

    def _accept(self):
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._target, 5)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        for one in (client, server):
            one.setblocking(True)
            one.settimeout(10)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs[client], self._pairs[server] = server, client
        self._clients.add(client)
        self._watch(client)
        self._watch(server)

    def _forward(self, sock):
        try:
            data = sock.recv(_CHUNK)
            if data and self._state == "muted" and sock not in self._clients:
                self.bytes_muted += len(data)
                return
            if data:
                self._pairs[sock].sendall(data)
                return
        except OSError:
            pass
        self._reset(sock)

    def _run(self):
        while not self._closing:
            ready = self._selector.select(1)
            with self._lock:
                for key, _ in ready:
                    sock = key.fileobj
                    if sock is self._wake_read:
                        try:
                            self._wake_read.recv(4096)
                        except BlockingIOError:
                            pass
                    elif sock is self._listener:
                        try:
                            self._accept()
                        except OSError:
                            pass
                    elif sock in self._pairs and self._state in ("up", "muted"):
                        self._forward(sock)

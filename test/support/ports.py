"""Ports for programs that a test starts."""
import random
import socket

# Below the range from which the kernel takes ports for outgoing connections, and apart from those that the private servers
# (20000 and more) and chaos (12000 and more) choose from: between its choice and its use nobody gets one by accident.
LOWEST, HIGHEST = 10000, 11999

_given = set()


def free_port(count=1):
    """The first of `count` ports in a row that nobody listens on; none is given twice."""
    while True:
        first = random.randrange(LOWEST, HIGHEST + 2 - count)
        ports = set(range(first, first + count))
        if not ports & _given and all(is_free(port) for port in ports):
            _given.update(ports)
            return first


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
            return True
        except OSError:
            return False

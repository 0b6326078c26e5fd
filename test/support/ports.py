"""Ports for programs that tests, chaos and the benchmark start."""
import functools
import random
import socket

# Below the range from which the kernel takes ports for outgoing connections, and apart from those that the private servers
# (20000 and more) choose from: between its choice and its use nobody gets one by accident, and a program that starts again
# finds its own.
PORTS = range(10000, 20000)
PARTS = 12  # so many runs at a time

_given = set()


@functools.lru_cache(maxsize=None)
def _part():
    """The ports that this process alone chooses from, and what holds them: a name that the kernel gives to one socket only,
    and takes back with the process."""
    size = len(PORTS) // PARTS
    for number in range(PARTS):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0airship-test-ports-{number}")
            return PORTS[number * size : (number + 1) * size], claim
        except OSError:
            claim.close()
    raise RuntimeError(f"{PARTS} runs choose ports at the same time")


def free_port(count=1):
    """The first of `count` ports in a row that nobody listens on; none is given twice."""
    part, _ = _part()
    firsts = part[: len(part) - count + 1]
    for first in random.sample(firsts, len(firsts)):
        ports = set(range(first, first + count))
        if not ports & _given and all(is_free(port) for port in ports):
            _given.update(ports)
            return first
    raise RuntimeError(f"no {count} free ports in a row from {part.start} to {part.stop - 1}")


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
            return True
        except OSError:
            return False

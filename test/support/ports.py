"""Ports for programs that tests, chaos, the benchmark and the shell's scripts start.

    ports.py     prints a free port, from a range that only such calls choose from
"""
import functools
import random
import socket

# All below the range from which the kernel takes ports for outgoing connections: between its choice and its use nobody gets
# one by accident, and a program that starts again finds its own.
PORTS = range(10000, 19000)
SHELL_PORTS = range(19000, 20000)
SERVER_PORTS = range(20000, 32000)  # what dev_run_backingsvcs.sh chooses from, unless it is told of a part
PARTS = 12  # so many runs at a time

_given = set()


@functools.lru_cache(maxsize=None)
def _part():
    """The number of the part that this process alone chooses from, and what holds it: a name that the kernel gives to one
    socket only, and takes back with the process."""
    for number in range(PARTS):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0airship-test-ports-{number}")
            return number, claim
        except OSError:
            claim.close()
    raise RuntimeError(f"{PARTS} runs choose ports at the same time")


def _of_this_run(ports):
    number, _ = _part()
    size = len(ports) // PARTS
    return ports[number * size : (number + 1) * size]


def free_port(count=1):
    """The first of `count` ports in a row that nobody listens on; none is given twice."""
    return _free_port(_of_this_run(PORTS), count)


def server_ports():
    """Where the private servers of this run may listen, as SERVER_PORTS of dev_run_backingsvcs.sh."""
    part = _of_this_run(SERVER_PORTS)
    return f"{part.start}-{part.stop - 1}"


def _free_port(part, count):
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


if __name__ == "__main__":
    print(_free_port(SHELL_PORTS, 1))

#!/usr/bin/python3
"""Forwards the packets of links between network namespaces, and loses, delays, reorders or doubles them.

    packets.py NAME:END:END...     a link, and the two network interfaces that it joins

END is a veth whose other side is a program's (the first: "c2s" comes from there) or the servers' (the second).  Commands come as lines
of JSON on standard input, each answered by a line; the end of the input ends the process.  {"do": "set", "name": ..., "direction":
"c2s", "s2c" or "both", "loss": share, "ms": delay, "jitter_ms": ..., "double": share}; what is not named is as if nothing were broken.
A delay that differs from packet to packet reorders them.  It needs no module of the kernel's for this.
"""
import heapq
import itertools
import json
import random
import selectors
import socket
import sys
import time

ETH_P_ALL = 3
PACKET_OUTGOING = 4
FRAME_MAX = 65536
WAITING_MAX = 10_000  # packets that are being delayed; more are lost, as in any queue
BURST = 64  # packets of one interface before the next one has its turn


class Path:
    """One direction of a link."""

    def __init__(self, source, target):
        self.source, self.target = source, target
        self.enter({})

    def enter(self, settings):
        self.loss, self.double = settings.get("loss", 0), settings.get("double", 0)
        self.ms, self.jitter_ms = settings.get("ms", 0), settings.get("jitter_ms", 0)

    def delays_s(self):
        """When each copy of a packet is due; none: it is lost."""
        if self.loss and random.random() < self.loss:
            return ()
        count = 2 if self.double and random.random() < self.double else 1
        return [max(0, self.ms + random.uniform(-1, 1) * self.jitter_ms) / 1000 for _ in range(count)]


def open_interface(name):
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.bind((name, 0))
    sock.setblocking(False)
    return sock


class Bridge:
    def __init__(self, links):
        self.selector = selectors.DefaultSelector()
        self.paths = {}
        self.waiting, self.order = [], itertools.count()
        for name, one, other in links:
            ends = open_interface(one), open_interface(other)
            self.paths[name, "c2s"], self.paths[name, "s2c"] = Path(*ends), Path(*reversed(ends))
            for direction, sock in zip(("c2s", "s2c"), ends):
                self.selector.register(sock, selectors.EVENT_READ, self.paths[name, direction])
        self.selector.register(sys.stdin, selectors.EVENT_READ, None)

    def set(self, name, direction="both", **settings):
        for one in ("c2s", "s2c") if direction == "both" else (direction,):
            self.paths[name, one].enter(settings)

    @staticmethod
    def send(path, frame):
        try:
            path.target.send(frame)
        except OSError:
            pass  # the interface's queue is full, or its other side is gone: lost

    def take(self, path):
        for _ in range(BURST):
            try:
                frame, address = path.source.recvfrom(FRAME_MAX)
            except BlockingIOError:
                return
            except OSError:
                return
            if address[2] == PACKET_OUTGOING:
                continue
            for delay_s in path.delays_s():
                if delay_s == 0:
                    self.send(path, frame)
                elif len(self.waiting) < WAITING_MAX:
                    heapq.heappush(self.waiting, (time.monotonic() + delay_s, next(self.order), path, frame))

    def send_due(self):
        """What is due leaves; returns how long the next one has to wait."""
        now = time.monotonic()
        while self.waiting and self.waiting[0][0] <= now:
            _, _, path, frame = heapq.heappop(self.waiting)
            self.send(path, frame)
        return self.waiting[0][0] - now if self.waiting else None

    def run(self):
        while True:
            for key, _ in self.selector.select(self.send_due()):
                if key.data is not None:
                    self.take(key.data)
                    continue
                line = sys.stdin.readline()
                if not line:
                    return
                command = json.loads(line)
                command.pop("do")
                self.set(**command)
                print("{}", flush=True)


if __name__ == "__main__":
    Bridge([argument.rsplit(":", 2) for argument in sys.argv[1:]]).run()

#!/usr/bin/python3
"""All links between programs and servers, in one process: each a port of its own that forwards to a server and can be broken.

Commands come as lines of JSON on standard input, each answered by a line on standard output; the end of the input ends the
process.  A link's mode, in one direction ("c2s", "s2c") or "both":

up         forwards
cut        resets what there is and whoever connects
blackhole  keeps connections and what is sent on them, forwards nothing; what was kept arrives when the link heals
drop       loses what is sent; such a stream is of no use any more and is reset when the link heals
half-open  the server's side of what there is gets reset, the client's side hears nothing of it; new connections work
delay      each piece is `ms` late, give or take `jitter_ms`
slow       `rate` bytes a second
"""
import asyncio
import json
import random
import socket
import struct
import sys

CHUNK = 65536
CONNECT_TIMEOUT_S = 5
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close sends RST
MODES = ("up", "cut", "blackhole", "drop", "half-open", "delay", "slow")
DIRECTIONS = ("c2s", "s2c")


class Pair:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, client, server):
        self.writers = {"c2s": server, "s2c": client}
        self.is_lossy = False  # bytes were lost
        self.is_dead = False  # the server's side is gone and the client does not know

    def reset(self, directions=DIRECTIONS):
        for direction in directions:
            transport = self.writers[direction].transport
            sock = transport.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            transport.abort()

    def close(self):
        for writer in self.writers.values():
            writer.close()


class Link:
    def __init__(self, host, port):
        self.target = (host, port)
        self.mode, self.settings = "up", {}
        self.pairs = set()
        self.gates = {direction: asyncio.Event() for direction in DIRECTIONS}
        for gate in self.gates.values():
            gate.set()

    def _concerns(self, direction):
        return self.settings.get("direction", "both") in ("both", direction)

    def enter(self, mode, settings):
        assert mode in MODES, mode
        self.mode, self.settings = mode, settings
        for pair in list(self.pairs):
            if mode == "cut" or pair.is_lossy or pair.is_dead:
                pair.reset()
            elif mode == "half-open":
                pair.is_dead = True
                pair.reset(["c2s"])
        for direction, gate in self.gates.items():
            if mode == "blackhole" and self._concerns(direction):
                gate.clear()
            else:
                gate.set()

    def _pause_s(self, direction, size):
        if not self._concerns(direction):
            return 0
        if self.mode == "delay":
            ms = self.settings["ms"] + random.uniform(-1, 1) * self.settings.get("jitter_ms", 0)
            return max(0, ms) / 1000
        return size / self.settings["rate"] if self.mode == "slow" else 0

    async def _pump(self, pair, direction, reader):
        while True:
            await self.gates[direction].wait()
            data = await reader.read(CHUNK if self.mode != "slow" else 2048)
            await self.gates[direction].wait()
            if not data:
                return
            if pair.is_dead:
                continue
            if self.mode == "drop" and self._concerns(direction):
                pair.is_lossy = True
                continue
            pause_s = self._pause_s(direction, len(data))
            if pause_s:
                await asyncio.sleep(pause_s)
            writer = pair.writers[direction]
            writer.write(data)
            await writer.drain()

    async def _pump_to_the_end(self, pair, direction, reader):
        try:
            await self._pump(pair, direction, reader)
        except OSError:
            if not pair.is_dead:
                pair.reset()
        if not (pair.is_dead and direction == "s2c"):
            pair.close()

    async def on_client(self, reader, writer):
        if self.mode == "cut":
            Pair(writer, writer).reset(["s2c"])
            return
        try:
            server_reader, server = await asyncio.wait_for(asyncio.open_connection(*self.target), CONNECT_TIMEOUT_S)
        except (OSError, asyncio.TimeoutError):
            Pair(writer, writer).reset(["s2c"])
            return
        for one in (writer, server):
            one.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = Pair(writer, server)
        self.pairs.add(pair)
        if self.mode == "cut":  # since
            pair.reset()
        await asyncio.gather(
            self._pump_to_the_end(pair, "c2s", reader), self._pump_to_the_end(pair, "s2c", server_reader)
        )
        pair.close()
        self.pairs.discard(pair)


class Links:
    def __init__(self):
        self.links = {}

    async def listen(self, name, address, host, port):
        link = Link(host, port)
        server = await asyncio.start_server(link.on_client, address, 0)
        self.links[name] = link
        return {"port": server.sockets[0].getsockname()[1]}

    async def set(self, name, mode, **settings):
        self.links[name].enter(mode, settings)
        return {}

    async def count(self):
        return {name: len(link.pairs) for name, link in self.links.items()}


async def main():
    links = Links()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # streams that are reset while somebody writes to them
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        answer = await getattr(links, command.pop("do"))(**command)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

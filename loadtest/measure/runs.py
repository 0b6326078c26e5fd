"""The runs of a benchmark, one after the other, each checked before it counts."""
import os
import subprocess
import threading
import urllib.request
from contextlib import contextmanager, nullcontext

from . import data, invariants, load, machine, processes
from .ceilings import Commands, Database, Echo, Statements, redis_commands
from .figures import Measurements
from .peers import LOADS, PEERS
from .servers import CHECKOUT, Servers, Shop
from .terminal import note, note_end, say

PRODUCTS, ORDERS = 1000, 10_000  # what the shop holds, where its size is not the question
CAPTURE_S = 1
WARM_UP_S = 0.3
OPEN_LOOP_CONNECTIONS = 128
OPEN_LOOP_SHARES = (0.5, 0.8)  # of the peak
OPEN_LOOP_QUICK = ("get_product", "post_order")
SERVERS = ("rabbitmq", "redis", "postgres")
BATCH_CLIENTS = 4
# A difference of a few per cent needs many turns, short and close together: so many pairs of them in a repetition.
WATCHED_TURNS = 8
FLAT_TURNS = 5
TURN_S = 1
AWAKE_AT_MOST = 1  # connections: with more, there is always work for a processor
WORTHLESS_MAX = 10  # runs that went wrong; past that, it is not the run
SCRAPE_INTERVAL_S = 1
# The broker's ceilings: what is measured -> its program, and the way that its messages take.
ECHOES = {"ceiling": ("ceiling_echo", ()), "ceiling nameko": ("ceiling_echo", ("nameko",)), "rpclib": ("rpclib_echo", ())}
# Not asked at every number of connections, but at the fewest and the most.
ENDS_ONLY = ("rpclib", "constant", *(f"{peer} {name}" for peer in PEERS for name in LOADS))
# What is asked while this grows.
FLAT_LOADS = {
    "products": ("get_product", "post_order", "get_order"),
    "orders": ("get_order", "post_order", "list_orders"),
}


def flat_shops(sizes):
    """The smallest shop stands for both: (what is many, how many)"""
    return [("products", size) for size in sizes] + [("orders", size) for size in sizes[1:]]


def flat_room(axis, size):
    return f"{size}_{axis}"


def flat_pair(name, axis, size):
    """What a load of a shop of this size is called, and what the smallest shop's beside it."""
    return f"{name} of {size} {axis}", f"{name} beside {size} {axis}"


def in_turn(pair, number):
    """Who goes first goes second the next time."""
    return sorted(pair, reverse=number % 2 == 1)


class Worthless(Exception):
    """A run with a wrong answer, an error or a broken invariant: it does not count."""


class Bench:
    """Servers, shops and generators of one benchmark, and what was measured."""

    def __init__(self, servers, build_dir, directory, seconds, quick=False, generator="wrk", asleep=False):
        self.servers = servers
        self.build_dir = build_dir
        self.directory = directory
        self.seconds = seconds
        self.quick = quick  # leave out what tells least
        self.closed_by = generator
        self.asleep = asleep  # processors may sleep at any number of connections
        self.generator = load.Generator(build_dir, directory)
        self.measured = Measurements()
        self.shops = []
        self.echoes = {}
        self.commands = {}  # products' own, by name
        self.database = None
        self.checked = {"runs": 0, "answers": 0, "orders": 0}  # what was held to be right

    # ---- shops -------------------------------------------------------------------------------------------------

    def shop(self, shop):
        self.shops.append(shop)
        return shop.start(self.directory)

    @contextmanager
    def pair(self, *shops):
        """Two shops that are held against each other."""
        for shop in shops:
            self.shop(shop)
        yield shops
        for shop in shops:
            shop.stop()

    def stop(self):
        for echo in self.echoes.values():
            echo.stop()
        for shop in self.shops:
            shop.stop()

    def fill(self, shop, products=PRODUCTS, orders=ORDERS):
        """A shop with so much in it, and the requests that fit it."""
        data.fill(shop.room, products, orders)
        return self.workload(shop, products, orders)

    def workload(self, shop, products=PRODUCTS, orders=ORDERS):
        return load.Workload(shop, load.Ledger(products, orders), self.directory)

    # ---- one run -----------------------------------------------------------------------------------------------

    def awake(self, connections):
        """Where one request waits for the next, processors sleep between its steps; there they are kept from it."""
        wanted = connections <= AWAKE_AT_MOST and not self.asleep
        return machine.kept_awake(self.build_dir) if wanted else nullcontext()

    def _components(self, shop):
        components = {name: shop.pids(name) for name in shop.NAMES}
        components.update({name: self.servers.pids(name) for name in SERVERS})
        return components

    def load(self, workload, name, what, run, *arguments):
        """One run of a load.  One that went wrong does not count; the shop is filled anew, and the others go on."""
        try:
            self._load(workload, name, what, run, *arguments)
        except Worthless as worthless:
            self._worthless(what, arguments[0], str(worthless))
            data.fill(workload.shop.room, workload.ledger.products, workload.ledger.orders)
            workload.ledger = load.Ledger(workload.ledger.products, workload.ledger.orders)

    def _load(self, workload, name, what, run, *arguments):
        """Warmed up, its CPU time taken, its answers and the invariants checked."""
        shop = workload.shop
        connections = arguments[0]
        note(f"{what}, {connections} connections")
        with self.awake(connections):
            for_warmth = self.generator.closed_exact(workload, name, connections, WARM_UP_S)
            before = {part: processes.cpu_seconds(pids) for part, pids in self._components(shop).items()}
            result = run(workload, name, *arguments)
            after = {part: processes.cpu_seconds(pids) for part, pids in self._components(shop).items()}
        found = load.faults(for_warmth) + load.faults(result)
        if found:
            raise Worthless(f"{what}, {connections} connections: " + "; ".join(found))
        acknowledged = len(workload.ledger.ids)
        try:
            result["invariants"] = invariants.check(shop, workload.ledger)
        except invariants.Broken as broken:
            raise Worthless(f"{what}, {connections} connections: {broken}") from None
        self.checked["runs"] += 1
        self.checked["answers"] += int(result["answered"] + for_warmth["answered"])
        self.checked["orders"] += acknowledged
        result["cpu_us"] = {part: (after[part] - before[part]) * 1e6 / result["answered"] for part in after}
        result["cpu_us"]["generator"] = result.pop("generator_cpu_s") * 1e6 / result["answered"]
        result.pop("complaints", None)
        self.measured.add(what, connections, result)

    def closed(self, workload, name, connections, what=None, seconds=None):
        run = self.generator.closed if self.closed_by == "wrk" else self.generator.closed_exact
        self.load(workload, name, what or name, run, connections, seconds or self.seconds)

    def open(self, workload, name, share, peak, seconds=None):
        what = f"{name} at {share:.0%} of its peak"
        self.load(
            workload, name, what, self.generator.constant, OPEN_LOOP_CONNECTIONS, seconds or self.seconds, peak * share
        )

    # ---- ceilings ----------------------------------------------------------------------------------------------

    def prepare_ceilings(self, room, shop_of, python=()):
        """Echo servers, and what orders and products ask of their stores as a shop of one moment asks it; `shop_of` makes a
        shop in a room.  What a program of `python` asks is not measured."""
        for what, (program, way) in ECHOES.items():
            self.echoes[what] = Echo(program, way, room, self.build_dir, self.directory)
            self.echoes[what].start()
        statements = Statements(self.servers)
        data.fill(room, PRODUCTS, ORDERS)
        statements.switch(room, True)
        shop = shop_of(room)
        try:
            shop.start(self.directory)
            workload = self.workload(shop)
            statements.begin()
            with Commands(room, self.directory) as commands:
                for name, connections in (("post_order", 1), ("post_order", 64), ("get_order", 1)):
                    self.generator.closed_exact(workload, name, connections, CAPTURE_S)
                invariants.check(shop, workload.ledger)
        finally:
            shop.stop()
            statements.switch(room, False)
        if "products" not in python:
            self.commands = commands.read()
            data.fill_products(room, PRODUCTS)
        if "orders" not in python:
            self.database = Database(room, self.directory)
            self.database.prepare(statements.read(room), ORDERS)
        self.ceilings_room = room
        room.query("TRUNCATE orders, order_details, order_outbox, order_requests, order_idempotency")

    def ceiling(self, what, connections, measure):
        note(f"{what}, {connections}")
        try:
            with self.awake(connections):
                result = measure()
            self.measured.add(what, connections, result)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            self._worthless(what, connections, " ".join(str(error).split()))

    def _worthless(self, what, connections, why):
        note_end()
        say(f"THIS RUN IS WORTHLESS: {why}")
        self.measured.add(what, connections, {"worthless": why})
        if len(self.measured.worthless) > WORTHLESS_MAX:
            raise Worthless(why)

    def _is_asked(self, what, count, connections):
        return what not in ENDS_ONLY or count in (min(connections), max(connections))

    def _redis(self, words, pipelined):
        room = self.ceilings_room
        result = redis_commands(room, words, pipelined, 1, PRODUCTS)
        if words[0] == "EVALSHA":  # or millions of orders would be remembered
            data.fill_products(room, PRODUCTS)
        return result

    def _ceiling_steps(self, shop, connections):
        """The servers' own figures, as (what, connections, how)."""
        seconds = self.seconds
        for count in connections:
            for what in ECHOES:
                if self._is_asked(what, count, connections):
                    yield what, count, lambda what=what, count=count: self.echoes[what].measure(count, seconds)
        for name, words in self.commands.items():
            for pipelined in (False, True):
                yield (
                    f"redis {name}{' pipelined' if pipelined else ''}",
                    1,
                    lambda words=words, pipelined=pipelined: self._redis(words, pipelined),
                )
        database = self.database
        if database is None:
            return
        yield "postgres create_batch", BATCH_CLIENTS, lambda: database.measure("create_batch", BATCH_CLIENTS, seconds)
        yield "postgres select_one", 8, lambda: database.measure("select_one", 8, seconds, shop.room)
        if self.quick:
            return
        yield "postgres create_one", 1, lambda: database.measure("create_one", 1, seconds)
        yield "postgres create_one", 32, lambda: database.measure("create_one", 32, seconds)
        yield "postgres select_one", 1, lambda: database.measure("select_one", 1, seconds, shop.room)

    # ---- a repetition ------------------------------------------------------------------------------------------

    def repetition(self, number, parts, shop, connections, peers=()):
        """Everything once, in another order each time: what changes slowly on the machine falls on all alike.  `parts` are
        those of "ceilings", "shop", "open"; peers are asked the same as the shop."""
        workload = self.fill(shop)
        steps = []
        if "ceilings" in parts:
            steps = [(what, count, lambda s=(what, count, how): self.ceiling(*s))
                     for what, count, how in self._ceiling_steps(shop, connections)]
        workloads = [(workload, "")] if "shop" in parts or peers else []
        workloads += [(self.fill(shop_of_peer), f"{shop_of_peer.peer.name} ") for shop_of_peer in peers]
        for one, prefix in workloads:
            for name in one.loads():
                for count in connections:
                    if self._is_asked(prefix + name, count, connections):
                        steps.append((prefix + name, count, lambda w=one, n=name, c=count, p=prefix: self.closed(w, n, c, p + n)))
        # Those of one number of connections side by side, ceilings and loads in turn; each repetition begins elsewhere.
        steps.sort(key=lambda step: connections.index(step[1]) if step[1] in connections else -1)
        turn = (number * len(steps)) // 5 % len(steps) if steps else 0
        for _, _, step in steps[turn:] + steps[:turn]:
            step()
        if "open" in parts:
            self._open_loops(workload, max(connections))
        note_end()

    def _open_loops(self, workload, connections):
        """At shares of the closed loop's rate of this repetition, which is measured first where it was not."""
        for name in OPEN_LOOP_QUICK if self.quick else workload.loads():
            if name == "constant":
                continue
            if (name, connections) not in self.measured:
                self.closed(workload, name, connections)
            peaks = self.measured.values(name, connections, "rate")
            for share in OPEN_LOOP_SHARES if peaks else ():
                self.open(workload, name, share, peaks[-1])

    def starts(self, shop):
        """How long each program takes to be ready, and what it holds when nobody asks it for anything."""
        for name in shop.NAMES:
            took_s = shop.restart(name)
            idle = processes.resident_mib(shop.pids(name))
            self.measured.add(f"start {name}", 1, {"ready_ms": took_s * 1000, "idle_mib": idle})

    def peaks(self, shop):
        owner = f"{shop.peer.name} " if shop.peer else ""
        for name, mib in shop.resident_peak_mib().items():
            self.measured.add(f"memory {owner}{name}", 1, {"peak_mib": mib})

    # ---- flatness ----------------------------------------------------------------------------------------------

    def flatness(self, shop_of, sizes, repetitions, connections, seconds):
        """The same requests to shops that differ in one thing alone: how many products, or how many orders, they hold.
        All of them are there at the same time, and each is asked in turn with the smallest, the largest more often; `shop_of`
        makes a shop in the room of a name."""
        workloads = {}
        for axis, size in flat_shops(sizes):
            products, orders = (size, sizes[0]) if axis == "products" else (sizes[0], size)
            say(f"filling a shop with {products:,} products and {orders:,} orders")
            workloads[axis, size] = self.fill(self.shop(shop_of(flat_room(axis, size))), products, orders)
        smallest = workloads["products", sizes[0]]
        for number in range(repetitions):
            for axis, loads in FLAT_LOADS.items():
                for name in loads:
                    for size in sizes[1:]:
                        pair = dict(zip(flat_pair(name, axis, size), (workloads[axis, size], smallest)))
                        turns = FLAT_TURNS if size == sizes[-1] and not self.quick else 1
                        for turn in range(number, number + turns):
                            for what in in_turn(pair, turn):
                                self.closed(pair[what], name, connections, what, min(seconds, TURN_S))
        note_end()

    # ---- scale -------------------------------------------------------------------------------------------------

    def scale(self, shop, counts, repetitions, connections, seconds):
        """So many processes of each, at the same total of connections."""
        for _ in range(repetitions):
            for count in counts:
                shop.resize(count)
                workload = self.fill(shop)
                for name in ("get_product", "post_order", "get_order"):
                    self.closed(workload, name, connections, f"{name} by {count}", seconds)
        shop.resize(1)
        note_end()

    def quorum(self, classic, shop, repetitions, connections, seconds):
        """Two shops in turn that differ in the type of their queues alone."""
        queues = self.servers.rabbitmqctl("-q", "list_queues", "-p", shop.room.name, "name", "type")
        if "rpc-products\tquorum" not in queues:
            raise RuntimeError(f"the queues of {shop.room.name} are no quorum queues:\n{queues}")
        workloads = {"classic": self.fill(classic), "quorum": self.fill(shop)}
        for number in range(repetitions):
            for name in ("get_product", "post_order"):
                for kind in in_turn(workloads, number):
                    self.closed(workloads[kind], name, connections, f"{name} on {kind} queues", seconds)
        note_end()

    # ---- the cost of being watched -------------------------------------------------------------------------------

    def watched(self, shop, unwatched, repetitions, connections, seconds):
        """Two shops in turn: one logs, is asked for its metrics, and every request of it carries a trace context."""
        workloads = {"watched": self.fill(shop), "unwatched": self.fill(unwatched)}
        workloads["watched"].traced = True
        for number in range(WATCHED_TURNS * repetitions):
            for name in in_turn(workloads, number):
                with Scraper(workloads[name].shop.metrics_ports):
                    self.closed(workloads[name], "get_product", connections, f"get_product {name}", min(seconds, TURN_S))
        note_end()


@contextmanager
def one_shop(directory, name, peer=None):
    """Servers with one room and a shop in it, for tests; BUILD_DIR names the build folder."""
    for folder in (directory, *directory.parents[:2]):
        folder.chmod(0o755)  # PostgreSQL may run as another user
    servers = Servers(directory / "servers")
    bench = Bench(servers, (CHECKOUT / os.environ.get("BUILD_DIR", "build")).resolve(), directory, 1)
    try:
        servers.start()
        (room,) = servers.make_rooms([name])
        bench.shop(Shop(room, bench.build_dir, peer))
        yield bench
    finally:
        bench.stop()
        servers.stop()


class Scraper:
    """Asks for metrics as a Prometheus would, for as long as it is entered."""

    def __init__(self, ports):
        self.ports = ports
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self.ended.wait(SCRAPE_INTERVAL_S):
            for port in self.ports:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=SCRAPE_INTERVAL_S).read()
                except OSError:
                    pass  # a program that has no such port: the rate is what is measured here

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

#!/usr/bin/python3
"""make overload: what the shop does with twice the load that it can sustain.

For each kind of load it measures the peak (a closed loop, before and after), then offers twice that at a constant rate,
whatever the shop does, on as many connections as a gateway takes.  What is accepted must keep at least 80 % of the peak and be
answered before the deadline; what is refused must be refused at once, by 503 with Retry-After; memory must not grow; and
each order that was acknowledged must be there, once, and have lowered the stock once.

In the slow cases PostgreSQL sleeps, so that what is sustainable is little: there a line of as many as may be under way would
outlive the deadline.

Ends with a table and "N passed, N failed".  Exit codes: 0 none failed, 1 some did, 2 wrong usage, 3 packages are missing.
"""
import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / folder) for folder in ("loadtest", "test")]
sys.dont_write_bytecode = True

from support import packages  # noqa: E402

packages.require("overload", "psycopg2", "redis")

from measure import data, invariants, load, processes  # noqa: E402
from measure.servers import CHECKOUT, Servers, Shop  # noqa: E402
from measure.terminal import say, table  # noqa: E402
from measure.waiting import wait_until  # noqa: E402

SECONDS, SECONDS_QUICK = 20, 30  # quick: long beside the time that it takes to find out how much may wait
PRODUCTS, ORDERS = 1000, 2000
DEADLINE_MS = 5000  # RPC_TIMEOUT_MS of the gateway
FACTOR = 2  # of the peak is offered
PEAK_CONNECTIONS = 64  # of a store that is slow by the statement, so many answers at once are the most
CONNECTIONS = 1020  # what a gateway takes (CONNECTIONS_MAX), less those that a probe needs; more than its REQUESTS_MAX
GOODPUT_SHARE = 0.8  # of the peak
REFUSED_MS = 500  # "at once", on a machine on which everything waits for a processor
GROWTH_MIB = 16  # more than a program may weigh after it all than before; during it, twice that
WARM_UP_S = 1
SAMPLE_S = 0.1
IDLE_TIMEOUT_S = 60


class Workload(load.Workload):
    """Refusals are expected."""

    def plan(self, name):
        path = super().plan(name)
        path.write_text("refused 503\n" + path.read_text())
        return path


@dataclass(frozen=True)
class Case:
    name: str
    load: str
    slow_ms: int = 0  # PostgreSQL sleeps so long
    slow_by: str = "ROW"  # ... for each order; or for each STATEMENT, which may hold many
    is_quick: bool = False


CASES = (
    Case("GET product", "get_product"),
    Case("POST order", "post_order"),
    Case("mixed", "mixed"),
    Case("POST order, 20 ms each", "post_order", 20),
    Case("mixed, 20 ms an order", "mixed", 20),
    Case("POST order, 1 s a statement", "post_order", 1000, "STATEMENT", is_quick=True),
)


class Memory:
    """The most that each program held while the context lasted, sampled."""

    def __init__(self, shop):
        self.shop = shop
        self.most = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._over.wait(SAMPLE_S):
            for name, mib in self.shop.resident_mib().items():
                self.most[name] = max(self.most.get(name, 0), mib)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def slow_down(room, ms, by="ROW"):
    """Orders take PostgreSQL so much longer; no processor is used for it.  0: no longer."""
    room.query("DROP TRIGGER IF EXISTS slow ON orders")
    if ms:
        room.query(
            "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN PERFORM pg_sleep({ms / 1000}); RETURN NEW; END $$"
        )
        room.query(f"CREATE TRIGGER slow BEFORE INSERT ON orders FOR EACH {by} EXECUTE FUNCTION slow()")


@dataclass
class Measured:
    case: Case
    peaks: list
    result: dict
    cpu: list  # at the peak, under overload: what -> µs of processor time for each answer that was wanted
    before: dict
    during: dict
    after: dict

    @property
    def peak(self):
        return sum(self.peaks) / len(self.peaks)

    @property
    def goodput(self):
        return self.result["work_rate"]  # of what was not refused; a wrong answer fails the case by itself

    @property
    def share_by_cost(self):
        """What an answer costs the shop and its servers at the peak, as a share of what it costs them with all that is refused
        beside it: the goodput on a machine whose processors are full and that makes no load itself."""
        at_peak, overloaded = (sum(cost for name, cost in costs.items() if name != "generator") for costs in self.cpu)
        return at_peak / overloaded

    def failures(self):
        """What of the promise was not kept."""
        result = self.result
        # Where PostgreSQL sleeps, processors are no bound.
        share = self.goodput / self.peak if self.case.slow_ms else max(self.goodput / self.peak, self.share_by_cost)
        if share < GOODPUT_SHARE:
            yield f"goodput is {self.goodput:.0f}/s, {self.goodput / self.peak:.0%} of the peak, {self.share_by_cost:.0%} by cost"
        if result["p99_us"] > DEADLINE_MS * 1000:
            yield f"p99 of what was accepted is {result['p99_us'] / 1e6:.1f} s"
        if result["refused"] and result["refused_p99_us"] > REFUSED_MS * 1000:
            yield f"refused after {result['refused_p99_us'] / 1e6:.2f} s (p99)"
        for name in ("wrong", "failed", "unanswered"):
            if result[name]:
                yield f"{result[name]} {name}: {result['complaints'][:300]}"
        for name, mib in self.before.items():
            if self.during[name] > mib + 2 * GROWTH_MIB or self.after[name] > mib + GROWTH_MIB:
                yield f"{name} grew from {mib:.0f} to {self.during[name]:.0f} MiB, {self.after[name]:.0f} afterwards"

    def row(self):
        result = self.result
        memory = ", ".join(f"{self.before[n]:.0f} {self.during[n]:.0f} {self.after[n]:.0f}" for n in Shop.NAMES)
        return [
            self.case.name,
            f"{self.peak:.0f}/s",
            f"{result['offered']:.0f}/s",
            f"{self.goodput:.0f}/s ({self.goodput / self.peak:.0%})",
            f"{result['p50_us'] / 1000:.0f} ms",
            f"{result['p99_us'] / 1000:.0f} ms",
            f"{result['refused']:.0f}",
            f"{result['refused_p99_us'] / 1000:.0f} ms",
            f"{result['wrong']:.0f}",
            memory,
        ]


HEADINGS = ["load", "peak", "offered", "goodput", "p50 of 200s", "p99", "refused", "p99 of refusals", "other answers",
            "MiB before, during, after: products, orders, gateway"]  # fmt: skip


class Overload:
    def __init__(self, servers, build_dir, directory, seconds):
        self.shop = Shop(servers.make_rooms(["shop"])[0], build_dir, settings={"RPC_TIMEOUT_MS": str(DEADLINE_MS)})
        self.servers = servers
        self.descriptors = None  # of the gateway, without clients
        self.generator = load.Generator(build_dir, directory)
        self.directory, self.seconds = directory, seconds

    def _peak(self, workload, case):
        """In a closed loop.  What a machine can do varies: it is measured before and after."""
        self.generator.closed_exact(workload, case.load, PEAK_CONNECTIONS, WARM_UP_S)
        before = self._cpu()
        result = self.generator.closed_exact(workload, case.load, PEAK_CONNECTIONS, self.seconds / 2)
        costs = self._costs(before, result)
        rate = result["work_rate"]
        say(f"{case.name}: the peak is {rate:.0f}/s")
        if load.faults(result):
            raise RuntimeError(f"{case.name}, while the peak was measured: {load.faults(result)}")
        return rate, costs

    def _cpu(self):
        """What -> seconds of processor time so far."""
        pids = {name: self.shop.pids(name) for name in Shop.NAMES}
        pids.update({name: self.servers.pids(name) for name in ("rabbitmq", "redis", "postgres")})
        return {name: processes.cpu_seconds(of) for name, of in pids.items()}

    def _costs(self, before, result):
        good = max(1, result["answered"] - result["refused"] - result["wrong"])
        costs = {name: (seconds - before[name]) * 1e6 / good for name, seconds in self._cpu().items()}
        return {**costs, "generator": result["generator_cpu_s"] * 1e6 / good}

    def _descriptors(self):
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in processes.tree(self.shop.pids("gateway")))

    def _wait_idle(self, workload):
        """All is applied; and the gateway has seen its clients leave, or it would close some of the next ones as too many."""
        invariants.check(self.shop, workload.ledger)
        wait_until(lambda: self._descriptors() <= self.descriptors, "all connections are closed", IDLE_TIMEOUT_S)

    def run(self, case):
        if self.descriptors is None:
            self.descriptors = self._descriptors()
        data.fill(self.shop.room, PRODUCTS, ORDERS)
        workload = Workload(self.shop, load.Ledger(PRODUCTS, ORDERS), self.directory)
        slow_down(self.shop.room, case.slow_ms, case.slow_by)
        try:
            peak, cost = self._peak(workload, case)
            self._wait_idle(workload)
            before, cpu = self.shop.resident_mib(), self._cpu()
            with Memory(self.shop) as memory:
                result = self.generator.constant(workload, case.load, CONNECTIONS, self.seconds, FACTOR * peak)
            costs = [cost, self._costs(cpu, result)]
            say(f"{case.name}: {result['offered']:.0f}/s offered, {result['work_rate']:.0f}/s done")
            self._wait_idle(workload)
            after = self.shop.resident_mib()
            peaks = [peak, self._peak(workload, case)[0]]
            self._wait_idle(workload)
        finally:
            slow_down(self.shop.room, 0)
        return Measured(case, peaks, result, costs, before, memory.most, after)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help=f"how long twice the peak is offered ({SECONDS}; quick: {SECONDS_QUICK})")
    parser.add_argument("--quick", action="store_true", help="one case alone, in which PostgreSQL is slow")
    parser.add_argument("--case", action="append", help="only this one (several: again)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is stopped
    build_dir = (CHECKOUT / (os.environ.get("BUILD_DIR") or "build")).resolve()
    cases = [case for case in CASES if case.is_quick or not options.quick]
    seconds = options.seconds or (SECONDS_QUICK if options.quick else SECONDS)
    if options.case:
        cases = [case for case in cases if case.name in options.case]
    measured, failed, load_at_first = [], 0, os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="airship-overload-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # PostgreSQL may run as another user
        servers = Servers(directory / "servers")
        overload = None
        try:
            servers.start()
            overload = Overload(servers, build_dir, directory, seconds)
            overload.shop.start(directory)
            for case in cases:
                measured.append(overload.run(case))
        finally:
            if overload is not None:
                overload.shop.stop()
            servers.stop()
    print("\n" + table([one.row() for one in measured], HEADINGS) + "\n")
    names = list(measured[0].cpu[0]) if measured else []
    rows = [
        [one.case.name, *(f"{one.cpu[0][name]:.0f} {one.cpu[1][name]:.0f}" for name in names), f"{one.share_by_cost:.0%}"]
        for one in measured
    ]
    print(table(rows, ["µs of processor time for each 200, at the peak and under overload", *names, "without generator"]) + "\n")
    print(f"the machine: {os.cpu_count()} processors, load {load_at_first:.0f} at first, {os.getloadavg()[0]:.0f} at the end\n")
    for one in measured:
        for failure in one.failures():
            print(f"{one.case.name}: {failure}")
            failed += 1
    passed = sum(not list(one.failures()) for one in measured)
    print(f"{passed} passed, {len(measured) - passed} failed")
    return 1 if failed or not measured else 0


if __name__ == "__main__":
    sys.exit(main())

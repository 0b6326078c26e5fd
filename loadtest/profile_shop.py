#!/usr/bin/python3
"""Where the three programs' time goes under load: system calls, waits and allocations a request, their functions, and the
way of a request that is alone.

    loadtest/profile_shop.py [--connections N] [--seconds S]     Markdown; BUILD_DIR names the build folder (build)

For root, on Linux, with perf (package linux-perf): it counts the kernel's trace points and puts a probe on malloc(), calloc()
and realloc() of the C library, which it removes.  A probe costs more than what it counts: rates and CPU time are in bench.py's table.
Exit codes: 0 measured, 1 something went wrong, 2 wrong usage, 3 packages are missing, or perf may not be used here.
"""
import argparse
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "test")]
sys.dont_write_bytecode = True

from support import packages  # noqa: E402

packages.require("profile", "psycopg2", "redis")

from measure import load, processes  # noqa: E402
from measure.figures import median  # noqa: E402
from measure.runs import ORDERS, PRODUCTS, one_shop  # noqa: E402

LOADS = ("get_product", "get_order", "post_order")
BUSIEST = {"gateway": ("get_product", "post_order"), "products": ("get_product",), "orders": ("post_order", "get_order")}
ALLOCATORS = ("malloc", "calloc", "realloc")
SAMPLES_HZ = 1999
WARM_UP_S = 1
FUNCTIONS_SHOWN = 12
SYSTEM_CALLS_SHOWN = 6
PERF_MARGIN_S = 60
# Those that such programs make; whatever else they make is in the sum.
SYSTEM_CALLS = ("read", "write", "readv", "writev", "recvfrom", "recvmsg", "sendto", "sendmsg", "epoll_wait", "epoll_ctl", "poll",
                "accept4", "close", "futex", "brk", "mmap", "munmap", "madvise")
ALL_SYSTEM_CALLS = "raw_syscalls:sys_enter"
# What a request's way is seen by: a program sends, another one is woken by that.
PASSAGES = {"sys_enter_sendto": "sends", "sys_enter_write": "sends", "sys_exit_epoll_wait": "woken"}
CLIENTS_STEP = ("gateway sends", "gateway woken")  # between two requests
PASSAGE_LEAST = 0.5  # a request; what is rarer belongs to no request


def entering(system_call):
    """The trace point where it begins."""
    return f"syscalls:sys_enter_{system_call}"


class Unusable(Exception):
    """There is no perf, or it is not allowed to count here."""


def perf(*arguments, **options):
    return subprocess.run(["perf", *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)


def c_library():
    """The one that programs here use."""
    found = re.search(r"(/\S*libc\.so\.6)", Path("/proc/self/maps").read_text())
    if found is None:
        raise Unusable("the C library is not found")
    return found.group(1)


@contextmanager
def allocations_probed():
    """The names of the probes, while they are there."""
    events = [f"airship:{name}" for name in ALLOCATORS]
    try:
        for name in ALLOCATORS:
            added = perf("probe", "-q", "-x", c_library(), "-a", f"airship:{name}={name}")
            if added.returncode != 0:
                raise Unusable(f"perf cannot probe {name}(): {added.stderr.strip()}")
        yield events
    finally:
        perf("probe", "-q", "-d", "airship:*")


def counting(pids, events, run):
    """(event -> how often it came to pass, what `run` returned)"""
    command = ["perf", "stat", "-x", ";", "-p", ",".join(map(str, pids)), "-e", ",".join(events)]
    with tempfile.TemporaryFile("w+") as said:
        counter = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            result = run()
        finally:
            counter.send_signal(2)  # SIGINT: it says what it counted
            counter.wait(PERF_MARGIN_S)
        said.seek(0)
        lines = [line.split(";") for line in said.read().splitlines()]
    return {line[2]: int(line[0]) for line in lines if len(line) > 2 and line[0].isdigit()}, result


@contextmanager
def recording(path, pids, events, *options):
    """What `perf record` sees of the processes, while it is entered."""
    command = ["perf", "record", "-q", "-e", ",".join(events), *options, "-o", path, "-p", ",".join(map(str, pids))]
    recorder = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        recorder.send_signal(2)
        recorder.wait(PERF_MARGIN_S)


def samples(pids, run, directory):
    """[(share, library, function)] of where the processes were found."""
    path = directory / "perf.data"
    with recording(path, pids, ["cpu-clock"], "-F", SAMPLES_HZ):
        run()
    shown = perf("report", "-i", path, "--stdio", "--no-children", "--sort", "dso,symbol", "-t", ";", "-q", "--percentage", "relative")
    found = re.findall(r"^\s*([\d.]+)%\s*;([^;]*);\[([k.])\] (.*?)\s*(?:;.*)?$", shown.stdout, re.M)
    if not found:
        raise RuntimeError(f"perf report shows nothing:\n{shown.stderr[-2000:]}")
    return [(float(share), "kernel" if level == "k" else library.strip(), name) for share, library, level, name in found]


class Profile:
    def __init__(self, bench, workload, connections, seconds):
        self.bench = bench
        self.workload = workload
        self.connections = connections
        self.seconds = seconds

    def _pids(self, program):
        return sorted(processes.tree(self.workload.shop.pids(program)))

    def _run(self, name, connections):
        result = self.bench.generator.closed_exact(self.workload, name, connections, self.seconds)
        wrong = load.faults(result)
        if wrong:
            raise RuntimeError("; ".join(wrong))
        return result

    def _counts(self, program, name, connections, allocations):
        """event -> a request"""
        pids = self._pids(program)
        events = [*map(entering, SYSTEM_CALLS), ALL_SYSTEM_CALLS, "context-switches", *allocations]
        counts, result = counting(pids, events, lambda: self._run(name, connections))
        return {event: value / result["answered"] for event, value in counts.items()}

    def counts_table(self, allocations):
        lines = ["| request | program | system calls | context switches | allocations | which system calls |"]
        lines.append("| --- |" + " --- |" * 5)
        for connections in (1, self.connections):
            for name in LOADS:
                for program in self.workload.shop.NAMES:
                    if not (program == "orders" and name == "get_product"):
                        lines.append(self._counts_line(program, name, connections, allocations))
        return "\n".join(lines)

    def _counts_line(self, program, name, connections, allocations):
        counts = self._counts(program, name, connections, allocations)
        calls = {call: counts.get(entering(call), 0) for call in SYSTEM_CALLS}
        most = sorted(calls.items(), key=lambda call: -call[1])[:SYSTEM_CALLS_SHOWN]
        shown = ", ".join(f"{call} {value:.2f}" for call, value in most if value >= 0.005)
        allocated = sum(counts.get(event, 0) for event in allocations)
        return (
            f"| {load.TITLES[name]}, c={connections} | {program} | {counts[ALL_SYSTEM_CALLS]:.2f} |"
            f" {counts.get('context-switches', 0):.2f} | {allocated:.2f} | {shown} |"
        )

    def _passages(self, who, name):
        """[(time in us, program, what it did)] of requests one after the other."""
        path = self.bench.directory / "perf.data"
        with recording(path, who, [f"syscalls:{event}" for event in PASSAGES]), self.bench.awake(1):
            self._run(name, 1)
        shown = perf("script", "-i", path, "-F", "tid,time,event", "--ns")
        found = re.findall(r"^\s*(\d+)\s+([\d.]+):\s+syscalls:(\w+):", shown.stdout, re.M)
        return sorted((float(time) * 1e6, who[int(pid)], PASSAGES[event]) for pid, time, event in found)

    def way_table(self, name):
        """Each step's median; what lies between two programs of the shop is the broker's."""
        who = {pid: program for program in self.workload.shop.NAMES for pid in self._pids(program)}
        who.update({pid: "redis" for pid in self.bench.servers.pids("redis")})
        passages = self._passages(who, name)
        steps = {}
        for (before, *one), (after, *other) in zip(passages, passages[1:]):
            steps.setdefault((" ".join(one), " ".join(other)), []).append(after - before)
        requests = len(steps.get(CLIENTS_STEP, ()))
        lines = [f"| {load.TITLES[name]}, c=1: from | to | times a request | median, us |", "| --- |" + " --- |" * 3]
        for (one, other), times in sorted(steps.items(), key=lambda step: -median(step[1])):
            if len(times) >= PASSAGE_LEAST * requests:
                lines.append(f"| {one} | {other} | {len(times) / requests:.0f} | {median(times):.0f} |")
        return "\n".join(lines)

    def functions(self, program, name):
        found = samples(self._pids(program), lambda: self._run(name, self.connections), self.bench.directory)
        libraries = {}
        for share, library, _ in found:
            libraries[library] = libraries.get(library, 0) + share
        parts = ", ".join(f"{library} {share:.0f} %" for library, share in sorted(libraries.items(), key=lambda p: -p[1]) if share >= 1)
        most = [f"{function} {share:.1f}" for share, library, function in found if library != "kernel"]
        return f"| {program} | {load.TITLES[name]} | {parts} | {', '.join(most[:FUNCTIONS_SHOWN])} |"

    def functions_table(self):
        lines = ["| program | request | where it was found | of ours and the libraries', in per cent of all |", "| --- |" + " --- |" * 3]
        lines += [self.functions(program, name) for program, names in BUSIEST.items() for name in names]
        return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="Where the three programs' time goes under load.")
    parser.add_argument("--connections", type=int, default=64, metavar="N", help="beside one (64)")
    parser.add_argument("--seconds", type=int, default=3, metavar="S", help="of each run (3)")
    options = parser.parse_args()
    packages.require("profile", commands={"perf": "linux-perf"})
    try:
        with tempfile.TemporaryDirectory(prefix="airship-profile-") as directory, allocations_probed() as allocations:
            below = Path(directory) / "of" / "run"
            below.mkdir(parents=True)
            with one_shop(below, "profile") as bench:
                workload = bench.fill(bench.shops[0], PRODUCTS, ORDERS)
                profile = Profile(bench, workload, options.connections, options.seconds)
                for name in LOADS:
                    bench.generator.closed_exact(workload, name, options.connections, WARM_UP_S)
                print(profile.counts_table(allocations), flush=True)
                print(f"\n{profile.functions_table()}", flush=True)
                print(f"\n{profile.way_table('get_product')}")
    except Unusable as error:
        print(f"profile: {error}", file=sys.stderr)
        return 3
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        print(f"profile: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

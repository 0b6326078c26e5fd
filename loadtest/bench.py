#!/usr/bin/python3
"""The benchmark: what the shop does beside what its servers could, in one run on one machine.

    loadtest/bench.py            all of it                (make bench)
    loadtest/bench.py --only ceilings,shop                two parts of it
    loadtest/bench.py --quick    the same table in small  (make bench-quick)

BUILD_DIR names the build folder (build).  Servers and programs run on ports of their own, with their data in a folder
that is removed.  README.md beside this file says what is measured how.
Exit codes: 0 all was measured, whatever the figures; 1 a run was worthless (an error, a wrong answer, a broken
invariant: it does not count), or it was broken off (what was measured until then is shown); 2 wrong usage; 3 packages are missing; with --strict also 1 when a target is missed.
"""
import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "test")]
sys.dont_write_bytecode = True

from support import packages  # noqa: E402

COMMANDS = {
    "wrk": "wrk",
    "redis-cli": "redis-tools",
    "redis-benchmark": "redis-tools",
    "sqitch": "sqitch",
    "psql": "postgresql-client",
}
packages.require("bench", "psycopg2", "redis", commands=COMMANDS)

from measure import machine, peers  # noqa: E402
from measure.load import WrongAnswer  # noqa: E402
from measure.peers import NAMEKO_PYTHON, PEERS  # noqa: E402
from measure.report import Report  # noqa: E402
from measure.runs import AWAKE_AT_MOST, Bench, Worthless, flat_room, flat_shops  # noqa: E402
from measure.servers import CHECKOUT, FREE_PORT, Servers, Shop  # noqa: E402
from measure.terminal import say  # noqa: E402

PARTS = {
    "ceilings": "what the servers can do by themselves",
    "shop": "the shop's requests in a closed loop",
    "open": "at a constant rate",
    "peer": "the same shop on real Nameko and on Moleculer, and ours beside them",
    "watched": "the cost of logs, metrics and trace context",
    "scale": "several processes of each program",
    "quorum": "quorum queues beside classic ones",
    "flatness": "shops of several sizes",
}
BASE = ("ceilings", "shop", "open", "peer")  # measured in turn, in the same repetitions
NOT_QUICK = ("peer", "scale", "quorum")
SIZES = (1000, 10_000, 100_000, 1_000_000)
COUNTS = (1, 2, 4)
CONNECTIONS = (1, 8, 32, 64)
SIZES_QUICK = (1000, 10_000)
# What is measured in turn with something that differs in one thing alone: both begin anew, in rooms of their own.
PAIRS = {"watched": ("watched", "unwatched"), "quorum": ("classic", "quorum")}
# Everything that watches, off as far as the programs' settings go.
WATCHED = {"LOG_LEVEL": "info", "METRICS_PORT": FREE_PORT}
UNWATCHED = {"LOG_LEVEL": "error", "METRICS_PORT": ""}
AT_MOST_S, AT_MOST_QUICK_S = 3 * 3600, 600  # then it is given up
# What ends it early; what was measured until then is shown all the same.
GIVEN_UP = (Worthless, WrongAnswer, RuntimeError, OSError, TimeoutError, subprocess.TimeoutExpired)


def parts(text):
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part is called {unknown[0]!r}; there are: {', '.join(PARTS)}")
    return names


def numbers(text):
    values = tuple(int(part.replace("_", "")) for part in text.split(","))
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError("numbers from 1, with commas between them")
    return values


def arguments():
    parser = argparse.ArgumentParser(
        description="Measures the shop and its servers in one run.",
        epilog="The parts: " + "; ".join(f"{name}: {text}" for name, text in PARTS.items()) + ".  See loadtest/README.md.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one short repetition, without --scale, in under two minutes")
    add("--repetitions", type=int, metavar="N", help="how often each run is made (5; quick: 1)")
    add("--seconds", type=int, metavar="S", help="how long each run takes (3; quick: 1)")
    add("--connections", type=numbers, metavar="N,N", help="(1,8,32,64; quick: 1,64)")
    add("--only", type=parts, metavar="PART,PART", help="these parts alone (all; quick: without scale, quorum and peer)")
    add("--sizes", type=numbers, metavar="N,N", help="of flatness (1000,10000,100000,1000000; quick: 1000,10000)")
    add("--counts", type=numbers, default=COUNTS, metavar="N,N", help="of scale (1,2,4)")
    add("--without", type=parts, default=(), metavar="PART,PART", help="all but these")
    add("--peer", action="append", default=[], choices=PEERS, help="this one alone, of those that are measured beside ours")
    add("--python", action="append", default=[], choices=["products", "orders"], help="run this one on Nameko in our shop")
    add("--generator", choices=["wrk", "http_load"], default="wrk", help="of the closed loop (wrk)")
    add("--results", type=Path, default=HERE / "results", metavar="FOLDER", help="where the result goes")
    add("--asleep", action="store_true", help="let processors sleep at one connection too (they are kept awake there)")
    add("--keep", action="store_true", help="do not remove the run's folder: data and logs")
    add("--strict", action="store_true", help="exit code 1 also when a target is missed")
    options = parser.parse_args()
    options.repetitions = options.repetitions or (1 if options.quick else 5)
    options.seconds = options.seconds or (1 if options.quick else 3)
    options.connections = options.connections or ((1, 64) if options.quick else CONNECTIONS)
    options.sizes = options.sizes or (SIZES_QUICK if options.quick else SIZES)
    if options.repetitions < 1 or options.seconds < 1:
        parser.error("one repetition of one second is the least")
    chosen = options.only or tuple(part for part in PARTS if not (options.quick and part in NOT_QUICK))
    chosen += ("peer",) if options.peer and "peer" not in chosen else ()
    options.parts = [part for part in chosen if part not in options.without]
    if not options.parts:
        parser.error("no part is left")
    if options.python and not NAMEKO_PYTHON.exists():
        parser.error(f"{NAMEKO_PYTHON} is missing; test/interop/run.sh makes it")
    return options


def find_peers(options):
    """Those that are here, installed where they were not yet.  Without one the rest is measured, unless it was asked for by
    name; nor is there anything to compare when only peers were asked for and there are none."""
    if "peer" not in options.parts:
        return []
    found = []
    for peer in [PEERS[name] for name in dict.fromkeys(options.peer or PEERS)]:
        say(f"looking for {peer.title}")
        if peers.install(peer):
            found.append(peer)
        elif peer.name in options.peer:
            raise RuntimeError(f"there is no {peer.title} to measure (its words above)")
        else:
            say("there is none (its words above): it is not measured")
    if not found:
        if options.only:
            raise RuntimeError("there is no peer to measure (their words above)")
        options.parts.remove("peer")
    return found


def rooms_needed(options, found):
    names = ["shop", "ceilings"] + [room for part in options.parts for room in PAIRS.get(part, ())]
    names += [peer.name for peer in found]
    names += [flat_room(*shop) for shop in flat_shops(options.sizes)] if "flatness" in options.parts else []
    return names


def measure_base(options, bench, shop, rooms, shop_in, found):
    """Ceilings, the shop and its peers, in turn."""
    if "ceilings" in options.parts:
        say("taking down what orders and products ask of their stores")
        bench.prepare_ceilings(rooms["ceilings"], shop_in, options.python)
    shops = [bench.shop(Shop(rooms[peer.name], bench.build_dir, peer)) for peer in found]
    for number in range(options.repetitions):
        say(f"repetition {number + 1} of {options.repetitions}")
        bench.starts(shop)
        bench.repetition(number, options.parts, shop, list(options.connections), shops)
    for one in [shop, *shops]:
        bench.peaks(one)
    for one in shops:
        one.stop()


def measure(options, bench, servers, report):
    found = find_peers(options)
    names = rooms_needed(options, found)
    rooms = dict(zip(names, servers.make_rooms(names, quorum=("quorum",))))
    usual = (options.repetitions, max(options.connections), options.seconds)

    def shop_in(room, settings=None):
        return Shop(room, bench.build_dir, None, {**WATCHED, **(settings or {})}, options.python)

    report.machine = {**machine.describe(bench.build_dir), "processors_awake_at": 0 if options.asleep else AWAKE_AT_MOST}
    for peer in found:
        report.machine["versions"].update(peers.versions(peer))
    report.durability = machine.durability(rooms["shop"])
    shop = bench.shop(shop_in(rooms["shop"]))
    if any(part in options.parts for part in BASE):
        measure_base(options, bench, shop, rooms, shop_in, found)
    if "watched" in options.parts:
        say("the cost of logs, metrics and trace context")
        with bench.pair(shop_in(rooms["watched"]), shop_in(rooms["unwatched"], UNWATCHED)) as pair:
            bench.watched(*pair, *usual)
    if "scale" in options.parts:
        say("several processes of each")
        report.counts = list(options.counts)
        bench.scale(shop, options.counts, *usual)
    if "quorum" in options.parts:
        say("quorum queues beside classic ones")
        with bench.pair(shop_in(rooms["classic"]), shop_in(rooms["quorum"])) as pair:
            bench.quorum(*pair, *usual)
    shop.stop()
    if "flatness" in options.parts:
        report.sizes = list(options.sizes)
        bench.flatness(lambda name: shop_in(rooms[name]), options.sizes, *usual)


def leave(number, frame):
    raise KeyboardInterrupt


def give_up(number, frame):
    raise TimeoutError("it takes far longer than it should; something hangs")


def show(report, options, took_s, broken_off):
    """Writes and prints what was measured; returns the exit code."""
    more = {"broken_off": broken_off} if broken_off else {}
    name = f"{datetime.now(timezone.utc):%Y-%m-%dT%H%M}-{report.machine['commit']}{'-broken-off' if more else ''}.json"
    written = report.write(options.results / name, options=" ".join(sys.argv[1:]), seconds=took_s, **more)
    print(f"\n{report.table()}\n")
    for path in written:
        print(path)
    worthless = report.measured.worthless
    for text in worthless:
        print(f"THIS RUN WAS WORTHLESS: {text}")
    missed = [line.what for line in report.lines() if line.met is False]
    right = f"{len(worthless)} runs were worthless" if worthless else "every answer right, every invariant held"
    print(f"measured in {took_s} s; {right}; targets missed: {len(missed)}")
    return 1 if worthless or (missed and options.strict) else 0


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(AT_MOST_QUICK_S if options.quick else AT_MOST_S)
    build_dir = (CHECKOUT / os.environ.get("BUILD_DIR", "build")).resolve()
    directory = Path(tempfile.mkdtemp(prefix="airship-bench-"))
    directory.chmod(0o755)  # PostgreSQL may run as another user than the caller
    servers = Servers(directory / "servers")
    bench = Bench(servers, build_dir, directory, options.seconds, options.quick, options.generator, options.asleep)
    began = time.monotonic()
    code, report, broken_off = 1, None, None
    try:
        try:
            say("starting RabbitMQ, Redis and PostgreSQL")
            servers.start()
            report = Report(bench.measured, list(options.connections), bench.checked)
            measure(options, bench, servers, report)
        except GIVEN_UP as error:
            broken_off = str(error)
        except KeyboardInterrupt:
            broken_off = "stopped"
        if bench.measured.counted:
            code = show(report, options, round(time.monotonic() - began), broken_off)
        if broken_off:
            print(f"\nbench: {broken_off}", file=sys.stderr)
            code = 1
    finally:
        signal.alarm(0)
        bench.stop()
        servers.stop()
        if options.keep or code != 0:
            print(f"bench: data and logs are in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())

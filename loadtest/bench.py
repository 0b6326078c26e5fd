#!/usr/bin/python3
"""The benchmark: what the shop does beside what its servers could, in one run on one machine.

    loadtest/bench.py            all of it                (make bench)
    loadtest/bench.py --quick    the same table in small  (make bench-quick)

BUILD_DIR names the build folder (build).  Servers and programs run on ports of their own, with their data in a folder
that is removed.  README.md beside this file says what is measured how.
Exit codes: 0 all was measured, whatever the figures; 1 a run was worthless (an error, a wrong answer, a broken
invariant) or something did not start; 2 wrong usage; 3 packages are missing; with --strict also 1 when a target is missed.
"""
import argparse
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

PACKAGES = {"psycopg2": "python3-psycopg2", "redis": "python3-redis"}
TOOLS = {
    "wrk": "wrk",
    "redis-cli": "redis-tools",
    "redis-benchmark": "redis-tools",
    "sqitch": "sqitch",
    "psql": "postgresql-client",
}


def require_packages():
    missing = {package for tool, package in TOOLS.items() if shutil.which(tool) is None}
    missing |= {package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None}
    if missing:
        names = " ".join(sorted(missing))
        print(f"bench: not installed; run: sudo apt-get install --no-install-recommends {names}", file=sys.stderr)
        sys.exit(3)


require_packages()

from measure import machine  # noqa: E402
from measure.report import Report  # noqa: E402
from measure.runs import Bench, Worthless, flat_room, flat_shops  # noqa: E402
from measure.servers import CHECKOUT, FREE_PORT, NAMEKO_PYTHON, Servers, Shop  # noqa: E402
from measure.terminal import say  # noqa: E402

SIZES = (1000, 10_000, 100_000, 1_000_000)
COUNTS = (1, 2, 4)
CONNECTIONS = (1, 8, 32, 64)
SIZES_QUICK = (1000, 10_000)
# Everything that watches, off as far as the programs' settings go.
WATCHED = {"LOG_LEVEL": "info", "METRICS_PORT": FREE_PORT}
UNWATCHED = {"LOG_LEVEL": "error", "METRICS_PORT": ""}
AT_MOST_S, AT_MOST_QUICK_S = 3 * 3600, 600  # then it is given up
NAMEKO_SETTINGS = {"MAX_WORKERS": "100", "PREFETCH": "100", "POSTGRES_CONNECTIONS": "20"}


def numbers(text):
    values = tuple(int(part.replace("_", "")) for part in text.split(","))
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError("numbers from 1, with commas between them")
    return values


def arguments():
    parser = argparse.ArgumentParser(
        description="Measures the shop and its servers in one run.",
        epilog="The parts are --base, --flatness, --scale, --watched: all of them, unless some are named.  See loadtest/README.md.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one short repetition, without --scale, in under two minutes")
    add("--repetitions", type=int, metavar="N", help="how often each run is made (5; quick: 1)")
    add("--seconds", type=int, metavar="S", help="how long each run takes (4; quick: 1)")
    add("--connections", type=numbers, metavar="N,N", help="(1,8,32,64; quick: 1,64)")
    add("--base", action="store_true", help="ceilings and requests")
    add("--flatness", action="store_true", help="shops of several sizes")
    add("--sizes", type=numbers, metavar="N,N", help="of --flatness (1000,10000,100000,1000000; quick: 1000,10000)")
    add("--scale", action="store_true", help="several processes of each program, and quorum queues")
    add("--counts", type=numbers, default=COUNTS, metavar="N,N", help="of --scale (1,2,4)")
    add("--watched", action="store_true", help="the cost of logs, metrics and trace context")
    add("--peer", choices=["nameko"], help="in --base also the same shop on real Nameko, which test/interop/run.sh makes")
    add("--python", action="append", default=[], choices=["products", "orders"], help="run this one on Nameko in our shop")
    add("--generator", choices=["wrk", "http_load"], default="wrk", help="of the closed loop (wrk)")
    add("--results", type=Path, default=HERE / "results", metavar="FOLDER", help="where the result goes")
    add("--keep", action="store_true", help="do not remove the run's folder: data and logs")
    add("--strict", action="store_true", help="exit code 1 also when a target is missed")
    options = parser.parse_args()
    options.repetitions = options.repetitions or (1 if options.quick else 5)
    options.seconds = options.seconds or (1 if options.quick else 4)
    options.connections = options.connections or ((1, 64) if options.quick else CONNECTIONS)
    options.sizes = options.sizes or (SIZES_QUICK if options.quick else SIZES)
    if options.repetitions < 1 or options.seconds < 1:
        parser.error("one repetition of one second is the least")
    if not (options.base or options.flatness or options.scale or options.watched):
        options.base = options.flatness = options.watched = True
        options.scale = not options.quick
    if (options.peer or options.python) and not NAMEKO_PYTHON.exists():
        parser.error(f"{NAMEKO_PYTHON} is missing; test/interop/run.sh makes it")
    return options


def rooms_needed(options):
    names = ["shop", "ceilings"]
    names += ["peer"] if options.peer else []
    names += ["unwatched"] if options.watched else []
    names += ["quorum"] if options.scale else []
    names += [flat_room(*shop) for shop in flat_shops(options.sizes)] if options.flatness else []
    return names


def measure(options, bench, servers):
    names = rooms_needed(options)
    rooms = dict(zip(names, servers.make_rooms(names, quorum=("quorum",))))
    most = max(options.connections)

    def shop_in(room, settings=None):
        return Shop(room, bench.build_dir, "airship", {**WATCHED, **(settings or {})}, options.python)

    described = machine.describe(bench.build_dir)
    report = Report(bench.measured, list(options.connections), described, machine.durability(rooms["shop"]))
    shop = bench.shop(shop_in(rooms["shop"]))
    if options.base:
        say("taking down orders' statements")
        bench.prepare_ceilings(rooms["ceilings"], shop_in, with_database="orders" not in options.python)
        peer = bench.shop(Shop(rooms["peer"], bench.build_dir, "nameko", NAMEKO_SETTINGS)) if options.peer else None
        for number in range(options.repetitions):
            say(f"repetition {number + 1} of {options.repetitions}")
            bench.starts(shop)
            bench.repetition(number, shop, list(options.connections), peer)
        bench.peaks(shop)
        if peer is not None:
            peer.stop()
    if options.watched:
        say("the cost of logs and metrics")
        unwatched = bench.shop(shop_in(rooms["unwatched"], UNWATCHED))
        bench.watched(shop, unwatched, options.repetitions, most, options.seconds)
        unwatched.stop()
    if options.scale:
        say("several processes of each")
        report.counts = list(options.counts)
        bench.scale(shop, options.counts, options.repetitions, most, options.seconds)
        replicated = bench.shop(shop_in(rooms["quorum"]))
        bench.quorum(replicated, options.repetitions, most, options.seconds)
        replicated.stop()
    shop.stop()
    if options.flatness:
        report.sizes = list(options.sizes)
        bench.flatness(lambda name: shop_in(rooms[name]), options.sizes, options.repetitions, most, options.seconds)
    return report


def leave(number, frame):
    raise KeyboardInterrupt


def give_up(number, frame):
    raise TimeoutError("it takes far longer than it should; something hangs")


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(AT_MOST_QUICK_S if options.quick else AT_MOST_S)
    build_dir = (CHECKOUT / os.environ.get("BUILD_DIR", "build")).resolve()
    directory = Path(tempfile.mkdtemp(prefix="airship-bench-"))
    directory.chmod(0o755)  # PostgreSQL may run as another user than the caller
    servers = Servers(directory / "servers")
    bench = Bench(servers, build_dir, directory, options.seconds, options.quick, options.generator)
    began = time.monotonic()
    code = 1
    try:
        say("starting RabbitMQ, Redis and PostgreSQL")
        servers.start()
        report = measure(options, bench, servers)
        name = f"{datetime.now(timezone.utc):%Y-%m-%dT%H%M}-{report.machine['commit']}.json"
        took_s = round(time.monotonic() - began)
        charts = report.write(options.results / name, options=" ".join(sys.argv[1:]), seconds=took_s)
        print()
        print(report.table())
        print()
        for path in (options.results / name, *charts):
            print(path)
        missed = [line.what for line in report.lines() if line.met is False]
        print(f"measured in {took_s} s; every answer right, every invariant held; targets missed: {len(missed)}")
        code = 1 if missed and options.strict else 0
    except Worthless as worthless:
        print(f"\nbench: THIS RUN IS WORTHLESS: {worthless}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nbench: stopped", file=sys.stderr)
    except (RuntimeError, FileNotFoundError, TimeoutError) as error:
        print(f"\nbench: {error}", file=sys.stderr)
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

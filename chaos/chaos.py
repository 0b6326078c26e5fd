#!/usr/bin/python3
"""make chaos: the whole shop under load while a nemesis breaks it, and a checker that says what was lost.  See README.md.

Exit codes: 0 every invariant held, 1 one did not or there were too few faults, 2 wrong usage, 3 packages are missing."""
import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "test")]

from support import packages  # noqa: E402

SANITIZED_TIME_SCALE = "2"  # sanitizers make everything about so much slower
SANITIZERS = {  # a report ends the program; a small quarantine, so that memory that grows is seen
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:quarantine_size_mb=16",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180, help="how long faults are injected (180)")
    parser.add_argument("--seed", type=int, help="the nemesis's schedule comes from it alone; random if not given")
    parser.add_argument(
        "--least-faults", type=int, metavar="N", help="a run with fewer goes on, for a while, and then fails (one for each 15 s)"
    )
    parser.add_argument("--fault", action="append", default=[], metavar="ID", help="this one alone, such as F16 (several: again)")
    parser.add_argument("--report", type=Path, help="a folder for report.json, history.jsonl and all logs")
    parser.add_argument("--show-schedule", type=int, metavar="ROUNDS", help="print the seed's first rounds and leave")
    options = parser.parse_args()
    if options.seconds <= 0 or (options.least_faults is not None and options.least_faults < 1):
        parser.error("a time and a number of faults are more than 0")
    return options


def sanitized_build():
    build = Path(os.environ.get("BUILD_DIR") or "build")
    program = (build if build.is_absolute() else HERE.parent / build) / "products" / "products"
    return program.exists() and b"__asan_init" in program.read_bytes()


def prepare_sanitizers(environment):
    """Before anything reads it.  Of an option that is given twice the last one counts: the caller's wins, and the others stay."""
    environment.setdefault("TIME_SCALE", SANITIZED_TIME_SCALE)
    for name, ours in SANITIZERS.items():
        theirs = environment.get(name, "")
        if not theirs.startswith(ours):  # the run that was started again inside namespaces has them
            environment[name] = f"{ours}:{theirs}" if theirs else ours


def run(options, seed, sanitized):
    from harness import checker, evidence, limits, report
    from harness.faults import Stage
    from harness.history import History
    from harness.load import Load
    from harness.nemesis import Nemesis, least_faults
    from harness.probes import Prober
    from harness.system import System

    began = time.monotonic()
    least = options.least_faults or least_faults(options.seconds)

    def say(text):
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="airship-chaos-") as directory:
        system = System(directory)
        try:
            system.start()
            say("the shop runs")
            for what, why in system.lacks.items():
                say(f"left out, what needs {what}: {why}")
            history = History()
            load = Load(system, history, seed)
            stage = Stage(system, load, history)
            nemesis = Nemesis(stage, seed, options.fault, say)
            prober = Prober(system)
            load.start()
            prober.start()
            time.sleep(limits.WARMUP_S)
            load.rest()
            baseline = system.weights()
            load.resume()
            nemesis.run(options.seconds, least)
            say("all faults are over")
            system.heal()
            afterwards = time.monotonic()
            time.sleep(limits.AFTERWARDS_S)
            afterwards_until = time.monotonic()
            load.rest()
            prober.stop()
            load.resolve(time.monotonic() + limits.RECOVERY_S)
            load.stop()
            evidence.wait_settled(system, load, stage)
            say("at rest")
            seen = evidence.collect(system, load, stage, nemesis, prober)
            seen.baseline, seen.at_rest = baseline, system.weights()
            seen.afterwards, seen.afterwards_until = afterwards, afterwards_until
            seen.sanitized = sanitized
            system.stop()
            seen.exits, seen.reports = system.exits, system.reports()
        finally:
            if options.report:
                options.report.mkdir(parents=True, exist_ok=True)
                system.keep_logs(options.report)
            system.close()
    ops = history.ops
    found = checker.check(ops, seen)
    table = list(report.rows(nemesis.struck, ops, found))
    print()
    report.print_table(table)
    looked_at = checker.looked_at(ops, seen)
    report.print_invariants(found, looked_at)
    passed, failed = report.count(table, found, looked_at, least)
    about = {
        "seed": seed,
        "seconds": options.seconds,
        "began": began,
        "sanitized": sanitized,
        "baseline": baseline,
        "at_rest": seen.at_rest,
        "least_faults": least,
        "looked_at": {name: report.in_words(counts) for name, counts in looked_at.items()},
        "nothing_to_look_at": report.without_anything(found, looked_at),
    }
    if options.report:
        report.save(options.report, about, table, found, ops)
        history.save(options.report / "history.jsonl")
    print(f"\nseed {seed}, {len(table)} faults, {len(ops)} requests")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def show_schedule(seed, rounds, ids):
    from harness.nemesis import schedule

    for _, planned in zip(range(rounds), schedule(seed, ids)):
        print(" + ".join(f"{one}, after {one.after_s:.1f} s for {one.lasts_s:.1f} s" for one in planned))


def main():
    options = arguments()
    packages.require("chaos", "pika", "psycopg2", "redis")
    sanitized = sanitized_build()
    if sanitized:
        prepare_sanitizers(os.environ)
    seed = os.environ.get("AIRSHIP_CHAOS_SEED", options.seed)  # a run that was started again inside namespaces keeps its own
    seed = random.SystemRandom().randrange(1, 1_000_000) if seed is None else int(seed)
    if options.show_schedule:
        show_schedule(seed, options.show_schedule, options.fault)
        return 0
    from harness import namespaces

    os.environ["AIRSHIP_CHAOS_SEED"] = str(seed)
    namespaces.enter()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is stopped
    print(f"seed {seed}", flush=True)
    return run(options, seed, sanitized)


if __name__ == "__main__":
    sys.exit(main())

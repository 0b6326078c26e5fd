#!/usr/bin/python3
"""The guard against slowing down: instructions a request of the hot paths, counted by callgrind against recorded budgets.

    loadtest/instructions.py                 check; ends with "N passed, N failed"
    loadtest/instructions.py --record        write what is counted now into instructions.json as the new budgets
    loadtest/instructions.py --profile CASE  where a case's instructions go, function by function

Each case is a program that plays its own servers, so that nothing but it and valgrind is needed and the same sources give the
same count on any machine with the same packages.  More than TOLERANCE above its budget fails; more than that below it
passes and asks for a new record, so that the gain is kept.
Exit codes: 0 all within their budgets, 1 some are not, 2 wrong usage, 3 packages are missing
"""
import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent
sys.path.insert(0, str(CHECKOUT / "test"))
sys.dont_write_bytecode = True

from support import packages  # noqa: E402

COMMANDS = {"valgrind": "valgrind", "ninja": "ninja-build"}
BUILD_DIR = CHECKOUT / ".run" / "instructions"
BUDGETS = HERE / "instructions.json"
TOLERANCE = 0.05
REQUESTS = 960
COUNTED_IN = "drive_measured"
LINES_SHOWN = 40
TIMEOUT_S = 300

# name -> (program, case, requests under way at once)
CASES = {
    "rpclib: a call and its answer, alone": ("drive_rpclib", "call", 1),
    "rpclib: a call and its answer, 16 at once": ("drive_rpclib", "call", 16),
    "rpclib: a request and its answer, alone": ("drive_rpclib", "answer", 1),
    "rpclib: a request and its answer, 16 at once": ("drive_rpclib", "answer", 16),
    "rpclib: an event and its confirm, 16 at once": ("drive_rpclib", "publish", 16),
    "products: get, alone": ("drive_products", "get", 1),
    "products: get, 16 at once": ("drive_products", "get", 16),
    "products: exists, 16 at once": ("drive_products", "exists", 16),
    "products: order_created, 16 at once": ("drive_products", "order_created", 16),
    "orders: a new order of one line read": ("drive_orders", "read", 1),
    "orders: an order of one line printed": ("drive_orders", "print", 1),
    "gateway: a request's head guarded": ("drive_gateway", "guard", 1),
    "gateway: a product checked and handed on": ("drive_gateway", "product", 1),
    "gateway: an order of one line put together": ("drive_gateway", "order", 1),
    "gateway: a page of 50 orders cut": ("drive_gateway", "page", 1),
}


def run(*command, **options):
    return subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, timeout=TIMEOUT_S, **options)


def build():
    """A build of its own, always optimised and never sanitized, whatever the caller's build folder is."""
    programs = sorted({f"loadtest/{program}" for program, _, _ in CASES.values()})
    meson = "/usr/bin/meson" if Path("/usr/bin/meson").exists() else "meson"
    steps = [["ninja", "-C", BUILD_DIR, *programs]]
    if not (BUILD_DIR / "build.ninja").exists():
        steps.insert(0, [meson, "setup", "--buildtype=debugoptimized", BUILD_DIR, CHECKOUT])
    for step in steps:
        result = run(*step, capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"instructions: {step[0]} failed:\n{(result.stdout + result.stderr)[-3000:]}")


def count(name, output):
    """Instructions a request."""
    program, case, at_once = CASES[name]
    result = run(
        "valgrind", "--tool=callgrind", "--collect-atstart=no", f"--toggle-collect={COUNTED_IN}",
        f"--callgrind-out-file={output}", BUILD_DIR / "loadtest" / program, case, REQUESTS, at_once,
        capture_output=True, text=True,
    )
    if result.returncode != 0:
        raise RuntimeError(result.stderr[-2000:])
    total = re.search(r"^(?:summary|totals): (\d+)", output.read_text(), re.M)
    if total is None or int(total.group(1)) == 0:
        raise RuntimeError(f"callgrind counted nothing in {COUNTED_IN}()")
    return round(int(total.group(1)) / REQUESTS)


def counted():
    """name -> instructions a request, or None where it could not be counted."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="instructions-") as directory:
        for name in CASES:
            try:
                found[name] = count(name, Path(directory) / "out")
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                print(f"FAIL {name}: {error}")
                found[name] = None
    return found


def check():
    budgets = json.loads(BUDGETS.read_text())["instructions"] if BUDGETS.exists() else {}
    passed = failed = 0
    for name, instructions in counted().items():
        budget = budgets.get(name)
        if instructions is None:
            failed += 1
            continue
        if budget is None:
            print(f"FAIL {name}: {instructions:,}, and no budget is recorded")
            failed += 1
            continue
        change = instructions / budget - 1
        text = f"{name}: {instructions:,} instructions, budget {budget:,} ({change * 100:+.1f} %)"
        if change > TOLERANCE:
            print(f"FAIL {text}")
            failed += 1
        else:
            print(f"ok   {text}" + ("; record the gain: loadtest/instructions.py --record" if change < -TOLERANCE else ""))
            passed += 1
    for name in sorted(set(budgets) - set(CASES)):
        print(f"FAIL {name}: a budget without a case")
        failed += 1
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and passed > 0 else 1


def record():
    found = counted()
    if None in found.values():
        return 1
    compiler = run("gcc", "-dumpfullversion", capture_output=True, text=True).stdout.strip()
    BUDGETS.write_text(json.dumps({"compiler": f"gcc {compiler}", "instructions": found}, indent=1) + "\n")
    for name, instructions in found.items():
        print(f"{name}: {instructions:,}")
    return 0


def profile(name):
    with tempfile.TemporaryDirectory(prefix="instructions-") as directory:
        output = Path(directory) / "out"
        total = count(name, output)
        shown = run("callgrind_annotate", "--auto=no", "--threshold=100", output, capture_output=True, text=True).stdout
    functions = []  # (instructions, function, library)
    for line in shown.splitlines():
        match = re.match(r"\s*([\d,]+) \([ \d.]+%\)\s+(?:\S*:)?(.*?)(?: \[(.*)\])?$", line)
        if match and "PROGRAM TOTALS" not in line:
            own, function, library = match.groups()
            functions.append((int(own.replace(",", "")), function, Path(library or "?").name))
    libraries = {}
    for own, _, library in functions:
        libraries[library] = libraries.get(library, 0) + own
    print(f"{name}: {total:,} instructions a request")
    for library, own in sorted(libraries.items(), key=lambda pair: -pair[1]):
        print(f"  {own / REQUESTS:9,.0f}  all of {library}")
    for own, function, library in functions[:LINES_SHOWN]:
        print(f"  {own / REQUESTS:9,.0f}  {function} [{library}]")
    return 0


def main():
    parser = argparse.ArgumentParser(description="Instructions a request against recorded budgets.")
    parser.add_argument("--record", action="store_true", help="write the budgets")
    parser.add_argument("--profile", metavar="CASE", help="show where a case's instructions go")
    options = parser.parse_args()
    packages.require("instructions", commands=COMMANDS)
    matches = [name for name in CASES if options.profile and options.profile in name]
    if options.profile and not matches:
        parser.error("CASE is one of: " + "; ".join(CASES))
    build()
    if options.profile:
        return max(profile(name) for name in matches)
    return record() if options.record else check()


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3
"""Do two results agree?  Their rates, and their shares of the ceiling of the same repetition, side by side.

    loadtest/agree.py loadtest/results/<one>.json loadtest/results/<other>.json

Two figures agree when the ranges of their repetitions overlap.  Of two runs that differ by chance alone some do not; how
many is said, for the number of repetitions that there were.
Exit codes: 0 compared, 1 a result cannot be read or they have nothing in common, 2 wrong usage.
"""
import argparse
import json
import math
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from measure.figures import Measurements, count, median  # noqa: E402
from measure.terminal import table  # noqa: E402

HEADINGS = ["figure", "one", "other", "other / one", "agree", "one's share", "other's share", "agree"]
NO_SHARE = ("ceiling", "postgres", "redis", "start", "memory")


def read(path):
    return Measurements.from_json(json.loads(path.read_text())["measurements"])


def overlap(one, other):
    return min(one) <= max(other) and min(other) <= max(one)


def apart_by_chance(one, other):
    """The share of pairs of samples of one thing whose ranges do not overlap: all of one lie above all of the other."""
    return 2 / math.comb(one + other, one)


def shares(measured, what, connections):
    if what.startswith(NO_SHARE):
        return []
    return measured.ratios(what, connections, "ceiling", connections)


class Comparison:
    def __init__(self, one, other):
        self.rows = []
        self.rates = []  # does it agree, for each that both have
        self.shares = []
        self.expected_apart = 0.0
        for what, connections in sorted(set(one.counted) & set(other.counted)):
            self._compare(what, connections, one, other)

    def _compare(self, what, connections, *results):
        one, other = (measured.values(what, connections, "rate") for measured in results)
        if not one or not other:
            return
        row = [f"{what}, c={connections}", *self._cells(one, other, self.rates, count)]
        row.insert(3, f"{median(other) / median(one):.2f}")
        self.expected_apart += apart_by_chance(len(one), len(other))
        one, other = (shares(measured, what, connections) for measured in results)
        if one and other:
            row += self._cells(one, other, self.shares, lambda share: f"{share:.2f}")
        self.rows.append(row + [""] * (len(HEADINGS) - len(row)))

    @staticmethod
    def _cells(one, other, agree, text):
        agree.append(overlap(one, other))
        shown = [f"{text(median(values))} ({text(min(values))} to {text(max(values))})" for values in (one, other)]
        return [*shown, "yes" if agree[-1] else "NO"]

    def summary(self):
        total = len(self.rates)
        return (
            f"rates: {sum(self.rates)} of {total} agree; shares of the ceiling: {sum(self.shares)} of {len(self.shares)}. "
            f"Chance alone leaves about {self.expected_apart:.0f} of {total} apart."
        )


def main():
    parser = argparse.ArgumentParser(description="Do two results agree?")
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    options = parser.parse_args()
    try:
        compared = Comparison(read(options.one), read(options.other))
    except (OSError, ValueError, KeyError) as error:
        print(f"agree: {error!r}", file=sys.stderr)
        return 1
    if not compared.rows:
        print(f"agree: {options.one} and {options.other} have no figure in common", file=sys.stderr)
        return 1
    print(f"{table(compared.rows, HEADINGS)}\n\n{compared.summary()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What came of it: a table for people, a file for programs."""
import json
from collections import defaultdict

from . import limits
from .checker import INVARIANTS
from .history import FAIL, HTTP, INFO, OK

VIOLATIONS_SHOWN = 10
MARGIN_S = 1  # after a fault; before it, a request that it met may have begun a whole deadline earlier


def _concerned(struck, violation):
    return violation.at is not None and struck.began - limits.DEADLINE_S <= violation.at <= struck.until + MARGIN_S


def rows(struck, ops, found):
    for one in struck:
        mine = [op for op in ops if op.by == HTTP and not op.left and one.began <= op.began <= one.until]
        violated = sorted({v.invariant for vs in found.values() for v in vs if _concerned(one, v)}, key=lambda name: int(name[4:]))
        yield {
            "fault": str(one.planned),
            "lasted_s": round(one.healed - one.began, 1),
            "ok": sum(op.outcome == OK for op in mine),
            "fail": sum(op.outcome == FAIL for op in mine),
            "info": sum(op.outcome == INFO for op in mine),
            "worst_s": round(max((op.took_s for op in mine if op.ended is not None), default=0), 2),
            "recovery_s": None if one.recovered_s is None else round(one.recovered_s, 1),
            "violated": violated,
            "failure": one.failure,
        }


def print_table(table):
    width = max([len(row["fault"]) for row in table] + [5])
    print(f"{'fault':<{width}}  lasted    ok  fail  unknown  worst  recovery  invariants")
    for row in table:
        recovery = "never" if row["recovery_s"] is None else f"{row['recovery_s']:.1f} s"
        verdict = row["failure"] and "not brought about" or ", ".join(row["violated"]) or "hold"
        print(
            f"{row['fault']:<{width}}  {row['lasted_s']:4.1f} s  {row['ok']:4}  {row['fail']:4}  {row['info']:7}"
            f"  {row['worst_s']:3.1f} s  {recovery:>8}  {verdict}"
        )


def print_invariants(found, looked_at):
    print()
    for name, what in INVARIANTS.items():
        violations = found[name]
        print(f"{name:<6}  {'ok  ' if not violations else 'FAIL'}  {what} ({looked_at[name]})")
        for violation in violations[:VIOLATIONS_SHOWN]:
            print(f"          {violation.text[:600]}")
        if len(violations) > VIOLATIONS_SHOWN:
            print(f"          ... {len(violations) - VIOLATIONS_SHOWN} more")


def count(table, found):
    """(passed, failed) invariants; faults that could not be brought about are a failure of their own: they prove nothing."""
    unproved = [row for row in table if row["failure"]]
    for row in unproved:
        print(f"not brought about: {row['fault']}: {row['failure'][:300]}")
    failed = sum(bool(violations) for violations in found.values())
    return len(found) - failed, failed + bool(unproved)


def summary(ops):
    """kind -> outcome -> how many"""
    counts = defaultdict(lambda: defaultdict(int))
    for op in ops:
        counts[f"{op.by} {op.kind}"][op.outcome or "none"] += 1
    return {kind: dict(outcomes) for kind, outcomes in sorted(counts.items())}


def save(directory, about, table, found, ops):
    document = {
        **about,
        "faults": table,
        "requests": summary(ops),
        "invariants": {name: [{"text": v.text, "at": v.at} for v in violations] for name, violations in found.items()},
    }
    (directory / "report.json").write_text(json.dumps(document, indent=1, default=str) + "\n")

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


def without_anything(found, looked_at):
    """The invariants that nothing was there to break: what one is about comes first of what it looked at."""
    return [name for name, counts in looked_at.items() if not found[name] and not counts[0][0]]


def in_words(counts):
    return ", ".join(f"{count} {what}" for count, what in counts)


def print_invariants(found, looked_at):
    nothing = without_anything(found, looked_at)
    print()
    for name, what in INVARIANTS.items():
        violations = found[name]
        verdict = "FAIL" if violations else "none" if name in nothing else "ok"
        print(f"{name:<6}  {verdict:<4}  {what} ({'nothing to look at: ' if name in nothing else ''}{in_words(looked_at[name])})")
        for violation in violations[:VIOLATIONS_SHOWN]:
            print(f"          {violation.text[:600]}")
        if len(violations) > VIOLATIONS_SHOWN:
            print(f"          ... {len(violations) - VIOLATIONS_SHOWN} more")


def count(table, found, looked_at, least):
    """(passed, failed) invariants; one that had nothing to look at is neither.  Faults that could not be brought about are a
    failure of their own, as are too few that could: they prove nothing."""
    unproved = [row for row in table if row["failure"]]
    for row in unproved:
        print(f"not brought about: {row['fault']}: {row['failure'][:300]}")
    brought_about = len(table) - len(unproved)
    if brought_about < least:
        print(f"too few faults to say anything: {brought_about}, and {least} is the least (--least-faults)")
    failed = sum(bool(violations) for violations in found.values())
    passed = len(found) - failed - len(without_anything(found, looked_at))
    return passed, failed + bool(unproved) + (brought_about < least)


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

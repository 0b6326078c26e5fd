#!/usr/bin/python3
"""Usage: chaos/summary.py REPORT...    The reports of several runs as two tables in Markdown: the seeds; what a fault costs."""
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path


def line(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def seeds(reports):
    yield line("seed", "seconds", "build", "faults", "requests", "of them ok / failed honestly / outcome unknown", "invariants")
    yield line(*["---"] * 7)
    for path, report in reports:
        if report is None:
            yield line(path.name.removeprefix("seed-"), "", "", "", "", "", "the run came to no end")
            continue
        outcomes = {
            name: sum(kind.get(name, 0) for kind in report["requests"].values()) for name in ("ok", "fail", "info")
        }
        broken = [name for name, violations in report["invariants"].items() if violations]
        nothing = report.get("nothing_to_look_at", [])  # reports from before have it not
        failures = [row["fault"] for row in report["faults"] if row["failure"]]
        verdict = f"{len(report['invariants']) - len(broken) - len(nothing)} of {len(report['invariants'])}"
        verdict += "".join(f", {name}" for name in broken)
        verdict += "".join(f"; nothing to look at: {name}" for name in nothing)
        verdict += "".join(f"; not brought about: {name}" for name in failures)
        if len(report["faults"]) - len(failures) < report.get("least_faults", 0):
            verdict += "; too few faults"
        yield line(
            report["seed"],
            f"{report['seconds']:g}",
            "sanitizers" if report["sanitized"] else "plain",
            len(report["faults"]),
            f"{sum(sum(kind.values()) for kind in report['requests'].values()):,}",
            f"{outcomes['ok']:,} / {outcomes['fail']:,} / {outcomes['info']:,}",
            verdict,
        )


def name_of(row):
    """Without what was chosen: the link, the program."""
    return row["fault"].partition(" (")[0]


def faults(reports):
    """Those that struck alone and those that overlapped alike: a request counts for each fault of its round."""
    rows = defaultdict(list)
    for _, report in reports:
        for row in report["faults"] if report else ():
            rows[name_of(row)].append(row)
    yield line("fault", "times", "lasted", "requests ok / failed honestly / outcome unknown", "worst answer", "working again after (median, worst)")
    yield line(*["---"] * 6)
    for name, mine in sorted(rows.items(), key=lambda item: (int(item[0][1:].split()[0]), item[0])):
        recovered = [row["recovery_s"] for row in mine if row["recovery_s"] is not None]
        recovery = f"{statistics.median(recovered):.1f} s, {max(recovered):.1f} s" if recovered else ""
        never = len(mine) - len(recovered)
        yield line(
            name,
            len(mine),
            f"{statistics.median(row['lasted_s'] for row in mine):.1f} s",
            " / ".join(f"{sum(row[outcome] for row in mine):,}" for outcome in ("ok", "fail", "info")),
            f"{max(row['worst_s'] for row in mine):.1f} s",
            recovery + (f"; {never} times not" if never else ""),
        )


def main():
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    reports = []
    for argument in sys.argv[1:]:
        path = Path(argument)
        file = path / "report.json"
        reports.append((path, json.loads(file.read_text()) if file.exists() else None))
    print("\n".join(seeds(reports)))
    print()
    print("\n".join(faults(reports)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

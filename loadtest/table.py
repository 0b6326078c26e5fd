#!/usr/bin/python3
"""The tables of a result, as Markdown.

    loadtest/table.py loadtest/results/<name>.json                          writes <name>.md beside it
    loadtest/table.py loadtest/results/<name>.json --into README-DevOps.md  also between that file's two marks
"""
import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "test")]
sys.dont_write_bytecode = True

from support import packages  # noqa: E402

packages.require("table", "psycopg2", "redis")

from measure import markdown  # noqa: E402
from measure.report import Report  # noqa: E402

BEGIN, END = "<!-- measured: loadtest/table.py writes this -->", "<!-- /measured -->"


def between_marks(text, table):
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"it has not the two lines\n{BEGIN}\n{END}")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def main():
    parser = argparse.ArgumentParser(description="The tables of a result, as Markdown.")
    parser.add_argument("result", type=Path)
    parser.add_argument("--into", type=Path, metavar="FILE", help="also between the two marks of this file")
    options = parser.parse_args()
    try:
        result = json.loads(options.result.read_text())
        table = markdown.text(Report.from_json(result), result)
        options.result.with_suffix(".md").write_text(table)
        if options.into:
            options.into.write_text(between_marks(options.into.read_text(), table))
    except (OSError, ValueError, KeyError) as error:
        print(f"table: {options.result}: {error!r}", file=sys.stderr)
        return 1
    print(options.result.with_suffix(".md"))
    return 0


if __name__ == "__main__":
    sys.exit(main())

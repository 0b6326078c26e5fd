"""How many tests passed and failed: prints "PASSED FAILED".

    count_tests.py meson BUILD/meson-logs/LOG.json       the cases of each cmocka program; another program counts as one
    count_tests.py pytest REPORT.xml                     a JUnit report
    count_tests.py shards FOLDER REPORT.xml...           those of sessions that shared the tests (test/support/shards.py); a
                                                         test that is in none of them has failed
"""
import json
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

CASE_BEGUN = re.compile(r"^\[ RUN      \]", re.M)
CASE_PASSED = re.compile(r"^\[       OK \]", re.M)
CASE_SKIPPED = re.compile(r"^\[  SKIPPED \]", re.M)
GOOD_RESULTS = ("OK", "EXPECTEDFAIL")


def count_meson(path):
    passed = failed = 0
    with open(path) as log:
        for program in map(json.loads, log):
            output = (program.get("stdout") or "") + "\n" + (program.get("stderr") or "")
            good = program["result"] in GOOD_RESULTS
            if program["result"] == "SKIP":
                continue
            begun, well = len(CASE_BEGUN.findall(output)), len(CASE_PASSED.findall(output))
            if begun == 0:
                passed, failed = passed + good, failed + (not good)
                continue
            lost = begun - well - len(CASE_SKIPPED.findall(output)) // 2  # the summary names a skipped case again
            passed += well
            failed += max(lost, 0 if good else 1)  # one that failed outside its cases, or crashed
    return passed, failed


def cases_of(path):
    """What became of each test."""
    return [{child.tag for child in case} for case in ElementTree.parse(path).iter("testcase")]


def count_cases(cases):
    passed = failed = 0
    for outcomes in cases:
        if outcomes & {"failure", "error"}:
            failed += 1
        elif "skipped" not in outcomes:
            passed += 1
    return passed, failed


def count_pytest(path):
    return count_cases(cases_of(path))


def count_shards(folder, *paths):
    cases = []
    for path in paths:
        try:
            cases += cases_of(path)
        except (OSError, ElementTree.ParseError):
            pass  # it died; its tests are missing
    passed, failed = count_cases(cases)
    collected = max((int(path.read_text()) for path in pathlib.Path(folder).glob("*.collected")), default=0)
    return passed, failed + max(0, collected - len(cases))


if __name__ == "__main__":
    count = {"meson": count_meson, "pytest": count_pytest, "shards": count_shards}[sys.argv[1]]
    print(*count(*sys.argv[2:]))

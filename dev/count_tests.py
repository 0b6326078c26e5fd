"""How many tests passed and failed: prints "PASSED FAILED".

    count_tests.py meson BUILD/meson-logs/testlog.json   the cases of each cmocka program; another program counts as one
    count_tests.py pytest REPORT.xml                     a JUnit report
"""
import json
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


def count_pytest(path):
    passed = failed = 0
    for case in ElementTree.parse(path).iter("testcase"):
        outcomes = {child.tag for child in case}
        if outcomes & {"failure", "error"}:
            failed += 1
        elif "skipped" not in outcomes:
            passed += 1
    return passed, failed


if __name__ == "__main__":
    count = {"meson": count_meson, "pytest": count_pytest}[sys.argv[1]]
    print(*count(sys.argv[2]))

#!/bin/bash
# Interoperation with real Nameko, from PyPI: an extra suite, not part of `make test`.
#
#     test/interop/run.sh [--nameko 2.14.1] [PYTEST-ARGUMENT...]
#
# Makes a virtual environment in the checkout (.venv-interop), starts servers of its own, and ends with "N passed, N failed".
# BUILD_DIR names the build folder (build), INTEROP_PYTHON the Python to build the environment with.
# Exit codes: 0 all passed, 1 some failed, 2 wrong usage, 3 Nameko could not be installed
set -uo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." || exit 1
# shellcheck source=test/interop/environment.sh
. test/interop/environment.sh

version=${NAMEKO_VERSIONS[0]}
if [[ ${1-} == --nameko ]]; then
    version=${2-}
    [[ " ${NAMEKO_VERSIONS[*]} " == *" $version "* ]] || { interop_say "--nameko takes one of: ${NAMEKO_VERSIONS[*]}"; exit 2; }
    shift 2
fi
if ! python=$(interop_python "$version"); then
    echo "0 passed, 1 failed"
    exit 3
fi

# Nameko's own pytest plugin is left out: it makes the tests' sockets green.  What could not be run counts as failed.
report=$(mktemp)
trap 'rm -f "$report"' EXIT
PYTHONWARNINGS=ignore PYTHONDONTWRITEBYTECODE=1 "$python" -m pytest -p no:pytest_nameko test/interop --junitxml="$report" "$@"
code=$?
"$python" - "$report" "$code" <<'SUMMARY'
import sys
import xml.etree.ElementTree as tree

passed = failed = 0
try:
    for case in tree.parse(sys.argv[1]).iter("testcase"):
        bad = any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))
        failed, passed = failed + bad, passed + (not bad)
except (tree.ParseError, OSError):
    pass
if failed == 0 and (passed == 0 or sys.argv[2] != "0"):
    failed = 1
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
SUMMARY

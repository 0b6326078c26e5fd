#!/bin/bash
# Usage: chaos/seeds.sh SECONDS SEED...    A run for each seed; CHAOS_REPORT=<folder> keeps a report of each.
# Ends with "N passed, N failed": runs in which every invariant held, and the others.
set -uo pipefail
(($# >= 2)) || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
HERE=$(dirname "$(readlink -f "$0")")
readonly HERE
seconds=$1 passed=0 failed=0
shift
for seed in "$@"; do
    if "$HERE/chaos.py" --seconds "$seconds" --seed "$seed" ${CHAOS_REPORT:+--report "$CHAOS_REPORT/seed-$seed"}; then
        ((passed += 1))
    else
        ((failed += 1))
    fi
done
printf '%s passed, %s failed\n' "$passed" "$failed"
((failed == 0))

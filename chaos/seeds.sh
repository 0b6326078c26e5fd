#!/bin/bash
# Usage: chaos/seeds.sh SECONDS SEED...    A run for each seed, and a summary of all in Markdown.
# JOBS=2 runs two at a time; CHAOS_REPORT=<folder> keeps the reports and outputs (a temporary folder if not given).
# Ends with "N passed, N failed": runs in which every invariant held, and the others.
set -uo pipefail
(($# >= 2)) || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
HERE=$(dirname "$(readlink -f "$0")")
readonly HERE
readonly SECONDS_EACH=$1
shift
if [[ -z ${CHAOS_REPORT:-} ]]; then
    CHAOS_REPORT=$(mktemp -d) || exit 1
    trap 'rm -rf "$CHAOS_REPORT"' EXIT
fi

run_seed() { # SEED
    local report=$CHAOS_REPORT/seed-$1
    rm -rf "$report" && mkdir -p "$report" || return
    "$HERE/chaos.py" --seconds "$SECONDS_EACH" --seed "$1" --report "$report" >"$report/output" 2>&1
    echo "$?" >"$report/exit"
    cat "$report/output" # at once, so that runs at the same time do not mix
}

running=0
for seed in "$@"; do
    if ((running >= ${JOBS:-1})); then
        wait -n
        ((running -= 1))
    fi
    run_seed "$seed" &
    ((running += 1))
done
wait

passed=0 failed=0
for seed in "$@"; do
    if [[ $(cat "$CHAOS_REPORT/seed-$seed/exit" 2>/dev/null) == 0 ]]; then
        ((passed += 1))
    else
        ((failed += 1))
    fi
done
printf '\n'
"$HERE/summary.py" "${@/#/$CHAOS_REPORT/seed-}"
printf '\n%s passed, %s failed\n' "$passed" "$failed"
((failed == 0))

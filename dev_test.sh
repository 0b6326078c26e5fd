#!/bin/bash
# All tests of the shop but the extra suites.  See usage().
set -euo pipefail

CHECKOUT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd -P)
readonly CHECKOUT
# shellcheck source=dev/say.sh
. "$CHECKOUT/dev/say.sh"
# shellcheck source=dev/packages.sh
. "$CHECKOUT/dev/packages.sh"
# shellcheck source=dev/jobs.sh
. "$CHECKOUT/dev/jobs.sh"

BUILD=$(cd "$CHECKOUT" && realpath -m -- "${BUILD_DIR:-build}")
readonly BUILD
readonly REPORTS=$BUILD/test-reports
readonly SHARE=$REPORTS/share # what the sessions of the black-box tests have taken
readonly RUN_TIMEOUT_S=180 # the shop for the smoke test is up
readonly UNIT_TIMEOUT_SCALE=3 # their limits are those of a machine that does nothing else
readonly SHARDS_MAX=4

PASSED=0
FAILED=0
SHOP_PID=

usage() {
    cat <<USAGE
Usage: ${0##*/} [PYTEST-ARGUMENT...]

Installs what is missing, builds, and runs the unit tests, the black-box tests and the smoke test, on servers and ports of
their own: a shop that runs meanwhile is not disturbed.  Arguments go to pytest, and then only the black-box tests run:
  ${0##*/} test/test_migrations.py -k adopted
Without any, the black-box tests, which mostly wait, are shared by some sessions, each with servers of its own: SHARDS=<how many>,
1 to $SHARDS_MAX (one more than there are processors); the longest of the unit tests run beside them.
BUILD_DIR=<folder> tests another build.  Ends with "N passed, N failed"; exit 0 only when none failed, 2 wrong usage,
3 packages are missing and cannot be installed from here.
USAGE
}

add_counts() { # SUITE "PASSED FAILED" EXIT-CODE
    local passed=${2% *} failed=${2#* }
    if (($3 != 0 && failed == 0)); then
        complain "$1 ended with exit code $3"
        failed=1
    elif ((passed + failed == 0)); then
        complain "$1 ran no test"
        failed=1
    fi
    PASSED=$((PASSED + passed))
    FAILED=$((FAILED + failed))
    say "$1: $passed passed, $failed failed"
}

count() { /usr/bin/python3 -I "$CHECKOUT/dev/count_tests.py" "$@" || echo 0 0; } # KIND FILE...

run_build() {
    local code=0
    say "== build"
    make --no-print-directory -C "$CHECKOUT" BUILD_DIR="$BUILD" || code=$?
    if ((code != 0)); then
        complain "the build failed"
        say "0 passed, 1 failed"
        exit "$EXIT_FAILED"
    fi
}

unit_tests_begin() { # NAME MESON-ARGUMENT...
    rm -f "$BUILD/meson-logs/$1.json"
    job_start "$1" "$REPORTS/$1.log" /usr/bin/meson test -C "$BUILD" --no-rebuild --print-errorlogs \
        --timeout-multiplier "$UNIT_TIMEOUT_SCALE" --logbase "$1" "${@:2}"
}

unit_tests_end() { # NAME
    local code=0
    say "== $1"
    job_end "$1" "$REPORTS/$1.log" || code=$?
    add_counts "$1" "$(count meson "$BUILD/meson-logs/$1.json")" "$code"
}

readonly PYTEST=(env "--chdir=$CHECKOUT" "BUILD_DIR=$BUILD" PYTHONDONTWRITEBYTECODE=1
    /usr/bin/python3 -m pytest -p no:cacheprovider)

run_black_box_tests() { # PYTEST-ARGUMENT...
    local code=0 report=$REPORTS/black-box.xml
    say "== black-box tests"
    rm -f "$report"
    "${PYTEST[@]}" --junitxml="$report" "$@" </dev/null || code=$?
    add_counts "black-box tests" "$(count pytest "$report")" "$code"
}

shards_begin() {
    local number
    rm -rf "$SHARE" "$REPORTS"/black-box*
    mkdir "$SHARE"
    for ((number = 1; number <= SHARDS; number++)); do
        job_start "shard $number" "$REPORTS/black-box-$number.log" \
            "${PYTEST[@]}" --junitxml="$REPORTS/black-box-$number.xml" --share="$SHARE" test
    done
}

shards_end() {
    local number code=0
    for ((number = 1; number <= SHARDS; number++)); do
        say "== black-box tests, $number of $SHARDS sessions"
        job_end "shard $number" "$REPORTS/black-box-$number.log" || code=$?
    done
    add_counts "black-box tests" "$(count shards "$SHARE" "$REPORTS"/black-box-*.xml)" "$code"
}

shop_stop() {
    if [[ -n $SHOP_PID ]]; then
        kill -TERM "$SHOP_PID" 2>/dev/null || true
        wait "$SHOP_PID" || complain "the shop for the smoke test ended with exit code $?"
        SHOP_PID=
    fi
}

shop_is_up() { # LOG
    grep -qs '^Ready: ' "$1" || ! kill -0 "$SHOP_PID" 2>/dev/null
}

# The whole of it as a user starts it, and the script that a user checks it with.
run_smoke_test() {
    local code=0 port log=$REPORTS/smoke-shop.log output=$REPORTS/smoke.log deadline
    say "== smoke test"
    port=$(/usr/bin/python3 -I "$CHECKOUT/test/support/ports.py")
    env -u AMQP_URI -u REDIS_URI -u POSTGRES_URI -u DEBUG -u INSTANCES -u BIND_ADDRESS \
        PORT="$port" RUN_DIR="$CHECKOUT/.run/smoke" BUILD_DIR="$BUILD" "$CHECKOUT/dev_run.sh" >"$log" 2>&1 </dev/null &
    SHOP_PID=$!
    deadline=$((SECONDS + RUN_TIMEOUT_S))
    until shop_is_up "$log"; do
        ((SECONDS < deadline)) || break
        sleep 0.1
    done
    if grep -qs '^Ready: ' "$log"; then
        "$CHECKOUT/test/nex-smoketest.sh" "http://127.0.0.1:$port" </dev/null | tee "$output" || code=$?
        add_counts "smoke test" "$(sed -n '$s/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$output" | grep . || echo 0 0)" "$code"
    else
        complain "the shop did not start; its output:"
        tail -n 40 "$log" >&2
        add_counts "smoke test" "0 1" 1
    fi
    shop_stop
}

read_shards() {
    local default=$(($(nproc) + 1))
    SHARDS=${SHARDS:-$((default < SHARDS_MAX ? default : SHARDS_MAX))}
    if [[ ! $SHARDS =~ ^[1-9]$ ]] || ((SHARDS > SHARDS_MAX)); then
        fail "$EXIT_USAGE" "SHARDS is '$SHARDS'; it may be 1 to $SHARDS_MAX"
    fi
}

end() {
    jobs_stop
    shop_stop
}

main() {
    if [[ ${1:-} == @(-h|--help|help) ]]; then
        usage
        exit 0
    fi
    read_shards
    trap end EXIT
    trap 'exit 1' INT TERM HUP
    packages_install build run test
    run_build
    mkdir -p "$REPORTS"
    if (($#)); then
        run_black_box_tests "$@"
    else
        # Some of the unit tests have limits of a second or two: they come first, and alone.
        unit_tests_begin unit-tests --no-suite long
        unit_tests_end unit-tests
        unit_tests_begin long-unit-tests --suite long
        shards_begin
        unit_tests_end long-unit-tests
        shards_end
        run_smoke_test
    fi
    say "$PASSED passed, $FAILED failed"
    ((FAILED == 0 && PASSED > 0)) || exit "$EXIT_FAILED"
}

main "$@"

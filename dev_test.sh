#!/bin/bash
# All tests of the shop but the extra suites.  See usage().
set -euo pipefail

CHECKOUT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd -P)
readonly CHECKOUT
# shellcheck source=dev/say.sh
. "$CHECKOUT/dev/say.sh"
# shellcheck source=dev/packages.sh
. "$CHECKOUT/dev/packages.sh"

BUILD=$(cd "$CHECKOUT" && realpath -m -- "${BUILD_DIR:-build}")
readonly BUILD
readonly REPORTS=$BUILD/test-reports
readonly RUN_TIMEOUT_S=180 # the shop for the smoke test is up

PASSED=0
FAILED=0
SHOP_PID=

usage() {
    cat <<USAGE
Usage: ${0##*/} [PYTEST-ARGUMENT...]

Installs what is missing, builds, and runs the unit tests, the black-box tests and the smoke test, on servers and ports of
their own: a shop that runs meanwhile is not disturbed.  Arguments go to pytest, and then only the black-box tests run:
  ${0##*/} test/test_migrations.py -k adopted
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

run_unit_tests() {
    local code=0 log=$BUILD/meson-logs/testlog.json
    say "== unit tests"
    rm -f "$log"
    /usr/bin/meson test -C "$BUILD" --no-rebuild --print-errorlogs </dev/null || code=$?
    add_counts "unit tests" "$(/usr/bin/python3 -I "$CHECKOUT/dev/count_tests.py" meson "$log" || echo 0 0)" "$code"
}

run_black_box_tests() { # PYTEST-ARGUMENT...
    local code=0 report=$REPORTS/black-box.xml
    say "== black-box tests"
    mkdir -p "$REPORTS"
    rm -f "$report"
    (($#)) || set -- test
    (cd "$CHECKOUT" && BUILD_DIR=$BUILD PYTHONDONTWRITEBYTECODE=1 \
        /usr/bin/python3 -m pytest -p no:cacheprovider --junitxml="$report" "$@" </dev/null) || code=$?
    add_counts "black-box tests" "$(/usr/bin/python3 -I "$CHECKOUT/dev/count_tests.py" pytest "$report" || echo 0 0)" "$code"
}

# Below the ports that the kernel gives to outgoing connections: it is still free when the gateway takes it.
free_port() {
    local port
    for port in $(shuf -i 12000-19999 -n 100); do
        if /usr/bin/python3 -I "$CHECKOUT/dev/probe.py" listen PORT 127.0.0.1 "$port" >/dev/null; then
            printf '%s' "$port"
            return
        fi
    done
    fail "$EXIT_FAILED" "no free port for the smoke test between 12000 and 19999"
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
    mkdir -p "$REPORTS"
    port=$(free_port)
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

main() {
    if [[ ${1:-} == @(-h|--help|help) ]]; then
        usage
        exit 0
    fi
    trap shop_stop EXIT
    trap 'exit 1' INT TERM HUP
    packages_install build run test
    run_build
    if (($#)); then
        run_black_box_tests "$@"
    else
        run_unit_tests
        run_black_box_tests
        run_smoke_test
    fi
    say "$PASSED passed, $FAILED failed"
    ((FAILED == 0 && PASSED > 0)) || exit "$EXIT_FAILED"
}

main "$@"

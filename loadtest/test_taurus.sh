#!/bin/bash
# Does the Taurus load test pass on a healthy shop, and fail when it must?  An extra suite: it needs PyPI the first time.
# Usage: loadtest/test_taurus.sh     ends with "N passed, N failed"; BUILD_DIR names the build folder
set -uo pipefail

CHECKOUT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
readonly CHECKOUT
RUN=$(realpath -m -- "${RUN_DIR:-$CHECKOUT/.run}")
readonly RUN
# shellcheck source=dev/say.sh
. "$CHECKOUT/dev/say.sh"
# shellcheck source=loadtest/taurus/environment.sh
. "$CHECKOUT/loadtest/taurus/environment.sh"
# shellcheck source=loadtest/taurus/shop.sh
. "$CHECKOUT/loadtest/taurus/shop.sh"

readonly SHOP_RUN=$RUN/taurus-test # the shop's servers and data, removed at the end
readonly OUTPUT=$RUN/bzt/test.log
readonly USERS=3 HOLD=20s RAMP_UP=2s CATALOGUE=600
readonly P90_BOUND_MS=1000 # the machine may be busy: speed is not the question here
readonly LABELS=("create product" "get product" "create order" "get order" "delete product" "list orders")

PASSED=0
FAILED=0
LIAR_PID=

end() {
    trap '' INT TERM
    if [[ -n $LIAR_PID ]]; then
        kill "$LIAR_PID" 2>/dev/null
        wait "$LIAR_PID" 2>/dev/null
    fi
    shop_stop "$SHOP_RUN"
    printf '%s passed, %s failed\n' "$PASSED" "$FAILED"
    exit $((FAILED > 0 || PASSED == 0))
}

check() { # WHAT CONDITION...
    local what=$1
    shift
    if "$@"; then
        PASSED=$((PASSED + 1))
        say "ok      $what"
    else
        FAILED=$((FAILED + 1))
        say "FAILED  $what"
        tail -n 15 "$OUTPUT" | sed 's/^/        /'
    fi
}

answers() { curl -s --max-time 5 -o /dev/null "$1"; } # URL

# Answers everything with 200 and an empty object.
liar_start() {
    local port
    port=$(free_port)
    LIAR_URL=http://127.0.0.1:$port
    "${BZT%/*}/python" -c '
import http.server, sys
class Liar(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    do_GET = do_POST = do_DELETE = answer
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Liar).serve_forever()' "$port" &
    LIAR_PID=$!
    wait_for "$LIAR_PID" answers "$LIAR_URL"
}

# Runs the load test and keeps its exit code, output and report.
run() { # ARGUMENT...
    CODE=0
    RUN_DIR=$RUN "$CHECKOUT/test/nex-bzt.sh" "$@" >"$OUTPUT" 2>&1 </dev/null || CODE=$?
    REPORT=$(sed -n 's/^Report: //p' "$OUTPUT")
}

ended_with() { ((CODE == $1)); } # CODE

every_request_succeeded() { # from the report's table: label,...,fail,stdev_rt,succ,...
    local label
    for label in "${LABELS[@]}"; do
        awk -F, -v label="$label" '
            NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i }
            $1 == label { found = $column["succ"] > 0 && $column["fail"] == 0 }
            END { exit !found }' "$REPORT/figures.csv" || return 1
    done
}

catalogue_is_full() {
    local status
    status=$(curl -s -o /dev/null -w '%{http_code}' "$URL/products/fleet-$(printf '%06d' "$CATALOGUE")")
    [[ $status == 200 ]]
}

nothing_was_installed() { ! grep -qiE 'successfully installed|download|blazemeter.*(upload|report link)' "$REPORT/bzt.log"; }

says() { grep -q -- "$1" "$OUTPUT"; } # TEXT

small() {
    PRODUCTS=$CATALOGUE P90_MS=$P90_BOUND_MS run "$URL" "$USERS" "$HOLD" "$RAMP_UP"
    check "a healthy shop passes" ended_with 0
    check "each of the six requests was made, and none failed" every_request_succeeded
    check "the catalogue was filled first" catalogue_is_full
    check "nothing was downloaded or uploaded" nothing_was_installed
}

failures() {
    P90_MS=1 run "$URL" 1 3s 1s
    check "a p90 above the bound fails" ended_with 1
    check "and says so" says 'Failed: p90>1ms'
    run "$LIAR_URL" 1 2s 1s
    check "wrong answers fail" ended_with 1
    check "and are shown" says 'a wrong answer'
    run "http://127.0.0.1:$(free_port)" 1 2s 1s
    check "a shop that is not there is said to be so" eval 'ended_with 1 && says "nothing answers at"'
}

usage() {
    run
    check "no argument: usage, exit code 2" eval 'ended_with 2 && says "^Usage: "'
    run local 0
    check "no users: exit code 2" ended_with 2
    run local 3 soon
    check "a time that is none: exit code 2" ended_with 2
}

trap end EXIT
mkdir -p "$RUN/bzt"
chmod 700 "$RUN"
: >"$OUTPUT"
if ! BZT=$(taurus_bzt); then
    FAILED=1
    exit
fi
usage
if ! shop_start "$SHOP_RUN" "$OUTPUT" || ! liar_start; then
    check "the shop starts" false
    exit
fi
small
failures

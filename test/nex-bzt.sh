#!/bin/bash
# The load test of the shop by Taurus.  See usage().
set -euo pipefail

CHECKOUT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
readonly CHECKOUT
RUN=$(realpath -m -- "${RUN_DIR:-$CHECKOUT/.run}")
readonly RUN
# shellcheck source=dev/say.sh
. "$CHECKOUT/dev/say.sh"
# shellcheck source=loadtest/taurus/environment.sh
. "$CHECKOUT/loadtest/taurus/environment.sh"

readonly USERS_MAX=1000
readonly DURATION='^[0-9]+(\.[0-9]+)?(ms|s|m|h)$'
readonly NUMBER='^[1-9][0-9]{0,8}$'
readonly CONNECT_TIMEOUT_S=10
readonly DEFAULT_P90_MS=100

usage() {
    cat <<USAGE
Usage: ${0##*/} local|URL [USERS] [HOLD] [RAMP-UP]

The load test of the Python original, by Taurus (https://gettaurus.org): each user creates a product, reads it, orders it,
reads the order, deletes the product and lists the orders, again and again.  Every answer is checked.
  local    http://127.0.0.1:\${PORT:-8000}
  URL      of a gateway, such as http://shop.example.com
  USERS    at once (3)
  HOLD     how long all of them are there (3m)
  RAMP-UP  in which time they come (1m)
Environment:
  PRODUCTS=600    so many products are made first, if they are not there
  P90_MS ($DEFAULT_P90_MS)    fails when the 90th percentile of all answers takes longer
  BZT_PYTHON      the Python to install Taurus with
The report is kept in .run/bzt/<time>/ (RUN_DIR instead of .run).  Nothing is uploaded.  The first run installs Taurus from
PyPI into .run/bzt/venv; after that nothing is downloaded.
Exit codes: 0 no failure and within the bound, 1 otherwise, 2 wrong usage, 3 Taurus cannot be installed
USAGE
}

wrong_usage() { # MESSAGE...
    complain "$@"
    usage >&2
    exit "$EXIT_USAGE"
}

check_settings() {
    if [[ ! $USERS =~ $NUMBER ]] || ((USERS > USERS_MAX)); then
        wrong_usage "USERS is a number from 1 to $USERS_MAX, not '$USERS'"
    fi
    [[ $HOLD =~ $DURATION ]] || wrong_usage "HOLD is a time such as 90s or 3m, not '$HOLD'"
    [[ $RAMP_UP =~ $DURATION ]] || wrong_usage "RAMP-UP is a time such as 30s or 1m, not '$RAMP_UP'"
    [[ $BOUND_MS =~ $NUMBER ]] || wrong_usage "P90_MS is a number of milliseconds, not '$BOUND_MS'"
    [[ -z $CATALOGUE || $CATALOGUE =~ $NUMBER ]] || wrong_usage "PRODUCTS is a number, not '$CATALOGUE'"
}

run_taurus() { # BZT REPORT
    local -a quiet=()
    [[ -t 1 ]] || quiet=(-o modules.console.disable=true) # its full-screen board is for a terminal
    # A home of its own: bzt keeps a file there.  It would install what it misses; pip may not.
    env HOME="$RUN/bzt" PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 \
        "$1" "$CHECKOUT/loadtest/taurus/shop.yml" "${quiet[@]}" \
        -o settings.artifacts-dir="$2" \
        -o settings.env.SHOP_URL="$URL" \
        -o scenarios.customer.script="$CHECKOUT/loadtest/taurus/shop.py" \
        -o execution.0.concurrency="$USERS" \
        -o execution.0.hold-for="$HOLD" \
        -o execution.0.ramp-up="$RAMP_UP" \
        -o reporting.2.criteria.1="p90>${BOUND_MS}ms, continue as failed"
}

main() {
    local bzt report code=0
    case ${1:-} in
    local) URL=http://127.0.0.1:${PORT:-8000} ;;
    http://?* | https://?*) URL=${1%/} ;;
    -h | --help | help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit "$EXIT_USAGE"
        ;;
    esac
    (($# <= 4)) || wrong_usage "too many arguments"
    USERS=${2:-3} HOLD=${3:-3m} RAMP_UP=${4:-1m} BOUND_MS=${P90_MS:-$DEFAULT_P90_MS} CATALOGUE=${PRODUCTS:-}
    check_settings
    command -v curl >/dev/null || fail "$EXIT_FAILED" "curl is needed; run: sudo apt-get install --no-install-recommends curl"
    curl -sS --max-time "$CONNECT_TIMEOUT_S" -o /dev/null "$URL/orders?limit=1" 2>/dev/null ||
        fail "$EXIT_FAILED" "nothing answers at $URL"
    bzt=$(taurus_bzt) || exit "$EXIT_MISSING"
    if [[ -n $CATALOGUE ]]; then
        "${bzt%/*}/python" "$CHECKOUT/loadtest/taurus/preload.py" "$URL" "$CATALOGUE" || exit "$EXIT_FAILED"
    fi
    report=$RUN/bzt/$(date -u +%Y-%m-%dT%H%M%S)-$BASHPID
    run_taurus "$bzt" "$report" || code=$?
    say "Report: $report"
    if ((code != 0)); then
        fail "$EXIT_FAILED" "the load test failed: an answer was wrong or missing, or p90 above $BOUND_MS ms (bzt's code $code)"
    fi
    say "The load test passed: no failure, p90 within $BOUND_MS ms"
}

main "$@"

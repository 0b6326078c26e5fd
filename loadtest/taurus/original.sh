#!/bin/bash
# The two runs that the author of the Python original reported, on a shop of their own each; prints a table for the README.
# Usage: loadtest/taurus/original.sh [HOLD] [RAMP-UP]     (3m 1m: nine minutes in all); BUILD_DIR names the build folder
set -uo pipefail

CHECKOUT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd -P)
readonly CHECKOUT
RUN=$(realpath -m -- "${RUN_DIR:-$CHECKOUT/.run}")
readonly RUN
# shellcheck source=dev/say.sh
. "$CHECKOUT/dev/say.sh"
# shellcheck source=loadtest/taurus/environment.sh
. "$CHECKOUT/loadtest/taurus/environment.sh"
# shellcheck source=loadtest/taurus/shop.sh
. "$CHECKOUT/loadtest/taurus/shop.sh"

readonly SHOP_RUN=$RUN/taurus-original
readonly LOG=$RUN/bzt/original.log
readonly HOLD=${1:-3m} RAMP_UP=${2:-1m} USERS=3
declare -rA ORIGINAL=([600]="1,380 ms, 2,900 ms" [2300]="122 ms, 212 ms") # average and 90th percentile, by products
TABLE=()

# The table's lines, of a report's figures.csv: requests, mean and 90th percentile in ms.
figures() { # FILE PRODUCTS
    awk -F, -v products="$2" -v original="${ORIGINAL[$2]}" '
        NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
        {
            label = $1 == "" ? "**all six, " products " products**" : $1 ", " products " products"
            printf "| %s | %d | %d | %.1f ms | %.0f ms | %s |\n", label, $column["succ"], $column["fail"],
                $column["avg_rt"] * 1000, $column["perc_90.0"] * 1000, $1 == "" ? original : ""
        }' "$1"
}

trap 'shop_stop "$SHOP_RUN"' EXIT
trap 'exit 130' INT TERM
BZT=$(taurus_bzt) || exit "$EXIT_MISSING"
for products in 600 2300; do
    say "$products products, $USERS users, $HOLD after a ramp-up of $RAMP_UP"
    shop_start "$SHOP_RUN" "$RUN/bzt/shop.log" || fail "$EXIT_FAILED" "the shop does not start; see $RUN/bzt/shop.log"
    RUN_DIR=$RUN PRODUCTS=$products "$CHECKOUT/test/nex-bzt.sh" "$URL" "$USERS" "$HOLD" "$RAMP_UP" >"$LOG" 2>&1 </dev/null ||
        fail "$EXIT_FAILED" "the load test failed; see $LOG"
    report=$(sed -n 's/^Report: //p' "$LOG")
    mapfile -t -O "${#TABLE[@]}" TABLE < <(figures "$report/figures.csv" "$products")
    shop_stop "$SHOP_RUN"
done
printf '%s\n' "| request | answered | failed | mean | 90 % within | the original: mean, 90 % |" "| --- | --- | --- | --- | --- | --- |" "${TABLE[@]}"

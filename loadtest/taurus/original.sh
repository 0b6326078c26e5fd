#!/bin/bash
# The two runs that the author of the Python original reported, each on a shop of its own.  See usage().
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
readonly USERS=3 CATALOGUES=(600 2300)
readonly LABELS=("create product" "get product" "create order" "get order" "delete product" "list orders")
readonly BEGIN='<!-- taurus: loadtest/taurus/original.sh writes this -->' END='<!-- /taurus -->'
declare -A FIGURES=() # "label, products" -> mean and 90th percentile

usage() {
    cat <<USAGE
Usage: ${0##*/} [HOLD [RAMP-UP [FILE]]]

Runs the load test with 600 and with 2,300 products and prints a table; with FILE also between that file's two marks
  $BEGIN
  $END
HOLD is 3m and RAMP-UP 1m: nine minutes in all.  BUILD_DIR names the build folder.
USAGE
}

# Of a report's figures.csv.
mean_and_90() { # FILE LABEL: "" for all
    awk -F, -v label="$2" '
        NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i }
        NR > 1 && $1 == label { printf "%.1f ms, %.0f ms", $column["avg_rt"] * 1000, $column["perc_90.0"] * 1000 }' "$1"
}

measure() { # PRODUCTS
    local report label
    say "$1 products, $USERS users, $HOLD after a ramp-up of $RAMP_UP"
    shop_start "$SHOP_RUN" "$RUN/bzt/shop.log" || fail "$EXIT_FAILED" "the shop does not start; see $RUN/bzt/shop.log"
    RUN_DIR=$RUN PRODUCTS=$1 "$CHECKOUT/test/nex-bzt.sh" "$URL" "$USERS" "$HOLD" "$RAMP_UP" >"$LOG" 2>&1 </dev/null ||
        fail "$EXIT_FAILED" "the load test failed; see $LOG"
    report=$(sed -n 's/^Report: //p' "$LOG")
    for label in "${LABELS[@]}" ""; do
        FIGURES["$label, $1"]=$(mean_and_90 "$report/figures.csv" "$label")
    done
    FIGURES["answers, $1"]=$(awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "succ") c = i } $1 == "" { print $c }' "$report/figures.csv")
    shop_stop "$SHOP_RUN"
}

table() {
    local label
    printf '%s\n' "| mean, 90 % within | 600 products | 2,300 products |" "| --- | --- | --- |"
    for label in "${LABELS[@]}"; do
        printf '| %s | %s | %s |\n' "$label" "${FIGURES["$label, 600"]}" "${FIGURES["$label, 2300"]}"
    done
    printf '| **all six** | **%s** | **%s** |\n' "${FIGURES[", 600"]}" "${FIGURES[", 2300"]}"
    printf '%s\n' "| the Python original, as its author reported it | 1,380 ms, 2,900 ms | 122 ms, 212 ms |"
    printf '| answers, all right | %s | %s |\n' "${FIGURES["answers, 600"]}" "${FIGURES["answers, 2300"]}"
}

write_into() { # FILE
    local page
    page=$(TABLE=$(table) awk -v begin="$BEGIN" -v end="$END" '
        $0 == end { skips = 0 }
        !skips
        $0 == begin { print "\n" ENVIRON["TABLE"] "\n"; skips = 1 }' "$1") && printf '%s\n' "$page" >"$1"
}

case ${1:-} in
-h | --help | help)
    usage
    exit 0
    ;;
esac
readonly HOLD=${1:-3m} RAMP_UP=${2:-1m} FILE=${3:-}
if [[ -n $FILE ]] && ! { grep -qxF -- "$BEGIN" "$FILE" && grep -qxF -- "$END" "$FILE"; }; then
    usage >&2
    fail "$EXIT_USAGE" "$FILE has not the two marks"
fi
trap 'shop_stop "$SHOP_RUN"' EXIT
trap 'exit 130' INT TERM
# shellcheck disable=SC2034 # shop.sh reads it
BZT=$(taurus_bzt) || exit "$EXIT_MISSING"
for products in "${CATALOGUES[@]}"; do
    measure "$products"
done
table
[[ -z $FILE ]] || write_into "$FILE"

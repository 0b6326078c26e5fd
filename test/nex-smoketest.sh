#!/bin/bash
# Walks through the shop by HTTP, as a customer would, and checks each answer.  See usage().
set -euo pipefail

readonly EXIT_FAILED=1
readonly EXIT_USAGE=2
readonly REQUEST_TIMEOUT_S=20
readonly EVENT_TIMEOUT_S=15 # an order has lowered the stock
readonly POLL_INTERVAL_S=0.1
readonly ORDERS_PAGE_SIZE=10000 # of GET /orders; a newer order is on a later page
readonly JSON=application/json
readonly ORIGINAL_GATEWAY=${ORIGINAL_GATEWAY:-0}

PASSED=0
FAILED=0
STATUS= # of the last answer
BODY=
CONTENT_TYPE=

usage() {
    cat <<USAGE
Usage: ${0##*/} local|URL

Creates a product and orders it, reads both back, deletes the product, and tries what must be refused.
  local   http://127.0.0.1:\${PORT:-8000}
  URL     of a gateway, such as http://shop.example.com
The product has an id of its own and is deleted again; the order stays.
ORIGINAL_GATEWAY=1 leaves out what the gateway of the Python original is known not to refuse.
Ends with "N passed, N failed"; exit 0 only when none failed, 2 wrong usage.
USAGE
}

request() { # METHOD PATH [BODY]
    local answer
    local -a data=()
    (($# < 3)) || data=(--data-binary "$3" -H "Content-Type: $JSON")
    answer=$(curl -sS --max-time "$REQUEST_TIMEOUT_S" -X "$1" "${data[@]}" \
        -w '\n%{http_code} %{content_type}' "$URL$2" 2>&1) || true
    BODY=${answer%$'\n'*}
    read -r STATUS CONTENT_TYPE <<<"${answer##*$'\n'} -"
    if [[ ! $STATUS =~ ^[1-9][0-9][0-9]$ ]]; then
        BODY=${answer%%$'\n'*} # curl's own words
        STATUS=none
    fi
}

record() { # passed|failed WHAT
    if [[ $1 == passed ]]; then
        PASSED=$((PASSED + 1))
        printf 'ok      %s\n' "$2"
    else
        FAILED=$((FAILED + 1))
        printf 'FAILED  %s\n        answer: %s %s\n' "$2" "$STATUS" "${BODY:0:500}"
    fi
}

# The last answer: its status, that it is JSON where it has a body, and CONDITION, a Python expression over `a`, the body.
check() { # WHAT STATUS [CONDITION [NAME=VALUE...]]
    local what=$1 status=$2 condition=${3:-True}
    shift $(($# < 3 ? $# : 3))
    if [[ $STATUS != "$status" ]]; then
        record failed "$what (status $status expected)"
    elif [[ -n $BODY && $CONTENT_TYPE != "$JSON"* ]]; then
        record failed "$what (content type is $CONTENT_TYPE)"
    elif ! holds "$condition" "$@"; then
        record failed "$what (expected: $condition)"
    else
        record passed "$what"
    fi
}

holds() { # CONDITION NAME=VALUE...
    "$PYTHON" -I -c '
import json, sys
body = sys.stdin.read()
names = dict(pair.split("=", 1) for pair in sys.argv[2:])
names["a"] = json.loads(body) if body.strip() else None
sys.exit(0 if eval(sys.argv[1], names) else 1)' "$@" <<<"$BODY" 2>/dev/null
}

field() { # NAME: of the last answer
    "$PYTHON" -I -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1" <<<"$BODY" 2>/dev/null || echo none
}

wait_for_stock() { # WHAT EXPECTED
    local deadline=$((SECONDS + EVENT_TIMEOUT_S))
    while request GET "/products/$PRODUCT" && ! holds 'a["in_stock"] == int(n)' "n=$2" && ((SECONDS < deadline)); do
        sleep "$POLL_INTERVAL_S"
    done
    check "$1" 200 'a["in_stock"] == int(n)' "n=$2"
}

error_is() { # WHAT STATUS CODE
    check "$1" "$2" 'a["error"] == code and isinstance(a["message"], str) and a["message"]' "code=$3"
}

products() {
    local product="{\"id\": \"$PRODUCT\", \"title\": \"The Odyssey\", \"passenger_capacity\": 101, \"maximum_speed\": 5, \"in_stock\": 10}"
    request GET "/products/$PRODUCT"
    error_is "a product that was not created is not there" 404 PRODUCT_NOT_FOUND
    request POST /products "$product"
    check "create a product" 200 'a == {"id": id}' "id=$PRODUCT"
    request GET "/products/$PRODUCT"
    check "get the product" 200 'a == {"id": id, "title": "The Odyssey", "passenger_capacity": 101, "maximum_speed": 5, "in_stock": 10}' "id=$PRODUCT"
    request POST /products "{\"id\": \"$PRODUCT\", \"title\": \"The Odyssey\"}"
    error_is "a product with fields missing is refused" 400 VALIDATION_ERROR
    request POST /products '{"id": "the_'
    check "a product that is not JSON is refused" 400 'a["error"] == "BAD_REQUEST" and a["message"].startswith("Invalid json: ")'
    request GET "/products/$PRODUCT"
    check "what was refused changed nothing" 200 'a["maximum_speed"] == 5 and a["in_stock"] == 10'
}

orders() {
    local order image
    request POST /orders "{\"order_details\": [{\"product_id\": \"$PRODUCT\", \"price\": \"100000.99\", \"quantity\": 1}]}"
    check "create an order" 200 'list(a) == ["id"] and type(a["id"]) is int and a["id"] > 0'
    order=$(field id)
    request GET "/orders/$order"
    check "get the order" 200 'a["id"] == int(order) and len(a["order_details"]) == 1' "order=$order"
    check "its line is what was ordered" 200 \
        '[(d["product_id"], d["price"], d["quantity"]) for d in a["order_details"]] == [(id, "100000.99", 1)]' "id=$PRODUCT"
    check "its line has the product" 200 'a["order_details"][0]["product"]["title"] == "The Odyssey"'
    image="/$PRODUCT.jpg"
    check "its line has the product's image" 200 'a["order_details"][0]["image"].endswith(image)' "image=$image"
    wait_for_stock "the order lowered the stock" 9
    request GET /orders
    check "list orders, by id" 200 'len(a) >= 1 and [o["id"] for o in a] == sorted(o["id"] for o in a)'
    check "the list has the order" 200 \
        'len(a) >= int(page) or [o["order_details"][0]["price"] for o in a if o["id"] == int(order)] == ["100000.99"]' \
        "order=$order" "page=$ORDERS_PAGE_SIZE"
    request POST /orders "{\"order_details\": [{\"product_id\": \"$PRODUCT\", \"price\": \"1.00\", \"quantity\": 1}, {\"product_id\": \"$PRODUCT-unknown\", \"price\": \"1.00\", \"quantity\": 1}]}"
    check "an order of an unknown product is refused" 404 \
        'a == {"error": "PRODUCT_NOT_FOUND", "message": "Product Id " + id + "-unknown"}' "id=$PRODUCT"
    request POST /orders 'order_details'
    error_is "an order that is not JSON is refused" 400 BAD_REQUEST
    request GET /orders/2147483647
    error_is "an unknown order is not there" 404 ORDER_NOT_FOUND
    ORDER=$order
}

# Where the Python original takes what makes no sense, or answers with 500 or HTML.
refusals_of_ours() {
    request POST /orders '{"order_details": []}'
    error_is "an order without lines is refused" 400 VALIDATION_ERROR
    request POST /orders "{\"order_details\": [{\"product_id\": \"$PRODUCT\", \"price\": \"1.005\", \"quantity\": 1}]}"
    error_is "a price of three decimal places is refused" 400 VALIDATION_ERROR
    request POST /orders "{\"order_details\": [{\"product_id\": \"$PRODUCT\", \"price\": \"1.00\", \"quantity\": 0}]}"
    error_is "a quantity of 0 is refused" 400 VALIDATION_ERROR
    request GET "/products/$PRODUCT"
    check "what was refused lowered no stock" 200 'a["in_stock"] == 9'
    request PUT "/products/$PRODUCT" '{}'
    check "another method is refused" 405 'set(a) == {"error", "message"}'
    request GET /no/such/path
    check "an unknown path is not there" 404 'set(a) == {"error", "message"}'
}


farewell() {
    request DELETE "/products/$PRODUCT"
    check "delete the product" 204 'a is None'
    request GET "/products/$PRODUCT"
    error_is "the deleted product is not there" 404 PRODUCT_NOT_FOUND
    request DELETE "/products/$PRODUCT"
    check "deleting it again is no error" 204 'a is None'
    if [[ $ORIGINAL_GATEWAY != 1 ]]; then
        request GET "/orders/$ORDER"
        check "the order of a deleted product can still be read" 200 'a["order_details"][0]["product"] is None'
    fi
}

main() {
    case ${1:-} in
    local) URL=http://127.0.0.1:${PORT:-8000} ;;
    http://* | https://*) URL=${1%/} ;;
    -h | --help | help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit "$EXIT_USAGE"
        ;;
    esac
    if (($# > 1)); then
        usage >&2
        exit "$EXIT_USAGE"
    fi
    if ! PYTHON=$(command -v /usr/bin/python3 || command -v python3) || ! command -v curl >/dev/null; then
        printf '%s: curl and python3 are needed; run: sudo apt-get install --no-install-recommends curl python3\n' "${0##*/}" >&2
        exit "$EXIT_FAILED"
    fi
    PRODUCT=the_odyssey_$(printf '%08x' "$SRANDOM")
    request GET "/products/$PRODUCT"
    if [[ $STATUS == none ]]; then
        printf '%s: nothing answers at %s: %s\n' "${0##*/}" "$URL" "$BODY" >&2
        printf '0 passed, 1 failed\n'
        exit "$EXIT_FAILED"
    fi
    products
    orders
    if [[ $ORIGINAL_GATEWAY != 1 ]]; then
        refusals_of_ours
    fi
    farewell
    printf '%s passed, %s failed\n' "$PASSED" "$FAILED"
    ((FAILED == 0)) || exit "$EXIT_FAILED"
}

main "$@"

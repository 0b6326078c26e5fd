# shellcheck shell=bash disable=SC2034 # what sources it reads URL
# A shop of its own for a load test, by dev_run.sh.  To be sourced; needs CHECKOUT.

readonly READY_TIMEOUT_S=300 # it may have to build first
readonly POLL_INTERVAL_S=0.2
SHOP_PID=
URL= # of the gateway

free_port() { /usr/bin/python3 -I "$CHECKOUT/test/support/ports.py"; }

wait_for() { # PID COMMAND...: until it succeeds; fails when the process ends first
    local pid=$1 deadline=$((SECONDS + READY_TIMEOUT_S))
    shift
    until "$@"; do
        if ! kill -0 "$pid" 2>/dev/null || ((SECONDS >= deadline)); then
            return 1
        fi
        sleep "$POLL_INTERVAL_S"
    done
}

shop_start() { # FOLDER LOG
    local port
    port=$(free_port)
    URL=http://127.0.0.1:$port
    mkdir -p "$1"
    env -u AMQP_URI -u REDIS_URI -u POSTGRES_URI RUN_DIR="$1" PORT="$port" "$CHECKOUT/dev_run.sh" >"$2" 2>&1 </dev/null &
    SHOP_PID=$!
    wait_for "$SHOP_PID" grep -q '^Ready: ' "$2"
}

shop_stop() { # FOLDER: with all that is in it
    if [[ -n $SHOP_PID ]]; then
        kill "$SHOP_PID" 2>/dev/null
        wait "$SHOP_PID" 2>/dev/null
        SHOP_PID=
    fi
    if [[ -d $1 ]]; then
        RUN_DIR=$1 "$CHECKOUT/dev_run_backingsvcs.sh" stop >/dev/null 2>&1
        rm -rf "$1"
    fi
}

#!/bin/bash
# Builds and runs the shop for a developer, in the foreground.  See usage().
set -euo pipefail

CHECKOUT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd -P)
readonly CHECKOUT
# shellcheck source=dev/say.sh
. "$CHECKOUT/dev/say.sh"
# shellcheck source=dev/packages.sh
. "$CHECKOUT/dev/packages.sh"

RUN=$(realpath -m -- "${RUN_DIR:-$CHECKOUT/.run}")
BUILD=$(cd "$CHECKOUT" && realpath -m -- "${BUILD_DIR:-build}")
readonly RUN BUILD
# shellcheck source=dev/process.sh
. "$CHECKOUT/dev/process.sh"

readonly ALL_SERVICES=(products orders gateway)
readonly FIRST_DEBUG_PORT=5678
readonly INSTANCES_MAX=32
readonly READY_TIMEOUT_S=60
readonly WATCH_INTERVAL_S=5
readonly EXIT_BY_SIGTERM=143
readonly DRAIN_TIMEOUT_S=40 # more than any service takes by its own limit

SERVICES=()        # in the order named
PRIVATE_SERVERS=() # those that this run uses
LABELS=()          # of each process: orders, or orders-2 where there are several
declare -A URIS=() # of each service: the private servers', by users of its own, as "export" lines
declare -A PIDS=() # label -> pid, of those that have not been waited for
LOG_PIDS=()        # what prints and keeps the processes' output
STEP_PID=          # a step of the set-up that runs now
STOP_ASKED=0       # how often SIGINT, SIGTERM or SIGHUP came

usage() {
    cat <<USAGE
Usage: ${0##*/} [SERVICE...]

Installs what is missing, builds, starts RabbitMQ, Redis and PostgreSQL for this checkout, migrates the database and runs
the services named (products, orders, gateway; all three if none is named) until Ctrl-C.

Environment:
  AMQP_URI, REDIS_URI, POSTGRES_URI   a server of your own, used as it stands; one that is not set gets a private server,
                                      its data under .run/ (RUN_DIR) and kept between runs; there each service has a user of
                                      its own, who may only what it needs
  PORT (8000), BIND_ADDRESS (127.0.0.1)   where the gateway listens; several of them take PORT, PORT+1, ...
  INSTANCES (1)   how many processes of each service
  DEBUG=1         each under gdbserver from its first instruction, on 127.0.0.1:$FIRST_DEBUG_PORT and the ports that follow
  RPC_TIMEOUT_MS, MAX_WORKERS, LOG_LEVEL, LOG_FORMAT, ...   reach the services unchanged
Exit codes: 0 stopped as asked, 1 failed while running, 2 wrong usage or setting, port in use or server not there,
  3 packages are missing and cannot be installed from here
USAGE
}

# ---- settings --------------------------------------------------------------------------------------------------------

read_services() { # ARGUMENT...
    local argument service
    for argument in "$@"; do
        service=${argument%.service}
        [[ " ${ALL_SERVICES[*]} " == *" $service "* ]] ||
            fail "$EXIT_USAGE" "unknown service '$argument'; there are: ${ALL_SERVICES[*]}"
        [[ " ${SERVICES[*]-} " == *" $service "* ]] || SERVICES+=("$service")
    done
    ((${#SERVICES[@]})) || SERVICES=("${ALL_SERVICES[@]}")
}

runs() { [[ " ${SERVICES[*]} " == *" $1 "* ]]; } # SERVICE

read_settings() {
    export PORT=${PORT:-8000} BIND_ADDRESS=${BIND_ADDRESS:-127.0.0.1}
    INSTANCES=${INSTANCES:-1}
    if [[ ! $INSTANCES =~ ^[0-9]{1,3}$ ]] || ((10#$INSTANCES < 1 || 10#$INSTANCES > INSTANCES_MAX)); then
        fail "$EXIT_USAGE" "INSTANCES is '$INSTANCES'; it may be 1 to $INSTANCES_MAX"
    fi
    INSTANCES=$((10#$INSTANCES))
    if [[ ! $PORT =~ ^[0-9]{1,5}$ ]] || ((10#$PORT < 1 || 10#$PORT + INSTANCES - 1 > 65535)); then
        fail "$EXIT_USAGE" "PORT is '$PORT'; it may be 1 to 65535, as may the ports of the gateways that follow it"
    fi
    PORT=$((10#$PORT))
    case ${DEBUG:-} in
    '' | 0 | no | false) DEBUGGING=0 ;;
    1 | yes | true) DEBUGGING=1 ;;
    *) fail "$EXIT_USAGE" "DEBUG is '$DEBUG'; it may be 1 or 0" ;;
    esac
    # Their output goes through a pipe; what they would do on a terminal is right for the person in front of this one.
    if [[ -t 1 && -z ${LOG_FORMAT:-} ]]; then
        export LOG_FORMAT=logfmt
    fi
}

probe() { # ARGUMENT...
    local complaint
    complaint=$(/usr/bin/python3 -I "$CHECKOUT/dev/probe.py" "$@" 2>&1 </dev/null) || fail "$EXIT_USAGE" "$complaint"
}

# What each service needs: "SERVER URI-VARIABLE PROBE" lines.
servers_needed() {
    say "rabbitmq AMQP_URI amqp"
    if runs products; then
        say "redis REDIS_URI redis"
    fi
    if runs orders; then
        say "postgres POSTGRES_URI postgres"
    fi
}

# Servers of the user's own must be there; for the others private ones are started.
check_servers() {
    local server variable kind
    while read -r server variable kind; do
        if [[ -n ${!variable:-} ]]; then
            probe "$kind" "${!variable}"
        else
            PRIVATE_SERVERS+=("$server")
        fi
    done < <(servers_needed)
}

check_ports() {
    if runs gateway; then
        # shellcheck disable=SC2046 # ports, one a word
        probe listen PORT "$BIND_ADDRESS" $(seq "$PORT" $((PORT + INSTANCES - 1)))
    fi
    if ((DEBUGGING)); then
        # shellcheck disable=SC2046
        probe listen "nothing else than DEBUG, which takes no" 127.0.0.1 \
            $(seq "$FIRST_DEBUG_PORT" $((FIRST_DEBUG_PORT + ${#SERVICES[@]} * INSTANCES - 1)))
    fi
}

# ---- signals and steps -----------------------------------------------------------------------------------------------

# Ctrl-C, SIGTERM, the terminal's end.  A second one does not wait for the services to drain.
on_stop() {
    STOP_ASKED=$((STOP_ASKED + 1))
    if ((STOP_ASKED > 1 && ${#PIDS[@]})); then
        complain "not waiting any longer"
        signal_services KILL
    fi
}

end_if_asked() { ((STOP_ASKED == 0)) || end 0; }

# Runs a step of the set-up so that a signal ends it at once.
step() { # COMMAND...
    local code=0
    "$@" {USERS_FD}>&- &
    STEP_PID=$!
    wait "$STEP_PID" || code=$?
    while ((STOP_ASKED)) && kill -TERM "$STEP_PID" 2>/dev/null; do
        wait "$STEP_PID" || true
    done
    STEP_PID=
    end_if_asked
    return "$code"
}

# ---- private servers -------------------------------------------------------------------------------------------------

# Every run holds a shared lock while it uses the servers, and stops those that a run started when it is the last to go: two
# terminals with a service each do not pull the servers from under one another.
servers_hold() {
    mkdir -p "$RUN/log" 2>/dev/null || fail "$EXIT_FAILED" "cannot make the run folder $RUN; make it writable for $(id -un)"
    exec {USERS_FD}>"$RUN/users.lock"
    flock --shared "$USERS_FD"
}

servers_start() {
    local server service
    ((${#PRIVATE_SERVERS[@]})) || return 0
    for server in "${PRIVATE_SERVERS[@]}"; do
        "$CHECKOUT/dev_run_backingsvcs.sh" status "$server" >/dev/null 2>&1 || : >"$RUN/$server.started-by-run"
    done
    step "$CHECKOUT/dev_run_backingsvcs.sh" start "${PRIVATE_SERVERS[@]}" || end $?
    for service in "${SERVICES[@]}"; do
        URIS[$service]=$("$CHECKOUT/dev_run_backingsvcs.sh" env --service "$service" "${PRIVATE_SERVERS[@]}") || end "$EXIT_FAILED"
    done
}

# The tables are their owner's; the service's role is granted what it needs of them, where there is such a role.
database_migrate() {
    local exports
    if [[ -z ${POSTGRES_URI:-} ]]; then
        exports=$("$CHECKOUT/dev_run_backingsvcs.sh" env postgres) || end "$EXIT_FAILED"
        eval "$exports"
        export -n POSTGRES_URI
        POSTGRES_URI=$POSTGRES_URI SERVICE_ROLE=orders step "$CHECKOUT/migrations/deploy.sh" || end $?
        unset POSTGRES_URI
    else
        step "$CHECKOUT/migrations/deploy.sh" || end $?
    fi
}

servers_stop() {
    local server
    local -a to_stop=()
    [[ -n ${USERS_FD:-} ]] || return 0
    flock --exclusive --nonblock "$USERS_FD" || return 0 # somebody else is using them
    for server in rabbitmq redis postgres; do
        if [[ -e $RUN/$server.started-by-run ]]; then
            rm -f "$RUN/$server.started-by-run"
            to_stop+=("$server")
        fi
    done
    ((${#to_stop[@]} == 0)) || "$CHECKOUT/dev_run_backingsvcs.sh" stop "${to_stop[@]}" >/dev/null {USERS_FD}>&-
}

# ---- services --------------------------------------------------------------------------------------------------------

service_program() { # SERVICE
    case $1 in
    gateway) printf '%s/kore-gateway/kore-gateway' "$BUILD" ;;
    *) printf '%s/%s/%s' "$BUILD" "$1" "$1" ;;
    esac
}

# Prints a process's output with its name before each line, and keeps it in a file.  Ctrl-C is not for it: the last
# lines are the interesting ones.
keep_output() { # LABEL
    trap '' INT TERM HUP
    exec {USERS_FD}>&-
    if ((${#SERVICES[@]} * INSTANCES > 1)); then
        tee --output-error=warn-nopipe "$RUN/log/$1.log" | sed -u "s/^/$(printf '%-*s' 11 "$1")| /"
    else
        exec tee --output-error=warn-nopipe "$RUN/log/$1.log"
    fi
}

service_start() { # SERVICE INSTANCE
    local service=$1 label=$1 port=$PORT program output debugger_port
    local -a wrapper=()
    program=$(service_program "$service")
    ((INSTANCES == 1)) || label=$service-$2
    if [[ $service == gateway ]]; then
        port=$((PORT + $2 - 1))
    fi
    if [[ ! -x $program ]]; then
        complain "$program was not built"
        end "$EXIT_FAILED"
    fi
    if ((DEBUGGING)); then
        debugger_port=$((FIRST_DEBUG_PORT + ${#LABELS[@]}))
        wrapper=(/usr/bin/python3 -I "$CHECKOUT/dev/debug_on_loopback.py" "$debugger_port" "$RUN/$label.debugged")
        say "$label waits for a debugger on 127.0.0.1:$debugger_port: gdb $program -ex 'target remote 127.0.0.1:$debugger_port'"
    fi
    rm -f "$RUN/$label.ready" "$RUN/$label.debugged"
    exec {output}> >(keep_output "$label")
    LOG_PIDS+=($!)
    (
        exec {USERS_FD}>&- </dev/null >&"$output" 2>&1 {output}>&-
        eval "${URIS[$service]:-}"
        # A session of its own: Ctrl-C is for this script, which tells them.  If this script is killed, they are told too.
        exec setsid setpriv --pdeathsig TERM -- \
            env --default-signal=INT,QUIT "READY_FILE=$RUN/$label.ready" "PORT=$port" "${wrapper[@]}" "$program"
    ) &
    PIDS[$label]=$!
    printf '%s\n' "$!" >"$RUN/$label.pid"
    LABELS+=("$label")
    exec {output}>&-
}

# The program that gdbserver runs, or ran until the debugger let it go.
debugged_program() { # LABEL
    local pid=''
    read -r pid 2>/dev/null <"$RUN/$1.debugged" || return 1
    process_identity "$pid" >/dev/null && printf '%s' "$pid"
}

# Under a debugger the signal is for the program, not for gdbserver, which would take it down undrained.  One that the
# debugger holds would hear nothing until somebody lets it run: it is ended at once.
signal_debugged() { # LABEL SIGNAL
    local child
    if child=$(debugged_program "$1") && [[ $(sed 's/.*) //; s/ .*//' "/proc/$child/stat" 2>/dev/null) != [tT] ]]; then
        kill -s "$2" "$child" 2>/dev/null || true
    else
        kill -s KILL ${child:+"$child"} "${PIDS[$1]}" 2>/dev/null || true
    fi
}

signal_services() { # SIGNAL
    local label
    for label in "${!PIDS[@]}"; do
        if ((DEBUGGING)); then
            signal_debugged "$label" "$1"
        else
            kill -s "$1" "${PIDS[$label]}" 2>/dev/null || true
        fi
    done
}

# Whether a process has ended; if so, ENDED is its label and ENDED_CODE its exit code.
service_ended() {
    local label program
    for label in "${!PIDS[@]}"; do
        if ! process_identity "${PIDS[$label]}" >/dev/null; then
            if ((DEBUGGING)) && program=$(debugged_program "$label"); then
                PIDS[$label]=$program # the debugger let it go, and gdbserver with it
                continue
            fi
            ENDED=$label
            ENDED_CODE=0
            { wait "${PIDS[$label]}" || ENDED_CODE=$?; } 2>/dev/null # see pause()
            unset "PIDS[$label]"
            return 0
        fi
    done
    return 1
}

all_ended() {
    local label
    if ((DEBUGGING)); then
        for label in "${!PIDS[@]}"; do
            # Its program has ended; gdbserver would stay until the debugger has heard of it.
            debugged_program "$label" >/dev/null || kill -s KILL "${PIDS[$label]}" 2>/dev/null || true
        done
    fi
    while service_ended; do
        if ((ENDED_CODE == EXIT_BY_SIGTERM)) && [[ ! -e $RUN/$ENDED.ready ]]; then
            continue # it had not come to the point where it listens to signals
        fi
        if ((ENDED_CODE != 0 && DEBUGGING == 0)); then
            complain "$ENDED ended with exit code $ENDED_CODE while it was being stopped"
            STOPPED_WELL=0
        fi
    done
    ((${#PIDS[@]} == 0))
}

services_stop() {
    STOPPED_WELL=1
    if ((${#PIDS[@]})); then
        signal_services TERM
        if ! wait_until "$DRAIN_TIMEOUT_S" all_ended; then
            complain "still running after $DRAIN_TIMEOUT_S s and killed: ${!PIDS[*]}"
            STOPPED_WELL=0
            signal_services KILL
            wait_until "$DRAIN_TIMEOUT_S" all_ended || true
        fi
    fi
    local pid
    for pid in "${LOG_PIDS[@]}"; do
        wait "$pid" 2>/dev/null || true # so that their last words come before ours
    done
    LOG_PIDS=()
    local label
    for label in "${LABELS[@]}"; do
        rm -f "$RUN/$label.ready" "$RUN/$label.pid" "$RUN/$label.debugged"
    done
}

# The only way out once servers or services run.
end() { # EXIT-CODE
    local code=$1
    services_stop
    ((STOPPED_WELL)) || [[ $code != 0 ]] || code=$EXIT_FAILED
    servers_stop || true
    ((STOP_ASKED == 0)) || say "stopped"
    exit "$code"
}

# A process ended that nobody asked to.
end_for() { # LABEL CODE
    local label=$1 code=$2 was_ready=0
    [[ ! -e $RUN/$label.ready ]] || was_ready=1
    services_stop
    log_show_end "$RUN/log/$label.log"
    if ((code == EXIT_USAGE && !was_ready)); then
        complain "$label refuses its settings (exit code $code); all is stopped"
        end "$EXIT_USAGE"
    fi
    complain "$label ended by itself (exit code $code); all is stopped"
    end "$EXIT_FAILED"
}

services_wait_ready() {
    local label waiting
    local deadline=$((SECONDS + READY_TIMEOUT_S))
    while :; do
        end_if_asked
        if service_ended; then
            end_for "$ENDED" "$ENDED_CODE"
        fi
        waiting=
        for label in "${LABELS[@]}"; do
            [[ -e $RUN/$label.ready ]] || waiting+=" $label"
        done
        [[ -n $waiting ]] || return 0
        if ((!DEBUGGING && SECONDS >= deadline)); then
            complain "not ready within $READY_TIMEOUT_S s:$waiting"
            for label in $waiting; do
                log_show_end "$RUN/log/$label.log"
            done
            end "$EXIT_FAILED"
        fi
        pause "$POLL_INTERVAL_S"
    done
}

services_watch() {
    while :; do
        end_if_asked
        if service_ended; then
            end_for "$ENDED" "$ENDED_CODE"
        fi
        # Wakes up for a process that ends and for a signal; the time limit is there because a process that ended just
        # before this line may not count.
        sleep "$WATCH_INTERVAL_S" &
        { wait -n "$!" "${PIDS[@]}" || true; } 2>/dev/null # see pause()
        kill "$!" 2>/dev/null || true
    done
}

tell_what_runs() {
    local service number host=$BIND_ADDRESS
    case $host in
    0.0.0.0 | ::) host=127.0.0.1 ;;
    *:*) host="[$host]" ;;
    esac
    say
    say "Ready: ${LABELS[*]}"
    if runs gateway; then
        for ((number = 0; number < INSTANCES; number++)); do
            say "  http://$host:$((PORT + number))"
        done
        say "Try, in another terminal:"
        say "  curl -d '{\"id\": \"the_odyssey\", \"title\": \"The Odyssey\", \"passenger_capacity\": 101," \
            "\"maximum_speed\": 5, \"in_stock\": 10}' http://$host:$PORT/products"
        say "  curl http://$host:$PORT/products/the_odyssey"
        say "  test/nex-smoketest.sh http://$host:$PORT"
    else
        for service in "${ALL_SERVICES[@]}"; do
            runs "$service" || say "Try, in another terminal:  ./${0##*/} $service"
        done
    fi
    say "Ctrl-C stops all of it."
}

main() {
    local service number
    if [[ ${1:-} == @(-h|--help|help) ]]; then
        usage
        exit 0
    fi
    read_services "$@"
    read_settings
    if ((DEBUGGING)); then
        packages_install build run debug
    else
        packages_install build run
    fi
    check_ports
    check_servers
    servers_hold
    trap on_stop INT TERM HUP
    step make --no-print-directory -C "$CHECKOUT" BUILD_DIR="$BUILD" programs || end "$EXIT_FAILED"
    servers_start
    if runs orders; then
        database_migrate
    fi
    check_ports
    for ((number = 1; number <= INSTANCES; number++)); do
        for service in "${SERVICES[@]}"; do
            service_start "$service" "$number"
        done
    done
    services_wait_ready
    tell_what_runs
    services_watch
}

main "$@"

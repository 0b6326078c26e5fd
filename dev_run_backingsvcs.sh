#!/bin/bash
# RabbitMQ, Redis and PostgreSQL for this checkout alone.  See usage().
set -euo pipefail

CHECKOUT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd -P)
readonly CHECKOUT
# shellcheck source=dev/say.sh
. "$CHECKOUT/dev/say.sh"

RUN=$(realpath -m -- "${RUN_DIR:-$CHECKOUT/.run}")
readonly RUN

# shellcheck source=dev/process.sh
. "$CHECKOUT/dev/process.sh"
# shellcheck source=dev/ports.sh
. "$CHECKOUT/dev/ports.sh"
# Each server is a file of functions NAME_is_installed, _choose_ports, _prepare, _launch, _answers, _after_start, _stop, _uri
# and _service_uri, and the constants NAME_PROGRAMS (what runs in RUN/NAME), NAME_START_TIMEOUT_S, NAME_PACKAGE and
# NAME_SERVICES (who has a user of its own there).  _after_start also brings a server up to date that an older version started.
# shellcheck source=dev/rabbitmq.sh
. "$CHECKOUT/dev/rabbitmq.sh"
# shellcheck source=dev/redis.sh
. "$CHECKOUT/dev/redis.sh"
# shellcheck source=dev/postgres.sh
. "$CHECKOUT/dev/postgres.sh"

readonly ALL_SERVERS=(rabbitmq redis postgres)
readonly ALL_SERVICES=(products orders gateway)
readonly LOCK_TIMEOUT_S=180
readonly START_TRIES_MAX=3 # another program may take the port between its choice and its use

usage() {
    cat <<USAGE
Usage: ${0##*/} [COMMAND] [SERVER...]

RabbitMQ, Redis and PostgreSQL for this checkout: on ports of their own on 127.0.0.1, as the calling user (PostgreSQL
refuses root and then runs as "postgres"), with their data in .run/ (RUN_DIR=<folder> selects another one).  A port is
chosen once, from 20000 to 31999 (SERVER_PORTS=<lowest>-<highest>).

Commands:
  start    start what does not run yet, and wait until it answers (the default)
  stop     stop what runs; the data stay
  status   what runs where; exit 0 only if all of it does
  env      the URIs, as "export" lines:  eval "\$(./${0##*/} env)"
  env --service NAME   those of the service (products, orders, gateway), by its own users, who may only what it needs
  rabbitmqctl ARGUMENT...   this broker's own rabbitmqctl

Servers: rabbitmq, redis, postgres; all three if none is named.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a server is not installed
USAGE
}

random_hex() { od -An -vtx1 -N "$1" /dev/urandom | tr -d ' \n' && echo; } # BYTES

# A file with a random password, for its owner alone; one that is there stays.
secret_make() { # FILE
    [[ ! -s $1 ]] || return 0
    (umask 077 && random_hex 24 >"$1.new") && mv "$1.new" "$1"
}

# Everything a server's start or stop touches is under this lock: two callers at once do it one after the other.
run_folder_lock() {
    mkdir -p "$RUN/log" 2>/dev/null || fail "$EXIT_FAILED" "cannot make the run folder $RUN; make it writable for $(id -un)"
    if [[ ! -O $RUN ]]; then
        fail "$EXIT_FAILED" "$RUN belongs to $(stat -c %U "$RUN"), who started the servers there; call this as that user," \
            "or name another folder: RUN_DIR=<folder>"
    fi
    chmod 700 "$RUN" # it holds passwords
    exec {LOCK_FD}>"$RUN/lock"
    flock -w "$LOCK_TIMEOUT_S" "$LOCK_FD" ||
        fail "$EXIT_FAILED" "another start or stop has been holding $RUN/lock for $LOCK_TIMEOUT_S s"
}

server_programs() { local -n programs=${1^^}_PROGRAMS; printf '%s\n' "${programs[@]}"; } # SERVER

# The server answers, or has ended and never will.
server_settled() { ! process_runs "$1" || "$1_answers"; } # SERVER

server_comes_up() { # SERVER
    local -n timeout_s=${1^^}_START_TIMEOUT_S
    wait_until "$timeout_s" server_settled "$1" && process_runs "$1"
}

server_ports_are_free() { # SERVER
    local file
    for file in "$RUN/$1".port "$RUN/$1"-*.port; do
        [[ ! -e $file ]] || port_is_free "$(<"$file")" || return 1
    done
}

# Starts one server whose ports are chosen; in a subshell of its own.
server_start() { # SERVER
    local server=$1 try
    local log=$RUN/log/$server.log
    local -a programs
    mapfile -t programs < <(server_programs "$server")
    for ((try = 1; ; try++)); do
        process_forget "$server"
        log_begin "$log"
        "${server}_prepare" || break
        if ("${server}_launch") && server_comes_up "$server"; then
            if ! "${server}_after_start"; then
                "${server}_stop"
                break
            fi
            say "$(server_line "$server")"
            return
        fi
        "${server}_stop"
        stop_leftovers "$RUN/$server" "${programs[@]}"
        if server_ports_are_free "$server" || ((try == START_TRIES_MAX)); then
            break
        fi
        "${server}_choose_ports"
    done
    complain "$server does not start"
    log_show_end "$log"
    return 1
}

server_line() { # SERVER
    local pid
    if pid=$(process_pid "$1"); then
        printf '%-9s runs on 127.0.0.1:%s (pid %s)' "$1" "$(port_remembered "$1")" "$pid"
    else
        printf '%-9s does not run' "$1"
    fi
}

check_installed() { # SERVER...
    local server
    local -a missing=()
    for server in "$@"; do
        local -n package=${server^^}_PACKAGE
        "${server}_is_installed" || missing+=("$package")
    done
    ((${#missing[@]} == 0)) ||
        fail "$EXIT_MISSING" "not installed: ${missing[*]}; run: sudo apt-get install --no-install-recommends ${missing[*]}"
}

command_start() { # SERVER...
    local server failed=0
    local -a to_start=() programs starts=()
    check_installed "$@"
    run_folder_lock
    for server in "$@"; do
        if process_runs "$server"; then
            process_record "$server" "$(process_pid "$server")" # a pid file that was lost or overwritten is put right
            if server_comes_up "$server"; then
                "${server}_after_start" || fail "$EXIT_FAILED" "$server runs, but does not take its users; see $RUN/log/$server.log"
                say "$(server_line "$server")"
                continue
            fi
            complain "$server runs but does not answer; starting it again"
            "${server}_stop"
        fi
        mapfile -t programs < <(server_programs "$server")
        "${server}_stop" # also what belongs to it, such as RabbitMQ's epmd
        stop_leftovers "$RUN/$server" "${programs[@]}"
        "${server}_choose_ports"
        to_start+=("$server")
    done
    for server in "${to_start[@]}"; do
        (server_start "$server") &
        starts+=($!)
    done
    for server in "${starts[@]}"; do
        wait "$server" || failed=1
    done
    ((failed == 0)) || exit "$EXIT_FAILED"
}

command_stop() { # SERVER...
    local server
    local -a stops=() programs
    [[ -d $RUN ]] || return 0
    run_folder_lock
    for server in "$@"; do
        mapfile -t programs < <(server_programs "$server")
        ("${server}_stop" && stop_leftovers "$RUN/$server" "${programs[@]}" && say "$(server_line "$server")") &
        stops+=($!)
    done
    for server in "${stops[@]}"; do
        wait "$server" || exit "$EXIT_FAILED"
    done
}

command_status() { # SERVER...
    local server failed=0
    for server in "$@"; do
        say "$(server_line "$server")"
        process_runs "$server" || failed=$EXIT_FAILED
    done
    exit "$failed"
}

command_env() { # SERVER...
    local server uri
    for server in "$@"; do
        if [[ -z $SERVICE ]]; then
            uri=$("${server}_uri") || fail "$EXIT_FAILED" "$server was never started in $RUN; run: ./${0##*/} start"
        else
            local -n services=${server^^}_SERVICES
            [[ " ${services[*]} " == *" $SERVICE "* ]] || continue
            uri=$("${server}_service_uri" "$SERVICE") ||
                fail "$EXIT_FAILED" "$server has no user for $SERVICE in $RUN yet; run: ./${0##*/} start"
        fi
        say "export $uri"
    done
}

command_rabbitmqctl() { # ARGUMENT...
    local -a environment
    process_runs rabbitmq || fail "$EXIT_FAILED" "$(server_line rabbitmq) in $RUN; run: ./${0##*/} start"
    mapfile -t environment < <(rabbitmq_environment)
    exec env -i "${environment[@]}" "$RABBITMQ_CTL" "$@"
}

main() {
    local command=${1-start} server
    shift || true
    SERVICE=
    if [[ $command == env && ${1:-} == --service ]]; then
        SERVICE=${2:-}
        [[ -n $SERVICE && " ${ALL_SERVICES[*]} " == *" $SERVICE "* ]] ||
            fail "$EXIT_USAGE" "unknown service '$SERVICE'; there are: ${ALL_SERVICES[*]}"
        shift 2
    fi
    case $command in
    start | stop | status | env) ;;
    rabbitmqctl) command_rabbitmqctl "$@" ;;
    -h | --help | help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        fail "$EXIT_USAGE" "unknown command '$command'"
        ;;
    esac
    for server in "$@"; do
        [[ " ${ALL_SERVERS[*]} " == *" $server "* ]] ||
            fail "$EXIT_USAGE" "unknown server '$server'; there are: ${ALL_SERVERS[*]}"
    done
    (($#)) || set -- "${ALL_SERVERS[@]}"
    "command_$command" "$@"
}

main "$@"

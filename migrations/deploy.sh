#!/bin/bash
# Brings a system's database to the state that its services expect.  See usage().
set -euo pipefail

MIGRATIONS=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd -P)
readonly MIGRATIONS
readonly DEFAULT_URI=postgresql://postgres:postgres@localhost:5432/orders
readonly CONNECT_TIMEOUT_S=10
readonly CREATE_TRIES_MAX=20    # another deployment may be creating the same database
readonly CREATE_RETRY_DELAY_S=0.25
readonly EXIT_FAILED=1
readonly EXIT_USAGE=2
readonly EXIT_MISSING=3

usage() {
    cat <<USAGE
Usage: ${0##*/} [COMMAND [SYSTEM [SQITCH-OPTION...]]]

Commands:
  deploy   create the database if it is missing, and apply every migration that it lacks (the default)
  verify   check that what was applied is there
  revert   take back every migration, or those after one: revert orders --to order_tables.  Adopted tables stay; tables
           with orders or undelivered events are not dropped
  status   what was applied, and what was not

SYSTEM is a folder beside this script (orders, if none is named).  The database is the one that POSTGRES_URI names, as
libpq reads it; by default $DEFAULT_URI.  Any number of deployments may run at once.

SERVICE_ROLE=<role>: after "deploy", the role that the service connects as is granted what the service needs, and nothing
more; "verify" checks it.  The role must be there, and not be the one that deploys.
Exit codes: 0 done, 1 failed, 2 wrong usage, wrong URI or no server there, 3 sqitch or psql is not installed
USAGE
}

fail() { # EXIT-CODE MESSAGE...
    local code=$1
    shift
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit "$code"
}

fail_uri() { fail "$EXIT_USAGE" "POSTGRES_URI $*; it should look like postgresql://user:password@host:5432/orders"; }

# TEXT with its %-escapes resolved, in DECODED.
percent_decode() { # TEXT
    local rest=$1
    DECODED=
    while [[ $rest == *%* ]]; do
        DECODED+=${rest%%\%*}
        rest=${rest#*%}
        [[ $rest =~ ^[0-9A-Fa-f]{2} && ${rest:0:2} != 00 ]] || fail_uri "has a '%' that begins no escape such as %2F"
        printf -v DECODED '%s%b' "$DECODED" "\\x${rest:0:2}"
        rest=${rest:2}
    done
    DECODED+=$rest
}

export_decoded() { # VARIABLE TEXT
    percent_decode "$2"
    export "$1=$DECODED"
}

# The environment variable by which libpq takes the URI's parameter NAME, in VARIABLE; empty for one that has none and
# that a migration can do without.
parameter_variable() { # NAME
    case $1 in
    host | hostaddr | port | user | password | passfile | service | options | sslmode | sslcert | sslkey | sslrootcert | \
        sslcrl | sslcrldir | sslsni | requirepeer | gssencmode | krbsrvname | gsslib) VARIABLE=PG${1^^} ;;
    dbname) VARIABLE=PGDATABASE ;;
    application_name) VARIABLE=PGAPPNAME ;;
    channel_binding) VARIABLE=PGCHANNELBINDING ;;
    connect_timeout) VARIABLE=PGCONNECT_TIMEOUT ;;
    client_encoding) VARIABLE=PGCLIENTENCODING ;;
    sslcompression) VARIABLE=PGSSLCOMPRESSION ;;
    ssl_min_protocol_version) VARIABLE=PGSSLMINPROTOCOLVERSION ;;
    ssl_max_protocol_version) VARIABLE=PGSSLMAXPROTOCOLVERSION ;;
    target_session_attrs) VARIABLE=PGTARGETSESSIONATTRS ;;
    fallback_application_name | keepalives | keepalives_idle | keepalives_interval | keepalives_count | \
        tcp_user_timeout | replication | sslpassword | krb_realm) VARIABLE= ;;
    *) fail_uri "has an unknown parameter '$1'" ;;
    esac
}

# A list of "host:port" as libpq takes it, into PGHOST and PGPORT.
export_hosts() { # LIST
    local list=$1 entry hosts='' ports='' some_port=
    while :; do
        entry=${list%%,*}
        if [[ $entry =~ ^\[([^]]*)\](:([0-9]*))?$ || $entry =~ ^([^:]*)(:([0-9]*))?$ ]]; then
            hosts+=,${BASH_REMATCH[1]}
            ports+=,${BASH_REMATCH[3]}
            some_port+=${BASH_REMATCH[3]}
        else
            fail_uri "has a host or port that cannot be read"
        fi
        [[ $list == *,* ]] || break
        list=${list#*,}
    done
    if [[ -n ${hosts//,/} ]]; then
        export_decoded PGHOST "${hosts:1}"
    fi
    if [[ -n $some_port ]]; then
        export PGPORT=${ports:1}
    fi
}

# Everything goes to sqitch and psql by libpq's environment variables: no password is ever in a list of processes, and no
# quoting lies between a special character and the server.
export_uri() { # URI
    local uri=$1 pair
    local -a pairs
    [[ $uri =~ ^(postgresql|postgres)://(([^@/]*)@)?([^/?]*)(/([^?]*))?(\?(.*))?$ ]] || fail_uri "cannot be read"
    local userinfo=${BASH_REMATCH[3]} has_user=${BASH_REMATCH[2]} hosts=${BASH_REMATCH[4]}
    local database=${BASH_REMATCH[6]} parameters=${BASH_REMATCH[8]}
    if [[ -n $has_user ]]; then
        if [[ -n ${userinfo%%:*} ]]; then
            export_decoded PGUSER "${userinfo%%:*}"
        fi
        if [[ $userinfo == *:* ]]; then
            export_decoded PGPASSWORD "${userinfo#*:}"
        fi
    fi
    export_hosts "$hosts"
    if [[ -n $database ]]; then
        export_decoded PGDATABASE "$database"
    fi
    IFS='&' read -ra pairs <<<"$parameters"
    for pair in "${pairs[@]}"; do
        [[ $pair == ?*=* ]] || fail_uri "has a parameter without a value"
        if [[ $pair == ssl=true ]]; then # what JDBC writes, and libpq takes
            pair=sslmode=require
        fi
        parameter_variable "${pair%%=*}"
        if [[ -n $VARIABLE ]]; then
            export_decoded "$VARIABLE" "${pair#*=}"
        fi
    done
    [[ -n ${PGDATABASE:-} ]] || fail_uri "names no database"
    export PGCONNECT_TIMEOUT=${PGCONNECT_TIMEOUT:-$CONNECT_TIMEOUT_S}
}

query() { # DATABASE PSQL-ARGUMENT...
    local database=$1
    shift
    PGDATABASE=$database psql --no-psqlrc --no-align --tuples-only --quiet --set ON_ERROR_STOP=1 "$@" </dev/null
}

database_is_there() { LAST_ERROR=$(query "$PGDATABASE" --command 'SELECT 1' 2>&1 >/dev/null); }

# Prints "t" or "f"; the name comes from psql's variable, which quotes it.
database_is_listed() { # MAINTENANCE-DATABASE
    local name=$PGDATABASE
    query "$1" --set name="$name" --file <(printf '%s' "SELECT EXISTS (SELECT FROM pg_database WHERE datname = :'name')") \
        2>/dev/null
}

create_database() { # MAINTENANCE-DATABASE
    local name=$PGDATABASE
    query "$1" --set name="$name" --file <(printf '%s' "CREATE DATABASE :\"name\" ENCODING 'UTF8' TEMPLATE template0")
}

# In a database that is ours alone nobody but its owner makes tables, not even temporary ones.
revoke_temporary() {
    local name=$PGDATABASE
    query "$PGDATABASE" --set name="$name" --file <(printf '%s' "REVOKE TEMPORARY ON DATABASE :\"name\" FROM PUBLIC") ||
        fail "$EXIT_FAILED" "cannot revoke TEMPORARY on the database '$PGDATABASE' from PUBLIC"
}

# As createdb does, by way of the database "postgres" or "template1".
ensure_database() {
    local maintenance listed first_error tries
    database_is_there && return
    first_error=$LAST_ERROR
    for maintenance in postgres template1; do
        listed=$(database_is_listed "$maintenance") || continue
        if [[ $listed != f ]]; then
            database_is_there && return # another deployment created it meanwhile
            break                       # it is there, and does not let us in
        fi
        for ((tries = 0; tries < CREATE_TRIES_MAX; tries++)); do
            if LAST_ERROR=$(create_database "$maintenance" 2>&1); then
                revoke_temporary
                printf 'Created the database %s\n' "$PGDATABASE"
                return
            fi
            database_is_there && return # another deployment was quicker
            sleep "$CREATE_RETRY_DELAY_S"
        done
        fail "$EXIT_FAILED" "cannot create the database '$PGDATABASE': ${LAST_ERROR//$'\n'/ }"
    done
    fail "$EXIT_USAGE" "cannot connect to PostgreSQL as POSTGRES_URI says: ${first_error//$'\n'/ }"
}

# What a system wants to be sure of before anything is written, sqitch's own tables included.
check_before_deploy() { # FOLDER
    local message
    [[ -e $1/check_tables.sql ]] || return 0
    message=$(PGOPTIONS="${PGOPTIONS:-} -c default_transaction_read_only=on" \
        query "$PGDATABASE" --file "$1/check_tables.sql" 2>&1) && return
    message=${message#*ERROR:  }
    fail "$EXIT_FAILED" "$(sed '/^CONTEXT:/,$d; s/^HINT:  //' <<<"$message" | tr '\n' ' ')"
}

# What the service's role may, by the system's grants.sql, which says what it does for each word.
grant_to_service() { # FOLDER check|deploy|verify
    local message
    [[ -n ${SERVICE_ROLE:-} ]] || return 0
    [[ -e $1/grants.sql ]] || fail "$EXIT_USAGE" "SERVICE_ROLE is set, but ${1##*/} has no grants.sql"
    message=$(query "$PGDATABASE" --set role="$SERVICE_ROLE" --set action="$2" --file "$1/grants.sql" 2>&1) ||
        fail "$EXIT_FAILED" "$(sed -n '/ERROR:  /,$p' <<<"$message" | sed '/^CONTEXT:/,$d; s/.*ERROR:  //; s/^HINT:  //' | tr '\n' ' ')"
    [[ -z $message ]] || printf '%s\n' "$message" >&2
}

run_sqitch() { # FOLDER COMMAND OPTION...
    local folder=$1 command=$2
    shift 2
    # Sqitch wants to know who deploys; and nobody's own configuration changes what is deployed here.
    SQITCH_FULLNAME=${SQITCH_FULLNAME:-$(id -un 2>/dev/null || id -u)} \
        SQITCH_EMAIL=${SQITCH_EMAIL:-$(id -u)@$(uname -n)} \
        SQITCH_USER_CONFIG=/dev/null SQITCH_SYSTEM_CONFIG=/dev/null \
        sqitch --chdir "$folder" "$command" "$@" --target db:pg: </dev/null
}

main() {
    local command=${1:-deploy} system=${2:-orders} folder
    shift $(($# < 2 ? $# : 2))
    case $command in
    -h | --help | help)
        usage
        return
        ;;
    deploy | verify | status | revert) ;;
    *)
        usage >&2
        fail "$EXIT_USAGE" "unknown command '$command'"
        ;;
    esac
    folder=$MIGRATIONS/$system
    [[ $system != */* && -e $folder/sqitch.plan ]] || fail "$EXIT_USAGE" "no system '$system' in $MIGRATIONS"
    if ! command -v sqitch >/dev/null || ! command -v psql >/dev/null; then
        fail "$EXIT_MISSING" "not installed; run: sudo apt-get install --no-install-recommends sqitch libdbd-pg-perl postgresql-client"
    fi
    export_uri "${POSTGRES_URI:-$DEFAULT_URI}"
    case $command in
    deploy)
        ensure_database
        check_before_deploy "$folder"
        grant_to_service "$folder" check
        ;;
    revert) set -- -y "$@" ;;
    verify | status) ;;
    esac
    if [[ $command != deploy ]] && ! database_is_there; then
        fail "$EXIT_USAGE" "cannot connect to PostgreSQL as POSTGRES_URI says: ${LAST_ERROR//$'\n'/ }"
    fi
    run_sqitch "$folder" "$command" "$@" || exit "$EXIT_FAILED"
    case $command in
    deploy | verify) grant_to_service "$folder" "$command" ;;
    revert | status) ;;
    esac
}

main "$@"

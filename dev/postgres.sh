# shellcheck shell=bash disable=SC2034 # dev_run_backingsvcs.sh reads the constants by name
# A private PostgreSQL 15.  Sourced by dev_run_backingsvcs.sh.
#
# It refuses to run as root; for root it runs as "postgres" (or "nobody"), who may have no way through the folders
# above the checkout, such as /root.  So root opens the data folder, and the server finds it as the open file
# descriptor that it inherits (/proc/self/fd/9): no folder above is touched, none is walked through.

readonly POSTGRES_BIN=/usr/lib/postgresql/15/bin
readonly POSTGRES_PROGRAMS=(postgres)
readonly POSTGRES_START_TIMEOUT_S=60
readonly POSTGRES_CONNECTIONS_MAX=200
readonly POSTGRES_PACKAGE=postgresql-15
readonly POSTGRES_SERVICES=(orders) # each with a role of its own, granted to by migrations/deploy.sh

postgres_is_installed() { [[ -x $POSTGRES_BIN/initdb && -x $POSTGRES_BIN/postgres ]]; }

postgres_choose_ports() { port_choose postgres; }

postgres_uri() {
    local port password
    port=$(port_remembered postgres) && { read -r password <"$RUN/postgres/password"; } 2>/dev/null &&
        printf 'POSTGRES_URI=postgresql://postgres:%s@127.0.0.1:%s/orders' "$password" "$port"
}

postgres_service_uri() { # SERVICE
    local port password
    port=$(port_remembered postgres) && { read -r password <"$RUN/postgres/$1.password"; } 2>/dev/null &&
        printf 'POSTGRES_URI=postgresql://%s:%s@127.0.0.1:%s/%s' "$1" "$password" "$port" "$1"
}

# The account of the server, where it is not the caller's own.
postgres_account() {
    local name
    ((EUID == 0)) || return 0
    for name in postgres nobody; do
        if id -u "$name" >/dev/null 2>&1; then
            printf '%s' "$name"
            return
        fi
    done
    fail "$EXIT_FAILED" "PostgreSQL refuses to run as root, and there is no user 'postgres' or 'nobody' to run it as"
}

# The command that runs another one as the server's account, in POSTGRES_AS; the folder as that account sees it, in
# POSTGRES_HOME.  For root, file descriptor 9 must be open on the folder.
postgres_choose_account() {
    local account
    account=$(postgres_account)
    POSTGRES_AS=()
    POSTGRES_HOME=$RUN/postgres
    if [[ -n $account ]]; then
        POSTGRES_AS=(setpriv "--reuid=$account" "--regid=$(id -g "$account")" --init-groups --)
        POSTGRES_HOME=/proc/self/fd/9
    fi
}

postgres_prepare() {
    local home=$RUN/postgres account
    mkdir -p "$home"
    account=$(postgres_account)
    if [[ -n $account ]] && ! chown -R "$account" "$home"; then
        fail "$EXIT_FAILED" "cannot give $home to '$account', as whom PostgreSQL runs for root; is this file system" \
            "one without owners?  RUN_DIR=<folder elsewhere> puts the run folder on another one"
    fi
    if [[ -e $home/data ]]; then
        # Nothing works in this folder any more (the caller saw to that), so this file is a killed server's.  PostgreSQL
        # itself would believe it wherever its pid is a zombie, or has gone to another process of the same account.
        rm -f "$home/data/postmaster.pid"
        return
    fi
    rm -rf "$home/data.new" # one that was interrupted
    (umask 077 && random_hex 24 >"$home/password")
    if [[ -n $account ]]; then
        chown "$account" "$home/password"
    fi
    (
        exec 9<"$home"
        cd /
        postgres_choose_account
        "${POSTGRES_AS[@]}" "$POSTGRES_BIN/initdb" -D "$POSTGRES_HOME/data.new" -U postgres \
            --pwfile="$POSTGRES_HOME/password" --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 \
            >>"$RUN/log/postgres.log" 2>&1
    ) || return 1
    mv "$home/data.new" "$home/data"
}

postgres_launch() {
    exec 9<"$RUN/postgres"
    cd /
    postgres_choose_account
    process_start postgres "$RUN/log/postgres.log" "${POSTGRES_AS[@]}" "$POSTGRES_BIN/postgres" \
        -D "$POSTGRES_HOME/data" -c listen_addresses=127.0.0.1 -c "port=$(port_remembered postgres)" \
        -c unix_socket_directories= -c max_connections="$POSTGRES_CONNECTIONS_MAX" -c fsync=on \
        -c log_line_prefix='%m [%p] %u@%d '
}

postgres_psql() { # ARGUMENT...
    PGPASSWORD=$(<"$RUN/postgres/password") PGCONNECT_TIMEOUT=5 \
        "$POSTGRES_BIN/psql" -h 127.0.0.1 -p "$(port_remembered postgres)" -U postgres -d postgres -XAtq "$@"
}

postgres_answers() { postgres_psql -c 'SELECT 1' >/dev/null 2>&1 </dev/null; }

# The services' roles, by names that need no quoting.  A password is read from its file, so that it is in no list of processes.
postgres_after_start() {
    local service
    for service in "${POSTGRES_SERVICES[@]}"; do
        secret_make "$RUN/postgres/$service.password"
        SERVICE_PASSWORD=$(<"$RUN/postgres/$service.password") \
            postgres_psql -v ON_ERROR_STOP=1 -v "role=$service" -f - >>"$RUN/log/postgres.log" 2>&1 <<'SQL' || return
\getenv password SERVICE_PASSWORD
SET log_min_error_statement = panic; -- a statement that fails is not logged, for there is the password in it
SELECT format('CREATE ROLE %I', :'role') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec
ALTER ROLE :"role" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';
SQL
    done
}

postgres_stop() { process_stop postgres INT; } # "fast": it does not wait for its clients to leave

# shellcheck shell=bash disable=SC2034 # dev_run_backingsvcs.sh reads the constants by name
# A private RabbitMQ: its own node, cookie, name server (epmd) and ports, all on loopback.  Sourced by
# dev_run_backingsvcs.sh, which says what each of these functions is for.

readonly RABBITMQ_SERVER=/usr/lib/rabbitmq/bin/rabbitmq-server # not Debian's wrapper in /usr/sbin: it insists on root
readonly RABBITMQ_CTL=/usr/lib/rabbitmq/bin/rabbitmqctl
readonly RABBITMQ_PROGRAMS=(beam.smp epmd erl_child_setup inet_gethost)
readonly RABBITMQ_START_TIMEOUT_S=120
readonly RABBITMQ_PACKAGE=rabbitmq-server

readonly RABBITMQ_SERVICES=(gateway orders products) # each with a user of its own
# What these users may; the same file is for production.
readonly RABBITMQ_PERMISSIONS=$CHECKOUT/dev/rabbitmq-definitions.json

rabbitmq_is_installed() { [[ -x $RABBITMQ_SERVER ]] && command -v epmd >/dev/null; }

rabbitmq_choose_ports() {
    local name
    for name in rabbitmq rabbitmq-dist rabbitmq-epmd; do
        port_choose "$name"
    done
}

rabbitmq_uri() {
    local port
    port=$(port_remembered rabbitmq) && printf 'AMQP_URI=amqp://guest:guest@127.0.0.1:%s' "$port"
}

rabbitmq_service_uri() { # SERVICE
    local port password
    port=$(port_remembered rabbitmq) && { read -r password <"$RUN/rabbitmq/$1.password"; } 2>/dev/null &&
        printf 'AMQP_URI=amqp://%s:%s@127.0.0.1:%s' "$1" "$password" "$port"
}

# RUN/rabbitmq/definitions.json: the users, by the hashes of their passwords, and what they may.
rabbitmq_write_definitions() {
    local home=$RUN/rabbitmq service
    local -a users=()
    for service in "${RABBITMQ_SERVICES[@]}"; do
        secret_make "$home/$service.password"
        users+=("$service=$home/$service.password")
    done
    (umask 077 && /usr/bin/python3 -I "$CHECKOUT/dev/rabbitmq_definitions.py" "$RABBITMQ_PERMISSIONS" "${users[@]}" \
        >"$home/definitions.json.new") && mv "$home/definitions.json.new" "$home/definitions.json"
}

# Everything that the server and its tools read from their environment.  Only what is named here counts: neither the
# caller's RABBITMQ_* variables nor /etc/rabbitmq change this broker.
rabbitmq_environment() {
    local home=$RUN/rabbitmq
    printf '%s\n' \
        "PATH=$PATH" "LANG=C.UTF-8" "HOME=$home" \
        "ERL_EPMD_ADDRESS=127.0.0.1" "ERL_EPMD_PORT=$(port_remembered rabbitmq-epmd)" \
        "RABBITMQ_NODENAME=rabbit@localhost" \
        "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1" "RABBITMQ_NODE_PORT=$(port_remembered rabbitmq)" \
        "RABBITMQ_DIST_PORT=$(port_remembered rabbitmq-dist)" \
        "RABBITMQ_CONF_ENV_FILE=/dev/null" \
        "RABBITMQ_CONFIG_FILE=$home/rabbitmq.conf" "RABBITMQ_ADVANCED_CONFIG_FILE=$home/advanced.config" \
        "RABBITMQ_ENABLED_PLUGINS_FILE=$home/enabled_plugins" \
        "RABBITMQ_BASE=$home" "RABBITMQ_MNESIA_BASE=$home" "RABBITMQ_MNESIA_DIR=$home/data" \
        "RABBITMQ_FEATURE_FLAGS_FILE=$home/feature_flags" "RABBITMQ_PLUGINS_EXPAND_DIR=$home/plugins-expand" \
        "RABBITMQ_LOG_BASE=$RUN/log" "RABBITMQ_LOGS=-" \
        "RABBITMQ_SCHEDULER_BIND_TYPE=u" \
        "RUNNING_UNDER_SYSTEMD=true" \
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"
    # Scheduler threads not bound to processors ("u"): others work on this machine too, and two bound virtual
    # machines would fight for the same ones.  RUNNING_UNDER_SYSTEMD makes the start script become the server instead of
    # staying its parent, so that the pid is the server's.
}

rabbitmq_prepare() {
    local home=$RUN/rabbitmq
    mkdir -p "$home"
    if [[ -e $home/data && ! -e $home/booted ]]; then
        # Its first start never came to an end, so nobody can have used it; a half-made schema only stops the next one.
        rm -rf "$home/data" "$home/feature_flags"
    fi
    if [[ ! -s $home/.erlang.cookie ]]; then
        (umask 377 && random_hex 32 >"$home/.erlang.cookie.new")
        mv -f "$home/.erlang.cookie.new" "$home/.erlang.cookie"
    fi
    printf '[].\n' >"$home/enabled_plugins"
    rabbitmq_write_definitions || return
    {
        printf 'loopback_users.guest = true\n'
        printf 'log.connection.level = warning\n' # each connect and disconnect would be three lines
        printf 'load_definitions = %s\n' "$home/definitions.json"
    } >"$home/rabbitmq.conf"
    cp "$home/definitions.json" "$home/definitions.loaded" # for so it will be before it answers
}

rabbitmq_launch() {
    local -a environment
    mapfile -t environment < <(rabbitmq_environment)
    cd "$RUN/rabbitmq" || return
    if ! process_runs rabbitmq-epmd; then
        process_forget rabbitmq-epmd
        log_begin "$RUN/log/rabbitmq-epmd.log"
        process_start rabbitmq-epmd "$RUN/log/rabbitmq-epmd.log" env -i "${environment[@]}" epmd
    fi
    wait_until "$RABBITMQ_START_TIMEOUT_S" rabbitmq_epmd_settled || return 1
    process_runs rabbitmq-epmd || return 1
    process_start rabbitmq "$RUN/log/rabbitmq.log" env -i "${environment[@]}" "$RABBITMQ_SERVER"
}

rabbitmq_epmd_settled() {
    ! process_runs rabbitmq-epmd || (exec 3<>"/dev/tcp/127.0.0.1/$(port_remembered rabbitmq-epmd)") 2>/dev/null
}

# It sends Connection.Start, a method frame, to whoever opens with AMQP's header.
rabbitmq_answers() {
    local frame_type=
    {
        exec 3<>"/dev/tcp/127.0.0.1/$(port_remembered rabbitmq)" &&
            printf 'AMQP\0\0\x09\x01' >&3 &&
            IFS= read -r -n 1 -t 5 frame_type <&3
    } 2>/dev/null
    exec 3>&-
    [[ $frame_type == $'\x01' ]]
}

rabbitmq_after_start() {
    local home=$RUN/rabbitmq
    local -a environment
    : >"$home/booted"
    rabbitmq_write_definitions || return
    if ! cmp -s "$home/definitions.json" "$home/definitions.loaded"; then
        # It has been running since before they changed.
        mapfile -t environment < <(rabbitmq_environment)
        env -i "${environment[@]}" "$RABBITMQ_CTL" --quiet import_definitions "$home/definitions.json" \
            >>"$RUN/log/rabbitmq.log" 2>&1 </dev/null || return
        cp "$home/definitions.json" "$home/definitions.loaded"
    fi
}

rabbitmq_stop() {
    process_stop rabbitmq TERM
    process_stop rabbitmq-epmd TERM
}

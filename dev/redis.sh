# shellcheck shell=bash disable=SC2034 # dev_run_backingsvcs.sh reads the constants by name
# A private Redis with its append-only file on.  Sourced by dev_run_backingsvcs.sh.

readonly REDIS_PROGRAMS=(redis-server)
readonly REDIS_START_TIMEOUT_S=60
readonly REDIS_PACKAGE=redis-server

redis_is_installed() { command -v redis-server >/dev/null; }

redis_choose_ports() { port_choose redis; }

redis_uri() {
    local port
    port=$(port_remembered redis) && printf 'REDIS_URI=redis://127.0.0.1:%s/0' "$port"
}

redis_prepare() {
    mkdir -p "$RUN/redis"
    # appendfsync everysec: what the server acknowledged survives its own death at once, the machine's after a second.
    cat >"$RUN/redis/redis.conf" <<CONF
bind 127.0.0.1
port $(port_remembered redis)
appendonly yes
appendfsync everysec
aof-load-truncated yes
save ""
daemonize no
CONF
}

redis_launch() {
    cd "$RUN/redis" || return # its data lie in the folder that it starts in
    process_start redis "$RUN/log/redis.log" redis-server ./redis.conf
}

redis_answers() {
    local answer=
    {
        exec 3<>"/dev/tcp/127.0.0.1/$(port_remembered redis)" &&
            printf 'PING\r\n' >&3 &&
            IFS= read -r -t 5 answer <&3
    } 2>/dev/null
    exec 3>&-
    [[ $answer == +PONG* ]] # not while it still loads its data
}

redis_after_start() { :; }

redis_stop() { process_stop redis TERM; }

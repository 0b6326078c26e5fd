# shellcheck shell=bash disable=SC2034 # dev_run_backingsvcs.sh reads the constants by name
# A private Redis with its append-only file on.  Sourced by dev_run_backingsvcs.sh.

readonly REDIS_PROGRAMS=(redis-server)
readonly REDIS_START_TIMEOUT_S=60
readonly REDIS_PACKAGE=redis-server
readonly REDIS_SERVICES=(products)

# What a service may: exactly the commands that it sends, those of its script included, on its own keys.
declare -rA REDIS_RULES=(
    [products]='~products:* ~airship:* resetchannels -@all +hmget +hset +hsetnx +hdel +hexists +hincrby +exists +del +expire
        +scan +set +eval +evalsha +select +client|setname'
)

redis_is_installed() { command -v redis-server >/dev/null; }

redis_choose_ports() { port_choose redis; }

redis_uri() {
    local port password login=
    port=$(port_remembered redis) || return
    # A server that an older version started has a user without one until the next start.
    if { read -r password <"$RUN/redis/password"; } 2>/dev/null; then
        login=default:$password@
    fi
    printf 'REDIS_URI=redis://%s127.0.0.1:%s/0' "$login" "$port"
}

redis_service_uri() { # SERVICE
    local port password
    port=$(port_remembered redis) && { read -r password <"$RUN/redis/$1.password"; } 2>/dev/null &&
        printf 'REDIS_URI=redis://%s:%s@127.0.0.1:%s/0' "$1" "$password" "$port"
}

redis_secret() { # FILE; as an ACL has it
    local hash
    secret_make "$1" && hash=$(tr -d '\n' <"$1" | sha256sum) && printf '#%s' "${hash%% *}"
}

# RUN/redis/users.acl: the developer's user, who may everything, and the services'.
redis_write_users() {
    local home=$RUN/redis service secret
    local -a rules
    (
        umask 077
        exec >"$home/users.acl.new"
        secret=$(redis_secret "$home/password") || exit
        printf 'user default on %s ~* &* +@all\n' "$secret"
        for service in "${REDIS_SERVICES[@]}"; do
            secret=$(redis_secret "$home/$service.password") || exit
            read -rd '' -a rules <<<"${REDIS_RULES[$service]}" || true
            printf 'user %s on sanitize-payload %s %s\n' "$service" "$secret" "${rules[*]}"
        done
    ) && mv "$home/users.acl.new" "$home/users.acl"
}

redis_prepare() {
    mkdir -p "$RUN/redis"
    redis_write_users || return
    # appendfsync everysec: what the server acknowledged survives its own death at once, the machine's after a second.
    cat >"$RUN/redis/redis.conf" <<CONF
bind 127.0.0.1
protected-mode yes
aclfile users.acl
port $(port_remembered redis)
appendonly yes
appendfsync everysec
aof-load-truncated yes
save ""
daemonize no
CONF
    cp "$RUN/redis/users.acl" "$RUN/redis/users.loaded" # for so it will be before it answers
}

redis_launch() {
    cd "$RUN/redis" || return # its data lie in the folder that it starts in
    process_start redis "$RUN/log/redis.log" redis-server ./redis.conf
}

# Talks to the server on descriptor 3, as the developer.  One that an older version started takes any password.
redis_connect() {
    local password=none answer=
    exec 3<>"/dev/tcp/127.0.0.1/$(port_remembered redis)" || return
    { read -r password <"$RUN/redis/password"; } 2>/dev/null || true
    printf 'AUTH default %s\r\n' "$password" >&3 &&
        IFS= read -r -t 5 answer <&3 && [[ $answer == +OK* ]]
}

redis_answers() {
    local answer=
    {
        redis_connect &&
            printf 'PING\r\n' >&3 &&
            IFS= read -r -t 5 answer <&3
    } 2>/dev/null
    exec 3>&-
    [[ $answer == +PONG* ]] # not while it still loads its data
}

redis_after_start() {
    local home=$RUN/redis user name rules answer
    redis_write_users || return
    cmp -s "$home/users.acl" "$home/users.loaded" && return
    # It has been running since before they changed.
    redis_connect || return
    while read -r user name rules; do
        printf 'ACL SET%s %s reset %s\r\n' "${user^^}" "$name" "$rules" >&3
        IFS= read -r -t 5 answer <&3 && [[ $answer == +OK* ]] || return
    done <"$home/users.acl"
    exec 3>&-
    cp "$home/users.acl" "$home/users.loaded"
}

redis_stop() { process_stop redis TERM; }

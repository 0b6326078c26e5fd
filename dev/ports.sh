# shellcheck shell=bash
# Ports of this run folder: chosen once, remembered in RUN/NAME.port, so that a server comes back where its clients
# look for it.  Sourced, never run; needs dev/say.sh and RUN.

# Below the range from which the kernel takes ports for outgoing connections: nobody gets one of these by accident.
# Who starts several sets of servers at the same time gives each a part of its own (SERVER_PORTS).
readonly PORT_RANGE=${SERVER_PORTS:-20000-31999}
if [[ ! $PORT_RANGE =~ ^([1-9][0-9]{3,4})-([1-9][0-9]{3,4})$ ]] || ((BASH_REMATCH[1] >= BASH_REMATCH[2] || BASH_REMATCH[2] > 65535)); then
    fail "$EXIT_USAGE" "SERVER_PORTS is '$PORT_RANGE'; it should look like 20000-31999"
fi
readonly PORT_LOWEST=${BASH_REMATCH[1]}
readonly PORT_HIGHEST=${BASH_REMATCH[2]}
readonly PORT_TRIES_MAX=200

# Nobody listens there, on either loopback address.
port_is_free() { # PORT
    /usr/bin/python3 -I - "$1" <<'PYTHON'
import socket, sys
port = int(sys.argv[1])
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    try:
        probe = socket.socket(family, socket.SOCK_STREAM)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))
        probe.listen(1)
    except OSError as error:
        if family == socket.AF_INET or error.strerror == "Address already in use":
            sys.exit(1)
PYTHON
}

port_remembered() { # NAME
    local port
    { read -r port <"$RUN/$1.port"; } 2>/dev/null && [[ $port =~ ^[0-9]+$ ]] && printf '%s' "$port"
}

port_remember() { # NAME PORT
    printf '%s\n' "$2" >"$RUN/$1.port.new"
    mv "$RUN/$1.port.new" "$RUN/$1.port"
}

# The remembered port, or a new one where there is none yet or somebody else has it by now.
port_choose() { # NAME
    local port tries
    if port=$(port_remembered "$1"); then
        port_is_free "$port" && return
        say "$1: port $port is in use by another program; choosing a new one"
    fi
    for ((tries = 0; tries < PORT_TRIES_MAX; tries++)); do
        port=$((PORT_LOWEST + SRANDOM % (PORT_HIGHEST - PORT_LOWEST + 1)))
        if ! grep -qsx "$port" "$RUN"/*.port && port_is_free "$port"; then
            port_remember "$1" "$port"
            return
        fi
    done
    fail "$EXIT_FAILED" "no free port between $PORT_LOWEST and $PORT_HIGHEST on 127.0.0.1"
}

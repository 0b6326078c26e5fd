#!/bin/bash
# Installs Debian packages, as root, and leaves no server of the system's running or enabled that was not so before: this
# checkout runs its own (dev_run_backingsvcs.sh).
# Usage: install_packages.sh PACKAGE...
set -euo pipefail

readonly POLICY=/usr/sbin/policy-rc.d # package scripts ask it whether they may start a service; 101 is "no"
readonly POLICY_MARK='# made by install_packages.sh; may be deleted'
readonly LOCK_TIMEOUT_S=300

# A policy of the machine's own stays as it is.  One of ours that a killed run left behind is ours to take away.
policy_forbid_starts() {
    if [[ ! -e $POLICY ]] || grep -qsxF "$POLICY_MARK" "$POLICY"; then
        trap 'rm -f "$POLICY"' EXIT
        trap 'exit 1' HUP INT TERM
        printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
        chmod 755 "$POLICY"
    fi
}

epmd_pids() {
    local comm
    for comm in /proc/[0-9]*/comm; do
        if [[ $(cat "$comm" 2>/dev/null) == epmd ]]; then
            comm=${comm%/comm}
            printf '%s\n' "${comm##*/}"
        fi
    done
}

# RabbitMQ's package script starts Erlang's name server past any policy.
stop_new_epmd() { # PID-BEFORE...
    local pid
    for pid in $(epmd_pids); do
        if [[ " $* " != *" $pid "* && $(stat -c %U "/proc/$pid" 2>/dev/null) == @(epmd|rabbitmq) ]]; then
            kill "$pid" 2>/dev/null || true
        fi
    done
}

# New services would start with the machine.
disable_services_of() { # PACKAGE...
    local package
    [[ -d /run/systemd/system ]] || return 0
    for package in "$@"; do
        case $package in
        rabbitmq-server | redis-server) systemctl disable --now --quiet "$package" 2>/dev/null || true ;;
        postgresql-15) systemctl disable --now --quiet postgresql 2>/dev/null || true ;;
        esac
    done
}

main() {
    local epmd_before
    ((EUID == 0)) || {
        echo "${0##*/}: only root can install packages" >&2
        exit 1
    }
    epmd_before=$(epmd_pids)
    policy_forbid_starts
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q -o "DPkg::Lock::Timeout=$LOCK_TIMEOUT_S" update ||
        echo "${0##*/}: the package lists could not be renewed; going on with the old ones" >&2
    apt-get -q -y -o "DPkg::Lock::Timeout=$LOCK_TIMEOUT_S" -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" </dev/null
    # shellcheck disable=SC2086 # pids, one a word
    stop_new_epmd $epmd_before
    disable_services_of "$@"
}

main "$@"

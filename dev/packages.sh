# shellcheck shell=bash
# The one list of Debian packages, by what they are for, and their installation.  Sourced, never run; needs dev/say.sh
# and CHECKOUT.  dev/install_packages.sh is the part that needs root.

# shellcheck disable=SC2034 # chosen by name in packages_named
{
    PACKAGES_BUILD=(make gcc libc6-dev pkg-config meson ninja-build python3
        libevent-dev libhiredis-dev libjansson-dev libpq-dev librabbitmq-dev libssl-dev kore)
    PACKAGES_RUN=(rabbitmq-server redis-server postgresql-15 sqitch libdbd-pg-perl curl)
    PACKAGES_DEBUG=(gdbserver)
    PACKAGES_TEST=(openssl libcmocka-dev faketime python3-pytest python3-pika python3-redis python3-psycopg2 python3-requests curl
        gdbserver)
    PACKAGES_CHECK=(clang clang-format clang-tidy shellcheck)
    PACKAGES_FUZZ=(clang libclang-rt-14-dev)
    PACKAGES_BENCH=(wrk valgrind redis-tools python3-psycopg2 python3-redis python3-venv ca-certificates curl)
    PACKAGES_CHAOS=(iproute2 util-linux libfaketime python3-pika python3-redis python3-psycopg2)
    PACKAGES_INTEROP=(python3-venv ca-certificates)
}

packages_named() { # GROUP...
    local group
    for group in "$@"; do
        local -n packages=PACKAGES_${group^^}
        printf '%s\n' "${packages[@]}"
    done | sort -u
}

# Those of GROUP... that are not installed, a line each.
packages_missing() { # GROUP...
    local wanted
    mapfile -t wanted < <(packages_named "$@")
    comm -23 <(printf '%s\n' "${wanted[@]}") \
        <(dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null |
            sed -n 's/^installed //p' | sort -u)
}

# Installs what is missing, or says what to run and ends the script.
packages_install() { # GROUP...
    local missing
    local -a as_root=()
    mapfile -t missing < <(packages_missing "$@")
    ((${#missing[@]})) || return 0
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        fail "$EXIT_MISSING" "this is no Debian 12; install what these packages of Debian's hold: ${missing[*]}"
    fi
    if ((EUID != 0)); then
        if ! command -v sudo >/dev/null || { [[ ! -t 0 ]] && ! sudo -n true 2>/dev/null; }; then
            fail "$EXIT_MISSING" "packages are missing; run: sudo apt-get install --no-install-recommends ${missing[*]}"
        fi
        as_root=(sudo)
    fi
    say "Installing: ${missing[*]}"
    "${as_root[@]}" "$CHECKOUT/dev/install_packages.sh" "${missing[@]}" ||
        fail "$EXIT_MISSING" "packages could not be installed; run: sudo apt-get install --no-install-recommends ${missing[*]}"
}

#!/bin/bash
# Whether the installed packages that read what strangers send have the security fixes that we know of.
# Prints each with its version; exit 1 when one is older than it may be.  One that is not installed is no concern.
set -euo pipefail

# Package and least version, by Debian's comparison.
readonly LEAST_VERSIONS='
libhiredis0.14 0.14.1-2
librabbitmq4 0.11.0-1+deb12u3
postgresql-15 15.20
redis-server 5:7.0.15-1~deb12u10
'

main() {
    local state package version least installed failed=0
    local -a packages=()
    while read -r package least; do
        [[ -z $package ]] || packages+=("$package")
    done <<<"$LEAST_VERSIONS"
    # It fails where one of them is unknown, and prints the others all the same.
    installed=$(dpkg-query --show --showformat '${db:Status-Status} ${Package} ${Version}\n' "${packages[@]}" 2>/dev/null) || true
    while read -r state package version; do
        [[ $state == installed ]] || continue
        printf '%s %s\n' "$package" "$version"
        least=$(sed -n "s/^$package //p" <<<"$LEAST_VERSIONS")
        if dpkg --compare-versions "$version" lt "$least"; then
            printf '%s: %s %s is older than %s; run: sudo apt-get install --only-upgrade %s\n' \
                "${0##*/}" "$package" "$version" "$least" "$package" >&2
            failed=1
        fi
    done <<<"$installed"
    return "$failed"
}

main "$@"

# shellcheck shell=bash disable=SC2034 # the scripts that source it read the constants
# What every script says and how it stops.  Sourced, never run.

readonly EXIT_FAILED=1  # something failed while running
readonly EXIT_USAGE=2   # wrong usage or setting
readonly EXIT_MISSING=3 # packages are missing and cannot be installed from here

say() { printf '%s\n' "$*"; }

complain() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

fail() { # EXIT-CODE MESSAGE...
    local code=$1
    shift
    complain "$@"
    exit "$code"
}

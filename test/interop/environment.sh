# shellcheck shell=bash
# Python with real Nameko, from PyPI: a virtual environment for each version, kept in the checkout.  To be sourced.

readonly NAMEKO_VERSIONS=(3.0.0rc11 2.14.1) # the first is the suite's; requirements.txt names it
readonly PYPI_TIMEOUT_S=30

interop_say() { echo "interop: $*" >&2; }

interop_requirements() { # VERSION
    sed "s/^nameko==.*/nameko==$1/" test/interop/requirements.txt
}

# A Python that can make virtual environments and is old enough for Nameko.
interop_host_python() {
    local python
    for python in "${INTEROP_PYTHON:-}" /usr/bin/python3 python3 python3.11 python3.10 python3.9; do
        [[ -n $python ]] && "$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 9) <= sys.version_info < (3, 12))' 2>/dev/null &&
            echo "$python" && return 0
    done
    interop_say "no Python 3.9 to 3.11 with venv here (Debian: apt-get install python3-venv); INTEROP_PYTHON=<path> names one"
    return 1
}

# Prints the path of a Python that has this Nameko; makes it first where the requirements have changed.
interop_python() { # VERSION
    local folder=$PWD/.venv-interop wanted python
    [[ $1 == "${NAMEKO_VERSIONS[0]}" ]] || folder+=-$1
    wanted=$(interop_requirements "$1")
    if [[ ! -x $folder/bin/python || $(cat "$folder/requirements.txt" 2>/dev/null) != "$wanted" ]]; then
        python=$(interop_host_python) || return 1
        interop_say "making $folder with nameko $1 from PyPI"
        rm -rf "$folder"
        "$python" -m venv "$folder" >&2 || return 1
        if ! "$folder/bin/pip" install --quiet --disable-pip-version-check --retries 2 --timeout "$PYPI_TIMEOUT_S" \
            -r <(printf '%s\n' "$wanted") >&2; then
            interop_say "cannot install the requirements: PyPI cannot be reached, or no longer has them (pip's words above)"
            return 1
        fi
        printf '%s\n' "$wanted" >"$folder/requirements.txt" # last: its presence says that all is installed
    fi
    echo "$folder/bin/python"
}

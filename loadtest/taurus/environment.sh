# shellcheck shell=bash
# Taurus from PyPI: a virtual environment of its own in the run folder.  To be sourced; needs CHECKOUT, RUN and dev/say.sh.

readonly PYPI_TIMEOUT_S=30
readonly TAURUS_REQUIREMENTS=$CHECKOUT/loadtest/taurus/requirements.txt

# A Python that can make virtual environments.
taurus_host_python() {
    local python
    for python in "${BZT_PYTHON:-}" /usr/bin/python3 python3; do
        [[ -n $python ]] && "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null &&
            echo "$python" && return 0
    done
    complain "no Python from 3.10 with venv here (Debian: apt-get install python3-venv); BZT_PYTHON=<path> names one"
    return 1
}

# Prints the path of bzt; makes its environment first where the requirements have changed.
taurus_bzt() {
    local folder=$RUN/bzt/venv python log=$RUN/bzt/install.log
    mkdir -p "$RUN/bzt"
    chmod 700 "$RUN"
    if [[ ! -x $folder/bin/bzt ]] || ! cmp -s "$folder/requirements.txt" "$TAURUS_REQUIREMENTS"; then
        python=$(taurus_host_python) || return 1
        complain "installing Taurus from PyPI into $folder (once; a minute)"
        rm -rf "$folder"
        if ! "$python" -m venv "$folder" >"$log" 2>&1 ||
            ! "$folder/bin/pip" install --disable-pip-version-check --retries 2 --timeout "$PYPI_TIMEOUT_S" --prefer-binary \
                -r "$TAURUS_REQUIREMENTS" >>"$log" 2>&1; then
            complain "cannot install Taurus: PyPI cannot be reached, or no longer has it (pip's words are in $log)"
            return 1
        fi
        cp "$TAURUS_REQUIREMENTS" "$folder/requirements.txt" # last: its presence says that all is installed
    fi
    echo "$folder/bin/bzt"
}

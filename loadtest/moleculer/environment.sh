# shellcheck shell=bash
# What the shop on Moleculer needs from npm, in loadtest/moleculer/node_modules.  To be sourced, in the checkout.

readonly MOLECULER_FOLDER=loadtest/moleculer
readonly MOLECULER_NODE_LEAST=18 # Debian 12's
readonly NPM_TIMEOUT_MS=30000
readonly NPM_RETRIES=2

moleculer_say() { echo "moleculer: $*" >&2; }

moleculer_node() {
    local program
    for program in node npm; do
        command -v "$program" >/dev/null && continue
        moleculer_say "$program is not here (Debian: apt-get install nodejs npm)"
        return 1
    done
    node -e "process.exit(Number(process.versions.node.split('.')[0]) < $MOLECULER_NODE_LEAST ? 1 : 0)" && return
    moleculer_say "Node $(node --version) is older than $MOLECULER_NODE_LEAST"
    return 1
}

# Installs exactly what package-lock.json says, where that has changed.
moleculer_install() {
    local modules=$MOLECULER_FOLDER/node_modules lock=$MOLECULER_FOLDER/package-lock.json
    moleculer_node || return 1
    cmp -s "$lock" "$modules/installed-lock.json" && return
    moleculer_say "installing into $modules from npm"
    if ! npm --prefix "$MOLECULER_FOLDER" ci --omit=dev --ignore-scripts --no-audit --no-fund --no-update-notifier \
        --fetch-timeout="$NPM_TIMEOUT_MS" --fetch-retries="$NPM_RETRIES" >&2; then
        moleculer_say "npm's registry cannot be reached, or no longer has it (npm's words above)"
        return 1
    fi
    cp "$lock" "$modules/installed-lock.json" # last: its presence says that all is installed
}

#!/bin/bash
# `make check`: everything that a change must pass before it is shared.  Each step runs, whatever the others say.
# Usage: dev/check.sh [STEP...]     steps: patches format gcc clang analyze shellcheck sanitizers
set -euo pipefail

CHECKOUT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
readonly CHECKOUT
# shellcheck source=dev/say.sh
. "$CHECKOUT/dev/say.sh"
# shellcheck source=dev/packages.sh
. "$CHECKOUT/dev/packages.sh"

readonly ALL_STEPS=(patches format gcc clang analyze shellcheck sanitizers)
readonly NO_PROGRAMS_OF_OURS='--ignore=test/test_backingsvcs.py --ignore=test/test_migrations.py'
# Without the check that wants the C library's optional Annex K, which glibc does not have.
readonly ANALYZER_CHECKS='-*,clang-analyzer-*,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling'
readonly SANITIZER_TIME_SCALE=4 # how much longer the black-box tests wait for a program that is being watched

# `set -e` does not count within these: the last command of each decides.
c_files() { find . -path './build*' -prune -o -path './.*' -prune -o -name '*.[ch]' -print0; }

shell_scripts() {
    find . -path './build*' -prune -o -path './.[!c]*' -prune -o \( -name '*.sh' -o -path './.ci/*' \) -type f -print0
}

step_patches() { dev/patch_levels.sh; }

step_format() { c_files | xargs -0r clang-format --dry-run --Werror; }

build_with() { # COMPILER
    rm -rf "build-check-$1" || return
    CC=$1 /usr/bin/meson setup --werror "build-check-$1" >"build-check-$1.log" 2>&1 || {
        cat "build-check-$1.log"
        return 1
    }
    ninja -C "build-check-$1"
}

step_gcc() { build_with gcc; }
step_clang() { build_with clang; }

# Clang's analyser walks the paths through each function, on the compile commands of clang's build; not the
# tests', where an assertion that ends the program is not understood as one.
step_analyze() {
    [[ -e build-check-clang/compile_commands.json ]] || step_clang || return
    c_files | grep -z '\.c$' | grep -zv '/test/' | while IFS= read -r -d '' file; do
        if grep -qF "${file#./}" build-check-clang/compile_commands.json; then
            printf '%s\0' "$file"
        fi
    done | xargs -0r -n 1 -P "$(nproc)" clang-tidy --quiet -p build-check-clang --warnings-as-errors='*' \
        --checks="$ANALYZER_CHECKS"
}

step_shellcheck() { shell_scripts | xargs -0r shellcheck -x; }

step_sanitizers() {
    # A report ends the program, so that the test that caused it fails.
    BUILD_DIR=build-asan MESON_OPTIONS='-Db_sanitize=address,undefined -Db_lundef=false' \
        ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1} \
        UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1} \
        SHARDS=${SHARDS:-1} TIME_SCALE=${TIME_SCALE:-$SANITIZER_TIME_SCALE} PYTEST_ADDOPTS="$NO_PROGRAMS_OF_OURS" ./dev_test.sh
}

main() {
    local step
    local -a failed=()
    cd "$CHECKOUT"
    (($#)) || set -- "${ALL_STEPS[@]}"
    for step in "$@"; do
        [[ " ${ALL_STEPS[*]} " == *" $step "* ]] || fail "$EXIT_USAGE" "unknown step '$step'; there are: ${ALL_STEPS[*]}"
    done
    packages_install build run test check
    for step in "$@"; do
        say "== $step"
        "step_$step" || failed+=("$step")
    done
    ((${#failed[@]} == 0)) || fail "$EXIT_FAILED" "failed: ${failed[*]}"
    say "check: all steps passed: $*"
}

main "$@"

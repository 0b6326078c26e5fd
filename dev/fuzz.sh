#!/bin/bash
# `make fuzz`: every fuzzer for a while, from the inputs in its corpus on.  See usage().
set -euo pipefail

CHECKOUT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
readonly CHECKOUT
# shellcheck source=dev/say.sh
. "$CHECKOUT/dev/say.sh"
# shellcheck source=dev/packages.sh
. "$CHECKOUT/dev/packages.sh"

readonly BUILD=$CHECKOUT/build-fuzz
readonly SECONDS_EACH=${FUZZ_SECONDS:-60}
readonly INPUT_SIZE_MAX=20000 # bytes of an input that is made up: more than the largest head of a request
readonly INPUT_TIME_MAX_S=10 # one that takes longer is a find
readonly MEMORY_MAX_MB=2048

usage() {
    cat <<USAGE
Usage: ${0##*/} [NOUN...]            e.g. ${0##*/} guard json; all fuzzers without one
       ${0##*/} --merge NOUN...      add to the corpus the fewest inputs of the last runs that reach new code

Builds the fuzzers with clang's libFuzzer and sanitizers into build-fuzz/ and runs each for FUZZ_SECONDS (60).
What breaks a fuzzer is kept in build-fuzz/finds/NOUN/; run the fuzzer with that file as its argument to see it again.
Ends with "N passed, N failed"; exit 0 only when none failed, 2 wrong usage,
3 packages (clang with libFuzzer) are missing and cannot be installed from here.
USAGE
}

# "COMPONENT/fuzz/fuzz_NOUN" of each NOUN, or of all.
fuzzers_named() { # [NOUN...]
    local noun found
    if (($# == 0)); then
        (cd "$CHECKOUT" && printf '%s\n' */fuzz/fuzz_*.c | sed 's/\.c$//')
        return
    fi
    for noun in "$@"; do
        found=$(cd "$CHECKOUT" && compgen -G "*/fuzz/fuzz_$noun.c") ||
            fail "$EXIT_USAGE" "there is no fuzzer '$noun'; see $CHECKOUT/*/fuzz/"
        printf '%s\n' "${found%.c}"
    done
}

build() { # FUZZER...
    local log=$BUILD/logs/build.log
    mkdir -p "$BUILD/logs"
    if [[ ! -e $BUILD/build.ninja ]]; then
        CC=clang /usr/bin/meson setup -Dfuzzers=true -Db_sanitize=address,undefined -Db_lundef=false "$BUILD" \
            >"$log" 2>&1 || {
            cat "$log" >&2
            fail "$EXIT_FAILED" "the build could not be set up"
        }
    fi
    ninja -C "$BUILD" "$@" >"$log" 2>&1 || {
        cat "$log" >&2
        fail "$EXIT_FAILED" "the fuzzers could not be built"
    }
}

# The value of NAME in libFuzzer's figures at the end of a log.
figure() { # LOG NAME
    sed -n "s/^stat::$2: *//p" "$1" | tail -n 1
}

# The last count of edges in a log, or that of its first complete line.
edges() { # LOG sed-ADDRESS
    sed -n "s/.*cov: \([0-9]*\) .*/\1/p" "$1" | sed -n "$2p"
}

# Runs one fuzzer, prints its line.  Fails when it found something.
run() { # FUZZER
    local fuzzer=$1 noun code=0 log before after result=passed
    local -a dictionary=()
    noun=${fuzzer##*/fuzz_}
    log=$BUILD/logs/$noun.log
    mkdir -p "$BUILD/found/$noun" "$BUILD/finds/$noun"
    [[ ! -e ${fuzzer%/*}/$noun.dict ]] || dictionary=("-dict=${fuzzer%/*}/$noun.dict")
    nice "$BUILD/$fuzzer" "${dictionary[@]}" -max_total_time="$SECONDS_EACH" -max_len="$INPUT_SIZE_MAX" \
        -timeout="$INPUT_TIME_MAX_S" -rss_limit_mb="$MEMORY_MAX_MB" -print_final_stats=1 -artifact_prefix="$BUILD/finds/$noun/" \
        "$BUILD/found/$noun" "${fuzzer%/*}/corpus/$noun" >"$log" 2>&1 </dev/null || code=$?
    ((code == 0)) || result="FAILED (exit code $code); input in $BUILD/finds/$noun/, output in $log"
    before=$(edges "$log" 1)
    after=$(edges "$log" '$')
    printf '%-10s %10s executions, %5s edges (%s new): %s\n' "$noun" "$(figure "$log" number_of_executed_units)" \
        "${after:-?}" "$((${after:-0} - ${before:-0}))" "$result"
    return "$code"
}

run_all() { # FUZZER...
    local fuzzer passed=0 failed=0
    for fuzzer in "$@"; do
        if run "$fuzzer"; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
        fi
    done
    say "$passed passed, $failed failed"
    ((failed == 0)) || exit "$EXIT_FAILED"
}

# Adds to the corpus, of what the last runs found, the fewest inputs that reach all the code it does not reach yet.
merge() { # FUZZER...
    local fuzzer noun corpus
    for fuzzer in "$@"; do
        noun=${fuzzer##*/fuzz_}
        corpus=${fuzzer%/*}/corpus/$noun
        mkdir -p "$BUILD/found/$noun"
        "$BUILD/$fuzzer" -set_cover_merge=1 -use_counters=0 "$corpus" "$BUILD/found/$noun" >"$BUILD/logs/$noun-merge.log" 2>&1 ||
            fail "$EXIT_FAILED" "merging failed; see $BUILD/logs/$noun-merge.log"
        say "$noun: $(find "$corpus" -type f | wc -l) inputs, $(find "$corpus" -type f -exec cat {} + | wc -c) bytes"
    done
}

main() {
    local merging=
    local -a fuzzers
    case ${1:-} in
    -h | --help | help)
        usage
        exit 0
        ;;
    --merge)
        merging=yes
        shift
        (($#)) || fail "$EXIT_USAGE" "--merge needs the nouns; see ${0##*/} --help"
        ;;
    -*) fail "$EXIT_USAGE" "unknown argument '$1'; see ${0##*/} --help" ;;
    esac
    [[ $SECONDS_EACH =~ ^[1-9][0-9]{0,5}$ ]] || fail "$EXIT_USAGE" "FUZZ_SECONDS must be a number of seconds, not '$SECONDS_EACH'"
    cd "$CHECKOUT"
    packages_install build fuzz
    local named
    named=$(fuzzers_named "$@") || exit
    mapfile -t fuzzers <<<"$named"
    build "${fuzzers[@]}"
    export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1}
    export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}
    if [[ -n $merging ]]; then
        merge "${fuzzers[@]}"
    else
        run_all "${fuzzers[@]}"
    fi
}

main "$@"

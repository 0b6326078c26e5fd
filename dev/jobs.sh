# shellcheck shell=bash
# Commands that run beside each other, each with its output in a file of its own.  Sourced, never run.

readonly JOB_VIEW_INTERVAL_S=0.2
declare -A JOBS=() # name -> pid, of those that have not been waited for

# Starts COMMAND, a program: the leader of a process group of its own, so that it can be stopped with all that it waits for,
# and as one in the foreground would be (a shell has those behind it ignore Ctrl-C).
job_start() { # NAME LOG COMMAND...
    local name=$1 log=$2
    shift 2
    : >"$log"
    setsid env --default-signal=INT,QUIT "$@" </dev/null >>"$log" 2>&1 &
    JOBS[$name]=$!
}

# Shows the output from its beginning until the command ends; the exit code is the command's.
job_end() { # NAME LOG
    local code=0 viewer pid=${JOBS[$1]}
    tail -n +1 -f -s "$JOB_VIEW_INTERVAL_S" --pid="$pid" -- "$2" &
    viewer=$!
    wait "$pid" || code=$?
    unset "JOBS[$1]"
    wait "$viewer" || true
    return "$code"
}

# Whatever still runs is asked to end, and has ended.
jobs_stop() {
    local name pid
    for name in "${!JOBS[@]}"; do
        pid=${JOBS[$name]}
        kill -s TERM -- "-$pid" 2>/dev/null || kill -s TERM "$pid" 2>/dev/null || true
    done
    for name in "${!JOBS[@]}"; do
        wait "${JOBS[$name]}" 2>/dev/null || true
    done
    JOBS=()
}

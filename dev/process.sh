# shellcheck shell=bash
# Processes that outlive the script that started them.  Sourced, never run; needs dev/say.sh and RUN (the run folder).
#
# Two files name a process: RUN/NAME.pid holds its pid alone, for people and scripts; RUN/NAME.process also holds its
# start time and the machine's boot, because a pid by itself may have been given to somebody else since.

readonly POLL_INTERVAL_S=0.05
readonly STOP_TIMEOUT_S=30      # a graceful stop; SIGKILL after it
readonly LEFTOVER_TIMEOUT_S=10  # the same for what a killed predecessor left behind
readonly LOG_LINES_SHOWN=20

# Standard error is closed because bash announces there, at the next command that ends, that a process it started was killed.
pause() { # SECONDS
    sleep "$1"
} 2>/dev/null

# Runs CONDITION (a function and its arguments) until it holds; fails once SECONDS_MAX have gone by.
wait_until() { # SECONDS_MAX CONDITION...
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        pause "$POLL_INTERVAL_S"
    done
}

# A process's identity: "PID START-TIME BOOT"; fails for one that is gone or a zombie.
process_identity() { # PID
    local stat='' fields boot
    { IFS= read -r -d '' stat <"/proc/$1/stat"; } 2>/dev/null || [[ -n $stat ]] || return 1
    read -ra fields <<<"${stat##*) }" # the name before it may hold spaces and parentheses
    ((${#fields[@]} > 19)) || return 1 # it ended while we read
    [[ ${fields[0]} != [ZX] ]] || return 1
    read -r boot </proc/sys/kernel/random/boot_id
    printf '%s %s %s\n' "$1" "${fields[19]}" "$boot"
}

# The pid of the process that runs under NAME, if it does.
process_pid() { # NAME
    local recorded pid
    { read -r recorded <"$RUN/$1.process"; } 2>/dev/null || return 1
    pid=${recorded%% *}
    [[ -n $pid && $(process_identity "$pid") == "$recorded" ]] || return 1
    printf '%s' "$pid"
}

process_runs() { process_pid "$1" >/dev/null; }  # NAME
process_is_gone() { ! process_runs "$1"; }       # NAME

process_record() { # NAME PID
    process_identity "$2" >"$RUN/$1.process.new"
    printf '%s\n' "$2" >"$RUN/$1.pid.new"
    mv "$RUN/$1.process.new" "$RUN/$1.process"
    mv "$RUN/$1.pid.new" "$RUN/$1.pid"
}

process_forget() { rm -f "$RUN/$1.pid" "$RUN/$1.process"; } # NAME

# Starts COMMAND in a session of its own, so that Ctrl-C in this terminal is not for it, with its output in LOG.  The
# record is written by the new process itself, before it becomes COMMAND: no moment leaves a server without one.
process_start() { # NAME LOG COMMAND...
    local name=$1 log=$2
    shift 2
    (
        if [[ -n ${LOCK_FD:-} ]]; then
            exec {LOCK_FD}>&-
        fi
        exec </dev/null >>"$log" 2>&1
        process_record "$name" "$BASHPID"
        exec setsid env --default-signal=INT,QUIT "$@"
    ) &
    wait_until "$STOP_TIMEOUT_S" test -e "$RUN/$name.process"
}

# Asks NAME to stop, and makes it stop where it does not.
process_stop() { # NAME SIGNAL
    local pid
    if pid=$(process_pid "$1"); then
        kill -s "$2" "$pid" 2>/dev/null || true
        kill -s CONT "$pid" 2>/dev/null || true # one that was stopped by SIGSTOP hears nothing before
        if ! wait_until "$STOP_TIMEOUT_S" process_is_gone "$1"; then
            complain "$1 (pid $pid) did not stop within $STOP_TIMEOUT_S s; killed"
            kill -s KILL "$pid" 2>/dev/null || true
            wait_until "$LEFTOVER_TIMEOUT_S" process_is_gone "$1" || fail "$EXIT_FAILED" "$1 (pid $pid) cannot be killed"
        fi
    fi
    process_forget "$1"
}

# Pids of the programs named that work in FOLDER, or worked in one of that name which is deleted by now.
processes_in_folder() { # FOLDER PROGRAM...
    local folder=$1 entry cwd program
    shift
    while IFS= read -r -d '' entry && IFS= read -r -d '' cwd; do
        [[ $cwd == "$folder" || $cwd == "$folder/"* || $cwd == "$folder (deleted)" ]] || continue
        { read -r program <"$entry/comm"; } 2>/dev/null || continue
        [[ " $* " == *" $program "* ]] && process_identity "${entry##*/}" >/dev/null && printf '%s\n' "${entry##*/}"
    done < <(find /proc/[0-9]*/cwd -maxdepth 0 -printf '%h\0%l\0' 2>/dev/null)
    return 0
}

no_process_in_folder() { [[ -z $(processes_in_folder "$@") ]]; }

# Ends what still works in FOLDER without being on record: servers whose run folder was deleted under them, children
# of a server that was killed.  They would hold the data, the port or the lock that the next server needs.
stop_leftovers() { # FOLDER PROGRAM...
    local pids
    mapfile -t pids < <(processes_in_folder "$@")
    ((${#pids[@]})) || return 0
    kill -s TERM "${pids[@]}" 2>/dev/null || true
    kill -s CONT "${pids[@]}" 2>/dev/null || true
    wait_until "$LEFTOVER_TIMEOUT_S" no_process_in_folder "$@" && return
    mapfile -t pids < <(processes_in_folder "$@")
    kill -s KILL "${pids[@]}" 2>/dev/null || true
    wait_until "$LEFTOVER_TIMEOUT_S" no_process_in_folder "$@" ||
        fail "$EXIT_FAILED" "processes ${pids[*]} hold $1 and cannot be stopped; stop them and start again"
}

# A log of one start; the one before it is kept as LOG.1.
log_begin() { # LOG
    mkdir -p "${1%/*}"
    if [[ -s $1 ]]; then
        mv "$1" "$1.1"
    fi
    : >"$1"
}

log_show_end() { # LOG
    if [[ -s $1 ]]; then
        complain "the last lines of $1:"
        tail -n "$LOG_LINES_SHOWN" "$1" | sed 's/^/    /' >&2
    else
        complain "$1 is empty"
    fi
}

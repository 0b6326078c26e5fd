"""Everything that is waited for, and what a busy machine is allowed beyond it.  TIME_SCALE stretches the allowances."""
import os

SCALE = float(os.environ.get("TIME_SCALE", "1"))

HEARTBEAT_S = 5  # of AMQP connections, asked for by ?heartbeat=
SILENCE_S = 2 * HEARTBEAT_S  # a silent broker is given up
# Stores that are silent are given up as STORE_TIMEOUT_MS says: by default after 5 s (its margin is in it) and after 2 s.
POSTGRES_SILENCE_S = 2 * 5  # an idle connection asks by and by, and then waits as long
REDIS_SILENCE_S = 3 * 2  # it is asked by requests alone, and an instance may get its first one when another has given up
BACKOFF_MAX_S = 5  # the longest pause between two attempts to come back (rpclib's channels; connections: 2)
RPC_TIMEOUT_S = 5  # the gateway's, its default
CLAIM_S = 10  # an outbox event of a killed process is its own for so long
DRAIN_S = 10  # a stop may take so long

MACHINE_S = 3 * SCALE  # how late a request's end may be seen on a busy machine
MACHINE_RECOVERY_S = 15 * SCALE  # the same for processes that start and links that come back
DEADLINE_S = RPC_TIMEOUT_S + MACHINE_S  # a request has ended
HANG_S = DEADLINE_S + 10 * SCALE  # the client gives up
RECOVERY_S = 2 * HEARTBEAT_S + BACKOFF_MAX_S + MACHINE_RECOVERY_S
SETTLE_S = CLAIM_S + RECOVERY_S  # outbox and queues are empty
EXIT_S = DRAIN_S + MACHINE_RECOVERY_S
READY_LAG_S = 2 * SCALE  # /readyz has heard of what happened
HEALTH_TIMEOUT_S = 5 * SCALE  # /healthz answers
PUBLISHED_S = 1 * SCALE  # a request has reached the gateway, and its call the broker
GRACE_S = 1 * SCALE  # what began just before or just after a process was hurt may feel it

FAULT_S = 15  # a run has a fault for each so many of its seconds at least, however busy the machine is
LONGER_AT_MOST = 3  # a run that has too few goes on, for so many times its seconds in all

RUN_OF_SUCCESS = 20  # requests in a row tell that it works again
SUCCESS_SHARE = 0.99  # of requests after the last fault
WARMUP_S = 6
AFTERWARDS_S = 8  # how long success is measured after the last fault

RSS_FACTOR, RSS_EXTRA_KIB = 1.25, 6 * 1024  # above the baseline
RSS_EXTRA_SANITIZED_KIB = 64 * 1024  # freed memory is kept in quarantine (see SANITIZERS), and its pages are not given back
DESCRIPTORS_EXTRA = 8

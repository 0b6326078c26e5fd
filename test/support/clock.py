"""Deadlines.  Tests wait for conditions, never for times; TIME_SCALE stretches every deadline for slow builds."""
import os
import time

TIME_SCALE = float(os.environ.get("TIME_SCALE", "1"))

BOOT_S = 120 * TIME_SCALE  # a backing server starts
READY_S = 30 * TIME_SCALE  # a program is ready, its servers being up
STOP_S = 20 * TIME_SCALE  # a program drains and leaves after SIGTERM
ANSWER_S = 20 * TIME_SCALE  # any answer arrives, and any effect shows, on a busy machine
RECOVERY_S = 30 * TIME_SCALE  # all works again after the last server is back
RPC_TIMEOUT_MS = int(10_000 * TIME_SCALE)  # the gateway's own limit, where a test is not about it
RPC_TIMEOUT_SHORT_MS = int(1_500 * TIME_SCALE)  # where a test is about it
SLACK_S = 2 * TIME_SCALE  # what an honest 504 may take beyond the gateway's limit

_POLL_S = 0.02


def wait_until(condition, what, deadline_s=ANSWER_S):
    """Return the first true value of condition(); fail with `what` when the deadline has passed.

    An exception of the last attempt tells why: it is shown, not swallowed."""
    limit = time.monotonic() + deadline_s
    while True:
        error = None
        try:
            value = condition()
            if value:
                return value
        except Exception as exc:  # a server on its way up answers in many ways; the deadline judges
            error, value = exc, None
        if time.monotonic() >= limit:
            why = f"; at last: {error!r}" if error is not None else f"; at last: {value!r}"
            raise AssertionError(f"not within {deadline_s:g} s: {what}{why}") from error
        time.sleep(_POLL_S)

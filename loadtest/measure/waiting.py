"""Waiting for what must become true."""
import time

POLL_INTERVAL_S = 0.02


def wait_until(condition, what, deadline_s, interval_s=POLL_INTERVAL_S):
    """Returns the condition's first true value; `what` may be a function, asked when time is up."""
    limit = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > limit:
            raise TimeoutError(f"not within {deadline_s:g} s: {what() if callable(what) else what}")
        time.sleep(interval_s)

"""What was asked and what came of it: one Op for each request, in the order of their beginnings."""
import json
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Optional

OK, FAIL, INFO = "ok", "fail", "info"  # done; not done, and known to be; nobody knows
HTTP, RPC = "http", "rpc"


@dataclass
class Op:
    number: int
    kind: str  # see checker.STATUSES
    by: str  # "http" or "rpc"
    began: float
    order: Optional[int] = None  # of an order: its marker, the whole part of each line's price; one for all attempts
    key: Optional[str] = None  # Idempotency-Key
    lines: Optional[list] = None  # of an order that is asked for, or is expected
    asked: dict = field(default_factory=dict)  # what else tells this request's answer from all others
    ended: Optional[float] = None
    sent: bool = False  # the whole request had left
    outcome: Optional[str] = None
    status: Any = None  # HTTP's, or an exception's name
    answer: Any = None
    lost: Optional[str] = None  # why there is no answer
    keeps: bool = False  # its answer is asked for later
    left: bool = False  # the client went away on purpose
    problem: Optional[str] = None  # what was wrong with the answer

    @property
    def took_s(self):
        return None if self.ended is None else self.ended - self.began

    def __str__(self):
        took = "never ended" if self.ended is None else f"{self.took_s:.2f} s"
        what = f" order {self.order}" if self.order is not None else ""
        return f"#{self.number} {self.by} {self.kind}{what}: {self.status or self.lost} after {took}"


class History:
    def __init__(self):
        self.ops = []
        self._lock = threading.Lock()
        self._orders = 0

    def begin(self, kind, by, **about):
        with self._lock:
            op = Op(len(self.ops), kind, by, time.monotonic(), **about)
            self.ops.append(op)
        return op

    def next_order(self):
        """A marker that no other order has."""
        with self._lock:
            self._orders += 1
            return self._orders

    def since(self, moment):
        """All that began since, oldest first."""
        found = []
        for op in reversed(self.ops[:]):
            if op.began < moment:
                break
            found.append(op)
        return found[::-1]

    def save(self, path):
        with path.open("w") as file:
            for op in self.ops:
                file.write(json.dumps(asdict(op)) + "\n")

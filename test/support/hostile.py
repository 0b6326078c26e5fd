"""A program before a hostile peer: is it unharmed, is it honest, and how much does it say?"""
import json
import os
import time

from .backing import _processes
from .clock import ANSWER_S, RECOVERY_S, STOP_S, TIME_SCALE, wait_until
from .http import Http
from .program import Program, is_sanitized
from .ports import free_port

NOWHERE = {"AMQP_URI": "amqp://127.0.0.1:1/", "REDIS_URI": "redis://127.0.0.1:1/0", "POSTGRES_URI": "postgresql://127.0.0.1:1/x"}
ANSWERED_MS = int(1_500 * TIME_SCALE)  # RPC_TIMEOUT_MS, STORE_TIMEOUT_MS where a test waits for them
MIB = 1024 * 1024
MEMORY_MAX = 48 * MIB  # what a peer may make a program grow by, beyond the messages that are allowed
QUARANTINE_MIB = 16  # what has been freed, and the address sanitizer keeps
if is_sanitized("products"):
    MEMORY_MAX += MEMORY_MAX // 8 + QUARANTINE_MIB * MIB  # its note of each eight bytes is one more
LEAVE_S = STOP_S / 4  # a program that has nothing to finish leaves in less


class Watched(Program):
    """One process on ports of its own.  Settings that are not given lead nowhere."""

    def __init__(self, directory, name, label, **settings):
        self.port = free_port()
        environment = {key: value for key, value in NOWHERE.items() if name != "gateway" or key == "AMQP_URI"}
        if name == "gateway":
            environment.update(PORT=str(self.port), BIND_ADDRESS="127.0.0.1", RPC_TIMEOUT_MS=str(ANSWERED_MS))
        else:
            environment.update(METRICS_PORT=str(self.port), STORE_TIMEOUT_MS=str(ANSWERED_MS))
        environment["ASAN_OPTIONS"] = f"{os.environ.get('ASAN_OPTIONS', '')}:quarantine_size_mb={QUARANTINE_MIB}"
        super().__init__(name, directory, {**environment, **settings}, label)
        self.http = Http(self.port)
        self.pids = None

    # ---- what it does

    def status(self, path):
        try:
            return self.http.get(path, check=False).status
        except OSError:
            return None

    @property
    def is_ready(self):
        return self.status("/readyz") == 200

    def wait_alive(self):
        wait_until(lambda: self.status("/healthz") == 200, f"{self.label} is alive")
        self.pids = self._family()
        return self

    def wait_is_ready(self, deadline_s=RECOVERY_S):
        try:
            wait_until(lambda: self.is_ready, f"{self.label} is ready", deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None
        if self.pids is None:
            self.pids = self._family()
        return self

    def wait_not_ready(self):
        wait_until(lambda: self.status("/readyz") == 503, f"{self.label} says that it is not ready")

    def _family(self):
        """It and its children: a worker that was started again has another pid."""
        return {self.process.pid} | {pid for pid, parent in _processes().items() if parent == self.process.pid}

    def assert_unharmed(self):
        self.assert_running()
        assert self._family() == self.pids, f"{self.label} or its worker was started again:\n{self.tail()}"
        assert self.status("/healthz") == 200, f"{self.label} does not answer:\n{self.tail()}"
        assert not self.sanitizer_reports(), f"{self.label}: {self.sanitizer_reports()}"

    def leave(self):
        """SIGTERM; it leaves with 0, and at once."""
        began = time.monotonic()
        self.stop()
        took_s = time.monotonic() - began
        assert took_s <= LEAVE_S, f"{self.label} took {took_s:.1f} s to leave:\n{self.tail()}"

    def metric(self, name):
        """The value of a metric without labels, or the sum over its labels."""
        text = self.http.get("/metrics", check=False).body.decode()
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        values = [float(value) for key, value in lines if key.partition("{")[0] == name]
        assert values, f"{self.label} has no metric {name}"
        return sum(values)

    # ---- what it says

    def records(self):
        """The log since the test began."""
        records = []
        for line in self.log()[self.seen :].splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue  # Kore's own lines
        return records

    def complaints(self, *words):
        """Warnings and errors that hold all these words somewhere."""
        said = [one for one in self.records() if one["level"] in ("warning", "error") and "target" not in one]  # no requests
        return [record for record in said if all(word in json.dumps(record) for word in words)]

    def wait_complaint(self, *words, deadline_s=ANSWER_S):
        try:
            return wait_until(lambda: self.complaints(*words), f"{self.label} says {words}", deadline_s)[0]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None

    def wait_says(self, words, deadline_s=ANSWER_S):
        """At whatever level: what goes on is told once, and then for debugging alone."""
        try:
            wait_until(lambda: any(words in one["message"] for one in self.records()), f"{self.label} says {words}", deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None

    def assert_terse(self, lines_max):
        said = self.complaints()
        assert len(said) <= lines_max, f"{self.label} says it {len(said)} times:\n" + "\n".join(map(json.dumps, said[:20]))

    # ---- what it takes

    def memory(self):
        """The most that its processes have had in memory, in bytes."""
        total = 0
        for pid in self._family():
            with open(f"/proc/{pid}/status", encoding="ascii") as status:
                total += next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
        return total

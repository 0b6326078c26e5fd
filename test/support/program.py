"""Programs under test: started from the build tree, configured by the environment alone, watched through their logs."""
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from .clock import READY_S, STOP_S, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD_DIR = Path(os.environ.get("BUILD_DIR", "build"))
if not BUILD_DIR.is_absolute():
    BUILD_DIR = REPOSITORY / BUILD_DIR

PATHS = {
    "products": BUILD_DIR / "products" / "products",
    "orders": BUILD_DIR / "orders" / "orders",
    "gateway": BUILD_DIR / "kore-gateway" / "kore-gateway",
}

# The settings are the tests' to give: nothing of them leaks in from the caller's shell.
SETTINGS = re.compile(
    r"^(AMQP|REDIS|POSTGRES|PG|RPC|LOG|METRICS|PREFETCH|DRAIN|OUTBOX|IDEMPOTENCY|PRODUCT)_?"
    r"|^(PORT|BIND_ADDRESS|MAX_WORKERS|READY_FILE|LIST_MAX|INSTANCES|DEBUG)$"
)
SANITIZER_REPORT = re.compile(
    rb"^.*(ERROR: AddressSanitizer|runtime error:|LeakSanitizer|ERROR: ThreadSanitizer|sandbox violation|SIGSYS).*$", re.M
)

started = []  # every program of this session, for failure reports and the sanitizer check


def clean_environment():
    return {name: value for name, value in os.environ.items() if not SETTINGS.match(name)}


class Program:
    """One process (and its children, which share its process group)."""

    def __init__(self, name, directory, environment, label=None, arguments=()):
        self.name = name
        self.label = label or name
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.environment = environment
        self.arguments = list(arguments)
        self.prefix = []  # a command that becomes the program, such as nsenter
        self.process = None
        self.starts = 0
        self.log_path = self.directory / f"{self.label}.log"
        self.ready_path = self.directory / f"{self.label}.ready"
        self.seen = 0  # the log up to here belongs to earlier tests
        started.append(self)

    def start(self):
        path = assert_built(self.name)
        assert not self.running, f"{self.label} runs already"
        self.ready_path.unlink(missing_ok=True)
        self.starts += 1
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, str(path), *self.arguments],
                env={**clean_environment(), **self.environment, "READY_FILE": str(self.ready_path)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
            )
        return self

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    @property
    def ready(self):
        return self.ready_path.exists()

    def wait_ready(self, deadline_s=READY_S):
        def is_ready():
            return self.ready or not self.running

        wait_until(is_ready, f"{self.label} is ready", deadline_s)
        assert self.ready, f"{self.label} left with {self.process.poll()} before it was ready:\n{self.tail()}"
        return self

    def assert_running(self):
        assert self.running, f"{self.label} left with exit code {self.process.poll()}:\n{self.tail()}"

    def signal(self, number):
        os.kill(self.process.pid, number)

    def terminate(self):
        self.signal(signal.SIGTERM)

    def wait_exit(self, deadline_s=STOP_S):
        """The exit code, in time; a program that stays is ended and fails the test."""
        try:
            return self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.label} did not leave within {deadline_s:g} s of SIGTERM:\n{self.tail()}") from None

    def stop(self):
        """SIGTERM, and exit code 0 in time."""
        if self.running:
            self.terminate()
        self.finish()

    def finish(self):
        """It has been asked to leave, or has left: with 0."""
        if self.process is None:
            return
        code = self.wait_exit()
        assert code == 0, f"{self.label} left with {code}, not 0:\n{self.tail()}"

    def kill(self):
        """SIGKILL for the whole process group; waits until the program is gone.  It ends one that stands still too, which must not
        go on before: it would carry out what it holds."""
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process = None  # its end is known: nobody asks for its exit code any more

    def pause(self):
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self):
        os.killpg(self.process.pid, signal.SIGCONT)

    def log(self):
        return self.log_path.read_bytes() if self.log_path.exists() else b""

    def tail(self, lines=40):
        return b"\n".join(self.log().splitlines()[-lines:]).decode("utf-8", "replace")

    def mark(self):
        self.seen = self.log_path.stat().st_size if self.log_path.exists() else 0

    def log_since_mark(self, lines=60):
        fresh = self.log()[self.seen :].splitlines()
        left_out = [f"... {len(fresh) - lines} earlier lines".encode()] if len(fresh) > lines else []
        return b"\n".join(left_out + fresh[-lines:]).decode("utf-8", "replace")

    def sanitizer_reports(self):
        return [match.group(0).decode("utf-8", "replace") for match in SANITIZER_REPORT.finditer(self.log())]


def is_built(name):
    return PATHS[name].exists()


def is_sanitized(name):
    """Built with the address sanitizer: slower, and more in memory than its own."""
    return is_built(name) and b"__asan_init" in PATHS[name].read_bytes()


def assert_built(name):
    assert is_built(name), f"{PATHS[name]} is not built (BUILD_DIR names the build folder)"
    return PATHS[name]


def run(name, arguments=(), environment=None, deadline_s=READY_S):
    """A program that is expected to leave by itself: (exit code, stdout, stderr)."""
    result = subprocess.run(
        [str(assert_built(name)), *arguments],
        env={**clean_environment(), **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=deadline_s,
    )
    return result.returncode, result.stdout.decode("utf-8", "replace"), result.stderr.decode("utf-8", "replace")


def sanitizer_reports():
    return [f"{program.label}: {line}" for program in started for line in program.sanitizer_reports()]


def stop_all():
    """The last word: whatever still runs is ended, however the tests went."""
    for program in started:
        if program.process is not None and program.running:
            program.resume()
            program.terminate()
    limit = time.monotonic() + STOP_S
    for program in started:
        if program.process is not None and program.running:
            try:
                program.process.wait(max(0.1, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
        program.kill()

"""A sanitized gateway tells of what we leak, and not of what Kore itself loses: neither would be seen in a report full of the other."""
import os
import re
import shlex
import shutil
import signal
from pathlib import Path

import pytest

from support import program
from support.clock import wait_until
from support.hostile import Watched

LAUNCHER = program.PATHS["gateway"]
# kore-gateway/test/leaky.c: what a GET /healthz loses, and the function that gave it; Kore notes 20 bytes around each block.
PLANTED = {12345: "malloc", 23456 + 20: "kore_malloc"}
LOST_BY = "__wrap_health_alive"
LEAK = re.compile(r"^(?:Direct|Indirect) leak of (\d+) byte\(s\) in \d+ object\(s\) allocated from:\n((?:\s+#\d+ .*\n)+)", re.M)
WORKER_RESTARTED = b"the worker died and was started again"


@pytest.fixture(scope="module", autouse=True)
def sanitized():
    program.assert_built("gateway")
    if not program.is_sanitized("gateway"):
        pytest.skip("the build has no address sanitizer")


class Gateway(Watched):
    """Without a broker; `module` instead of the gateway's own."""

    def __init__(self, directory, module=None):
        super().__init__(directory, "gateway", "gateway")
        program.started.remove(self)  # its reports are these tests' matter, not the session's
        if module is not None:
            launcher = shutil.copy(LAUNCHER, directory)
            shutil.copy(module, Path(directory) / "gateway.so")
            shutil.copy(LAUNCHER.with_name("kore.conf"), directory)
            self.prefix = ["/bin/sh", "-c", f"exec {shlex.quote(str(launcher))}"]  # instead of what follows

    def worker(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def wait_answers(self):
        """Not /healthz, which leaks; without a broker it is not ready."""
        wait_until(lambda: self.status("/readyz") == 503, f"{self.label} answers")

    def restart_worker(self):
        os.kill(self.worker(), signal.SIGKILL)
        wait_until(lambda: WORKER_RESTARTED in self.log(), "the worker is started again")
        self.wait_answers()

    def leaks(self):
        """bytes -> stack"""
        return {int(size): stack for size, stack in LEAK.findall(self.log().decode("utf-8", "replace"))}


@pytest.fixture
def start(tmp_path):
    made = []

    def start(**options):
        made.append(Gateway(tmp_path, **options))
        made[-1].start().wait_answers()
        return made[-1]

    yield start
    for one in made:
        one.kill()


def leave(gateway):
    gateway.terminate()
    assert gateway.wait_exit() == 0, gateway.tail()


@pytest.mark.parametrize("restarted", [False, True], ids=["first worker", "worker started again"])
def test_what_kore_loses_is_not_reported(start, restarted):
    """Kore's parent makes two pools for itself; a worker that is started again inherits them and makes its own over them."""
    gateway = start()
    if restarted:
        gateway.restart_worker()
    leave(gateway)
    assert b'"stopped"' in gateway.log() and not gateway.sanitizer_reports(), gateway.tail()


@pytest.mark.parametrize("restarted", [False, True], ids=["first worker", "worker started again"])
def test_what_we_lose_is_reported(start, restarted):
    gateway = start(module=LAUNCHER.parent / "test" / "leaky.so")
    if restarted:
        gateway.restart_worker()
    assert gateway.status("/healthz") == 200
    leave(gateway)
    leaks = gateway.leaks()
    assert set(leaks) == set(PLANTED), gateway.tail()
    for size, stack in leaks.items():
        assert PLANTED[size] in stack and LOST_BY in stack, stack

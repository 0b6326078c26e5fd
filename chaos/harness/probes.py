"""Asks each program all the time whether it lives and whether it is ready."""
import http.client
import threading
import time

from . import limits
from .checker import Probe

PERIOD_S = 0.25
PATHS = ("/healthz", "/readyz")


class Prober:
    def __init__(self, system):
        self.system = system
        self.probes = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(label,), daemon=True) for label in system.programs]

    def start(self):
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._over.set()
        for thread in self._threads:
            thread.join(2 * limits.HEALTH_TIMEOUT_S + 1)

    def _run(self, label):
        while not self._over.wait(PERIOD_S):
            for path in PATHS:
                began = time.monotonic()
                try:
                    status = self.system.http(label, path, limits.HEALTH_TIMEOUT_S)[0]
                except (OSError, http.client.HTTPException) as error:
                    status = f"{type(error).__name__}: {error}"
                self.probes.append(Probe(label, path, began, time.monotonic(), status))

"""The whole shop on ports of its own, each link of each program through the proxy, and what can be done to it."""
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from support import backing
from support.backing import Servers, host_and_port, uri_through
from support.clock import wait_until
from support.shop import Shop

from . import limits
from .checker import Window

COUNTS = {"products": 2, "orders": 2, "gateway": 1}
STORES = {"products": "redis", "orders": "postgres"}
SUPERVISE_S = 0.1
WORKER_RESTARTED = b"the worker died and was started again"
PROXY = Path(__file__).with_name("proxy.py")
PARTS = 16
PORTS = range(12000, 20000)  # below those that the kernel gives to outgoing connections: a program that starts again finds its own


def free_port():
    """Two runs at a time do not draw the same: each has a part of the ports."""
    mine = PORTS[os.getpid() % PARTS :: PARTS]
    for port in random.sample(mine, len(mine)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise RuntimeError(f"no free port between {PORTS.start} and {PORTS.stop}")


class Proxy:
    """The process that all links go through."""

    def __init__(self):
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(PROXY)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.links = []

    def _do(self, **command):
        with self._lock:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def listen(self, name, uri):
        """The URI by way of a new link."""
        host, port = host_and_port(uri)
        self.links.append(name)
        return uri_through(uri, self._do(do="listen", name=name, host=host, port=port)["port"])

    def set(self, name, mode, **settings):
        self._do(do="set", name=name, mode=mode, **settings)

    def heal(self):
        for name in self.links:
            self.set(name, "up")

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _weight(pid):
    """(resident KiB, descriptors) of a process and its children."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0])
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    for child in _children(pid):
        more = _weight(child)
        resident, descriptors = resident + more[0], descriptors + more[1]
    return resident, descriptors


class System:
    def __init__(self, directory):
        self.directory = Path(directory)
        backing.ROOMS_MAX = 1  # one shop alone; a broker with one more vhost starts sooner than with two dozen
        self.servers = Servers()
        self.proxy = None
        self.shop = None
        self.programs = {}  # "products-1" -> Program
        self.injured, self.unready, self.exits = [], [], []
        self._hurt = {}  # label -> how many faults hold it down now
        self._workers_killed = 0
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._supervise, daemon=True)

    # ---- life ----------------------------------------------------------------------------------------------------

    def start(self):
        self.servers.start()
        self.shop = Shop(self.servers, self.directory)
        self.proxy = Proxy()
        for name, count in COUNTS.items():
            for number in range(1, count + 1):
                self._add(name, number)
        for program in self.programs.values():
            program.start()
        for program in self.programs.values():
            program.wait_ready()
        self._watch.start()

    def _add(self, name, number):
        label, room = f"{name}-{number}", self.shop.room
        settings = {
            "AMQP_URI": self.proxy.listen(f"{label}~broker", room.amqp_uri) + f"?heartbeat={limits.HEARTBEAT_S}",
            "RPC_TIMEOUT_MS": str(limits.RPC_TIMEOUT_S * 1000),
            "DRAIN_TIMEOUT_MS": str(limits.DRAIN_S * 1000),
        }
        if name == "products":
            settings["REDIS_URI"] = self.proxy.listen(f"{label}~redis", room.redis_uri)
        if name == "orders":
            settings["POSTGRES_URI"] = self.proxy.listen(f"{label}~postgres", room.postgres_uri)
        settings["PORT" if name == "gateway" else "METRICS_PORT"] = str(free_port())
        self.programs[label] = self.shop.add(name, **settings)

    def stop(self):
        """All leave as asked; whoever does not is a finding."""
        self._stopping.set()
        if self._watch.is_alive():
            self._watch.join()
        for label, program in self.programs.items():
            if program.running:
                program.terminate()
        for label, program in self.programs.items():
            self._leaves_with_0(label, program)

    def close(self):
        self._stopping.set()
        for program in self.programs.values():
            program.kill()
        if self.proxy is not None:
            self.proxy.close()
        self.servers.stop()

    def heal(self):
        """Whatever the nemesis did, and however it failed, is undone."""
        self.proxy.heal()
        for name in backing.NAMES:
            self.servers.resume(name)
        self.servers._script("start")
        for label, program in self.programs.items():
            with self._lock:
                if program.running:
                    program.resume()
                else:
                    program.start()

    # ---- what is known of it ---------------------------------------------------------------------------------------

    @property
    def gateway_port(self):
        return int(self.programs["gateway-1"].environment["PORT"])

    def port_of(self, label):
        environment = self.programs[label].environment
        return int(environment["PORT"] if label.startswith("gateway") else environment["METRICS_PORT"])

    def http(self, label, path, timeout_s):
        connection = http.client.HTTPConnection("127.0.0.1", self.port_of(label), timeout=timeout_s)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def is_ready(self):
        """Each program says so."""
        try:
            return all(self.http(label, "/readyz", limits.HEALTH_TIMEOUT_S)[0] == 200 for label in self.programs)
        except (OSError, http.client.HTTPException):
            return False

    def weights(self):
        """role -> (resident KiB, descriptors), of the heaviest"""
        found = {}
        for label, program in self.programs.items():
            role = label.rpartition("-")[0]
            weight = _weight(program.process.pid)
            found[role] = tuple(map(max, found.get(role, weight), weight))
        return found

    def in_flight(self):
        """program -> requests and events that it says it has under way"""
        found = {}
        for label in self.programs:
            if label.startswith("gateway"):
                continue
            _, text = self.http(label, "/metrics", limits.HEALTH_TIMEOUT_S)
            for line in text.decode().splitlines():
                name, _, value = line.rpartition(" ")
                if name.endswith("in_flight") and not line.startswith("#"):
                    found[f"{label} {name}"] = float(value)
        return found

    def queues(self):
        """name -> messages"""
        output = self.servers.rabbitmqctl(
            "-q", "list_queues", "-p", self.shop.room.name, "name", "messages", "--formatter", "json"
        )
        return {queue["name"]: queue["messages"] for queue in json.loads(output[output.index("[") :])}

    # ---- what is done to processes ---------------------------------------------------------------------------------

    @contextmanager
    def hurting(self, *labels):
        """What these programs do meanwhile is our doing."""
        window_began = time.monotonic()
        with self._lock:
            for label in labels:
                self._hurt[label] = self._hurt.get(label, 0) + 1
        windows = [Window(label, window_began, float("inf")) for label in labels]
        self.injured += windows
        try:
            yield
        finally:
            with self._lock:
                for label in labels:
                    self._hurt[label] -= 1
            for window in windows:
                window.ended = time.monotonic()

    def expect_unready(self, began, ended, *labels):
        if ended > began + limits.READY_LAG_S:
            self.unready += [Window(label, began + limits.READY_LAG_S, ended) for label in labels]

    def kill_program(self, label):
        with self._lock:
            self.programs[label].kill()

    def start_program(self, label):
        with self._lock:
            if not self.programs[label].running:
                self.programs[label].start()

    def wait_started(self, label):
        """It answers; what it needs may still be away, so that it need not be ready."""

        def answers():
            try:
                return self.http(label, "/healthz", 1)[0] == 200
            except (OSError, http.client.HTTPException):
                return False

        wait_until(answers, f"{label} answers", limits.MACHINE_RECOVERY_S)

    def drain_program(self, label):
        program = self.programs[label]
        program.terminate()
        self._leaves_with_0(label, program)

    def _leaves_with_0(self, label, program):
        asked = time.monotonic()
        try:
            code = program.process.wait(limits.EXIT_S)
        except subprocess.TimeoutExpired:
            self.exits.append((asked, f"{label} did not leave within {limits.EXIT_S:g} s of SIGTERM"))
            program.kill()
            return
        if code != 0:
            self.exits.append((asked, f"{label} left with {code} after SIGTERM"))

    def gateway_workers(self):
        return _children(self.programs["gateway-1"].process.pid)

    def kill_gateway_worker(self):
        for pid in self.gateway_workers():
            self._workers_killed += 1
            os.kill(pid, signal.SIGKILL)

    def _supervise(self):
        """A program that ends by itself is a finding, and is started again as a supervisor would."""
        while not self._stopping.wait(SUPERVISE_S):
            for label, program in self.programs.items():
                with self._lock:
                    if program.running or self._hurt.get(label):
                        continue
                    self.exits.append((time.monotonic(), f"{label} ended by itself with {program.process.poll()}"))
                    program.start()

    def reports(self):
        """Lines of sanitizers and of the sandbox; restarts of the gateway's worker that nobody brought about."""
        found = [f"{label}: {line}" for label, program in self.programs.items() for line in program.sanitizer_reports()]
        restarts = self.programs["gateway-1"].log().count(WORKER_RESTARTED)
        if restarts > self._workers_killed:
            found.append(f"gateway-1: its worker died {restarts} times, {self._workers_killed} of them by our hand")
        return found

    def keep_logs(self, directory):
        for label, program in self.programs.items():
            if program.log_path.exists():
                shutil.copy(program.log_path, directory / f"{label}.log")
        for log in (self.servers.run_dir / "log").glob("*.log*"):
            shutil.copy(log, directory / log.name)

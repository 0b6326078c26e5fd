"""The whole shop on ports of its own, each link of each program through the proxy, and what can be done to it."""
import errno
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from support import backing
from support.backing import Servers, host_and_port, uri_through, with_login_of
from support.clock import wait_until
from support.ports import free_port
from support.program import PATHS
from support.shop import Shop

from . import limits, namespaces
from .checker import Window

COUNTS = {"products": 2, "orders": 2, "gateway": 1}
IN_NAMESPACES = ("products-2", "orders-2", "gateway-1")  # where that can be: behind links whose packets are ours
BY_CLOCK = ("products-2", "orders-2")  # these have a clock that can be set
FAKETIME = "libfaketimeMT.so.1"
RETRY_MS = 1000
WAL_MIB, WAL_KEPT_MIB = 192, 48
STORES = {"products": "redis", "orders": "postgres"}
SUPERVISE_S = 0.1
OF_ITSELF = "gateway_requests_in_flight"  # the question is one
WORKER_RESTARTED = b"the worker died and was started again"
PROXY = Path(__file__).with_name("proxy.py")


def is_sanitized():
    return b"__asan_init" in PATHS["products"].read_bytes()


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

    def listen(self, name, uri, address):
        """The URI by way of a new link, whose client's side is at this address."""
        host, port = host_and_port(uri)
        self.links.append(name)
        port = self._do(do="listen", name=name, address=address, host=host, port=port)["port"]
        return uri_through(uri, port).replace(f"@127.0.0.1:{port}", f"@{address}:{port}").replace(
            f"//127.0.0.1:{port}", f"//{address}:{port}"
        )

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
        self._wal_filler = None
        self.lacks = {}  # what faults may need and this machine has not -> why
        self.namespaces, self.packets, self._joined = {}, None, []
        self._hurt = {}  # label -> how many faults hold it down now
        self._workers_killed = 0
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._supervise, daemon=True)

    # ---- life ----------------------------------------------------------------------------------------------------

    def start(self):
        self.servers.start()
        self._limit_wal()
        self._find_clock()
        if namespaces.entered():
            self.namespaces = {label: namespaces.Namespace() for label in IN_NAMESPACES}
        else:
            self.lacks["namespaces"] = "not run as root, or it may make none; links break in the proxy alone"
        self.shop = Shop(self.servers, self.directory)
        # An event that fails waits a second, however long it would by itself: all its attempts fit into a short run.  Not
        # those of retry-0: they wait for a consumer.
        policy = json.dumps({"message-ttl": RETRY_MS})
        room = self.shop.room.name
        self.servers.rabbitmqctl(
            "set_policy", "-p", room, "--priority", "2", "--apply-to", "queues", "retry-soon", r"\.retry-[1-9]", policy
        )
        self.proxy = Proxy()
        for name, count in COUNTS.items():
            for number in range(1, count + 1):
                self._add(name, number)
        if self._joined:
            self.packets = namespaces.Packets(self._joined)
        for program in self.programs.values():
            program.start()
        for program in self.programs.values():
            program.wait_ready()
        self._watch.start()

    def _link(self, label, server, uri):
        name, address, namespace = f"{label}~{server}", "127.0.0.1", self.namespaces.get(label)
        if namespace is not None:
            address, outer, inner = namespace.link(len(self._joined) + 1)
            self._joined.append((name, outer, inner))
        return self.proxy.listen(name, uri, address)

    def _add(self, name, number):
        label, room = f"{name}-{number}", self.shop.room
        settings = {
            "AMQP_URI": self._link(label, "broker", room.amqp_uri) + f"?heartbeat={limits.HEARTBEAT_S}",
            "RPC_TIMEOUT_MS": str(limits.RPC_TIMEOUT_S * 1000),
            "DRAIN_TIMEOUT_MS": str(limits.DRAIN_S * 1000),
        }
        if name == "products":
            settings["REDIS_URI"] = self._link(label, "redis", room.redis_uri)
        if name == "orders":
            settings["POSTGRES_URI"] = self._link(label, "postgres", room.postgres_uri)
        settings["METRICS_PORT"] = str(free_port())
        for variable, uri in self.servers.service_uris[name].items():  # as its own user, who may only what it needs
            settings[variable] = with_login_of(settings[variable], uri)
        if label in BY_CLOCK and "faketime" not in self.lacks:
            settings.update(
                LD_PRELOAD=str(self._faketime),
                FAKETIME_TIMESTAMP_FILE=str(self._clock),
                FAKETIME_CACHE_DURATION="1",
                FAKETIME_DONT_FAKE_MONOTONIC="1",
                NO_FAKE_STAT="1",
            )
        if label in self.namespaces:
            settings["METRICS_ADDRESS"] = "0.0.0.0"  # of its own namespace
            if name == "gateway":
                settings["BIND_ADDRESS"] = "0.0.0.0"
        self.programs[label] = self.shop.add(name, **settings)
        if label in self.namespaces:
            self.programs[label].prefix = self.namespaces[label].prefix

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
        for process in (self.packets, self.proxy, *self.namespaces.values()):
            if process is not None:
                process.close()
        if self._wal_filler is not None:  # else its folder could not be removed
            self.servers._script("stop")
            subprocess.run(["umount", str(self._wal_filler.parent)])
        self.servers.stop()

    def heal(self):
        """Whatever the nemesis did, and however it failed, is undone."""
        self.proxy.heal()
        if self.packets is not None:
            self.packets.heal()
        self.clear_wal()
        self.set_clock(0)
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
    def gateway_address(self):
        return self.address_of("gateway-1")

    def address_of(self, label):
        namespace = self.namespaces.get(label)
        return "127.0.0.1" if namespace is None else namespace.front_address, self.port_of(label)

    def port_of(self, label):
        environment = self.programs[label].environment
        return int(environment["PORT"] if label.startswith("gateway") else environment["METRICS_PORT"])

    def http(self, label, path, timeout_s, port=None):
        address, usual_port = self.address_of(label)
        connection = http.client.HTTPConnection(address, port or usual_port, timeout=timeout_s)
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
        for label, program in self.programs.items():
            _, text = self.http(label, "/metrics", limits.HEALTH_TIMEOUT_S, int(program.environment["METRICS_PORT"]))
            for line in text.decode().splitlines():
                name, _, value = line.rpartition(" ")
                if name.endswith("in_flight") and not line.startswith("#"):
                    found[f"{label} {name}"] = float(value) - (name == OF_ITSELF)
        return found

    def queues(self):
        """name -> messages"""
        output = self.servers.rabbitmqctl(
            "-q", "list_queues", "-p", self.shop.room.name, "name", "messages", "--formatter", "json"
        )
        return {queue["name"]: queue["messages"] for queue in json.loads(output[output.index("[") :])}

    # ---- what is done to links, clocks and file systems -------------------------------------------------------------

    def break_link(self, name, mode, **settings):
        """Its packets, where it has any that are ours; else its streams."""
        if self.packets is None or name not in self.packets.links or mode not in ("blackhole", "delay", "lossy"):
            self.proxy.set(name, mode, **settings)
        elif mode == "blackhole":
            self.packets.set(name, loss=1, **settings)
        else:
            self.packets.set(name, **settings)

    def mend_link(self, name):
        self.proxy.set(name, "up")
        if self.packets is not None and name in self.packets.links:
            self.packets.set(name)

    def _find_clock(self):
        found = sorted(Path("/usr/lib").glob(f"*/faketime/{FAKETIME}"))
        self._clock = self.directory / "clock"
        self.set_clock(0)
        if is_sanitized():
            self.lacks["faketime"] = "it and the sanitizers do not go together"
        elif not found:
            self.lacks["faketime"] = "Debian's package libfaketime is not installed"
        else:
            self._faketime = found[0]

    def set_clock(self, seconds):
        self._clock.write_text(f"{seconds:+d}\n")

    def _limit_wal(self):
        """PostgreSQL's log on a small file system of its own."""
        if not namespaces.entered():
            self.lacks["file systems"] = "not run as root, or it may make none"
            return
        wal = self.servers.run_dir / "postgres" / "data" / "pg_wal"
        with self.servers.database(self.servers.postgres_uri("postgres")) as cursor:
            cursor.execute(f"ALTER SYSTEM SET max_wal_size = '{WAL_KEPT_MIB}MB'")
            cursor.execute("ALTER SYSTEM SET min_wal_size = '32MB'")
            cursor.execute("SELECT pg_reload_conf()")
            cursor.execute("CHECKPOINT")
        self.servers._script("stop", "postgres")
        owner, kept = wal.stat(), wal.with_name("pg_wal.kept")
        wal.rename(kept)
        wal.mkdir()
        options = f"size={WAL_MIB}m,mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "chaos-wal", str(wal)], check=True)
        subprocess.run(["cp", "-a", f"{kept}/.", str(wal)], check=True)
        shutil.rmtree(kept)
        self.servers.start_one("postgres")
        self._wal_filler = wal / "filler"

    def fill_wal(self):
        with self._wal_filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def clear_wal(self):
        if "file systems" not in self.lacks:
            self._wal_filler.unlink(missing_ok=True)

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
        """A program that was itself hurt meanwhile hears of it only then."""
        for label in labels:
            heard = max([began, *(hurt.ended for hurt in self.injured if hurt.meets(label, began, ended))]) + limits.READY_LAG_S
            if heard < ended:
                self.unready.append(Window(label, heard, ended))

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

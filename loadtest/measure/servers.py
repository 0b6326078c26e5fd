"""The servers, rooms in them that do not meet, and the shops that live in these rooms."""
import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import redis

from support.database import database
from support.ports import free_port

from . import processes
from .peers import CHECKOUT, NAMEKO
from .waiting import wait_until

SCRIPT = CHECKOUT / "dev_run_backingsvcs.sh"
DEPLOY = CHECKOUT / "migrations" / "deploy.sh"
START_TIMEOUT_S = 300
READY_TIMEOUT_S = 60
READY_POLL_S = 0.0005  # the time to ready is a figure of the benchmark
STOP_TIMEOUT_S = 40
FREE_PORT = "a free port"  # as a setting: each program gets one of its own

# Only what the benchmark sets reaches the programs.
SETTINGS = re.compile(
    r"^(AMQP|REDIS|POSTGRES|PG|RPC|LOG|METRICS|PREFETCH|DRAIN|OUTBOX|IDEMPOTENCY|PRODUCT|STORE|APPLIED)_?"
    r"|^(PORT|BIND_ADDRESS|MAX_WORKERS|READY_FILE|LIST_MAX|INSTANCES|DEBUG|RUN_DIR)$"
)


def clean_environment():
    return {name: value for name, value in os.environ.items() if not SETTINGS.match(name)}


def _with_path(uri, path):
    return urlunsplit(urlsplit(uri)._replace(path=path))


class Room:
    """A vhost, a database and a Redis database for one shop alone."""

    def __init__(self, servers, name, redis_database):
        self.name = name
        self.amqp_uri = _with_path(servers.uris["AMQP_URI"], f"/{name}")
        self.redis_uri = _with_path(servers.uris["REDIS_URI"], f"/{redis_database}")
        self.postgres_uri = _with_path(servers.uris["POSTGRES_URI"], f"/{name}")
        self.redis_database = redis_database

    def redis(self):
        return redis.Redis.from_url(self.redis_uri, decode_responses=True)

    def redis_cli(self, *arguments, **options):
        """As a process; the password is in its environment, where other users do not see it."""
        parts = urlsplit(self.redis_uri)
        command = ["redis-cli", "-h", parts.hostname, "-p", str(parts.port), "-n", str(self.redis_database), *arguments]
        return subprocess.Popen(command, env={**clean_environment(), "REDISCLI_AUTH": unquote(parts.password)}, **options)

    def database(self):
        return database(self.postgres_uri)

    def query(self, sql, parameters=()):
        with self.database() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else None


class Servers:
    """RabbitMQ, Redis and PostgreSQL of the benchmark's own, by dev_run_backingsvcs.sh."""

    def __init__(self, run_dir):
        self.run_dir = Path(run_dir)
        self.uris = {}
        self._rooms = 0

    def _script(self, *arguments):
        # Output to a file: a server that inherits a pipe would keep it open.
        output = self.run_dir / "backing.log"
        with output.open("w") as log:
            code = subprocess.call(
                [str(SCRIPT), *arguments],
                env={**clean_environment(), "RUN_DIR": str(self.run_dir)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=START_TIMEOUT_S,
            )
        text = output.read_text()
        if code != 0:
            raise RuntimeError(f"{SCRIPT.name} {' '.join(arguments)} ended with {code}:\n{text}")
        return text

    def start(self):
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._script("start")
        for line in self._script("env").splitlines():
            match = re.match(r"^export (\w+)=(.*)$", line)
            if match:
                self.uris[match.group(1)] = shlex.split(match.group(2))[0]

    def stop(self):
        self._script("stop")

    def rabbitmqctl(self, *arguments):
        return self._script("rabbitmqctl", *arguments)

    def pids(self, name):
        return [int((self.run_dir / f"{name}.pid").read_text())]

    def port(self, name):
        return urlsplit(self.uris[{"rabbitmq": "AMQP_URI", "redis": "REDIS_URI", "postgres": "POSTGRES_URI"}[name]]).port

    def make_rooms(self, names, quorum=()):
        """All at once: each rabbitmqctl boots an Erlang machine.  Queues of the rooms in `quorum` are quorum queues."""
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        user = urlsplit(self.uris["AMQP_URI"]).username
        definitions = self.run_dir / "rooms.json"
        definitions.write_text(
            json.dumps(
                {
                    "vhosts": [
                        {"name": name, "metadata": {"default_queue_type": "quorum" if name in quorum else "classic"}}
                        for name in names
                    ],
                    "permissions": [{"user": user, "vhost": name, **everything} for name in names],
                }
            )
        )
        self.rabbitmqctl("import_definitions", str(definitions))
        rooms = []
        for name in names:
            room = Room(self, name, self._rooms)
            self._rooms += 1
            with room.redis() as connection:
                connection.flushdb()
            self._make_database(room, rooms[0] if rooms else None)
            rooms.append(room)
        return rooms

    def _make_database(self, room, template):
        """The first by the migrations, the others as its copies."""
        with database(_with_path(self.uris["POSTGRES_URI"], "/postgres")) as cursor:
            cursor.execute(f'DROP DATABASE IF EXISTS "{room.name}" WITH (FORCE)')
            if template is not None:
                cursor.execute(f'CREATE DATABASE "{room.name}" TEMPLATE "{template.name}"')
        if template is None:
            deploy(room)


def deploy(room):
    result = subprocess.run(
        [str(DEPLOY)],
        env={**clean_environment(), "POSTGRES_URI": room.postgres_uri},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START_TIMEOUT_S,
    )
    if result.returncode != 0:
        raise RuntimeError(f"{DEPLOY.name} ended with {result.returncode}:\n{result.stdout}")


class Program:
    """One program, started with its environment alone."""

    def __init__(self, name, command, environment, directory):
        self.name = name
        self.command = [str(part) for part in command]
        self.environment = environment
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.log_path = directory / f"{name}.log"
        self.ready_path = directory / f"{name}.ready"
        self.process = None
        self.ready_after_s = None

    def start(self):
        self.ready_path.unlink(missing_ok=True)
        with self.log_path.open("ab") as log:
            began = time.monotonic()
            self.process = subprocess.Popen(
                self.command,
                env={**clean_environment(), **self.environment, "READY_FILE": str(self.ready_path)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
            )
        wait_until(
            lambda: self.ready_path.exists() or self.process.poll() is not None,
            f"{self.name} is ready; its log is {self.log_path}",
            READY_TIMEOUT_S,
            READY_POLL_S,
        )
        self.ready_after_s = time.monotonic() - began
        self.assert_running()
        return self

    def assert_running(self):
        if self.process.poll() is not None:
            lines = self.log_path.read_text(errors="replace").splitlines()[-20:]
            raise RuntimeError(f"{self.name} left with exit code {self.process.returncode}:\n" + "\n".join(lines))

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Shop:
    """Any number of each program in one room: ours, or a peer's.  The programs named in `python` are Nameko's in our shop."""

    NAMES = ("products", "orders", "gateway")

    def __init__(self, room, build_dir, peer=None, settings=None, python=()):
        self.room = room
        self.peer = peer
        self.python = tuple(python)
        self.build_dir = build_dir
        self.settings = {**(peer.settings if peer else {}), **(settings or {})}
        self.directory = None
        self.programs = {name: [] for name in self.NAMES}

    def _command(self, name):
        if self.peer is not None or name in self.python:
            return [*(self.peer or NAMEKO).command, name]
        folder = "kore-gateway" if name == "gateway" else name
        path = self.build_dir / folder / folder
        if not path.exists():
            raise FileNotFoundError(f"{path} is not built (BUILD_DIR names the build folder)")
        return [path]

    def add(self, name):
        environment = {
            "AMQP_URI": self.room.amqp_uri,
            "REDIS_URI": self.room.redis_uri,
            "POSTGRES_URI": self.room.postgres_uri,
            "BIND_ADDRESS": "127.0.0.1",
            "PRODUCT_IMAGE_ROOT": "http://images.example.com/of/airships",
            **self.settings,
        }
        if name == "gateway":
            environment["PORT"] = FREE_PORT
        environment = {key: str(free_port()) if value == FREE_PORT else value for key, value in environment.items()}
        number = len(self.programs[name]) + 1
        program = Program(f"{name}-{number}", self._command(name), environment, self.directory)
        self.programs[name].append(program)
        return program.start()

    def start(self, directory, counts=None):
        self.directory = directory / self.room.name
        for name in self.NAMES:
            for _ in range((counts or {}).get(name, 1)):
                self.add(name)
        return self

    def resize(self, count):
        """That many of each."""
        for name in self.NAMES:
            while len(self.programs[name]) < count:
                self.add(name)
            while len(self.programs[name]) > count:
                self.programs[name].pop().stop()

    def restart(self, name):
        """The last of them; returns how long it took to be ready."""
        self.programs[name].pop().stop()
        return self.add(name).ready_after_s

    def stop(self):
        for name in reversed(self.NAMES):
            for program in self.programs[name]:
                program.stop()

    @property
    def has_pages(self):
        """Does its list of orders have pages?  The Python service's has none."""
        return self.peer.has_pages if self.peer else "orders" not in self.python

    @property
    def ports(self):
        return [int(program.environment["PORT"]) for program in self.programs["gateway"]]

    @property
    def metrics_ports(self):
        ports = [program.environment.get("METRICS_PORT") for programs in self.programs.values() for program in programs]
        return [int(port) for port in ports if port]

    def pids(self, name):
        return [program.process.pid for program in self.programs[name]]

    def assert_running(self):
        for programs in self.programs.values():
            for program in programs:
                program.assert_running()

    def resident_mib(self):
        return {name: processes.resident_mib(self.pids(name)) for name in self.NAMES}

    def resident_peak_mib(self):
        return {name: processes.resident_peak_mib(self.pids(name)) for name in self.NAMES}

"""The backing servers: one RabbitMQ, Redis and PostgreSQL for the session, and in them rooms that do not meet."""
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pika
import redis

from .clock import BOOT_S, wait_until
from .database import database
from .ports import server_ports
from .program import REPOSITORY, clean_environment

SCRIPT = REPOSITORY / "dev_run_backingsvcs.sh"
DEPLOY = REPOSITORY / "migrations" / "deploy.sh"
PERMISSIONS = REPOSITORY / "dev" / "rabbitmq-definitions.json"
SERVICES = ("products", "orders", "gateway")
NAMES = ("rabbitmq", "redis", "postgres")
ROOMS_MAX = 64
ROOMS_AT_ONCE = 8  # each rabbitmqctl boots an Erlang machine, and each vhost makes a broker that is killed slower to come back
REDIS_DATABASES = range(1, 16)  # 0 stays free; a room gives its own back
DEAD_LETTERS = "test-dead-letters"  # exchange, in every room: what a service rejects, and what expires, arrives there


def _processes():
    """pid -> parent's pid, of all processes."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    return parents


def _tree(pid):
    """A process and all that descend from it, the ancestor first."""
    parents = _processes()
    found, fresh = [pid], [pid]
    while fresh:
        fresh = [child for child, parent in parents.items() if parent in fresh]
        found += fresh
    return found


def _signal_all(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


class Room:
    """A vhost, a database and a Redis database of one shop alone."""

    def __init__(self, servers, number, redis_database):
        self.number = number
        self.redis_database = redis_database
        self.name = f"room-{number}"
        self.amqp_uri = _with_path(servers.uris["AMQP_URI"], f"/{self.name}")
        self.redis_uri = _with_path(servers.uris["REDIS_URI"], f"/{redis_database}")
        self.postgres_uri = servers.postgres_uri(f"room_{number}")


def _with_path(uri, path):
    return urlunsplit(urlsplit(uri)._replace(path=path))


def with_login_of(uri, other):
    """The same URI by the user and password of another one."""
    parts, login = urlsplit(uri), urlsplit(other).netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}"))


def uri_through(uri, port):
    """The same URI by way of a local proxy."""
    parts = urlsplit(uri)
    credentials = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=(credentials + "@" if credentials else "") + f"127.0.0.1:{port}"))


def host_and_port(uri):
    defaults = {"amqp": 5672, "redis": 6379, "postgresql": 5432, "postgres": 5432}
    parts = urlsplit(uri)
    return parts.hostname or "127.0.0.1", parts.port or defaults[parts.scheme]


class Servers:
    def __init__(self):
        self._directory = tempfile.TemporaryDirectory(prefix="shop-test-servers-", ignore_cleanup_errors=True)
        self.run_dir = Path(self._directory.name)
        self.environment = {**clean_environment(), "RUN_DIR": str(self.run_dir), "SERVER_PORTS": server_ports()}
        self.uris = {}  # by the users who may everything, for the tests
        self.service_uris = {}  # by each service's own
        self._rooms = 0
        self._rooms_made = 0
        self._redis_databases = list(REDIS_DATABASES)

    def _script(self, *arguments, deadline_s=BOOT_S):
        with tempfile.TemporaryFile() as output:  # no pipe: a server that inherits it would keep it open
            try:
                code = subprocess.call(
                    [str(SCRIPT), *arguments],
                    env=self.environment,
                    cwd=REPOSITORY,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=deadline_s,
                )
            except subprocess.TimeoutExpired:
                code = "no exit"
            output.seek(0)
            text = output.read().decode("utf-8", "replace")
        assert code == 0, f"{SCRIPT.name} {' '.join(arguments)}: {code}\n{text}"
        return text

    def start(self):
        assert SCRIPT.exists(), f"{SCRIPT} is missing"
        self._script("start")
        self.uris = self._uris()
        self.service_uris = {service: self._uris("--service", service) for service in SERVICES}
        assert len(self.uris) == 3, f"`{SCRIPT.name} env` names {sorted(self.uris)} only"
        with ThreadPoolExecutor() as pool:
            for step in [pool.submit(self._make_rooms), pool.submit(self._make_template)]:
                step.result()

    def _uris(self, *arguments):
        found = re.findall(r"^export (AMQP_URI|REDIS_URI|POSTGRES_URI)=(.*)$", self._script("env", *arguments), re.M)
        return {name: shlex.split(value)[0] for name, value in found}

    def stop(self):
        for name in NAMES:
            with contextlib.suppress(Exception):
                self.resume(name)
        try:
            self._script("stop")
        finally:
            self._directory.cleanup()

    # ---- rooms -------------------------------------------------------------------------------------------------

    def room(self):
        self._rooms += 1
        assert self._rooms <= ROOMS_MAX, "more shops than rooms"
        if self._rooms > self._rooms_made:
            self._make_rooms()
        room = Room(self, self._rooms, self._redis_databases.pop(0))
        with self.database(self.postgres_uri("postgres")) as cursor:
            cursor.execute(f'CREATE DATABASE "room_{room.number}" TEMPLATE room_template')
        with redis.Redis.from_url(room.redis_uri) as connection:
            connection.flushdb()
        return room

    def leave(self, room):
        self._redis_databases.append(room.redis_database)

    def postgres_uri(self, database):
        return _with_path(self.uris["POSTGRES_URI"], f"/{database}")

    database = staticmethod(database)

    def _make_rooms(self):
        """Some more vhosts: the services' users may in each what they may in the broker's own, and there is a dead-letter
        policy."""
        given = json.loads(PERMISSIONS.read_text())
        user = pika.URLParameters(self.uris["AMQP_URI"]).credentials.username
        made, self._rooms_made = self._rooms_made, min(self._rooms_made + ROOMS_AT_ONCE, ROOMS_MAX)
        names = [f"room-{number}" for number in range(made + 1, self._rooms_made + 1)]
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "vhosts": [{"name": name} for name in names],
            "permissions": [{"user": user, "vhost": name, **everything} for name in names]
            + [{**permission, "vhost": name} for name in names for permission in given["permissions"]],
            "topic_permissions": [{**one, "vhost": name} for name in names for one in given["topic_permissions"]],
            "policies": [
                {
                    "vhost": name,
                    "name": "dead-letters",
                    "pattern": "^(rpc|evt)-",
                    "apply-to": "queues",
                    "priority": 1,
                    "definition": {"dead-letter-exchange": DEAD_LETTERS},
                }
                for name in names
            ],
        }
        path = self.run_dir / "rooms.json"
        path.write_text(json.dumps(definitions))
        self.rabbitmqctl("import_definitions", str(path))
        self.rabbitmqctl("eval", "mnesia:sync_log().")  # or a broker that is killed soon may not have written them down

    def _make_template(self):
        assert DEPLOY.exists(), f"{DEPLOY} is missing"
        result = subprocess.run(
            [str(DEPLOY)],
            env={**self.environment, "POSTGRES_URI": self.postgres_uri("room_template"), "SERVICE_ROLE": "orders"},
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=BOOT_S,
        )
        assert result.returncode == 0, f"{DEPLOY.name}: {result.returncode}\n{result.stdout.decode('utf-8', 'replace')}"

    def rabbitmqctl(self, *arguments):
        return self._script("rabbitmqctl", *arguments)

    # ---- faults ------------------------------------------------------------------------------------------------

    def pid(self, name):
        return int((self.run_dir / f"{name}.pid").read_text().split()[0])

    def kill(self, name):
        """SIGKILL for the server and all that it started; returns when they are gone."""
        tree = _tree(self.pid(name))
        _signal_all(tree, signal.SIGKILL)
        wait_until(lambda: all(_gone(pid) for pid in tree), f"{name} is dead")

    def start_one(self, name):
        self._script("start", name)

    def pause(self, name):
        _signal_all(_tree(self.pid(name)), signal.SIGSTOP)

    def resume(self, name):
        _signal_all(reversed(_tree(self.pid(name))), signal.SIGCONT)

    @contextlib.contextmanager
    def paused(self, name):
        self.pause(name)
        try:
            yield
        finally:
            self.resume(name)

    @contextlib.contextmanager
    def killed(self, name):
        """Dead for the block, back behind it, whatever the block did."""
        self.kill(name)
        try:
            yield
        finally:
            self.start_one(name)


def _gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True

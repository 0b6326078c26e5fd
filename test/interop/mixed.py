"""A shop whose products, orders and gateway are each in C or in Python, and may be swapped while its data stay."""
import json
import subprocess
import sys
from pathlib import Path

import nameko_versions
import psycopg2
import redis
from support import program
from support.backing import DEPLOY, Servers, clean_environment
from support.clock import ANSWER_S, BOOT_S, wait_until
from support.http import Http
from support.program import BUILD_DIR, Program
from support.shop import IMAGE_ROOT, free_port

HERE = Path(__file__).resolve().parent
SERVE = HERE / "shop" / "serve.py"
TABLES = HERE / "shop" / "orders" / "tables.sql"
RPC_TOOL = BUILD_DIR / "rpclib" / "rpc"
LANGUAGES = ("C", "Python")

program.PATHS["nameko"] = Path(sys.executable)


class MixedHttp(Http):
    """The Python gateway's headers are its own; ours are checked on every answer."""

    def __init__(self, port, by_the_spec):
        super().__init__(port)
        self.by_the_spec = by_the_spec

    def request(self, method, path, body=None, headers=None, check=True):
        return super().request(method, path, body, headers, check and self.by_the_spec)


class MixedShop:
    """`adopted` starts with a database as the Python service's first migration makes it, not with ours."""

    def __init__(self, servers, directory, adopted=False):
        self.directory = directory
        self.room = servers.room()
        self.postgres_uri = self.room.postgres_uri
        if adopted:
            self.postgres_uri = servers.postgres_uri(f"python_{self.room.number}")
            with Servers.database(servers.postgres_uri("postgres")) as cursor:
                cursor.execute(f"CREATE DATABASE python_{self.room.number}")
            with Servers.database(self.postgres_uri) as cursor:
                cursor.execute(TABLES.read_text())
        self.port = free_port()
        self.programs = []
        self.killed = set()  # by tests, on purpose: these owe no exit code
        self.running = {}  # products, orders, gateway -> (language, program)

    # ---- programs ----------------------------------------------------------------------------------------------

    def add(self, name, language, **environment):
        """A program of this shop, beside whatever runs; not started yet."""
        settings = {
            "AMQP_URI": self.room.amqp_uri,
            "REDIS_URI": self.room.redis_uri,
            "POSTGRES_URI": self.postgres_uri,
            "BIND_ADDRESS": "127.0.0.1",
            "PORT": str(self.port),
            "PRODUCT_IMAGE_ROOT": IMAGE_ROOT,
            **environment,
        }
        label = f"{self.room.name}-{name}-{language}-{len(self.programs)}"
        if language == "C":
            one = Program(name, self.directory, settings, label)
        else:
            one = Program("nameko", self.directory, settings, label, [str(SERVE), name])
        self.programs.append(one)
        return one

    def use(self, name, language, **environment):
        """From here on `name` is served in `language`; what served it before has stopped."""
        old_language, old = self.running.get(name, (None, None))
        if old_language == language and old.running:
            return old
        if old is not None and old.running:
            old.stop()
        one = self.add(name, language, **environment)
        one.start().wait_ready()
        self.running[name] = (language, one)
        return one

    def use_all(self, products, orders, gateway):
        for name, language in (("products", products), ("orders", orders), ("gateway", gateway)):
            self.use(name, language)

    def the(self, name):
        return self.running[name][1]

    def kill(self, one):
        one.kill()
        self.killed.add(one)

    def add_listener(self):
        """A Nameko service that keeps each order_created it gets in Redis; see heard()."""
        settings = {"AMQP_URI": self.room.amqp_uri, "REDIS_URI": self.room.redis_uri}
        label = f"{self.room.name}-listener-{len(self.programs)}"
        one = Program("nameko", self.directory, settings, label, [str(HERE / "listener.py")])
        self.programs.append(one)
        return one.start().wait_ready()

    def heard(self, kind, order_id):
        """What the listeners' handlers of one kind got about an order: [{"payload", "context"}]."""
        everything = [json.loads(text) for text in self.redis().lrange(f"heard:{kind}", 0, -1)]
        return [one for one in everything if one["payload"]["order"]["id"] == order_id]

    def deploy(self):
        """migrations/deploy.sh, as a user would: from nothing or on what is there."""
        result = subprocess.run(
            [str(DEPLOY)],
            env={**clean_environment(), "POSTGRES_URI": self.postgres_uri},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=BOOT_S,
        )
        output = (result.stdout + result.stderr).decode("utf-8", "replace")
        assert result.returncode == 0, f"{DEPLOY.name}: {result.returncode}\n{output}"

    def close(self):
        failures = []
        for one in self.programs:
            if one.running:
                one.resume()
                one.terminate()
        for one in self.programs:
            if one.process is None or one in self.killed:
                continue
            try:  # one SIGTERM is enough: a Python on its way out would take a second one for an order to drop dead
                code = one.wait_exit()
                assert code == 0, f"{one.label} left with {code}, not 0:\n{one.tail()}"
            except AssertionError as error:
                failures.append(str(error))
        failures += [f"{one.label}: {line}" for one in self.programs for line in one.sanitizer_reports()]
        assert not failures, "\n".join(failures)

    # ---- peers -------------------------------------------------------------------------------------------------

    @property
    def http(self):
        return MixedHttp(self.port, by_the_spec=self.running["gateway"][0] == "C")

    def rpc(self, context=None):
        return nameko_versions.cluster_rpc(self.room.amqp_uri, context=context, timeout_s=ANSWER_S)

    def service_rpc(self, service):
        return nameko_versions.service_rpc(self.room.amqp_uri, service, timeout_s=ANSWER_S)

    def dispatch(self, source, event_type, data):
        nameko_versions.event_dispatcher(self.room.amqp_uri)(source, event_type, data)

    def rpc_tool(self, service, method, args=(), kwargs=None):
        """Our command line client: (exit code, stdout, stderr)."""
        command = [str(RPC_TOOL), "call", service, method, json.dumps(list(args))]
        command += [json.dumps(kwargs)] if kwargs is not None else []
        result = subprocess.run(
            command,
            env={**clean_environment(), "AMQP_URI": self.room.amqp_uri},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ANSWER_S,
        )
        return result.returncode, result.stdout.decode(), result.stderr.decode("utf-8", "replace")

    # ---- what lies beneath -------------------------------------------------------------------------------------

    def redis(self):
        return redis.Redis.from_url(self.room.redis_uri, decode_responses=True)

    def query(self, sql, *parameters):
        connection = psycopg2.connect(self.postgres_uri)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetchall() if cursor.description else None
        finally:
            connection.close()

    def stock(self, product_id):
        value = self.redis().hget(f"products:{product_id}", "in_stock")
        return None if value is None else int(value)

    def wait_stock(self, product_id, expected):
        def arrived():
            stock = self.stock(product_id)
            assert stock == expected, f"it is {stock}"
            return True

        wait_until(arrived, f"the stock of {product_id!r} is {expected}")

"""What the servers can do by themselves, on the same machine in the same run: nothing that uses them can be faster."""
import re
import subprocess
from urllib.parse import unquote, urlsplit

from .load import _run  # the last line of a program's output is its result
from .servers import clean_environment
from .waiting import wait_until

MARGIN_S = 30
SECONDS_LEAST = 2  # of pgbench: it connects and prepares in that time, too
PGBENCH = "/usr/lib/postgresql/15/bin/pgbench"
BATCH_WANTED = 16  # orders of one statement, where the shop sends several at a time
REDIS_RATE = {1: 10_000, 64: 200_000}  # a guess, for a run's length
APPLIED_ORDERS = 10**9  # drawn from so many, hardly one comes twice
PG_LOG = "postgres.log"


class Echo:
    """ceiling_echo or rpclib_echo: its server for the whole run, its client for a moment."""

    def __init__(self, program, way, room, build_dir, directory):
        self.name = " ".join([program, *way])
        self.way = way  # what stands last on the command line
        self.log_path = directory / f"{'-'.join([program, *way])}.log"
        self.path = build_dir / "loadtest" / program
        self.environment = {**clean_environment(), "AMQP_URI": room.amqp_uri, "LOG_LEVEL": "warning"}
        self.server = None

    def start(self):
        with self.log_path.open("w") as log:
            self.server = subprocess.Popen(
                [str(self.path), "serve", *self.way],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        if self.server.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{self.name} serve does not start")
        return self

    def measure(self, in_flight, seconds):
        result, _ = _run([self.path, "call", in_flight, max(1, round(seconds)), *self.way], self.environment, seconds)
        if result["failures"] or not result["rate"]:
            raise RuntimeError(f"{self.name}: {result}")
        return result

    def stop(self):
        if self.server is not None:
            self.server.terminate()
            self.server.wait()


# ---- Redis -----------------------------------------------------------------------------------------------------------


class Commands:
    """products' own commands, as Redis saw them while a shop worked."""

    PRODUCT = re.compile(r"^(products:bench-)\d+$")
    ORDER = re.compile(r"^(airship:applied:)\d+$")

    def __init__(self, room, directory):
        self.room = room
        self.path = directory / "redis-commands"

    def __enter__(self):
        with self.path.open("w") as output:
            self.monitor = self.room.redis_cli("MONITOR", stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        wait_until(lambda: "OK" in self.path.read_text(), "redis-cli MONITOR begins", MARGIN_S)
        return self

    def __exit__(self, *_):
        self.monitor.terminate()
        self.monitor.wait()

    def read(self):
        """name -> words, of the last run of each; the numbers that a product or an order is known by are drawn anew."""
        found = {}
        with self.path.open(errors="replace") as lines:
            for line in lines:
                match = re.match(r'[\d.]+ \[(\d+) [^\]]*\] ("(?:EXISTS|HMGET|EVALSHA)".*)$', line)
                if match and match.group(1) == str(self.room.redis_database):
                    words = re.findall(r'"((?:[^"\\]|\\.)*)"', match.group(2))
                    drawn = self.ORDER if words[0] == "EVALSHA" else self.PRODUCT
                    found[words[0].lower()] = [drawn.sub(r"\1__rand_int__", word) for word in words]
        for name in ("exists", "hmget", "evalsha"):
            if name not in found:
                raise RuntimeError(f"products sent Redis no {name}; see {self.path}")
        return found


def redis_commands(room, words, pipelined, seconds, products):
    """One of products' commands by redis-benchmark; wants the catalogue in the room."""
    parts = urlsplit(room.redis_uri)
    depth = 64 if pipelined else 1
    requests = int(REDIS_RATE[depth] * seconds)
    drawn = APPLIED_ORDERS if words[0] == "EVALSHA" else products
    command = ["redis-benchmark", "-h", parts.hostname, "-p", parts.port, "-a", unquote(parts.password)]
    command += ["--dbnum", room.redis_database, "-c", 1, "-P", depth, "-n", requests, "-r", drawn, "--csv", *words]
    output = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=seconds * 20 + 60)
    lines = [line for line in output.stdout.splitlines() if line.startswith('"')]
    if output.returncode != 0 or len(lines) < 2:
        raise RuntimeError(f"redis-benchmark: {output.stdout[-500:]}{output.stderr[-500:]}")
    names, values = (re.findall(r'"([^"]*)"', line) for line in lines[-2:])
    found = dict(zip(names, values))
    return {
        "rate": float(found["rps"]),
        "p50_us": float(found["p50_latency_ms"]) * 1000,
        "p99_us": float(found["p99_latency_ms"]) * 1000,
    }


# ---- PostgreSQL ------------------------------------------------------------------------------------------------------


class Statements:
    """orders' own statements with their parameters, as PostgreSQL logged them while a shop worked."""

    ENTRY = re.compile(r"LOG:  duration: [\d.]+ ms  execute (?!<unnamed>)([^:]*): ")
    DETAIL = "DETAIL:  parameters: "

    def __init__(self, servers):
        self.log = servers.run_dir / "log" / PG_LOG
        self.offset = 0
        self.found = {}  # name -> [(sql, [parameter])]

    @staticmethod
    def switch(room, on):
        """Counts for connections that are made from here on."""
        with room.database() as cursor:
            change = "SET log_min_duration_statement = 0" if on else "RESET log_min_duration_statement"
            cursor.execute(f'ALTER DATABASE "{room.name}" {change}')

    def begin(self):
        self.offset = self.log.stat().st_size

    def read(self, room):
        """What was logged of this room's database since begin()."""
        with self.log.open(errors="replace") as file:
            file.seek(self.offset)
            text = file.read()
        self.found = {}
        entries = re.split(r"(?m)^(?=\d{4}-\d\d-\d\d [\d:.]+ \w+ \[\d+\] )", text)
        for entry, following in zip(entries, entries[1:]):
            match = self.ENTRY.search(entry)
            if f"@{room.name} " not in entry or not match or self.DETAIL not in following:
                continue
            sql = entry[match.end() :].strip()
            parameters = following.partition(self.DETAIL)[2].strip()
            self.found.setdefault(match.group(1), []).append((sql, self._parameters(parameters)))
        return self

    @staticmethod
    def _parameters(text):
        """$1 = 'it''s', $2 = NULL -> ["'it''s'", "NULL"]"""
        return re.findall(r"\$\d+ = (NULL|'(?:[^']|'')*')", text)

    def pick(self, contains, size):
        """The statement that holds this text, with the parameters of the run whose first array is nearest to `size`."""
        candidates = [
            (sql, parameters) for runs in self.found.values() for sql, parameters in runs if contains in sql and parameters
        ]
        if not candidates:
            raise RuntimeError(f"orders ran no prepared statement with {contains!r}; it ran {sorted(self.found)}")
        return min(candidates, key=lambda one: abs(self.array_size(one[1][0]) - size))

    @staticmethod
    def array_size(literal):
        return literal.count(",") + 1 if literal.startswith("'{") and literal != "'{}'" else 0


def _literal(text):
    """A parameter's value for a pgbench script, which takes :word for a variable of its own."""
    return "(" + re.sub(r":(?=\w)", "' || chr(58) || '", text) + ")"


def _filled_in(sql, values):
    """The statement with values for its parameters, on one line."""
    return " ".join(re.sub(r"\$(\d+)", lambda match: values[int(match.group(1)) - 1], sql).split())


def _fresh_keys(count):
    """An array of as many keys that nobody has used."""
    return f"(SELECT array_agg(md5(random()::text || clock_timestamp()::text || n)) FROM generate_series(1, {count}) n)"


class Database:
    """pgbench with orders' own statements.  New orders go into a room that nobody else uses."""

    def __init__(self, room, directory):
        self.room = room
        self.directory = directory
        self.scripts = {}  # name -> (path, orders a transaction)

    def prepare(self, statements, orders):
        for name, size in (("create_one", 1), ("create_batch", BATCH_WANTED)):
            sql, parameters = statements.pick("INSERT INTO order_requests", size)
            count = statements.array_size(parameters[0])
            values = [_fresh_keys(count), *map(_literal, parameters[1:])]
            self._write(name, _filled_in(sql, values) + ";\n", count)
        sql, parameters = statements.pick("SELECT DISTINCT unnest(", 1)
        text = _filled_in(sql, ["array[:id]", *map(_literal, parameters[1:])])
        self._write("select_one", f"\\set id random(1, {orders})\n{text};\n", 1)

    def _write(self, name, text, orders):
        path = self.directory / f"{name}.sql"
        path.write_text(text)
        self.scripts[name] = (path, orders)

    def measure(self, name, clients, seconds, room=None):
        path, orders = self.scripts[name]
        room = room or self.room
        parts = urlsplit(room.postgres_uri)
        command = [PGBENCH, "-n", "-M", "prepared", "-f", path, "-c", clients, "-j", min(clients, 2)]
        command += ["-T", max(SECONDS_LEAST, round(seconds)), "-h", parts.hostname, "-p", parts.port, "-U", parts.username, room.name]
        output = subprocess.run(
            [str(part) for part in command],
            env={**clean_environment(), "PGPASSWORD": parts.password},
            capture_output=True,
            text=True,
            timeout=seconds + MARGIN_S,
        )
        rate = re.search(r"^tps = ([\d.]+)", output.stdout, re.M)
        failed = re.search(r"^number of failed transactions: (\d+)", output.stdout, re.M)
        latency = re.search(r"^latency average = ([\d.]+) ms", output.stdout, re.M)
        if output.returncode != 0 or not rate or (failed and int(failed.group(1))):
            raise RuntimeError(f"pgbench {name}: {output.stdout[-1000:]}{output.stderr[-1000:]}")
        if room is self.room:
            self.room.query("TRUNCATE orders, order_details, order_outbox, order_requests, order_idempotency")
        return {
            "rate": float(rate.group(1)) * orders,
            "transactions": float(rate.group(1)),
            "orders_a_transaction": orders,
            "mean_us": float(latency.group(1)) * 1000,
        }

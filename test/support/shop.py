"""A whole shop in a room of its own: products, orders and gateways, each any number of times, with links that can be cut."""
import uuid
from contextlib import contextmanager

import psycopg2
import redis

from .amqp import Peer
from .backing import Servers, host_and_port, uri_through, with_login_of
from .clock import ANSWER_S, RECOVERY_S, RPC_TIMEOUT_MS, wait_until
from .http import Http, path_of
from .ports import free_port
from .program import Program
from .proxy import Proxy

IMAGE_ROOT = "http://images.example.com/of/airships"


def unique(prefix="product"):
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def a_product(product_id=None, **changes):
    product = {
        "id": unique() if product_id is None else product_id,
        "title": "The Odyssey",
        "passenger_capacity": 101,
        "maximum_speed": 5,
        "in_stock": 10,
    }
    product.update(changes)
    return product


def a_line(product_id, price="100000.99", quantity=1):
    return {"product_id": product_id, "price": price, "quantity": quantity}


class Shop:
    """`links` are proxies for "amqp", "redis" and "postgres" when asked for; tests talk to the servers directly."""

    def __init__(self, servers, directory, links=False, links_state="up", rpc_timeout_ms=RPC_TIMEOUT_MS):
        self.servers = servers
        self.directory = directory
        self.room = servers.room()
        self.rpc_timeout_ms = rpc_timeout_ms
        self.links = {}
        uris = {
            "amqp": self.room.amqp_uri,
            "redis": self.room.redis_uri,
            "postgres": self.room.postgres_uri,
        }
        if links:
            for name, uri in uris.items():
                self.links[name] = Proxy(*host_and_port(uri), state=links_state)
                uris[name] = uri_through(uri, self.links[name].port)
        self.uris = uris
        self.programs = []
        self._peers = []
        self._counts = {}

    # ---- programs ----------------------------------------------------------------------------------------------

    def add(self, name, **environment):
        """A program of this shop, not started yet."""
        self._counts[name] = self._counts.get(name, 0) + 1
        settings = {
            "AMQP_URI": self.uris["amqp"],
            "RPC_TIMEOUT_MS": str(self.rpc_timeout_ms),
            "BIND_ADDRESS": "127.0.0.1",
        }
        if name == "products":
            settings["REDIS_URI"] = self.uris["redis"]
        elif name == "orders":
            # Far from UTC, so that a timestamp which follows a local clock is seen.
            settings.update(POSTGRES_URI=self.uris["postgres"], TZ="Asia/Tokyo", PGTZ="Asia/Tokyo")
        elif name == "gateway":
            settings.update(PORT=str(free_port()), PRODUCT_IMAGE_ROOT=IMAGE_ROOT)
        for variable, uri in self.servers.service_uris[name].items():  # as its own user, who may only what it needs
            settings[variable] = with_login_of(settings[variable], uri)
        settings.update(environment)
        label = f"{self.room.name}-{name}-{self._counts[name]}"
        program = Program(name, self.directory, settings, label)
        self.programs.append(program)
        return program

    def start(self, products=1, orders=1, gateways=1):
        for name, count in (("products", products), ("orders", orders), ("gateway", gateways)):
            for _ in range(count):
                self.add(name).start()
        for program in self.programs:
            program.wait_ready()
        return self

    def all(self, name):
        return [program for program in self.programs if program.name == name]

    def the(self, name):
        (program,) = self.all(name)
        return program

    @property
    def http(self):
        return self.http_of(self.all("gateway")[0])

    def http_of(self, gateway, timeout_s=ANSWER_S):
        return Http(int(gateway.environment["PORT"]), timeout_s)

    @property
    def port(self):
        return int(self.all("gateway")[0].environment["PORT"])

    def assert_running(self):
        for program in self.programs:
            program.assert_running()

    def close(self):
        """Stops everything; each program must leave with 0, in time, and without a sanitizer's report."""
        failures = []
        for peer in self._peers:
            try:
                peer.close()
            except Exception:
                pass  # its broker may have been killed
        for program in self.programs:
            if program.running:
                program.resume()
                program.terminate()
        for program in self.programs:
            try:
                program.finish()
            except AssertionError as error:
                failures.append(str(error))
            failures += [f"{program.label}: {line}" for line in program.sanitizer_reports()]
        for link in self.links.values():
            link.close()
        self.servers.leave(self.room)
        assert not failures, "\n".join(failures)

    # ---- what lies beneath --------------------------------------------------------------------------------------

    def peer(self):
        peer = Peer(self.room.amqp_uri)
        self._peers.append(peer)
        return peer

    def redis(self):
        return redis.Redis.from_url(self.room.redis_uri, decode_responses=True)

    @contextmanager
    def database(self):
        with Servers.database(self.room.postgres_uri) as cursor:
            yield cursor

    def query(self, sql, *parameters):
        with self.database() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else None

    def order_in_database(self, order_id):
        """[(detail id, product id, price, quantity)], or None when there is no such order."""
        if not self.query("SELECT 1 FROM orders WHERE id = %s", order_id):
            return None
        return self.query(
            "SELECT id, product_id, price, quantity FROM order_details WHERE order_id = %s ORDER BY id", order_id
        )

    def outbox(self):
        """How many events wait for the broker."""
        tables = self.query(
            "SELECT quote_ident(table_schema) || '.' || quote_ident(table_name) FROM information_schema.tables"
            " WHERE table_name LIKE '%%outbox%%' AND table_type = 'BASE TABLE'"
        )
        assert tables, "the database has no outbox table"
        return sum(self.query(f"SELECT count(*) FROM {table}")[0][0] for (table,) in tables)

    def stock_in_redis(self, product_id):
        value = self.redis().hget(f"products:{product_id}", "in_stock")
        return None if value is None else int(value)

    def wait_stock(self, product_id, expected, deadline_s=ANSWER_S):
        """The stock arrives at the expected figure; that it stays there is for a later event to show."""
        wait_until(
            lambda: self.stock_in_redis(product_id) == expected,
            f"stock of {product_id!r} is {expected} (it is {self.stock_in_redis(product_id)})",
            deadline_s,
        )

    def wait_working(self, deadline_s=RECOVERY_S):
        """The whole chain answers: a product can be made, ordered and its order read."""

        def works():
            http = self.http
            product = a_product(unique("probe"))
            made = http.post("/products", product)
            if made.status != 200:
                return False
            order = http.post("/orders", {"order_details": [a_line(product["id"])]})
            if order.status != 200:
                return False
            got = http.get(f"/orders/{order.json['id']}")
            http.delete(path_of("products", product["id"]))
            return got.status == 200

        wait_until(works, "the shop works again", deadline_s)



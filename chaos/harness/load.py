"""Clients: a mixed load, each request with a marker of its own, all of it remembered."""
import http.client
import json
import random
import select
import socket
import threading
import time
import uuid
from urllib.parse import quote

from support.amqp import Peer

from . import limits
from .checker import fault_of_answer, outcome_of
from .history import HTTP, OK, RPC

SHELF = 12  # products that are there from the beginning
STOCK = 1_000_000
HTTP_CLIENTS = 10
RPC_CLIENTS = 2
KEEP_ALIVE_SHARE = 0.7  # of the clients' requests go on the connection of the one before
PAUSE_S = (0.01, 0.06)  # between two requests of a client
RETRY_S = (0.1, 0.2, 0.4, 0.8)  # before the same key is sent again
REPLAY_SHARE, REUSE_SHARE = 0.05, 0.02  # of the orders with a key
REST_TIMEOUT_S = limits.HANG_S + 5
SOLD_S = 1.0  # until a second delivery, for the order before to lower the stock
RECENT = 200  # what later requests read

ACTIONS = (
    ("order_with_key", 30),
    ("order", 8),
    ("twins", 3),
    ("get_order", 15),
    ("list_orders", 5),
    ("create_product", 8),
    ("get_product", 20),
    ("create_and_delete_product", 2),
)
RPC_ACTIONS = (("rpc_get_product", 5), ("rpc_get_order", 4), ("rpc_order", 4), ("rpc_order_delivered_twice", 2), ("rpc_create_delivered_twice", 1))


def path_of(*segments):
    return "".join("/" + quote(segment, safe="") for segment in segments)


class Client:
    """One that asks by HTTP; not for several threads."""

    def __init__(self, history, address, rng):
        self.history, self.address, self.rng = history, address, rng
        self._connection = None

    def close(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self):
        """The connection of the request before, where it is still open and wanted."""
        if self._connection is not None:
            sock = self._connection.sock
            if sock is None or select.select([sock], [], [], 0)[0] or self.rng.random() > KEEP_ALIVE_SHARE:
                self.close()
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self.address, timeout=limits.HANG_S)
            self._connection.connect()
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._connection

    def ask(self, kind, method, path, body=None, headers=None, **about):
        op = self.history.begin(kind, HTTP, **about)
        try:
            connection = self._connect()
            connection.request(method, path, None if body is None else json.dumps(body), headers or {})
            op.sent = True
            response = connection.getresponse()
            text = response.read()
            op.status = response.status
            op.answer = json.loads(text) if text else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            op.lost = f"{type(error).__name__}: {error}"
            self.close()
        op.ended = time.monotonic()
        return finish(op)


def finish(op):
    """What the answer means, and whether it is one; what is read again later is kept, the rest is not."""
    op.problem = fault_of_answer(op)
    op.outcome = outcome_of(op)
    if op.problem is None and not op.keeps and op.kind in ("get-order", "get-product"):
        op.answer = None
    return op


class Load:
    def __init__(self, system, history, seed):
        self.system, self.history, self.seed = system, history, seed
        self.products = {}  # id -> all fields, in_stock as it was made: acknowledged ones
        self.shelf = []
        self.orders = []  # (id, marker, lines) of acknowledged ones, the last RECENT
        self.unresolved = []  # (marker, key, lines): asked for, truth unknown when the load ended
        self.keyed = []  # (marker, key, lines): acknowledged ones that were once in doubt, and some others
        self._lock = threading.Lock()
        self._ending, self._resting = threading.Event(), threading.Event()
        self._busy = 0
        self._threads = []

    # ---- life ------------------------------------------------------------------------------------------------------

    def start(self):
        client = Client(self.history, self.system.gateway_address, random.Random(self.seed))
        for number in range(SHELF):
            op = self._make_product(client, f"chaos-{self.seed}-shelf-{number}")
            assert op.outcome == OK, f"the shop does not work before anything is broken: {op}"
        self.shelf = list(self.products)
        for number in range(HTTP_CLIENTS):
            self._threads.append(threading.Thread(target=self._http_client, args=(number,), daemon=True))
        for number in range(RPC_CLIENTS):
            self._threads.append(threading.Thread(target=self._rpc_client, args=(number,), daemon=True))
        for thread in self._threads:
            thread.start()

    def rest(self):
        """No request is under way when this returns."""
        self._resting.set()
        limit = time.monotonic() + REST_TIMEOUT_S
        while self._busy and time.monotonic() < limit:
            time.sleep(0.02)

    def resume(self):
        self._resting.clear()

    def stop(self):
        self._ending.set()
        self.rest()
        for thread in self._threads:
            thread.join(REST_TIMEOUT_S)

    @property
    def _is_over(self):
        return self._ending.is_set() or self._resting.is_set()

    def _turns(self, rng):
        """One turn after another, until the load ends."""
        while not self._ending.wait(rng.uniform(*PAUSE_S)):
            with self._lock:
                if self._resting.is_set():
                    continue
                self._busy += 1
            try:
                yield
            finally:
                with self._lock:
                    self._busy -= 1

    def _http_client(self, number):
        rng = random.Random(f"{self.seed}-http-{number}")
        client = Client(self.history, self.system.gateway_address, rng)
        names, weights = zip(*ACTIONS)
        for _ in self._turns(rng):
            getattr(self, rng.choices(names, weights)[0])(client)
        client.close()

    # ---- products --------------------------------------------------------------------------------------------------

    def _make_product(self, client, product_id):
        product = {
            "id": product_id,
            "title": f"Title of {product_id}",
            "passenger_capacity": client.rng.randint(1, 10**9),
            "maximum_speed": client.rng.randint(1, 10**9),
            "in_stock": STOCK,
        }
        op = client.ask("create-product", "POST", "/products", product, asked={"id": product_id})
        if op.outcome == OK:
            with self._lock:
                self.products[product_id] = product
        return op

    @staticmethod
    def _new_id(client):
        return f"chaos {client.rng.getrandbits(64):x}/é"

    def create_product(self, client):
        self._make_product(client, self._new_id(client))

    def create_and_delete_product(self, client):
        product_id = self._new_id(client)
        made = client.ask(
            "create-product",
            "POST",
            "/products",
            {"id": product_id, "title": "", "passenger_capacity": 1, "maximum_speed": 2, "in_stock": 3},
            asked={"id": product_id},
        )
        if made.outcome == OK:
            client.ask("delete-product", "DELETE", path_of("products", product_id), asked={"id": product_id})

    def _some_product(self, rng):
        """Of the shelf, or one of those made last."""
        with self._lock:
            recent = list(self.products)[-RECENT:]
        return rng.choice(self.shelf if rng.random() < 0.7 else recent)

    def get_product(self, client):
        product_id = self._some_product(client.rng)
        client.ask("get-product", "GET", path_of("products", product_id), asked=self._identity(product_id))

    def _identity(self, product_id):
        """What of a product no order changes."""
        return {name: value for name, value in self.products[product_id].items() if name != "in_stock"}

    # ---- orders ----------------------------------------------------------------------------------------------------

    def new_lines(self, rng):
        marker = self.history.next_order()
        return marker, [
            {"product_id": self._some_product(rng), "price": f"{marker}.{line:02d}", "quantity": rng.randint(1, 3)}
            for line in range(rng.randint(1, 3))
        ]

    def _acknowledged(self, op):
        with self._lock:
            self.orders = self.orders[-RECENT:] + [(op.answer["id"], op.order, op.lines)]

    def post_order(self, client, marker, lines, key=None, kind="order"):
        headers = {} if key is None else {"Idempotency-Key": key}
        op = client.ask(kind, "POST", "/orders", {"order_details": lines}, headers, order=marker, key=key, lines=lines)
        if op.outcome == OK and op.problem is None and kind != "reuse":
            self._acknowledged(op)
        return op

    def order(self, client):
        self.post_order(client, *self.new_lines(client.rng))

    def _key(self, marker):
        return f"chaos-{self.seed}-{marker}"

    def order_with_key(self, client):
        marker, lines = self.new_lines(client.rng)
        self._order_until_known(client, marker, lines)

    def _order_until_known(self, client, marker, lines, tries=0):
        """The same key again and again, until it tells what became of the order."""
        key = self._key(marker)
        while True:
            op = self.post_order(client, marker, lines, key)
            if op.outcome == OK:
                break
            if self._is_over:
                with self._lock:
                    self.unresolved.append((marker, key, lines))
                return
            self._ending.wait(RETRY_S[min(tries, len(RETRY_S) - 1)] * client.rng.uniform(0.5, 1))
            tries += 1
        if tries or client.rng.random() < REPLAY_SHARE:
            with self._lock:
                self.keyed.append((marker, key, lines))
        if client.rng.random() < REPLAY_SHARE:
            self.post_order(client, marker, lines, key, "replay")
        if client.rng.random() < REUSE_SHARE:
            self.post_order(client, *self.new_lines(client.rng), key, "reuse")

    def twins(self, client):
        """The same order twice at the same time."""
        marker, lines = self.new_lines(client.rng)
        other = Client(self.history, client.address, random.Random(marker))
        arguments = (other, marker, lines, self._key(marker), "twin")
        thread = threading.Thread(target=self.post_order, args=arguments, daemon=True)
        thread.start()
        self.post_order(client, marker, lines, self._key(marker), "twin")
        thread.join()
        other.close()
        self._order_until_known(client, marker, lines)

    def get_order(self, client):
        with self._lock:
            if not self.orders:
                return
            order_id, marker, lines = client.rng.choice(self.orders)
        client.ask("get-order", "GET", f"/orders/{order_id}", asked={"id": order_id, "marker": marker}, lines=lines)

    def list_orders(self, client):
        with self._lock:
            after = client.rng.choice(self.orders)[0] - 1 if self.orders else 0
        asked = {"after": after, "limit": 5}
        client.ask("list-orders", "GET", f"/orders?after={after}&limit=5", asked=asked)

    # ---- afterwards ------------------------------------------------------------------------------------------------

    def resolve(self, deadline):
        """Ask for the truth about all that is in doubt, and again about what once was."""
        client = Client(self.history, self.system.gateway_address, random.Random(f"{self.seed}-resolve"))
        for marker, key, lines in self.unresolved:
            tries = 0
            while self.post_order(client, marker, lines, key).outcome != OK and time.monotonic() < deadline:
                time.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
                tries += 1
        for marker, key, lines in random.Random(self.seed).sample(self.keyed, min(RECENT, len(self.keyed))):
            self.post_order(client, marker, lines, key, "replay")
        client.close()

    # ---- RPC -------------------------------------------------------------------------------------------------------

    def _rpc_client(self, number):
        rng = random.Random(f"{self.seed}-rpc-{number}")
        caller = Caller(self, rng)
        names, weights = zip(*RPC_ACTIONS)
        for _ in self._turns(rng):
            getattr(caller, rng.choices(names, weights)[0])()
        caller.close()


class Caller:
    """A client that calls the services itself, straight at the broker."""

    def __init__(self, load, rng):
        self.load, self.rng = load, rng
        self._peer = None

    def close(self):
        if self._peer is not None:
            try:
                self._peer.close()
            except Exception:
                pass  # its broker may have been killed
            self._peer = None

    def _new_correlation_id(self):
        return str(uuid.UUID(int=self.rng.getrandbits(128)))

    def _ask(self, ops, method, arguments, correlation_id=None):
        """One request for each of the ops, all of them the same message."""
        deadline = time.monotonic() + limits.RPC_TIMEOUT_S
        correlation_id = correlation_id or self._new_correlation_id()
        answers = []
        try:
            if self._peer is None:
                self._peer = Peer(self.load.system.shop.room.amqp_uri)
            body = {"args": arguments, "kwargs": {}}
            for op in ops:
                op.sent = True
                self._peer.send(
                    method, body, correlation_id=correlation_id, expiration=str(limits.RPC_TIMEOUT_S * 1000)
                )
            while len(answers) < len(ops) and time.monotonic() < deadline:
                answers += self._peer.replies.pop(correlation_id, [])
                if len(answers) < len(ops):
                    self._peer.turn()
            lost = "timeout"
        except Exception as error:  # of pika's many; the broker is away, frozen, or blocks us
            lost = f"{type(error).__name__}: {error}"
            self.close()
        for op in ops:
            self._end(op, answers.pop(0) if answers else None, lost)

    @staticmethod
    def _end(op, message, lost):
        op.ended = time.monotonic()
        if message is None:
            op.lost = lost
        else:
            body = message.json
            op.status = 200 if body["error"] is None else body["error"]["exc_type"]
            op.answer = body["result"] if body["error"] is None else body["error"]
        finish(op)

    def _one(self, kind, method, arguments, **about):
        op = self.load.history.begin(kind, RPC, **about)
        self._ask([op], method, arguments)
        return op

    def rpc_get_product(self):
        product_id = self.load._some_product(self.rng)
        self._one("get-product", "products.get", [product_id], asked=self.load._identity(product_id))

    def rpc_get_order(self):
        with self.load._lock:
            if not self.load.orders:
                return
            order_id, marker, lines = self.rng.choice(self.load.orders)
        self._one("get-order", "orders.get_order", [order_id], asked={"id": order_id, "marker": marker}, lines=lines)

    def rpc_order(self):
        marker, lines = self.load.new_lines(self.rng)
        self._one("order", "orders.create_order", [lines], order=marker, lines=lines)

    def rpc_create_delivered_twice(self):
        """The second time after some of it was sold: it must not be there again."""
        product_id, correlation_id = self.load._new_id(self), self._new_correlation_id()
        product = {
            "id": product_id,
            "title": "delivered twice",
            "passenger_capacity": 1,
            "maximum_speed": 2,
            "in_stock": STOCK,
        }
        first = self.load.history.begin("create-product", RPC, asked={"id": product_id})
        self._ask([first], "products.create", [product], correlation_id)
        if first.outcome != OK:
            return
        with self.load._lock:
            self.load.products[product_id] = product
        marker = self.load.history.next_order()
        lines = [{"product_id": product_id, "price": f"{marker}.00", "quantity": 5}]
        sold = self._one("order", "orders.create_order", [lines], order=marker, lines=lines)
        limit = time.monotonic() + SOLD_S
        while sold.outcome == OK and time.monotonic() < limit:
            read = self._one("get-product", "products.get", [product_id], asked=self.load._identity(product_id), keeps=True)
            if read.outcome != OK or read.answer["in_stock"] < STOCK:
                break
            time.sleep(0.02)
        second = self.load.history.begin("create-product", RPC, asked={"id": product_id})
        self._ask([second], "products.create", [product], correlation_id)

    def rpc_order_delivered_twice(self):
        """As a broker does whose consumer died: the same message again."""
        marker, lines = self.load.new_lines(self.rng)
        ops = [self.load.history.begin("order", RPC, order=marker, lines=lines) for _ in range(2)]
        self._ask(ops, "orders.create_order", [lines])

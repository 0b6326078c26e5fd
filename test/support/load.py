"""Orders under way while something fails, and the invariants that must hold when it is over."""
import http.client
import itertools
import json
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

from .clock import RECOVERY_S, SLACK_S, wait_until
from .http import Response, check_error, check_headers
from .shop import a_product, unique

_numbers = itertools.count(1)  # one price for each order of a session: it tells the order's rows from all others


@dataclass
class Attempt:
    number: int
    lines: list
    key: str
    began: float
    sent: float = 0.0  # the whole request had left by then
    response: Response = None
    failure: Exception = None  # no answer: refused, reset, timed out
    ended: float = 0.0

    @property
    def status(self):
        return self.response.status if self.response else None

    def __str__(self):
        return f"order {self.number}: {self.response or repr(self.failure)} after {self.ended - self.began:.2f} s"


@dataclass
class Load:
    """Threads that order, each one order after another, until stopped; nothing is retried and all is remembered."""

    shop: object
    gateways: list
    threads: int = 4
    stock: int = 1_000_000
    attempts: list = field(default_factory=list)

    def __enter__(self):
        self.products = [a_product(unique("loaded"), in_stock=self.stock)["id"] for _ in range(5)]
        http_of = self.shop.http_of(self.gateways[0])
        for product_id in self.products:
            http_of.make_product(a_product(product_id, in_stock=self.stock))
        self._stop = threading.Event()
        self._workers = [threading.Thread(target=self._work, args=(number,), daemon=True) for number in range(self.threads)]
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for worker in self._workers:
            worker.join()

    def _work(self, worker):
        for turn in itertools.count():
            if self._stop.is_set():
                return
            gateway = self.gateways[(worker + turn) % len(self.gateways)]
            attempt = self._begin(worker + turn)
            self.attempts.append(attempt)
            self._post(attempt, int(gateway.environment["PORT"]))
            if attempt.failure is not None:  # nobody there: not at full speed
                self._stop.wait(0.02)

    def _begin(self, seed):
        number = next(_numbers)
        first, second = self.products[seed % 5], self.products[(seed // 5) % 5]
        lines = [
            {"product_id": first, "price": f"{number}.00", "quantity": seed % 3 + 1},
            {"product_id": second, "price": f"{number}.01", "quantity": 1},
        ]
        return Attempt(number, lines, str(uuid.uuid4()), time.monotonic())

    def _post(self, attempt, port):
        limit = self.shop.rpc_timeout_ms / 1000 + 10 * SLACK_S
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=limit)
        try:
            body = json.dumps({"order_details": attempt.lines})
            connection.request("POST", "/orders", body, {"Idempotency-Key": attempt.key})
            attempt.sent = time.monotonic()
            raw = connection.getresponse()
            attempt.response = Response(raw.status, raw.getheaders(), raw.read(), 0, "POST /orders")
            attempt.failure = None
        except (OSError, http.client.HTTPException) as failure:
            attempt.failure = failure
        finally:
            connection.close()
            attempt.ended = time.monotonic()

    # ---- what can be waited for ---------------------------------------------------------------------------------

    def ended(self):
        return [attempt for attempt in list(self.attempts) if attempt.ended]

    def wait_for(self, count, what, condition=lambda attempt: attempt.status == 200, deadline_s=RECOVERY_S):
        """So many more attempts of a kind, begun from now on."""
        now = time.monotonic()

        def seen():
            return sum(attempt.began >= now and condition(attempt) for attempt in self.ended()) >= count

        try:
            wait_until(seen, what, deadline_s)
        except AssertionError as error:
            recent = Counter(attempt.status or repr(attempt.failure) for attempt in self.ended() if attempt.began >= now)
            raise AssertionError(f"{error}; since then: {dict(recent)}") from None

    def summary(self):
        return dict(Counter(attempt.status or repr(attempt.failure) for attempt in self.attempts))

    # ---- what must hold -----------------------------------------------------------------------------------------

    def assert_all_succeeded(self):
        failed = [str(attempt) for attempt in self.attempts if attempt.status != 200]
        assert not failed, f"{len(failed)} of {len(self.attempts)} orders failed: " + "; ".join(failed[:5])

    def assert_honest(self, unanswered_ok=lambda attempt: False):
        """Each request was answered, in time, by a documented status in the documented shape."""
        limit = self.shop.rpc_timeout_ms / 1000 + SLACK_S
        for attempt in self.attempts:
            if attempt.failure is not None:
                assert unanswered_ok(attempt), str(attempt)
                continue
            check_headers(attempt.response)
            assert attempt.ended - attempt.began <= limit, f"too late: {attempt}"
            if attempt.status == 503:
                check_error(attempt.response, 503, "SERVICE_UNAVAILABLE")
            elif attempt.status == 504:
                check_error(attempt.response, 504, "OUTCOME_UNKNOWN")  # TIMEOUT is a read's alone
            else:
                assert attempt.status == 200, str(attempt)

    def orders_of(self, attempt):
        """Ids of the orders in the database that this attempt has made."""
        return [
            row[0]
            for row in self.shop.query(
                "SELECT DISTINCT order_id FROM order_details WHERE product_id = ANY(%s) AND trunc(price) = %s",
                self.products,
                attempt.number,
            )
        ]

    def assert_invariants(self):
        """INV-1 to INV-4 and INV-8 of a system at rest: call it when all is healed and the load is over."""
        rows = self.shop.query(
            "SELECT order_id, product_id, price, quantity FROM order_details WHERE product_id = ANY(%s) ORDER BY id",
            self.products,
        )
        made = {}
        for order_id, product_id, price, quantity in rows:
            made.setdefault(int(price), {}).setdefault(order_id, []).append((product_id, price, quantity))
        for attempt in self.attempts:
            orders = made.pop(attempt.number, {})
            assert len(orders) <= 1, f"made {len(orders)} times: {attempt}"
            for lines in orders.values():
                assert lines == [
                    (line["product_id"], Decimal(line["price"]), line["quantity"]) for line in attempt.lines
                ], f"half made: {attempt}: {lines}"
            if attempt.status == 200:
                assert list(orders) == [attempt.response.json["id"]], f"acknowledged, but {orders} is there: {attempt}"
            elif attempt.status is not None and attempt.status != 504:
                assert not orders, f"refused, but made: {attempt}"
        assert not made, f"orders that nobody asked for: {made}"
        ids = [attempt.response.json["id"] for attempt in self.attempts if attempt.status == 200]
        assert len(ids) == len(set(ids)), "two requests were given the same order"
        self._assert_unknown_ones_can_be_asked()
        self._assert_stock()

    def _assert_unknown_ones_can_be_asked(self):
        """The same key tells the true outcome, or makes the order now; once in all."""
        unknown = [attempt for attempt in self.attempts if attempt.status != 200]
        for attempt in unknown[:: max(1, len(unknown) // 20)]:
            before = self.orders_of(attempt)
            again = Attempt(attempt.number, attempt.lines, attempt.key, time.monotonic())
            self._post(again, int(self.gateways[0].environment["PORT"]))
            assert again.status == 200, f"{again} (at first: {attempt})"
            assert self.orders_of(attempt) == [again.response.json["id"]], f"{again} (at first: {attempt})"
            assert before in ([], [again.response.json["id"]])

    def _assert_stock(self):
        def expected():
            sold = dict(
                self.shop.query(
                    "SELECT product_id, sum(quantity)::bigint FROM order_details WHERE product_id = ANY(%s) GROUP BY 1",
                    self.products,
                )
            )
            return {product_id: self.stock - sold.get(product_id, 0) for product_id in self.products}

        def actual():
            return {product_id: self.shop.stock_in_redis(product_id) for product_id in self.products}

        wait_until(lambda: self.shop.outbox() == 0, "the outbox is empty", RECOVERY_S)
        try:
            wait_until(lambda: actual() == expected(), "each order has lowered the stock", RECOVERY_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\nis:     {actual()}\nshould: {expected()}") from None
        # Nothing is left that could lower it again.
        peer = self.shop.peer()
        queue = "evt-orders-order_created--products.handle_order_created"
        peer.wait_for(lambda: peer.depth(queue)[0] == 0, "the event queue is empty")
        assert actual() == expected()

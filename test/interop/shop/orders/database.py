"""Orders in PostgreSQL.  psycopg2 waits by way of eventlet, so that one slow query does not hold up the service."""
import os
from contextlib import contextmanager
from datetime import datetime, timezone

import psycopg2
import psycopg2.extensions
from eventlet.hubs import trampoline
from eventlet.pools import Pool
from nameko.extensions import DependencyProvider
from psycopg2.extras import execute_values

from orders.exceptions import NotFound

CONNECTIONS_MAX = 20
DETAIL = "id, product_id, price::text, quantity"


def _wait(connection):
    while True:
        state = connection.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        trampoline(
            connection.fileno(),
            read=state == psycopg2.extensions.POLL_READ,
            write=state == psycopg2.extensions.POLL_WRITE,
        )


def _now():
    return datetime.now(timezone.utc).replace(tzinfo=None)


def _detail(row):
    return dict(zip(("id", "product_id", "price", "quantity"), row))


class Orders:
    def __init__(self, pool):
        self._pool = pool

    @contextmanager
    def _transaction(self):
        with self._pool.item() as slot:
            if slot.connection is None or slot.connection.closed:
                slot.connection = psycopg2.connect(slot.uri)
            with slot.connection, slot.connection.cursor() as cursor:
                yield cursor

    def get(self, order_id):
        with self._transaction() as cursor:
            return self._get(cursor, order_id)

    @staticmethod
    def _get(cursor, order_id):
        cursor.execute(f"SELECT {DETAIL} FROM order_details WHERE order_id = %s ORDER BY id", (order_id,))
        details = [_detail(row) for row in cursor]
        if not details:
            cursor.execute("SELECT 1 FROM orders WHERE id = %s", (order_id,))
            if cursor.fetchone() is None:
                raise NotFound(f"Order with id {order_id} not found")
        return {"id": order_id, "order_details": details}

    def create(self, order_details):
        now = _now()
        with self._transaction() as cursor:
            cursor.execute("INSERT INTO orders (created_at, updated_at) VALUES (%s, %s) RETURNING id", (now, now))
            (order_id,) = cursor.fetchone()
            rows = execute_values(
                cursor,
                "INSERT INTO order_details (order_id, product_id, price, quantity, created_at, updated_at)"
                f" VALUES %s RETURNING {DETAIL}",
                [(order_id, line["product_id"], line["price"], line["quantity"], now, now) for line in order_details],
                page_size=len(order_details) or 1,
                fetch=True,
            )
        return {"id": order_id, "order_details": [_detail(row) for row in rows]}

    def update(self, order):
        with self._transaction() as cursor:
            current = self._get(cursor, order["id"])
            known = {detail["id"] for detail in current["order_details"]}
            for line in order["order_details"]:
                if line["id"] not in known:
                    raise NotFound(f"Order detail with id {line['id']} not found")
                cursor.execute(
                    "UPDATE order_details SET price = %s, quantity = %s, updated_at = %s WHERE id = %s",
                    (line["price"], line["quantity"], _now(), line["id"]),
                )
            return self._get(cursor, order["id"])

    def delete(self, order_id):
        with self._transaction() as cursor:
            self._get(cursor, order_id)
            cursor.execute("DELETE FROM order_details WHERE order_id = %s", (order_id,))
            cursor.execute("DELETE FROM orders WHERE id = %s", (order_id,))

    def list(self):
        with self._transaction() as cursor:
            cursor.execute("SELECT id FROM orders ORDER BY id")
            orders = {order_id: {"id": order_id, "order_details": []} for (order_id,) in cursor}
            cursor.execute(f"SELECT order_id, {DETAIL} FROM order_details ORDER BY id")
            for order_id, *row in cursor:
                if order_id in orders:
                    orders[order_id]["order_details"].append(_detail(row))
        return list(orders.values())


class Slot:
    def __init__(self, uri):
        self.uri, self.connection = uri, None


class OrdersProvider(DependencyProvider):
    def setup(self):
        psycopg2.extensions.set_wait_callback(_wait)
        uri = os.environ.get("POSTGRES_URI", "postgresql://postgres:postgres@localhost:5432/orders")
        max_workers = os.environ.get("MAX_WORKERS", "10")
        size = min(int(os.environ.get("POSTGRES_CONNECTIONS", max_workers)), CONNECTIONS_MAX)
        self._pool = Pool(max_size=size, create=lambda: Slot(uri))

    def get_dependency(self, worker_ctx):
        return Orders(self._pool)

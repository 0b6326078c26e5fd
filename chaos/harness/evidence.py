"""Reads what the system holds when it has come to rest."""
import time

from support.amqp import connect

from . import limits
from .checker import DeadLetter, Evidence
from .load import STOCK

DEAD_LETTERS = ("products.dead-letters", "orders.dead-letters")
POLL_S = 0.25
CHUNK = 1000


def _orders(shop):
    orders = {order_id: [] for (order_id,) in shop.query("SELECT id FROM orders")}
    rows = shop.query("SELECT order_id, product_id, price::text, quantity FROM order_details ORDER BY id")
    for order_id, *line in rows:
        orders[order_id].append(tuple(line))
    return orders


def _stock_at_first(load, stage):
    """All products that were made; of one that was damaged, what it was mended with."""
    return {**{product_id: STOCK for product_id in load.products}, **{product_id: STOCK for product_id in stage.mended}}


def _products(shop, ids):
    found = {}
    with shop.redis() as connection:
        for first in range(0, len(ids), CHUNK):
            chunk = ids[first : first + CHUNK]
            pipeline = connection.pipeline(transaction=False)
            for product_id in chunk:
                pipeline.hgetall(f"products:{product_id}")
            found.update((product_id, fields or None) for product_id, fields in zip(chunk, pipeline.execute()))
    return found


def _dead_letters(shop):
    connection = connect(shop.room.amqp_uri)
    try:
        letters = []
        for queue in DEAD_LETTERS:
            channel = connection.channel()
            try:
                channel.queue_declare(queue, passive=True)
            except Exception:
                continue  # never needed
            while True:
                method, properties, body = channel.basic_get(queue)
                if method is None:
                    break
                said = {name: (properties.headers or {}).get(f"x-airship-{name}") for name in ("cause", "attempts", "queue")}
                letters.append(DeadLetter(body, said["cause"], said["attempts"] or 0, said["queue"]))
        return letters
    finally:
        connection.close()  # what was read goes back


def wait_settled(system, load, stage):
    """Until the outbox is empty, the queues are, and each order has lowered the stock; or until the bound."""
    limit = time.monotonic() + limits.SETTLE_S
    while time.monotonic() < limit:
        shop = system.shop
        if shop.outbox() == 0:
            sold = dict(shop.query("SELECT product_id, sum(quantity)::bigint FROM order_details GROUP BY 1"))
            products = _products(shop, [*load.products, *stage.mended])
            stocks = {product_id: int(fields["in_stock"]) for product_id, fields in products.items() if fields}
            if all(stock == STOCK - sold.get(product_id, 0) - stage.also_sold[product_id] for product_id, stock in stocks.items()):
                queues = system.queues()
                if not any(count for name, count in queues.items() if name not in DEAD_LETTERS):
                    return
        time.sleep(POLL_S)


def collect(system, load, stage, nemesis, prober):
    shop = system.shop
    products = _products(shop, [*load.products, *stage.mended])
    return Evidence(
        orders=_orders(shop),
        stock={product_id: int(fields["in_stock"]) for product_id, fields in products.items() if fields},
        stock_at_first=_stock_at_first(load, stage),
        also_sold=stage.also_sold,
        products=products,
        products_expected={product_id: load._identity(product_id) for product_id in load.products},
        outbox=shop.outbox(),
        queues=system.queues(),
        dead_letters=_dead_letters(shop),
        poison=dict(stage.poison),
        injured=system.injured,
        unready=system.unready,
        calm=nemesis.calm,
        probes=prober.probes,
        recoveries=[(str(one.planned), one.healed, one.recovered_s) for one in nemesis.struck],
        in_flight=system.in_flight(),
    )

"""What must hold after every run: INV-1 every acknowledged order is there; INV-2 none was made twice; INV-3 the stock is
what it was less all that was ordered; INV-4 every event has been applied and none waits."""
from . import data
from .waiting import wait_until

SETTLE_TIMEOUT_S = 60
CHUNK = 10_000


class Broken(Exception):
    """An invariant does not hold: the run does not count."""


def _outbox_count(room):
    if room.query("SELECT to_regclass('order_outbox') IS NULL")[0][0]:
        return 0
    return room.query("SELECT count(*) FROM order_outbox")[0][0]


def _ordered(room, ledger):
    """product id -> how many of it were ordered since the shop was filled"""
    return {
        product_id: quantity
        for product_id, quantity in room.query(
            "SELECT product_id, sum(quantity)::bigint FROM order_details WHERE order_id > %s GROUP BY product_id",
            (ledger.orders,),
        )
    }


def _stock_differences(room, ledger):
    """All products of a small catalogue, those that were ordered of a large one."""
    ordered = _ordered(room, ledger)
    if ledger.products <= data.PRODUCTS_WITH_STOCK_CHECKED:
        ids = [data.product_id(number) for number in range(1, ledger.products + 1)]
    else:
        ids = sorted(ordered)
    different = []
    with room.redis() as connection:
        for first in range(0, len(ids), CHUNK):
            chunk = ids[first : first + CHUNK]
            pipeline = connection.pipeline(transaction=False)
            for product_id in chunk:
                pipeline.hget(f"products:{product_id}", "in_stock")
            for product_id, stock in zip(chunk, pipeline.execute()):
                expected = data.STOCK - ordered.get(product_id, 0)
                if stock is None or int(stock) != expected:
                    different.append(f"{product_id}: {stock} instead of {expected}")
    return different


def _check_orders(room, ledger):
    ids = ledger.ids
    ledger.acknowledged += len(ids)
    if len(set(ids)) != len(ids):
        raise Broken(f"INV-2: {len(ids) - len(set(ids))} of {len(ids)} answers named an order that another one had named")
    missing = room.query(
        "SELECT count(*) FROM unnest(%s::int[]) AS a (id) WHERE NOT EXISTS (SELECT FROM orders WHERE orders.id = a.id)"
        " OR NOT EXISTS (SELECT FROM order_details WHERE order_id = a.id)",
        (ids,),
    )[0][0]
    if missing:
        raise Broken(f"INV-1: {missing} of {len(ids)} acknowledged orders are not in the database")
    made = room.query("SELECT count(*) FROM orders WHERE id > %s", (ledger.orders,))[0][0]
    if not ledger.acknowledged <= made <= ledger.posts_sent:
        raise Broken(
            f"INV-2: {ledger.posts_sent} requests for orders made {made} orders, {ledger.acknowledged} of them acknowledged"
        )
    ledger.ids = []
    return made


def check(shop, ledger):
    """Raises Broken; returns what was found.  What is under way when a load ends may still arrive: hence the waiting."""
    room = shop.room
    shop.assert_running()
    last = {"outbox": None, "stock": None}

    def settled():
        last["outbox"] = _outbox_count(room)
        if last["outbox"]:
            return False
        last["stock"] = _stock_differences(room, ledger)
        return not last["stock"]

    try:
        wait_until(settled, "", SETTLE_TIMEOUT_S, 0.05)
    except TimeoutError:
        if last["outbox"]:
            raise Broken(f"INV-4: {last['outbox']} events still in the outbox after {SETTLE_TIMEOUT_S} s") from None
        raise Broken(
            f"INV-3: the stock of {len(last['stock'])} products is not what it was less what was ordered: "
            + "; ".join(last["stock"][:3])
        ) from None
    made = _check_orders(room, ledger)
    return {"orders_made": made, "acknowledged": ledger.acknowledged, "outbox": 0}

"""The broker is short of memory or disk and takes nothing more: nobody waits for it, and all goes on when that is over."""
from contextlib import contextmanager

import pytest

from support.clock import RECOVERY_S, RPC_TIMEOUT_SHORT_MS, wait_until
from support.http import check_error
from support.shop import a_line, a_product, unique

pytestmark = pytest.mark.faults

ALARMS = {
    "memory": ("set_vm_memory_high_watermark", ["absolute", "1MB"], ["0.4"]),
    "disk": ("set_disk_free_limit", ["1000000GB"], ["50MB"]),
}


@pytest.fixture(scope="module")
def shop(make_shop):
    return make_shop(rpc_timeout_ms=RPC_TIMEOUT_SHORT_MS).start()


@contextmanager
def alarm(servers, what):
    command, raised, cleared = ALARMS[what]
    servers.rabbitmqctl(command, *raised)
    try:
        yield
    finally:
        servers.rabbitmqctl(command, *cleared)


def is_refused(response):
    """At once, so with 503; 504 would say that somebody has waited."""
    assert response.status in (503, 504), str(response)
    return response.status == 503


@pytest.mark.parametrize("what", ALARMS)
def test_an_alarm_of_the_brokers(servers, shop, what):
    http = shop.http
    product = http.make_product(a_product(in_stock=10))
    path, order = f"/products/{product['id']}", {"order_details": [a_line(product["id"])]}
    order_id = http.make_order(order["order_details"])
    shop.wait_stock(product["id"], 9)
    key = {"Idempotency-Key": unique("alarm")}
    with alarm(servers, what):
        # The broker tells a connection of it when that publishes, so the first request may wait for its whole time limit.
        wait_until(lambda: is_refused(http.post("/orders", order, headers=key)), "orders are refused at once")
        assert http.get("/readyz").status == 503 and http.get("/healthz").status == 200
        for _ in range(3):
            check_error(http.post("/orders", order, headers=key), 503, "SERVICE_UNAVAILABLE")
            check_error(http.post("/products", a_product()), 503, "SERVICE_UNAVAILABLE")
            check_error(http.get(path), 503, "SERVICE_UNAVAILABLE")
            check_error(http.get(f"/orders/{order_id}"), 503, "SERVICE_UNAVAILABLE")
        shop.assert_running()
    wait_until(lambda: http.get("/readyz").status == 200, "the gateway is ready again", RECOVERY_S)
    shop.wait_working()
    made = http.make_order(order["order_details"], headers=key)  # the same key tells what became of it
    shop.wait_stock(product["id"], 8)
    assert http.make_order(order["order_details"], headers=key) == made
    wait_until(lambda: shop.outbox() == 0, "all events are with the broker")
    assert [line[1:] for line in shop.order_in_database(made)] == [line[1:] for line in shop.order_in_database(order_id)]
    assert shop.stock_in_redis(product["id"]) == 8

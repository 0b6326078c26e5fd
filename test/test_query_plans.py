"""What keeps orders flat: the plans of its statements, as PostgreSQL makes them for the running program on a full table."""
import json
import re

import pytest
from support.clock import ANSWER_S, wait_until
from support.http import path_of
from support.shop import a_line, a_product, unique

ORDERS = 50_000  # enough for a scan of the whole table to look cheap to nobody
LARGE = {"orders", "order_details", "order_requests", "order_idempotency"}  # the outbox holds what is on its way alone
LOG = "postgres.log"
EXPLAIN = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_format": "json",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_analyze": "on",
}


@pytest.fixture(scope="module")
def full(make_shop):
    """A shop whose orders were many before it came, and whose database logs how it runs each statement."""
    shop = make_shop()
    with shop.database() as cursor:
        cursor.execute(
            "INSERT INTO orders (id, created_at, updated_at) SELECT n, now(), now() FROM generate_series(1, %s) n", (ORDERS,)
        )
        cursor.execute(
            "INSERT INTO order_details (id, order_id, product_id, price, quantity, created_at, updated_at)"
            " SELECT n, n, 'full-' || n, 1.00, 1, now(), now() FROM generate_series(1, %s) n",
            (ORDERS,),
        )
        for table in ("orders", "order_details"):
            cursor.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", (table, ORDERS))
        cursor.execute(
            "INSERT INTO order_requests (request_id, order_id, line_ids)"
            " SELECT md5(n::text), n, ARRAY[n] FROM generate_series(1, %s) n",
            (ORDERS,),
        )
        cursor.execute(
            "INSERT INTO order_idempotency (idempotency_key, request_hash, order_id, line_ids)"
            " SELECT 'key-' || n, md5(n::text), n, ARRAY[n] FROM generate_series(1, %s) n",
            (ORDERS,),
        )
        cursor.execute("ANALYZE")
        for name, value in EXPLAIN.items():
            cursor.execute(f"ALTER DATABASE {shop.room.postgres_uri.rpartition('/')[2]} SET {name} = '{value}'")
    return shop.start()


def log_of(shop):
    return shop.servers.run_dir / "log" / LOG


def nodes(plan):
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


class Plans:
    """Those logged of a shop's database from here on."""

    def __init__(self, shop):
        self.shop = shop
        self.begin = log_of(shop).stat().st_size

    def all(self):
        database = self.shop.room.postgres_uri.rpartition("/")[2]
        with log_of(self.shop).open(errors="replace") as log:
            log.seek(self.begin)
            text = log.read()
        for entry in re.split(r"(?m)^(?=\d{4}-\d\d-\d\d [\d:.]+ \w+ \[\d+\] )", text):
            head, found, body = entry.partition("  plan:\n")
            if found and f"@{database} " in head and body.endswith("}\n"):  # else it is being written
                yield json.loads(body)

    def of(self, *words):
        """The plans of statements that hold all these words; waits for the log to have one."""

        def matching():
            return [one for one in self.all() if all(word in one["Query Text"] for word in words)]

        return wait_until(matching, f"a plan of a statement with {words} is logged", ANSWER_S) or matching()


def scans(plan, tables=LARGE):
    """Sequential scans of tables that grow."""
    return [
        node["Relation Name"]
        for node in nodes(plan["Plan"])
        if node["Node Type"] == "Seq Scan" and node.get("Relation Name") in tables
    ]


def indexes(plan):
    return {node["Index Name"] for node in nodes(plan["Plan"]) if "Index Name" in node}


def assert_by_index(plans, *wanted):
    for plan in plans:
        assert not scans(plan), f"{scans(plan)} scanned whole by:\n{plan['Query Text']}\n{json.dumps(plan['Plan'], indent=1)}"
        used = " ".join(indexes(plan))
        for index in wanted:
            assert re.search(index, used), f"{index} not among {used!r} of:\n{plan['Query Text']}"


def test_an_order_is_read_by_its_keys(full):
    plans = Plans(full)
    for order_id in (1, ORDERS // 2, ORDERS):
        assert full.http.get(f"/orders/{order_id}").status == 200
    found = plans.of("SELECT", "order_details", "unnest")
    assert_by_index(found, "orders_pkey", "order_details_order_id")
    for plan in found:
        looked_for = [node["Actual Loops"] for node in nodes(plan["Plan"]) if node.get("Relation Name") == "orders"]
        assert looked_for == [0], "an order that has lines is known by them"


@pytest.mark.parametrize("after", [0, ORDERS // 2, ORDERS - 60])
def test_a_page_of_the_list_is_read_by_keys_however_deep(full, after):
    plans = Plans(full)
    page = full.http.get(f"/orders?limit=50&after={after}")
    assert page.status == 200 and len(page.json) == 50 and page.json[0]["id"] == after + 1
    found = plans.of("SELECT", "order_details", "LIMIT")
    assert_by_index(found, "orders_pkey", "order_details_order_id")
    for plan in found:
        rows = [node["Plan Rows"] for node in nodes(plan["Plan"]) if node.get("Relation Name") == "orders"]
        assert rows, plan


def test_a_page_without_a_limit_is_read_by_keys(full):
    plans = Plans(full)
    assert full.http.get("/orders").status == 200
    assert_by_index(plans.of("SELECT", "order_details", "LIMIT"), "orders_pkey", "order_details_order_id")


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "new"}], ids=["without a key", "with a key"])
def test_an_order_is_made_by_keys(full, headers):
    product = full.http.make_product(a_product(unique("plans")))
    headers = {name: unique("key") for name in headers}
    plans = Plans(full)
    order = full.http.make_order([a_line(product["id"])], headers)
    table = "order_idempotency" if headers else "order_requests"
    assert order > ORDERS
    assert_by_index(plans.of("INSERT INTO orders", f"INSERT INTO {table}"))


def test_an_order_is_changed_by_its_keys(full):
    plans = Plans(full)
    line = {"id": 7, "product_id": "full-7", "price": "2.00", "quantity": 2}
    answer = full.peer().call("orders.update_order", {"id": 7, "order_details": [line]})
    assert answer["order_details"] == [line], answer
    assert_by_index(plans.of("UPDATE order_details"))


def test_an_order_is_deleted_by_its_keys(full):
    plans = Plans(full)
    assert full.peer().call("orders.delete_order", 8) is None
    assert full.http.get("/orders/8").status == 404
    found = plans.of("DELETE FROM order_details")
    assert_by_index(found, "order_details_order_id")


def test_events_leave_without_a_look_at_the_large_tables(full):
    product = full.http.make_product(a_product(unique("plans"), in_stock=5))
    plans = Plans(full)
    full.http.make_order([a_line(product["id"], quantity=2)])
    full.wait_stock(product["id"], 3)
    wait_until(lambda: full.outbox() == 0, "the outbox is empty", ANSWER_S)
    for plan in plans.all():
        assert not scans(plan), plan["Query Text"]


def test_the_product_of_an_order_is_read_by_key_alone(full):
    """Redis counts its commands: one HMGET for GET product, and none that looks at other keys."""
    product = full.http.make_product(a_product(unique("plans")))
    looked = ("keys", "scan", "sort", "randomkey")

    def calls():
        stats = full.redis().info("commandstats")
        return {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in (*looked, "hmget", "hgetall")}

    before = calls()
    assert full.http.get(path_of("products", product["id"])).status == 200
    after = calls()
    assert sum(after[name] - before[name] for name in ("hmget", "hgetall")) == 1, (before, after)
    assert all(after[name] == before[name] for name in looked), (before, after)

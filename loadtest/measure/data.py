"""What a shop holds before it is measured: products straight into Redis, orders straight into PostgreSQL."""
import json
import subprocess

STOCK = 1_000_000_000_000  # nobody orders that much
PRICE = "100000.99"
CAPACITY, SPEED = 101, 5
PIPE_CHUNK = 2000
PLACEHOLDER = 777777777777  # as many digits as a product's number has
PRODUCTS_WITH_STOCK_CHECKED = 20_000


def product_id(number):
    return f"bench-{number:012d}"


def product(number):
    return {
        "id": product_id(number),
        "title": f"Airship {number:012d} of the fleet",
        "passenger_capacity": CAPACITY,
        "maximum_speed": SPEED,
        "in_stock": STOCK,
    }


def _resp(*words):
    out = [b"*%d\r\n" % len(words)]
    for word in words:
        data = str(word).encode()
        out.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(out)


def fill_products(room, count):
    with room.redis() as connection:
        connection.flushdb()
    pipe = room.redis_cli("--pipe", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    # One command as a pattern: a million of them word by word take longer than Redis does.
    fields = [word for pair in product(PLACEHOLDER).items() for word in pair]
    pattern = _resp("HSET", f"products:{product_id(PLACEHOLDER)}", *fields).replace(b"%d" % PLACEHOLDER, b"%012d")
    numbers_each = pattern.count(b"%012d")
    for first in range(1, count + 1, PIPE_CHUNK):
        chunk = range(first, min(first + PIPE_CHUNK, count + 1))
        pipe.stdin.write(b"".join(pattern % ((number,) * numbers_each) for number in chunk))
    output = pipe.communicate()[0].decode()
    with room.redis() as connection:
        found = connection.dbsize()
    if pipe.returncode != 0 or found != count:
        raise RuntimeError(f"redis-cli --pipe made {found} of {count} products:\n{output}")


def fill_orders(room, orders, products):
    """Order n has one line, n too, of product n, taken around the number of products."""
    with room.database() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_name IN"
            " ('orders', 'order_details', 'order_outbox', 'order_requests', 'order_idempotency')"
        )
        tables = ", ".join(name for (name,) in cursor.fetchall())
        # The ids go on from where they were: products remembers which orders it has seen.
        cursor.execute(f"TRUNCATE {tables}")
        cursor.execute(
            "INSERT INTO orders (id, created_at, updated_at)"
            " SELECT n, now() AT TIME ZONE 'utc', now() AT TIME ZONE 'utc' FROM generate_series(1, %s) n",
            (orders,),
        )
        cursor.execute(
            "INSERT INTO order_details (id, order_id, product_id, price, quantity, created_at, updated_at)"
            " SELECT n, n, 'bench-' || lpad(((n - 1) %% %s + 1)::text, 12, '0'), %s, 1, now() AT TIME ZONE 'utc',"
            " now() AT TIME ZONE 'utc' FROM generate_series(1, %s) n",
            (products, PRICE, orders),
        )
        for table in ("orders", "order_details"):
            cursor.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), greatest(%s,"
                f" nextval(pg_get_serial_sequence('{table}', 'id'))))",
                (orders,),
            )
        cursor.execute("VACUUM ANALYZE orders, order_details")
        cursor.execute("CHECKPOINT")  # or it would happen under the measurement


def fill(room, products, orders):
    fill_products(room, products)
    fill_orders(room, orders, products)


def pretty(value):
    return json.dumps(value, separators=(",", ":"))

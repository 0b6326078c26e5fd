"""The migrations of the orders database, by migrations/deploy.sh, on a PostgreSQL of their own."""
import os
import pathlib
import re
import subprocess
import threading
import uuid

import psycopg2
import psycopg2.extensions
import pytest

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
DEPLOY = CHECKOUT / "migrations" / "deploy.sh"
BACKING_SERVICES = CHECKOUT / "dev_run_backingsvcs.sh"
COMMAND_TIMEOUT_S = 120

# What the Python service's first migration makes: serial ids, times without defaults.
ORIGINAL_TABLES = """
    CREATE TABLE alembic_version (version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY);
    INSERT INTO alembic_version VALUES ('dd33cb03d01f');
    CREATE TABLE orders (
        created_at timestamp NOT NULL, updated_at timestamp NOT NULL, id serial NOT NULL, PRIMARY KEY (id));
    CREATE TABLE order_details (
        created_at timestamp NOT NULL, updated_at timestamp NOT NULL, id serial NOT NULL, order_id integer NOT NULL,
        product_id varchar NOT NULL, price decimal(18, 2) NOT NULL, quantity integer NOT NULL, PRIMARY KEY (id),
        CONSTRAINT fk_order_details_orders FOREIGN KEY (order_id) REFERENCES orders (id));
"""
ORIGINAL_DATA = """
    INSERT INTO orders (created_at, updated_at) SELECT now(), now() FROM generate_series(1, 3);
    INSERT INTO order_details (created_at, updated_at, order_id, product_id, price, quantity)
         SELECT now(), now(), o, 'the_odyssey', 100000.99 + o, o FROM generate_series(1, 3) o;
"""
CHANGES_COUNT = 5
ALL_TABLES = {"orders", "order_details", "order_outbox", "order_requests", "order_idempotency"}


@pytest.fixture(scope="module")
def server_uri(tmp_path_factory):
    """The URI of a PostgreSQL server, without a database."""
    environment = {**os.environ, "RUN_DIR": str(tmp_path_factory.mktemp("run"))}

    def backing_services(*arguments):
        return subprocess.run([BACKING_SERVICES, *arguments, "postgres"], env=environment, check=True, text=True,
                              stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT_S).stdout

    try:
        backing_services("start")
        yield re.search(r"POSTGRES_URI='?([^'\n]*)/orders", backing_services("env")).group(1)
    finally:
        backing_services("stop")


@pytest.fixture
def database_uri(server_uri):
    """The URI of a database that is not there yet."""
    return f"{server_uri}/orders_{uuid.uuid4().hex}"


def deploy(uri, *arguments, **environment):
    return subprocess.run([DEPLOY, *arguments], env={**os.environ, "POSTGRES_URI": uri, **environment}, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=COMMAND_TIMEOUT_S)


def deployed(uri, *arguments):
    done = deploy(uri, *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def run_sql(uri, statements):
    """Each statement's rows are gone but the last one's."""
    connection = psycopg2.connect(uri)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statements)
            return cursor.fetchall() if cursor.description else None
    finally:
        connection.close()


def create_database(uri, statements):
    server, name = uri.rsplit("/", 1)
    connection = psycopg2.connect(f"{server}/postgres")
    connection.autocommit = True
    connection.cursor().execute(f'CREATE DATABASE "{name}"')
    connection.close()
    if statements:
        run_sql(uri, statements)


def tables(uri):
    return {row[0] for row in run_sql(uri, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def everything(uri):
    """What a refused migration must leave as it was."""
    return run_sql(uri, """
        SELECT c.relnamespace::regnamespace::text, c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod),
               a.attnotnull, a.attidentity, pg_get_expr(d.adbin, d.adrelid)
          FROM pg_class c
          LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
          LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
         WHERE c.relnamespace::regnamespace::text NOT LIKE 'pg\\_%' AND c.relnamespace::regnamespace::text <> 'information_schema'
         ORDER BY 1, 2, a.attnum""")


def test_from_nothing_creates_the_database_and_all_tables(database_uri):
    output = deployed(database_uri)
    assert "Created the database" in output
    assert tables(database_uri) == ALL_TABLES
    assert run_sql(database_uri, """
        SELECT table_name, column_name, data_type, is_nullable, is_identity, numeric_precision, numeric_scale
          FROM information_schema.columns WHERE table_name IN ('orders', 'order_details')
         ORDER BY table_name DESC, ordinal_position""") == [
        ("orders", "id", "integer", "NO", "YES", 32, 0),
        ("orders", "created_at", "timestamp without time zone", "NO", "NO", None, None),
        ("orders", "updated_at", "timestamp without time zone", "NO", "NO", None, None),
        ("order_details", "id", "integer", "NO", "YES", 32, 0),
        ("order_details", "order_id", "integer", "NO", "NO", 32, 0),
        ("order_details", "product_id", "character varying", "NO", "NO", None, None),
        ("order_details", "price", "numeric", "NO", "NO", 18, 2),
        ("order_details", "quantity", "integer", "NO", "NO", 32, 0),
        ("order_details", "created_at", "timestamp without time zone", "NO", "NO", None, None),
        ("order_details", "updated_at", "timestamp without time zone", "NO", "NO", None, None),
    ]
    assert run_sql(database_uri, """
        SELECT conname, confrelid::regclass::text FROM pg_constraint
         WHERE contype = 'f' AND conrelid = 'order_details'::regclass""") == [
        ("fk_order_details_orders", "orders")]


def test_deploying_again_changes_nothing(database_uri):
    deployed(database_uri)
    before = everything(database_uri)
    assert "up-to-date" in deployed(database_uri)
    assert everything(database_uri) == before


def test_an_order_finds_its_lines_by_an_index(database_uri):
    deployed(database_uri)
    plan = run_sql(database_uri, """
        SET enable_seqscan = off; EXPLAIN SELECT * FROM order_details WHERE order_id = 7""")
    assert any("ix_order_details_order_id" in line for line, in plan)


def test_the_services_own_tables_take_what_they_are_for(database_uri):
    deployed(database_uri)
    assert run_sql(database_uri, """
        INSERT INTO order_outbox (event_type, payload, headers) VALUES ('order_created', '{"order": {}}', '{}');
        INSERT INTO order_requests (request_id, order_id, line_ids) VALUES ('a', 1, '{1,2}'), ('b', 1, '{3}');
        INSERT INTO order_idempotency (idempotency_key, request_hash, order_id, line_ids) VALUES ('k', 'h', 1, '{1}');
        SELECT o.id, o.claimed_until <= now(), r.created_at > now() - interval '1 minute'
          FROM order_outbox o, order_requests r, order_idempotency i""") == [(1, True, True)] * 2
    with pytest.raises(psycopg2.errors.UniqueViolation):
        run_sql(database_uri, "INSERT INTO order_requests (request_id, order_id, line_ids) VALUES ('a', 2, '{}')")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        run_sql(database_uri, "INSERT INTO order_idempotency VALUES ('k', 'h2', 2, '{}')")


def test_a_database_of_the_python_service_is_adopted_with_its_data(database_uri):
    create_database(database_uri, ORIGINAL_TABLES + ORIGINAL_DATA)
    rows = "SELECT d.*, o.* FROM order_details d JOIN orders o ON o.id = d.order_id ORDER BY d.id"
    before = run_sql(database_uri, rows)
    deployed(database_uri)
    assert run_sql(database_uri, rows) == before and len(before) == 3
    assert tables(database_uri) == ALL_TABLES | {"alembic_version"}
    assert run_sql(database_uri, "SELECT version_num FROM alembic_version") == [("dd33cb03d01f",)]
    # The Python service goes on as before, its serial ids too.
    assert run_sql(database_uri, "INSERT INTO orders (created_at, updated_at) VALUES (now(), now()) RETURNING id") == [(4,)]
    assert run_sql(database_uri, "SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%(order_id)'") == [
        ("ix_order_details_order_id",)]
    assert "up-to-date" in deployed(database_uri)
    deployed(database_uri, "verify")


def test_columns_of_the_users_own_do_not_stop_an_adoption(database_uri):
    create_database(database_uri, ORIGINAL_TABLES + """
        ALTER TABLE orders ADD COLUMN note text;
        ALTER TABLE order_details ADD COLUMN weight integer NOT NULL DEFAULT 0;""")
    deployed(database_uri)


def test_an_index_that_is_there_is_not_made_twice_nor_taken_away(database_uri):
    create_database(database_uri, ORIGINAL_TABLES + "CREATE INDEX by_order ON order_details (order_id);")
    deployed(database_uri)
    indexes = "SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%(order_id)'"
    assert run_sql(database_uri, indexes) == [("by_order",)]
    deployed(database_uri, "revert")
    assert run_sql(database_uri, indexes) == [("by_order",)]


@pytest.mark.parametrize("deviation, named", [
    ("ALTER TABLE order_details ALTER COLUMN price TYPE double precision", ["order_details.price", "double precision"]),
    ("ALTER TABLE order_details ALTER COLUMN price TYPE decimal(10, 2)", ["order_details.price", "numeric(10,2)"]),
    ("ALTER TABLE order_details ALTER COLUMN product_id TYPE integer USING 1", ["order_details.product_id", "integer"]),
    ("ALTER TABLE order_details ALTER COLUMN product_id TYPE varchar(20)", ["order_details.product_id", "varying(20)"]),
    ("ALTER TABLE order_details ALTER COLUMN quantity DROP NOT NULL", ["order_details.quantity", "NOT NULL"]),
    ("ALTER TABLE order_details ALTER COLUMN order_id DROP NOT NULL", ["order_details.order_id", "NOT NULL"]),
    ("ALTER TABLE order_details RENAME COLUMN quantity TO amount", ["order_details.quantity", "missing"]),
    ("ALTER TABLE order_details DROP CONSTRAINT fk_order_details_orders", ["order_details.order_id", "foreign key"]),
    ("ALTER TABLE order_details DROP COLUMN updated_at", ["order_details.updated_at", "missing"]),
    ("ALTER TABLE orders ALTER COLUMN created_at TYPE timestamptz", ["orders.created_at", "with time zone"]),
    ("ALTER TABLE orders ALTER COLUMN updated_at DROP NOT NULL", ["orders.updated_at", "NOT NULL"]),
    ("ALTER TABLE orders ALTER COLUMN id TYPE bigint", ["orders.id", "bigint"]),
    ("ALTER TABLE orders ALTER COLUMN id DROP DEFAULT", ["orders.id", "by itself"]),
    ("ALTER SEQUENCE orders_id_seq OWNED BY NONE", ["orders.id", "own the sequence"]),
    ("ALTER TABLE order_details DROP CONSTRAINT order_details_pkey", ["order_details.id", "primary key"]),
    ("ALTER TABLE orders ADD COLUMN shop text NOT NULL", ["orders.shop", "no default"]),
    ("DROP TABLE order_details", ["order_details", "table is missing"]),
    ("DROP TABLE order_details, orders; CREATE VIEW orders AS SELECT 1 AS id", ["orders", "no ordinary table"]),
])
def test_tables_that_deviate_are_refused_and_left_as_they_are(database_uri, deviation, named):
    create_database(database_uri, ORIGINAL_TABLES + deviation)
    before = everything(database_uri)
    refused = deploy(database_uri)
    assert refused.returncode == 1
    for part in named:
        assert part in refused.stdout
    assert len(refused.stdout.splitlines()) == 1, refused.stdout
    assert everything(database_uri) == before


def test_all_deviations_are_named_at_once(database_uri):
    create_database(database_uri, ORIGINAL_TABLES + """
        ALTER TABLE orders ALTER COLUMN updated_at DROP NOT NULL;
        ALTER TABLE order_details ALTER COLUMN price TYPE real;""")
    output = deploy(database_uri).stdout
    assert "orders.updated_at" in output and "order_details.price" in output


@pytest.mark.parametrize("existing", [None, "", ORIGINAL_TABLES + ORIGINAL_DATA],
                         ids=["no database", "empty database", "adoption"])
def test_several_deployments_at_once_all_succeed(database_uri, existing):
    if existing is not None:
        create_database(database_uri, existing)
    deployments_count = 3
    results = []
    threads = [threading.Thread(target=lambda: results.append(deploy(database_uri))) for _ in range(deployments_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.returncode for result in results] == [0] * deployments_count, [r.stdout for r in results]
    assert ALL_TABLES <= tables(database_uri)
    # Each change was applied by one of them, once.
    assert run_sql(database_uri, "SELECT count(*) FROM sqitch.changes") == [(CHANGES_COUNT,)]
    assert run_sql(database_uri, "SELECT event, count(*) FROM sqitch.events GROUP BY event") == [("deploy", CHANGES_COUNT)]
    deployed(database_uri, "verify")


def test_revert_takes_back_what_it_made(database_uri):
    deployed(database_uri)
    deployed(database_uri, "revert")
    assert tables(database_uri) == set()
    deployed(database_uri)
    assert tables(database_uri) == ALL_TABLES


def test_revert_to_a_change_keeps_what_came_before(database_uri):
    deployed(database_uri)
    deployed(database_uri, "revert", "orders", "--to", "order_details_index")
    assert tables(database_uri) == {"orders", "order_details"}


def test_revert_leaves_adopted_tables_and_their_data(database_uri):
    create_database(database_uri, ORIGINAL_TABLES + ORIGINAL_DATA)
    deployed(database_uri)
    deployed(database_uri, "revert")
    assert tables(database_uri) == {"orders", "order_details", "alembic_version"}
    assert run_sql(database_uri, "SELECT count(*) FROM order_details") == [(3,)]
    assert run_sql(database_uri, "SELECT count(*) FROM pg_indexes WHERE indexname = 'ix_order_details_order_id'") == [(0,)]


@pytest.mark.parametrize("row, table", [
    ("INSERT INTO orders (created_at, updated_at) VALUES (now(), now())", "orders"),
    ("INSERT INTO order_outbox (event_type, payload) VALUES ('order_created', '{}')", "order_outbox"),
])
def test_revert_never_throws_orders_or_events_away(database_uri, row, table):
    deployed(database_uri)
    run_sql(database_uri, row)
    refused = deploy(database_uri, "revert")
    assert refused.returncode == 1 and table in refused.stdout
    assert run_sql(database_uri, f"SELECT count(*) FROM {table}") == [(1,)]


@pytest.mark.parametrize("damage, change", [
    ("ALTER TABLE orders DROP COLUMN updated_at", "order_tables"),
    ("DROP INDEX ix_order_details_order_id", "order_details_index"),
    ("DROP TABLE order_outbox", "order_outbox"),
    ("DROP INDEX ix_order_idempotency_created_at", "order_request_keys"),
    ("COMMENT ON TABLE order_requests IS NULL", "order_requests_comment"),
])
def test_verify_finds_what_is_missing(database_uri, damage, change):
    deployed(database_uri)
    deployed(database_uri, "verify")
    run_sql(database_uri, damage)
    failed = deploy(database_uri, "verify")
    assert failed.returncode == 1
    assert f'"verify/{change}.sql" failed' in failed.stdout


def test_status_tells_what_was_deployed(database_uri):
    deployed(database_uri)
    assert "order_requests_comment" in deployed(database_uri, "status")


def test_each_table_of_ours_says_what_it_holds(database_uri):
    def comment(table):
        ((text,),) = run_sql(database_uri, f"SELECT obj_description('{table}'::regclass, 'pg_class')")
        return text

    deployed(database_uri)
    for table in ALL_TABLES - {"orders", "order_details"}:  # these two are the original's
        assert comment(table), table
    assert "made, changed or deleted" in comment("order_requests") and "24 hours" in comment("order_requests")
    deployed(database_uri, "revert", "orders", "--to", "order_request_keys")
    assert "changed" not in comment("order_requests")


def test_names_and_passwords_with_special_characters(server_uri):
    parts = psycopg2.extensions.parse_dsn(f"{server_uri}/postgres")
    role, password, database = f"o'{uuid.uuid4().hex} \"x", "p@ss/w:ö%&? '\"\\$`", f"or'ders \"{uuid.uuid4().hex}%"
    connection = psycopg2.connect(f"{server_uri}/postgres")
    connection.autocommit = True
    cursor = connection.cursor()
    quoted = psycopg2.extensions.quote_ident(role, cursor)
    cursor.execute(f"CREATE ROLE {quoted} LOGIN CREATEDB PASSWORD %s", (password,))
    connection.close()

    def escaped(text):
        return "".join(f"%{byte:02X}" for byte in text.encode())

    uri = (f"postgresql://{escaped(role)}:{escaped(password)}@{parts['host']}:{parts['port']}/{escaped(database)}"
           "?application_name=airship%20migration&connect_timeout=5")
    deployed(uri)
    deployed(uri, "verify")
    assert tables(uri) == ALL_TABLES
    # The same by the URI's parameters.
    deployed(f"postgresql://?host={parts['host']}&port={parts['port']}&user={escaped(role)}"
             f"&password={escaped(password)}&dbname={escaped(database)}", "verify")


def test_the_password_is_in_no_list_of_processes(database_uri):
    password = psycopg2.extensions.parse_dsn(database_uri)["password"]
    running = threading.Event()
    running.set()
    seen = []
    looks = 0

    def watch():
        nonlocal looks
        while running.is_set():
            looks += 1
            for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = entry.read_bytes()
                except OSError:
                    continue
                if password.encode() in line:
                    seen.append(line)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        output = deployed(database_uri)
    finally:
        running.clear()
        watcher.join()
    assert looks > 5 and seen == []
    assert password not in output


@pytest.mark.parametrize("uri, said", [
    ("mysql://u:p@127.0.0.1/orders", "cannot be read"),
    ("127.0.0.1:5432/orders", "cannot be read"),
    ("postgresql://127.0.0.1:5432", "names no database"),
    ("postgresql://127.0.0.1:port/orders", "host or port"),
    ("postgresql://u%zz@127.0.0.1/orders", "no escape"),
    ("postgresql://127.0.0.1/orders?colour=red", "colour"),
    ("postgresql://u:secret@127.0.0.1:1/orders", "cannot connect"),
])
def test_a_wrong_uri_is_one_clear_line(uri, said):
    refused = deploy(uri)
    assert refused.returncode == 2
    assert said in refused.stdout and "POSTGRES_URI" in refused.stdout
    assert len(refused.stdout.splitlines()) == 1
    assert "secret" not in refused.stdout


def test_a_wrong_password_is_refused_and_not_repeated(database_uri):
    name = database_uri.rsplit("/", 1)[1]
    parts = psycopg2.extensions.parse_dsn(database_uri)
    refused = deploy(f"postgresql://postgres:not-the-one@{parts['host']}:{parts['port']}/{name}")
    assert refused.returncode == 2 and "password authentication failed" in refused.stdout
    assert "not-the-one" not in refused.stdout


@pytest.mark.parametrize("arguments", [["demolish"], ["deploy", "no_such_system"], ["deploy", "../migrations/orders"]])
def test_wrong_usage(arguments, database_uri):
    assert deploy(database_uri, *arguments).returncode == 2

"""The lines of SECURITY.md's table that no other file tests: who may do what, what is in the files that are run, and that no
secret is ever told."""
import json
import os
import platform
import pwd
import re
import shutil
import ssl
import socket
import subprocess
import threading
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pika
import psycopg2
import psycopg2.errors
import pytest
import redis

from support import program
from support.amqp import RPC_EXCHANGE, connect
from support.backing import DEPLOY, PERMISSIONS, SERVICES, with_login_of
from support.clock import ANSWER_S, BOOT_S, READY_S, wait_until
from support.http import RawConnection, check_error, check_headers, path_of, raw_request
from support.program import BUILD_DIR, REPOSITORY, clean_environment
from support.shop import a_line, a_product, free_port, unique

EVENT_QUEUE = "evt-orders-order_created--products.handle_order_created"
RETRY_QUEUE = f"{EVENT_QUEUE}.retry-1000"
FORBIDDEN, PRECONDITION_FAILED = 403, 406


# ---- RabbitMQ: each service by a user of its own --------------------------------------------------------------------


@pytest.fixture(scope="module")
def as_user(shop):
    """as_user(service): a fresh channel of that service's own user, in the shop's vhost; a refusal closes a channel."""
    connections = {}

    def channel(service):
        if service not in connections or connections[service].is_closed:
            connections[service] = connect(with_login_of(shop.room.amqp_uri, shop.servers.service_uris[service]["AMQP_URI"]))
        return connections[service].channel()

    yield channel
    for connection in connections.values():
        if connection.is_open:
            connection.close()


def publish(exchange, key, **properties):
    def act(channel):
        channel.confirm_delivery()
        channel.basic_publish(exchange, key, b"{}", pika.BasicProperties(content_type="application/json", **properties))

    return act


def get(queue):
    return lambda channel: channel.basic_get(queue)


def own_reply_queue(channel):
    name = f"rpc.reply-gateway-{uuid.uuid4()}"
    channel.queue_declare(name, exclusive=True, auto_delete=True)
    return name


def bind_reply_queue(exchange, key):
    return lambda channel: channel.queue_bind(own_reply_queue(channel), exchange, key)


FORBIDDEN_TO = {
    "gateway": {
        "read requests of products": get("rpc-products"),
        "read requests of orders": get("rpc-orders"),
        "read events": get(EVENT_QUEUE),
        "read events that wait": get(RETRY_QUEUE),
        "read dead letters": get("products.dead-letters"),
        "throw requests away": lambda channel: channel.queue_purge("rpc-orders"),
        "delete the queue of a service": lambda channel: channel.queue_delete("rpc-orders"),
        "declare a queue of another name": lambda channel: channel.queue_declare("mine"),
        "declare an exchange of another name": lambda channel: channel.exchange_declare("mine", "fanout"),
        "send past the exchanges": publish("", "rpc-orders"),
        "send events": publish("orders.events", "order_created"),
        "call a service that is none": publish(RPC_EXCHANGE, "shipping.ship"),
        "answer calls": publish(RPC_EXCHANGE, str(uuid.uuid4())),
        "listen to all requests": bind_reply_queue(RPC_EXCHANGE, "#"),
        "listen to requests of orders": bind_reply_queue(RPC_EXCHANGE, "orders.*"),
        "listen to events": bind_reply_queue("orders.events", "order_created"),
    },
    "products": {
        "send events of orders": publish("orders.events", "order_created"),
        "call orders": publish(RPC_EXCHANGE, "orders.delete_order"),
        "read requests of orders": get("rpc-orders"),
        "delete the queue of orders": lambda channel: channel.queue_delete("rpc-orders"),
        "read dead letters of orders": get("orders.dead-letters"),
        "read dead letters of its own": get("products.dead-letters"),
        "take requests of orders": lambda channel: channel.queue_bind("rpc-products", RPC_EXCHANGE, "orders.*"),
        "take answers": lambda channel: channel.queue_bind("rpc-products", RPC_EXCHANGE, "#"),
        "declare a queue of another name": lambda channel: channel.queue_declare("mine"),
    },
    "orders": {
        "read requests of products": get("rpc-products"),
        "read events": get(EVENT_QUEUE),
        "call products": publish(RPC_EXCHANGE, "products.delete"),
        "take requests of products": lambda channel: channel.queue_bind("rpc-orders", RPC_EXCHANGE, "products.*"),
        "delete the event queue of products": lambda channel: channel.queue_delete(EVENT_QUEUE),
        "declare a queue of another name": lambda channel: channel.queue_declare("mine"),
        "read dead letters of its own": get("orders.dead-letters"),
    },
}


@pytest.mark.parametrize("user, what", [(user, what) for user, acts in FORBIDDEN_TO.items() for what in acts])
def test_a_user_of_the_broker_may_not(as_user, user, what):
    channel = as_user(user)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        FORBIDDEN_TO[user][what](channel)
    assert refused.value.reply_code == FORBIDDEN, refused.value


@pytest.mark.parametrize("user", SERVICES)
def test_a_message_names_no_other_user_than_its_sender(as_user, user):
    """The broker vouches for the property user_id wherever it stands."""
    exchange, key = {"gateway": (RPC_EXCHANGE, "orders.none"), "orders": ("orders.events", "none")}.get(
        user, (RPC_EXCHANGE, str(uuid.uuid4()))
    )
    publish(exchange, key, user_id=user)(as_user(user))
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        publish(exchange, key, user_id="guest")(as_user(user))
    assert refused.value.reply_code == PRECONDITION_FAILED


def test_the_services_are_no_administrators_and_guest_is_none_of_them(servers, shop):
    listed = json.loads(servers.rabbitmqctl("-q", "list_users", "--formatter", "json"))
    assert {one["user"]: one["tags"] for one in listed} == {"guest": ["administrator"], **{name: [] for name in SERVICES}}
    for one in shop.programs:
        login = urlsplit(one.environment["AMQP_URI"])
        assert login.username == one.name and len(login.password) >= 32


def test_the_permissions_hold_no_password_and_can_be_loaded_again(servers, shop, http):
    """The file that production takes; a broker that has it already stays as it is."""
    text = PERMISSIONS.read_text()
    assert set(json.loads(text)) == {"permissions", "topic_permissions"} and "password" not in text
    servers.rabbitmqctl("import_definitions", str(PERMISSIONS))
    product = http.make_product(a_product())
    assert http.get_product(product["id"]) == product


POLICIES = REPOSITORY / "dev" / "rabbitmq-policies.json"


def test_a_full_event_queue_loses_nothing(servers, make_shop):
    """The optional length limits: what the broker refuses stays in the outbox until there is room again."""
    shop = make_shop().start()
    http, room = shop.http, shop.room.name
    (policy,) = [one for one in json.loads(POLICIES.read_text())["policies"] if re.match(one["pattern"], EVENT_QUEUE)]
    assert policy["definition"]["overflow"] == "reject-publish"
    limits = {"policies": [{**policy, "vhost": room, "definition": {**policy["definition"], "max-length": 1}}]}
    path = servers.run_dir / "limits.json"
    path.write_text(json.dumps(limits))
    product = http.make_product(a_product(in_stock=10))
    shop.the("products").stop()
    servers.rabbitmqctl("import_definitions", str(path))
    peer = shop.peer()
    lines = {"args": [[a_line(product["id"])]], "kwargs": {}}
    for _ in range(5):  # the gateway asks products first, who is not there
        assert peer.exchange("orders.create_order", lines).json["error"] is None
    wait_until(lambda: peer.depth(EVENT_QUEUE)[0] == 1, "the queue is full")
    assert shop.outbox() == 4
    servers.rabbitmqctl("clear_policy", "-p", room, policy["name"])
    shop.the("products").start().wait_ready()
    shop.wait_stock(product["id"], 5)
    wait_until(lambda: shop.outbox() == 0, "the outbox is empty")


def test_the_policies_can_be_loaded(servers, shop):
    servers.rabbitmqctl("import_definitions", str(POLICIES))
    try:
        listed = json.loads(servers.rabbitmqctl("-q", "list_policies", "--formatter", "json"))
        assert {one["name"] for one in listed} == {one["name"] for one in json.loads(POLICIES.read_text())["policies"]}
    finally:
        for one in json.loads(POLICIES.read_text())["policies"]:
            servers.rabbitmqctl("clear_policy", one["name"])


# ---- where a service can be made to publish ---------------------------------------------------------------------------


@pytest.fixture
def victim(peer):
    """A queue of somebody else."""
    name = f"victim-{uuid.uuid4()}"
    peer.channel.queue_declare(name, exclusive=True)
    return name


def letters_of(peer, service):
    return peer.depth(f"{service}.dead-letters")[0]


@pytest.mark.parametrize("header", ["CC", "BCC"])
@pytest.mark.parametrize("kind", ["a request", "an event", "an event that is tried again"])
def test_a_dead_letter_goes_nowhere_else(shop, peer, victim, header, kind):
    """RabbitMQ sends a message to the queues in its headers CC and BCC too; a letter must not take them along."""
    headers = {header: [victim]}
    before = letters_of(peer, "products")
    key = unique("damaged")
    if kind == "a request":
        peer.send("products.get", b"no json", headers=headers)
    elif kind == "an event":
        peer.publish_event("orders", "order_created", b"no json", headers=headers)
    else:  # a product that is none fails it for now
        shop.redis().lpush(f"products:{key}", "no hash")
        products = shop.the("products")
        failures = products.log().count(b"not handled this time")
        line = {"id": 1, "product_id": key, "price": "1.00", "quantity": 1}
        peer.publish_event("orders", "order_created", {"order": {"id": 2**31 - 7, "order_details": [line]}}, headers=headers)
        wait_until(lambda: products.log().count(b"not handled this time") > failures, "it was put aside")
        peer.wait_for(lambda: peer.depth(RETRY_QUEUE)[0] > 0 or products.log().count(b"not handled this time") > failures + 1,
                      "it waits")  # fmt: skip
        shop.redis().delete(f"products:{key}")
    if kind != "an event that is tried again":
        peer.wait_for(lambda: letters_of(peer, "products") > before, "a dead letter")
    assert peer.channel.basic_get(victim)[0] is None


@pytest.mark.parametrize("service, method", [("products", "get"), ("orders", "get_order")])
@pytest.mark.parametrize("target", ["products.delete", "orders.delete_order", "rpc.reply-gateway-x", "a.b.c", "*", "#"])
def test_a_reply_goes_to_no_service(peer, service, method, target):
    """A reply_to that could be a request's routing key: the message is put aside, nothing is published, nobody stumbles."""
    heard = peer.listen(RPC_EXCHANGE, target if target not in "*#" else "nothing")
    before = letters_of(peer, service)
    peer.send(f"{service}.{method}", {"args": ["1"], "kwargs": {}}, reply_to=target)
    peer.wait_for(lambda: letters_of(peer, service) == before + 1, "the request was put aside")
    assert peer.error(f"{service}.no_such_method").exc_type == "MethodNotFound"  # it goes on
    assert heard == [] and letters_of(peer, service) == before + 1


# ---- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def as_orders(shop):
    """A session of the role that the service has."""
    uri = shop.the("orders").environment["POSTGRES_URI"]
    assert urlsplit(uri).username == "orders"
    connection = psycopg2.connect(uri)
    connection.autocommit = True
    yield connection.cursor()
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (id integer)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE VIEW mine AS SELECT * FROM orders",
        "CREATE INDEX mine ON orders (created_at)",
        "CREATE ROLE mine",
        "CREATE DATABASE mine",
        "CREATE EXTENSION pgcrypto",
        "ALTER TABLE orders ADD COLUMN mine integer",
        "ALTER TABLE orders DISABLE TRIGGER ALL",
        "ALTER ROLE orders SUPERUSER",
        "ALTER SYSTEM SET fsync = off",
        "DROP TABLE order_outbox",
        "DROP TABLE orders CASCADE",
        "TRUNCATE order_outbox",
        "SELECT setval(pg_get_serial_sequence('orders', 'id'), 1)",
        "SELECT * FROM sqitch.changes",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_reload_conf()",
        "COPY orders TO PROGRAM 'cat'",
        "COPY orders FROM '/etc/passwd'",
        "SET ROLE postgres",
        "SET session_replication_role = replica",
    ],
)
def test_the_role_of_orders_may_not(as_orders, statement):
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        as_orders.execute(statement)


def test_the_role_of_orders_hands_nothing_on(as_orders):
    """PostgreSQL only warns of a GRANT that grants nothing."""
    as_orders.execute("GRANT SELECT ON orders TO PUBLIC")
    as_orders.execute("SELECT count(*) FROM information_schema.role_table_grants WHERE grantee = 'PUBLIC' AND table_name = 'orders'")
    assert as_orders.fetchone() == (0,)


def test_passwords_of_postgresql_are_scram_and_nobody_comes_in_without(servers):
    with servers.database(servers.postgres_uri("postgres")) as cursor:
        cursor.execute("SELECT rolname, left(rolpassword, 14) FROM pg_authid WHERE rolcanlogin")
        assert sorted(cursor.fetchall()) == [("orders", "SCRAM-SHA-256$"), ("postgres", "SCRAM-SHA-256$")]
        cursor.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules WHERE type LIKE 'host%'")
        assert cursor.fetchall() == [("scram-sha-256",)]


@pytest.mark.parametrize("text", ["'; DROP TABLE orders; --", "$1", "\\'; SELECT 1; --", "%s%n", "{{7*7}}", "$(id)", "`id`"])
def test_what_looks_like_code_is_text(shop, http, text):
    product = http.make_product(a_product(unique(text), title=text))
    order = http.make_order([a_line(product["id"])], headers={"Idempotency-Key": f"{text} {unique()}"})
    (line,) = http.get_order(order)["order_details"]
    assert line["product_id"] == product["id"] and line["product"]["title"] == text
    assert shop.query("SELECT count(*) FROM orders WHERE id = %s", order) == [(1,)]


def deploy(uri, role, command="deploy"):
    return subprocess.run(
        [str(DEPLOY), command], env={**clean_environment(), "POSTGRES_URI": uri, "SERVICE_ROLE": role}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=BOOT_S,
    )  # fmt: skip


@pytest.fixture
def database(servers):
    """The URI of a database that is not there yet, and a cursor of the administrator's."""
    name = f"grants_{uuid.uuid4().hex}"
    with servers.database(servers.postgres_uri("postgres")) as cursor:
        yield servers.postgres_uri(name), cursor
        cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def test_a_deployment_grants_what_is_needed(servers, database):
    uri, cursor = database
    done = deploy(uri, "orders")
    assert done.returncode == 0, done.stdout
    connection = psycopg2.connect(with_login_of(uri, servers.service_uris["orders"]["POSTGRES_URI"]))
    with connection.cursor() as orders:
        orders.execute("SELECT current_setting('search_path'), current_setting('statement_timeout')")
        assert orders.fetchone() == ("public, pg_temp", "1min")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            orders.execute("CREATE TEMPORARY TABLE mine (id integer)")
    connection.close()
    with servers.database(uri) as owner:
        owner.execute("REVOKE SELECT ON orders FROM orders; GRANT TRUNCATE ON order_details TO orders")
    refused = deploy(uri, "orders", "verify")
    assert refused.returncode == 1, refused.stdout
    assert "no SELECT on orders" in refused.stdout and "on order_details" in refused.stdout, refused.stdout
    assert deploy(uri, "orders").returncode == 0  # and sets it right again
    done = deploy(uri, "orders", "verify")
    assert done.returncode == 0, done.stdout


def test_deployments_at_once_grant_without_a_quarrel(database):
    uri, _ = database
    results = []
    threads = [threading.Thread(target=lambda: results.append(deploy(uri, "orders"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.returncode for one in results] == [0] * 4, [one.stdout for one in results]


def test_a_role_that_is_none_for_a_service_is_refused(servers, database):
    uri, cursor = database
    made = [f"role_{uuid.uuid4().hex}" for _ in range(3)]
    cursor.execute(f"CREATE ROLE {made[0]} SUPERUSER; CREATE ROLE {made[1]} CREATEROLE; CREATE ROLE {made[2]}")
    try:
        for role, said in (
            ("nobody_of_that_name", 'there is no role "nobody_of_that_name"'),
            ("it's \"quoted\"; DROP TABLE orders", "there is no role"),
            ("postgres", "is the role that deploys"),
            (made[0], "superuser"),
            (made[1], "create roles"),
        ):
            refused = deploy(uri, role)
            assert refused.returncode == 1 and said in refused.stdout, refused.stdout
            if role not in made:  # told before anything was done
                with servers.database(uri) as owner:
                    owner.execute("SELECT to_regclass('orders')")
                    assert owner.fetchone() == (None,)
        with servers.database(uri) as owner:
            owner.execute(f"GRANT CREATE ON SCHEMA public TO {made[2]}")
        refused = deploy(uri, made[2])
        assert refused.returncode == 1 and "may create tables in the schema" in refused.stdout, refused.stdout
    finally:
        with servers.database(uri) as owner:
            for role in made:
                owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


# ---- Redis ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def as_products(shop):
    uri = shop.the("products").environment["REDIS_URI"]
    assert urlsplit(uri).username == "products"
    with redis.Redis.from_url(uri, decode_responses=True) as connection:
        yield connection


@pytest.mark.parametrize(
    "command",
    [
        "CONFIG GET dir", "CONFIG SET dir /tmp", "DEBUG SLEEP 0", "FLUSHALL", "FLUSHDB", "KEYS *", "SHUTDOWN", "SAVE",
        "BGREWRITEAOF", "REPLICAOF 127.0.0.1 1", "MODULE LIST", "MONITOR", "ACL LIST", "ACL SETUSER products +@all", "INFO",
        "CLIENT LIST", "CLIENT KILL TYPE normal", "SETEX products:x 1 y", "SET other x", "SCRIPT FLUSH", "SCRIPT LOAD x", "FUNCTION LIST", "SLOWLOG GET", "PUBLISH x y",
        "SUBSCRIBE x", "MIGRATE 127.0.0.1 1 x 0 1", "SWAPDB 0 1", "GET products:x", "RENAME products:x y",
        "HGETALL products:x", "DUMP products:x", "EVAL_RO x 0", "FCALL f 0", "CLUSTER INFO", "SORT products:x",
        # its commands, on keys of others
        "HSET other:x f v", "HMGET other f", "DEL sessions", "EXISTS productsx", "EXPIRE other 1", "HINCRBY other f 1",
    ],
)  # fmt: skip
def test_the_user_of_products_may_not(as_products, command):
    with pytest.raises(redis.exceptions.ResponseError, match="no permissions|DEBUG command not allowed"):
        as_products.execute_command(*command.split())


@pytest.mark.parametrize(
    "script, keys",
    [
        ("return redis.call('KEYS', '*')", []),
        ("return redis.call('CONFIG', 'GET', 'dir')", []),
        ("return redis.call('FLUSHALL')", []),
        ("return redis.call('HSET', 'other', 'f', 'v')", []),  # a key that it did not declare
        ("return redis.call('HSET', KEYS[1], 'f', 'v')", ["other"]),
        ("return redis.call('SETEX', KEYS[1], 1, 'v')", ["products:x"]),
    ],
)
def test_a_script_of_products_may_no_more_than_its_user(as_products, script, keys):
    with pytest.raises(redis.exceptions.ResponseError, match="no permissions|can't run this command|can't access at least one of the keys|not allowed from script"):
        as_products.eval(script, len(keys), *keys)


def test_products_needs_no_command_that_it_may_not_send_and_may_send_none_that_it_does_not_need(shop, http, peer):
    """Redis counts, by command: every one that the user may send was sent by the service, none was refused it."""
    admin = shop.redis()
    admin.config_resetstat()
    admin.acl_log_reset()
    admin.script_flush()  # so that the script is sent by its text once more
    fresh = unique("acl")
    product = http.make_product(a_product(fresh, in_stock=5))
    http.make_order([a_line(fresh)])
    shop.wait_stock(fresh, 4)
    assert http.get_product(fresh)["in_stock"] == 4
    peer.call("products.list")
    key = unique("damaged")
    admin.lpush(f"products:{key}", "no hash")  # what the script takes back, it takes back by HDEL
    order = http.post("/orders", {"order_details": [a_line(key)]})
    assert order.status == 200, str(order)
    wait_until(lambda: "cmdstat_hdel" in admin.info("commandstats"), "the change was taken back")
    admin.unlink(f"products:{key}")
    assert http.delete(path_of("products", product["id"])).status == 204
    one = shop.add("products")  # connects, and so selects its database and says its name
    one.start().wait_ready()
    one.stop()
    shop.programs.remove(one)
    sent = {name.removeprefix("cmdstat_") for name in admin.info("commandstats")}
    rules = admin.acl_getuser("products")
    assert rules["keys"] in (["products:*", "airship:*"], ["~products:*", "~airship:*"]) and "nopass" not in rules["flags"]
    allowed = {command.lstrip("+") for command in rules["commands"]}
    assert allowed - sent == set(), f"never sent: {allowed - sent}"
    refused = [entry for entry in admin.acl_log() if entry["username"] == "products"]
    assert refused == []


def test_redis_keeps_its_users_in_a_file_and_protects_itself(servers):
    lines = (servers.run_dir / "redis" / "redis.conf").read_text().splitlines()
    assert "protected-mode yes" in lines and "aclfile users.acl" in lines
    text = (servers.run_dir / "redis" / "users.acl").read_text()
    password = urlsplit(servers.service_uris["products"]["REDIS_URI"]).password
    assert password not in text and re.search(r"^user products on \S+ #[0-9a-f]{64} ", text, re.M)
    assert re.search(r"^user default on #[0-9a-f]{64} ", text, re.M) and "nopass" not in text


# ---- HTTP -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "CONNECT", "PROPFIND", "PURGE", "DEBUG", "BREW", "get", "GETS", "0"])
def test_a_method_that_is_none(shop, http, method):
    """An error, nothing of the request in it, and no word of who says so."""
    with RawConnection(shop.port) as raw:
        raw.send(raw_request(method, "/orders?x=echoed-canary", headers=("X-Canary: echoed-canary",)))
        response = raw.response()
    check_headers(response)
    assert response.status in (400, 405, 501), str(response)
    assert b"echoed-canary" not in response.body and "canary" not in str(response.headers).lower()


BANNERS = re.compile(rb"kore|openssl|nginx|rabbitmq|redis|postgres|hiredis|libpq|\.c:\d|0x[0-9a-f]{6}|/work|/usr/", re.I)


@pytest.mark.parametrize(
    "request_bytes",
    [
        raw_request("GET", "/"),
        raw_request("GET", "/metrics"),
        raw_request("GET", "/products/none"),
        raw_request("GET", "/orders/0"),
        raw_request("GET", "/healthz"),
        raw_request("GET", "/readyz"),
        raw_request("PUT", "/orders", b"{}"),
        raw_request("POST", "/orders", b"{"),
        raw_request("GET", "/" + "x" * 9000),
        raw_request("GET", "/", headers=("X: " + "x" * 20_000,)),
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    ],
    ids=lambda value: value[:24].decode("ascii", "replace").split("\r")[0],
)
def test_no_answer_tells_what_runs_here(shop, http, request_bytes):
    with RawConnection(shop.port) as raw:
        response = raw.send_tolerant(request_bytes).response()
    assert response is not None
    check_headers(response)
    told = response.body + repr(response.headers).encode()
    assert not BANNERS.search(told), told


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
def test_no_other_site_is_let_in_by_a_browser(http, method):
    """CORS is closed: no answer names an origin, whatever is asked."""
    asked = {"Origin": "https://evil.example.com", "Access-Control-Request-Method": "POST"}
    response = http.request(method, "/orders", b"{}" if method == "POST" else None, headers=asked)
    assert not [name for name, _ in response.headers if name.lower().startswith("access-control-")], str(response)


@pytest.mark.parametrize(
    "path", ["/metrics", "/admin", "/debug", "/status", "/server-status", "/.git/config", "/.env", "/api", "/v1/orders",
             "/products", "/openapi.yaml", "/swagger", "/console", "/..%2f..%2fetc%2fpasswd"],
)  # fmt: skip
def test_there_is_no_route_that_is_not_told(http, path):
    response = http.get(path)
    assert response.status in (404, 405), str(response)


# ---- the processes ----------------------------------------------------------------------------------------------------


def status_of(pid):
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_sanitized(path):
    return b"__asan_init" in path.read_bytes()


def test_the_gateways_worker_is_in_a_sandbox(shop, http):
    workers = children_of(shop.the("gateway").process.pid)
    assert len(workers) == 1
    status = status_of(workers[0])
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"  # by a filter


UNPRIVILEGED = "nobody"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else; without root all tests run so")
@pytest.mark.parametrize("name", program.PATHS)
def test_a_program_needs_no_privilege(shop, tmp_path, name):
    """As an ordinary user, without any capability and unable to get one."""
    account = pwd.getpwnam(UNPRIVILEGED)
    as_nobody = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups",
                 "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"]  # fmt: skip
    path = program.assert_built(name)
    if subprocess.run([*as_nobody, "test", "-x", str(path)]).returncode != 0:
        pytest.skip(f"{UNPRIVILEGED} has no way to {path}")
    ready = tmp_path.parent / f"{uuid.uuid4()}.ready"
    environment = {**shop.the(name).environment, "PORT": str(free_port())}
    log = (tmp_path / "log").open("wb")
    with subprocess.Popen([*as_nobody, str(path)], env={**clean_environment(), **environment, "LOG_LEVEL": "info"},
                          stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/") as one:  # fmt: skip
        try:
            said = b'"ready"'
            wait_until(lambda: said in Path(log.name).read_bytes() or one.poll() is not None, f"{name} is ready", READY_S)
            assert one.poll() is None, Path(log.name).read_text()
            for pid in (one.pid, *children_of(one.pid)):
                status = status_of(pid)
                assert set(status["Uid"].split()) == {str(account.pw_uid)}
                assert {int(status[f"Cap{which}"], 16) for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
        finally:
            one.terminate()
            assert one.wait(READY_S) == 0, Path(log.name).read_text()
    assert not ready.exists()


# ---- no secret is told ------------------------------------------------------------------------------------------------


def secrets_of(servers):
    """Every password that the servers' users have, but guest's."""
    uris = [*servers.uris.values(), *(uri for uris in servers.service_uris.values() for uri in uris.values())]
    found = {urlsplit(uri).password for uri in uris} - {None, "guest"}
    assert len(found) >= 6 and all(len(secret) >= 32 for secret in found)
    return {secret.encode() for secret in found}


def assert_told_nowhere(secrets, *texts):
    for text in texts:
        for secret in secrets:
            assert secret not in text, text[max(0, text.index(secret) - 200) :][:400]


@pytest.fixture(scope="module")
def canaries(make_shop):
    """A shop whose programs log all they can, and its secrets."""
    shop = make_shop(links=True)
    for name in program.PATHS:
        shop.add(name, LOG_LEVEL="debug").start()
    for one in shop.programs:
        one.wait_ready()
    return shop


def test_no_secret_is_in_any_list_of_processes(servers, canaries):
    lines = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((entry / "cmdline").read_bytes())
        except OSError:
            continue
    assert_told_nowhere(secrets_of(servers), *lines)


def test_no_secret_is_in_any_log_whatever_goes_wrong(servers, canaries):
    shop = canaries
    http, peer = shop.http, shop.peer()
    product = http.make_product(a_product())
    http.make_order([a_line(product["id"])])
    for body in (b"{", b"[]", b'{"order_details": 1}'):
        http.post("/orders", body)
    http.get(path_of("products", "none"))
    peer.send("products.get", b"no json")
    peer.send("orders.get_order", {"args": [], "kwargs": {"x": 1}})
    peer.publish_event("orders", "order_created", b"\xff")
    for link in shop.links.values():  # everything is lost, and comes back
        link.down()
    wait_until(lambda: http.get("/readyz").status == 503, "the gateway has noticed")
    for link in shop.links.values():
        link.up()
    shop.wait_working()
    logs = [one.log() for one in program.started]
    logs += [path.read_bytes() for path in (servers.run_dir / "log").iterdir()]
    assert all(log for log in (one.log() for one in shop.programs))
    assert_told_nowhere(secrets_of(servers), *logs)


CANARY = "canary-7c1f0e"


@pytest.mark.parametrize(
    "name, setting, uri",
    [
        ("products", "REDIS_URI", f"redis://someone:{CANARY}@127.0.0.1:1/0"),
        ("products", "REDIS_URI", f"redis://someone:{CANARY}@@@/x/y"),
        ("products", "REDIS_URI", f"redis://:{CANARY}@127.0.0.1:1/0"),
        ("products", "REDIS_URI", f"http://someone:{CANARY}@127.0.0.1"),
        ("orders", "POSTGRES_URI", f"postgresql://someone:{CANARY}@127.0.0.1:1/orders"),
        ("orders", "POSTGRES_URI", f"postgresql://someone:{CANARY}@127.0.0.1:port/orders"),
        ("orders", "POSTGRES_URI", f"postgresql://127.0.0.1:1/orders?password={CANARY}&sslmode=maybe"),
        ("orders", "POSTGRES_URI", f"host=127.0.0.1 password={CANARY}"),
        ("orders", "POSTGRES_URI", f"postgresql://someone:{CANARY}%zz@127.0.0.1/orders"),
        *[
            (name, "AMQP_URI", uri)
            for name in program.PATHS
            for uri in (
                f"amqp://someone:{CANARY}@127.0.0.1:1/",
                f"amqp://someone:{CANARY}@127.0.0.1:port/",
                f"amqp://someone:{CANARY}%zz@127.0.0.1/",
                f"amqps://someone:{CANARY}@127.0.0.1:1/?verify=none",
                f"ampq://someone:{CANARY}@127.0.0.1/",
            )
        ],
    ],
)
def test_a_password_in_a_setting_is_never_shown(shop, tmp_path, name, setting, uri):
    """Neither where the settings are shown, nor where they are refused, nor where the server does not answer."""
    for arguments in (["--show-config"], ["--help"]):
        _, output, errors = program.run(name, arguments, {setting: uri})
        assert CANARY not in output + errors, output + errors
    own = {**shop.the(name).environment, setting: uri, "LOG_LEVEL": "debug", "PORT": str(free_port())}
    log = tmp_path / "log"
    with log.open("wb") as output, subprocess.Popen(
        [str(program.assert_built(name))], env={**clean_environment(), **own}, stdin=subprocess.DEVNULL, stdout=output,
        stderr=output, cwd=tmp_path,
    ) as one:  # fmt: skip
        try:
            wait_until(lambda: log.stat().st_size > 0 or one.poll() is not None, f"{name} says something", READY_S)
            wait_until(lambda: one.poll() is not None or b"127.0.0.1" in log.read_bytes(), f"{name} tells", READY_S)
            if one.poll() is None:
                assert CANARY.encode() not in Path(f"/proc/{one.pid}/cmdline").read_bytes()
        finally:
            if one.poll() is None:
                one.terminate()
            one.wait(READY_S)
    assert CANARY.encode() not in log.read_bytes(), log.read_text()


@pytest.mark.parametrize("name", program.PATHS)
def test_a_password_that_a_server_refuses_is_never_shown(shop, tmp_path, name):
    setting = {"products": "REDIS_URI", "orders": "POSTGRES_URI", "gateway": "AMQP_URI"}[name]
    uri = with_login_of(shop.the(name).environment[setting], f"x://someone:{CANARY}@x")
    log = tmp_path / "log"
    own = {**shop.the(name).environment, setting: uri, "LOG_LEVEL": "debug", "PORT": str(free_port())}
    with log.open("wb") as output, subprocess.Popen(
        [str(program.assert_built(name))], env={**clean_environment(), **own}, stdin=subprocess.DEVNULL, stdout=output,
        stderr=output, cwd=tmp_path,
    ) as one:  # fmt: skip
        try:
            refused = re.compile(rb"WRONGPASS|password authentication failed|ACCESS_REFUSED|403|refuse", re.I)
            wait_until(lambda: refused.search(log.read_bytes()) or one.poll() is not None, f"{name} is refused", READY_S)
            assert one.poll() is None, log.read_text()
        finally:
            one.terminate()
            one.wait(READY_S)
    assert CANARY.encode() not in log.read_bytes(), log.read_text()


# ---- TLS to the broker --------------------------------------------------------------------------------------------------


class TlsPeer(threading.Thread):
    """Listens with a certificate; knows of each client whether it went on to speak AMQP through the tunnel."""

    def __init__(self, certificate, key, **options):
        super().__init__(daemon=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        for name, value in options.items():
            setattr(self.context, name, value)
        if "maximum_version" in options:
            self.context.set_ciphers("ALL:@SECLEVEL=0")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.heard = []
        self.start()

    def run(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            client.settimeout(ANSWER_S)
            try:
                with self.context.wrap_socket(client, server_side=True) as tunnel:
                    self.heard.append(tunnel.recv(8))
            except OSError as error:
                self.heard.append(error)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """(certificate, key) for 127.0.0.1 and for another host, each its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    made = {}
    for name, subject in (("ours", "IP:127.0.0.1"), ("another", "DNS:mq.example.com"), ("foreign", "IP:127.0.0.1")):
        made[name] = folder / f"{name}.pem", folder / f"{name}.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", f"/CN={name}", "-addext", f"subjectAltName={subject}", "-out", made[name][0], "-keyout", made[name][1]],
            check=True, capture_output=True, timeout=BOOT_S,
        )  # fmt: skip
    return made


@pytest.mark.parametrize("name", program.PATHS)
@pytest.mark.parametrize(
    "served, trusted, options, spoken",
    [
        ("ours", "ours", {}, True),
        ("foreign", "ours", {}, False),  # an authority that it was not told of
        ("another", "another", {}, False),  # the right authority, and another host's certificate
        ("ours", "ours", {"maximum_version": ssl.TLSVersion.TLSv1_1, "minimum_version": ssl.TLSVersion.TLSv1}, False),
    ],
    ids=["good", "unknown authority", "other host", "TLS 1.1"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_broker_is_spoken_to_only_when_it_is_the_right_one(shop, tmp_path, certificates, name, served, trusted, options, spoken):
    peer = TlsPeer(*certificates[served], **options)
    uri = f"amqps://someone:{CANARY}@127.0.0.1:{peer.port}/?cafile={certificates[trusted][0]}"
    own = {**shop.the(name).environment, "AMQP_URI": uri, "PORT": str(free_port())}
    log = (tmp_path / "log").open("wb")
    with log, subprocess.Popen([str(program.assert_built(name))], env={**clean_environment(), **own}, stdout=log, stderr=log,
                               stdin=subprocess.DEVNULL, cwd=tmp_path) as one:  # fmt: skip
        try:
            wait_until(lambda: peer.heard or one.poll() is not None, f"{name} connects", READY_S)
            assert one.poll() is None, Path(log.name).read_text()
        finally:
            one.terminate()
            one.wait(READY_S)
            peer.close()
    if spoken:
        assert peer.heard[0] == b"AMQP\0\0\x09\x01", peer.heard
    else:
        assert not any(isinstance(what, bytes) and what for what in peer.heard), peer.heard
    assert CANARY.encode() not in Path(log.name).read_bytes()


# ---- the files that are run ---------------------------------------------------------------------------------------------

ENDBR64 = b"\xf3\x0f\x1e\xfa"
FILES = {
    **program.PATHS,
    "gateway.so": program.PATHS["gateway"].parent / "gateway.so",
    "rpc": BUILD_DIR / "rpclib" / "rpc",
}


def readelf(option, path):
    return subprocess.run(["readelf", "-W", option, str(path)], check=True, text=True, capture_output=True, timeout=BOOT_S).stdout


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_hardened(name):
    path = FILES[name]
    assert path.exists(), f"{path} is not built"
    assert re.search(r"Type:\s+DYN", readelf("-h", path)), "it is loaded anywhere (PIE)"
    segments = readelf("-l", path)
    (stack,) = re.findall(r"GNU_STACK\s.*", segments)
    assert not re.search(r"\bRWE\b|\bR E\b|\bE\b", stack), "a stack is no code"
    assert "GNU_RELRO" in segments
    assert not re.search(r"^\s+LOAD\s.*\sRWE\s", segments, re.M), "nothing can be written and run"
    dynamic = readelf("-d", path)
    assert re.search(r"BIND_NOW|\bNOW\b", dynamic), "all is bound before RELRO closes"
    assert "TEXTREL" not in dynamic and "RPATH" not in dynamic and "RUNPATH" not in dynamic
    if platform.machine() == "x86_64":
        # Each function that may be called by a pointer begins so; the note that says it of the whole file is missing, for
        # Debian's start-up objects (crt1.o) do not say it of themselves.
        assert path.read_bytes().count(ENDBR64) > 20, "control flow protection"
    symbols = readelf("--dyn-syms", path)
    assert "__stack_chk_fail" in symbols
    if not is_sanitized(path):
        assert re.search(r"__\w+_chk\b(?<!__stack_chk)", symbols.replace("__stack_chk_fail", "")), "_FORTIFY_SOURCE"
    dangerous = re.findall(r"\b(gets|strcat|sprintf|vsprintf|system|popen|mktemp|tmpnam)(?=@|$)", symbols, re.M)
    assert dangerous == []


def test_the_patch_levels_are_checked(tmp_path):
    """dev/patch_levels.sh: content with what is installed here, or naming each package that is too old."""
    script = REPOSITORY / "dev" / "patch_levels.sh"
    done = subprocess.run([script], text=True, capture_output=True, timeout=BOOT_S)
    assert (done.returncode == 0) == ("older" not in done.stderr), done.stdout + done.stderr
    assert "librabbitmq4" in done.stdout
    fake = tmp_path / "dpkg-query"
    fake.write_text("#!/bin/sh\necho 'installed librabbitmq4 0.11.0-1'\necho 'installed redis-server 5:7.0.15-1~deb12u10'\n")
    fake.chmod(0o755)
    old = subprocess.run([script], text=True, capture_output=True, timeout=BOOT_S,
                         env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})  # fmt: skip
    assert old.returncode == 1 and "librabbitmq4 0.11.0-1 is older than 0.11.0-1+deb12u3" in old.stderr, old.stderr


def test_each_line_of_the_table_names_a_test_that_exists():
    """SECURITY.md says where each promise is tested; a test that is renamed is renamed there too."""
    text = (REPOSITORY / "SECURITY.md").read_text()
    named = re.findall(r"`(test_\w+\.(?:py|c))(?:::(\w+))?`", text)
    assert len(named) > 20
    for file, test in named:
        found = [path for path in REPOSITORY.rglob(file) if "build" not in path.relative_to(REPOSITORY).parts[0]]
        assert found, f"SECURITY.md names {file}, which is not there"
        assert not test or any(re.search(rf"\b{test}\b", path.read_text()) for path in found), f"{file} has no {test}"

"""Several processes of each kind share the work; one that dies leaves nothing undone.  And how a process is started."""
import json
import signal

import pytest

from support import program
from support.backing import host_and_port, uri_through
from support.clock import RECOVERY_S, wait_until
from support.http import check_error
from support.load import Load
from support.proxy import Proxy
from support.shop import a_line, a_product

PROGRAMS = ("products", "orders", "gateway")
QUEUES = ("rpc-products", "rpc-orders", "evt-orders-order_created--products.handle_order_created")


@pytest.fixture(scope="module")
def doubled(make_shop):
    return make_shop().start(products=2, orders=2, gateways=2)


@pytest.mark.faults
def test_two_of_each_share_the_work(doubled):
    peer = doubled.peer()
    assert {queue: peer.depth(queue)[1] for queue in QUEUES} == dict.fromkeys(QUEUES, 2)
    with Load(doubled, doubled.all("gateway"), threads=8) as load:
        load.wait_for(200, "orders succeed")
    load.assert_all_succeeded()
    load.assert_honest()
    load.assert_invariants()


@pytest.mark.faults
def test_gateways_see_the_same_shop(doubled):
    first, second = (doubled.http_of(gateway) for gateway in doubled.all("gateway"))
    product = first.make_product(a_product())
    assert second.get_product(product["id"]) == product
    key = {"Idempotency-Key": product["id"]}
    order_id = second.make_order([a_line(product["id"])], headers=key)
    assert first.make_order([a_line(product["id"])], headers=key) == order_id
    assert first.get_order(order_id) == second.get_order(order_id)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["orders", "products"])
def test_one_of_two_leaves_under_load(doubled, name):
    one = doubled.all(name)[0]
    with Load(doubled, doubled.all("gateway"), threads=8) as load:
        load.wait_for(30, "orders succeed")
        one.stop()
        load.wait_for(30, "the other one goes on")
        one.start()
        one.wait_ready()
        load.wait_for(30, "both go on")
    load.assert_all_succeeded()
    load.assert_invariants()


@pytest.mark.faults
@pytest.mark.parametrize("name", ["orders", "products"])
def test_one_of_two_is_killed_under_load(doubled, name):
    """What it had not answered is delivered to the other one, and done once."""
    one = doubled.all(name)[1]
    with Load(doubled, doubled.all("gateway"), threads=8) as load:
        load.wait_for(30, "orders succeed")
        one.kill()
        load.wait_for(30, "the other one goes on")
        one.start()
        one.wait_ready()
        load.wait_for(30, "both go on")
    load.assert_all_succeeded()
    load.assert_invariants()


# ---- one whose store is away stands by --------------------------------------------------------------------------


STORES = {"products": ("redis", "REDIS_URI"), "orders": ("postgres", "POSTGRES_URI")}


@pytest.fixture
def store_links(servers):
    """name -> a link of its own to the store of that program."""
    links = {}

    def link_of(shop, name):
        store, setting = STORES[name]
        proxy = Proxy(*host_and_port(shop.uris[store]))
        links[len(links)] = proxy
        return proxy, {setting: uri_through(shop.uris[store], proxy.port)}

    yield link_of
    for proxy in links.values():
        proxy.close()


def queues_of(name):
    return [queue for queue in QUEUES if queue == f"rpc-{name}" or f"--{name}." in queue]


def wait_consumers(peer, name, count):
    queues = queues_of(name)
    wait_until(
        lambda: all(peer.depth(queue)[1] == count for queue in queues), f"{count} consume {queues}", RECOVERY_S
    )


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["down", "stall"])
@pytest.mark.parametrize("name", STORES)
def test_one_without_its_store_leaves_the_work_to_the_other(make_shop, store_links, name, fault):
    shop = make_shop()
    link, settings = store_links(shop, name)
    shop.add(name, **settings).start()
    shop.start()
    peer = shop.peer()
    wait_consumers(peer, name, 2)
    product = shop.http.make_product(a_product(in_stock=1000))
    getattr(link, fault)()
    for number in range(20):  # some of them come to the one that cannot apply them, and go back
        details = [{"id": number, "product_id": product["id"], "price": "1.00", "quantity": 1}]
        order = {"id": 2_000_001_000 + number, "order_details": details}
        peer.publish_event("orders", "order_created", {"order": order})
    wait_consumers(peer, name, 1)
    shop.wait_stock(product["id"], 980)
    for number in range(50):
        order_id = shop.http.make_order([a_line(product["id"])])
        assert shop.http.get_order(order_id)["order_details"][0]["product"]["id"] == product["id"]
    shop.wait_stock(product["id"], 930)
    link.up()
    wait_consumers(peer, name, 2)
    shop.assert_running()


@pytest.mark.faults
@pytest.mark.parametrize("name", STORES)
def test_two_without_their_store_do_not_both_stand_by(make_shop, store_links, name):
    """503 at once is better than a queue that nobody reads."""
    shop = make_shop()
    link, settings = store_links(shop, name)
    shop.add(name, **settings).start()
    shop.start(**{name: 0})
    shop.add(name, **settings).start().wait_ready()
    peer = shop.peer()
    wait_consumers(peer, name, 2)
    link.down()
    path = {"products": "/products/x", "orders": "/orders/1"}[name]
    wait_until(lambda: shop.http.get(path).status == 503, "the store is missed")
    wait_consumers(peer, name, 1)
    for _ in range(50):
        check_error(shop.http.get(path), 503, "SERVICE_UNAVAILABLE")
    link.up()
    wait_consumers(peer, name, 2)
    shop.wait_working()


# ---- starting ---------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken(shop):
    """Two gateways never share a port unseen."""
    settings = dict(shop.the("gateway").environment)
    code, _, errors = program.run("gateway", environment=settings)
    assert code != 0 and code > 0, errors
    assert settings["PORT"] in errors, errors
    shop.the("gateway").assert_running()


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_an_option_that_tells(name, option):
    code, output, errors = program.run(name, [option])
    assert code == 0 and output.strip(), errors
    if option == "--help":
        assert "AMQP_URI" in output


CANARY = "canary-pa55word"


@pytest.mark.parametrize("name", PROGRAMS)
def test_show_config(name):
    """Every value and where it came from; no password."""
    settings = {
        "AMQP_URI": f"amqp://someone:{CANARY}@broker.example.com:5673/vhost",
        "REDIS_URI": f"redis://:{CANARY}@redis.example.com:6380/3",
        "POSTGRES_URI": f"postgresql://someone:{CANARY}@db.example.com:5433/orders",
        "LOG_LEVEL": "info",
    }
    code, output, errors = program.run(name, ["--show-config"], settings)
    assert code == 0, errors
    assert CANARY not in output + errors
    assert "broker.example.com" in output
    expected = {"products": ["redis.example.com"], "orders": ["db.example.com"], "gateway": ["PORT", "8000"]}[name]
    for word in ["AMQP_URI", "MAX_WORKERS" if name != "gateway" else "RPC_TIMEOUT_MS", *expected]:
        assert word in output, output


def test_a_secret_in_a_file(tmp_path):
    """NAME_FILE names a file that holds NAME."""
    secret = tmp_path / "uri"
    secret.write_text(f"postgresql://someone:{CANARY}@db.example.com:5433/orders\n")
    code, output, errors = program.run("orders", ["--show-config"], {"POSTGRES_URI_FILE": str(secret)})
    assert code == 0, errors
    assert "db.example.com" in output and CANARY not in output + errors
    code, _, errors = program.run("orders", ["--show-config"], {"POSTGRES_URI_FILE": str(tmp_path / "missing")})
    assert code == 2 and "POSTGRES_URI_FILE" in errors, errors


def wrong(name, variable, value):
    return pytest.param(name, variable, value, id=f"{name}-{variable}-{value}")


WRONG = [
    wrong(name, variable, value)
    for name in PROGRAMS
    for variable, value in [
        ("AMQP_URI", "nonsense"),
        ("AMQP_URI", "http://localhost"),
        ("AMQP_URI", "amqp://localhost:99999"),
        ("LOG_LEVEL", "loud"),
    ]
] + [
    wrong("products", "REDIS_URI", "nonsense"),
    wrong("products", "MAX_WORKERS", "0"),
    wrong("products", "MAX_WORKERS", "many"),
    wrong("orders", "POSTGRES_URI", "nonsense"),
    wrong("orders", "MAX_WORKERS", "-1"),
    wrong("gateway", "PORT", "http"),
    wrong("gateway", "PORT", "70000"),
    wrong("gateway", "RPC_TIMEOUT_MS", "0"),
    wrong("gateway", "RPC_TIMEOUT_MS", "soon"),
]


@pytest.mark.parametrize("name, variable, value", WRONG)
def test_a_wrong_setting(name, variable, value):
    """Exit code 2, and one clear line that names it."""
    code, _, errors = program.run(name, environment={variable: value})
    assert code == 2, f"{code}: {errors}"
    assert variable in errors, errors


@pytest.mark.parametrize("name", PROGRAMS)
def test_wrong_usage(name):
    code, _, errors = program.run(name, ["--no-such-option"])
    assert code == 2, f"{code}: {errors}"
    assert "no-such-option" in errors, errors


@pytest.fixture(scope="module")
def nowhere(make_shop):
    """A shop none of whose servers is there."""
    return make_shop(links=True, links_state="down")


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_before_anything_is_there(nowhere, name, number):
    """Its servers are away, and it is asked to leave: at once, with 0."""
    one = nowhere.add(name).start()
    wait_until(lambda: one.log() or not one.running, f"{name} has said something")
    one.signal(number)
    assert one.wait_exit() == 0


def test_passwords_stay_out_of_logs(servers, shop):
    """The password of the database is in no program's log."""
    secret = shop.room.postgres_uri.split("://")[1].split("@")[0].partition(":")[2]
    assert secret and all(secret.encode() not in one.log() for one in program.started)


def test_logs_are_one_json_object_a_line(shop):
    """What a log collector can read, whatever the clients of all tests so far have sent."""
    for one in shop.programs:
        lines = one.log().decode("utf-8").splitlines()
        assert lines, f"{one.label} has said nothing"
        for line in lines:
            event = json.loads(line)
            assert {"time", "level", "message"} <= set(event), line

"""Several processes of each kind share the work; one that dies leaves nothing undone.  And how a process is started."""
import json
import signal

import pytest

from support import program
from support.clock import wait_until
from support.load import Load
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

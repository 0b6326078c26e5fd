"""TLS to the broker and to PostgreSQL: spoken with the right server, and with no other; whoever is refused is told of once."""
import itertools
import ssl
from urllib.parse import urlsplit

import pytest

from support import program
from support.backing import with_login_of
from support.clock import wait_until
from support.hostile import Watched
from support.shop import a_line, a_product, unique
from support.tls import ELSEWHERE, EXPIRED_DAYS, HERE, Authority, TlsTerminator, server_context

ATTEMPTS = 3  # after so many one line is still one line
LOST_LINES_MAX = 2  # that it is lost, and what is wrong with the one that came
DATABASE_CONNECTIONS = 4  # of orders, by default
CANARY = "canary-2f9ab1"
OVER_AMQP = ("products", "gateway")
UNEXPECTED_MESSAGE = b"\x15\x03\x03\x00\x02\x02\x0a"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "ours")


@pytest.fixture(scope="module")
def contexts(authority, tmp_path_factory):
    """What a server may show; all but "right" are wrong for who trusts `authority`, and knows the server as localhost."""
    right = authority.issue("right", HERE)
    foreign = Authority(tmp_path_factory.mktemp("tls-foreign"), "foreign")
    return {
        "right": server_context(right),
        "TLS 1.2": server_context(right, ssl.TLSVersion.TLSv1_2),
        "TLS 1.1": server_context(right, ssl.TLSVersion.TLSv1_1),
        "another authority": server_context(foreign.issue("right", HERE)),
        "another host": server_context(authority.issue("elsewhere", ELSEWHERE)),
        "expired": server_context(authority.issue("expired", HERE, EXPIRED_DAYS)),
        "no TLS": None,
    }


@pytest.fixture(scope="module")
def room(make_shop):
    """Real servers, in a room that nobody else uses."""
    return make_shop()


@pytest.fixture
def start(room, directory):
    """Programs with the services' own users, whose URIs the test may replace."""
    started = []

    def begin(name, **settings):
        uris = {"AMQP_URI": room.room.amqp_uri}
        if name == "products":
            uris["REDIS_URI"] = room.room.redis_uri
        elif name == "orders":
            uris["POSTGRES_URI"] = room.room.postgres_uri
        uris.update(settings)
        for variable, uri in room.servers.service_uris[name].items():
            uris[variable] = with_login_of(uris[variable], uri)
        one = Watched(directory, name, f"tls-{name}-{next(_numbers)}", **uris)
        started.append(one)
        return one.start()

    yield begin
    for one in started:
        one.kill()  # has left, unless the test failed


@pytest.fixture
def terminator():
    """terminator(uri, context): TLS before that server."""
    made = []

    def make(uri, context):
        made.append(TlsTerminator(uri, context))
        return made[-1]

    yield make
    for one in made:
        one.close()


def assert_keeps_secrets(one):
    for variable in ("AMQP_URI", "POSTGRES_URI", "REDIS_URI"):
        password = urlsplit(one.environment.get(variable, "")).password
        assert not password or password.encode() not in one.log(), f"{one.label} tells the password of {variable}"


def assert_refused(one, server, complaint, words):
    """It has tried again and again, it is not ready, and it has said once why."""
    said = one.wait_complaint(complaint, *words)
    server.wait_accepted(server.accepted + ATTEMPTS)
    assert not one.is_ready
    one.assert_unharmed()
    one.assert_terse(1)
    assert_keeps_secrets(one)
    return said


# ---- the right server ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown, host, version", [("right", "localhost", "TLSv1.3"), ("TLS 1.2", "127.0.0.1", "TLSv1.2")])
def test_the_whole_shop_works_through_tls(make_shop, terminator, contexts, authority, shown, host, version):
    shop = make_shop()
    broker = terminator(shop.room.amqp_uri, contexts[shown])
    postgres = terminator(shop.room.postgres_uri, contexts[shown])
    shop.uris["amqp"] = broker.uri(host, cafile=authority.path)
    shop.uris["postgres"] = postgres.uri(host, sslmode="verify-full", sslrootcert=authority.path)
    shop.start()
    try:
        product = shop.http.make_product(a_product(unique("tunnelled"), title="T" * 1000))
        assert shop.peer().call("products.get", product["id"]) == product
        order_id = shop.http.make_order([a_line(product["id"], quantity=3)])
        shop.wait_stock(product["id"], product["in_stock"] - 3)
        assert shop.http.get(f"/orders/{order_id}").status == 200
        assert set(broker.versions) == set(postgres.versions) == {version}
        assert len(broker.versions) >= 3, "products, orders and the gateway"
        for one in shop.programs:
            assert_keeps_secrets(one)
    finally:
        for one in shop.programs:
            one.stop()


# ---- another broker ---------------------------------------------------------------------------------------------------

TO_BROKERS = {
    "another authority": ("certificate is refused", "issuer"),
    "another host": ("certificate is refused", "mismatch"),
    "expired": ("certificate is refused", "expired"),
    "TLS 1.1": ("TLS", "protocol"),
    "no TLS": ("does not speak TLS",),
}


@pytest.mark.parametrize("name", OVER_AMQP)
@pytest.mark.parametrize("shown", TO_BROKERS)
def test_another_broker_is_refused(room, start, terminator, contexts, authority, shown, name):
    broker = terminator(room.room.amqp_uri, contexts[shown])
    one = start(name, AMQP_URI=broker.uri(cafile=authority.path)).wait_alive()
    assert_refused(one, broker, "cannot connect to the broker", TO_BROKERS[shown])
    assert "TLSv1.1" not in broker.versions

    broker.context = contexts["right"]  # put right, it heals
    one.wait_is_ready()
    one.mark()
    broker.context = contexts[shown]  # and wrong again: what is up is lost, and SIGTERM is heard meanwhile
    broker.kick()
    one.wait_not_ready()
    one.wait_complaint("the broker", *TO_BROKERS[shown])
    broker.wait_accepted(broker.accepted + ATTEMPTS)
    one.assert_terse(LOST_LINES_MAX)
    one.leave()
    assert_keeps_secrets(one)


@pytest.mark.parametrize("name", OVER_AMQP)
def test_nothing_is_said_to_a_broker_that_is_refused(room, start, terminator, contexts, authority, name):
    """Not a byte of AMQP, and so no password, goes through a tunnel whose other end is not known."""
    broker = terminator(room.room.amqp_uri, contexts["another host"])
    carried = []
    broker._carry = lambda client, _server: carried.append(heard(client))
    one = start(name, AMQP_URI=broker.uri(cafile=authority.path)).wait_alive()
    one.wait_complaint("certificate is refused")
    broker.wait_accepted(ATTEMPTS)
    one.leave()
    assert not any(carried), carried


def heard(client):
    try:
        return client.recv(1)
    except OSError:
        return b""


@pytest.mark.parametrize("name", OVER_AMQP)
@pytest.mark.parametrize("answer, words", [(b"", "without a word"), (UNEXPECTED_MESSAGE, "speaks TLS")], ids=["nothing", "alert"])
def test_a_tls_port_is_taken_for_a_plain_one(room, start, terminator, contexts, name, answer, words):
    """amqp:// where amqps:// is meant.  OpenSSL's servers close the connection, others send an alert."""
    broker = terminator(room.room.amqp_uri, contexts["right"])
    broker.last_word = answer
    one = start(name, AMQP_URI=broker.uri(tls=False)).wait_alive()
    assert_refused(one, broker, "cannot connect to the broker", (words, "amqps://"))
    broker.context = None
    one.wait_is_ready()
    one.leave()


@pytest.mark.parametrize("name", OVER_AMQP)
@pytest.mark.parametrize("content, words", [(None, "No such file"), ("no certificate\n", "")], ids=["missing", "no certificate"])
def test_a_cafile_that_is_none(room, start, terminator, contexts, authority, tmp_path, name, content, words):
    """The file is named, and read anew with each attempt."""
    broker = terminator(room.room.amqp_uri, contexts["right"])
    cafile = tmp_path / "authorities.pem"
    if content is not None:
        cafile.write_text(content)
    one = start(name, AMQP_URI=broker.uri(cafile=cafile)).wait_alive()
    said = assert_refused(one, broker, "cannot connect to the broker", (str(cafile), words))
    assert "unknown" not in said["reason"], said
    cafile.write_bytes(authority.path.read_bytes())
    one.wait_is_ready()
    one.leave()


# ---- another PostgreSQL -----------------------------------------------------------------------------------------------

# libpq says of a certificate that it cannot be verified, not why (an authority, a date).
TO_POSTGRES = {
    "another authority": ("certificate verify failed",),
    "another host": ("does not match host name",),
    "expired": ("certificate verify failed",),
    "TLS 1.1": ("SSL", "protocol"),
    "no TLS": ("does not support SSL",),
}


@pytest.mark.parametrize("shown", TO_POSTGRES)
def test_another_postgresql_is_refused(room, start, terminator, contexts, authority, shown):
    postgres = terminator(room.room.postgres_uri, contexts[shown])
    # An address: "localhost" is two, tried in turn, and each has a reason of its own to be told of.
    uri = postgres.uri(sslmode="verify-full", sslrootcert=authority.path)
    one = start("orders", POSTGRES_URI=uri).wait_alive()
    assert_refused(one, postgres, "database down", TO_POSTGRES[shown])

    postgres.context = contexts["right"]
    one.wait_is_ready()
    wait_until(lambda: one.metric("orders_store_connections") == DATABASE_CONNECTIONS, "all connections are up")
    one.mark()
    postgres.context = contexts[shown]
    postgres.kick()
    one.wait_complaint("database down", *TO_POSTGRES[shown])  # also behind the line that it was lost
    postgres.wait_accepted(postgres.accepted + ATTEMPTS)
    assert not one.is_ready
    assert len(one.complaints("database down")) <= LOST_LINES_MAX
    one.leave()
    assert_keeps_secrets(one)


# ---- settings ---------------------------------------------------------------------------------------------------------

BROKER = f"someone:{CANARY}@127.0.0.1:1"
REFUSED = {
    **{
        (name, "AMQP_URI", uri): words
        for name in program.PATHS
        for uri, words in {
            f"amqps://{BROKER}/?verify=none": "verify",
            f"amqps://{BROKER}/?cafile=/a.pem&verify_peer=false": "verify_peer",
            f"amqps://{BROKER}/?cafile=/a.pem&cafile=/b.pem": "twice",
            f"amqps://{BROKER}/?cafile=": "no value",
            f"amqps://{BROKER}/?keyfile=/a.key": "certfile",
            f"amqp://{BROKER}/?cafile=/a.pem": "amqps://",
        }.items()
    },
    ("products", "REDIS_URI", f"rediss://{BROKER}/0"): "TLS",
    ("products", "REDIS_URI", f"rediss://{BROKER}/0?ssl_cert_reqs=none"): "TLS",
    ("orders", "POSTGRES_URI", f"postgresql://{BROKER}/orders?sslverify=no"): "postgresql://",
    ("orders", "POSTGRES_URI", f"postgresql://{BROKER}/orders?sslmode=maybe"): "sslmode",
}


@pytest.mark.parametrize("name, setting, uri", REFUSED)
def test_a_setting_that_is_none(name, setting, uri):
    """An option that nobody knows might have been meant to protect: nothing starts."""
    code, output, errors = program.run(name, environment={setting: uri})
    assert code == 2, errors
    assert setting in errors and REFUSED[name, setting, uri] in errors, errors
    assert len(errors.strip().splitlines()) <= 2, errors
    assert CANARY not in output + errors

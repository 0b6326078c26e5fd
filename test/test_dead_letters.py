"""Dead letters: what products cannot handle is kept, told of, tried again, and replayed by `rpc dead-letters`."""
import os
import subprocess

import pika
import pytest

from support.clock import wait_until
from support.program import BUILD_DIR

RPC = BUILD_DIR / "rpclib" / "rpc"
QUEUE = "products.dead-letters"
EVENTS = "evt-orders-order_created--products.handle_order_created"


@pytest.fixture(scope="module")
def shop(make_shop):
    shop = make_shop()
    shop.add("products").start()
    shop.programs[0].wait_ready()
    return shop


@pytest.fixture(scope="module")
def channel(shop):
    connection = pika.BlockingConnection(pika.URLParameters(shop.uris["amqp"]))
    yield connection.channel()
    connection.close()


def rpc_of(service, shop, *words):
    """(exit code, output, errors)"""
    environment = dict(os.environ, AMQP_URI=shop.uris["amqp"], LOG_LEVEL="error")
    done = subprocess.run([RPC, "dead-letters", service, *words], env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def rpc(shop, *words):
    return rpc_of("products", shop, *words)[:2]


def count(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


def letter_of(channel, queue):
    """The one letter in the queue, which it leaves: (properties, body)."""
    wait_until(lambda: count(channel, queue) == 1, f"a letter in {queue}")
    _, properties, body = channel.basic_get(queue, auto_ack=True)
    return properties, body


def origin(properties):
    """Where a letter says that it was published at first, and in which queue it failed."""
    return tuple(properties.headers[f"x-airship-{name}"] for name in ("exchange", "routing-key", "queue"))


def exists(channel, queue):
    other = channel.connection.channel()  # a missing queue closes the channel that asks
    try:
        other.queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker as error:
        assert error.reply_code == 404, error
        return False
    other.close()
    return True


def publish_event(channel, body):
    channel.basic_publish("orders.events", "order_created", body,
                          pika.BasicProperties(content_type="application/json", headers={"nameko.trace": "t1"},
                                               expiration="600000"))


@pytest.mark.parametrize("body", [b"{", b"[1, 2]", b'{"order": 7}', b"\xff"])
def test_an_event_that_can_never_be_handled_is_kept(shop, channel, body):
    channel.queue_purge(QUEUE)
    publish_event(channel, body)
    wait_until(lambda: count(channel, QUEUE) == 1, "the letter")
    method, properties, kept = channel.basic_get(QUEUE)
    channel.basic_nack(method.delivery_tag, requeue=True)
    assert kept == body
    assert properties.delivery_mode == 2 and properties.expiration is None
    headers = properties.headers
    assert headers["nameko.trace"] == "t1"
    assert headers["x-airship-queue"] == EVENTS
    assert headers["x-airship-exchange"] == "orders.events"
    assert headers["x-airship-routing-key"] == "order_created"
    assert headers["x-airship-attempts"] == 1
    assert headers["x-airship-cause"] and headers["x-airship-time"].endswith("Z")


def test_a_request_that_is_no_json_is_kept(shop, channel):
    channel.queue_purge(QUEUE)
    channel.basic_publish("nameko-rpc", "products.get", b"no json",
                          pika.BasicProperties(content_type="application/json", reply_to="x", correlation_id="c"))
    wait_until(lambda: count(channel, QUEUE) == 1, "the letter")


def test_the_command_lists_shows_replays_and_purges(shop, channel):
    channel.queue_purge(QUEUE)
    for body in (b"{1", b"{2"):
        publish_event(channel, body)
    wait_until(lambda: count(channel, QUEUE) == 2, "two letters")
    code, text = rpc(shop, "list")
    assert code == 0 and text.splitlines()[-1] == f"2 in {QUEUE}" and "order_created" in text
    code, text = rpc(shop, "show", "2")
    assert code == 0 and "body        {2" in text.splitlines() and f"queue       {EVENTS}" in text.splitlines()
    assert rpc(shop, "show", "3")[0] == 1
    code, text = rpc(shop, "replay", "all", "--dry-run")
    assert code == 0 and text.splitlines()[-1] == "2 would be replayed"
    assert rpc(shop, "purge", "all", "--dry-run")[0] == 0
    wait_until(lambda: count(channel, QUEUE) == 2, "nothing has changed")
    assert rpc(shop, "purge", "1") == (0, "1 purged\n")
    wait_until(lambda: count(channel, QUEUE) == 1, "one letter less")
    assert rpc(shop, "replay", "1") == (0, "1 replayed\n")
    wait_until(lambda: count(channel, QUEUE) == 1, "it fails again")
    assert rpc(shop, "purge", "all") == (0, "1 purged\n")
    assert rpc(shop, "list") == (0, f"0 in {QUEUE}\n")


@pytest.mark.parametrize(
    "words", [[], ["lst"], ["show"], ["show", "0"], ["replay", "x"], ["purge", "1", "--dry"], ["list", "1"]])
def test_wrong_words_change_nothing(shop, words):
    assert rpc(shop, *words)[0] == 2


@pytest.mark.parametrize(
    "words", [["list"], ["show", "1"], ["replay", "1"], ["replay", "all", "--dry-run"], ["purge", "all"]], ids="_".join)
def test_a_name_without_dead_letters_is_told_and_nothing_is_made(shop, channel, words):
    code, text, errors = rpc_of("prodcts", shop, *words)
    assert (code, text) == (1, "")
    assert errors.startswith("rpc: there is no queue prodcts.dead-letters") and errors.count("\n") == 1, errors
    assert not exists(channel, "prodcts.dead-letters")


def test_a_replayed_event_goes_to_its_queue_alone_and_keeps_its_origin(shop, channel):
    """Other subscribers have handled theirs; where it was published is told by its next letter as well."""
    channel.queue_purge(QUEUE)
    other = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(other, "orders.events", "order_created")
    publish_event(channel, b"{again")
    for _ in range(2):
        wait_until(lambda: count(channel, QUEUE) == 1, "the letter")
        assert rpc(shop, "replay", "1") == (0, "1 replayed\n")
        wait_until(lambda: count(channel, QUEUE) == 1, "it fails again")
    properties, body = letter_of(channel, QUEUE)
    assert (origin(properties), body) == (("orders.events", "order_created", EVENTS), b"{again")
    assert properties.headers["x-airship-attempts"] == 1, "they count anew"
    assert properties.headers["nameko.trace"] == "t1"
    assert count(channel, other) == 1, "as it was published"
    channel.queue_delete(other)


def test_a_replayed_request_goes_by_its_exchange(shop, channel):
    """Its routing key names the method."""
    channel.queue_purge(QUEUE)
    channel.basic_publish("nameko-rpc", "products.get", b"no json",
                          pika.BasicProperties(content_type="application/json", reply_to="x", correlation_id="c"))
    wait_until(lambda: count(channel, QUEUE) == 1, "the letter")
    assert rpc(shop, "replay", "1") == (0, "1 replayed\n")
    properties, body = letter_of(channel, QUEUE)
    assert (origin(properties), body) == (("nameko-rpc", "products.get", "rpc-products"), b"no json")
    assert (properties.reply_to, properties.correlation_id) == ("x", "c")


def test_an_event_that_is_tried_again_keeps_its_origin(shop, channel):
    """What comes back from the queue in which it waits has come by no exchange."""
    retries = []
    channel.basic_consume(f"{EVENTS}.retry-5000", lambda *message: retries.append(message[2]), auto_ack=True, consumer_tag="retry")
    shop.redis().set("products:damaged", "no hash")
    publish_event(channel, b'{"order": {"id": 4712, "order_details": '
                           b'[{"id": 1, "product_id": "damaged", "price": "1.00", "quantity": 3}]}}')

    def has_failed_twice():
        channel.connection.process_data_events()
        return retries

    wait_until(has_failed_twice, "the second failure")
    channel.basic_cancel("retry")
    assert retries[0].headers["x-airship-attempts"] == 2
    assert origin(retries[0]) == ("orders.events", "order_created", EVENTS)


def test_dead_letters_of_a_service_that_does_not_run(shop, channel):
    channel.queue_declare("stopped.dead-letters", durable=True)
    channel.basic_publish("", "stopped.dead-letters", b"{", pika.BasicProperties(delivery_mode=2))
    wait_until(lambda: count(channel, "stopped.dead-letters") == 1, "the letter")
    code, text, errors = rpc_of("stopped", shop, "list")
    assert (code, text.splitlines()[-1], errors) == (0, "1 in stopped.dead-letters", "")
    assert rpc_of("stopped", shop, "purge", "all") == (0, "1 purged\n", "")


def test_an_event_that_fails_is_tried_again_later_and_then_handled(shop, channel):
    """A product whose hash is of another kind fails the script; once it is mended, the retry applies the event."""
    channel.queue_purge(QUEUE)
    database = shop.redis()
    database.set("products:mended", "no hash")
    publish_event(channel, b'{"order": {"id": 4711, "order_details": '
                           b'[{"id": 1, "product_id": "mended", "price": "1.00", "quantity": 3}]}}')
    wait_until(lambda: "not handled this time" in shop.programs[0].log_since_mark(), "the first attempt")
    database.delete("products:mended")
    database.hset("products:mended", mapping={"id": "mended", "title": "t", "passenger_capacity": 1, "maximum_speed": 1,
                                              "in_stock": 10})
    wait_until(lambda: database.hget("products:mended", "in_stock") == "7", "the event applied")
    assert count(channel, QUEUE) == 0


def test_a_deleted_queue_is_declared_again(shop, channel):
    """The message that found it missing is not lost, and does not come again at full speed meanwhile."""
    channel.queue_delete(QUEUE)
    publish_event(channel, b"{deleted")

    wait_until(lambda: exists(channel, QUEUE) and count(channel, QUEUE) == 1, "the letter, in a new queue")
    assert shop.programs[0].log().count(b"could not be put aside") < 20
    assert rpc(shop, "purge", "all") == (0, "1 purged\n")

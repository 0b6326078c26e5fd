/* rpc_publisher: every event ends exactly once, with RPC_OK only when the broker said that it has it. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpclib/log.h"
#include "rpclib/publisher.h"
#include "simulation/peer.h"
#include "story.h"

#define EVENTS_MAX 64
#define CHANNEL    1
#define TIMEOUT_MS 3000

static struct rpc_publisher *publisher;
static char story[STORY_SIZE];
static unsigned ready, next_event, publishes_in_callback;

#define tell(...)          story_tell(story, __VA_ARGS__)
#define story_is(expected) story_compare(story, expected, "events ended", __LINE__)

static unsigned numbers[EVENTS_MAX];

static void on_confirm(enum rpc_status status, void *arg);

static enum rpc_status publish_one(void)
{
    unsigned number = next_event + 1; /* as the broker numbers them on the first channel */
    enum rpc_status status;

    assert_true(number < EVENTS_MAX);
    numbers[number] = number;
    status =
        rpc_publish(publisher, "order_created", RPC_BYTES("{\"a\": 1}"), NULL, on_confirm, (void *)&numbers[number]);
    if (status == RPC_OK)
        next_event++;
    return status;
}

static void on_confirm(enum rpc_status status, void *arg)
{
    tell("%u %s", *(unsigned *)arg, rpc_status_name(status));
    while (publishes_in_callback > 0) {
        enum rpc_status again = RPC_OK;

        publishes_in_callback--;
        again = publish_one();
        tell("again %s", rpc_status_name(again));
    }
}

static void publish(unsigned count)
{
    while (count-- > 0)
        assert_int_equal(publish_one(), RPC_OK);
    peer_run();
}

static void on_ready(void *arg)
{
    (void)arg;
    ready++;
}

static void start(bool mandatory, uint32_t unconfirmed_max)
{
    publisher = rpc_publisher_new(peer.connection, &(struct rpc_publisher_options){.source = "orders",
                                                                                   .unconfirmed_max = unconfirmed_max,
                                                                                   .mandatory = mandatory,
                                                                                   .confirm_timeout_ms = TIMEOUT_MS,
                                                                                   .on_ready = on_ready});
    assert_non_null(publisher);
    assert_false(rpc_publisher_ready(publisher));
    assert_int_equal(publish_one(), RPC_OFFLINE);
    peer_run();
    assert_true(rpc_publisher_ready(publisher));
    assert_int_equal(ready, 1);
}

static int setup(void **state)
{
    (void)state;
    rpc_log_configure("test", RPC_LOG_ERROR + 1, RPC_LOG_LOGFMT);
    story[0] = '\0';
    ready = next_event = publishes_in_callback = 0;
    publisher = NULL;
    peer_init();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rpc_publisher_free(publisher);
    publisher = NULL;
    peer_clear();
    return 0;
}

static void test_set_up_and_event(void **state)
{
    struct rpc_context *context = rpc_context_new("orders", "create_order");
    const struct peer_message *message = &peer.messages[0];

    (void)state;
    start(false, 0);
    assert_string_equal(peer.declared, "1 open; 1 exchange orders.events topic durable; 1 confirm");
    assert_int_equal(
        rpc_publish(publisher, "order_created", RPC_BYTES("{\"order\": 1}"), context, on_confirm, &numbers[0]), RPC_OK);
    rpc_context_free(context);
    peer_run();
    peer_story_is("1 publish orders.events/order_created");
    assert_false(message->mandatory);
    assert_string_equal(message->content_type, "application/json");
    assert_string_equal(message->content_encoding, "utf-8");
    assert_int_equal(message->delivery_mode, 2);
    assert_int_equal(message->priority, 0);
    assert_string_equal(message->expiration, "");
    assert_string_equal(message->reply_to, "");
    assert_string_equal(message->body, "{\"order\": 1}");
    assert_int_equal(strncmp(message->headers, "{\"nameko.call_id_stack\": [\"orders.create_order.", 47), 0);
    assert_int_equal(rpc_publisher_unconfirmed(publisher), 1);
}

static void test_confirms_in_any_order(void **state)
{
    (void)state;
    start(false, 0);
    publish(8);
    peer_confirm(CHANNEL, 3, false, true);
    peer_confirm(CHANNEL, 1, false, true);
    peer_confirm(CHANNEL, 6, false, false);
    peer_run();
    story_is("3 ok; 1 ok; 6 refused");
    peer_confirm(CHANNEL, 5, true, true); /* 2, 4 and 5; 1 and 3 are done */
    peer_run();
    story_is("2 ok; 4 ok; 5 ok");
    peer_confirm(CHANNEL, 5, true, false);
    peer_confirm(CHANNEL, 3, false, true);
    peer_confirm(CHANNEL, 9, false, true); /* never published */
    peer_confirm(CHANNEL, 9, true, true);
    peer_confirm(CHANNEL, UINT64_MAX, true, true);
    peer_confirm(CHANNEL, 0, false, true);
    peer_run();
    story_is("");
    assert_int_equal(rpc_publisher_unconfirmed(publisher), 2);
    peer_confirm(CHANNEL, 0, true, false); /* all so far */
    peer_run();
    story_is("7 refused; 8 refused");
    assert_int_equal(rpc_publisher_unconfirmed(publisher), 0);
    publish(1);
    peer_confirm(CHANNEL, 9, false, true);
    peer_run();
    story_is("9 ok");
}

static void test_returned(void **state)
{
    (void)state;
    start(true, 0);
    publish(4);
    assert_true(peer.messages[0].mandatory);
    peer_return(1);
    peer_return(3);
    peer_return(1);
    peer_confirm(CHANNEL, 3, true, true);
    peer_confirm(CHANNEL, 4, false, false); /* refused tells more than returned */
    peer_run();
    story_is("1 ok; 2 unknown_service; 3 ok; 4 refused");
    peer_return(2); /* its event has ended */
    peer_run();
    story_is("");
}

static void test_busy(void **state)
{
    (void)state;
    start(false, 3);
    publish(3);
    assert_int_equal(publish_one(), RPC_BUSY);
    peer_confirm(CHANNEL, 2, false, true);
    peer_run();
    story_is("2 ok");
    assert_int_equal(publish_one(), RPC_BUSY); /* numbers are never left out: 1 holds the ring up */
    peer_confirm(CHANNEL, 1, false, true);
    peer_run();
    story_is("1 ok");
    publish(2);
    assert_int_equal(publish_one(), RPC_BUSY);
    peer_confirm(CHANNEL, 5, true, true);
    peer_run();
    story_is("3 ok; 4 ok; 5 ok");
}

static void test_publish_within_a_callback(void **state)
{
    (void)state;
    start(false, 2);
    publish(2);
    publishes_in_callback = 1;
    peer_confirm(CHANNEL, 1, false, true);
    peer_run();
    story_is("1 ok; again ok");
    assert_int_equal(rpc_publisher_unconfirmed(publisher), 2);
    publishes_in_callback = 2;
    peer_confirm(CHANNEL, 3, true, true);
    peer_run();
    story_is("2 ok; again ok; again busy; 3 ok"); /* 4 took the place of 2, and has not ended with it */
    assert_int_equal(rpc_publisher_unconfirmed(publisher), 1);
    peer_confirm(CHANNEL, 4, false, true);
    peer_run();
    story_is("4 ok");
}

/* Ending the first of many makes the ring jump over those confirmed before; what a callback puts there is not theirs. */
static void test_multiple_with_a_callback_that_publishes(void **state)
{
    (void)state;
    start(false, 2);
    publish(2);
    peer_confirm(CHANNEL, 2, false, true);
    peer_run();
    story_is("2 ok");
    publishes_in_callback = 2;
    peer_confirm(CHANNEL, 2, true, true);
    peer_run();
    story_is("1 ok; again ok; again ok");
    assert_int_equal(rpc_publisher_unconfirmed(publisher), 2);
    peer_confirm(CHANNEL, 4, true, false);
    peer_run();
    story_is("3 refused; 4 refused");
}

static void test_timeout(void **state)
{
    (void)state;
    start(false, 4);
    publish(1);
    peer_advance(1000);
    publish(2);
    peer_confirm(CHANNEL, 2, false, true);
    peer_advance(TIMEOUT_MS - 1001);
    story_is("2 ok");
    peer_advance(1);
    story_is("1 timeout");
    peer_advance(999);
    story_is("");
    peer_advance(1);
    story_is("3 timeout");
    peer_confirm(CHANNEL, 3, true, true); /* too late */
    peer_run();
    story_is("");
    publish(4);
    peer_confirm(CHANNEL, 1, false, true);
    peer_confirm(CHANNEL, 7, false, true);
    peer_run();
    story_is("7 ok");
    peer_advance(TIMEOUT_MS);
    story_is("4 timeout; 5 timeout; 6 timeout");
    assert_int_equal(rpc_publisher_unconfirmed(publisher), 0);
}

static void test_timeout_with_a_callback_that_publishes(void **state)
{
    (void)state;
    start(false, 1);
    publish(1);
    publishes_in_callback = 1;
    peer_advance(TIMEOUT_MS);
    story_is("1 timeout; again ok");
    peer_advance(TIMEOUT_MS - 1);
    story_is("");
    peer_advance(1);
    story_is("2 timeout");
}

static void lost_after_at(size_t room, const char *expected, int line)
{
    struct network_link *link = network_link();

    next_event = 0;
    link->room = room;
    assert_int_equal(publish_one(), RPC_OK);
    assert_int_equal(publish_one(), RPC_OK);
    peer.silent = true;
    peer_run();
    publishes_in_callback = 1;
    peer_hang_up(ECONNRESET);
    fake_loop_fire(peer.loop, link->fd, RPC_LOOP_READ);
    story_compare(story, expected, "events ended", line);
    assert_false(rpc_publisher_ready(publisher));
    peer.silent = false;
    peer_advance(RPC_RECONNECT_MAX_MS);
    assert_true(rpc_publisher_ready(publisher));
    next_event = 0; /* the new channel numbers anew */
    publish(1);
    peer_confirm(CHANNEL, 1, false, true);
    peer_run();
    story_compare(story, "1 ok", "events ended", line);
    peer_advance(TIMEOUT_MS * 2);
    story_compare(story, "", "events ended", line);
}

#define lost_after(room, expected) lost_after_at(room, expected, __LINE__)

static void test_lost(void **state)
{
    (void)state;
    start(false, 0);
    lost_after(0, "1 offline; again offline; 2 offline");
    lost_after(1, "1 lost; again offline; 2 offline");
    lost_after(SIZE_MAX, "1 lost; again offline; 2 lost");
}

static void test_channel_closed(void **state)
{
    (void)state;
    start(false, 0);
    publish(2);
    PEER_METHOD(CHANNEL, CHANNEL_CLOSE, channel_close, .reply_code = 404, .reply_text = amqp_cstring_bytes("NO"));
    peer_run();
    story_is("1 lost; 2 lost");
    peer_advance(200);
    assert_int_equal(ready, 2);
    next_event = 0;
    publish(1);
    peer_confirm(CHANNEL, 1, false, true);
    peer_run();
    story_is("1 ok");
}

static void test_blocked(void **state)
{
    (void)state;
    start(false, 0);
    publish(1);
    peer_block(true);
    peer_run();
    assert_int_equal(publish_one(), RPC_BLOCKED);
    peer_confirm(CHANNEL, 1, false, true);
    peer_block(false);
    peer_run();
    story_is("1 ok");
    assert_int_equal(ready, 2); /* events are taken again */
    publish(1);
    peer_confirm(CHANNEL, 2, false, true);
    peer_run();
    story_is("2 ok");
}

static void test_too_large(void **state)
{
    static char large[RPC_MESSAGE_SIZE_MAX + 1];
    char name[RPC_NAME_SIZE_MAX + 2];

    (void)state;
    start(false, 0);
    memset(name, 'n', sizeof(name));
    name[RPC_NAME_SIZE_MAX + 1] = '\0';
    assert_int_equal(
        rpc_publish(publisher, "e", (struct rpc_bytes){large, sizeof(large)}, NULL, on_confirm, &numbers[0]),
        RPC_TOO_LARGE);
    assert_int_equal(rpc_publish(publisher, name, RPC_BYTES("1"), NULL, on_confirm, &numbers[0]), RPC_TOO_LARGE);
    publish(1); /* neither took a number */
    peer_confirm(CHANNEL, 1, false, true);
    peer_run();
    story_is("1 ok");
}

static void test_free_with_events_in_flight(void **state)
{
    (void)state;
    start(false, 0);
    publish(2);
    publishes_in_callback = 1;
    rpc_publisher_free(publisher);
    publisher = NULL;
    story_is("1 cancelled; again offline; 2 cancelled");
    peer_confirm(CHANNEL, 2, true, true);
    peer_run();
    story_is("");
    assert_int_equal(rpc_connection_state(peer.connection), RPC_CONNECTION_UP);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* A caller's bug ends the program; it would take an event that nobody confirmed for confirmed. */
static void test_without_a_callback(void **state)
{
    int status;
    pid_t child = fork();

    (void)state;
    if (child == 0) {
        close(STDERR_FILENO); /* the assertion's words */
        signal(SIGABRT, SIG_DFL);
        rpc_publish(publisher, "order_created", RPC_BYTES("1"), NULL, NULL, NULL);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_without_a_callback),
        TEST(test_set_up_and_event),
        TEST(test_confirms_in_any_order),
        TEST(test_returned),
        TEST(test_busy),
        TEST(test_publish_within_a_callback),
        TEST(test_multiple_with_a_callback_that_publishes),
        TEST(test_timeout),
        TEST(test_timeout_with_a_callback_that_publishes),
        TEST(test_lost),
        TEST(test_channel_closed),
        TEST(test_blocked),
        TEST(test_too_large),
        TEST(test_free_with_events_in_flight),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

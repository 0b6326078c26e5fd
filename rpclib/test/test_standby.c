/* A service whose store is away: it leaves its queues to others while there are any, and comes back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "service_fixture.h"
#include "session.h"

#define CONSUME "1 consume rpc-products"

/* What it sends when it next looks round, `consumers` being there then; nothing before. */
static void next_look_is_at(unsigned consumers, const char *expected, int line)
{
    unsigned waited_ms = 0;

    peer.consumers = consumers;
    while (peer.story[0] == '\0' && waited_ms++ < RPC_STANDBY_MS)
        peer_advance(1);
    if (waited_ms < RPC_STANDBY_MS / 2 || waited_ms > RPC_STANDBY_MS)
        fail_msg("line %d: after %u ms", line, waited_ms);
    peer_story_is_at(expected, line);
}

#define next_look_is(consumers, expected) next_look_is_at(consumers, expected, __LINE__)

static void consumed_again_at(bool expected, int line)
{
    if ((strcmp(peer.declared, CONSUME) == 0) != expected)
        fail_msg("line %d: declared \"%s\"", line, peer.declared);
    peer.declared[0] = '\0';
}

#define consumed_again(expected) consumed_again_at(expected, __LINE__)

static void test_standby(void **state)
{
    struct rpc_service_stats stats;

    (void)state;
    start(0);
    peer.declared[0] = '\0';
    peer_request(REQUESTS, 1, "products.hold", "a", HOLD);
    peer_run();
    rpc_service_set_able(service, false);
    rpc_service_set_able(service, false);
    next_look_is(1, "1 look"); /* alone */
    assert_true(rpc_service_ready(service));
    peer_request(REQUESTS, 2, "products.list", "b", HOLD);
    peer_run();
    peer_story_is("1 publish nameko-rpc/caller");
    next_look_is(2, "1 look; 1 cancel; 1 ack 2; 1 look"); /* acknowledgements are not held back any more */
    assert_false(rpc_service_ready(service));
    assert_int_equal(standbys, 1);
    rpc_incoming_answer_json(held[0], json_true()); /* what was begun is finished */
    peer_request(REQUESTS, 3, "products.list", "c", HOLD);
    peer_run();
    peer_story_is("1 publish nameko-rpc/caller; 1 ack 1; 1 reject 3 requeue");
    next_look_is(1, "1 look");
    next_look_is(3, "1 look");
    consumed_again(false);
    assert_int_equal(standbys, 1);
    rpc_service_set_able(service, true);
    peer_run();
    consumed_again(true);
    assert_int_equal(ready, 2);
    peer_request(REQUESTS, 4, "products.list", "d", HOLD);
    peer_advance(5 * RPC_STANDBY_MS);
    peer_story_is("1 publish nameko-rpc/caller; 1 ack 4");
    rpc_service_stats(service, &stats);
    assert_int_equal(stats.handed_back, 1);
}

/* An instance whose store is not there yet, among `others`: it looks before it consumes anything. */
static void start_unable(unsigned others)
{
    peer.consumers = others;
    service = rpc_service_new(peer.connection, &(struct rpc_service_options){.name = "products",
                                                                             .methods = methods,
                                                                             .methods_count = METHODS_COUNT,
                                                                             .unable = true,
                                                                             .on_ready = on_ready,
                                                                             .on_standby = on_standby});
    assert_non_null(service);
    peer_run();
    peer_story_is("1 look");
}

/* One whose store is not there yet takes nothing from those that have theirs. */
static void test_unable_at_first(void **state)
{
    (void)state;
    start_unable(1);
    assert_null(strstr(peer.declared, "consume"));
    next_look_is(1, "1 look");
    rpc_service_set_able(service, true);
    peer_run();
    assert_non_null(strstr(peer.declared, CONSUME));
    assert_int_equal(ready, 1);
    assert_int_equal(standbys, 0);
    peer_advance(3 * RPC_STANDBY_MS);
    peer_story_is("");
}

/* Alone it answers what comes, by errors. */
static void test_unable_at_first_and_alone(void **state)
{
    (void)state;
    start_unable(0);
    assert_non_null(strstr(peer.declared, CONSUME));
    assert_true(rpc_service_ready(service));
    next_look_is(1, "1 look");
}

static void test_standby_ends_when_nobody_is_left(void **state)
{
    (void)state;
    start(0);
    peer.declared[0] = '\0';
    rpc_service_set_able(service, false);
    next_look_is(2, "1 look; 1 cancel; 1 look");
    next_look_is(0, "1 look");
    consumed_again(true);
    assert_true(rpc_service_ready(service));
    next_look_is(1, "1 look");
    next_look_is(2, "1 look; 1 cancel; 1 look");
    assert_int_equal(standbys, 2);
    consumed_again(false);
}

/* The other one left in the same moment. */
static void test_standby_of_two_at_once(void **state)
{
    (void)state;
    start(0);
    peer.declared[0] = '\0';
    peer.holds_answers = true;
    rpc_service_set_able(service, false);
    next_look_is(0, "1 look");
    PEER_METHOD(REQUESTS, QUEUE_DECLARE_OK, queue_declare_ok, .consumer_count = 2);
    peer_run();
    peer_story_is("1 cancel"); /* and no question behind it: RabbitMQ may answer that first */
    PEER_METHOD(REQUESTS, BASIC_CANCEL_OK, basic_cancel_ok, .consumer_tag = amqp_cstring_bytes("requests"));
    peer_run();
    peer_story_is("1 look");
    PEER_METHOD(REQUESTS, QUEUE_DECLARE_OK, queue_declare_ok, .consumer_count = 0);
    peer_run();
    consumed_again(true);
    assert_int_equal(standbys, 0);
    peer_advance(2 * RPC_STANDBY_MS); /* nor behind a consume */
    peer_story_is("");
    PEER_METHOD(REQUESTS, BASIC_CONSUME_OK, basic_consume_ok, .consumer_tag = amqp_cstring_bytes("requests"));
    peer_run();
    peer_story_is("1 look");
    peer_advance(2 * RPC_STANDBY_MS); /* one that is not answered is not asked again */
    peer_story_is("");
}

/* Able again before the broker has said that there are others. */
static void test_able_while_it_leaves(void **state)
{
    (void)state;
    start(0);
    peer.declared[0] = '\0';
    peer.holds_answers = true;
    rpc_service_set_able(service, false);
    next_look_is(0, "1 look");
    rpc_service_set_able(service, true);
    PEER_METHOD(REQUESTS, QUEUE_DECLARE_OK, queue_declare_ok, .consumer_count = 2);
    peer_run();
    peer_story_is("");
    rpc_service_set_able(service, false);
    next_look_is(0, "1 look");
    PEER_METHOD(REQUESTS, QUEUE_DECLARE_OK, queue_declare_ok, .consumer_count = 2);
    peer_run();
    peer_story_is("1 cancel");
    rpc_service_set_able(service, true);
    consumed_again(false); /* not sent yet */
    peer_run();
    consumed_again(true);
    PEER_METHOD(REQUESTS, BASIC_CANCEL_OK, basic_cancel_ok, .consumer_tag = amqp_cstring_bytes("requests"));
    PEER_METHOD(REQUESTS, BASIC_CONSUME_OK, basic_consume_ok, .consumer_tag = amqp_cstring_bytes("requests"));
    peer_run();
    peer_story_is("1 look"); /* it was to be; what comes of it does not matter any more */
    PEER_METHOD(REQUESTS, QUEUE_DECLARE_OK, queue_declare_ok, .consumer_count = 2);
    peer_request(REQUESTS, 1, "products.list", "b", HOLD);
    peer_run();
    peer_story_is("1 publish nameko-rpc/caller; 1 ack 1");
    assert_true(rpc_service_ready(service));
    assert_int_equal(standbys, 0);
}

static void test_standby_over_a_lost_link(void **state)
{
    (void)state;
    start(0);
    rpc_service_set_able(service, false);
    next_look_is(2, "1 look; 1 cancel; 1 look");
    peer_hang_up(ECONNRESET);
    peer_run();
    peer.declared[0] = '\0';
    peer_advance(RPC_RECONNECT_MAX_MS); /* it looks at once, and may look again */
    assert_non_null(strstr(peer.declared, "1 queue rpc-products durable"));
    assert_null(strstr(peer.declared, "consume"));
    assert_int_equal(strncmp(peer.story, "1 look", 6), 0);
    peer_hang_up(ECONNRESET);
    peer_run();
    peer.story[0] = peer.declared[0] = '\0';
    peer.consumers = 0;
    while (peer.story[0] == '\0')
        peer_advance(1);
    peer_story_is("1 look");
    assert_non_null(strstr(peer.declared, CONSUME));
    peer_hang_up(ECONNRESET);
    peer_run();
    rpc_service_set_able(service, true);
    peer.declared[0] = '\0';
    peer_advance(RPC_RECONNECT_MAX_MS);
    assert_non_null(strstr(peer.declared, CONSUME));
    peer_story_is("");
}

static void test_stop_while_standing_by(void **state)
{
    (void)state;
    start(0);
    rpc_service_set_able(service, false);
    next_look_is(2, "1 look; 1 cancel; 1 look");
    peer.declared[0] = '\0';
    rpc_service_stop(service, 1000, on_stopped, NULL);
    rpc_service_set_able(service, true);
    peer_advance(1);
    assert_int_equal(stopped, 1);
    peer_story_is("");
    assert_string_equal(peer.declared, "");
}

/* Events that wait for the store are for the others; those that every instance gets are not. */
static void test_standby_of_events(void **state)
{
    (void)state;
    start(1);
    event(EVENTS, "1");
    assert_false(rpc_event_standby(held_events[0]));
    rpc_service_set_able(service, false);
    next_look_is(2, "1 look; 2 look; 1 cancel; 2 cancel; 1 look; 2 look");
    assert_int_equal(standbys, 2);
    assert_true(rpc_event_standby(held_events[0]));
    rpc_event_hand_back(held_events[0]);
    event(EVENTS, "2");
    peer_story_is("2 reject 1 requeue; 2 reject 1 requeue");
    assert_int_equal(held_events_count, 1);
    rpc_service_set_able(service, true);
    peer_run();
    event(EVENTS, "3");
    assert_false(rpc_event_standby(held_events[1]));
    rpc_service_free(service);
    service = NULL;
    assert_false(rpc_event_standby(held_events[1]));
    rpc_event_done(held_events[1]);
}

static void never_stands_by_at(const struct rpc_event_handler *handler, int line)
{
    setup(NULL);
    service = rpc_service_new(
        peer.connection,
        &(struct rpc_service_options){.name = "listener", .event_handlers = handler, .event_handlers_count = 1});
    peer_run();
    rpc_service_set_able(service, false);
    peer.consumers = 2;
    peer_advance(3 * RPC_STANDBY_MS);
    peer_story_is_at("", line);
    teardown(NULL);
}

#define never_stands_by(...)                                                                      \
    never_stands_by_at(                                                                           \
        &(struct rpc_event_handler){                                                              \
            .source = "orders", .event_type = "order_created", .handler = on_event, __VA_ARGS__}, \
        __LINE__)

static void test_queues_that_are_never_left(void **state)
{
    (void)state;
    never_stands_by(.name = "on_broadcast", .kind = RPC_EVENT_BROADCAST);
    never_stands_by(.name = "on_named", .kind = RPC_EVENT_BROADCAST, .identifier = "me");
    never_stands_by(.name = "on_unreliable", .unreliable = true);
    setup(NULL);
}

/* ---- A broker that does not answer -------------------------------------------------------------------------------- */

/* It was unable when the link came up, and asks for requests later: the same limit, and not ready before the answer. */
static void test_late_consume_without_an_answer(void **state)
{
    (void)state;
    start_unable(1);
    peer.holds_answers = true;
    rpc_service_set_able(service, true);
    silence_is_given_up();
}

/* A cancel and the looks behind it: the oldest question's time counts. */
static void test_standby_without_answers(void **state)
{
    unsigned handshakes = peer.handshakes;

    (void)state;
    service = rpc_service_new(
        peer.connection, &(struct rpc_service_options){.name = "products", .methods = methods, .methods_count = 1});
    peer_run();
    assert_true(rpc_service_ready(service));
    peer.consumers = 2;
    peer.holds_answers = true;
    rpc_service_set_able(service, false);
    peer_advance(RPC_STANDBY_MS);
    peer_story_is("1 look");
    peer_advance(SESSION_SETUP_MAX_MS);
    peer.holds_answers = false;
    peer_advance(RPC_RECONNECT_MAX_MS);
    assert_int_equal(peer.handshakes, handshakes + 1);
    assert_false(rpc_service_ready(service));
}

static void test_stop_before_a_late_consume_is_answered(void **state)
{
    (void)state;
    start_unable(1);
    peer.holds_answers = true;
    rpc_service_set_able(service, true);
    peer_run();
    rpc_service_stop(service, 1000, on_stopped, NULL);
    peer_advance(1);
    assert_int_equal(stopped, 1);
    peer_story_is("1 cancel");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_standby),
        TEST(test_unable_at_first),
        TEST(test_unable_at_first_and_alone),
        TEST(test_standby_ends_when_nobody_is_left),
        TEST(test_standby_of_two_at_once),
        TEST(test_able_while_it_leaves),
        TEST(test_standby_over_a_lost_link),
        TEST(test_stop_while_standing_by),
        TEST(test_standby_of_events),
        cmocka_unit_test_teardown(test_queues_that_are_never_left, teardown),
        TEST(test_late_consume_without_an_answer),
        TEST(test_standby_without_answers),
        TEST(test_stop_before_a_late_consume_is_answered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

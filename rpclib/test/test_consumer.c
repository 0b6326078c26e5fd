/* consumer: which deliveries are acknowledged, when, and by how many methods. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "consumer.h"
#include "rpclib/log.h"
#include "simulation/peer.h"

#define DELIVERIES_MAX 64
#define CHANNEL        1

static struct consumer consumer;
static struct taken *running[DELIVERIES_MAX]; /* by tag; moved up by `generation` times 20 */
static unsigned generation, delivered, changes;

enum on_arrival { TAKE, REFUSE, REFUSE_FOR_GOOD, TAKE_AND_FINISH };
static enum on_arrival on_arrival;

static void on_message(const struct mq_delivery *delivery, void *arg)
{
    struct taken *taken;

    (void)arg;
    delivered++;
    switch (on_arrival) {
    case REFUSE:
    case REFUSE_FOR_GOOD:
        consumer_refuse(&consumer, delivery, on_arrival == REFUSE);
        break;
    case TAKE:
    case TAKE_AND_FINISH:
        taken = calloc(1, sizeof(*taken));
        assert_non_null(taken);
        consumer_take(&consumer, taken, delivery);
        running[delivery->tag + 20 * generation] = taken;
        if (on_arrival == TAKE_AND_FINISH)
            consumer_done(taken);
        break;
    }
}

static void on_change(void *arg)
{
    (void)arg;
    changes++;
}

static void declare(struct mq_channel *channel, void *arg)
{
    (void)arg;
    mq_queue_declare(channel, &(struct mq_queue){.name = "q", .durable = true});
}

static const struct consumer_events events = {.declare = declare, .on_message = on_message, .on_change = on_change};

static void start(uint16_t prefetch)
{
    strcpy(consumer.queue, "q");
    assert_true(consumer_init(&consumer, peer.connection, "test", prefetch, &events, NULL));
}

static int setup(void **state)
{
    (void)state;
    rpc_log_configure("test", RPC_LOG_ERROR + 1, RPC_LOG_LOGFMT);
    memset(&consumer, 0, sizeof(consumer));
    memset(running, 0, sizeof(running));
    generation = delivered = changes = 0;
    on_arrival = TAKE;
    peer_init();
    start(16);
    peer_run();
    assert_string_equal(peer.declared, "1 open; 1 qos 16; 1 queue q durable; 1 consume q");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    consumer_clear(&consumer);
    peer_clear();
    return 0;
}

/* Deliveries with the tags from `first` to `last`. */
static void deliver(unsigned first, unsigned last)
{
    for (unsigned tag = first; tag <= last; tag++)
        peer_deliver(CHANNEL, tag, false, "k", &(amqp_basic_properties_t){0}, RPC_BYTES("1"));
    peer_run();
}

static void done(unsigned tag)
{
    assert_non_null(running[tag]);
    consumer_done(running[tag]);
    running[tag] = NULL;
}

static void reject(unsigned tag, bool requeue)
{
    consumer_reject(running[tag], requeue);
    running[tag] = NULL;
}

/* All that is done in one turn, then what was sent. */
static void sends_at(const char *expected, int line)
{
    peer_run();
    peer_story_is_at(expected, line);
}

#define sends(expected) sends_at(expected, __LINE__)

static void test_many_by_one_method(void **state)
{
    (void)state;
    deliver(1, 6);
    sends("");
    done(1);
    sends("1 ack 1");
    done(3);
    done(2);
    done(4);
    sends("1 ack 4+");
    done(6);
    done(5);
    sends("1 ack 6+");
    assert_int_equal(consumer.running, 0);
    assert_int_equal(consumer.done, 0);
}

/* Behind a slow one they go one by one, and only when they are many; the slow one is never acknowledged with them. */
static void test_slow_one_in_front(void **state)
{
    (void)state;
    deliver(1, 8);
    done(2);
    sends("");
    done(3);
    sends("");
    done(4);
    sends("1 ack 2; 1 ack 3; 1 ack 4"); /* more than 16/8 */
    done(7);
    done(5);
    sends("");
    done(1);
    sends("1 ack 5+"); /* 1 and 5; 2, 3 and 4 were acknowledged */
    done(6);
    sends("1 ack 7+");
    done(8);
    sends("1 ack 8");
}

static void test_prefetch_of_one(void **state)
{
    (void)state;
    consumer_clear(&consumer);
    peer_run();
    peer.story[0] = '\0';
    memset(&consumer, 0, sizeof(consumer));
    start(1);
    peer_run();
    for (unsigned tag = 1; tag <= 3; tag++) {
        char expected[16];

        deliver(tag, tag);
        done(tag);
        snprintf(expected, sizeof(expected), "1 ack %u", tag);
        sends(expected);
    }
}

static void test_rejects_among_them(void **state)
{
    (void)state;
    deliver(1, 7);
    reject(3, true);
    sends("1 reject 3 requeue"); /* at once: another may have it */
    reject(5, false);
    done(1);
    done(2);
    done(4);
    done(6);
    sends("1 reject 5; 1 ack 6+"); /* what was rejected is no more outstanding */
    done(7);
    sends("1 ack 7");
}

static void test_refused_on_arrival(void **state)
{
    (void)state;
    deliver(1, 1);
    on_arrival = REFUSE;
    deliver(2, 2);
    on_arrival = REFUSE_FOR_GOOD;
    deliver(3, 3);
    sends("1 reject 2 requeue; 1 reject 3");
    on_arrival = TAKE_AND_FINISH;
    deliver(4, 5);
    sends("");
    done(1);
    sends("1 ack 5+");
}

/* All that happens within one turn leaves together: finished at once, all of them. */
static void test_finished_on_arrival(void **state)
{
    (void)state;
    on_arrival = TAKE_AND_FINISH;
    deliver(1, 16);
    sends("1 ack 16+");
}

/* Random orders of finishing: what is acknowledged is exactly what has finished. */
static void test_random_orders(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 200; seed++) {
        bool finished[21] = {false}, acked[21] = {false};
        unsigned random = seed, base = delivered;

        for (unsigned i = 1; i <= 16; i++) {
            struct taken *taken = calloc(1, sizeof(*taken));

            assert_non_null(taken);
            consumer_take(&consumer, taken, &(struct mq_delivery){.tag = base + i});
            running[i] = taken;
        }
        delivered += 16;
        for (unsigned left = 16; left > 0;) {
            for (unsigned batch = 1 + (unsigned)rand_r(&random) % 4; batch > 0 && left > 0; batch--) {
                unsigned i = 1 + (unsigned)rand_r(&random) % 16;

                while (running[i] == NULL)
                    i = i % 16 + 1;
                finished[i] = true;
                if (rand_r(&random) % 5 == 0) {
                    reject(i, true);
                    acked[i] = true;
                } else {
                    done(i);
                }
                left--;
            }
            peer.story[0] = '\0';
            peer_run();
            for (char *at = peer.story; (at = strstr(at, "1 ack ")) != NULL; at++) {
                unsigned tag = (unsigned)atoi(at + 6) - base;
                bool multiple = at[6 + strspn(at + 6, "0123456789")] == '+';

                assert_in_range(tag, 1, 16);
                for (unsigned i = multiple ? 1 : tag; i <= tag; i++) {
                    if (!finished[i])
                        fail_msg("seed %u: %u is acknowledged and has not finished", seed, i);
                    if (!multiple && acked[i])
                        fail_msg("seed %u: %u is acknowledged twice", seed, i);
                    acked[i] = true;
                }
            }
        }
        for (unsigned i = 1; i <= 16; i++)
            assert_true(acked[i]);
        assert_int_equal(consumer.running + consumer.done, 0);
        peer.story[0] = '\0';
    }
}

/* After a new connection the tags begin anew: what is left of the old one is acknowledged to nobody. */
static void test_stale_ones(void **state)
{
    (void)state;
    deliver(1, 5);
    done(2);
    sends("");
    peer_hang_up(0);
    peer_run();
    assert_int_equal(consumer.running, 4);
    assert_int_equal(consumer.done, 0);
    done(1);
    peer_advance(RPC_RECONNECT_MAX_MS);
    generation = 1;
    deliver(1, 3);
    peer.story[0] = '\0';
    done(3); /* of the old channel */
    reject(4, true);
    sends("");
    done(21);
    done(22);
    sends("1 ack 2+");
    done(5);
    sends("");
    done(23);
    sends("1 ack 3");
    assert_int_equal(consumer.running, 0);
}

static void test_stale_ones_when_the_channel_closes(void **state)
{
    (void)state;
    deliver(1, 2);
    PEER_METHOD(CHANNEL, CHANNEL_CLOSE, channel_close, .reply_code = 406, .reply_text = amqp_cstring_bytes("NO"));
    peer_run();
    peer_story_is("1 channel.close-ok");
    done(1);
    peer_advance(200);
    generation = 1;
    deliver(1, 1);
    done(2);
    done(21);
    sends("1 ack 1");
}

static void test_queue_deleted(void **state)
{
    (void)state;
    deliver(1, 1);
    PEER_METHOD(CHANNEL, BASIC_CANCEL, basic_cancel, .consumer_tag = amqp_cstring_bytes("requests"), .nowait = 1);
    peer_run();
    peer_story_is("1 close");
    done(1);
    peer.declared[0] = '\0';
    peer_advance(200);
    assert_string_equal(peer.declared, "1 open; 1 qos 16; 1 queue q durable; 1 consume q");
    sends("");
}

/* ---- Stopping ---------------------------------------------------------------------------------------------------- */

static void test_stop(void **state)
{
    (void)state;
    deliver(1, 5);
    done(3);
    consumer_stop(&consumer);
    assert_false(consumer_drained(&consumer));
    peer_deliver(CHANNEL, 6, false, "k", &(amqp_basic_properties_t){0}, RPC_BYTES("1")); /* was under way */
    peer_run();
    peer_story_is("1 cancel; 1 ack 3; 1 reject 6 requeue");
    assert_int_equal(consumer.handed_back, 1);
    assert_int_equal(delivered, 5);
    done(1);
    done(2);
    done(5);
    sends("1 ack 2+; 1 ack 5"); /* at once, though it is behind a slow one */
    assert_false(consumer_drained(&consumer));
    changes = 0;
    done(4);
    assert_true(consumer_drained(&consumer));
    assert_true(changes > 0);
    sends("1 ack 4");
}

static void test_stop_when_idle(void **state)
{
    (void)state;
    changes = 0;
    consumer_stop(&consumer);
    consumer_stop(&consumer);
    assert_false(consumer_drained(&consumer)); /* what is under way is not here yet */
    peer_run();
    peer_story_is("1 cancel");
    assert_true(consumer_drained(&consumer));
    assert_int_equal(changes, 1);
}

static void test_stop_without_a_link(void **state)
{
    (void)state;
    deliver(1, 1);
    peer.silent = true;
    peer_hang_up(0);
    peer_run();
    consumer_stop(&consumer);
    assert_false(consumer_drained(&consumer));
    done(1);
    assert_true(consumer_drained(&consumer));
    peer.silent = false;
    peer.declared[0] = '\0';
    peer_advance(RPC_RECONNECT_MAX_MS);
    assert_null(strstr(peer.declared, "consume"));
    assert_true(consumer_drained(&consumer));
}

static void test_link_lost_while_stopping(void **state)
{
    (void)state;
    deliver(1, 1);
    peer.holds_answers = true;
    consumer_stop(&consumer);
    peer_run();
    assert_false(consumer_drained(&consumer));
    done(1);
    peer_run();
    assert_false(consumer_drained(&consumer));
    peer_hang_up(0);
    peer_run();
    assert_true(consumer_drained(&consumer));
}

/*
 * Stopped while its set-up is under way: there is nothing to wait for.  The broker begins to deliver all the same, and is
 * told if the link stays.
 */
static void test_stop_while_coming_up(void **state)
{
    (void)state;
    consumer_clear(&consumer);
    peer_run();
    memset(&consumer, 0, sizeof(consumer));
    start(16);
    fake_loop_turn(peer.loop); /* the set-up is sent, its answers are not here */
    consumer_stop(&consumer);
    assert_true(consumer_drained(&consumer));
    peer.story[0] = '\0';
    peer_run();
    peer_story_is("1 cancel");
    assert_true(consumer_drained(&consumer));
    assert_int_equal(consumer.running, 0);
}

static void test_clear_with_deliveries_running(void **state)
{
    (void)state;
    deliver(1, 3);
    done(2);
    peer.silent = true;
    peer_hang_up(0);
    peer_run();
    peer.silent = false;
    peer_advance(RPC_RECONNECT_MAX_MS);
    generation = 1;
    deliver(1, 2);
    peer.story[0] = '\0';
    consumer_clear(&consumer);
    sends("1 close");
    memset(&consumer, 0xa5, sizeof(consumer)); /* nobody may look at it any more */
    done(1);
    reject(3, true);
    done(21);
    reject(22, false);
    sends("");
    memset(&consumer, 0, sizeof(consumer));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_many_by_one_method),
        TEST(test_slow_one_in_front),
        TEST(test_prefetch_of_one),
        TEST(test_rejects_among_them),
        TEST(test_refused_on_arrival),
        TEST(test_finished_on_arrival),
        TEST(test_random_orders),
        TEST(test_stale_ones),
        TEST(test_stale_ones_when_the_channel_closes),
        TEST(test_queue_deleted),
        TEST(test_stop),
        TEST(test_stop_when_idle),
        TEST(test_stop_without_a_link),
        TEST(test_link_lost_while_stopping),
        TEST(test_stop_while_coming_up),
        TEST(test_clear_with_deliveries_running),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

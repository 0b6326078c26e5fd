/* Batches to a service: requests that come in one message, and answers that leave in one. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "amqp/frame.h"
#include "batch.h"
#include "service_fixture.h"

struct batched {
    const char *key, *correlation_id, *reply_to, *body;
    const char *app_id; /* NULL: that of a sender that takes batches */
    unsigned nested;    /* arrays within each other in its headers; 0: no headers */
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void put_u32(char *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (char)(value >> (24 - 8 * i));
}

/* Encoded properties with an array of arrays of ... in their headers. */
static void append_nested_headers(struct rpc_text *raw, unsigned nested)
{
    const size_t item = 5, head = 2, table = 3 + (size_t)nested * item; /* kind and size; flags; key "a", and then */
    char *at = rpc_text_reserve(raw, head + 4 + table);

    assert_non_null(at);
    memcpy(at, "\x20\x00", head);
    put_u32(at + head, (uint32_t)table - 1);
    memcpy(at + head + 4, "\1a", 2);
    for (unsigned i = 0; i < nested; i++) {
        at[head + 6 + i * item] = 'A';
        put_u32(at + head + 7 + i * item, (uint32_t)((nested - i - 1) * item));
    }
    rpc_text_commit(raw, head + 4 + table - 1);
}

/* Requests of a client of rpclib, in one message. */
static void batch_comes(uint64_t tag, bool redelivered, const struct batched *requests, size_t count)
{
    struct batch batch = {0};
    struct rpc_text raw = {0};
    amqp_table_entry_t header;

    for (size_t i = 0; i < count; i++) {
        const amqp_basic_properties_t properties = {
            ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG |
                      AMQP_BASIC_APP_ID_FLAG,
            .content_type = amqp_cstring_bytes("application/json"),
            .correlation_id = amqp_cstring_bytes(requests[i].correlation_id),
            .reply_to = amqp_cstring_bytes(requests[i].reply_to),
            .app_id = amqp_cstring_bytes(requests[i].app_id == NULL ? BATCH_APP_ID : requests[i].app_id),
        };

        if (requests[i].nested > 0)
            append_nested_headers(&raw, requests[i].nested);
        else
            assert_int_equal(frame_append_properties(&raw, &properties, 4096), RPC_OK);
        assert_true(batch_add(&batch, &(struct batch_entry){.key = rpc_bytes_of(requests[i].key),
                                                            .properties = rpc_text_bytes(&raw),
                                                            .body = rpc_bytes_of(requests[i].body)}));
        rpc_text_reset(&raw, RPC_TEXT_KEEP_SIZE);
    }
    header = batch_header(&batch);
    peer_deliver(REQUESTS, tag, redelivered, "products.rpclib_batch",
                 &(amqp_basic_properties_t){._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_HEADERS_FLAG |
                                                      AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG,
                                            .content_type = amqp_cstring_bytes("application/json"),
                                            .correlation_id = amqp_cstring_bytes("the batch"),
                                            .reply_to = amqp_cstring_bytes("caller"),
                                            .headers = {.num_entries = 1, .entries = &header}},
                 batch_body(&batch));
    batch_clear(&batch);
    rpc_text_clear(&raw);
    peer_run();
}

static void answers_are_at(unsigned message, const char *expected, int line)
{
    struct batch_entry entries[BATCH_MESSAGES_MAX];
    unsigned count = peer_batch(message, entries);
    char text[1000] = "";

    for (unsigned i = 0; i < count; i++) {
        size_t used = strlen(text);

        snprintf(text + used, sizeof(text) - used, "%s%.*s", i > 0 ? " " : "", (int)entries[i].key.size,
                 entries[i].key.data);
    }
    if (strcmp(text, expected) != 0)
        fail_msg("line %d: answers to \"%s\" instead of \"%s\"", line, text, expected);
}

#define answers_are(message, expected) answers_are_at(message, expected, __LINE__)

/* Answered in one message, acknowledged behind it. */
static void test_batch(void **state)
{
    static const struct batched requests[] = {{"products.list", "a", "front", HOLD},
                                              {"products.get", "b", "front", "{\"args\": [\"x\"], \"kwargs\": {}}"},
                                              {"products.list", "c", "front", HOLD}};

    (void)state;
    start(0);
    batch_comes(7, false, requests, COUNT(requests));
    peer_story_is("1 publish nameko-rpc/front; 1 ack 7");
    answers_are(0, "a b c");
    assert_int_equal(strncmp(peer.messages[0].body, "[{\"result\": [], \"error\": null},{\"result\": null, ", 47), 0);
    assert_string_equal(peer.messages[0].correlation_id, "");
}

/* Answers leave in the turn that they are made in; the batch is acknowledged with the last. */
static void test_batch_answered_piece_by_piece(void **state)
{
    static const struct batched requests[] = {{"products.hold", "a", "front", HOLD},
                                              {"products.list", "b", "front", HOLD},
                                              {"products.hold", "c", "front", HOLD}};

    (void)state;
    start(0);
    batch_comes(1, true, requests, COUNT(requests));
    story_is("hold a again; hold c again");
    peer_story_is("1 publish nameko-rpc/front");
    assert_string_equal(peer.messages[0].correlation_id, "b"); /* one answer goes alone */
    rpc_incoming_answer(held[1], RPC_BYTES("1"));
    peer_run();
    peer_story_is("1 publish nameko-rpc/front");
    assert_int_equal(rpc_service_in_flight(service), 1);
    rpc_incoming_answer(held[0], RPC_BYTES("2"));
    peer_run();
    peer_story_is("1 publish nameko-rpc/front; 1 ack 1");
}

/* One sender's answers to each message; and a sender that takes no batches gets none. */
static void test_batches_of_two_senders(void **state)
{
    static const struct batched from_a[] = {{"products.list", "a", "one", HOLD},
                                            {"products.list", "b", "one", HOLD},
                                            {"products.list", "c", "two", HOLD},
                                            {"products.list", "d", "two", HOLD}};

    (void)state;
    start(0);
    batch_comes(1, false, from_a, COUNT(from_a));
    peer_story_is("1 publish nameko-rpc/one; 1 publish nameko-rpc/two; 1 ack 1");
    answers_are(0, "a b");
    answers_are(1, "c d");
    peer_request(REQUESTS, 2, "products.list", "e", "{\"args\": [], \"kwargs\": {}}");
    peer_request(REQUESTS, 3, "products.list", "f", "{\"args\": [], \"kwargs\": {}}");
    peer_run();
    peer_story_is("1 publish nameko-rpc/caller; 1 publish nameko-rpc/caller; 1 ack 3+");
}

/* What cannot be executed is answered like any other; what cannot be answered is dropped, the rest is done. */
static void test_batch_with_bad_requests(void **state)
{
    static const struct batched requests[] = {
        {"products.unknown", "a", "front", HOLD},   {"products.list", "b", "front", "{\"args\": []}"},
        {"products.list", "c", "front", "no JSON"}, {"products.list", "d", "", HOLD},
        {"products.list", "e", "front", HOLD},
    };
    struct rpc_service_stats stats;

    (void)state;
    start(0);
    batch_comes(1, false, requests, COUNT(requests));
    peer_story_is("1 publish nameko-rpc/front; 1 ack 1");
    answers_are(0, "a b e");
    rpc_service_stats(service, &stats);
    assert_int_equal(stats.rejected, 2);
}

/* Each answer alone, though it came in a batch. */
static void test_batch_of_a_sender_that_takes_none(void **state)
{
    static const struct batched requests[] = {{"products.list", "a", "front", HOLD, .app_id = "rpclib-0"},
                                              {"products.list", "b", "front", HOLD, .app_id = "rpclib-0"},
                                              {"products.list", "c", "front", HOLD}};

    (void)state;
    start(0);
    batch_comes(1, false, requests, COUNT(requests));
    peer_story_is("1 publish nameko-rpc/front; 1 publish nameko-rpc/front; 1 publish nameko-rpc/front; 1 ack 1");
    assert_string_equal(peer.messages[0].correlation_id, "a");
    assert_string_equal(peer.messages[1].correlation_id, "b");
    assert_string_equal(peer.messages[2].correlation_id, "c");
}

/* rabbitmq-c would decode them by a recursion as deep. */
static void test_batch_with_nested_headers(void **state)
{
    static const struct batched requests[] = {{"products.list", "a", "front", HOLD},
                                              {"products.list", "b", "front", HOLD, .nested = 700},
                                              {"products.list", "c", "front", HOLD}};
    struct rpc_service_stats stats;

    (void)state;
    start(0);
    batch_comes(1, false, requests, COUNT(requests));
    peer_story_is("1 publish nameko-rpc/front; 1 ack 1");
    answers_are(0, "a c");
    rpc_service_stats(service, &stats);
    assert_int_equal(stats.rejected, 1);
    assert_int_equal(stats.requests, 2); /* what is too deep is not even decoded */
}

static void on_ready_answer(void *arg)
{
    (void)arg;
    if (ready++ > 0)
        rpc_incoming_answer(held[2], RPC_BYTES("3"));
}

/* The last answer of a batch lets it go, which may tell that the service is ready; who hears that may answer more. */
static void test_batch_answered_when_ready(void **state)
{
    static const struct batched one[] = {{"products.hold", "a", "front", HOLD}};
    static const struct batched two[] = {{"products.hold", "b", "front", HOLD}, {"products.hold", "c", "front", HOLD}};

    (void)state;
    service = rpc_service_new(peer.connection, &(struct rpc_service_options){.name = "products",
                                                                             .methods = methods,
                                                                             .methods_count = METHODS_COUNT,
                                                                             .on_ready = on_ready_answer});
    peer_run();
    batch_comes(1, false, one, COUNT(one));
    batch_comes(2, false, two, COUNT(two));
    rpc_service_set_able(service, false);
    peer.consumers = 2;
    peer_advance(RPC_STANDBY_MS);
    assert_false(rpc_service_ready(service));
    peer.story[0] = '\0';
    rpc_service_set_able(service, true);
    rpc_incoming_answer(held[0], RPC_BYTES("1"));
    rpc_incoming_answer(held[1], RPC_BYTES("2"));
    peer_run();
    assert_int_equal(ready, 2);
    peer_story_is("1 publish nameko-rpc/front; 1 ack 1; 1 publish nameko-rpc/front; 1 ack 2");
    answers_are(0, "a b");
    assert_string_equal(peer.messages[1].correlation_id, "c");
    assert_string_equal(peer.messages[1].body, "{\"result\": 3, \"error\": null}");
}

static void test_batch_unreadable(void **state)
{
    amqp_table_entry_t header = {.key = amqp_cstring_bytes("rpclib-batch"),
                                 .value = {.kind = AMQP_FIELD_KIND_BYTES, .value.bytes = amqp_cstring_bytes("\5abc")}};

    (void)state;
    start(0);
    peer_deliver(REQUESTS, 1, false, "products.rpclib_batch",
                 &(amqp_basic_properties_t){._flags = AMQP_BASIC_HEADERS_FLAG | AMQP_BASIC_REPLY_TO_FLAG,
                                            .reply_to = amqp_cstring_bytes("caller"),
                                            .headers = {.num_entries = 1, .entries = &header}},
                 RPC_BYTES("[1]"));
    peer_run();
    peer_story_is("1 reject 1");
    peer_request(REQUESTS, 2, "products.rpclib_batch", "a",
                 "{\"args\": [], \"kwargs\": {}}"); /* no batch: no such method */
    peer_run();
    peer_story_is("1 publish nameko-rpc/caller; 1 ack 2");
}

/* The link breaks before the answers leave: the broker delivers the batch again, and all of it is executed again. */
static void test_batch_with_the_link_lost(void **state)
{
    static const struct batched requests[] = {{"products.hold", "a", "front", HOLD},
                                              {"products.hold", "b", "front", HOLD}};

    (void)state;
    start(0);
    batch_comes(1, false, requests, COUNT(requests));
    story_is("hold a; hold b");
    rpc_incoming_answer(held[0], RPC_BYTES("1")); /* waits for the turn's end, which the link does not see */
    peer_hang_up(ECONNRESET);
    peer_run();
    peer.story[0] = '\0';
    assert_int_equal(rpc_service_in_flight(service), 1);
    rpc_incoming_answer(held[1], RPC_BYTES("2"));
    assert_int_equal(rpc_service_in_flight(service), 0);
    peer_advance(5000);
    peer.story[0] = '\0';
    batch_comes(1, true, requests, COUNT(requests));
    story_is("hold a again; hold b again");
    rpc_incoming_answer(held[2], RPC_BYTES("1"));
    rpc_incoming_answer(held[3], RPC_BYTES("2"));
    peer_run();
    peer_story_is("1 publish nameko-rpc/front; 1 ack 1");
}

static void test_batch_with_the_service_gone(void **state)
{
    static const struct batched requests[] = {{"products.hold", "a", "front", HOLD},
                                              {"products.list", "b", "front", HOLD},
                                              {"products.hold", "c", "front", HOLD}};
    static const struct batched frees[] = {{"products.list", "d", "front", HOLD},
                                           {"products.free", "e", "front", HOLD},
                                           {"products.list", "f", "front", HOLD}};

    (void)state;
    start(0);
    batch_comes(1, false, requests, COUNT(requests));
    rpc_incoming_answer(held[0], RPC_BYTES("1"));
    rpc_service_free(service);
    service = NULL;
    rpc_incoming_answer(held[1], RPC_BYTES("2"));
    peer_run();
    ready = 0;
    start(0);
    peer.story[0] = '\0';
    batch_comes(1, false, frees, COUNT(frees));
    assert_null(service);
}

static void test_stop_with_a_batch(void **state)
{
    static const struct batched requests[] = {{"products.hold", "a", "front", HOLD},
                                              {"products.hold", "b", "front", HOLD}};

    (void)state;
    start(0);
    batch_comes(1, false, requests, COUNT(requests));
    rpc_service_stop(service, 1000, on_stopped, NULL);
    rpc_incoming_answer(held[0], RPC_BYTES("1"));
    peer_advance(10);
    assert_int_equal(stopped, 0);
    rpc_incoming_answer(held[1], RPC_BYTES("2"));
    peer_advance(10);
    assert_int_equal(stopped, 1);
    assert_non_null(strstr(peer.story, "ack 1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_batch),
        TEST(test_batch_answered_piece_by_piece),
        TEST(test_batches_of_two_senders),
        TEST(test_batch_with_bad_requests),
        TEST(test_batch_of_a_sender_that_takes_none),
        TEST(test_batch_with_nested_headers),
        TEST(test_batch_answered_when_ready),
        TEST(test_batch_unreadable),
        TEST(test_batch_with_the_link_lost),
        TEST(test_batch_with_the_service_gone),
        TEST(test_stop_with_a_batch),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

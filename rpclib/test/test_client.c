/* rpc_client: every call ends exactly once, and truly, before a broker that the test plays. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "callee.h"
#include "rpclib/client.h"
#include "rpclib/log.h"
#include "rpclib/publisher.h"
#include "simulation/peer.h"
#include "story.h"

#define CALLS_MAX 32
#define CHANNEL   1 /* the client's */

static struct rpc_client *client;
static struct rpc_client *second; /* a client that some tests have beside it */
static struct rpc_publisher *publisher;
static rpc_call_id ids[CALLS_MAX];
static char story[STORY_SIZE]; /* how calls ended */
static unsigned ready;

enum reaction { NOTHING, CALLS_AGAIN, CANCELS_2, CALLS_SECOND, MAKES_CLIENT, MAKES_PUBLISHER, CLOSES_CONNECTION };

static enum reaction reaction; /* of the next callback */
static unsigned next_call;

#define tell(...)          story_tell(story, __VA_ARGS__)
#define story_is(expected) story_compare(story, expected, "calls ended", __LINE__)

static void on_closed(void *arg)
{
    (void)arg;
    tell("closed");
    rpc_client_free(client);
    rpc_client_free(second);
    rpc_publisher_free(publisher);
    client = second = NULL;
    publisher = NULL;
    rpc_connection_free(peer.connection);
    peer.connection = NULL;
}

static enum rpc_status call_on(struct rpc_client *on, unsigned number, int timeout_ms);

static void react(void)
{
    enum reaction now = reaction;

    reaction = NOTHING;
    switch (now) {
    case NOTHING:
        break;
    case CALLS_AGAIN:
        tell("again: %s", rpc_status_name(call_on(client, next_call++, 1000)));
        break;
    case CANCELS_2:
        rpc_client_cancel(client, ids[2]);
        break;
    case CALLS_SECOND:
        tell("second: %s", rpc_status_name(call_on(second, next_call++, 1000)));
        break;
    case MAKES_CLIENT:
        second = rpc_client_new(peer.connection, &(struct rpc_client_options){.name = "second"});
        assert_non_null(second);
        break;
    case MAKES_PUBLISHER:
        publisher = rpc_publisher_new(peer.connection, &(struct rpc_publisher_options){.source = "orders"});
        assert_non_null(publisher);
        break;
    case CLOSES_CONNECTION:
        rpc_connection_close(peer.connection, 500, on_closed, NULL);
        break;
    }
}

/* The calls' arg is the number's address in here. */
static const unsigned numbers[CALLS_MAX] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                            16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

static void on_reply(enum rpc_status status, const struct rpc_reply *reply, void *arg)
{
    unsigned number = *(const unsigned *)arg;

    assert_int_equal(reply != NULL, status == RPC_OK || status == RPC_REMOTE_ERROR);
    if (status == RPC_OK)
        tell("%u %.*s", number, (int)reply->result.size, reply->result.data);
    else if (status == RPC_REMOTE_ERROR)
        tell("%u %.*s (%.*s) %.*s %.*s", number, (int)reply->error.exc_type.size, reply->error.exc_type.data,
             (int)reply->error.exc_path.size, reply->error.exc_path.data, (int)reply->error.value.size,
             reply->error.value.data, (int)reply->error.exc_args.size, reply->error.exc_args.data);
    else
        tell("%u %s", number, rpc_status_name(status));
    react();
}

static enum rpc_status call_on(struct rpc_client *on, unsigned number, int timeout_ms)
{
    assert_true(number < CALLS_MAX);
    return rpc_call(on,
                    &(struct rpc_request){
                        .service = "products", .method = "get", .args = RPC_BYTES("[\"x\"]"), .timeout_ms = timeout_ms},
                    on_reply, (void *)(uintptr_t)&numbers[number], &ids[number]);
}

/* `count` calls more, numbered on; the peer has them as messages of the same numbers. */
static void call(unsigned count, int timeout_ms)
{
    while (count-- > 0)
        assert_int_equal(call_on(client, next_call++, timeout_ms), RPC_OK);
}

static void on_ready(void *arg)
{
    (void)arg;
    ready++;
}

static int setup(void **state)
{
    (void)state;
    rpc_log_configure("test", RPC_LOG_ERROR + 1, RPC_LOG_LOGFMT);
    story[0] = '\0';
    reaction = NOTHING;
    next_call = ready = 0;
    second = NULL;
    publisher = NULL;
    peer_init();
    client = rpc_client_new(peer.connection,
                            &(struct rpc_client_options){.name = "gateway", .calls_max = 8, .on_ready = on_ready});
    assert_non_null(client);
    assert_false(rpc_client_ready(client));
    peer_run();
    assert_true(rpc_client_ready(client));
    assert_int_equal(ready, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rpc_client_free(client);
    rpc_client_free(second);
    rpc_publisher_free(publisher);
    client = second = NULL;
    publisher = NULL;
    peer_clear();
    return 0;
}

static void stats_are_at(const char *expected, int line)
{
    struct rpc_client_stats stats;
    char text[160];

    rpc_client_stats(client, &stats);
    snprintf(text, sizeof(text), "calls %llu replies %llu timeouts %llu late %llu returned %llu lost %llu",
             (unsigned long long)stats.calls, (unsigned long long)stats.replies, (unsigned long long)stats.timeouts,
             (unsigned long long)stats.late_replies, (unsigned long long)stats.returned,
             (unsigned long long)stats.lost);
    if (strcmp(text, expected) != 0)
        fail_msg("line %d: \"%s\" instead of \"%s\"", line, text, expected);
}

#define stats_are(expected) stats_are_at(expected, __LINE__)

/* Works as if nothing had been. */
static void still_works_at(int line)
{
    unsigned message;
    char expected[32];

    peer_run();
    peer.story[0] = peer.declared[0] = '\0';
    if (!rpc_client_ready(client))
        fail_msg("line %d: not ready", line);
    message = peer.messages_count;
    call(1, 1000);
    peer_run();
    assert_int_equal(peer.messages_count, message + 1);
    peer_answer(peer.messages[message].channel, message, "{\"result\": \"fine\", \"error\": null}");
    peer_run();
    snprintf(expected, sizeof(expected), "%u \"fine\"", next_call - 1);
    story_compare(story, expected, "calls ended", line);
    assert_int_equal(rpc_client_in_flight(client), 0);
}

#define still_works() still_works_at(__LINE__)

/* ---- What is sent ------------------------------------------------------------------------------------------------ */

static void test_set_up(void **state)
{
    const char *queue = strstr(peer.declared, "rpc.reply-gateway-");
    char uuid[37], expected[600];

    (void)state;
    assert_non_null(queue);
    snprintf(uuid, sizeof(uuid), "%.36s", queue + strlen("rpc.reply-gateway-"));
    assert_int_equal(uuid[14], '4'); /* a UUID of version 4 */
    snprintf(expected, sizeof(expected),
             "1 open; 1 exchange nameko-rpc topic durable; 1 queue rpc.reply-gateway-%s exclusive auto-delete; "
             "1 bind rpc.reply-gateway-%s to nameko-rpc by %s; 1 consume rpc.reply-gateway-%s no-ack",
             uuid, uuid, uuid, uuid);
    assert_string_equal(peer.declared, expected);
    call(1, 1234);
    peer_run();
    assert_string_equal(peer.messages[0].reply_to, uuid);
}

static void test_request(void **state)
{
    struct rpc_context *context = rpc_context_new("gateway", "GET /products");
    const struct peer_message *message = &peer.messages[0];

    (void)state;
    assert_non_null(context);
    assert_true(rpc_context_set(context, "language", RPC_BYTES("en")));
    assert_int_equal(rpc_call(client,
                              &(struct rpc_request){.service = "products",
                                                    .method = "create",
                                                    .args = RPC_BYTES("[1, \"\xc3\xa9\"]"),
                                                    .kwargs = RPC_BYTES("{\"a\": null}"),
                                                    .timeout_ms = 1234,
                                                    .context = context},
                              on_reply, (void *)(uintptr_t)&numbers[0], NULL),
                     RPC_OK);
    rpc_context_free(context);
    peer_run();
    peer_story_is("1 publish nameko-rpc/products.create");
    assert_true(message->mandatory);
    assert_string_equal(message->content_type, "application/json");
    assert_string_equal(message->content_encoding, "utf-8");
    assert_int_equal(message->delivery_mode, 1);
    assert_int_equal(message->priority, 0);
    assert_string_equal(message->expiration, "1234");
    assert_int_equal(strlen(message->correlation_id), 36);
    assert_int_equal(strlen(message->reply_to), 36);
    assert_int_equal(strncmp(message->headers, "{\"nameko.call_id_stack\": [\"gateway.GET /products.", 49), 0);
    assert_non_null(strstr(message->headers, "\"nameko.language\": \"en\"}"));
    assert_string_equal(message->body, "{\"args\": [1, \"\xc3\xa9\"], \"kwargs\": {\"a\": null}}");
}

static void test_request_without_anything(void **state)
{
    (void)state;
    assert_int_equal(rpc_call(client, &(struct rpc_request){.service = "a", .method = "b", .timeout_ms = 1}, on_reply,
                              (void *)(uintptr_t)&numbers[0], NULL),
                     RPC_OK);
    peer_run();
    assert_string_equal(peer.messages[0].body, "{\"args\": [], \"kwargs\": {}}");
    assert_string_equal(peer.messages[0].headers, "{}");
}

static void refuses_at(const char *service, const char *method, size_t args_size, enum rpc_status expected, int line)
{
    char *args = calloc(1, args_size + 1);
    enum rpc_status status;

    assert_non_null(args);
    memset(args, '1', args_size);
    status = rpc_call(
        client,
        &(struct rpc_request){.service = service, .method = method, .args = {args, args_size}, .timeout_ms = 100},
        on_reply, (void *)(uintptr_t)&numbers[0], NULL);
    free(args);
    if (status != expected)
        fail_msg("line %d: %s", line, rpc_status_name(status));
    assert_int_equal(rpc_client_in_flight(client), 0);
}

#define refuses(service, method, size, status) refuses_at(service, method, size, status, __LINE__)

static void test_too_large(void **state)
{
    char name[RPC_NAME_SIZE_MAX + 2], wide[5000];
    struct rpc_context *context = rpc_context_new("a", "b");

    (void)state;
    memset(name, 'n', sizeof(name));
    name[RPC_NAME_SIZE_MAX + 1] = '\0';
    refuses("products", "get", RPC_MESSAGE_SIZE_MAX, RPC_TOO_LARGE);
    refuses(name, "get", 0, RPC_TOO_LARGE);
    refuses("products", name, 0, RPC_TOO_LARGE);
    memset(wide, 'w', sizeof(wide));
    assert_true(rpc_context_set(context, "wide", (struct rpc_bytes){wide, sizeof(wide)}));
    assert_int_equal(rpc_call(client,
                              &(struct rpc_request){.service = "a", .method = "b", .timeout_ms = 1, .context = context},
                              on_reply, NULL, NULL),
                     RPC_TOO_LARGE); /* more headers than a frame holds */
    rpc_context_free(context);
    peer_run();
    peer_story_is("");
    stats_are("calls 0 replies 0 timeouts 0 late 0 returned 0 lost 0");
    still_works();
}

/* All calls of a turn leave in one write. */
static void test_one_write_a_turn(void **state)
{
    struct network_link *link = network_link();

    (void)state;
    call(3, 1000);
    assert_int_equal(link->outbound.size, 0);
    fake_loop_turn(peer.loop);
    assert_true(link->outbound.size > 0);
    peer_run();
    assert_int_equal(peer.messages_count, 3);
}

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

static void answer_is_at(const char *body, const char *expected, int line)
{
    char told[512];
    unsigned message = peer.messages_count;

    next_call = 1;
    call(1, 1000);
    peer_run();
    peer_answer(CHANNEL, message, body);
    peer_run();
    snprintf(told, sizeof(told), "1 %s", expected);
    story_compare(story, told, "calls ended", line);
    assert_int_equal(rpc_client_in_flight(client), 0);
}

#define answer_is(body, expected) answer_is_at(body, expected, __LINE__)

static void test_answers(void **state)
{
    (void)state;
    answer_is("{\"result\": true, \"error\": null}", "true");
    answer_is("{\"error\":null,\"result\":{\"a\":[1, 2]}}", "{\"a\":[1, 2]}");
    answer_is(" { \"result\" : null , \"error\" : null } ", "null");
    answer_is("{\"result\": 1.50, \"error\": null, \"more\": {}}", "1.50");
    answer_is("{\"result\": null, \"error\": {\"exc_type\": \"NotFound\", \"exc_path\": "
              "\"products.exceptions.NotFound\", \"exc_args\": [\"x\", 1], \"value\": \"no x\"}}",
              "NotFound (products.exceptions.NotFound) no x [\"x\", 1]");
    answer_is("{\"result\": null, \"error\": {}}", " ()  []");
    answer_is("{\"result\": null, \"error\": {\"exc_type\": 1, \"exc_args\": {}, \"value\": null}}", " ()  []");
    answer_is("", "bad_reply");
    answer_is("null", "bad_reply");
    answer_is("[]", "bad_reply");
    answer_is("{}", "bad_reply");
    answer_is("{\"result\": 1}", "bad_reply");
    answer_is("{\"error\": null}", "bad_reply");
    answer_is("{\"result\": 1, \"error\": \"oh\"}", "bad_reply");
    answer_is("{\"result\": 1, \"error\": false}", "bad_reply");
    answer_is("{\"result\": 1, \"error\": null", "bad_reply");
    answer_is("{\"result\": NaN, \"error\": null}", "bad_reply");
    answer_is("{\"result\": \"\xff\", \"error\": null}", "bad_reply");
    answer_is("{\"result\": 1, \"error\": null} {}", "bad_reply");
}

static void test_answers_in_any_order(void **state)
{
    (void)state;
    call(4, 1000);
    peer_run();
    peer_answer(CHANNEL, 2, "{\"result\": \"c\", \"error\": null}");
    peer_answer(CHANNEL, 0, "{\"result\": \"a\", \"error\": null}");
    peer_answer(CHANNEL, 3, "{\"result\": \"d\", \"error\": null}");
    peer_answer(CHANNEL, 1, "{\"result\": \"b\", \"error\": null}");
    peer_run();
    story_is("2 \"c\"; 0 \"a\"; 3 \"d\"; 1 \"b\"");
    peer_advance(5000);
    story_is("");
    stats_are("calls 4 replies 4 timeouts 0 late 0 returned 0 lost 0");
}

#define ANSWER "{\"result\": 7, \"error\": null}"

static void test_late_double_foreign(void **state)
{
    const amqp_basic_properties_t foreign = {._flags = AMQP_BASIC_CORRELATION_ID_FLAG,
                                             .correlation_id =
                                                 amqp_cstring_bytes("00000000-0000-4000-8000-000000000000")};
    const amqp_basic_properties_t odd = {._flags = AMQP_BASIC_CORRELATION_ID_FLAG,
                                         .correlation_id = amqp_cstring_bytes("short")};
    const amqp_basic_properties_t none = {0};

    (void)state;
    call(2, 1000);
    peer_run();
    peer_answer(CHANNEL, 0, ANSWER);
    peer_answer(CHANNEL, 0, ANSWER);
    peer_deliver(CHANNEL, 1, false, "x", &foreign, RPC_BYTES(ANSWER));
    peer_deliver(CHANNEL, 1, false, "x", &odd, RPC_BYTES(ANSWER));
    peer_deliver(CHANNEL, 1, false, "x", &none, RPC_BYTES(ANSWER));
    peer_advance(1000);
    story_is("0 7; 1 timeout");
    peer_answer(CHANNEL, 1, ANSWER);
    peer_run();
    story_is("");
    stats_are("calls 2 replies 1 timeouts 1 late 5 returned 0 lost 0");
    still_works();
}

/* An answer to a call whose place in the table another one has by now. */
static void test_late_answer_for_a_place_used_again(void **state)
{
    (void)state;
    call(1, 100);
    peer_advance(100);
    story_is("0 timeout");
    call(1, 1000);
    peer_run();
    peer_answer(CHANNEL, 0, ANSWER);
    peer_run();
    story_is("");
    peer_answer(CHANNEL, 1, ANSWER);
    peer_run();
    story_is("1 7");
}

static void test_returned(void **state)
{
    (void)state;
    call(3, 1000);
    peer_run();
    rpc_client_cancel(client, ids[2]);
    peer_return(1);
    peer_return(2);
    peer_return(1);
    peer_run();
    story_is("1 unknown_service");
    peer_answer(CHANNEL, 0, ANSWER);
    peer_run();
    story_is("0 7");
    stats_are("calls 3 replies 1 timeouts 0 late 0 returned 1 lost 0");
}

/* ---- Deadlines --------------------------------------------------------------------------------------------------- */

static void test_deadlines(void **state)
{
    static const int timeouts[] = {500, 100, 300, 100, 1, 400, 200, 299};

    (void)state;
    for (unsigned i = 0; i < 8; i++)
        call(1, timeouts[i]);
    peer_advance(1);
    story_is("4 timeout");
    peer_advance(98);
    story_is("");
    peer_advance(1);
    if (strcmp(story, "1 timeout; 3 timeout") != 0) /* both at once, in any order */
        story_is("3 timeout; 1 timeout");
    story[0] = '\0';
    peer_advance(199);
    story_is("6 timeout; 7 timeout");
    peer_advance(1);
    story_is("2 timeout");
    rpc_client_cancel(client, ids[5]);
    peer_advance(200);
    story_is("0 timeout");
    assert_int_equal(rpc_client_in_flight(client), 0);
}

/* Any deadlines, answers and cancels: each call ends once, none before its deadline and none after. */
static void test_deadlines_at_random(void **state)
{
    unsigned random = 7, ended = 0;

    (void)state;
    for (int round = 0; round < 2000; round++) {
        uint64_t now = rpc_loop_now_ms(fake_loop_base(peer.loop));

        peer.messages_count = 0; /* their memory goes with the test */
        if (rand_r(&random) % 3 != 0 && call_on(client, next_call % 8, 1 + rand_r(&random) % 50) == RPC_OK)
            next_call++;
        else if (rand_r(&random) % 2 == 0)
            rpc_client_cancel(client, ids[rand_r(&random) % 8]);
        fake_loop_advance(peer.loop, (uint64_t)(rand_r(&random) % 10));
        assert_true(rpc_loop_now_ms(fake_loop_base(peer.loop)) >= now);
        ended += story[0] != '\0';
        story[0] = '\0';
        network_link()->outbound.size = 0;
        network_link()->inbound.size = 0;
    }
    assert_true(ended > 100);
    fake_loop_advance(peer.loop, 50);
    assert_int_equal(rpc_client_in_flight(client), 0);
}

/* ---- Bounds ------------------------------------------------------------------------------------------------------ */

static void test_busy(void **state)
{
    (void)state;
    call(8, 1000);
    assert_int_equal(call_on(client, 8, 1000), RPC_BUSY);
    peer_run();
    assert_int_equal(peer.messages_count, 8);
    peer_answer(CHANNEL, 3, ANSWER);
    peer_run();
    story_is("3 7");
    call(1, 1000);
    assert_int_equal(call_on(client, 9, 1000), RPC_BUSY);
    assert_int_equal(rpc_client_in_flight(client), 8);
}

static void test_blocked(void **state)
{
    (void)state;
    call(1, 1000);
    peer_run();
    peer_block(true);
    peer_run();
    assert_false(rpc_client_ready(client));
    assert_int_equal(call_on(client, 1, 1000), RPC_BLOCKED);
    peer_answer(CHANNEL, 0, ANSWER); /* what was sent goes on */
    peer_run();
    story_is("0 7");
    peer_block(false);
    peer_run();
    assert_int_equal(ready, 2); /* calls are taken again */
    still_works();
}

/* ---- Callbacks that call back ------------------------------------------------------------------------------------ */

static void test_call_within_a_callback(void **state)
{
    (void)state;
    call(8, 1000); /* full, so the new call takes the place of the one that ended */
    peer_run();
    reaction = CALLS_AGAIN;
    peer_answer(CHANNEL, 0, ANSWER);
    peer_run();
    story_is("0 7; again: ok");
    assert_int_equal(peer.messages_count, 9);
    reaction = CALLS_AGAIN;
    peer_return(1);
    peer_run();
    story_is("1 unknown_service; again: ok");
    reaction = CALLS_AGAIN;
    peer_advance(1000);
    assert_non_null(strstr(story, "again: ok"));
    assert_int_equal(rpc_client_in_flight(client), 1);
}

static void test_cancel_within_a_callback(void **state)
{
    (void)state;
    call(4, 100);
    peer_run();
    reaction = CANCELS_2;
    peer_answer(CHANNEL, 1, ANSWER);
    peer_answer(CHANNEL, 2, ANSWER);
    peer_run();
    story_is("1 7");
    peer_advance(100);
    assert_null(strstr(story, "2 "));
    assert_int_equal(rpc_client_in_flight(client), 0);
    stats_are("calls 4 replies 1 timeouts 2 late 1 returned 0 lost 0");
}

static void test_cancel_oneself(void **state)
{
    (void)state;
    call(3, 100);
    peer_run();
    reaction = CANCELS_2;
    peer_answer(CHANNEL, 2, ANSWER);
    peer_run();
    story_is("2 7");
    rpc_client_cancel(client, 0);
    rpc_client_cancel(client, UINT64_MAX);
    rpc_client_cancel(client, ids[2]);
    assert_int_equal(rpc_client_in_flight(client), 2);
}

static void test_cancel_while_the_link_breaks(void **state)
{
    (void)state;
    call(4, 1000);
    peer_run();
    reaction = CANCELS_2;
    peer_hang_up(0);
    peer_run();
    assert_null(strstr(story, "2 lost"));
    assert_non_null(strstr(story, "3 lost"));
    peer_advance(2000);
    story[0] = '\0';
    still_works();
}

static void test_free_with_calls_in_flight(void **state)
{
    (void)state;
    call(3, 1000);
    peer_run();
    reaction = CALLS_AGAIN;
    rpc_client_free(client);
    client = NULL;
    assert_non_null(strstr(story, "again: offline"));
    assert_non_null(strstr(story, "0 cancelled"));
    assert_non_null(strstr(story, "1 cancelled"));
    assert_non_null(strstr(story, "2 cancelled"));
    story[0] = '\0';
    peer_answer(CHANNEL, 0, ANSWER); /* was under way */
    peer_run();
    peer_advance(5000);
    story_is("");
    assert_int_equal(rpc_connection_state(peer.connection), RPC_CONNECTION_UP);
}

/* ---- The link breaks --------------------------------------------------------------------------------------------- */

/* Calls of which `room` bytes left before the link broke. */
static void lost_after_at(size_t room, int error, const char *expected, int line)
{
    struct network_link *link = network_link();

    next_call = 0;
    link->room = room;
    call(2, 5000);
    peer.silent = true;
    peer_run();
    link->gone = true;
    link->gone_error = error;
    fake_loop_fire(peer.loop, link->fd, RPC_LOOP_READ);
    if (strcmp(story, expected) != 0)
        fail_msg("line %d: \"%s\" instead of \"%s\"", line, story, expected);
    story[0] = '\0';
    assert_false(rpc_client_ready(client));
    assert_int_equal(call_on(client, 9, 1000), RPC_OFFLINE);
    peer.silent = false;
    peer_advance(RPC_RECONNECT_MAX_MS);
    still_works_at(line);
}

#define lost_after(room, error, expected) lost_after_at(room, error, expected, __LINE__)

static void test_lost(void **state)
{
    (void)state;
    lost_after(0, 0, "0 offline; 1 offline");
    lost_after(0, ECONNRESET, "0 offline; 1 offline");
    lost_after(1, 0, "0 lost; 1 offline");
    lost_after(1, ETIMEDOUT, "0 lost; 1 offline");
    lost_after(200, 0, "0 lost; 1 offline");
    lost_after(SIZE_MAX, 0, "0 lost; 1 lost");
    lost_after(SIZE_MAX, ECONNRESET, "0 lost; 1 lost");
    assert_int_equal(peer.handshakes, 8);
    assert_int_equal(ready, 8);
}

/* Broken while it is written: send() says it. */
static void test_lost_by_send(void **state)
{
    (void)state;
    peer_hang_up(ECONNRESET);
    network_link()->inbound.size = 0;
    call(1, 1000);
    fake_loop_turn(peer.loop);
    story_is("0 offline");
    peer_advance(RPC_RECONNECT_MAX_MS);
    still_works();
}

static void test_call_again_when_lost(void **state)
{
    (void)state;
    call(2, 1000);
    peer_run();
    reaction = CALLS_AGAIN;
    peer_hang_up(0);
    peer_run();
    story_is("0 lost; again: offline; 1 lost");
    peer_advance(RPC_RECONNECT_MAX_MS);
    still_works();
}

/* A second client's session goes down after the first one's callbacks ran: it takes no call, or ends it at once. */
static void test_call_on_another_client_when_lost(void **state)
{
    (void)state;
    for (int first = 0; first < 2; first++) {
        struct rpc_client *swap = client;

        second = rpc_client_new(peer.connection, &(struct rpc_client_options){.name = "second"});
        peer_run();
        if (first == 1) {
            client = second;
            second = swap;
        }
        next_call = 0;
        call(1, 1000);
        peer_run();
        reaction = CALLS_SECOND;
        peer_hang_up(0);
        peer_run();
        if (strcmp(story, "0 lost; second: ok; 1 offline") != 0)
            story_is("0 lost; second: offline");
        story[0] = '\0';
        assert_int_equal(rpc_client_in_flight(second), 0);
        peer_advance(RPC_RECONNECT_MAX_MS);
        assert_true(rpc_client_ready(second));
        still_works();
        rpc_client_free(second);
        second = NULL;
        peer_run();
    }
}

static void test_new_client_when_lost(void **state)
{
    (void)state;
    call(1, 1000);
    peer_run();
    reaction = MAKES_CLIENT;
    peer_hang_up(0);
    peer_run();
    story_is("0 lost");
    assert_non_null(second);
    assert_false(rpc_client_ready(second));
    assert_int_equal(call_on(second, 1, 1000), RPC_OFFLINE);
    peer_advance(RPC_RECONNECT_MAX_MS);
    assert_true(rpc_client_ready(second));
    still_works();
}

static void test_new_publisher_when_lost(void **state)
{
    (void)state;
    call(1, 1000);
    peer_run();
    reaction = MAKES_PUBLISHER;
    peer_hang_up(0);
    peer_run();
    assert_non_null(publisher);
    peer_advance(RPC_RECONNECT_MAX_MS);
    assert_true(rpc_publisher_ready(publisher));
    story[0] = '\0';
    still_works();
}

/* ---- The channel breaks ------------------------------------------------------------------------------------------ */

static void test_channel_closed(void **state)
{
    (void)state;
    call(2, 1000);
    peer_run();
    reaction = CALLS_AGAIN;
    PEER_METHOD(CHANNEL, CHANNEL_CLOSE, channel_close, .reply_code = 406, .reply_text = amqp_cstring_bytes("NO"));
    peer_run();
    story_is("0 lost; again: offline; 1 lost");
    peer_story_is("1 publish nameko-rpc/products.get; 1 publish nameko-rpc/products.get; 1 channel.close-ok");
    peer_advance(200);
    assert_int_equal(ready, 2);
    still_works();
}

static void test_new_client_when_the_channel_closes(void **state)
{
    (void)state;
    call(1, 1000);
    peer_run();
    reaction = MAKES_CLIENT;
    PEER_METHOD(CHANNEL, CHANNEL_CLOSE, channel_close, .reply_code = 406, .reply_text = amqp_cstring_bytes("NO"));
    peer_run();
    assert_true(rpc_client_ready(second));
    peer_advance(200);
    story[0] = '\0';
    still_works();
}

static void test_consumer_cancelled(void **state)
{
    (void)state;
    call(1, 1000);
    peer_run();
    PEER_METHOD(CHANNEL, BASIC_CANCEL, basic_cancel, .consumer_tag = amqp_cstring_bytes("replies"), .nowait = 1);
    call(1, 1000); /* it has not left yet, but it will, before the channel's close */
    fake_loop_fire(peer.loop, network_link()->fd, RPC_LOOP_READ);
    if (strcmp(story, "0 lost; 1 lost") != 0)
        story_is("1 lost; 0 lost");
    story[0] = '\0';
    peer_run();
    peer_story_is("1 publish nameko-rpc/products.get; 1 publish nameko-rpc/products.get; 1 close");
    peer_advance(200);
    assert_int_equal(ready, 2);
    still_works();
}

/* ---- Batches ----------------------------------------------------------------------------------------------------- */

/* One call, answered by a service of rpclib: the client knows then that it takes batches. */
static void learn(void)
{
    unsigned message = peer.messages_count;

    call(1, 1000);
    peer_run();
    peer_answer_as_rpclib(CHANNEL, message, "{\"result\": 1, \"error\": null}");
    peer_run();
    story[0] = peer.story[0] = '\0';
}

/* Answers to the entries of a batch, together; the n-th gets the n-th result. */
static void answer_batch(unsigned message, unsigned first, unsigned count, const char *const results[])
{
    struct batch_entry entries[BATCH_MESSAGES_MAX];
    struct batch batch = {0};
    amqp_table_entry_t header;
    char body[100];

    assert_true(first + count <= peer_batch(message, entries));
    for (unsigned i = 0; i < count; i++) {
        amqp_pool_t pool;
        void *decoded;

        init_amqp_pool(&pool, 4096);
        assert_true(amqp_decode_properties(AMQP_BASIC_CLASS, &pool,
                                           (amqp_bytes_t){entries[first + i].properties.size,
                                                          (void *)(uintptr_t)entries[first + i].properties.data},
                                           &decoded) >= 0);
        snprintf(body, sizeof(body), "{\"result\": %s, \"error\": null}", results[i]);
        assert_true(batch_add(
            &batch, &(struct batch_entry){.key = {((amqp_basic_properties_t *)decoded)->correlation_id.bytes, 36},
                                          .body = rpc_bytes_of(body)}));
        empty_amqp_pool(&pool);
    }
    header = batch_header(&batch);
    peer_deliver(CHANNEL, 1, false, peer.messages[message].reply_to,
                 &(amqp_basic_properties_t){._flags = AMQP_BASIC_HEADERS_FLAG | AMQP_BASIC_APP_ID_FLAG,
                                            .headers = {.num_entries = 1, .entries = &header},
                                            .app_id = amqp_cstring_bytes(BATCH_APP_ID)},
                 batch_body(&batch));
    batch_clear(&batch);
    peer_run();
}

static void test_batch(void **state)
{
    struct batch_entry entries[BATCH_MESSAGES_MAX];
    const struct peer_message *message;

    (void)state;
    learn();
    message = &peer.messages[peer.messages_count];
    call(1, 1200);
    call(1, 1000);
    call(1, 1500);
    peer_run();
    peer_story_is("1 publish nameko-rpc/products.rpclib_batch");
    assert_true(message->mandatory);
    assert_string_equal(message->expiration, "1000"); /* the shortest of them */
    assert_string_equal(message->content_type, "application/json");
    assert_int_equal(message->delivery_mode, 1);
    assert_string_equal(message->body, "[{\"args\": [\"x\"], \"kwargs\": {}},{\"args\": [\"x\"], \"kwargs\": {}},"
                                       "{\"args\": [\"x\"], \"kwargs\": {}}]");
    assert_int_equal(peer_batch(1, entries), 3);
    assert_true(rpc_bytes_equal(entries[0].key, "products.get"));
    answer_batch(1, 0, 2, (const char *const[]){"\"a\"", "\"b\""});
    story_is("1 \"a\"; 2 \"b\"");
    answer_batch(1, 1, 2, (const char *const[]){"\"twice\"", "\"c\""});
    story_is("3 \"c\"");
    stats_are("calls 4 replies 4 timeouts 0 late 1 returned 0 lost 0");
    still_works();
}

/* A call that is alone in its turn goes as Nameko sends it, and so do all before anything is known of the service. */
static void test_no_batch_of_one(void **state)
{
    (void)state;
    call(2, 1000);
    peer_run();
    peer_story_is("1 publish nameko-rpc/products.get; 1 publish nameko-rpc/products.get");
    peer_answer_as_rpclib(CHANNEL, 0, "{\"result\": 1, \"error\": null}");
    peer_answer_as_rpclib(CHANNEL, 1, "{\"result\": 1, \"error\": null}");
    peer_run();
    story_is("0 1; 1 1");
    call(1, 1234);
    peer_run();
    peer_story_is("1 publish nameko-rpc/products.get");
    assert_string_equal(peer.messages[2].expiration, "1234");
    assert_string_equal(peer.messages[2].reply_to, peer.messages[0].reply_to);
    assert_string_equal(peer.messages[2].body, peer.messages[0].body);
    assert_int_equal(peer.messages[2].raw_size, peer.messages[0].raw_size);
    peer_answer(CHANNEL, 2, "{\"result\": 2, \"error\": null}"); /* by a Nameko instance: calls go alone again */
    peer_run();
    story_is("2 2");
    call(2, 1000);
    peer_run();
    peer_story_is("1 publish nameko-rpc/products.get; 1 publish nameko-rpc/products.get");
}

static void test_limits_that_differ_much(void **state)
{
    (void)state;
    learn();
    call(1, 1000);
    call(1, 2000);
    call(1, 2001); /* more than twice the shortest */
    call(1, 4000);
    call(1, 100);
    peer_run();
    peer_story_is("1 publish nameko-rpc/products.rpclib_batch; 1 publish nameko-rpc/products.rpclib_batch; "
                  "1 publish nameko-rpc/products.get");
}

/* A Nameko instance on the same queue got it. */
static void test_batch_refused(void **state)
{
    unsigned message;

    (void)state;
    learn();
    message = peer.messages_count;
    call(3, 1000);
    peer_run();
    peer.story[0] = '\0';
    rpc_client_cancel(client, ids[2]);
    peer_answer(CHANNEL, message,
                "{\"result\": null, \"error\": {\"exc_type\": \"MethodNotFound\", \"exc_args\": [\"rpclib_batch\"], "
                "\"exc_path\": \"nameko.exceptions.MethodNotFound\", \"value\": \"rpclib_batch\"}}");
    peer_run();
    story_is("");
    peer_story_is("1 publish nameko-rpc/products.get; 1 publish nameko-rpc/products.get");
    peer_answer_as_rpclib(CHANNEL, message + 1, "{\"result\": \"a\", \"error\": null}");
    peer_answer_as_rpclib(CHANNEL, message + 2, "{\"result\": \"b\", \"error\": null}");
    peer_run();
    story_is("1 \"a\"; 3 \"b\"");
    call(2, 1000); /* both kinds are there: none is tried for a while */
    peer_run();
    peer_story_is("1 publish nameko-rpc/products.get; 1 publish nameko-rpc/products.get");
    peer_advance(60000);
    story[0] = '\0';
    learn();
    call(2, 1000);
    peer_run();
    peer_story_is("1 publish nameko-rpc/products.rpclib_batch");
}

static void test_batch_returned(void **state)
{
    (void)state;
    learn();
    call(2, 1000);
    peer_run();
    peer_return(1);
    peer_run();
    story_is("1 unknown_service; 2 unknown_service");
    stats_are("calls 3 replies 1 timeouts 0 late 0 returned 2 lost 0");
    still_works();
}

/* Nobody answered: whoever has the queue now may know no batches. */
static void test_batch_times_out(void **state)
{
    (void)state;
    learn();
    call(2, 1000);
    peer_advance(1000);
    story_is("1 timeout; 2 timeout");
    peer.story[0] = '\0';
    call(2, 1000);
    peer_run();
    peer_story_is("1 publish nameko-rpc/products.get; 1 publish nameko-rpc/products.get");
}

static void test_batch_unreadable(void **state)
{
    amqp_table_entry_t header = {.key = amqp_cstring_bytes("rpclib-batch"),
                                 .value = {.kind = AMQP_FIELD_KIND_BYTES, .value.bytes = amqp_cstring_bytes("\5abc")}};

    (void)state;
    learn();
    call(2, 1000);
    peer_run();
    peer_deliver(CHANNEL, 1, false, peer.messages[0].reply_to,
                 &(amqp_basic_properties_t){._flags = AMQP_BASIC_HEADERS_FLAG,
                                            .headers = {.num_entries = 1, .entries = &header}},
                 RPC_BYTES("[1]"));
    peer_run();
    story_is("");
    peer_advance(1000);
    story_is("1 timeout; 2 timeout");
}

static void test_batch_cancelled_before_it_left(void **state)
{
    (void)state;
    learn();
    call(2, 1000);
    rpc_client_cancel(client, ids[1]);
    rpc_client_cancel(client, ids[2]);
    peer_run();
    peer_story_is("");
    call(2, 1000);
    rpc_client_cancel(client, ids[3]);
    peer_run();
    peer_story_is("1 publish nameko-rpc/products.rpclib_batch"); /* its answer will be late */
    answer_batch(1, 0, 2, (const char *const[]){"1", "2"});
    story_is("4 2");
    still_works();
}

static void test_batch_lost(void **state)
{
    (void)state;
    learn();
    call(2, 1000);
    peer_run();
    call(2, 1000); /* still gathered when the link is found broken */
    peer_hang_up(ECONNRESET);
    peer_run();
    story_is("1 lost; 4 offline; 3 offline; 2 lost");
    peer_advance(5000);
    still_works();
    call(2, 1000); /* nothing is known of the service on the new link */
    peer_run();
    peer_story_is("1 publish nameko-rpc/products.get; 1 publish nameko-rpc/products.get; "
                  "1 publish nameko-rpc/products.get");
}

static void test_batch_with_its_client_gone(void **state)
{
    (void)state;
    learn();
    call(2, 1000);
    peer_run();
    call(2, 1000);
    rpc_client_free(client);
    client = NULL;
    story_is("1 cancelled; 4 cancelled; 3 cancelled; 2 cancelled");
    peer_run();
}

/* As many messages under way, each of one call, as leave without waiting. */
static void fill_the_way(void)
{
    learn();
    for (unsigned i = 0; i < CALLEE_MESSAGES_MAX; i++) {
        call(1, 1000);
        peer_run();
    }
    peer_story_is("1 publish nameko-rpc/products.get; 1 publish nameko-rpc/products.get; "
                  "1 publish nameko-rpc/products.get; 1 publish nameko-rpc/products.get");
    call(1, 1000);
    peer_run();
    peer_story_is("");
}

static void test_batch_waits_for_an_answer(void **state)
{
    (void)state;
    fill_the_way();
    call(1, 1000);
    peer_run();
    peer_story_is("");
    peer_answer_as_rpclib(CHANNEL, 1, "{\"result\": \"a\", \"error\": null}");
    peer_run();
    story_is("1 \"a\"");
    peer_story_is("1 publish nameko-rpc/products.rpclib_batch"); /* one message for another */
    call(1, 1000);
    peer_run();
    peer_story_is("");
    answer_batch(5, 0, 1, (const char *const[]){"5"});
    story_is("5 5");
    peer_story_is(""); /* half of a message is answered */
    answer_batch(5, 1, 1, (const char *const[]){"6"});
    story_is("6 6");
    peer_story_is("1 publish nameko-rpc/products.get");
}

static void test_batch_waits_no_longer(void **state)
{
    (void)state;
    fill_the_way();
    call(1, 1000);
    peer_advance(CALLEE_HOLD_MS);
    peer_story_is("1 publish nameko-rpc/products.rpclib_batch");
    call(1, 1000);
    peer_run();
    peer_story_is("");
    peer_advance(CALLEE_HOLD_MS);
    peer_story_is("1 publish nameko-rpc/products.get");
}

/* What joins nobody need not wait; what ended without an answer is under way no more. */
static void test_batch_that_need_not_wait(void **state)
{
    (void)state;
    fill_the_way();
    call(1, 5000); /* so much longer that it travels apart */
    peer_run();
    peer_story_is("1 publish nameko-rpc/products.get");
    rpc_client_cancel(client, ids[1]);
    peer_run();
    peer_story_is(""); /* there are four still */
    rpc_client_cancel(client, ids[2]);
    peer_run();
    peer_story_is("1 publish nameko-rpc/products.get");
    assert_string_equal(peer.messages[6].expiration, "5000");
}

static void test_batch_that_waits_is_lost(void **state)
{
    (void)state;
    fill_the_way();
    peer_hang_up(ECONNRESET);
    peer_run();
    assert_non_null(strstr(story, "5 offline"));
    story[0] = '\0';
    peer_advance(5000);
    peer.story[0] = '\0';
    learn();
    call(2, 1000); /* nothing of before is counted as under way */
    peer_run();
    peer_story_is("1 publish nameko-rpc/products.rpclib_batch");
}

static void test_batch_that_waits_with_its_client_gone(void **state)
{
    (void)state;
    fill_the_way();
    rpc_client_free(client);
    client = NULL;
    assert_non_null(strstr(story, "5 cancelled"));
    story[0] = '\0';
    peer_advance(CALLEE_HOLD_MS);
    peer_story_is("1 close");
}

static void test_batch_that_waits_while_blocked(void **state)
{
    (void)state;
    fill_the_way();
    peer_block(true);
    peer_run();
    peer_advance(CALLEE_HOLD_MS);
    story_is("5 blocked");
    peer_story_is("");
}

/* A callback of one call ends the others of its batch, or makes new ones. */
static void test_batch_within_a_callback(void **state)
{
    (void)state;
    learn();
    call(3, 1000);
    peer_run();
    reaction = CANCELS_2;
    answer_batch(1, 0, 3, (const char *const[]){"1", "2", "3"});
    story_is("1 1; 3 3");
    call(3, 1000);
    peer_run();
    reaction = CALLS_AGAIN;
    peer_return(2);
    peer_run();
    story_is("4 unknown_service; again: ok; 5 unknown_service; 6 unknown_service");
    call(2, 1000);
    peer_run();
    reaction = CLOSES_CONNECTION;
    peer_return(4);
    peer_run();
    assert_non_null(strstr(story, "8 unknown_service; 9 unknown_service"));
}

static void test_one_call_a_message(void **state)
{
    (void)state;
    rpc_client_free(client);
    peer_run();
    client =
        rpc_client_new(peer.connection, &(struct rpc_client_options){.name = "gateway", .one_call_a_message = true});
    peer_run();
    peer.story[0] = '\0';
    call(1, 1000);
    peer_run();
    peer_answer_as_rpclib(peer.messages[0].channel, 0, "{\"result\": 1, \"error\": null}");
    peer_run();
    call(2, 1000);
    peer_run();
    assert_null(strstr(peer.story, "rpclib_batch"));
    assert_int_equal(peer.messages_count, 3);
}

/* ---- Goodbye ----------------------------------------------------------------------------------------------------- */

static void test_close_connection(void **state)
{
    (void)state;
    call(1, 1000);
    peer_run();
    rpc_connection_close(peer.connection, 500, on_closed, NULL);
    assert_false(rpc_client_ready(client));
    assert_int_equal(call_on(client, 1, 1000), RPC_OFFLINE);
    peer_run();
    peer_advance(1); /* `done` comes when the broker has answered, not at the limit */
    story_is("0 lost; closed");
    peer_story_is("1 publish nameko-rpc/products.get; goodbye");
}

static void test_close_before_a_silent_broker(void **state)
{
    (void)state;
    peer.silent = true;
    rpc_connection_close(peer.connection, 500, on_closed, NULL);
    peer_advance(499);
    story_is("");
    peer_advance(2);
    story_is("closed");
}

static void test_close_within_a_callback(void **state)
{
    (void)state;
    call(2, 1000);
    peer_run();
    reaction = CLOSES_CONNECTION;
    peer_answer(CHANNEL, 0, ANSWER);
    peer_answer(CHANNEL, 1, ANSWER);
    peer_run();
    peer_advance(1);
    story_is("0 7; 1 7; closed");
}

/* Within a callback, and the link is found broken in that moment. */
static void test_close_within_a_callback_on_a_broken_link(void **state)
{
    (void)state;
    call(2, 1000);
    peer_run();
    reaction = CLOSES_CONNECTION;
    peer_answer(CHANNEL, 0, ANSWER);
    peer_answer(CHANNEL, 1, ANSWER);
    peer_hang_up(ECONNRESET);
    peer_run();
    peer_advance(1);
    story_is("0 7; 1 7; closed");
}

static void test_close_when_lost(void **state)
{
    (void)state;
    call(1, 1000);
    peer_run();
    reaction = CLOSES_CONNECTION;
    peer_hang_up(0);
    peer_run();
    peer_advance(1);
    story_is("0 lost; closed");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_set_up),
        TEST(test_request),
        TEST(test_request_without_anything),
        TEST(test_too_large),
        TEST(test_one_write_a_turn),
        TEST(test_answers),
        TEST(test_answers_in_any_order),
        TEST(test_late_double_foreign),
        TEST(test_late_answer_for_a_place_used_again),
        TEST(test_returned),
        TEST(test_deadlines),
        TEST(test_deadlines_at_random),
        TEST(test_busy),
        TEST(test_blocked),
        TEST(test_call_within_a_callback),
        TEST(test_cancel_within_a_callback),
        TEST(test_cancel_oneself),
        TEST(test_cancel_while_the_link_breaks),
        TEST(test_free_with_calls_in_flight),
        TEST(test_batch),
        TEST(test_no_batch_of_one),
        TEST(test_limits_that_differ_much),
        TEST(test_batch_refused),
        TEST(test_batch_returned),
        TEST(test_batch_times_out),
        TEST(test_batch_unreadable),
        TEST(test_batch_cancelled_before_it_left),
        TEST(test_batch_lost),
        TEST(test_batch_with_its_client_gone),
        TEST(test_batch_waits_for_an_answer),
        TEST(test_batch_waits_no_longer),
        TEST(test_batch_that_need_not_wait),
        TEST(test_batch_that_waits_is_lost),
        TEST(test_batch_that_waits_with_its_client_gone),
        TEST(test_batch_that_waits_while_blocked),
        TEST(test_batch_within_a_callback),
        TEST(test_one_call_a_message),
        TEST(test_lost),
        TEST(test_lost_by_send),
        TEST(test_call_again_when_lost),
        TEST(test_call_on_another_client_when_lost),
        TEST(test_new_client_when_lost),
        TEST(test_new_publisher_when_lost),
        TEST(test_channel_closed),
        TEST(test_new_client_when_the_channel_closes),
        TEST(test_consumer_cancelled),
        TEST(test_close_connection),
        TEST(test_close_before_a_silent_broker),
        TEST(test_close_within_a_callback),
        TEST(test_close_within_a_callback_on_a_broken_link),
        TEST(test_close_when_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

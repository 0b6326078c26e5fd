/*
 * rpc_service: each request is answered once, in Nameko's words, and acknowledged behind its answer; before a broker that
 * the test plays, with requests that real Nameko sent among others.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "amqp/frame.h"
#include "rpclib/json.h"
#include "rpclib/log.h"
#include "rpclib/publisher.h"
#include "rpclib/service.h"
#include "service_fixture.h"
#include "session.h"

/* ---- The log ----------------------------------------------------------------------------------------------------- */

static struct {
    int file, stderr_copy;
} logged;

static void log_begin(void)
{
    logged.file = memfd_create("log", 0);
    logged.stderr_copy = dup(STDERR_FILENO);
    assert_true(logged.file >= 0 && logged.stderr_copy >= 0);
    assert_true(dup2(logged.file, STDERR_FILENO) >= 0);
    rpc_log_configure("test", RPC_LOG_WARNING, RPC_LOG_LOGFMT);
}

/* How many lines said it. */
static unsigned log_end(const char *what)
{
    static char text[65536];
    ssize_t size;
    unsigned count = 0;

    rpc_log_configure("test", RPC_LOG_ERROR + 1, RPC_LOG_LOGFMT);
    dup2(logged.stderr_copy, STDERR_FILENO);
    size = pread(logged.file, text, sizeof(text) - 1, 0);
    assert_in_range(size, 0, sizeof(text) - 2); /* all of it */
    text[size] = '\0';
    close(logged.file);
    close(logged.stderr_copy);
    for (const char *at = strstr(text, what); at != NULL; at = strstr(at + 1, what))
        count++;
    return count;
}

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

/* What the next request is answered with; `sent` is all that the service sent for it. */
static void answer_is_at(const char *routing_key, const char *body, const char *expected, int line)
{
    static uint64_t tag;
    unsigned message = peer.messages_count;
    char sent[100];

    peer_request(REQUESTS, ++tag, routing_key, "c-1", body);
    peer_run();
    if (peer.messages_count != message + 1)
        fail_msg("line %d: no answer, or two: \"%s\"", line, peer.story);
    snprintf(sent, sizeof(sent), "1 publish nameko-rpc/caller; 1 ack %llu", (unsigned long long)tag);
    peer_story_is_at(sent, line);
    if (strcmp(peer.messages[message].body, expected) != 0)
        fail_msg("line %d: %s\n  instead of %s", line, peer.messages[message].body, expected);
    assert_string_equal(peer.messages[message].correlation_id, "c-1");
}

#define answer_is(key, body, expected) answer_is_at(key, body, expected, __LINE__)

#define ERROR(type, path, value)                                                            \
    "{\"result\": null, \"error\": {\"exc_type\": \"" type "\", \"exc_path\": \"" path type \
    "\", \"exc_args\": [\"" value "\"], \"value\": \"" value "\"}}"
#define NAMEKO "nameko.exceptions."

static void test_set_up(void **state)
{
    (void)state;
    start(2);
    assert_string_equal(peer.declared,
                        "1 open; 1 qos 10; 1 exchange nameko-rpc topic durable; 1 queue rpc-products durable; "
                        "1 bind rpc-products to nameko-rpc by products.*; 1 consume rpc-products; "
                        "2 open; 2 qos 10; 2 exchange orders.events topic durable; "
                        "2 queue evt-orders-order_created--products.on_order durable; "
                        "2 bind evt-orders-order_created--products.on_order to orders.events by order_created; "
                        "2 consume evt-orders-order_created--products.on_order; "
                        "3 open; 3 qos 10; 3 exchange orders.events topic durable; "
                        "3 queue evt-orders-order_created--products.on_requeue durable; "
                        "3 bind evt-orders-order_created--products.on_requeue to orders.events by order_created; "
                        "3 consume evt-orders-order_created--products.on_requeue");
}

static void test_answers(void **state)
{
    (void)state;
    start(0);
    answer_is("products.exists", "{\"args\": [\"x\"], \"kwargs\": {}}", "{\"result\": true, \"error\": null}");
    answer_is("products.exists", "{\"args\": [], \"kwargs\": {\"product_id\": 1}}",
              "{\"result\": true, \"error\": null}");
    answer_is("products.list", "{\"kwargs\": {}, \"args\": []}", "{\"result\": [], \"error\": null}");
    answer_is("products.delete", "{\"args\": [1], \"kwargs\": {}}", "{\"result\": null, \"error\": null}");
    answer_is("products.echo", "{\"args\": [\"\xc3\xa9\"], \"kwargs\": {}}",
              "{\"result\": [\"\xc3\xa9\"], \"error\": null}");
    answer_is("products.echo", "{\"args\": [{\"a\": 1.5}], \"kwargs\": {\"b\": null}}",
              "{\"result\": [{\"a\": 1.5}, null], \"error\": null}");
    assert_string_equal(peer.messages[0].content_type, "application/json");
    assert_string_equal(peer.messages[0].content_encoding, "utf-8");
    assert_string_equal(peer.messages[0].headers, "{}");
    assert_string_equal(peer.messages[0].reply_to, "");
    assert_int_equal(peer.messages[0].delivery_mode, 1);
    assert_int_equal(peer.messages[0].priority, 0);
    assert_false(peer.messages[0].mandatory);
}

static void test_errors(void **state)
{
    (void)state;
    start(0);
    answer_is("products.get", "{\"args\": [\"x\"], \"kwargs\": {}}",
              ERROR("NotFound", "products.exceptions.", "Product ID x does not exist"));
    answer_is("products.nothing", "{\"args\": [], \"kwargs\": {}}", ERROR("MethodNotFound", NAMEKO, "nothing"));
    answer_is("products.nothing", "[]", ERROR("MethodNotFound", NAMEKO, "nothing")); /* before the body is judged */
    answer_is("products.", "{\"args\": [], \"kwargs\": {}}", ERROR("MethodNotFound", NAMEKO, ""));
    answer_is("products", "{\"args\": [], \"kwargs\": {}}", ERROR("MethodNotFound", NAMEKO, "products"));
    answer_is("products.get", "{\"args\": [], \"kwargs\": {}}",
              ERROR("IncorrectSignature", NAMEKO, "get() missing 1 required positional argument: 'product_id'"));
    answer_is("products.create", "{\"args\": [{}], \"kwargs\": {}}",
              "{\"result\": null, \"error\": {\"exc_type\": \"ValidationError\", \"exc_path\": "
              "\"marshmallow.exceptions.ValidationError\", \"exc_args\": [{\"title\": [\"Missing data for required "
              "field.\"], \"in_stock\": [\"Not a valid integer.\"]}], \"value\": \"{'title': ['Missing data for "
              "required field.'], 'in_stock': ['Not a valid integer.']}\"}}");
    answer_is("products.fail", "{\"args\": [\"no utf-8\"], \"kwargs\": {}}",
              ERROR("NotFound", "products.exceptions.", "(text that is no UTF-8)"));
    answer_is("products.fail", "{\"args\": [\"own args\"], \"kwargs\": {}}",
              "{\"result\": null, \"error\": {\"exc_type\": \"Odd\", \"exc_path\": \"a.Odd\", \"exc_args\": [1, "
              "{\"a\": null}], \"value\": \"v\"}}");
    answer_is("products.fail", "{\"args\": [\"bad args\"], \"kwargs\": {}}", ERROR("Odd", "a.", "v"));
}

static void test_malformed(void **state)
{
    static const char malformed[] = ERROR("MalformedRequest", NAMEKO, "Message missing `args` or `kwargs`");

    (void)state;
    start(0);
    answer_is("products.get", "{}", malformed);
    answer_is("products.get", "{\"args\": []}", malformed);
    answer_is("products.get", "{\"kwargs\": {}}", malformed);
    answer_is("products.get", "{\"args\": {}, \"kwargs\": {}}", malformed);
    answer_is("products.get", "{\"args\": [], \"kwargs\": []}", malformed);
    answer_is("products.get", "{\"args\": null, \"kwargs\": null}", malformed);
    answer_is("products.get", "[]", malformed);
    answer_is("products.get", "null", malformed);
    answer_is("products.get", "\"args kwargs\"", malformed);
    answer_is("products.get", "1", malformed);
}

/* The caller learns a reference, and nothing of the cause. */
static void unexpected_is_at(const char *how, int line)
{
    char body[100];
    unsigned message = peer.messages_count;
    json_t *answer;
    const char *value;

    snprintf(body, sizeof(body), "{\"args\": [\"%s\"], \"kwargs\": {}}", how);
    peer_request(REQUESTS, message + 1, "products.fail", "c-1", body);
    peer_run();
    if (peer.messages_count != message + 1)
        fail_msg("line %d: \"%s\"", line, peer.story);
    answer = json_loads(peer.messages[message].body, 0, NULL);
    assert_non_null(answer);
    value = json_string_value(json_object_get(json_object_get(answer, "error"), "value"));
    assert_string_equal(json_string_value(json_object_get(json_object_get(answer, "error"), "exc_path")),
                        "products.exceptions.UnexpectedError");
    if (strlen(value) != 36)
        fail_msg("line %d: value %s", line, value);
    assert_null(strstr(peer.messages[message].body, "secret"));
    json_decref(answer);
    peer.story[0] = '\0';
}

#define unexpected_is(how) unexpected_is_at(how, __LINE__)

static void test_unexpected(void **state)
{
    (void)state;
    start(0);
    unexpected_is("unexpected");
    unexpected_is("large result");
    unexpected_is("large error"); /* handed back, it would only come again */
}

/* ---- Messages that are no requests ------------------------------------------------------------------------------- */

static void rejects_at(const amqp_basic_properties_t *properties, struct rpc_bytes body, const char *expected, int line)
{
    struct rpc_service_stats before, after;

    rpc_service_stats(service, &before);
    peer_deliver(REQUESTS, 1, false, "products.exists", properties, body);
    peer_run();
    rpc_service_stats(service, &after);
    peer_story_is_at(expected, line);
    assert_int_equal(after.rejected - before.rejected, strcmp(expected, "1 reject 1") == 0);
}

#define REPLY_TO AMQP_BASIC_REPLY_TO_FLAG, .reply_to = amqp_cstring_bytes("caller")
#define TYPE(type)                                                                                     \
    AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_REPLY_TO_FLAG, .reply_to = amqp_cstring_bytes("caller"), \
                                                             .content_type = amqp_cstring_bytes(type)
#define GOOD "{\"args\": [1], \"kwargs\": {}}"

#define rejects(body, ...) rejects_at(&(amqp_basic_properties_t){._flags = __VA_ARGS__}, body, "1 reject 1", __LINE__)
#define takes(body, ...)                                                                                        \
    rejects_at(&(amqp_basic_properties_t){._flags = __VA_ARGS__}, body, "1 publish nameko-rpc/caller; 1 ack 1", \
               __LINE__)

static void test_no_requests(void **state)
{
    (void)state;
    start(0);
    rejects(RPC_BYTES(""), REPLY_TO);
    rejects(RPC_BYTES("{\"args\": [1], \"kwargs\": {}"), REPLY_TO);
    rejects(RPC_BYTES("args"), REPLY_TO);
    rejects(RPC_BYTES("{\"args\": [\"\xff\"], \"kwargs\": {}}"), REPLY_TO);
    rejects(RPC_BYTES("{\"args\": [\"\0\"], \"kwargs\": {}}"), REPLY_TO);
    rejects(RPC_BYTES(GOOD "\0"), REPLY_TO);
    rejects(RPC_BYTES(GOOD), 0); /* nowhere to answer to */
    rejects(RPC_BYTES(GOOD), AMQP_BASIC_REPLY_TO_FLAG, .reply_to = amqp_cstring_bytes(""));
    rejects(RPC_BYTES(GOOD), AMQP_BASIC_REPLY_TO_FLAG, .reply_to = amqp_cstring_bytes("orders.create_order"));
    rejects(RPC_BYTES(GOOD), AMQP_BASIC_REPLY_TO_FLAG, .reply_to = amqp_cstring_bytes("caller "));
    rejects(RPC_BYTES(GOOD), TYPE("text/plain"));
    rejects(RPC_BYTES(GOOD), TYPE("application/x-python-serialize"));
    rejects(RPC_BYTES(GOOD), TYPE("application/jsonx"));
    takes(RPC_BYTES(GOOD), REPLY_TO);
    takes(RPC_BYTES(GOOD), TYPE("application/json"));
    takes(RPC_BYTES(GOOD), TYPE("Application/JSON"));
    takes(RPC_BYTES(GOOD), TYPE("application/json; charset=utf-8"));
    takes(RPC_BYTES(GOOD), TYPE("application/json;charset=utf-8"));
    takes(RPC_BYTES(" \n" GOOD "\r\n"), REPLY_TO);
}

static void test_oversized(void **state)
{
    static char part[4088];

    (void)state;
    start(0);
    log_begin();
    PEER_METHOD(REQUESTS, BASIC_DELIVER, basic_deliver, .delivery_tag = 1);
    frames_header(peer_out(), REQUESTS, &(amqp_basic_properties_t){0}, RPC_MESSAGE_SIZE_MAX + 1);
    for (size_t left = RPC_MESSAGE_SIZE_MAX + 1; left > 0;) {
        size_t size = left < sizeof(part) ? left : sizeof(part);

        frames_raw(peer_out(), AMQP_FRAME_BODY, REQUESTS, (struct rpc_bytes){part, size});
        left -= size;
        if (network_link()->inbound.size > 1000000)
            peer_run();
    }
    peer_run();
    peer_story_is("1 reject 1");
    assert_int_equal(log_end("is too large and was not read\" what=requests size=16777217"), 1);
    answer_is("products.list", "{\"args\": [], \"kwargs\": {}}", "{\"result\": [], \"error\": null}");
}

/* A correlation id may be missing, or hold any bytes; it comes back as it came. */
static void test_correlation_ids(void **state)
{
    (void)state;
    start(0);
    takes(RPC_BYTES(GOOD), REPLY_TO);
    assert_string_equal(peer.messages[0].correlation_id, "");
    takes(RPC_BYTES(GOOD), AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG,
          .reply_to = amqp_cstring_bytes("caller"), .correlation_id = amqp_cstring_bytes("\x01\xff\n% d"));
    assert_string_equal(peer.messages[1].correlation_id, "\x01\xff\n% d");
}

/* ---- What a request brings along --------------------------------------------------------------------------------- */

static void test_deadline(void **state)
{
    static const struct {
        const char *expiration;
        uint64_t deadline_ms; /* from now; UINT64_MAX: none */
    } cases[] = {{"1234", 1234},      {"0", 0},           {"", UINT64_MAX},       {"-1", UINT64_MAX},
                 {"1e3", UINT64_MAX}, {" 1", UINT64_MAX}, {"86400000", 86400000}, {"99999999999999999999", UINT64_MAX}};
    uint64_t now = rpc_loop_now_ms(fake_loop_base(peer.loop));

    (void)state;
    start(0);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t expected = cases[i].deadline_ms == UINT64_MAX ? UINT64_MAX : now + cases[i].deadline_ms;

        peer_deliver(REQUESTS, i + 1, false, "products.hold",
                     &(amqp_basic_properties_t){._flags = AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_EXPIRATION_FLAG,
                                                .reply_to = amqp_cstring_bytes("caller"),
                                                .expiration = amqp_cstring_bytes(cases[i].expiration)},
                     RPC_BYTES("{\"args\": [], \"kwargs\": {}}"));
        peer_run();
        if (rpc_incoming_deadline_ms(held[i]) != expected)
            fail_msg("case %u: %llu", i, (unsigned long long)rpc_incoming_deadline_ms(held[i]));
        rpc_incoming_answer_json(held[i], NULL);
    }
}

static amqp_table_entry_t text_header(const char *key, const char *value)
{
    return (amqp_table_entry_t){.key = amqp_cstring_bytes(key),
                                .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(value)}};
}

static void request_with_headers(amqp_table_entry_t *entries, int count)
{
    peer_deliver(REQUESTS, 1, true, "products.hold",
                 &(amqp_basic_properties_t){._flags = AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_HEADERS_FLAG,
                                            .reply_to = amqp_cstring_bytes("caller"),
                                            .headers = {count, entries}},
                 RPC_BYTES("{\"args\": [], \"kwargs\": {}}"));
    peer_run();
}

static void context_has(const struct rpc_context *context, const char *key, const char *value)
{
    struct rpc_bytes found = rpc_context_get(context, key);

    if (value == NULL ? found.data != NULL : !rpc_bytes_equal(found, value))
        fail_msg("%s is \"%.*s\"", key, (int)found.size, found.data);
}

static void test_context(void **state)
{
    amqp_field_value_t stack[] = {{.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes("gateway.get.1")}};
    amqp_table_entry_t entries[] = {
        text_header("nameko.language", "en"),
        text_header("traceparent", "00-1"),
        {.key = amqp_cstring_bytes("nameko.nothing"), .value = {.kind = AMQP_FIELD_KIND_VOID}},
        {.key = amqp_cstring_bytes("nameko.call_id_stack"),
         .value = {.kind = AMQP_FIELD_KIND_ARRAY, .value.array = {1, stack}}},
    };
    struct rpc_context *context;
    char *text;

    (void)state;
    start(0);
    request_with_headers(entries, 4);
    story_is("hold  again");
    context = rpc_incoming_context(held[0]);
    assert_non_null(context);
    assert_ptr_equal(rpc_incoming_context(held[0]), context);
    context_has(context, "language", "en");
    context_has(context, "traceparent", "00-1");
    context_has(context, "nothing", NULL);
    text = rpc_context_to_json(context, NULL);
    assert_non_null(strstr(text, "[\"gateway.get.1\",\"products.hold."));
    free(text);
    rpc_incoming_answer_json(held[0], NULL);
}

/* More headers than a context holds: the first ones are kept, and the call stack has its place in any case. */
static void test_context_of_too_many_headers(void **state)
{
    amqp_table_entry_t entries[100];
    char keys[100][8];
    struct rpc_context *context;
    char *text;

    (void)state;
    start(0);
    for (int i = 0; i < 100; i++) {
        snprintf(keys[i], sizeof(keys[i]), "k%d", i);
        entries[i] = text_header(keys[i], "v");
    }
    request_with_headers(entries, 100);
    context = rpc_incoming_context(held[0]);
    assert_non_null(context);
    context_has(context, "k0", "v");
    context_has(context, "k62", "v");
    context_has(context, "k63", NULL);
    text = rpc_context_to_json(context, NULL);
    assert_non_null(strstr(text, "call_id_stack"));
    free(text);
    rpc_incoming_answer_json(held[0], NULL);
}

/* ---- Answers later, and the link that breaks --------------------------------------------------------------------- */

static void test_answer_later(void **state)
{
    (void)state;
    start(0);
    peer_request(REQUESTS, 1, "products.hold", "a", HOLD);
    peer_request(REQUESTS, 2, "products.hold", "b", HOLD);
    peer_request(REQUESTS, 3, "products.list", "c", HOLD);
    peer_run();
    story_is("hold a; hold b");
    assert_int_equal(rpc_service_in_flight(service), 2);
    peer_story_is("1 publish nameko-rpc/caller");
    rpc_incoming_answer_json(held[1], json_true());
    peer_run();
    peer_story_is("1 publish nameko-rpc/caller; 1 ack 2; 1 ack 3");
    rpc_incoming_answer_json(held[0], json_true());
    peer_run();
    peer_story_is("1 publish nameko-rpc/caller; 1 ack 1");
    assert_int_equal(rpc_service_in_flight(service), 0);
}

static void test_answer_after_reconnect(void **state)
{
    (void)state;
    start(0);
    peer_request(REQUESTS, 1, "products.hold", "a", HOLD);
    peer_request(REQUESTS, 2, "products.hold", "b", HOLD);
    peer_run();
    peer_hang_up(ECONNRESET);
    peer_run();
    assert_false(rpc_service_ready(service));
    rpc_incoming_answer_json(held[0], json_true()); /* to nobody: it is delivered again */
    peer.story[0] = '\0';
    peer_advance(RPC_RECONNECT_MAX_MS);
    assert_int_equal(ready, 2);
    peer_story_is("");
    rpc_incoming_answer_json(held[1], json_true()); /* its caller is still there, perhaps; its delivery is not */
    peer_run();
    peer_story_is("1 publish nameko-rpc/caller");
}

static void test_set_up_without_answers(void **state)
{
    (void)state;
    peer.holds_answers = true;
    service = rpc_service_new(
        peer.connection, &(struct rpc_service_options){.name = "products", .methods = methods, .methods_count = 1});
    silence_is_given_up();
}

/* Nothing was taken, and nothing was agreed on: nothing to wait for. */
static void test_stop_before_the_consume_is_answered(void **state)
{
    (void)state;
    peer.holds_answers = true;
    service = rpc_service_new(
        peer.connection, &(struct rpc_service_options){.name = "products", .methods = methods, .methods_count = 1});
    peer_run();
    rpc_service_stop(service, 1000, on_stopped, NULL);
    peer_advance(1);
    assert_int_equal(stopped, 1);
}

/* One of two sessions finds no channel: tried again and again, told of once; so is a broker that is away. */
static void test_too_few_channels(void **state)
{
    (void)state;
    log_begin();
    peer.channels_max = 1;
    peer_hang_up(0);
    peer_advance(2 * RPC_RECONNECT_MAX_MS);
    service = rpc_service_new(peer.connection, &(struct rpc_service_options){.name = "products",
                                                                             .methods = methods,
                                                                             .methods_count = 1,
                                                                             .event_handlers = handlers,
                                                                             .event_handlers_count = 1});
    peer_advance(3 * SESSION_REOPEN_MAX_MS);
    assert_false(rpc_service_ready(service));
    assert_int_equal(log_end("channels_max=1"), 1);
    log_begin();
    peer.channels_max = 2;
    peer_hang_up(0);
    peer_advance(2 * RPC_RECONNECT_MAX_MS + SESSION_REOPEN_MAX_MS);
    assert_true(rpc_service_ready(service));
    assert_int_equal(log_end("level=warn"), 1);
}

static void test_a_refused_declaration_is_told_once(void **state)
{
    (void)state;
    start(0);
    log_begin();
    for (unsigned ms = 0; ms < 60000; ms++) {
        if (rpc_service_ready(service))
            PEER_METHOD(REQUESTS, CHANNEL_CLOSE, channel_close, .reply_code = 403,
                        .reply_text = amqp_cstring_bytes("ACCESS_REFUSED"));
        peer_advance(1);
    }
    assert_int_equal(log_end("ACCESS_REFUSED"), 1);
}

/* An open-ok that is followed by the end is no success: the attempts become rare as if there had been none. */
static void test_a_link_that_never_stays(void **state)
{
    unsigned handshakes = peer.handshakes;

    (void)state;
    start(0);
    log_begin();
    for (unsigned ms = 0; ms < 30000; ms++) {
        if (rpc_connection_state(peer.connection) == RPC_CONNECTION_UP)
            peer_hang_up(0);
        peer_advance(1);
    }
    assert_in_range(peer.handshakes - handshakes, 30000 / RPC_RECONNECT_MAX_MS, 2 * 30000 / RPC_RECONNECT_MAX_MS + 8);
    peer_advance(2 * RPC_RECONNECT_MAX_MS);
    assert_true(rpc_service_ready(service));
    assert_int_equal(log_end("level=warn"), 1);
    handshakes = peer.handshakes;
    peer_hang_up(0);
    peer_advance(2 * RPC_RECONNECT_MIN_MS); /* it stayed: the next attempt is made at once */
    assert_int_equal(peer.handshakes, handshakes + 1);
}

static void test_blocked(void **state)
{
    (void)state;
    start(0);
    peer_request(REQUESTS, 1, "products.hold", "a", HOLD);
    peer_block(true);
    peer_run();
    assert_false(rpc_service_ready(service));
    rpc_incoming_answer_json(held[0], json_true());
    peer_run();
    peer_story_is("1 publish nameko-rpc/caller; 1 ack 1"); /* it waits at the broker's door */
    peer_block(false);
    peer_run();
    assert_true(rpc_service_ready(service));
}

/* ---- The end ----------------------------------------------------------------------------------------------------- */

static void test_free_with_requests_running(void **state)
{
    (void)state;
    start(2);
    peer_request(REQUESTS, 1, "products.hold", "a", HOLD);
    peer_request(REQUESTS, 2, "products.hold", "b", HOLD);
    peer_request(REQUESTS, 3, "products.hold", "c", HOLD);
    peer_request(REQUESTS, 4, "products.hold", "d", HOLD);
    peer_deliver(EVENTS, 1, false, "order_created", &(amqp_basic_properties_t){0}, RPC_BYTES("1"));
    peer_deliver(EVENTS, 2, false, "order_created", &(amqp_basic_properties_t){0}, RPC_BYTES("2"));
    peer_deliver(EVENTS, 3, false, "order_created", &(amqp_basic_properties_t){0}, RPC_BYTES("3"));
    peer_run();
    assert_int_equal(held_count, 4);
    assert_int_equal(held_events_count, 3);
    assert_non_null(rpc_incoming_context(held[0]));
    assert_non_null(rpc_event_context(held_events[0]));
    rpc_service_free(service);
    service = NULL;
    assert_null(rpc_incoming_context(held[1]));
    assert_string_equal(rpc_incoming_correlation_id(held[1]), "b");
    rpc_incoming_answer_json(held[0], json_true());
    rpc_incoming_fail(held[1], "NotFound", "x");
    rpc_incoming_fail_unexpected(held[2], "x");
    rpc_incoming_fail_validation(held[3], json_true());
    rpc_event_done(held_events[0]);
    rpc_event_fail(held_events[1], "x");
    rpc_event_reject(held_events[2], "x");
    peer_run();
    assert_int_equal(peer.messages_count, 0);
}

static void test_free_within_a_handler(void **state)
{
    (void)state;
    start(2);
    peer_request(REQUESTS, 1, "products.free", "a", HOLD);
    peer_request(REQUESTS, 2, "products.hold", "b", HOLD);
    peer_run();
    assert_null(service);
    story_is("");
    assert_int_equal(peer.messages_count, 0);
}

static void on_stopped_free(void *arg)
{
    (void)arg;
    stopped++;
    rpc_service_free(service);
    service = NULL;
}

static void test_stop(void **state)
{
    struct rpc_service_stats stats;

    (void)state;
    start(1);
    peer_request(REQUESTS, 1, "products.hold", "a", HOLD);
    peer_deliver(EVENTS, 1, false, "order_created", &(amqp_basic_properties_t){0}, RPC_BYTES("1"));
    peer_run();
    rpc_service_stop(service, 1000, on_stopped, NULL);
    peer_request(REQUESTS, 2, "products.hold", "b", HOLD);
    peer_run();
    peer_story_is("1 cancel; 2 cancel; 1 reject 2 requeue");
    assert_false(rpc_service_ready(service));
    peer_advance(500);
    rpc_incoming_answer_json(held[0], json_true());
    peer_advance(10);
    assert_int_equal(stopped, 0);
    rpc_event_done(held_events[0]);
    peer_advance(1);
    assert_int_equal(stopped, 1);
    peer_story_is("1 publish nameko-rpc/caller; 1 ack 1; 2 ack 1");
    rpc_service_stats(service, &stats);
    assert_int_equal(stats.handed_back, 1);
    peer_advance(5000);
    assert_int_equal(stopped, 1);
}

static void test_stop_has_a_limit(void **state)
{
    (void)state;
    start(0);
    peer_request(REQUESTS, 1, "products.hold", "a", HOLD);
    peer_run();
    rpc_service_stop(service, 1000, on_stopped_free, NULL);
    peer_advance(999);
    assert_int_equal(stopped, 0);
    peer_advance(1);
    assert_int_equal(stopped, 1);
    rpc_incoming_answer_json(held[0], json_true());
    peer_run();
    assert_int_equal(peer.messages_count, 0);
}

static void test_stop_when_idle(void **state)
{
    (void)state;
    start(2);
    rpc_service_stop(service, 60000, on_stopped_free, NULL);
    assert_int_equal(stopped, 0); /* never from inside */
    peer_advance(1);
    assert_int_equal(stopped, 1);
}

static void test_stop_without_a_link(void **state)
{
    (void)state;
    start(2);
    peer.silent = true;
    peer_hang_up(0);
    peer_run();
    rpc_service_stop(service, 60000, on_stopped_free, NULL);
    peer_advance(1);
    assert_int_equal(stopped, 1);
}

/* ---- Events ------------------------------------------------------------------------------------------------------ */

static void test_events(void **state)
{
    (void)state;
    start(2);
    event(EVENTS, "{\"order\": 1}");
    story_is("event {\"order\": 1}");
    peer_story_is("");
    rpc_event_done(held_events[0]);
    peer_run();
    peer_story_is("2 ack 1");
    event(EVENTS, "2");
    rpc_event_fail(held_events[1], "why"); /* Nameko drops it */
    peer_run();
    peer_story_is("2 ack 1");
    event(EVENTS + 1, "3");
    rpc_event_fail(held_events[2], "why");
    peer_run();
    peer_story_is("3 reject 1 requeue");
    event(EVENTS + 1, "4");
    rpc_event_reject(held_events[3], "why");
    peer_run();
    peer_story_is("3 reject 1");
    story[0] = '\0';
    event(EVENTS, "no JSON");
    peer_story_is("2 reject 1");
    story_is("");
}

/* ---- Dead letters ------------------------------------------------------------------------------------------------ */

static const struct rpc_event_handler trying[] = {
    {.source = "orders", .event_type = "order_created", .name = "on_order", .attempts_max = 3, .handler = on_event}};

static void start_with_dead_letters(void)
{
    service = rpc_service_new(peer.connection, &(struct rpc_service_options){.name = "products",
                                                                             .event_handlers = trying,
                                                                             .event_handlers_count = 1,
                                                                             .keep_dead_letters = true});
    peer_run();
    assert_true(rpc_service_ready(service));
}

/* The channel of the events is found by what was declared on it. */
static uint16_t event_channel(void)
{
    return (uint16_t)atoi(strstr(peer.declared, " consume ") - 1);
}

/* An event that claims so many attempts fails: where it goes, and how many it claims then. */
static void goes_to_at(int64_t attempts, const char *queue, int64_t expected, int line)
{
    amqp_table_entry_t entry = {.key = amqp_cstring_bytes("x-airship-attempts"),
                                .value = {.kind = AMQP_FIELD_KIND_I64, .value.i64 = attempts}};
    unsigned message = peer.messages_count;
    char counted[60];

    held_events_count = 0;
    peer_deliver(event_channel(), 1, false, "order_created",
                 &(amqp_basic_properties_t){._flags = AMQP_BASIC_HEADERS_FLAG, .headers = {1, &entry}}, RPC_BYTES("1"));
    peer_run();
    assert_int_equal(held_events_count, 1);
    rpc_event_fail(held_events[0], "why");
    peer_run();
    snprintf(counted, sizeof(counted), "\"x-airship-attempts\": %lld", (long long)expected);
    if (peer.messages_count != message + 1 || strcmp(peer.messages[message].routing_key, queue) != 0 ||
        strstr(peer.messages[message].headers, counted) == NULL)
        fail_msg("line %d: %s %s", line, peer.messages[message].routing_key, peer.messages[message].headers);
    peer.story[0] = '\0';
    peer_confirm(peer.messages[message].channel, message + 1, false, true);
    peer_run();
    assert_non_null(strstr(peer.story, strstr(queue, "retry") != NULL ? " ack 1" : " reject 1"));
    peer.story[0] = story[0] = '\0';
}

#define goes_to(attempts, queue, expected) goes_to_at(attempts, queue, expected, __LINE__)
#define RETRY                              "evt-orders-order_created--products.on_order.retry-"

static void test_retries(void **state)
{
    (void)state;
    start_with_dead_letters();
    goes_to(0, RETRY "1000", 1);
    goes_to(1, RETRY "5000", 2);
    goes_to(2, "products.dead-letters", 3);
    goes_to(3, "products.dead-letters", 4);
    goes_to(-1, RETRY "1000", 1); /* anybody can write the header */
    goes_to(INT64_MIN, RETRY "1000", 1);
    goes_to(INT64_MAX, "products.dead-letters", 1000000001);
}

static uint16_t suspects_channel(void)
{
    return (uint16_t)atoi(strstr(peer.declared, " consume " RETRY "0") - 1);
}

/* An event that has failed once. */
static void event_comes(uint16_t channel, uint64_t tag, bool redelivered)
{
    amqp_table_entry_t entries[] = {
        {.key = amqp_cstring_bytes("x-airship-attempts"), .value = {.kind = AMQP_FIELD_KIND_I64, .value.i64 = 1}},
        {.key = amqp_cstring_bytes("nameko.trace"), .value = {.kind = AMQP_FIELD_KIND_I64, .value.i64 = 47}}};

    peer.story[0] = story[0] = '\0';
    peer_deliver(channel, tag, redelivered, "order_created",
                 &(amqp_basic_properties_t){._flags = AMQP_BASIC_HEADERS_FLAG, .headers = {2, entries}},
                 RPC_BYTES("1"));
    peer_run();
}

/* The last message published; the broker confirms it. */
static void went_to_at(const char *queue, int64_t attempts, const char *settled, int line)
{
    char counted[60];

    snprintf(counted, sizeof(counted), "\"x-airship-attempts\": %lld", (long long)attempts);
    if (peer.messages_count == 0 || strcmp(peer.messages[peer.messages_count - 1].routing_key, queue) != 0 ||
        strstr(peer.messages[peer.messages_count - 1].headers, counted) == NULL ||
        strstr(peer.messages[peer.messages_count - 1].headers, "\"nameko.trace\": 47") == NULL)
        fail_msg("line %d: not to %s with %s", line, queue, counted);
    assert_null(strstr(peer.story, settled)); /* not before it is safe there */
    peer_confirm(peer.messages[peer.messages_count - 1].channel, peer.messages_count, false, true);
    peer_run();
    if (strstr(peer.story, settled) == NULL || strstr(peer.story, "requeue") != NULL)
        fail_msg("line %d: %s, not %s", line, peer.story, settled);
}

#define went_to(queue, attempts, settled) went_to_at(queue, attempts, settled, __LINE__)

/* Delivered again: moved, not handled, not counted.  From there: handled, and counted when it comes again. */
static void test_suspects(void **state)
{
    uint16_t events, suspects;

    (void)state;
    start_with_dead_letters();
    events = event_channel();
    suspects = suspects_channel();
    assert_non_null(strstr(peer.declared, "qos 1; "));
    event_comes(events, 1, false);
    story_is("event 1");
    event_comes(events, 2, true);
    story_is("");
    went_to(RETRY "0", 1, " ack 2");
    event_comes(suspects, 1, false);
    story_is("event 1");
    rpc_event_done(held_events[1]);
    peer_run();
    assert_non_null(strstr(peer.story, " ack 1"));
    event_comes(suspects, 2, true);
    story_is("");
    went_to(RETRY "5000", 2, " ack 2");
    assert_non_null(strstr(peer.messages[peer.messages_count - 1].headers, "its consumer went away"));
    assert_non_null(strstr(peer.messages[peer.messages_count - 1].headers,
                           "\"x-airship-queue\": \"evt-orders-order_created--products.on_order\""));
    rpc_event_done(held_events[0]);
}

/* It is a new message when it goes back: the broker does not flag it. */
static void test_a_suspect_is_handed_back(void **state)
{
    uint16_t suspects;

    (void)state;
    start_with_dead_letters();
    suspects = suspects_channel();
    event_comes(suspects, 1, false);
    rpc_event_hand_back(held_events[0]);
    peer_run();
    went_to(RETRY "0", 1, " ack 1");
    event_comes(suspects, 2, false);
    rpc_event_fail(held_events[1], "why");
    peer_run();
    went_to(RETRY "5000", 2, " ack 2");
}

/* It was delivered before it could be moved: it goes back, and comes again when it can. */
static void test_a_suspect_that_cannot_be_moved(void **state)
{
    (void)state;
    start_with_dead_letters();
    peer_block(true);
    peer_run();
    event_comes(event_channel(), 1, true);
    story_is("");
    assert_int_equal(peer.messages_count, 0);
    assert_null(strstr(peer.story, "reject"));
    peer_block(false);
    peer_run();
    assert_non_null(strstr(peer.story, " reject 1 requeue"));
    peer_block(true); /* and if that lasts, not at full speed */
    peer_run();
    event_comes(event_channel(), 2, true);
    assert_null(strstr(peer.story, "reject"));
    peer_advance(1000);
    assert_non_null(strstr(peer.story, " reject 2 requeue"));
}

/* Headers that leave no room for ours: handed back it would come again for ever. */
static void test_dead_letter_without_room(void **state)
{
    char wide[4020];
    amqp_table_entry_t entry = {
        .key = amqp_cstring_bytes("wide"),
        .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = {.len = sizeof(wide), .bytes = wide}}};

    (void)state;
    memset(wide, 'w', sizeof(wide));
    start_with_dead_letters();
    peer.story[0] = '\0';
    peer_deliver(event_channel(), 1, false, "order_created",
                 &(amqp_basic_properties_t){._flags = AMQP_BASIC_HEADERS_FLAG, .headers = {1, &entry}},
                 RPC_BYTES("no JSON"));
    peer_run();
    assert_non_null(strstr(peer.story, " reject 1"));
    assert_null(strstr(peer.story, "requeue"));
}

/* They would have the broker copy the letter to wherever its sender likes. */
static void test_dead_letter_keeps_no_route(void **state)
{
    amqp_field_value_t victim = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes("victim")};
    amqp_field_value_t route = {.kind = AMQP_FIELD_KIND_ARRAY, .value.array = {1, &victim}};
    amqp_table_entry_t entries[] = {
        {amqp_cstring_bytes("CC"), route}, {amqp_cstring_bytes("BCC"), route}, {amqp_cstring_bytes("cc"), victim}};

    (void)state;
    start_with_dead_letters();
    peer_deliver(event_channel(), 1, false, "order_created",
                 &(amqp_basic_properties_t){._flags = AMQP_BASIC_HEADERS_FLAG, .headers = {3, entries}},
                 RPC_BYTES("no JSON"));
    peer_run();
    assert_int_equal(peer.messages_count, 1);
    assert_null(strstr(peer.messages[0].headers, "CC"));
    assert_non_null(strstr(peer.messages[0].headers, "\"cc\""));
}

static void queue_is_at(const struct rpc_event_handler *handler, const char *expected, int line)
{
    setup(NULL);
    service = rpc_service_new(
        peer.connection,
        &(struct rpc_service_options){.name = "listener", .event_handlers = handler, .event_handlers_count = 1});
    peer_run();
    if (strncmp(strstr(peer.declared, "1 queue ") + 8, expected, strlen(expected)) != 0)
        fail_msg("line %d: %s", line, peer.declared);
    teardown(NULL);
}

#define queue_is(expected, ...)                                                                   \
    queue_is_at(                                                                                  \
        &(struct rpc_event_handler){                                                              \
            .source = "orders", .event_type = "order_created", .handler = on_event, __VA_ARGS__}, \
        expected, __LINE__)

/* The golden listener's own. */
static void test_event_queues(void **state)
{
    (void)state;
    queue_is("evt-orders-order_created--listener.on_pool durable; ", .name = "on_pool");
    queue_is("evt-orders-order_created durable; ", .name = "on_one", .kind = RPC_EVENT_SINGLETON);
    queue_is("evt-orders-order_created--listener.on_pool_unreliable durable auto-delete; ",
             .name = "on_pool_unreliable", .unreliable = true);
    queue_is("evt-orders-order_created--listener.on_broadcast_reliable-listener-1 durable; ",
             .name = "on_broadcast_reliable", .kind = RPC_EVENT_BROADCAST, .identifier = "listener-1");
    queue_is("evt-orders-order_created--listener.on_broadcast-", .name = "on_broadcast", .kind = RPC_EVENT_BROADCAST);
    queue_is("evt-orders-order_created--listener.on_both-me durable exclusive auto-delete; ", .name = "on_both",
             .kind = RPC_EVENT_BROADCAST, .identifier = "me", .unreliable = true);
    setup(NULL);
}

/* ---- Requests of real Nameko ------------------------------------------------------------------------------------- */

static char *file_read(const char *folder, const char *name, const char *suffix, size_t *size)
{
    char path[600];
    FILE *file;
    char *data = calloc(1, 65536);

    snprintf(path, sizeof(path), GOLDEN "/%s/%s%s", folder, name, suffix);
    file = fopen(path, "rb");
    if (file == NULL)
        fail_msg("%s", path);
    *size = fread(data, 1, 65535, file);
    fclose(file);
    return data;
}

/* The body of a message's frames. */
static void body_of(const amqp_frame_t *frame, void *arg)
{
    if (frame->frame_type == AMQP_FRAME_BODY)
        frames_append(arg, frames_out(frame->payload.body_fragment));
}

static json_t *golden_body(const char *folder, const char *name)
{
    struct frames_reader reader;
    struct frames body = {0};
    size_t size;
    char *data = file_read(folder, name, ".bin", &size);
    json_t *value;

    frames_reader_init(&reader);
    assert_true(frames_read(&reader, (struct rpc_bytes){data, size}, body_of, &body));
    frames_reader_clear(&reader);
    value = json_loadb(body.data, body.size, 0, NULL);
    frames_clear(&body);
    free(data);
    assert_non_null(value);
    return value;
}

/* The request as it was published, delivered to us: our answer must be Nameko's. */
static void golden_is_at(const char *folder, const char *scene, const char *key, int line)
{
    char name[80];
    unsigned message = peer.messages_count;
    size_t size, publish_size;
    json_t *expected, *answer;
    char *data;

    snprintf(name, sizeof(name), "%s-request", scene);
    data = file_read(folder, name, ".bin", &size);
    publish_size = 8 + ((size_t)(unsigned char)data[5] << 8 | (unsigned char)data[6]);
    PEER_METHOD(REQUESTS, BASIC_DELIVER, basic_deliver, .consumer_tag = amqp_cstring_bytes("any"), .delivery_tag = 1,
                .exchange = amqp_cstring_bytes("nameko-rpc"), .routing_key = amqp_cstring_bytes(key));
    frames_append(peer_out(), (struct rpc_bytes){data + publish_size, size - publish_size});
    free(data);
    peer_run();
    if (peer.messages_count != message + 1)
        fail_msg("line %d: %s: %s", line, scene, peer.story);
    snprintf(name, sizeof(name), "%s-response", scene);
    expected = golden_body(folder, name);
    answer = json_loads(peer.messages[message].body, 0, NULL);
    if (!json_equal(answer, expected))
        fail_msg("line %d: %s: %s", line, scene, peer.messages[message].body);
    json_decref(expected);
    json_decref(answer);
    peer.story[0] = '\0';
}

#define golden_is(scene, key)                                   \
    do {                                                        \
        golden_is_at("nameko-3.0.0rc11", scene, key, __LINE__); \
        golden_is_at("nameko-2.14.1", scene, key, __LINE__);    \
    } while (0)

static void test_golden(void **state)
{
    (void)state;
    start(0);
    golden_is("by-position", "products.exists");
    golden_is("by-name", "products.exists");
    golden_is("no-parameters", "products.list");
    golden_is("null-result", "products.delete");
    golden_is("not-found", "products.get");
    golden_is("validation-error", "products.create");
    golden_is("method-not-found", "products.no_such_method");
    golden_is("incorrect-signature-missing-argument", "products.get");
    golden_is("incorrect-signature-too-many-arguments", "products.get");
    golden_is("incorrect-signature-unexpected-keyword", "products.get");
    golden_is("incorrect-signature-multiple-values", "products.get");
    golden_is("malformed-without-args", "products.get");
    golden_is("malformed-without-kwargs", "products.get");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_set_up),
        TEST(test_answers),
        TEST(test_errors),
        TEST(test_malformed),
        TEST(test_unexpected),
        TEST(test_no_requests),
        TEST(test_oversized),
        TEST(test_correlation_ids),
        TEST(test_deadline),
        TEST(test_context),
        TEST(test_context_of_too_many_headers),
        TEST(test_answer_later),
        TEST(test_answer_after_reconnect),
        TEST(test_set_up_without_answers),
        TEST(test_stop_before_the_consume_is_answered),
        TEST(test_too_few_channels),
        TEST(test_a_refused_declaration_is_told_once),
        TEST(test_a_link_that_never_stays),
        TEST(test_blocked),
        TEST(test_free_with_requests_running),
        TEST(test_free_within_a_handler),
        TEST(test_stop),
        TEST(test_stop_has_a_limit),
        TEST(test_stop_when_idle),
        TEST(test_stop_without_a_link),
        TEST(test_events),
        TEST(test_retries),
        TEST(test_suspects),
        TEST(test_a_suspect_is_handed_back),
        TEST(test_a_suspect_that_cannot_be_moved),
        TEST(test_dead_letter_without_room),
        TEST(test_dead_letter_keeps_no_route),
        cmocka_unit_test_teardown(test_event_queues, teardown),
        TEST(test_golden),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

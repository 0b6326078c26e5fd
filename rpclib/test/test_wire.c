/* wire: Nameko's messages, taken apart and made; those that real Nameko sent among them, byte by byte. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "amqp/mq.h"
#include "rpclib/json.h"
#include "simulation/frames.h"
#include "wire.h"

/* ---- Bodies ------------------------------------------------------------------------------------------------------ */

static void is_at(struct rpc_text *buffer, bool made, const char *expected, int line)
{
    struct rpc_bytes bytes = rpc_text_bytes(buffer);
    char reason[RPC_JSON_REASON_SIZE];
    json_t *value = rpc_json_load(bytes, reason);

    if (!made || !rpc_bytes_equal(bytes, expected))
        fail_msg("line %d: %.*s", line, (int)bytes.size, bytes.data);
    if (value == NULL)
        fail_msg("line %d: %s", line, reason);
    json_decref(value);
    rpc_text_clear(buffer);
}

#define request_is(args, kwargs, expected) \
    is_at(&out, wire_request(&out, rpc_bytes_of(args), rpc_bytes_of(kwargs)), expected, __LINE__)
#define result_is(result, expected) is_at(&out, wire_result(&out, rpc_bytes_of(result)), expected, __LINE__)
#define error_is(expected, ...)     is_at(&out, wire_error(&out, &(struct rpc_error){__VA_ARGS__}), expected, __LINE__)

static void test_bodies(void **state)
{
    struct rpc_text out = {0};

    (void)state;
    request_is(NULL, NULL, "{\"args\": [], \"kwargs\": {}}");
    request_is("[1]", "{\"a\": 2}", "{\"args\": [1], \"kwargs\": {\"a\": 2}}");
    result_is(NULL, "{\"result\": null, \"error\": null}");
    result_is("[]", "{\"result\": [], \"error\": null}");
    error_is("{\"result\": null, \"error\": {\"exc_type\": \"T\", \"exc_path\": \"a.T\", \"exc_args\": [\"v\"], "
             "\"value\": \"v\"}}",
             .exc_type = RPC_BYTES("T"), .exc_path = RPC_BYTES("a.T"), .value = RPC_BYTES("v"));
    error_is("{\"result\": null, \"error\": {\"exc_type\": \"\", \"exc_path\": \"\", \"exc_args\": [], "
             "\"value\": \"\"}}",
             .exc_args = RPC_BYTES("[]"));
    error_is("{\"result\": null, \"error\": {\"exc_type\": \"\", \"exc_path\": \"\", \"exc_args\": [\"a\\\"\\\\\\n\"], "
             "\"value\": \"a\\\"\\\\\\n\"}}",
             .value = RPC_BYTES("a\"\\\n"), .exc_args = RPC_BYTES("{}"));
}

static void call_is_at(const char *body, enum wire_call_status expected, int line)
{
    char reason[WIRE_REASON_SIZE] = "";
    struct wire_call call;
    enum wire_call_status status = wire_call_parse(&call, rpc_bytes_of(body), reason);

    if (status != expected)
        fail_msg("line %d: %d %s", line, (int)status, reason);
    assert_int_equal(reason[0] == '\0', status == WIRE_CALL_OK);
    wire_call_clear(&call);
    wire_call_clear(&call);
}

#define call_is(body, expected) call_is_at(body, expected, __LINE__)

static void test_calls(void **state)
{
    (void)state;
    call_is("{\"args\": [], \"kwargs\": {}}", WIRE_CALL_OK);
    call_is("{\"kwargs\": {\"a\": [1]}, \"more\": 1, \"args\": [null]}", WIRE_CALL_OK);
    call_is("{\"args\": []}", WIRE_CALL_MALFORMED);
    call_is("{\"kwargs\": {}}", WIRE_CALL_MALFORMED);
    call_is("{\"args\": {}, \"kwargs\": {}}", WIRE_CALL_MALFORMED);
    call_is("{\"args\": [], \"kwargs\": null}", WIRE_CALL_MALFORMED);
    call_is("[[], {}]", WIRE_CALL_MALFORMED);
    call_is("true", WIRE_CALL_MALFORMED);
    call_is("", WIRE_CALL_NOT_JSON);
    call_is("{\"args\": [], \"kwargs\": {}", WIRE_CALL_NOT_JSON);
    call_is("{\"args\": [], \"args\": [], \"kwargs\": {}}", WIRE_CALL_NOT_JSON);
    call_is("{'args': [], 'kwargs': {}}", WIRE_CALL_NOT_JSON);
}

static void json_type_at(const char *type, bool expected, int line)
{
    if (wire_is_json(rpc_bytes_of(type)) != expected)
        fail_msg("line %d", line);
}

#define is_json(type)     json_type_at(type, true, __LINE__)
#define is_not_json(type) json_type_at(type, false, __LINE__)

static void test_content_types(void **state)
{
    (void)state;
    is_json("");
    is_json("application/json");
    is_json("APPLICATION/JSON");
    is_json("application/json;charset=utf-8");
    is_json("application/json ; charset=utf-8");
    is_not_json("application/jso");
    is_not_json("application/json5");
    is_not_json("text/json");
    is_not_json(" application/json");
    is_not_json("application/x-python-serialize");
}

/* ---- Names ------------------------------------------------------------------------------------------------------- */

static void key_is(const char *service, const char *method, const char *expected)
{
    char out[WIRE_KEY_SIZE];
    size_t size = wire_request_key(out, service, method);

    assert_int_equal(size, strlen(expected));
    assert_memory_equal(out, expected, size);
}

static void test_request_keys(void **state)
{
    char longest[RPC_NAME_SIZE_MAX + 1], too_long[RPC_NAME_SIZE_MAX + 2], out[WIRE_KEY_SIZE];

    (void)state;
    memset(longest, 'n', sizeof(longest));
    longest[RPC_NAME_SIZE_MAX] = '\0';
    memset(too_long, 'n', sizeof(too_long));
    too_long[RPC_NAME_SIZE_MAX + 1] = '\0';
    key_is("products", "get", "products.get");
    key_is("p", "", "p.");
    assert_int_equal(wire_request_key(out, longest, longest), WIRE_KEY_SIZE);
    assert_int_equal(wire_request_key(out, too_long, "get"), 0);
    assert_int_equal(wire_request_key(out, "products", too_long), 0);
}

static void expiration_is(int timeout_ms, const char *expected)
{
    char out[WIRE_NUMBER_SIZE];
    size_t size = wire_expiration(out, timeout_ms);

    assert_int_equal(size, strlen(expected));
    assert_memory_equal(out, expected, size);
}

static void test_expirations(void **state)
{
    (void)state;
    expiration_is(0, "0");
    expiration_is(9, "9");
    expiration_is(10, "10");
    expiration_is(5000, "5000");
    expiration_is(INT_MAX, "2147483647");
}

static void test_names(void **state)
{
    char out[WIRE_NAME_SIZE], name[WIRE_NAME_SIZE + 10];

    (void)state;
    assert_true(wire_rpc_queue(out, "products"));
    assert_string_equal(out, "rpc-products");
    assert_true(wire_event_exchange(out, "orders"));
    assert_string_equal(out, "orders.events");
    memset(name, 'n', sizeof(name));
    name[251] = '\0';
    assert_true(wire_rpc_queue(out, name));
    assert_int_equal(strlen(out), 255);
    name[251] = 'n';
    name[252] = '\0';
    assert_false(wire_rpc_queue(out, name));
    assert_false(wire_event_exchange(out, name));
    assert_false(wire_event_queue(out, &(struct rpc_event_handler){.source = "s", .event_type = name, .name = "n"},
                                  "service", NULL));
}

/* ---- Golden messages --------------------------------------------------------------------------------------------- */

static const char *const folders[] = {"nameko-3.0.0rc11", "nameko-2.14.1"};

static char *file_read(const char *folder, const char *name, size_t *size)
{
    char path[600];
    char *data = calloc(1, 1 << 20);
    FILE *file;

    assert_non_null(data);
    snprintf(path, sizeof(path), GOLDEN "/%s/%s", folder, name);
    file = fopen(path, "rb");
    if (file == NULL)
        fail_msg("%s", path);
    *size = fread(data, 1, (1 << 20) - 1, file);
    fclose(file);
    return data;
}

struct seen {
    const json_t *expected; /* its entry in messages.json */
    unsigned count;
};

static void text_is(const json_t *object, const char *key, struct rpc_bytes bytes)
{
    const char *expected = json_string_value(json_object_get(object, key));

    if (expected == NULL ? bytes.size > 0 : !rpc_bytes_equal(bytes, expected))
        fail_msg("%s: \"%.*s\" instead of \"%s\"", key, (int)bytes.size, bytes.data, expected);
}

static struct rpc_bytes present(amqp_flags_t flags, amqp_flags_t flag, amqp_bytes_t value)
{
    return flags & flag ? frames_out(value) : rpc_bytes_of("");
}

static void message_is_as_expected(const struct mq_message *message, struct seen *seen)
{
    const json_t *fields = json_object_get(seen->expected, "fields");
    const json_t *expected = json_object_get(seen->expected, "properties");
    const amqp_basic_properties_t *p = message->properties;

    seen->count++;
    text_is(fields, "exchange", message->exchange);
    text_is(fields, "routing_key", message->routing_key);
    text_is(expected, "content_type", present(p->_flags, AMQP_BASIC_CONTENT_TYPE_FLAG, p->content_type));
    text_is(expected, "content_encoding", present(p->_flags, AMQP_BASIC_CONTENT_ENCODING_FLAG, p->content_encoding));
    text_is(expected, "correlation_id", present(p->_flags, AMQP_BASIC_CORRELATION_ID_FLAG, p->correlation_id));
    text_is(expected, "reply_to", present(p->_flags, AMQP_BASIC_REPLY_TO_FLAG, p->reply_to));
    assert_int_equal(p->delivery_mode, json_integer_value(json_object_get(expected, "delivery_mode")));
    text_is(seen->expected, "body", message->body);
    assert_int_equal(p->_flags & AMQP_BASIC_HEADERS_FLAG ? p->headers.num_entries : 0,
                     (int)json_object_size(json_object_get(seen->expected, "headers")));
}

static void on_delivery(const struct mq_delivery *delivery, void *arg)
{
    struct seen *seen = arg;

    text_is(json_object_get(seen->expected, "fields"), "consumer_tag", delivery->consumer_tag);
    message_is_as_expected(&delivery->message, seen);
}

static void on_return(const struct mq_message *message, uint16_t code, void *arg)
{
    assert_int_equal(code, 312);
    message_is_as_expected(message, arg);
}

static void on_settled(void *arg)
{
    (void)arg;
}

static void on_closed(uint16_t code, struct rpc_bytes text, void *arg)
{
    (void)code;
    (void)text;
    (void)arg;
}

static void on_open(void *arg)
{
    (void)arg;
}

static void on_blocked(bool blocked, struct rpc_bytes reason, void *arg)
{
    (void)blocked;
    (void)reason;
    (void)arg;
}

/* A connection that is open, with channels up to the golden message's. */
static struct mq *mq_open(int channel, struct seen *seen)
{
    static const struct mq_events events = {.on_open = on_open, .on_blocked = on_blocked, .on_output = on_open};
    static const struct mq_channel_events channel_events = {
        .on_settled = on_settled, .on_delivery = on_delivery, .on_return = on_return, .on_closed = on_closed};
    struct mq *mq = mq_new(&(struct mq_options){.user = "u",
                                                .password = "p",
                                                .vhost = "/",
                                                .name = "n",
                                                .version = "v",
                                                .output_size_max = 1 << 20,
                                                .events = &events});
    struct frames in = {0};

    frames_method(&in, 0, AMQP_CONNECTION_START_METHOD,
                  &(amqp_connection_start_t){.version_minor = 9, .mechanisms = amqp_cstring_bytes("PLAIN")});
    frames_method(&in, 0, AMQP_CONNECTION_TUNE_METHOD, &(amqp_connection_tune_t){0});
    frames_method(&in, 0, AMQP_CONNECTION_OPEN_OK_METHOD, &(amqp_connection_open_ok_t){0});
    assert_int_equal(mq_feed(mq, frames_bytes(&in), 0), MQ_OPEN);
    frames_clear(&in);
    for (int number = 1; number <= channel; number++) {
        assert_non_null(mq_channel_open(mq, &channel_events, seen));
        frames_method(&in, (uint16_t)number, AMQP_CHANNEL_OPEN_OK_METHOD, &(amqp_channel_open_ok_t){0});
    }
    assert_int_equal(mq_feed(mq, frames_bytes(&in), 0), MQ_OPEN);
    frames_clear(&in);
    return mq;
}

/* What reached a Nameko peer, fed to us: whole, and byte by byte. */
static unsigned read_golden(const char *folder, const json_t *expected)
{
    struct seen seen = {.expected = expected};
    int channel = (int)json_integer_value(json_object_get(expected, "channel"));
    size_t size;
    char *data = file_read(folder, json_string_value(json_object_get(expected, "file")), &size);

    for (size_t step = 1; step <= size; step += size - 1) {
        struct mq *mq = mq_open(channel, &seen);

        for (size_t at = 0; at < size; at += step)
            mq_feed(mq, (struct rpc_bytes){data + at, step < size - at ? step : size - at}, 0);
        assert_string_equal(mq_error(mq), "");
        mq_free(mq);
    }
    free(data);
    return seen.count;
}

static json_t *golden_messages(const char *folder)
{
    size_t size;
    char *text = file_read(folder, "messages.json", &size);
    json_t *document = json_loadb(text, size, 0, NULL);
    json_t *messages = json_incref(json_object_get(document, "messages"));

    free(text);
    json_decref(document);
    assert_true(json_array_size(messages) > 30);
    return messages;
}

static void test_golden_deliveries(void **state)
{
    (void)state;
    for (unsigned folder = 0; folder < 2; folder++) {
        json_t *messages = golden_messages(folders[folder]), *message;
        unsigned read = 0;
        size_t i;

        json_array_foreach(messages, i, message)
        {
            if (strcmp(json_string_value(json_object_get(message, "direction")), "from broker") == 0)
                read += read_golden(folders[folder], message);
        }
        assert_true(read >= 12);
        json_decref(messages);
    }
}

static void error_member_is(const json_t *error, const char *key, struct rpc_bytes bytes)
{
    text_is(error, key, bytes);
}

/* Bodies of Nameko's requests and answers: read as what they are, and ours are the same JSON. */
static void body_is_understood(const char *file, const char *body)
{
    json_t *expected = json_loads(body, JSON_DECODE_INT_AS_REAL, NULL), *ours;
    bool malformed = strstr(file, "malformed") != NULL;
    char reason[WIRE_REASON_SIZE];
    struct rpc_text out = {0};

    assert_non_null(expected);
    if (strstr(file, "-request") != NULL) {
        struct wire_call call;
        char *args, *kwargs;

        assert_int_equal(wire_call_parse(&call, rpc_bytes_of(body), reason),
                         malformed ? WIRE_CALL_MALFORMED : WIRE_CALL_OK);
        if (!malformed) {
            args = json_dumps(json_object_get(expected, "args"), 0);
            kwargs = json_dumps(json_object_get(expected, "kwargs"), 0);
            assert_true(wire_request(&out, rpc_bytes_of(args), rpc_bytes_of(kwargs)));
            free(args);
            free(kwargs);
            ours = json_loadb(rpc_text_bytes(&out).data, out.size, 0, NULL);
            assert_true(json_equal(ours, expected));
            json_decref(ours);
        }
        wire_call_clear(&call);
    } else if (strstr(file, "-response") != NULL) {
        const json_t *error = json_object_get(expected, "error");
        struct wire_answer answer;
        enum rpc_status status = wire_answer_parse(&answer, rpc_bytes_of(body));

        assert_int_equal(status, json_is_null(error) ? RPC_OK : RPC_REMOTE_ERROR);
        if (status == RPC_OK) {
            assert_true(wire_result(&out, answer.reply.result));
        } else {
            error_member_is(error, "exc_type", answer.reply.error.exc_type);
            error_member_is(error, "exc_path", answer.reply.error.exc_path);
            error_member_is(error, "value", answer.reply.error.value);
            assert_true(wire_error(&out, &answer.reply.error));
        }
        ours = json_loadb(rpc_text_bytes(&out).data, out.size, JSON_DECODE_INT_AS_REAL, NULL);
        assert_true(json_equal(ours, expected));
        json_decref(ours);
        wire_answer_clear(&answer);
    }
    rpc_text_clear(&out);
    json_decref(expected);
}

static void test_golden_bodies(void **state)
{
    (void)state;
    for (unsigned folder = 0; folder < 2; folder++) {
        json_t *messages = golden_messages(folders[folder]), *message;
        size_t i;

        json_array_foreach(messages, i, message)
        {
            body_is_understood(json_string_value(json_object_get(message, "file")),
                               json_string_value(json_object_get(message, "body")));
        }
        json_decref(messages);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_content_types),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_request_keys),
        cmocka_unit_test(test_expirations),
        cmocka_unit_test(test_golden_deliveries),
        cmocka_unit_test(test_golden_bodies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

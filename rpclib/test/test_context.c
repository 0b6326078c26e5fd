/* rpc_context: what comes with a message, what leaves with the next one, and how it is stored in between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <amqp.h>
#include <amqp_framing.h>
#include <cmocka.h>
#include <jansson.h>

#include "context.h"

#define RAW_SIZE 65536
#define UUID     36

static amqp_field_value_t text_value(const char *text)
{
    return (amqp_field_value_t){.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(text)};
}

static amqp_table_entry_t text_entry(const char *key, const char *text)
{
    return (amqp_table_entry_t){.key = amqp_cstring_bytes(key), .value = text_value(text)};
}

static struct rpc_context *incoming(amqp_table_entry_t *entries, int count)
{
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_HEADERS_FLAG, .headers = {count, entries}};
    char *raw = malloc(RAW_SIZE);
    struct rpc_context *context;
    int size = amqp_encode_properties(AMQP_BASIC_CLASS, &properties, (amqp_bytes_t){RAW_SIZE, raw});

    assert_true(size > 0);
    context = context_new_incoming((struct rpc_bytes){raw, (size_t)size}, "orders", "get");
    memset(raw, 0x5a, RAW_SIZE); /* it keeps a copy */
    free(raw);
    assert_non_null(context);
    return context;
}

static void value_is_at(const struct rpc_context *context, const char *key, const char *expected, int line)
{
    struct rpc_bytes value = rpc_context_get(context, key);

    if (expected == NULL ? value.data != NULL : value.data == NULL || !rpc_bytes_equal(value, expected))
        fail_msg("line %d: \"%.*s\"", line, (int)value.size, value.data);
}

#define value_is(context, key, expected) value_is_at(context, key, expected, __LINE__)

/* The whole context as JSON, its UUIDs as UUID. */
static void json_is_at(const struct rpc_context *context, const char *expected, int line)
{
    size_t size = 0;
    char *text = rpc_context_to_json(context, &size), *at;

    assert_non_null(text);
    assert_int_equal(strlen(text), size);
    for (at = text; *at != '\0'; at++) {
        if (strlen(at) >= UUID && at[8] == '-' && at[13] == '-' && at[14] == '4' && at[18] == '-' && at[23] == '-') {
            memcpy(at, "UUID", 4);
            memmove(at + 4, at + UUID, strlen(at + UUID) + 1);
        }
    }
    if (strcmp(text, expected) != 0)
        fail_msg("line %d: %s", line, text);
    free(text);
}

#define json_is(context, expected) json_is_at(context, expected, __LINE__)

static void test_new(void **state)
{
    struct rpc_context *context = rpc_context_new("gateway", "GET /orders");

    (void)state;
    assert_non_null(context);
    json_is(context, "{\"nameko.call_id_stack\":[\"gateway.GET /orders.UUID\"]}");
    value_is(context, "call_id_stack", NULL); /* no text */
    value_is(context, "language", NULL);
    assert_true(rpc_context_set(context, "language", RPC_BYTES("en")));
    assert_true(rpc_context_set(context, "empty", RPC_BYTES("")));
    value_is(context, "language", "en");
    value_is(context, "empty", "");
    assert_true(rpc_context_set(context, "language", RPC_BYTES("de-ch")));
    value_is(context, "language", "de-ch");
    json_is(context, "{\"nameko.call_id_stack\":[\"gateway.GET /orders.UUID\"],\"nameko.language\":\"de-ch\","
                     "\"nameko.empty\":\"\"}");
    rpc_context_free(context);
    rpc_context_free(NULL);
    assert_int_equal(context_headers(NULL).num_entries, 0);
}

static void test_full(void **state)
{
    struct rpc_context *context = rpc_context_new("a", "b");
    char key[300];

    (void)state;
    for (int i = 1; i < RPC_CONTEXT_VALUES_MAX; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        assert_true(rpc_context_set(context, key, RPC_BYTES("v")));
    }
    assert_false(rpc_context_set(context, "one more", RPC_BYTES("v")));
    assert_true(rpc_context_set(context, "k1", RPC_BYTES("w"))); /* one that is there can change */
    value_is(context, "k1", "w");
    assert_int_equal(context_headers(context).num_entries, RPC_CONTEXT_VALUES_MAX);
    rpc_context_free(context);

    context = rpc_context_new("a", "b");
    memset(key, 'k', sizeof(key));
    key[255 - 7] = '\0'; /* with its prefix: AMQP's 255 bytes */
    assert_true(rpc_context_set(context, key, RPC_BYTES("v")));
    key[255 - 7] = 'k';
    key[256 - 7] = '\0';
    assert_false(rpc_context_set(context, key, RPC_BYTES("v")));
    assert_int_equal(context_headers(context).num_entries, 2);
    rpc_context_free(context);
}

/* Nothing of a message that brings more than there is room for but its first headers, and its call stack. */
static void test_too_many_headers(void **state)
{
    amqp_field_value_t stack[] = {text_value("a.b.1")};
    amqp_table_entry_t entries[RPC_CONTEXT_VALUES_MAX + 8];
    const int count = sizeof(entries) / sizeof(entries[0]);
    char keys[RPC_CONTEXT_VALUES_MAX + 8][16], too_long[250];
    struct rpc_context *context;

    (void)state;
    memset(too_long, 'k', sizeof(too_long));
    too_long[sizeof(too_long) - 1] = '\0'; /* 249 bytes, and its prefix has 7 */
    entries[0] = text_entry(too_long, "v");
    for (int i = 1; i < count; i++) {
        snprintf(keys[i], sizeof(keys[i]), "k%d", i);
        entries[i] = text_entry(keys[i], "v");
    }
    entries[count - 1] = (amqp_table_entry_t){
        .key = amqp_cstring_bytes("nameko.call_id_stack"),
        .value = {.kind = AMQP_FIELD_KIND_ARRAY, .value.array = {1, stack}},
    };
    context = incoming(entries, count);
    assert_int_equal(context_headers(context).num_entries, RPC_CONTEXT_VALUES_MAX);
    assert_int_equal(context_headers(context).entries[0].value.value.array.num_entries, 2); /* with this call */
    for (int i = 1; i < count - 1; i++)
        value_is(context, keys[i], i < RPC_CONTEXT_VALUES_MAX ? "v" : NULL);
    value_is(context, too_long, NULL);
    rpc_context_free(context);
}

static void test_incoming(void **state)
{
    amqp_field_value_t stack[] = {text_value("a.b.1"), text_value("c.d.2")};
    amqp_table_entry_t entries[] = {
        text_entry("nameko.language", "en"),
        text_entry("bare", "x"),
        {.key = amqp_cstring_bytes("nameko.call_id_stack"),
         .value = {.kind = AMQP_FIELD_KIND_ARRAY, .value.array = {2, stack}}},
        {.key = amqp_cstring_bytes("nameko.null"), .value = {.kind = AMQP_FIELD_KIND_VOID}},
        {.key = amqp_cstring_bytes("nameko.flag"), .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}},
        {.key = amqp_cstring_bytes("nameko.small"), .value = {.kind = AMQP_FIELD_KIND_I8, .value.i8 = -3}},
        {.key = amqp_cstring_bytes("nameko.large"), .value = {.kind = AMQP_FIELD_KIND_I64, .value.i64 = INT64_MIN}},
        {.key = amqp_cstring_bytes("nameko.real"), .value = {.kind = AMQP_FIELD_KIND_F64, .value.f64 = 2.5}},
        {.key = amqp_cstring_bytes("nameko.time"), .value = {.kind = AMQP_FIELD_KIND_TIMESTAMP, .value.u64 = 1}},
        text_entry("nameko.no_utf8", "\xff"),
    };
    struct rpc_context *context = incoming(entries, 10);
    char *text;
    struct rpc_context *stored;

    (void)state;
    value_is(context, "language", "en");
    value_is(context, "bare", "x");
    value_is(context, "null", NULL);
    value_is(context, "no_utf8", "\xff"); /* as it came, and so it leaves */
    json_is(context, "{\"nameko.call_id_stack\":[\"a.b.1\",\"c.d.2\",\"orders.get.UUID\"],\"nameko.language\":\"en\","
                     "\"nameko.bare\":\"x\",\"nameko.flag\":true,\"nameko.small\":-3,"
                     "\"nameko.large\":-9223372036854775808,\"nameko.real\":2.5}");
    assert_int_equal(context_headers(context).num_entries, 9);
    text = rpc_context_to_json(context, NULL);
    stored = rpc_context_from_json(rpc_bytes_of(text));
    free(text);
    assert_non_null(stored);
    value_is(stored, "language", "en");
    json_is(stored, "{\"nameko.call_id_stack\":[\"a.b.1\",\"c.d.2\",\"orders.get.UUID\"],\"nameko.language\":\"en\","
                    "\"nameko.bare\":\"x\",\"nameko.flag\":true,\"nameko.small\":-3,"
                    "\"nameko.large\":-9223372036854775808,\"nameko.real\":2.5}");
    rpc_context_free(stored);
    rpc_context_free(context);
}

/* What our JSON has no room for is left out of what is stored, and takes nothing else with it. */
static void test_unstorable(void **state)
{
    amqp_field_value_t parents[] = {text_value("a.b.1"), text_value("\xff"), text_value("c.d.2")};
    amqp_field_value_t list[] = {text_value("x"), {.kind = AMQP_FIELD_KIND_VOID}};
    amqp_table_entry_t entries[] = {
        {.key = amqp_cstring_bytes("nameko.call_id_stack"),
         .value = {.kind = AMQP_FIELD_KIND_ARRAY, .value.array = {3, parents}}},
        {.key = {.len = 10, .bytes = (char[]){"nameko.a\0b"}}, .value = text_value("key with a NUL")},
        {.key = amqp_cstring_bytes("text"),
         .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = {.len = 3, .bytes = (char[]){"a\0b"}}}},
        {.key = amqp_cstring_bytes("list"), .value = {.kind = AMQP_FIELD_KIND_ARRAY, .value.array = {2, list}}},
        {.key = amqp_cstring_bytes("language"), .value = text_value("en")},
    };
    struct rpc_context *context = incoming(entries, 5), *stored;
    char *text = rpc_context_to_json(context, NULL);
    const char *expected = "{\"nameko.call_id_stack\":[\"a.b.1\",\"c.d.2\",\"orders.get.UUID\"],"
                           "\"nameko.list\":[\"x\",null],\"nameko.language\":\"en\"}";

    (void)state;
    json_is(context, expected);
    stored = rpc_context_from_json(rpc_bytes_of(text));
    assert_non_null(stored);
    json_is(stored, expected);
    free(text);
    rpc_context_free(stored);
    rpc_context_free(context);
}

/* Ten parents and the call itself: the oldest ones go. */
static void test_deep_stack(void **state)
{
    for (int depth = 9; depth <= 40; depth++) {
        amqp_field_value_t stack[40];
        char ids[40][8];
        amqp_table_entry_t entry = {.key = amqp_cstring_bytes("nameko.call_id_stack"),
                                    .value = {.kind = AMQP_FIELD_KIND_ARRAY, .value.array = {depth, stack}}};
        struct rpc_context *context;
        const amqp_array_t *made;

        for (int i = 0; i < depth; i++) {
            snprintf(ids[i], sizeof(ids[i]), "p%d", i);
            stack[i] = text_value(ids[i]);
        }
        context = incoming(&entry, 1);
        made = &context_headers(context).entries[0].value.value.array;
        assert_int_equal(made->num_entries, depth < 10 ? depth + 1 : 11);
        assert_true(rpc_bytes_equal((struct rpc_bytes){made->entries[made->num_entries - 2].value.bytes.bytes,
                                                       made->entries[made->num_entries - 2].value.bytes.len},
                                    ids[depth - 1]));
        rpc_context_free(context);
    }
    (void)state;
}

/* Real Nameko dies of a stack that is no array of texts: such a one goes no further. */
static void stack_is_replaced(amqp_field_value_t value)
{
    amqp_table_entry_t entry = {.key = amqp_cstring_bytes("nameko.call_id_stack"), .value = value};
    struct rpc_context *context = incoming(&entry, 1);

    json_is(context, "{\"nameko.call_id_stack\":[\"orders.get.UUID\"]}");
    rpc_context_free(context);
}

static void test_unsound_stack(void **state)
{
    amqp_field_value_t mixed[] = {text_value("a"), {.kind = AMQP_FIELD_KIND_I32, .value.i32 = 1}};

    (void)state;
    stack_is_replaced(text_value("a.b.1"));
    stack_is_replaced((amqp_field_value_t){.kind = AMQP_FIELD_KIND_I32, .value.i32 = 1});
    stack_is_replaced((amqp_field_value_t){.kind = AMQP_FIELD_KIND_VOID});
    stack_is_replaced((amqp_field_value_t){.kind = AMQP_FIELD_KIND_ARRAY, .value.array = {2, mixed}});
    stack_is_replaced((amqp_field_value_t){.kind = AMQP_FIELD_KIND_ARRAY, .value.array = {0, NULL}});
}

static void no_headers(struct rpc_bytes raw)
{
    struct rpc_context *context = context_new_incoming(raw, "orders", "get");

    assert_non_null(context);
    json_is(context, "{\"nameko.call_id_stack\":[\"orders.get.UUID\"]}");
    rpc_context_free(context);
}

static void test_no_headers(void **state)
{
    (void)state;
    no_headers((struct rpc_bytes){NULL, 0});
    no_headers(RPC_BYTES("\0\0"));
    no_headers(RPC_BYTES("\x20\0\0\0\0\0"));
    no_headers(RPC_BYTES("\x20\0\0\0\0\x09\1a")); /* cannot be decoded */
    no_headers(RPC_BYTES("\x20"));
}

static void stored_is_at(const char *text, const char *expected, int line)
{
    struct rpc_context *context = rpc_context_from_json(rpc_bytes_of(text));

    if (expected == NULL) {
        if (context != NULL)
            fail_msg("line %d: taken", line);
        return;
    }
    if (context == NULL)
        fail_msg("line %d: refused", line);
    json_is_at(context, expected, line);
    rpc_context_free(context);
}

#define stored_is(text, expected) stored_is_at(text, expected, __LINE__)

static void test_from_json(void **state)
{
    (void)state;
    stored_is("{}", "{}");
    stored_is("{\"a\": \"b\"}", "{\"nameko.a\":\"b\"}");
    stored_is("{\"nameko.a\": 1, \"nameko.b\": 1.5, \"nameko.c\": false, \"nameko.d\": null}",
              "{\"nameko.a\":1,\"nameko.b\":1.5,\"nameko.c\":false}");
    stored_is("{\"nameko.a\": {\"b\": [1, {\"c\": \"d\"}, [], {}]}}", "{\"nameko.a\":{\"b\":[1,{\"c\":\"d\"},[],{}]}}");
    stored_is("{\"nameko.call_id_stack\": [\"a\", null]}", "{}"); /* unsound */
    stored_is("{\"nameko.call_id_stack\": \"a\"}", "{}");
    stored_is("", NULL);
    stored_is("[]", NULL);
    stored_is("{\"a\": }", NULL);
    stored_is("null", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new),        cmocka_unit_test(test_full),       cmocka_unit_test(test_too_many_headers),
        cmocka_unit_test(test_incoming),   cmocka_unit_test(test_deep_stack), cmocka_unit_test(test_unsound_stack),
        cmocka_unit_test(test_no_headers), cmocka_unit_test(test_from_json),  cmocka_unit_test(test_unstorable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

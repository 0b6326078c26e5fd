/*
 * rpc_context while the n-th allocation fails, for each n: what travels with a request goes on whole, or whoever wants it is
 * told that there is no memory.  A context without the header that found none would make another request of it: one without
 * a trace, or without its idempotency key.
 */
#include <amqp.h>
#include <amqp_framing.h>
#include <stdio.h>
#include <stdlib.h>

#include "context.h"
#include "torture.h"

#define RAW_SIZE  4096
#define TEXTS     12 /* more than a context has a place for in itself, and so has what they say */
#define TEXT_SIZE 64
#define HEADERS   (TEXTS + 4) /* in all: these, the call stack, and one of each other kind */

static bool counted;
static char raw[RAW_SIZE];
static size_t raw_size;
static bool plain; /* the headers are texts that spell themselves, which are stored in another way than others are */
static size_t stored_size;

/* See simulation/torture.c: what rabbitmq-c 0.11 cannot lose without a leak of its own. */
static bool spared(size_t size, bool again)
{
    return size == sizeof(void *) || (again && size <= 8 * sizeof(void *) && size % 8 == 0);
}

/* ---- What comes -------------------------------------------------------------------------------------------------- */

static void text_key(char key[TEXT_SIZE], int number)
{
    snprintf(key, TEXT_SIZE, "text_%d", number);
}

static void text_value(char value[TEXT_SIZE], int number)
{
    snprintf(value, TEXT_SIZE, plain ? "what text %d says" : "w\xc3\xa4s text %d says", number);
}

static amqp_field_value_t value_of(const char *text)
{
    return (amqp_field_value_t){.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(text)};
}

/* The encoded properties of a request with all of them. */
static void message_make(void)
{
    static char keys[TEXTS][TEXT_SIZE], values[TEXTS][TEXT_SIZE];
    amqp_field_value_t stack[] = {value_of("gateway.orders_create.1"), value_of("orders.create_order.2")};
    amqp_field_value_t list[] = {value_of("a"), {.kind = AMQP_FIELD_KIND_F64, .value.f64 = 1.5}, value_of("c")};
    amqp_table_entry_t inner[] = {
        {.key = amqp_cstring_bytes("inner"), .value = value_of("d")},
        {.key = amqp_cstring_bytes("number"), .value = {.kind = AMQP_FIELD_KIND_I32, .value.i32 = -7}}};
    amqp_table_entry_t headers[HEADERS] = {
        {.key = amqp_cstring_bytes("nameko.call_id_stack"),
         .value = {.kind = AMQP_FIELD_KIND_ARRAY, .value.array = {2, stack}}},
        {.key = amqp_cstring_bytes("nameko.list"),
         .value = {.kind = AMQP_FIELD_KIND_ARRAY, .value.array = {plain ? 1 : 3, list}}},
        {.key = amqp_cstring_bytes("nameko.table"),
         .value = {.kind = AMQP_FIELD_KIND_TABLE, .value.table = {2, inner}}},
        {.key = amqp_cstring_bytes("nameko.flag"), .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}},
    };
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_HEADERS_FLAG, .headers = {HEADERS, headers}};
    int size;

    if (plain) {
        headers[2].value = value_of("table");
        headers[3].value = value_of("flag");
    }
    for (int i = 0; i < TEXTS; i++) {
        text_key(keys[i], i);
        text_value(values[i], i);
        headers[HEADERS - TEXTS + i] = (amqp_table_entry_t){amqp_cstring_bytes(keys[i]), value_of(values[i])};
    }
    size = amqp_encode_properties(AMQP_BASIC_CLASS, &properties, (amqp_bytes_t){sizeof(raw), raw});
    raw_size = size > 0 ? (size_t)size : 0;
}

/* ---- What is made of it ------------------------------------------------------------------------------------------ */

static bool all_texts(const struct rpc_context *context)
{
    for (int i = 0; i < TEXTS; i++) {
        char key[TEXT_SIZE], value[TEXT_SIZE];

        text_key(key, i);
        text_value(value, i);
        if (!rpc_bytes_equal(rpc_context_get(context, key), value))
            return false;
    }
    return true;
}

static void check(const struct rpc_context *context, int count, const char *where)
{
    if (context == NULL) {
        if (!torture_fell())
            torture_violated("%s: no context, though nothing failed", where);
        return;
    }
    if (context_headers(context).num_entries != count || !all_texts(context))
        torture_violated("%s: %d headers of %d", where, context_headers(context).num_entries, count);
}

static void check_set(struct rpc_context *context, const char *key)
{
    int count = context_headers(context).num_entries;
    struct rpc_bytes value;
    bool set;

    counted = true;
    set = rpc_context_set(context, key, RPC_BYTES("a value that has to be kept somewhere"));
    counted = false;
    value = rpc_context_get(context, key);
    if (set != (value.data != NULL) || context_headers(context).num_entries != count + set)
        torture_violated("setting %s is said to be %s", key, set ? "done" : "not done");
}

/* Stored with an event, and read again when it is published. */
static void check_stored(const struct rpc_context *context, int count)
{
    struct rpc_context *again;
    size_t size = 0;
    char *text;

    counted = true;
    text = rpc_context_to_json(context, &size);
    counted = false;
    if (text == NULL && !torture_fell())
        torture_violated("nothing is stored, though nothing failed");
    if (text == NULL)
        return;
    if (stored_size == 0)
        stored_size = size;
    if (size != stored_size)
        torture_violated("%zu bytes are stored of %zu: %s", size, stored_size, text);
    counted = true;
    again = rpc_context_from_json((struct rpc_bytes){text, size});
    counted = false;
    check(again, count, "read again");
    rpc_context_free(again);
    free(text);
}

static void request(void)
{
    struct rpc_context *context;

    counted = true;
    context = context_new_incoming((struct rpc_bytes){raw, raw_size}, "orders", "create_order");
    counted = false;
    check(context, HEADERS, "come");
    if (context == NULL)
        return;
    check_stored(context, HEADERS);
    check_set(context, "idempotency_key");
    rpc_context_free(context);
}

static void own(void)
{
    struct rpc_context *context;

    counted = true;
    context = rpc_context_new("gateway", "orders_create");
    counted = false;
    if (context == NULL)
        return;
    for (int i = 0; i < TEXTS; i++) {
        char key[TEXT_SIZE];

        text_key(key, i);
        check_set(context, key);
    }
    rpc_context_free(context);
}

int main(void)
{
    torture_begin(&(struct torture_options){.when = &counted, .spared = spared});
    torture("made here", TORTURE_NO_MEMORY, own);
    for (int is_plain = 0; is_plain <= 1; is_plain++) {
        plain = is_plain;
        message_make();
        stored_size = 0;
        request();
        torture(plain ? "texts" : "of any kind", TORTURE_NO_MEMORY, request);
    }
    return torture_end();
}

/*
 * context: headers of a message, or a JSON text that was stored.  Whatever comes, this call's id is on top of a call stack
 * that real Nameko takes; keys have their prefix, once each; bounds hold; what goes on as headers can be encoded; and what
 * is stored as JSON is the same when it comes back.
 *
 * The first byte says what the rest is: encoded properties, a table of headers alone, or JSON.
 */
#include <amqp.h>
#include <amqp_framing.h>
#include <fuzz.h>

#include "context.h"
#include "rpclib/json.h"

#define PREFIX         "nameko."
#define STACK_KEY      PREFIX "call_id_stack"
#define KEY_SIZE_MAX   255
#define ENCODED_MAX    (1024 * 1024)
#define VALUE_SIZE_MAX 300

enum form { FORM_PROPERTIES, FORM_HEADERS, FORM_JSON, FORMS };

static struct rpc_bytes bytes_of(amqp_bytes_t bytes)
{
    return (struct rpc_bytes){bytes.bytes, bytes.len};
}

/* ---- Any context ------------------------------------------------------------------------------------------------- */

static bool is_text(const amqp_field_value_t *value)
{
    return value->kind == AMQP_FIELD_KIND_UTF8 || value->kind == AMQP_FIELD_KIND_BYTES;
}

static void check_stack(const amqp_field_value_t *stack)
{
    HOLDS(stack->kind == AMQP_FIELD_KIND_ARRAY && stack->value.array.num_entries >= 1);
    for (int i = 0; i < stack->value.array.num_entries; i++)
        HOLDS(is_text(&stack->value.array.entries[i]));
}

static const amqp_field_value_t *find(const amqp_table_t *headers, const char *key)
{
    const amqp_field_value_t *found = NULL;

    for (int i = 0; i < headers->num_entries; i++) {
        if (!rpc_bytes_equal(bytes_of(headers->entries[i].key), key))
            continue;
        HOLDS(found == NULL);
        found = &headers->entries[i].value;
    }
    return found;
}

static void check_keys(const amqp_table_t *headers)
{
    HOLDS(headers->num_entries >= 0 && headers->num_entries <= RPC_CONTEXT_VALUES_MAX);
    for (int i = 0; i < headers->num_entries; i++) {
        struct rpc_bytes key = bytes_of(headers->entries[i].key);

        HOLDS(key.size <= KEY_SIZE_MAX && key.size >= strlen(PREFIX));
        HOLDS(memcmp(key.data, PREFIX, strlen(PREFIX)) == 0);
        for (int k = 0; k < i; k++)
            HOLDS(!fuzz_equal(key, bytes_of(headers->entries[k].key)));
    }
}

/* As headers of a message they can be encoded, and decoded again. */
static void check_encodes(amqp_table_t headers)
{
    static char room[ENCODED_MAX];
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_HEADERS_FLAG, .headers = headers};
    int size = amqp_encode_properties(AMQP_BASIC_CLASS, &properties, (amqp_bytes_t){sizeof(room), room});
    amqp_pool_t pool;
    void *decoded;

    HOLDS(size > 0);
    init_amqp_pool(&pool, 4096);
    HOLDS(amqp_decode_properties(AMQP_BASIC_CLASS, &pool, (amqp_bytes_t){(size_t)size, room}, &decoded) >= 0);
    HOLDS(((amqp_basic_properties_t *)decoded)->headers.num_entries == headers.num_entries);
    empty_amqp_pool(&pool);
}

/* Stored and read back it is the same, stored again. */
static void check_stored(const struct rpc_context *context)
{
    size_t size = 0, again_size;
    char *text = rpc_context_to_json(context, &size), *again;
    struct rpc_context *read;

    HOLDS(text != NULL && size == strlen(text));
    HOLDS(rpc_json_check((struct rpc_bytes){text, size}));
    read = rpc_context_from_json((struct rpc_bytes){text, size});
    HOLDS(read != NULL);
    again = rpc_context_to_json(read, &again_size);
    HOLDS(again != NULL);
    if (strcmp(text, again) != 0)
        fprintf(stderr, "stored  %s\nagain   %s\n", text, again);
    HOLDS(strcmp(text, again) == 0);
    free(again);
    free(text);
    rpc_context_free(read);
}

static void check_set(struct rpc_context *context, struct rpc_bytes value)
{
    int count = context_headers(context).num_entries;

    value.size = value.size < VALUE_SIZE_MAX ? value.size : VALUE_SIZE_MAX;
    if (rpc_context_set(context, "idempotency_key", value))
        HOLDS(fuzz_equal(rpc_context_get(context, "idempotency_key"), value));
    else
        HOLDS(count == RPC_CONTEXT_VALUES_MAX && context_headers(context).num_entries == count);
}

static void check_any(struct rpc_context *context, struct rpc_bytes input)
{
    amqp_table_t headers = context_headers(context);

    check_keys(&headers);
    check_encodes(headers);
    check_stored(context);
    check_set(context, input);
}

/* ---- Where it comes from ----------------------------------------------------------------------------------------- */

static void check_incoming(struct rpc_bytes raw)
{
    char *exact = fuzz_exact(raw);
    struct rpc_context *context = context_new_incoming((struct rpc_bytes){exact, raw.size}, "orders", "get_order");
    const amqp_field_value_t *stack;
    struct rpc_bytes top;
    amqp_table_t headers;

    free(exact); /* lent until it returned */
    HOLDS(context != NULL);
    headers = context_headers(context);
    stack = find(&headers, STACK_KEY);
    HOLDS(stack != NULL);
    check_stack(stack);
    HOLDS(stack->value.array.num_entries <= RPC_CALL_ID_STACK_MAX);
    top = bytes_of(stack->value.array.entries[stack->value.array.num_entries - 1].value.bytes);
    HOLDS(top.size == strlen("orders.get_order.") + 36 && memcmp(top.data, "orders.get_order.", 17) == 0);
    check_any(context, raw);
    rpc_context_free(context);
}

/* The flags of properties that are headers alone, and the table. */
static void check_headers(struct rpc_bytes table)
{
    char *raw = malloc(table.size + 6);

    HOLDS(raw != NULL);
    raw[0] = 0x20;
    raw[1] = 0;
    for (int i = 0; i < 4; i++)
        raw[2 + i] = (char)(table.size >> (24 - 8 * i));
    if (table.size > 0)
        memcpy(raw + 6, table.data, table.size);
    check_incoming((struct rpc_bytes){raw, table.size + 6});
    free(raw);
}

static void check_json(struct rpc_bytes text)
{
    char reason[RPC_JSON_REASON_SIZE];
    struct rpc_context *context = rpc_context_from_json(text);
    json_t *object = rpc_json_load(text, reason);
    const amqp_field_value_t *stack;
    amqp_table_t headers;

    HOLDS(context == NULL || json_is_object(object));
    json_decref(object);
    if (context == NULL)
        return;
    headers = context_headers(context);
    stack = find(&headers, STACK_KEY);
    if (stack != NULL) {
        HOLDS(stack->kind == AMQP_FIELD_KIND_ARRAY);
        for (int i = 0; i < stack->value.array.num_entries; i++)
            HOLDS(is_text(&stack->value.array.entries[i]));
    }
    check_any(context, text);
    rpc_context_free(context);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_bytes input = fuzz_bytes(data, size);

    switch ((enum form)(fuzz_byte(&input) % FORMS)) {
    case FORM_PROPERTIES:
        check_incoming(input);
        break;
    case FORM_HEADERS:
        check_headers(input);
        break;
    case FORM_JSON:
        check_json(input);
        break;
    case FORMS:
        break;
    }
    return 0;
}

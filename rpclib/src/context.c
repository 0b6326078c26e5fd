/*
 * A context is kept as what it will be sent as: a table of AMQP header fields, their keys with Nameko's prefix.
 *
 * One is made for each request.  What the usual one holds has its place in it, so that it is a single allocation; what is
 * more goes into the pool.
 */
#include "context.h"

#include <amqp_framing.h>
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>

#include "amqp/frame.h"
#include "plain.h"
#include "rpclib/json.h"
#include "rpclib/text.h"
#include "rpclib/utf8.h"
#include "uuid.h"

#define PREFIX       "nameko."
#define STACK        "call_id_stack" /* behind the prefix */
#define POOL_PAGE    1024            /* most contexts fit into one page */
#define KEY_SIZE_MAX 255             /* AMQP's short string */
#define NESTING_MAX  8               /* of a header's value, where it becomes JSON */
#define ENTRIES_FEW  8
#define ROOM_SIZE    256 /* call stack of a first call, a trace, and some more */

struct rpc_context {
    amqp_pool_t pool;
    int count, capacity;
    amqp_table_entry_t *entries; /* `few`, or in the pool */
    amqp_table_entry_t few[ENTRIES_FEW];
    size_t room_used;
    _Alignas(max_align_t) char room[ROOM_SIZE];
};

static struct rpc_context *context_new_empty(void)
{
    struct rpc_context *context = malloc(sizeof(*context));

    if (context == NULL)
        return NULL;
    context->count = 0;
    context->capacity = ENTRIES_FEW;
    context->entries = context->few;
    context->room_used = 0;
    init_amqp_pool(&context->pool, POOL_PAGE);
    return context;
}

void rpc_context_free(struct rpc_context *context)
{
    if (context == NULL)
        return;
    empty_amqp_pool(&context->pool);
    free(context);
}

amqp_table_t context_headers(const struct rpc_context *context)
{
    if (context == NULL)
        return amqp_empty_table;
    return (amqp_table_t){.num_entries = context->count, .entries = context->entries};
}

/* Memory that goes with the context.  NULL when there is none. */
static void *context_alloc(struct rpc_context *context, size_t size)
{
    const size_t step = _Alignof(max_align_t);
    char *memory;

    if (size > ROOM_SIZE - context->room_used)
        return amqp_pool_alloc(&context->pool, size > 0 ? size : 1);
    memory = context->room + context->room_used;
    context->room_used += (size + step - 1) / step * step; /* ROOM_SIZE is a multiple of it */
    return memory;
}

_Static_assert(ROOM_SIZE % _Alignof(max_align_t) == 0, "context_alloc() rounds up");

/* --- texts --- */

static bool context_copy(struct rpc_context *context, struct rpc_bytes text, amqp_bytes_t *out)
{
    out->bytes = context_alloc(context, text.size);
    out->len = text.size;
    if (out->bytes == NULL)
        return false;
    if (text.size > 0)
        memcpy(out->bytes, text.data, text.size);
    return true;
}

static bool key_equal(amqp_bytes_t key, struct rpc_bytes prefix, struct rpc_bytes rest)
{
    return key.len == prefix.size + rest.size && memcmp(key.bytes, prefix.data, prefix.size) == 0 &&
           memcmp((const char *)key.bytes + prefix.size, rest.data, rest.size) == 0;
}

static amqp_table_entry_t *context_find(struct rpc_context *context, struct rpc_bytes key)
{
    for (int i = 0; i < context->count; i++) {
        if (key_equal(context->entries[i].key, RPC_BYTES(PREFIX), key))
            return &context->entries[i];
    }
    return NULL;
}

/* Whether its bounds let it have one more entry, of this key. */
static bool context_has_room(const struct rpc_context *context, struct rpc_bytes key)
{
    return context->count < RPC_CONTEXT_VALUES_MAX && sizeof(PREFIX) - 1 + key.size <= KEY_SIZE_MAX;
}

/* Memory for one more entry.  False when there is none. */
static bool context_grow(struct rpc_context *context)
{
    amqp_table_entry_t *all;

    if (context->count < context->capacity)
        return true;
    all = context_alloc(context, RPC_CONTEXT_VALUES_MAX * sizeof(*all));
    if (all == NULL)
        return false;
    memcpy(all, context->entries, (size_t)context->count * sizeof(*all));
    context->entries = all;
    context->capacity = RPC_CONTEXT_VALUES_MAX;
    return true;
}

/* An entry for the key (without prefix), new or the one that is there; NULL when there is no room or memory. */
static amqp_table_entry_t *context_entry(struct rpc_context *context, struct rpc_bytes key)
{
    amqp_table_entry_t *entry = context_find(context, key);
    amqp_bytes_t name = {.len = sizeof(PREFIX) - 1 + key.size};

    if (entry != NULL)
        return entry;
    if (!context_has_room(context, key) || !context_grow(context))
        return NULL;
    name.bytes = context_alloc(context, name.len);
    if (name.bytes == NULL)
        return NULL;
    memcpy(name.bytes, PREFIX, sizeof(PREFIX) - 1);
    memcpy((char *)name.bytes + sizeof(PREFIX) - 1, key.data, key.size);
    entry = &context->entries[context->count++];
    *entry = (amqp_table_entry_t){.key = name, .value.kind = AMQP_FIELD_KIND_VOID};
    return entry;
}

/* The key without the prefix that it may have. */
static struct rpc_bytes key_bare(amqp_bytes_t key)
{
    struct rpc_bytes bare = frame_text(key);
    const size_t size = sizeof(PREFIX) - 1;

    if (bare.size >= size && memcmp(bare.data, PREFIX, size) == 0)
        bare = (struct rpc_bytes){bare.data + size, bare.size - size};
    return bare;
}

/* --- the call stack --- */

static bool is_text(const amqp_field_value_t *value)
{
    return value->kind == AMQP_FIELD_KIND_UTF8 || value->kind == AMQP_FIELD_KIND_BYTES;
}

/* Real Nameko dies of a stack that is not an array of texts, so such a one is never passed on. */
static bool stack_is_sound(const amqp_field_value_t *value)
{
    if (value->kind != AMQP_FIELD_KIND_ARRAY)
        return false;
    for (int i = 0; i < value->value.array.num_entries; i++) {
        if (!is_text(&value->value.array.entries[i]))
            return false;
    }
    return true;
}

/* `<service>.<method>.<uuid>`: the id of a call. */
static bool call_id_new(struct rpc_context *context, const char *service, const char *method, amqp_bytes_t *out)
{
    size_t service_size = strlen(service), method_size = strlen(method);
    char *id;

    out->len = service_size + 1 + method_size + 1 + RPC_UUID_SIZE - 1;
    id = context_alloc(context, out->len + 1); /* the uuid ends in NUL */
    out->bytes = id;
    if (id == NULL)
        return false;
    memcpy(id, service, service_size);
    id[service_size] = '.';
    memcpy(id + service_size + 1, method, method_size);
    id[service_size + 1 + method_size] = '.';
    rpc_uuid4(id + service_size + 1 + method_size + 1);
    return true;
}

/* Put this call's own id on the stack, behind the last of its parents. */
static bool context_push_call(struct rpc_context *context, const char *service, const char *method)
{
    amqp_table_entry_t *entry = context_entry(context, RPC_BYTES(STACK));
    int parents = 0, first = 0;
    amqp_field_value_t *stack;

    if (entry == NULL)
        return false;
    if (stack_is_sound(&entry->value)) {
        parents = entry->value.value.array.num_entries;
        first = parents > RPC_CALL_ID_STACK_MAX - 1 ? parents - (RPC_CALL_ID_STACK_MAX - 1) : 0;
    }
    stack = context_alloc(context, sizeof(*stack) * (size_t)(parents - first + 1));
    if (stack == NULL)
        return false;
    for (int i = first; i < parents; i++)
        stack[i - first] = entry->value.value.array.entries[i];
    stack[parents - first].kind = AMQP_FIELD_KIND_UTF8;
    if (!call_id_new(context, service, method, &stack[parents - first].value.bytes))
        return false;
    entry->value.kind = AMQP_FIELD_KIND_ARRAY;
    entry->value.value.array.num_entries = parents - first + 1;
    entry->value.value.array.entries = stack;
    return true;
}

/* --- made here, or come with a message --- */

struct rpc_context *rpc_context_new(const char *service, const char *method)
{
    struct rpc_context *context = context_new_empty();

    if (context != NULL && !context_push_call(context, service, method)) {
        rpc_context_free(context);
        return NULL;
    }
    return context;
}

/* Of too many headers the first ones are kept.  False when out of memory: a part of them is not what was sent. */
static bool context_take_headers(struct rpc_context *context, const amqp_table_t *headers)
{
    for (int i = 0; i < headers->num_entries; i++) {
        const amqp_table_entry_t *header = &headers->entries[i];
        struct rpc_bytes key = key_bare(header->key);
        amqp_table_entry_t *entry;

        if (header->value.kind == AMQP_FIELD_KIND_VOID)
            continue;
        if (rpc_bytes_equal(key, STACK) && !stack_is_sound(&header->value))
            continue;
        if (!context_has_room(context, key) && context_find(context, key) == NULL)
            continue;
        entry = context_entry(context, key);
        if (entry == NULL)
            return false;
        entry->value = header->value;
    }
    return true;
}

/* Properties that cannot be decoded have no headers.  False when out of memory. */
static bool context_take_properties(struct rpc_context *context, struct rpc_bytes raw)
{
    const amqp_basic_properties_t *properties;
    void *decoded = NULL;
    amqp_bytes_t copy;
    int status;

    if (raw.size == 0)
        return true;
    if (!context_copy(context, raw, &copy))
        return false;
    status = amqp_decode_properties(AMQP_BASIC_CLASS, &context->pool, copy, &decoded);
    if (status < 0)
        return status != AMQP_STATUS_NO_MEMORY;
    properties = decoded;
    return !(properties->_flags & AMQP_BASIC_HEADERS_FLAG) || context_take_headers(context, &properties->headers);
}

struct rpc_context *context_new_incoming(struct rpc_bytes raw_properties, const char *service, const char *method)
{
    struct rpc_context *context = context_new_empty();

    if (context == NULL)
        return NULL;
    /* The call stack's place first: there may be more headers than a context holds. */
    if (context_entry(context, RPC_BYTES(STACK)) == NULL || !context_take_properties(context, raw_properties) ||
        !context_push_call(context, service, method)) {
        rpc_context_free(context);
        return NULL;
    }
    return context;
}

bool rpc_context_set(struct rpc_context *context, const char *key, struct rpc_bytes value)
{
    amqp_bytes_t copy;
    amqp_table_entry_t *entry;

    if (!context_copy(context, value, &copy))
        return false;
    entry = context_entry(context, rpc_bytes_of(key));
    if (entry == NULL)
        return false;
    entry->value.kind = AMQP_FIELD_KIND_UTF8;
    entry->value.value.bytes = copy;
    return true;
}

struct rpc_bytes rpc_context_get(const struct rpc_context *context, const char *key)
{
    const amqp_table_entry_t *entry = context_find((struct rpc_context *)(uintptr_t)context, rpc_bytes_of(key));

    if (entry == NULL || !is_text(&entry->value))
        return (struct rpc_bytes){NULL, 0};
    return frame_text(entry->value.value.bytes);
}

/* --- to JSON and back: for a context that is stored with an event --- */

/* What JSON has no value for is left out; when memory ends all of it is given up. */
static json_t *made(json_t *value, bool *no_memory)
{
    if (value == NULL)
        *no_memory = true;
    return value;
}

static json_t *field_to_json(const amqp_field_value_t *field, int depth, bool *no_memory);

/* Whether our JSON has room for it: strings there are UTF-8 and hold no NUL. */
static bool is_storable(amqp_bytes_t text)
{
    return rpc_utf8_check(frame_text(text));
}

static json_t *table_to_json(const amqp_table_t *table, int depth, bool *no_memory)
{
    json_t *object = made(json_object(), no_memory);

    for (int i = 0; object != NULL && i < table->num_entries; i++) {
        const amqp_bytes_t key = table->entries[i].key;
        json_t *value = field_to_json(&table->entries[i].value, depth, no_memory);

        if (value == NULL || !is_storable(key))
            json_decref(value);
        else if (json_object_setn_new(object, key.bytes, key.len, value) != 0)
            *no_memory = true;
    }
    return object;
}

static json_t *array_to_json(const amqp_array_t *array, int depth, bool *no_memory)
{
    json_t *list = made(json_array(), no_memory);

    for (int i = 0; list != NULL && i < array->num_entries; i++) {
        bool nothing = array->entries[i].kind == AMQP_FIELD_KIND_VOID;
        json_t *value = nothing ? json_null() : field_to_json(&array->entries[i], depth, no_memory);

        if (value != NULL && json_array_append_new(list, value) != 0)
            *no_memory = true;
    }
    return list;
}

static json_t *text_to_json(amqp_bytes_t text, bool *no_memory)
{
    return is_storable(text) ? made(json_stringn(text.len == 0 ? "" : text.bytes, text.len), no_memory) : NULL;
}

static json_t *integer_to_json(json_int_t integer, bool *no_memory)
{
    return made(json_integer(integer), no_memory);
}

/* NULL for kinds that JSON has no value for: they are left out.  And when out of memory, which *no_memory tells. */
static json_t *field_to_json(const amqp_field_value_t *field, int depth, bool *no_memory)
{
    if (depth == 0)
        return NULL;
    switch (field->kind) {
    case AMQP_FIELD_KIND_UTF8:
    case AMQP_FIELD_KIND_BYTES:
        return text_to_json(field->value.bytes, no_memory);
    case AMQP_FIELD_KIND_BOOLEAN:
        return json_boolean(field->value.boolean);
    case AMQP_FIELD_KIND_I8:
        return integer_to_json(field->value.i8, no_memory);
    case AMQP_FIELD_KIND_U8:
        return integer_to_json(field->value.u8, no_memory);
    case AMQP_FIELD_KIND_I16:
        return integer_to_json(field->value.i16, no_memory);
    case AMQP_FIELD_KIND_U16:
        return integer_to_json(field->value.u16, no_memory);
    case AMQP_FIELD_KIND_I32:
        return integer_to_json(field->value.i32, no_memory);
    case AMQP_FIELD_KIND_U32:
        return integer_to_json(field->value.u32, no_memory);
    case AMQP_FIELD_KIND_I64:
        return integer_to_json(field->value.i64, no_memory);
    case AMQP_FIELD_KIND_F64:
        return isfinite(field->value.f64) ? made(json_real(field->value.f64), no_memory) : NULL;
    case AMQP_FIELD_KIND_TABLE:
        return table_to_json(&field->value.table, depth - 1, no_memory);
    case AMQP_FIELD_KIND_ARRAY:
        return array_to_json(&field->value.array, depth - 1, no_memory);
    default:
        return NULL;
    }
}

/*
 * What nearly every context holds is printed here, without a value being built for it: texts that spell themselves, and
 * arrays of such.
 */
static bool print_plain(struct rpc_text *out, amqp_bytes_t text)
{
    const struct rpc_bytes bytes = frame_text(text);
    const unsigned char *start = (const unsigned char *)bytes.data;

    if (bytes.size > 0 && plain_skip(start, start + bytes.size) < start + bytes.size)
        return false;
    return rpc_text_append(out, RPC_BYTES("\"")) && rpc_text_append(out, bytes) &&
           rpc_text_append(out, RPC_BYTES("\""));
}

static bool print_plain_field(struct rpc_text *out, const amqp_field_value_t *field)
{
    const amqp_array_t *array = &field->value.array;

    if (is_text(field))
        return print_plain(out, field->value.bytes);
    if (!stack_is_sound(field) || !rpc_text_append(out, RPC_BYTES("[")))
        return false;
    for (int i = 0; i < array->num_entries; i++) {
        if ((i > 0 && !rpc_text_append(out, RPC_BYTES(","))) || !print_plain(out, array->entries[i].value.bytes))
            return false;
    }
    return rpc_text_append(out, RPC_BYTES("]"));
}

/* False when there is more to it than that, or no memory. */
static bool print_plain_table(struct rpc_text *out, const amqp_table_t *table)
{
    bool plain = rpc_text_append(out, RPC_BYTES("{"));

    for (int i = 0; plain && i < table->num_entries; i++)
        plain = (i == 0 || rpc_text_append(out, RPC_BYTES(","))) && print_plain(out, table->entries[i].key) &&
                rpc_text_append(out, RPC_BYTES(":")) && print_plain_field(out, &table->entries[i].value);
    return plain && rpc_text_append(out, (struct rpc_bytes){"}", 2}); /* with its NUL */
}

static char *print_any_table(const amqp_table_t *table)
{
    bool no_memory = false;
    json_t *object = table_to_json(table, NESTING_MAX, &no_memory);
    char *text = no_memory ? NULL : json_dumps(object, JSON_COMPACT);

    json_decref(object);
    return text;
}

char *rpc_context_to_json(const struct rpc_context *context, size_t *size)
{
    amqp_table_t table = context_headers(context);
    struct rpc_text printed = {0};
    char *text;

    if (print_plain_table(&printed, &table)) {
        text = printed.data;
    } else {
        rpc_text_clear(&printed);
        text = print_any_table(&table);
    }
    if (text != NULL && size != NULL)
        *size = strlen(text);
    return text;
}

static bool field_from_json(struct rpc_context *context, amqp_field_value_t *field, const json_t *value);

static bool array_from_json(struct rpc_context *context, amqp_field_value_t *field, const json_t *list)
{
    size_t count = json_array_size(list);
    amqp_field_value_t *entries = context_alloc(context, (count + 1) * sizeof(*entries));

    if (entries == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!field_from_json(context, &entries[i], json_array_get(list, i)))
            return false;
    }
    field->kind = AMQP_FIELD_KIND_ARRAY;
    field->value.array.num_entries = (int)count;
    field->value.array.entries = entries;
    return true;
}

static bool table_from_json(struct rpc_context *context, amqp_field_value_t *field, json_t *object)
{
    size_t count = json_object_size(object);
    amqp_table_entry_t *entries = context_alloc(context, (count + 1) * sizeof(*entries));
    json_t *value;
    const char *key;
    int i = 0;

    if (entries == NULL)
        return false;
    json_object_foreach(object, key, value)
    {
        if (strlen(key) > KEY_SIZE_MAX || !context_copy(context, rpc_bytes_of(key), &entries[i].key) ||
            !field_from_json(context, &entries[i].value, value))
            return false;
        i++;
    }
    field->kind = AMQP_FIELD_KIND_TABLE;
    field->value.table.num_entries = i;
    field->value.table.entries = entries;
    return true;
}

static bool field_from_json(struct rpc_context *context, amqp_field_value_t *field, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        field->kind = AMQP_FIELD_KIND_UTF8;
        return context_copy(context, rpc_json_text(value), &field->value.bytes);
    case JSON_INTEGER:
        field->kind = AMQP_FIELD_KIND_I64;
        field->value.i64 = json_integer_value(value);
        return true;
    case JSON_REAL:
        field->kind = AMQP_FIELD_KIND_F64;
        field->value.f64 = json_real_value(value);
        return true;
    case JSON_TRUE:
    case JSON_FALSE:
        field->kind = AMQP_FIELD_KIND_BOOLEAN;
        field->value.boolean = json_is_true(value);
        return true;
    case JSON_NULL:
        field->kind = AMQP_FIELD_KIND_VOID;
        return true;
    case JSON_ARRAY:
        return array_from_json(context, field, value);
    case JSON_OBJECT:
        return table_from_json(context, field, (json_t *)(uintptr_t)value);
    }
    return false;
}

struct rpc_context *rpc_context_from_json(struct rpc_bytes text)
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *object = rpc_json_load(text, reason);
    struct rpc_context *context = json_is_object(object) ? context_new_empty() : NULL;
    amqp_field_value_t field;

    if (context != NULL &&
        !(table_from_json(context, &field, object) && context_take_headers(context, &field.value.table))) {
        rpc_context_free(context);
        context = NULL;
    }
    json_decref(object);
    return context;
}

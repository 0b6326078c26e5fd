#include "product.h"

#include <assert.h>
#include <math.h>

#include "rpclib/json.h"
#include "rpclib/utf8.h"

#define DOUBLE_INTEGER_MAX 9007199254740992.0 /* 2^53: up to here a double is the integer that was written */

#define MISSING    "Missing data for required field."
#define IS_NULL    "Field may not be null."
#define NO_STRING  "Not a valid string."
#define NO_INTEGER "Not a valid integer."
#define NO_OBJECT  "Invalid input type."
#define OUT_OF_RANGE \
    "Must be greater than or equal to -9223372036854775808 and less than or equal to 9223372036854775807."
#define ID_SIZE       "Length must be between 1 and 1024 bytes."
#define NO_PLAIN_TEXT "Must be UTF-8 without NUL."

const char *const product_field_names[PRODUCT_FIELDS] = {
    [PRODUCT_ID] = "id",
    [PRODUCT_TITLE] = "title",
    [PRODUCT_PASSENGER_CAPACITY] = "passenger_capacity",
    [PRODUCT_MAXIMUM_SPEED] = "maximum_speed",
    [PRODUCT_IN_STOCK] = "in_stock",
};

_Static_assert(PRODUCT_ID_SIZE_MAX == 1024, "ID_SIZE says so");

bool product_id_is_valid(struct rpc_bytes id)
{
    return id.size >= 1 && id.size <= PRODUCT_ID_SIZE_MAX && rpc_utf8_check(id);
}

enum product_integer product_integer_read(int64_t *out, struct rpc_bytes text)
{
    bool negative = text.size > 0 && text.data[0] == '-';
    size_t at = negative || (text.size > 0 && text.data[0] == '+') ? 1 : 0;
    uint64_t limit = negative ? (uint64_t)INT64_MAX + 1 : (uint64_t)INT64_MAX;
    uint64_t value = 0;
    bool in_range = true;

    if (at == text.size)
        return PRODUCT_INTEGER_NONE;
    for (; at < text.size; at++) {
        unsigned digit = (unsigned char)text.data[at] - (unsigned)'0';

        if (digit > 9)
            return PRODUCT_INTEGER_NONE;
        if (in_range && value <= (limit - digit) / 10)
            value = value * 10 + digit;
        else
            in_range = false; /* still to be checked: is it a number at all? */
    }
    if (!in_range)
        return PRODUCT_INTEGER_OUT_OF_RANGE;
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return PRODUCT_INTEGER_OK;
}

/* NULL when the value is fine, else what is wrong with it. */
static const char *text_fault(const json_t *value, enum product_field field)
{
    struct rpc_bytes text;

    if (!json_is_string(value))
        return NO_STRING;
    text = rpc_json_text(value);
    if (field == PRODUCT_ID && (text.size < 1 || text.size > PRODUCT_ID_SIZE_MAX))
        return ID_SIZE;
    return rpc_utf8_check(text) ? NULL : NO_PLAIN_TEXT;
}

/* marshmallow calls int(): a text is parsed and 5.0 is 5.  But 3.7 is not cut to 3, and true is not 1. */
static const char *integer_fault(int64_t *out, const json_t *value)
{
    double real;

    switch (json_typeof(value)) {
    case JSON_INTEGER:
        *out = json_integer_value(value);
        return NULL;
    case JSON_REAL:
        real = json_real_value(value);
        if (!(fabs(real) <= DOUBLE_INTEGER_MAX) || floor(real) != real)
            return NO_INTEGER;
        *out = (int64_t)real;
        return NULL;
    case JSON_STRING:
        switch (product_integer_read(out, rpc_json_text(value))) {
        case PRODUCT_INTEGER_OK:
            return NULL;
        case PRODUCT_INTEGER_NONE:
            return NO_INTEGER;
        case PRODUCT_INTEGER_OUT_OF_RANGE:
            return OUT_OF_RANGE;
        }
        break;
    case JSON_OBJECT:
    case JSON_ARRAY:
    case JSON_TRUE:
    case JSON_FALSE:
    case JSON_NULL:
        break;
    }
    return NO_INTEGER;
}

static const char *field_fault(struct product *product, enum product_field field, const json_t *value)
{
    const char *fault;

    if (value == NULL)
        return MISSING;
    if (json_is_null(value))
        return IS_NULL;
    switch (field) {
    case PRODUCT_ID:
    case PRODUCT_TITLE:
        fault = text_fault(value, field);
        if (fault == NULL)
            *(field == PRODUCT_ID ? &product->id : &product->title) = rpc_json_text(value);
        return fault;
    case PRODUCT_PASSENGER_CAPACITY:
        return integer_fault(&product->passenger_capacity, value);
    case PRODUCT_MAXIMUM_SPEED:
        return integer_fault(&product->maximum_speed, value);
    case PRODUCT_IN_STOCK:
        return integer_fault(&product->in_stock, value);
    case PRODUCT_FIELDS:
        break;
    }
    assert(field < PRODUCT_FIELDS);
    return NULL;
}

/* *messages is NULL until the first fault, and again when memory runs out: then this is false. */
static bool note_fault(json_t **messages, const char *field, const char *fault)
{
    if (*messages == NULL)
        *messages = json_object();
    if (json_object_set_new(*messages, field, json_pack("[s]", fault)) == 0)
        return true;
    json_decref(*messages);
    *messages = NULL;
    return false;
}

bool product_from_json(struct product *out, const json_t *json, json_t **messages)
{
    struct product product = {.in_stock = 0};
    bool sound = true;

    *messages = NULL;
    if (!json_is_object(json)) {
        (void)note_fault(messages, "_schema", NO_OBJECT);
        return false;
    }
    for (int field = 0; field < PRODUCT_FIELDS; field++) {
        const char *name = product_field_names[field];
        const char *fault = field_fault(&product, (enum product_field)field, json_object_get(json, name));

        if (fault == NULL)
            continue;
        if (!note_fault(messages, name, fault))
            return false; /* some of them would pass for all of them */
        sound = false;
    }
    if (sound)
        *out = product;
    return sound;
}

#define LABEL(literal)               \
    {                                \
        literal, sizeof(literal) - 1 \
    }

const struct rpc_bytes product_labels[PRODUCT_FIELDS] = {
    [PRODUCT_ID] = LABEL(PRODUCT_LABEL_ID),
    [PRODUCT_TITLE] = LABEL(PRODUCT_LABEL_TITLE),
    [PRODUCT_PASSENGER_CAPACITY] = LABEL(PRODUCT_LABEL_PASSENGER_CAPACITY),
    [PRODUCT_MAXIMUM_SPEED] = LABEL(PRODUCT_LABEL_MAXIMUM_SPEED),
    [PRODUCT_IN_STOCK] = LABEL(PRODUCT_LABEL_IN_STOCK),
};

static enum product_print print_field(struct rpc_text *out, enum product_field field, struct rpc_bytes text)
{
    int64_t integer;

    if (text.data == NULL)
        return PRODUCT_PRINT_DAMAGED;
    if (!rpc_text_append(out, product_labels[field]))
        return PRODUCT_PRINT_NO_MEMORY;
    if (field == PRODUCT_ID || field == PRODUCT_TITLE) {
        if (!rpc_utf8_check(text))
            return PRODUCT_PRINT_DAMAGED;
        if (!rpc_text_append_json_string(out, text))
            return PRODUCT_PRINT_NO_MEMORY;
    } else {
        if (product_integer_read(&integer, text) != PRODUCT_INTEGER_OK)
            return PRODUCT_PRINT_DAMAGED;
        if (!rpc_text_append_integer(out, integer))
            return PRODUCT_PRINT_NO_MEMORY;
    }
    return PRODUCT_PRINT_OK;
}

enum product_print product_print(struct rpc_text *out, const struct rpc_bytes fields[PRODUCT_FIELDS])
{
    size_t start = out->size;
    enum product_print result = PRODUCT_PRINT_OK;

    for (int field = 0; field < PRODUCT_FIELDS && result == PRODUCT_PRINT_OK; field++)
        result = print_field(out, (enum product_field)field, fields[field]);
    if (result == PRODUCT_PRINT_OK && !rpc_text_append(out, RPC_BYTES("}")))
        result = PRODUCT_PRINT_NO_MEMORY;
    if (result != PRODUCT_PRINT_OK)
        rpc_text_truncate(out, start);
    return result;
}

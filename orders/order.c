#include "order.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "price.h"

/* marshmallow's words where it has some. */
#define MISSING            "Missing data for required field."
#define IS_NULL            "Field may not be null."
#define NOT_STRING         "Not a valid string."
#define NOT_INTEGER        "Not a valid integer."
#define NOT_NUMBER         "Not a valid number."
#define NOT_OBJECT         "Invalid input type."
#define NOT_LIST           "Invalid type."
#define NOT_POSITIVE_PRICE "Must be greater than or equal to 0."
#define TOO_PRECISE        "Must have no more than 2 decimal places."
#define INEXACT_PRICE      "A number this large does not hold cents; send it as a string."
#define TOO_LARGE_PRICE    "Must be less than or equal to 9999999999999999.99."
#define QUANTITY_RANGE     "Must be greater than or equal to 1 and less than or equal to 2147483647."
#define PRODUCT_ID_LENGTH  "Length must be between 1 and 1024."
#define LINES_LENGTH       "Length must be between 1 and 1000."
#define TOO_MANY_LINES     "Longer than maximum length 1000."
#define DUPLICATE_ID       "Must not be named twice."
#define LIMIT_RANGE        "Must be greater than or equal to 1 and less than or equal to 10001."
#define NOT_NEGATIVE       "Must be greater than or equal to 0."
#define INT64_LIMIT        9223372036854775808.0  /* 2^63 */
#define EXACT_PRINT_LIMIT  18446744073709551616.0 /* 2^64 */
#define REAL_DIGITS_MAX    17                     /* they tell any double from its neighbours */

/* ---- Errors ------------------------------------------------------------------------------------------------------ */

/* Messages being collected: NULL until there is one. */
struct errors {
    json_t *fields;
    bool no_memory;
};

/* Takes the reference `value`; NULL counts as out of memory. */
static void errors_set(struct errors *errors, const char *field, json_t *value)
{
    if (errors->fields == NULL)
        errors->fields = json_object();
    if (json_object_set_new(errors->fields, field, value) != 0)
        errors->no_memory = true;
}

static void errors_add(struct errors *errors, const char *field, const char *message)
{
    errors_set(errors, field, json_pack("[s]", message));
}

/* {<field>: <what is wrong within it>}, if anything is.  `within` is empty after that. */
static void errors_add_nested(struct errors *errors, const char *field, struct errors *within)
{
    if (within->no_memory)
        errors->no_memory = true;
    if (within->fields != NULL)
        errors_set(errors, field, within->fields);
    *within = (struct errors){.fields = NULL};
}

static void errors_add_line(struct errors *errors, size_t index, struct errors *line)
{
    char key[24];

    snprintf(key, sizeof(key), "%zu", index);
    errors_add_nested(errors, key, line);
}

/* How reading ended.  Lets go of the order unless all is well, and of the messages unless they are handed over. */
static enum order_status errors_end(struct errors *errors, struct order *order, json_t **out)
{
    enum order_status status = errors->no_memory ? ORDER_NO_MEMORY : errors->fields != NULL ? ORDER_INVALID : ORDER_OK;

    if (status == ORDER_INVALID)
        *out = errors->fields;
    else
        json_decref(errors->fields);
    if (status != ORDER_OK)
        order_clear(order);
    return status;
}

json_t *order_error(const char *field, const char *message)
{
    return json_pack("{s:[s]}", field, message);
}

/* ---- Integers ---------------------------------------------------------------------------------------------------- */

enum integer_status { INTEGER_OK, INTEGER_TOO_SMALL, INTEGER_TOO_LARGE, INTEGER_INVALID };

static enum integer_status integer_parse(int64_t *out, const char *text, size_t size)
{
    bool negative = size > 0 && text[0] == '-', out_of_range = false;
    int64_t value = 0;
    size_t at = negative ? 1 : 0;

    if (at == size)
        return INTEGER_INVALID;
    for (; at < size; at++) {
        if (text[at] < '0' || text[at] > '9')
            return INTEGER_INVALID;
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, text[at] - '0', &value)) {
            out_of_range = true; /* go on: what follows may make it no integer at all */
            value = 0;
        }
    }
    if (out_of_range)
        return negative ? INTEGER_TOO_SMALL : INTEGER_TOO_LARGE;
    *out = negative ? -value : value;
    return INTEGER_OK;
}

/* As marshmallow reads one, except that fractions are not cut off and `true` is not 1. */
static enum integer_status integer_read(int64_t *out, const json_t *value)
{
    if (json_is_string(value))
        return integer_parse(out, json_string_value(value), json_string_length(value));
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return INTEGER_OK;
    }
    if (!json_is_real(value) || json_real_value(value) != trunc(json_real_value(value)))
        return INTEGER_INVALID;
    if (fabs(json_real_value(value)) >= INT64_LIMIT)
        return json_real_value(value) < 0 ? INTEGER_TOO_SMALL : INTEGER_TOO_LARGE;
    *out = (int64_t)json_real_value(value);
    return INTEGER_OK;
}

enum order_id_status order_id_read(int32_t *out, const json_t *value)
{
    int64_t id = 0;

    switch (integer_read(&id, value)) {
    case INTEGER_INVALID:
        return ORDER_ID_INVALID;
    case INTEGER_TOO_SMALL:
    case INTEGER_TOO_LARGE:
        return ORDER_ID_IMPOSSIBLE;
    case INTEGER_OK:
        break;
    }
    if (id < 1 || id > ORDER_ID_MAX)
        return ORDER_ID_IMPOSSIBLE;
    *out = (int32_t)id;
    return ORDER_ID_OK;
}

static bool is_integer_literal(struct rpc_bytes text)
{
    size_t at = text.size > 0 && text.data[0] == '-' ? 1 : 0;

    if (at == text.size)
        return false;
    while (at < text.size && text.data[at] >= '0' && text.data[at] <= '9')
        at++;
    return at == text.size;
}

/*
 * A whole number that came as a double: the digits that were sent are gone.  Up to 2^64 the double's exact value is the
 * likelier one; beyond, the fewest digits that give the same double, and zeros (1e30 is a one and thirty zeros).
 */
static void print_real(char out[ORDER_ID_TEXT_SIZE], double number)
{
    char digits[REAL_DIGITS_MAX + 16];
    int precision, size = 0;
    long exponent;
    const char *at;

    if (fabs(number) <= EXACT_PRINT_LIMIT) {
        snprintf(out, ORDER_ID_TEXT_SIZE, "%.0f", number);
        return;
    }
    for (precision = 0; precision < REAL_DIGITS_MAX; precision++) {
        snprintf(digits, sizeof(digits), "%.*e", precision, number);
        if (strtod(digits, NULL) == number)
            break;
    }
    exponent = strtol(strchr(digits, 'e') + 1, NULL, 10);
    if (exponent > ORDER_ID_TEXT_SIZE - 4) {
        snprintf(out, ORDER_ID_TEXT_SIZE, "%s", digits);
        return;
    }
    for (at = digits; *at != 'e'; at++)
        if (*at != '.')
            out[size++] = *at;
    for (exponent -= precision; exponent > 0; exponent--)
        out[size++] = '0';
    out[size] = '\0';
}

void order_id_print(char out[ORDER_ID_TEXT_SIZE], const json_t *value, struct rpc_bytes spelled)
{
    int size = 0;

    if (json_is_integer(value))
        snprintf(out, ORDER_ID_TEXT_SIZE, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value) && is_integer_literal(spelled))
        size = snprintf(out, ORDER_ID_TEXT_SIZE, "%.*s", spelled.size > INT_MAX ? INT_MAX : (int)spelled.size,
                        spelled.data);
    else if (json_is_real(value))
        print_real(out, json_real_value(value));
    else
        size = snprintf(out, ORDER_ID_TEXT_SIZE, "%s", json_is_string(value) ? json_string_value(value) : "");
    if (size >= ORDER_ID_TEXT_SIZE)
        memcpy(out + ORDER_ID_TEXT_SIZE - 4, "...", 4);
}

/* ---- Lines ------------------------------------------------------------------------------------------------------- */

/* The lines and, behind them, the texts they point to. */
static bool order_reserve(struct order *order, size_t lines_count, size_t text_size)
{
    order->memory = calloc(1, lines_count * sizeof(struct order_line) + text_size + 1);
    if (order->memory == NULL)
        return false;
    order->lines = order->memory;
    order->lines_count = lines_count;
    return true;
}

void order_clear(struct order *order)
{
    free(order->memory);
    *order = (struct order){.id = 0};
}

/* The value of a field that must be there; NULL, with a message, when it is not. */
static const json_t *field_get(const json_t *object, const char *field, struct errors *errors)
{
    const json_t *value = json_object_get(object, field);

    if (value == NULL)
        errors_add(errors, field, MISSING);
    else if (json_is_null(value))
        errors_add(errors, field, IS_NULL);
    else
        return value;
    return NULL;
}

static void read_product_id(struct order_line *line, char **text, const json_t *object, struct errors *errors)
{
    const json_t *value = field_get(object, "product_id", errors);
    size_t size = json_string_length(value);

    if (value == NULL)
        return;
    if (!json_is_string(value) || memchr(json_string_value(value), '\0', size) != NULL) {
        errors_add(errors, "product_id", NOT_STRING);
    } else if (size < 1 || size > ORDER_PRODUCT_ID_SIZE_MAX) {
        errors_add(errors, "product_id", PRODUCT_ID_LENGTH);
    } else {
        memcpy(*text, json_string_value(value), size);
        line->product_id = (struct rpc_bytes){.data = *text, .size = size};
        *text += size;
    }
}

static const char *price_message(enum price_status status)
{
    switch (status) {
    case PRICE_OK:
        return NULL;
    case PRICE_NOT_DECIMAL:
        return NOT_NUMBER;
    case PRICE_TOO_PRECISE:
        return TOO_PRECISE;
    case PRICE_INEXACT:
        return INEXACT_PRICE;
    case PRICE_TOO_LARGE:
        return TOO_LARGE_PRICE;
    case PRICE_NEGATIVE:
        return NOT_POSITIVE_PRICE;
    }
    return NOT_NUMBER;
}

static void read_price(struct order_line *line, char **text, const json_t *object, struct errors *errors)
{
    const json_t *value = field_get(object, "price", errors);
    int64_t price_cents = 0;
    const char *message;

    if (value == NULL)
        return;
    message = price_message(price_read(&price_cents, value));
    if (message != NULL) {
        errors_add(errors, "price", message);
        return;
    }
    line->price = (struct rpc_bytes){.data = *text, .size = price_print(*text, price_cents)};
    *text += line->price.size;
}

static void read_quantity(struct order_line *line, const json_t *object, struct errors *errors)
{
    const json_t *value = field_get(object, "quantity", errors);
    enum integer_status status;
    int64_t quantity = 0;

    if (value == NULL)
        return;
    status = integer_read(&quantity, value);
    if (status == INTEGER_INVALID)
        errors_add(errors, "quantity", NOT_INTEGER);
    else if (status != INTEGER_OK || quantity < 1 || quantity > ORDER_QUANTITY_MAX)
        errors_add(errors, "quantity", QUANTITY_RANGE);
    else
        line->quantity = (int32_t)quantity;
}

static void read_id(int32_t *out, const json_t *object, struct errors *errors)
{
    const json_t *value = field_get(object, "id", errors);

    if (value != NULL && order_id_read(out, value) == ORDER_ID_INVALID)
        errors_add(errors, "id", NOT_INTEGER);
}

/* What the lines' texts need at most: only what is well-formed is copied. */
static size_t lines_text_size(const json_t *details)
{
    size_t index, size = json_array_size(details) * PRICE_TEXT_SIZE;
    const json_t *line;

    for (index = 0; index < json_array_size(details); index++) {
        line = json_array_get(details, index);
        if (json_string_length(json_object_get(line, "product_id")) <= ORDER_PRODUCT_ID_SIZE_MAX)
            size += json_string_length(json_object_get(line, "product_id"));
    }
    return size;
}

static void read_new_line(struct order_line *line, char **text, const json_t *object, struct errors *errors)
{
    read_product_id(line, text, object, errors);
    read_price(line, text, object, errors);
    read_quantity(line, object, errors);
}

static void read_changed_line(struct order_line *line, char **text, const json_t *object, struct errors *errors)
{
    read_id(&line->id, object, errors);
    read_price(line, text, object, errors);
    read_quantity(line, object, errors);
}

typedef void read_line_fn(struct order_line *line, char **text, const json_t *object, struct errors *errors);

/* Read each of the objects in the array `details`; what is wrong with them goes to `errors` under "order_details". */
static void read_lines(struct order *order, const json_t *details, read_line_fn *read_line, struct errors *errors)
{
    struct errors lines = {.fields = NULL};
    size_t index;
    char *text;

    if (!order_reserve(order, json_array_size(details), lines_text_size(details))) {
        errors->no_memory = true;
        return;
    }
    text = (char *)(order->lines + order->lines_count);
    for (index = 0; index < order->lines_count; index++) {
        const json_t *object = json_array_get(details, index);
        struct errors line = {.fields = NULL};

        if (json_is_object(object))
            read_line(&order->lines[index], &text, object, &line);
        else
            errors_add(&line, "_schema", NOT_OBJECT);
        if (line.fields != NULL || line.no_memory)
            errors_add_line(&lines, index, &line);
    }
    errors_add_nested(errors, "order_details", &lines);
}

enum order_status order_read_new(struct order *out, const json_t *details, json_t **errors_out)
{
    struct order order = {.id = 0};
    struct errors errors = {.fields = NULL};
    enum order_status status;

    if (details == NULL)
        errors_add(&errors, "order_details", MISSING);
    else if (json_is_null(details))
        errors_add(&errors, "order_details", IS_NULL);
    else if (!json_is_array(details))
        errors_add(&errors, "order_details", NOT_LIST);
    else if (json_array_size(details) < 1 || json_array_size(details) > ORDER_LINES_MAX)
        errors_add(&errors, "order_details", LINES_LENGTH);
    else
        read_lines(&order, details, read_new_line, &errors);
    status = errors_end(&errors, &order, errors_out);
    if (status == ORDER_OK)
        *out = order;
    return status;
}

/* Naming a line twice leaves open which of the two is meant. */
static void check_named_once(const struct order *order, struct errors *errors)
{
    struct errors lines = {.fields = NULL};
    size_t index, earlier;

    for (index = 1; index < order->lines_count; index++) {
        struct errors line = {.fields = NULL};

        for (earlier = 0; earlier < index; earlier++)
            if (order->lines[earlier].id == order->lines[index].id && order->lines[index].id != 0)
                break;
        if (earlier == index)
            continue;
        errors_add(&line, "id", DUPLICATE_ID);
        errors_add_line(&lines, index, &line);
    }
    errors_add_nested(errors, "order_details", &lines);
}

enum order_status order_read_change(struct order *out, const json_t *change, json_t **errors_out)
{
    struct order order = {.id = 0};
    struct errors errors = {.fields = NULL};
    enum order_status status;
    const json_t *details;
    int32_t id = 0;

    if (!json_is_object(change)) {
        errors_add(&errors, "_schema", NOT_OBJECT);
    } else {
        read_id(&id, change, &errors);
        details = field_get(change, "order_details", &errors);
        if (details != NULL && !json_is_array(details))
            errors_add(&errors, "order_details", NOT_LIST);
        else if (json_array_size(details) > ORDER_LINES_MAX)
            errors_add(&errors, "order_details", TOO_MANY_LINES);
        else if (details != NULL)
            read_lines(&order, details, read_changed_line, &errors);
    }
    if (errors.fields == NULL && !errors.no_memory)
        check_named_once(&order, &errors);
    status = errors_end(&errors, &order, errors_out);
    if (status == ORDER_OK) {
        *out = order;
        out->id = id;
    }
    return status;
}

/* ---- Pages ------------------------------------------------------------------------------------------------------- */

static void read_after(int32_t *out, const json_t *value, struct errors *errors)
{
    enum integer_status status;
    int64_t after = 0;

    if (value == NULL || json_is_null(value))
        return;
    status = integer_read(&after, value);
    if (status == INTEGER_INVALID)
        errors_add(errors, "after", NOT_INTEGER);
    else if (status == INTEGER_TOO_SMALL || (status == INTEGER_OK && after < 0))
        errors_add(errors, "after", NOT_NEGATIVE);
    else /* behind the last id there can be is behind the last order */
        *out = status == INTEGER_TOO_LARGE || after > ORDER_ID_MAX ? ORDER_ID_MAX : (int32_t)after;
}

static void read_limit(int32_t *out, const json_t *value, struct errors *errors)
{
    enum integer_status status;
    int64_t limit = 0;

    if (value == NULL || json_is_null(value))
        return;
    status = integer_read(&limit, value);
    if (status == INTEGER_INVALID)
        errors_add(errors, "limit", NOT_INTEGER);
    else if (status != INTEGER_OK || limit < 1 || limit > ORDER_PAGE_MAX)
        errors_add(errors, "limit", LIMIT_RANGE);
    else
        *out = (int32_t)limit;
}

enum order_status order_read_page(struct order_page *out, const json_t *after, const json_t *limit, json_t **errors_out)
{
    struct order_page page = {.after = 0, .limit = ORDER_PAGE_DEFAULT};
    struct order nothing = {.id = 0};
    struct errors errors = {.fields = NULL};
    enum order_status status;

    read_after(&page.after, after, &errors);
    read_limit(&page.limit, limit, &errors);
    status = errors_end(&errors, &nothing, errors_out);
    if (status == ORDER_OK)
        *out = page;
    return status;
}

/* ---- As JSON ----------------------------------------------------------------------------------------------------- */

void order_print_line_rest(struct rpc_text *out, const struct order_line *line)
{
    rpc_text_append(out, RPC_BYTES(ORDER_LABEL_PRODUCT_ID));
    rpc_text_append_json_string(out, line->product_id);
    rpc_text_append(out, RPC_BYTES(ORDER_LABEL_PRICE "\""));
    rpc_text_append(out, line->price);
    rpc_text_append(out, RPC_BYTES("\"" ORDER_LABEL_QUANTITY));
    rpc_text_append_integer(out, line->quantity);
    rpc_text_append(out, RPC_BYTES(ORDER_LABEL_LINE_END));
}

void order_print(struct rpc_text *out, const struct order *order)
{
    size_t index;

    rpc_text_append(out, RPC_BYTES(ORDER_LABEL_ID));
    rpc_text_append_integer(out, order->id);
    rpc_text_append(out, RPC_BYTES(ORDER_LABEL_DETAILS));
    for (index = 0; index < order->lines_count; index++) {
        rpc_text_append(out, index == 0 ? RPC_BYTES(ORDER_LABEL_ID) : RPC_BYTES(ORDER_LABEL_NEXT ORDER_LABEL_ID));
        rpc_text_append_integer(out, order->lines[index].id);
        order_print_line_rest(out, &order->lines[index]);
    }
    rpc_text_append(out, RPC_BYTES(ORDER_LABEL_END));
}

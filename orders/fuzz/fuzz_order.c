/*
 * order: what a client may ask for.  What is taken is printed and taken again as the same; what is refused is described,
 * and leaves nothing behind; integers are judged by an oracle of 128 bits.
 *
 * The input is the JSON of a request: {order_details, id, after, limit}.
 */
#include <fuzz.h>
#include <math.h>

#include "rpclib/json.h"

#include "order.h"
#include "price.h"

#define UNTOUCHED   INT32_C(-77)
#define HUGE_NUMBER ((__int128)1 << 100) /* stands for every number beyond 64 bits */

/* ---- Integers ---------------------------------------------------------------------------------------------------- */

/* The value of digits with or without a minus, or of a number without a fraction.  False: no integer. */
static bool integer_oracle(__int128 *out, const json_t *value)
{
    const char *text = json_string_value(value);
    __int128 result = 0;
    size_t at = 0;

    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return true;
    }
    if (json_is_real(value)) {
        double real = json_real_value(value);

        *out = fabs(real) < 1e30 ? (__int128)real : real < 0 ? -HUGE_NUMBER : HUGE_NUMBER;
        return floor(real) == real;
    }
    if (text == NULL)
        return false;
    if (text[0] == '-')
        at++;
    if (at == json_string_length(value))
        return false;
    for (; at < json_string_length(value); at++) {
        if (text[at] < '0' || text[at] > '9')
            return false;
        if (result < HUGE_NUMBER)
            result = result * 10 + (text[at] - '0');
    }
    *out = text[0] == '-' ? -result : result;
    return true;
}

static void check_id(const json_t *value)
{
    char text[ORDER_ID_TEXT_SIZE];
    int32_t id = UNTOUCHED;
    __int128 expected;

    switch (order_id_read(&id, value)) {
    case ORDER_ID_OK:
        HOLDS(integer_oracle(&expected, value) && id == expected && id >= 1);
        break;
    case ORDER_ID_IMPOSSIBLE:
        HOLDS(integer_oracle(&expected, value) && (expected < 1 || expected > ORDER_ID_MAX) && id == UNTOUCHED);
        break;
    case ORDER_ID_INVALID:
        HOLDS(!integer_oracle(&expected, value) && id == UNTOUCHED);
        return; /* it is never shown */
    }
    memset(text, 'x', sizeof(text));
    order_id_print(text, value, (struct rpc_bytes){.data = NULL, .size = 0});
    HOLDS(memchr(text, '\0', sizeof(text)) != NULL && text[0] != '\0');
    HOLDS(strspn(text, "0123456789-.e+") == strlen(text));
}

/* ---- Messages ---------------------------------------------------------------------------------------------------- */

static void check_messages(json_t *messages)
{
    char *text;

    HOLDS(json_is_object(messages) && json_object_size(messages) > 0);
    text = json_dumps(messages, 0);
    HOLDS(text != NULL && rpc_json_check(rpc_bytes_of(text)));
    free(text);
    json_decref(messages);
}

/* ---- Orders ------------------------------------------------------------------------------------------------------ */

static void check_lines(const struct order *order, bool is_new)
{
    int64_t cents;

    HOLDS(order->lines_count <= ORDER_LINES_MAX);
    for (size_t i = 0; i < order->lines_count; i++) {
        const struct order_line *line = &order->lines[i];

        HOLDS(price_parse(&cents, line->price) == PRICE_OK && line->price.size < PRICE_TEXT_SIZE);
        HOLDS(line->quantity >= 1);
        HOLDS(line->product_id.size <= ORDER_PRODUCT_ID_SIZE_MAX);
        if (is_new)
            HOLDS(line->id == 0 && line->product_id.size >= 1 && fuzz_is_utf8(line->product_id));
        else
            HOLDS(line->id >= 0 && line->product_id.size == 0);
    }
}

static void lines_are_equal(const struct order *one, const struct order *other)
{
    HOLDS(one->lines_count == other->lines_count);
    for (size_t i = 0; i < one->lines_count; i++)
        HOLDS(fuzz_equal(one->lines[i].product_id, other->lines[i].product_id) &&
              fuzz_equal(one->lines[i].price, other->lines[i].price) &&
              one->lines[i].quantity == other->lines[i].quantity);
}

/* Printed, an order is sound JSON that makes the same order. */
static void check_round_trip(struct order *order)
{
    char reason[RPC_JSON_REASON_SIZE];
    struct order again = {.id = UNTOUCHED};
    struct rpc_text text = {.data = NULL};
    json_t *printed, *errors = NULL;

    order->id = 7;
    order_print(&text, order);
    HOLDS(!text.failed);
    printed = rpc_json_load(rpc_text_bytes(&text), reason);
    HOLDS(json_integer_value(json_object_get(printed, "id")) == 7);
    HOLDS(order_read_new(&again, json_object_get(printed, "order_details"), &errors) == ORDER_OK);
    lines_are_equal(order, &again);
    order_clear(&again);
    json_decref(printed);
    rpc_text_clear(&text);
}

static void check_new(const json_t *details)
{
    struct order order = {.id = UNTOUCHED};
    json_t *errors = NULL;

    if (order_read_new(&order, details, &errors) == ORDER_OK) {
        HOLDS(errors == NULL && order.id == 0 && order.lines_count >= 1);
        check_lines(&order, true);
        check_round_trip(&order);
        order_clear(&order);
    } else {
        HOLDS(order.id == UNTOUCHED && order.memory == NULL);
        check_messages(errors);
    }
}

static void check_change(const json_t *change)
{
    struct order order = {.id = UNTOUCHED};
    json_t *errors = NULL;

    if (order_read_change(&order, change, &errors) == ORDER_OK) {
        HOLDS(errors == NULL && order.id >= 0);
        check_lines(&order, false);
        for (size_t i = 0; i < order.lines_count; i++)
            for (size_t k = 0; k < i; k++)
                HOLDS(order.lines[i].id == 0 || order.lines[i].id != order.lines[k].id);
        order_clear(&order);
    } else {
        HOLDS(order.id == UNTOUCHED && order.memory == NULL);
        check_messages(errors);
    }
}

/* ---- Pages ------------------------------------------------------------------------------------------------------- */

static bool is_nothing(const json_t *value)
{
    return value == NULL || json_is_null(value);
}

static void check_page(const json_t *after, const json_t *limit)
{
    struct order_page page = {UNTOUCHED, UNTOUCHED};
    __int128 first = 0, count = ORDER_PAGE_DEFAULT;
    bool sound = (is_nothing(after) || integer_oracle(&first, after)) &&
                 (is_nothing(limit) || integer_oracle(&count, limit)) && first >= 0 && count >= 1 &&
                 count <= ORDER_PAGE_MAX;
    json_t *errors = NULL;

    if (order_read_page(&page, after, limit, &errors) == ORDER_OK) {
        HOLDS(sound && errors == NULL);
        HOLDS(page.after == (first > ORDER_ID_MAX ? ORDER_ID_MAX : first) && page.limit == count);
    } else {
        HOLDS(!sound && page.after == UNTOUCHED && page.limit == UNTOUCHED);
        check_messages(errors);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *request = rpc_json_load(fuzz_bytes(data, size), reason);
    const json_t *details = json_is_object(request) ? json_object_get(request, "order_details") : request;

    check_new(details);
    if (request != NULL) {
        check_change(request);
        check_id(json_is_object(request) && json_object_get(request, "id") != NULL ? json_object_get(request, "id")
                                                                                   : request);
        check_page(json_object_get(request, "after"), json_object_get(request, "limit"));
    }
    json_decref(request);
    return 0;
}

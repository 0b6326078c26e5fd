/*
 * product and order_event: what comes as JSON.  What is taken is printed and taken again as the same; what is refused is
 * described, and leaves nothing behind; integers and sums are judged by an oracle of 128 bits.
 *
 * The input is JSON: a product, or an event's data.
 */
#include <fuzz.h>
#include <inttypes.h>
#include <math.h>

#include "rpclib/json.h"

#include "order_event.h"
#include "product.h"
#include "product_list.h"

#define UNTOUCHED    INT64_C(-77)
#define EXACT_DOUBLE 9007199254740992.0
#define HUGE_NUMBER  ((__int128)1 << 100) /* stands for every number beyond 64 bits */
#define INTEGER_SIZE 24
#define LIST_SIZE    100000

/* ---- The oracle -------------------------------------------------------------------------------------------------- */

/* Whether a text is an integer, and which. */
static bool text_oracle(__int128 *out, struct rpc_bytes text)
{
    size_t at = text.size > 0 && (text.data[0] == '-' || text.data[0] == '+') ? 1 : 0;
    __int128 result = 0;

    if (at == text.size)
        return false;
    for (; at < text.size; at++) {
        if (text.data[at] < '0' || text.data[at] > '9')
            return false;
        if (result < HUGE_NUMBER)
            result = result * 10 + (text.data[at] - '0');
    }
    *out = text.data[0] == '-' ? -result : result;
    return true;
}

static bool fits(__int128 number)
{
    return number >= INT64_MIN && number <= INT64_MAX;
}

static bool integer_oracle(int64_t *out, const json_t *value)
{
    __int128 number;

    if (json_is_integer(value)) {
        number = json_integer_value(value);
    } else if (json_is_real(value)) {
        double real = json_real_value(value);

        if (fabs(real) > EXACT_DOUBLE || (double)(int64_t)real != real)
            return false;
        number = (__int128)real;
    } else if (!json_is_string(value) ||
               !text_oracle(&number, (struct rpc_bytes){json_string_value(value), json_string_length(value)})) {
        return false;
    }
    *out = (int64_t)number;
    return fits(number);
}

static bool text_is(struct rpc_bytes text, const json_t *value)
{
    return json_is_string(value) &&
           fuzz_equal(text, (struct rpc_bytes){json_string_value(value), json_string_length(value)});
}

static bool product_oracle(const json_t *json)
{
    size_t id_size = json_string_length(json_object_get(json, "id"));
    int64_t ignored;

    return id_size >= 1 && id_size <= PRODUCT_ID_SIZE_MAX && json_is_string(json_object_get(json, "title")) &&
           integer_oracle(&ignored, json_object_get(json, "passenger_capacity")) &&
           integer_oracle(&ignored, json_object_get(json, "maximum_speed")) &&
           integer_oracle(&ignored, json_object_get(json, "in_stock"));
}

/* ---- Products ---------------------------------------------------------------------------------------------------- */

static void check_messages(json_t *messages)
{
    char *text;

    HOLDS(json_is_object(messages) && json_object_size(messages) > 0);
    text = json_dumps(messages, 0);
    HOLDS(text != NULL && rpc_json_check(rpc_bytes_of(text)));
    free(text);
    json_decref(messages);
}

static void products_are_equal(const struct product *one, const struct product *other)
{
    HOLDS(fuzz_equal(one->id, other->id) && fuzz_equal(one->title, other->title));
    HOLDS(one->passenger_capacity == other->passenger_capacity && one->maximum_speed == other->maximum_speed);
    HOLDS(one->in_stock == other->in_stock);
}

static struct rpc_bytes integer_text(char room[INTEGER_SIZE], int64_t integer)
{
    return (struct rpc_bytes){room, (size_t)snprintf(room, INTEGER_SIZE, "%" PRId64, integer)};
}

/* As Redis would hold it, it is printed as JSON that makes the same product, alone and in a list. */
static void check_round_trip(const struct product *product)
{
    char capacity[INTEGER_SIZE], speed[INTEGER_SIZE], stock[INTEGER_SIZE], reason[RPC_JSON_REASON_SIZE];
    const struct rpc_bytes fields[PRODUCT_FIELDS] = {
        [PRODUCT_ID] = product->id,
        [PRODUCT_TITLE] = {product->title.data, product->title.size},
        [PRODUCT_PASSENGER_CAPACITY] = integer_text(capacity, product->passenger_capacity),
        [PRODUCT_MAXIMUM_SPEED] = integer_text(speed, product->maximum_speed),
        [PRODUCT_IN_STOCK] = integer_text(stock, product->in_stock),
    };
    struct product_list list;
    struct product again;
    json_t *printed, *messages;

    product_list_init(&list, 2, LIST_SIZE);
    HOLDS(product_list_add(&list, fields) == PRODUCT_LIST_OK && product_list_add(&list, fields) == PRODUCT_LIST_OK);
    printed = rpc_json_load(product_list_finish(&list), reason);
    HOLDS(json_array_size(printed) == 2 && json_equal(json_array_get(printed, 0), json_array_get(printed, 1)));
    HOLDS(json_object_size(json_array_get(printed, 0)) == PRODUCT_FIELDS);
    HOLDS(product_from_json(&again, json_array_get(printed, 0), &messages) && messages == NULL);
    products_are_equal(product, &again);
    json_decref(printed);
    product_list_clear(&list);
}

static void check_product(const json_t *json)
{
    struct product product = {.in_stock = UNTOUCHED};
    int64_t integer = UNTOUCHED;
    json_t *messages = NULL;

    if (product_from_json(&product, json, &messages)) {
        HOLDS(product_oracle(json) && messages == NULL);
        HOLDS(text_is(product.id, json_object_get(json, "id")) && product_id_is_valid(product.id));
        HOLDS(text_is(product.title, json_object_get(json, "title")));
        HOLDS(integer_oracle(&integer, json_object_get(json, "in_stock")) && integer == product.in_stock);
        check_round_trip(&product);
    } else {
        HOLDS(!product_oracle(json) && product.in_stock == UNTOUCHED && product.id.data == NULL);
        check_messages(messages);
    }
}

/* ---- Events ------------------------------------------------------------------------------------------------------ */

/* How many of a product an order's lines name. */
static __int128 quantity_of(const json_t *lines, struct rpc_bytes product_id)
{
    __int128 sum = 0;

    for (size_t i = 0; i < json_array_size(lines); i++)
        if (text_is(product_id, json_object_get(json_array_get(lines, i), "product_id")))
            sum += json_integer_value(json_object_get(json_array_get(lines, i), "quantity"));
    return sum;
}

static bool event_oracle(const json_t *order)
{
    const json_t *lines = json_object_get(order, "order_details");

    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *line = json_array_get(lines, i);
        json_int_t quantity = json_integer_value(json_object_get(line, "quantity"));

        if (!json_is_string(json_object_get(line, "product_id")) || quantity < 1 || quantity > INT32_MAX)
            return false;
    }
    return json_is_array(lines) && json_integer_value(json_object_get(order, "id")) >= 1;
}

static void check_event(json_t *data)
{
    const json_t *order = json_object_get(data, "order");
    const json_t *lines = json_object_get(order, "order_details");
    struct order_event event = {.order_id = UNTOUCHED};
    const char *fault = "untouched";
    __int128 sum = 0, total = 0;

    if (!order_event_read(&event, data, &fault)) {
        HOLDS(!event_oracle(order) && fault != NULL && fault[0] != '\0');
        HOLDS(event.order_id == UNTOUCHED && event.changes == NULL && event.data == NULL);
        return;
    }
    HOLDS(event_oracle(order) && fault == NULL);
    HOLDS(event.order_id == json_integer_value(json_object_get(order, "id")));
    for (size_t i = 0; i < event.count; i++) {
        HOLDS(event.changes[i].quantity == quantity_of(lines, event.changes[i].product_id));
        for (size_t k = 0; k < i; k++)
            HOLDS(!fuzz_equal(event.changes[i].product_id, event.changes[k].product_id));
        sum += event.changes[i].quantity;
    }
    for (size_t i = 0; i < json_array_size(lines); i++)
        total += json_integer_value(json_object_get(json_array_get(lines, i), "quantity"));
    HOLDS(sum == total);
    order_event_clear(&event);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *json = rpc_json_load(fuzz_bytes(data, size), reason);

    if (json != NULL) {
        check_product(json);
        check_event(json);
    }
    json_decref(json);
    return 0;
}

#include "order_event.h"

#include <stdlib.h>

#include "rpclib/json.h"

/* By product, so that its lines lie side by side. */
static int change_compare(const void *left_pointer, const void *right_pointer)
{
    const struct order_change *left = left_pointer;
    const struct order_change *right = right_pointer;
    size_t size = left->product_id.size < right->product_id.size ? left->product_id.size : right->product_id.size;
    int order = memcmp(left->product_id.data, right->product_id.data, size);

    if (order != 0)
        return order;
    return (left->product_id.size > right->product_id.size) - (left->product_id.size < right->product_id.size);
}

/* No sum overflows: memory holds fewer than 2^32 lines, and each is less than 2^31. */
static size_t changes_merge(struct order_change *changes, size_t count)
{
    size_t merged = 0;

    qsort(changes, count, sizeof(*changes), change_compare);
    for (size_t i = 0; i < count; i++) {
        if (merged > 0 && change_compare(&changes[merged - 1], &changes[i]) == 0)
            changes[merged - 1].quantity += changes[i].quantity;
        else
            changes[merged++] = changes[i];
    }
    return merged;
}

/* NULL when the line is fine. */
static const char *line_read(struct order_change *out, const json_t *line)
{
    const json_t *product_id = json_object_get(line, "product_id");
    const json_t *quantity = json_object_get(line, "quantity");

    if (!json_is_object(line))
        return "an order line is no object";
    if (!json_is_string(product_id))
        return "an order line's product_id is no string";
    if (!json_is_integer(quantity))
        return "an order line's quantity is no integer";
    if (json_integer_value(quantity) < 1 || json_integer_value(quantity) > ORDER_QUANTITY_MAX)
        return "an order line's quantity is not within 1 to 2147483647";
    out->product_id = rpc_json_text(product_id);
    out->quantity = json_integer_value(quantity);
    return NULL;
}

static const char *order_fault(const json_t *data)
{
    const json_t *order = json_object_get(data, "order");
    const json_t *id = json_object_get(order, "id");

    if (!json_is_object(order))
        return "the event holds no order";
    if (!json_is_integer(id) || json_integer_value(id) < 1)
        return "the order's id is no positive integer";
    if (!json_is_array(json_object_get(order, "order_details")))
        return "the order's order_details is no array";
    return NULL;
}

bool order_event_read(struct order_event *out, json_t *data, const char **fault)
{
    const json_t *order = json_object_get(data, "order");
    const json_t *lines = json_object_get(order, "order_details");
    struct order_change *changes = NULL;
    size_t count = json_array_size(lines);

    *fault = order_fault(data);
    if (*fault != NULL)
        return false;
    changes = calloc(count > 0 ? count : 1, sizeof(*changes));
    if (changes == NULL)
        return false;
    for (size_t i = 0; i < count && *fault == NULL; i++)
        *fault = line_read(&changes[i], json_array_get(lines, i));
    if (*fault != NULL) {
        free(changes);
        return false;
    }
    *out = (struct order_event){
        .order_id = json_integer_value(json_object_get(order, "id")),
        .count = changes_merge(changes, count),
        .changes = changes,
        .data = json_incref(data),
    };
    return true;
}

void order_event_clear(struct order_event *event)
{
    free(event->changes);
    json_decref(event->data);
    *event = (struct order_event){.order_id = 0};
}

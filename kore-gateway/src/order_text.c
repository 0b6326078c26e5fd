#include "order_text.h"

#include <stdlib.h>

#include "walk.h"

/* "id": an integer, "order_details": an array of objects; how many. */
static bool order_shape(struct rpc_bytes text, struct rpc_bytes *details, size_t *lines_count)
{
    struct walk walk;
    struct rpc_bytes line;
    int64_t id;

    *details = walk_member(text, "order_details");
    if (!walk_integer(walk_member(text, "id"), &id) || details->data == NULL || !walk_array(&walk, *details))
        return false;
    for (*lines_count = 0; walk_next(&walk, NULL, &line); (*lines_count)++) {
        if (line.data[0] != '{')
            return false;
    }
    return true;
}

static bool line_read(struct order_text *order, struct rpc_bytes line)
{
    struct rpc_bytes id = walk_member(line, "product_id");

    if (id.data == NULL || !walk_is_string(id))
        return false;
    order->lines[order->lines_count++] = (struct order_text_line){
        .end = (size_t)(line.data + line.size - 1 - order->text.data),
        .product = distinct_add(&order->products, id),
    };
    return true;
}

enum order_text_status order_text_open(struct order_text *out, struct rpc_bytes text)
{
    enum order_text_status status = ORDER_TEXT_NO_MEMORY;
    struct order_text order = {.text = text};
    struct rpc_bytes details, line;
    size_t lines_count;
    struct walk walk;

    if (!order_shape(text, &details, &lines_count))
        return ORDER_TEXT_NONSENSE;
    order.lines = calloc(lines_count + 1, sizeof(*order.lines));
    if (order.lines == NULL || !distinct_init(&order.products, lines_count))
        goto done;
    status = ORDER_TEXT_NONSENSE;
    (void)walk_array(&walk, details);
    while (walk_next(&walk, NULL, &line)) {
        if (!line_read(&order, line))
            goto done;
    }
    *out = order;
    order = (struct order_text){0};
    status = ORDER_TEXT_OK;
done:
    order_text_clear(&order);
    return status;
}

void order_text_print(struct text *out, const struct order_text *order, const struct rpc_bytes products[],
                      struct rpc_bytes image_root)
{
    size_t from = 0;

    for (size_t i = 0; i < order->lines_count; i++) {
        const struct order_text_line *line = &order->lines[i];
        struct rpc_bytes id = order->products.items[line->product];

        text_append(out, (struct rpc_bytes){order->text.data + from, line->end - from});
        text_append(out, RPC_BYTES(", \"product\": "));
        text_append(out, products[line->product]);
        text_append(out, RPC_BYTES(", \"image\": \""));
        text_append(out, image_root);
        text_append(out, RPC_BYTES("/"));
        text_append(out, (struct rpc_bytes){id.data + 1, id.size - 2}); /* it is JSON already */
        text_append(out, RPC_BYTES(".jpg\""));
        from = line->end;
    }
    text_append(out, (struct rpc_bytes){order->text.data + from, order->text.size - from});
}

void order_text_clear(struct order_text *order)
{
    free(order->lines);
    distinct_clear(&order->products);
    *order = (struct order_text){0};
}

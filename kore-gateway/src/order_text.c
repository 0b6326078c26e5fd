#include "order_text.h"

#include <stdlib.h>

#include "walk.h"

/* What a line is at least: there are never more of them in the text than it has room for. */
#define LINE_SIZE_MIN (sizeof("{\"product_id\":\"\"}") - 1)

/* What is put into a line, around the product, the images' root and the product's id. */
#define BEFORE_PRODUCT ", \"product\": "
#define BEFORE_IMAGE   ", \"image\": \""
#define BEFORE_ID      "/"
#define BEHIND_ID      ".jpg\""

/* "id": an integer, "order_details": an array; of several members of a name the last one counts. */
static bool order_shape(struct rpc_bytes text, int64_t *order_id, struct rpc_bytes *details)
{
    struct rpc_bytes key = {NULL, 0}, value, id = {NULL, 0};
    struct walk walk;

    *details = id;
    if (!walk_object(&walk, text))
        return false;
    while (walk_next(&walk, &key, &value)) {
        if (rpc_bytes_equal(key, "id"))
            id = value;
        else if (rpc_bytes_equal(key, "order_details"))
            *details = value;
    }
    return walk_integer(id, order_id) && walk_array(&walk, *details);
}

static bool line_read(struct order_text *order, struct rpc_bytes line)
{
    struct rpc_bytes id = walk_member(line, "product_id");

    if (line.data[0] != '{' || id.data == NULL || !walk_is_string(id))
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
    size_t lines_max;
    struct walk walk;

    if (!order_shape(text, &order.id, &details))
        return ORDER_TEXT_NONSENSE;
    lines_max = details.size / LINE_SIZE_MIN;
    order.lines = malloc((lines_max + 1) * sizeof(*order.lines));
    if (order.lines == NULL || !distinct_init(&order.products, lines_max))
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

void order_text_print(struct rpc_text *out, const struct order_text *order, const struct rpc_bytes products[],
                      struct rpc_bytes image_root)
{
    size_t from = 0;

    for (size_t i = 0; i < order->lines_count; i++) {
        const struct order_text_line *line = &order->lines[i];
        struct rpc_bytes id = order->products.items[line->product];

        rpc_text_append(out, (struct rpc_bytes){order->text.data + from, line->end - from});
        rpc_text_append(out, RPC_BYTES(BEFORE_PRODUCT));
        rpc_text_append(out, products[line->product]);
        rpc_text_append(out, RPC_BYTES(BEFORE_IMAGE));
        rpc_text_append(out, image_root);
        rpc_text_append(out, RPC_BYTES(BEFORE_ID));
        rpc_text_append(out, (struct rpc_bytes){id.data + 1, id.size - 2}); /* it is JSON already */
        rpc_text_append(out, RPC_BYTES(BEHIND_ID));
        from = line->end;
    }
    rpc_text_append(out, (struct rpc_bytes){order->text.data + from, order->text.size - from});
}

size_t order_text_size(const struct order_text *order, const struct rpc_bytes products[], struct rpc_bytes image_root)
{
    const size_t fixed = sizeof(BEFORE_PRODUCT BEFORE_IMAGE BEFORE_ID BEHIND_ID) - 1 + image_root.size;
    size_t size = order->text.size;

    for (size_t i = 0; i < order->lines_count; i++) {
        size_t product = order->lines[i].product;

        size +=
            fixed + products[product].size + order->products.items[product].size - 2; /* the id without its quotes */
    }
    return size;
}

void order_text_clear(struct order_text *order)
{
    free(order->lines);
    distinct_clear(&order->products);
    *order = (struct order_text){0};
}

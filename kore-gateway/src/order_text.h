/*
 * order_text: an order as a service printed it, checked before it is handed on, with the products put into it.  Pure.
 *
 * Neither the order nor the products are built: the order's text is walked through once, cut open at the end of each line, and
 * the product's text goes in as it came.  What stands in another form than our own service's is brought into that first; what a
 * service says of an order besides its id and its lines, and of a line besides its four fields, stays inside.
 */
#ifndef KORE_GATEWAY_ORDER_TEXT_H
#define KORE_GATEWAY_ORDER_TEXT_H

#include "distinct.h"
#include <rpclib/text.h>

struct order_text_line {
    size_t end;     /* where in the text its closing brace is */
    size_t product; /* which of the different products it is about */
};

struct order_text { /* owns its lines, lends from the order's text */
    struct rpc_bytes text;
    struct rpc_text rewritten; /* owned: where `text` lies when it came in another form */
    int64_t id;
    size_t lines_count;
    struct order_text_line *lines;
    struct distinct products; /* their ids as they stand in the text: JSON strings, quotes included */
};

/*
 * Whether the text, which must be sound JSON, is an order: it has each field once and of its type; an integer has up to 18 digits,
 * a price is decimal text.
 */
bool order_text_check(struct rpc_bytes text, int64_t *id);

/* The same for what begins at `*at`, which then is what stands behind it; false also when it stands in another form than ours. */
bool order_text_skip(const char **at, const char *end, int64_t *id);

/* Append the order in our form.  False when it is none; then a part of it may be there. */
bool order_text_rewrite(struct rpc_text *out, struct rpc_bytes text);

enum order_text_status {
    ORDER_TEXT_OK,
    ORDER_TEXT_NONSENSE, /* no order */
    ORDER_TEXT_NO_MEMORY,
};

/* Take the text of an order apart; it must be sound JSON, and stay where it is.  *out is set on success alone. */
enum order_text_status order_text_open(struct order_text *out, struct rpc_bytes text);

/*
 * Append the order with `product` and `image` in each line.  `products[i]` is the JSON of the product with the id
 * `products.items[i]`; `image_root` stands as in a JSON string.
 */
void order_text_print(struct rpc_text *out, const struct order_text *order, const struct rpc_bytes products[],
                      struct rpc_bytes image_root);

/* How many bytes that appends; a product is told of once a line, so few texts may make much. */
size_t order_text_size(const struct order_text *order, const struct rpc_bytes products[], struct rpc_bytes image_root);

void order_text_clear(struct order_text *order);

#endif

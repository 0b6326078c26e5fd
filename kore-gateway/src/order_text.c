#include "order_text.h"

#include <stdlib.h>

#include "order.h"
#include "printed.h"

/* What a line is at least: there are never more of them in the text than it has room for. */
#define LINE_SHORTEST                                                                               \
    ORDER_LABEL_ID "0" ORDER_LABEL_PRODUCT_ID "\"\"" ORDER_LABEL_PRICE "\"0\"" ORDER_LABEL_QUANTITY \
                   "0" ORDER_LABEL_LINE_END
#define LINE_SIZE_MIN (sizeof(LINE_SHORTEST) - 1)

/* What is put into a line, around the product, the images' root and the product's id. */
#define BEFORE_PRODUCT ", \"product\": "
#define BEFORE_IMAGE   ", \"image\": \""
#define BEFORE_ID      "/"
#define BEHIND_ID      ".jpg\""

enum order_field { ORDER_ID, ORDER_DETAILS, ORDER_FIELDS };
enum line_field { LINE_ID, LINE_PRODUCT_ID, LINE_PRICE, LINE_QUANTITY, LINE_FIELDS };

/* ---- As our own service prints it, which is how nearly all come -------------------------------------------------- */

/* Decimal text in its quotes.  A price that a Python service once took may be negative. */
static bool take_price(const char **at, const char *end, struct rpc_bytes *price)
{
    const char *stop = *at, *digits;

    if (!printed_label(&stop, end, RPC_BYTES("\"")))
        return false;
    (void)printed_label(&stop, end, RPC_BYTES("-"));
    digits = stop;
    stop = printed_skip_digits(digits, end);
    if (stop > digits && printed_label(&stop, end, RPC_BYTES("."))) {
        digits = stop;
        stop = printed_skip_digits(digits, end);
    }
    if (stop == digits || !printed_label(&stop, end, RPC_BYTES("\"")))
        return false;
    *price = (struct rpc_bytes){*at, (size_t)(stop - *at)};
    *at = stop;
    return true;
}

static bool take_line(const char **at, const char *end, struct rpc_bytes fields[LINE_FIELDS])
{
    return printed_label(at, end, RPC_BYTES(ORDER_LABEL_ID)) && printed_integer(at, end, &fields[LINE_ID]) &&
           printed_label(at, end, RPC_BYTES(ORDER_LABEL_PRODUCT_ID)) &&
           printed_string(at, end, &fields[LINE_PRODUCT_ID]) && printed_label(at, end, RPC_BYTES(ORDER_LABEL_PRICE)) &&
           take_price(at, end, &fields[LINE_PRICE]) && printed_label(at, end, RPC_BYTES(ORDER_LABEL_QUANTITY)) &&
           printed_integer(at, end, &fields[LINE_QUANTITY]) && printed_label(at, end, RPC_BYTES(ORDER_LABEL_LINE_END));
}

/* The line that ends before `end`. */
static void add_line(struct order_text *order, const char *end, struct rpc_bytes product_id)
{
    order->lines[order->lines_count++] = (struct order_text_line){
        .end = (size_t)(end - order->text.data) - (sizeof(ORDER_LABEL_LINE_END) - 1),
        .product = distinct_add(&order->products, product_id),
    };
}

/* The order at `*at`.  Its lines go to `order`, which has room for them; NULL: nobody needs them. */
static bool take_order(const char **at, const char *end, int64_t *id, struct order_text *order)
{
    struct rpc_bytes digits, fields[LINE_FIELDS];

    if (!printed_label(at, end, RPC_BYTES(ORDER_LABEL_ID)) || !printed_integer(at, end, &digits) ||
        !walk_integer(digits, id) || !printed_label(at, end, RPC_BYTES(ORDER_LABEL_DETAILS)))
        return false;
    if (printed_label(at, end, RPC_BYTES(ORDER_LABEL_END)))
        return true;
    do {
        if (!take_line(at, end, fields))
            return false;
        if (order != NULL)
            add_line(order, *at, fields[LINE_PRODUCT_ID]);
    } while (printed_label(at, end, RPC_BYTES(ORDER_LABEL_NEXT)));
    return printed_label(at, end, RPC_BYTES(ORDER_LABEL_END));
}

/* All of the text. */
static bool take_whole(struct rpc_bytes text, int64_t *id, struct order_text *order)
{
    const char *at = text.data;

    return text.size > 0 && take_order(&at, text.data + text.size, id, order) && at == text.data + text.size;
}

bool order_text_skip(const char **at, const char *end, int64_t *id)
{
    return take_order(at, end, id, NULL);
}

/* ---- In any form ------------------------------------------------------------------------------------------------- */

typedef bool take_fn(const char **at, const char *end, struct rpc_bytes *value);

/* Whether all of the value is what `take` takes. */
static bool is_whole(struct rpc_bytes value, take_fn *take)
{
    const char *at = value.data;
    struct rpc_bytes taken;

    return value.size > 0 && take(&at, value.data + value.size, &taken) && taken.size == value.size;
}

static void append(struct rpc_text *out, struct rpc_bytes bytes)
{
    if (out != NULL)
        rpc_text_append(out, bytes);
}

static bool rewrite_line(struct rpc_text *out, struct rpc_bytes line)
{
    static const char *const names[LINE_FIELDS] = {"id", "product_id", "price", "quantity"};
    struct rpc_bytes fields[LINE_FIELDS];

    if (!walk_members(line, LINE_FIELDS, names, fields, NULL) || !is_whole(fields[LINE_ID], printed_integer) ||
        !walk_is_string(fields[LINE_PRODUCT_ID]) || !is_whole(fields[LINE_PRICE], take_price) ||
        !is_whole(fields[LINE_QUANTITY], printed_integer))
        return false;
    append(out, RPC_BYTES(ORDER_LABEL_ID));
    append(out, fields[LINE_ID]);
    append(out, RPC_BYTES(ORDER_LABEL_PRODUCT_ID));
    append(out, fields[LINE_PRODUCT_ID]);
    append(out, RPC_BYTES(ORDER_LABEL_PRICE));
    append(out, fields[LINE_PRICE]);
    append(out, RPC_BYTES(ORDER_LABEL_QUANTITY));
    append(out, fields[LINE_QUANTITY]);
    append(out, RPC_BYTES(ORDER_LABEL_LINE_END));
    return true;
}

/* `out` may be NULL: then the order is looked at, and nothing else. */
static bool rewrite_order(struct rpc_text *out, struct rpc_bytes text, int64_t *id)
{
    static const char *const names[ORDER_FIELDS] = {"id", "order_details"};
    struct rpc_bytes fields[ORDER_FIELDS], line;
    struct walk walk;

    if (!walk_members(text, ORDER_FIELDS, names, fields, NULL) || !is_whole(fields[ORDER_ID], printed_integer) ||
        !walk_integer(fields[ORDER_ID], id) || !walk_array(&walk, fields[ORDER_DETAILS]))
        return false;
    append(out, RPC_BYTES(ORDER_LABEL_ID));
    append(out, fields[ORDER_ID]);
    append(out, RPC_BYTES(ORDER_LABEL_DETAILS));
    for (bool first = true; walk_next(&walk, NULL, &line); first = false) {
        append(out, first ? RPC_BYTES("") : RPC_BYTES(ORDER_LABEL_NEXT));
        if (!rewrite_line(out, line))
            return false;
    }
    append(out, RPC_BYTES(ORDER_LABEL_END));
    return true;
}

bool order_text_rewrite(struct rpc_text *out, struct rpc_bytes text)
{
    int64_t id;

    return rewrite_order(out, text, &id);
}

bool order_text_check(struct rpc_bytes text, int64_t *id)
{
    return take_whole(text, id, NULL) || rewrite_order(NULL, text, id);
}

/* ---- Taken apart, and printed ------------------------------------------------------------------------------------ */

static enum order_text_status open_printed(struct order_text *order, struct rpc_bytes text)
{
    size_t lines_max = text.size / LINE_SIZE_MIN;

    order->text = text;
    order->lines = malloc((lines_max + 1) * sizeof(*order->lines));
    if (order->lines == NULL || !distinct_init(&order->products, lines_max))
        return ORDER_TEXT_NO_MEMORY;
    return take_whole(text, &order->id, order) ? ORDER_TEXT_OK : ORDER_TEXT_NONSENSE;
}

static enum order_text_status open_rewritten(struct order_text *order, struct rpc_bytes text)
{
    if (!order_text_rewrite(&order->rewritten, text))
        return ORDER_TEXT_NONSENSE;
    return order->rewritten.failed ? ORDER_TEXT_NO_MEMORY : open_printed(order, rpc_text_bytes(&order->rewritten));
}

enum order_text_status order_text_open(struct order_text *out, struct rpc_bytes text)
{
    struct order_text order = {.lines = NULL};
    enum order_text_status status = open_printed(&order, text);

    if (status == ORDER_TEXT_NONSENSE) {
        order_text_clear(&order);
        status = open_rewritten(&order, text);
    }
    if (status == ORDER_TEXT_OK)
        *out = order;
    else
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
    rpc_text_clear(&order->rewritten);
    distinct_clear(&order->products);
    *order = (struct order_text){0};
}

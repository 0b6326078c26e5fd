#include "store_lines.h"

#define LINE_SIZE_OVERHEAD 64

void store_lines_bind(struct parameters *parameters, struct work_unit *const units[], size_t count,
                      enum parameters_element type, struct order_store *store, store_line_fn *element)
{
    size_t lines_count = 0, index, line;

    for (index = 0; index < count; index++)
        lines_count += store_unit_of(units[index])->order->lines_count;
    parameters_add_array(parameters, type, lines_count);
    for (index = 0; index < count; index++) {
        const struct order *order = store_unit_of(units[index])->order;

        for (line = 0; line < order->lines_count; line++)
            element(parameters, index + 1, &order->lines[line], store);
    }
}

void store_line_n(struct parameters *parameters, size_t n, const struct order_line *line, struct order_store *store)
{
    (void)line;
    (void)store;
    parameters_element_int4(parameters, (int32_t)n);
}

void store_line_id(struct parameters *parameters, size_t n, const struct order_line *line, struct order_store *store)
{
    (void)n;
    (void)store;
    parameters_element_int4(parameters, line->id);
}

void store_line_product_id(struct parameters *parameters, size_t n, const struct order_line *line,
                           struct order_store *store)
{
    (void)n;
    (void)store;
    parameters_element_text(parameters, line->product_id);
}

void store_line_price(struct parameters *parameters, size_t n, const struct order_line *line, struct order_store *store)
{
    (void)n;
    (void)store;
    parameters_element_text(parameters, line->price);
}

void store_line_quantity(struct parameters *parameters, size_t n, const struct order_line *line,
                         struct order_store *store)
{
    (void)n;
    (void)store;
    parameters_element_int4(parameters, line->quantity);
}

void store_line_rest(struct parameters *parameters, size_t n, const struct order_line *line, struct order_store *store)
{
    (void)n;
    rpc_text_reset(&store->text, PARAMETERS_KEEP_SIZE);
    order_print_line_rest(&store->text, line);
    if (store->text.failed)
        parameters->bytes.failed = true;
    parameters_element_text(parameters, rpc_text_bytes(&store->text));
}

size_t store_lines_size(const struct order *order)
{
    size_t size = 0, index;

    for (index = 0; index < order->lines_count; index++)
        size += order->lines[index].product_id.size + LINE_SIZE_OVERHEAD;
    return size;
}

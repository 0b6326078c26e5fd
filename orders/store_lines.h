/* store_lines: the lines of orders as a statement's parameters, an array for each of their values. */
#ifndef ORDERS_STORE_LINES_H
#define ORDERS_STORE_LINES_H

#include "store_internal.h"

/* Adds an array's element: one value of a line of the n-th order, from 1. */
typedef void store_line_fn(struct parameters *parameters, size_t n, const struct order_line *line,
                           struct order_store *store);

void store_line_n(struct parameters *parameters, size_t n, const struct order_line *line, struct order_store *store);
void store_line_id(struct parameters *parameters, size_t n, const struct order_line *line, struct order_store *store);
void store_line_product_id(struct parameters *parameters, size_t n, const struct order_line *line,
                           struct order_store *store);
void store_line_price(struct parameters *parameters, size_t n, const struct order_line *line,
                      struct order_store *store);
void store_line_quantity(struct parameters *parameters, size_t n, const struct order_line *line,
                         struct order_store *store);
/* The line as JSON behind its id, which only the database knows yet. */
void store_line_rest(struct parameters *parameters, size_t n, const struct order_line *line, struct order_store *store);

/* One parameter: an array of what `element` adds for each line of each order. */
void store_lines_bind(struct parameters *parameters, struct work_unit *const units[], size_t count,
                      enum parameters_element type, struct order_store *store, store_line_fn *element);

/* Bytes of an order's lines, about. */
size_t store_lines_size(const struct order *order);

#endif

/* store_read: orders read, by their ids and page by page; and rows of any statement read as orders. */
#ifndef ORDERS_STORE_READ_H
#define ORDERS_STORE_READ_H

#include "store_internal.h"

extern const struct work_operation store_get, store_list;

/* Memory for what `rows` rows hold at most.  False when out of it. */
bool store_read_reserve(struct order_store *store, size_t rows);

/*
 * The unit's orders, `orders_max` of them at most, from sorted rows (order id, line id, product id, price, quantity): those
 * from `row` on.  They lend.  False: they are no orders.
 */
bool store_read_orders(struct order_store_unit *unit, const PGresult *rows, int row, size_t orders_max);

#endif

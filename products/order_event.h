/*
 * order_event: what an `order_created` event of the orders service says about stock.  Pure.
 *
 * Its data is {"order": {"id": 7, "order_details": [{"product_id": "the_odyssey", "quantity": 2, ...}, ...]}}.
 */
#ifndef PRODUCTS_ORDER_EVENT_H
#define PRODUCTS_ORDER_EVENT_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "rpclib/bytes.h"

#define ORDER_QUANTITY_MAX 2147483647 /* of one line */

struct order_change {
    struct rpc_bytes product_id; /* lent by the event */
    int64_t quantity;            /* of all its lines together; at least 1 */
};

struct order_event {
    int64_t order_id;
    size_t count;
    struct order_change *changes; /* owned; each product once */
    json_t *data;                 /* owned; the texts are in it */
};

/*
 * Read an event's data.  On success *out is the caller's to clear (and holds a reference to `data`).  Else *fault says
 * what makes it no such event; it is NULL when memory ran out, which says nothing about the event.
 */
bool order_event_read(struct order_event *out, json_t *data, const char **fault);

void order_event_clear(struct order_event *event);

#endif

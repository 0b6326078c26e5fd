/* orders: the routes of orders. */
#ifndef KORE_GATEWAY_ORDERS_H
#define KORE_GATEWAY_ORDERS_H

#include <stdbool.h>

#define ORDERS_LIST_MAX 10000 /* orders in one answer; the service's own LIST_MAX */
#define ORDERS_KEY_MAX  255   /* bytes of an Idempotency-Key */

struct flight;

/* Once a worker: where the images of products are; lent.  False when out of memory. */
bool orders_start(const char *image_root);

void orders_create(struct flight *flight); /* POST /orders */
void orders_get(struct flight *flight);    /* GET /orders/{id} */
void orders_list(struct flight *flight);   /* GET /orders */

#endif

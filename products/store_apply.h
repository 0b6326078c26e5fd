/* store_apply: what an order changes in Redis. */
#ifndef PRODUCTS_STORE_APPLY_H
#define PRODUCTS_STORE_APPLY_H

#include "order_event.h"
#include "store.h"

#define PRODUCT_APPLY_CHANGES_MAX 500 /* products that one run of the script changes: it holds up the server */

struct product_application;

/*
 * PRODUCT_STORE_OK: the whole order is applied.  Anything else: some of its products may be; apply it again, as often as
 * it takes.
 */
typedef void product_application_fn(struct product_application *application, enum product_store_status status);

struct product_application {
    struct redis_command command; /* first; the store's, as is all but the counts */
    struct product_store *store;
    product_application_fn *done;
    const struct order_event *event;
    size_t from, to; /* the changes under way */
    bool is_script_sent;

    size_t applied; /* products whose stock was lowered just now */
    size_t seen;    /* that this order had been applied to before */
    size_t missing; /* that are not there */
    size_t refused; /* whose stock is no integer, or would no longer fit 64 bits; not remembered: apply it again */
};

/*
 * Lower the stock of an order's products, once for each order and product however often it is called.
 *
 * A script does it in one piece, so that neither a crash nor another instance comes between: it looks whether the
 * order's hash `airship:applied:<order id>` names the product; if not, it notes it there and lowers the stock, if the
 * product is there.  What must hold:
 * - The note belongs to the order, not to the product, and a deleted product does not take it along: deleting and
 *   making a product again neither applies an old order a second time nor loses a new one.  An order that finds no
 *   product is noted too, so that its second delivery does not lower the stock of a product that was made since.
 * - The note is made before the stock is lowered and taken back if that fails, so that a failure halfway is never
 *   applied twice, and what a damaged product refused is applied when it was mended and the order comes again.
 * - It is bounded: one small hash an order, gone applied_ttl_s after the order's last delivery.  Redelivery ends
 *   long before: an event lies in the queue again only while a service that had begun it is away.
 * `event` must stay until `done` ran.
 */
enum product_store_status product_store_apply(struct product_store *store, struct product_application *application,
                                              const struct order_event *event, product_application_fn *done);

#endif

/* store_product: one product in Redis: read, made, deleted. */
#ifndef PRODUCTS_STORE_PRODUCT_H
#define PRODUCTS_STORE_PRODUCT_H

#include "store.h"

#define PRODUCT_REQUEST_TTL_S (24 * 3600) /* how long a request to create or delete is remembered, at most */

struct product_request;

/*
 * `fields` is for product_store_get() with PRODUCT_STORE_OK, lent until this returns: the product's fields as Redis has
 * them, unchecked, for product_print(); NULL otherwise.
 */
typedef void product_request_fn(struct product_request *request, enum product_store_status status,
                                const struct rpc_bytes fields[PRODUCT_FIELDS]);

struct product_request {
    struct redis_command command; /* first; the store's */
    struct product_store *store;
    product_request_fn *done;
};

enum product_store_status product_store_get(struct product_store *store, struct product_request *request,
                                            struct rpc_bytes id, product_request_fn *done);

/* Ends with PRODUCT_STORE_OK when it is there, else PRODUCT_STORE_NOT_FOUND. */
enum product_store_status product_store_exists(struct product_store *store, struct product_request *request,
                                               struct rpc_bytes id, product_request_fn *done);

/* Replaces a product of the same id, all five fields in one command. */
enum product_store_status product_store_create(struct product_store *store, struct product_request *request,
                                               const struct product *product, product_request_fn *done);

/*
 * What a request is known by.  A change of that name is carried out once: one that comes again changes nothing and ends
 * as the first did.  Between the two an order may have lowered the stock, or somebody may have replaced, deleted or made
 * the product; all of that was acknowledged.
 *
 * Looking, remembering and writing are one script.  The key holds a hash of request id and product, so that a caller who
 * uses an id again for another product is not taken for himself.  Only a change that was carried out is remembered: one
 * that Redis refused was answered as such, and may be tried when it comes again.
 */
struct product_request_name {
    struct rpc_bytes request_id; /* the request's correlation id; not empty */
    int64_t remember_s;          /* for how long it may come again: 1..PRODUCT_REQUEST_TTL_S */
};

enum product_store_status product_store_create_once(struct product_store *store, struct product_request *request,
                                                    const struct product *product,
                                                    const struct product_request_name *name, product_request_fn *done);

/* A product that is not there is deleted too. */
enum product_store_status product_store_delete(struct product_store *store, struct product_request *request,
                                               struct rpc_bytes id, product_request_fn *done);
enum product_store_status product_store_delete_once(struct product_store *store, struct product_request *request,
                                                    struct rpc_bytes id, const struct product_request_name *name,
                                                    product_request_fn *done);

#endif

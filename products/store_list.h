/* store_list: all products in Redis. */
#ifndef PRODUCTS_STORE_LIST_H
#define PRODUCTS_STORE_LIST_H

#include "store.h"

#define PRODUCT_LIST_MAX  100000 /* products of one list */
#define PRODUCT_LISTS_MAX 4      /* lists under way at once: each may hold much memory */

struct product_list_limits {
    size_t size_max;      /* bytes of the text */
    uint64_t deadline_ms; /* of the loop's clock: nobody wants it later */
};

/* What came of a list, whatever its status; lent. */
struct product_listing {
    struct rpc_bytes products;   /* a JSON array; {NULL, 0} unless PRODUCT_STORE_OK */
    size_t damaged;              /* what is no product and was left out */
    struct rpc_bytes largest_id; /* of the products that were read, the one whose JSON is the longest; */
    size_t largest_size;         /* its bytes; 0: none was read */
};

typedef void product_list_fn(enum product_store_status status, const struct product_listing *listing, void *arg);

/*
 * By SCAN, a little at a time, so that it stalls nobody: products that are made or deleted meanwhile may be in it or not;
 * all others are, once each.
 */
enum product_store_status product_store_list(struct product_store *store, const struct product_list_limits *limits,
                                             product_list_fn *done, void *arg);

#endif

/*
 * product_store: the products in Redis.  Knows nothing of RPC.
 *
 * One hash a product, key `products:<id>`, fields id, title, passenger_capacity, maximum_speed, in_stock, all text: as the
 * Python original has them.  What is remembered of orders lies under `airship:applied:<order id>`, of requests under
 * `airship:created:<hash>` and `airship:deleted:<hash>`: see store_apply.h and store_product.h.
 *
 * Operations never block; each takes the memory of a request struct that its caller keeps until `done` ran.  A function
 * that returns PRODUCT_STORE_OK runs `done` exactly once, later, from the loop; any other result means that nothing was
 * done and `done` never runs.
 */
#ifndef PRODUCTS_STORE_H
#define PRODUCTS_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "product.h"
#include "redis_link.h"
#include "redis_uri.h"
#include "rpclib/bytes.h"
#include "rpclib/loop.h"

#define PRODUCT_APPLIED_TTL_S (7 * 24 * 3600) /* how long an order is remembered, by default */

struct product_store;

/* How an operation ended. */
enum product_store_status {
    PRODUCT_STORE_OK,
    PRODUCT_STORE_NOT_FOUND,   /* there is no such product */
    PRODUCT_STORE_DAMAGED,     /* what lies under its key is no product */
    PRODUCT_STORE_UNAVAILABLE, /* Redis is away, or refuses commands for now; nothing was done */
    PRODUCT_STORE_BUSY,        /* a bound of this process is reached; nothing was done */
    PRODUCT_STORE_UNKNOWN,     /* the answer never came: it may have been done (never of get, exists and list) */
    PRODUCT_STORE_FAILED,      /* Redis refuses the command as such, see product_store_reason(); nothing was done */
    PRODUCT_STORE_TOO_MANY,    /* more than PRODUCT_LIST_MAX products */
    PRODUCT_STORE_TOO_LARGE,   /* the list is longer than its size_max */
    PRODUCT_STORE_LATE,        /* the list's deadline passed */
    PRODUCT_STORE_NO_MEMORY,   /* nothing was done */
};

/* A short name for logs.  Static. */
const char *product_store_status_name(enum product_store_status status);

struct product_store_options {
    struct rpc_loop *loop;
    const struct redis_uri *uri;          /* copied */
    int timeout_ms;                       /* for each command, 1 or more */
    int64_t applied_ttl_s;                /* how long an order is remembered; 0: PRODUCT_APPLIED_TTL_S */
    void (*on_state)(bool up, void *arg); /* may be NULL */
    void *arg;
};

/* NULL when out of memory.  Starts connecting; a server that is away is no error. */
struct product_store *product_store_new(const struct product_store_options *options);

/* Operations under way end from inside this call.  Not from inside a callback. */
void product_store_free(struct product_store *store); /* NULL is fine */

bool product_store_is_up(const struct product_store *store);
/* Since when (time of day) it is up or not. */
time_t product_store_since(const struct product_store *store);
/* Why it is not up, or else Redis' last refusal; for logs: it may be a library's words.  Lent. */
const char *product_store_reason(const struct product_store *store);

/* Commands that were sent and not answered yet. */
size_t product_store_in_flight(const struct product_store *store);

#endif

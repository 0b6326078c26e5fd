/* store_internal: what the parts of the store share.  Its contract is store.h's. */
#ifndef ORDERS_STORE_INTERNAL_H
#define ORDERS_STORE_INTERNAL_H

#include <openssl/evp.h>

#include "store.h"

enum store_operation {
    STORE_CREATE_BY_REQUEST,
    STORE_CREATE_BY_KEY,
    STORE_RECALL,
    STORE_GET,
    STORE_UPDATE,
    STORE_DELETE,
    STORE_RECALL_DELETION,
    STORE_LIST,
    STORE_CLAIM_EVENTS,
    STORE_RELEASE_EVENTS,
    STORE_DELETE_EVENTS,
    STORE_FORGET_REQUESTS,
    STORE_FORGET_KEYS,
    STORE_OPERATIONS_COUNT,
};

struct order_store {
    struct order_store_options options;
    struct work_operation operations[STORE_OPERATIONS_COUNT + 1];
    struct work *work;
    struct rpc_text text; /* a line, or a body to hash */
    EVP_MD *sha256;       /* looked up once: a look-up costs more than a hash */
    EVP_MD_CTX *digest;   /* the hash being made */
    struct order *orders;
    struct order_line *lines;
    struct order_event events[ORDER_STORE_EVENTS_MAX];
    size_t orders_capacity, lines_capacity;
    bool claims_new_events;
};

static inline struct order_store_unit *store_unit_of(struct work_unit *work)
{
    return (struct order_store_unit *)work;
}

/* Begin an operation whose values the unit has. */
enum order_store_status store_start(struct order_store *store, struct order_store_unit *unit,
                                    enum store_operation operation, uint64_t deadline_ms, order_store_fn *done);

#endif

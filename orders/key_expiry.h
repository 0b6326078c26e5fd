/* key_expiry: deletes the keys of requests that have expired, a few at a time, so that their tables stay bounded. */
#ifndef ORDERS_KEY_EXPIRY_H
#define ORDERS_KEY_EXPIRY_H

#include "rpclib/loop.h"

#include "store.h"

#define KEY_EXPIRY_INTERVAL_MS 60000

struct key_expiry;

/* `store` is lent.  NULL when out of memory. */
struct key_expiry *key_expiry_new(struct rpc_loop *loop, struct order_store *store, int store_timeout_ms);
/* After the store, whose unit it may have under way. */
void key_expiry_free(struct key_expiry *expiry); /* NULL is fine */

#endif

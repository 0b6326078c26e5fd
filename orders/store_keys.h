/* store_keys: what requests are known by: how a key is made of one, and how keys that have expired go. */
#ifndef ORDERS_STORE_KEYS_H
#define ORDERS_STORE_KEYS_H

#include "store_internal.h"

extern const struct work_operation store_forget_requests, store_forget_keys;

/* SHA-256 of `a`, a NUL and `b`, in hexadecimal digits.  False when that fails. */
bool store_key_hash(const struct order_store *store, char out[ORDER_STORE_HASH_SIZE], struct rpc_bytes a,
                    struct rpc_bytes b);

/*
 * Name the request by a hash of its correlation id and of what it asks for.  The latter belongs to that name since a
 * correlation id is only as unique as its sender makes it; who uses one again for something else is another request.
 * False when out of memory.
 */
bool store_key_of_request(struct order_store_unit *unit, struct rpc_bytes request_id, const struct rpc_text *asked);

/* The name of a request to change or delete, and for how long that is known. */
void store_key_bind(struct parameters *parameters, const struct order_store_unit *unit);

#endif

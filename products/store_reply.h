/* store_reply: what Redis said, and what it means for whoever asked. */
#ifndef PRODUCTS_STORE_REPLY_H
#define PRODUCTS_STORE_REPLY_H

#include "store_internal.h"

/* What redis_link_send() said. */
enum product_store_status store_sent_status(enum redis_result result);

/* PRODUCT_STORE_OK: there is a reply, and it is of the type asked for. */
enum product_store_status store_reply_status(struct product_store *store, enum redis_result result,
                                             const redisReply *reply, int type);
/* The same for a command that only reads: whatever became of it, nothing was done. */
enum product_store_status store_reply_read_status(struct product_store *store, enum redis_result result,
                                                  const redisReply *reply, int type);

/* The answer of HMGET; a field that is not there has no data pointer. */
enum product_store_status store_reply_fields(struct rpc_bytes fields[PRODUCT_FIELDS], const redisReply *reply);

#endif

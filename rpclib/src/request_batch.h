/*
 * request_batch: requests that came in one message.  Each is handled as if it had come alone; the message is settled when
 * the last of them is: acknowledged, or handed back whole, if one of them could not be answered.
 */
#ifndef RPCLIB_SRC_REQUEST_BATCH_H
#define RPCLIB_SRC_REQUEST_BATCH_H

#include "service.h"

struct request_batch {
    struct taken taken; /* first: the consumer frees it */
    unsigned open;      /* requests that are not settled, and one more while they begin */
    bool requeue;       /* one of them could not be answered: all come again */
};

/* Begin all requests of a sound batch.  A handler may free the service. */
void request_batch_begin(struct rpc_service *service, const struct mq_delivery *delivery, struct batch_reader reader);

/* One of its requests cannot be read: it is counted, and the log is told. */
void request_batch_drop(struct rpc_service *service, const struct mq_delivery *delivery, const char *reason);

static inline void request_batch_hold(struct request_batch *batch)
{
    batch->open++;
}

/* One request less to settle; it may be gone after this. */
void request_batch_release(struct request_batch *batch, bool answered);

#endif

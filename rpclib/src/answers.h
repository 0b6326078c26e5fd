/*
 * answers: how answers leave.  Those that may travel together wait for the end of the turn, where all that go to one
 * sender leave in one message; the others leave at once.
 */
#ifndef RPCLIB_SRC_ANSWERS_H
#define RPCLIB_SRC_ANSWERS_H

#include "batch.h"
#include "rpclib/service.h"

struct incoming_list {
    struct rpc_incoming *first, *last;
};

/* A service's answers that travel together; all zero to begin with. */
struct answers {
    struct batch batch;
    struct incoming_list waiting; /* for one sender, in the order of the batch's entries */
    struct incoming_list gone;    /* sent or given up; let go at the end of the turn, since that may run callbacks */
};

/*
 * Have the service's body answer the request at the end of the turn; the request is let go then.  False: it is to go
 * alone, as one to a sender that takes no batches does, though its request came in one.
 */
bool answers_gather(struct rpc_incoming *request, struct mq_channel *channel);

/* Send one answer alone.  The request stays the caller's.  Returns what mq_publish() does. */
enum rpc_status answers_send_one(const struct rpc_incoming *request, struct mq_channel *channel, struct rpc_bytes body);

/* For the consumer's on_flush: the turn ends, all that wait leave.  Without a channel they are dropped. */
void answers_on_flush(void *service);

/* The service goes, or its channel is gone: answers that wait are dropped, their requests let go. */
void answers_drop(struct rpc_service *service);

#endif

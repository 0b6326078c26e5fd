/* incoming: one request, from its delivery to its answer. */
#ifndef RPCLIB_SRC_INCOMING_H
#define RPCLIB_SRC_INCOMING_H

#include "envelope.h"
#include "service.h"

struct request_batch;

struct rpc_incoming {
    struct taken taken;          /* first: the consumer frees it; unused in a batch */
    struct request_batch *batch; /* NULL: it came alone */
    struct rpc_incoming *next;   /* among the answers that wait, or are gone */
    bool unsent;                 /* of the latter: it could not be sent */
    struct rpc_service *service;
    const struct rpc_method *method; /* NULL: none of that name */
    struct rpc_context *context;     /* made when it is asked for */
    struct rpc_bytes body;           /* lent while its handler runs */
    uint64_t deadline_ms;
    struct envelope envelope;
    char texts[];
};

/* The consumer of requests; its `arg` is the service. */
extern const struct consumer_events incoming_consumer_events;

/* Hand a request to its method's handler, which may free the service.  `batch` is what it came in; NULL: it came alone. */
void incoming_begin(struct rpc_service *service, const struct mq_delivery *delivery, struct request_batch *batch);

/*
 * Let the request go: it is acknowledged, or handed back when it was not answered.  That may run the service's on_ready,
 * whose owner may answer another request.
 */
void incoming_finish(struct rpc_incoming *request, bool answered);

/* The answer could not be sent: tell the log that the request is handed back. */
void incoming_log_unsent(const struct rpc_incoming *request, enum rpc_status status);

#endif

/*
 * rpc_client: calls methods of other services, many at a time, over one reply queue.
 *
 * Calls of one turn to the same service of rpclib share a message; Nameko's peers never see one (README.md, "Batches").
 *
 * It belongs to one connection and its loop.  It declares its reply queue when the connection comes up, again after each
 * reconnect.  A call that was under way when the link broke ends at once with RPC_LOST, or with RPC_OFFLINE when
 * not a byte of it had left.  Answers that come too late, twice, or for nobody are dropped and counted.
 */
#ifndef RPCLIB_CLIENT_H
#define RPCLIB_CLIENT_H

#include <stdint.h>

#include "rpclib/bytes.h"
#include "rpclib/connection.h"
#include "rpclib/context.h"
#include "rpclib/error.h"
#include "rpclib/status.h"

struct rpc_client;

struct rpc_client_options {
    const char *name;        /* part of the reply queue's name: "gateway"; copied */
    uint32_t calls_max;      /* calls in flight, at most a million; past it RPC_BUSY; 0: 1000 */
    const char *exchange;    /* NULL: "nameko-rpc"; copied */
    bool one_call_a_message; /* false: calls of one turn to a service of rpclib share messages (README, "Batches") */
    rpc_loop_fn *on_ready;   /* the reply queue is there (again): calls will be taken; may be NULL */
    void *arg;
};

struct rpc_request {
    const char *service;               /* "products" */
    const char *method;                /* "exists" */
    struct rpc_bytes args;             /* a JSON array, {NULL, 0}: []; copied */
    struct rpc_bytes kwargs;           /* a JSON object, {NULL, 0}: {}; copied */
    int timeout_ms;                    /* 1 or more; there is no "for ever" */
    const struct rpc_context *context; /* passed on as headers; may be NULL */
};

/* What a service answered.  All of it is lent until the callback returns. */
struct rpc_reply {
    struct rpc_bytes result; /* with RPC_OK: one sound JSON value, as its bytes came */
    struct rpc_error error;  /* with RPC_REMOTE_ERROR: exc_args is a JSON array */
};

/*
 * The answer to one rpc_call().  Runs exactly once for each call that returned RPC_OK and was not cancelled, always from
 * the loop, never from inside rpc_call().  `reply` is NULL unless `status` is RPC_OK or RPC_REMOTE_ERROR.  RPC_BUSY,
 * RPC_BLOCKED, RPC_OFFLINE, RPC_TOO_LARGE and RPC_NO_MEMORY say that nothing was sent: a call that waited for others of its
 * turn may learn them here, where one that goes alone has them from rpc_call().
 */
typedef void rpc_reply_fn(enum rpc_status status, const struct rpc_reply *reply, void *arg);

/* Names one call in flight; 0 names none. */
typedef uint64_t rpc_call_id;

/* NULL when out of memory. */
struct rpc_client *rpc_client_new(struct rpc_connection *connection, const struct rpc_client_options *options);

/* Calls in flight end with RPC_CANCELLED, from inside this call.  Not from inside a rpc_reply_fn. */
void rpc_client_free(struct rpc_client *client); /* NULL is fine */

/* Whether a call made now would be sent: connected, not blocked, reply queue there. */
bool rpc_client_ready(const struct rpc_client *client);

/*
 * Send a request; `done` gets the answer and `arg`, which must live until then.  `id` (may be NULL) gets the call's name
 * for rpc_client_cancel().
 * Returns RPC_OK, or with nothing sent and `done` never run:
 *   RPC_BUSY       as many calls in flight, or bytes unsent, as their bounds allow; try again after an answer
 *   RPC_OFFLINE    not connected; the connection comes back by itself
 *   RPC_BLOCKED    the broker takes no messages for now
 *   RPC_TOO_LARGE  the message is larger than RPC_MESSAGE_SIZE_MAX, a name longer than RPC_NAME_SIZE_MAX
 *   RPC_TIMEOUT    timeout_ms is less than 1
 *   RPC_NO_MEMORY
 */
enum rpc_status rpc_call(struct rpc_client *client, const struct rpc_request *request, rpc_reply_fn *done, void *arg,
                         rpc_call_id *id);

/* Forget a call: its `done` never runs, a late answer is dropped.  An id that is done or 0 is ignored. */
void rpc_client_cancel(struct rpc_client *client, rpc_call_id id);

/* Calls in flight. */
uint32_t rpc_client_in_flight(const struct rpc_client *client);

struct rpc_client_stats {
    uint64_t calls;   /* sent */
    uint64_t replies; /* matched to a call */
    uint64_t timeouts;
    uint64_t late_replies; /* for nobody: after a deadline, a cancel, or never ours */
    uint64_t returned;     /* unknown service */
    uint64_t lost;         /* the link broke */
};
void rpc_client_stats(const struct rpc_client *client, struct rpc_client_stats *stats);

#endif

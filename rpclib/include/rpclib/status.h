/*
 * rpc_status: how a call, an event or an operation of the library ended.
 *
 * The question that matters to a caller is "may the other side have done it?": rpc_status_nothing_done() answers it.
 */
#ifndef RPCLIB_STATUS_H
#define RPCLIB_STATUS_H

#include <stdbool.h>

enum rpc_status {
    RPC_OK,              /* done; for a call: the service answered with a result */
    RPC_REMOTE_ERROR,    /* the service answered with an error object: see the reply */
    RPC_UNKNOWN_SERVICE, /* nobody is bound to the routing key (basic.return, 312 NO_ROUTE): nothing was done */
    RPC_BUSY,            /* a bound of this process is reached: nothing was done; try again after an answer */
    RPC_OFFLINE,         /* not connected, nothing was sent; the connection comes back by itself */
    RPC_BLOCKED,         /* the broker is out of memory or disk and takes no messages: nothing was sent */
    RPC_TIMEOUT,         /* the deadline passed: the other side may have done it, or may do it yet */
    RPC_LOST,            /* the link broke after it was sent, or no memory for its answer: it may have been done */
    RPC_REFUSED,         /* the broker said no to this message (basic.nack): not stored; publish it again */
    RPC_BAD_REPLY,       /* an answer came that is none (not Nameko's envelope): it may have been done */
    RPC_TOO_LARGE,       /* the message is larger than its bound: nothing was sent */
    RPC_NO_MEMORY,       /* nothing was done */
    RPC_CANCELLED,       /* the client, publisher or connection was freed or stopped with this under way */
};

/* A short name for logs: "ok", "unknown_service", "timeout" ...  Static; never NULL. */
const char *rpc_status_name(enum rpc_status status);

/* Whether the status promises that the other side did nothing and never will. */
bool rpc_status_nothing_done(enum rpc_status status);

#endif

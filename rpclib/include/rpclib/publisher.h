/*
 * rpc_publisher: publishes events of one service, each confirmed by the broker (Nameko's EventDispatcher).
 *
 * An event is persistent.  RPC_OK means that the broker has it in every queue that is bound to it; anything else means
 * "perhaps not": publish it again, receivers are idempotent.  Unconfirmed events are bounded by `unconfirmed_max`.
 *
 * It belongs to one connection and its loop.  It declares its exchange when the connection comes up, again after each
 * reconnect; events that were not confirmed when the link broke end with RPC_LOST, or with RPC_OFFLINE when not a byte of
 * them had left.
 */
#ifndef RPCLIB_PUBLISHER_H
#define RPCLIB_PUBLISHER_H

#include <stdint.h>

#include "rpclib/bytes.h"
#include "rpclib/connection.h"
#include "rpclib/context.h"
#include "rpclib/status.h"

struct rpc_publisher;

struct rpc_publisher_options {
    const char *source;       /* the publishing service: events go to the exchange `<source>.events`; copied */
    uint32_t unconfirmed_max; /* past it RPC_BUSY; 0: 1000 */
    bool mandatory;           /* an event that no queue is bound to ends with RPC_UNKNOWN_SERVICE instead of RPC_OK */
    int confirm_timeout_ms;   /* an event not confirmed by then ends with RPC_TIMEOUT; 0: 30000 */
    rpc_loop_fn *on_ready;    /* events will be taken (again); may be NULL */
    void *arg;
};

/* How one event ended: RPC_OK, RPC_REFUSED, RPC_UNKNOWN_SERVICE, RPC_TIMEOUT, RPC_LOST, RPC_OFFLINE, RPC_CANCELLED. */
typedef void rpc_confirm_fn(enum rpc_status status, void *arg);

/* NULL when out of memory, or when `source` is too long for the name of an exchange (AMQP's 255 bytes). */
struct rpc_publisher *rpc_publisher_new(struct rpc_connection *connection, const struct rpc_publisher_options *options);

/* Events not confirmed yet end with RPC_CANCELLED, from inside this call.  Not from inside a rpc_confirm_fn. */
void rpc_publisher_free(struct rpc_publisher *publisher); /* NULL is fine */

/* Whether an event published now would be sent: connected, not blocked, exchange there. */
bool rpc_publisher_ready(const struct rpc_publisher *publisher);

/*
 * Publish one event; `data` is its body as JSON; `context` may be NULL, `done` may not.  It runs exactly once if this returns
 * RPC_OK, from the loop.  Else nothing was sent:
 *   RPC_BUSY       as many events unconfirmed, or bytes unsent, as their bounds allow; try again after a confirm
 *   RPC_OFFLINE    not connected; try again when on_ready runs
 *   RPC_BLOCKED    the broker takes no messages for now; on_ready runs when it does
 *   RPC_TOO_LARGE  the message is larger than RPC_MESSAGE_SIZE_MAX, event_type longer than RPC_NAME_SIZE_MAX
 *   RPC_NO_MEMORY
 */
enum rpc_status rpc_publish(struct rpc_publisher *publisher, const char *event_type, struct rpc_bytes data,
                            const struct rpc_context *context, rpc_confirm_fn *done, void *arg);

/* Events not confirmed yet. */
uint32_t rpc_publisher_unconfirmed(const struct rpc_publisher *publisher);

#endif

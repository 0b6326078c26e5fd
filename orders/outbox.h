/*
 * outbox: brings the events of the orders to the broker, each at least once, and hardly ever twice.
 *
 * An event is written with its order and stays in the outbox until the broker has confirmed it.  Who makes the order
 * has the first claim to the event and publishes it at once.  A claim runs out: whatever its holder could not publish,
 * or did not live to publish, is taken over by whichever process looks next.
 */
#ifndef ORDERS_OUTBOX_H
#define ORDERS_OUTBOX_H

#include <stdint.h>

#include "rpclib/bytes.h"
#include "rpclib/connection.h"
#include "rpclib/context.h"
#include "rpclib/loop.h"
#include "rpclib/metrics.h"

#include "store.h"

#define OUTBOX_EVENTS_MAX         2000  /* published and not yet deleted; past it events wait in the table */
#define OUTBOX_CLAIM_MS           10000 /* how long an event is its holder's */
#define OUTBOX_CONFIRM_TIMEOUT_MS 8000  /* within the claim */
#define OUTBOX_POLL_MS            1000  /* looks for events that nobody has a claim to */
#define OUTBOX_HOLD_MAX_MS        5000  /* between attempts while no queue is bound to the events (rpc_backoff_ms()) */
#define OUTBOX_FLUSH_MS           20    /* gathers the ids that go in one statement */

struct outbox;

struct outbox_options {
    struct rpc_loop *loop;
    struct rpc_connection *connection;
    struct order_store *store; /* lent */
    int store_timeout_ms;
    rpc_loop_fn *on_ready; /* outbox_is_ready() became true; may be NULL */
    void *arg;
};

/* NULL when out of memory. */
struct outbox *outbox_new(const struct outbox_options *options);

/* Not from inside one of its callbacks; after the store, whose units it has under way. */
void outbox_free(struct outbox *outbox); /* NULL is fine */

/* Whether events are taken by the broker. */
bool outbox_is_ready(const struct outbox *outbox);

/* The database came up: look for events now. */
void outbox_look(struct outbox *outbox);

/*
 * Publish an event that was just written and is ours (order_store_unit.event_id).  If that cannot be done now, it is
 * done later.
 */
void outbox_offer(struct outbox *outbox, int64_t id, const char *type, struct rpc_bytes payload,
                  const struct rpc_context *context);

/*
 * Take up nothing new; run `done` once, when all that was published is confirmed and deleted, `timeout_ms` from now at
 * the latest.
 */
void outbox_stop(struct outbox *outbox, int timeout_ms, rpc_loop_fn *done, void *arg);

void outbox_metrics(const struct outbox *outbox, struct rpc_metrics *metrics);

#endif

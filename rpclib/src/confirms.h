/*
 * confirms: a session in confirm mode, and what was published on it until the broker has confirmed it.
 *
 * The broker numbers what is published on such a channel 1, 2, 3 ...; so do we, and since numbers are never left out, the
 * unconfirmed messages are a ring that begins at the lowest of them.  Confirms may come out of order and for many at once;
 * a basic.return comes before the confirm of its message.
 */
#ifndef RPCLIB_SRC_CONFIRMS_H
#define RPCLIB_SRC_CONFIRMS_H

#include "rpclib/publisher.h"
#include "session.h"

struct confirms_options {
    const char *what; /* for logs; lent */
    uint32_t unconfirmed_max;
    uint64_t timeout_ms;
    void (*declare)(struct mq_channel *channel, void *arg); /* exchanges and queues it publishes to */
    void (*on_up)(void *arg);                               /* may be NULL */
    /* For who fetches by mq_get() on the same channel, and acknowledges what it has published on; else NULL. */
    void (*on_delivery)(const struct mq_delivery *delivery, void *arg);
    void (*on_empty)(void *arg);
    void *arg;
};

struct unconfirmed;

struct confirms {
    struct session session;
    struct confirms_options options;
    struct rpc_loop *loop;
    struct rpc_loop_timer *timer;
    struct unconfirmed *ring;
    uint64_t first_tag; /* the lowest unconfirmed */
    uint64_t next_tag;  /* of the next publish */
    uint32_t unconfirmed;
};

/* False when out of memory; confirms_clear() it in any case.  `confirms` is the caller's memory, zero at first. */
bool confirms_init(struct confirms *confirms, struct rpc_connection *connection,
                   const struct confirms_options *options);
/* What is unconfirmed ends with RPC_CANCELLED, from inside this call. */
void confirms_clear(struct confirms *confirms);

/*
 * Publish one message: persistent, as JSON unless its content type is given.  Of `properties` the message id is set here
 * (it finds a returned message again).  As rpc_publish() says; a message that is `mandatory` and comes back ends with
 * RPC_UNKNOWN_SERVICE.
 */
enum rpc_status confirms_publish(struct confirms *confirms, const struct mq_publish *publish,
                                 amqp_basic_properties_t *properties, rpc_confirm_fn *done, void *arg);

#endif

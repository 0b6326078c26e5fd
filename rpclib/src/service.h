/* What the files of a service share: the service itself, with its consumers. */
#ifndef RPCLIB_SRC_SERVICE_H
#define RPCLIB_SRC_SERVICE_H

#include "answers.h"
#include "consumer.h"
#include "dead_letters.h"
#include "rpclib/service.h"
#include "rpclib/text.h"

/*
 * One event handler with its queue; or with the queue of its suspects, where each event is under way alone.
 *
 * An event that is delivered again was unacknowledged when its consumer went away: it may have killed that, or have been
 * beside one that did.  Among the suspects it is known which: one that comes again from there was alone.  That counts as
 * an attempt that failed; so an event that kills each consumer ends among the dead letters, and takes no other along.
 */
struct subscription {
    struct consumer consumer;
    struct rpc_service *service;
    const struct rpc_event_handler *handler;
    bool has_suspects;                 /* what is delivered again goes there */
    const struct subscription *origin; /* not NULL: this consumes the suspects of that one's queue */
};

struct rpc_service {
    struct rpc_loop *loop;
    char *name;
    char *exchange;
    struct rpc_service_options options;
    struct consumer requests;           /* unused when there are no methods */
    struct subscription *subscriptions; /* the handlers', in their order, and behind them the suspects' */
    size_t subscriptions_count;
    struct dead_letters dead_letters; /* unused unless they are kept */
    struct rpc_text body;             /* of the answer that is being made */
    struct answers answers;           /* that wait for the end of the turn */
    amqp_pool_t batch_pool;           /* for the properties of a batch's requests */
    struct rpc_service_stats stats;
    bool told_ready;
    bool unable;
    struct rpc_loop_timer *standby_timer; /* while unable: who else consumes? */

    struct rpc_loop_timer *stop_timer; /* the drain's deadline, or its end */
    rpc_loop_fn *stopped;
    void *stopped_arg;
};

/* A subscription to one handler's events, not started yet.  False when a name is too long. */
bool subscription_init(struct subscription *subscription, struct rpc_service *service,
                       const struct rpc_event_handler *handler);
/* The same to its suspects, which it must have. */
void subscription_init_suspects(struct subscription *suspects, const struct subscription *origin);
/* False when out of memory. */
bool subscription_start(struct subscription *subscription, struct rpc_connection *connection);

/* For every consumer's on_change: ready, drained? */
void service_on_change(void *service);
void service_on_standby(void *service);

/* Refuse a message that is none of ours: log, count, put it among the dead letters or reject it without requeue. */
void service_refuse(struct rpc_service *service, struct consumer *consumer, const struct mq_delivery *delivery,
                    const char *reason);

#endif

/* What the files of a service share: the service itself, with its consumers. */
#ifndef RPCLIB_SRC_SERVICE_H
#define RPCLIB_SRC_SERVICE_H

#include "answers.h"
#include "buffer.h"
#include "consumer.h"
#include "dead_letters.h"
#include "rpclib/service.h"

/* One event handler with its queue. */
struct subscription {
    struct consumer consumer;
    struct rpc_service *service;
    const struct rpc_event_handler *handler;
};

struct rpc_service {
    struct rpc_loop *loop;
    char *name;
    char *exchange;
    struct rpc_service_options options;
    struct consumer requests; /* unused when there are no methods */
    struct subscription *subscriptions;
    struct dead_letters dead_letters; /* unused unless they are kept */
    struct buffer body;               /* of the answer that is being made */
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

/* Set up a subscription to one handler's events.  False when out of memory. */
bool subscription_init(struct subscription *subscription, struct rpc_service *service,
                       struct rpc_connection *connection, const struct rpc_event_handler *handler);

/* For every consumer's on_change: ready, drained? */
void service_on_change(void *service);
void service_on_standby(void *service);

/* Refuse a message that is none of ours: log, count, put it among the dead letters or reject it without requeue. */
void service_refuse(struct rpc_service *service, struct consumer *consumer, const struct mq_delivery *delivery,
                    const char *reason);

#endif

/* What service.c and event.c share: the service with its consumers, and what a message brings along. */
#ifndef RPCLIB_SRC_INCOMING_H
#define RPCLIB_SRC_INCOMING_H

#include "batch.h"
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

struct incoming_list {
    struct rpc_incoming *first, *last;
};

/* Answers to requests of one batch's sender, which travel together. */
struct answers {
    struct batch batch;
    struct incoming_list waiting; /* in the order of the batch's entries */
    struct incoming_list gone;    /* sent or given up; let go at the end of the turn, since that may run callbacks */
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

/* The fields of a message that outlive its delivery, copied behind the struct that holds them. */
struct envelope {
    struct rpc_bytes reply_to;
    struct rpc_bytes raw_properties;
    const char *correlation_id; /* ended by NUL */
    const char *content_type;   /* likewise */
    bool redelivered;
    bool takes_batches; /* its sender does */
};

/* How many bytes envelope_copy() needs, and the copy into them. */
size_t envelope_size(const struct mq_message *message);
void envelope_copy(struct envelope *out, char *room, const struct mq_delivery *delivery);

/* Copy bytes to `*room` and step behind them. */
struct rpc_bytes envelope_keep(char **room, struct rpc_bytes bytes);

/* The service goes, or its channel is gone: answers that wait are dropped, their requests let go. */
void incoming_drop_answers(struct rpc_service *service);

/* The consumer of requests. */
extern const struct consumer_events incoming_consumer_events;

/* Set up a subscription to one handler's events.  False when out of memory. */
bool subscription_init(struct subscription *subscription, struct rpc_service *service,
                       struct rpc_connection *connection, const struct rpc_event_handler *handler);

/* For every consumer's on_change: ready, drained? */
void service_on_change(void *service);
void service_on_standby(void *service);

/* Refuse a message that is none of ours: log, count, put it among the dead letters or reject it without requeue. */
void service_refuse(struct rpc_service *service, struct consumer *consumer, const struct mq_delivery *delivery,
                    const char *reason);

/* Why the message cannot even be read: too large, or not JSON by its content type; NULL when it can. */
const char *message_unreadable(const struct mq_message *message);

#endif

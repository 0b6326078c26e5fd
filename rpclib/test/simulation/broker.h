/*
 * broker: a RabbitMQ of a few hundred lines, without sockets and clock: topic exchanges, queues (durable, exclusive,
 * auto-delete), prefetch, acknowledgements of many, requeue, mandatory, confirms in any order, expiration (of a
 * message, or of all in a queue, which may have them go on to another), alarms, heartbeats.  What a client must not do it tells as a violation, and what the real one would never do it does not.
 */
#ifndef RPCLIB_TEST_BROKER_H
#define RPCLIB_TEST_BROKER_H

#include "frames.h"
#include "random.h"

#define BROKER_LINKS_MAX 8
#define BROKER_FRAME_MAX 4096u
#define BROKER_NAME_SIZE 128

struct broker_message {
    struct broker_message *next;
    char exchange[BROKER_NAME_SIZE], routing_key[BROKER_NAME_SIZE];
    char correlation_id[BROKER_NAME_SIZE], reply_to[BROKER_NAME_SIZE]; /* "": none */
    struct rpc_bytes raw_properties, body;                             /* owned */
    uint64_t expires_ms;                                               /* UINT64_MAX: never */
    bool persistent;
    bool redelivered;
    bool poison; /* put into the queue by the test: no request, no event */
};

enum broker_fate { BROKER_ACKED, BROKER_REJECTED };

struct broker_watcher {
    /* A message was published; it went into so many queues; `accepted` is false for one that is refused by a nack. */
    void (*on_publish)(const struct broker_message *message, unsigned queues, bool accepted, void *arg);
    /* A delivery is done with; NULL: nobody wants to know. */
    void (*on_settled)(const struct broker_message *message, const char *queue, enum broker_fate fate, void *arg);
    void (*on_violation)(const char *what, void *arg);
    void (*on_story)(const char *line, void *arg);
    void *arg;
};

struct broker_rules {
    unsigned nack_percent; /* of the confirms */
    unsigned confirm_delay_max_ms;
    unsigned multiple_percent; /* of the confirms: as many at once as can be */
    uint16_t heartbeat_s;
};

struct broker;
struct broker_link;

struct broker *broker_new(struct random *random, const struct broker_watcher *watcher);
void broker_free(struct broker *broker);
struct broker_rules *broker_rules(struct broker *broker);

/* A client connected; NULL when there are too many. */
struct broker_link *broker_accept(struct broker *broker, const char *name);
/* Bytes that the client sent have arrived. */
void broker_receive(struct broker *broker, struct broker_link *link, struct rpc_bytes bytes, uint64_t now_ms);
/* What is to be sent to the client; the caller consumes it. */
struct frames *broker_output(struct broker_link *link);
/* Whether it reads from this client now: not while an alarm holds a publisher up. */
bool broker_reads(const struct broker_link *link);
/* It wants this link closed once its output is gone. */
bool broker_closes(const struct broker_link *link);
/* The link is gone: what was not acknowledged on it goes back into its queues. */
void broker_drop(struct broker *broker, struct broker_link *link);

/* Time passes: confirms, expirations, heartbeats, deliveries. */
void broker_tick(struct broker *broker, uint64_t now_ms);

/* All links are gone, and what is not durable; the links are freed. */
void broker_restart(struct broker *broker);
void broker_alarm(struct broker *broker, bool on);
/* The broker closes a channel with an error; false when it has none. */
bool broker_close_channel(struct broker *broker, struct broker_link *link);
void broker_close_link(struct broker *broker, struct broker_link *link);
/* Delete a queue under its consumers, with all that is in it; false when there is none of the name. */
bool broker_delete_queue(struct broker *broker, const char *name);
/* A durable queue, as another client might have declared it before, and its binding; no exchange: it has none. */
void broker_declare(struct broker *broker, const char *queue, const char *exchange, const char *key);
/* Put a message into a queue, as another client of the broker might. */
bool broker_inject(struct broker *broker, const char *queue, const char *routing_key,
                   const amqp_basic_properties_t *properties, struct rpc_bytes body, bool poison);
/* The name of the first queue that begins like this; NULL when there is none. */
const char *broker_queue_like(const struct broker *broker, const char *prefix);
/* 0 when there is no such queue. */
unsigned broker_consumers(const struct broker *broker, const char *queue);
/* The message that is delivered next, lent; NULL when there is none.  Then take it away, as a consumer would. */
const struct broker_message *broker_first(const struct broker *broker, const char *queue);
void broker_drop_first(struct broker *broker, const char *queue);
/* Messages in the queue and with its consumers. */
unsigned broker_depth(const struct broker *broker, const char *queue);

#endif

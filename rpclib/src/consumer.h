/*
 * consumer: consumes one queue and acknowledges what its owner is done with, many deliveries by one method.
 *
 * Acknowledgements wait for the end of the turn, behind the answers in the same write.  Deliveries that are done with
 * nothing unfinished before them go by one cumulative basic.ack; those behind a slow one go one by one, once enough of
 * them have gathered to hold up the prefetch window.
 *
 * While its owner cannot work it leaves the queue to others, if there are any: see rpc_service_set_able().
 */
#ifndef RPCLIB_SRC_CONSUMER_H
#define RPCLIB_SRC_CONSUMER_H

#include "session.h"

struct consumer;

/* One delivery with its owner; embed it first.  The memory is the consumer's from consumer_take() on: it calls free(). */
struct taken {
    struct consumer *consumer; /* NULL: the consumer is gone */
    struct taken *previous, *next;
    uint64_t tag;
    bool stale; /* of a channel that is gone: the broker delivers it again */
    bool done;
};

struct consumer_events {
    void (*declare)(struct mq_channel *channel, void *arg);            /* exchange, queue, bindings */
    void (*on_message)(const struct mq_delivery *delivery, void *arg); /* take it or consumer_refuse() it */
    void (*on_change)(void *arg);                                      /* up, down, or one less in flight */
    void (*on_standby)(void *arg);                                     /* the queue was left to others */
    void (*on_flush)(void *arg); /* the turn ends; what it finishes is acknowledged with the rest; may be NULL */
};

enum consumer_duty {
    CONSUMER_ON_DUTY, /* it consumes while the session is up */
    CONSUMER_LEAVING, /* it has cancelled, and looks whether others are still there */
    CONSUMER_STANDBY, /* it has cancelled: others consume the queue */
};

/* Deliveries in the order of their tags. */
struct taken_list {
    struct taken *first, *last;
};

struct consumer {
    struct session session;
    const struct consumer_events *events;
    void *arg;
    char queue[256]; /* set by the owner before the session comes up */
    uint16_t prefetch;
    struct taken_list current; /* unacknowledged on this channel: running and done */
    struct taken_list stale;   /* running, of channels that are gone */
    uint32_t running;
    uint32_t done; /* in `current`, to be acknowledged */
    enum consumer_duty duty;
    bool unable;     /* the owner cannot work for now */
    bool is_told;    /* the log says that it stands by */
    bool inspecting; /* the broker is to be asked, or was, who else consumes */
    bool never_left; /* the queue goes with its last consumer, or is ours alone */
    bool asked;      /* the broker is to deliver */
    bool consuming;  /* and it has agreed */
    bool stopping;   /* no more messages are wanted */
    bool stopped;    /* and the broker knows, or never agreed to send any */
    uint64_t handed_back;
};

/* `what` is lent.  False when out of memory. */
bool consumer_init(struct consumer *consumer, struct rpc_connection *connection, const char *what, uint16_t prefetch,
                   const struct consumer_events *events, void *arg);
/* Deliveries that are running are let go: consumer_done() only frees them then. */
void consumer_clear(struct consumer *consumer);

/* From on_message: the delivery is now `taken`'s. */
void consumer_take(struct consumer *consumer, struct taken *taken, const struct mq_delivery *delivery);
/* From on_message: not taken. */
void consumer_refuse(struct consumer *consumer, const struct mq_delivery *delivery, bool requeue);

/* Its work is finished: acknowledge it.  `taken` is gone after this. */
void consumer_done(struct taken *taken);
/* The same, not waiting for those before it: what lies in another queue now must not come again by this one. */
void consumer_done_at_once(struct taken *taken);
/* Hand it back to the broker, or away from it.  `taken` is gone after this. */
void consumer_reject(struct taken *taken, bool requeue);

/* Whether the owner can work.  Able again: it consumes again at once. */
void consumer_set_able(struct consumer *consumer, bool able);
/* The owner is unable: leave the queue when others consume it, come back when nobody does. */
void consumer_look_round(struct consumer *consumer);

/* Stop consuming.  on_change runs when the broker has agreed. */
void consumer_stop(struct consumer *consumer);
/* Nothing is running any more and nothing will come. */
bool consumer_drained(const struct consumer *consumer);

#endif

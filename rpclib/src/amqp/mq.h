/*
 * mq: one AMQP 0-9-1 connection as a state machine without I/O.
 *
 * Bytes that came from the broker go in by mq_feed() and come out as callbacks; calls append to one output buffer,
 * which the owner writes whenever it likes.  It knows no sockets, no clock (time is told to it) and no loop, so a test
 * can feed it byte by byte.  rabbitmq-c is the codec: frames, methods, properties and tables; none of its I/O is used.
 *
 * Methods that wait for an answer are sent without waiting (the broker works a connection's frames off in order), so a
 * channel's whole set-up is one write and one round trip: `on_settled` runs when the last answer is in.
 *
 * A connection has channels; a channel's events go to whoever opened it.  Callbacks run inside mq_feed() and may call
 * everything here except mq_feed(), mq_free().
 */
#ifndef RPCLIB_SRC_AMQP_MQ_H
#define RPCLIB_SRC_AMQP_MQ_H

#include <amqp.h>
#include <amqp_framing.h>
#include <stdint.h>

#include "rpclib/bytes.h"
#include "rpclib/status.h"

#define MQ_CHANNELS_MAX      64
#define MQ_FRAME_SIZE_MAX    131072u /* RabbitMQ's default; a smaller one of the broker's wins */
#define MQ_ANSWERS_MAX       64      /* answers that one channel may be waiting for */
#define MQ_ERROR_SIZE        256
#define MQ_HEARTBEATS_MISSED 2 /* silent for so many intervals: given up */

struct mq;
struct mq_channel;

/* A message as it was delivered or returned.  All lent until the callback returns. */
struct mq_message {
    struct rpc_bytes exchange;
    struct rpc_bytes routing_key;
    const amqp_basic_properties_t *properties;
    struct rpc_bytes raw_properties; /* the same, still encoded: amqp_decode_properties() reads a copy later */
    struct rpc_bytes body;
    uint64_t body_size; /* as the message's header says */
    bool oversized;     /* larger than RPC_MESSAGE_SIZE_MAX: properties NULL, body left out */
};

struct mq_delivery {
    struct mq_message message;
    struct rpc_bytes consumer_tag;
    uint64_t tag;
    bool redelivered;
};

struct mq_channel_events {
    void (*on_settled)(void *arg); /* every answer asked for so far is in */
    /* A queue was declared or looked at: so many consume it; may be NULL. */
    void (*on_queue)(uint32_t consumers, void *arg);
    void (*on_delivery)(const struct mq_delivery *delivery, void *arg);
    void (*on_return)(const struct mq_message *message, uint16_t code, void *arg);
    void (*on_confirm)(uint64_t tag, bool multiple, bool ack, void *arg);
    void (*on_empty)(void *arg);     /* mq_get() found nothing; may be NULL when that is not used */
    void (*on_cancelled)(void *arg); /* the broker cancelled a consumer: its queue went away */
    /* The broker closed the channel; it is gone with this call. */
    void (*on_closed)(uint16_t code, struct rpc_bytes text, void *arg);
};

struct mq_events {
    void (*on_open)(void *arg);
    void (*on_blocked)(bool blocked, struct rpc_bytes reason, void *arg);
    void (*on_output)(void *arg); /* the output was empty and is not any more */
};

struct mq_options {
    const char *user, *password, *vhost;
    const char *name;       /* shown by the broker */
    const char *version;    /* likewise */
    uint16_t heartbeat_s;   /* wanted; the broker's wins if it is smaller and not 0 */
    size_t output_size_max; /* for publishes */
    uint64_t now_ms;
    const struct mq_events *events;
    void *arg;
};

enum mq_state {
    MQ_HANDSHAKE,
    MQ_OPEN,
    MQ_CLOSING, /* mq_close() was called */
    MQ_CLOSED,  /* closed properly by either side: write what is left of the output, then drop the link */
    MQ_BROKEN,  /* what came was no AMQP, or came from nobody in time: drop the link */
};

/* Start: the protocol header is in the output.  NULL when out of memory.  The strings are lent until MQ_OPEN. */
struct mq *mq_new(const struct mq_options *options);
void mq_free(struct mq *mq); /* NULL is fine; channels go with it, their events do not run */

enum mq_state mq_state(const struct mq *mq);
/* Why it is MQ_CLOSED or MQ_BROKEN, for people; "" when mq_close() was why. */
const char *mq_error(const struct mq *mq);
bool mq_refused(const struct mq *mq); /* ... because of user, password or vhost */

/* Bytes from the broker.  Returns the state after them; in MQ_CLOSED and MQ_BROKEN they are ignored. */
enum mq_state mq_feed(struct mq *mq, struct rpc_bytes bytes, uint64_t now_ms);

/* What is to be written; lent until the next call.  Then say how much of it was. */
struct rpc_bytes mq_output(const struct mq *mq);
void mq_output_written(struct mq *mq, size_t size, uint64_t now_ms);
/* Positions in the stream of all output: the next byte to be appended, the next byte to be written. */
uint64_t mq_output_appended_total(const struct mq *mq);
uint64_t mq_output_written_total(const struct mq *mq);

/*
 * Heartbeats: call it again mq_tick_interval_ms() after each call, so that silence is noticed when it is MQ_HEARTBEATS_MISSED
 * intervals long and no later.  May break the connection.  Returns the state.
 */
enum mq_state mq_tick(struct mq *mq, uint64_t now_ms);
uint64_t mq_tick_interval_ms(const struct mq *mq, uint64_t now_ms);

/* Say goodbye; MQ_CLOSED follows when the broker has answered. */
void mq_close(struct mq *mq);

bool mq_blocked(const struct mq *mq);
uint16_t mq_channels_max(const struct mq *mq); /* open at once; MQ_CHANNELS_MAX or what the broker allows */

/* --- channels --- */

/* NULL when out of memory or of channel numbers, or not MQ_OPEN. */
struct mq_channel *mq_channel_open(struct mq *mq, const struct mq_channel_events *events, void *arg);
/* No event of it runs after this. */
void mq_channel_close(struct mq_channel *channel);

struct mq_queue {
    const char *name;
    bool durable, exclusive, auto_delete;
    int32_t expires_ms;            /* x-expires; 0: none */
    int32_t message_ttl_ms;        /* x-message-ttl; 0: none */
    const char *dead_letter_queue; /* where expired messages go, through the default exchange; NULL: none */
};

/*
 * Each of these asks the broker for something and expects its answer.  A refusal closes the channel (on_closed).  Out of
 * memory, or more than MQ_ANSWERS_MAX answers awaited, breaks the connection: a half made set-up is worse.
 */
void mq_exchange_declare(struct mq_channel *channel, const char *name); /* topic, durable: the only kind we use */
void mq_queue_declare(struct mq_channel *channel, const struct mq_queue *queue);
/*
 * A passive declaration: on_queue tells.  Only on a channel that is settled: RabbitMQ's queues answer mq_consume() and
 * mq_cancel() themselves, and the channel's own answer to this may overtake theirs.
 */
void mq_queue_inspect(struct mq_channel *channel, const char *queue);
bool mq_channel_settled(const struct mq_channel *channel); /* every answer asked for so far is in */
void mq_queue_bind(struct mq_channel *channel, const char *queue, const char *exchange, const char *routing_key);
void mq_qos(struct mq_channel *channel, uint16_t prefetch);
void mq_consume(struct mq_channel *channel, const char *queue, const char *consumer_tag, bool no_ack);
void mq_get(struct mq_channel *channel, const char *queue); /* one message: on_delivery or on_empty, not on_settled */
void mq_cancel(struct mq_channel *channel, const char *consumer_tag);
void mq_confirm_select(struct mq_channel *channel);

struct mq_publish {
    struct rpc_bytes exchange;
    struct rpc_bytes routing_key;
    bool mandatory;
    bool though_blocked;                       /* an answer: it waits in the output until the broker reads again */
    const amqp_basic_properties_t *properties; /* or NULL, and the same encoded: */
    struct rpc_bytes raw_properties;
    struct rpc_bytes body;
};

/* Whether a publish would be taken now: RPC_OK, RPC_BUSY (output bound), RPC_BLOCKED, RPC_TOO_LARGE. */
enum rpc_status mq_would_take(const struct mq_channel *channel, const struct mq_publish *publish);
/* RPC_OK, or with nothing appended: as mq_would_take() says, RPC_TOO_LARGE for the headers, RPC_NO_MEMORY. */
enum rpc_status mq_publish(struct mq_channel *channel, const struct mq_publish *publish);

void mq_ack(struct mq_channel *channel, uint64_t tag, bool multiple);
void mq_reject(struct mq_channel *channel, uint64_t tag, bool requeue);

#endif

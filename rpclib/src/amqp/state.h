/* What mq.c (the connection) and channel.c (one channel of it) know of each other. */
#ifndef RPCLIB_SRC_AMQP_STATE_H
#define RPCLIB_SRC_AMQP_STATE_H

#include "amqp/frame.h"
#include "amqp/mq.h"
#include "rpclib/text.h"

enum channel_state {
    CHANNEL_OPEN,
    CHANNEL_CLOSING, /* mq_channel_close() was called; waits for close-ok, hears nobody */
};

/* A message is a method, a header and as many body frames as it takes. */
enum content_state { CONTENT_NONE, CONTENT_HEADER, CONTENT_BODY };

/* The message that is arriving.  Its texts and properties lie in the codec's pool until the last frame is in. */
struct content {
    enum content_state state;
    bool returned; /* a basic.return, else a basic.deliver or basic.get-ok */
    uint16_t return_code;
    struct mq_delivery delivery;
    uint64_t size;          /* the body's, as its header says */
    uint64_t received;      /* of it */
    struct rpc_text joined; /* a body of several frames */
};

struct mq_channel {
    struct mq *mq;
    uint16_t number;
    enum channel_state state;
    const struct mq_channel_events *events;
    void *arg;
    amqp_method_number_t answers[MQ_ANSWERS_MAX]; /* awaited: a ring */
    unsigned answers_start, answers_count;
    struct content content;
};

struct mq {
    struct mq_options options;
    enum mq_state state;
    amqp_connection_state_t codec;
    struct rpc_text output;
    uint64_t written_total;
    uint64_t sent_ms, received_ms;
    struct rpc_text held; /* input: a frame's head that is cut, or a large content header until it is whole */
    uint64_t frame_left;  /* bytes of the frame that is arriving, behind its head */
    bool holds_frame;
    uint32_t frame_max;
    uint16_t channel_max;
    uint16_t heartbeat_s;
    bool blocked;
    bool refused;
    amqp_method_number_t handshake_awaits;
    char error[MQ_ERROR_SIZE];
    struct mq_channel *channels[MQ_CHANNELS_MAX + 1]; /* by number; 0 is the connection itself */
};

/* The link is of no use any more; the first reason stays. */
void mq_break(struct mq *mq, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Append a method, whatever the output holds already; out of memory breaks the connection. */
void mq_send_method(struct mq *mq, uint16_t channel, amqp_method_number_t id, void *method);

/* To be called around anything appended: tells the owner when the output stops being empty. */
void mq_output_grew(struct mq *mq, size_t size_before);

/* One frame that arrived on the channel. */
void channel_on_frame(struct mq_channel *channel, const amqp_frame_t *frame);
void channel_free(struct mq_channel *channel);

#endif

/*
 * peer: a broker that a test plays by hand, on a fake loop and a network without wires.  It shakes hands, and says yes to
 * whatever is declared; all else the test does: it sees what rpclib sends as a story and sends what it likes.
 */
#ifndef RPCLIB_TEST_PEER_H
#define RPCLIB_TEST_PEER_H

#include "batch.h"
#include "fake_loop.h"
#include "network.h"
#include "rpclib/connection.h"
#include "story.h"

#define PEER_MESSAGES_MAX 512

/* One message that rpclib published; texts are the peer's. */
struct peer_message {
    uint16_t channel;
    bool mandatory;
    char *exchange, *routing_key;
    char *correlation_id, *reply_to, *message_id, *expiration, *content_type, *content_encoding; /* "": none */
    int delivery_mode, priority;                                                                 /* -1: none */
    char *headers; /* as JSON; "{}": none */
    char *raw_properties;
    size_t raw_size;
    char *body;
    size_t body_size;
};

struct peer {
    struct fake_loop *loop;
    struct rpc_connection *connection;
    struct frames_reader reader;
    int fd;             /* of the link that the reader reads; -1: none */
    bool silent;        /* answers nothing, sends nothing */
    bool holds_answers; /* no -ok to what is declared */
    bool refuses_connect;
    uint16_t channels_max;     /* offered; 0: 2047, as RabbitMQ */
    unsigned consumers;        /* of every queue that rpclib looks at */
    char story[STORY_SIZE];    /* what rpclib sent, but for the handshake and its declarations */
    char declared[STORY_SIZE]; /* those */
    struct peer_message messages[PEER_MESSAGES_MAX];
    unsigned messages_count;
    unsigned gets, acks;           /* sent; the story tells of them beside texts that an input may have made up */
    struct peer_message *arriving; /* the message whose body is not there yet */
    uint64_t arriving_size;
    unsigned handshakes;
};

extern struct peer peer;

/* A fresh loop and a connection on it, which is up.  Ends the test when that fails. */
void peer_init(void);
/* A fresh loop, and no connection yet. */
void peer_init_loop(void);
void peer_connect(const struct rpc_connection_options *options);
/* Forget what rpclib has sent so far; the connection stays. */
void peer_forget(void);
/* Frees the connection and the loop; fails the test when a socket was left. */
void peer_clear(void);

/* Let all that can happen now happen. */
void peer_run(void);
/* ... and time pass, with it happening meanwhile. */
void peer_advance(uint64_t duration_ms);

/* What is sent next; peer_run() makes it arrive. */
struct frames *peer_out(void);

#define PEER_METHOD(channel, NAME, type, ...) \
    frames_method(peer_out(), channel, AMQP_##NAME##_METHOD, &(amqp_##type##_t){__VA_ARGS__})

void peer_deliver(uint16_t channel, uint64_t tag, bool redelivered, const char *routing_key,
                  const amqp_basic_properties_t *properties, struct rpc_bytes body);
/* A request as Nameko sends it. */
void peer_request(uint16_t channel, uint64_t tag, const char *routing_key, const char *correlation_id,
                  const char *body);
/* An answer to the message that rpclib published as the n-th (from 0). */
void peer_answer(uint16_t channel, unsigned message, const char *body);
void peer_return(unsigned message);
/* The same as from a service of rpclib, which takes batches. */
void peer_answer_as_rpclib(uint16_t channel, unsigned message, const char *body);
/* The n-th message that rpclib published as a batch: how many entries it has; 0: it is none. */
unsigned peer_batch(unsigned message, struct batch_entry entries[BATCH_MESSAGES_MAX]);
void peer_confirm(uint16_t channel, uint64_t tag, bool multiple, bool ack);
void peer_block(bool blocked);
/* The link ends: properly (0) or with an error of recv(). */
void peer_hang_up(int error);

/* Everything that the story holds, and an empty one; `line` is told when it is not `expected`. */
void peer_story_is_at(const char *expected, int line);
#define peer_story_is(expected) peer_story_is_at(expected, __LINE__)

#endif

/*
 * session: one channel on a rpc_connection, kept up: opened and set up when the connection comes up, again after each
 * reconnect, and again when the broker closed it or cancelled its consumer.
 *
 * Clients, services and publishers are made of sessions.  Between on_up and on_down the channel may be used; whatever was
 * in flight on it is gone with on_down.
 */
#ifndef RPCLIB_SRC_SESSION_H
#define RPCLIB_SRC_SESSION_H

#include "amqp/mq.h"
#include "rpclib/connection.h"

#define SESSION_REOPEN_MIN_MS 100
#define SESSION_REOPEN_MAX_MS 5000
#define SESSION_SETUP_MAX_MS  10000 /* for all answers to a set-up, or to later questions; then the link is given up */

struct session_events {
    void (*setup)(struct mq_channel *channel, void *arg); /* declare and consume what is needed */
    void (*on_up)(void *arg);                             /* all of it is there; again when the broker unblocks */
    void (*on_down)(void *arg);                           /* the channel is gone, or never came up */
    void (*on_settled)(void *arg);                        /* what was asked for after on_up is answered; may be NULL */
    void (*on_queue)(uint32_t consumers, void *arg);      /* mq_queue_inspect() is answered; may be NULL */
    void (*on_delivery)(const struct mq_delivery *delivery, void *arg);
    void (*on_empty)(void *arg); /* mq_get() found nothing; may be NULL */
    void (*on_return)(const struct mq_message *message, uint16_t code, void *arg); /* may be NULL */
    void (*on_confirm)(uint64_t tag, bool multiple, bool ack, void *arg);          /* may be NULL */
    void (*on_flush)(void *arg); /* the output is about to be written: append what was held back; may be NULL */
};

struct session {
    struct rpc_connection *connection;
    struct session *next; /* in the connection's list */
    const struct session_events *events;
    void *arg;
    const char *what; /* for logs: "service", "client" ...; lent */
    struct mq_channel *channel;
    bool up;
    bool opened;                  /* setup ran, on_down is owed */
    bool awaits;                  /* answers to what was asked while up */
    unsigned failures;            /* since the session last stayed up for SESSION_REOPEN_MAX_MS */
    uint64_t up_ms;               /* when it came up */
    struct rpc_loop_timer *timer; /* the limit of the set-up or of later questions, or until it is opened again */
};

/* Joins the connection; opens at once if that is up.  False when out of memory.  `session` is the caller's memory. */
bool session_init(struct session *session, struct rpc_connection *connection, const char *what,
                  const struct session_events *events, void *arg);
/* Closes the channel; no event of it runs after this. */
void session_clear(struct session *session);

/* Close the channel and open it again after a while, with a new set-up: something that it declared is gone. */
void session_restart(struct session *session);

/* Something that on_settled will tell of was just asked: while up, that has the same limit as the set-up. */
void session_await_answers(struct session *session);

/* NULL unless the session is up. */
struct mq_channel *session_channel(const struct session *session);
/* Why a publish on a session that is not up, or on a connection that is blocked, is refused; RPC_OK when it is not. */
enum rpc_status session_status(const struct session *session);
/* Have on_flush run at the end of this turn though nothing was published. */
void session_flush_later(struct session *session);
/* The position in the connection's output of the next byte that is appended. */
uint64_t session_output_appended(const struct session *session);
/*
 * In on_down: whether what began at that position certainly never leaves.  Only the connection's end makes that sure: of
 * a channel that goes alone, what was appended is written yet, before the channel's close.
 */
bool session_never_left(const struct session *session, uint64_t position);

/* For connection.c: the connection came up, takes messages again, went down. */
void session_on_connection_up(struct session *session);
void session_on_connection_unblocked(struct session *session);
void session_on_connection_down(struct session *session);

#endif

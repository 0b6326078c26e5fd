/*
 * rpc_service: answers requests and handles events, as a Nameko service does (its entrypoints @rpc and @event_handler).
 *
 * Describe methods and handlers in tables, make the service on a connection, run the loop.  It declares exchange, queues
 * and bindings exactly as Nameko does (so Python and C instances compete on the same queues) when the connection comes
 * up, again after each reconnect.
 *
 * A request is acknowledged after its answer went out, many at a time; a service that dies leaves its requests to
 * another.  At most `prefetch` messages with requests and, apart from them, `prefetch` events a handler are under way.  A
 * message of a client of rpclib may hold 64 requests (README.md, "Batches"): their handlers run one after the other, it is
 * acknowledged after the last answer, and delivered again with all of them when that does not come to be.
 */
#ifndef RPCLIB_SERVICE_H
#define RPCLIB_SERVICE_H

#include <jansson.h>
#include <stdint.h>

#include "rpclib/bytes.h"
#include "rpclib/connection.h"
#include "rpclib/context.h"
#include "rpclib/error.h"
#include "rpclib/status.h"

#define RPC_PARAMETERS_MAX 16
#define RPC_STANDBY_MS     1000 /* see rpc_service_set_able() */

struct rpc_service;
struct rpc_incoming; /* one request, from its delivery to its answer */
struct rpc_event;    /* one event, from its delivery to its acknowledgement */

/*
 * A method's handler.  `arguments[i]` is the value of the method's i-th parameter, NULL for an optional one that was not
 * given; all are lent until the handler returns (json_incref() what you keep).  `service_arg` is the options' `arg`.
 * Answer exactly once, now or later, by one of the rpc_incoming_answer...() functions; after that `request` is gone.
 */
typedef void rpc_method_fn(struct rpc_incoming *request, json_t *const arguments[], void *service_arg);

struct rpc_method {
    const char *name;              /* "get_order" */
    const char *const *parameters; /* names, ended by NULL; the optional ones last */
    size_t parameters_required;    /* how many of them must be given */
    rpc_method_fn *handler;
};

/* The three kinds of Nameko's event handlers. */
enum rpc_event_kind {
    RPC_EVENT_SERVICE_POOL, /* one instance of each service gets an event */
    RPC_EVENT_SINGLETON,    /* one handler in all gets an event */
    RPC_EVENT_BROADCAST,    /* every instance gets every event */
};

/*
 * An event's handler.  `data` is the event's body; lent until the handler returns.  Finish exactly once, now or later, by
 * rpc_event_done(), rpc_event_fail(), rpc_event_hand_back() or rpc_event_reject(); after that `event` is gone.
 */
typedef void rpc_event_fn(struct rpc_event *event, json_t *data, void *service_arg);

struct rpc_event_handler {
    const char *source;     /* the service that publishes: "orders" */
    const char *event_type; /* "order_created" */
    const char *name;       /* the handler's own name, part of the queue's: "handle_order_created" */
    enum rpc_event_kind kind;
    const char *identifier; /* BROADCAST: names this instance; NULL: a random one, and an exclusive auto-delete queue */
    bool unreliable;        /* Nameko's reliable_delivery=False: the queue goes with its last consumer */
    bool requeue_on_error;  /* rpc_event_fail() hands the event back to the broker instead of dropping it */
    /*
     * 1 or more: rpc_event_fail() has the event tried again, so many times in all, after 1 s, 5 s, 30 s and then 2 min each,
     * and puts it among the dead letters after that (the service must keep dead letters).  0: Nameko's rule, above.
     * An event whose consumer goes away before it is acknowledged is delivered again at once, and then handled alone (a
     * second time: see README.md, "Events that kill"); when its consumer goes away again, that is an attempt that failed.
     */
    uint32_t attempts_max;
    rpc_event_fn *handler;
};

struct rpc_service_options {
    const char *name;                 /* "products"; copied */
    const struct rpc_method *methods; /* tables, lent for the service's life; may be NULL when the count is 0 */
    size_t methods_count;
    const struct rpc_event_handler *event_handlers;
    size_t event_handlers_count;
    uint16_t prefetch;    /* MAX_WORKERS; 0: 10, Nameko's default */
    const char *exchange; /* NULL: "nameko-rpc"; copied */
    /*
     * Keep what cannot be handled in the queue `<name>.dead-letters`, with cause, attempts, time and where it came from in
     * its headers (x-airship-...): messages that are no requests or no events, and events that were rejected or failed too
     * often.  `rpc dead-letters` lists, shows, replays and purges them.  With it or without, such messages are rejected then,
     * for a dead-letter policy of the broker's to see.
     */
    bool keep_dead_letters;
    bool unable;             /* it cannot work yet: see rpc_service_set_able() */
    rpc_loop_fn *on_ready;   /* all queues are consumed (again); may be NULL */
    rpc_loop_fn *on_standby; /* a queue was left to other instances: see rpc_event_standby(); may be NULL */
    void *arg;
};

/* NULL when out of memory, or when names are too long together for the name of a queue (AMQP's 255 bytes). */
struct rpc_service *rpc_service_new(struct rpc_connection *connection, const struct rpc_service_options *options);

/* Whether all queues are being consumed now. */
bool rpc_service_ready(const struct rpc_service *service);

/*
 * Say whether the service can work: whether its store is there, for instance.  It can at first, unless the options say
 * otherwise.
 *
 * An instance that cannot work and goes on consuming takes more than its share of the requests, because it is quick to
 * refuse them.  So it stands by: RPC_STANDBY_MS after it became unable (half of that at least, at random), and as often
 * again, it asks the broker who else consumes its queues.  It leaves each queue that somebody else consumes, hands back
 * what is delivered from then on, and finishes what it had begun.  A queue that nobody else consumes it keeps, or consumes
 * again: answer what comes by an error then, at once; that is better than a queue that nobody reads.  Several instances that
 * become unable together keep one consumer among them.  Able again, it consumes again at once.  One that is unable when it
 * connects looks round before it consumes anything.
 *
 * Queues that it does not share are never left: events that every instance gets (BROADCAST), and `unreliable` ones.
 * Another consumer is believed to work: what a frozen one was given, the broker gives back when it notices.
 */
void rpc_service_set_able(struct rpc_service *service, bool able);

/*
 * Drain: stop consuming, hand back what was delivered but not started, let the handlers that run finish, then run `done`
 * once, `timeout_ms` from now at the latest; what still runs then is left to the broker to deliver again.
 */
void rpc_service_stop(struct rpc_service *service, int timeout_ms, rpc_loop_fn *done, void *arg);

/* Requests and events still with a handler may be answered or finished after this; that does nothing then. */
void rpc_service_free(struct rpc_service *service); /* NULL is fine */

/* Messages with a handler now: events, and requests; those that came in one message count once. */
uint32_t rpc_service_in_flight(const struct rpc_service *service);

/*
 * --- one request ---
 *
 * Each answer lets the request go.  One that cannot be sent, because the link is lost or the output is full, is dropped: the
 * request was not acknowledged, so the broker delivers it again.  One larger than RPC_MESSAGE_SIZE_MAX is an
 * UnexpectedError instead.
 */

/* The result as JSON text (one sound value; it is not checked again). */
void rpc_incoming_answer(struct rpc_incoming *request, struct rpc_bytes result);
/* The result as a value; NULL answers null.  Takes no reference. */
void rpc_incoming_answer_json(struct rpc_incoming *request, const json_t *result);
/* An error of any kind; below are those that a service mostly needs. */
void rpc_incoming_answer_error(struct rpc_incoming *request, const struct rpc_error *error);

/*
 * Errors of the service itself, exc_path `<service>.exceptions.<name>`, by what the caller may conclude.  `name` is a
 * class name: "NotFound", "ServiceUnavailable", "ServiceBusy", "OutcomeUnknown".
 */
void rpc_incoming_fail(struct rpc_incoming *request, const char *name, const char *value);
/* UnexpectedError: logs `cause` with a fresh reference and answers the reference alone. */
void rpc_incoming_fail_unexpected(struct rpc_incoming *request, const char *cause);
/*
 * marshmallow.exceptions.ValidationError: `messages` maps each field to an array of messages; it stands as JSON in
 * exc_args[0] and as Python's repr in `value`.  Takes no reference.
 */
void rpc_incoming_fail_validation(struct rpc_incoming *request, const json_t *messages);

/*
 * The body as it came, {"args": [...], "kwargs": {...}}: for what reading it lost, as the digits of an integer beyond 64 bits.
 * For the handler alone: lent until it returns, and not to be asked for after that.
 */
struct rpc_bytes rpc_incoming_body(const struct rpc_incoming *request);

/* All lent until the request is answered. */
const char *rpc_incoming_correlation_id(const struct rpc_incoming *request); /* "" when the caller sent none */
bool rpc_incoming_redelivered(const struct rpc_incoming *request); /* the broker may have delivered it before */
/* When the caller stops waiting, in ms of the loop's clock; UINT64_MAX when it did not say.  From `expiration`. */
uint64_t rpc_incoming_deadline_ms(const struct rpc_incoming *request);
/* For the calls and events this request causes; NULL when out of memory.  Owned by the request. */
struct rpc_context *rpc_incoming_context(struct rpc_incoming *request);

/* --- one event --- */

void rpc_event_done(struct rpc_event *event); /* handled: acknowledge it */
/* Not handled this time: attempts_max, else requeue_on_error, decides what becomes of it; logged. */
void rpc_event_fail(struct rpc_event *event, const char *cause);
/* Not handled, through no fault of its own (the service stops, memory is short): back to the broker for another instance. */
void rpc_event_hand_back(struct rpc_event *event);
/* Can never be handled: put it among the dead letters, or reject it without requeue; counted and logged. */
void rpc_event_reject(struct rpc_event *event, const char *cause);
/*
 * Its queue was left to other instances, see rpc_service_set_able(): an event that waits here for better times is theirs.
 * Hand it back; look when on_standby runs, and whenever an event is about to wait.
 */
bool rpc_event_standby(const struct rpc_event *event);
bool rpc_event_redelivered(const struct rpc_event *event);
/* For the calls and events this event causes; NULL when out of memory.  Owned by the event. */
struct rpc_context *rpc_event_context(struct rpc_event *event);

struct rpc_service_stats {
    uint64_t requests;    /* delivered */
    uint64_t answers;     /* results and errors */
    uint64_t errors;      /* of these: errors */
    uint64_t events;      /* delivered */
    uint64_t rejected;    /* messages that were no requests or no events */
    uint64_t handed_back; /* requeued unstarted while draining or standing by */
};
void rpc_service_stats(const struct rpc_service *service, struct rpc_service_stats *stats);

#endif

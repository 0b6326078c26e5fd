/*
 * flight: one HTTP request from its arrival to its answer, and the calls to services that it takes.
 *
 * A resource's handler starts calls by flight_call() and returns; their callbacks start further ones, or answer.  The
 * first answer counts: it ends all calls that are still open, and the flight.  A client that goes away ends them, too.
 * All calls of a flight share one deadline, RPC_TIMEOUT_MS after the request had arrived.
 */
#ifndef KORE_GATEWAY_FLIGHT_H
#define KORE_GATEWAY_FLIGHT_H

#include <rpclib/client.h>

#include "answer.h"
#include "guard.h"

struct flight;

struct flight_options {
    struct rpc_client *client; /* lent */
    int timeout_ms;            /* for the whole request */
    unsigned flights_max;      /* past it a request is answered 503 at once */
};

/* Once a worker, before the first request. */
void flights_start(const struct flight_options *options);
/* Requests that have not been answered yet. */
unsigned flights_count(void);
/* The client is about to be freed: no further calls. */
void flights_stop(void);

/* The client has gone: end the calls, answer nobody. */
void flight_abandon(struct flight *flight);

/* --- what was asked; all lent until the flight is answered --- */

enum guard_method flight_method(const struct flight *flight);
struct rpc_bytes flight_target(const struct flight *flight);
struct rpc_bytes flight_query(const struct flight *flight);
struct rpc_bytes flight_body(const struct flight *flight);
/* The path's last segment, still percent-encoded. */
struct rpc_bytes flight_segment(const struct flight *flight);
/* The Idempotency-Key; NULL data when there is none. */
struct rpc_bytes flight_key(const struct flight *flight);

/* --- calls --- */

struct flight_request {
    const char *service;
    const char *method;
    const struct rpc_text *kwargs; /* a JSON object; when it failed, so does the call: out of memory */
    size_t slot;                   /* told to `done` */
};

/* One answer.  `reply` as with rpc_reply_fn; never runs after the flight was answered or abandoned. */
typedef void flight_reply_fn(struct flight *flight, size_t slot, enum rpc_status status, const struct rpc_reply *reply);

/* Get ready for `calls` calls at once; those before, should any be open yet, are ended.  False when out of memory. */
bool flight_prepare(struct flight *flight, size_t calls);
/*
 * Start one of them.  RPC_OK, or what rpc_call() says; RPC_TIMEOUT when the flight's time is over, RPC_BUSY when the service
 * is slow and enough calls wait for it.  failure_or_call() also answers then.
 */
enum rpc_status flight_call(struct flight *flight, const struct flight_request *request, flight_reply_fn *done);

/*
 * Whether a call of this service would be let in now.  What calls two services in turn asks this for the second one before it
 * calls the first: a refusal is cheap as long as nobody has worked for it.
 */
bool flight_has_room(const char *service);

/* A value that travels with all calls from here on.  False when out of memory. */
bool flight_context_set(struct flight *flight, const char *key, struct rpc_bytes value);

/* --- the resource's own state, freed with the flight --- */

void flight_keep(struct flight *flight, void *work, void (*free_work)(void *work));
void *flight_work(const struct flight *flight);

/* --- answering --- */

/* Whether an answer of that size can be sent now: ask before a large one is made.  False when the flight was answered. */
bool flight_answer_fits(struct flight *flight, size_t size);

/* Answer with what answer_begin() ... answer_end() made of this. */
struct answer *flight_answer(struct flight *flight);
void flight_done(struct flight *flight);

void flight_error(struct flight *flight, int status, const char *code, struct rpc_bytes message);

#endif

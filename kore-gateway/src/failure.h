/*
 * failure: what a client is told when a call did not bring what it should.
 *
 * The answer says what the client may conclude: 503 promises that nothing was done; 504 says that nobody knows; 500 is
 * the shop's own fault.  What a service says in its own words stays inside, but for what is wrong with the request.
 */
#ifndef KORE_GATEWAY_FAILURE_H
#define KORE_GATEWAY_FAILURE_H

#include <jansson.h>

#include "flight.h"

/* What the call was to do. */
enum failure_of {
    FAILURE_OF_READ,    /* to tell something: 504 TIMEOUT */
    FAILURE_OF_PREPARE, /* to tell something before anything is done: 503 where a read alone would be 504 */
    FAILURE_OF_CHANGE,  /* to do something: 504 OUTCOME_UNKNOWN */
};

/*
 * Start one of the calls that flight_prepare() got ready for; or all of that for a call that is alone.  False when it could not
 * be started: then the flight was answered.
 */
bool failure_or_call(struct flight *flight, const struct flight_request *request, enum failure_of of,
                     flight_reply_fn *done);
bool failure_or_call_alone(struct flight *flight, const struct flight_request *request, enum failure_of of,
                           flight_reply_fn *done);

/* Answer the flight for a call to `service` that ended with `status` and, with RPC_REMOTE_ERROR, `reply`. */
void failure_answer(struct flight *flight, enum failure_of of, const char *service, enum rpc_status status,
                    const struct rpc_reply *reply);

/* A result came that is none: no client's fault. */
void failure_answer_nonsense(struct flight *flight, enum failure_of of, const char *service);

/* Whether the service answered with its own exception of this name: `<service>.exceptions.<name>`. */
bool failure_is(enum rpc_status status, const struct rpc_reply *reply, const char *service, const char *name);
/* The same for one of Nameko's: `nameko.exceptions.<name>`. */
bool failure_is_nameko(enum rpc_status status, const struct rpc_reply *reply, const char *name);

/* The request's body as JSON, a new reference; NULL when it is none, and the flight is answered. */
json_t *failure_or_json(struct flight *flight);

/* 400 for what is wrong with the request's fields; takes the reference, and NULL counts as out of memory. */
void failure_answer_invalid(struct flight *flight, json_t *messages);

#endif

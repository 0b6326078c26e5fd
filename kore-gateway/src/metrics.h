/*
 * metrics: what the gateway did, counted, and how Prometheus reads it (text exposition format 0.0.4).
 *
 * Counting costs a few instructions a request; all else is done when somebody asks.  Of one worker, from its start.
 */
#ifndef KORE_GATEWAY_METRICS_H
#define KORE_GATEWAY_METRICS_H

#include <rpclib/client.h>

#include "route.h"
#include <rpclib/text.h>

/* Which bound a request was refused for. */
enum metrics_bound {
    METRICS_BOUND_CONNECTIONS,
    METRICS_BOUND_REQUESTS,
    METRICS_BOUND_CALLS,
    METRICS_BOUND_INPUT,
    METRICS_BOUND_OUTPUT,
    METRICS_BOUNDS,
};

/* A request was answered; `duration_ms` from its arrival to its answer. */
void metrics_count_answer(enum route_id route, int status, uint64_t duration_ms);
void metrics_count_refusal(enum metrics_bound bound);

/* What is so at the moment. */
struct metrics_now {
    bool ready;
    unsigned connections, requests;
    const struct rpc_client *client; /* NULL: there is none any more */
};

void metrics_print(struct rpc_text *out, const struct metrics_now *now);

#endif

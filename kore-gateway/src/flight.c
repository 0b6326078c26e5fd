#include "flight.h"

#include <kore/kore.h>

#include <kore/http.h>

#include <assert.h>
#include <rpclib/log.h>
#include <stdlib.h>

#include "backend.h"
#include "metrics.h"
#include "peer.h"
#include "route.h"
#include "target.h"
#include "trace.h"

#define WAIT_SHARE 2 /* of its time, so much of a request may be waiting for a service that is slow: 1/2 */

struct call {
    struct flight *flight;
    flight_reply_fn *done;
    size_t slot;
    rpc_call_id id; /* 0: not under way */
    struct backend *backend;
    uint64_t began_ms;
};

enum flight_state {
    FLIGHT_OPEN,
    FLIGHT_ANSWERED, /* `answer` is complete, and leaves when Kore next handles the request */
    FLIGHT_GONE,     /* it has left, or nobody is there to take it */
};

struct flight {
    struct http_request *http; /* Kore's; it frees the flight with itself */
    struct peer *peer;         /* NULL when the flight is gone */
    enum flight_state state;
    const struct route *route;
    struct rpc_bytes segment;
    struct rpc_context *context; /* owned; made with the first call */
    uint64_t began_ms, deadline_ms;
    struct call *calls; /* owned unless it is `only_call` */
    size_t calls_count, calls_used;
    struct call only_call;
    void *work; /* owned */
    void (*free_work)(void *work);
    struct answer answer; /* owned */
};

static struct flight_options options;
static unsigned count;

void flights_start(const struct flight_options *given)
{
    options = *given;
    backends_start((uint32_t)options.timeout_ms / WAIT_SHARE, kore_time_ms());
}

unsigned flights_count(void)
{
    return count;
}

void flights_stop(void)
{
    options.client = NULL;
}

/* --- what was asked --- */

static struct rpc_bytes bytes_of(const struct flight *flight, struct guard_span span)
{
    return guard_bytes(peer_input(flight->peer), span);
}

enum guard_method flight_method(const struct flight *flight)
{
    return peer_request(flight->peer)->method;
}

struct rpc_bytes flight_target(const struct flight *flight)
{
    return bytes_of(flight, peer_request(flight->peer)->target);
}

struct rpc_bytes flight_query(const struct flight *flight)
{
    return target_of(flight_target(flight)).query;
}

struct rpc_bytes flight_body(const struct flight *flight)
{
    const struct guard_request *request = peer_request(flight->peer);

    return (struct rpc_bytes){peer_input(flight->peer) + request->head_size, request->body_size};
}

struct rpc_bytes flight_segment(const struct flight *flight)
{
    return flight->segment;
}

struct rpc_bytes flight_key(const struct flight *flight)
{
    const struct guard_request *request = peer_request(flight->peer);

    return request->has_key ? bytes_of(flight, request->idempotency_key) : (struct rpc_bytes){NULL, 0};
}

/* --- calls --- */

bool flight_has_room(const char *service)
{
    return backend_has_room(backend_of(service), kore_time_ms());
}

/* A trace that the client is part of goes on in the services.  False when out of memory. */
static bool context_take_trace(struct rpc_context *context, const struct flight *flight)
{
    const struct guard_request *request = peer_request(flight->peer);
    struct rpc_bytes parent = bytes_of(flight, request->traceparent), state = bytes_of(flight, request->tracestate);

    if (!trace_parent_is_sound(parent))
        return true;
    if (!rpc_context_set(context, "traceparent", parent))
        return false;
    return !trace_state_is_sound(state) || rpc_context_set(context, "tracestate", state);
}

/* With all that belongs into it, or not at all. */
static bool context_make(struct flight *flight)
{
    struct rpc_context *context;

    if (flight->context != NULL)
        return true;
    context = rpc_context_new("gateway", flight->route->name);
    if (context != NULL && !context_take_trace(context, flight)) {
        rpc_context_free(context);
        context = NULL;
    }
    flight->context = context;
    return context != NULL;
}

bool flight_context_set(struct flight *flight, const char *key, struct rpc_bytes value)
{
    return context_make(flight) && rpc_context_set(flight->context, key, value);
}

static void call_leave(struct call *call, enum limit_end end)
{
    call->id = 0;
    backend_leave(call->backend, end, kore_time_ms(), call->began_ms);
}

static void calls_end(struct flight *flight)
{
    for (size_t i = 0; i < flight->calls_used; i++) {
        struct call *call = &flight->calls[i];

        if (call->id == 0)
            continue;
        if (options.client != NULL)
            rpc_client_cancel(options.client, call->id);
        call_leave(call, LIMIT_CANCELLED);
    }
}

static void calls_free(struct flight *flight)
{
    if (flight->calls != &flight->only_call)
        free(flight->calls);
    flight->calls = NULL;
    flight->calls_count = flight->calls_used = 0;
}

bool flight_prepare(struct flight *flight, size_t calls)
{
    calls_end(flight);
    calls_free(flight);
    flight->calls = calls <= 1 ? &flight->only_call : calloc(calls, sizeof(*flight->calls));
    flight->calls_count = flight->calls != NULL ? calls : 0;
    return flight->calls != NULL;
}

static void on_reply(enum rpc_status status, const struct rpc_reply *reply, void *arg)
{
    struct call *call = arg;

    switch (status) {
    case RPC_OK:
    case RPC_REMOTE_ERROR:
        call_leave(call, LIMIT_ANSWERED);
        break;
    case RPC_TIMEOUT:
        call_leave(call, LIMIT_EXPIRED);
        break;
    case RPC_UNKNOWN_SERVICE:
    case RPC_BUSY:
    case RPC_OFFLINE:
    case RPC_BLOCKED:
    case RPC_LOST:
    case RPC_REFUSED:
    case RPC_BAD_REPLY:
    case RPC_TOO_LARGE:
    case RPC_NO_MEMORY:
    case RPC_CANCELLED:
        call_leave(call, LIMIT_CANCELLED);
        break;
    }
    if (call->flight->state == FLIGHT_OPEN)
        call->done(call->flight, call->slot, status, reply);
}

enum rpc_status flight_call(struct flight *flight, const struct flight_request *request, flight_reply_fn *done)
{
    uint64_t now_ms = kore_time_ms();
    enum rpc_status status;
    struct call *call;

    assert(flight->calls_used < flight->calls_count);
    if (options.client == NULL)
        return RPC_OFFLINE;
    if (now_ms >= flight->deadline_ms)
        return RPC_TIMEOUT;
    if (request->kwargs->failed || !context_make(flight))
        return RPC_NO_MEMORY;
    call = &flight->calls[flight->calls_used++];
    *call = (struct call){.flight = flight,
                          .done = done,
                          .slot = request->slot,
                          .backend = backend_of(request->service),
                          .began_ms = now_ms};
    if (!backend_enter(call->backend, now_ms))
        return RPC_BUSY;
    status = rpc_call(options.client,
                      &(struct rpc_request){.service = request->service,
                                            .method = request->method,
                                            .kwargs = rpc_text_bytes(request->kwargs),
                                            .timeout_ms = (int)(flight->deadline_ms - now_ms),
                                            .context = flight->context},
                      on_reply, call, &call->id);
    if (status != RPC_OK)
        call_leave(call, LIMIT_CANCELLED);
    return status;
}

/* --- the resource's own state --- */

void flight_keep(struct flight *flight, void *work, void (*free_work)(void *work))
{
    assert(flight->work == NULL);
    flight->work = work;
    flight->free_work = free_work;
}

void *flight_work(const struct flight *flight)
{
    return flight->work;
}

/* --- answering --- */

struct answer *flight_answer(struct flight *flight)
{
    return &flight->answer;
}

/* For now there is too much of something; what was made of another answer does not stay in memory behind this one. */
static void answer_refusal(struct answer *answer, enum metrics_bound bound, struct rpc_bytes message)
{
    metrics_count_refusal(bound);
    answer_clear(answer);
    answer->retry_after = true;
    answer_error(answer, 503, "SERVICE_UNAVAILABLE", message);
}

static void answer_no_room(struct answer *answer)
{
    answer_refusal(answer, METRICS_BOUND_OUTPUT, RPC_BYTES("Too many large answers are under way."));
}

void flight_done(struct flight *flight)
{
    assert(flight->state == FLIGHT_OPEN && flight->answer.status != 0);
    calls_end(flight);
    if (!peer_has_room(flight->answer.text.size))
        answer_no_room(&flight->answer);
    flight->state = FLIGHT_ANSWERED;
    http_request_wakeup(flight->http);
}

bool flight_answer_fits(struct flight *flight, size_t size)
{
    if (peer_has_room(size))
        return true;
    answer_no_room(&flight->answer);
    flight_done(flight);
    return false;
}

void flight_error(struct flight *flight, int status, const char *code, struct rpc_bytes message)
{
    answer_error(&flight->answer, status, code, message);
    flight_done(flight);
}

void flight_abandon(struct flight *flight)
{
    calls_end(flight);
    flight->state = FLIGHT_GONE;
    flight->peer = NULL;
}

/* Failures are warnings; of the refusals of a busy time only the first, for a line would cost as much as all the rest of it. */
static enum rpc_log_level flight_level(const struct flight *flight, uint64_t now_ms)
{
    static uint64_t refused_ms;

    if (flight->answer.status < 500)
        return RPC_LOG_DEBUG;
    if (!flight->answer.retry_after || backend_refusals_begin(&refused_ms, now_ms))
        return RPC_LOG_WARNING;
    return RPC_LOG_DEBUG;
}

static void flight_tell(const struct flight *flight)
{
    uint64_t now_ms = kore_time_ms(), duration_ms = now_ms - flight->began_ms;

    rpc_log(flight_level(flight, now_ms), "request",
            RPC_LOG_BYTES("method", bytes_of(flight, peer_request(flight->peer)->method_name)),
            RPC_LOG_BYTES("target", flight_target(flight)), RPC_LOG_INT("status", flight->answer.status),
            RPC_LOG_INT("duration_ms", duration_ms));
    if (peer_port(flight->peer) == ROUTE_PORT_SHOP)
        metrics_count_answer(flight->route != NULL ? flight->route->id : ROUTE_NONE, flight->answer.status,
                             duration_ms);
}

static void flight_land(struct flight *flight)
{
    struct peer *peer = flight->peer;

    flight_tell(flight);
    flight->state = FLIGHT_GONE;
    flight->peer = NULL;
    peer_answer(peer, &flight->answer);
}

/* Kore frees the request, the flight goes with it. */
static void on_free(struct http_request *http)
{
    struct flight *flight = http->hdlr_extra;

    http->hdlr_extra = NULL;
    calls_end(flight);
    calls_free(flight);
    if (flight->free_work != NULL)
        flight->free_work(flight->work);
    rpc_context_free(flight->context);
    answer_clear(&flight->answer);
    free(flight);
    count--;
}

static void flight_refuse_one_too_many(struct flight *flight)
{
    answer_refusal(&flight->answer, METRICS_BOUND_REQUESTS, RPC_BYTES("Too many requests are under way."));
    flight_done(flight);
}

static void flight_start(struct flight *flight)
{
    flight->route = route_find(peer_port(flight->peer), flight_method(flight), target_of(flight_target(flight)).path,
                               &flight->segment, &flight->answer.allow);
    if (flight->route != NULL && flight->route->is_bounded && count > options.flights_max)
        flight_refuse_one_too_many(flight);
    else if (flight->route != NULL)
        flight->route->handler(flight);
    else if (flight->answer.allow != NULL)
        flight_error(flight, 405, "METHOD_NOT_ALLOWED", RPC_BYTES("The method is not allowed for this path."));
    else
        flight_error(flight, 404, "NOT_FOUND", RPC_BYTES("There is nothing at this path."));
}

static struct flight *flight_new(struct http_request *http)
{
    struct peer *peer = peer_of(http->owner);
    struct flight *flight = peer == NULL ? NULL : calloc(1, sizeof(*flight));

    if (flight == NULL)
        return NULL;
    flight->http = http;
    flight->peer = peer;
    flight->began_ms = kore_time_ms();
    flight->deadline_ms = flight->began_ms + (uint64_t)options.timeout_ms;
    http->hdlr_extra = flight;
    http->onfree = on_free;
    peer_set_flight(peer, flight);
    count++;
    return flight;
}

/* Kore's handler: runs when the request is there, and again each time it is woken up. */
__attribute__((visibility("default"))) int gateway_request(struct http_request *http);

int gateway_request(struct http_request *http)
{
    struct flight *flight = http->hdlr_extra;

    if (flight == NULL) {
        flight = flight_new(http);
        if (flight == NULL)
            return KORE_RESULT_ERROR; /* out of memory: Kore hangs up */
        flight_start(flight);
    }
    switch (flight->state) {
    case FLIGHT_OPEN:
        http_request_sleep(http);
        return KORE_RESULT_RETRY;
    case FLIGHT_ANSWERED:
        flight_land(flight);
        return KORE_RESULT_OK;
    case FLIGHT_GONE:
        return KORE_RESULT_OK;
    }
    return KORE_RESULT_ERROR;
}

/*
 * The n-th allocation fails, for each n: every route from the request's bytes to the answer's, without Kore and without a
 * broker; both are played here.  No crash, no leak (the address sanitizer looks), one answer to each request, and an
 * honest one: 503, with a word of when to come back, only when nothing was done; 504 only for a change; never half of an answer.
 */
#include <stdio.h>
#include <stdlib.h>

#include <kore/kore.h>

#include <kore/http.h>

#include "flight.h"
#include "orders.h"
#include "peer.h"
#include "rpclib/log.h"
#include "torture.h"

#define CALLS_MAX    16
#define WIRE_SIZE    4096
#define NAME_SIZE    32
#define PRODUCT_SIZE 512

int gateway_request(struct http_request *http);

static bool counted;

/* ---- The client, and Kore ---------------------------------------------------------------------------------------- */

struct peer {
    struct guard_request request;
    const char *input;
    struct flight *flight;
    bool woken;
    unsigned answers;
    int status;
    char wire[WIRE_SIZE]; /* the answer as it leaves */
    size_t wire_size;
};

static struct peer peer;
static const char *headers; /* of the request */

u_int64_t kore_time_ms(void)
{
    return 1000000;
}

void http_request_sleep(struct http_request *http)
{
    (void)http;
}

void http_request_wakeup(struct http_request *http)
{
    (void)http;
    peer.woken = true;
}

struct peer *peer_of(const struct connection *connection)
{
    (void)connection;
    return &peer;
}

const struct guard_request *peer_request(const struct peer *of)
{
    return &of->request;
}

const char *peer_input(const struct peer *of)
{
    return of->input;
}

void peer_set_flight(struct peer *of, struct flight *flight)
{
    of->flight = flight;
}

enum route_port peer_port(const struct peer *of)
{
    (void)of;
    return ROUTE_PORT_SHOP;
}

unsigned peers_count(void)
{
    return 1;
}

bool peer_has_room(size_t size)
{
    (void)size;
    return true;
}

void peer_answer(struct peer *of, struct answer *answer)
{
    struct rpc_bytes wire = {.data = NULL};

    of->answers++;
    of->status = 0; /* hung up: not even an error fits into memory */
    if (!answer_finish(answer, &(struct answer_sending){.now_s = 0}, &wire))
        return;
    of->status = answer->status;
    of->wire_size = wire.size < WIRE_SIZE ? wire.size : WIRE_SIZE;
    memcpy(of->wire, wire.data, of->wire_size);
}

/* ---- The services ------------------------------------------------------------------------------------------------ */

/* An order as our service prints it, and as Python's does. */
#define LINE_A "{\"id\":1,\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":1}"
#define LINE_B "{\"id\": 2, \"product_id\": \"b\", \"price\": \"2.00\", \"quantity\": 2}"

/* What a method answers with, if no other answer is given for it; `get` tells of the product that it is asked for. */
static const struct {
    const char *method, *result;
    bool changes;
} methods[] = {
    {"get", NULL, false},
    {"exists", "true", false},
    {"create", "null", true},
    {"delete", "null", true},
    {"get_order", "{\"id\": 1, \"order_details\": [" LINE_A ", " LINE_B "]}", false},
    {"create_order", "{\"id\":7,\"order_details\":[" LINE_A "]}", true},
    {"recall_order", "{\"id\": 7, \"order_details\": [" LINE_B "]}", false},
    {"list_orders",
     "[{\"id\":3,\"order_details\":[]}, {\"id\":1,\"order_details\":[" LINE_A "]},{\"id\":2,\"order_details\":[]}]",
     false},
};

struct call {
    rpc_reply_fn *done;
    void *arg;
    rpc_call_id id; /* 0: ended */
    char method[NAME_SIZE];
    char product[PRODUCT_SIZE]; /* what `get` answers */
};

static struct {
    struct call calls[CALLS_MAX];
    unsigned count;
    bool change_asked, changed;
    const char *method, *error; /* this method's answer is this error: its exc_path */
    const char *said;           /* ... and what it says: exc_args */
    bool products_are_missing;
} services;

/* What came with the request goes on with each call that it takes, or there is no call: a trace, and above all the key. */
static void check_goes_on(const struct rpc_context *context, const char *header, const char *key)
{
    const char *found = strstr(headers, header);
    struct rpc_bytes value = rpc_context_get(context, key), expected = {NULL, 0};

    if (found != NULL) {
        expected.data = found + strlen(header);
        expected.size = (size_t)(strstr(expected.data, "\r\n") - expected.data);
    }
    if (value.size != expected.size || (value.size > 0 && memcmp(value.data, expected.data, value.size) != 0))
        torture_violated("a call goes out with \"%.*s\" as its %s", (int)value.size, value.data, key);
}

static void check_context(const struct rpc_context *context)
{
    check_goes_on(context, "Idempotency-Key: ", "idempotency_key");
    check_goes_on(context, "traceparent: ", "traceparent");
    check_goes_on(context, "tracestate: ", "tracestate");
}

/* {"product_id": <id>} becomes the product of that id, with more than a client is to know. */
static void product_print(char product[PRODUCT_SIZE], struct rpc_bytes kwargs)
{
    static const char before[] = "{\"product_id\": ";

    if (kwargs.size > sizeof(before))
        snprintf(
            product, PRODUCT_SIZE,
            "{\"id\":%.*s, \"cost\":[1], \"title\":\"T\",\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":3}",
            (int)(kwargs.size - sizeof(before)), kwargs.data + sizeof(before) - 1);
}

static bool method_changes(const char *name)
{
    size_t m = 0;

    while (strcmp(methods[m].method, name) != 0)
        m++;
    return methods[m].changes;
}

enum rpc_status rpc_call(struct rpc_client *client, const struct rpc_request *request, rpc_reply_fn *done, void *arg,
                         rpc_call_id *id)
{
    struct call *call = &services.calls[services.count];

    (void)client;
    if (services.count == CALLS_MAX)
        return RPC_BUSY;
    if (request->kwargs.size > 0 && request->kwargs.data[request->kwargs.size - 1] != '}')
        torture_violated("a part of a request is sent: %.*s", (int)request->kwargs.size, request->kwargs.data);
    *call = (struct call){.done = done, .arg = arg, .id = ++services.count};
    snprintf(call->method, sizeof(call->method), "%s", request->method);
    product_print(call->product, request->kwargs);
    check_context(request->context);
    services.change_asked |= method_changes(request->method);
    *id = call->id;
    return RPC_OK;
}

void rpc_client_cancel(struct rpc_client *client, rpc_call_id id)
{
    (void)client;
    services.calls[id - 1].id = 0;
}

uint32_t rpc_client_in_flight(const struct rpc_client *client)
{
    (void)client;
    return 0;
}

void rpc_client_stats(const struct rpc_client *client, struct rpc_client_stats *stats)
{
    (void)client;
    *stats = (struct rpc_client_stats){0};
}

bool rpc_client_ready(const struct rpc_client *client)
{
    (void)client;
    return true;
}

/* The oldest call is answered.  False when there is none. */
static bool services_answer(void)
{
    for (unsigned i = 0; i < services.count; i++) {
        struct call *call = &services.calls[i];
        bool fails = services.method != NULL && strcmp(services.method, call->method) == 0;
        struct rpc_reply reply = {.result = RPC_BYTES("null")};

        if (call->id == 0)
            continue;
        call->id = 0;
        for (size_t m = 0; m < sizeof(methods) / sizeof(methods[0]); m++) {
            if (strcmp(methods[m].method, call->method) != 0)
                continue;
            reply.result = rpc_bytes_of(methods[m].result != NULL ? methods[m].result : call->product);
            services.changed |= methods[m].changes && !fails;
        }
        if (services.products_are_missing && strcmp(call->method, "exists") == 0)
            reply.result = RPC_BYTES("false");
        if (fails)
            reply.error = (struct rpc_error){.exc_type = RPC_BYTES("E"),
                                             .exc_path = rpc_bytes_of(services.error),
                                             .exc_args = rpc_bytes_of(services.said),
                                             .value = RPC_BYTES("said")};
        counted = true;
        call->done(fails ? RPC_REMOTE_ERROR : RPC_OK, &reply, call->arg);
        counted = false;
        return true;
    }
    return false;
}

/* ---- One request ------------------------------------------------------------------------------------------------- */

#define BODY(text) "Content-Length: " text
#define GOOD_ORDER                                                                        \
    "{\"order_details\": [{\"product_id\": \"a\", \"price\": \"1.5\", \"quantity\": 1}, " \
    "{\"product_id\": \"b\\\"\", \"price\": 2, \"quantity\": 3}]}"
#define BAD_ORDER "{\"order_details\": [{\"product_id\": 7, \"quantity\": 0}, 7]}"
#define GOOD_PRODUCT \
    "{\"id\": \"a\", \"title\": \"T\", \"passenger_capacity\": 1, \"maximum_speed\": 2, \"in_stock\": 3}"
#define KEY   "Idempotency-Key: k\r\n"
#define SIXTY "012345678901234567890123456789012345678901234567890123456789"
#define LONG_KEY \
    "Idempotency-Key: " SIXTY SIXTY SIXTY SIXTY "\r\n" /* longer than what a context has room for in itself */
#define TRACE     "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=1\r\n"
#define INVALID   "marshmallow.exceptions.ValidationError"
#define SAID      "[{\"order_details\": {\"0\": {\"price\": [\"Not a valid number.\"]}}}]"
#define ID_LONGER "%F0%9F%9A%80%F0%9F%9A%80%F0%9F%9A%80%F0%9F%9A%80"

static const struct scenario {
    const char *line, *headers, *body;
    int status;                 /* of its answer when all goes well */
    const char *method, *error; /* see services */
    const char *said;
    bool products_are_missing;
} scenarios[] = {
    {"GET /products/a", TRACE, NULL, 200},
    {"GET /products/a", "", NULL, 404, "get", "products.exceptions.NotFound", "[]"},
    {"GET /products/a", "", NULL, 503, "get", "products.exceptions.ServiceUnavailable", "[]"},
    {"GET /products/" ID_LONGER, "", NULL, 200},
    {"GET /products/%00", "", NULL, 400},
    {"POST /products", "", GOOD_PRODUCT, 200},
    {"POST /products", "", "{\"id\": 7, \"title\": null}", 400},
    {"POST /products", "", "{\"id\": ", 400},
    {"POST /products", "", GOOD_PRODUCT, 400, "create", INVALID, "[{\"title\": [\"Not a valid string.\"]}]"},
    {"DELETE /products/a", "", NULL, 204},
    {"GET /orders/1", TRACE, NULL, 200},
    {"GET /orders/1", "", NULL, 404, "get_order", "orders.exceptions.NotFound", "[]"},
    {"GET /orders/1", "", NULL, 200, "get", "products.exceptions.NotFound", "[]"},
    {"POST /orders", KEY TRACE, GOOD_ORDER, 200},
    {"POST /orders", LONG_KEY TRACE, GOOD_ORDER, 200},
    {"POST /orders", LONG_KEY, GOOD_ORDER, 200, .products_are_missing = true},
    {"POST /orders", "", GOOD_ORDER, 200},
    {"POST /orders", "", BAD_ORDER, 400},
    {"POST /orders", "", "[]", 400},
    {"POST /orders", "", "nonsense", 400},
    {"POST /orders", KEY, GOOD_ORDER, 422, "create_order", "orders.exceptions.IdempotencyKeyReused", "[]"},
    {"POST /orders", KEY, GOOD_ORDER, 504, "create_order", "orders.exceptions.OutcomeUnknown", "[]"},
    {"POST /orders", "", GOOD_ORDER, 400, "create_order", INVALID, SAID},
    {"POST /orders", KEY, GOOD_ORDER, 200, .products_are_missing = true},
    {"POST /orders", "", GOOD_ORDER, 404, .products_are_missing = true},
    {"GET /orders", "", NULL, 200},
    {"GET /orders?after=1&limit=1", "", NULL, 200},
    {"GET /orders?limit=2", "", NULL, 503, "list_orders", "orders.exceptions.ServiceBusy", "[]"},
    {"GET /orders?limit=x", "", NULL, 400},
    {"GET /nowhere", "", NULL, 404},
    {"PUT /orders", "", NULL, 405},
    {"GET /healthz", "", NULL, 200},
};

/* The pool of a context is rabbitmq-c's; see rpclib/test/simulation/torture.c for what that cannot lose. */
static const char *const libraries[] = {"librabbitmq", NULL};

static bool spared(size_t size, bool again)
{
    return size == sizeof(void *) || (again && size <= 8 * sizeof(void *) && size % 8 == 0);
}

static const struct scenario *scenario;
static char expected[WIRE_SIZE]; /* the answer when no allocation fails */
static size_t expected_size;

static void ask(void)
{
    static char input[2048];
    struct http_request http = {.hdlr_extra = NULL};
    struct guard guard = {0};
    int size, result;

    size = snprintf(input, sizeof(input), "%s HTTP/1.1\r\nHost: h\r\n%sContent-Length: %zu\r\n\r\n%s", scenario->line,
                    scenario->headers, scenario->body == NULL ? 0 : strlen(scenario->body),
                    scenario->body == NULL ? "" : scenario->body);
    if (guard_check(&guard, (struct rpc_bytes){input, (size_t)size}) != GUARD_OK) {
        torture_violated("no request: %s", input);
        return;
    }
    peer = (struct peer){.request = guard.request, .input = input};
    headers = scenario->headers;
    memset(&services, 0, sizeof(services));
    services.method = scenario->method;
    services.error = scenario->error;
    services.said = scenario->said;
    services.products_are_missing = scenario->products_are_missing;
    counted = true;
    result = gateway_request(&http);
    counted = false;
    while (result == KORE_RESULT_RETRY && (peer.woken || services_answer())) {
        if (!peer.woken)
            continue;
        peer.woken = false;
        counted = true;
        result = gateway_request(&http);
        counted = false;
    }
    if (http.onfree != NULL)
        http.onfree(&http);
    if (flights_count() != 0)
        torture_violated("%u flights are left", flights_count());
}

/* 503 and whatever begins with 4 promise that nothing was done. */
static bool is_honest(void)
{
    if (peer.answers == 0)
        return !services.changed && services.count == 0; /* hung up on before anything was begun */
    if (peer.wire_size == expected_size && memcmp(peer.wire, expected, expected_size) == 0)
        return true;
    switch (peer.status) {
    case 0:
        return true; /* hung up on: not even an error fits */
    case 503:
        return !services.changed && memmem(peer.wire, peer.wire_size, "\r\nRetry-After: ", 15) != NULL;
    case 504:
        return services.change_asked;
    default:
        return false;
    }
}

static void route(void)
{
    ask();
    if (peer.answers > 1)
        torture_violated("%u answers", peer.answers);
    if (!torture_fell() && (peer.answers != 1 || peer.status != scenario->status))
        torture_violated("%s: %d, not %d", scenario->line, peer.status, scenario->status);
    if (!is_honest())
        torture_violated("%s: %s\n%.*s", scenario->line, services.changed ? "it was done" : "nothing was done",
                         (int)peer.wire_size, peer.wire);
    if (!torture_fell())
        return;
    ask(); /* the next one finds all in order */
    if (peer.status != scenario->status || !is_honest())
        torture_violated("%s: afterwards %d, not %d", scenario->line, peer.status, scenario->status);
}

int main(void)
{
    rpc_log_configure("torture", RPC_LOG_ERROR, RPC_LOG_LOGFMT);
    flights_start(
        &(struct flight_options){.client = (struct rpc_client *)&peer, .timeout_ms = 1000, .flights_max = 10});
    torture_begin(&(struct torture_options){.when = &counted, .libraries = libraries, .spared = spared});
    if (!orders_start("http://i/\xc3\xbc\""))
        return 1;
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        scenario = &scenarios[i];
        ask();
        expected_size = peer.wire_size;
        memcpy(expected, peer.wire, peer.wire_size);
        torture(scenario->line, TORTURE_NO_MEMORY, route);
    }
    return torture_end();
}

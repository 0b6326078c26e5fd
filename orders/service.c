#include "service.h"

#include <stdio.h>
#include <stdlib.h>

#include "rpclib/json.h"
#include "rpclib/service.h"
#include "rpclib/utc.h"

#include "key_expiry.h"
#include "order.h"
#include "outbox.h"
#include "store.h"

#define ANSWER_SIZE_MAX  (RPC_MESSAGE_SIZE_MAX - 1024u) /* the envelope needs a little */
#define TEXT_KEEP_SIZE   (256u * 1024)
#define VALUE_SIZE       256 /* an error's text */
#define STOP_OUTBOX_PART 4   /* of the time to stop in, what is kept for the events */
#define EVENT_TYPE       "order_created"
#define EVENT_START      "{\"order\":"
#define UNKNOWN_SPELLING ((struct rpc_bytes){.data = NULL, .size = 0})

struct orders_service {
    struct rpc_loop *loop;
    int store_timeout_ms;
    struct order_store *store; /* owned, as are the next three */
    struct outbox *outbox;
    struct key_expiry *key_expiry;
    struct rpc_service *rpc;
    struct rpc_text text; /* the answer that is being printed */
    rpc_loop_fn *on_ready;
    void *arg;
    uint64_t stop_limit_ms; /* not 0: it is stopping */
    rpc_loop_fn *stopped;
    void *stopped_arg;
};

/* One request under way. */
struct call {
    struct order_store_unit unit; /* first */
    struct orders_service *service;
    struct rpc_incoming *request; /* owned until answered */
    struct order order;           /* owned; what the request brought */
    json_t *argument;             /* owned; for messages that show what the caller wrote */
    bool is_change;
    bool is_page;
    char *headers; /* owned; the request's context */
};

/* ---- Errors ------------------------------------------------------------------------------------------------------ */

static void fail_no_memory(struct rpc_incoming *request)
{
    rpc_incoming_fail(request, "ServiceBusy", "out of memory; nothing was done");
}

/* A change that came before may have been carried out by whoever had it then. */
static void fail_change_no_memory(struct rpc_incoming *request)
{
    if (rpc_incoming_redelivered(request))
        rpc_incoming_fail(request, "OutcomeUnknown", "it came before; there is no memory to see whether it was done");
    else
        fail_no_memory(request);
}

static void fail_validation(struct rpc_incoming *request, json_t *messages)
{
    if (messages == NULL)
        fail_no_memory(request);
    else
        rpc_incoming_fail_validation(request, messages);
    json_decref(messages);
}

typedef void fail_fn(struct rpc_incoming *request);

/* How reading the arguments ended: true to go on, else the request is answered. */
static bool accept(struct rpc_incoming *request, enum order_status status, json_t *const *messages,
                   fail_fn *fail_memory)
{
    switch (status) {
    case ORDER_OK:
        return true;
    case ORDER_INVALID:
        fail_validation(request, *messages);
        return false;
    case ORDER_NO_MEMORY:
        fail_memory(request);
        return false;
    }
    return false;
}

/* What stands between the brackets of an array, without the white space around it. */
static struct rpc_bytes array_inside(struct rpc_bytes array)
{
    static const char space[] = " \t\r\n";
    const char *start = array.data + 1, *end = array.data + array.size - 1;

    while (start < end && strchr(space, *start) != NULL)
        start++;
    while (end > start && strchr(space, end[-1]) != NULL)
        end--;
    return (struct rpc_bytes){.data = start, .size = (size_t)(end - start)};
}

/* A member's value as it is spelled; {NULL, 0}: there is none. */
static struct rpc_bytes member_spelled(struct rpc_bytes object, const char *name)
{
    struct rpc_bytes value = {.data = NULL, .size = 0};

    return rpc_json_members(object, 1, &name, &value) ? value : (struct rpc_bytes){.data = NULL, .size = 0};
}

/* The only argument of a method, called `name`, as the request spells it.  For the handler alone. */
static struct rpc_bytes argument_spelled(const struct rpc_incoming *request, const char *name)
{
    struct rpc_bytes body = rpc_incoming_body(request), args;
    struct rpc_bytes value = member_spelled(member_spelled(body, "kwargs"), name);

    if (value.data != NULL)
        return value;
    args = member_spelled(body, "args");
    return args.data == NULL ? args : array_inside(args);
}

static void fail_not_found(struct rpc_incoming *request, const json_t *id, struct rpc_bytes spelled)
{
    char text[ORDER_ID_TEXT_SIZE], value[VALUE_SIZE];

    order_id_print(text, id, spelled);
    snprintf(value, sizeof(value), "Order with id %s not found", text);
    rpc_incoming_fail(request, "NotFound", value);
}

/* The store knows the line by its number, and one that cannot exist as 0: say it as the caller wrote it. */
static void fail_line_not_found(const struct call *call)
{
    const json_t *details = json_object_get(call->argument, "order_details");
    char text[ORDER_ID_TEXT_SIZE] = "", value[VALUE_SIZE];
    size_t index;

    for (index = 0; index < call->order.lines_count; index++)
        if (call->order.lines[index].id == call->unit.missing) {
            order_id_print(text, json_object_get(json_array_get(details, index), "id"), UNKNOWN_SPELLING);
            break;
        }
    snprintf(value, sizeof(value), "Order detail with id %s not found in order with id %d", text, (int)call->order.id);
    rpc_incoming_fail(call->request, "NotFound", value);
}

static void fail_unavailable(const struct orders_service *service, struct rpc_incoming *request)
{
    char value[VALUE_SIZE], since[RPC_UTC_SIZE];

    if (order_store_is_up(service->store)) {
        rpc_incoming_fail(request, "ServiceUnavailable", "PostgreSQL is too slow; nothing was done");
        return;
    }
    rpc_utc_print(since, time(NULL) - (time_t)(order_store_down_ms(service->store) / 1000));
    snprintf(value, sizeof(value), "PostgreSQL is away since %s", since);
    rpc_incoming_fail(request, "ServiceUnavailable", value);
}

/* Whoever had the request before may have carried it out, and died before it was answered. */
static bool may_be_done(const struct call *call, enum order_store_status status)
{
    return (status == ORDER_STORE_UNAVAILABLE || status == ORDER_STORE_BUSY) && call->is_change &&
           rpc_incoming_redelivered(call->request);
}

/* Every way in which the store may end a request without a result. */
static void call_fail(const struct call *call, enum order_store_status status)
{
    struct rpc_incoming *request = call->request;
    char value[VALUE_SIZE];

    if (may_be_done(call, status)) {
        rpc_incoming_fail(request, "OutcomeUnknown", "it came before; PostgreSQL cannot say now whether it was done");
        return;
    }
    switch (status) {
    case ORDER_STORE_NOT_FOUND:
        fail_not_found(request, json_is_object(call->argument) ? json_object_get(call->argument, "id") : call->argument,
                       UNKNOWN_SPELLING);
        return;
    case ORDER_STORE_LINE_NOT_FOUND:
        fail_line_not_found(call);
        return;
    case ORDER_STORE_KEY_REUSED:
        rpc_incoming_fail(request, "IdempotencyKeyReused", "the key was used before, for another order");
        return;
    case ORDER_STORE_TOO_LARGE:
        if (call->is_page)
            fail_validation(request, order_error("limit", "The page is too large; ask for fewer orders."));
        else
            rpc_incoming_fail_unexpected(request, "the order is larger than a message may be");
        return;
    case ORDER_STORE_BUSY:
        snprintf(value, sizeof(value), "at most %d operations of %u bytes together at once", WORK_UNITS_MAX,
                 WORK_SIZE_MAX);
        rpc_incoming_fail(request, "ServiceBusy", value);
        return;
    case ORDER_STORE_UNAVAILABLE:
        fail_unavailable(call->service, request);
        return;
    case ORDER_STORE_UNKNOWN:
        rpc_incoming_fail(request, "OutcomeUnknown", "PostgreSQL was lost or silent while it may have done it");
        return;
    case ORDER_STORE_FAILED:
        rpc_incoming_fail_unexpected(request, "the database refuses the statement");
        return;
    case ORDER_STORE_OK:
        break;
    }
    rpc_incoming_fail_unexpected(request, "a success without a result");
}

/* ---- Requests under way ------------------------------------------------------------------------------------------ */

/* NULL, and the request answered, when out of memory. */
static struct call *call_new(struct orders_service *service, struct rpc_incoming *request, json_t *argument,
                             fail_fn *fail_memory)
{
    struct call *call = calloc(1, sizeof(*call));

    if (call == NULL) {
        fail_memory(request);
        return NULL;
    }
    call->service = service;
    call->request = request;
    call->argument = json_incref(argument);
    return call;
}

/* The only way out: the request was answered. */
static void call_end(struct call *call)
{
    order_clear(&call->order);
    json_decref(call->argument);
    free(call->headers);
    free(call);
}

/* What the store said when it was asked: anything but OK is the end. */
static void call_started(struct call *call, enum order_store_status status)
{
    if (status == ORDER_STORE_OK)
        return;
    call_fail(call, status);
    call_end(call);
}

/* No longer than the caller waits. */
static uint64_t call_deadline_ms(const struct call *call)
{
    uint64_t own_ms = rpc_loop_now_ms(call->service->loop) + (uint64_t)call->service->store_timeout_ms;
    uint64_t callers_ms = rpc_incoming_deadline_ms(call->request);

    return callers_ms < own_ms ? callers_ms : own_ms;
}

static void call_answer_text(struct call *call, struct rpc_bytes answer)
{
    if (call->service->text.failed && call->is_change) /* it was done: the caller may ask again */
        rpc_incoming_fail(call->request, "OutcomeUnknown", "out of memory");
    else if (call->service->text.failed)
        fail_no_memory(call->request);
    else if (answer.size > ANSWER_SIZE_MAX)
        call_fail(call, ORDER_STORE_TOO_LARGE);
    else
        rpc_incoming_answer(call->request, answer);
    call_end(call);
}

static struct rpc_text *call_text(const struct call *call)
{
    rpc_text_reset(&call->service->text, TEXT_KEEP_SIZE);
    return &call->service->text;
}

/* get_order, update_order: one order. */
static void call_on_order(struct order_store_unit *unit, enum order_store_status status)
{
    struct call *call = (struct call *)unit;
    struct rpc_text *text;

    if (status != ORDER_STORE_OK) {
        call_started(call, status);
        return;
    }
    text = call_text(call);
    order_print(text, &unit->orders[0]);
    call_answer_text(call, rpc_text_bytes(text));
}

/* The order's id of a request; false when it is answered: none, or none that an order can have. */
static bool accept_id(struct rpc_incoming *request, int32_t *id, const json_t *value)
{
    switch (order_id_read(id, value)) {
    case ORDER_ID_OK:
        return true;
    case ORDER_ID_IMPOSSIBLE:
        fail_not_found(request, value, argument_spelled(request, "order_id"));
        return false;
    case ORDER_ID_INVALID:
        fail_validation(
            request, order_error("order_id", json_is_null(value) ? "Field may not be null." : "Not a valid integer."));
        return false;
    }
    return false;
}

/* ---- get_order --------------------------------------------------------------------------------------------------- */

static void get_order(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    struct orders_service *service = arg;
    struct call *call;
    int32_t id;

    if (!accept_id(request, &id, arguments[0]))
        return;
    call = call_new(service, request, arguments[0], fail_no_memory);
    if (call != NULL)
        call_started(call, order_store_get(service->store, &call->unit, id, call_deadline_ms(call), call_on_order));
}

/* ---- create_order, recall_order ---------------------------------------------------------------------------------- */

/*
 * create_order: the lines are read -> the store makes order, event and key -> the event is published -> the order is
 * answered.  The event leaves before the answer does, with the request's own context; where it cannot, it stays in the
 * outbox.
 */
static void create_on_order(struct order_store_unit *unit, enum order_store_status status)
{
    struct call *call = (struct call *)unit;
    struct orders_service *service = call->service;
    struct rpc_bytes event, answer = {.data = NULL, .size = 0};
    struct rpc_text *text;

    if (status != ORDER_STORE_OK) {
        call_started(call, status);
        return;
    }
    text = call_text(call);
    rpc_text_append(text, RPC_BYTES(EVENT_START));
    order_print(text, &call->order);
    rpc_text_append(text, RPC_BYTES("}"));
    if (!text->failed) {
        event = rpc_text_bytes(text);
        answer =
            (struct rpc_bytes){.data = event.data + sizeof(EVENT_START) - 1, .size = event.size - sizeof(EVENT_START)};
        if (unit->event_id != 0)
            outbox_offer(service->outbox, unit->event_id, EVENT_TYPE, event, rpc_incoming_context(call->request));
    }
    call_answer_text(call, answer);
}

/* The client's Idempotency-Key, {NULL, 0}: none.  False when it is none that can be kept, and the request answered. */
static bool accept_key(struct rpc_incoming *request, struct rpc_bytes *key, fail_fn *fail_memory)
{
    const struct rpc_context *context = rpc_incoming_context(request);
    json_t *text;
    bool is_text;

    if (context == NULL) { /* without its key it would be made again when it is sent again */
        fail_memory(request);
        return false;
    }
    *key = rpc_context_get(context, "idempotency_key");
    if (key->data == NULL)
        return true;
    text = json_stringn(key->data, key->size); /* NULL unless it is UTF-8 */
    is_text = text != NULL && memchr(key->data, '\0', key->size) == NULL;
    json_decref(text);
    if (is_text && key->size >= 1 && key->size <= ORDER_STORE_KEY_SIZE_MAX)
        return true;
    fail_validation(
        request, order_error("idempotency_key", is_text ? "Length must be between 1 and 255." : "Not a valid string."));
    return false;
}

/* The lines and the key that create_order and recall_order are asked with; NULL when the request is answered. */
static struct call *creation_read(struct orders_service *service, struct rpc_incoming *request,
                                  json_t *const arguments[], struct order_creation *creation, fail_fn *fail_memory)
{
    struct order order = {.id = 0};
    json_t *messages = NULL;
    struct call *call;

    if (!accept_key(request, &creation->idempotency_key, fail_memory) ||
        !accept(request, order_read_new(&order, arguments[0], &messages), &messages, fail_memory))
        return NULL;
    call = call_new(service, request, NULL, fail_memory);
    if (call == NULL) {
        order_clear(&order);
        return NULL;
    }
    call->order = order;
    creation->order = &call->order;
    creation->request_id = rpc_bytes_of(rpc_incoming_correlation_id(request));
    return call;
}

static void create_order(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    struct orders_service *service = arg;
    struct order_creation creation = {.order = NULL};
    struct call *call = creation_read(service, request, arguments, &creation, fail_change_no_memory);
    const struct rpc_context *context;
    size_t size = 0;

    if (call == NULL)
        return;
    context = rpc_incoming_context(request);
    if (context != NULL)
        call->headers = rpc_context_to_json(context, &size);
    if (call->headers == NULL) {
        fail_change_no_memory(request);
        call_end(call);
        return;
    }
    creation.headers = (struct rpc_bytes){.data = call->headers, .size = size};
    call->is_change = true;
    call_started(call,
                 order_store_create(service->store, &call->unit, &creation, call_deadline_ms(call), create_on_order));
}

static void recall_on_order(struct order_store_unit *unit, enum order_store_status status)
{
    struct call *call = (struct call *)unit;
    struct rpc_text *text;

    switch (status) {
    case ORDER_STORE_OK:
        text = call_text(call);
        order_print(text, &call->order);
        call_answer_text(call, rpc_text_bytes(text));
        break;
    case ORDER_STORE_NOT_FOUND:
        rpc_incoming_answer(call->request, RPC_BYTES("null"));
        call_end(call);
        break;
    case ORDER_STORE_LINE_NOT_FOUND:
    case ORDER_STORE_KEY_REUSED:
    case ORDER_STORE_TOO_LARGE:
    case ORDER_STORE_BUSY:
    case ORDER_STORE_UNAVAILABLE:
    case ORDER_STORE_UNKNOWN:
    case ORDER_STORE_FAILED:
        call_started(call, status);
        break;
    }
}

static void recall_order(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    struct orders_service *service = arg;
    struct order_creation creation = {.order = NULL};
    struct call *call = creation_read(service, request, arguments, &creation, fail_no_memory);

    if (call == NULL)
        return;
    if (creation.idempotency_key.data == NULL) {
        rpc_incoming_answer(request, RPC_BYTES("null"));
        call_end(call);
        return;
    }
    call_started(call,
                 order_store_recall(service->store, &call->unit, &creation, call_deadline_ms(call), recall_on_order));
}

/* ---- update_order ------------------------------------------------------------------------------------------------ */

static void update_order(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    struct orders_service *service = arg;
    struct order change = {.id = 0};
    json_t *messages = NULL;
    struct call *call;

    if (!accept(request, order_read_change(&change, arguments[0], &messages), &messages, fail_change_no_memory))
        return;
    if (change.id == 0) { /* no order can have it */
        fail_not_found(request, json_object_get(arguments[0], "id"),
                       member_spelled(argument_spelled(request, "order"), "id"));
        order_clear(&change);
        return;
    }
    call = call_new(service, request, arguments[0], fail_change_no_memory);
    if (call == NULL) {
        order_clear(&change);
        return;
    }
    call->order = change;
    call->is_change = true;
    call_started(call, order_store_update(service->store, &call->unit, &call->order,
                                          rpc_bytes_of(rpc_incoming_correlation_id(request)), call_deadline_ms(call),
                                          call_on_order));
}

/* ---- delete_order ------------------------------------------------------------------------------------------------ */

static void delete_on_deleted(struct order_store_unit *unit, enum order_store_status status)
{
    struct call *call = (struct call *)unit;

    if (status != ORDER_STORE_OK) {
        call_started(call, status);
        return;
    }
    rpc_incoming_answer(call->request, RPC_BYTES("null"));
    call_end(call);
}

static void delete_order(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    struct orders_service *service = arg;
    struct call *call;
    int32_t id;

    if (!accept_id(request, &id, arguments[0]))
        return;
    call = call_new(service, request, arguments[0], fail_change_no_memory);
    if (call == NULL)
        return;
    call->is_change = true;
    call_started(call,
                 order_store_delete(service->store, &call->unit, id, rpc_bytes_of(rpc_incoming_correlation_id(request)),
                                    call_deadline_ms(call), delete_on_deleted));
}

/* ---- list_orders ------------------------------------------------------------------------------------------------- */

static void list_on_orders(struct order_store_unit *unit, enum order_store_status status)
{
    struct call *call = (struct call *)unit;
    struct rpc_text *text;
    size_t index;

    if (status != ORDER_STORE_OK) {
        call_started(call, status);
        return;
    }
    text = call_text(call);
    rpc_text_append(text, RPC_BYTES("["));
    for (index = 0; index < unit->orders_count && text->size <= ANSWER_SIZE_MAX; index++) {
        if (index > 0)
            rpc_text_append(text, RPC_BYTES(","));
        order_print(text, &unit->orders[index]);
    }
    rpc_text_append(text, RPC_BYTES("]"));
    call_answer_text(call, rpc_text_bytes(text));
}

static void list_orders(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    struct orders_service *service = arg;
    json_t *messages = NULL;
    struct order_page page;
    struct call *call;

    if (!accept(request, order_read_page(&page, arguments[0], arguments[1], &messages), &messages, fail_no_memory))
        return;
    call = call_new(service, request, NULL, fail_no_memory);
    if (call == NULL)
        return;
    call->is_page = true;
    call_started(call, order_store_list(service->store, &call->unit, page, call_deadline_ms(call), list_on_orders));
}

/* ---- The service ------------------------------------------------------------------------------------------------- */

static const char *const order_id_parameter[] = {"order_id", NULL};
static const char *const order_details_parameter[] = {"order_details", NULL};
static const char *const order_parameter[] = {"order", NULL};
static const char *const page_parameters[] = {"after", "limit", NULL};

static const struct rpc_method methods[] = {
    {.name = "get_order", .parameters = order_id_parameter, .parameters_required = 1, .handler = get_order},
    {.name = "create_order", .parameters = order_details_parameter, .parameters_required = 1, .handler = create_order},
    {.name = "update_order", .parameters = order_parameter, .parameters_required = 1, .handler = update_order},
    {.name = "delete_order", .parameters = order_id_parameter, .parameters_required = 1, .handler = delete_order},
    {.name = "list_orders", .parameters = page_parameters, .parameters_required = 0, .handler = list_orders},
    {.name = "recall_order", .parameters = order_details_parameter, .parameters_required = 1, .handler = recall_order},
};

static void service_on_ready(void *arg)
{
    struct orders_service *service = arg;

    if (service->on_ready != NULL)
        service->on_ready(service->arg);
}

static void service_on_store(bool up, void *arg)
{
    struct orders_service *service = arg;

    if (service->rpc != NULL)
        rpc_service_set_able(service->rpc, up);
    if (up)
        outbox_look(service->outbox);
    service_on_ready(service);
}

struct orders_service *orders_service_new(const struct orders_service_options *options)
{
    struct orders_service *service = calloc(1, sizeof(*service));

    if (service == NULL)
        return NULL;
    service->loop = options->loop;
    service->store_timeout_ms = options->store_timeout_ms;
    service->on_ready = options->on_ready;
    service->arg = options->arg;
    service->store = order_store_new(&(struct order_store_options){
        .loop = options->loop,
        .uri = options->postgres_uri,
        .connections = options->database_connections,
        .timeout_ms = options->store_timeout_ms,
        .key_ttl_s = options->key_ttl_s,
        .claim_ms = OUTBOX_CLAIM_MS,
        .on_up = service_on_store,
        .arg = service,
    });
    if (service->store == NULL)
        goto failed;
    service->outbox = outbox_new(&(struct outbox_options){
        .loop = options->loop,
        .connection = options->connection,
        .store = service->store,
        .store_timeout_ms = options->store_timeout_ms,
        .on_ready = service_on_ready,
        .arg = service,
    });
    service->key_expiry = key_expiry_new(options->loop, service->store, options->store_timeout_ms);
    service->rpc = rpc_service_new(options->connection, &(struct rpc_service_options){
                                                            .name = "orders",
                                                            .methods = methods,
                                                            .methods_count = sizeof(methods) / sizeof(methods[0]),
                                                            .prefetch = options->prefetch,
                                                            .keep_dead_letters = true,
                                                            .unable = true, /* until the store is there */
                                                            .on_ready = service_on_ready,
                                                            .arg = service,
                                                        });
    if (service->outbox == NULL || service->key_expiry == NULL || service->rpc == NULL)
        goto failed;
    return service;
failed:
    orders_service_free(service);
    return NULL;
}

bool orders_service_ready(const struct orders_service *service)
{
    return service->stop_limit_ms == 0 && rpc_service_ready(service->rpc) && outbox_is_ready(service->outbox) &&
           order_store_is_up(service->store);
}

void orders_service_metrics(const struct orders_service *service, struct rpc_metrics *metrics)
{
    struct rpc_service_stats stats;

    rpc_service_stats(service->rpc, &stats);
    rpc_metrics_counter(metrics, "rpc_requests_total", "Requests delivered", stats.requests);
    rpc_metrics_counter(metrics, "rpc_answers_total", "Answers sent, results and errors", stats.answers);
    rpc_metrics_counter(metrics, "rpc_errors_total", "Answers that were errors", stats.errors);
    rpc_metrics_counter(metrics, "rpc_rejected_total", "Messages that were no requests", stats.rejected);
    rpc_metrics_counter(metrics, "rpc_handed_back_total", "Messages handed back unstarted", stats.handed_back);
    rpc_metrics_gauge(metrics, "rpc_in_flight", "Requests under way", rpc_service_in_flight(service->rpc));
    order_store_metrics(service->store, metrics);
    outbox_metrics(service->outbox, metrics);
}

static void stop_on_events(void *arg)
{
    struct orders_service *service = arg;

    if (service->stopped != NULL)
        service->stopped(service->stopped_arg);
}

static void stop_on_requests(void *arg)
{
    struct orders_service *service = arg;
    uint64_t now_ms = rpc_loop_now_ms(service->loop);
    int left_ms = service->stop_limit_ms > now_ms ? (int)(service->stop_limit_ms - now_ms) : 0;

    outbox_stop(service->outbox, left_ms, stop_on_events, service);
}

void orders_service_stop(struct orders_service *service, int timeout_ms, rpc_loop_fn *done, void *arg)
{
    service->stop_limit_ms = rpc_loop_now_ms(service->loop) + (uint64_t)timeout_ms;
    service->stopped = done;
    service->stopped_arg = arg;
    rpc_service_stop(service->rpc, timeout_ms - timeout_ms / STOP_OUTBOX_PART, stop_on_requests, service);
}

void orders_service_free(struct orders_service *service)
{
    if (service == NULL)
        return;
    rpc_service_free(service->rpc); /* first: from here on, answers do nothing */
    service->rpc = NULL;
    service->on_ready = NULL;
    service->stopped = NULL;
    order_store_free(service->store); /* what is under way ends, and is answered so */
    outbox_free(service->outbox);
    key_expiry_free(service->key_expiry);
    rpc_text_clear(&service->text);
    free(service);
}

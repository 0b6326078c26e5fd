#include "service.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "order_event.h"
#include "product.h"
#include "rpclib/backoff.h"
#include "rpclib/json.h"
#include "rpclib/log.h"
#include "rpclib/service.h"
#include "rpclib/utc.h"
#include "rpclib/utf8.h"
#include "store_apply.h"
#include "store_list.h"
#include "store_product.h"

#define LIST_SIZE_MAX      (RPC_MESSAGE_SIZE_MAX - 1024u) /* the envelope needs a little */
#define LIST_TIME_MAX_MS   30000u                         /* when the caller does not say how long it waits */
#define EVENT_ATTEMPTS_MAX 6 /* of an event whose products are damaged; about five minutes in all */
#define EVENT_RETRY_MIN_MS 100
#define EVENT_RETRY_MAX_MS 5000
#define REMEMBER_MARGIN_S  60u          /* a request is remembered for so much longer than the broker keeps it */
#define TEXT_KEEP_SIZE     (64u * 1024) /* memory that is kept for the next answer */
#define REFUSAL_LOG_MS     1000u /* at most one line in that time: a full Redis refuses thousands of commands a second */
#define VALUE_SIZE         256   /* an error's text */

struct products_service {
    struct rpc_loop *loop;
    struct rpc_service *rpc;     /* owned */
    struct product_store *store; /* owned */
    rpc_loop_fn *on_ready;
    void *arg;
    bool is_stopping;
    struct call *calls_free;      /* owned; as many as were ever under way at once */
    struct rpc_text text;         /* the answer that is being printed */
    struct order_work *waiting;   /* owned; events that could not be applied yet */
    struct rpc_loop_timer *retry; /* for them */
    unsigned retries;             /* since one was applied, or Redis came */
    uint64_t refusal_logged_ms;
    size_t waiting_count;
    uint64_t applied, seen, missing, refused; /* products of orders, see struct product_application */
    uint64_t damaged;                         /* answers that would have been a product that is none */
};

/* One request under way. */
struct call {
    struct product_request store; /* first */
    struct products_service *service;
    struct rpc_incoming *request; /* owned until answered */
    json_t *product_id;           /* owned; what get was asked for */
    bool is_change;
    struct call *next_free;
};

/* One event under way. */
struct order_work {
    struct product_application application; /* first */
    struct products_service *service;
    struct rpc_event *event;  /* owned until finished */
    struct order_event order; /* owned */
    bool is_delay_logged;
    struct order_work *next_waiting;
};

/* ---- Answers ------------------------------------------------------------------------------------------------------ */

static void log_refusal(struct products_service *service, const struct rpc_incoming *request)
{
    uint64_t now_ms = rpc_loop_now_ms(service->loop);

    if (service->refusal_logged_ms != 0 && now_ms - service->refusal_logged_ms < REFUSAL_LOG_MS)
        return;
    service->refusal_logged_ms = now_ms;
    rpc_log(RPC_LOG_WARNING, "redis refuses a command",
            RPC_LOG_TEXT("correlation_id", rpc_incoming_correlation_id(request)),
            RPC_LOG_TEXT("reason", product_store_reason(service->store)));
}

static void fail_unavailable(struct products_service *service, struct rpc_incoming *request)
{
    char value[VALUE_SIZE], since[RPC_UTC_SIZE];

    if (product_store_is_up(service->store)) {
        log_refusal(service, request);
        rpc_incoming_fail(request, "ServiceUnavailable", "Redis refuses commands for now");
        return;
    }
    rpc_utc_print(since, product_store_since(service->store));
    snprintf(value, sizeof(value), "Redis is away since %s", since);
    rpc_incoming_fail(request, "ServiceUnavailable", value);
}

static void fail_no_memory(struct rpc_incoming *request)
{
    rpc_incoming_fail(request, "ServiceBusy", "out of memory; nothing was done");
}

/* An id longer than a product's may be is shown cut, and "..." behind it. */
static const char *cut_mark(struct rpc_bytes id, struct rpc_bytes shown)
{
    return shown.size < id.size ? "..." : "";
}

static void fail_not_found(struct rpc_incoming *request, struct rpc_bytes id)
{
    char value[PRODUCT_ID_SIZE_MAX + 64];
    struct rpc_bytes shown = rpc_utf8_cut(id, PRODUCT_ID_SIZE_MAX);

    snprintf(value, sizeof(value), "Product ID %.*s%s does not exist", (int)shown.size, shown.data,
             cut_mark(id, shown));
    rpc_incoming_fail(request, "NotFound", value);
}

/* One product may be what takes the others' room: it is named. */
static void fail_too_large(struct rpc_incoming *request, const struct product_listing *listing)
{
    char value[PRODUCT_ID_SIZE_MAX + 128];
    struct rpc_bytes id = listing->largest_id, shown = rpc_utf8_cut(id, PRODUCT_ID_SIZE_MAX);
    int used;

    used = snprintf(value, sizeof(value), "more than %u bytes of products", LIST_SIZE_MAX);
    if (listing->largest_size > 0)
        snprintf(value + used, sizeof(value) - (size_t)used, "; the largest has %zu: %.*s%s", listing->largest_size,
                 (int)shown.size, shown.data, cut_mark(id, shown));
    rpc_log(RPC_LOG_WARNING, "a list is too large",
            RPC_LOG_TEXT("correlation_id", rpc_incoming_correlation_id(request)), RPC_LOG_TEXT("reason", value));
    rpc_incoming_fail(request, "ListTooLong", value);
}

/* Every way in which a request may end without a result. */
static void fail(struct products_service *service, struct rpc_incoming *request, enum product_store_status status,
                 struct rpc_bytes id)
{
    char value[VALUE_SIZE];

    switch (status) {
    case PRODUCT_STORE_NOT_FOUND:
        fail_not_found(request, id);
        return;
    case PRODUCT_STORE_UNAVAILABLE:
        fail_unavailable(service, request);
        return;
    case PRODUCT_STORE_BUSY:
        snprintf(value, sizeof(value), "at most %d commands and %d lists at once", REDIS_COMMANDS_MAX,
                 PRODUCT_LISTS_MAX);
        rpc_incoming_fail(request, "ServiceBusy", value);
        return;
    case PRODUCT_STORE_UNKNOWN:
        rpc_incoming_fail(request, "OutcomeUnknown", "Redis was lost while it may have done it");
        return;
    case PRODUCT_STORE_TOO_MANY:
        snprintf(value, sizeof(value), "more than %d products", PRODUCT_LIST_MAX);
        rpc_incoming_fail(request, "ListTooLong", value);
        return;
    case PRODUCT_STORE_TOO_LARGE:
        fail_too_large(request, &(struct product_listing){.largest_size = 0});
        return;
    case PRODUCT_STORE_LATE:
        rpc_incoming_fail(request, "ServiceUnavailable", "the list was not complete in time");
        return;
    case PRODUCT_STORE_DAMAGED:
        service->damaged++;
        rpc_incoming_fail_unexpected(request, "what Redis has under the product's key is no product");
        return;
    case PRODUCT_STORE_FAILED:
        rpc_incoming_fail_unexpected(request, product_store_reason(service->store));
        return;
    case PRODUCT_STORE_NO_MEMORY:
        fail_no_memory(request);
        return;
    case PRODUCT_STORE_OK:
        break;
    }
    rpc_incoming_fail_unexpected(request, "a success that has no result");
}

/* ---- Requests under way ------------------------------------------------------------------------------------------- */

/* Whoever had the request before may have carried it out, and died before it was answered. */
static void fail_redelivered(struct rpc_incoming *request)
{
    rpc_incoming_fail(request, "OutcomeUnknown", "it came before; Redis cannot say now whether it was done");
}

/* NULL, and the request answered, when out of memory. */
static struct call *call_new(struct products_service *service, struct rpc_incoming *request, json_t *product_id,
                             bool is_change)
{
    struct call *call = service->calls_free;

    if (call != NULL)
        service->calls_free = call->next_free;
    else
        call = malloc(sizeof(*call));
    if (call == NULL && is_change && rpc_incoming_redelivered(request))
        fail_redelivered(request);
    else if (call == NULL)
        fail_no_memory(request);
    if (call == NULL)
        return NULL;
    call->service = service;
    call->request = request;
    call->product_id = json_incref(product_id);
    call->is_change = is_change;
    return call;
}

/* The only way out: the request was answered. */
static void call_end(struct call *call)
{
    json_decref(call->product_id);
    call->next_free = call->service->calls_free;
    call->service->calls_free = call;
}

static bool may_be_done(const struct call *call, enum product_store_status status)
{
    bool is_short =
        status == PRODUCT_STORE_UNAVAILABLE || status == PRODUCT_STORE_BUSY || status == PRODUCT_STORE_NO_MEMORY;

    return is_short && call->is_change && rpc_incoming_redelivered(call->request);
}

static void call_fail(struct call *call, enum product_store_status status)
{
    if (may_be_done(call, status))
        fail_redelivered(call->request);
    else
        fail(call->service, call->request, status, rpc_json_text(call->product_id));
    call_end(call);
}

static void call_answer(struct call *call, struct rpc_bytes result)
{
    rpc_incoming_answer(call->request, result);
    call_end(call);
}

/*
 * An id is a string.  The original puts whatever it gets into the key, so that it finds "5" for 5, and "None" for null;
 * a caller that does so by mistake is told what is wrong, as by every other field.  Any string may be asked for: one that
 * no product can have finds none.
 */
static bool check_product_id(struct rpc_incoming *request, const json_t *product_id)
{
    json_t *messages;

    if (json_is_string(product_id))
        return true;
    messages =
        json_pack("{s:[s]}", "product_id", json_is_null(product_id) ? "Field may not be null." : "Not a valid string.");
    if (messages != NULL)
        rpc_incoming_fail_validation(request, messages);
    else
        fail_no_memory(request);
    json_decref(messages);
    return false;
}

typedef enum product_store_status operation_fn(struct product_store *store, struct product_request *request,
                                               struct rpc_bytes id, product_request_fn *done);

/* get, exists: one command about one id. */
static void call_by_id(struct products_service *service, struct rpc_incoming *request, json_t *product_id,
                       operation_fn *operation, product_request_fn *done)
{
    enum product_store_status status;
    struct call *call;

    if (!check_product_id(request, product_id))
        return;
    call = call_new(service, request, product_id, false);
    if (call == NULL)
        return;
    status = operation(service->store, &call->store, rpc_json_text(product_id), done);
    if (status != PRODUCT_STORE_OK)
        call_fail(call, status);
}

/* ---- The methods -------------------------------------------------------------------------------------------------- */

static void get_on_product(struct product_request *request, enum product_store_status status,
                           const struct rpc_bytes fields[PRODUCT_FIELDS])
{
    struct call *call = (struct call *)request;
    struct rpc_text *text = &call->service->text;

    if (status != PRODUCT_STORE_OK) {
        call_fail(call, status);
        return;
    }
    rpc_text_reset(text, TEXT_KEEP_SIZE);
    switch (product_print(text, fields)) {
    case PRODUCT_PRINT_OK:
        call_answer(call, rpc_text_bytes(text));
        break;
    case PRODUCT_PRINT_DAMAGED:
        call_fail(call, PRODUCT_STORE_DAMAGED);
        break;
    case PRODUCT_PRINT_NO_MEMORY:
        call_fail(call, PRODUCT_STORE_NO_MEMORY);
        break;
    }
}

static void get(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    call_by_id(arg, request, arguments[0], product_store_get, get_on_product);
}

static void exists_on_answer(struct product_request *request, enum product_store_status status,
                             const struct rpc_bytes fields[PRODUCT_FIELDS])
{
    struct call *call = (struct call *)request;

    (void)fields;
    if (status == PRODUCT_STORE_OK)
        call_answer(call, RPC_BYTES("true"));
    else if (status == PRODUCT_STORE_NOT_FOUND)
        call_answer(call, RPC_BYTES("false"));
    else
        call_fail(call, status);
}

static void exists(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    call_by_id(arg, request, arguments[0], product_store_exists, exists_on_answer);
}

static void change_on_done(struct product_request *request, enum product_store_status status,
                           const struct rpc_bytes fields[PRODUCT_FIELDS])
{
    struct call *call = (struct call *)request;

    (void)fields;
    if (status == PRODUCT_STORE_OK)
        call_answer(call, RPC_BYTES("null"));
    else
        call_fail(call, status);
}

/*
 * The broker delivers a request again when the link breaks behind its answer, but none whose expiration has passed.  One
 * that has none may come again for long; a day must do.
 */
static int64_t remember_s(const struct products_service *service, const struct rpc_incoming *request)
{
    uint64_t deadline_ms = rpc_incoming_deadline_ms(request), now_ms = rpc_loop_now_ms(service->loop);
    uint64_t left_s = deadline_ms == UINT64_MAX ? PRODUCT_REQUEST_TTL_S
                      : deadline_ms > now_ms    ? (deadline_ms - now_ms) / 1000 + REMEMBER_MARGIN_S
                                                : REMEMBER_MARGIN_S;

    return (int64_t)(left_s < PRODUCT_REQUEST_TTL_S ? left_s : PRODUCT_REQUEST_TTL_S);
}

/* What a change is known by; false: nobody can tell it from another. */
static bool call_name_change(const struct call *call, struct product_request_name *name)
{
    name->request_id = rpc_bytes_of(rpc_incoming_correlation_id(call->request));
    name->remember_s = remember_s(call->service, call->request);
    return name->request_id.size > 0;
}

static void delete_product(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    struct products_service *service = arg;
    struct product_request_name name;
    enum product_store_status status;
    struct rpc_bytes id;
    struct call *call;

    if (!check_product_id(request, arguments[0]))
        return;
    call = call_new(service, request, arguments[0], true);
    if (call == NULL)
        return;
    id = rpc_json_text(call->product_id);
    status = call_name_change(call, &name)
                 ? product_store_delete_once(service->store, &call->store, id, &name, change_on_done)
                 : product_store_delete(service->store, &call->store, id, change_on_done);
    if (status != PRODUCT_STORE_OK)
        call_fail(call, status);
}

static void create(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    struct products_service *service = arg;
    struct product_request_name name;
    enum product_store_status status;
    struct product product;
    struct call *call;
    json_t *messages;

    if (!product_from_json(&product, arguments[0], &messages)) {
        if (messages != NULL)
            rpc_incoming_fail_validation(request, messages);
        else
            fail_no_memory(request); /* to say what is wrong with it */
        json_decref(messages);
        return;
    }
    call = call_new(service, request, json_object_get(arguments[0], "id"), true);
    if (call == NULL)
        return;
    status = call_name_change(call, &name)
                 ? product_store_create_once(service->store, &call->store, &product, &name, change_on_done)
                 : product_store_create(service->store, &call->store, &product, change_on_done);
    if (status != PRODUCT_STORE_OK)
        call_fail(call, status);
}

static void list_on_products(enum product_store_status status, const struct product_listing *listing, void *arg)
{
    struct call *call = arg;

    if (listing->damaged > 0)
        rpc_log(RPC_LOG_WARNING, "a list leaves out what is no product", RPC_LOG_INT("damaged", listing->damaged));
    if (status == PRODUCT_STORE_OK) {
        call_answer(call, listing->products);
    } else if (status == PRODUCT_STORE_TOO_LARGE) {
        fail_too_large(call->request, listing);
        call_end(call);
    } else {
        call_fail(call, status);
    }
}

static void list(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    struct products_service *service = arg;
    uint64_t limit_ms = rpc_loop_now_ms(service->loop) + LIST_TIME_MAX_MS;
    uint64_t deadline_ms = rpc_incoming_deadline_ms(request);
    struct product_list_limits limits = {
        .size_max = LIST_SIZE_MAX,
        .deadline_ms = deadline_ms < limit_ms ? deadline_ms : limit_ms,
    };
    struct call *call = call_new(service, request, NULL, false);
    enum product_store_status status;

    (void)arguments;
    if (call == NULL)
        return;
    status = product_store_list(service->store, &limits, list_on_products, call);
    if (status != PRODUCT_STORE_OK)
        call_fail(call, status);
}

/*
 * ---- The orders' events ----
 *
 * An event is finished when it is applied, and put among the dead letters when it is none.  While Redis is away or says
 * no, it is kept here and tried again; the broker delivers no more than the prefetch.  When this instance stands by,
 * another one gets it.  One that a damaged product refuses is tried again a few times, by way of the broker, and is a dead
 * letter then.
 */

/* The only way out. */
static void work_free(struct order_work *work)
{
    order_event_clear(&work->order);
    free(work);
}

static void work_hand_back(struct order_work *work)
{
    rpc_event_hand_back(work->event);
    work_free(work);
}

static void work_wait(struct order_work *work, enum product_store_status status)
{
    struct products_service *service = work->service;

    if (service->is_stopping || rpc_event_standby(work->event)) {
        work_hand_back(work);
        return;
    }
    if (!work->is_delay_logged && product_store_is_up(service->store)) /* else the store has said it */
        rpc_log(RPC_LOG_WARNING, "an order is applied later", RPC_LOG_INT("order_id", work->order.order_id),
                RPC_LOG_TEXT("status", product_store_status_name(status)),
                RPC_LOG_TEXT("reason", product_store_reason(service->store)));
    work->is_delay_logged = true;
    service->waiting_count++;
    work->next_waiting = service->waiting;
    if (service->waiting == NULL)
        rpc_loop_timer_start(service->retry,
                             rpc_backoff_ms(service->retries++, EVENT_RETRY_MIN_MS, EVENT_RETRY_MAX_MS));
    service->waiting = work;
}

static void work_tell(const struct order_work *work)
{
    const struct product_application *application = &work->application;
    struct products_service *service = work->service;

    service->applied += application->applied;
    service->seen += application->seen;
    service->missing += application->missing;
    service->refused += application->refused;

    if (application->refused > 0 || application->missing > 0)
        rpc_log(application->refused > 0 ? RPC_LOG_WARNING : RPC_LOG_INFO, "an order changes not all of its products",
                RPC_LOG_INT("order_id", work->order.order_id), RPC_LOG_INT("applied", application->applied),
                RPC_LOG_INT("seen", application->seen), RPC_LOG_INT("missing", application->missing),
                RPC_LOG_INT("refused", application->refused));
    else
        rpc_log(RPC_LOG_DEBUG, "order applied", RPC_LOG_INT("order_id", work->order.order_id),
                RPC_LOG_INT("applied", application->applied), RPC_LOG_INT("seen", application->seen));
}

static void work_on_applied(struct product_application *application, enum product_store_status status)
{
    struct order_work *work = (struct order_work *)application;

    if (status != PRODUCT_STORE_OK) {
        work_wait(work, status);
        return;
    }
    work->service->retries = 0;
    work_tell(work);
    if (application->refused > 0) /* what was applied is remembered: the next attempt changes the rest alone */
        rpc_event_fail(work->event, "the stock of a product is no integer, or would not fit 64 bits");
    else
        rpc_event_done(work->event);
    work_free(work);
}

static void work_apply(struct order_work *work)
{
    enum product_store_status status =
        product_store_apply(work->service->store, &work->application, &work->order, work_on_applied);

    if (status != PRODUCT_STORE_OK)
        work_wait(work, status);
}

/* Each of those that wait now; it may wait again after that. */
static void waiting_take(struct products_service *service, void (*take)(struct order_work *work))
{
    struct order_work *work = service->waiting;

    service->waiting = NULL;
    service->waiting_count = 0;
    while (work != NULL) {
        struct order_work *next = work->next_waiting;

        take(work);
        work = next;
    }
}

static void service_on_retry(void *arg)
{
    waiting_take(arg, work_apply);
}

static void handle_order_created(struct rpc_event *event, json_t *data, void *arg)
{
    struct products_service *service = arg;
    struct order_event order;
    struct order_work *work;
    const char *fault;

    if (!order_event_read(&order, data, &fault)) {
        if (fault != NULL)
            rpc_event_reject(event, fault);
        else
            rpc_event_hand_back(event); /* out of memory */
        return;
    }
    work = order.count > 0 ? calloc(1, sizeof(*work)) : NULL;
    if (work == NULL) {
        if (order.count > 0)
            rpc_event_hand_back(event); /* out of memory */
        else
            rpc_event_done(event); /* an order of nothing */
        order_event_clear(&order);
        return;
    }
    work->service = service;
    work->event = event;
    work->order = order;
    work_apply(work);
}

/* ---- The service -------------------------------------------------------------------------------------------------- */

static const char *const no_parameters[] = {NULL};
static const char *const product_id_parameter[] = {"product_id", NULL};
static const char *const product_parameter[] = {"product", NULL};

static const struct rpc_method methods[] = {
    {.name = "get", .parameters = product_id_parameter, .parameters_required = 1, .handler = get},
    {.name = "exists", .parameters = product_id_parameter, .parameters_required = 1, .handler = exists},
    {.name = "list", .parameters = no_parameters, .parameters_required = 0, .handler = list},
    {.name = "create", .parameters = product_parameter, .parameters_required = 1, .handler = create},
    {.name = "delete", .parameters = product_id_parameter, .parameters_required = 1, .handler = delete_product},
};

static const struct rpc_event_handler event_handlers[] = {
    {
        .source = "orders",
        .event_type = "order_created",
        .name = "handle_order_created",
        .kind = RPC_EVENT_SERVICE_POOL,
        .attempts_max = EVENT_ATTEMPTS_MAX,
        .handler = handle_order_created,
    },
};

static void service_tell_ready(struct products_service *service)
{
    if (service->on_ready != NULL && products_service_ready(service))
        service->on_ready(service->arg);
}

static void service_on_rpc_ready(void *arg)
{
    service_tell_ready(arg);
}

/* Or it goes back to the broker. */
static void work_wait_on(struct order_work *work)
{
    work_wait(work, PRODUCT_STORE_UNAVAILABLE);
}

static void service_on_standby(void *arg)
{
    waiting_take(arg, work_wait_on);
}

static void service_on_store_state(bool up, void *arg)
{
    struct products_service *service = arg;

    if (service->rpc != NULL)
        rpc_service_set_able(service->rpc, up);
    if (!up)
        return;
    service->retries = 0;
    if (service->waiting != NULL)
        rpc_loop_timer_start(service->retry, 0);
    service_tell_ready(service);
}

struct products_service *products_service_new(const struct products_service_options *options)
{
    struct products_service *service = calloc(1, sizeof(*service));

    if (service == NULL)
        return NULL;
    service->loop = options->loop;
    service->on_ready = options->on_ready;
    service->arg = options->arg;
    service->retry = rpc_loop_timer_new(options->loop, service_on_retry, service);
    service->store = product_store_new(&(struct product_store_options){
        .loop = options->loop,
        .uri = options->redis,
        .timeout_ms = options->store_timeout_ms,
        .applied_ttl_s = options->applied_ttl_s,
        .on_state = service_on_store_state,
        .arg = service,
    });
    service->rpc = rpc_service_new(options->connection, &(struct rpc_service_options){
                                                            .name = "products",
                                                            .methods = methods,
                                                            .methods_count = sizeof(methods) / sizeof(methods[0]),
                                                            .event_handlers = event_handlers,
                                                            .event_handlers_count = 1,
                                                            .prefetch = options->prefetch,
                                                            .keep_dead_letters = true,
                                                            .unable = true, /* until the store is there */
                                                            .on_ready = service_on_rpc_ready,
                                                            .on_standby = service_on_standby,
                                                            .arg = service,
                                                        });
    if (service->retry == NULL || service->store == NULL || service->rpc == NULL) {
        products_service_free(service);
        return NULL;
    }
    return service;
}

bool products_service_ready(const struct products_service *service)
{
    return !service->is_stopping && rpc_service_ready(service->rpc) && product_store_is_up(service->store);
}

void products_service_metrics(const struct products_service *service, struct rpc_metrics *metrics)
{
    struct rpc_service_stats stats;

    rpc_service_stats(service->rpc, &stats);
    rpc_metrics_counter(metrics, "rpc_requests_total", "Requests delivered", stats.requests);
    rpc_metrics_counter(metrics, "rpc_answers_total", "Answers sent, results and errors", stats.answers);
    rpc_metrics_counter(metrics, "rpc_errors_total", "Answers that were errors", stats.errors);
    rpc_metrics_counter(metrics, "rpc_events_total", "Events delivered", stats.events);
    rpc_metrics_counter(metrics, "rpc_rejected_total", "Messages that were no requests or no events", stats.rejected);
    rpc_metrics_counter(metrics, "rpc_handed_back_total", "Messages handed back unstarted", stats.handed_back);
    rpc_metrics_gauge(metrics, "rpc_in_flight", "Requests and events under way", rpc_service_in_flight(service->rpc));
    rpc_metrics_gauge(metrics, "products_store_up", "Whether Redis is there", product_store_is_up(service->store));
    rpc_metrics_gauge(metrics, "products_store_in_flight", "Commands that Redis has not answered yet",
                      (int64_t)product_store_in_flight(service->store));
    rpc_metrics_counter(metrics, "products_damaged_total", "Answers refused because Redis holds no product there",
                        service->damaged);
    rpc_metrics_counter(metrics, "products_orders_applied_total", "Products whose stock an order lowered",
                        service->applied);
    rpc_metrics_counter(metrics, "products_orders_seen_total", "Products that an order had been applied to before",
                        service->seen);
    rpc_metrics_counter(metrics, "products_orders_missing_total", "Products of an order that are not there",
                        service->missing);
    rpc_metrics_counter(metrics, "products_orders_refused_total", "Products whose stock could not be lowered",
                        service->refused);
    rpc_metrics_gauge(metrics, "products_orders_waiting", "Orders that wait for Redis",
                      (int64_t)service->waiting_count);
}

static void waiting_hand_back(struct products_service *service)
{
    rpc_loop_timer_stop(service->retry);
    waiting_take(service, work_hand_back);
}

void products_service_stop(struct products_service *service, int timeout_ms, rpc_loop_fn *done, void *arg)
{
    service->is_stopping = true;
    rpc_service_stop(service->rpc, timeout_ms, done, arg); /* first: what is handed back is not for us again */
    waiting_hand_back(service);
}

void products_service_free(struct products_service *service)
{
    if (service == NULL)
        return;
    service->is_stopping = true;
    rpc_service_free(service->rpc); /* first: from here on, answers do nothing */
    service->rpc = NULL;
    product_store_free(service->store);
    if (service->retry != NULL)
        waiting_hand_back(service);
    rpc_loop_timer_free(service->retry);
    while (service->calls_free != NULL) {
        struct call *call = service->calls_free;

        service->calls_free = call->next_free;
        free(call);
    }
    rpc_text_clear(&service->text);
    free(service);
}

#include "store_internal.h"

#include <stdlib.h>

#include "store_change.h"
#include "store_create.h"
#include "store_events.h"
#include "store_keys.h"
#include "store_read.h"

#define UNIT_SIZE_OVERHEAD 256

/* Each has a queue in the order of this table; their statements and rows are the other files'. */
static const struct work_operation *const operations[STORE_OPERATIONS_COUNT] = {
    [STORE_CREATE_BY_REQUEST] = &store_create_by_request,
    [STORE_CREATE_BY_KEY] = &store_create_by_key,
    [STORE_RECALL] = &store_recall,
    [STORE_GET] = &store_get,
    [STORE_UPDATE] = &store_update,
    [STORE_DELETE] = &store_delete,
    [STORE_RECALL_DELETION] = &store_recall_deletion,
    [STORE_LIST] = &store_list,
    [STORE_CLAIM_EVENTS] = &store_claim_events,
    [STORE_RELEASE_EVENTS] = &store_release_events,
    [STORE_DELETE_EVENTS] = &store_delete_events,
    [STORE_FORGET_REQUESTS] = &store_forget_requests,
    [STORE_FORGET_KEYS] = &store_forget_keys,
};

/* ---- A unit on its way --------------------------------------------------------------------------------------------- */

static enum order_store_status status_of(enum work_status status)
{
    switch (status) {
    case WORK_OK:
        return ORDER_STORE_OK;
    case WORK_BUSY:
        return ORDER_STORE_BUSY;
    case WORK_UNAVAILABLE:
        return ORDER_STORE_UNAVAILABLE;
    case WORK_UNKNOWN:
        return ORDER_STORE_UNKNOWN;
    case WORK_TOO_LARGE:
        return ORDER_STORE_TOO_LARGE;
    case WORK_FAILED:
        return ORDER_STORE_FAILED;
    }
    return ORDER_STORE_FAILED;
}

/* The request may have been carried out before: its answer is read by a statement that sees what that one did. */
static void unit_look_back(struct order_store_unit *unit)
{
    unit->work.operation = &unit->store->operations[unit->next];
    if (work_start(unit->store->work, &unit->work) != WORK_OK)
        unit->done(unit, ORDER_STORE_UNKNOWN);
}

static void store_on_end(struct work_unit *work, enum work_status status)
{
    struct order_store_unit *unit = store_unit_of(work);

    if (status != WORK_OK)
        unit->done(unit, unit->next != 0 ? ORDER_STORE_UNKNOWN : status_of(status));
    else if (unit->next != 0 && work->operation != &unit->store->operations[unit->next])
        unit_look_back(unit);
    else
        unit->done(unit, unit->status);
}

enum order_store_status store_start(struct order_store *store, struct order_store_unit *unit,
                                    enum store_operation operation, uint64_t deadline_ms, order_store_fn *done)
{
    unit->store = store;
    unit->done = done;
    unit->status = ORDER_STORE_OK;
    unit->work.operation = &store->operations[operation];
    unit->work.done = store_on_end;
    unit->work.deadline_ms = deadline_ms;
    unit->work.size += UNIT_SIZE_OVERHEAD;
    return status_of(work_start(store->work, &unit->work));
}

/* ---- For its owner ------------------------------------------------------------------------------------------------- */

static void store_on_up(bool up, void *arg)
{
    struct order_store *store = arg;

    if (store->options.on_up != NULL)
        store->options.on_up(up, store->options.arg);
}

bool order_store_uri_check(const char *uri, char reason[DATABASE_URI_REASON_SIZE])
{
    struct database_uri parsed;

    if (!database_uri_parse(&parsed, uri, reason))
        return false;
    database_uri_clear(&parsed);
    return true;
}

struct order_store *order_store_new(const struct order_store_options *options)
{
    struct order_store *store = calloc(1, sizeof(*store));
    size_t index;

    if (store == NULL)
        return NULL;
    store->options = *options;
    for (index = 0; index < STORE_OPERATIONS_COUNT; index++)
        store->operations[index] = *operations[index];
    store->work = work_new(&(struct work_options){.loop = options->loop,
                                                  .uri = options->uri,
                                                  .operations = store->operations,
                                                  .connections = options->connections,
                                                  .timeout_ms = options->timeout_ms,
                                                  .on_up = store_on_up,
                                                  .arg = store});
    store->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    store->digest = EVP_MD_CTX_new();
    if (store->work == NULL || store->sha256 == NULL || store->digest == NULL || !store_read_reserve(store, 1)) {
        order_store_free(store);
        return NULL;
    }
    return store;
}

void order_store_free(struct order_store *store)
{
    if (store == NULL)
        return;
    work_free(store->work);
    EVP_MD_CTX_free(store->digest);
    EVP_MD_free(store->sha256);
    rpc_text_clear(&store->text);
    free(store->orders);
    free(store->lines);
    free(store);
}

bool order_store_is_up(const struct order_store *store)
{
    return work_is_up(store->work);
}

uint64_t order_store_down_ms(const struct order_store *store)
{
    return work_down_ms(store->work);
}

unsigned order_store_connections(const struct order_store *store)
{
    struct work_stats stats;

    work_stats(store->work, &stats);
    return stats.connections;
}

void order_store_metrics(const struct order_store *store, struct rpc_metrics *metrics)
{
    struct work_stats stats;

    work_stats(store->work, &stats);
    rpc_metrics_gauge(metrics, "orders_store_up", "Whether PostgreSQL is there", work_is_up(store->work));
    rpc_metrics_gauge(metrics, "orders_store_connections", "Connections to PostgreSQL that are up", stats.connections);
    rpc_metrics_gauge(metrics, "orders_store_in_flight", "Operations under way", (int64_t)stats.in_flight);
    rpc_metrics_counter(metrics, "orders_store_operations_total", "Operations begun", stats.started);
    rpc_metrics_counter(metrics, "orders_store_statements_total", "Statements sent, each for one operation or many",
                        stats.statements);
    rpc_metrics_counter(metrics, "orders_store_repeated_total", "Operations sent once more, after an error or a loss",
                        stats.repeated);
    rpc_metrics_counter(metrics, "orders_store_unknown_total",
                        "Operations of which it stayed open whether they were done", stats.unknown);
}

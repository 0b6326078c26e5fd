#include "store_events.h"

#include <assert.h>

#include "sql.h"
#include "store_internal.h"

/* The statements keep the layout of SQL. */
/* clang-format off */

/* A claim that ends later than any can was made before the database's clock stepped back; it would last as long as the step. */
#define CLAIM_EVENTS_SQL                                                                                             \
    "WITH due AS MATERIALIZED ("                                                                                     \
    "  SELECT id, octet_length(payload) AS size FROM order_outbox"                                                   \
    "   WHERE claimed_until <= now() OR claimed_until > now() + 2 * $3::int * interval '1 millisecond'"              \
    "   ORDER BY id LIMIT $1::int FOR UPDATE SKIP LOCKED"                                                            \
    "), fit AS ("                                                                                                    \
    "  SELECT id FROM (SELECT id, sum(size) OVER (ORDER BY id) - size AS before FROM due) AS summed"                 \
    "   WHERE before <= $2::bigint"                                                                                  \
    ") UPDATE order_outbox AS o SET claimed_until = now() + $3::int * interval '1 millisecond'"                      \
    "    FROM fit, " WITHOUT_WAITING                                                                                 \
    "   WHERE o.id = fit.id RETURNING o.id, o.event_type, o.payload, o.headers"

#define RELEASE_EVENTS_SQL                                                                                           \
    "UPDATE order_outbox SET claimed_until = now() FROM " WITHOUT_WAITING " WHERE id = ANY ($1::bigint[])"

#define DELETE_EVENTS_SQL                                                                                            \
    "DELETE FROM order_outbox USING " WITHOUT_WAITING " WHERE id = ANY ($1::bigint[])"

/* clang-format on */

static void bind_claim(struct parameters *parameters, struct work_unit *const units[], size_t count, void *arg)
{
    struct order_store *store = arg;

    (void)count;
    parameters_add_int4(parameters, store_unit_of(units[0])->limit);
    parameters_add_int8(parameters, ORDER_STORE_EVENTS_SIZE_MAX);
    parameters_add_int4(parameters, store->options.claim_ms);
}

static bool take_claimed(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    struct order_store_unit *unit = store_unit_of(work);
    struct order_store *store = arg;
    int row;

    (void)index;
    if (PQntuples(rows) > ORDER_STORE_EVENTS_MAX)
        return false;
    for (row = 0; row < PQntuples(rows); row++)
        store->events[row] = (struct order_event){.id = row_int8(rows, row, 0),
                                                  .type = row_text(rows, row, 1),
                                                  .payload = row_text(rows, row, 2),
                                                  .headers = row_text(rows, row, 3)};
    unit->events = store->events;
    unit->events_count = (size_t)PQntuples(rows);
    return true;
}

static void bind_event_ids(struct parameters *parameters, struct work_unit *const units[], size_t count, void *arg)
{
    const struct order_store_unit *unit = store_unit_of(units[0]);
    size_t index;

    (void)count;
    (void)arg;
    parameters_add_array(parameters, PARAMETERS_INT8, unit->event_ids_count);
    for (index = 0; index < unit->event_ids_count; index++)
        parameters_element_int8(parameters, unit->event_ids[index]);
}

static bool take_nothing(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    (void)work;
    (void)index;
    (void)rows;
    (void)arg;
    return true;
}

const struct work_operation store_claim_events = {
    .name = "claim_events",
    .sql = CLAIM_EVENTS_SQL,
    .batch_max = 1,
    .is_repeatable = true,
    .columns = 4,
    .bind = bind_claim,
    .take = take_claimed,
};

const struct work_operation store_release_events = {
    .name = "release_events",
    .sql = RELEASE_EVENTS_SQL,
    .batch_max = 1,
    .is_repeatable = true,
    .bind = bind_event_ids,
    .take = take_nothing,
};

const struct work_operation store_delete_events = {
    .name = "delete_events",
    .sql = DELETE_EVENTS_SQL,
    .batch_max = 1,
    .is_repeatable = true,
    .bind = bind_event_ids,
    .take = take_nothing,
};

void order_store_claim_new_events(struct order_store *store, bool claim)
{
    store->claims_new_events = claim;
}

enum order_store_status order_store_claim_events(struct order_store *store, struct order_store_unit *unit,
                                                 int32_t limit, uint64_t deadline_ms, order_store_fn *done)
{
    assert(limit >= 1 && limit <= ORDER_STORE_EVENTS_MAX);
    unit->limit = limit;
    return store_start(store, unit, STORE_CLAIM_EVENTS, deadline_ms, done);
}

static void unit_set_event_ids(struct order_store_unit *unit, const int64_t *ids, size_t count)
{
    assert(count >= 1 && count <= ORDER_STORE_IDS_MAX);
    unit->event_ids = ids;
    unit->event_ids_count = count;
}

enum order_store_status order_store_release_events(struct order_store *store, struct order_store_unit *unit,
                                                   const int64_t *ids, size_t count, uint64_t deadline_ms,
                                                   order_store_fn *done)
{
    unit_set_event_ids(unit, ids, count);
    return store_start(store, unit, STORE_RELEASE_EVENTS, deadline_ms, done);
}

enum order_store_status order_store_delete_events(struct order_store *store, struct order_store_unit *unit,
                                                  const int64_t *ids, size_t count, uint64_t deadline_ms,
                                                  order_store_fn *done)
{
    unit_set_event_ids(unit, ids, count);
    return store_start(store, unit, STORE_DELETE_EVENTS, deadline_ms, done);
}

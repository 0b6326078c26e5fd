#include "store_create.h"

#include <assert.h>

#include "sql.h"
#include "store_keys.h"
#include "store_lines.h"

/* The statements keep the layout of SQL. */
/* clang-format off */

/* Ids are drawn before the rows are written: lines and event name the order.  Serial or identity, each has one. */
#define DRAW_ID(table) "nextval((SELECT pg_get_serial_sequence('" table "', 'id')::regclass))"

/* A key that has expired counts as absent: its row is taken over. */
#define IS_EXPIRED   "known.created_at < now() - $9::bigint * interval '1 second'"
#define KEEP(column) column " = CASE WHEN " IS_EXPIRED " THEN excluded." column " ELSE known." column " END"

/*
 * Make orders, each once.  `known` is where that is decided: the key's row is written, or there is one, and then that
 * one's order is the answer; a statement that is about to write the same key waits here for this one's end.  Keys go in
 * by their order, so that two statements never wait for each other.
 */
#define CREATE(known)                                                                                                \
    "WITH asked AS MATERIALIZED ("                                                                                   \
    "  SELECT n::int AS n, key, hash, headers,"                                                                      \
    "         " DRAW_ID("orders") "::int AS order_id, " DRAW_ID("order_outbox") " AS event_id"                       \
    "    FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS asked (key, hash, headers, n)"           \
    "), line AS MATERIALIZED ("                                                                                      \
    "  SELECT n, " DRAW_ID("order_details") "::int AS id, product_id, price::numeric AS price, quantity, rest"       \
    "    FROM unnest($4::int[], $5::text[], $6::text[], $7::int[], $8::text[])"                                      \
    "         AS line (n, product_id, price, quantity, rest)"                                                        \
    "), drawn AS MATERIALIZED ("                                                                                     \
    "  SELECT n, array_agg(id ORDER BY id) AS line_ids,"                                                             \
    "         string_agg('{\"id\":' || id || rest, ',' ORDER BY id) AS details"                                      \
    "    FROM line GROUP BY n"                                                                                       \
    "), known AS (" known "), made AS MATERIALIZED ("                                                                \
    "  SELECT asked.n, asked.order_id, asked.event_id, asked.headers FROM asked JOIN known USING (order_id)"         \
    "), new_order AS ("                                                                                              \
    "  INSERT INTO orders (id, created_at, updated_at) SELECT order_id, " UTC_NOW ", " UTC_NOW " FROM made"          \
    "), new_line AS ("                                                                                               \
    "  INSERT INTO order_details (id, order_id, product_id, price, quantity, created_at, updated_at)"                \
    "  SELECT line.id, made.order_id, line.product_id, line.price, line.quantity, " UTC_NOW ", " UTC_NOW             \
    "    FROM line JOIN made USING (n) ORDER BY line.id"                                                             \
    "), new_event AS ("                                                                                              \
    "  INSERT INTO order_outbox (id, event_type, payload, headers, claimed_until) OVERRIDING SYSTEM VALUE"           \
    "  SELECT made.event_id, 'order_created',"                                                                       \
    "         '{\"order\":{\"id\":' || made.order_id || ',\"order_details\":[' || drawn.details || ']}}',"           \
    "         made.headers, now() + $10::int * interval '1 millisecond'"                                             \
    "    FROM made JOIN drawn USING (n)"                                                                             \
    ") SELECT asked.n, known.hash, known.order_id, known.line_ids,"                                                  \
    "         CASE WHEN known.order_id = asked.order_id THEN asked.event_id END"                                     \
    "    FROM asked JOIN known USING (key) ORDER BY asked.n"

#define CREATE_BY_REQUEST_SQL CREATE(                                                                                \
    "INSERT INTO order_requests AS known (request_id, order_id, line_ids)"                                           \
    "  SELECT key, order_id, line_ids FROM asked JOIN drawn USING (n) ORDER BY key"                                  \
    "  ON CONFLICT (request_id) DO UPDATE"                                                                           \
    "  SET " KEEP("order_id") ", " KEEP("line_ids") ", " KEEP("created_at")                                          \
    "  RETURNING request_id AS key, NULL::text AS hash, order_id, line_ids")

#define CREATE_BY_KEY_SQL CREATE(                                                                                    \
    "INSERT INTO order_idempotency AS known (idempotency_key, request_hash, order_id, line_ids)"                     \
    "  SELECT key, hash, order_id, line_ids FROM asked JOIN drawn USING (n) ORDER BY key"                            \
    "  ON CONFLICT (idempotency_key) DO UPDATE"                                                                      \
    "  SET " KEEP("request_hash") ", " KEEP("order_id") ", " KEEP("line_ids") ", " KEEP("created_at")                \
    "  RETURNING idempotency_key AS key, request_hash AS hash, order_id, line_ids")

#define RECALL_SQL                                                                                                   \
    "SELECT NULL::int, request_hash, order_id, line_ids, NULL::bigint FROM order_idempotency"                        \
    " WHERE idempotency_key = $1::text AND created_at >= now() - $2::bigint * interval '1 second'"

/* clang-format on */

static void bind_keys(struct parameters *parameters, struct work_unit *const units[], size_t count)
{
    size_t index;

    parameters_add_array(parameters, PARAMETERS_TEXT, count);
    for (index = 0; index < count; index++)
        parameters_element_text(parameters, store_unit_of(units[index])->key);
    parameters_add_array(parameters, PARAMETERS_TEXT, count);
    for (index = 0; index < count; index++)
        parameters_element_text(parameters, (struct rpc_bytes){.data = store_unit_of(units[index])->request_hash,
                                                               .size = ORDER_STORE_HASH_SIZE});
    parameters_add_array(parameters, PARAMETERS_TEXT, count);
    for (index = 0; index < count; index++)
        parameters_element_text(parameters, store_unit_of(units[index])->headers);
}

static void bind_create(struct parameters *parameters, struct work_unit *const units[], size_t count, int64_t ttl_s,
                        struct order_store *store)
{
    size_t index;

    bind_keys(parameters, units, count);
    store_lines_bind(parameters, units, count, PARAMETERS_INT4, store, store_line_n);
    store_lines_bind(parameters, units, count, PARAMETERS_TEXT, store, store_line_product_id);
    store_lines_bind(parameters, units, count, PARAMETERS_TEXT, store, store_line_price);
    store_lines_bind(parameters, units, count, PARAMETERS_INT4, store, store_line_quantity);
    store_lines_bind(parameters, units, count, PARAMETERS_TEXT, store, store_line_rest);
    parameters_add_int8(parameters, ttl_s);
    parameters_add_int4(parameters, store->claims_new_events ? store->options.claim_ms : 0);
    for (index = 0; index < count; index++)
        store_unit_of(units[index])->is_event_claimed = store->claims_new_events;
}

static void bind_create_by_request(struct parameters *parameters, struct work_unit *const units[], size_t count,
                                   void *arg)
{
    bind_create(parameters, units, count, ORDER_STORE_REQUEST_TTL_S, arg);
}

static void bind_create_by_key(struct parameters *parameters, struct work_unit *const units[], size_t count, void *arg)
{
    struct order_store *store = arg;

    bind_create(parameters, units, count, store->options.key_ttl_s, store);
}

static void bind_recall(struct parameters *parameters, struct work_unit *const units[], size_t count, void *arg)
{
    struct order_store *store = arg;

    (void)count;
    parameters_add_text(parameters, store_unit_of(units[0])->key);
    parameters_add_int8(parameters, store->options.key_ttl_s);
}

static bool keys_are_equal(const struct work_unit *unit, const struct work_unit *other)
{
    struct rpc_bytes a = ((const struct order_store_unit *)unit)->key,
                     b = ((const struct order_store_unit *)other)->key;

    return a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
}

static void take_line_id(size_t index, int32_t value, void *arg)
{
    struct order *order = arg;

    order->lines[index].id = value;
}

/*
 * A row of CREATE or RECALL: n, the hash of the body that the key belongs to, the order's id, its lines' ids, its
 * event.
 */
static bool take_known(struct order_store_unit *unit, const PGresult *rows, int row)
{
    struct rpc_bytes hash = row_text(rows, row, 1);

    if (hash.data != NULL &&
        (hash.size != ORDER_STORE_HASH_SIZE || memcmp(hash.data, unit->request_hash, ORDER_STORE_HASH_SIZE) != 0)) {
        unit->status = ORDER_STORE_KEY_REUSED;
        return true;
    }
    unit->order->id = row_int4(rows, row, 2);
    unit->event_id = unit->is_event_claimed ? row_int8(rows, row, 4) : 0;
    return row_int4_array(rows, row, 3, take_line_id, unit->order->lines_count, unit->order);
}

static bool take_created(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    (void)arg;
    if ((size_t)PQntuples(rows) <= index || row_int4(rows, (int)index, 0) != (int32_t)index + 1)
        return false;
    return take_known(store_unit_of(work), rows, (int)index);
}

static bool take_recalled(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    (void)index;
    (void)arg;
    if (PQntuples(rows) > 0)
        return take_known(store_unit_of(work), rows, 0);
    store_unit_of(work)->status = ORDER_STORE_NOT_FOUND;
    return true;
}

const struct work_operation store_create_by_request = {
    .name = "create_by_request",
    .sql = CREATE_BY_REQUEST_SQL,
    .batch_max = WORK_BATCH_MAX,
    .is_repeatable = true,
    .excludes = keys_are_equal,
    .columns = 5,
    .bind = bind_create_by_request,
    .take = take_created,
};

const struct work_operation store_create_by_key = {
    .name = "create_by_key",
    .sql = CREATE_BY_KEY_SQL,
    .batch_max = WORK_BATCH_MAX,
    .is_repeatable = true,
    .excludes = keys_are_equal,
    .columns = 5,
    .bind = bind_create_by_key,
    .take = take_created,
};

const struct work_operation store_recall = {
    .name = "recall",
    .sql = RECALL_SQL,
    .batch_max = 1,
    .is_read = true,
    .is_repeatable = true,
    .columns = 5,
    .bind = bind_recall,
    .take = take_recalled,
};

/* What makes an order is known by its Idempotency-Key, if it has one. */
static bool unit_set_key(struct order_store_unit *unit, const struct order_creation *creation)
{
    struct rpc_text *text = &unit->store->text;

    unit->order->id = 0;
    rpc_text_reset(text, PARAMETERS_KEEP_SIZE);
    order_print(text, unit->order);
    if (creation->idempotency_key.data == NULL)
        return store_key_of_request(unit, creation->request_id, text);
    unit->key = creation->idempotency_key;
    return !text->failed && store_key_hash(unit->store, unit->request_hash, RPC_BYTES(""), rpc_text_bytes(text));
}

enum order_store_status order_store_create(struct order_store *store, struct order_store_unit *unit,
                                           const struct order_creation *creation, uint64_t deadline_ms,
                                           order_store_fn *done)
{
    unit->store = store;
    unit->order = creation->order;
    unit->headers = creation->headers;
    unit->work.size = store_lines_size(creation->order) + creation->headers.size;
    if (!unit_set_key(unit, creation))
        return ORDER_STORE_BUSY; /* of memory */
    return store_start(store, unit,
                       creation->idempotency_key.data != NULL ? STORE_CREATE_BY_KEY : STORE_CREATE_BY_REQUEST,
                       deadline_ms, done);
}

enum order_store_status order_store_recall(struct order_store *store, struct order_store_unit *unit,
                                           const struct order_creation *creation, uint64_t deadline_ms,
                                           order_store_fn *done)
{
    assert(creation->idempotency_key.data != NULL);
    unit->store = store;
    unit->order = creation->order;
    unit->work.size = store_lines_size(creation->order);
    if (!unit_set_key(unit, creation))
        return ORDER_STORE_BUSY; /* of memory */
    return store_start(store, unit, STORE_RECALL, deadline_ms, done);
}

#include "store_change.h"

#include "sql.h"
#include "store_keys.h"
#include "store_lines.h"
#include "store_read.h"

/* The statements keep the layout of SQL. */
/* clang-format off */

/*
 * Either all of the lines are there and change, or none does.  `fresh` is where it is decided whether the request is new:
 * its key is written, or it is there (it was carried out before), and then nothing changes.  The same request at the same
 * moment waits here, or at the lines, for this one's end.
 */
#define UPDATE_SQL                                                                                                   \
    "WITH asked AS MATERIALIZED ("                                                                                   \
    "  SELECT id, price::numeric AS price, quantity"                                                                 \
    "    FROM unnest($2::int[], $3::text[], $4::int[]) AS asked (id, price, quantity)"                               \
    "), target AS MATERIALIZED ("                                                                                    \
    "  SELECT id FROM order_details WHERE order_id = $1::int AND id = ANY ($2::int[]) ORDER BY id FOR UPDATE"        \
    "), lacking AS MATERIALIZED ("                                                                                   \
    "  SELECT min(id) AS id FROM asked WHERE id NOT IN (SELECT id FROM target)"                                      \
    "), fresh AS ("                                                                                                  \
    "  INSERT INTO order_requests AS known (request_id, order_id, line_ids)"                                         \
    "    SELECT $5::text, orders.id, '{}' FROM orders, lacking WHERE lacking.id IS NULL AND orders.id = $1::int"     \
    "    ON CONFLICT (request_id) DO UPDATE SET created_at = now()"                                                  \
    "         WHERE known.created_at < now() - $6::bigint * interval '1 second'"                                     \
    "  RETURNING order_id"                                                                                           \
    "), changed AS ("                                                                                                \
    "  UPDATE order_details AS d SET price = asked.price, quantity = asked.quantity, updated_at = " UTC_NOW          \
    "    FROM asked, fresh WHERE d.id = asked.id AND d.order_id = fresh.order_id"                                    \
    "  RETURNING d.id, d.price, d.quantity"                                                                          \
    "), touched AS ("                                                                                                \
    "  UPDATE orders SET updated_at = " UTC_NOW " FROM fresh WHERE orders.id = fresh.order_id"                       \
    ") SELECT o.id, d.id, d.product_id, coalesce(changed.price, d.price)::text,"                                     \
    "         coalesce(changed.quantity, d.quantity), lacking.id, (SELECT count(*) FROM fresh)::int"                 \
    "    FROM lacking CROSS JOIN orders AS o LEFT JOIN order_details AS d ON d.order_id = o.id"                      \
    "         LEFT JOIN changed ON changed.id = d.id"                                                                \
    "   WHERE o.id = $1::int ORDER BY d.id"

/*
 * Its keys stay, so that a repeated request does not make it again, and so does its event: it was acknowledged.  An id is
 * never given twice, so only the answer of a repeated deletion needs a key: RECALL_DELETION.
 */
#define DELETE_SQL                                                                                                   \
    "WITH lines AS (DELETE FROM order_details WHERE order_id = $1::int),"                                            \
    "     gone AS (DELETE FROM orders WHERE id = $1::int RETURNING id),"                                             \
    "     known AS (INSERT INTO order_requests (request_id, order_id, line_ids)"                                     \
    "                 SELECT $2::text, id, '{}' FROM gone ON CONFLICT DO NOTHING)"                                   \
    " SELECT id FROM gone"

#define RECALL_DELETION_SQL                                                                                          \
    "SELECT order_id FROM order_requests"                                                                            \
    " WHERE request_id = $1::text AND created_at >= now() - $2::bigint * interval '1 second'"

/* clang-format on */

static void bind_update(struct parameters *parameters, struct work_unit *const units[], size_t count, void *arg)
{
    parameters_add_int4(parameters, store_unit_of(units[0])->order->id);
    store_lines_bind(parameters, units, count, PARAMETERS_INT4, arg, store_line_id);
    store_lines_bind(parameters, units, count, PARAMETERS_TEXT, arg, store_line_price);
    store_lines_bind(parameters, units, count, PARAMETERS_INT4, arg, store_line_quantity);
    store_key_bind(parameters, store_unit_of(units[0]));
}

static bool take_updated(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    struct order_store_unit *unit = store_unit_of(work);

    (void)index;
    (void)arg;
    if (PQntuples(rows) == 0) {
        unit->status = ORDER_STORE_NOT_FOUND;
    } else if (!row_is_null(rows, 0, 5)) {
        unit->status = ORDER_STORE_LINE_NOT_FOUND;
        unit->missing = row_int4(rows, 0, 5);
    } else if (row_int4(rows, 0, 6) == 0) {
        unit->next = STORE_GET; /* these rows may be older than the change that was made before */
    } else {
        return store_read_orders(unit, rows, 0, 1);
    }
    return true;
}

static void bind_delete(struct parameters *parameters, struct work_unit *const units[], size_t count, void *arg)
{
    (void)count;
    (void)arg;
    parameters_add_int4(parameters, store_unit_of(units[0])->order_id);
    parameters_add_text(parameters, store_unit_of(units[0])->key);
}

static bool take_deleted(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    (void)index;
    (void)arg;
    if (PQntuples(rows) == 0)
        store_unit_of(work)->next = STORE_RECALL_DELETION;
    return true;
}

static void bind_recall_deletion(struct parameters *parameters, struct work_unit *const units[], size_t count,
                                 void *arg)
{
    (void)count;
    (void)arg;
    store_key_bind(parameters, store_unit_of(units[0]));
}

static bool take_recalled_deletion(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    (void)index;
    (void)arg;
    if (PQntuples(rows) == 0)
        store_unit_of(work)->status = ORDER_STORE_NOT_FOUND;
    return true;
}

const struct work_operation store_update = {
    .name = "update",
    .sql = UPDATE_SQL,
    .batch_max = 1,
    .is_repeatable = true,
    .columns = 7,
    .bind = bind_update,
    .take = take_updated,
};

const struct work_operation store_delete = {
    .name = "delete",
    .sql = DELETE_SQL,
    .batch_max = 1,
    .is_repeatable = true,
    .columns = 1,
    .bind = bind_delete,
    .take = take_deleted,
};

const struct work_operation store_recall_deletion = {
    .name = "recall_deletion",
    .sql = RECALL_DELETION_SQL,
    .batch_max = 1,
    .is_read = true,
    .is_repeatable = true,
    .columns = 1,
    .bind = bind_recall_deletion,
    .take = take_recalled_deletion,
};

enum order_store_status order_store_update(struct order_store *store, struct order_store_unit *unit,
                                           struct order *change, struct rpc_bytes request_id, uint64_t deadline_ms,
                                           order_store_fn *done)
{
    struct rpc_text *asked = &store->text;

    rpc_text_reset(asked, PARAMETERS_KEEP_SIZE);
    rpc_text_append(asked, RPC_BYTES("update "));
    order_print(asked, change);
    unit->store = store;
    unit->order = change;
    unit->order_id = change->id;
    unit->work.size = store_lines_size(change);
    if (!store_key_of_request(unit, request_id, asked))
        return ORDER_STORE_BUSY; /* of memory */
    return store_start(store, unit, STORE_UPDATE, deadline_ms, done);
}

enum order_store_status order_store_delete(struct order_store *store, struct order_store_unit *unit, int32_t id,
                                           struct rpc_bytes request_id, uint64_t deadline_ms, order_store_fn *done)
{
    struct rpc_text *asked = &store->text;

    rpc_text_reset(asked, PARAMETERS_KEEP_SIZE);
    rpc_text_append(asked, RPC_BYTES("delete "));
    rpc_text_append_integer(asked, id);
    unit->store = store;
    unit->order_id = id;
    if (!store_key_of_request(unit, request_id, asked))
        return ORDER_STORE_BUSY; /* of memory */
    return store_start(store, unit, STORE_DELETE, deadline_ms, done);
}

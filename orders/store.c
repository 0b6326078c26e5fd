#include "store.h"

#include <assert.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>

#define SCRATCH_KEEP_ROWS  4096 /* rows that memory is kept for */
#define UNIT_SIZE_OVERHEAD 256
#define LINE_SIZE_OVERHEAD 64
#define REQUEST_ID_SIZE    32 /* hexadecimal digits of the hash that names a request */
#define SHA256_SIZE        32

struct order_store {
    struct order_store_options options;
    struct work *work;
    struct text text;   /* a line, or a body to hash */
    EVP_MD *sha256;     /* looked up once: a look-up costs more than a hash */
    EVP_MD_CTX *digest; /* the hash being made */
    struct order *orders;
    struct order_line *lines;
    struct order_event events[ORDER_STORE_EVENTS_MAX];
    size_t orders_capacity, lines_capacity;
    bool claims_new_events;
};

static const struct work_operation operations[];

enum operation {
    CREATE_BY_REQUEST,
    CREATE_BY_KEY,
    RECALL,
    GET,
    UPDATE,
    DELETE,
    RECALL_DELETION,
    LIST,
    CLAIM_EVENTS,
    RELEASE_EVENTS,
    DELETE_EVENTS,
    FORGET_REQUESTS,
    FORGET_KEYS,
    OPERATIONS_COUNT,
};

static struct order_store_unit *unit_of(struct work_unit *work)
{
    return (struct order_store_unit *)work;
}

/* ---- SQL --------------------------------------------------------------------------------------------------------- */

/* The statements keep the layout of SQL. */
/* clang-format off */

/* As the Python service writes its times: UTC, without a zone. */
#define UTC_NOW "timezone('utc', now())"

/* Ids are drawn before the rows are written: lines and event name the order.  Serial or identity, each has one. */
#define DRAW_ID(table) "nextval((SELECT pg_get_serial_sequence('" table "', 'id')::regclass))"

/* A key that has expired counts as absent: its row is taken over. */
#define IS_EXPIRED   "known.created_at < now() - $9::bigint * interval '1 second'"
#define KEEP(column) column " = CASE WHEN " IS_EXPIRED " THEN excluded." column " ELSE known." column " END"

/* Where losing the last commits in a crash does no harm (an event is published again), nobody waits for the disk. */
#define WITHOUT_WAITING "(SELECT set_config('synchronous_commit', 'off', true) OFFSET 0) AS without_waiting"

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

/* OFFSET 0 keeps the planner from any other join: lines are found by their index, however large the tables are. */
#define ORDER_COLUMNS "SELECT o.id, d.id, d.product_id, d.price::text, d.quantity FROM "
#define LINES_OF_ORDER                                                                                               \
    " LEFT JOIN LATERAL ("                                                                                           \
    "  SELECT id, product_id, price, quantity FROM order_details WHERE order_id = o.id OFFSET 0"                     \
    ") AS d ON true"

#define GET_SQL                                                                                                      \
    ORDER_COLUMNS "(SELECT id FROM orders WHERE id = ANY ($1::int[]) OFFSET 0) AS o" LINES_OF_ORDER                  \
    " ORDER BY o.id, d.id"

#define LIST_SQL                                                                                                     \
    ORDER_COLUMNS "(SELECT id FROM orders WHERE id > $1::int ORDER BY id LIMIT $2::int) AS o" LINES_OF_ORDER         \
    " ORDER BY o.id, d.id LIMIT $3::int"

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

#define FORGET(table, key)                                                                                           \
    "WITH expired AS MATERIALIZED ("                                                                                 \
    "  SELECT " key " FROM " table " WHERE created_at < now() - $1::bigint * interval '1 second'"                    \
    "   ORDER BY created_at LIMIT $2::int FOR UPDATE SKIP LOCKED"                                                    \
    "), gone AS ("                                                                                                   \
    "  DELETE FROM " table " AS known USING expired, " WITHOUT_WAITING " WHERE known." key " = expired." key         \
    "  RETURNING 1"                                                                                                  \
    ") SELECT count(*)::int FROM gone"

/* clang-format on */

/* ---- Making orders ----------------------------------------------------------------------------------------------- */

static void bind_keys(struct parameters *parameters, struct work_unit *const units[], size_t count)
{
    size_t index;

    parameters_add_array(parameters, PARAMETERS_TEXT, count);
    for (index = 0; index < count; index++)
        parameters_element_text(parameters, unit_of(units[index])->key);
    parameters_add_array(parameters, PARAMETERS_TEXT, count);
    for (index = 0; index < count; index++)
        parameters_element_text(
            parameters, (struct rpc_bytes){.data = unit_of(units[index])->request_hash, .size = ORDER_STORE_HASH_SIZE});
    parameters_add_array(parameters, PARAMETERS_TEXT, count);
    for (index = 0; index < count; index++)
        parameters_element_text(parameters, unit_of(units[index])->headers);
}

/* One parameter: an array of what `element` adds for each line of each order. */
static void bind_lines(struct parameters *parameters, struct work_unit *const units[], size_t count,
                       enum parameters_element type, struct order_store *store,
                       void (*element)(struct parameters *, size_t n, const struct order_line *, struct order_store *))
{
    size_t lines_count = 0, index, line;

    for (index = 0; index < count; index++)
        lines_count += unit_of(units[index])->order->lines_count;
    parameters_add_array(parameters, type, lines_count);
    for (index = 0; index < count; index++) {
        const struct order *order = unit_of(units[index])->order;

        for (line = 0; line < order->lines_count; line++)
            element(parameters, index + 1, &order->lines[line], store);
    }
}

static void element_n(struct parameters *parameters, size_t n, const struct order_line *line, struct order_store *store)
{
    (void)line;
    (void)store;
    parameters_element_int4(parameters, (int32_t)n);
}

static void element_id(struct parameters *parameters, size_t n, const struct order_line *line,
                       struct order_store *store)
{
    (void)n;
    (void)store;
    parameters_element_int4(parameters, line->id);
}

static void element_product_id(struct parameters *parameters, size_t n, const struct order_line *line,
                               struct order_store *store)
{
    (void)n;
    (void)store;
    parameters_element_text(parameters, line->product_id);
}

static void element_price(struct parameters *parameters, size_t n, const struct order_line *line,
                          struct order_store *store)
{
    (void)n;
    (void)store;
    parameters_element_text(parameters, line->price);
}

static void element_quantity(struct parameters *parameters, size_t n, const struct order_line *line,
                             struct order_store *store)
{
    (void)n;
    (void)store;
    parameters_element_int4(parameters, line->quantity);
}

/* The line as JSON behind its id, which only the database knows yet. */
static void element_rest(struct parameters *parameters, size_t n, const struct order_line *line,
                         struct order_store *store)
{
    (void)n;
    text_reset(&store->text, PARAMETERS_KEEP_SIZE);
    order_print_line_rest(&store->text, line);
    if (store->text.failed)
        parameters->bytes.failed = true;
    parameters_element_text(parameters, text_bytes(&store->text));
}

static void bind_create(struct parameters *parameters, struct work_unit *const units[], size_t count, int64_t ttl_s,
                        struct order_store *store)
{
    size_t index;

    bind_keys(parameters, units, count);
    bind_lines(parameters, units, count, PARAMETERS_INT4, store, element_n);
    bind_lines(parameters, units, count, PARAMETERS_TEXT, store, element_product_id);
    bind_lines(parameters, units, count, PARAMETERS_TEXT, store, element_price);
    bind_lines(parameters, units, count, PARAMETERS_INT4, store, element_quantity);
    bind_lines(parameters, units, count, PARAMETERS_TEXT, store, element_rest);
    parameters_add_int8(parameters, ttl_s);
    parameters_add_int4(parameters, store->claims_new_events ? store->options.claim_ms : 0);
    for (index = 0; index < count; index++)
        unit_of(units[index])->is_event_claimed = store->claims_new_events;
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
    parameters_add_text(parameters, unit_of(units[0])->key);
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
    return take_known(unit_of(work), rows, (int)index);
}

static bool take_recalled(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    (void)index;
    (void)arg;
    if (PQntuples(rows) > 0)
        return take_known(unit_of(work), rows, 0);
    unit_of(work)->status = ORDER_STORE_NOT_FOUND;
    return true;
}

/* ---- Reading and changing orders --------------------------------------------------------------------------------- */

/* Memory for what `rows` rows hold at most. */
static bool scratch_reserve(struct order_store *store, size_t rows)
{
    struct order *orders;
    struct order_line *lines;

    if (rows <= store->orders_capacity && (store->orders_capacity <= SCRATCH_KEEP_ROWS || rows > SCRATCH_KEEP_ROWS))
        return true;
    orders = calloc(rows + 1, sizeof(*orders));
    lines = calloc(rows + 1, sizeof(*lines));
    if (orders == NULL || lines == NULL) {
        free(orders);
        free(lines);
        return false;
    }
    free(store->orders);
    free(store->lines);
    store->orders = orders;
    store->lines = lines;
    store->orders_capacity = store->lines_capacity = rows;
    return true;
}

/* Rows (order id, line id, product id, price, quantity), sorted: from `row` on, `orders_max` orders.  They lend. */
static bool take_orders(struct order_store_unit *unit, const PGresult *rows, int row, size_t orders_max)
{
    struct order_store *store = unit->store;
    struct order *order = NULL;
    size_t lines_count = 0, orders_count = 0;

    if (!scratch_reserve(store, (size_t)(PQntuples(rows) - row))) {
        unit->status = unit->work.operation->is_read ? ORDER_STORE_BUSY : ORDER_STORE_UNKNOWN;
        return true;
    }
    for (; row < PQntuples(rows); row++) {
        int32_t id = row_int4(rows, row, 0);

        if (order == NULL || order->id != id) {
            if (orders_count == orders_max)
                break;
            order = &store->orders[orders_count++];
            *order = (struct order){.id = id, .lines = &store->lines[lines_count]};
        }
        if (row_is_null(rows, row, 1)) /* an order without lines: the Python service allows them */
            continue;
        if (row_is_null(rows, row, 2) || row_is_null(rows, row, 3) || row_is_null(rows, row, 4))
            return false;
        store->lines[lines_count++] = (struct order_line){.id = row_int4(rows, row, 1),
                                                          .product_id = row_text(rows, row, 2),
                                                          .price = row_text(rows, row, 3),
                                                          .quantity = row_int4(rows, row, 4)};
        order->lines_count++;
    }
    unit->orders = store->orders;
    unit->orders_count = orders_count;
    return true;
}

static void bind_get(struct parameters *parameters, struct work_unit *const units[], size_t count, void *arg)
{
    size_t index;

    (void)arg;
    parameters_add_array(parameters, PARAMETERS_INT4, count);
    for (index = 0; index < count; index++)
        parameters_element_int4(parameters, unit_of(units[index])->order_id);
}

/* The first row of an order that is not below `id`. */
static int find_row(const PGresult *rows, int32_t id)
{
    int low = 0, high = PQntuples(rows);

    while (low < high) {
        int middle = low + (high - low) / 2;

        if (row_int4(rows, middle, 0) < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool take_got(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    struct order_store_unit *unit = unit_of(work);
    int row = find_row(rows, unit->order_id);

    (void)index;
    (void)arg;
    if (row < PQntuples(rows) && row_int4(rows, row, 0) == unit->order_id)
        return take_orders(unit, rows, row, 1);
    unit->status = ORDER_STORE_NOT_FOUND;
    return true;
}

static void bind_list(struct parameters *parameters, struct work_unit *const units[], size_t count, void *arg)
{
    (void)count;
    (void)arg;
    parameters_add_int4(parameters, unit_of(units[0])->page.after);
    parameters_add_int4(parameters, unit_of(units[0])->page.limit);
    parameters_add_int4(parameters, ORDER_STORE_LIST_LINES_MAX + 1);
}

static bool take_listed(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    (void)index;
    (void)arg;
    if (PQntuples(rows) <= ORDER_STORE_LIST_LINES_MAX)
        return take_orders(unit_of(work), rows, 0, SIZE_MAX);
    unit_of(work)->status = ORDER_STORE_TOO_LARGE;
    return true;
}

/* The name of a request to change or delete, and for how long that is known. */
static void bind_request(struct parameters *parameters, const struct order_store_unit *unit)
{
    parameters_add_text(parameters, unit->key);
    parameters_add_int8(parameters, ORDER_STORE_REQUEST_TTL_S);
}

static void bind_update(struct parameters *parameters, struct work_unit *const units[], size_t count, void *arg)
{
    parameters_add_int4(parameters, unit_of(units[0])->order->id);
    bind_lines(parameters, units, count, PARAMETERS_INT4, arg, element_id);
    bind_lines(parameters, units, count, PARAMETERS_TEXT, arg, element_price);
    bind_lines(parameters, units, count, PARAMETERS_INT4, arg, element_quantity);
    bind_request(parameters, unit_of(units[0]));
}

static bool take_updated(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    struct order_store_unit *unit = unit_of(work);

    (void)index;
    (void)arg;
    if (PQntuples(rows) == 0) {
        unit->status = ORDER_STORE_NOT_FOUND;
    } else if (!row_is_null(rows, 0, 5)) {
        unit->status = ORDER_STORE_LINE_NOT_FOUND;
        unit->missing = row_int4(rows, 0, 5);
    } else if (row_int4(rows, 0, 6) == 0) {
        unit->next = GET; /* these rows may be older than the change that was made before */
    } else {
        return take_orders(unit, rows, 0, 1);
    }
    return true;
}

static void bind_delete(struct parameters *parameters, struct work_unit *const units[], size_t count, void *arg)
{
    (void)count;
    (void)arg;
    parameters_add_int4(parameters, unit_of(units[0])->order_id);
    parameters_add_text(parameters, unit_of(units[0])->key);
}

static bool take_deleted(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    (void)index;
    (void)arg;
    if (PQntuples(rows) == 0)
        unit_of(work)->next = RECALL_DELETION;
    return true;
}

static void bind_recall_deletion(struct parameters *parameters, struct work_unit *const units[], size_t count,
                                 void *arg)
{
    (void)count;
    (void)arg;
    bind_request(parameters, unit_of(units[0]));
}

static bool take_recalled_deletion(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    (void)index;
    (void)arg;
    if (PQntuples(rows) == 0)
        unit_of(work)->status = ORDER_STORE_NOT_FOUND;
    return true;
}

/* ---- The outbox and the keys ------------------------------------------------------------------------------------- */

static void bind_claim(struct parameters *parameters, struct work_unit *const units[], size_t count, void *arg)
{
    struct order_store *store = arg;

    (void)count;
    parameters_add_int4(parameters, unit_of(units[0])->limit);
    parameters_add_int8(parameters, ORDER_STORE_EVENTS_SIZE_MAX);
    parameters_add_int4(parameters, store->options.claim_ms);
}

static bool take_claimed(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    struct order_store_unit *unit = unit_of(work);
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
    const struct order_store_unit *unit = unit_of(units[0]);
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

static void bind_forget_requests(struct parameters *parameters, struct work_unit *const units[], size_t count,
                                 void *arg)
{
    (void)units;
    (void)count;
    (void)arg;
    parameters_add_int8(parameters, ORDER_STORE_REQUEST_TTL_S);
    parameters_add_int4(parameters, ORDER_STORE_FORGET_MAX);
}

static void bind_forget_keys(struct parameters *parameters, struct work_unit *const units[], size_t count, void *arg)
{
    struct order_store *store = arg;

    (void)units;
    (void)count;
    parameters_add_int8(parameters, store->options.key_ttl_s);
    parameters_add_int4(parameters, ORDER_STORE_FORGET_MAX);
}

static bool take_forgotten(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    (void)index;
    (void)arg;
    if (PQntuples(rows) != 1)
        return false;
    unit_of(work)->count = row_int4(rows, 0, 0);
    return true;
}

static const struct work_operation operations[OPERATIONS_COUNT + 1] = {
    [CREATE_BY_REQUEST] = {.name = "create_by_request",
                           .sql = CREATE_BY_REQUEST_SQL,
                           .batch_max = WORK_BATCH_MAX,
                           .is_repeatable = true,
                           .excludes = keys_are_equal,
                           .columns = 5,
                           .bind = bind_create_by_request,
                           .take = take_created},
    [CREATE_BY_KEY] = {.name = "create_by_key",
                       .sql = CREATE_BY_KEY_SQL,
                       .batch_max = WORK_BATCH_MAX,
                       .is_repeatable = true,
                       .excludes = keys_are_equal,
                       .columns = 5,
                       .bind = bind_create_by_key,
                       .take = take_created},
    [RECALL] = {.name = "recall",
                .sql = RECALL_SQL,
                .batch_max = 1,
                .is_read = true,
                .is_repeatable = true,
                .columns = 5,
                .bind = bind_recall,
                .take = take_recalled},
    [GET] = {.name = "get",
             .sql = GET_SQL,
             .batch_max = WORK_BATCH_MAX,
             .is_read = true,
             .is_repeatable = true,
             .columns = 5,
             .bind = bind_get,
             .take = take_got},
    [UPDATE] = {.name = "update",
                .sql = UPDATE_SQL,
                .batch_max = 1,
                .is_repeatable = true,
                .columns = 7,
                .bind = bind_update,
                .take = take_updated},
    [DELETE] = {.name = "delete",
                .sql = DELETE_SQL,
                .batch_max = 1,
                .is_repeatable = true,
                .columns = 1,
                .bind = bind_delete,
                .take = take_deleted},
    [RECALL_DELETION] = {.name = "recall_deletion",
                         .sql = RECALL_DELETION_SQL,
                         .batch_max = 1,
                         .is_read = true,
                         .is_repeatable = true,
                         .columns = 1,
                         .bind = bind_recall_deletion,
                         .take = take_recalled_deletion},
    [LIST] = {.name = "list",
              .sql = LIST_SQL,
              .batch_max = 1,
              .is_read = true,
              .is_repeatable = true,
              .columns = 5,
              .bind = bind_list,
              .take = take_listed},
    [CLAIM_EVENTS] = {.name = "claim_events",
                      .sql = CLAIM_EVENTS_SQL,
                      .batch_max = 1,
                      .is_repeatable = true,
                      .columns = 4,
                      .bind = bind_claim,
                      .take = take_claimed},
    [RELEASE_EVENTS] = {.name = "release_events",
                        .sql = RELEASE_EVENTS_SQL,
                        .batch_max = 1,
                        .is_repeatable = true,
                        .bind = bind_event_ids,
                        .take = take_nothing},
    [DELETE_EVENTS] = {.name = "delete_events",
                       .sql = DELETE_EVENTS_SQL,
                       .batch_max = 1,
                       .is_repeatable = true,
                       .bind = bind_event_ids,
                       .take = take_nothing},
    [FORGET_REQUESTS] = {.name = "forget_requests",
                         .sql = FORGET("order_requests", "request_id"),
                         .batch_max = 1,
                         .is_repeatable = true,
                         .columns = 1,
                         .bind = bind_forget_requests,
                         .take = take_forgotten},
    [FORGET_KEYS] = {.name = "forget_keys",
                     .sql = FORGET("order_idempotency", "idempotency_key"),
                     .batch_max = 1,
                     .is_repeatable = true,
                     .columns = 1,
                     .bind = bind_forget_keys,
                     .take = take_forgotten},
};

/* ---- Starting and ending ----------------------------------------------------------------------------------------- */

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

static void store_on_end(struct work_unit *work, enum work_status status);

/* The request may have been carried out before: its answer is read by a statement that sees what that one did. */
static void unit_look_back(struct order_store_unit *unit)
{
    unit->work.operation = &operations[unit->next];
    if (work_start(unit->store->work, &unit->work) != WORK_OK)
        unit->done(unit, ORDER_STORE_UNKNOWN);
}

static void store_on_end(struct work_unit *work, enum work_status status)
{
    struct order_store_unit *unit = unit_of(work);

    if (status != WORK_OK)
        unit->done(unit, unit->next != 0 ? ORDER_STORE_UNKNOWN : status_of(status));
    else if (unit->next != 0 && work->operation != &operations[unit->next])
        unit_look_back(unit);
    else
        unit->done(unit, unit->status);
}

static enum order_store_status store_start(struct order_store *store, struct order_store_unit *unit,
                                           enum operation operation, uint64_t deadline_ms, order_store_fn *done)
{
    unit->store = store;
    unit->done = done;
    unit->status = ORDER_STORE_OK;
    unit->work.operation = &operations[operation];
    unit->work.done = store_on_end;
    unit->work.deadline_ms = deadline_ms;
    unit->work.size += UNIT_SIZE_OVERHEAD;
    return status_of(work_start(store->work, &unit->work));
}

static size_t order_size(const struct order *order)
{
    size_t size = 0, index;

    for (index = 0; index < order->lines_count; index++)
        size += order->lines[index].product_id.size + LINE_SIZE_OVERHEAD;
    return size;
}

/* SHA-256 of `a`, a NUL and `b`, in hexadecimal digits. */
static bool hash_print(const struct order_store *store, char out[ORDER_STORE_HASH_SIZE], struct rpc_bytes a,
                       struct rpc_bytes b)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char hash[SHA256_SIZE];
    EVP_MD_CTX *digest = store->digest;
    bool hashed = EVP_DigestInit_ex2(digest, store->sha256, NULL) == 1 &&
                  EVP_DigestUpdate(digest, a.data, a.size) == 1 && EVP_DigestUpdate(digest, "", 1) == 1 &&
                  EVP_DigestUpdate(digest, b.data, b.size) == 1 && EVP_DigestFinal_ex(digest, hash, NULL) == 1;
    size_t index;

    for (index = 0; hashed && index < SHA256_SIZE; index++) {
        out[2 * index] = digits[hash[index] >> 4];
        out[2 * index + 1] = digits[hash[index] & 15];
    }
    return hashed;
}

/*
 * Name the request by a hash of its correlation id and of what it asks for.  The latter belongs to that name since a
 * correlation id is only as unique as its sender makes it; who uses one again for something else is another request.
 */
static bool unit_set_request(struct order_store_unit *unit, struct rpc_bytes request_id, const struct text *asked)
{
    unsigned char random[SHA256_SIZE];

    if (asked->failed)
        return false;
    if (request_id.size == 0) { /* still to be told apart from others when it is sent again */
        if (RAND_bytes(random, sizeof(random)) != 1)
            return false;
        request_id = (struct rpc_bytes){.data = (const char *)random, .size = sizeof(random)};
    }
    unit->key = (struct rpc_bytes){.data = unit->request_hash, .size = REQUEST_ID_SIZE};
    return hash_print(unit->store, unit->request_hash, request_id, text_bytes(asked));
}

/* What makes an order is known by its Idempotency-Key, if it has one. */
static bool unit_set_key(struct order_store_unit *unit, const struct order_creation *creation)
{
    struct text *text = &unit->store->text;

    unit->order->id = 0;
    text_reset(text, PARAMETERS_KEEP_SIZE);
    order_print(text, unit->order);
    if (creation->idempotency_key.data == NULL)
        return unit_set_request(unit, creation->request_id, text);
    unit->key = creation->idempotency_key;
    return !text->failed && hash_print(unit->store, unit->request_hash, RPC_BYTES(""), text_bytes(text));
}

enum order_store_status order_store_create(struct order_store *store, struct order_store_unit *unit,
                                           const struct order_creation *creation, uint64_t deadline_ms,
                                           order_store_fn *done)
{
    unit->store = store;
    unit->order = creation->order;
    unit->headers = creation->headers;
    unit->work.size = order_size(creation->order) + creation->headers.size;
    if (!unit_set_key(unit, creation))
        return ORDER_STORE_BUSY; /* of memory */
    return store_start(store, unit, creation->idempotency_key.data != NULL ? CREATE_BY_KEY : CREATE_BY_REQUEST,
                       deadline_ms, done);
}

enum order_store_status order_store_recall(struct order_store *store, struct order_store_unit *unit,
                                           const struct order_creation *creation, uint64_t deadline_ms,
                                           order_store_fn *done)
{
    assert(creation->idempotency_key.data != NULL);
    unit->store = store;
    unit->order = creation->order;
    unit->work.size = order_size(creation->order);
    if (!unit_set_key(unit, creation))
        return ORDER_STORE_BUSY; /* of memory */
    return store_start(store, unit, RECALL, deadline_ms, done);
}

enum order_store_status order_store_get(struct order_store *store, struct order_store_unit *unit, int32_t id,
                                        uint64_t deadline_ms, order_store_fn *done)
{
    unit->order_id = id;
    return store_start(store, unit, GET, deadline_ms, done);
}

enum order_store_status order_store_update(struct order_store *store, struct order_store_unit *unit,
                                           struct order *change, struct rpc_bytes request_id, uint64_t deadline_ms,
                                           order_store_fn *done)
{
    struct text *asked = &store->text;

    text_reset(asked, PARAMETERS_KEEP_SIZE);
    text_append(asked, RPC_BYTES("update "));
    order_print(asked, change);
    unit->store = store;
    unit->order = change;
    unit->order_id = change->id;
    unit->work.size = order_size(change);
    if (!unit_set_request(unit, request_id, asked))
        return ORDER_STORE_BUSY; /* of memory */
    return store_start(store, unit, UPDATE, deadline_ms, done);
}

enum order_store_status order_store_delete(struct order_store *store, struct order_store_unit *unit, int32_t id,
                                           struct rpc_bytes request_id, uint64_t deadline_ms, order_store_fn *done)
{
    struct text *asked = &store->text;

    text_reset(asked, PARAMETERS_KEEP_SIZE);
    text_append(asked, RPC_BYTES("delete "));
    text_append_integer(asked, id);
    unit->store = store;
    unit->order_id = id;
    if (!unit_set_request(unit, request_id, asked))
        return ORDER_STORE_BUSY; /* of memory */
    return store_start(store, unit, DELETE, deadline_ms, done);
}

enum order_store_status order_store_list(struct order_store *store, struct order_store_unit *unit,
                                         struct order_page page, uint64_t deadline_ms, order_store_fn *done)
{
    unit->page = page;
    return store_start(store, unit, LIST, deadline_ms, done);
}

void order_store_claim_new_events(struct order_store *store, bool claim)
{
    store->claims_new_events = claim;
}

enum order_store_status order_store_claim_events(struct order_store *store, struct order_store_unit *unit,
                                                 int32_t limit, uint64_t deadline_ms, order_store_fn *done)
{
    assert(limit >= 1 && limit <= ORDER_STORE_EVENTS_MAX);
    unit->limit = limit;
    return store_start(store, unit, CLAIM_EVENTS, deadline_ms, done);
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
    return store_start(store, unit, RELEASE_EVENTS, deadline_ms, done);
}

enum order_store_status order_store_delete_events(struct order_store *store, struct order_store_unit *unit,
                                                  const int64_t *ids, size_t count, uint64_t deadline_ms,
                                                  order_store_fn *done)
{
    unit_set_event_ids(unit, ids, count);
    return store_start(store, unit, DELETE_EVENTS, deadline_ms, done);
}

enum order_store_status order_store_forget_requests(struct order_store *store, struct order_store_unit *unit,
                                                    uint64_t deadline_ms, order_store_fn *done)
{
    return store_start(store, unit, FORGET_REQUESTS, deadline_ms, done);
}

enum order_store_status order_store_forget_keys(struct order_store *store, struct order_store_unit *unit,
                                                uint64_t deadline_ms, order_store_fn *done)
{
    return store_start(store, unit, FORGET_KEYS, deadline_ms, done);
}

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

    if (store == NULL)
        return NULL;
    store->options = *options;
    store->work = work_new(&(struct work_options){.loop = options->loop,
                                                  .uri = options->uri,
                                                  .operations = operations,
                                                  .connections = options->connections,
                                                  .timeout_ms = options->timeout_ms,
                                                  .on_up = store_on_up,
                                                  .arg = store});
    store->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    store->digest = EVP_MD_CTX_new();
    if (store->work == NULL || store->sha256 == NULL || store->digest == NULL || !scratch_reserve(store, 1)) {
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
    text_clear(&store->text);
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

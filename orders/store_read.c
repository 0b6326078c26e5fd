#include "store_read.h"

#include <stdlib.h>

#define SCRATCH_KEEP_ROWS 4096 /* rows that memory is kept for */

/* The statements keep the layout of SQL. */
/* clang-format off */

/* OFFSET 0 keeps the planner from any other join: lines are found by their index, however large the tables are. */
#define ORDER_COLUMNS "SELECT o.id, d.id, d.product_id, d.price::text, d.quantity FROM "
#define LINES_OF_ORDER                                                                                               \
    " LEFT JOIN LATERAL ("                                                                                           \
    "  SELECT id, product_id, price, quantity FROM order_details WHERE order_id = o.id OFFSET 0"                     \
    ") AS d ON true"

/* Where there is a line there is its order: only for those without any is it looked for. */
#define GET_SQL                                                                                                      \
    ORDER_COLUMNS "(SELECT DISTINCT unnest($1::int[]) AS id) AS o" LINES_OF_ORDER                                    \
    " WHERE d.id IS NOT NULL OR (SELECT true FROM orders WHERE id = o.id)"                                           \
    " ORDER BY o.id, d.id"

#define LIST_SQL                                                                                                     \
    ORDER_COLUMNS "(SELECT id FROM orders WHERE id > $1::int ORDER BY id LIMIT $2::int) AS o" LINES_OF_ORDER         \
    " ORDER BY o.id, d.id LIMIT $3::int"

/* clang-format on */

bool store_read_reserve(struct order_store *store, size_t rows)
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

bool store_read_orders(struct order_store_unit *unit, const PGresult *rows, int row, size_t orders_max)
{
    struct order_store *store = unit->store;
    struct order *order = NULL;
    size_t lines_count = 0, orders_count = 0;

    if (!store_read_reserve(store, (size_t)(PQntuples(rows) - row))) {
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
        parameters_element_int4(parameters, store_unit_of(units[index])->order_id);
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
    struct order_store_unit *unit = store_unit_of(work);
    int row = find_row(rows, unit->order_id);

    (void)index;
    (void)arg;
    if (row < PQntuples(rows) && row_int4(rows, row, 0) == unit->order_id)
        return store_read_orders(unit, rows, row, 1);
    unit->status = ORDER_STORE_NOT_FOUND;
    return true;
}

static void bind_list(struct parameters *parameters, struct work_unit *const units[], size_t count, void *arg)
{
    (void)count;
    (void)arg;
    parameters_add_int4(parameters, store_unit_of(units[0])->page.after);
    parameters_add_int4(parameters, store_unit_of(units[0])->page.limit);
    parameters_add_int4(parameters, ORDER_STORE_LIST_LINES_MAX + 1);
}

static bool take_listed(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    (void)index;
    (void)arg;
    if (PQntuples(rows) <= ORDER_STORE_LIST_LINES_MAX)
        return store_read_orders(store_unit_of(work), rows, 0, SIZE_MAX);
    store_unit_of(work)->status = ORDER_STORE_TOO_LARGE;
    return true;
}

const struct work_operation store_get = {
    .name = "get",
    .sql = GET_SQL,
    .batch_max = WORK_BATCH_MAX,
    .is_read = true,
    .is_repeatable = true,
    .columns = 5,
    .bind = bind_get,
    .take = take_got,
};

const struct work_operation store_list = {
    .name = "list",
    .sql = LIST_SQL,
    .batch_max = 1,
    .is_read = true,
    .is_repeatable = true,
    .columns = 5,
    .bind = bind_list,
    .take = take_listed,
};

enum order_store_status order_store_get(struct order_store *store, struct order_store_unit *unit, int32_t id,
                                        uint64_t deadline_ms, order_store_fn *done)
{
    unit->order_id = id;
    return store_start(store, unit, STORE_GET, deadline_ms, done);
}

enum order_store_status order_store_list(struct order_store *store, struct order_store_unit *unit,
                                         struct order_page page, uint64_t deadline_ms, order_store_fn *done)
{
    unit->page = page;
    return store_start(store, unit, STORE_LIST, deadline_ms, done);
}

/* The store against a real PostgreSQL: orders read, changed and deleted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "store_case.h"

static void test_update(void **state)
{
    struct stage *stage = stage_of(state);
    static const char changed[] =
        "{\"id\":1,\"order_details\":["
        "{\"id\":1,\"product_id\":\"a\\\"b\\\\\",\"price\":\"1.00\",\"quantity\":1},"
        "{\"id\":2,\"product_id\":\"{c,d}\",\"price\":\"9999999999999999.99\",\"quantity\":7}]}";

    ends(act_create(stage, TWO_LINES, NULL, NULL), ORDER_STORE_OK);
    ends(act_create(stage, LINE, NULL, NULL), ORDER_STORE_OK);
    ends_with(
        act_update(stage, "{\"id\":1,\"order_details\":[{\"id\":2,\"price\":\"9999999999999999.99\",\"quantity\":7}]}"),
        ORDER_STORE_OK, changed);
    ends_with(act_get(stage, 1), ORDER_STORE_OK, changed);
    ends_with(act_update(stage, "{\"id\":1,\"order_details\":[]}"), ORDER_STORE_OK, changed);
    /* all or nothing: a line of another order, of none, of none that can be */
    ends(
        act_update(
            stage,
            "{\"id\":1,\"order_details\":[{\"id\":1,\"price\":5,\"quantity\":5},{\"id\":3,\"price\":5,\"quantity\":5}]}"),
        ORDER_STORE_LINE_NOT_FOUND);
    ends(
        act_update(
            stage,
            "{\"id\":1,\"order_details\":[{\"id\":99,\"price\":5,\"quantity\":5},{\"id\":1,\"price\":5,\"quantity\":5}]}"),
        ORDER_STORE_LINE_NOT_FOUND);
    ends(
        act_update(
            stage,
            "{\"id\":1,\"order_details\":[{\"id\":1,\"price\":5,\"quantity\":5},{\"id\":0,\"price\":5,\"quantity\":5}]}"),
        ORDER_STORE_LINE_NOT_FOUND);
    ends(act_update(stage, "{\"id\":9,\"order_details\":[{\"id\":1,\"price\":5,\"quantity\":5}]}"),
         ORDER_STORE_NOT_FOUND);
    ends_with(act_get(stage, 1), ORDER_STORE_OK, changed);
    sql_is("SELECT string_agg((updated_at > created_at)::text, ' ' ORDER BY id) FROM order_details",
           "false true false");
}

static void test_delete(void **state)
{
    struct stage *stage = stage_of(state);

    ends(act_create(stage, TWO_LINES, NULL, NULL), ORDER_STORE_OK);
    ends(act_create(stage, LINE, NULL, NULL), ORDER_STORE_OK);
    ends(act_delete(stage, 1), ORDER_STORE_OK);
    ends(act_delete(stage, 1), ORDER_STORE_NOT_FOUND);
    ends(act_get(stage, 1), ORDER_STORE_NOT_FOUND);
    sql_is("SELECT string_agg(order_id::text, ' ') FROM order_details", "2");
    assert_int_equal(number("SELECT count(*) FROM order_outbox"), 2); /* it was acknowledged: its event goes out */
}

static void test_list(void **state)
{
    struct stage *stage = stage_of(state);
    /* as the Python service leaves them: no lines, and prices that it did not check */
    free(postgres_sql(
        postgres, "INSERT INTO orders (created_at, updated_at) SELECT now(), now() FROM generate_series(1, 20);"
                  "INSERT INTO order_details (order_id, product_id, price, quantity, created_at, updated_at) VALUES"
                  " (2, 'x', 'NaN', -1, now(), now()), (2, 'y', -1.5, 0, now(), now()), (4, 'z', 2, 3, now(), now())"));
    ends_with(act_list(stage, 0, 3), ORDER_STORE_OK,
              "{\"id\":1,\"order_details\":[]}"
              "{\"id\":2,\"order_details\":[{\"id\":1,\"product_id\":\"x\",\"price\":\"NaN\",\"quantity\":-1},"
              "{\"id\":2,\"product_id\":\"y\",\"price\":\"-1.50\",\"quantity\":0}]}"
              "{\"id\":3,\"order_details\":[]}");
    ends_with(act_list(stage, 3, 1), ORDER_STORE_OK,
              "{\"id\":4,\"order_details\":[{\"id\":3,\"product_id\":\"z\",\"price\":\"2.00\",\"quantity\":3}]}");
    ends_with(act_list(stage, 20, ORDER_PAGE_MAX), ORDER_STORE_OK, "");
    ends_with(act_get(stage, 3), ORDER_STORE_OK, "{\"id\":3,\"order_details\":[]}");
    free(postgres_sql(postgres,
                      "INSERT INTO order_details (order_id, product_id, price, quantity, created_at, updated_at)"
                      " SELECT 5, '', 1, 1, now(), now() FROM generate_series(1, 100000)"));
    ends(act_list(stage, 0, 20), ORDER_STORE_TOO_LARGE);
    ends(act_list(stage, 5, 20), ORDER_STORE_OK);
}

/* An answer that nobody could be sent costs the connection it comes on, before it fills the memory. */
static void test_rows_are_bounded(void **state)
{
    struct stage *stage = stage_of(state);
    char *first;

    stage_wait_all_up(stage);
    first = text_of(act_create(stage, LINE, NULL, NULL));
    free(postgres_sql(postgres,
                      "INSERT INTO orders (created_at, updated_at) VALUES (now(), now());"
                      "INSERT INTO order_details (order_id, product_id, price, quantity, created_at, updated_at)"
                      " SELECT 2, repeat('x', 1024), 1, 1, now(), now() FROM generate_series(1, 40000)"));
    ends(act_list(stage, 0, 20), ORDER_STORE_TOO_LARGE);
    ends(act_get(stage, 2), ORDER_STORE_TOO_LARGE);
    stage_wait_up(stage);
    ends_with(act_list(stage, 0, 1), ORDER_STORE_OK, first);
    ends_with(act_get(stage, 1), ORDER_STORE_OK, first);
    free(first);
}

int test_store_change(void)
{
    const struct CMUnitTest tests[] = {
        case_of(test_update),
        case_of(test_delete),
        case_of(test_list),
        case_of(test_rows_are_bounded),
    };

    return cmocka_run_group_tests_name("test_store_change", tests, NULL, NULL);
}

/* The store against a real Redis: orders, each applied once. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "store_client.h"

static void test_an_order_counts_once(void **state)
{
    struct client client;
    struct applied order, other;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    client_make(&client, "a", 10);
    client_make(&client, "b", 10);
    applied_begin(&order, 7);
    applied_line(&order, "a", 3);
    applied_line(&order, "b", 2147483647);
    applied_begin(&other, 8);
    applied_line(&other, "a", 1);

    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_OK);
    applied_counts_are(&order, 2, 0, 0, 0);
    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_OK);
    applied_counts_are(&order, 0, 2, 0, 0);
    assert_int_equal(applied_apply(&client, &other), PRODUCT_STORE_OK);
    applied_counts_are(&other, 1, 0, 0, 0);
    assert_int_equal(server_stock("a"), 6);
    assert_int_equal(server_stock("b"), 10 - INT64_C(2147483647));
    assert_int_equal(redis_server_integer(&server, "HLEN airship:applied:7"), 2);
    assert_in_range(redis_server_integer(&server, "TTL airship:applied:7"), PRODUCT_APPLIED_TTL_S - 60,
                    PRODUCT_APPLIED_TTL_S);
    applied_clear(&order);
    applied_clear(&other);
    client_end(&client);
}

static void test_a_deleted_product(void **state)
{
    struct client client;
    struct applied order, later;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    applied_begin(&order, 7);
    applied_line(&order, "a", 3);
    applied_begin(&later, 8);
    applied_line(&later, "a", 1);

    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_OK); /* there is none */
    applied_counts_are(&order, 0, 0, 1, 0);
    assert_int_equal(redis_server_integer(&server, "EXISTS products:a"), 0);
    client_make(&client, "a", 10); /* made after the order: its second delivery is none of this product's business */
    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_OK);
    applied_counts_are(&order, 0, 1, 0, 0);
    assert_int_equal(server_stock("a"), 10);

    assert_int_equal(applied_apply(&client, &later), PRODUCT_STORE_OK);
    assert_int_equal(server_stock("a"), 9);
    assert_int_equal(client_delete(&client, RPC_BYTES("a")), PRODUCT_STORE_OK);
    client_make(&client, "a", 20); /* made again: what was applied stays applied */
    assert_int_equal(applied_apply(&client, &later), PRODUCT_STORE_OK);
    applied_counts_are(&later, 0, 1, 0, 0);
    assert_int_equal(server_stock("a"), 20);
    applied_clear(&order);
    applied_clear(&later);
    client_end(&client);
}

static void test_stock_that_cannot_be_lowered(void **state)
{
    struct client client;
    struct applied order;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    client_make(&client, "good", 1);
    client_make(&client, "edge", INT64_MIN);
    redis_server_do(&server, "HSET products:word id word in_stock many");
    redis_server_do(&server, "HSET products:half id half");
    redis_server_do(&server, "SET products:text x");
    applied_begin(&order, 7);
    applied_line(&order, "word", 1);
    applied_line(&order, "edge", 1);
    applied_line(&order, "half", 1);
    applied_line(&order, "text", 1);
    applied_line(&order, "good", 1);
    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_OK);
    applied_counts_are(&order, 1, 0, 1, 3);
    assert_int_equal(server_stock("good"), 0);
    assert_int_equal(server_stock("edge"), INT64_MIN);
    assert_int_equal(redis_server_integer(&server, "HEXISTS products:half in_stock"), 0);
    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_OK);
    applied_counts_are(&order, 0, 2, 0, 3); /* what was refused is not remembered: it is owed */
    redis_server_do(&server, "HSET products:word in_stock 5");
    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_OK);
    applied_counts_are(&order, 1, 2, 0, 2);
    assert_int_equal(server_stock("word"), 4);
    assert_int_equal(server_stock("good"), 0);
    applied_clear(&order);
    client_end(&client);
}

static void test_many_products(void **state)
{
    enum { COUNT = 2 * PRODUCT_APPLY_CHANGES_MAX + 100 };
    struct client client;
    struct applied order;
    char id[32];

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    redis_server_do(&server, "EVAL %s 0 %d", FILL, COUNT);
    applied_begin(&order, INT64_MAX);
    for (int i = 1; i <= COUNT; i++) {
        snprintf(id, sizeof(id), "p%d", i);
        applied_line(&order, id, i);
    }
    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_OK);
    applied_counts_are(&order, COUNT, 0, 0, 0);
    for (int i = 1; i <= COUNT; i++) {
        snprintf(id, sizeof(id), "p%d", i);
        assert_int_equal(server_stock(id), 0);
    }
    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_OK);
    applied_counts_are(&order, 0, COUNT, 0, 0);
    applied_clear(&order);
    client_end(&client);
}

static void test_the_server_forgets_the_script(void **state)
{
    struct client client;
    struct applied orders[20];

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    client_make(&client, "a", 100);
    for (int i = 0; i < 20; i++) {
        applied_begin(&orders[i], i + 1);
        applied_line(&orders[i], "a", 2);
        if (i == 0 || i == 10)
            redis_server_do(&server, "SCRIPT FLUSH");
        if (i < 10)
            assert_int_equal(applied_apply(&client, &orders[i]), PRODUCT_STORE_OK);
        else
            assert_int_equal(applied_send(&client, &orders[i]), PRODUCT_STORE_OK); /* all refused at once */
    }
    for (int i = 10; i < 20; i++) {
        assert_true(turns_until(turns, applied_is_there, &orders[i]));
        assert_int_equal(orders[i].status, PRODUCT_STORE_OK);
    }
    assert_int_equal(server_stock("a"), 60);
    for (int i = 0; i < 20; i++)
        applied_clear(&orders[i]);
    client_end(&client);
}

static void test_two_instances_and_one_event(void **state)
{
    struct client clients[2];
    struct applied orders[2][50];

    (void)state;
    client_begin(&clients[0], TIMEOUT_MS);
    client_make(&clients[0], "a", 50);
    client_begin(&clients[1], TIMEOUT_MS);
    client_make(&clients[1], "a", 50);
    for (int i = 0; i < 100; i++) {
        struct applied *order = &orders[i % 2][i / 2];

        applied_begin(order, i / 2 + 1);
        applied_line(order, "a", 1);
        assert_int_equal(applied_send(&clients[i % 2], order), PRODUCT_STORE_OK);
    }
    for (int i = 0; i < 100; i++) {
        struct applied *order = &orders[i % 2][i / 2];

        assert_true(turns_until(turns, applied_is_there, order));
        assert_int_equal(order->status, PRODUCT_STORE_OK);
    }
    for (int i = 0; i < 50; i++) {
        assert_int_equal(orders[0][i].application.applied + orders[1][i].application.applied, 1);
        applied_clear(&orders[0][i]);
        applied_clear(&orders[1][i]);
    }
    assert_int_equal(server_stock("a"), 0);
    client_end(&clients[0]);
    client_end(&clients[1]);
}

/* An order is applied whatever happens, and once: killed, asked again, killed again. */
static void test_orders_while_redis_dies(void **state)
{
    enum { COUNT = 200 };
    struct applied *orders = calloc(COUNT, sizeof(*orders));
    struct client client;
    size_t open = COUNT;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    client_make(&client, "a", COUNT);
    for (int i = 0; i < COUNT; i++) {
        applied_begin(&orders[i], i + 1);
        applied_line(&orders[i], "a", 1);
    }
    for (int round = 0; open > 0; round++) {
        assert_true(round < 50);
        client_wait_up(&client);
        for (int i = 0; i < COUNT; i++)
            if (orders[i].status != PRODUCT_STORE_OK && applied_send(&client, &orders[i]) != PRODUCT_STORE_OK)
                orders[i].status = PRODUCT_STORE_UNAVAILABLE;
        if (round < 3) {
            for (int i = 0; i <= round; i++)
                turns_once(turns);
            redis_server_signal(&server, SIGKILL);
            redis_server_start(&server);
        }
        open = 0;
        for (int i = 0; i < COUNT; i++) {
            assert_true(turns_until(turns, applied_is_there, &orders[i]));
            open += orders[i].status != PRODUCT_STORE_OK;
        }
    }
    assert_int_equal(server_stock("a"), 0);
    for (int i = 0; i < COUNT; i++)
        applied_clear(&orders[i]);
    free(orders);
    client_end(&client);
}

int test_store_apply(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_order_counts_once),          cmocka_unit_test(test_a_deleted_product),
        cmocka_unit_test(test_stock_that_cannot_be_lowered),  cmocka_unit_test(test_many_products),
        cmocka_unit_test(test_the_server_forgets_the_script), cmocka_unit_test(test_two_instances_and_one_event),
        cmocka_unit_test(test_orders_while_redis_dies),
    };

    return cmocka_run_group_tests_name("test_store_apply", tests, NULL, NULL);
}

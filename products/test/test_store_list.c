/* The store against a real Redis: all products. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "store_client.h"
#include "store_list.h"

struct listing {
    int status;
    json_t *products; /* owned */
    size_t damaged;
    size_t largest_size;
    char largest_id[64];
};

static bool listing_is_there(void *arg)
{
    return ((struct listing *)arg)->status != PENDING;
}

static void listing_on_done(enum product_store_status status, const struct product_listing *came, void *arg)
{
    struct listing *listing = arg;
    struct rpc_bytes products = came->products;

    assert_int_equal(listing->status, PENDING);
    listing->status = (int)status;
    listing->damaged = came->damaged;
    listing->largest_size = came->largest_size;
    snprintf(listing->largest_id, sizeof(listing->largest_id), "%.*s", (int)came->largest_id.size,
             came->largest_id.size > 0 ? came->largest_id.data : "");
    assert_int_equal(products.data != NULL, status == PRODUCT_STORE_OK);
    if (products.data != NULL)
        listing->products = json_loadb(products.data, products.size, JSON_REJECT_DUPLICATES, NULL);
}

static int list(struct client *client, struct listing *listing, size_t size_max, uint64_t deadline_ms)
{
    enum product_store_status status;

    *listing = (struct listing){.status = PENDING};
    status = product_store_list(client->store,
                                &(struct product_list_limits){.size_max = size_max, .deadline_ms = deadline_ms},
                                listing_on_done, listing);
    if (status != PRODUCT_STORE_OK)
        return (int)status;
    assert_true(turns_until(turns, listing_is_there, listing));
    return listing->status;
}

static void test_list(void **state)
{
    struct client client;
    struct listing listing;
    json_t *seen = json_object();

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    assert_int_equal(list(&client, &listing, SIZE_UNLIMITED, UINT64_MAX), PRODUCT_STORE_OK);
    assert_int_equal(json_array_size(listing.products), 0);
    json_decref(listing.products);

    redis_server_do(&server, "EVAL %s 0 3000", FILL);
    redis_server_do(&server, "SET other:p1 x");
    redis_server_do(&server, "HSET airship:applied:1 products:p1 -1");
    redis_server_do(&server, "SET products:text x");
    redis_server_do(&server, "HSET products:half in_stock -1");
    assert_int_equal(list(&client, &listing, SIZE_UNLIMITED, UINT64_MAX), PRODUCT_STORE_OK);
    assert_int_equal(json_array_size(listing.products), 3000);
    assert_int_equal(listing.damaged, 2);
    for (size_t i = 0; i < 3000; i++) {
        const json_t *product = json_array_get(listing.products, i);

        assert_int_equal(json_object_size(product), 5);
        json_object_set(seen, json_string_value(json_object_get(product, "id")), json_object_get(product, "in_stock"));
    }
    assert_int_equal(json_object_size(seen), 3000);
    assert_int_equal(json_integer_value(json_object_get(seen, "p1234")), 1234);
    json_decref(seen);
    json_decref(listing.products);
    client_end(&client);
}

static void test_list_limits(void **state)
{
    struct client client;
    struct listing listing, listings[PRODUCT_LISTS_MAX];

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    redis_server_do(&server, "EVAL %s 0 1000", FILL);
    assert_int_equal(list(&client, &listing, 50000, UINT64_MAX), PRODUCT_STORE_TOO_LARGE);
    assert_int_equal(list(&client, &listing, 100, UINT64_MAX), PRODUCT_STORE_TOO_LARGE);
    assert_int_equal(list(&client, &listing, SIZE_UNLIMITED, 0), PRODUCT_STORE_LATE);
    for (int i = 0; i < PRODUCT_LISTS_MAX; i++) {
        const struct product_list_limits limits = {.size_max = SIZE_UNLIMITED, .deadline_ms = UINT64_MAX};

        listings[i] = (struct listing){.status = PENDING};
        assert_int_equal(product_store_list(client.store, &limits, listing_on_done, &listings[i]), PRODUCT_STORE_OK);
    }
    assert_int_equal(list(&client, &listing, SIZE_UNLIMITED, UINT64_MAX), PRODUCT_STORE_BUSY);
    for (int i = 0; i < PRODUCT_LISTS_MAX; i++) {
        assert_true(turns_until(turns, listing_is_there, &listings[i]));
        assert_int_equal(json_array_size(listings[i].products), 1000);
        json_decref(listings[i].products);
    }
    redis_server_do(&server, "EVAL %s 0 %d", FILL, PRODUCT_LIST_MAX);
    assert_int_equal(list(&client, &listing, SIZE_UNLIMITED, UINT64_MAX), PRODUCT_STORE_OK);
    assert_int_equal(json_array_size(listing.products), PRODUCT_LIST_MAX);
    json_decref(listing.products);
    client_make(&client, "one more", 1);
    assert_int_equal(list(&client, &listing, SIZE_UNLIMITED, UINT64_MAX), PRODUCT_STORE_TOO_MANY);
    client_end(&client);
}

/* One product takes all the room: whoever asks is told which. */
static void test_a_list_names_what_is_too_large(void **state)
{
    struct client client;
    struct listing listing;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    client_make(&client, "small", 1);
    client_make(&client, "large", 1);
    redis_server_do(&server, "EVAL %s 0",
                    "return redis.call('HSET', 'products:large', 'title', string.rep('t', 90000))");
    assert_int_equal(list(&client, &listing, 50000, UINT64_MAX), PRODUCT_STORE_TOO_LARGE);
    assert_string_equal(listing.largest_id, "large");
    assert_in_range(listing.largest_size, 90000, 90200);
    client_end(&client);
}

static void test_list_while_redis_dies(void **state)
{
    const struct product_list_limits limits = {.size_max = SIZE_UNLIMITED, .deadline_ms = UINT64_MAX};
    struct listing listing = {.status = PENDING};
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    redis_server_do(&server, "EVAL %s 0 5000", FILL);
    assert_int_equal(product_store_list(client.store, &limits, listing_on_done, &listing), PRODUCT_STORE_OK);
    for (int i = 0; i < 4; i++)
        turns_once(turns);
    redis_server_signal(&server, SIGKILL);
    assert_true(turns_until(turns, listing_is_there, &listing));
    assert_int_equal(listing.status, PRODUCT_STORE_UNAVAILABLE);
    redis_server_start(&server);
    client_wait_up(&client);
    assert_int_equal(list(&client, &listing, SIZE_UNLIMITED, UINT64_MAX), PRODUCT_STORE_OK);
    assert_int_equal(json_array_size(listing.products), 5000);
    json_decref(listing.products);
    client_end(&client);
}

int test_store_list(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_list_limits),
        cmocka_unit_test(test_a_list_names_what_is_too_large),
        cmocka_unit_test(test_list_while_redis_dies),
    };

    return cmocka_run_group_tests_name("test_store_list", tests, NULL, NULL);
}

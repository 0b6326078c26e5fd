/* A list's text, and that it knows its keys again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "product_list.h"

#define SIZE_MAX_HERE 100000

static struct rpc_bytes key_of(char room[32], int number)
{
    return (struct rpc_bytes){room, (size_t)snprintf(room, 32, "products:%d", number)};
}

static void test_no_products(void **state)
{
    struct product_list list;

    (void)state;
    product_list_init(&list, 10, SIZE_MAX_HERE);
    assert_true(rpc_bytes_equal(product_list_finish(&list), "[]"));
    product_list_clear(&list);
}

static void test_products(void **state)
{
    const struct rpc_bytes good[PRODUCT_FIELDS] = {RPC_BYTES("a"), RPC_BYTES("t"), RPC_BYTES("1"), RPC_BYTES("2"),
                                                   RPC_BYTES("3")};
    const struct rpc_bytes bad[PRODUCT_FIELDS] = {RPC_BYTES("b"), RPC_BYTES("t"), RPC_BYTES("x"), RPC_BYTES("2"),
                                                  RPC_BYTES("3")};
    static const char printed[] = "[{\"id\":\"a\",\"title\":\"t\",\"passenger_capacity\":1,\"maximum_speed\":2,"
                                  "\"in_stock\":3},{\"id\":\"a\",\"title\":\"t\",\"passenger_capacity\":1,"
                                  "\"maximum_speed\":2,\"in_stock\":3}]";
    struct product_list list;

    (void)state;
    product_list_init(&list, 10, SIZE_MAX_HERE);
    assert_int_equal(product_list_add(&list, bad), PRODUCT_LIST_DAMAGED);
    assert_int_equal(product_list_add(&list, good), PRODUCT_LIST_OK);
    assert_int_equal(product_list_add(&list, bad), PRODUCT_LIST_DAMAGED);
    assert_int_equal(product_list_add(&list, good), PRODUCT_LIST_OK);
    assert_true(rpc_bytes_equal(product_list_finish(&list), printed));
    product_list_clear(&list);

    product_list_init(&list, 10, 100);
    assert_int_equal(product_list_add(&list, good), PRODUCT_LIST_OK);
    assert_int_equal(product_list_add(&list, good), PRODUCT_LIST_TOO_LARGE);
    product_list_clear(&list);
}

static void test_the_largest_is_known(void **state)
{
    struct rpc_bytes fields[PRODUCT_FIELDS] = {RPC_BYTES("a"), RPC_BYTES("t"), RPC_BYTES("1"), RPC_BYTES("2"),
                                               RPC_BYTES("3")};
    struct product_list list;
    size_t size;

    (void)state;
    product_list_init(&list, 10, 400);
    assert_int_equal(list.largest_size, 0);
    assert_int_equal(product_list_add(&list, fields), PRODUCT_LIST_OK);
    assert_true(rpc_bytes_equal(rpc_text_bytes(&list.largest_id), "a"));
    size = list.largest_size;
    assert_int_equal(list.text.size, 1 + size);
    fields[PRODUCT_ID] = RPC_BYTES("b\"");
    fields[PRODUCT_TITLE] = RPC_BYTES("ttttt");
    assert_int_equal(product_list_add(&list, fields), PRODUCT_LIST_OK);
    assert_true(rpc_bytes_equal(rpc_text_bytes(&list.largest_id), "b\""));
    assert_int_equal(list.largest_size, size + 2 + 4); /* as JSON */
    fields[PRODUCT_ID] = RPC_BYTES("c");
    fields[PRODUCT_TITLE] = RPC_BYTES("");
    assert_int_equal(product_list_add(&list, fields), PRODUCT_LIST_OK);
    assert_true(rpc_bytes_equal(rpc_text_bytes(&list.largest_id), "b\""));
    while (product_list_add(&list, fields) == PRODUCT_LIST_OK) /* also when there is no more room */
        continue;
    assert_true(rpc_bytes_equal(rpc_text_bytes(&list.largest_id), "b\""));
    product_list_clear(&list);
}

static void test_keys_are_known_again(void **state)
{
    struct product_list list;
    char room[32];

    (void)state;
    product_list_init(&list, 5000, SIZE_MAX_HERE);
    for (int i = 0; i < 5000; i++) {
        size_t offset = SIZE_MAX;
        struct rpc_bytes key = key_of(room, i);

        assert_int_equal(product_list_see(&list, key, &offset), PRODUCT_LIST_OK);
        assert_memory_equal(list.keys.data + offset, key.data, key.size);
    }
    for (int i = 0; i < 5000; i++) {
        size_t offset;

        assert_int_equal(product_list_see(&list, key_of(room, i), &offset), PRODUCT_LIST_SEEN);
    }
    assert_int_equal(list.count, 5000);
    assert_int_equal(product_list_see(&list, key_of(room, 5000), &(size_t){0}), PRODUCT_LIST_TOO_MANY);
    product_list_clear(&list);

    product_list_init(&list, 5000, 20);
    assert_int_equal(product_list_see(&list, key_of(room, 1), &(size_t){0}), PRODUCT_LIST_OK);
    assert_int_equal(product_list_see(&list, key_of(room, 2), &(size_t){0}), PRODUCT_LIST_OK);
    assert_int_equal(product_list_see(&list, key_of(room, 3), &(size_t){0}), PRODUCT_LIST_TOO_LARGE);
    product_list_clear(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_products),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_the_largest_is_known),
        cmocka_unit_test(test_keys_are_known_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

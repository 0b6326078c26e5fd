/* The store against a real Redis: one product, and that a request to change one is carried out once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "store_client.h"

static void test_a_product_s_life(void **state)
{
    static const struct rpc_bytes ids[] = {
        RPC_BYTES("a"),      RPC_BYTES("with space"), RPC_BYTES("line\r\nbreak"), RPC_BYTES("*"),  RPC_BYTES("[a-z]?"),
        RPC_BYTES("%s%n%b"), RPC_BYTES("飛行船"),     RPC_BYTES("products:1"),    RPC_BYTES("\""), RPC_BYTES(""),
    };
    struct client client;
    struct answer answer;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        assert_int_equal(client_get(&client, ids[i], &answer), PRODUCT_STORE_NOT_FOUND);
        assert_int_equal(client_exists(&client, ids[i]), PRODUCT_STORE_NOT_FOUND);
        assert_int_equal(client_delete(&client, ids[i]), PRODUCT_STORE_OK);
        assert_int_equal(client_create(&client, ids[i], INT64_MIN), PRODUCT_STORE_OK);
        assert_int_equal(client_get(&client, ids[i], &answer), PRODUCT_STORE_OK);
        assert_non_null(strstr(answer.text, "\"in_stock\":-9223372036854775808}"));
        assert_int_equal(client_exists(&client, ids[i]), PRODUCT_STORE_OK);
        assert_int_equal(redis_server_integer(&server, "HLEN products:%b", ids[i].data, ids[i].size), 5);
        assert_int_equal(client_delete(&client, ids[i]), PRODUCT_STORE_OK);
        assert_int_equal(client_exists(&client, ids[i]), PRODUCT_STORE_NOT_FOUND);
    }
    assert_int_equal(redis_server_integer(&server, "DBSIZE"), 0);
    client_end(&client);
}

static void test_as_the_original_stores(void **state)
{
    struct client client;
    struct answer answer;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    redis_server_do(&server,
                    "HSET products:the_odyssey id the_odyssey title %s passenger_capacity 101 maximum_speed 5 "
                    "in_stock 10",
                    "The Odyssey");
    assert_int_equal(client_get(&client, RPC_BYTES("the_odyssey"), &answer), PRODUCT_STORE_OK);
    assert_string_equal(answer.text, "{\"id\":\"the_odyssey\",\"title\":\"The Odyssey\",\"passenger_capacity\":101,"
                                     "\"maximum_speed\":5,\"in_stock\":10}");
    client_end(&client);
}

static void test_create_replaces(void **state)
{
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    client_make(&client, "a", 1);
    client_make(&client, "a", 2);
    assert_int_equal(server_stock("a"), 2);
    assert_int_equal(redis_server_integer(&server, "HLEN products:a"), 5);
    client_end(&client);
}

static void test_what_is_no_product(void **state)
{
    struct client client;
    struct answer answer;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    redis_server_do(&server, "SET products:text x");
    redis_server_do(&server, "HSET products:half in_stock -1");
    assert_int_equal(client_get_status(&client, "text"), PRODUCT_STORE_DAMAGED);
    assert_int_equal(client_create(&client, RPC_BYTES("text"), 1), PRODUCT_STORE_DAMAGED);
    assert_int_equal(client_get(&client, RPC_BYTES("half"), &answer), PRODUCT_STORE_OK);
    assert_string_equal(answer.text, "damaged");
    client_end(&client);
}

static void test_each_gets_its_own_answer(void **state)
{
    enum { COUNT = 1000 };
    struct answer *answers = calloc(COUNT, sizeof(*answers));
    struct client client;
    char id[32];

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    for (int i = 0; i < COUNT; i += 2) {
        snprintf(id, sizeof(id), "p%d", i);
        client_make(&client, id, i);
    }
    for (int i = 0; i < COUNT; i++) {
        snprintf(id, sizeof(id), "p%d", i);
        answers[i].status = PENDING;
        assert_int_equal(product_store_get(client.store, &answers[i].request, rpc_bytes_of(id), answer_on_done),
                         PRODUCT_STORE_OK);
    }
    for (int i = 0; i < COUNT; i++) {
        assert_true(turns_until(turns, answer_is_there, &answers[i]));
        assert_int_equal(answers[i].status, i % 2 == 0 ? PRODUCT_STORE_OK : PRODUCT_STORE_NOT_FOUND);
        snprintf(id, sizeof(id), "\"in_stock\":%d}", i);
        if (i % 2 == 0)
            assert_non_null(strstr(answers[i].text, id));
    }
    client_end(&client);
    free(answers);
}

static int64_t reads_of_the_server(void)
{
    redisReply *reply = redis_server_ask(&server, "INFO stats");
    const char *at = strstr(reply->str, "total_reads_processed:");
    int64_t reads;

    assert_non_null(at);
    reads = strtoll(at + strlen("total_reads_processed:"), NULL, 10);
    freeReplyObject(reply);
    return reads;
}

static void test_a_turn_s_commands_leave_in_one_write(void **state)
{
    enum { COUNT = 64 };
    struct answer answers[COUNT];
    struct client client;
    int64_t reads;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    reads = reads_of_the_server();
    for (int i = 0; i < COUNT; i++) {
        answers[i] = (struct answer){.status = PENDING};
        assert_int_equal(product_store_get(client.store, &answers[i].request, RPC_BYTES("x"), answer_on_done),
                         PRODUCT_STORE_OK);
    }
    assert_true(turns_until(turns, answer_is_there, &answers[COUNT - 1]));
    assert_int_equal(reads_of_the_server(), reads + 2); /* ours, and the question itself */
    client_end(&client);
}

/* How often this process has called read() or the like. */
static int64_t reads_of_this_process(void)
{
    FILE *file = fopen("/proc/self/io", "r");
    char line[128];
    long long reads = -1;

    assert_non_null(file);
    while (reads < 0 && fgets(line, sizeof(line), file) != NULL)
        sscanf(line, "syscr: %lld", &reads);
    fclose(file);
    assert_true(reads >= 0);
    return reads;
}

static void test_an_answer_takes_one_read(void **state)
{
    enum { COUNT = 100 };
    struct client client;
    int64_t none, reads;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    client_make(&client, "a", 1);
    none = -reads_of_this_process();
    none += reads_of_this_process();
    reads = -reads_of_this_process();
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_OK);
    reads += reads_of_this_process();
    assert_in_range(reads - none, 1, COUNT + COUNT / 10);
    client_end(&client);
}

/* A request that comes again changes nothing, whatever happened since. */
static void test_created_once(void **state)
{
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    assert_int_equal(client_create_once(&client, "r1", "once", 10), PRODUCT_STORE_OK);
    assert_int_equal(server_stock("once"), 10);
    assert_int_equal(redis_server_integer(&server, "HLEN products:once"), 5);
    redis_server_do(&server, "HINCRBY products:once in_stock -3");
    assert_int_equal(client_create_once(&client, "r1", "once", 10), PRODUCT_STORE_OK);
    assert_int_equal(server_stock("once"), 7);
    assert_int_equal(client_create_once(&client, "r2", "once", 10), PRODUCT_STORE_OK);
    assert_int_equal(server_stock("once"), 10);
    assert_int_equal(client_create_once(&client, "r2", "once", 11),
                     PRODUCT_STORE_OK); /* another product, one careless id */
    assert_int_equal(server_stock("once"), 11);
    assert_int_equal(client_delete(&client, RPC_BYTES("once")), PRODUCT_STORE_OK);
    assert_int_equal(client_create_once(&client, "r2", "once", 11), PRODUCT_STORE_OK);
    assert_int_equal(client_exists(&client, RPC_BYTES("once")), PRODUCT_STORE_NOT_FOUND);
    client_end(&client);
}

static void test_deleted_once(void **state)
{
    struct client client;
    redisReply *keys;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    client_make(&client, "once", 10);
    client_make(&client, "other", 10);
    assert_int_equal(client_delete_once(&client, "r1", "once"), PRODUCT_STORE_OK);
    assert_int_equal(client_exists(&client, RPC_BYTES("once")), PRODUCT_STORE_NOT_FOUND);
    assert_int_equal(client_create_once(&client, "r2", "once", 11), PRODUCT_STORE_OK);
    assert_int_equal(client_delete_once(&client, "r1", "once"), PRODUCT_STORE_OK); /* it comes again */
    assert_int_equal(server_stock("once"), 11);
    assert_int_equal(client_delete_once(&client, "r1", "other"),
                     PRODUCT_STORE_OK); /* another product, one careless id */
    assert_int_equal(client_exists(&client, RPC_BYTES("other")), PRODUCT_STORE_NOT_FOUND);
    assert_int_equal(client_delete_once(&client, "r3", "nothing"), PRODUCT_STORE_OK); /* what was not there, too */
    client_make(&client, "nothing", 1);
    assert_int_equal(client_delete_once(&client, "r3", "nothing"), PRODUCT_STORE_OK);
    assert_int_equal(server_stock("nothing"), 1);
    assert_int_equal(client_delete_once(&client, "r4", "once"), PRODUCT_STORE_OK);
    assert_int_equal(client_exists(&client, RPC_BYTES("once")), PRODUCT_STORE_NOT_FOUND);
    keys = redis_server_ask(&server, "KEYS airship:deleted:*");
    assert_int_equal(keys->elements, 4);
    assert_int_equal(keys->element[0]->len, strlen("airship:deleted:") + 32);
    assert_in_range(redis_server_integer(&server, "TTL %s", keys->element[0]->str), 90, 100);
    freeReplyObject(keys);
    client_end(&client);
}

/* It is remembered for a while under 32 digits; a write that was refused is not. */
static void test_created_is_remembered(void **state)
{
    struct client client;
    redisReply *keys;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    redis_server_do(&server, "SET products:wrong text");
    assert_int_equal(client_create_once(&client, "r1", "wrong", 10), PRODUCT_STORE_DAMAGED);
    keys = redis_server_ask(&server, "KEYS airship:*");
    assert_int_equal(keys->elements, 0);
    freeReplyObject(keys);
    redis_server_do(&server, "DEL products:wrong");
    assert_int_equal(client_create_once(&client, "r1", "wrong", 10), PRODUCT_STORE_OK);
    assert_int_equal(server_stock("wrong"), 10);
    keys = redis_server_ask(&server, "KEYS airship:created:*");
    assert_int_equal(keys->elements, 1);
    assert_int_equal(keys->element[0]->len, strlen("airship:created:") + 32);
    assert_in_range(redis_server_integer(&server, "TTL %s", keys->element[0]->str), 90, 100);
    freeReplyObject(keys);
    client_end(&client);
}

static void test_large_values(void **state)
{
    enum { SIZE = 8 * 1024 * 1024 };
    char *title = malloc(SIZE);
    struct product product = {.id = RPC_BYTES("large"), .title = {title, SIZE}};
    struct answer answer = {.status = PENDING};
    struct client client;

    (void)state;
    memset(title, 't', SIZE);
    client_begin(&client, TIMEOUT_MS);
    assert_int_equal(
        answer_wait(&answer, product_store_create(client.store, &answer.request, &product, answer_on_done)),
        PRODUCT_STORE_OK);
    assert_int_equal(redis_server_integer(&server, "HSTRLEN products:large title"), SIZE);
    assert_int_equal(client_get(&client, RPC_BYTES("large"), &answer), PRODUCT_STORE_OK);
    assert_memory_equal(answer.text, "{\"id\":\"large\",\"title\":\"ttt", 26);
    assert_int_equal(client_get_status(&client, "small"), PRODUCT_STORE_NOT_FOUND);
    client_end(&client);
    free(title);
}

int test_store_product(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_product_s_life),
        cmocka_unit_test(test_as_the_original_stores),
        cmocka_unit_test(test_create_replaces),
        cmocka_unit_test(test_what_is_no_product),
        cmocka_unit_test(test_each_gets_its_own_answer),
        cmocka_unit_test(test_a_turn_s_commands_leave_in_one_write),
        cmocka_unit_test(test_an_answer_takes_one_read),
        cmocka_unit_test(test_created_once),
        cmocka_unit_test(test_deleted_once),
        cmocka_unit_test(test_created_is_remembered),
        cmocka_unit_test(test_large_values),
    };

    return cmocka_run_group_tests_name("test_store_product", tests, NULL, NULL);
}

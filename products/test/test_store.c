/* The store against a real Redis: what it says when Redis dies, sleeps, forgets or refuses; and what the other files test. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "store_client.h"

/* ---- When Redis refuses ------------------------------------------------------------------------------------------- */

static void test_out_of_memory(void **state)
{
    struct client client;
    struct applied order;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    client_make(&client, "a", 10);
    applied_begin(&order, 7);
    applied_line(&order, "a", 1);
    redis_server_do(&server, "CONFIG SET maxmemory 1");
    assert_int_equal(client_create(&client, RPC_BYTES("b"), 1), PRODUCT_STORE_UNAVAILABLE);
    assert_non_null(strstr(product_store_reason(client.store), "OOM"));
    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_UNAVAILABLE);
    assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_OK);
    assert_int_equal(client_delete(&client, RPC_BYTES("x")), PRODUCT_STORE_OK);
    assert_int_equal(client_delete_once(&client, "full", "y"), PRODUCT_STORE_OK); /* a full one can be emptied */
    assert_true(product_store_is_up(client.store));
    redis_server_do(&server, "CONFIG SET maxmemory 0");
    client_make(&client, "y", 3);
    assert_int_equal(client_delete_once(&client, "full", "y"), PRODUCT_STORE_OK);
    assert_int_equal(server_stock("y"), 3);
    assert_int_equal(server_stock("a"), 10);
    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_OK);
    applied_counts_are(&order, 1, 0, 0, 0);
    assert_int_equal(server_stock("a"), 9);
    applied_clear(&order);
    client_end(&client);
}

static void test_a_replica(void **state)
{
    struct client client;
    struct applied order;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    client_make(&client, "a", 10);
    applied_begin(&order, 7);
    applied_line(&order, "a", 1);
    redis_server_do(&server, "REPLICAOF 127.0.0.1 1");
    assert_int_equal(client_create(&client, RPC_BYTES("b"), 1), PRODUCT_STORE_UNAVAILABLE);
    assert_int_equal(client.downs, 1); /* it looks for the server that took over */
    client_wait_up(&client);
    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_UNAVAILABLE);
    client_wait_up(&client);
    assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_OK);
    redis_server_do(&server, "REPLICAOF NO ONE");
    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_OK);
    assert_int_equal(server_stock("a"), 9);
    applied_clear(&order);
    client_end(&client);
}

/* A user who may do one write of the script and not the other must not have half of it done. */
static void test_permissions(void **state)
{
    struct client admin, client;
    struct applied order;
    char uri[96];

    (void)state;
    client_begin(&admin, TIMEOUT_MS);
    client_make(&admin, "a", 10);
    redis_server_do(&server, "ACL SETUSER shop reset on >sesame ~products:* ~airship:applied:* +@all -hincrby");
    snprintf(uri, sizeof(uri), "redis://shop:sesame@localhost:%d", server.port);
    client_open(&client, uri, TIMEOUT_MS);
    client_wait_up(&client);
    applied_begin(&order, 7);
    applied_line(&order, "a", 1);
    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_FAILED);
    assert_int_equal(redis_server_integer(&server, "EXISTS airship:applied:7"), 0);
    assert_int_equal(server_stock("a"), 10);
    redis_server_do(&server, "ACL SETUSER shop +hincrby");
    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_OK);
    assert_int_equal(server_stock("a"), 9);
    redis_server_do(&server, "ACL SETUSER shop -hmget");
    assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_FAILED);
    client_end(&client);

    /* All that the service ever sends. */
    redis_server_do(
        &server,
        "ACL SETUSER shop reset on >sesame ~products:* ~airship:applied:* ~airship:created:* "
        "~airship:deleted:* +hmget +exists +scan +hset +set +del +eval +evalsha +hsetnx +expire +hexists +hincrby +hdel +client|setname");
    client_open(&client, uri, TIMEOUT_MS);
    client_wait_up(&client);
    assert_int_equal(client_create_once(&client, "r", "b", 1), PRODUCT_STORE_OK);
    assert_int_equal(client_get_status(&client, "b"), PRODUCT_STORE_OK);
    assert_int_equal(client_exists(&client, RPC_BYTES("b")), PRODUCT_STORE_OK);
    applied_clear(&order);
    applied_begin(&order, 8);
    applied_line(&order, "b", 1);
    assert_int_equal(applied_apply(&client, &order), PRODUCT_STORE_OK);
    assert_int_equal(server_stock("b"), 0);
    assert_int_equal(client_delete_once(&client, "r", "b"), PRODUCT_STORE_OK);
    assert_int_equal(client_delete(&client, RPC_BYTES("b")), PRODUCT_STORE_OK);
    client_end(&client);
    redis_server_do(&server, "ACL DELUSER shop");
    applied_clear(&order);
    client_end(&admin);
}

static bool reason_is_login(void *arg)
{
    return strstr(product_store_reason(((struct client *)arg)->store), "refuses the login") != NULL;
}

static bool reason_is_database(void *arg)
{
    return strstr(product_store_reason(((struct client *)arg)->store), "refuses the database") != NULL;
}

static void test_login(void **state)
{
    struct client client;
    char uri[96];

    (void)state;
    redis_server_do(&server, "FLUSHALL");
    snprintf(uri, sizeof(uri), "redis://:sesame@127.0.0.1:%d", server.port);
    client_open(&client, uri, TIMEOUT_MS); /* the server wants none */
    assert_true(turns_until(turns, reason_is_login, &client));
    assert_null(strstr(product_store_reason(client.store), "sesame"));
    redis_server_do(&server, "CONFIG SET requirepass right");
    assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_UNAVAILABLE);
    redis_server_do(&server, "CONFIG SET requirepass sesame"); /* now it is the right one: no restart needed */
    client_wait_up(&client);
    assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_NOT_FOUND);
    redis_server_do(&server, "CONFIG SET requirepass %s", "");
    client_end(&client);
}

static void test_databases(void **state)
{
    struct client client;
    char uri[96];

    (void)state;
    redis_server_do(&server, "FLUSHALL");
    snprintf(uri, sizeof(uri), "redis://127.0.0.1:%d/7", server.port);
    client_open(&client, uri, TIMEOUT_MS);
    client_wait_up(&client);
    client_make(&client, "a", 1);
    assert_int_equal(redis_server_integer(&server, "DBSIZE"), 0);
    redis_server_do(&server, "SELECT 7");
    assert_int_equal(redis_server_integer(&server, "DBSIZE"), 1);
    redis_server_do(&server, "SELECT 0");
    client_end(&client);

    snprintf(uri, sizeof(uri), "redis://127.0.0.1:%d/16", server.port);
    client_open(&client, uri, TIMEOUT_MS);
    assert_true(turns_until(turns, reason_is_database, &client));
    client_end(&client);
}

static void test_the_connection_has_a_name(void **state)
{
    struct client client;
    redisReply *reply;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    client_get_status(&client, "a"); /* behind the name */
    reply = redis_server_ask(&server, "CLIENT LIST");
    assert_non_null(strstr(reply->str, "name=products "));
    freeReplyObject(reply);
    client_end(&client);
}

/* ---- When Redis is away ------------------------------------------------------------------------------------------- */

static bool reason_is_refused(void *arg)
{
    return strstr(product_store_reason(((struct client *)arg)->store), "refused") != NULL;
}

static void test_redis_comes_later(void **state)
{
    struct redis_server late;
    struct client client;
    char uri[64];

    (void)state;
    redis_server_init(&late);
    snprintf(uri, sizeof(uri), "redis://localhost:%d", late.port);
    client_open(&client, uri, TIMEOUT_MS);
    assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_UNAVAILABLE);
    assert_true(turns_until(turns, reason_is_refused, &client));
    assert_int_equal(client.ups + client.downs, 0);
    redis_server_start(&late);
    client_wait_up(&client);
    assert_int_equal(client.ups, 1);
    assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_NOT_FOUND);
    client_end(&client);
    redis_server_clear(&late);
}

static void test_an_unknown_host(void **state)
{
    struct client client;

    (void)state;
    client_open(&client, "redis://no-such-host.invalid", TIMEOUT_MS);
    assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_UNAVAILABLE);
    for (int i = 0; i < 20; i++)
        turns_once(turns);
    client_end(&client); /* also while the name is being looked up */
}

static void test_kill_and_restart(void **state)
{
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    client_make(&client, "a", 1);
    for (int round = 1; round <= 3; round++) {
        redis_server_signal(&server, SIGKILL);
        assert_true(turns_until(turns, client_is_down, &client));
        assert_int_equal(client.downs, round);
        assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_UNAVAILABLE);
        assert_int_equal(client_create(&client, RPC_BYTES("b"), 1), PRODUCT_STORE_UNAVAILABLE);
        redis_server_start(&server);
        client_wait_up(&client);
        assert_int_equal(client.ups, round + 1);
        assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_OK);
    }
    client_end(&client);
}

static void test_the_server_drops_the_connection(void **state)
{
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    client_make(&client, "a", 1);
    redis_server_do(&server, "CLIENT KILL TYPE normal SKIPME yes");
    assert_true(turns_until(turns, client_is_down, &client));
    client_wait_up(&client);
    assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_OK);
    client_end(&client);
}

/* What was sent and not answered: reads were not done, writes may have been. */
static void test_lost_on_the_way(void **state)
{
    const struct product product = {.id = RPC_BYTES("b"), .title = RPC_BYTES("t")};
    struct answer read = {.status = PENDING}, write = {.status = PENDING};
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    redis_server_signal(&server, SIGSTOP);
    assert_int_equal(product_store_get(client.store, &read.request, RPC_BYTES("a"), answer_on_done), PRODUCT_STORE_OK);
    assert_int_equal(product_store_create(client.store, &write.request, &product, answer_on_done), PRODUCT_STORE_OK);
    turns_once(turns); /* they leave */
    redis_server_signal(&server, SIGKILL);
    assert_true(turns_until(turns, answer_is_there, &write));
    assert_int_equal(read.status, PRODUCT_STORE_UNAVAILABLE);
    assert_int_equal(write.status, PRODUCT_STORE_UNKNOWN);
    redis_server_start(&server);
    client_wait_up(&client);
    client_end(&client);
}

static void test_not_sent_yet(void **state)
{
    const struct product product = {.id = RPC_BYTES("b"), .title = RPC_BYTES("t")};
    struct answer read = {.status = PENDING}, write = {.status = PENDING};
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    assert_int_equal(product_store_get(client.store, &read.request, RPC_BYTES("a"), answer_on_done), PRODUCT_STORE_OK);
    assert_int_equal(product_store_create(client.store, &write.request, &product, answer_on_done), PRODUCT_STORE_OK);
    client_end(&client);
    assert_int_equal(read.status, PRODUCT_STORE_UNAVAILABLE);
    assert_int_equal(write.status, PRODUCT_STORE_UNAVAILABLE); /* nothing was done: not a byte had left */
    assert_int_equal(redis_server_integer(&server, "DBSIZE"), 0);
}

static void test_a_redis_that_sleeps(void **state)
{
    const struct product product = {.id = RPC_BYTES("b"), .title = RPC_BYTES("t")};
    struct answer read = {.status = PENDING}, write = {.status = PENDING};
    uint64_t began_ms = rpc_loop_now_ms(turns_loop(turns));
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_SHORT_MS);
    client_make(&client, "a", 1);
    redis_server_signal(&server, SIGSTOP);
    assert_int_equal(product_store_get(client.store, &read.request, RPC_BYTES("a"), answer_on_done), PRODUCT_STORE_OK);
    assert_int_equal(product_store_create(client.store, &write.request, &product, answer_on_done), PRODUCT_STORE_OK);
    assert_true(turns_until(turns, answer_is_there, &write));
    assert_int_equal(read.status, PRODUCT_STORE_UNAVAILABLE);
    assert_int_equal(write.status, PRODUCT_STORE_UNKNOWN);
    assert_true(rpc_loop_now_ms(turns_loop(turns)) - began_ms >= TIMEOUT_SHORT_MS);
    assert_non_null(strstr(product_store_reason(client.store), "no answer within 300 ms"));
    assert_int_equal(client.downs, 1);
    redis_server_signal(&server, SIGCONT);
    client_wait_up(&client);
    assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_OK);
    client_end(&client);
}

/* Steady work must not run into the time limit of commands that were answered long ago. */
static void test_time_limit_is_each_command_s_own(void **state)
{
    uint64_t began_ms = rpc_loop_now_ms(turns_loop(turns));
    struct client client;
    int count = 0;

    (void)state;
    client_begin(&client, TIMEOUT_SHORT_MS);
    while (rpc_loop_now_ms(turns_loop(turns)) - began_ms < 4 * TIMEOUT_SHORT_MS) {
        assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_NOT_FOUND);
        count++;
    }
    assert_true(count > 10);
    assert_int_equal(client.downs, 0);
    client_end(&client);
}

static void test_commands_are_bounded(void **state)
{
    struct answer *answers = calloc(REDIS_COMMANDS_MAX + 1, sizeof(*answers));
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    for (int i = 0; i < REDIS_COMMANDS_MAX; i++) {
        answers[i].status = PENDING;
        assert_int_equal(product_store_get(client.store, &answers[i].request, RPC_BYTES("a"), answer_on_done),
                         PRODUCT_STORE_OK);
    }
    assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_BUSY);
    assert_true(turns_until(turns, answer_is_there, &answers[REDIS_COMMANDS_MAX - 1]));
    assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_NOT_FOUND);
    client_end(&client);
    free(answers);
}

static void test_bytes_are_bounded(void **state)
{
    enum { SIZE = 8 * 1024 * 1024, COUNT = REDIS_OUTPUT_SIZE_MAX / SIZE };
    char *title = malloc(SIZE);
    const struct product product = {.id = RPC_BYTES("large"), .title = {title, SIZE}};
    struct answer answers[COUNT];
    struct client client;
    int sent = 0;

    (void)state;
    memset(title, 't', SIZE);
    client_begin(&client, TIMEOUT_MS);
    for (int i = 0; i < COUNT; i++) {
        answers[i] = (struct answer){.status = PENDING};
        if (product_store_create(client.store, &answers[i].request, &product, answer_on_done) == PRODUCT_STORE_OK)
            sent++;
    }
    assert_int_equal(sent, COUNT - 1);
    assert_int_equal(client_get_status(&client, "a"), PRODUCT_STORE_NOT_FOUND); /* there is room for little ones */
    assert_int_equal(answers[COUNT - 2].status, PRODUCT_STORE_OK);
    client_end(&client);
    free(title);
}

static int test_store(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_a_replica),
        cmocka_unit_test(test_permissions),
        cmocka_unit_test(test_login),
        cmocka_unit_test(test_databases),
        cmocka_unit_test(test_the_connection_has_a_name),
        cmocka_unit_test(test_redis_comes_later),
        cmocka_unit_test(test_an_unknown_host),
        cmocka_unit_test(test_kill_and_restart),
        cmocka_unit_test(test_the_server_drops_the_connection),
        cmocka_unit_test(test_lost_on_the_way),
        cmocka_unit_test(test_not_sent_yet),
        cmocka_unit_test(test_a_redis_that_sleeps),
        cmocka_unit_test(test_time_limit_is_each_command_s_own),
        cmocka_unit_test(test_commands_are_bounded),
        cmocka_unit_test(test_bytes_are_bounded),
    };

    return cmocka_run_group_tests_name("test_store", tests, NULL, NULL);
}

int main(void)
{
    int failed;

    signal(SIGPIPE, SIG_IGN);
    turns = turns_new();
    redis_server_init(&server);
    redis_server_start(&server);
    failed = test_store_product() + test_store_list() + test_store_apply() + test_store();
    redis_server_clear(&server);
    turns_free(turns);
    return failed;
}

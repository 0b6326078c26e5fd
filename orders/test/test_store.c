/* The store against a real PostgreSQL: what it promises when that is killed, frozen or slow; and what the other files test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "database_link.h"
#include "store_case.h"

#define ROUNDS  12
#define CLAIMED "SELECT count(*) FROM order_outbox WHERE claimed_until > now()"

/* ---- When the database is killed, frozen or slow ------------------------------------------------------------------ */

struct flood {
    long started, ended, ok, unknown, unavailable, other;
    long stop_at;
    struct stage *stage;
    bool *seen_ok; /* by number */
    bool *seen_unavailable;
};

static void flood_next(struct flood *flood);

static void flood_end(struct act *act)
{
    struct flood *flood = act->arg;
    long which = strtol(act->request_id, NULL, 10);

    flood->ended++;
    if (act->status == ORDER_STORE_OK) {
        flood->ok++;
        flood->seen_ok[which] = true;
    } else if (act->status == ORDER_STORE_UNKNOWN) {
        flood->unknown++;
    } else if (act->status == ORDER_STORE_UNAVAILABLE) {
        flood->unavailable++;
        flood->seen_unavailable[which] = true;
    } else {
        flood->other++;
    }
    act_free(act);
    flood_next(flood);
}

static void flood_next(struct flood *flood)
{
    char request_id[32], lines[128];
    struct act *act;

    if (flood->started >= flood->stop_at)
        return;
    snprintf(request_id, sizeof(request_id), "%ld", flood->started);
    snprintf(lines, sizeof(lines), "[{\"product_id\":\"%ld\",\"price\":1,\"quantity\":1}]", flood->started++);
    act = act_create(flood->stage, lines, request_id, NULL);
    act->arg = flood;
    act->on_end = flood_end;
    if (act->done) /* refused at once */
        flood_end(act);
}

static bool flood_is_over(void *arg)
{
    const struct flood *flood = arg;

    return flood->ended == flood->started && flood->started >= flood->stop_at;
}

static bool flood_is_up(void *arg)
{
    return order_store_is_up(((struct flood *)arg)->stage->store);
}

static void flood_open(struct flood *flood, struct stage *stage, long stop_at)
{
    *flood = (struct flood){.stage = stage, .stop_at = stop_at};
    flood->seen_ok = calloc((size_t)stop_at, sizeof(bool));
    flood->seen_unavailable = calloc((size_t)stop_at, sizeof(bool));
}

/*
 * Each order that was acknowledged is there once; of those that were refused, none; nothing twice; each with its event.
 */
static void flood_check(struct flood *flood)
{
    char *list = postgres_sql(postgres, "SELECT coalesce(string_agg(product_id, ' '), '') FROM order_details"),
         *at = list;
    long *counts = calloc((size_t)flood->stop_at, sizeof(*counts)), which;

    while (*at != '\0')
        counts[strtol(at, &at, 10)]++;
    for (which = 0; which < flood->stop_at; which++) {
        if (counts[which] > 1)
            fail_msg("order %ld was made %ld times", which, counts[which]);
        if (flood->seen_ok[which] && counts[which] != 1)
            fail_msg("order %ld was acknowledged and is lost", which);
        if (flood->seen_unavailable[which] && counts[which] != 0)
            fail_msg("order %ld was refused and is there", which);
    }
    assert_int_equal(flood->other, 0);
    assert_int_equal(number("SELECT count(*) FROM orders"), number("SELECT count(*) FROM order_outbox"));
    assert_int_equal(number("SELECT count(*) FROM orders"), number("SELECT count(*) FROM order_requests"));
    free(counts);
    free(list);
    free(flood->seen_ok);
    free(flood->seen_unavailable);
}

static void test_backends_are_terminated_under_load(void **state)
{
    struct flood flood;
    int round, index;

    flood_open(&flood, stage_of(state), 6000);
    for (index = 0; index < 100; index++)
        flood_next(&flood);
    for (round = 0; round < ROUNDS && !flood_is_over(&flood); round++) {
        long until = flood.ended + 200;

        while (flood.ended < until && !flood_is_over(&flood))
            stage_turn(flood.stage);
        free(postgres_sql(postgres,
                          "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                          " AND application_name = 'orders'"));
    }
    stage_wait(flood.stage, flood_is_over, &flood, "all orders end");
    assert_in_range(flood.ok, 5900, 6000); /* sent again, and known to be there or made */
    flood_check(&flood);
}

static void test_the_server_is_killed_under_load(void **state)
{
    struct flood flood;
    int index;

    flood_open(&flood, stage_of(state), 3000);
    for (index = 0; index < 100; index++)
        flood_next(&flood);
    while (flood.ended < 500)
        stage_turn(flood.stage);
    postgres_kill(postgres);
    postgres_start(postgres);
    stage_wait(flood.stage, flood_is_up, &flood, "the store is up again");
    stage_wait(flood.stage, flood_is_over, &flood, "all orders end");
    assert_in_range(flood.ok, 500, 3000);
    flood_check(&flood);
}

static void test_the_server_freezes(void **state)
{
    struct stage *stage = stage_of(state);
    struct flood flood;
    struct act *get;
    uint64_t start_ms;
    int index;

    flood_open(&flood, stage, 40);
    ends(act_get(stage, 1), ORDER_STORE_NOT_FOUND);
    postgres_pause(postgres);
    start_ms = rpc_loop_now_ms(stage->loop);
    get = act_get(stage, 1);
    for (index = 0; index < 40; index++)
        flood_next(&flood);
    stage_wait(stage, flood_is_over, &flood, "all orders end");
    ends(get, ORDER_STORE_UNAVAILABLE); /* a read does nothing */
    assert_in_range(rpc_loop_now_ms(stage->loop) - start_ms, 0, STAGE_TIMEOUT_MS + SLACK_MS);
    assert_int_equal(flood.ok, 0);
    assert_true(flood.unknown > 0);
    while (order_store_is_up(stage->store)) /* silence is noticed */
        stage_turn(stage);
    postgres_resume(postgres);
    stage_wait_up(stage);
    ends(act_create(stage, "[{\"product_id\":\"0\",\"price\":1,\"quantity\":1}]", "0", NULL),
         ORDER_STORE_OK); /* the truth, later */
    flood_check(&flood);
}

/* Nothing is sent behind a ping that is not answered; its answer must be what has the waiting sent. */
static void test_a_late_ping_keeps_nobody_waiting(void **state)
{
    struct stage *stage = stage_of(state);
    uint64_t pinged_ms;
    struct act *get;

    stage_wait_all_up(stage);
    ends(act_get(stage, 1), ORDER_STORE_NOT_FOUND);
    postgres_pause(postgres);
    pinged_ms = stage_deadline(stage, DATABASE_PING_MS + 10 * DATABASE_SLOW_MS);
    while (rpc_loop_now_ms(stage->loop) < pinged_ms) /* each connection has asked by then, and too long ago */
        stage_turn(stage);
    get = act_get(stage, 1);
    stage_turn(stage);
    assert_true(order_store_is_up(stage->store));
    postgres_resume(postgres);
    ends(get, ORDER_STORE_NOT_FOUND);
}

static void test_a_database_that_is_away(void **state)
{
    struct stage *stage = stage_of(state), late;
    struct act *act;
    uint64_t start_ms = rpc_loop_now_ms(stage->loop);

    postgres_kill(postgres);
    stage_open(&late, postgres_uri(postgres), 1); /* started before its database */
    while (order_store_is_up(stage->store) || order_store_down_ms(stage->store) <= WORK_PATIENCE_MS)
        stage_turn(stage);
    act = act_create(stage, LINE, NULL, NULL);
    assert_true(act->done); /* at once */
    ends(act, ORDER_STORE_UNAVAILABLE);
    act = act_create(&late, LINE, NULL, NULL);
    ends(act, ORDER_STORE_UNAVAILABLE);
    assert_in_range(rpc_loop_now_ms(stage->loop) - start_ms, 0, 20000);
    postgres_start(postgres);
    stage_wait_up(stage);
    stage_wait_up(&late);
    ends(act_create(stage, LINE, NULL, NULL), ORDER_STORE_OK);
    ends(act_create(&late, LINE, NULL, NULL), ORDER_STORE_OK);
    stage_close(&late);
}

static void test_a_lock_holds_up_nobody_else(void **state)
{
    struct stage *stage = stage_of(state);
    struct act *update, *act;
    uint64_t start_ms;
    int index, ended_meanwhile = 0;

    stage_wait_all_up(stage); /* on the only connection that is up, what comes after the update would wait behind it */
    ends(act_create(stage, LINE, NULL, NULL), ORDER_STORE_OK);
    free(postgres_sql(postgres, "BEGIN; SELECT * FROM order_details WHERE id = 1 FOR UPDATE"));
    start_ms = rpc_loop_now_ms(stage->loop);
    update = act_update(stage, "{\"id\":1,\"order_details\":[{\"id\":1,\"price\":5,\"quantity\":5}]}");
    for (index = 0; index < 30; index++) {
        act = index % 2 == 0 ? act_get(stage, 1) : act_create(stage, LINE, NULL, NULL);
        ends(act, ORDER_STORE_OK);
        ended_meanwhile += !update->done;
    }
    assert_true(ended_meanwhile > 0);
    ends(update, ORDER_STORE_UNAVAILABLE);
    assert_in_range(rpc_loop_now_ms(stage->loop) - start_ms, 0, STAGE_TIMEOUT_MS);
    free(postgres_sql(postgres, "ROLLBACK"));
    ends(act_update(stage, "{\"id\":1,\"order_details\":[{\"id\":1,\"price\":5,\"quantity\":5}]}"), ORDER_STORE_OK);
}

static void test_a_key_that_is_held_up_fails_alone(void **state)
{
    struct stage *stage = stage_of(state);
    struct act *held, *others[10];
    int index;

    stage_wait_all_up(stage);
    free(postgres_sql(postgres, "BEGIN; INSERT INTO order_idempotency VALUES ('held', '', 1, '{}')"));
    held = act_create(stage, LINE, NULL, "held");
    for (index = 0; index < 10; index++) {
        char key[16];

        snprintf(key, sizeof(key), "%d", index);
        others[index] = act_create(stage, LINE, NULL, key);
    }
    for (index = 0; index < 10; index++)
        ends(others[index], ORDER_STORE_OK);
    ends(held, ORDER_STORE_UNAVAILABLE);
    free(postgres_sql(postgres, "ROLLBACK"));
    ends(act_create(stage, LINE, NULL, "held"), ORDER_STORE_OK);
    assert_int_equal(number("SELECT count(*) FROM orders"), 11);
}

/*
 * What comes while a slow statement is under way waits for its end, and then goes together: sent behind it, the first would
 * have waited as long, and alone.
 */
static void test_nothing_is_sent_behind_a_slow_statement(void **state)
{
    struct stage stage;
    struct act *acts[4];
    int index;

    (void)state;
    stage_open(&stage, postgres_uri(postgres), 1);
    stage_wait_up(&stage);
    free(postgres_sql(postgres, "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
                                " $$BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END$$;"
                                "CREATE TRIGGER wait BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION wait();"
                                "SELECT pg_advisory_lock(1)"));
    acts[0] = act_create(&stage, LINE, NULL, NULL);
    for (uint64_t until_ms = stage_deadline(&stage, 2 * DATABASE_SLOW_MS); rpc_loop_now_ms(stage.loop) < until_ms;)
        stage_turn(&stage);
    free(postgres_sql(postgres, "SELECT pg_advisory_unlock(1)"));
    assert_int_equal(act_wait(acts[0]), ORDER_STORE_OK);
    free(postgres_sql(postgres, "SELECT pg_advisory_lock(1)"));
    acts[1] = act_create(&stage, LINE, NULL, NULL);
    while (number("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == 0)
        stage_turn(&stage);
    for (index = 2; index < 4; index++) {
        acts[index] = act_create(&stage, LINE, NULL, NULL);
        stage_turn(&stage);
    }
    free(postgres_sql(postgres, "SELECT pg_advisory_unlock(1)"));
    for (index = 1; index < 4; index++)
        assert_int_equal(act_wait(acts[index]), ORDER_STORE_OK);
    assert_int_equal(number("SELECT count(DISTINCT xmin::text) FROM orders"), 3);
    for (index = 0; index < 4; index++)
        act_free(acts[index]);
    free(postgres_sql(postgres, "DROP TRIGGER wait ON orders; DROP FUNCTION wait"));
    stage_close(&stage);
}

static void test_more_than_it_takes(void **state)
{
    struct stage *stage = stage_of(state);
    struct act *acts[WORK_UNITS_MAX], *one_more;
    size_t index;

    for (index = 0; index < WORK_UNITS_MAX; index++) {
        acts[index] = act_get(stage, 1);
        assert_false(acts[index]->done);
    }
    one_more = act_get(stage, 1);
    assert_true(one_more->done);
    ends(one_more, ORDER_STORE_BUSY);
    for (index = 0; index < WORK_UNITS_MAX; index++)
        ends(acts[index], ORDER_STORE_NOT_FOUND);
    ends(act_get(stage, 1), ORDER_STORE_NOT_FOUND);
}

static void late_end(struct order_store_unit *unit, enum order_store_status status)
{
    assert_int_equal(status, ORDER_STORE_UNAVAILABLE);
    unit->limit = -1; /* marks it */
}

static void test_what_is_late_is_not_begun(void **state)
{
    struct stage *stage = stage_of(state);
    struct act *act = act_create(stage, LINE, NULL, NULL), *late = act_new(stage);
    struct order_creation creation = {.order = &act->order, .request_id = RPC_BYTES("late")};

    assert_int_equal(act_wait(act), ORDER_STORE_OK);
    assert_int_equal(order_store_create(stage->store, &late->unit, &creation, stage_deadline(stage, 0), late_end),
                     ORDER_STORE_OK);
    stage_wait(stage, unit_is_marked, &late->unit, "the late one ends");
    assert_int_equal(number("SELECT count(*) FROM orders"), 1);
    act_free(late);
    act_free(act);
}

static void test_a_session_loses_its_statements(void **state)
{
    struct stage *stage = stage_of(state);

    ends(act_create(stage, LINE, NULL, NULL), ORDER_STORE_OK);
    free(postgres_sql(postgres, "ALTER TABLE order_details ALTER product_id TYPE text")); /* plans no longer fit */
    ends(act_get(stage, 1), ORDER_STORE_OK);
    ends(act_create(stage, LINE, NULL, NULL), ORDER_STORE_OK);
    free(postgres_sql(postgres, "ALTER TABLE order_details ALTER product_id TYPE varchar"));
    ends(act_get(stage, 1), ORDER_STORE_OK);
}

static void test_a_database_without_tables(void **state)
{
    struct stage *stage = stage_of(state);

    free(postgres_sql(postgres,
                      "ALTER TABLE order_outbox RENAME TO order_outbox_gone;"
                      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'orders'"));
    while (order_store_is_up(stage->store))
        stage_turn(stage);
    free(postgres_sql(postgres, "ALTER TABLE order_outbox_gone RENAME TO order_outbox"));
    stage_wait_up(stage); /* it was migrated */
    ends(act_create(stage, LINE, NULL, NULL), ORDER_STORE_OK);
}

static void test_a_role_that_may_do_no_more_than_it_must(void **state)
{
    const char *host = strchr(postgres_uri(postgres), '@');
    struct stage stage;
    struct act *act;
    char uri[128];

    (void)state;
    free(postgres_sql(postgres,
                      EMPTY "; CREATE ROLE clerk LOGIN;"
                            "GRANT SELECT, INSERT, UPDATE, DELETE ON orders, order_details, order_outbox,"
                            " order_requests, order_idempotency TO clerk;"
                            "GRANT USAGE ON orders_id_seq, order_details_id_seq, order_outbox_id_seq TO clerk"));
    snprintf(uri, sizeof(uri), "postgresql://clerk%s", host);
    stage_open(&stage, uri, 1);
    stage_wait_up(&stage);
    ends(act_create(&stage, LINE, NULL, NULL), ORDER_STORE_OK);
    ends(act_create(&stage, LINE, NULL, "key"), ORDER_STORE_OK);
    ends(act_recall(&stage, LINE, "key"), ORDER_STORE_OK);
    ends(act_update(&stage, "{\"id\":1,\"order_details\":[{\"id\":1,\"price\":5,\"quantity\":5}]}"), ORDER_STORE_OK);
    ends(act_list(&stage, 0, 10), ORDER_STORE_OK);
    ends(act_delete(&stage, 1), ORDER_STORE_OK);
    while (number(CLAIMED) > 0)
        stage_turn(&stage);
    act = act_claim(&stage);
    assert_int_equal(act_wait(act), ORDER_STORE_OK);
    assert_int_equal(act->count, 2);
    ends(act_delete_events(&stage, act->ids, act->count), ORDER_STORE_OK);
    act_free(act);
    stage_close(&stage);
}

/* As whoever tells a client since when the database is away. */
static void asks_since_when(struct act *act)
{
    if (!order_store_is_up(act->stage->store))
        assert_true(order_store_down_ms(act->stage->store) > 0);
}

static void test_closing_with_work_under_way(void **state)
{
    struct act *acts[50];
    struct stage stage;
    size_t index;

    (void)state;
    stage_open(&stage, postgres_uri(postgres), 2);
    stage_wait_up(&stage);
    for (index = 0; index < 50; index++) {
        acts[index] = act_create(&stage, LINE, NULL, NULL);
        acts[index]->on_end = asks_since_when;
        if (index == 25)
            stage_turn(&stage);
    }
    stage_close(&stage);
    for (index = 0; index < 50; index++) {
        assert_true(acts[index]->done);
        act_free(acts[index]);
    }
}

static void uri_at(const char *uri, bool fine, int line)
{
    char reason[DATABASE_URI_REASON_SIZE] = "";

    if (order_store_uri_check(uri, reason) != fine || (strlen(reason) == 0) != fine)
        fail_msg("line %d: %s: %s", line, uri, reason);
    if (strstr(reason, "secret") != NULL)
        fail_msg("line %d: %s", line, reason);
}

#define uri_is_fine(uri)    uri_at(uri, true, __LINE__)
#define uri_is_refused(uri) uri_at(uri, false, __LINE__)

static void test_uris(void **state)
{
    (void)state;
    uri_is_fine("postgresql://postgres:postgres@localhost:5432/orders");
    uri_is_fine("postgres://u:secret@[::1]:5432/orders?sslmode=verify-full&connect_timeout=1");
    uri_is_fine("postgresql://a,b:5433,c/orders");
    uri_is_fine("host=/var/run/postgresql dbname=orders");
    uri_is_fine("postgresql:///orders");
    uri_is_refused("redis://u:secret@localhost");
    uri_is_refused("postgresql://u:secret@localhost/orders?no_such_option=1");
    uri_is_refused("postgresql://u:sec%zzret@localhost/orders");
    uri_is_refused("secret");
    uri_is_refused("postgresql://u:secret@localhost/orders?sslmode=maybe");
    /* What libpq would take for a port, a host or a database, and name in its messages. */
    uri_is_refused("postgresql://u:secret/x@localhost/orders");
    uri_is_refused("postgresql://u:1/secret@localhost/orders");
    uri_is_refused("postgresql://u:x@secret@localhost/orders");
    uri_is_refused("postgresql://u:secret?/x@localhost/orders");
    uri_is_refused("postgresql://localhost:secret/orders");
    uri_is_refused("host=localhost port=secret");
    uri_is_fine("postgresql://u:%2F%40%73ecret@localhost/orders");
    uri_is_fine("postgresql://u:secret?x@localhost/orders");
    uri_is_fine("postgresql://localhost/orders?user=u@x&pass%77ord=secret");
    uri_is_refused("postgresql://localhost/orders?pass%77ord=secret&no_such_option=1");
    uri_is_refused("postgresql://localhost/orders?pass%77ord=secret&pass%77or=1");
}

static int test_store(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uris),
        case_of(test_backends_are_terminated_under_load),
        case_of(test_the_server_is_killed_under_load),
        case_of(test_the_server_freezes),
        case_of(test_a_late_ping_keeps_nobody_waiting),
        case_of(test_a_database_that_is_away),
        case_of(test_a_lock_holds_up_nobody_else),
        case_of(test_a_key_that_is_held_up_fails_alone),
        case_of(test_nothing_is_sent_behind_a_slow_statement),
        case_of(test_more_than_it_takes),
        case_of(test_what_is_late_is_not_begun),
        case_of(test_a_session_loses_its_statements),
        case_of(test_a_database_without_tables),
        cmocka_unit_test(test_a_role_that_may_do_no_more_than_it_must),
        cmocka_unit_test(test_closing_with_work_under_way),
    };

    return cmocka_run_group_tests_name("test_store", tests, NULL, NULL);
}

int main(void)
{
    int failed;

    postgres = postgres_new(false);
    failed = test_store_create() + test_store_change() + test_store_events() + test_store();
    postgres_free(postgres);
    return failed;
}

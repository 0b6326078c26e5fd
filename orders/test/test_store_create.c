/* The store against a real PostgreSQL: orders made, and that each request is carried out once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "store_case.h"

#define MANY 200

/* ---- What it keeps ----------------------------------------------------------------------------------------------- */

static void test_create(void **state)
{
    static const char order[] = "{\"id\":1,\"order_details\":["
                                "{\"id\":1,\"product_id\":\"a\\\"b\\\\\",\"price\":\"1.00\",\"quantity\":1},"
                                "{\"id\":2,\"product_id\":\"{c,d}\",\"price\":\"0.10\",\"quantity\":2}]}";
    char event[sizeof(order) + 16];

    ends_with(act_create(stage_of(state), TWO_LINES, "r", NULL), ORDER_STORE_OK, order);
    ends_with(act_get(stage_of(state), 1), ORDER_STORE_OK, order);
    ends(act_get(stage_of(state), 2), ORDER_STORE_NOT_FOUND);
    snprintf(event, sizeof(event), "{\"order\":%s}", order);
    sql_is("SELECT payload FROM order_outbox", event);
    sql_is("SELECT event_type || headers FROM order_outbox", "order_created{\"user_id\":7}");
    sql_is(
        "SELECT string_agg(concat_ws('|', order_id, product_id, price, quantity), ' ' ORDER BY id) FROM order_details",
        "1|a\"b\\|1.00|1 1|{c,d}|0.10|2");
    sql_is(
        "SELECT count(*) FROM orders JOIN order_details d ON orders.id = order_id WHERE orders.created_at = d.updated_at"
        " AND d.created_at = d.updated_at AND orders.updated_at = orders.created_at"
        " AND abs(extract(epoch FROM orders.created_at - timezone('utc', now()))) < 60",
        "2");
}

/* The event is the order as it was answered, byte for byte. */
static void event_is(int64_t id, const char *order)
{
    char sql[80], *payload;
    size_t size = strlen(order);

    snprintf(sql, sizeof(sql), "SELECT payload FROM order_outbox WHERE id = %lld", (long long)id);
    payload = postgres_sql(postgres, sql);
    assert_int_equal(strlen(payload), size + strlen("{\"order\":}"));
    assert_memory_equal(payload, "{\"order\":", strlen("{\"order\":"));
    assert_memory_equal(payload + strlen("{\"order\":"), order, size);
    free(payload);
}

static void test_many_share_transactions(void **state)
{
    struct act *acts[MANY];
    size_t index;

    for (index = 0; index < MANY; index++)
        acts[index] = act_create(stage_of(state), index % 2 == 0 ? TWO_LINES : LINE, NULL, NULL);
    for (index = 0; index < MANY; index++) {
        struct act *got;

        assert_int_equal(act_wait(acts[index]), ORDER_STORE_OK);
        assert_int_not_equal(acts[index]->event_id, 0);
        got = act_get(stage_of(state), acts[index]->order.id);
        assert_int_equal(act_wait(got), ORDER_STORE_OK);
        assert_string_equal(got->text, acts[index]->text);
        act_free(got);
        event_is(acts[index]->event_id, acts[index]->text);
    }
    for (index = 0; index < MANY; index++)
        act_free(acts[index]);
    assert_int_equal(number("SELECT count(*) FROM orders"), MANY);
    assert_int_equal(number("SELECT count(*) FROM order_outbox"), MANY);
    assert_in_range(number("SELECT count(DISTINCT xmin::text) FROM orders"), 1, MANY / 4);
}

static void test_one_bad_order_does_not_fail_its_neighbours(void **state)
{
    struct act *acts[20];
    size_t index;

    free(postgres_sql(postgres, "ALTER TABLE order_details ADD CONSTRAINT no_poison CHECK (product_id <> 'poison')"));
    for (index = 0; index < 20; index++)
        acts[index] =
            act_create(stage_of(state), index == 7 ? "[{\"product_id\":\"poison\",\"price\":1,\"quantity\":1}]" : LINE,
                       NULL, NULL);
    for (index = 0; index < 20; index++)
        ends(acts[index], index == 7 ? ORDER_STORE_FAILED : ORDER_STORE_OK);
    assert_int_equal(number("SELECT count(*) FROM orders"), 19);
    assert_int_equal(number("SELECT count(*) FROM order_outbox"), 19);
    free(postgres_sql(postgres, "ALTER TABLE order_details DROP CONSTRAINT no_poison"));
}

static void test_lost_races_are_run_again(void **state)
{
    free(postgres_sql(postgres,
                      "CREATE SEQUENCE tries; CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS"
                      " $$BEGIN IF nextval('tries') < 4 THEN RAISE SQLSTATE '40001'; END IF; RETURN NEW; END$$;"
                      "CREATE TRIGGER lose BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION lose()"));
    ends(act_create(stage_of(state), LINE, NULL, NULL), ORDER_STORE_OK);
    free(postgres_sql(postgres, "CREATE OR REPLACE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS"
                                " $$BEGIN RAISE SQLSTATE '40001'; END$$"));
    ends(act_create(stage_of(state), LINE, NULL, NULL), ORDER_STORE_UNAVAILABLE); /* but not for ever */
    free(postgres_sql(postgres, "DROP TRIGGER lose ON orders; DROP FUNCTION lose; DROP SEQUENCE tries"));
    assert_int_equal(number("SELECT count(*) FROM orders"), 1);
}

/* ---- Once -------------------------------------------------------------------------------------------------------- */

static void test_a_request_that_comes_again(void **state)
{
    char *first = text_of(act_create(stage_of(state), LINE, "request", NULL));
    struct act *again = act_create(stage_of(state), LINE, "request", NULL);

    assert_int_equal(act_wait(again), ORDER_STORE_OK);
    assert_int_equal(again->event_id, 0);
    assert_string_equal(again->text, first);
    act_free(again);
    assert_int_equal(number("SELECT count(*) FROM order_outbox"), 1);
    /* whatever became of the order since */
    ends(act_update(stage_of(state), "{\"id\":1,\"order_details\":[{\"id\":1,\"price\":5,\"quantity\":5}]}"),
         ORDER_STORE_OK);
    ends_with(act_create(stage_of(state), LINE, "request", NULL), ORDER_STORE_OK, first);
    ends(act_delete(stage_of(state), 1), ORDER_STORE_OK);
    ends_with(act_create(stage_of(state), LINE, "request", NULL), ORDER_STORE_OK, first);
    assert_int_equal(number("SELECT count(*) FROM orders"), 0);
    /* a correlation id used again for something else is another request */
    ends(act_create(stage_of(state), OTHER_LINE, "request", NULL), ORDER_STORE_OK);
    assert_int_equal(number("SELECT count(*) FROM orders"), 1);
    free(first);
}

#define CHANGE(quantity) "{\"id\":1,\"order_details\":[{\"id\":1,\"price\":\"1.00\",\"quantity\":" quantity "}]}"
#define CHANGED(quantity) \
    "{\"id\":1,\"order_details\":[{\"id\":1,\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":" quantity "}]}"
#define LINE_OF_A "[{\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":1}]"

static void test_a_change_that_comes_again(void **state)
{
    struct stage *stage = stage_of(state);

    ends(act_create(stage, LINE_OF_A, "request", NULL), ORDER_STORE_OK);
    ends_with(act_update_as(stage, "request", CHANGE("2")), ORDER_STORE_OK, CHANGED("2"));
    ends_with(act_update_as(stage, "other", CHANGE("3")), ORDER_STORE_OK, CHANGED("3"));
    ends_with(act_update_as(stage, "request", CHANGE("2")), ORDER_STORE_OK,
              CHANGED("3")); /* what others changed stays */
    ends_with(act_get(stage, 1), ORDER_STORE_OK, CHANGED("3"));
    ends_with(act_update_as(stage, "request", CHANGE("4")), ORDER_STORE_OK,
              CHANGED("4"));                                                        /* another, one careless id */
    ends_with(act_update_as(stage, "", CHANGE("2")), ORDER_STORE_OK, CHANGED("2")); /* without one, each counts */
    ends_with(act_update_as(stage, "", CHANGE("2")), ORDER_STORE_OK, CHANGED("2"));
    free(postgres_sql(postgres, "UPDATE order_requests SET created_at = now() - interval '25 h'"));
    ends_with(act_update_as(stage, "other", CHANGE("3")), ORDER_STORE_OK, CHANGED("3")); /* it has expired */
    ends_with(act_update_as(stage, "last", CHANGE("4")), ORDER_STORE_OK, CHANGED("4"));
    ends_with(act_update_as(stage, "other", CHANGE("3")), ORDER_STORE_OK, CHANGED("4")); /* and was taken over */
    ends(act_delete(stage, 1), ORDER_STORE_OK);
    ends(act_update_as(stage, "other", CHANGE("3")), ORDER_STORE_NOT_FOUND);
}

static void test_a_deletion_that_comes_again(void **state)
{
    struct stage *stage = stage_of(state);

    ends(act_delete_as(stage, "request", 1), ORDER_STORE_NOT_FOUND);
    ends(act_delete_as(stage, "request", 1), ORDER_STORE_NOT_FOUND); /* nothing was done: it stays that */
    ends(act_create(stage, LINE_OF_A, NULL, NULL), ORDER_STORE_OK);
    ends(act_create(stage, LINE_OF_A, NULL, NULL), ORDER_STORE_OK);
    ends(act_delete_as(stage, "request", 1), ORDER_STORE_OK);
    ends(act_delete_as(stage, "request", 1), ORDER_STORE_OK);
    ends(act_delete_as(stage, "other", 1), ORDER_STORE_NOT_FOUND);
    ends(act_delete_as(stage, "request", 2), ORDER_STORE_OK);
    assert_int_equal(number("SELECT count(*) FROM orders"), 0);
    free(postgres_sql(postgres, "UPDATE order_requests SET created_at = now() - interval '25 h'"));
    ends(act_delete_as(stage, "request", 1), ORDER_STORE_NOT_FOUND);
}

/* A change refused leaves no key: it is carried out when it comes again and can be. */
static void test_an_error_is_not_remembered(void **state)
{
    struct stage *stage = stage_of(state);

    ends(act_create(stage, LINE_OF_A, NULL, NULL), ORDER_STORE_OK);
    ends(act_update_as(stage, "request", "{\"id\":1,\"order_details\":[{\"id\":7,\"price\":1,\"quantity\":1}]}"),
         ORDER_STORE_LINE_NOT_FOUND);
    ends(act_update_as(stage, "request", "{\"id\":9,\"order_details\":[]}"), ORDER_STORE_NOT_FOUND);
    assert_int_equal(number("SELECT count(*) FROM order_requests"), 1);
    free(postgres_sql(postgres, "BEGIN; SELECT * FROM order_details WHERE id = 1 FOR UPDATE"));
    ends(act_update_as(stage, "late", CHANGE("2")), ORDER_STORE_UNAVAILABLE);
    free(postgres_sql(postgres, "ROLLBACK"));
    assert_int_equal(number("SELECT count(*) FROM order_requests"), 1);
    ends_with(act_update_as(stage, "late", CHANGE("2")), ORDER_STORE_OK, CHANGED("2"));
}

/* Two instances have the same request: one carries it out, and the other waits for that and answers the same. */
static void test_a_change_at_the_same_moment(void **state)
{
    struct stage *stage = stage_of(state);
    struct act *updates[8], *deletes[8];
    int index;

    stage_wait_all_up(stage);
    ends(act_create(stage, LINE_OF_A, NULL, NULL), ORDER_STORE_OK);
    free(postgres_sql(postgres, "BEGIN; SELECT * FROM order_details WHERE id = 1 FOR UPDATE"));
    for (index = 0; index < 8; index++)
        updates[index] = act_update_as(stage, "request", CHANGE("2"));
    while (number("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") < 2)
        stage_turn(stage);
    free(postgres_sql(postgres, "ROLLBACK"));
    for (index = 0; index < 8; index++)
        ends_with(updates[index], ORDER_STORE_OK, CHANGED("2"));
    free(postgres_sql(postgres, "BEGIN; SELECT * FROM order_details WHERE id = 1 FOR UPDATE"));
    for (index = 0; index < 8; index++)
        deletes[index] = act_delete_as(stage, "request", 1);
    while (number("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") < 2)
        stage_turn(stage);
    free(postgres_sql(postgres, "ROLLBACK"));
    for (index = 0; index < 8; index++)
        ends(deletes[index], ORDER_STORE_OK);
}

static void test_a_change_is_known_after_a_lost_connection(void **state)
{
    struct stage *stage = stage_of(state);
    struct act *update, *delete_act;

    stage_wait_all_up(stage);
    ends(act_create(stage, LINE_OF_A, NULL, NULL), ORDER_STORE_OK);
    free(postgres_sql(postgres, "BEGIN; SELECT * FROM order_details WHERE id = 1 FOR UPDATE"));
    update = act_update_as(stage, "update", CHANGE("2"));
    delete_act = act_delete_as(stage, "delete", 1);
    while (number("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") < 2)
        stage_turn(stage);
    free(postgres_sql(postgres, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                                " WHERE wait_event_type = 'Lock'; ROLLBACK"));
    assert_int_equal(act_wait(delete_act), ORDER_STORE_OK);
    assert_in_range(act_wait(update), ORDER_STORE_OK, ORDER_STORE_NOT_FOUND); /* whichever came first */
    act_free(update);
    act_free(delete_act);
}

static void test_a_key_at_the_same_moment(void **state)
{
    struct stage other;
    struct act *acts[40];
    char *first = NULL;
    size_t index;

    stage_open(&other, postgres_uri(postgres), 3);
    stage_wait_up(&other);
    for (index = 0; index < 40; index++)
        acts[index] = act_create(index % 2 == 0 ? stage_of(state) : &other, TWO_LINES, NULL, "key");
    while (!acts[38]->done || !acts[39]->done) { /* both sides go on */
        stage_turn(stage_of(state));
        stage_turn(&other);
    }
    for (index = 0; index < 40; index++) {
        char *text = text_of(acts[index]);

        if (first == NULL)
            first = strdup(text);
        assert_string_equal(text, first);
        free(text);
    }
    assert_int_equal(number("SELECT count(*) FROM orders"), 1);
    assert_int_equal(number("SELECT count(*) FROM order_outbox"), 1);
    free(first);
    stage_close(&other);
}

static void test_keys(void **state)
{
    struct stage *stage = stage_of(state);
    char *first;

    ends(act_recall(stage, LINE, "key"), ORDER_STORE_NOT_FOUND);
    first = text_of(act_create(stage, LINE, "1", "key"));
    ends_with(act_create(stage, LINE, "2", "key"), ORDER_STORE_OK, first);
    ends_with(act_recall(stage, LINE, "key"), ORDER_STORE_OK, first);
    ends(act_create(stage, OTHER_LINE, "3", "key"), ORDER_STORE_KEY_REUSED);
    ends(act_create(stage, TWO_LINES, "3", "key"), ORDER_STORE_KEY_REUSED);
    ends(act_recall(stage, OTHER_LINE, "key"), ORDER_STORE_KEY_REUSED);
    ends(act_create(stage, LINE, "4", "other key"), ORDER_STORE_OK);
    assert_int_equal(number("SELECT count(*) FROM orders"), 2);
    free(first);
}

static void test_a_key_that_has_expired_counts_as_absent(void **state)
{
    struct stage *stage = stage_of(state);

    ends(act_create(stage, LINE, NULL, "key"), ORDER_STORE_OK);
    free(postgres_sql(postgres, "UPDATE order_idempotency SET created_at = now() - interval '3601 s'"));
    ends(act_recall(stage, LINE, "key"), ORDER_STORE_NOT_FOUND);
    ends(act_create(stage, OTHER_LINE, NULL, "key"), ORDER_STORE_OK);
    ends(act_create(stage, LINE, NULL, "key"), ORDER_STORE_KEY_REUSED);
    sql_is("SELECT order_id FROM order_idempotency WHERE created_at > now() - interval '60 s'", "2");
    ends(act_create(stage, LINE, "request", NULL), ORDER_STORE_OK);
    free(postgres_sql(postgres, "UPDATE order_requests SET created_at = now() - interval '25 h'"));
    ends(act_create(stage, LINE, "request", NULL), ORDER_STORE_OK);
    assert_int_equal(number("SELECT count(*) FROM orders"), 4);
    assert_int_equal(number("SELECT count(*) FROM order_outbox"), 4);
}

static void forget_end(struct order_store_unit *unit, enum order_store_status status)
{
    assert_int_equal(status, ORDER_STORE_OK);
    unit->limit = -1; /* marks it */
}

static void test_expired_keys_are_deleted_a_few_at_a_time(void **state)
{
    struct stage *stage = stage_of(state);
    struct order_store_unit requests = {.limit = 0}, keys = {.limit = 0};

    free(postgres_sql(
        postgres,
        "INSERT INTO order_requests SELECT g, g, '{}', now() - interval '25 h' FROM generate_series(1, 1500) g;"
        "INSERT INTO order_idempotency SELECT g, '', g, '{}', now() - interval '2 h' FROM generate_series(1, 5) g;"
        "INSERT INTO order_idempotency SELECT g, '', g, '{}' FROM generate_series(6, 8) g;"));
    order_store_forget_requests(stage->store, &requests, stage_deadline(stage, STAGE_TIMEOUT_MS), forget_end);
    order_store_forget_keys(stage->store, &keys, stage_deadline(stage, STAGE_TIMEOUT_MS), forget_end);
    stage_wait(stage, unit_is_marked, &requests, "requests are forgotten");
    stage_wait(stage, unit_is_marked, &keys, "keys are forgotten");
    assert_int_equal(requests.count, ORDER_STORE_FORGET_MAX);
    assert_int_equal(keys.count, 5);
    assert_int_equal(number("SELECT count(*) FROM order_requests"), 500);
    assert_int_equal(number("SELECT count(*) FROM order_idempotency"), 3);
}

int test_store_create(void)
{
    const struct CMUnitTest tests[] = {
        case_of(test_create),
        case_of(test_many_share_transactions),
        case_of(test_one_bad_order_does_not_fail_its_neighbours),
        case_of(test_lost_races_are_run_again),
        case_of(test_a_request_that_comes_again),
        case_of(test_a_change_that_comes_again),
        case_of(test_a_deletion_that_comes_again),
        case_of(test_an_error_is_not_remembered),
        case_of(test_a_change_at_the_same_moment),
        case_of(test_a_change_is_known_after_a_lost_connection),
        case_of(test_a_key_at_the_same_moment),
        case_of(test_keys),
        case_of(test_a_key_that_has_expired_counts_as_absent),
        case_of(test_expired_keys_are_deleted_a_few_at_a_time),
    };

    return cmocka_run_group_tests_name("test_store_create", tests, NULL, NULL);
}

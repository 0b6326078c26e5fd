/* The store against a real PostgreSQL: what it keeps, what it promises when that is killed, frozen or slow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "database_link.h"
#include "postgres.h"
#include "stage.h"

#define LINE       "[{\"product_id\":\"the_odyssey\",\"price\":\"100000.99\",\"quantity\":1}]"
#define OTHER_LINE "[{\"product_id\":\"the_enigma\",\"price\":\"1\",\"quantity\":2}]"
#define TWO_LINES \
    "[{\"product_id\":\"a\\\"b\\\\\",\"price\":\"1\",\"quantity\":1},{\"product_id\":\"{c,d}\",\"price\":0.1,\"quantity\":2}]"
#define MANY     200
#define ROUNDS   12
#define SLACK_MS 1500 /* beyond a deadline, on a busy machine */
#define CLAIMED  "SELECT count(*) FROM order_outbox WHERE claimed_until > now()"
#define EMPTY \
    "ROLLBACK; TRUNCATE orders, order_details, order_outbox, order_requests, order_idempotency RESTART IDENTITY"

static struct postgres *postgres;

static int group_setup(void **state)
{
    (void)state;
    postgres = postgres_new(false);
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    postgres_free(postgres);
    return 0;
}

static struct stage *stage_of(void **state)
{
    return *state;
}

static int setup(void **state)
{
    struct stage *stage = calloc(1, sizeof(*stage));

    free(postgres_sql(postgres, EMPTY));
    stage_open(stage, postgres_uri(postgres), 3);
    stage_wait_up(stage);
    *state = stage;
    return 0;
}

static int teardown(void **state)
{
    stage_close(*state);
    free(*state);
    return 0;
}

static long number(const char *sql)
{
    return postgres_number(postgres, sql);
}

static void sql_is(const char *sql, const char *expected, int line)
{
    char *value = postgres_sql(postgres, sql);

    if (strcmp(value, expected) != 0)
        fail_msg("line %d: %s: %s, not %s", line, sql, value, expected);
    free(value);
}

#define sql_is(sql, expected) sql_is(sql, expected, __LINE__)

/* Ends as expected, with this text (NULL: any); the act is freed. */
static void ends_at(struct act *act, enum order_store_status expected, const char *text, int line)
{
    enum order_store_status status = act_wait(act);

    if (status != expected)
        fail_msg("line %d: status %d, not %d", line, (int)status, (int)expected);
    if (text != NULL && strcmp(act->text == NULL ? "" : act->text, text) != 0)
        fail_msg("line %d: %s, not %s", line, act->text, text);
    act_free(act);
}

#define ends(act, status)            ends_at(act, status, NULL, __LINE__)
#define ends_with(act, status, text) ends_at(act, status, text, __LINE__)

/* The text of an act that goes well; the caller's to free. */
static char *text_of(struct act *act)
{
    char *text;

    assert_int_equal(act_wait(act), ORDER_STORE_OK);
    text = strdup(act->text);
    act_free(act);
    return text;
}

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

static bool is_marked(void *arg)
{
    return ((struct order_store_unit *)arg)->limit == -1;
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
    stage_wait(stage, is_marked, &requests, "requests are forgotten");
    stage_wait(stage, is_marked, &keys, "keys are forgotten");
    assert_int_equal(requests.count, ORDER_STORE_FORGET_MAX);
    assert_int_equal(keys.count, 5);
    assert_int_equal(number("SELECT count(*) FROM order_requests"), 500);
    assert_int_equal(number("SELECT count(*) FROM order_idempotency"), 3);
}

/* ---- Reading and changing ---------------------------------------------------------------------------------------- */

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

/* ---- The outbox -------------------------------------------------------------------------------------------------- */

static void test_claims(void **state)
{
    struct stage *stage = stage_of(state), other;
    struct act *a, *b;
    size_t index;

    stage_open(&other, postgres_uri(postgres), 1);
    stage_wait_up(&other);
    order_store_claim_new_events(stage->store, false);
    for (index = 0; index < ORDER_STORE_EVENTS_MAX + 50; index++) {
        a = act_create(stage, LINE, NULL, NULL);
        assert_int_equal(act_wait(a), ORDER_STORE_OK);
        assert_int_equal(a->event_id, 0); /* not ours to publish */
        act_free(a);
    }
    a = act_claim(stage);
    b = act_claim(&other);
    assert_int_equal(act_wait(a), ORDER_STORE_OK);
    assert_int_equal(act_wait(b), ORDER_STORE_OK);
    assert_int_equal(a->count + b->count, ORDER_STORE_EVENTS_MAX + 50); /* no event twice, none left out */
    assert_int_equal(number(CLAIMED), ORDER_STORE_EVENTS_MAX + 50);
    ends(act_delete_events(stage, a->ids, a->count), ORDER_STORE_OK);
    assert_int_equal(number("SELECT count(*) FROM order_outbox"), b->count);
    act_free(a);
    while (number(CLAIMED) > 0) /* whoever held them is gone */
        stage_turn(stage);
    a = act_claim(stage);
    assert_int_equal(act_wait(a), ORDER_STORE_OK);
    assert_int_equal(a->count, b->count < ORDER_STORE_EVENTS_MAX ? b->count : ORDER_STORE_EVENTS_MAX);
    act_free(a);
    act_free(b);
    stage_close(&other);
}

/* The database's clock was set back by an hour since the event was claimed, and whoever claimed it is gone. */
static void test_a_claim_of_the_future(void **state)
{
    struct act *act;

    free(postgres_sql(postgres, "INSERT INTO order_outbox (event_type, payload, claimed_until)"
                                " VALUES ('order_created', '{}', now() + interval '1 hour')"));
    act = act_claim(stage_of(state));
    assert_int_equal(act_wait(act), ORDER_STORE_OK);
    assert_int_equal(act->count, 1);
    act_free(act);
    act = act_claim(stage_of(state)); /* it has a claim of this time now */
    assert_int_equal(act_wait(act), ORDER_STORE_OK);
    assert_int_equal(act->count, 0);
    act_free(act);
}

static void test_large_events_come_few_at_a_time(void **state)
{
    struct act *act;

    free(postgres_sql(postgres, "INSERT INTO order_outbox (event_type, payload)"
                                " SELECT 'order_created', repeat('x', 3000000) FROM generate_series(1, 5)"));
    act = act_claim(stage_of(state));
    assert_int_equal(act_wait(act), ORDER_STORE_OK);
    assert_int_equal(act->count, 2);
    act_free(act);
}

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
    stage_wait(stage, is_marked, &late->unit, "the late one ends");
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

#define case_of(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uris),
        case_of(test_create),
        case_of(test_many_share_transactions),
        case_of(test_one_bad_order_does_not_fail_its_neighbours),
        case_of(test_lost_races_are_run_again),
        case_of(test_a_request_that_comes_again),
        case_of(test_a_key_at_the_same_moment),
        case_of(test_keys),
        case_of(test_a_key_that_has_expired_counts_as_absent),
        case_of(test_expired_keys_are_deleted_a_few_at_a_time),
        case_of(test_a_change_that_comes_again),
        case_of(test_a_deletion_that_comes_again),
        case_of(test_an_error_is_not_remembered),
        case_of(test_a_change_at_the_same_moment),
        case_of(test_a_change_is_known_after_a_lost_connection),
        case_of(test_update),
        case_of(test_delete),
        case_of(test_list),
        case_of(test_rows_are_bounded),
        case_of(test_claims),
        case_of(test_a_claim_of_the_future),
        case_of(test_large_events_come_few_at_a_time),
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

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

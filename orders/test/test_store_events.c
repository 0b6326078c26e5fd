/* The store against a real PostgreSQL: the outbox. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "store_case.h"

#define CLAIMED "SELECT count(*) FROM order_outbox WHERE claimed_until > now()"

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

int test_store_events(void)
{
    const struct CMUnitTest tests[] = {
        case_of(test_claims),
        case_of(test_a_claim_of_the_future),
        case_of(test_large_events_come_few_at_a_time),
    };

    return cmocka_run_group_tests_name("test_store_events", tests, NULL, NULL);
}

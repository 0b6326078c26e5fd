/* calls: the table of calls in flight, against a slow and simple model of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "calls.h"

#define PLACES 50

static void on_reply(enum rpc_status status, const struct rpc_reply *reply, void *arg)
{
    (void)status;
    (void)reply;
    (void)arg;
}

static void test_one(void **state)
{
    struct calls *calls = calls_new(1);
    struct call *call;
    rpc_call_id id, again;

    (void)state;
    assert_null(calls_first(calls));
    assert_int_equal(calls_count(calls), 0);
    call = calls_add(calls, 100, on_reply, calls);
    assert_non_null(call);
    assert_int_equal(strlen(call->correlation_id), 36);
    assert_null(calls_add(calls, 50, on_reply, NULL));
    assert_ptr_equal(calls_first(calls), call);
    assert_ptr_equal(calls_find(calls, rpc_bytes_of(call->correlation_id)), call);
    assert_null(calls_find(calls, RPC_BYTES("")));
    assert_null(calls_find(calls, (struct rpc_bytes){call->correlation_id, 35}));
    assert_null(calls_find(calls, RPC_BYTES("00000000-0000-4000-8000-000000000000")));
    id = calls_id(calls, call);
    assert_true(id != 0);
    assert_ptr_equal(calls_find_id(calls, id), call);
    calls_remove(calls, call);
    assert_null(calls_find_id(calls, id));
    assert_null(calls_find(calls, rpc_bytes_of(call->correlation_id)));
    call = calls_add(calls, 10, on_reply, NULL); /* in the same place */
    again = calls_id(calls, call);
    assert_true(again != id);
    assert_null(calls_find_id(calls, id));
    assert_ptr_equal(calls_find_id(calls, again), call);
    assert_null(calls_find_id(calls, 0));
    assert_null(calls_find_id(calls, UINT64_MAX));
    assert_null(calls_find_id(calls, again + 1));
    calls_free(calls);
    calls_free(NULL);
}

static uint64_t model_first(struct call *const model[])
{
    uint64_t first_ms = UINT64_MAX;

    for (int i = 0; i < PLACES; i++) {
        if (model[i] != NULL && model[i]->deadline_ms < first_ms)
            first_ms = model[i]->deadline_ms;
    }
    return first_ms;
}

static void test_any_order(void **state)
{
    struct calls *calls = calls_new(PLACES);
    struct call *model[PLACES] = {NULL};
    rpc_call_id ids[PLACES];
    unsigned random = 1, count = 0;

    (void)state;
    for (int step = 0; step < 50000; step++) {
        unsigned i = (unsigned)rand_r(&random) % PLACES;

        if (model[i] == NULL) {
            model[i] = calls_add(calls, (uint64_t)rand_r(&random) % 100, on_reply, NULL);
            assert_non_null(model[i]);
            ids[i] = calls_id(calls, model[i]);
            count++;
        } else {
            assert_ptr_equal(calls_find_id(calls, ids[i]), model[i]);
            assert_ptr_equal(calls_find(calls, rpc_bytes_of(model[i]->correlation_id)), model[i]);
            calls_remove(calls, model[i]);
            assert_null(calls_find_id(calls, ids[i]));
            model[i] = NULL;
            count--;
        }
        assert_int_equal(calls_count(calls), count);
        if (count > 0)
            assert_int_equal(calls_first(calls)->deadline_ms, model_first(model));
        else
            assert_null(calls_first(calls));
    }
    calls_free(calls);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_any_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

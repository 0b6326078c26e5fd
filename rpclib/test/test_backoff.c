/* rpc_backoff: doubling, its bound, and chance over the upper half. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fake_chance.h"
#include "rpclib/backoff.h"

#define MIN_MS 50
#define MAX_MS 2000

/* The longest and the shortest delay after so many failures. */
static void is(unsigned failures, uint64_t longest_ms, uint64_t shortest_ms)
{
    fake_chance = 0;
    fake_chance_fails = false;
    assert_int_equal(rpc_backoff_ms(failures, MIN_MS, MAX_MS), longest_ms);
    fake_chance = longest_ms - shortest_ms;
    assert_int_equal(rpc_backoff_ms(failures, MIN_MS, MAX_MS), shortest_ms);
    fake_chance++;
    assert_int_equal(rpc_backoff_ms(failures, MIN_MS, MAX_MS), longest_ms); /* no shorter one */
    fake_chance_fails = true;
    assert_int_equal(rpc_backoff_ms(failures, MIN_MS, MAX_MS), longest_ms);
}

static void test_delays(void **state)
{
    (void)state;
    is(0, 50, 25);
    is(1, 100, 50);
    is(2, 200, 100);
    is(5, 1600, 800);
    is(6, 2000, 1000);
    is(7, 2000, 1000);
    is(63, 2000, 1000);
    is(64, 2000, 1000);
    is(UINT32_MAX, 2000, 1000);
}

static void test_edges(void **state)
{
    (void)state;
    fake_chance = UINT64_MAX;
    fake_chance_fails = false;
    assert_int_equal(rpc_backoff_ms(9, 0, 0), 0);
    assert_int_equal(rpc_backoff_ms(0, 1, 1), 1);
    for (fake_chance = 0; fake_chance < 100; fake_chance++) {
        uint64_t delay_ms = rpc_backoff_ms(0, 7, 7);

        assert_true(delay_ms >= 4 && delay_ms <= 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delays),
        cmocka_unit_test(test_edges),
    };

    return cmocka_run_group_tests_name("backoff", tests, NULL, NULL);
}

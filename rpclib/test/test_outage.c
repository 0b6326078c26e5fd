/* rpc_outage: what is told of a peer that comes and goes, and how often. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fake_chance.h"
#include "rpclib/outage.h"

#define STAY_MS 2000

static struct rpc_outage outage;

static int setup(void **state)
{
    (void)state;
    fake_chance = 0;
    rpc_outage_init(&outage, STAY_MS, 1000);
    return 0;
}

static void test_down_and_up(void **state)
{
    (void)state;
    assert_true(rpc_outage_up(&outage, 1100));
    assert_int_equal(rpc_outage_ms(&outage, 1100), 100);
    assert_false(rpc_outage_stayed(&outage, 9000)); /* told already */
    assert_true(rpc_outage_down(&outage, "gone", 10000));
    assert_false(rpc_outage_down(&outage, "gone", 10100));
    assert_true(rpc_outage_up(&outage, 10200));
    assert_int_equal(rpc_outage_ms(&outage, 10200), 200);
    assert_true(rpc_outage_down(&outage, "gone", 10200 + STAY_MS)); /* another one */
    assert_true(rpc_outage_up(&outage, 20000));
}

/* It takes each connection and drops it: two lines, whatever it does, then silence until it stays. */
static void test_one_that_never_stays(void **state)
{
    uint64_t now_ms = 1000;
    unsigned told = 0;

    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        told += rpc_outage_up(&outage, now_ms += 10);
        assert_false(rpc_outage_stayed(&outage, now_ms + 1));
        told += rpc_outage_down(&outage, "dropped", now_ms += 10);
    }
    assert_int_equal(told, 2);
    assert_false(rpc_outage_up(&outage, now_ms));
    assert_false(rpc_outage_stayed(&outage, now_ms + STAY_MS - 1));
    assert_true(rpc_outage_stayed(&outage, now_ms + STAY_MS));
    assert_false(rpc_outage_stayed(&outage, now_ms + STAY_MS));
    assert_int_equal(rpc_outage_ms(&outage, now_ms), now_ms - 1020);
    assert_true(rpc_outage_down(&outage, "dropped", now_ms + 2 * STAY_MS));
    assert_true(rpc_outage_up(&outage, now_ms + 2 * STAY_MS)); /* what was before is forgotten */
}

/* Its stay was not looked at in time: the next outage is told all the same. */
static void test_one_that_stayed_unseen(void **state)
{
    (void)state;
    assert_true(rpc_outage_up(&outage, 1000));
    assert_true(rpc_outage_down(&outage, "gone", 1001));
    assert_false(rpc_outage_up(&outage, 1002));
    assert_true(rpc_outage_down(&outage, "gone", 1002 + STAY_MS));
}

static void test_reasons(void **state)
{
    char reason[RPC_OUTAGE_REASON_SIZE * 2];

    (void)state;
    for (unsigned i = 0; i < 10; i++) { /* in turn */
        assert_int_equal(rpc_outage_down(&outage, "refused", 1000 + i), i == 0);
        assert_int_equal(rpc_outage_down(&outage, "no such host", 1000 + i), i == 0);
    }
    for (unsigned i = 0; i < RPC_OUTAGE_REASONS_MAX; i++) {
        snprintf(reason, sizeof(reason), "reason %u", i);
        assert_true(rpc_outage_down(&outage, reason, 1020));
        assert_false(rpc_outage_down(&outage, reason, 1020));
    }
    assert_true(rpc_outage_down(&outage, "refused", 1030)); /* forgotten over all the others */
    memset(reason, 'x', sizeof(reason) - 1);
    reason[sizeof(reason) - 1] = '\0';
    assert_true(rpc_outage_down(&outage, reason, 1040));
    assert_false(rpc_outage_down(&outage, reason, 1040));
    assert_true(rpc_outage_down(&outage, "", 1040));
    assert_false(rpc_outage_down(&outage, "", 1040));
}

static void test_one_that_goes_on(void **state)
{
    uint64_t last_ms = 0, gap_ms = 0;
    unsigned told = 0;

    (void)state;
    for (uint64_t now_ms = 1000; now_ms < 1000 + 86400000; now_ms += 1000) {
        if (!rpc_outage_down(&outage, "gone", now_ms))
            continue;
        if (told++ > 0) {
            assert_true(now_ms - last_ms >= gap_ms);
            gap_ms = now_ms - last_ms;
            assert_in_range(gap_ms, RPC_OUTAGE_AGAIN_MIN_MS, RPC_OUTAGE_AGAIN_MAX_MS + 1000);
        }
        last_ms = now_ms;
    }
    assert_true(gap_ms >= RPC_OUTAGE_AGAIN_MAX_MS);
    assert_in_range(told, 140, 150); /* a day */
}

/* Two programs that lost the same peer at the same moment: the pause of each is its own, and chosen once. */
static void test_many_at_the_same_moment(void **state)
{
    const uint64_t half_ms = RPC_OUTAGE_AGAIN_MIN_MS / 2;
    struct rpc_outage other;
    uint64_t now_ms = 1000;

    (void)state;
    rpc_outage_init(&other, STAY_MS, now_ms);
    assert_true(rpc_outage_down(&outage, "gone", now_ms));
    fake_chance = half_ms;
    assert_true(rpc_outage_down(&other, "gone", now_ms));
    assert_false(rpc_outage_down(&other, "gone", now_ms + half_ms - 1));
    assert_true(rpc_outage_down(&other, "gone", now_ms + half_ms));
    assert_false(rpc_outage_down(&outage, "gone", now_ms + 2 * half_ms - 1));
    assert_true(
        rpc_outage_down(&outage, "gone", now_ms + 2 * half_ms)); /* the next one is twice as long, less chance */
    now_ms += 2 * half_ms;
    assert_false(rpc_outage_down(&outage, "gone", now_ms + 3 * half_ms - 1));
    assert_true(rpc_outage_down(&outage, "gone", now_ms + 3 * half_ms));
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_down_and_up), TEST(test_one_that_never_stays), TEST(test_one_that_stayed_unseen),
        TEST(test_reasons),     TEST(test_one_that_goes_on),     TEST(test_many_at_the_same_moment),
    };

    return cmocka_run_group_tests_name("outage", tests, NULL, NULL);
}

/* rpc_timer: when its ticks come, on a clock that the test moves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fake_loop.h"
#include "rpclib/timer.h"

#define TICKS_MAX 32

enum handler_does { FINISHES, WAITS, TAKES_LONG, FREES };

/* A timer on a fake loop and the moments of its ticks, in ms since the start. */
static struct fixture {
    struct fake_loop *loop;
    struct rpc_timer *timer;
    enum handler_does does;
    uint64_t takes_ms;
    uint64_t ticks[TICKS_MAX];
    size_t count;
} fixture;

static void on_tick(struct rpc_timer *timer, void *arg)
{
    struct fixture *mine = arg;

    assert_true(mine->count < TICKS_MAX);
    mine->ticks[mine->count++] = rpc_loop_now_ms(fake_loop_base(mine->loop)) - FAKE_LOOP_START_MS;
    switch (mine->does) {
    case FINISHES:
        rpc_timer_done(timer);
        break;
    case WAITS:
        break;
    case TAKES_LONG:
        fake_loop_delay(mine->loop, mine->takes_ms);
        rpc_timer_done(timer);
        break;
    case FREES:
        rpc_timer_free(timer);
        mine->timer = NULL;
        break;
    }
}

static void start(uint64_t interval_ms, bool eager, enum handler_does does)
{
    fixture.does = does;
    fixture.timer = rpc_timer_new(&(struct rpc_timer_options){.loop = fake_loop_base(fixture.loop),
                                                              .interval_ms = interval_ms,
                                                              .eager = eager,
                                                              .handler = on_tick,
                                                              .arg = &fixture});
    assert_non_null(fixture.timer);
    assert_int_equal(fixture.count, 0); /* never from inside rpc_timer_new() */
}

static int setup(void **state)
{
    (void)state;
    memset(&fixture, 0, sizeof(fixture));
    fixture.loop = fake_loop_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rpc_timer_free(fixture.timer);
    fake_loop_free(fixture.loop); /* ends the program when the timer left something */
    return 0;
}

/* "100 200 300": all ticks so far. */
static void ticks_are(const char *expected)
{
    char text[TICKS_MAX * 21] = "";

    for (size_t i = 0; i < fixture.count; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%ju", i == 0 ? "" : " ",
                 (uintmax_t)fixture.ticks[i]);
    assert_string_equal(text, expected);
}

static void test_regular_ticks(void **state)
{
    (void)state;
    start(100, false, FINISHES);
    fake_loop_advance(fixture.loop, 99);
    ticks_are("");
    fake_loop_advance(fixture.loop, 1);
    ticks_are("100");
    fake_loop_advance(fixture.loop, 350);
    ticks_are("100 200 300 400");
}

static void test_eager(void **state)
{
    (void)state;
    start(100, true, FINISHES);
    fake_loop_turn(fixture.loop);
    ticks_are("0");
    fake_loop_advance(fixture.loop, 200);
    ticks_are("0 100 200");
}

static void test_work_within_the_interval_does_not_shift_the_grid(void **state)
{
    (void)state;
    fixture.takes_ms = 30;
    start(100, true, TAKES_LONG);
    fake_loop_advance(fixture.loop, 320);
    ticks_are("0 100 200 300");
}

static void test_late_tick_runs_once_and_the_grid_stays(void **state)
{
    (void)state;
    start(100, false, WAITS);
    fake_loop_advance(fixture.loop, 250); /* the tick of 200 is due while that of 100 runs */
    ticks_are("100");
    rpc_timer_done(fixture.timer);
    ticks_are("100"); /* not from inside rpc_timer_done() */
    fixture.does = FINISHES;
    fake_loop_turn(fixture.loop);
    ticks_are("100 250");
    fake_loop_advance(fixture.loop, 200);
    ticks_are("100 250 300 400");
}

static void test_missed_ticks_are_not_made_up(void **state)
{
    (void)state;
    start(100, false, WAITS);
    fake_loop_advance(fixture.loop, 555); /* 200, 300, 400 and 500 pass */
    fixture.does = FINISHES;
    rpc_timer_done(fixture.timer);
    fake_loop_advance(fixture.loop, 200);
    ticks_are("100 555 600 700");
}

static void test_done_on_a_point_of_the_grid(void **state)
{
    (void)state;
    start(100, false, WAITS);
    fake_loop_advance(fixture.loop, 300);
    fixture.does = FINISHES;
    rpc_timer_done(fixture.timer);
    fake_loop_advance(fixture.loop, 100);
    ticks_are("100 300 400"); /* that of 300 once, not as 200's as well */
}

static void test_ticks_never_overlap(void **state)
{
    (void)state;
    start(100, false, WAITS);
    fake_loop_advance(fixture.loop, 100000);
    ticks_are("100");
    assert_true(fake_loop_next_ms(fixture.loop) == UINT64_MAX);
}

static void test_busy_loop(void **state)
{
    (void)state;
    start(100, false, FINISHES);
    fake_loop_delay(fixture.loop, 370); /* the loop itself came late */
    fake_loop_advance(fixture.loop, 130);
    ticks_are("370 400 500");
}

static void test_free_in_handler(void **state)
{
    (void)state;
    start(100, false, FREES);
    fake_loop_advance(fixture.loop, 1000);
    ticks_are("100");
    assert_int_equal(fake_loop_handles(fixture.loop), 0);
}

static void test_free_while_waiting_or_ticking(void **state)
{
    (void)state;
    rpc_timer_free(NULL);
    start(100, false, WAITS);
    rpc_timer_free(fixture.timer);
    fake_loop_advance(fixture.loop, 1000);
    ticks_are("");
    start(100, false, WAITS);
    fake_loop_advance(fixture.loop, 150);
    rpc_timer_free(fixture.timer);
    fixture.timer = NULL;
    fake_loop_advance(fixture.loop, 1000);
    assert_int_equal(fixture.count, 1);
}

static void test_no_memory(void **state)
{
    (void)state;
    fake_loop_fail_after(fixture.loop, 0);
    assert_null(rpc_timer_new(&(struct rpc_timer_options){
        .loop = fake_loop_base(fixture.loop), .interval_ms = 1, .handler = on_tick, .arg = &fixture}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_regular_ticks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_eager, setup, teardown),
        cmocka_unit_test_setup_teardown(test_work_within_the_interval_does_not_shift_the_grid, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late_tick_runs_once_and_the_grid_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missed_ticks_are_not_made_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_done_on_a_point_of_the_grid, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ticks_never_overlap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_busy_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_free_in_handler, setup, teardown),
        cmocka_unit_test_setup_teardown(test_free_while_waiting_or_ticking, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
    };

    return cmocka_run_group_tests_name("timer", tests, NULL, NULL);
}

#include "rpclib/timer.h"

#include <assert.h>
#include <stdlib.h>

struct rpc_timer {
    struct rpc_loop *loop;
    struct rpc_loop_timer *alarm;
    uint64_t interval_ms;
    uint64_t due_ms; /* the point of the grid that the next tick belongs to, or the present one while `ticking` */
    bool ticking;    /* the handler has not said yet that it has finished */
    rpc_timer_fn *handler;
    void *arg;
};

/* Go on to the last point of the grid that has come: of the ticks that were missed it stands for all. */
static void timer_catch_up(struct rpc_timer *timer, uint64_t now_ms)
{
    if (now_ms > timer->due_ms)
        timer->due_ms += (now_ms - timer->due_ms) / timer->interval_ms * timer->interval_ms;
}

/* Loops may run an alarm a moment early; the tick belongs to its point of the grid all the same. */
static void timer_on_alarm(void *arg)
{
    struct rpc_timer *timer = arg;

    timer_catch_up(timer, rpc_loop_now_ms(timer->loop));
    timer->ticking = true;
    timer->handler(timer, timer->arg); /* may free it */
}

struct rpc_timer *rpc_timer_new(const struct rpc_timer_options *options)
{
    struct rpc_timer *timer = calloc(1, sizeof(*timer));

    assert(options->interval_ms >= 1);
    if (timer == NULL)
        return NULL;
    timer->loop = options->loop;
    timer->interval_ms = options->interval_ms;
    timer->handler = options->handler;
    timer->arg = options->arg;
    timer->alarm = rpc_loop_timer_new(options->loop, timer_on_alarm, timer);
    if (timer->alarm == NULL) {
        free(timer);
        return NULL;
    }
    timer->due_ms = rpc_loop_now_ms(timer->loop) + (options->eager ? 0 : options->interval_ms);
    rpc_loop_timer_start(timer->alarm, options->eager ? 0 : options->interval_ms);
    return timer;
}

void rpc_timer_done(struct rpc_timer *timer)
{
    uint64_t now_ms = rpc_loop_now_ms(timer->loop);

    assert(timer->ticking);
    timer->ticking = false;
    timer->due_ms += timer->interval_ms;
    timer_catch_up(timer, now_ms);
    rpc_loop_timer_start(timer->alarm, timer->due_ms > now_ms ? timer->due_ms - now_ms : 0);
}

void rpc_timer_free(struct rpc_timer *timer)
{
    if (timer == NULL)
        return;
    rpc_loop_timer_free(timer->alarm);
    free(timer);
}

/* The hooks of rpclib/loop.h, handed to whichever adapter made the object. */
#include "loop.h"

#include <time.h>

uint64_t rpc_loop_monotonic_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t rpc_loop_now_ms(const struct rpc_loop *loop)
{
    return loop->ops->now_ms(loop);
}

struct rpc_loop_watch *rpc_loop_watch_new(struct rpc_loop *loop, int fd, unsigned events, rpc_loop_watch_fn *fn,
                                          void *arg)
{
    return loop->ops->watch_new(loop, fd, events, fn, arg);
}

void rpc_loop_watch_set(struct rpc_loop_watch *watch, unsigned events)
{
    watch->ops->watch_set(watch, events);
}

void rpc_loop_watch_free(struct rpc_loop_watch *watch)
{
    if (watch != NULL)
        watch->ops->watch_free(watch);
}

struct rpc_loop_timer *rpc_loop_timer_new(struct rpc_loop *loop, rpc_loop_fn *fn, void *arg)
{
    return loop->ops->timer_new(loop, fn, arg);
}

void rpc_loop_timer_start(struct rpc_loop_timer *timer, uint64_t delay_ms)
{
    timer->ops->timer_start(timer, delay_ms);
}

void rpc_loop_timer_stop(struct rpc_loop_timer *timer)
{
    timer->ops->timer_stop(timer);
}

void rpc_loop_timer_free(struct rpc_loop_timer *timer)
{
    if (timer != NULL)
        timer->ops->timer_free(timer);
}

struct rpc_loop_task *rpc_loop_task_new(struct rpc_loop *loop, rpc_loop_fn *fn, void *arg)
{
    return loop->ops->task_new(loop, fn, arg);
}

void rpc_loop_task_schedule(struct rpc_loop_task *task)
{
    task->ops->task_schedule(task);
}

void rpc_loop_task_free(struct rpc_loop_task *task)
{
    if (task != NULL)
        task->ops->task_free(task);
}

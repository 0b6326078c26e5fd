/*
 * rpc_loop on libevent.
 *
 * A task is an event that is made active by hand: libevent appends it to the queue of active events, so it runs in the
 * same pass, behind everything that was ready (event_process_active_single_queue() takes the queue's head until it is
 * empty).  That is the end of the turn, without another epoll_wait().
 */
#include "rpclib/loop_libevent.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdlib.h>

#include "loop.h"

struct libevent_loop {
    struct rpc_loop loop;
    struct event_base *base;
};

struct libevent_watch {
    struct rpc_loop_watch watch;
    struct event_base *base;
    struct event read;
    struct event write;
    unsigned events;
    rpc_loop_watch_fn *fn;
    void *arg;
};

struct libevent_timer {
    struct rpc_loop_timer timer;
    struct event event;
    rpc_loop_fn *fn;
    void *arg;
};

struct libevent_task {
    struct rpc_loop_task task;
    struct event event;
    rpc_loop_fn *fn;
    void *arg;
};

static uint64_t libevent_now_ms(const struct rpc_loop *loop)
{
    (void)loop;
    return rpc_loop_monotonic_ms();
}

static void watch_on_event(evutil_socket_t fd, short what, void *arg)
{
    struct libevent_watch *watch = arg;
    unsigned events = ((what & EV_READ) ? RPC_LOOP_READ : 0u) | ((what & EV_WRITE) ? RPC_LOOP_WRITE : 0u);

    watch->fn(fd, events, watch->arg);
}

static void watch_side_set(struct event *side, bool on, bool was_on)
{
    if (on && !was_on)
        event_add(side, NULL);
    else if (!on && was_on)
        event_del(side);
}

static void libevent_watch_set(struct rpc_loop_watch *base, unsigned events)
{
    struct libevent_watch *watch = (struct libevent_watch *)base;

    watch_side_set(&watch->read, events & RPC_LOOP_READ, watch->events & RPC_LOOP_READ);
    watch_side_set(&watch->write, events & RPC_LOOP_WRITE, watch->events & RPC_LOOP_WRITE);
    watch->events = events;
}

static const struct rpc_loop_ops libevent_ops;

static struct rpc_loop_watch *libevent_watch_new(struct rpc_loop *base, int fd, unsigned events, rpc_loop_watch_fn *fn,
                                                 void *arg)
{
    struct libevent_loop *loop = (struct libevent_loop *)base;
    struct libevent_watch *watch = calloc(1, sizeof(*watch));

    if (watch == NULL)
        return NULL;
    watch->watch.ops = &libevent_ops;
    watch->base = loop->base;
    watch->fn = fn;
    watch->arg = arg;
    event_assign(&watch->read, loop->base, fd, EV_READ | EV_PERSIST, watch_on_event, watch);
    event_assign(&watch->write, loop->base, fd, EV_WRITE | EV_PERSIST, watch_on_event, watch);
    libevent_watch_set(&watch->watch, events);
    return &watch->watch;
}

static void libevent_watch_free(struct rpc_loop_watch *base)
{
    struct libevent_watch *watch = (struct libevent_watch *)base;

    event_del(&watch->read);
    event_del(&watch->write);
    free(watch);
}

static void timer_on_event(evutil_socket_t fd, short what, void *arg)
{
    struct libevent_timer *timer = arg;

    (void)fd;
    (void)what;
    timer->fn(timer->arg);
}

static struct rpc_loop_timer *libevent_timer_new(struct rpc_loop *base, rpc_loop_fn *fn, void *arg)
{
    struct libevent_timer *timer = calloc(1, sizeof(*timer));

    if (timer == NULL)
        return NULL;
    timer->timer.ops = &libevent_ops;
    timer->fn = fn;
    timer->arg = arg;
    evtimer_assign(&timer->event, ((struct libevent_loop *)base)->base, timer_on_event, timer);
    return &timer->timer;
}

static void libevent_timer_start(struct rpc_loop_timer *base, uint64_t delay_ms)
{
    struct timeval delay = {.tv_sec = (time_t)(delay_ms / 1000), .tv_usec = (suseconds_t)(delay_ms % 1000) * 1000};

    evtimer_add(&((struct libevent_timer *)base)->event, &delay);
}

static void libevent_timer_stop(struct rpc_loop_timer *base)
{
    evtimer_del(&((struct libevent_timer *)base)->event);
}

static void libevent_timer_free(struct rpc_loop_timer *base)
{
    libevent_timer_stop(base);
    free(base);
}

static void task_on_event(evutil_socket_t fd, short what, void *arg)
{
    struct libevent_task *task = arg;

    (void)fd;
    (void)what;
    task->fn(task->arg);
}

static struct rpc_loop_task *libevent_task_new(struct rpc_loop *base, rpc_loop_fn *fn, void *arg)
{
    struct libevent_task *task = calloc(1, sizeof(*task));

    if (task == NULL)
        return NULL;
    task->task.ops = &libevent_ops;
    task->fn = fn;
    task->arg = arg;
    event_assign(&task->event, ((struct libevent_loop *)base)->base, -1, 0, task_on_event, task);
    return &task->task;
}

static void libevent_task_schedule(struct rpc_loop_task *base)
{
    event_active(&((struct libevent_task *)base)->event, EV_TIMEOUT, 1);
}

static void libevent_task_free(struct rpc_loop_task *base)
{
    event_del(&((struct libevent_task *)base)->event);
    free(base);
}

static const struct rpc_loop_ops libevent_ops = {
    .now_ms = libevent_now_ms,
    .watch_new = libevent_watch_new,
    .watch_set = libevent_watch_set,
    .watch_free = libevent_watch_free,
    .timer_new = libevent_timer_new,
    .timer_start = libevent_timer_start,
    .timer_stop = libevent_timer_stop,
    .timer_free = libevent_timer_free,
    .task_new = libevent_task_new,
    .task_schedule = libevent_task_schedule,
    .task_free = libevent_task_free,
};

struct rpc_loop *rpc_loop_libevent_new(struct event_base *base)
{
    struct libevent_loop *loop = calloc(1, sizeof(*loop));

    if (loop == NULL)
        return NULL;
    loop->loop.ops = &libevent_ops;
    loop->base = base;
    return &loop->loop;
}

void rpc_loop_libevent_free(struct rpc_loop *loop)
{
    free(loop);
}

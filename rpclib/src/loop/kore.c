/*
 * rpc_loop on a Kore worker's loop.
 *
 * Kore has no hook for the end of a turn, so a task is a timer of no delay: timers run between Kore's events and its HTTP
 * requests, and while one is due the worker does not sleep.  Kore frees a one-shot timer by itself, after its callback;
 * kore_timer_remove() frees it too, so a handle is cleared before its callback runs.
 *
 * kore_platform_disable_read() ends the process when the descriptor is not registered; hence `registered`.
 */
#include "rpclib/loop_kore.h"

#include <sys/epoll.h>

#include <kore/kore.h>
#include <stdlib.h>

#include "loop.h"

struct kore_watch {
    struct kore_event event; /* first: Kore hands it to its handler */
    struct rpc_loop_watch watch;
    struct kore_loop *loop;
    struct kore_watch *next_dead;
    int fd;
    unsigned events;
    bool registered;
    bool freed;
    rpc_loop_watch_fn *fn;
    void *arg;
};

struct kore_loop {
    struct rpc_loop loop;
    struct kore_watch *dead;   /* freed watches that Kore's current list of events may still name */
    struct kore_timer *burial; /* frees them in the next turn */
};

struct kore_loop_timer {
    struct rpc_loop_timer timer;
    struct kore_timer *running; /* NULL when it is not */
    rpc_loop_fn *fn;
    void *arg;
};

struct kore_loop_task {
    struct rpc_loop_task task;
    struct kore_timer *scheduled; /* NULL when it is not */
    rpc_loop_fn *fn;
    void *arg;
};

static const struct rpc_loop_ops kore_ops;

static uint64_t kore_now_ms(const struct rpc_loop *loop)
{
    (void)loop;
    return rpc_loop_monotonic_ms();
}

static struct kore_watch *watch_of(struct rpc_loop_watch *watch)
{
    return (struct kore_watch *)((char *)watch - offsetof(struct kore_watch, watch));
}

/* Kore sets READ and WRITE in the event's flags and leaves clearing them to the handler. */
static void watch_on_event(void *arg, int error)
{
    struct kore_watch *watch = arg;
    unsigned events = 0;

    if (error || (watch->event.flags & KORE_EVENT_READ))
        events |= watch->events & RPC_LOOP_READ;
    if (error || (watch->event.flags & KORE_EVENT_WRITE))
        events |= watch->events & RPC_LOOP_WRITE;
    watch->event.flags = 0;
    if (!watch->freed && events != 0)
        watch->fn(watch->fd, events, watch->arg);
}

static void kore_watch_set(struct rpc_loop_watch *base, unsigned events)
{
    struct kore_watch *watch = watch_of(base);
    int type = ((events & RPC_LOOP_READ) ? EPOLLIN | EPOLLRDHUP : 0) | ((events & RPC_LOOP_WRITE) ? EPOLLOUT : 0);

    if (events == watch->events)
        return;
    watch->events = events;
    if (events != 0) {
        kore_platform_event_schedule(watch->fd, type, 0, watch);
        watch->registered = true;
    } else if (watch->registered) {
        kore_platform_disable_read(watch->fd);
        watch->registered = false;
    }
}

static struct rpc_loop_watch *kore_watch_new(struct rpc_loop *loop, int fd, unsigned events, rpc_loop_watch_fn *fn,
                                             void *arg)
{
    struct kore_watch *watch = calloc(1, sizeof(*watch));

    if (watch == NULL)
        return NULL;
    watch->event.type = KORE_TYPE_PGSQL_CONN; /* any type but a connection or listener: Kore only calls handle() */
    watch->event.handle = watch_on_event;
    watch->watch.ops = &kore_ops;
    watch->loop = (struct kore_loop *)loop;
    watch->fd = fd;
    watch->fn = fn;
    watch->arg = arg;
    kore_watch_set(&watch->watch, events);
    return &watch->watch;
}

static void bury(struct kore_loop *loop)
{
    while (loop->dead != NULL) {
        struct kore_watch *watch = loop->dead;

        loop->dead = watch->next_dead;
        free(watch);
    }
}

static void burial_on_timer(void *arg, u_int64_t now)
{
    struct kore_loop *loop = arg;

    (void)now;
    loop->burial = NULL;
    bury(loop);
}

static void kore_watch_free(struct rpc_loop_watch *base)
{
    struct kore_watch *watch = watch_of(base);
    struct kore_loop *loop = watch->loop;

    kore_watch_set(base, 0);
    watch->freed = true;
    watch->next_dead = loop->dead;
    loop->dead = watch;
    if (loop->burial == NULL)
        loop->burial = kore_timer_add(burial_on_timer, 0, loop, KORE_TIMER_ONESHOT);
}

static void timer_on_timer(void *arg, u_int64_t now)
{
    struct kore_loop_timer *timer = arg;

    (void)now;
    timer->running = NULL;
    timer->fn(timer->arg);
}

static struct rpc_loop_timer *kore_timer_handle_new(struct rpc_loop *loop, rpc_loop_fn *fn, void *arg)
{
    struct kore_loop_timer *timer = calloc(1, sizeof(*timer));

    (void)loop;
    if (timer == NULL)
        return NULL;
    timer->timer.ops = &kore_ops;
    timer->fn = fn;
    timer->arg = arg;
    return &timer->timer;
}

static void kore_timer_handle_stop(struct rpc_loop_timer *base)
{
    struct kore_loop_timer *timer = (struct kore_loop_timer *)base;

    if (timer->running != NULL)
        kore_timer_remove(timer->running);
    timer->running = NULL;
}

static void kore_timer_handle_start(struct rpc_loop_timer *base, uint64_t delay_ms)
{
    struct kore_loop_timer *timer = (struct kore_loop_timer *)base;

    kore_timer_handle_stop(base);
    timer->running = kore_timer_add(timer_on_timer, delay_ms, timer, KORE_TIMER_ONESHOT);
}

static void kore_timer_handle_free(struct rpc_loop_timer *base)
{
    kore_timer_handle_stop(base);
    free(base);
}

static void task_on_timer(void *arg, u_int64_t now)
{
    struct kore_loop_task *task = arg;

    (void)now;
    task->scheduled = NULL;
    task->fn(task->arg);
}

static struct rpc_loop_task *kore_task_new(struct rpc_loop *loop, rpc_loop_fn *fn, void *arg)
{
    struct kore_loop_task *task = calloc(1, sizeof(*task));

    (void)loop;
    if (task == NULL)
        return NULL;
    task->task.ops = &kore_ops;
    task->fn = fn;
    task->arg = arg;
    return &task->task;
}

static void kore_task_schedule(struct rpc_loop_task *base)
{
    struct kore_loop_task *task = (struct kore_loop_task *)base;

    if (task->scheduled == NULL)
        task->scheduled = kore_timer_add(task_on_timer, 0, task, KORE_TIMER_ONESHOT);
}

static void kore_task_free(struct rpc_loop_task *base)
{
    struct kore_loop_task *task = (struct kore_loop_task *)base;

    if (task->scheduled != NULL)
        kore_timer_remove(task->scheduled);
    free(task);
}

static const struct rpc_loop_ops kore_ops = {
    .now_ms = kore_now_ms,
    .watch_new = kore_watch_new,
    .watch_set = kore_watch_set,
    .watch_free = kore_watch_free,
    .timer_new = kore_timer_handle_new,
    .timer_start = kore_timer_handle_start,
    .timer_stop = kore_timer_handle_stop,
    .timer_free = kore_timer_handle_free,
    .task_new = kore_task_new,
    .task_schedule = kore_task_schedule,
    .task_free = kore_task_free,
};

struct rpc_loop *rpc_loop_kore_new(void)
{
    struct kore_loop *loop = calloc(1, sizeof(*loop));

    if (loop == NULL)
        return NULL;
    loop->loop.ops = &kore_ops;
    return &loop->loop;
}

void rpc_loop_kore_free(struct rpc_loop *base)
{
    struct kore_loop *loop = (struct kore_loop *)base;

    if (loop == NULL)
        return;
    if (loop->burial != NULL)
        kore_timer_remove(loop->burial);
    bury(loop);
    free(loop);
}

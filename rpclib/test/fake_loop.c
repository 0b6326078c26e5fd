#include "fake_loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "loop/loop.h"

#define STEPS_MAX 1000000 /* callbacks of one call; more mean that the code under test goes round in circles */

struct fake_watch {
    struct rpc_loop_watch watch;
    struct fake_loop *loop;
    LIST_ENTRY(fake_watch) link;
    int fd;
    unsigned events;
    unsigned ready; /* fired, and not run yet */
    rpc_loop_watch_fn *fn;
    void *arg;
};

struct fake_timer {
    struct rpc_loop_timer timer;
    struct fake_loop *loop;
    LIST_ENTRY(fake_timer) link;
    bool running;
    uint64_t due_ms;
    uint64_t started; /* counts the loop's starts: this one's number */
    rpc_loop_fn *fn;
    void *arg;
};

struct fake_task {
    struct rpc_loop_task task;
    struct fake_loop *loop;
    TAILQ_ENTRY(fake_task) link; /* while scheduled */
    bool scheduled;
    rpc_loop_fn *fn;
    void *arg;
};

struct fake_loop {
    struct rpc_loop loop;
    uint64_t now_ms;
    uint64_t starts;
    size_t handles;
    bool fails;
    unsigned fails_after;
    LIST_HEAD(, fake_watch) watches;
    LIST_HEAD(, fake_timer) timers;
    TAILQ_HEAD(, fake_task) tasks;
};

static void bug(const char *what)
{
    fprintf(stderr, "fake_loop: %s\n", what);
    abort();
}

static void *handle_new(struct fake_loop *loop, size_t size)
{
    void *handle;

    if (loop->fails && loop->fails_after-- == 0) {
        loop->fails = false;
        return NULL;
    }
    handle = calloc(1, size);
    if (handle != NULL)
        loop->handles++;
    return handle;
}

static uint64_t fake_now_ms(const struct rpc_loop *loop)
{
    return ((const struct fake_loop *)loop)->now_ms;
}

/* ---- The hooks --------------------------------------------------------------------------------------------------- */

static const struct rpc_loop_ops fake_ops;

static struct rpc_loop_watch *fake_watch_new(struct rpc_loop *base, int fd, unsigned events, rpc_loop_watch_fn *fn,
                                             void *arg)
{
    struct fake_loop *loop = (struct fake_loop *)base;
    struct fake_watch *watch = handle_new(loop, sizeof(*watch));

    if (watch == NULL)
        return NULL;
    watch->watch.ops = &fake_ops;
    watch->loop = loop;
    watch->fd = fd;
    watch->events = events;
    watch->fn = fn;
    watch->arg = arg;
    LIST_INSERT_HEAD(&loop->watches, watch, link);
    return &watch->watch;
}

static void fake_watch_set(struct rpc_loop_watch *base, unsigned events)
{
    ((struct fake_watch *)base)->events = events;
}

static void fake_watch_free(struct rpc_loop_watch *base)
{
    struct fake_watch *watch = (struct fake_watch *)base;

    LIST_REMOVE(watch, link);
    watch->loop->handles--;
    free(watch);
}

static struct rpc_loop_timer *fake_timer_new(struct rpc_loop *base, rpc_loop_fn *fn, void *arg)
{
    struct fake_loop *loop = (struct fake_loop *)base;
    struct fake_timer *timer = handle_new(loop, sizeof(*timer));

    if (timer == NULL)
        return NULL;
    timer->timer.ops = &fake_ops;
    timer->loop = loop;
    timer->fn = fn;
    timer->arg = arg;
    LIST_INSERT_HEAD(&loop->timers, timer, link);
    return &timer->timer;
}

static void fake_timer_start(struct rpc_loop_timer *base, uint64_t delay_ms)
{
    struct fake_timer *timer = (struct fake_timer *)base;

    timer->running = true;
    timer->due_ms = timer->loop->now_ms + delay_ms;
    timer->started = timer->loop->starts++;
}

static void fake_timer_stop(struct rpc_loop_timer *base)
{
    ((struct fake_timer *)base)->running = false;
}

static void fake_timer_free(struct rpc_loop_timer *base)
{
    struct fake_timer *timer = (struct fake_timer *)base;

    LIST_REMOVE(timer, link);
    timer->loop->handles--;
    free(timer);
}

static struct rpc_loop_task *fake_task_new(struct rpc_loop *base, rpc_loop_fn *fn, void *arg)
{
    struct fake_loop *loop = (struct fake_loop *)base;
    struct fake_task *task = handle_new(loop, sizeof(*task));

    if (task == NULL)
        return NULL;
    task->task.ops = &fake_ops;
    task->loop = loop;
    task->fn = fn;
    task->arg = arg;
    return &task->task;
}

static void fake_task_schedule(struct rpc_loop_task *base)
{
    struct fake_task *task = (struct fake_task *)base;

    if (!task->scheduled)
        TAILQ_INSERT_TAIL(&task->loop->tasks, task, link);
    task->scheduled = true;
}

static void fake_task_free(struct rpc_loop_task *base)
{
    struct fake_task *task = (struct fake_task *)base;

    if (task->scheduled)
        TAILQ_REMOVE(&task->loop->tasks, task, link);
    task->loop->handles--;
    free(task);
}

static const struct rpc_loop_ops fake_ops = {
    .now_ms = fake_now_ms,
    .watch_new = fake_watch_new,
    .watch_set = fake_watch_set,
    .watch_free = fake_watch_free,
    .timer_new = fake_timer_new,
    .timer_start = fake_timer_start,
    .timer_stop = fake_timer_stop,
    .timer_free = fake_timer_free,
    .task_new = fake_task_new,
    .task_schedule = fake_task_schedule,
    .task_free = fake_task_free,
};

/* ---- Turns ------------------------------------------------------------------------------------------------------- */

/* The running timer that is due first, of those started before `starts`; NULL: none. */
static struct fake_timer *timer_first(const struct fake_loop *loop, uint64_t starts)
{
    struct fake_timer *first = NULL;
    struct fake_timer *timer;

    LIST_FOREACH(timer, &loop->timers, link)
    {
        if (!timer->running || timer->started >= starts)
            continue;
        if (first == NULL || timer->due_ms < first->due_ms ||
            (timer->due_ms == first->due_ms && timer->started < first->started))
            first = timer;
    }
    return first;
}

/* A callback may free any handle, so each step looks anew for what is left to do. */
static void run_timers(struct fake_loop *loop)
{
    uint64_t starts = loop->starts;
    struct fake_timer *timer;

    while ((timer = timer_first(loop, starts)) != NULL && timer->due_ms <= loop->now_ms) {
        timer->running = false;
        timer->fn(timer->arg);
    }
}

static void run_tasks(struct fake_loop *loop)
{
    struct fake_task *task;

    for (unsigned steps = 0; (task = TAILQ_FIRST(&loop->tasks)) != NULL; steps++) {
        if (steps == STEPS_MAX)
            bug("tasks schedule tasks without end");
        TAILQ_REMOVE(&loop->tasks, task, link);
        task->scheduled = false;
        task->fn(task->arg);
    }
}

void fake_loop_turn(struct fake_loop *loop)
{
    run_timers(loop);
    run_tasks(loop);
}

void fake_loop_advance(struct fake_loop *loop, uint64_t duration_ms)
{
    uint64_t end_ms = loop->now_ms + duration_ms;

    fake_loop_turn(loop);
    /* a callback may have moved the clock on by fake_loop_delay() */
    for (unsigned steps = 0; loop->now_ms <= end_ms && fake_loop_next_ms(loop) <= end_ms - loop->now_ms; steps++) {
        if (steps == STEPS_MAX)
            bug("timers start timers without end");
        loop->now_ms += fake_loop_next_ms(loop);
        fake_loop_turn(loop);
    }
    if (loop->now_ms < end_ms)
        loop->now_ms = end_ms;
}

void fake_loop_delay(struct fake_loop *loop, uint64_t duration_ms)
{
    loop->now_ms += duration_ms;
}

static struct fake_watch *watch_ready(const struct fake_loop *loop)
{
    struct fake_watch *watch;

    LIST_FOREACH(watch, &loop->watches, link)
    {
        if ((watch->ready & watch->events) != 0)
            return watch;
    }
    return NULL;
}

size_t fake_loop_fire(struct fake_loop *loop, int fd, unsigned events)
{
    struct fake_watch *watch;
    size_t count = 0;

    LIST_FOREACH(watch, &loop->watches, link)
    {
        watch->ready = watch->fd == fd ? events & watch->events : 0;
    }
    while ((watch = watch_ready(loop)) != NULL) {
        unsigned ready = watch->ready & watch->events;

        watch->ready = 0;
        count++;
        watch->fn(fd, ready, watch->arg);
    }
    fake_loop_turn(loop);
    return count;
}

/* ---- Looking at it ----------------------------------------------------------------------------------------------- */

unsigned fake_loop_watched(const struct fake_loop *loop, int fd)
{
    const struct fake_watch *watch;
    unsigned events = 0;

    LIST_FOREACH(watch, &loop->watches, link)
    {
        if (watch->fd == fd)
            events |= watch->events;
    }
    return events;
}

uint64_t fake_loop_next_ms(const struct fake_loop *loop)
{
    const struct fake_timer *timer = timer_first(loop, UINT64_MAX);

    if (timer == NULL)
        return UINT64_MAX;
    return timer->due_ms > loop->now_ms ? timer->due_ms - loop->now_ms : 0;
}

size_t fake_loop_handles(const struct fake_loop *loop)
{
    return loop->handles;
}

void fake_loop_fail_after(struct fake_loop *loop, unsigned count)
{
    loop->fails = true;
    loop->fails_after = count;
}

struct rpc_loop *fake_loop_base(struct fake_loop *loop)
{
    return &loop->loop;
}

struct fake_loop *fake_loop_new(void)
{
    struct fake_loop *loop = calloc(1, sizeof(*loop));

    if (loop == NULL)
        bug("out of memory");
    loop->loop.ops = &fake_ops;
    loop->now_ms = FAKE_LOOP_START_MS;
    LIST_INIT(&loop->watches);
    LIST_INIT(&loop->timers);
    TAILQ_INIT(&loop->tasks);
    return loop;
}

void fake_loop_free(struct fake_loop *loop)
{
    if (loop->handles != 0)
        bug("freed before what was made on it");
    free(loop);
}

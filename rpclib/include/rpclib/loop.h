/*
 * rpc_loop: the few hooks that the library, and stores beside it, need of an event loop.
 *
 * Adapters: rpclib/loop_libevent.h (services, tools) and rpclib/loop_kore.h (the gateway).  One thread, one loop, a
 * process: everything that is given a loop is used from that loop's thread alone, and nothing here takes a lock.
 *
 * A "turn" is one round of the loop: every descriptor that is ready and every timer that is due runs its callback, then
 * the tasks that these scheduled run.  Tasks are how many small writes become one: each request of a turn appends to a
 * buffer and schedules the same task; the task writes once.
 *
 * Callbacks may free the watch, timer or task that runs them, and any other.  After _free() no callback of it runs.
 */
#ifndef RPCLIB_LOOP_H
#define RPCLIB_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct rpc_loop;       /* owned by whoever made it through an adapter */
struct rpc_loop_watch; /* readiness of one descriptor, level-triggered */
struct rpc_loop_timer; /* one-shot; start it again for the next time */
struct rpc_loop_task;  /* runs once at the end of the turn in which it was scheduled */

enum rpc_loop_event {
    RPC_LOOP_READ = 1 << 0, /* readable, or at its end, or in error: read to learn which */
    RPC_LOOP_WRITE = 1 << 1,
};

typedef void rpc_loop_watch_fn(int fd, unsigned events, void *arg);
typedef void rpc_loop_fn(void *arg);

/* Milliseconds of CLOCK_MONOTONIC, read anew at each call. */
uint64_t rpc_loop_now_ms(const struct rpc_loop *loop);

/*
 * Watch `fd` for `events` (RPC_LOOP_READ | RPC_LOOP_WRITE, or 0 for none yet).  NULL when out of memory.  The descriptor
 * stays the caller's; free the watch BEFORE closing it.
 */
struct rpc_loop_watch *rpc_loop_watch_new(struct rpc_loop *loop, int fd, unsigned events, rpc_loop_watch_fn *fn,
                                          void *arg);
void rpc_loop_watch_set(struct rpc_loop_watch *watch, unsigned events);
void rpc_loop_watch_free(struct rpc_loop_watch *watch); /* NULL is fine */

/* A timer that is not running yet.  NULL when out of memory. */
struct rpc_loop_timer *rpc_loop_timer_new(struct rpc_loop *loop, rpc_loop_fn *fn, void *arg);
/* Run `fn` once, `delay_ms` from now; a running timer is set anew. */
void rpc_loop_timer_start(struct rpc_loop_timer *timer, uint64_t delay_ms);
void rpc_loop_timer_stop(struct rpc_loop_timer *timer);
void rpc_loop_timer_free(struct rpc_loop_timer *timer); /* NULL is fine */

/* A task that is not scheduled yet.  NULL when out of memory. */
struct rpc_loop_task *rpc_loop_task_new(struct rpc_loop *loop, rpc_loop_fn *fn, void *arg);
/* Run `fn` at the end of this turn.  Scheduling it twice before it ran is the same as once. */
void rpc_loop_task_schedule(struct rpc_loop_task *task);
void rpc_loop_task_free(struct rpc_loop_task *task); /* NULL is fine */

#endif

/* What an adapter of rpc_loop implements.  Each handle of an adapter embeds the struct of its kind here first. */
#ifndef RPCLIB_SRC_LOOP_LOOP_H
#define RPCLIB_SRC_LOOP_LOOP_H

#include "rpclib/loop.h"

struct rpc_loop_ops {
    uint64_t (*now_ms)(const struct rpc_loop *loop);
    struct rpc_loop_watch *(*watch_new)(struct rpc_loop *loop, int fd, unsigned events, rpc_loop_watch_fn *fn,
                                        void *arg);
    void (*watch_set)(struct rpc_loop_watch *watch, unsigned events);
    void (*watch_free)(struct rpc_loop_watch *watch);
    struct rpc_loop_timer *(*timer_new)(struct rpc_loop *loop, rpc_loop_fn *fn, void *arg);
    void (*timer_start)(struct rpc_loop_timer *timer, uint64_t delay_ms);
    void (*timer_stop)(struct rpc_loop_timer *timer);
    void (*timer_free)(struct rpc_loop_timer *timer);
    struct rpc_loop_task *(*task_new)(struct rpc_loop *loop, rpc_loop_fn *fn, void *arg);
    void (*task_schedule)(struct rpc_loop_task *task);
    void (*task_free)(struct rpc_loop_task *task);
};

struct rpc_loop {
    const struct rpc_loop_ops *ops;
};

struct rpc_loop_watch {
    const struct rpc_loop_ops *ops;
};

struct rpc_loop_timer {
    const struct rpc_loop_ops *ops;
};

struct rpc_loop_task {
    const struct rpc_loop_ops *ops;
};

/* CLOCK_MONOTONIC in milliseconds: what a real loop's now_ms() says. */
uint64_t rpc_loop_monotonic_ms(void);

#endif

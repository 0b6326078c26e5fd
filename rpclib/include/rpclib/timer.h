/*
 * rpc_timer: Nameko's timer entrypoint: runs a handler every `interval_ms`.
 *
 * The first run comes after one interval, or at once when `eager`.  Ticks stay on the grid of the first one: a handler
 * that takes long delays the next tick but does not shift those after it, and ticks that were missed are not made up.
 * A tick never overlaps the one before: the handler says when it has finished.
 */
#ifndef RPCLIB_TIMER_H
#define RPCLIB_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "rpclib/loop.h"

struct rpc_timer;

/* One tick.  Call rpc_timer_done() when its work is finished, now or later. */
typedef void rpc_timer_fn(struct rpc_timer *timer, void *arg);

struct rpc_timer_options {
    struct rpc_loop *loop;
    uint64_t interval_ms; /* 1 or more */
    bool eager;
    rpc_timer_fn *handler;
    void *arg;
};

struct rpc_timer *rpc_timer_new(const struct rpc_timer_options *options); /* NULL when out of memory */
void rpc_timer_done(struct rpc_timer *timer);
void rpc_timer_free(struct rpc_timer *timer); /* NULL is fine; also from inside the handler */

#endif

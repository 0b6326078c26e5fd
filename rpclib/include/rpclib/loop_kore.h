/*
 * The Kore adapter of rpc_loop, for gateways: hooks into a worker's own loop.  Compile rpclib/src/loop/kore.c into the
 * Kore module (it calls functions that only the kore binary has).
 *
 * Make it in kore_worker_configure().  Descriptors are level-triggered; tasks are timers of no delay, so they run
 * before the worker next handles HTTP requests.
 */
#ifndef RPCLIB_LOOP_KORE_H
#define RPCLIB_LOOP_KORE_H

#include "rpclib/loop.h"

/* NULL when out of memory. */
struct rpc_loop *rpc_loop_kore_new(void);

/* Free the loop after everything that was made on it. */
void rpc_loop_kore_free(struct rpc_loop *loop); /* NULL is fine */

#endif

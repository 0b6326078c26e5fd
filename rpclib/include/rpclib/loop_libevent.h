/* The libevent adapter of rpc_loop, for services and tools.  Link rpclib-libevent. */
#ifndef RPCLIB_LOOP_LIBEVENT_H
#define RPCLIB_LOOP_LIBEVENT_H

#include "rpclib/loop.h"

struct event_base;

/* A loop on `base`, which must outlive it and everything made on it.  NULL when out of memory. */
struct rpc_loop *rpc_loop_libevent_new(struct event_base *base);

/* Free the loop after everything that was made on it. */
void rpc_loop_libevent_free(struct rpc_loop *loop); /* NULL is fine */

#endif

/*
 * rpc_resolve: a host's addresses, looked up without holding up the loop.
 *
 * getaddrinfo() blocks for as long as the name servers please, so a name is looked up in a thread of its own, which lives
 * for that one question; an address needs none, nor does "localhost".  It is the only thread of the library, and it shares
 * nothing with the loop but its answer.
 */
#ifndef RPCLIB_RESOLVE_H
#define RPCLIB_RESOLVE_H

#include <stdint.h>
#include <sys/socket.h>

#include "rpclib/loop.h"

#define RPC_RESOLVE_ADDRESSES_MAX 8

struct rpc_resolve_address {
    struct sockaddr_storage address;
    socklen_t size;
};

struct rpc_resolve_answer {
    struct rpc_resolve_address addresses[RPC_RESOLVE_ADDRESSES_MAX];
    unsigned count;    /* 0: failed, see `error` */
    const char *error; /* static; for people */
};

struct rpc_resolve;

/* `answer` is lent until the callback returns; the question is over then. */
typedef void rpc_resolve_fn(const struct rpc_resolve_answer *answer, void *arg);

/*
 * Look `host` up; `fn` runs once, from the loop, unless the question is cancelled before.  NULL when out of memory,
 * threads or descriptors.
 */
struct rpc_resolve *rpc_resolve_start(struct rpc_loop *loop, const char *host, uint16_t port, rpc_resolve_fn *fn,
                                      void *arg);
void rpc_resolve_cancel(struct rpc_resolve *resolve); /* NULL is fine; not after `fn` ran */

#endif

/*
 * resolve: a host's addresses, looked up without holding up the loop.
 *
 * getaddrinfo() blocks for as long as the name servers please, so a name is looked up in a thread of its own, which lives
 * for that one question; an address needs none.  It is the only thread of the library, and it shares nothing with the
 * loop but its answer.
 */
#ifndef RPCLIB_SRC_RESOLVE_H
#define RPCLIB_SRC_RESOLVE_H

#include <stdint.h>
#include <sys/socket.h>

#include "rpclib/loop.h"

#define RESOLVE_ADDRESSES_MAX 8

struct resolve_address {
    struct sockaddr_storage address;
    socklen_t size;
};

struct resolve_answer {
    struct resolve_address addresses[RESOLVE_ADDRESSES_MAX];
    unsigned count;    /* 0: failed, see `error` */
    const char *error; /* static; for people */
};

struct resolve;

/* `answer` is lent until the callback returns; the question is over then. */
typedef void resolve_fn(const struct resolve_answer *answer, void *arg);

/*
 * Look `host` up; `fn` runs once, from the loop, unless the question is cancelled before.  NULL when out of memory,
 * threads or descriptors.
 */
struct resolve *resolve_start(struct rpc_loop *loop, const char *host, uint16_t port, resolve_fn *fn, void *arg);
void resolve_cancel(struct resolve *resolve); /* NULL is fine; not after `fn` ran */

#endif

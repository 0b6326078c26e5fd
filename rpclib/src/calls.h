/*
 * calls: the calls of a client that are in flight, found by correlation id, by name, and by deadline.  Pure: no I/O, no
 * clock.
 */
#ifndef RPCLIB_SRC_CALLS_H
#define RPCLIB_SRC_CALLS_H

#include "rpclib/client.h"
#include "uuid.h"

#define CALL_NOT_APPENDED UINT64_MAX

struct callee;
struct callee_batch;

struct call {
    char correlation_id[RPC_UUID_SIZE];
    uint64_t deadline_ms;
    uint64_t position; /* of its first byte in the connection's output; CALL_NOT_APPENDED until the turn ends */
    bool again;        /* sent for the second time: whatever became of the first may have been executed */
    rpc_reply_fn *done;
    void *arg;
    struct callee *callee;       /* the service that is called; NULL: not known as a callee */
    struct callee_batch *shared; /* the batch that it travels in; NULL: it went alone */
    bool is_alone;               /* it went alone, and is one of the callee's messages under way */

    /* for calls.c alone */
    uint32_t generation; /* tells the calls that use this place one after another apart */
    uint32_t heap_index;
    struct call *next; /* in its bucket, or in the list of free places */
};

struct calls;

struct calls *calls_new(uint32_t calls_max); /* NULL when out of memory */
void calls_free(struct calls *calls);        /* NULL is fine */

uint32_t calls_count(const struct calls *calls);

/* A new call with a fresh correlation id; NULL when calls_max are in flight.  Fill in what is behind it. */
struct call *calls_add(struct calls *calls, uint64_t deadline_ms, rpc_reply_fn *done, void *arg);
void calls_remove(struct calls *calls, struct call *call);

/* NULL when there is none. */
struct call *calls_find(const struct calls *calls, struct rpc_bytes correlation_id);
struct call *calls_find_id(const struct calls *calls, rpc_call_id id);
struct call *calls_first(const struct calls *calls); /* the one whose deadline comes first */

rpc_call_id calls_id(const struct calls *calls, const struct call *call);

#endif

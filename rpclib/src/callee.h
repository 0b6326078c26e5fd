/*
 * callee: a service as a client knows it: whether it takes batches, the batch that is gathered for it, and those under
 * way.
 *
 * A service of rpclib says in its answers that it takes batches; until then, and while it is none, calls go alone.  One
 * that does not know a batch (a Nameko instance on the same queue) answers that there is no such method: nothing of it
 * was done, its calls are sent again alone, and no batch goes there for a while.
 *
 * A batch leaves at the end of its turn while few messages are under way; past CALLEE_MESSAGES_MAX it waits until it is
 * full, until one of those is answered, or for CALLEE_HOLD_MS.  A message more would wait in front of a busy broker or
 * service all the same, and there nothing joins it.  Pure: no I/O, no clock.
 */
#ifndef RPCLIB_SRC_CALLEE_H
#define RPCLIB_SRC_CALLEE_H

#include "batch.h"
#include "calls.h"

#define CALLEES_MAX           64    /* services that one client calls; calls to more go alone */
#define CALLEE_BATCH_PAUSE_MS 60000 /* after a refused batch */
#define CALLEE_MESSAGES_MAX   4     /* under way to one that takes batches, before calls wait for one another */
#define CALLEE_HOLD_MS        1     /* how long they do that, at most */

struct callee_batches {
    struct callee_batch *first, *last;
};

struct callee {
    struct callee *next;
    struct callee_batches gathered; /* calls join the last one */
    unsigned messages;              /* under way: with calls in flight that went in batches, or could have */
    bool takes_batches;
    uint64_t not_before_ms;
    char name[RPC_NAME_SIZE_MAX + 1];
};

/* Calls in one message.  Its bytes are kept while one of them is in flight: they may have to go again, alone. */
struct callee_batch {
    struct callee *callee;
    struct callee_batches *list; /* that it is in: gathered, leaving, sent; NULL: none */
    bool is_message;             /* one of the callee's, under way */
    struct callee_batch *previous, *next;
    unsigned open; /* calls in flight, and one more while somebody works on it */
    int timeout_min_ms, timeout_max_ms;
    char correlation_id[RPC_UUID_SIZE];
    rpc_call_id calls[BATCH_MESSAGES_MAX]; /* in the order of its entries */
    struct batch batch;
};

struct callees {
    struct callee *first;
    unsigned count;
    struct callee_batches leaving;
    struct callee_batches sent;
};

/* Known from now on; NULL when out of memory, when the name is too long, or when there are too many. */
struct callee *callees_get(struct callees *callees, const char *name);
/* Nothing is known of anybody any more, as after a lost connection.  All calls must be ended. */
void callees_forget(struct callees *callees);
void callees_clear(struct callees *callees);

/* It answered, and said whether it takes batches. */
void callee_answered(struct callee *callee, bool takes_batches, uint64_t now_ms);
/* It knows no batches, now. */
void callee_refused(struct callee *callee, uint64_t now_ms);

/*
 * Have the call travel in a batch.  The message lives as long as the shortest time limit in it allows, so limits that
 * differ much do not travel together.  False: it goes alone.
 */
bool callee_gather(struct callee *callee, struct call *call, rpc_call_id id, const struct batch_entry *entry,
                   int timeout_ms);

/* The end of the turn: what was gathered leaves, but for what has to wait.  True: something has. */
bool callees_leave(struct callees *callees);
/* It has waited long enough: it leaves too. */
void callees_leave_all(struct callees *callees);
/* Whether something that waits has to no longer. */
bool callee_may_leave(const struct callee *callee);
/* The next batch that leaves: it is held until callee_batch_release().  NULL: there is none. */
struct callee_batch *callees_take(struct callees *callees);
/* It was sent as one message: it can be found by its correlation id while calls of it are in flight. */
void callees_sent(struct callees *callees, struct callee_batch *batch);
struct callee_batch *callees_find_sent(const struct callees *callees, struct rpc_bytes correlation_id);

/* A call of a batch goes alone instead: it holds that no more, and is a message of its own until callee_call_ended(). */
void callee_call_alone(struct call *call);
/* It is in flight no more; forget it as a call afterwards. */
void callee_call_ended(struct call *call);

static inline void callee_batch_hold(struct callee_batch *batch)
{
    batch->open++;
}

/* One call less in flight, or held no more. */
void callee_batch_release(struct callee_batch *batch);

#endif

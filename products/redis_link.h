/*
 * redis_link: one connection to Redis, kept up for as long as the link exists.
 *
 * It looks up the host, connects, logs in, selects the database and asks one harmless question; when the server answers
 * that, the link is up.  When it breaks, it comes back by itself, after a delay that grows from REDIS_RECONNECT_MIN_MS to
 * REDIS_RECONNECT_MAX_MS and is spread at random, until a command is answered or the connection has stayed.  A server that
 * is away is a state, logged as rpc_outage says: when it begins, when its reason changes, now and then, and when it ends.
 *
 * All commands of a turn of the loop leave in one write at its end.  Redis answers in order, so one command that is not
 * answered within the time limit means that none behind it will be: the connection is given up, with all that is on it.
 *
 * A server that refuses a command for what it is (a replica since a failover, one that loads its data) is left: nothing
 * more is sent to it, what was sent is still answered, and then the host is looked up and connected to anew, beginning with
 * another of its addresses.  One that cannot be got away from costs a connection in REDIS_LEAVE_INTERVAL_MS and serves
 * what it still does in between.
 *
 * It belongs to one loop; use it from that loop alone.  The process must ignore SIGPIPE.
 */
#ifndef PRODUCTS_REDIS_LINK_H
#define PRODUCTS_REDIS_LINK_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "redis_uri.h"
#include "rpclib/loop.h"

#define REDIS_RECONNECT_MIN_MS   50
#define REDIS_RECONNECT_MAX_MS   2000
#define REDIS_STAY_MS            2000 /* one that was up for less was not: the outage goes on */
#define REDIS_CONNECT_TIMEOUT_MS 3000 /* a look-up; and from the TCP connect to the answered question */
#define REDIS_LEAVE_INTERVAL_MS  2000 /* between two servers that are left for what they refuse */
#define REDIS_PATIENCE           3    /* times `timeout_ms`, for a command behind others that are answered */
#define REDIS_COMMANDS_MAX       8192 /* in flight */
#define REDIS_OUTPUT_SIZE_MAX    (64u * 1024 * 1024) /* bytes waiting to be written */
#define REDIS_REPLY_SIZE_MAX     (64u * 1024 * 1024) /* bytes of one reply that have come and cannot be read yet */
#define REDIS_REASON_SIZE        160

struct redis_link;
struct redis_command;

/* How a command ended; what matters is whether the server may have done it. */
enum redis_result {
    REDIS_ANSWERED, /* the reply is there, and no error */
    REDIS_REFUSED,  /* the reply is there: the server's error; it did nothing */
    REDIS_OFFLINE,  /* not connected, or not all of it had left when the link broke: nothing was done */
    REDIS_BUSY,     /* REDIS_COMMANDS_MAX, REDIS_OUTPUT_SIZE_MAX or the memory's end is reached: nothing was done */
    REDIS_LOST,     /* it was sent, and the answer never came: it may have been done */
};

/* The end of one command.  `reply` is lent until this returns, and NULL unless REDIS_ANSWERED or REDIS_REFUSED. */
typedef void redis_command_fn(struct redis_command *command, enum redis_result result, const redisReply *reply);

/*
 * One command in flight.  The memory is the caller's, usually part of a larger struct, and must stay until `done` ran;
 * what is in it is the link's meanwhile.
 */
struct redis_command {
    struct redis_link *link;
    struct redis_command *next; /* sent after this one */
    redis_command_fn *done;
    uint64_t sent_ms;
    uint64_t end; /* of its bytes, counted from the connection's first */
};

typedef void redis_link_state_fn(bool up, void *arg);

struct redis_link_options {
    struct rpc_loop *loop;
    const struct redis_uri *uri; /* copied */
    const char *name;            /* who this is, as CLIENT LIST shows it; no spaces; copied */
    /*
     * 1 or more: how long Redis may be silent while a command waits.  A command that has waited REDIS_PATIENCE times as long is
     * lost with its connection, whatever came meanwhile.
     */
    int timeout_ms;
    redis_link_state_fn *on_state; /* `up` changed; the commands that were lost by it end after this; may be NULL */
    void *arg;
};

/* Start connecting.  Never blocks.  NULL when out of memory. */
struct redis_link *redis_link_new(const struct redis_link_options *options);

/* Commands in flight end from inside this call.  Not from inside a callback of the link. */
void redis_link_free(struct redis_link *link); /* NULL is fine */

bool redis_link_is_up(const struct redis_link *link);
/* Since when (time of day) the link is as it is. */
time_t redis_link_since(const struct redis_link *link);
/* Why it is not up, without secrets; lent. */
const char *redis_link_reason(const struct redis_link *link);
size_t redis_link_in_flight(const struct redis_link *link);

/*
 * Send a command of `count` words, which are copied.  REDIS_ANSWERED: on its way, and command->done, set here, will run
 * exactly once, from the loop.  REDIS_OFFLINE or REDIS_BUSY: nothing was sent and `done` never runs.
 */
enum redis_result redis_link_send(struct redis_link *link, struct redis_command *command, int count,
                                  const char *words[], const size_t sizes[], redis_command_fn *done);

#endif

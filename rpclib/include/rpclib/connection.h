/*
 * rpc_connection: one AMQP connection to the broker, kept up for as long as it exists.
 *
 * Clients, services and publishers of one process share it, each on channels of its own.  It connects by itself, and
 * when the link breaks it connects again, with a delay that grows from RPC_RECONNECT_MIN_MS to RPC_RECONNECT_MAX_MS
 * and is spread at random so that a thousand processes do not return at the same moment.  A broker that is away is a
 * state that heals, never an error of the program: it is logged once when it begins and once when it ends.
 *
 * All that a turn of the loop produced (publishes, acknowledgements) leaves in one write at its end.  The output buffer
 * is bounded by output_size_max: past it, publishing fails with RPC_BUSY.  A peer that is silent for two heartbeat
 * intervals is given up; so is one that does not finish the handshake within connect_timeout_ms.
 *
 * It belongs to one loop; use it, and all that is made on it, from that loop alone.
 */
#ifndef RPCLIB_CONNECTION_H
#define RPCLIB_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>

#include "rpclib/loop.h"
#include "rpclib/status.h"

#define RPC_RECONNECT_MIN_MS 50
#define RPC_RECONNECT_MAX_MS 2000
#define RPC_URI_REASON_SIZE  160
#define RPC_MESSAGE_SIZE_MAX (16u * 1024 * 1024) /* bytes of a message's body, in or out */
#define RPC_NAME_SIZE_MAX    100                 /* bytes of a service, method or event name */

struct rpc_connection;

enum rpc_connection_state {
    RPC_CONNECTION_DOWN,    /* connecting, or waiting to */
    RPC_CONNECTION_UP,      /* usable */
    RPC_CONNECTION_BLOCKED, /* up, but the broker takes no messages (memory or disk alarm) */
    RPC_CONNECTION_CLOSED,  /* closed by rpc_connection_close(); it stays so */
};

/* Runs when the state changed, from the loop; from inside no other call of the library. */
typedef void rpc_connection_state_fn(enum rpc_connection_state state, void *arg);

struct rpc_connection_options {
    struct rpc_loop *loop;
    const char *uri;        /* amqp:// or amqps://user:password@host:port/vhost?heartbeat=..&cafile=.. ; copied */
    const char *name;       /* who this is, as the broker's connection list shows it: "orders"; copied */
    size_t output_size_max; /* bytes waiting to be written; 0: 8 MiB */
    int connect_timeout_ms; /* from the TCP connect to the open connection; 0: 5000 */
    int heartbeat_s;        /* 0: what the URI says, or else 10 */
    rpc_connection_state_fn *on_state; /* may be NULL */
    void *arg;
};

/*
 * Check a URI without connecting.  True when it is fine; else `reason` says what is wrong with it, without the password.
 * amqps:// verifies certificate and host name against `cafile` or the system's store; there is no way to switch that off.
 */
bool rpc_uri_check(const char *uri, char reason[RPC_URI_REASON_SIZE]);

/*
 * Start connecting.  Never blocks.  NULL when out of memory or when the URI is refused by rpc_uri_check().
 */
struct rpc_connection *rpc_connection_new(const struct rpc_connection_options *options);

enum rpc_connection_state rpc_connection_state(const struct rpc_connection *connection);

/*
 * Say goodbye: write out what is pending, close the AMQP connection, run `done` once, `timeout_ms` from now at the
 * latest.  `done` may free the connection.
 */
void rpc_connection_close(struct rpc_connection *connection, int timeout_ms, rpc_loop_fn *done, void *arg);

/*
 * Drop the link at once and free the connection.  Free the clients, services and publishers on it first.  Not from
 * inside one of its callbacks, except `done` of rpc_connection_close() and on_state.
 */
void rpc_connection_free(struct rpc_connection *connection); /* NULL is fine */

#endif

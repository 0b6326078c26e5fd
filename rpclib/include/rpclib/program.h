/*
 * rpc_program: the life of a service's process, from its settings to its exit code.  Link rpclib-libevent.
 *
 *     settings -> loop, connection -> start() -> ready ... SIGTERM or SIGINT -> stop() -> connection closed -> free() -> exit 0
 *
 * The main() of a service fills in a description and returns rpc_program_main().  What every service has is done here:
 * the settings AMQP_URI, MAX_WORKERS, DRAIN_TIMEOUT_MS, READY_FILE, METRICS_PORT and METRICS_ADDRESS; SIGPIPE ignored;
 * signals; the file that says "ready"; the small HTTP server for /healthz, /readyz and /metrics.  A broker or a store that
 * is away is no reason to leave: the program waits for it, not ready.
 *
 * The first SIGTERM or SIGINT drains, for DRAIN_TIMEOUT_MS at the most; the same signal again leaves at once.
 */
#ifndef RPCLIB_PROGRAM_H
#define RPCLIB_PROGRAM_H

#include "rpclib/connection.h"
#include "rpclib/loop.h"
#include "rpclib/metrics.h"
#include "rpclib/settings.h"

#define RPC_PROGRAM_WORKERS_MAX     1000
#define RPC_PROGRAM_WORKERS_DEFAULT "100"

struct rpc_program;

/* Every hook gets `state`, which the program owns: `state_size` bytes, zero at first. */
struct rpc_program_description {
    const char *name;    /* "orders": of the program, of its connection, of its log lines */
    const char *summary; /* one line for --help */
    const char *version;
    const struct rpc_setting *table; /* its own settings; those named above are added */
    size_t state_size;

    /*
     * Judge the settings that only the program itself can (a URI): print by rpc_settings_refuse() and return its exit
     * code, or RPC_EXIT_OK.  May be NULL.
     */
    int (*check)(const struct rpc_settings *settings, void *state);
    /* Make what the service consists of.  False when out of memory or descriptors. */
    bool (*start)(struct rpc_program *program, void *state);
    /* Whether it would do its work now; the connection is looked at besides. */
    bool (*is_ready)(void *state);
    /* Drain; run `done` once, `timeout_ms` from now at the latest. */
    void (*stop)(int timeout_ms, rpc_loop_fn *done, void *done_arg, void *state);
    /* Free what start() and check() made, also half of it. */
    void (*free)(void *state);
    /* Add its figures to /metrics.  May be NULL. */
    void (*metrics)(struct rpc_metrics *metrics, void *state);
};

/* Runs the program; returns its exit code: RPC_EXIT_OK, RPC_EXIT_FAILED, RPC_EXIT_USAGE. */
int rpc_program_main(const struct rpc_program_description *description, int argc, char *argv[]);

/* For start(); all lent for the program's life. */
struct rpc_loop *rpc_program_loop(const struct rpc_program *program);
struct rpc_connection *rpc_program_connection(const struct rpc_program *program);
const struct rpc_settings *rpc_program_settings(const struct rpc_program *program);
uint16_t rpc_program_workers(const struct rpc_program *program); /* MAX_WORKERS */

/* Something that is_ready() looks at may have changed: a rpc_loop_fn for the service's on_ready hooks; arg: the program. */
void rpc_program_on_change(void *program);

#endif

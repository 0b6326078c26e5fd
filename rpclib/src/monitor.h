/* monitor: the small HTTP server beside a service: /healthz (it lives), /readyz (it would do its work), /metrics. */
#ifndef RPCLIB_SRC_MONITOR_H
#define RPCLIB_SRC_MONITOR_H

#include <stdbool.h>
#include <stdint.h>

#include "rpclib/metrics.h"

struct event_base;
struct monitor;

struct monitor_options {
    struct event_base *base;
    const char *address; /* "127.0.0.1" */
    uint16_t port;
    bool (*is_ready)(void *arg);
    void (*metrics)(struct rpc_metrics *metrics, void *arg);
    void *arg;
};

/* NULL when the address cannot be listened on (errno says why) or out of memory. */
struct monitor *monitor_new(const struct monitor_options *options);
void monitor_free(struct monitor *monitor); /* NULL is fine */

#endif

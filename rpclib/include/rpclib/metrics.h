/* rpc_metrics: a program's figures as Prometheus reads them (text exposition format 0.0.4). */
#ifndef RPCLIB_METRICS_H
#define RPCLIB_METRICS_H

#include <stdint.h>

struct rpc_metrics; /* one answer to GET /metrics, while it is written */

/* `name` in the format's words ("rpc_requests_total"), `help` one line; both lent until this returns. */
void rpc_metrics_counter(struct rpc_metrics *metrics, const char *name, const char *help, uint64_t value);
void rpc_metrics_gauge(struct rpc_metrics *metrics, const char *name, const char *help, int64_t value);

#endif

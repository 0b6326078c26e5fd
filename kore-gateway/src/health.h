/* health: what an orchestrator asks.  Neither asks a service: a service that is down makes no gateway unhealthy. */
#ifndef KORE_GATEWAY_HEALTH_H
#define KORE_GATEWAY_HEALTH_H

struct flight;
struct rpc_client;

void health_start(const struct rpc_client *client);
/* On its way out: not ready any more. */
void health_stop(void);

void health_alive(struct flight *flight); /* GET /healthz: 200 as long as the worker turns */
void health_ready(struct flight *flight); /* GET /readyz: 200 when a call made now would leave, else 503 */
/* GET /metrics, on METRICS_PORT: what the gateway did, for Prometheus. */
void health_metrics(struct flight *flight);

#endif

/*
 * orders_service: what `orders` answers over RPC.
 *
 * Methods get_order, create_order, update_order, delete_order, list_orders, and recall_order: what create_order would
 * answer to a repeated request, without making anything.  It owns its store, its outbox and its rpc_service.
 */
#ifndef ORDERS_SERVICE_H
#define ORDERS_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "rpclib/connection.h"
#include "rpclib/loop.h"
#include "rpclib/metrics.h"

struct orders_service;

struct orders_service_options {
    struct rpc_loop *loop;
    struct rpc_connection *connection;
    const char *postgres_uri; /* copied */
    unsigned database_connections;
    int store_timeout_ms;
    int64_t key_ttl_s;     /* how long an Idempotency-Key is known */
    uint16_t prefetch;     /* MAX_WORKERS */
    rpc_loop_fn *on_ready; /* orders_service_ready() may have become true; may be NULL */
    void *arg;
};

/* NULL when out of memory. */
struct orders_service *orders_service_new(const struct orders_service_options *options);

/* Whether orders are being taken: queues consumed, events taken by the broker, the database there. */
bool orders_service_ready(const struct orders_service *service);

void orders_service_metrics(const struct orders_service *service, struct rpc_metrics *metrics);

/*
 * Drain: the requests that run, then the events that they made; `done` runs once, `timeout_ms` from now at the latest.
 */
void orders_service_stop(struct orders_service *service, int timeout_ms, rpc_loop_fn *done, void *arg);

/* What is under way is left to the broker to deliver again.  Not from inside a callback. */
void orders_service_free(struct orders_service *service); /* NULL is fine */

#endif

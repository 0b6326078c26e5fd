/*
 * products_service: what `products` answers over RPC, and what it makes of the orders' events.
 *
 * Methods get, exists, list, create, delete; handler of orders/order_created.  It owns its store and its rpc_service.
 */
#ifndef PRODUCTS_SERVICE_H
#define PRODUCTS_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "redis_uri.h"
#include "rpclib/connection.h"
#include "rpclib/loop.h"
#include "rpclib/metrics.h"

struct products_service;

struct products_service_options {
    struct rpc_loop *loop;
    struct rpc_connection *connection;
    const struct redis_uri *redis; /* copied */
    int store_timeout_ms;
    int64_t applied_ttl_s; /* how long an order is remembered */
    uint16_t prefetch;     /* MAX_WORKERS */
    rpc_loop_fn *on_ready; /* products_service_ready() became true; may be NULL */
    void *arg;
};

/* NULL when out of memory. */
struct products_service *products_service_new(const struct products_service_options *options);

/* Whether requests are being answered: all queues consumed, Redis there. */
bool products_service_ready(const struct products_service *service);

/* What it has done and what it has under way. */
void products_service_metrics(const struct products_service *service, struct rpc_metrics *metrics);

/* Drain: as rpc_service_stop().  Events that wait for Redis are handed back to the broker at once. */
void products_service_stop(struct products_service *service, int timeout_ms, rpc_loop_fn *done, void *arg);

/* What is under way is left to the broker to deliver again.  Not from inside a callback of the store. */
void products_service_free(struct products_service *service); /* NULL is fine */

#endif

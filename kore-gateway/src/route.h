/* route: which handler answers which method and path. */
#ifndef KORE_GATEWAY_ROUTE_H
#define KORE_GATEWAY_ROUTE_H

#include "guard.h"

struct flight;

/* Answers the flight, now or later. */
typedef void route_handler(struct flight *flight);

enum route_id {
    ROUTE_NONE, /* no such path or method, or no request at all */
    ROUTE_PRODUCTS_CREATE,
    ROUTE_PRODUCTS_GET,
    ROUTE_PRODUCTS_DELETE,
    ROUTE_ORDERS_CREATE,
    ROUTE_ORDERS_LIST,
    ROUTE_ORDERS_GET,
    ROUTE_HEALTH_ALIVE,
    ROUTE_HEALTH_READY,
    ROUTE_HEALTH_METRICS,
    ROUTES,
};

struct route {
    enum route_id id;
    const char *name; /* as it stands in the call stack of the calls that it makes */
    route_handler *handler;
    bool is_bounded; /* it asks services: no more than REQUESTS_MAX of those at once */
};

/* "none" for ROUTE_NONE. */
const char *route_name(enum route_id id);

/* Which of the gateway's two ports was asked. */
enum route_port {
    ROUTE_PORT_SHOP,
    ROUTE_PORT_METRICS, /* METRICS_PORT: nothing but health and metrics */
};

/*
 * The route of a path, which is taken apart before it is decoded: "%2F" is no slash.  `segment` gets the last segment of
 * a path that has an id.  NULL when there is none; *allow is then what methods the path has, for an Allow header, or NULL
 * when the path is unknown, too.
 */
const struct route *route_find(enum route_port port, enum guard_method method, struct rpc_bytes path,
                               struct rpc_bytes *segment, const char **allow);

#endif

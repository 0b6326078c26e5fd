/* route: which handler answers which method and path. */
#ifndef KORE_GATEWAY_ROUTE_H
#define KORE_GATEWAY_ROUTE_H

#include "guard.h"

struct flight;

/* Answers the flight, now or later. */
typedef void route_handler(struct flight *flight);

struct route {
    const char *name; /* as it stands in the call stack of the calls that it makes */
    route_handler *handler;
};

/*
 * The route of a path, which is taken apart before it is decoded: "%2F" is no slash.  `segment` gets the last segment of
 * a path that has an id.  NULL when there is none; *allow is then what methods the path has, for an Allow header, or NULL
 * when the path is unknown, too.
 */
const struct route *route_find(enum guard_method method, struct rpc_bytes path, struct rpc_bytes *segment,
                               const char **allow);

#endif

#include "route.h"

#include "health.h"
#include "orders.h"
#include "products.h"

struct path {
    const char *text; /* one that ends in a slash has an id behind it */
    const char *allow;
    enum route_id get, post, delete; /* HEAD is answered as GET; ROUTE_NONE: not allowed */
};

static const struct route routes[ROUTES] = {
    [ROUTE_NONE] = {ROUTE_NONE, "none", NULL, false},
    [ROUTE_PRODUCTS_CREATE] = {ROUTE_PRODUCTS_CREATE, "products_create", products_create, true},
    [ROUTE_PRODUCTS_GET] = {ROUTE_PRODUCTS_GET, "products_get", products_get, true},
    [ROUTE_PRODUCTS_DELETE] = {ROUTE_PRODUCTS_DELETE, "products_delete", products_delete, true},
    [ROUTE_ORDERS_CREATE] = {ROUTE_ORDERS_CREATE, "orders_create", orders_create, true},
    [ROUTE_ORDERS_LIST] = {ROUTE_ORDERS_LIST, "orders_list", orders_list, true},
    [ROUTE_ORDERS_GET] = {ROUTE_ORDERS_GET, "orders_get", orders_get, true},
    [ROUTE_HEALTH_ALIVE] = {ROUTE_HEALTH_ALIVE, "health_alive", health_alive, false},
    [ROUTE_HEALTH_READY] = {ROUTE_HEALTH_READY, "health_ready", health_ready, false},
    [ROUTE_HEALTH_METRICS] = {ROUTE_HEALTH_METRICS, "health_metrics", health_metrics, false},
};

/* Each table ends with a path without a text. */
static const struct path shop_paths[] = {
    {"/products/", "DELETE, GET, HEAD", .get = ROUTE_PRODUCTS_GET, .delete = ROUTE_PRODUCTS_DELETE},
    {"/orders/", "GET, HEAD", .get = ROUTE_ORDERS_GET},
    {"/orders", "GET, HEAD, POST", .get = ROUTE_ORDERS_LIST, .post = ROUTE_ORDERS_CREATE},
    {"/products", "POST", .post = ROUTE_PRODUCTS_CREATE},
    {"/healthz", "GET, HEAD", .get = ROUTE_HEALTH_ALIVE},
    {"/readyz", "GET, HEAD", .get = ROUTE_HEALTH_READY},
    {.text = NULL},
};

static const struct path metrics_paths[] = {
    {"/metrics", "GET, HEAD", .get = ROUTE_HEALTH_METRICS},
    {"/healthz", "GET, HEAD", .get = ROUTE_HEALTH_ALIVE},
    {"/readyz", "GET, HEAD", .get = ROUTE_HEALTH_READY},
    {.text = NULL},
};

const char *route_name(enum route_id id)
{
    return routes[id].name;
}

static bool path_matches(const struct path *known, struct rpc_bytes path, struct rpc_bytes *segment)
{
    size_t size = strlen(known->text);
    struct rpc_bytes rest;

    if (path.size < size || memcmp(path.data, known->text, size) != 0)
        return false;
    rest = (struct rpc_bytes){path.data + size, path.size - size};
    if (known->text[size - 1] != '/')
        return rest.size == 0;
    *segment = rest;
    return rest.size > 0 && memchr(rest.data, '/', rest.size) == NULL;
}

static enum route_id path_route(const struct path *path, enum guard_method method)
{
    switch (method) {
    case GUARD_GET:
    case GUARD_HEAD:
        return path->get;
    case GUARD_POST:
        return path->post;
    case GUARD_DELETE:
        return path->delete;
    case GUARD_PUT:
    case GUARD_PATCH:
    case GUARD_OTHER:
        break;
    }
    return ROUTE_NONE;
}

const struct route *route_find(enum route_port port, enum guard_method method, struct rpc_bytes path,
                               struct rpc_bytes *segment, const char **allow)
{
    const struct path *known = port == ROUTE_PORT_METRICS ? metrics_paths : shop_paths;
    enum route_id id;

    while (known->text != NULL && !path_matches(known, path, segment))
        known++;
    if (known->text == NULL)
        return NULL;
    id = path_route(known, method);
    if (id == ROUTE_NONE)
        *allow = known->allow;
    return id == ROUTE_NONE ? NULL : &routes[id];
}

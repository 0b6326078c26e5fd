#include "route.h"

#include "health.h"
#include "orders.h"
#include "products.h"

struct path {
    const char *text; /* one that ends in a slash has an id behind it */
    const char *allow;
    const struct route *get, *post, *delete; /* HEAD is answered as GET */
};

static const struct route products_create_route = {"products_create", products_create};
static const struct route products_get_route = {"products_get", products_get};
static const struct route products_delete_route = {"products_delete", products_delete};
static const struct route orders_create_route = {"orders_create", orders_create};
static const struct route orders_list_route = {"orders_list", orders_list};
static const struct route orders_get_route = {"orders_get", orders_get};
static const struct route health_alive_route = {"health_alive", health_alive};
static const struct route health_ready_route = {"health_ready", health_ready};

static const struct path paths[] = {
    {"/products/", "DELETE, GET, HEAD", .get = &products_get_route, .delete = &products_delete_route},
    {"/orders/", "GET, HEAD", .get = &orders_get_route},
    {"/orders", "GET, HEAD, POST", .get = &orders_list_route, .post = &orders_create_route},
    {"/products", "POST", .post = &products_create_route},
    {"/healthz", "GET, HEAD", .get = &health_alive_route},
    {"/readyz", "GET, HEAD", .get = &health_ready_route},
};

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

static const struct route *path_route(const struct path *path, enum guard_method method)
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
        return NULL;
    }
    return NULL;
}

const struct route *route_find(enum guard_method method, struct rpc_bytes path, struct rpc_bytes *segment,
                               const char **allow)
{
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        const struct route *route;

        if (!path_matches(&paths[i], path, segment))
            continue;
        route = path_route(&paths[i], method);
        if (route == NULL)
            *allow = paths[i].allow;
        return route;
    }
    return NULL;
}

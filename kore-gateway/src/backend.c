#include "backend.h"

#include <assert.h>
#include <rpclib/log.h>
#include <string.h>

#define REFUSALS_QUIET_MS 10000 /* without refusals, and the next one is told of again */

struct backend {
    const char *name;
    struct limit limit;
    uint64_t refused_ms; /* the last time that a call was */
};

static struct backend backends[] = {{.name = "orders"}, {.name = "products"}};

#define BACKENDS (sizeof(backends) / sizeof(backends[0]))

void backends_start(uint32_t wait_ms, uint64_t now_ms)
{
    for (size_t i = 0; i < BACKENDS; i++)
        limit_init(&backends[i].limit, wait_ms, now_ms);
}

struct backend *backend_of(const char *name)
{
    size_t i = 0;

    while (strcmp(backends[i].name, name) != 0) {
        i++;
        assert(i < BACKENDS);
    }
    return &backends[i];
}

bool backend_refusals_begin(uint64_t *refused_ms, uint64_t now_ms)
{
    bool begin = *refused_ms == 0 || now_ms - *refused_ms > REFUSALS_QUIET_MS;

    *refused_ms = now_ms;
    return begin;
}

static void refusal_log(struct backend *backend, uint64_t now_ms)
{
    if (backend_refusals_begin(&backend->refused_ms, now_ms))
        rpc_log(RPC_LOG_WARNING, "a service is slow and has enough to do; refusing calls",
                RPC_LOG_TEXT("service", backend->name), RPC_LOG_INT("under_way", backend->limit.under_way));
}

bool backend_has_room(struct backend *backend, uint64_t now_ms)
{
    bool has_room = limit_has_room(&backend->limit, now_ms);

    if (!has_room)
        refusal_log(backend, now_ms);
    return has_room;
}

bool backend_enter(struct backend *backend, uint64_t now_ms)
{
    bool entered = limit_enter(&backend->limit, now_ms);

    if (!entered)
        refusal_log(backend, now_ms);
    return entered;
}

void backend_leave(struct backend *backend, enum limit_end end, uint64_t now_ms, uint64_t began_ms)
{
    limit_leave(&backend->limit, end, now_ms, began_ms);
}

#include "turns.h"

#include <event2/event.h>
#include <stdlib.h>

#include "rpclib/loop_libevent.h"

#define TICK_MS 5 /* how often a condition that nothing in the loop tells of is looked at */

struct turns {
    struct event_base *base;
    struct rpc_loop *loop;
    struct event *tick;
};

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

struct turns *turns_new(void)
{
    struct timeval interval = {.tv_usec = TICK_MS * 1000};
    struct turns *turns = calloc(1, sizeof(*turns));

    turns->base = event_base_new();
    turns->loop = rpc_loop_libevent_new(turns->base);
    turns->tick = event_new(turns->base, -1, EV_PERSIST, on_tick, NULL);
    event_add(turns->tick, &interval);
    return turns;
}

void turns_free(struct turns *turns)
{
    event_free(turns->tick);
    rpc_loop_libevent_free(turns->loop);
    event_base_free(turns->base);
    free(turns);
}

struct rpc_loop *turns_loop(struct turns *turns)
{
    return turns->loop;
}

bool turns_until(struct turns *turns, turns_condition_fn *condition, void *arg)
{
    uint64_t deadline_ms = rpc_loop_now_ms(turns->loop) + TURNS_DEADLINE_MS;

    while (!condition(arg)) {
        if (rpc_loop_now_ms(turns->loop) >= deadline_ms)
            return false;
        event_base_loop(turns->base, EVLOOP_ONCE);
    }
    return true;
}

void turns_once(struct turns *turns)
{
    event_base_loop(turns->base, EVLOOP_NONBLOCK);
}

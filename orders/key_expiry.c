#include "key_expiry.h"

#include <stdlib.h>

#include "rpclib/timer.h"

struct key_expiry {
    struct order_store_unit unit; /* first */
    struct rpc_loop *loop;
    struct order_store *store;
    int store_timeout_ms;
    struct rpc_timer *timer;
    bool forgets_keys; /* of the two kinds, the one under way */
};

static void expiry_on_forgotten(struct order_store_unit *unit, enum order_store_status status);

static void expiry_forget(struct key_expiry *expiry)
{
    uint64_t deadline_ms = rpc_loop_now_ms(expiry->loop) + (uint64_t)expiry->store_timeout_ms;
    enum order_store_status status;

    memset(&expiry->unit, 0, sizeof(expiry->unit));
    status = expiry->forgets_keys
                 ? order_store_forget_keys(expiry->store, &expiry->unit, deadline_ms, expiry_on_forgotten)
                 : order_store_forget_requests(expiry->store, &expiry->unit, deadline_ms, expiry_on_forgotten);
    if (status != ORDER_STORE_OK)
        rpc_timer_done(expiry->timer); /* the next tick goes on */
}

/* As long as there are more: the same again, between other people's statements; then the other kind. */
static void expiry_on_forgotten(struct order_store_unit *unit, enum order_store_status status)
{
    struct key_expiry *expiry = (struct key_expiry *)unit;

    if (status == ORDER_STORE_OK && unit->count < ORDER_STORE_FORGET_MAX && !expiry->forgets_keys)
        expiry->forgets_keys = true;
    else if (status != ORDER_STORE_OK || unit->count < ORDER_STORE_FORGET_MAX) {
        rpc_timer_done(expiry->timer);
        return;
    }
    expiry_forget(expiry);
}

static void expiry_on_tick(struct rpc_timer *timer, void *arg)
{
    struct key_expiry *expiry = arg;

    (void)timer;
    expiry->forgets_keys = false;
    expiry_forget(expiry);
}

struct key_expiry *key_expiry_new(struct rpc_loop *loop, struct order_store *store, int store_timeout_ms)
{
    struct key_expiry *expiry = calloc(1, sizeof(*expiry));

    if (expiry == NULL)
        return NULL;
    expiry->loop = loop;
    expiry->store = store;
    expiry->store_timeout_ms = store_timeout_ms;
    expiry->timer = rpc_timer_new(&(struct rpc_timer_options){
        .loop = loop, .interval_ms = KEY_EXPIRY_INTERVAL_MS, .handler = expiry_on_tick, .arg = expiry});
    if (expiry->timer == NULL) {
        free(expiry);
        return NULL;
    }
    return expiry;
}

void key_expiry_free(struct key_expiry *expiry)
{
    if (expiry == NULL)
        return;
    rpc_timer_free(expiry->timer);
    free(expiry);
}

#include "stage.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "rpclib/json.h"
#include "rpclib/loop_libevent.h"

#define CLAIM_MS  300
#define KEY_TTL_S 3600
#define TURN_MS   10

static void fail(const char *what)
{
    fprintf(stderr, "failed: %s\n", what);
    abort();
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void stage_open(struct stage *stage, const char *uri, unsigned connections)
{
    *stage = (struct stage){.base = event_base_new(), .connections = connections};
    stage->loop = rpc_loop_libevent_new(stage->base);
    stage->store = order_store_new(&(struct order_store_options){.loop = stage->loop,
                                                                 .uri = uri,
                                                                 .connections = connections,
                                                                 .timeout_ms = STAGE_TIMEOUT_MS,
                                                                 .key_ttl_s = KEY_TTL_S,
                                                                 .claim_ms = CLAIM_MS});
    if (stage->store == NULL)
        fail("no store");
    order_store_claim_new_events(stage->store, true);
}

void stage_close(struct stage *stage)
{
    order_store_free(stage->store);
    rpc_loop_libevent_free(stage->loop);
    event_base_free(stage->base);
}

void stage_turn(struct stage *stage)
{
    event_base_loopexit(stage->base, &(struct timeval){.tv_usec = TURN_MS * 1000});
    event_base_loop(stage->base, EVLOOP_ONCE);
}

void stage_wait(struct stage *stage, bool (*condition)(void *arg), void *arg, const char *what)
{
    uint64_t limit_us = now_us() + STAGE_WAIT_MS * UINT64_C(1000);

    while (!condition(arg)) {
        if (now_us() > limit_us)
            fail(what);
        stage_turn(stage);
    }
}

static bool is_up(void *arg)
{
    return order_store_is_up(arg);
}

void stage_wait_up(struct stage *stage)
{
    stage_wait(stage, is_up, stage->store, "the database is up");
}

static bool all_are_up(void *arg)
{
    struct stage *stage = arg;

    return order_store_connections(stage->store) == stage->connections;
}

void stage_wait_all_up(struct stage *stage)
{
    stage_wait(stage, all_are_up, stage, "all connections are up");
}

uint64_t stage_deadline(const struct stage *stage, uint64_t ms)
{
    return rpc_loop_now_ms(stage->loop) + ms;
}

struct act *act_new(struct stage *stage)
{
    struct act *act = calloc(1, sizeof(*act));

    if (act == NULL)
        fail("memory");
    act->stage = stage;
    act->start_us = now_us();
    return act;
}

void act_free(struct act *act)
{
    order_clear(&act->order);
    free(act->text);
    free(act);
}

static void act_on_end(struct order_store_unit *unit, enum order_store_status status)
{
    struct act *act = (struct act *)unit;
    struct rpc_text text = {.data = NULL};
    size_t index;

    act->end_us = now_us();
    act->done = true;
    act->status = status;
    act->event_id = unit->event_id;
    act->count = unit->orders_count + unit->events_count + (size_t)unit->count;
    for (index = 0; index < unit->orders_count; index++)
        order_print(&text, &unit->orders[index]);
    for (index = 0; index < unit->events_count; index++) {
        act->ids[index] = unit->events[index].id;
        rpc_text_append(&text, unit->events[index].payload);
    }
    if (unit->order != NULL && unit->orders_count == 0)
        order_print(&text, unit->order);
    rpc_text_append(&text, (struct rpc_bytes){.data = "", .size = 1});
    act->text = text.data;
    if (act->on_end != NULL)
        act->on_end(act);
}

static struct act *act_started(struct act *act, enum order_store_status status)
{
    if (status != ORDER_STORE_OK) {
        act->done = true;
        act->status = status;
    }
    return act;
}

static bool is_done(void *arg)
{
    return ((struct act *)arg)->done;
}

enum order_store_status act_wait(struct act *act)
{
    stage_wait(act->stage, is_done, act, "an operation ends");
    return act->status;
}

static void read_order(struct order *out, const char *text, bool is_change)
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *value = rpc_json_load(rpc_bytes_of(text), reason), *errors;

    if ((is_change ? order_read_change(out, value, &errors) : order_read_new(out, value, &errors)) != ORDER_OK)
        fail(text);
    json_decref(value);
}

static struct order_creation creation_of(struct act *act, const char *lines, const char *request_id, const char *key)
{
    read_order(&act->order, lines, false);
    snprintf(act->key, sizeof(act->key), "%s", key == NULL ? "" : key);
    snprintf(act->request_id, sizeof(act->request_id), "%s", request_id == NULL ? "" : request_id);
    return (struct order_creation){
        .order = &act->order,
        .request_id = rpc_bytes_of(act->request_id),
        .idempotency_key = key == NULL ? (struct rpc_bytes){.data = NULL} : rpc_bytes_of(act->key),
        .headers = RPC_BYTES("{\"user_id\":7}"),
    };
}

struct act *act_create(struct stage *stage, const char *lines, const char *request_id, const char *key)
{
    struct act *act = act_new(stage);
    struct order_creation creation = creation_of(act, lines, request_id, key);

    return act_started(act, order_store_create(stage->store, &act->unit, &creation,
                                               stage_deadline(stage, STAGE_TIMEOUT_MS), act_on_end));
}

struct act *act_recall(struct stage *stage, const char *lines, const char *key)
{
    struct act *act = act_new(stage);
    struct order_creation creation = creation_of(act, lines, NULL, key);

    return act_started(act, order_store_recall(stage->store, &act->unit, &creation,
                                               stage_deadline(stage, STAGE_TIMEOUT_MS), act_on_end));
}

struct act *act_get(struct stage *stage, int32_t id)
{
    struct act *act = act_new(stage);

    return act_started(
        act, order_store_get(stage->store, &act->unit, id, stage_deadline(stage, STAGE_TIMEOUT_MS), act_on_end));
}

struct act *act_update_as(struct stage *stage, const char *request_id, const char *change)
{
    struct act *act = act_new(stage);

    read_order(&act->order, change, true);
    return act_started(act, order_store_update(stage->store, &act->unit, &act->order, rpc_bytes_of(request_id),
                                               stage_deadline(stage, STAGE_TIMEOUT_MS), act_on_end));
}

struct act *act_update(struct stage *stage, const char *change)
{
    return act_update_as(stage, "", change);
}

struct act *act_delete_as(struct stage *stage, const char *request_id, int32_t id)
{
    struct act *act = act_new(stage);

    return act_started(act, order_store_delete(stage->store, &act->unit, id, rpc_bytes_of(request_id),
                                               stage_deadline(stage, STAGE_TIMEOUT_MS), act_on_end));
}

struct act *act_delete(struct stage *stage, int32_t id)
{
    return act_delete_as(stage, "", id);
}

struct act *act_list(struct stage *stage, int32_t after, int32_t limit)
{
    struct act *act = act_new(stage);
    struct order_page page = {.after = after, .limit = limit};

    return act_started(
        act, order_store_list(stage->store, &act->unit, page, stage_deadline(stage, STAGE_TIMEOUT_MS), act_on_end));
}

struct act *act_claim(struct stage *stage)
{
    struct act *act = act_new(stage);

    return act_started(act, order_store_claim_events(stage->store, &act->unit, ORDER_STORE_EVENTS_MAX,
                                                     stage_deadline(stage, STAGE_TIMEOUT_MS), act_on_end));
}

struct act *act_delete_events(struct stage *stage, const int64_t *ids, size_t count)
{
    struct act *act = act_new(stage);

    return act_started(act, order_store_delete_events(stage->store, &act->unit, ids, count,
                                                      stage_deadline(stage, STAGE_TIMEOUT_MS), act_on_end));
}

#include "outbox.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "rpclib/backoff.h"
#include "rpclib/json.h"
#include "rpclib/log.h"
#include "rpclib/publisher.h"

#define SOURCE           "orders"
#define EVENT_TYPE_SIZE  101 /* RPC_NAME_SIZE_MAX and its NUL */
#define HOLD_MIN_MS      100
#define FLUSH_AT         200 /* ids that are enough for a statement */
#define LOOK_AGAIN_BELOW (OUTBOX_EVENTS_MAX / 2)

/* An event at the broker. */
struct published {
    struct outbox *outbox;
    int64_t id;
    struct published *next_free;
};

/* Ids that wait to be named in a statement, and those that are being named. */
struct ids {
    struct order_store_unit unit; /* first */
    struct outbox *outbox;
    int64_t waiting[OUTBOX_EVENTS_MAX];
    size_t waiting_count;
    int64_t sent[ORDER_STORE_IDS_MAX];
    size_t sent_count; /* 0: no statement is under way */
    enum order_store_status (*start)(struct order_store *, struct order_store_unit *, const int64_t *, size_t, uint64_t,
                                     order_store_fn *);
};

struct outbox {
    struct outbox_options options;
    struct rpc_publisher *publisher;
    struct published published[OUTBOX_EVENTS_MAX];
    struct published *published_free;
    size_t in_hand; /* published, or waiting in one of the lists */
    struct ids confirmed, released;
    struct order_store_unit look; /* the claim under way */
    bool is_looking;
    bool has_more;          /* the last look found as many as it may take */
    bool is_held;           /* no queue is bound to the events: one at a time, more and more slowly */
    unsigned hold_attempts; /* made since then */
    bool is_stopping, is_flushing;
    struct rpc_loop_timer *poll, *flush, *limit;
    rpc_loop_fn *stopped;
    void *stopped_arg;
    uint64_t confirmed_total, repeated_total, unconfirmed_total;
};

static void outbox_flush(void *arg);

/* ---- Ids on their way to a statement ----------------------------------------------------------------------------- */

static uint64_t outbox_deadline(const struct outbox *outbox)
{
    return rpc_loop_now_ms(outbox->options.loop) + (uint64_t)outbox->options.store_timeout_ms;
}

static bool outbox_is_empty(const struct outbox *outbox)
{
    return outbox->in_hand == 0 && !outbox->is_looking;
}

static void outbox_tell_stopped(struct outbox *outbox)
{
    rpc_loop_fn *stopped = outbox->stopped;

    outbox->stopped = NULL;
    rpc_loop_timer_stop(outbox->limit);
    if (stopped != NULL)
        stopped(outbox->stopped_arg);
}

static void outbox_arm_flush(struct outbox *outbox, uint64_t delay_ms)
{
    if (outbox->is_flushing && delay_ms > 0)
        return;
    outbox->is_flushing = true;
    rpc_loop_timer_start(outbox->flush, delay_ms);
}

static void ids_add(struct ids *ids, int64_t id)
{
    assert(ids->waiting_count < OUTBOX_EVENTS_MAX); /* no more than are in hand */
    ids->waiting[ids->waiting_count++] = id;
    outbox_arm_flush(ids->outbox, ids->waiting_count >= FLUSH_AT || ids->outbox->is_stopping ? 0 : OUTBOX_FLUSH_MS);
}

/* Deleted or released; or, if that failed, the claim will run out. */
static void ids_on_end(struct order_store_unit *unit, enum order_store_status status)
{
    struct ids *ids = (struct ids *)unit;
    struct outbox *outbox = ids->outbox;
    bool is_kept = status != ORDER_STORE_OK && ids == &outbox->confirmed && !outbox->is_stopping;

    if (is_kept) { /* confirmed: they need not be published again */
        memcpy(ids->waiting + ids->waiting_count, ids->sent, ids->sent_count * sizeof(ids->sent[0]));
        ids->waiting_count += ids->sent_count;
    } else {
        outbox->in_hand -= ids->sent_count;
    }
    ids->sent_count = 0;
    if (ids->waiting_count > 0)
        outbox_arm_flush(outbox, is_kept ? OUTBOX_POLL_MS : ids->waiting_count >= FLUSH_AT ? 0 : OUTBOX_FLUSH_MS);
    if (outbox->has_more && outbox->in_hand < LOOK_AGAIN_BELOW)
        outbox_look(outbox);
    if (outbox->is_stopping && outbox_is_empty(outbox))
        outbox_tell_stopped(outbox);
}

static void ids_send(struct ids *ids)
{
    struct outbox *outbox = ids->outbox;
    size_t count = ids->waiting_count < ORDER_STORE_IDS_MAX ? ids->waiting_count : ORDER_STORE_IDS_MAX;
    enum order_store_status status;

    if (count == 0 || ids->sent_count > 0)
        return;
    memcpy(ids->sent, ids->waiting, count * sizeof(ids->sent[0]));
    memmove(ids->waiting, ids->waiting + count, (ids->waiting_count - count) * sizeof(ids->waiting[0]));
    ids->waiting_count -= count;
    ids->sent_count = count;
    memset(&ids->unit, 0, sizeof(ids->unit));
    status = ids->start(outbox->options.store, &ids->unit, ids->sent, count, outbox_deadline(outbox), ids_on_end);
    if (status != ORDER_STORE_OK)
        ids_on_end(&ids->unit, status);
}

static void outbox_flush(void *arg)
{
    struct outbox *outbox = arg;

    outbox->is_flushing = false;
    ids_send(&outbox->confirmed);
    ids_send(&outbox->released);
}

/* ---- Publishing -------------------------------------------------------------------------------------------------- */

/* New events are for us to publish as long as we can. */
static void outbox_update_claim(struct outbox *outbox)
{
    order_store_claim_new_events(outbox->options.store,
                                 rpc_publisher_ready(outbox->publisher) && !outbox->is_held && !outbox->is_stopping);
}

/* Until one event more is tried. */
static void outbox_wait_held(struct outbox *outbox)
{
    rpc_loop_timer_start(outbox->poll, rpc_backoff_ms(outbox->hold_attempts++, HOLD_MIN_MS, OUTBOX_HOLD_MAX_MS));
}

static void outbox_hold(struct outbox *outbox)
{
    if (outbox->is_held)
        return;
    rpc_log(RPC_LOG_WARNING, "events wait: no queue is bound to them", RPC_LOG_TEXT("exchange", SOURCE ".events"));
    outbox->is_held = true;
    outbox->hold_attempts = 0;
    outbox_update_claim(outbox);
    outbox_wait_held(outbox);
}

static void outbox_let_go(struct outbox *outbox)
{
    if (!outbox->is_held)
        return;
    rpc_log(RPC_LOG_INFO, "events are taken again", RPC_LOG_TEXT("exchange", SOURCE ".events"));
    outbox->is_held = false;
    outbox_update_claim(outbox);
    outbox_look(outbox);
}

static void event_on_confirm(enum rpc_status status, void *arg)
{
    struct published *event = arg;
    struct outbox *outbox = event->outbox;
    int64_t id = event->id;

    event->next_free = outbox->published_free;
    outbox->published_free = event;
    if (status == RPC_OK) {
        outbox->confirmed_total++;
        ids_add(&outbox->confirmed, id);
        outbox_let_go(outbox);
        return;
    }
    outbox->unconfirmed_total++;
    ids_add(&outbox->released, id);
    if (status == RPC_UNKNOWN_SERVICE && !outbox->is_stopping)
        outbox_hold(outbox);
}

/* False when it must wait in the table. */
static bool outbox_publish(struct outbox *outbox, int64_t id, const char *type, struct rpc_bytes payload,
                           const struct rpc_context *context)
{
    struct published *event = outbox->published_free;
    enum rpc_status status;

    if (event == NULL || outbox->in_hand >= OUTBOX_EVENTS_MAX)
        return false;
    event->outbox = outbox;
    event->id = id;
    status = rpc_publish(outbox->publisher, type, payload, context, event_on_confirm, event);
    if (status != RPC_OK) {
        rpc_log(RPC_LOG_DEBUG, "an event waits", RPC_LOG_INT("event_id", id),
                RPC_LOG_TEXT("status", rpc_status_name(status)));
        return false;
    }
    outbox->published_free = event->next_free;
    outbox->in_hand++;
    return true;
}

static void outbox_release(struct outbox *outbox, int64_t id)
{
    if (outbox->in_hand >= OUTBOX_EVENTS_MAX)
        return; /* the claim will run out */
    outbox->in_hand++;
    ids_add(&outbox->released, id);
}

void outbox_offer(struct outbox *outbox, int64_t id, const char *type, struct rpc_bytes payload,
                  const struct rpc_context *context)
{
    if (outbox_publish(outbox, id, type, payload, context))
        return;
    outbox_update_claim(outbox);
    outbox_release(outbox, id);
}

/* ---- What others left -------------------------------------------------------------------------------------------- */

static void outbox_publish_found(struct outbox *outbox, const struct order_event *event)
{
    char type[EVENT_TYPE_SIZE];
    struct rpc_context *context = NULL;

    snprintf(type, sizeof(type), "%.*s", (int)event->type.size, event->type.data);
    if (event->headers.data != NULL)
        context = rpc_context_from_json(event->headers);
    if (context == NULL && event->headers.data != NULL && rpc_json_members(event->headers, 0, NULL, NULL)) {
        outbox_release(outbox, event->id); /* they are sound, so it was memory: at the next look, then */
        return;
    }
    if (outbox_publish(outbox, event->id, type, event->payload, context))
        outbox->repeated_total++;
    else
        outbox_release(outbox, event->id);
    rpc_context_free(context);
}

static void look_on_events(struct order_store_unit *unit, enum order_store_status status)
{
    struct outbox *outbox = (struct outbox *)((char *)unit - offsetof(struct outbox, look));
    size_t index;

    outbox->is_looking = false;
    outbox->has_more = status == ORDER_STORE_OK && unit->events_count == (size_t)unit->limit && !outbox->is_held;
    for (index = 0; status == ORDER_STORE_OK && index < unit->events_count; index++)
        outbox_publish_found(outbox, &unit->events[index]);
    if (outbox->is_stopping) {
        if (outbox_is_empty(outbox))
            outbox_tell_stopped(outbox);
    } else if (outbox->is_held) {
        outbox_wait_held(outbox);
    } else {
        rpc_loop_timer_start(outbox->poll, OUTBOX_POLL_MS);
    }
}

void outbox_look(struct outbox *outbox)
{
    if (outbox->is_looking || outbox->is_stopping)
        return;
    outbox_update_claim(outbox);
    rpc_loop_timer_start(outbox->poll, OUTBOX_POLL_MS);
    if (!rpc_publisher_ready(outbox->publisher) || outbox->in_hand >= LOOK_AGAIN_BELOW)
        return;
    outbox->is_looking = true;
    outbox->has_more = false;
    memset(&outbox->look, 0, sizeof(outbox->look));
    if (order_store_claim_events(outbox->options.store, &outbox->look, outbox->is_held ? 1 : ORDER_STORE_EVENTS_MAX,
                                 outbox_deadline(outbox), look_on_events) != ORDER_STORE_OK)
        outbox->is_looking = false;
}

static void outbox_on_poll(void *arg)
{
    outbox_look(arg);
}

/* ---- For its owner ----------------------------------------------------------------------------------------------- */

static void outbox_on_publisher_ready(void *arg)
{
    struct outbox *outbox = arg;

    outbox_update_claim(outbox);
    outbox_look(outbox);
    if (outbox->options.on_ready != NULL)
        outbox->options.on_ready(outbox->options.arg);
}

static void outbox_on_limit(void *arg)
{
    outbox_tell_stopped(arg);
}

struct outbox *outbox_new(const struct outbox_options *options)
{
    struct outbox *outbox = calloc(1, sizeof(*outbox));
    size_t index;

    if (outbox == NULL)
        return NULL;
    outbox->options = *options;
    outbox->confirmed.outbox = outbox->released.outbox = outbox;
    outbox->confirmed.start = order_store_delete_events;
    outbox->released.start = order_store_release_events;
    for (index = 0; index < OUTBOX_EVENTS_MAX; index++) {
        outbox->published[index].next_free = outbox->published_free;
        outbox->published_free = &outbox->published[index];
    }
    outbox->poll = rpc_loop_timer_new(options->loop, outbox_on_poll, outbox);
    outbox->flush = rpc_loop_timer_new(options->loop, outbox_flush, outbox);
    outbox->limit = rpc_loop_timer_new(options->loop, outbox_on_limit, outbox);
    outbox->publisher = rpc_publisher_new(options->connection, &(struct rpc_publisher_options){
                                                                   .source = SOURCE,
                                                                   .unconfirmed_max = OUTBOX_EVENTS_MAX,
                                                                   .mandatory = true,
                                                                   .confirm_timeout_ms = OUTBOX_CONFIRM_TIMEOUT_MS,
                                                                   .on_ready = outbox_on_publisher_ready,
                                                                   .arg = outbox,
                                                               });
    if (outbox->poll == NULL || outbox->flush == NULL || outbox->limit == NULL || outbox->publisher == NULL) {
        outbox_free(outbox);
        return NULL;
    }
    rpc_loop_timer_start(outbox->poll, OUTBOX_POLL_MS);
    return outbox;
}

void outbox_free(struct outbox *outbox)
{
    if (outbox == NULL)
        return;
    rpc_publisher_free(outbox->publisher); /* first: its events end here and set timers */
    rpc_loop_timer_free(outbox->poll);
    rpc_loop_timer_free(outbox->flush);
    rpc_loop_timer_free(outbox->limit);
    free(outbox);
}

bool outbox_is_ready(const struct outbox *outbox)
{
    return rpc_publisher_ready(outbox->publisher);
}

void outbox_stop(struct outbox *outbox, int timeout_ms, rpc_loop_fn *done, void *arg)
{
    outbox->is_stopping = true;
    outbox->stopped = done;
    outbox->stopped_arg = arg;
    rpc_loop_timer_stop(outbox->poll);
    outbox_update_claim(outbox);
    outbox_arm_flush(outbox, 0);
    rpc_loop_timer_start(outbox->limit, outbox_is_empty(outbox) ? 0 : (uint64_t)(timeout_ms > 0 ? timeout_ms : 0));
}

void outbox_metrics(const struct outbox *outbox, struct rpc_metrics *metrics)
{
    rpc_metrics_counter(metrics, "orders_events_confirmed_total", "Events that the broker has",
                        outbox->confirmed_total);
    rpc_metrics_counter(metrics, "orders_events_repeated_total", "Events taken over from the outbox's table",
                        outbox->repeated_total);
    rpc_metrics_counter(metrics, "orders_events_unconfirmed_total", "Publishings that the broker did not confirm",
                        outbox->unconfirmed_total);
    rpc_metrics_gauge(metrics, "orders_events_in_hand", "Events published and not yet deleted from the outbox",
                      (int64_t)outbox->in_hand);
    rpc_metrics_gauge(metrics, "orders_events_held", "Whether events wait because no queue is bound to them",
                      outbox->is_held);
}

#include "consumer.h"

#include <stdlib.h>

#include "rpclib/log.h"

#define CONSUMER_TAG      "requests"
#define SINGLE_ACKS_SHARE 8 /* done behind a slow delivery: acknowledged once they fill 1/8 of the prefetch window */

/* --- lists --- */

static void list_append(struct taken_list *list, struct taken *taken)
{
    taken->previous = list->last;
    taken->next = NULL;
    if (list->last != NULL)
        list->last->next = taken;
    else
        list->first = taken;
    list->last = taken;
}

static void list_remove(struct taken_list *list, struct taken *taken)
{
    if (taken->previous != NULL)
        taken->previous->next = taken->next;
    else
        list->first = taken->next;
    if (taken->next != NULL)
        taken->next->previous = taken->previous;
    else
        list->last = taken->previous;
}

/* The first one, taken out of the list; there must be one. */
static struct taken *list_take(struct taken_list *list)
{
    struct taken *taken = list->first;

    list->first = taken->next;
    if (list->first != NULL)
        list->first->previous = NULL;
    else
        list->last = NULL;
    return taken;
}

static bool consumer_wants(const struct consumer *consumer)
{
    return !consumer->stopping && consumer->duty == CONSUMER_ON_DUTY;
}

/* --- questions to the broker; each has a limit --- */

static void consumer_ask(struct consumer *consumer, struct mq_channel *channel)
{
    mq_consume(channel, consumer->queue, CONSUMER_TAG, false);
    consumer->asked = true;
    session_await_answers(&consumer->session);
}

static void consumer_cancel(struct consumer *consumer, struct mq_channel *channel)
{
    mq_cancel(channel, CONSUMER_TAG);
    consumer->asked = consumer->consuming = false;
    session_await_answers(&consumer->session);
}

static void consumer_inspect(struct consumer *consumer, struct mq_channel *channel)
{
    mq_queue_inspect(channel, consumer->queue);
    session_await_answers(&consumer->session);
}

/* --- acknowledging --- */

/* One that is in no list any more. */
static void consumer_drop(struct consumer *consumer, struct taken *taken)
{
    if (taken->done)
        consumer->done--;
    else
        consumer->running--;
    free(taken);
}

static void consumer_forget(struct consumer *consumer, struct taken *taken)
{
    list_remove(taken->stale ? &consumer->stale : &consumer->current, taken);
    consumer_drop(consumer, taken);
}

/* Everything done that has nothing unfinished before it: one method for all. */
static void ack_front(struct consumer *consumer, struct mq_channel *channel)
{
    uint64_t tag = 0;
    unsigned count = 0;

    while (consumer->current.first != NULL && consumer->current.first->done) {
        tag = consumer->current.first->tag;
        consumer_drop(consumer, list_take(&consumer->current));
        count++;
    }
    if (count > 0)
        mq_ack(channel, tag, count > 1);
}

static void ack_behind(struct consumer *consumer, struct mq_channel *channel)
{
    struct taken *taken = consumer->current.first;

    while (taken != NULL && consumer->done > 0) {
        struct taken *next = taken->next;

        if (taken->done) {
            mq_ack(channel, taken->tag, false);
            consumer_forget(consumer, taken);
        }
        taken = next;
    }
}

static void consumer_on_flush(void *arg)
{
    struct consumer *consumer = arg;

    if (consumer->events->on_flush != NULL)
        consumer->events->on_flush(consumer->arg);
    if (consumer->done == 0)
        return;
    ack_front(consumer, consumer->session.channel);
    if (consumer->done > consumer->prefetch / SINGLE_ACKS_SHARE || !consumer_wants(consumer))
        ack_behind(consumer, consumer->session.channel);
}

void consumer_done(struct taken *taken)
{
    struct consumer *consumer = taken->consumer;

    if (consumer == NULL) {
        free(taken);
        return;
    }
    if (taken->stale) {
        consumer_forget(consumer, taken);
    } else {
        taken->done = true;
        consumer->running--;
        consumer->done++;
        session_flush_later(&consumer->session);
    }
    consumer->events->on_change(consumer->arg);
}

enum verdict { VERDICT_ACK, VERDICT_REQUEUE, VERDICT_DISCARD };

/* Settled by a frame of its own, now. */
static void taken_settle(struct taken *taken, enum verdict verdict)
{
    struct consumer *consumer = taken->consumer;

    if (consumer == NULL) {
        free(taken);
        return;
    }
    if (!taken->stale && verdict == VERDICT_ACK)
        mq_ack(consumer->session.channel, taken->tag, false);
    else if (!taken->stale)
        mq_reject(consumer->session.channel, taken->tag, verdict == VERDICT_REQUEUE);
    consumer_forget(consumer, taken);
    consumer->events->on_change(consumer->arg);
}

void consumer_done_at_once(struct taken *taken)
{
    taken_settle(taken, VERDICT_ACK);
}

void consumer_reject(struct taken *taken, bool requeue)
{
    taken_settle(taken, requeue ? VERDICT_REQUEUE : VERDICT_DISCARD);
}

/* --- deliveries --- */

void consumer_take(struct consumer *consumer, struct taken *taken, const struct mq_delivery *delivery)
{
    taken->consumer = consumer;
    taken->tag = delivery->tag;
    taken->stale = taken->done = false;
    list_append(&consumer->current, taken);
    consumer->running++;
}

void consumer_refuse(struct consumer *consumer, const struct mq_delivery *delivery, bool requeue)
{
    mq_reject(consumer->session.channel, delivery->tag, requeue);
}

static void consumer_on_delivery(const struct mq_delivery *delivery, void *arg)
{
    struct consumer *consumer = arg;

    if (consumer_wants(consumer)) {
        consumer->events->on_message(delivery, consumer->arg);
    } else {
        consumer->handed_back++;
        consumer_refuse(consumer, delivery, true);
    }
}

/* --- standing by while the owner cannot work --- */

static void consumer_enter(struct consumer *consumer, enum consumer_duty duty)
{
    consumer->duty = duty;
    switch (duty) {
    case CONSUMER_ON_DUTY:
        if (consumer->is_told)
            rpc_log(RPC_LOG_INFO, "consuming again", RPC_LOG_TEXT("queue", consumer->queue));
        consumer->is_told = false;
        if (consumer->session.channel != NULL)
            consumer_ask(consumer, consumer->session.channel);
        break;
    case CONSUMER_LEAVING:
        consumer_cancel(consumer, consumer->session.channel);
        consumer_look_round(consumer);
        break;
    case CONSUMER_STANDBY:
        consumer->is_told = true;
        rpc_log(RPC_LOG_WARNING, "standing by: this instance cannot work, others consume the queue",
                RPC_LOG_TEXT("queue", consumer->queue));
        consumer->events->on_standby(consumer->arg);
        break;
    }
}

void consumer_set_able(struct consumer *consumer, bool able)
{
    consumer->unable = !able;
    if (able && consumer->duty != CONSUMER_ON_DUTY && !consumer->stopping)
        consumer_enter(consumer, CONSUMER_ON_DUTY);
}

void consumer_look_round(struct consumer *consumer)
{
    struct mq_channel *channel = session_channel(&consumer->session);

    if (channel == NULL || consumer->stopping || consumer->inspecting || consumer->never_left)
        return;
    consumer->inspecting = true;
    if (mq_channel_settled(channel))
        consumer_inspect(consumer, channel); /* else when it is: consumer_on_settled() */
}

/*
 * Several instances may lose their stores at once, and each see the others still there.  So it looks once more behind its
 * cancel: the broker works off one after the other, and whoever left last finds nobody and comes back at once.
 */
static void consumer_on_queue(uint32_t consumers, void *arg)
{
    struct consumer *consumer = arg;

    consumer->inspecting = false;
    if (!consumer->unable || consumer->stopping)
        return;
    switch (consumer->duty) {
    case CONSUMER_ON_DUTY:
        if (consumers > 1)
            consumer_enter(consumer, CONSUMER_LEAVING);
        break;
    case CONSUMER_LEAVING:
        consumer_enter(consumer, consumers > 0 ? CONSUMER_STANDBY : CONSUMER_ON_DUTY);
        break;
    case CONSUMER_STANDBY:
        if (consumers == 0)
            consumer_enter(consumer, CONSUMER_ON_DUTY);
        break;
    }
}

/* --- the channel comes and goes --- */

static void consumer_setup(struct mq_channel *channel, void *arg)
{
    struct consumer *consumer = arg;

    mq_qos(channel, consumer->prefetch);
    consumer->events->declare(channel, consumer->arg);
    if (consumer->unable && !consumer->never_left)
        consumer->duty = CONSUMER_STANDBY; /* until consumer_on_up() has looked round */
    if (consumer_wants(consumer))
        consumer_ask(consumer, channel);
}

static void consumer_on_up(void *arg)
{
    struct consumer *consumer = arg;

    if (mq_channel_settled(consumer->session.channel))
        consumer->consuming = consumer->asked;
    if (consumer->stopping && consumer->asked) /* while it came up */
        consumer_cancel(consumer, consumer->session.channel);
    if (consumer->duty != CONSUMER_ON_DUTY) /* the others may be gone as well */
        consumer_look_round(consumer);
    consumer->events->on_change(consumer->arg);
}

/* What is running goes on, but its acknowledgement is void: the broker will deliver it again. */
static void consumer_on_down(void *arg)
{
    struct consumer *consumer = arg;

    consumer->inspecting = consumer->asked = consumer->consuming = false;
    while (consumer->current.first != NULL) {
        struct taken *taken = list_take(&consumer->current);

        if (taken->done) {
            consumer_drop(consumer, taken);
            continue;
        }
        taken->stale = true;
        list_append(&consumer->stale, taken);
    }
    if (consumer->stopping)
        consumer->stopped = true;
    consumer->events->on_change(consumer->arg);
}

static void consumer_on_settled(void *arg)
{
    struct consumer *consumer = arg;

    consumer->consuming = consumer->asked;
    if (consumer->stopping)
        consumer->stopped = true;
    else if (consumer->inspecting) /* it had to wait for the answer to a consume or a cancel */
        consumer_inspect(consumer, consumer->session.channel);
    consumer->events->on_change(consumer->arg);
}

void consumer_stop(struct consumer *consumer)
{
    struct mq_channel *channel = session_channel(&consumer->session);

    if (consumer->stopping)
        return;
    consumer->stopping = true;
    consumer->stopped = !consumer->consuming; /* what may yet come is not waited for, but handed back */
    if (channel != NULL && consumer->asked)
        consumer_cancel(consumer, channel);
}

bool consumer_drained(const struct consumer *consumer)
{
    return consumer->stopped && consumer->running == 0;
}

/* --- life --- */

static const struct session_events consumer_session_events = {
    .setup = consumer_setup,
    .on_up = consumer_on_up,
    .on_down = consumer_on_down,
    .on_settled = consumer_on_settled,
    .on_queue = consumer_on_queue,
    .on_delivery = consumer_on_delivery,
    .on_flush = consumer_on_flush,
};

bool consumer_init(struct consumer *consumer, struct rpc_connection *connection, const char *what, uint16_t prefetch,
                   const struct consumer_events *events, void *arg)
{
    consumer->events = events;
    consumer->arg = arg;
    consumer->prefetch = prefetch;
    return session_init(&consumer->session, connection, what, &consumer_session_events, consumer);
}

static void list_let_go(struct consumer *consumer, struct taken_list *list)
{
    while (list->first != NULL) {
        struct taken *taken = list_take(list);

        if (taken->done) {
            consumer_drop(consumer, taken);
            continue;
        }
        taken->consumer = NULL;
        consumer->running--;
    }
}

void consumer_clear(struct consumer *consumer)
{
    session_clear(&consumer->session);
    list_let_go(consumer, &consumer->current);
    list_let_go(consumer, &consumer->stale);
}

/* One event: from its delivery to its acknowledgement; and the queue it came by. */
#include <stdio.h>
#include <stdlib.h>

#include "connection.h"
#include "context.h"
#include "envelope.h"
#include "rpclib/json.h"
#include "rpclib/log.h"
#include "service.h"
#include "uuid.h"
#include "wire.h"

struct rpc_event {
    struct taken taken; /* first: the consumer frees it */
    struct subscription *subscription;
    struct rpc_context *context; /* made when it is asked for */
    struct envelope envelope;
    struct rpc_bytes exchange, routing_key, body; /* copied only where dead letters are kept */
    char texts[];
};

static void event_log(const struct rpc_event *event, const char *message, const char *cause)
{
    const struct rpc_event_handler *handler = event->subscription->handler;

    rpc_log(RPC_LOG_ERROR, message, RPC_LOG_TEXT("source", handler->source),
            RPC_LOG_TEXT("event_type", handler->event_type), RPC_LOG_TEXT("handler", handler->name),
            RPC_LOG_TEXT("cause", cause));
}

void rpc_event_done(struct rpc_event *event)
{
    rpc_context_free(event->context);
    consumer_done(&event->taken);
}

/* Suspects belong to the queue that they came by at first. */
static struct letter event_letter(const struct rpc_event *event, const char *cause)
{
    const struct subscription *origin = event->subscription->origin;

    return (struct letter){.raw_properties = event->envelope.raw_properties,
                           .body = event->body,
                           .exchange = event->exchange,
                           .routing_key = event->routing_key,
                           .queue = (origin != NULL ? origin : event->subscription)->consumer.queue,
                           .cause = cause};
}

/* Later, or never: by the dead letters' queues. */
static void event_put_aside(struct rpc_event *event, const char *cause, uint32_t attempts_max)
{
    const struct letter letter = event_letter(event, cause);
    struct rpc_service *service = event->subscription->service;

    rpc_context_free(event->context);
    event->context = NULL;
    if (dead_letters_retry(&service->dead_letters, &letter, attempts_max, &event->taken) == 0)
        service->stats.rejected++;
}

static void event_suspect(struct rpc_event *event)
{
    const struct letter letter = event_letter(event, "");

    rpc_context_free(event->context);
    event->context = NULL;
    dead_letters_suspect(&event->subscription->service->dead_letters, &letter, &event->taken);
}

/* A suspect goes back as a new message: requeued, it would count as one that killed its consumer. */
void rpc_event_hand_back(struct rpc_event *event)
{
    if (event->taken.consumer != NULL && !event->taken.stale && event->subscription->origin != NULL) {
        event_suspect(event);
        return;
    }
    rpc_context_free(event->context);
    consumer_reject(&event->taken, true);
}

void rpc_event_fail(struct rpc_event *event, const char *cause)
{
    const struct rpc_event_handler *handler;

    if (event->taken.consumer == NULL) {
        rpc_event_done(event);
        return;
    }
    handler = event->subscription->handler;
    if (handler->attempts_max > 0 && event->subscription->service->options.keep_dead_letters) {
        event_log(event, "an event was not handled this time", cause);
        event_put_aside(event, cause, handler->attempts_max);
        return;
    }
    event_log(event,
              handler->requeue_on_error ? "an event was not handled; requeued" : "an event was not handled; dropped",
              cause);
    if (handler->requeue_on_error)
        rpc_event_hand_back(event);
    else
        rpc_event_done(event); /* Nameko acknowledges it */
}

void rpc_event_reject(struct rpc_event *event, const char *cause)
{
    if (event->taken.consumer == NULL) {
        rpc_event_done(event);
        return;
    }
    event_log(event, "an event can never be handled", cause);
    if (event->subscription->service->options.keep_dead_letters) {
        event_put_aside(event, cause, 0);
        return;
    }
    event->subscription->service->stats.rejected++;
    rpc_context_free(event->context);
    consumer_reject(&event->taken, false);
}

bool rpc_event_standby(const struct rpc_event *event)
{
    return event->taken.consumer != NULL && event->taken.consumer->duty == CONSUMER_STANDBY;
}

bool rpc_event_redelivered(const struct rpc_event *event)
{
    return event->envelope.redelivered;
}

struct rpc_context *rpc_event_context(struct rpc_event *event)
{
    if (event->context == NULL && event->taken.consumer != NULL)
        event->context = context_new_incoming(event->envelope.raw_properties, event->subscription->service->name,
                                              event->subscription->handler->name);
    return event->context;
}

/* --- from a delivery to its handler --- */

static struct rpc_event *event_new(struct subscription *subscription, const struct mq_delivery *delivery)
{
    const struct mq_message *message = &delivery->message;
    bool keeps = subscription->service->options.keep_dead_letters;
    size_t kept_size = keeps ? message->exchange.size + message->routing_key.size + message->body.size : 0;
    size_t envelope_bytes = envelope_size(message);
    struct rpc_event *event = malloc(sizeof(*event) + envelope_bytes + kept_size);
    char *room;

    if (event == NULL)
        return NULL;
    event->subscription = subscription;
    event->context = NULL;
    envelope_copy(&event->envelope, event->texts, delivery);
    if (keeps) {
        room = event->texts + envelope_bytes;
        event->exchange = envelope_keep(&room, message->exchange);
        event->routing_key = envelope_keep(&room, message->routing_key);
        event->body = envelope_keep(&room, message->body);
    }
    consumer_take(&subscription->consumer, &event->taken, delivery);
    return event;
}

/* While no letter can be sent a suspect is kept until one can, and comes again then: it is counted once. */
static void event_start(struct rpc_event *event, json_t *data)
{
    const struct subscription *subscription = event->subscription;
    struct rpc_service *service = subscription->service;

    if (!event->envelope.redelivered || !(subscription->has_suspects || subscription->origin != NULL))
        subscription->handler->handler(event, data, service->options.arg);
    else if (subscription->origin != NULL && dead_letters_ready(&service->dead_letters))
        rpc_event_fail(event, "its consumer went away while it was under way alone");
    else
        event_suspect(event);
}

static void subscription_on_message(const struct mq_delivery *delivery, void *arg)
{
    struct subscription *subscription = arg;
    struct rpc_service *service = subscription->service;
    const char *unreadable = message_unreadable(&delivery->message);
    char reason[RPC_JSON_REASON_SIZE];
    struct rpc_event *event;
    json_t *data = NULL;

    service->stats.events++;
    if (unreadable == NULL) {
        data = rpc_json_load(delivery->message.body, reason);
        if (data == NULL && rpc_json_no_memory(reason)) {
            consumer_refuse(&subscription->consumer, delivery, true); /* nothing is wrong with it */
            return;
        }
        unreadable = data == NULL ? reason : NULL;
    }
    if (unreadable != NULL) {
        service_refuse(service, &subscription->consumer, delivery, unreadable);
        return;
    }
    event = event_new(subscription, delivery);
    if (event != NULL)
        event_start(event, data);
    else
        consumer_refuse(&subscription->consumer, delivery, true);
    json_decref(data);
}

/* One that is ours alone gets a new name each time: after a lost link the broker may still hold the old one. */
static bool subscription_name_queue(struct subscription *subscription)
{
    const char *identifier = subscription->handler->identifier;
    char random[RPC_UUID_SIZE];

    if (identifier == NULL) {
        rpc_uuid4(random);
        identifier = random;
    }
    return wire_event_queue(subscription->consumer.queue, subscription->handler, subscription->service->name,
                            identifier);
}

static bool subscription_is_transient(const struct rpc_event_handler *handler)
{
    return handler->unreliable || (handler->kind == RPC_EVENT_BROADCAST && handler->identifier == NULL);
}

static void subscription_declare(struct mq_channel *channel, void *arg)
{
    struct subscription *subscription = arg;
    const struct rpc_event_handler *handler = subscription->handler;
    bool transient = subscription_is_transient(handler);
    const char *queue = subscription->consumer.queue;
    char exchange[WIRE_NAME_SIZE];

    if (subscription->origin != NULL) {
        mq_queue_declare(channel, &(struct mq_queue){.name = queue, .durable = true});
        return;
    }
    subscription_name_queue(subscription);
    wire_event_exchange(exchange, handler->source);
    mq_exchange_declare(channel, exchange);
    mq_queue_declare(channel, &(struct mq_queue){.name = queue,
                                                 .durable = true,
                                                 .exclusive = transient && handler->kind == RPC_EVENT_BROADCAST,
                                                 .auto_delete = transient});
    mq_queue_bind(channel, queue, exchange, handler->event_type);
}

static void subscription_on_change(void *arg)
{
    struct subscription *subscription = arg;

    service_on_change(subscription->service);
}

static void subscription_on_standby(void *arg)
{
    struct subscription *subscription = arg;

    service_on_standby(subscription->service);
}

static const struct consumer_events subscription_events = {
    .declare = subscription_declare,
    .on_message = subscription_on_message,
    .on_change = subscription_on_change,
    .on_standby = subscription_on_standby,
};

bool subscription_init(struct subscription *subscription, struct rpc_service *service,
                       const struct rpc_event_handler *handler)
{
    char suspects[WIRE_NAME_SIZE];

    subscription->service = service;
    subscription->handler = handler;
    if (!subscription_name_queue(subscription))
        return false;
    subscription->has_suspects = handler->attempts_max > 0 && service->options.keep_dead_letters &&
                                 !subscription_is_transient(handler) &&
                                 dead_letters_suspects(suspects, subscription->consumer.queue);
    return true;
}

void subscription_init_suspects(struct subscription *suspects, const struct subscription *origin)
{
    suspects->service = origin->service;
    suspects->handler = origin->handler;
    suspects->origin = origin;
    dead_letters_suspects(suspects->consumer.queue, origin->consumer.queue);
}

bool subscription_start(struct subscription *subscription, struct rpc_connection *connection)
{
    const struct rpc_event_handler *handler = subscription->handler;
    struct rpc_service *service = subscription->service;

    subscription->consumer.unable = service->unable;
    subscription->consumer.never_left = subscription_is_transient(handler) || handler->kind == RPC_EVENT_BROADCAST;
    return consumer_init(&subscription->consumer, connection, handler->name,
                         subscription->origin != NULL ? 1 : service->options.prefetch, &subscription_events,
                         subscription);
}

/* The service as a whole: its consumers, whether all of them are up, and how it stops. */
#include <stdlib.h>

#include "amqp/frame.h"
#include "connection.h"
#include "incoming.h"
#include "rpclib/backoff.h"
#include "rpclib/log.h"
#include "wire.h"

#define PREFETCH_DEFAULT     10 /* Nameko's */
#define BATCH_POOL_PAGE_SIZE 4096

static bool service_all(const struct rpc_service *service, bool (*holds)(const struct consumer *consumer))
{
    if (service->options.methods_count > 0 && !holds(&service->requests))
        return false;
    for (size_t i = 0; i < service->subscriptions_count; i++) {
        if (!holds(&service->subscriptions[i].consumer))
            return false;
    }
    return true;
}

static bool consumer_up(const struct consumer *consumer)
{
    return session_status(&consumer->session) == RPC_OK && !consumer->stopping && consumer->consuming;
}

bool rpc_service_ready(const struct rpc_service *service)
{
    return service_all(service, consumer_up) &&
           (!service->options.keep_dead_letters || dead_letters_ready(&service->dead_letters));
}

void service_on_change(void *arg)
{
    struct rpc_service *service = arg;
    bool ready = rpc_service_ready(service);

    if (session_channel(&service->requests.session) == NULL)
        answers_drop(service);
    if (ready && !service->told_ready && service->options.on_ready != NULL)
        service->options.on_ready(service->options.arg);
    service->told_ready = ready;
    /* `stopped` may free the service, which a consumer's callback would not survive: it comes from the timer. */
    if (service->stopped != NULL && service_all(service, consumer_drained))
        rpc_loop_timer_start(service->stop_timer, 0);
}

void service_refuse(struct rpc_service *service, struct consumer *consumer, const struct mq_delivery *delivery,
                    const char *reason)
{
    const amqp_basic_properties_t *properties = delivery->message.properties;
    struct rpc_bytes id = FRAME_PROPERTY(properties, CORRELATION_ID, correlation_id);
    struct taken *taken;

    service->stats.rejected++;
    rpc_log(RPC_LOG_WARNING, "a message was rejected", RPC_LOG_TEXT("queue", consumer->queue),
            RPC_LOG_BYTES("routing_key", delivery->message.routing_key), RPC_LOG_BYTES("correlation_id", id),
            RPC_LOG_TEXT("reason", reason));
    taken = service->options.keep_dead_letters && !delivery->message.oversized ? malloc(sizeof(*taken)) : NULL;
    if (taken == NULL) {
        consumer_refuse(consumer, delivery, false);
        return;
    }
    consumer_take(consumer, taken, delivery);
    dead_letters_bury(&service->dead_letters,
                      &(struct letter){.raw_properties = delivery->message.raw_properties,
                                       .body = delivery->message.body,
                                       .exchange = delivery->message.exchange,
                                       .routing_key = delivery->message.routing_key,
                                       .queue = consumer->queue,
                                       .cause = reason},
                      taken);
}

/* --- unable for a while --- */

/* At random, so that instances which lose their stores at once do not look round at once. */
static void standby_timer_start(struct rpc_service *service)
{
    rpc_loop_timer_start(service->standby_timer, rpc_backoff_ms(0, RPC_STANDBY_MS, RPC_STANDBY_MS));
}

static void service_on_standby_timer(void *arg)
{
    struct rpc_service *service = arg;

    if (service->options.methods_count > 0)
        consumer_look_round(&service->requests);
    for (size_t i = 0; i < service->subscriptions_count; i++)
        consumer_look_round(&service->subscriptions[i].consumer);
    standby_timer_start(service);
}

void rpc_service_set_able(struct rpc_service *service, bool able)
{
    if (able != service->unable)
        return;
    service->unable = !able;
    if (able)
        rpc_loop_timer_stop(service->standby_timer);
    else
        standby_timer_start(service);
    if (service->options.methods_count > 0)
        consumer_set_able(&service->requests, able);
    for (size_t i = 0; i < service->subscriptions_count; i++)
        consumer_set_able(&service->subscriptions[i].consumer, able);
}

void service_on_standby(void *arg)
{
    struct rpc_service *service = arg;

    service_on_change(service);
    if (service->options.on_standby != NULL)
        service->options.on_standby(service->options.arg);
}

/* --- stopping --- */

static void service_on_stop_timer(void *arg)
{
    struct rpc_service *service = arg;
    rpc_loop_fn *stopped = service->stopped;

    service->stopped = NULL;
    if (stopped != NULL)
        stopped(service->stopped_arg);
}

void rpc_service_stop(struct rpc_service *service, int timeout_ms, rpc_loop_fn *done, void *arg)
{
    service->stopped = done;
    service->stopped_arg = arg;
    rpc_loop_timer_stop(service->standby_timer);
    rpc_loop_timer_start(service->stop_timer, (uint64_t)timeout_ms);
    if (service->options.methods_count > 0)
        consumer_stop(&service->requests);
    for (size_t i = 0; i < service->subscriptions_count; i++)
        consumer_stop(&service->subscriptions[i].consumer);
    service_on_change(service);
}

uint32_t rpc_service_in_flight(const struct rpc_service *service)
{
    uint32_t running = service->requests.running;

    for (size_t i = 0; i < service->subscriptions_count; i++)
        running += service->subscriptions[i].consumer.running;
    return running;
}

void rpc_service_stats(const struct rpc_service *service, struct rpc_service_stats *stats)
{
    *stats = service->stats;
    stats->handed_back = service->requests.handed_back;
    for (size_t i = 0; i < service->subscriptions_count; i++)
        stats->handed_back += service->subscriptions[i].consumer.handed_back;
}

/* --- life --- */

/* As many as all consumers together may have under way: a message that fails always finds a place. */
static uint32_t letters_max(const struct rpc_service_options *options)
{
    return (options->prefetch + 1u) * (uint32_t)(options->event_handlers_count + 1);
}

/* For the dead letters: the queues whose events are tried again. */
static const char *service_retried_queue(size_t index, void *arg)
{
    const struct rpc_service *service = arg;

    for (size_t i = 0; i < service->options.event_handlers_count; i++) {
        if (service->subscriptions[i].handler->attempts_max > 0 && index-- == 0)
            return service->subscriptions[i].consumer.queue;
    }
    return NULL;
}

/* Whose queues are known before anything is declared; where they have suspects, those have a subscription as well. */
static bool service_name_subscriptions(struct rpc_service *service)
{
    size_t handlers_count = service->options.event_handlers_count;
    struct subscription *subscriptions = service->subscriptions;

    for (size_t i = 0; i < handlers_count; i++) {
        if (!subscription_init(&subscriptions[i], service, &service->options.event_handlers[i]))
            return false;
    }
    service->subscriptions_count = handlers_count;
    for (size_t i = 0; i < handlers_count; i++) {
        if (subscriptions[i].has_suspects)
            subscription_init_suspects(&subscriptions[service->subscriptions_count++], &subscriptions[i]);
    }
    return true;
}

static bool service_start_letters(struct rpc_service *service, struct rpc_connection *connection)
{
    return !service->options.keep_dead_letters ||
           dead_letters_init(&service->dead_letters, connection,
                             &(struct dead_letters_options){.service = service->name,
                                                            .unconfirmed_max = letters_max(&service->options),
                                                            .retried = service_retried_queue,
                                                            .on_up = service_on_change,
                                                            .arg = service});
}

static bool service_start_requests(struct rpc_service *service, struct rpc_connection *connection)
{
    service->requests.unable = service->unable;
    return service->options.methods_count == 0 ||
           (wire_rpc_queue(service->requests.queue, service->name) &&
            consumer_init(&service->requests, connection, "requests", service->options.prefetch,
                          &incoming_consumer_events, service));
}

/* The dead letters come first: an event that is delivered again goes there at once. */
static bool service_start(struct rpc_service *service, struct rpc_connection *connection)
{
    if (!service_name_subscriptions(service) || !service_start_letters(service, connection) ||
        !service_start_requests(service, connection))
        return false;
    for (size_t i = 0; i < service->subscriptions_count; i++) {
        if (!subscription_start(&service->subscriptions[i], connection))
            return false;
    }
    return true;
}

struct rpc_service *rpc_service_new(struct rpc_connection *connection, const struct rpc_service_options *options)
{
    struct rpc_service *service = calloc(1, sizeof(*service));

    if (service == NULL)
        return NULL;
    service->loop = connection_loop(connection);
    service->options = *options;
    if (options->prefetch == 0)
        service->options.prefetch = PREFETCH_DEFAULT;
    service->unable = options->unable;
    init_amqp_pool(&service->batch_pool, BATCH_POOL_PAGE_SIZE);
    service->name = strdup(options->name);
    service->exchange = strdup(options->exchange != NULL ? options->exchange : WIRE_EXCHANGE);
    service->subscriptions = calloc(2 * options->event_handlers_count + 1, sizeof(*service->subscriptions));
    service->stop_timer = rpc_loop_timer_new(service->loop, service_on_stop_timer, service);
    service->standby_timer = rpc_loop_timer_new(service->loop, service_on_standby_timer, service);
    if (service->name == NULL || service->exchange == NULL || service->subscriptions == NULL ||
        service->stop_timer == NULL || service->standby_timer == NULL || !service_start(service, connection)) {
        rpc_service_free(service);
        return NULL;
    }
    if (service->unable)
        standby_timer_start(service);
    return service;
}

void rpc_service_free(struct rpc_service *service)
{
    if (service == NULL)
        return;
    if (service->subscriptions != NULL) {
        dead_letters_clear(&service->dead_letters); /* hands back what is not confirmed, so the consumers come after */
        answers_drop(service);
        consumer_clear(&service->requests);
        for (size_t i = 0; i < service->subscriptions_count; i++)
            consumer_clear(&service->subscriptions[i].consumer);
    }
    rpc_loop_timer_free(service->stop_timer);
    rpc_loop_timer_free(service->standby_timer);
    rpc_text_clear(&service->body);
    batch_clear(&service->answers.batch);
    empty_amqp_pool(&service->batch_pool);
    free(service->subscriptions);
    free(service->name);
    free(service->exchange);
    free(service);
}

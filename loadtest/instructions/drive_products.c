/* The products service, whole but for its settings: from the message that arrives to the answer that leaves. */
#include <stdio.h>
#include <string.h>

#include "drive.h"
#include "fake_broker.h"
#include "fake_redis.h"
#include "messages.h"
#include "redis_uri.h"
#include "rpclib/loop_libevent.h"
#include "service.h"

#define WARM_UP 200

static struct {
    struct event_base *base;
    struct fake_broker *broker;
    struct fake_redis *redis;
    struct products_service *service;
    unsigned answered;
} shop;

static void on_published(struct fake_broker *broker, const struct fake_message *message, void *arg)
{
    static const char result[] = "{\"result\":";

    (void)broker;
    (void)arg;
    drive_require(message->body.len > sizeof(result) && strstr(message->body.bytes, "\"error\"") != NULL, "an answer");
    drive_require(memcmp(message->body.bytes, "{\"result\":null", 14) != 0 &&
                      memcmp(message->body.bytes, "{\"result\": null", 15) != 0,
                  "a result");
    shop.answered++;
}

static void turn(bool measured)
{
    drive_turn(shop.base, measured);
    fake_redis_turn(shop.redis);
    fake_broker_turn(shop.broker);
}

static void shop_open(void)
{
    char uri[64], reason[REDIS_URI_REASON_SIZE];
    struct rpc_connection *connection;
    struct redis_uri redis;
    struct rpc_loop *loop;

    shop.base = event_base_new();
    loop = rpc_loop_libevent_new(shop.base);
    shop.broker = fake_broker_new(on_published, NULL);
    shop.redis = fake_redis_new();
    snprintf(uri, sizeof(uri), "amqp://guest:guest@127.0.0.1:%u", fake_broker_port(shop.broker));
    connection = rpc_connection_new(&(struct rpc_connection_options){.loop = loop, .uri = uri, .name = "products"});
    snprintf(uri, sizeof(uri), "redis://127.0.0.1:%u/0", fake_redis_port(shop.redis));
    drive_require(redis_uri_read(&redis, uri, reason), "a Redis");
    shop.service = products_service_new(&(struct products_service_options){.loop = loop,
                                                                           .connection = connection,
                                                                           .redis = &redis,
                                                                           .store_timeout_ms = 60000,
                                                                           .applied_ttl_s = 604800,
                                                                           .prefetch = 100});
    while (!products_service_ready(shop.service))
        turn(false);
}

static void ask(const char *method, unsigned requests, unsigned at_once, bool measured)
{
    amqp_basic_properties_t properties = messages_request_properties();

    for (shop.answered = 0; shop.answered < requests;) {
        unsigned wanted = shop.answered + at_once;

        for (unsigned i = 0; i < at_once; i++)
            fake_broker_deliver(shop.broker, "rpc-products", "nameko-rpc",
                                &(struct fake_message){.routing_key = amqp_cstring_bytes(method),
                                                       .properties = &properties,
                                                       .body = amqp_cstring_bytes(MESSAGES_GET_REQUEST)});
        fake_broker_flush(shop.broker);
        while (shop.answered < wanted)
            turn(measured);
    }
}

static void run_get(unsigned requests, unsigned at_once)
{
    shop_open();
    ask("products.get", WARM_UP, at_once, false);
    ask("products.get", requests, at_once, true);
}

static void run_exists(unsigned requests, unsigned at_once)
{
    shop_open();
    ask("products.exists", WARM_UP, at_once, false);
    ask("products.exists", requests, at_once, true);
}

/* Events are not answered: they are done when the last one is acknowledged, which is done for many at a time. */
static void tell(unsigned events, unsigned at_once, bool measured)
{
    amqp_basic_properties_t properties = messages_request_properties();
    static uint64_t told;

    properties._flags &=
        ~(amqp_flags_t)(AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_EXPIRATION_FLAG);
    properties.delivery_mode = 2;
    for (unsigned done = 0; done < events; done += at_once) {
        for (unsigned i = 0; i < at_once; i++)
            fake_broker_deliver(shop.broker, "evt-orders-order_created", "orders.events",
                                &(struct fake_message){.routing_key = amqp_cstring_bytes("order_created"),
                                                       .properties = &properties,
                                                       .body = amqp_cstring_bytes(MESSAGES_ORDER_CREATED)});
        told += at_once;
        fake_broker_flush(shop.broker);
        while (fake_broker_acknowledged(shop.broker) < told)
            turn(measured);
    }
}

static void run_order_created(unsigned events, unsigned at_once)
{
    shop_open();
    tell(WARM_UP, at_once, false);
    tell(events, at_once, true);
}

int main(int argc, char *argv[])
{
    static const struct drive_case cases[] = {
        {"get", run_get}, {"exists", run_exists}, {"order_created", run_order_created}};

    return drive_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}

/* The library's own share of a request: a call and its answer, a request and its answer, an event and its confirm. */
#include <stdio.h>
#include <string.h>

#include "drive.h"
#include "fake_broker.h"
#include "messages.h"
#include "rpclib/client.h"
#include "rpclib/loop_libevent.h"
#include "rpclib/publisher.h"
#include "rpclib/service.h"

#define TIMEOUT_MS 60000
#define WARM_UP    200 /* requests that are not counted: buffers have their size then */

struct peer {
    struct event_base *base;
    struct fake_broker *broker;
    struct rpc_connection *connection;
    unsigned done, under_way;
};

static struct peer peer;

static void on_published(struct fake_broker *broker, const struct fake_message *message, void *arg);

static void peer_open(void)
{
    char uri[64];

    peer.base = event_base_new();
    peer.broker = fake_broker_new(on_published, NULL);
    snprintf(uri, sizeof(uri), "amqp://guest:guest@127.0.0.1:%u", fake_broker_port(peer.broker));
    peer.connection = rpc_connection_new(
        &(struct rpc_connection_options){.loop = rpc_loop_libevent_new(peer.base), .uri = uri, .name = "drive"});
    drive_require(peer.connection != NULL, "a connection");
}

static void turn(bool measured)
{
    drive_turn(peer.base, measured);
    fake_broker_turn(peer.broker);
}

/* --- calls --- */

static struct rpc_client *client;

/* Every request that arrives is answered, with what GET product is answered with. */
static void answer_call(struct fake_broker *broker, const struct fake_message *message)
{
    amqp_basic_properties_t properties = messages_answer_properties(message->properties->correlation_id);

    fake_broker_deliver(broker, "rpc.reply-", "nameko-rpc",
                        &(struct fake_message){.routing_key = message->properties->reply_to,
                                               .properties = &properties,
                                               .body = amqp_cstring_bytes(MESSAGES_PRODUCT_ANSWER)});
}

static void on_reply(enum rpc_status status, const struct rpc_reply *reply, void *arg)
{
    (void)reply;
    (void)arg;
    drive_require(status == RPC_OK, "an answer that is a result");
    peer.done++;
}

static void send_calls(void *arg)
{
    unsigned count = *(const unsigned *)arg;

    for (unsigned i = 0; i < count; i++)
        drive_require(rpc_call(client,
                               &(struct rpc_request){.service = "products",
                                                     .method = "get",
                                                     .args = rpc_bytes_of("[\"bench-000000000777\"]"),
                                                     .timeout_ms = TIMEOUT_MS},
                               on_reply, NULL, NULL) == RPC_OK,
                      "a call that was sent");
}

static void make_calls(unsigned requests, unsigned at_once, bool measured)
{
    for (peer.done = 0; peer.done < requests;) {
        unsigned wanted = peer.done + at_once;

        if (measured)
            drive_measured(send_calls, &at_once);
        else
            send_calls(&at_once);
        while (peer.done < wanted)
            turn(measured);
    }
}

static void run_call(unsigned requests, unsigned at_once)
{
    peer_open();
    client = rpc_client_new(peer.connection, &(struct rpc_client_options){.name = "drive"});
    while (!rpc_client_ready(client))
        turn(false);
    make_calls(WARM_UP, at_once, false);
    make_calls(requests, at_once, true);
}

/* --- requests --- */

static void get(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    (void)arguments;
    (void)arg;
    rpc_incoming_answer(request, rpc_bytes_of(MESSAGES_PRODUCT));
}

static void answer_requests(unsigned requests, unsigned at_once, bool measured)
{
    amqp_basic_properties_t properties = messages_request_properties();

    for (peer.done = 0; peer.done < requests;) {
        unsigned wanted = peer.done + at_once;

        for (unsigned i = 0; i < at_once; i++)
            fake_broker_deliver(peer.broker, "rpc-products", "nameko-rpc",
                                &(struct fake_message){.routing_key = amqp_cstring_bytes("products.get"),
                                                       .properties = &properties,
                                                       .body = amqp_cstring_bytes(MESSAGES_GET_REQUEST)});
        fake_broker_flush(peer.broker);
        while (peer.done < wanted)
            turn(measured);
    }
}

static void run_answer(unsigned requests, unsigned at_once)
{
    static const char *const parameters[] = {"product_id", NULL};
    static const struct rpc_method methods[] = {
        {.name = "get", .parameters = parameters, .parameters_required = 1, .handler = get}};
    struct rpc_service *service;

    peer_open();
    service = rpc_service_new(
        peer.connection,
        &(struct rpc_service_options){.name = "products", .methods = methods, .methods_count = 1, .prefetch = 100});
    while (!rpc_service_ready(service))
        turn(false);
    answer_requests(WARM_UP, at_once, false);
    answer_requests(requests, at_once, true);
}

/* --- events --- */

static struct rpc_publisher *publisher;

static void on_confirm(enum rpc_status status, void *arg)
{
    (void)arg;
    drive_require(status == RPC_OK, "a confirm");
    peer.done++;
}

static void send_events(void *arg)
{
    unsigned count = *(const unsigned *)arg;

    for (unsigned i = 0; i < count; i++)
        drive_require(rpc_publish(publisher, "order_created", rpc_bytes_of(MESSAGES_ORDER_CREATED), NULL, on_confirm,
                                  NULL) == RPC_OK,
                      "an event that was sent");
}

static void publish_events(unsigned requests, unsigned at_once, bool measured)
{
    for (peer.done = 0; peer.done < requests;) {
        unsigned wanted = peer.done + at_once;

        if (measured)
            drive_measured(send_events, &at_once);
        else
            send_events(&at_once);
        while (peer.done < wanted)
            turn(measured);
    }
}

static void run_publish(unsigned requests, unsigned at_once)
{
    peer_open();
    publisher = rpc_publisher_new(peer.connection, &(struct rpc_publisher_options){.source = "orders"});
    while (!rpc_publisher_ready(publisher))
        turn(false);
    publish_events(WARM_UP, at_once, false);
    publish_events(requests, at_once, true);
}

/* What the program publishes: a client's requests are answered, a service's answers counted, events confirmed. */
static void on_published(struct fake_broker *broker, const struct fake_message *message, void *arg)
{
    (void)arg;
    if (client != NULL)
        answer_call(broker, message);
    else if (publisher == NULL)
        peer.done++;
}

int main(int argc, char *argv[])
{
    static const struct drive_case cases[] = {{"call", run_call}, {"answer", run_answer}, {"publish", run_publish}};

    return drive_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}

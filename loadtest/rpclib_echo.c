/*
 * rpclib_echo: an echo service and its closed-loop client, on rpclib, to set the library's rate beside the ceiling that
 * ceiling_echo measures.
 *
 *     rpclib_echo serve
 *     rpclib_echo call IN_FLIGHT SECONDS
 */
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "latency.h"
#include "rpclib/client.h"
#include "rpclib/loop_libevent.h"
#include "rpclib/service.h"

#define PREFETCH   300
#define TIMEOUT_MS 5000
#define WARM_UP_MS 500

struct bench {
    struct event_base *base;
    struct rpc_loop *loop;
    struct rpc_client *client;
    struct rpc_loop_timer *timer;
    struct latencies latencies;
    unsigned in_flight;
    uint64_t seconds;
    uint64_t failures;
    bool measuring;
    struct slot {
        struct bench *bench;
        uint64_t sent_ns;
    } * slots;
};

/* About 120 bytes with Nameko's envelope around it: a product's size. */
static const char payload[] = "[\"the_odyssey-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-012\"]";

static void echo(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    char answer[256];
    int size = snprintf(answer, sizeof(answer), "\"%s\"", json_string_value(arguments[0]));

    (void)arg;
    rpc_incoming_answer(request, (struct rpc_bytes){answer, (size_t)size});
}

static void send_one(struct slot *slot);

static void on_reply(enum rpc_status status, const struct rpc_reply *reply, void *arg)
{
    struct slot *slot = arg;

    (void)reply;
    if (status != RPC_OK)
        slot->bench->failures++;
    else if (slot->bench->measuring)
        latencies_add(&slot->bench->latencies, latency_now_ns() - slot->sent_ns);
    send_one(slot);
}

static void send_one(struct slot *slot)
{
    slot->sent_ns = latency_now_ns();
    if (rpc_call(slot->bench->client,
                 &(struct rpc_request){
                     .service = "bench", .method = "echo", .args = rpc_bytes_of(payload), .timeout_ms = TIMEOUT_MS},
                 on_reply, slot, NULL) != RPC_OK)
        slot->bench->failures++;
}

static void on_timer(void *arg)
{
    struct bench *bench = arg;

    if (!bench->measuring) {
        bench->measuring = true;
        latencies_start(&bench->latencies);
        rpc_loop_timer_start(bench->timer, bench->seconds * 1000);
        return;
    }
    latencies_print(&bench->latencies, "rpclib", bench->in_flight, bench->failures);
    event_base_loopbreak(bench->base);
}

static void on_ready(void *arg)
{
    struct bench *bench = arg;

    for (unsigned i = 0; i < bench->in_flight; i++)
        send_one(&bench->slots[i]);
    rpc_loop_timer_start(bench->timer, WARM_UP_MS);
}

static void on_serving(void *arg)
{
    (void)arg;
    puts("ready");
    fflush(stdout);
}

static int serve(struct rpc_connection *connection, struct event_base *base)
{
    static const char *const parameters[] = {"text", NULL};
    static const struct rpc_method methods[] = {
        {.name = "echo", .parameters = parameters, .parameters_required = 1, .handler = echo}};

    if (rpc_service_new(connection, &(struct rpc_service_options){.name = "bench",
                                                                  .methods = methods,
                                                                  .methods_count = 1,
                                                                  .prefetch = PREFETCH,
                                                                  .on_ready = on_serving}) == NULL)
        return 1;
    return event_base_dispatch(base);
}

int main(int argc, char *argv[])
{
    struct bench bench = {0};
    struct rpc_connection *connection;

    if (argc < 2 || (strcmp(argv[1], "call") == 0 && argc < 4)) {
        fputs("usage: rpclib_echo serve | call IN_FLIGHT SECONDS   (AMQP_URI names the broker)\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    bench.base = event_base_new();
    bench.loop = rpc_loop_libevent_new(bench.base);
    connection = rpc_connection_new(
        &(struct rpc_connection_options){.loop = bench.loop, .uri = getenv("AMQP_URI"), .name = "bench"});
    if (connection == NULL)
        return 2;
    if (strcmp(argv[1], "serve") == 0)
        return serve(connection, bench.base);
    bench.in_flight = (unsigned)atoi(argv[2]);
    bench.seconds = (uint64_t)atoi(argv[3]);
    bench.slots = calloc(bench.in_flight, sizeof(*bench.slots));
    for (unsigned i = 0; i < bench.in_flight; i++)
        bench.slots[i].bench = &bench;
    bench.timer = rpc_loop_timer_new(bench.loop, on_timer, &bench);
    bench.client =
        rpc_client_new(connection, &(struct rpc_client_options){.name = "bench", .on_ready = on_ready, .arg = &bench});
    event_base_dispatch(bench.base);
    return bench.failures > 0;
}

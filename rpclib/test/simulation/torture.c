/*
 * torture: the n-th allocation fails, for each n: rpclib's own, rabbitmq-c's, jansson's and the loop's; or the n-th read or
 * write.  No crash, no leak (the address sanitizer looks), an honest status for each call, and all of it works again by
 * itself: one failure is soon over.  A read or write that takes one byte, or none yet, is no failure.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <amqp.h>
#include <amqp_framing.h>
#include <jansson.h>

#include "broker.h"
#include "context.h"
#include "fake_loop.h"
#include "network.h"
#include "python.h"
#include "rpclib/client.h"
#include "rpclib/json.h"
#include "rpclib/log.h"
#include "rpclib/publisher.h"
#include "rpclib/service.h"
#include "torture.h"
#include "wire.h"

#define RUN_MS     15000
#define STEP_MS    5
#define TIMEOUT_MS 4000
#define CALLS      9
#define CALLS_ALONE \
    5 /* the first of them: nothing is known of the service yet; all others but the last share a message */

void __wrap_rpc_log_write(enum rpc_log_level level, const char *message, const struct rpc_log_field *fields,
                          size_t count);

/*
 * What rabbitmq-c 0.11 cannot lose without a leak of its own: the list of a pool's pages (8 bytes, and 8 more for each),
 * whose page it forgets then, and a new connection's buffer of 128 KiB, behind another one.
 */
static bool spared(size_t size, bool again)
{
    return size == 131072 || size == sizeof(void *) || (again && size <= 8 * sizeof(void *) && size % 8 == 0);
}

void __wrap_rpc_log_write(enum rpc_log_level level, const char *message, const struct rpc_log_field *fields,
                          size_t count)
{
    (void)level;
    (void)message;
    (void)fields;
    (void)count;
}

/* ---- All of it, before a broker ---------------------------------------------------------------------------------- */

static struct {
    struct random random;
    struct fake_loop *loop;
    struct broker *broker;
    struct rpc_connection *connection;
    struct rpc_client *client;
    struct rpc_service *service;
    struct rpc_publisher *publisher;
    struct {
        bool taken;
        unsigned ended;
        enum rpc_status status;
    } calls[CALLS], events[CALLS];
    unsigned executed[CALLS];
    struct rpc_incoming *held;
    unsigned accepted, handled, finished, closed; /* events in the queue, at the handler, done; ... */
} world;

static enum torture_fault fault; /* what this run meets */

static uint64_t now_ms(void)
{
    return rpc_loop_now_ms(fake_loop_base(world.loop));
}

static void on_reply(enum rpc_status status, const struct rpc_reply *reply, void *arg)
{
    unsigned number = (unsigned)(uintptr_t)arg;

    (void)reply;
    world.calls[number].ended++;
    world.calls[number].status = status;
}

static void on_confirm(enum rpc_status status, void *arg)
{
    unsigned number = (unsigned)(uintptr_t)arg;

    world.events[number].ended++;
    world.events[number].status = status;
}

/* Each call is answered in another way. */
static void on_work(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    long long number = json_integer_value(arguments[0]);
    json_t *messages;

    (void)arg;
    if (number < CALLS)
        world.executed[number]++;
    (void)rpc_incoming_context(request);
    switch (number) {
    case 0:
        rpc_incoming_answer_json(request, arguments[0]);
        break;
    case 1:
        messages = json_pack("{s:[s]}", "field", "it's \"wrong\"");
        if (messages == NULL)
            rpc_incoming_fail_unexpected(request, "out of memory");
        else
            rpc_incoming_fail_validation(request, messages);
        json_decref(messages);
        break;
    case 2:
        rpc_incoming_fail(request, "NotFound", "no \xff such");
        break;
    case 3:
        if (world.held == NULL)
            world.held = request;
        else
            rpc_incoming_answer_json(request, NULL);
        break;
    default:
        rpc_incoming_answer(request, RPC_BYTES("[1, 2]"));
        break;
    }
}

static void on_event(struct rpc_event *event, json_t *data, void *arg)
{
    (void)data;
    (void)arg;
    (void)rpc_event_context(event);
    if (world.handled++ == 0)
        rpc_event_fail(event, "once");
    else {
        world.finished++;
        rpc_event_done(event);
    }
}

static void on_publish(const struct broker_message *message, unsigned queues, bool accepted, void *arg)
{
    (void)accepted;
    (void)arg;
    if (strcmp(message->exchange, "shop.events") == 0)
        world.accepted += queues;
}

static void on_violation(const char *what, void *arg)
{
    (void)arg;
    torture_violated("against AMQP: %s", what);
}

static void on_close(struct network_link *link)
{
    if (link->far_end != NULL)
        broker_drop(world.broker, link->far_end);
}

static void world_step(void)
{
    struct network_link *link = network_link();
    int fd = link == NULL ? -1 : link->fd;

    network_in_rpclib = false;
    broker_tick(world.broker, now_ms());
    if (link != NULL && !link->connected) {
        link->far_end = broker_accept(world.broker, "link");
        link->connected = true;
    } else if (link != NULL && link->far_end != NULL) {
        struct frames *output = broker_output(link->far_end);

        broker_receive(world.broker, link->far_end, frames_bytes(&link->outbound), now_ms());
        link->outbound.size = 0;
        frames_append(&link->inbound, frames_bytes(output));
        frames_consume(output, output->size);
        if (broker_closes(link->far_end)) {
            broker_drop(world.broker, link->far_end);
            link->far_end = NULL;
            link->gone = true;
        }
    }
    network_in_rpclib = true;
    if (link != NULL) {
        unsigned watched = fake_loop_watched(world.loop, fd);
        unsigned ready =
            (watched & RPC_LOOP_WRITE) | (link->inbound.size > 0 || link->gone ? watched & RPC_LOOP_READ : 0u);

        if (ready != 0)
            fake_loop_fire(world.loop, fd, ready);
    }
    fake_loop_advance(world.loop, STEP_MS);
    network_in_rpclib = false;
}

static void world_run(uint64_t duration_ms, bool (*enough)(void))
{
    uint64_t end_ms = now_ms() + duration_ms;

    while (now_ms() < end_ms && !enough())
        world_step();
}

static bool is_ready(void)
{
    return rpc_client_ready(world.client) && rpc_service_ready(world.service) && rpc_publisher_ready(world.publisher);
}

static bool all_ended(void)
{
    for (unsigned i = 0; i < CALLS; i++) {
        if ((world.calls[i].taken && world.calls[i].ended == 0) ||
            (world.events[i].taken && world.events[i].ended == 0))
            return false;
    }
    return true;
}

static bool all_finished(void)
{
    return world.finished >= world.accepted;
}

static bool is_closed(void)
{
    return world.closed > 0;
}

static void on_closed(void *arg)
{
    (void)arg;
    world.closed++;
}

static void call(unsigned number, const struct rpc_context *context)
{
    char args[40];

    snprintf(args, sizeof(args), "[%u, \"pad\"]", number);
    world.calls[number].status = rpc_call(world.client,
                                          &(struct rpc_request){.service = number == 4 ? "nobody" : "shop",
                                                                .method = "work",
                                                                .args = rpc_bytes_of(args),
                                                                .timeout_ms = TIMEOUT_MS,
                                                                .context = context},
                                          on_reply, (void *)(uintptr_t)number, NULL);
    world.calls[number].taken = world.calls[number].status == RPC_OK;
}

static void event(unsigned number, const struct rpc_context *context)
{
    world.events[number].status = rpc_publish(world.publisher, "happened", RPC_BYTES("{\"a\": [1]}"), context,
                                              on_confirm, (void *)(uintptr_t)number);
    world.events[number].taken = world.events[number].status == RPC_OK;
}

static const struct rpc_event_handler handlers[] = {
    {.source = "shop", .event_type = "happened", .name = "on_event", .requeue_on_error = true, .handler = on_event}};
static const struct rpc_method methods[] = {{.name = "work",
                                             .parameters = (const char *const[]){"number", "pad", NULL},
                                             .parameters_required = 2,
                                             .handler = on_work}};

/* False when out of memory; what was made stays. */
static bool world_start(void)
{
    network_in_rpclib = true;
    world.connection = rpc_connection_new(&(struct rpc_connection_options){
        .loop = fake_loop_base(world.loop), .uri = "amqp://127.0.0.1", .name = "torture", .heartbeat_s = 2});
    if (world.connection != NULL)
        world.client =
            rpc_client_new(world.connection, &(struct rpc_client_options){.name = "torture", .calls_max = 8});
    if (world.client != NULL)
        world.service = rpc_service_new(world.connection, &(struct rpc_service_options){.name = "shop",
                                                                                        .methods = methods,
                                                                                        .methods_count = 1,
                                                                                        .event_handlers = handlers,
                                                                                        .event_handlers_count = 1});
    if (world.service != NULL)
        world.publisher = rpc_publisher_new(world.connection,
                                            &(struct rpc_publisher_options){.source = "shop", .unconfirmed_max = 8});
    network_in_rpclib = false;
    return world.publisher != NULL;
}

static void world_end(void)
{
    struct rpc_incoming *held = world.held;

    network_in_rpclib = true;
    rpc_client_free(world.client);
    rpc_publisher_free(world.publisher);
    rpc_service_free(world.service);
    if (held != NULL)
        rpc_incoming_answer_json(held, NULL);
    rpc_connection_free(world.connection);
    network_in_rpclib = false;
    broker_free(world.broker);
    if (network_next(NULL) != NULL)
        torture_violated("a socket is left");
    if (fake_loop_handles(world.loop) > 0)
        torture_violated("handles of the loop are left");
    else
        fake_loop_free(world.loop);
}

static void check_ends(void)
{
    for (unsigned i = 0; i < CALLS; i++) {
        if (world.calls[i].ended != world.calls[i].taken || world.events[i].ended != world.events[i].taken)
            torture_violated("call or event %u ended %u and %u times", i, world.calls[i].ended, world.events[i].ended);
        if (world.executed[i] > 0 && rpc_status_nothing_done(world.calls[i].status))
            torture_violated("call %u ended with %s and was executed", i, rpc_status_name(world.calls[i].status));
    }
}

/* What fell while the last call and event were under way is theirs, where it took the link. */
static void check_last(bool fell_before)
{
    bool ok = world.calls[CALLS - 1].status == RPC_OK && world.events[CALLS - 1].status == RPC_OK;
    bool may_fail = !torture_fell() || (fault == TORTURE_RESET && !fell_before);

    if (!ok && !may_fail)
        torture_violated("afterwards, a call ends with %s and an event with %s",
                         rpc_status_name(world.calls[CALLS - 1].status),
                         rpc_status_name(world.events[CALLS - 1].status));
}

/* What is whole, if late, is answered. */
static void check_nothing_failed(void)
{
    for (unsigned i = 0; i < CALLS; i++) {
        enum rpc_status wanted = i == 4 ? RPC_UNKNOWN_SERVICE : i == 1 || i == 2 ? RPC_REMOTE_ERROR : RPC_OK;

        if ((i < CALLS_ALONE || i == CALLS - 1) && world.events[i].status != RPC_OK)
            torture_violated("event %u ended with %s", i, rpc_status_name(world.events[i].status));
        if (world.calls[i].status != wanted || (i != 4 && world.executed[i] != 1))
            torture_violated("call %u ended with %s and was executed %u times", i,
                             rpc_status_name(world.calls[i].status), world.executed[i]);
    }
}

static void everything(void)
{
    static const struct broker_watcher watcher = {.on_publish = on_publish, .on_violation = on_violation};
    struct rpc_context *context;
    bool fell;

    memset(&world, 0, sizeof(world));
    network_reset();
    network_on_close(on_close);
    world.loop = fake_loop_new();
    world.broker = broker_new(&world.random, &watcher);
    broker_rules(world.broker)->heartbeat_s = 2;
    if (world_start()) {
        world_run(RUN_MS, is_ready);
        network_in_rpclib = true;
        context = rpc_context_new("torture", "test");
        if (context != NULL)
            rpc_context_set(context, "language", RPC_BYTES("en"));
        for (unsigned i = 0; i < CALLS_ALONE; i++) {
            call(i, context);
            event(i, context);
        }
        rpc_context_free(context);
        network_in_rpclib = false;
        world_run(TIMEOUT_MS / 2, all_ended);
        network_in_rpclib = true;
        if (world.held != NULL)
            rpc_incoming_answer(world.held, RPC_BYTES("{}"));
        world.held = NULL;
        network_in_rpclib = false;
        world_run(RUN_MS, all_ended);
        network_in_rpclib = true;
        for (unsigned i = CALLS_ALONE; i < CALLS - 1; i++)
            call(i, NULL);
        network_in_rpclib = false;
        world_run(RUN_MS, all_ended);
        world_run(RUN_MS, is_ready); /* one failure is over by now */
        if (!is_ready())
            torture_violated("not ready: client %d, service %d, publisher %d", rpc_client_ready(world.client),
                             rpc_service_ready(world.service), rpc_publisher_ready(world.publisher));
        fell = torture_fell();
        call(CALLS - 1, NULL);
        event(CALLS - 1, NULL);
        world_run(RUN_MS, all_ended);
        check_last(fell);
        if (fault == TORTURE_AGAIN || fault == TORTURE_SHORT)
            check_nothing_failed();
        world_run(1000, all_finished);
        if (world.finished < world.accepted)
            torture_violated("%u events were in the queue, %u were handled", world.accepted, world.finished);
        check_ends();
        network_in_rpclib = true;
        rpc_connection_close(world.connection, 1000, on_closed, NULL);
        network_in_rpclib = false;
        world_run(RUN_MS, is_closed);
        if (world.closed != 1)
            torture_violated("closed %u times", world.closed);
    } else if (!torture_fell()) {
        torture_violated("cannot start, though no allocation failed");
    }
    world_end();
}

/* ---- What is pure ------------------------------------------------------------------------------------------------ */

static void pure(void)
{
    static const char body[] =
        "{\"args\": [1, \"\xc3\xa9\", [2.5, 1e999, 99999999999999999999]], \"kwargs\": {\"a\": {}}}";
    static const char failure[] = "{\"result\": null, \"error\": {\"exc_type\": \"T\", \"exc_path\": \"a.T\", "
                                  "\"exc_args\": [{\"b\": 1}], \"value\": \"v\"}}";
    const char *const names[] = {"args", "kwargs"};
    char reason[WIRE_REASON_SIZE], why[RPC_JSON_REASON_SIZE];
    json_t *bound[RPC_PARAMETERS_MAX];
    struct rpc_bytes values[2];
    struct wire_answer answer;
    enum rpc_status status;
    struct rpc_context *context, *stored;
    struct wire_call call;
    struct rpc_text out = {0};
    json_t *value;
    char *text;

    network_in_rpclib = true;
    if (wire_call_parse(&call, rpc_bytes_of(body), reason) == WIRE_CALL_OK)
        (void)wire_bind(&methods[0], &call, bound, reason);
    wire_call_clear(&call);
    status = wire_answer_parse(&answer, rpc_bytes_of(failure));
    if (status == RPC_REMOTE_ERROR)
        (void)wire_error(&out, &answer.reply.error);
    else if (status != RPC_LOST || !torture_fell())
        torture_violated("an error is %s", rpc_status_name(status));
    wire_answer_clear(&answer);
    (void)wire_error(&out, &(struct rpc_error){.value = RPC_BYTES("no \xff such")});
    (void)wire_request(&out, RPC_BYTES("[]"), RPC_BYTES("{}"));
    (void)rpc_json_members(rpc_bytes_of(body), 2, names, values);
    value = rpc_json_load(rpc_bytes_of(body), why);
    if (value != NULL)
        (void)python_repr(&out, value);
    json_decref(value);
    context = rpc_context_new("a", "b");
    if (context != NULL) {
        (void)rpc_context_set(context, "k", RPC_BYTES("v"));
        text = rpc_context_to_json(context, NULL);
        stored = text == NULL ? NULL : rpc_context_from_json(rpc_bytes_of(text));
        rpc_context_free(stored);
        free(text);
    }
    rpc_context_free(context);
    rpc_text_clear(&out);
    network_in_rpclib = false;
}

int main(void)
{
    static const enum torture_fault faults[] = {TORTURE_RESET, TORTURE_AGAIN, TORTURE_SHORT};

    torture_begin(&(struct torture_options){.when = &network_in_rpclib, .spared = spared});
    torture("pure", TORTURE_NO_MEMORY, pure);
    torture("everything", TORTURE_NO_MEMORY, everything);
    network_transfer = torture_transfer;
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        fault = faults[i];
        torture("everything", fault, everything);
    }
    return torture_end();
}

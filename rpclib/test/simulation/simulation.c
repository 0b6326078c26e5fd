/*
 * simulation: a gateway's client on one side, a service with its publisher on the other, a broker between them, and every
 * fault there is, in one program whose clock, network and chance a seed decides.
 *
 *     simulation --seeds 10000 --first 1
 *     simulation --first 4711 --trace      the story of one seed; the same at each run
 *
 * What must hold, whatever happens:
 *   - a call ends exactly once, and not behind its deadline
 *   - a status that says that nothing was done is never a lie; a result is the one of its own call
 *   - a request that was acknowledged was answered; an event that was acknowledged was handled
 *   - a publish that ended well is in the queue; no event that got there is lost
 *   - what is bounded stays within its bound
 *   - a service that cannot work leaves its queues to its fellow, and never are they left by both
 *   - when the faults are over, all of it works again by itself, and at last lets go of all it held
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include <jansson.h>

#include "amqp/frame.h"
#include "batch.h"
#include "broker.h"
#include "connection.h"
#include "fake_loop.h"
#include "network.h"
#include "rpclib/client.h"
#include "rpclib/log.h"
#include "rpclib/publisher.h"
#include "rpclib/service.h"

#define CALLS_MAX        256 /* the last of them for the time after healing: late answers tell them apart by place */
#define EVENTS_MAX       160
#define HELD_MAX         128
#define CHAOS_STEPS      300
#define STEP_MS_MAX      25
#define HEAL_LIMIT_MS    20000 /* silence is noticed, the next attempt made, the channels opened again */
#define WORKS_LIMIT_MS   5000
#define PROOFS           3    /* calls, and events, that must go well after healing */
#define ROUNDS           3    /* of them, see check_standby() */
#define STANDBY_LIMIT_MS 2500 /* one look round and what comes of it, the next one at the latest */
#define IDLE_MS          6000
#define IDLE_STEP_MS     100
#define IN_FLIGHT_MAX    10
#define UNCONFIRMED_MAX  6
#define OUTPUT_MAX       24000
#define PAD_MAX          9000
#define PREFETCH         4
#define HEARTBEAT_S      1
#define CONFIRM_MS       3000
#define MESSAGE_MAX      (PAD_MAX + 2000)
#define REQUESTS_QUEUE   "rpc-shop"
#define EVENTS_QUEUE     "evt-shop-happened--shop.on_event"
#define LETTERS_QUEUE    "shop.dead-letters"
#define ATTEMPTS_MAX     3 /* of an event: its delays fit into HEAL_LIMIT_MS */

struct call {
    bool taken;             /* rpc_call() said RPC_OK */
    bool cancelled;         /* or its client was freed: it ends with RPC_CANCELLED or not at all */
    unsigned ended;         /* so often */
    enum rpc_status status; /* its end, or why it was not taken */
    uint64_t deadline_ms;
    unsigned executed;
    bool answered; /* the broker has seen an answer to it */
    char correlation_id[BROKER_NAME_SIZE];
    rpc_call_id id;
};

struct event {
    bool taken;
    unsigned ended;
    unsigned queued;  /* the broker put it into a queue */
    unsigned handled; /* so often; also what was rejected for good */
    unsigned copies;  /* the service has put it into other queues, and it was not settled there yet */
    bool buried;      /* one of them is the dead letters' */
    bool excused;     /* its queue was deleted */
};

/* One of two instances of the service; the second is there in every other run. */
struct shop {
    const char *name;
    struct rpc_service *service;
    bool unable; /* its store is away */
    unsigned executed;
};

struct held {
    struct shop *shop;
    struct rpc_incoming *request;
    struct rpc_event *event;
    unsigned number;
    uint64_t due_ms;
    bool waits; /* for the store */
};

/* Far ends of the network's links that are out of order. */
struct wire {
    struct broker_link *link; /* NULL: the broker knows nothing of it (any more) */
    uint64_t frozen_until_ms; /* nothing moves */
    uint64_t cut_after;       /* bytes more, in either direction; UINT64_MAX: not */
};

static struct world {
    uint64_t seed;
    bool trace;
    bool failed;
    struct random random;
    struct fake_loop *loop;
    struct broker *broker;
    bool broker_down;
    uint64_t broker_back_ms, alarm_over_ms;
    bool alarm;
    bool healing;

    struct rpc_connection *front, *back;
    struct rpc_client *client;
    struct shop shop, fellow;
    bool has_fellow;
    struct rpc_publisher *publisher;
    bool service_stopping;
    bool dead_letters; /* the service keeps them */
    bool retries;      /* and tries events again */
    /* 0: it is there. */
    uint64_t client_back_ms, service_back_ms, fellow_back_ms, publisher_back_ms, front_back_ms, back_back_ms;
    bool closed_front, closed_back;

    struct call calls[CALLS_MAX];
    unsigned calls_count;
    struct event events[EVENTS_MAX];
    unsigned events_count;
    struct held held[HELD_MAX];
    unsigned held_count;
    unsigned batches; /* that the broker was sent, requests and answers */
} world;

static uint64_t now_ms(void)
{
    return rpc_loop_now_ms(fake_loop_base(world.loop));
}

__attribute__((format(printf, 1, 2))) static void story(const char *format, ...)
{
    va_list arguments;

    if (!world.trace)
        return;
    printf("%8.3f  ", (double)(world.loop == NULL ? 0 : now_ms() - FAKE_LOOP_START_MS) / 1000);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

__attribute__((format(printf, 1, 2))) static void violated(const char *format, ...)
{
    va_list arguments;

    printf("seed %llu: ", (unsigned long long)world.seed);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    story("VIOLATED, see above");
    world.failed = true;
}

static unsigned below(unsigned limit)
{
    return random_below(&world.random, limit);
}

static bool percent(unsigned chance)
{
    return random_percent(&world.random, chance);
}

/* ---- What is taken from the system ------------------------------------------------------------------------------- */

ssize_t __wrap_getrandom(void *data, size_t size, unsigned flags);
void __wrap_rpc_log_write(enum rpc_log_level level, const char *message, const struct rpc_log_field *fields,
                          size_t count);

/*
 * Identifiers come from a stream of their own: rpclib takes many at a time and keeps what is left for the next seed, which
 * must not change that one's story.
 */
ssize_t __wrap_getrandom(void *data, size_t size, unsigned flags)
{
    static struct random identifiers = {.state = 1};
    struct random *random = size > sizeof(uint64_t) ? &identifiers : &world.random;

    (void)flags;
    for (size_t at = 0; at < size; at += sizeof(uint64_t)) {
        uint64_t value = random_next(random);

        memcpy((char *)data + at, &value, size - at < sizeof(value) ? size - at : sizeof(value));
    }
    return (ssize_t)size;
}

void __wrap_rpc_log_write(enum rpc_log_level level, const char *message, const struct rpc_log_field *fields,
                          size_t count)
{
    char line[600];
    size_t used = (size_t)snprintf(line, sizeof(line), "log %d: %s", (int)level, message);

    for (size_t i = 0; i < count && used < sizeof(line); i++) {
        if (fields[i].key == NULL || strcmp(fields[i].key, "correlation_id") == 0)
            continue;
        if (fields[i].is_text)
            used += (size_t)snprintf(line + used, sizeof(line) - used, " %s=%.*s", fields[i].key,
                                     (int)fields[i].text.size, fields[i].text.data);
        else
            used += (size_t)snprintf(line + used, sizeof(line) - used, " %s=%lld", fields[i].key,
                                     (long long)fields[i].integer);
    }
    story("%s", line);
}

/* ---- Calls ------------------------------------------------------------------------------------------------------- */

static void start_call(void);

static void call_check_end(unsigned number, enum rpc_status status, const struct rpc_reply *reply)
{
    struct call *call = &world.calls[number];
    char expected[16], result[16] = "";

    snprintf(expected, sizeof(expected), "%u", number);
    if (call->ended > 1)
        violated("call %u ended %u times", number, call->ended);
    if (!call->taken)
        violated("call %u ended from inside rpc_call(), or was not taken", number);
    if (call->cancelled && status != RPC_CANCELLED)
        violated("call %u was cancelled and ended with %s", number, rpc_status_name(status));
    if (now_ms() > call->deadline_ms + 1)
        violated("call %u ended %llu ms behind its deadline", number,
                 (unsigned long long)(now_ms() - call->deadline_ms));
    if ((reply != NULL) != (status == RPC_OK || status == RPC_REMOTE_ERROR))
        violated("call %u: %s %s a reply", number, rpc_status_name(status), reply == NULL ? "without" : "with");
    if (reply == NULL)
        return;
    if (status == RPC_OK)
        snprintf(result, sizeof(result), "%.*s", (int)reply->result.size, reply->result.data);
    else
        snprintf(result, sizeof(result), "%.*s", (int)reply->error.value.size, reply->error.value.data);
    if (strcmp(result, expected) != 0)
        violated("call %u got the answer of %s", number, result);
    if (call->executed == 0)
        violated("call %u was answered and never executed", number);
}

static void on_reply(enum rpc_status status, const struct rpc_reply *reply, void *arg)
{
    struct call *call = arg;
    unsigned number = (unsigned)(call - world.calls);

    call->ended++;
    call->status = status;
    story("call %u: %s", number, rpc_status_name(status));
    call_check_end(number, status, reply);
    if (!world.healing && status != RPC_CANCELLED && percent(15))
        start_call();
    if (!world.healing && world.client != NULL && percent(5)) {
        unsigned other = below(world.calls_count);

        if (world.calls[other].taken && world.calls[other].ended == 0 && !world.calls[other].cancelled) {
            story("call %u is cancelled within a callback", other);
            world.calls[other].cancelled = true;
            rpc_client_cancel(world.client, world.calls[other].id);
        }
    }
}

static const char *padding(void)
{
    static char pad[PAD_MAX + 1];
    size_t size = world.healing || percent(70) ? below(40) : percent(70) ? below(5000) : below(PAD_MAX);

    memset(pad, 'p', size);
    pad[size] = '\0';
    return pad;
}

static void start_call(void)
{
    static char args[MESSAGE_MAX];
    unsigned number = world.calls_count;
    struct call *call = &world.calls[number];
    int timeout_ms = 1 + (int)(percent(80) ? below(1500) : below(6000));
    bool known = world.healing || percent(95);

    if (world.client == NULL || number == CALLS_MAX - (world.healing ? 0 : PROOFS * ROUNDS))
        return;
    world.calls_count++;
    if (world.healing)
        timeout_ms = WORKS_LIMIT_MS;
    snprintf(args, sizeof(args), "[%u, \"%s\"]", number, padding());
    call->deadline_ms = now_ms() + (uint64_t)timeout_ms;
    call->status = rpc_call(world.client,
                            &(struct rpc_request){.service = known ? "shop" : "nobody",
                                                  .method = "work",
                                                  .args = rpc_bytes_of(args),
                                                  .timeout_ms = timeout_ms},
                            on_reply, call, &call->id);
    call->taken = call->status == RPC_OK;
    story("call %u%s within %d ms, %zu bytes: %s", number, known ? "" : " to nobody", timeout_ms, strlen(args),
          rpc_status_name(call->status));
}

/* ---- Events ------------------------------------------------------------------------------------------------------ */

static bool publish_event(void);

static void on_confirm(enum rpc_status status, void *arg)
{
    struct event *event = arg;
    unsigned number = (unsigned)(event - world.events);

    story("event %u: %s", number, rpc_status_name(status));
    if (++event->ended > 1)
        violated("event %u ended %u times", number, event->ended);
    if (!event->taken)
        violated("event %u ended from inside rpc_publish(), or was not taken", number);
    if (status == RPC_OK && event->queued == 0)
        violated("event %u ended well and is in no queue", number);
    if (rpc_status_nothing_done(status) && event->queued > 0)
        violated("event %u ended with %s and is in a queue", number, rpc_status_name(status));
    if (!world.healing && percent(25)) {
        while (publish_event() && percent(70)) /* as an outbox that has more */
            ;
    }
}

/* Returns whether it was taken. */
static bool publish_event(void)
{
    static char body[MESSAGE_MAX];
    unsigned number = world.events_count;
    struct event *event = &world.events[number];
    enum rpc_status status;

    if (world.publisher == NULL || number == EVENTS_MAX)
        return false;
    world.events_count++;
    snprintf(body, sizeof(body), "{\"event\": %u, \"pad\": \"%s\"}", number, padding());
    status = rpc_publish(world.publisher, "happened", rpc_bytes_of(body), NULL, on_confirm, event);
    event->taken = status == RPC_OK;
    story("event %u, %zu bytes: %s", number, strlen(body), rpc_status_name(status));
    return event->taken;
}

/* ---- The service ------------------------------------------------------------------------------------------------- */

static struct held *hold(struct shop *shop, struct rpc_incoming *request, struct rpc_event *event, unsigned number,
                         unsigned delay_ms)
{
    if (world.held_count == HELD_MAX) {
        violated("%u requests and events are held", HELD_MAX);
        return &world.held[0];
    }
    world.held[world.held_count++] = (struct held){
        .shop = shop, .request = request, .event = event, .number = number, .due_ms = now_ms() + delay_ms};
    return &world.held[world.held_count - 1];
}

static void answer(struct rpc_incoming *request, unsigned number, bool well)
{
    char text[16];

    snprintf(text, sizeof(text), "%u", number);
    if (well)
        rpc_incoming_answer(request, rpc_bytes_of(text));
    else
        rpc_incoming_fail(request, "NotFound", text);
}

static void on_work(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    unsigned number = (unsigned)json_integer_value(arguments[0]);
    struct shop *shop = arg;

    if (number >= world.calls_count) {
        violated("call %u is executed and was never made", number);
        return;
    }
    world.calls[number].executed++;
    shop->executed++;
    story("%s works on call %u%s", shop->name, number, rpc_incoming_redelivered(request) ? " again" : "");
    if (shop->unable) {
        answer(request, number, false);
        return;
    }
    if (percent(10) && rpc_incoming_context(request) == NULL)
        violated("no context");
    if (world.healing || percent(50))
        answer(request, number, percent(80));
    else
        hold(shop, request, NULL, number, percent(75) ? below(300) : below(3000));
}

static void event_finish(struct rpc_event *event, unsigned number)
{
    if (world.healing || percent(80)) {
        world.events[number].handled++;
        story("event %u is handled", number);
        rpc_event_done(event);
    } else if (percent(85)) {
        story("event %u fails", number);
        rpc_event_fail(event, "chance");
    } else {
        world.events[number].handled++;
        story("event %u is rejected", number);
        rpc_event_reject(event, "chance");
    }
}

/* It waits for the store, unless somebody else may have one. */
static void event_wait(struct shop *shop, struct rpc_event *event, unsigned number)
{
    if (rpc_event_standby(event)) {
        story("event %u is left to others", number);
        rpc_event_hand_back(event);
    } else {
        hold(shop, NULL, event, number, 0)->waits = true;
    }
}

static void on_standby(void *arg)
{
    for (unsigned at = world.held_count; at-- > 0;) {
        struct held held = world.held[at];

        if (held.shop == arg && held.waits) {
            world.held[at] = world.held[--world.held_count];
            event_wait(held.shop, held.event, held.number);
        }
    }
}

static void on_event(struct rpc_event *event, json_t *data, void *arg)
{
    unsigned number = (unsigned)json_integer_value(json_object_get(data, "event"));
    struct shop *shop = arg;

    if (number >= world.events_count) {
        violated("event %u arrives and was never made", number);
        return;
    }
    story("event %u arrives%s", number, rpc_event_redelivered(event) ? " again" : "");
    if (shop->unable)
        event_wait(shop, event, number);
    else if (world.healing || percent(60))
        event_finish(event, number);
    else
        hold(shop, NULL, event, number, below(500));
}

static void finish_held(void)
{
    unsigned at = 0;

    while (at < world.held_count) {
        struct held held = world.held[at];

        if (held.waits ? held.shop->unable : held.due_ms > now_ms() && !world.healing) {
            at++;
            continue;
        }
        world.held[at] = world.held[--world.held_count];
        if (held.request != NULL)
            answer(held.request, held.number, true);
        else
            event_finish(held.event, held.number);
    }
}

/* ---- What the broker sees ---------------------------------------------------------------------------------------- */

static bool number_in(struct rpc_bytes body, const char *behind, unsigned *number)
{
    const char *at = memmem(body.data, body.size, behind, strlen(behind));

    return at != NULL && sscanf(at + strlen(behind), "%u", number) == 1;
}

static struct call *call_by_id(struct rpc_bytes correlation_id)
{
    for (unsigned i = 0; i < world.calls_count; i++) {
        if (rpc_bytes_equal(correlation_id, world.calls[i].correlation_id))
            return &world.calls[i];
    }
    return NULL;
}

/* One request or answer, whether it came alone or in a batch. */
typedef void message_fn(struct rpc_bytes correlation_id, struct rpc_bytes body);

/* The correlation id among encoded properties; lent from the pool. */
static struct rpc_bytes correlation_id_in(struct rpc_bytes raw_properties, amqp_pool_t *pool)
{
    void *decoded;

    if (amqp_decode_properties(AMQP_BASIC_CLASS, pool, frame_bytes(raw_properties), &decoded) < 0)
        abort();
    return frame_text(((const amqp_basic_properties_t *)decoded)->correlation_id);
}

static void each_message(const struct broker_message *message, message_fn *fn)
{
    struct mq_message whole = {.body = message->body};
    struct batch_reader batch;
    struct batch_entry entry;
    amqp_pool_t pool;
    void *properties;

    init_amqp_pool(&pool, 4096);
    if (amqp_decode_properties(AMQP_BASIC_CLASS, &pool, frame_bytes(message->raw_properties), &properties) < 0)
        abort();
    whole.properties = properties;
    if (!batch_open(&batch, &whole)) {
        fn(rpc_bytes_of(message->correlation_id), message->body);
    } else {
        world.batches++;
        if (!batch_is_sound(batch))
            violated("a batch is not sound");
        while (batch_next(&batch, &entry))
            fn(entry.properties.size > 0 ? correlation_id_in(entry.properties, &pool) : entry.key, entry.body);
    }
    empty_amqp_pool(&pool);
}

static void request_published(struct rpc_bytes correlation_id, struct rpc_bytes body)
{
    unsigned number = 0;

    if (!number_in(body, "{\"args\": [", &number) || number >= world.calls_count) {
        violated("the broker got a request that was never made");
        return;
    }
    snprintf(world.calls[number].correlation_id, BROKER_NAME_SIZE, "%.*s", (int)correlation_id.size,
             correlation_id.data);
    story("  call %u", number);
}

static void answer_published(struct rpc_bytes correlation_id, struct rpc_bytes body)
{
    struct call *call = call_by_id(correlation_id);

    (void)body;
    if (call == NULL) {
        violated("the broker got an answer to nothing");
        return;
    }
    call->answered = true;
    story("  the answer to call %u", (unsigned)(call - world.calls));
}

static void request_settled(struct rpc_bytes correlation_id, struct rpc_bytes body)
{
    const struct call *call = call_by_id(correlation_id);

    (void)body;
    if (call == NULL || !call->answered)
        violated("a request was acknowledged and never answered");
}

static void broker_on_publish(const struct broker_message *message, unsigned queues, bool accepted, void *arg)
{
    unsigned number = 0;

    (void)arg;
    if (message->exchange[0] == '\0') { /* a dead letter, or what is tried again */
        if (number_in(message->body, "\"event\": ", &number) && number < world.events_count) {
            world.events[number].copies += queues;
            world.events[number].buried |= queues > 0 && strcmp(message->routing_key, LETTERS_QUEUE) == 0;
        }
        story("the broker %s a message for %s (%u queues)", accepted ? "has" : "refuses", message->routing_key, queues);
        return;
    }
    if (strcmp(message->exchange, "shop.events") == 0) {
        if (!number_in(message->body, "\"event\": ", &number) || number >= world.events_count) {
            violated("the broker got an event that was never published");
            return;
        }
        if (!message->persistent)
            violated("event %u is not persistent", number);
        world.events[number].queued += queues;
        story("the broker %s event %u (%u queues)", accepted ? "has" : "refuses", number, queues);
    } else if (message->reply_to[0] != '\0') {
        story("the broker has this for the service (%u queues):", queues);
        each_message(message, request_published);
    } else {
        story("the broker has this for the client (%u queues):", queues);
        each_message(message, answer_published);
    }
}

static void broker_on_settled(const struct broker_message *message, const char *queue, enum broker_fate fate, void *arg)
{
    unsigned number = 0;

    (void)arg;
    if (message->poison) {
        if (fate != BROKER_REJECTED)
            violated("what was no request and no event was acknowledged");
        return;
    }
    if (fate == BROKER_REJECTED && strncmp(queue, "rpc-", 4) == 0)
        violated("a sound request was rejected for good");
    if (fate == BROKER_REJECTED)
        return;
    if (message->reply_to[0] != '\0') {
        each_message(message, request_settled);
    } else if (number_in(message->body, "\"event\": ", &number) && number < world.events_count) {
        struct event *event = &world.events[number];

        if (event->handled == 0 && event->copies == 0)
            violated("event %u was acknowledged, never handled, and is nowhere else", number);
        if (event->copies > 0)
            event->copies--;
    }
}

static void broker_on_violation(const char *what, void *arg)
{
    (void)arg;
    violated("against AMQP: %s", what);
}

static void broker_on_story(const char *line, void *arg)
{
    (void)arg;
    story("broker: %s", line);
}

/* ---- The network ------------------------------------------------------------------------------------------------- */

static struct wire *wire_of(struct network_link *link)
{
    if (link->far_end == NULL) {
        struct wire *wire = calloc(1, sizeof(*wire));

        if (wire == NULL)
            abort();
        wire->cut_after = UINT64_MAX;
        link->far_end = wire;
    }
    return link->far_end;
}

/* What rpclib wrote before it closed may arrive yet, all of it or a part. */
static void on_close(struct network_link *link)
{
    struct wire *wire = wire_of(link);

    if (wire->link != NULL) {
        size_t part = percent(50) ? link->outbound.size : below((unsigned)link->outbound.size + 1);

        if (broker_reads(wire->link) && wire->cut_after == UINT64_MAX && part > 0)
            broker_receive(world.broker, wire->link, (struct rpc_bytes){link->outbound.data, part}, now_ms());
        broker_drop(world.broker, wire->link);
    }
    free(wire);
    link->far_end = NULL;
}

/* The link is cut.  What the broker sent may arrive before the end is seen, or not. */
static void wire_cut(struct network_link *link, int error)
{
    struct wire *wire = wire_of(link);

    story("link %d is cut: %s", link->fd - NETWORK_FIRST_FD, error == 0 ? "end" : strerror(error));
    if (wire->link != NULL)
        broker_drop(world.broker, wire->link);
    wire->link = NULL;
    wire->frozen_until_ms = 0;
    if (error != 0)
        link->inbound.size = 0;
    link->gone = true;
    link->gone_error = error;
}

/* A part of what is waiting, within what the wire still carries. */
static size_t wire_part(struct wire *wire, size_t waiting)
{
    size_t part = waiting;

    if (!world.healing && percent(40))
        part = percent(50) ? below(12) : below((unsigned)waiting + 1);
    if (part > waiting)
        part = waiting;
    if (part > wire->cut_after)
        part = wire->cut_after;
    if (wire->cut_after != UINT64_MAX)
        wire->cut_after -= part;
    return part;
}

static void wire_carry(struct network_link *link, struct wire *wire)
{
    struct frames *output;
    size_t part;

    if (broker_reads(wire->link) && link->outbound.size > 0) {
        part = wire_part(wire, link->outbound.size);
        broker_receive(world.broker, wire->link, (struct rpc_bytes){link->outbound.data, part}, now_ms());
        frames_consume(&link->outbound, part);
    }
    output = broker_output(wire->link);
    if (output->size > 0) {
        part = wire_part(wire, output->size);
        frames_append(&link->inbound, (struct rpc_bytes){output->data, part});
        frames_consume(output, part);
    }
    if (wire->cut_after == 0) {
        wire_cut(link, percent(50) ? ECONNRESET : 0);
    } else if (output->size == 0 && broker_closes(wire->link)) {
        broker_drop(world.broker, wire->link);
        wire->link = NULL;
        link->gone = true;
    }
}

static void wire_connect(struct network_link *link, struct wire *wire)
{
    char name[32];

    if (world.broker_down) {
        link->connect_error = ECONNREFUSED;
    } else {
        snprintf(name, sizeof(name), "link %d", link->fd - NETWORK_FIRST_FD);
        wire->link = broker_accept(world.broker, name);
        if (wire->link == NULL)
            link->connect_error = ECONNREFUSED;
        else
            link->connected = true;
    }
    fake_loop_fire(world.loop, link->fd, RPC_LOOP_WRITE);
}

static void wire_step(struct network_link *link)
{
    struct wire *wire = wire_of(link);
    unsigned watched, ready = 0;
    int fd = link->fd;

    if (wire->frozen_until_ms > now_ms() || (!world.healing && percent(30)))
        return;
    if (!link->connected && !link->gone) {
        wire_connect(link, wire);
        return;
    }
    if (wire->link != NULL)
        wire_carry(link, wire);
    if (!world.healing) {
        link->read_max = percent(70) ? SIZE_MAX : 1 + below(200);
        link->write_max = percent(70) ? SIZE_MAX : 1 + below(200);
        link->room = percent(60) ? SIZE_MAX : percent(50) ? 0 : below(5000);
    } else {
        link->read_max = link->write_max = link->room = SIZE_MAX;
    }
    watched = fake_loop_watched(world.loop, fd);
    if ((watched & RPC_LOOP_READ) && (link->inbound.size > 0 || link->gone))
        ready |= RPC_LOOP_READ;
    if ((watched & RPC_LOOP_WRITE) && (link->room > 0 || link->gone))
        ready |= RPC_LOOP_WRITE;
    if (ready != 0)
        fake_loop_fire(world.loop, fd, ready);
}

static void network_step(void)
{
    int fds[BROKER_LINKS_MAX], count = 0;

    for (struct network_link *link = network_next(NULL); link != NULL; link = network_next(link))
        fds[count++] = link->fd;
    while (count-- > 0) { /* a step may close links, and open others in their places */
        for (struct network_link *link = network_next(NULL); link != NULL; link = network_next(link)) {
            if (link->fd == fds[count]) {
                wire_step(link);
                break;
            }
        }
    }
}

/* ---- The processes ----------------------------------------------------------------------------------------------- */

static struct rpc_connection *connect_as(const char *name)
{
    struct rpc_connection *connection =
        rpc_connection_new(&(struct rpc_connection_options){.loop = fake_loop_base(world.loop),
                                                            .uri = "amqp://127.0.0.1",
                                                            .name = name,
                                                            .output_size_max = OUTPUT_MAX,
                                                            .connect_timeout_ms = 1000,
                                                            .heartbeat_s = HEARTBEAT_S});

    if (connection == NULL)
        abort();
    return connection;
}

static void client_start(void)
{
    world.client_back_ms = 0;
    world.client =
        rpc_client_new(world.front, &(struct rpc_client_options){.name = "front", .calls_max = IN_FLIGHT_MAX});
    if (world.client == NULL)
        abort();
}

static void shop_open(struct shop *shop, struct rpc_connection *connection)
{
    static const char *const parameters[] = {"number", "pad", NULL};
    static const struct rpc_method methods[] = {
        {.name = "work", .parameters = parameters, .parameters_required = 2, .handler = on_work}};
    static const struct rpc_event_handler requeues = {
        .source = "shop", .event_type = "happened", .name = "on_event", .requeue_on_error = true, .handler = on_event};
    static const struct rpc_event_handler retries = {.source = "shop",
                                                     .event_type = "happened",
                                                     .name = "on_event",
                                                     .attempts_max = ATTEMPTS_MAX,
                                                     .handler = on_event};

    shop->unable = !world.healing && percent(30);
    shop->service = rpc_service_new(
        connection, &(struct rpc_service_options){.name = "shop",
                                                  .methods = methods,
                                                  .methods_count = 1,
                                                  .event_handlers = world.retries ? &retries : &requeues,
                                                  .event_handlers_count = 1,
                                                  .keep_dead_letters = world.dead_letters,
                                                  .prefetch = PREFETCH,
                                                  .unable = shop->unable,
                                                  .on_standby = on_standby,
                                                  .arg = shop});
    if (shop->service == NULL)
        abort();
}

/* What it held is answered to nobody. */
static void shop_close(struct shop *shop)
{
    rpc_service_free(shop->service);
    shop->service = NULL;
    shop->unable = false;
}

static void service_start(void)
{
    world.service_back_ms = 0;
    world.service_stopping = false;
    shop_open(&world.shop, world.back);
}

static void fellow_start(void)
{
    world.fellow_back_ms = 0;
    if (world.has_fellow)
        shop_open(&world.fellow, world.front);
}

static void shop_set_able(struct shop *shop, bool able)
{
    if (shop->service == NULL)
        return;
    story("%s is %s", shop->name, able ? "able" : "unable");
    shop->unable = !able;
    rpc_service_set_able(shop->service, able);
}

static void publisher_start(void)
{
    world.publisher_back_ms = 0;
    world.publisher = rpc_publisher_new(world.back, &(struct rpc_publisher_options){.source = "shop",
                                                                                    .unconfirmed_max = UNCONFIRMED_MAX,
                                                                                    .mandatory = true,
                                                                                    .confirm_timeout_ms = CONFIRM_MS});
    if (world.publisher == NULL)
        abort();
}

static void client_free(void)
{
    struct rpc_client *client = world.client;

    for (unsigned i = 0; i < world.calls_count; i++)
        world.calls[i].cancelled = world.calls[i].cancelled || (world.calls[i].taken && world.calls[i].ended == 0);
    world.client = NULL;
    rpc_client_free(client);
}

static void publisher_free(void)
{
    struct rpc_publisher *publisher = world.publisher;

    world.publisher = NULL;
    rpc_publisher_free(publisher);
}

static void on_service_stopped(void *arg)
{
    (void)arg;
    story("the service has stopped");
    shop_close(&world.shop);
    world.service_back_ms = now_ms() + 1 + below(500);
}

static bool due(uint64_t moment_ms)
{
    return moment_ms != 0 && (world.healing || now_ms() >= moment_ms);
}

/* What was taken down comes back. */
static void processes_step(void)
{
    if (due(world.front_back_ms)) {
        world.front = connect_as("front");
        world.front_back_ms = 0;
        world.client_back_ms = world.fellow_back_ms = 1;
    }
    if (due(world.back_back_ms)) {
        world.back = connect_as("back");
        world.back_back_ms = 0;
        world.service_back_ms = world.publisher_back_ms = 1;
    }
    if (world.front != NULL && due(world.client_back_ms))
        client_start();
    if (world.front != NULL && due(world.fellow_back_ms))
        fellow_start();
    if (world.back != NULL && due(world.service_back_ms))
        service_start();
    if (world.back != NULL && due(world.publisher_back_ms))
        publisher_start();
    if (world.broker_down && (world.healing || now_ms() >= world.broker_back_ms)) {
        story("the broker is back");
        world.broker_down = false;
    }
    if (world.alarm && (world.healing || now_ms() >= world.alarm_over_ms)) {
        story("the alarm is over");
        world.alarm = false;
        broker_alarm(world.broker, false);
    }
}

/* ---- Faults ------------------------------------------------------------------------------------------------------ */

static struct network_link *any_link(void)
{
    struct network_link *link = network_next(NULL);

    if (link != NULL && percent(50) && network_next(link) != NULL)
        link = network_next(link);
    return link;
}

static struct broker_link *any_broker_link(void)
{
    struct network_link *link = any_link();

    return link == NULL ? NULL : wire_of(link)->link;
}

static void fault_cut(void)
{
    struct network_link *link = any_link();

    if (link == NULL)
        return;
    if (percent(50)) {
        wire_cut(link, percent(50) ? ECONNRESET : 0);
    } else {
        wire_of(link)->cut_after = below(3000);
        story("link %d will be cut after %llu bytes", link->fd - NETWORK_FIRST_FD,
              (unsigned long long)wire_of(link)->cut_after);
    }
}

static void fault_freeze(void)
{
    struct network_link *link = any_link();

    if (link == NULL)
        return;
    wire_of(link)->frozen_until_ms = now_ms() + below(5000);
    story("link %d is frozen until %.3f", link->fd - NETWORK_FIRST_FD,
          (double)(wire_of(link)->frozen_until_ms - FAKE_LOOP_START_MS) / 1000);
}

/* The broker forgets the link, and nobody tells the client. */
static void fault_half_open(void)
{
    struct network_link *link = any_link();

    if (link == NULL || wire_of(link)->link == NULL)
        return;
    story("link %d is half open", link->fd - NETWORK_FIRST_FD);
    broker_drop(world.broker, wire_of(link)->link);
    wire_of(link)->link = NULL;
}

static void fault_restart_broker(void)
{
    story("the broker restarts");
    for (struct network_link *link = network_next(NULL); link != NULL; link = network_next(link))
        wire_cut(link, percent(50) ? ECONNRESET : 0);
    broker_restart(world.broker);
    world.alarm = false;
    world.broker_down = true;
    world.broker_back_ms = now_ms() + below(2000);
}

static void fault_alarm(void)
{
    story("an alarm");
    world.alarm = true;
    world.alarm_over_ms = now_ms() + below(2500);
    broker_alarm(world.broker, true);
}

static void fault_delete_queue(void)
{
    const char *prefix = percent(40) ? "evt-" : percent(50) ? "rpc-shop" : "rpc.reply-";
    const char *name = broker_queue_like(world.broker, prefix);
    char copy[BROKER_NAME_SIZE];

    if (name == NULL)
        return;
    snprintf(copy, sizeof(copy), "%s", name);
    if (prefix[0] == 'e') {
        for (unsigned i = 0; i < world.events_count; i++)
            world.events[i].excused = true;
    }
    broker_delete_queue(world.broker, copy);
}

static void fault_reply(void)
{
    const char *queue = broker_queue_like(world.broker, "rpc.reply-");
    const char *id = "ffffffff-ffff-4fff-bfff-ffffffffffff";
    char body[80];

    if (queue == NULL)
        return;
    snprintf(body, sizeof(body), "{\"result\": %u, \"error\": null}", CALLS_MAX + 7);
    if (percent(60)) { /* one that was answered, once more */
        const struct call *call = &world.calls[below(world.calls_count + 1)];

        if (call->ended == 0 || call->correlation_id[0] == '\0')
            return;
        id = call->correlation_id;
    }
    broker_inject(
        world.broker, queue, "x",
        &(amqp_basic_properties_t){._flags = AMQP_BASIC_CORRELATION_ID_FLAG, .correlation_id = amqp_cstring_bytes(id)},
        rpc_bytes_of(body), false);
}

/* A Nameko instance on the same queue gets the next request.  A batch is a method that it does not have. */
static void fault_stranger(void)
{
    static const char refusal[] = "{\"result\": null, \"error\": {\"exc_type\": \"MethodNotFound\", \"exc_args\": []}}";
    const struct broker_message *message = broker_first(world.broker, "rpc-shop");
    const char *queue = broker_queue_like(world.broker, "rpc.reply-");

    if (message == NULL || queue == NULL || strcmp(message->routing_key, "shop." BATCH_METHOD) != 0)
        return;
    story("a batch goes to somebody who does not know what that is");
    broker_inject(world.broker, queue, message->reply_to,
                  &(amqp_basic_properties_t){._flags = AMQP_BASIC_CORRELATION_ID_FLAG,
                                             .correlation_id = amqp_cstring_bytes(message->correlation_id)},
                  rpc_bytes_of(refusal), false);
    broker_drop_first(world.broker, "rpc-shop");
}

static void fault_poison(void)
{
    static const char *const bodies[] = {"", "{", "no JSON", "\xff\xfe", "[1, 2", "{\"args\": [1], \"kwargs\": {}}\n}"};

    broker_inject(world.broker, percent(50) ? REQUESTS_QUEUE : EVENTS_QUEUE, "shop.work", &(amqp_basic_properties_t){0},
                  rpc_bytes_of(bodies[below(6)]), true);
}

static void fault_stop_service(void)
{
    if (world.shop.service == NULL || world.service_stopping)
        return;
    story("the service stops");
    world.service_stopping = true;
    rpc_service_stop(world.shop.service, (int)below(1500), on_service_stopped, NULL);
}

static void fault_store(void)
{
    struct shop *shop = percent(50) ? &world.shop : &world.fellow;

    if (shop != &world.shop || !world.service_stopping)
        shop_set_able(shop, shop->unable);
}

static void fault_process(void)
{
    switch (below(4)) {
    case 0:
        if (world.client != NULL) {
            story("the client is freed");
            client_free();
            world.client_back_ms = now_ms() + 1 + below(300);
        }
        break;
    case 1:
        if (world.publisher != NULL) {
            story("the publisher is freed");
            publisher_free();
            world.publisher_back_ms = now_ms() + 1 + below(300);
        }
        break;
    case 2:
        if (world.client != NULL) {
            story("the front is freed");
            client_free();
            shop_close(&world.fellow);
            rpc_connection_free(world.front);
            world.front = NULL;
            world.client_back_ms = world.fellow_back_ms = 0;
            world.front_back_ms = now_ms() + 1 + below(500);
        }
        break;
    default:
        if (world.shop.service != NULL && !world.service_stopping && world.publisher != NULL) {
            story("the back is freed");
            shop_close(&world.shop);
            publisher_free();
            rpc_connection_free(world.back);
            world.back = NULL;
            world.service_back_ms = world.publisher_back_ms = 0;
            world.back_back_ms = now_ms() + 1 + below(500);
        }
        break;
    }
}

static void any_fault(void)
{
    struct broker_link *link;

    switch (below(17)) {
    case 0:
    case 1:
    case 2:
        fault_cut();
        break;
    case 3:
        fault_freeze();
        break;
    case 4:
        fault_half_open();
        break;
    case 5:
        fault_restart_broker();
        break;
    case 6:
        fault_alarm();
        break;
    case 7:
        link = any_broker_link();
        if (link != NULL)
            broker_close_channel(world.broker, link);
        break;
    case 8:
        link = any_broker_link();
        if (link != NULL)
            broker_close_link(world.broker, link);
        break;
    case 9:
        fault_delete_queue();
        break;
    case 10:
        fault_reply();
        break;
    case 11:
        fault_poison();
        break;
    case 12:
        fault_stop_service();
        break;
    case 13:
    case 14:
        fault_store();
        break;
    case 15:
        fault_stranger();
        break;
    default:
        fault_process();
        break;
    }
}

/* ---- A run ------------------------------------------------------------------------------------------------------- */

static void check_bounds(void)
{
    const struct rpc_connection *connections[] = {world.front, world.back};

    if (world.client != NULL && rpc_client_in_flight(world.client) > IN_FLIGHT_MAX)
        violated("%u calls in flight", rpc_client_in_flight(world.client));
    if (world.publisher != NULL && rpc_publisher_unconfirmed(world.publisher) > UNCONFIRMED_MAX)
        violated("%u events unconfirmed", rpc_publisher_unconfirmed(world.publisher));
    if (world.shop.service != NULL && !world.service_stopping && rpc_service_in_flight(world.shop.service) > HELD_MAX)
        violated("%u requests under way", rpc_service_in_flight(world.shop.service));
    for (unsigned i = 0; i < 2; i++) {
        const struct mq *mq = connections[i] == NULL ? NULL : connection_mq(connections[i]);

        /* The bound is on what is published; acknowledgements and one message alone may stand above it. */
        if (mq != NULL && mq_output(mq).size > OUTPUT_MAX + MESSAGE_MAX)
            violated("%zu bytes of output", mq_output(mq).size);
    }
}

static void step(void)
{
    processes_step();
    finish_held();
    network_step();
    broker_tick(world.broker, now_ms());
    fake_loop_advance(world.loop, below(STEP_MS_MAX));
    check_bounds();
}

static void chaos(void)
{
    unsigned fault_permille = below(60), call_percent = below(50), event_percent = below(30);
    unsigned burst_percent = percent(50) ? below(90) : 0; /* calls of one turn share messages */

    for (unsigned i = 0; i < CHAOS_STEPS; i++) {
        if (percent(call_percent)) {
            do
                start_call();
            while (percent(burst_percent));
        }
        if (percent(event_percent))
            publish_event();
        if (below(1000) < fault_permille)
            any_fault();
        if (percent(2) && world.calls_count > 0 && world.client != NULL) {
            struct call *call = &world.calls[below(world.calls_count)];

            if (call->taken && call->ended == 0 && !call->cancelled) {
                story("call %u is cancelled", (unsigned)(call - world.calls));
                call->cancelled = true;
                rpc_client_cancel(world.client, call->id);
            }
        }
        step();
    }
}

/* Nothing is half open or frozen any more, and no bad news under way. */
static bool wires_work(void)
{
    for (struct network_link *link = network_next(NULL); link != NULL; link = network_next(link)) {
        const struct wire *wire = wire_of(link);

        if (wire->link == NULL || wire->frozen_until_ms > now_ms() || link->gone || link->inbound.size > 0 ||
            broker_output(wire->link)->size > 0)
            return false;
    }
    return true;
}

/* Events that are not handled yet, wherever they wait. */
static unsigned events_depth(void)
{
    return broker_depth(world.broker, EVENTS_QUEUE) + broker_depth(world.broker, EVENTS_QUEUE ".retry-0") +
           broker_depth(world.broker, EVENTS_QUEUE ".retry-1000") +
           broker_depth(world.broker, EVENTS_QUEUE ".retry-5000");
}

static bool all_up(void)
{
    return wires_work() && world.client != NULL && rpc_client_ready(world.client) && world.shop.service != NULL &&
           !world.service_stopping && rpc_service_ready(world.shop.service) && world.publisher != NULL &&
           rpc_publisher_ready(world.publisher) && rpc_client_in_flight(world.client) == 0 &&
           rpc_publisher_unconfirmed(world.publisher) == 0 && world.held_count == 0 &&
           (!world.has_fellow || (world.fellow.service != NULL && rpc_service_ready(world.fellow.service))) &&
           broker_depth(world.broker, REQUESTS_QUEUE) == 0 && events_depth() == 0;
}

/* The faults are over: links that are half open or frozen stay so until they are given up. */
static void heal(void)
{
    uint64_t limit_ms = now_ms() + HEAL_LIMIT_MS;

    story("healing");
    world.healing = true;
    *broker_rules(world.broker) = (struct broker_rules){.heartbeat_s = 60};
    for (struct network_link *link = network_next(NULL); link != NULL; link = network_next(link))
        wire_of(link)->cut_after = UINT64_MAX;
    shop_set_able(&world.shop, true);
    shop_set_able(&world.fellow, true);
    while (!all_up() && now_ms() < limit_ms && !world.failed)
        step();
    if (!all_up())
        violated("not all is up %d ms after the last fault: client %d, service %d, publisher %d, in flight %u, "
                 "unconfirmed %u, held %u, requests %u, events %u",
                 HEAL_LIMIT_MS, world.client != NULL && rpc_client_ready(world.client),
                 world.shop.service != NULL && rpc_service_ready(world.shop.service),
                 world.publisher != NULL && rpc_publisher_ready(world.publisher),
                 world.client == NULL ? 0 : rpc_client_in_flight(world.client),
                 world.publisher == NULL ? 0 : rpc_publisher_unconfirmed(world.publisher), world.held_count,
                 broker_depth(world.broker, REQUESTS_QUEUE), events_depth());
}

static void check_works(void)
{
    unsigned first_call, first_event;
    uint64_t limit_ms = now_ms() + WORKS_LIMIT_MS;

    world.events_count = world.events_count > EVENTS_MAX - PROOFS ? EVENTS_MAX - PROOFS : world.events_count;
    first_call = world.calls_count;
    if (first_call + PROOFS > CALLS_MAX)
        abort();
    first_event = world.events_count;
    memset(&world.calls[first_call], 0, PROOFS * sizeof(struct call));
    memset(&world.events[first_event], 0, PROOFS * sizeof(struct event));
    for (int i = 0; i < PROOFS; i++) {
        start_call();
        publish_event();
    }
    while (!all_up() && now_ms() < limit_ms)
        step();
    for (unsigned i = 0; i < PROOFS; i++) {
        if (world.calls[first_call + i].status != RPC_OK && world.calls[first_call + i].status != RPC_REMOTE_ERROR)
            violated("after healing, call %u ends with %s", first_call + i,
                     rpc_status_name(world.calls[first_call + i].status));
        if (world.events[first_event + i].ended != 1 || world.events[first_event + i].handled == 0)
            violated("after healing, event %u ended %u times and was handled %u times", first_event + i,
                     world.events[first_event + i].ended, world.events[first_event + i].handled);
    }
}

/* As many consume both queues. */
static bool consumed_by(unsigned count)
{
    return broker_consumers(world.broker, REQUESTS_QUEUE) == count &&
           broker_consumers(world.broker, EVENTS_QUEUE) == count;
}

/*
 * Until so many consume both queues, and at least so long; no queue is without a consumer for longer than it takes to
 * look round.
 */
static void check_consumed_by(unsigned count, uint64_t least_ms)
{
    static const char *const queues[] = {REQUESTS_QUEUE, EVENTS_QUEUE};
    uint64_t start_ms = now_ms(), limit_ms = start_ms + least_ms + STANDBY_LIMIT_MS,
             consumed_ms[] = {start_ms, start_ms};

    while ((now_ms() < start_ms + least_ms || !consumed_by(count)) && now_ms() < limit_ms && !world.failed) {
        step();
        for (unsigned i = 0; i < 2; i++) {
            if (broker_consumers(world.broker, queues[i]) > 0)
                consumed_ms[i] = now_ms();
            else if (now_ms() - consumed_ms[i] > RPC_STANDBY_MS + STEP_MS_MAX)
                violated("nobody consumes %s", queues[i]);
        }
    }
    if (!consumed_by(count) && !world.failed)
        violated("%u consume requests, %u consume events, not %u", broker_consumers(world.broker, REQUESTS_QUEUE),
                 broker_consumers(world.broker, EVENTS_QUEUE), count);
}

/* An instance without a store leaves the work to one that has its own; of two without, one stays. */
static void check_standby(void)
{
    unsigned executed;

    check_consumed_by(2, 0);
    shop_set_able(&world.shop, false);
    check_consumed_by(1, 0);
    executed = world.shop.executed;
    check_works();
    if (world.shop.executed != executed)
        violated("an instance that stands by was given a request");
    shop_set_able(&world.fellow, false);
    check_consumed_by(1, 3 * STANDBY_LIMIT_MS);
    shop_set_able(&world.shop, true);
    check_consumed_by(1, 0);
    shop_set_able(&world.fellow, true);
    check_consumed_by(2, 0);
    shop_set_able(&world.shop, false);
    shop_set_able(&world.fellow, false);
    check_consumed_by(1, 3 * STANDBY_LIMIT_MS);
    shop_set_able(&world.fellow, true);
    shop_set_able(&world.shop, true);
    check_consumed_by(2, 0);
    check_works();
}

/* With nothing to do the links stay, by heartbeats alone. */
static void check_idle(void)
{
    unsigned opened = network_opened();

    for (int i = 0; i < IDLE_MS / IDLE_STEP_MS; i++) {
        network_step();
        broker_tick(world.broker, now_ms());
        fake_loop_advance(world.loop, IDLE_STEP_MS);
    }
    if (network_opened() != opened || !all_up())
        violated("a link was given up though nothing was wrong with it");
}

static void check_story(void)
{
    for (unsigned i = 0; i < world.calls_count; i++) {
        const struct call *call = &world.calls[i];

        if (call->taken && call->ended == 0 && !call->cancelled)
            violated("call %u never ended", i);
        if (call->executed > 0 && (call->ended > 0 || !call->taken) && rpc_status_nothing_done(call->status))
            violated("call %u ended with %s and was executed", i, rpc_status_name(call->status));
    }
    for (unsigned i = 0; i < world.events_count; i++) {
        const struct event *event = &world.events[i];

        if (event->taken && event->ended == 0)
            violated("event %u never ended", i);
        if (event->queued > 0 && event->handled == 0 && !event->buried && !event->excused)
            violated("event %u was in the queue and is lost", i);
    }
}

static void on_closed(void *arg)
{
    *(bool *)arg = true;
}

static void go_home(void)
{
    uint64_t limit_ms = now_ms() + 3000;

    shop_close(&world.fellow);
    world.service_stopping = true;
    rpc_service_stop(world.shop.service, 1000, on_service_stopped, NULL);
    while (world.shop.service != NULL && now_ms() < limit_ms) {
        network_step();
        broker_tick(world.broker, now_ms());
        fake_loop_advance(world.loop, 5);
    }
    if (world.shop.service != NULL)
        violated("the service does not stop");
    rpc_connection_close(world.front, 1000, on_closed, &world.closed_front);
    rpc_connection_close(world.back, 1000, on_closed, &world.closed_back);
    while (!(world.closed_front && world.closed_back) && now_ms() < limit_ms) {
        network_step();
        broker_tick(world.broker, now_ms());
        fake_loop_advance(world.loop, 5);
    }
    if (!world.closed_front || !world.closed_back)
        violated("a connection does not close");
}

static void start(void)
{
    static const struct broker_watcher watcher = {.on_publish = broker_on_publish,
                                                  .on_settled = broker_on_settled,
                                                  .on_violation = broker_on_violation,
                                                  .on_story = broker_on_story};

    network_reset();
    network_on_close(on_close);
    world.loop = fake_loop_new();
    world.broker = broker_new(&world.random, &watcher);
    *broker_rules(world.broker) = (struct broker_rules){.nack_percent = percent(30) ? below(30) : 0,
                                                        .confirm_delay_max_ms = below(400),
                                                        .multiple_percent = below(100),
                                                        .heartbeat_s = (uint16_t)(1 + below(3))};
    world.dead_letters = percent(50);
    world.has_fellow = percent(50);
    world.retries = world.dead_letters && percent(60);
    world.shop.name = "shop";
    world.fellow.name = "fellow";
    world.front = connect_as("front");
    world.back = connect_as("back");
    client_start();
    service_start();
    fellow_start();
    publisher_start();
}

static void end(void)
{
    if (world.client != NULL)
        client_free();
    if (world.publisher != NULL)
        publisher_free();
    shop_close(&world.shop);
    shop_close(&world.fellow);
    world.healing = true;
    finish_held();
    rpc_connection_free(world.front);
    rpc_connection_free(world.back);
    world.front = world.back = NULL;
    if (network_next(NULL) != NULL)
        violated("a socket is left open");
    if (fake_loop_handles(world.loop) > 0)
        violated("%zu handles of the loop are left", fake_loop_handles(world.loop));
    else
        fake_loop_free(world.loop);
    world.loop = NULL;
    broker_free(world.broker);
}

/* Returns whether all held. */
static bool run(uint64_t seed, bool trace)
{
    memset(&world, 0, sizeof(world));
    world.seed = seed;
    world.random.state = seed;
    world.trace = trace;
    random_next(&world.random);
    start();
    chaos();
    heal();
    if (!world.failed)
        check_works();
    if (!world.failed && world.has_fellow)
        check_standby();
    if (!world.failed)
        check_idle();
    if (!world.failed)
        check_story();
    if (!world.failed)
        go_home();
    end();
    return !world.failed;
}

int main(int argc, char *argv[])
{
    uint64_t first = 1, seeds = 1, failed = 0, calls = 0, executed = 0, events = 0, batches = 0;
    uint64_t ends[RPC_CANCELLED + 1] = {0};
    bool trace = false;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--trace") == 0) {
            trace = true;
        } else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc) {
            seeds = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--first") == 0 && i + 1 < argc) {
            first = strtoull(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "usage: simulation [--seeds N] [--first SEED] [--trace]\n");
            return 2;
        }
    }
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        failed += !run(seed, trace);
        calls += world.calls_count;
        events += world.events_count;
        batches += world.batches;
        for (unsigned i = 0; i < world.calls_count; i++) {
            executed += world.calls[i].executed;
            if (world.calls[i].ended > 0 || !world.calls[i].taken)
                ends[world.calls[i].status]++;
        }
    }
    printf("%llu seeds, %llu failed; %llu calls, executed %llu times, %llu batches, %llu events; calls ended:",
           (unsigned long long)seeds, (unsigned long long)failed, (unsigned long long)calls,
           (unsigned long long)executed, (unsigned long long)batches, (unsigned long long)events);
    for (unsigned status = RPC_OK; status <= RPC_CANCELLED; status++) {
        if (ends[status] > 0)
            printf(" %s %llu", rpc_status_name((enum rpc_status)status), (unsigned long long)ends[status]);
    }
    putchar('\n');
    return failed > 0;
}

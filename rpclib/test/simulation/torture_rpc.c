/*
 * torture_rpc: the command `rpc`, from its words to its exit code, while the n-th allocation, read or write fails, or the
 * link breaks at the n-th step, for each n.  No crash, no leak; exit code 0 says that all of it is true and printed, any
 * other one comes with a reason; and no dead letter is in neither place, whenever it was to be replayed or purged.
 *
 * main() is the command's own.  Of libevent it asks for a base and for a loop on it: these are the test's, so that a
 * simulated broker can be at the other end.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker.h"
#include "fake_loop.h"
#include "network.h"
#include "torture.h"

int rpc_main(int argc, char *argv[]);
#define main rpc_main
#include "../../tools/rpc.c"
#undef main

#define STEP_MS     5
#define STEPS_MAX   20000 /* of one command: longer than its time limit */
#define CUTS_MAX    2000
#define WORDS_MAX   8
#define OUTPUT_SIZE 4096
#define LETTERS     "shop.dead-letters"
#define REQUESTS    "rpc-shop"
#define EVENTS      "evt-shop-happened--other.on_event"

void __wrap_rpc_log_write(enum rpc_log_level level, const char *message, const struct rpc_log_field *fields,
                          size_t count);

void __wrap_rpc_log_write(enum rpc_log_level level, const char *message, const struct rpc_log_field *fields,
                          size_t count)
{
    (void)level;
    (void)message;
    (void)fields;
    (void)count;
}

/* See torture.c: what rabbitmq-c 0.11 cannot lose without a leak of its own. */
static bool spared(size_t size, bool again)
{
    return size == 131072 || size == sizeof(void *) || (again && size <= 8 * sizeof(void *) && size % 8 == 0);
}

/* ---- The world --------------------------------------------------------------------------------------------------- */

struct event_base {
    bool leaves;
};

static struct {
    struct random random;
    struct fake_loop *loop;
    struct broker *broker;
    unsigned published; /* events that the broker took */
    long cut_at;        /* the step at which the link breaks; 0: it does not */
    long steps;
    bool cut;
} world;

static struct printed {
    char out[OUTPUT_SIZE], error[OUTPUT_SIZE];
} expected, printed;

static FILE *test_output;

static uint64_t now_ms(void)
{
    return rpc_loop_now_ms(fake_loop_base(world.loop));
}

static void on_publish(const struct broker_message *message, unsigned queues, bool accepted, void *arg)
{
    (void)accepted;
    (void)arg;
    if (strcmp(message->exchange, "shop.events") == 0)
        world.published += queues;
}

/* Told where the test tells, not where the command prints. */
static void violated(const char *what)
{
    FILE *was = stdout;

    stdout = test_output;
    torture_violated("%s", what);
    stdout = was;
}

static void on_violation(const char *what, void *arg)
{
    (void)arg;
    violated(what);
}

static void on_close(struct network_link *link)
{
    if (link->far_end != NULL)
        broker_drop(world.broker, link->far_end);
}

/* The service, played by hand: whoever asks is greeted. */
static void serve(void)
{
    const struct broker_message *request = broker_first(world.broker, REQUESTS);
    const char *reply_queue = broker_queue_like(world.broker, "rpc.reply-");
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG};

    if (request == NULL)
        return;
    properties.content_type = amqp_cstring_bytes("application/json");
    properties.correlation_id = amqp_cstring_bytes(request->correlation_id);
    if (reply_queue != NULL)
        broker_inject(world.broker, reply_queue, request->reply_to, &properties,
                      RPC_BYTES("{\"result\": \"Hello, Ada!\", \"error\": null}"), false);
    broker_drop_first(world.broker, REQUESTS);
}

static void far_end_step(void)
{
    struct network_link *link = network_link();

    broker_tick(world.broker, now_ms());
    serve();
    if (link != NULL && ++world.steps == world.cut_at && link->connected) {
        world.cut = true;
        link->gone = true;
        link->gone_error = ECONNRESET;
        link->inbound.size = 0;
    } else if (link != NULL && !link->connected) {
        link->far_end = broker_accept(world.broker, "link");
        link->connected = true;
    } else if (link != NULL && link->far_end != NULL && !link->gone) {
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
}

static void world_step(void)
{
    struct network_link *link;

    network_in_rpclib = false;
    far_end_step();
    network_in_rpclib = true;
    link = network_link();
    if (link != NULL) {
        unsigned watched = fake_loop_watched(world.loop, link->fd);
        unsigned ready =
            (watched & RPC_LOOP_WRITE) | (link->inbound.size > 0 || link->gone ? watched & RPC_LOOP_READ : 0u);

        if (ready != 0)
            fake_loop_fire(world.loop, link->fd, ready);
    }
    fake_loop_advance(world.loop, STEP_MS);
}

/* ---- What the command has of libevent ---------------------------------------------------------------------------- */

struct event_base *event_base_new(void)
{
    return calloc(1, sizeof(struct event_base));
}

void event_base_free(struct event_base *base)
{
    free(base);
}

int event_base_loopbreak(struct event_base *base)
{
    base->leaves = true;
    return 0;
}

int event_base_dispatch(struct event_base *base)
{
    unsigned steps = 0;

    while (!base->leaves && steps++ < STEPS_MAX)
        world_step();
    if (!base->leaves)
        violated("it never ends");
    return 0;
}

struct rpc_loop *rpc_loop_libevent_new(struct event_base *base)
{
    (void)base;
    return fake_loop_base(world.loop);
}

void rpc_loop_libevent_free(struct rpc_loop *loop)
{
    (void)loop;
}

/* ---- One command ------------------------------------------------------------------------------------------------- */

static const char *const *command;
static enum torture_fault fault; /* what this run meets */

static void letter_put(const char *body)
{
    amqp_table_entry_t entries[] = {
        {.key = amqp_cstring_bytes("x-airship-cause"),
         .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes("no such product")}},
        {.key = amqp_cstring_bytes("x-airship-queue"),
         .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(EVENTS)}},
    };
    const amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_HEADERS_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG,
        .headers = {.num_entries = sizeof(entries) / sizeof(entries[0]), .entries = entries},
        .delivery_mode = 2};

    broker_inject(world.broker, LETTERS, "happened", &properties, rpc_bytes_of(body), false);
}

static void world_begin(void)
{
    static const struct broker_watcher watcher = {.on_publish = on_publish, .on_violation = on_violation};
    long cut_at = world.cut_at;

    memset(&world, 0, sizeof(world));
    world.cut_at = cut_at;
    network_reset();
    network_on_close(on_close);
    world.loop = fake_loop_new();
    world.broker = broker_new(&world.random, &watcher);
    broker_declare(world.broker, REQUESTS, "nameko-rpc", "shop.*");
    broker_declare(world.broker, EVENTS, "shop.events", "happened");
    broker_declare(world.broker, LETTERS, NULL, NULL);
    letter_put("{\"order\": 1}");
    letter_put("{\"order\": 2}");
}

static void world_end(void)
{
    broker_free(world.broker);
    if (network_next(NULL) != NULL)
        torture_violated("a socket is left");
    if (fake_loop_handles(world.loop) > 0)
        torture_violated("handles of the loop are left");
    else
        fake_loop_free(world.loop);
}

/* The command writes into memory of the test's. */
static int run_command(void)
{
    char words[WORDS_MAX][64], *argv[WORDS_MAX + 1];
    FILE *was_out = stdout, *was_error = stderr;
    int count = 0, exit_code;

    for (; command[count] != NULL; count++) {
        snprintf(words[count], sizeof(words[count]), "%s", command[count]);
        argv[count] = words[count];
    }
    argv[count] = NULL;
    memset(&printed, 0, sizeof(printed));
    stdout = fmemopen(printed.out, sizeof(printed.out), "w");
    stderr = fmemopen(printed.error, sizeof(printed.error), "w");
    network_in_rpclib = true;
    exit_code = rpc_main(count, argv);
    network_in_rpclib = false;
    fclose(stdout);
    fclose(stderr);
    stdout = was_out;
    stderr = was_error;
    return exit_code;
}

static bool says(const char *verb)
{
    return strcmp(command[1], verb) == 0 || (command[2] != NULL && command[3] != NULL && strcmp(command[3], verb) == 0);
}

/* Neither lost nor changed by those who only look. */
static void check_letters(int exit_code)
{
    unsigned letters = broker_depth(world.broker, LETTERS), events = broker_depth(world.broker, EVENTS);
    bool replays = says("replay") && command[5] == NULL; /* no dry run */
    unsigned wanted = replays || says("purge") ? (strcmp(command[4], "all") == 0 ? 2 : 1) : 0;

    if (letters > 2 || letters + wanted < 2)
        torture_violated("%u letters are left of 2, and %u were to go", letters, wanted);
    if (replays && letters + events < 2)
        torture_violated("%u letters and %u events are left of 2", letters, events);
    if (exit_code == RPC_EXIT_OK && letters + wanted != 2)
        torture_violated("exit code 0, and %u letters are left of 2", letters);
    if (exit_code == RPC_EXIT_OK && replays && events != wanted)
        torture_violated("exit code 0, and %u events of %u", events, wanted);
}

static void check_end(int exit_code)
{
    bool is_late_alone = fault == TORTURE_AGAIN || fault == TORTURE_SHORT;

    if (exit_code != RPC_EXIT_OK && exit_code != RPC_EXIT_FAILED && !(exit_code == RPC_EXIT_USAGE && torture_fell()))
        torture_violated("exit code %d", exit_code);
    if (exit_code != RPC_EXIT_OK && printed.error[0] == '\0')
        torture_violated("exit code %d without a reason", exit_code);
    if (exit_code == RPC_EXIT_OK && strcmp(printed.out, expected.out) != 0)
        torture_violated("exit code 0 with \"%s\", not \"%s\"", printed.out, expected.out);
    if (exit_code == RPC_EXIT_OK && says("publish") && world.published == 0)
        torture_violated("exit code 0 without an event");
    if (exit_code != RPC_EXIT_OK && (!torture_fell() || is_late_alone) && !world.cut)
        torture_violated("exit code %d, though nothing failed: %s", exit_code, printed.error);
    if (!says("publish"))
        check_letters(exit_code);
}

static void run(void)
{
    int exit_code;

    network_in_rpclib = false;
    world_begin();
    exit_code = run_command();
    check_end(exit_code);
    world_end();
}

/* ---- All of them ------------------------------------------------------------------------------------------------- */

/* The link breaks at each step that a command has. */
static void cut(const char *name)
{
    long cuts = 0;

    do {
        world.cut_at = ++cuts;
        world.cut = false;
        run();
    } while ((world.cut || cuts < 3) && cuts < CUTS_MAX); /* not yet connected at the first steps */
    world.cut_at = 0;
    printf("%s: the link broke at %ld steps, one after another\n", name, cuts - 1);
    if (cuts < 6 || cuts == CUTS_MAX)
        torture_violated("%s: %ld steps", name, cuts);
}

static void torture_command(const char *name, const char *const words[])
{
    command = words;
    memset(&expected, 0, sizeof(expected));
    world_begin();
    if (run_command() != RPC_EXIT_OK)
        torture_violated("%s does not work at all: %s", name, printed.error);
    expected = printed;
    world_end();
    cut(name);
    for (fault = TORTURE_NO_MEMORY; fault <= TORTURE_SHORT; fault++)
        torture(name, fault, run);
    fault = TORTURE_NO_MEMORY;
}

#define WORDS(...)               \
    (const char *const[])        \
    {                            \
        "rpc", __VA_ARGS__, NULL \
    }

int main(void)
{
    test_output = stdout;
    setenv("AMQP_URI", "amqp://127.0.0.1", 1);
    setenv("RPC_TIMEOUT_MS", "4000", 1);
    network_transfer = torture_transfer;
    torture_begin(&(struct torture_options){.when = &network_in_rpclib, .spared = spared});
    torture_command("call", WORDS("call", "shop", "greet", "[\"Ada\"]", "{\"a\": 1}"));
    torture_command("publish", WORDS("publish", "shop", "happened", "{\"a\": 1}"));
    torture_command("list", WORDS("dead-letters", "shop", "list"));
    torture_command("show", WORDS("dead-letters", "shop", "show", "2"));
    torture_command("dry run", WORDS("dead-letters", "shop", "replay", "all", "--dry-run"));
    torture_command("replay", WORDS("dead-letters", "shop", "replay", "1"));
    torture_command("replay all", WORDS("dead-letters", "shop", "replay", "all"));
    torture_command("purge", WORDS("dead-letters", "shop", "purge", "1"));
    torture_command("purge all", WORDS("dead-letters", "shop", "purge", "all"));
    return torture_end();
}

/*
 * service: requests and events as a broker delivers them.  Each delivery is settled once, at once, since these handlers
 * answer at once; a request that is acknowledged got one answer, at its reply_to, under its correlation id, in a body that a
 * client can read; one that is refused got none.
 *
 * The input is a list of messages: a byte that says what is in it, then each text behind its size, then a body behind two
 * bytes of size.
 */
#include <fuzz.h>

#include "fuzz_peer.h"
#include "python.h"
#include "rpclib/json.h"
#include "rpclib/log.h"
#include "rpclib/publisher.h"
#include "rpclib/service.h"
#include "wire.h"

#define REQUESTS     1 /* the channels, in the order in which the service opens them */
#define EVENTS       2
#define MESSAGES_MAX 24 /* of one input */
#define TEXT_MAX     255
#define HEADERS_MAX  4

enum parts {
    IS_EVENT = 1,
    HAS_CONTENT_TYPE = 2,
    HAS_CORRELATION_ID = 4,
    HAS_EXPIRATION = 8,
    HAS_HEADERS = 16,
    HAS_REPLY_TO = 32, /* of its own; else a sound one */
    HAS_METHOD = 64,   /* likewise */
    IS_AGAIN = 128,
};

static struct rpc_service *service;
static unsigned handled; /* requests that came to a handler */

/* ---- The service ------------------------------------------------------------------------------------------------- */

static void on_echo(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    json_t *both = json_pack("[O, O*]", arguments[0], arguments[1]);

    (void)arg;
    handled++;
    HOLDS(arguments[0] != NULL && both != NULL);
    rpc_incoming_answer_json(request, both);
    json_decref(both);
}

static void on_fail(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    (void)arg;
    handled++;
    rpc_incoming_fail(request, "NotFound", json_is_string(arguments[0]) ? json_string_value(arguments[0]) : "none");
}

static void on_validate(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    (void)arg;
    handled++;
    rpc_incoming_fail_validation(request, arguments[0]);
}

/* Answers with what travels on from here. */
static void on_context(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    struct rpc_context *context = rpc_incoming_context(request);
    char *text;

    (void)arg;
    (void)arguments;
    handled++;
    HOLDS(context != NULL && strlen(rpc_incoming_correlation_id(request)) <= TEXT_MAX);
    text = rpc_context_to_json(context, NULL);
    HOLDS(text != NULL);
    rpc_incoming_answer(request, rpc_bytes_of(text));
    free(text);
}

#define PARAMETERS(...)   \
    (const char *const[]) \
    {                     \
        __VA_ARGS__, NULL \
    }

static const struct rpc_method methods[] = {
    {"echo", PARAMETERS("a", "b"), 1, on_echo},
    {"fail", PARAMETERS("how"), 1, on_fail},
    {"validate", PARAMETERS("messages"), 1, on_validate},
    {"context", NULL, 0, on_context},
};
#define METHODS_COUNT (sizeof(methods) / sizeof(methods[0]))

static void on_event(struct rpc_event *event, json_t *data, void *arg)
{
    (void)arg;
    HOLDS(data != NULL && rpc_event_context(event) != NULL);
    if (json_is_true(data))
        rpc_event_fail(event, "cause");
    else if (json_is_null(data))
        rpc_event_reject(event, "cause");
    else if (json_is_false(data))
        rpc_event_hand_back(event);
    else
        rpc_event_done(event);
}

static const struct rpc_event_handler handlers[] = {
    {.source = "orders", .event_type = "order_created", .name = "on_order", .handler = on_event},
};

static void start(void)
{
    rpc_log_configure("fuzz", RPC_LOG_ERROR + 1, RPC_LOG_LOGFMT);
    fuzz_peer_begin();
    service = rpc_service_new(peer.connection, &(struct rpc_service_options){.name = "products",
                                                                             .methods = methods,
                                                                             .methods_count = METHODS_COUNT,
                                                                             .event_handlers = handlers,
                                                                             .event_handlers_count = 1});
    HOLDS(service != NULL);
    peer_run();
    HOLDS(rpc_service_ready(service));
    peer.story[0] = '\0';
}

/* ---- One message ------------------------------------------------------------------------------------------------- */

struct message {
    amqp_basic_properties_t properties;
    amqp_table_entry_t headers[HEADERS_MAX];
    char routing_key[TEXT_MAX + 1];
    char reply_to[TEXT_MAX + 1], correlation_id[TEXT_MAX + 1];
    struct rpc_bytes body;
    bool is_event;
};

static amqp_bytes_t text_next(struct rpc_bytes *input)
{
    return frames_in(fuzz_take(input, fuzz_byte(input)));
}

/* As a string, for those who compare: what stands behind a NUL is not looked at. */
static void keep(char out[TEXT_MAX + 1], amqp_bytes_t text)
{
    if (text.len > 0)
        memcpy(out, text.bytes, text.len);
    out[text.len] = '\0';
}

static void set_headers(struct message *message, struct rpc_bytes *input)
{
    int count = fuzz_byte(input) % (HEADERS_MAX + 1);

    for (int i = 0; i < count; i++)
        message->headers[i] = (amqp_table_entry_t){
            .key = text_next(input), .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = text_next(input)}};
    message->properties.headers = (amqp_table_t){.num_entries = count, .entries = message->headers};
    message->properties._flags |= AMQP_BASIC_HEADERS_FLAG;
}

static void message_next(struct message *message, uint8_t parts, struct rpc_bytes *input)
{
    amqp_basic_properties_t *properties = &message->properties;
    size_t size;

    *message = (struct message){.is_event = parts & IS_EVENT};
    properties->reply_to = amqp_cstring_bytes("6ba7b810-9dad-41d1-80b4-00c04fd430c8");
    properties->_flags = AMQP_BASIC_REPLY_TO_FLAG;
    if (parts & HAS_REPLY_TO)
        properties->reply_to = text_next(input);
    if (parts & HAS_CONTENT_TYPE) {
        properties->_flags |= AMQP_BASIC_CONTENT_TYPE_FLAG;
        properties->content_type = text_next(input);
    }
    if (parts & HAS_CORRELATION_ID) {
        properties->_flags |= AMQP_BASIC_CORRELATION_ID_FLAG;
        properties->correlation_id = text_next(input);
    }
    if (parts & HAS_EXPIRATION) {
        properties->_flags |= AMQP_BASIC_EXPIRATION_FLAG;
        properties->expiration = text_next(input);
    }
    if (parts & HAS_HEADERS)
        set_headers(message, input);
    if (parts & HAS_METHOD)
        keep(message->routing_key, text_next(input));
    else
        snprintf(message->routing_key, sizeof(message->routing_key), "products.%s",
                 methods[fuzz_byte(input) % METHODS_COUNT].name);
    keep(message->reply_to, properties->reply_to);
    keep(message->correlation_id, properties->correlation_id);
    size = (size_t)fuzz_byte(input) << 8;
    size |= fuzz_byte(input);
    message->body = fuzz_take(input, size);
}

/* ---- What became of it ------------------------------------------------------------------------------------------- */

static void check_answer(const struct message *message, const struct peer_message *answer)
{
    struct wire_answer parsed;
    enum rpc_status status = wire_answer_parse(&parsed, (struct rpc_bytes){answer->body, answer->body_size});

    HOLDS(!message->is_event && strcmp(answer->exchange, "nameko-rpc") == 0);
    HOLDS(strcmp(answer->routing_key, message->reply_to) == 0);
    HOLDS(strcmp(answer->correlation_id, message->correlation_id) == 0);
    HOLDS(status == RPC_OK || status == RPC_REMOTE_ERROR);
    HOLDS(status != RPC_REMOTE_ERROR || (parsed.reply.error.exc_type.size > 0 && parsed.reply.error.exc_path.size > 0));
    wire_answer_clear(&parsed);
}

/* The story of one delivery is its settlement, and an answer before it. */
static void check_story(const struct message *message, uint64_t tag, unsigned messages_before)
{
    char ack[40], reject[40], requeue[48], *settled = strrchr(peer.story, ';');
    unsigned channel = message->is_event ? EVENTS : REQUESTS, answers = peer.messages_count - messages_before;
    bool is_answered = answers == 1;

    settled = settled == NULL ? peer.story : settled + 2;
    snprintf(ack, sizeof(ack), "%u ack %llu", channel, (unsigned long long)tag);
    snprintf(reject, sizeof(reject), "%u reject %llu", channel, (unsigned long long)tag);
    snprintf(requeue, sizeof(requeue), "%s requeue", reject);
    HOLDS(answers <= 1);
    if (is_answered)
        check_answer(message, &peer.messages[messages_before]);
    if (message->is_event)
        HOLDS(strcmp(settled, ack) == 0 || strcmp(settled, reject) == 0 || strcmp(settled, requeue) == 0);
    else
        HOLDS(strcmp(settled, is_answered ? ack : reject) == 0);
    HOLDS(settled == peer.story || is_answered);
    HOLDS(rpc_service_in_flight(service) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_bytes input = fuzz_bytes(data, size);
    struct rpc_service_stats stats;

    start();
    for (uint64_t tag = 1; input.size > 0 && tag <= MESSAGES_MAX; tag++) {
        uint8_t parts = fuzz_byte(&input);
        unsigned before = peer.messages_count, handled_before = handled;
        struct message message;

        message_next(&message, parts, &input);
        peer_deliver(message.is_event ? EVENTS : REQUESTS, tag, parts & IS_AGAIN, message.routing_key,
                     &message.properties, message.body);
        peer_run();
        check_story(&message, tag, before);
        HOLDS(handled - handled_before <= (unsigned)!message.is_event);
        peer.story[0] = '\0';
    }
    rpc_service_stats(service, &stats);
    HOLDS(stats.answers == peer.messages_count);
    rpc_service_free(service);
    fuzz_peer_end(size);
    return 0;
}

/*
 * ceiling_echo: the broker's ceiling for an echo RPC: two bare programs, rabbitmq-c as codec alone, one write a turn,
 * cumulative acknowledgements, a message encoded once and copied with another correlation id.  No envelope, no table of
 * calls, no deadlines: the id ends in the number of a slot.  Nothing that does more can be faster on the same broker.
 *
 *     ceiling_echo serve [nameko]
 *     ceiling_echo call IN_FLIGHT SECONDS [nameko]
 *
 * With "nameko" the same echo goes the way of Nameko's messages: a topic exchange both ways, mandatory requests with an
 * expiration, and the properties, headers and queues of its RPC.  The body stays as long, and nobody reads it.
 *
 * AMQP_URI names the broker.  Set-up is done with rabbitmq-c's own blocking calls; after that only its codec is used.
 */
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "latency.h"

#define CHANNEL      1
#define PREFETCH     300
#define BODY_SIZE    120
#define INPUT_SIZE   (256 * 1024)
#define OUTPUT_SIZE  (4 * 1024 * 1024)
#define MESSAGE_SIZE 2048
#define FRAME_MAX    131072
#define SLOT_DIGITS  8
#define SLOT_BLANK   "########"
#define WARM_UP_NS   500000000u
#define ID_SIZE_MAX  36

/* What the two ways do differently. */
struct way {
    const char *title;
    const char *exchange; /* of requests and answers; "" is the default exchange */
    const char *queue, *request_key, *binding;
    const char *id_prefix; /* of a correlation id, before the slot's digits */
    const char *reply_key; /* NULL: the name that the broker gave the queue */
    bool is_nameko;
};

static const struct way bare_way = {
    .title = "ceiling", .exchange = "", .queue = "ceiling-echo", .request_key = "ceiling-echo", .id_prefix = ""};

static const struct way nameko_way = {
    .title = "ceiling nameko",
    .exchange = "nameko-rpc",
    .queue = "rpc-ceiling",
    .request_key = "ceiling.echo",
    .binding = "ceiling.*",
    .id_prefix = "6f1b0c52-9f0e-4f3a-8c1d-2b7e",
    .reply_key = "0d9c7a34-51e2-4b86-9a3f-c47d12e8b605",
    .is_nameko = true,
};

static const struct way *way = &bare_way;

/* A message's frames, ready but for the slot. */
struct message {
    char bytes[MESSAGE_SIZE];
    size_t size;
    size_t slot_at;
};

struct peer {
    amqp_connection_state_t set_up; /* rabbitmq-c's connection: its socket is used, its codec is not */
    amqp_connection_state_t codec;
    int fd;
    char output[OUTPUT_SIZE];
    size_t output_size;
    char input[INPUT_SIZE];
};

struct client {
    struct peer peer;
    struct message request;
    struct latencies latencies;
    uint64_t *sent_ns;
    unsigned in_flight;
    uint64_t measure_at_ns, end_at_ns;
};

/* A codec expects a handshake first; a frame of a type that AMQP does not know is ignored, and will do for it. */
static amqp_connection_state_t codec_new(void)
{
    static char ignored[] = "\x09\0\0\0\0\0\x04....\xce";
    amqp_connection_state_t codec = amqp_new_connection();
    amqp_bytes_t bytes = {sizeof(ignored) - 1, ignored};
    amqp_frame_t frame;

    while (bytes.len > 0) {
        int used = amqp_handle_input(codec, bytes, &frame);

        if (used < 0)
            abort();
        bytes.bytes = (char *)bytes.bytes + used;
        bytes.len -= (size_t)used;
    }
    amqp_tune_connection(codec, 0, FRAME_MAX, 0);
    return codec;
}

static struct peer *peer_open(struct peer *peer)
{
    struct amqp_connection_info info;
    const char *given = getenv("AMQP_URI");
    char *uri = strdup(given != NULL ? given : "amqp://guest:guest@localhost:5672");

    amqp_default_connection_info(&info);
    if (uri == NULL || amqp_parse_url(uri, &info) != AMQP_STATUS_OK)
        exit(2);
    peer->set_up = amqp_new_connection();
    if (amqp_socket_open(amqp_tcp_socket_new(peer->set_up), info.host, info.port) != AMQP_STATUS_OK ||
        amqp_login(peer->set_up, info.vhost, 0, FRAME_MAX, 0, AMQP_SASL_METHOD_PLAIN, info.user, info.password)
                .reply_type != AMQP_RESPONSE_NORMAL) {
        fprintf(stderr, "ceiling_echo: no connection to %s:%d\n", info.host, info.port);
        exit(1);
    }
    amqp_channel_open(peer->set_up, CHANNEL);
    peer->codec = codec_new();
    peer->fd = amqp_get_sockfd(peer->set_up);
    fcntl(peer->fd, F_SETFL, fcntl(peer->fd, F_GETFL) & ~O_NONBLOCK); /* rabbitmq-c made it non-blocking */
    free(uri);
    return peer;
}

static void peer_append(struct peer *peer, const void *data, size_t size)
{
    if (peer->output_size + size > OUTPUT_SIZE)
        abort();
    memcpy(peer->output + peer->output_size, data, size);
    peer->output_size += size;
}

/* One frame around what is encoded at `payload` + 7. */
static void peer_append_frame(struct peer *peer, uint8_t type, char *frame, size_t size)
{
    frame[0] = (char)type;
    frame[1] = 0;
    frame[2] = CHANNEL;
    frame[3] = (char)(size >> 24);
    frame[4] = (char)(size >> 16);
    frame[5] = (char)(size >> 8);
    frame[6] = (char)size;
    frame[7 + size] = (char)AMQP_FRAME_END;
    peer_append(peer, frame, size + 8);
}

static void peer_append_method(struct peer *peer, amqp_method_number_t id, void *method)
{
    char frame[512];
    int size = amqp_encode_method(id, method, (amqp_bytes_t){sizeof(frame) - 12, frame + 11});

    frame[7] = (char)(id >> 24);
    frame[8] = (char)(id >> 16);
    frame[9] = (char)(id >> 8);
    frame[10] = (char)id;
    peer_append_frame(peer, AMQP_FRAME_METHOD, frame, (size_t)size + 4);
}

/* Encode a message as it will be sent again and again. */
static void message_encode(struct message *message, struct peer *peer, const amqp_basic_publish_t *publish,
                           const amqp_basic_properties_t *properties, const void *body, size_t body_size)
{
    char frame[MESSAGE_SIZE] = {0};
    const size_t begin = peer->output_size;
    const char *slot;
    int size;

    peer_append_method(peer, AMQP_BASIC_PUBLISH_METHOD, (void *)(uintptr_t)publish);
    size = amqp_encode_properties(AMQP_BASIC_CLASS, (void *)(uintptr_t)properties,
                                  (amqp_bytes_t){sizeof(frame) - 20, frame + 19});
    if (size < 0)
        abort();
    frame[8] = AMQP_BASIC_CLASS;
    frame[17] = (char)(body_size >> 8);
    frame[18] = (char)body_size;
    peer_append_frame(peer, AMQP_FRAME_HEADER, frame, (size_t)size + 12);
    memcpy(frame + 7, body, body_size);
    peer_append_frame(peer, AMQP_FRAME_BODY, frame, body_size);

    message->size = peer->output_size - begin;
    if (message->size > sizeof(message->bytes))
        abort();
    memcpy(message->bytes, peer->output + begin, message->size);
    peer->output_size = begin;
    slot = memmem(message->bytes, message->size, SLOT_BLANK, SLOT_DIGITS);
    if (slot == NULL)
        abort();
    message->slot_at = (size_t)(slot - message->bytes);
}

static void message_send(struct message *message, struct peer *peer, const char slot[SLOT_DIGITS])
{
    memcpy(message->bytes + message->slot_at, slot, SLOT_DIGITS);
    peer_append(peer, message->bytes, message->size);
}

/* What requests and answers have in common. */
static amqp_basic_properties_t properties_of(char id[ID_SIZE_MAX + 1])
{
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_CORRELATION_ID_FLAG};

    snprintf(id, ID_SIZE_MAX + 1, "%s" SLOT_BLANK, way->id_prefix);
    properties.correlation_id = amqp_cstring_bytes(id);
    if (way->is_nameko) {
        properties._flags |= AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG |
                             AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_PRIORITY_FLAG;
        properties.content_type = amqp_cstring_bytes("application/json");
        properties.content_encoding = amqp_cstring_bytes("utf-8");
        properties.delivery_mode = 1;
    }
    return properties;
}

static void peer_flush(struct peer *peer)
{
    for (size_t sent = 0; sent < peer->output_size;) {
        ssize_t size = send(peer->fd, peer->output + sent, peer->output_size - sent, MSG_NOSIGNAL);

        if (size < 0) {
            perror("ceiling_echo: send");
            exit(1);
        }
        sent += (size_t)size;
    }
    peer->output_size = 0;
}

typedef void message_fn(void *arg, uint64_t tag, const amqp_basic_properties_t *properties, amqp_bytes_t body);

/* Read once, hand each message of it out. */
static void peer_turn(struct peer *peer, message_fn *fn, void *arg)
{
    static uint64_t tag;
    static amqp_basic_properties_t properties;
    ssize_t size = recv(peer->fd, peer->input, INPUT_SIZE, 0);
    amqp_bytes_t bytes = {(size_t)size, peer->input};

    if (size <= 0) {
        if (size == 0)
            exit(0); /* the broker stopped */
        perror("ceiling_echo: recv");
        exit(1);
    }
    while (bytes.len > 0) {
        amqp_frame_t frame;
        int used = amqp_handle_input(peer->codec, bytes, &frame);

        if (used < 0)
            abort();
        bytes.bytes = (char *)bytes.bytes + used;
        bytes.len -= (size_t)used;
        if (frame.frame_type == AMQP_FRAME_METHOD && frame.payload.method.id == AMQP_BASIC_DELIVER_METHOD) {
            tag = ((amqp_basic_deliver_t *)frame.payload.method.decoded)->delivery_tag;
        } else if (frame.frame_type == AMQP_FRAME_HEADER) {
            properties = *(amqp_basic_properties_t *)frame.payload.properties.decoded;
        } else if (frame.frame_type == AMQP_FRAME_BODY) {
            fn(arg, tag, &properties, frame.payload.body_fragment);
            amqp_maybe_release_buffers_on_channel(peer->codec, CHANNEL);
        }
    }
}

static void require(struct peer *peer, const char *what)
{
    if (amqp_get_rpc_reply(peer->set_up).reply_type != AMQP_RESPONSE_NORMAL) {
        fprintf(stderr, "ceiling_echo: the broker refuses %s\n", what);
        exit(1);
    }
}

static void exchange_declare(struct peer *peer)
{
    if (!way->is_nameko)
        return;
    amqp_exchange_declare(peer->set_up, CHANNEL, amqp_cstring_bytes(way->exchange), amqp_cstring_bytes("topic"), 0, 1,
                          0, 0, amqp_empty_table);
    require(peer, "the exchange");
}

/* --- server --- */

struct server {
    struct peer peer;
    struct message answer;
    char reply_to[256]; /* that the answer is for */
    size_t reply_to_size;
    uint64_t done_tag;
    unsigned done;
};

static bool server_answers_to(const struct server *server, amqp_bytes_t reply_to)
{
    return server->answer.size > 0 && reply_to.len == server->reply_to_size &&
           memcmp(reply_to.bytes, server->reply_to, reply_to.len) == 0;
}

static void server_take_client(struct server *server, amqp_bytes_t reply_to, amqp_bytes_t body)
{
    char id[ID_SIZE_MAX + 1];
    amqp_basic_properties_t properties = properties_of(id);
    amqp_basic_publish_t publish = {.exchange = amqp_cstring_bytes(way->exchange), .routing_key = reply_to};

    if (reply_to.len > sizeof(server->reply_to))
        abort();
    memcpy(server->reply_to, reply_to.bytes, reply_to.len);
    server->reply_to_size = reply_to.len;
    message_encode(&server->answer, &server->peer, &publish, &properties, body.bytes, body.len);
}

static void serve_message(void *arg, uint64_t tag, const amqp_basic_properties_t *properties, amqp_bytes_t body)
{
    struct server *server = arg;
    const amqp_bytes_t id = properties->correlation_id;

    if (!server_answers_to(server, properties->reply_to))
        server_take_client(server, properties->reply_to, body);
    if (id.len < SLOT_DIGITS)
        abort();
    message_send(&server->answer, &server->peer, (const char *)id.bytes + id.len - SLOT_DIGITS);
    server->done_tag = tag;
    server->done++;
}

_Noreturn static void serve(void)
{
    struct server *server = calloc(1, sizeof(*server));
    struct peer *peer = peer_open(&server->peer);
    const amqp_bytes_t queue = amqp_cstring_bytes(way->queue);

    exchange_declare(peer);
    amqp_queue_declare(peer->set_up, CHANNEL, queue, 0, way->is_nameko, 0, !way->is_nameko, amqp_empty_table);
    if (way->binding != NULL)
        amqp_queue_bind(peer->set_up, CHANNEL, queue, amqp_cstring_bytes(way->exchange),
                        amqp_cstring_bytes(way->binding), amqp_empty_table);
    amqp_basic_qos(peer->set_up, CHANNEL, 0, PREFETCH, 0);
    amqp_basic_consume(peer->set_up, CHANNEL, queue, amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    require(peer, "the queue");
    puts("ready");
    fflush(stdout);
    for (;;) {
        peer_turn(peer, serve_message, server);
        if (server->done > 0) {
            amqp_basic_ack_t ack = {.delivery_tag = server->done_tag, .multiple = 1};

            peer_append_method(peer, AMQP_BASIC_ACK_METHOD, &ack);
            server->done = 0;
        }
        peer_flush(peer);
    }
}

/* --- client --- */

static void call_slot(struct client *client, unsigned slot)
{
    char digits[SLOT_DIGITS + 1];

    snprintf(digits, sizeof(digits), "%0*u", SLOT_DIGITS, slot);
    client->sent_ns[slot] = latency_now_ns();
    message_send(&client->request, &client->peer, digits);
}

static void request_encode(struct client *client, amqp_bytes_t reply_to)
{
    static const char body[BODY_SIZE] = "an echo";
    static const char caller[] = "gateway.get_product.6f1b0c52-9f0e-4f3a-8c1d-2b7e00c0ffee";
    char id[ID_SIZE_MAX + 1];
    amqp_field_value_t call = {.kind = AMQP_FIELD_KIND_UTF8,
                               .value.bytes = {sizeof(caller) - 1, (void *)(uintptr_t)caller}};
    amqp_table_entry_t stack = {.key = amqp_cstring_bytes("nameko.call_id_stack"),
                                .value = {.kind = AMQP_FIELD_KIND_ARRAY, .value.array = {1, &call}}};
    amqp_basic_properties_t properties = properties_of(id);
    amqp_basic_publish_t publish = {.exchange = amqp_cstring_bytes(way->exchange),
                                    .routing_key = amqp_cstring_bytes(way->request_key),
                                    .mandatory = way->is_nameko};

    properties._flags |= AMQP_BASIC_REPLY_TO_FLAG;
    properties.reply_to = reply_to;
    if (way->is_nameko) {
        properties._flags |= AMQP_BASIC_EXPIRATION_FLAG | AMQP_BASIC_HEADERS_FLAG;
        properties.expiration = amqp_cstring_bytes("5000");
        properties.headers = (amqp_table_t){1, &stack};
    }
    message_encode(&client->request, &client->peer, &publish, &properties, body, sizeof(body));
}

static void call_message(void *arg, uint64_t tag, const amqp_basic_properties_t *properties, amqp_bytes_t body)
{
    struct client *client = arg;
    char id[SLOT_DIGITS + 1] = {0};
    uint64_t now_ns = latency_now_ns();
    unsigned slot;

    (void)tag;
    if (properties->correlation_id.len < SLOT_DIGITS || body.len != BODY_SIZE)
        abort();
    memcpy(id, (const char *)properties->correlation_id.bytes + properties->correlation_id.len - SLOT_DIGITS,
           SLOT_DIGITS);
    slot = (unsigned)atoi(id);
    if (slot >= client->in_flight)
        abort();
    if (client->latencies.started_ns > 0)
        latencies_add(&client->latencies, now_ns - client->sent_ns[slot]);
    else if (now_ns >= client->measure_at_ns)
        latencies_start(&client->latencies);
    call_slot(client, slot);
}

static struct client the_client;

static int call(unsigned in_flight, unsigned seconds)
{
    struct client *client = &the_client;
    struct peer *peer = peer_open(&client->peer);
    amqp_bytes_t queue;

    exchange_declare(peer);
    queue = amqp_queue_declare(peer->set_up, CHANNEL, amqp_empty_bytes, 0, 0, 1, 1, amqp_empty_table)->queue;
    queue = amqp_bytes_malloc_dup(queue);
    request_encode(client, way->reply_key != NULL ? amqp_cstring_bytes(way->reply_key) : queue);
    if (way->reply_key != NULL)
        amqp_queue_bind(peer->set_up, CHANNEL, queue, amqp_cstring_bytes(way->exchange),
                        amqp_cstring_bytes(way->reply_key), amqp_empty_table);
    amqp_basic_consume(peer->set_up, CHANNEL, queue, amqp_empty_bytes, 0, 1, 0, amqp_empty_table);
    require(peer, "the reply queue");
    amqp_bytes_free(queue);
    client->in_flight = in_flight;
    client->sent_ns = calloc(in_flight, sizeof(*client->sent_ns));
    client->measure_at_ns = latency_now_ns() + WARM_UP_NS;
    client->end_at_ns = client->measure_at_ns + (uint64_t)seconds * 1000000000u;
    for (unsigned slot = 0; slot < in_flight; slot++)
        call_slot(client, slot);
    while (latency_now_ns() < client->end_at_ns) {
        peer_flush(peer);
        peer_turn(peer, call_message, client);
    }
    latencies_print(&client->latencies, way->title, in_flight, 0);
    return 0;
}

int main(int argc, char *argv[])
{
    if (argc > 2 && strcmp(argv[argc - 1], "nameko") == 0) {
        way = &nameko_way;
        argc--;
    }
    if (argc == 2 && strcmp(argv[1], "serve") == 0)
        serve();
    if (argc == 4 && strcmp(argv[1], "call") == 0 && atoi(argv[2]) > 0 && atoi(argv[3]) > 0)
        return call((unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]));
    fputs("usage: ceiling_echo serve [nameko] | call IN_FLIGHT SECONDS [nameko]   (AMQP_URI names the broker)\n",
          stderr);
    return 2;
}

#include "fake_broker.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAME_MAX       131072
#define INPUT_SIZE      (1024 * 1024)
#define OUTPUT_SIZE     (4 * 1024 * 1024)
#define CONSUMERS_MAX   16
#define NAME_SIZE       256
#define PROTOCOL_HEADER 8
#define FRAME_HEADER    7

struct consumer {
    char queue[NAME_SIZE], tag[NAME_SIZE];
    uint16_t channel;
};

struct fake_broker {
    int listener, fd;
    uint16_t port;
    fake_broker_published_fn *published;
    void *arg;
    amqp_connection_state_t codec;
    size_t header_left; /* of the client's protocol header */
    struct consumer consumers[CONSUMERS_MAX];
    size_t consumers_count;
    uint64_t tag, acknowledged;
    bool confirms;
    uint64_t confirmed;
    uint16_t confirm_channel;
    char routing_key[NAME_SIZE]; /* of the message that is coming in */
    size_t routing_key_size;
    uint16_t publish_channel;
    amqp_basic_properties_t properties;
    char *body;
    size_t body_size, body_wanted;
    char input[INPUT_SIZE];
    char output[OUTPUT_SIZE];
    size_t output_size;
};

_Noreturn static void give_up(const char *what)
{
    fprintf(stderr, "fake_broker: %s: %s\n", what, strerror(errno));
    exit(1);
}

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
            give_up("the codec");
        bytes.bytes = (char *)bytes.bytes + used;
        bytes.len -= (size_t)used;
    }
    amqp_tune_connection(codec, 0, FRAME_MAX, 0);
    return codec;
}

struct fake_broker *fake_broker_new(fake_broker_published_fn *published, void *arg)
{
    struct fake_broker *broker = calloc(1, sizeof(*broker));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);

    if (broker == NULL)
        give_up("memory");
    broker->published = published;
    broker->arg = arg;
    broker->fd = -1;
    broker->header_left = PROTOCOL_HEADER;
    broker->codec = codec_new();
    broker->body = malloc(INPUT_SIZE);
    broker->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (broker->listener < 0 || bind(broker->listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(broker->listener, 4) != 0 || getsockname(broker->listener, (struct sockaddr *)&address, &size) != 0)
        give_up("listen");
    broker->port = ntohs(address.sin_port);
    return broker;
}

uint16_t fake_broker_port(const struct fake_broker *broker)
{
    return broker->port;
}

uint64_t fake_broker_acknowledged(const struct fake_broker *broker)
{
    return broker->acknowledged;
}

/* --- output --- */

static void append_frame(struct fake_broker *broker, uint8_t type, uint16_t channel, const void *payload, size_t size)
{
    char *frame = broker->output + broker->output_size;

    if (broker->output_size + size + FRAME_HEADER + 1 > OUTPUT_SIZE)
        give_up("too much output");
    frame[0] = (char)type;
    frame[1] = (char)(channel >> 8);
    frame[2] = (char)channel;
    for (int i = 0; i < 4; i++)
        frame[3 + i] = (char)(size >> (24 - 8 * i));
    memcpy(frame + FRAME_HEADER, payload, size);
    frame[FRAME_HEADER + size] = (char)AMQP_FRAME_END;
    broker->output_size += size + FRAME_HEADER + 1;
}

static void append_method(struct fake_broker *broker, uint16_t channel, amqp_method_number_t id, void *method)
{
    char payload[1024];
    int size = amqp_encode_method(id, method, (amqp_bytes_t){sizeof(payload) - 4, payload + 4});

    if (size < 0)
        give_up("a method");
    for (int i = 0; i < 4; i++)
        payload[i] = (char)(id >> (24 - 8 * i));
    append_frame(broker, AMQP_FRAME_METHOD, channel, payload, (size_t)size + 4);
}

void fake_broker_flush(struct fake_broker *broker)
{
    for (size_t sent = 0; sent < broker->output_size;) {
        ssize_t size = send(broker->fd, broker->output + sent, broker->output_size - sent, MSG_NOSIGNAL);

        if (size < 0)
            give_up("send");
        sent += (size_t)size;
    }
    broker->output_size = 0;
}

static const struct consumer *consumer_of(const struct fake_broker *broker, const char *queue_prefix)
{
    for (size_t i = 0; i < broker->consumers_count; i++)
        if (strncmp(broker->consumers[i].queue, queue_prefix, strlen(queue_prefix)) == 0)
            return &broker->consumers[i];
    return NULL;
}

bool fake_broker_consumes(const struct fake_broker *broker, const char *queue_prefix)
{
    return consumer_of(broker, queue_prefix) != NULL;
}

void fake_broker_deliver(struct fake_broker *broker, const char *queue_prefix, const char *exchange,
                         const struct fake_message *message)
{
    const struct consumer *consumer = consumer_of(broker, queue_prefix);
    amqp_basic_deliver_t deliver = {.exchange = amqp_cstring_bytes(exchange), .routing_key = message->routing_key};
    char header[1024] = {0};
    int size;

    if (consumer == NULL)
        give_up("nobody consumes");
    deliver.consumer_tag = amqp_cstring_bytes(consumer->tag);
    deliver.delivery_tag = ++broker->tag;
    append_method(broker, consumer->channel, AMQP_BASIC_DELIVER_METHOD, &deliver);
    size = amqp_encode_properties(AMQP_BASIC_CLASS, (void *)(uintptr_t)message->properties,
                                  (amqp_bytes_t){sizeof(header) - 12, header + 12});
    if (size < 0)
        give_up("properties");
    header[1] = AMQP_BASIC_CLASS;
    for (int i = 0; i < 8; i++)
        header[4 + i] = (char)((uint64_t)message->body.len >> (56 - 8 * i));
    append_frame(broker, AMQP_FRAME_HEADER, consumer->channel, header, (size_t)size + 12);
    append_frame(broker, AMQP_FRAME_BODY, consumer->channel, message->body.bytes, message->body.len);
}

/* --- input --- */

static void keep(char out[NAME_SIZE], amqp_bytes_t bytes)
{
    snprintf(out, NAME_SIZE, "%.*s", (int)bytes.len, (const char *)bytes.bytes);
}

static void take_consume(struct fake_broker *broker, uint16_t channel, const amqp_basic_consume_t *consume)
{
    struct consumer *consumer = &broker->consumers[broker->consumers_count++];
    amqp_basic_consume_ok_t ok;

    if (broker->consumers_count > CONSUMERS_MAX)
        give_up("too many consumers");
    keep(consumer->queue, consume->queue);
    if (consume->consumer_tag.len > 0)
        keep(consumer->tag, consume->consumer_tag);
    else
        snprintf(consumer->tag, NAME_SIZE, "consumer-%zu", broker->consumers_count);
    consumer->channel = channel;
    ok.consumer_tag = amqp_cstring_bytes(consumer->tag);
    append_method(broker, channel, AMQP_BASIC_CONSUME_OK_METHOD, &ok);
}

static void start(struct fake_broker *broker)
{
    amqp_connection_start_t start = {
        .version_minor = 9, .mechanisms = amqp_cstring_bytes("PLAIN"), .locales = amqp_cstring_bytes("en_US")};

    append_method(broker, 0, AMQP_CONNECTION_START_METHOD, &start);
}

static void take_method(struct fake_broker *broker, uint16_t channel, const amqp_method_t *method)
{
    amqp_queue_declare_ok_t declared = {0};
    amqp_connection_tune_t tune = {.channel_max = 2047, .frame_max = FRAME_MAX};
    char nothing[64] = {0}; /* the answers without fields */

    switch (method->id) {
    case AMQP_CONNECTION_START_OK_METHOD:
        append_method(broker, 0, AMQP_CONNECTION_TUNE_METHOD, &tune);
        break;
    case AMQP_CONNECTION_OPEN_METHOD:
        append_method(broker, 0, AMQP_CONNECTION_OPEN_OK_METHOD, nothing);
        break;
    case AMQP_CHANNEL_OPEN_METHOD:
        append_method(broker, channel, AMQP_CHANNEL_OPEN_OK_METHOD, nothing);
        break;
    case AMQP_EXCHANGE_DECLARE_METHOD:
        append_method(broker, channel, AMQP_EXCHANGE_DECLARE_OK_METHOD, nothing);
        break;
    case AMQP_QUEUE_DECLARE_METHOD:
        declared.queue = ((const amqp_queue_declare_t *)method->decoded)->queue;
        append_method(broker, channel, AMQP_QUEUE_DECLARE_OK_METHOD, &declared);
        break;
    case AMQP_QUEUE_BIND_METHOD:
        append_method(broker, channel, AMQP_QUEUE_BIND_OK_METHOD, nothing);
        break;
    case AMQP_BASIC_QOS_METHOD:
        append_method(broker, channel, AMQP_BASIC_QOS_OK_METHOD, nothing);
        break;
    case AMQP_BASIC_CONSUME_METHOD:
        take_consume(broker, channel, method->decoded);
        break;
    case AMQP_CONFIRM_SELECT_METHOD:
        broker->confirms = true;
        append_method(broker, channel, AMQP_CONFIRM_SELECT_OK_METHOD, nothing);
        break;
    case AMQP_BASIC_PUBLISH_METHOD: {
        const amqp_basic_publish_t *publish = method->decoded;

        keep(broker->routing_key, publish->routing_key);
        broker->routing_key_size = publish->routing_key.len;
        broker->publish_channel = channel;
        break;
    }
    case AMQP_BASIC_ACK_METHOD:
        broker->acknowledged = ((const amqp_basic_ack_t *)method->decoded)->delivery_tag;
        break;
    default:
        break; /* tune-ok and the like expect no answer */
    }
}

static void take_body(struct fake_broker *broker, amqp_bytes_t part)
{
    struct fake_message message = {.routing_key = {broker->routing_key_size, broker->routing_key},
                                   .properties = &broker->properties};

    memcpy(broker->body + broker->body_size, part.bytes, part.len);
    broker->body_size += part.len;
    if (broker->body_size < broker->body_wanted)
        return;
    message.body = (amqp_bytes_t){broker->body_size, broker->body};
    if (broker->confirms) {
        broker->confirmed++;
        broker->confirm_channel = broker->publish_channel;
    }
    broker->published(broker, &message, broker->arg);
}

static void take_frame(struct fake_broker *broker, amqp_frame_t *frame)
{
    if (frame->frame_type == AMQP_FRAME_METHOD) {
        take_method(broker, frame->channel, &frame->payload.method);
        amqp_maybe_release_buffers_on_channel(broker->codec, frame->channel);
    } else if (frame->frame_type == AMQP_FRAME_HEADER) {
        broker->properties = *(amqp_basic_properties_t *)frame->payload.properties.decoded;
        broker->body_wanted = frame->payload.properties.body_size;
        broker->body_size = 0;
    } else if (frame->frame_type == AMQP_FRAME_BODY) {
        take_body(broker, frame->payload.body_fragment);
        amqp_maybe_release_buffers_on_channel(broker->codec, frame->channel);
    }
}

static void take(struct fake_broker *broker, amqp_bytes_t bytes)
{
    if (broker->header_left > 0) {
        size_t size = bytes.len < broker->header_left ? bytes.len : broker->header_left;

        bytes.bytes = (char *)bytes.bytes + size;
        bytes.len -= size;
        broker->header_left -= size;
        if (broker->header_left == 0)
            start(broker);
    }
    while (bytes.len > 0) {
        amqp_frame_t frame;
        int used = amqp_handle_input(broker->codec, bytes, &frame);

        if (used < 0)
            give_up("what came is no AMQP");
        bytes.bytes = (char *)bytes.bytes + used;
        bytes.len -= (size_t)used;
        take_frame(broker, &frame);
    }
}

void fake_broker_turn(struct fake_broker *broker)
{
    uint64_t confirmed = broker->confirmed;
    ssize_t size;
    int one = 1;

    if (broker->fd < 0) {
        broker->fd = accept(broker->listener, NULL, NULL);
        if (broker->fd < 0)
            return;
        setsockopt(broker->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    while ((size = recv(broker->fd, broker->input, INPUT_SIZE, MSG_DONTWAIT)) > 0)
        take(broker, (amqp_bytes_t){(size_t)size, broker->input});
    if (size == 0)
        give_up("the client hung up");
    if (broker->confirmed > confirmed) {
        amqp_basic_ack_t ack = {.delivery_tag = broker->confirmed, .multiple = 1};

        append_method(broker, broker->confirm_channel, AMQP_BASIC_ACK_METHOD, &ack);
    }
    fake_broker_flush(broker);
}

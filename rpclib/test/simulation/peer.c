#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "peer.h"

#define FRAME_MAX  4096u
#define ROUNDS_MAX 100000

struct peer peer;

struct frames *peer_out(void)
{
    struct network_link *link = network_link();

    assert_non_null(link);
    return &link->inbound;
}

/* ---- Messages that arrive ---------------------------------------------------------------------------------------- */

static char *text_of(amqp_bytes_t bytes)
{
    char *text = malloc(bytes.len + 1);

    assert_non_null(text);
    if (bytes.len > 0)
        memcpy(text, bytes.bytes, bytes.len);
    text[bytes.len] = '\0';
    return text;
}

static json_t *json_of_field(const amqp_field_value_t *field)
{
    json_t *value;

    switch (field->kind) {
    case AMQP_FIELD_KIND_UTF8:
        return json_stringn(field->value.bytes.bytes, field->value.bytes.len);
    case AMQP_FIELD_KIND_BOOLEAN:
        return json_boolean(field->value.boolean);
    case AMQP_FIELD_KIND_I32:
        return json_integer(field->value.i32);
    case AMQP_FIELD_KIND_I64:
        return json_integer(field->value.i64);
    case AMQP_FIELD_KIND_F64:
        return json_real(field->value.f64);
    case AMQP_FIELD_KIND_ARRAY:
        value = json_array();
        for (int i = 0; i < field->value.array.num_entries; i++)
            json_array_append_new(value, json_of_field(&field->value.array.entries[i]));
        return value;
    default:
        value = json_string("?");
        return value;
    }
}

static char *json_of_table(const amqp_table_t *table)
{
    json_t *object = json_object();
    char *text;

    for (int i = 0; i < table->num_entries; i++) {
        char *key = text_of(table->entries[i].key);

        json_object_set_new(object, key, json_of_field(&table->entries[i].value));
        free(key);
    }
    text = json_dumps(object, JSON_SORT_KEYS);
    json_decref(object);
    assert_non_null(text);
    return text;
}

static void message_clear(struct peer_message *message)
{
    free(message->exchange);
    free(message->routing_key);
    free(message->correlation_id);
    free(message->reply_to);
    free(message->message_id);
    free(message->expiration);
    free(message->content_type);
    free(message->content_encoding);
    free(message->headers);
    free(message->raw_properties);
    free(message->body);
    *message = (struct peer_message){0};
}

static void on_publish(uint16_t channel, const amqp_basic_publish_t *publish)
{
    struct peer_message *message = &peer.messages[peer.messages_count];

    assert_true(peer.messages_count < PEER_MESSAGES_MAX);
    assert_null(peer.arriving);
    *message = (struct peer_message){.channel = channel,
                                     .mandatory = publish->mandatory,
                                     .exchange = text_of(publish->exchange),
                                     .routing_key = text_of(publish->routing_key)};
    peer.arriving = message;
}

#define PROPERTY(FLAG, field) text_of(p->_flags &AMQP_BASIC_##FLAG##_FLAG ? p->field : amqp_empty_bytes)

static void on_message_complete(void)
{
    struct peer_message *message = peer.arriving;

    story_tell(peer.story, "%d publish %s/%s", message->channel, message->exchange, message->routing_key);
    peer.arriving = NULL;
    peer.messages_count++;
}

static void on_header(const amqp_frame_t *frame)
{
    const amqp_basic_properties_t *p = frame->payload.properties.decoded;
    struct peer_message *message = peer.arriving;

    assert_non_null(message);
    message->correlation_id = PROPERTY(CORRELATION_ID, correlation_id);
    message->reply_to = PROPERTY(REPLY_TO, reply_to);
    message->message_id = PROPERTY(MESSAGE_ID, message_id);
    message->expiration = PROPERTY(EXPIRATION, expiration);
    message->content_type = PROPERTY(CONTENT_TYPE, content_type);
    message->content_encoding = PROPERTY(CONTENT_ENCODING, content_encoding);
    message->delivery_mode = p->_flags & AMQP_BASIC_DELIVERY_MODE_FLAG ? p->delivery_mode : -1;
    message->priority = p->_flags & AMQP_BASIC_PRIORITY_FLAG ? p->priority : -1;
    message->headers = json_of_table(p->_flags & AMQP_BASIC_HEADERS_FLAG ? &p->headers : &(amqp_table_t){0});
    message->raw_size = frame->payload.properties.raw.len;
    message->raw_properties = text_of(frame->payload.properties.raw);
    peer.arriving_size = frame->payload.properties.body_size;
    message->body = calloc(1, peer.arriving_size + 1);
    assert_non_null(message->body);
    if (peer.arriving_size == 0)
        on_message_complete();
}

static void on_body(amqp_bytes_t part)
{
    assert_non_null(peer.arriving);
    assert_true(peer.arriving->body_size + part.len <= peer.arriving_size);
    memcpy(peer.arriving->body + peer.arriving->body_size, part.bytes, part.len);
    peer.arriving->body_size += part.len;
    if (peer.arriving->body_size == peer.arriving_size)
        on_message_complete();
}

/* ---- Methods ----------------------------------------------------------------------------------------------------- */

static bool on_handshake(const amqp_method_t *method)
{
    switch (method->id) {
    case AMQP_CONNECTION_START_OK_METHOD:
        PEER_METHOD(0, CONNECTION_TUNE, connection_tune,
                    .channel_max = peer.channels_max > 0 ? peer.channels_max : 2047, .frame_max = FRAME_MAX,
                    .heartbeat = 60);
        return true;
    case AMQP_CONNECTION_TUNE_OK_METHOD:
        return true;
    case AMQP_CONNECTION_OPEN_METHOD:
        PEER_METHOD(0, CONNECTION_OPEN_OK, connection_open_ok, 0);
        peer.handshakes++;
        return true;
    default:
        return false;
    }
}

#define SHOWN(text) (int)(text).len, (const char *)(text).bytes

/* A passive one asks who consumes the queue. */
static void on_queue_declare(uint16_t channel, const amqp_queue_declare_t *m)
{
    if (m->passive)
        story_tell(peer.story, "%d look", channel);
    else
        story_tell(peer.declared, "%d queue %.*s%s%s%s%s", channel, SHOWN(m->queue), m->durable ? " durable" : "",
                   m->exclusive ? " exclusive" : "", m->auto_delete ? " auto-delete" : "",
                   m->arguments.num_entries > 0 ? " ARGUMENTS" : "");
    PEER_METHOD(channel, QUEUE_DECLARE_OK, queue_declare_ok, .queue = m->queue,
                .consumer_count = m->passive ? peer.consumers : 0);
}

/* Says yes to what must be answered. */
static bool on_question(uint16_t channel, const amqp_method_t *method)
{
    const void *decoded = method->decoded;

    switch (method->id) {
    case AMQP_CHANNEL_OPEN_METHOD:
        story_tell(peer.declared, "%d open", channel);
        PEER_METHOD(channel, CHANNEL_OPEN_OK, channel_open_ok, 0);
        return true;
    case AMQP_EXCHANGE_DECLARE_METHOD: {
        const amqp_exchange_declare_t *m = decoded;
        story_tell(peer.declared, "%d exchange %.*s %.*s%s%s", channel, SHOWN(m->exchange), SHOWN(m->type),
                   m->durable ? " durable" : "", m->auto_delete ? " auto-delete" : "");
        PEER_METHOD(channel, EXCHANGE_DECLARE_OK, exchange_declare_ok, 0);
        return true;
    }
    case AMQP_QUEUE_DECLARE_METHOD:
        on_queue_declare(channel, decoded);
        return true;
    case AMQP_QUEUE_BIND_METHOD: {
        const amqp_queue_bind_t *m = decoded;
        story_tell(peer.declared, "%d bind %.*s to %.*s by %.*s", channel, SHOWN(m->queue), SHOWN(m->exchange),
                   SHOWN(m->routing_key));
        PEER_METHOD(channel, QUEUE_BIND_OK, queue_bind_ok, 0);
        return true;
    }
    case AMQP_BASIC_QOS_METHOD:
        story_tell(peer.declared, "%d qos %d", channel, ((const amqp_basic_qos_t *)decoded)->prefetch_count);
        PEER_METHOD(channel, BASIC_QOS_OK, basic_qos_ok, 0);
        return true;
    case AMQP_BASIC_CONSUME_METHOD: {
        const amqp_basic_consume_t *m = decoded;
        story_tell(peer.declared, "%d consume %.*s%s", channel, SHOWN(m->queue), m->no_ack ? " no-ack" : "");
        PEER_METHOD(channel, BASIC_CONSUME_OK, basic_consume_ok, .consumer_tag = m->consumer_tag);
        return true;
    }
    case AMQP_CONFIRM_SELECT_METHOD:
        story_tell(peer.declared, "%d confirm", channel);
        PEER_METHOD(channel, CONFIRM_SELECT_OK, confirm_select_ok, 0);
        return true;
    case AMQP_BASIC_CANCEL_METHOD:
        story_tell(peer.story, "%d cancel", channel);
        PEER_METHOD(channel, BASIC_CANCEL_OK, basic_cancel_ok,
                    .consumer_tag = ((const amqp_basic_cancel_t *)decoded)->consumer_tag);
        return true;
    case AMQP_CHANNEL_CLOSE_METHOD:
        story_tell(peer.story, "%d close", channel);
        PEER_METHOD(channel, CHANNEL_CLOSE_OK, channel_close_ok, 0);
        return true;
    case AMQP_CONNECTION_CLOSE_METHOD:
        story_tell(peer.story, "goodbye");
        PEER_METHOD(0, CONNECTION_CLOSE_OK, connection_close_ok, 0);
        return true;
    default:
        return false;
    }
}

static void on_method(uint16_t channel, const amqp_method_t *method)
{
    struct network_link *link = network_link();
    size_t before = link->inbound.size;
    char name[40];

    if (on_handshake(method))
        return;
    if (on_question(channel, method)) {
        if (peer.holds_answers)
            link->inbound.size = before;
        return;
    }
    switch (method->id) {
    case AMQP_BASIC_PUBLISH_METHOD:
        on_publish(channel, method->decoded);
        break;
    case AMQP_BASIC_ACK_METHOD: {
        const amqp_basic_ack_t *m = method->decoded;
        peer.acks++;
        story_tell(peer.story, "%d ack %llu%s", channel, (unsigned long long)m->delivery_tag, m->multiple ? "+" : "");
        break;
    }
    case AMQP_BASIC_REJECT_METHOD: {
        const amqp_basic_reject_t *m = method->decoded;
        story_tell(peer.story, "%d reject %llu%s", channel, (unsigned long long)m->delivery_tag,
                   m->requeue ? " requeue" : "");
        break;
    }
    default:
        peer.gets += method->id == AMQP_BASIC_GET_METHOD;
        story_tell(peer.story, "%d %s", channel, frames_method_name(method->id, name));
        break;
    }
}

static void on_frame(const amqp_frame_t *frame, void *arg)
{
    (void)arg;
    switch (frame->frame_type) {
    case 'A':
        PEER_METHOD(0, CONNECTION_START, connection_start, .version_minor = 9,
                    .mechanisms = amqp_cstring_bytes("PLAIN"), .locales = amqp_cstring_bytes("en_US"));
        break;
    case AMQP_FRAME_METHOD:
        on_method(frame->channel, &frame->payload.method);
        break;
    case AMQP_FRAME_HEADER:
        on_header(frame);
        break;
    case AMQP_FRAME_BODY:
        on_body(frame->payload.body_fragment);
        break;
    case AMQP_FRAME_HEARTBEAT:
        story_tell(peer.story, "heartbeat");
        break;
    default:
        fail_msg("a frame of type %d", frame->frame_type);
    }
}

/* ---- Time -------------------------------------------------------------------------------------------------------- */

static void peer_drop_reader(void)
{
    frames_reader_clear(&peer.reader);
    if (peer.arriving != NULL)
        message_clear(peer.arriving);
    peer.arriving = NULL;
    peer.fd = -1;
}

/* What rpclib sent is read.  Returns whether there was any. */
static bool peer_read(struct network_link *link)
{
    struct frames taken = link->outbound;

    if (peer.silent || taken.size == 0)
        return false;
    link->outbound = (struct frames){0};
    if (!frames_read(&peer.reader, frames_bytes(&taken), on_frame, NULL))
        fail_msg("rpclib sent what is no AMQP");
    frames_clear(&taken);
    return true;
}

/* One thing that can happen now.  Returns whether there was one. */
static bool peer_step(void)
{
    struct network_link *link = network_link();
    unsigned watched;

    if (link == NULL)
        return false;
    if (link->fd != peer.fd) {
        peer_drop_reader();
        peer.fd = link->fd;
        frames_reader_init(&peer.reader);
    }
    watched = fake_loop_watched(peer.loop, link->fd);
    if (!link->connected) {
        if (peer.silent || !(watched & RPC_LOOP_WRITE))
            return false;
        link->connected = !peer.refuses_connect;
        link->connect_error = peer.refuses_connect ? 111 : 0; /* ECONNREFUSED */
        fake_loop_fire(peer.loop, link->fd, RPC_LOOP_WRITE);
        return true;
    }
    if (peer_read(link))
        return true;
    if ((watched & RPC_LOOP_READ) && (link->inbound.size > 0 || link->gone)) {
        fake_loop_fire(peer.loop, link->fd, RPC_LOOP_READ);
        return true;
    }
    if ((watched & RPC_LOOP_WRITE) && link->room > 0) {
        fake_loop_fire(peer.loop, link->fd, RPC_LOOP_WRITE);
        return true;
    }
    return false;
}

void peer_run(void)
{
    fake_loop_turn(peer.loop);
    for (int rounds = 0; peer_step(); rounds++) {
        if (rounds == ROUNDS_MAX)
            fail_msg("it never comes to rest");
    }
}

void peer_advance(uint64_t duration_ms)
{
    peer_run();
    while (duration_ms > 0) {
        uint64_t next = fake_loop_next_ms(peer.loop);
        uint64_t step = next < duration_ms ? next : duration_ms;

        fake_loop_advance(peer.loop, step);
        peer_run();
        duration_ms -= step;
        if (step == 0 && next == 0)
            fake_loop_turn(peer.loop);
    }
}

/* ---- Life -------------------------------------------------------------------------------------------------------- */

void peer_init_loop(void)
{
    network_reset();
    memset(&peer, 0, sizeof(peer));
    peer.fd = -1;
    peer.loop = fake_loop_new();
}

void peer_connect(const struct rpc_connection_options *options)
{
    struct rpc_connection_options all = *options;

    all.loop = fake_loop_base(peer.loop);
    if (all.uri == NULL)
        all.uri = "amqp://me:secret@127.0.0.1:5672/shop";
    if (all.name == NULL)
        all.name = "test";
    peer.connection = rpc_connection_new(&all);
    assert_non_null(peer.connection);
}

void peer_init(void)
{
    peer_init_loop();
    peer_connect(&(struct rpc_connection_options){0});
    peer_run();
    assert_int_equal(rpc_connection_state(peer.connection), RPC_CONNECTION_UP);
}

void peer_forget(void)
{
    for (unsigned i = 0; i < peer.messages_count; i++)
        message_clear(&peer.messages[i]);
    peer.messages_count = peer.gets = peer.acks = 0;
    peer.story[0] = peer.declared[0] = '\0';
}

void peer_clear(void)
{
    rpc_connection_free(peer.connection);
    peer.connection = NULL;
    peer_drop_reader();
    peer_forget();
    if (peer.loop != NULL)
        fake_loop_free(peer.loop);
    peer.loop = NULL;
    assert_int_equal(network_reset(), 0);
}

/* ---- What the broker does ---------------------------------------------------------------------------------------- */

void peer_deliver(uint16_t channel, uint64_t tag, bool redelivered, const char *routing_key,
                  const amqp_basic_properties_t *properties, struct rpc_bytes body)
{
    PEER_METHOD(channel, BASIC_DELIVER, basic_deliver, .consumer_tag = amqp_cstring_bytes("any"), .delivery_tag = tag,
                .redelivered = redelivered, .exchange = amqp_cstring_bytes("nameko-rpc"),
                .routing_key = amqp_cstring_bytes(routing_key));
    frames_content(peer_out(), channel, properties, body, FRAME_MAX);
}

void peer_request(uint16_t channel, uint64_t tag, const char *routing_key, const char *correlation_id, const char *body)
{
    const amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG,
        .content_type = amqp_cstring_bytes("application/json"),
        .correlation_id = amqp_cstring_bytes(correlation_id),
        .reply_to = amqp_cstring_bytes("caller"),
    };

    peer_deliver(channel, tag, false, routing_key, &properties, rpc_bytes_of(body));
}

static void answer(uint16_t channel, unsigned message, const char *body, amqp_flags_t more)
{
    const amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG | more,
        .content_type = amqp_cstring_bytes("application/json"),
        .correlation_id = amqp_cstring_bytes(peer.messages[message].correlation_id),
        .app_id = amqp_cstring_bytes(BATCH_APP_ID),
    };

    assert_true(message < peer.messages_count);
    peer_deliver(channel, 1, false, peer.messages[message].reply_to, &properties, rpc_bytes_of(body));
}

void peer_answer(uint16_t channel, unsigned message, const char *body)
{
    answer(channel, message, body, 0);
}

void peer_answer_as_rpclib(uint16_t channel, unsigned message, const char *body)
{
    answer(channel, message, body, AMQP_BASIC_APP_ID_FLAG);
}

unsigned peer_batch(unsigned number, struct batch_entry entries[BATCH_MESSAGES_MAX])
{
    const struct peer_message *message = &peer.messages[number];
    struct mq_message whole = {.body = {message->body, message->body_size}};
    struct batch_reader reader;
    amqp_pool_t pool;
    void *properties;
    unsigned count = 0;

    assert_true(number < peer.messages_count);
    init_amqp_pool(&pool, 4096);
    assert_true(amqp_decode_properties(AMQP_BASIC_CLASS, &pool,
                                       (amqp_bytes_t){message->raw_size, message->raw_properties}, &properties) >= 0);
    whole.properties = properties;
    if (batch_open(&reader, &whole)) { /* its header lies in raw_properties, not in the pool */
        assert_true(batch_is_sound(reader));
        while (batch_next(&reader, &entries[count]))
            count++;
    }
    empty_amqp_pool(&pool);
    return count;
}

void peer_return(unsigned number)
{
    const struct peer_message *message = &peer.messages[number];

    assert_true(number < peer.messages_count);
    PEER_METHOD(message->channel, BASIC_RETURN, basic_return, .reply_code = 312,
                .reply_text = amqp_cstring_bytes("NO_ROUTE"), .exchange = amqp_cstring_bytes(message->exchange),
                .routing_key = amqp_cstring_bytes(message->routing_key));
    frames_header_raw(peer_out(), message->channel, (struct rpc_bytes){message->raw_properties, message->raw_size},
                      message->body_size);
    frames_body(peer_out(), message->channel, (struct rpc_bytes){message->body, message->body_size}, FRAME_MAX);
}

void peer_confirm(uint16_t channel, uint64_t tag, bool multiple, bool ack)
{
    if (ack)
        PEER_METHOD(channel, BASIC_ACK, basic_ack, .delivery_tag = tag, .multiple = multiple);
    else
        PEER_METHOD(channel, BASIC_NACK, basic_nack, .delivery_tag = tag, .multiple = multiple);
}

void peer_block(bool blocked)
{
    if (blocked)
        PEER_METHOD(0, CONNECTION_BLOCKED, connection_blocked, .reason = amqp_cstring_bytes("low on memory"));
    else
        PEER_METHOD(0, CONNECTION_UNBLOCKED, connection_unblocked, 0);
}

void peer_hang_up(int error)
{
    struct network_link *link = network_link();

    assert_non_null(link);
    link->gone = true;
    link->gone_error = error;
}

void peer_story_is_at(const char *expected, int line)
{
    story_compare(peer.story, expected, "rpclib sent", line);
}

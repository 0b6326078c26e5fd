/*
 * mq: the AMQP connection, fed by a scripted broker: whole, byte by byte, and at random cuts.  What it says is a story in
 * words, so that a case is one line of what goes in and one of what must come out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "amqp/frame.h"
#include "amqp/mq.h"
#include "rpclib/connection.h"
#include "simulation/frames.h"
#include "story.h"

#define NOW_MS        1000000
#define SEEDS         12 /* of random cuts */
#define CHANNELS      4
#define OUTPUT_MAX    10000
#define FRAME_MAX     4096u
#define MESSAGE_LARGE (RPC_MESSAGE_SIZE_MAX + 1u)

enum feeding { WHOLE, BYTE_BY_BYTE, AT_RANDOM };

struct bench {
    enum feeding feeding;
    unsigned seed;
    struct mq *mq;
    uint64_t now_ms;
    struct frames in;            /* from the broker, not fed yet */
    struct frames_reader reader; /* of what the mq wrote */
    char story[STORY_SIZE];      /* what the mq's events said */
    char wrote[STORY_SIZE];      /* what it sent */
    bool closes_on_delivery;     /* the channel, from inside the event */
    struct mq_channel *channels[CHANNELS];
    unsigned outputs; /* on_output ran so often */
};

static struct bench bench;

/* ---- What the mq says -------------------------------------------------------------------------------------------- */

static void on_open(void *arg)
{
    (void)arg;
    story_tell(bench.story, "open");
}

static void on_blocked(bool blocked, struct rpc_bytes reason, void *arg)
{
    (void)arg;
    story_tell(bench.story, blocked ? "blocked: %.*s" : "unblocked%.*s", (int)reason.size, reason.data);
}

static void on_output(void *arg)
{
    (void)arg;
    bench.outputs++;
}

static const struct mq_events events = {.on_open = on_open, .on_blocked = on_blocked, .on_output = on_output};

/* The channels' arg is their index's address in here. */
static int indices[CHANNELS] = {0, 1, 2, 3};

static int index_of(void *arg)
{
    return *(int *)arg + 1;
}

static void on_settled(void *arg)
{
    story_tell(bench.story, "%d settled", index_of(arg));
}

/* Every body in these tests is a run of 'a' 'b' ... 'z' 'a' ..., so a byte that is lost or moved is seen. */
static bool is_run(struct rpc_bytes body)
{
    for (size_t i = 0; i < body.size; i++) {
        if (body.data[i] != (char)('a' + i % 26))
            return false;
    }
    return true;
}

static void tell_message(const char *what, const struct mq_message *message, void *arg)
{
    const amqp_basic_properties_t *properties = message->properties;
    char id[64] = "";

    if (message->oversized) {
        assert_null(properties);
        assert_int_equal(message->body.size, 0);
        story_tell(bench.story, "%d %s oversized", index_of(arg), what);
        return;
    }
    assert_non_null(properties);
    if (properties->_flags & AMQP_BASIC_CORRELATION_ID_FLAG)
        snprintf(id, sizeof(id), " id=%.*s", (int)properties->correlation_id.len,
                 (const char *)properties->correlation_id.bytes);
    story_tell(bench.story, "%d %s %.*s/%.*s%s %zu%s", index_of(arg), what, (int)message->exchange.size,
               message->exchange.data, (int)message->routing_key.size, message->routing_key.data, id,
               message->body.size, is_run(message->body) ? "" : " WRONG BODY");
}

static void on_delivery(const struct mq_delivery *delivery, void *arg)
{
    char what[80];

    snprintf(what, sizeof(what), "got %llu%s from %.*s", (unsigned long long)delivery->tag,
             delivery->redelivered ? " again" : "", delivery->message.oversized ? 0 : (int)delivery->consumer_tag.size,
             delivery->consumer_tag.data);
    tell_message(what, &delivery->message, arg);
    if (bench.closes_on_delivery)
        mq_channel_close(bench.channels[index_of(arg) - 1]);
}

static void on_return(const struct mq_message *message, uint16_t code, void *arg)
{
    char what[32];

    snprintf(what, sizeof(what), "returned %d", code);
    tell_message(what, message, arg);
}

static void on_confirm(uint64_t tag, bool multiple, bool ack, void *arg)
{
    story_tell(bench.story, "%d %s %llu%s", index_of(arg), ack ? "ack" : "nack", (unsigned long long)tag,
               multiple ? "+" : "");
}

static void on_cancelled(void *arg)
{
    story_tell(bench.story, "%d cancelled", index_of(arg));
}

static void on_closed(uint16_t code, struct rpc_bytes text, void *arg)
{
    bench.channels[index_of(arg) - 1] = NULL;
    story_tell(bench.story, "%d closed %d %.*s", index_of(arg), code, (int)text.size, text.data);
}

static const struct mq_channel_events channel_events = {
    .on_settled = on_settled,
    .on_delivery = on_delivery,
    .on_return = on_return,
    .on_confirm = on_confirm,
    .on_cancelled = on_cancelled,
    .on_closed = on_closed,
};

static const struct mq_channel_events channel_events_no_confirm = {
    .on_settled = on_settled,
    .on_delivery = on_delivery,
    .on_closed = on_closed,
};

/* ---- What it sends ----------------------------------------------------------------------------------------------- */

static void text_of_table(char out[512], const amqp_table_t *table)
{
    size_t used = 0;

    out[0] = '\0';
    for (int i = 0; i < table->num_entries && used < 400; i++) {
        const amqp_table_entry_t *entry = &table->entries[i];

        used += (size_t)snprintf(out + used, 512 - used, "%s%.*s", i == 0 ? "" : " ", (int)entry->key.len,
                                 (const char *)entry->key.bytes);
        if (entry->value.kind == AMQP_FIELD_KIND_UTF8)
            used += (size_t)snprintf(out + used, 512 - used, "=%.*s", (int)entry->value.value.bytes.len,
                                     (const char *)entry->value.value.bytes.bytes);
        if (entry->value.kind == AMQP_FIELD_KIND_I32)
            used += (size_t)snprintf(out + used, 512 - used, "=%d", entry->value.value.i32);
        if (entry->value.kind == AMQP_FIELD_KIND_TABLE) {
            char inner[512];

            text_of_table(inner, &entry->value.value.table);
            used += (size_t)snprintf(out + used, 512 - used, "={%s}", inner);
        }
    }
}

#define TEXT(text) (int)(text).len, (const char *)(text).bytes

static void tell_start_ok(const amqp_connection_start_ok_t *ok)
{
    char table[512], response[64];

    assert_true(ok->response.len < sizeof(response));
    for (size_t i = 0; i < ok->response.len; i++)
        response[i] = ((char *)ok->response.bytes)[i] == '\0' ? '|' : ((char *)ok->response.bytes)[i];
    text_of_table(table, &ok->client_properties);
    story_tell(bench.wrote, "start-ok %.*s %.*s %.*s {%s}", TEXT(ok->mechanism), (int)ok->response.len, response,
               TEXT(ok->locale), table);
}

/* Each of the next three: false when it is none of these methods. */
static bool tell_connection_method(const amqp_method_t *method)
{
    switch (method->id) {
    case AMQP_CONNECTION_START_OK_METHOD:
        tell_start_ok(method->decoded);
        return true;
    case AMQP_CONNECTION_TUNE_OK_METHOD: {
        const amqp_connection_tune_ok_t *m = method->decoded;
        story_tell(bench.wrote, "tune-ok %d %u %d", m->channel_max, m->frame_max, m->heartbeat);
        return true;
    }
    case AMQP_CONNECTION_OPEN_METHOD: {
        const amqp_connection_open_t *m = method->decoded;
        story_tell(bench.wrote, "open %.*s", TEXT(m->virtual_host));
        return true;
    }
    default:
        return false;
    }
}

static bool tell_declaration(int channel, const amqp_method_t *method)
{
    char table[512];

    switch (method->id) {
    case AMQP_EXCHANGE_DECLARE_METHOD: {
        const amqp_exchange_declare_t *m = method->decoded;
        text_of_table(table, &m->arguments);
        story_tell(bench.wrote, "%d exchange %.*s %.*s%s%s%s%s {%s}", channel, TEXT(m->exchange), TEXT(m->type),
                   m->durable ? " durable" : "", m->auto_delete ? " auto-delete" : "", m->passive ? " passive" : "",
                   m->nowait ? " nowait" : "", table);
        return true;
    }
    case AMQP_QUEUE_DECLARE_METHOD: {
        const amqp_queue_declare_t *m = method->decoded;
        text_of_table(table, &m->arguments);
        story_tell(bench.wrote, "%d queue %.*s%s%s%s {%s}", channel, TEXT(m->queue), m->durable ? " durable" : "",
                   m->exclusive ? " exclusive" : "", m->auto_delete ? " auto-delete" : "", table);
        return true;
    }
    case AMQP_QUEUE_BIND_METHOD: {
        const amqp_queue_bind_t *m = method->decoded;
        story_tell(bench.wrote, "%d bind %.*s to %.*s by %.*s", channel, TEXT(m->queue), TEXT(m->exchange),
                   TEXT(m->routing_key));
        return true;
    }
    default:
        return false;
    }
}

static bool tell_basic_method(int channel, const amqp_method_t *method)
{
    switch (method->id) {
    case AMQP_BASIC_QOS_METHOD: {
        const amqp_basic_qos_t *m = method->decoded;
        story_tell(bench.wrote, "%d qos %d%s", channel, m->prefetch_count, m->global ? " global" : "");
        return true;
    }
    case AMQP_BASIC_CONSUME_METHOD: {
        const amqp_basic_consume_t *m = method->decoded;
        story_tell(bench.wrote, "%d consume %.*s as %.*s%s", channel, TEXT(m->queue), TEXT(m->consumer_tag),
                   m->no_ack ? " no-ack" : "");
        return true;
    }
    case AMQP_BASIC_CANCEL_METHOD: {
        const amqp_basic_cancel_t *m = method->decoded;
        story_tell(bench.wrote, "%d cancel %.*s", channel, TEXT(m->consumer_tag));
        return true;
    }
    case AMQP_BASIC_PUBLISH_METHOD: {
        const amqp_basic_publish_t *m = method->decoded;
        story_tell(bench.wrote, "%d publish %.*s/%.*s%s", channel, TEXT(m->exchange), TEXT(m->routing_key),
                   m->mandatory ? " mandatory" : "");
        return true;
    }
    case AMQP_BASIC_ACK_METHOD: {
        const amqp_basic_ack_t *m = method->decoded;
        story_tell(bench.wrote, "%d ack %llu%s", channel, (unsigned long long)m->delivery_tag, m->multiple ? "+" : "");
        return true;
    }
    case AMQP_BASIC_REJECT_METHOD: {
        const amqp_basic_reject_t *m = method->decoded;
        story_tell(bench.wrote, "%d reject %llu%s", channel, (unsigned long long)m->delivery_tag,
                   m->requeue ? " requeue" : "");
        return true;
    }
    default:
        return false;
    }
}

static void tell_method(int channel, const amqp_method_t *method)
{
    char name[40];

    if (!tell_connection_method(method) && !tell_declaration(channel, method) && !tell_basic_method(channel, method))
        story_tell(bench.wrote, "%d %s", channel, frames_method_name(method->id, name));
}

static void on_frame(const amqp_frame_t *frame, void *arg)
{
    (void)arg;
    switch (frame->frame_type) {
    case 'A':
        story_tell(bench.wrote, "AMQP %d-%d", frame->payload.protocol_header.protocol_version_major,
                   frame->payload.protocol_header.protocol_version_minor);
        break;
    case AMQP_FRAME_METHOD:
        tell_method(frame->channel, &frame->payload.method);
        break;
    case AMQP_FRAME_HEADER:
        story_tell(bench.wrote, "%d header %llu", frame->channel,
                   (unsigned long long)frame->payload.properties.body_size);
        break;
    case AMQP_FRAME_BODY:
        story_tell(bench.wrote, "%d body %zu", frame->channel, frame->payload.body_fragment.len);
        break;
    case AMQP_FRAME_HEARTBEAT:
        story_tell(bench.wrote, "heartbeat");
        break;
    default:
        story_tell(bench.wrote, "frame of type %d", frame->frame_type);
        break;
    }
}

/* Writes all the output there is. */
static void write_out(void)
{
    struct rpc_bytes output = mq_output(bench.mq);

    assert_true(frames_read(&bench.reader, output, on_frame, NULL));
    mq_output_written(bench.mq, output.size, bench.now_ms);
    assert_int_equal(mq_output(bench.mq).size, 0);
    assert_int_equal(mq_output_written_total(bench.mq), mq_output_appended_total(bench.mq));
}

static void story_is_at(const char *expected, int line)
{
    if (strcmp(bench.story, expected) != 0)
        fail_msg("line %d: feeding %d, seed %u:\n  said   \"%s\"\n  not    \"%s\"\n  error  \"%s\"", line,
                 (int)bench.feeding, bench.seed, bench.story, expected, mq_error(bench.mq));
    bench.story[0] = '\0';
}

static void wrote_is_at(const char *expected, int line)
{
    write_out();
    if (strcmp(bench.wrote, expected) != 0)
        fail_msg("line %d: feeding %d, seed %u:\n  wrote  \"%s\"\n  not    \"%s\"\n  error  \"%s\"", line,
                 (int)bench.feeding, bench.seed, bench.wrote, expected, mq_error(bench.mq));
    bench.wrote[0] = '\0';
}

static void state_is_at(enum mq_state state, const char *error, int line)
{
    if (mq_state(bench.mq) != state || strcmp(mq_error(bench.mq), error) != 0)
        fail_msg("line %d: feeding %d, seed %u: state %d \"%s\" instead of %d \"%s\"", line, (int)bench.feeding,
                 bench.seed, (int)mq_state(bench.mq), mq_error(bench.mq), (int)state, error);
}

#define story_is(expected)     story_is_at(expected, __LINE__)
#define wrote_is(expected)     wrote_is_at(expected, __LINE__)
#define state_is(state, error) state_is_at(state, error, __LINE__)

/* ---- Feeding ----------------------------------------------------------------------------------------------------- */

/* Bytes are fed from memory of exactly their size, so that a read behind them is seen. */
static void feed_copy(const char *data, size_t size)
{
    char *copy = malloc(size);

    assert_non_null(copy);
    memcpy(copy, data, size);
    mq_feed(bench.mq, (struct rpc_bytes){copy, size}, bench.now_ms);
    memset(copy, 0x5a, size);
    free(copy);
}

/* The next cut: mostly within a frame's header and end, where cuts hurt, and now and then far away. */
static size_t random_cut(size_t left)
{
    size_t cut = 1 + (size_t)rand_r(&bench.seed) % (rand_r(&bench.seed) % 4 == 0 ? 5000 : 9);

    return cut < left ? cut : left;
}

static void feed(void)
{
    size_t at = 0, size = bench.in.size;

    while (at < size) {
        size_t part = bench.feeding == WHOLE ? size - at : bench.feeding == BYTE_BY_BYTE ? 1 : random_cut(size - at);

        feed_copy(bench.in.data + at, part);
        at += part;
    }
    bench.in.size = 0;
}

#define METHOD(channel, NAME, type, ...) \
    frames_method(&bench.in, channel, AMQP_##NAME##_METHOD, &(amqp_##type##_t){__VA_ARGS__})

static void broker_start(int major, int minor, const char *mechanisms)
{
    amqp_table_entry_t product = {.key = amqp_cstring_bytes("product"),
                                  .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes("test")}};

    METHOD(0, CONNECTION_START, connection_start, .version_major = (uint8_t)major, .version_minor = (uint8_t)minor,
           .server_properties = {1, &product}, .mechanisms = amqp_cstring_bytes(mechanisms),
           .locales = amqp_cstring_bytes("en_US"));
}

static void broker_tune(uint16_t channel_max, uint32_t frame_max, uint16_t heartbeat)
{
    METHOD(0, CONNECTION_TUNE, connection_tune, .channel_max = channel_max, .frame_max = frame_max,
           .heartbeat = heartbeat);
}

static void broker_close(uint16_t code, const char *text)
{
    METHOD(0, CONNECTION_CLOSE, connection_close, .reply_code = code, .reply_text = amqp_cstring_bytes(text));
}

static char run_of_letters[3 * FRAME_MAX + 8];

static void deliver(int channel, uint64_t tag, bool redelivered, size_t body_size)
{
    const amqp_basic_properties_t properties = {._flags = AMQP_BASIC_CORRELATION_ID_FLAG,
                                                .correlation_id = amqp_cstring_bytes("c-1")};

    METHOD((uint16_t)channel, BASIC_DELIVER, basic_deliver, .consumer_tag = amqp_cstring_bytes("me"),
           .delivery_tag = tag, .redelivered = redelivered, .exchange = amqp_cstring_bytes("x"),
           .routing_key = amqp_cstring_bytes("s.m"));
    frames_content(&bench.in, (uint16_t)channel, &properties, (struct rpc_bytes){run_of_letters, body_size}, FRAME_MAX);
}

static void deliver_method(int channel)
{
    METHOD((uint16_t)channel, BASIC_DELIVER, basic_deliver, .consumer_tag = amqp_cstring_bytes("me"), .delivery_tag = 1,
           .exchange = amqp_cstring_bytes("x"), .routing_key = amqp_cstring_bytes("s.m"));
}

static void header(int channel, uint64_t size)
{
    frames_header(&bench.in, (uint16_t)channel, &(amqp_basic_properties_t){0}, size);
}

static void body(int channel, size_t size)
{
    frames_raw(&bench.in, AMQP_FRAME_BODY, (uint16_t)channel, (struct rpc_bytes){run_of_letters, size});
}

/* ---- A bench at each stage --------------------------------------------------------------------------------------- */

static void bench_init(uint16_t heartbeat_s)
{
    bench.now_ms = NOW_MS;
    bench.mq = mq_new(&(struct mq_options){.user = "me",
                                           .password = "secret",
                                           .vhost = "shop",
                                           .name = "orders",
                                           .version = "1.2",
                                           .heartbeat_s = heartbeat_s,
                                           .output_size_max = OUTPUT_MAX,
                                           .now_ms = NOW_MS,
                                           .events = &events});
    assert_non_null(bench.mq);
    frames_reader_init(&bench.reader);
    for (size_t i = 0; i < sizeof(run_of_letters); i++)
        run_of_letters[i] = (char)('a' + i % 26);
}

static void bench_clear(void)
{
    mq_free(bench.mq);
    frames_reader_clear(&bench.reader);
    frames_clear(&bench.in);
    bench = (struct bench){.feeding = bench.feeding, .seed = bench.seed};
}

static void shake_hands(uint16_t heartbeat_s)
{
    bench_init(heartbeat_s);
    broker_start(0, 9, "AMQPLAIN PLAIN");
    broker_tune(2047, FRAME_MAX, 60);
    METHOD(0, CONNECTION_OPEN_OK, connection_open_ok, 0);
    feed();
    story_is("open");
    write_out();
    bench.wrote[0] = '\0';
    state_is(MQ_OPEN, "");
}

/* Channel `number` is open, settled and quiet. */
static void open_channel(int number)
{
    char said[32];

    bench.channels[number - 1] = mq_channel_open(bench.mq, &channel_events, &indices[number - 1]);
    assert_non_null(bench.channels[number - 1]);
    METHOD((uint16_t)number, CHANNEL_OPEN_OK, channel_open_ok, 0);
    feed();
    snprintf(said, sizeof(said), "%d settled", number);
    story_is(said);
    write_out();
    bench.wrote[0] = '\0';
}

static void open_connection(int channels)
{
    shake_hands(10);
    for (int number = 1; number <= channels; number++)
        open_channel(number);
}

typedef void case_fn(void);

/* A case in every way of feeding it. */
static void in_all_cuts(case_fn *test)
{
    for (bench.feeding = WHOLE; bench.feeding <= AT_RANDOM; bench.feeding++) {
        unsigned seeds = bench.feeding == AT_RANDOM ? SEEDS : 1;

        for (unsigned seed = 0; seed < seeds; seed++) {
            bench.seed = seed;
            test();
            bench_clear();
        }
    }
}

#define CUT_TEST(name)                  \
    static void name##_case(void);      \
    static void name(void **test_state) \
    {                                   \
        (void)test_state;               \
        in_all_cuts(name##_case);       \
    }                                   \
    static void name##_case(void)

/* ---- Handshake --------------------------------------------------------------------------------------------------- */

CUT_TEST(test_handshake)
{
    bench_init(10);
    state_is(MQ_HANDSHAKE, "");
    wrote_is("AMQP 9-1");
    broker_start(0, 9, "AMQPLAIN PLAIN");
    feed();
    wrote_is("start-ok PLAIN |me|secret en_US {product=Airship rpclib version=1.2 platform=C connection_name=orders "
             "capabilities={authentication_failure_close connection.blocked consumer_cancel_notify basic.nack "
             "publisher_confirms exchange_exchange_bindings}}");
    assert_null(mq_channel_open(bench.mq, &channel_events, NULL)); /* not yet */
    broker_tune(2047, 131072, 60);
    feed();
    wrote_is("tune-ok 64 131072 10; open shop");
    story_is("");
    METHOD(0, CONNECTION_OPEN_OK, connection_open_ok, 0);
    feed();
    story_is("open");
    wrote_is("");
    state_is(MQ_OPEN, "");
    assert_false(mq_refused(bench.mq));
    assert_int_equal(mq_tick_interval_ms(bench.mq, bench.now_ms), 5000);
}

static void tune_is_at(uint16_t ours, uint16_t channel_max, uint32_t frame_max, uint16_t heartbeat,
                       const char *expected, int line)
{
    char wrote[64];

    bench_init(ours);
    broker_start(0, 9, "PLAIN");
    feed();
    write_out();
    bench.wrote[0] = '\0';
    broker_tune(channel_max, frame_max, heartbeat);
    feed();
    snprintf(wrote, sizeof(wrote), "%s; open shop", expected);
    wrote_is_at(wrote, line);
    bench_clear();
}

#define tune_is(ours, channels, frame, theirs, expected) tune_is_at(ours, channels, frame, theirs, expected, __LINE__)

static void test_tune(void **state)
{
    (void)state;
    tune_is(10, 2047, 131072, 60, "tune-ok 64 131072 10");
    tune_is(60, 2047, 131072, 10, "tune-ok 64 131072 10"); /* the smaller wins */
    tune_is(10, 0, 0, 0, "tune-ok 64 131072 10");          /* 0: no limit, the choice is ours */
    tune_is(0, 0, 0, 60, "tune-ok 64 131072 0");           /* we want none */
    tune_is(10, 1, 4096, 1, "tune-ok 1 4096 1");
    tune_is(10, 63, 4097, 60, "tune-ok 63 4097 10");
    tune_is(10, 65535, UINT32_MAX, 65535, "tune-ok 64 131072 10");
}

/* The handshake up to `stage` methods of the broker's, then what `refuse` sends. */
static void refused_at(int stage, case_fn *refuse, enum mq_state state, const char *error, bool refused, int line)
{
    for (bench.feeding = WHOLE; bench.feeding <= BYTE_BY_BYTE; bench.feeding++) {
        bench_init(10);
        if (stage > 0)
            broker_start(0, 9, "PLAIN");
        if (stage > 1)
            broker_tune(0, 0, 10);
        feed();
        refuse();
        METHOD(0, CONNECTION_OPEN_OK, connection_open_ok, 0); /* comes too late */
        feed();
        state_is_at(state, error, line);
        assert_int_equal(mq_refused(bench.mq), refused);
        assert_null(mq_channel_open(bench.mq, &channel_events, NULL));
        story_is_at("", line);
        bench_clear();
    }
    bench.feeding = WHOLE;
}

#define refused(stage, refuse, state, error, refused) refused_at(stage, refuse, state, error, refused, __LINE__)

#define REFUSAL(name, ...) \
    static void name(void) \
    {                      \
        __VA_ARGS__;       \
    }

REFUSAL(no_plain, broker_start(0, 9, "AMQPLAIN EXTERNAL"))
REFUSAL(plain_within_a_word, broker_start(0, 9, "XPLAIN PLAINX AMQPLAIN"))
REFUSAL(no_mechanism, broker_start(0, 9, ""))
REFUSAL(version_1_0, broker_start(1, 0, "PLAIN"))
REFUSAL(other_protocol, frames_append(&bench.in, RPC_BYTES("AMQP\0\1\0\0")))
REFUSAL(http, frames_append(&bench.in, RPC_BYTES("HTTP/1.1 400 Bad Request\r\n")))
REFUSAL(login_refused, broker_close(403, "ACCESS_REFUSED - Login was refused"))
REFUSAL(vhost_unknown, broker_close(530, "NOT_ALLOWED - vhost shop not found"))
REFUSAL(broker_error, broker_close(541, "INTERNAL_ERROR"))
REFUSAL(tune_tiny, broker_tune(0, 4095, 10))
REFUSAL(tune_too_early, broker_tune(0, 0, 10))
REFUSAL(start_again, broker_start(0, 9, "PLAIN"))
REFUSAL(secure, METHOD(0, CONNECTION_SECURE, connection_secure, .challenge = amqp_cstring_bytes("?")))
REFUSAL(channel_too_early, METHOD(1, CHANNEL_OPEN_OK, channel_open_ok, 0))
REFUSAL(header_on_0, header(0, 1))
REFUSAL(close_ok_unasked, METHOD(0, CONNECTION_CLOSE_OK, connection_close_ok, 0))
REFUSAL(blocked_too_early, METHOD(0, CONNECTION_BLOCKED, connection_blocked, .reason = amqp_cstring_bytes("x")))

static void test_refusals(void **state)
{
    (void)state;
    refused(0, no_plain, MQ_BROKEN, "the broker offers AMQP 0-9 without SASL PLAIN, or not 0-9", false);
    refused(0, plain_within_a_word, MQ_BROKEN, "the broker offers AMQP 0-9 without SASL PLAIN, or not 0-9", false);
    refused(0, no_mechanism, MQ_BROKEN, "the broker offers AMQP 0-9 without SASL PLAIN, or not 0-9", false);
    refused(0, version_1_0, MQ_BROKEN, "the broker offers AMQP 1-0 without SASL PLAIN, or not 0-9", false);
    refused(0, other_protocol, MQ_BROKEN, "the peer does not speak AMQP 0-9-1", false);
    refused(0, tune_too_early, MQ_BROKEN,
            "the broker sent AMQP_CONNECTION_TUNE_METHOD where AMQP_CONNECTION_START_METHOD was due", false);
    refused(1, login_refused, MQ_CLOSED, "the broker closed the connection: 403 ACCESS_REFUSED - Login was refused",
            true);
    refused(1, start_again, MQ_BROKEN,
            "the broker sent AMQP_CONNECTION_START_METHOD where AMQP_CONNECTION_TUNE_METHOD was due", false);
    refused(1, secure, MQ_BROKEN,
            "the broker sent AMQP_CONNECTION_SECURE_METHOD where AMQP_CONNECTION_TUNE_METHOD was due", false);
    refused(1, tune_tiny, MQ_BROKEN, "the broker wants frames of 4095 bytes; AMQP's least is 4096", false);
    refused(2, vhost_unknown, MQ_CLOSED, "the broker closed the connection: 530 NOT_ALLOWED - vhost shop not found",
            true);
    refused(2, broker_error, MQ_CLOSED, "the broker closed the connection: 541 INTERNAL_ERROR", false);
    refused(2, channel_too_early, MQ_BROKEN, "the broker sent a frame on channel 1, which is not open", false);
    refused(1, header_on_0, MQ_BROKEN, "the broker sent content on channel 0", false);
    refused(1, close_ok_unasked, MQ_BROKEN,
            "the broker sent AMQP_CONNECTION_CLOSE_OK_METHOD where AMQP_CONNECTION_TUNE_METHOD was due", false);
    refused(2, blocked_too_early, MQ_BROKEN,
            "the broker sent AMQP_CONNECTION_BLOCKED_METHOD where AMQP_CONNECTION_OPEN_OK_METHOD was due", false);
}

static void test_no_amqp_at_all(void **state)
{
    (void)state;
    bench_init(10);
    http();
    feed();
    assert_int_equal(mq_state(bench.mq), MQ_BROKEN);
    assert_non_null(strstr(mq_error(bench.mq), "the broker sent bytes that are no AMQP"));
    bench_clear();
}

/* A close in the handshake is answered, so that a broker that waits for it lets go. */
CUT_TEST(test_refusal_is_answered)
{
    bench_init(10);
    broker_start(0, 9, "PLAIN");
    feed();
    write_out();
    bench.wrote[0] = '\0';
    login_refused();
    feed();
    wrote_is("0 connection.close-ok");
    assert_int_equal(mq_tick(bench.mq, NOW_MS + 1000000), MQ_CLOSED);
    wrote_is("");
}

static void test_credentials_leave_no_trace(void **state)
{
    (void)state;
    shake_hands(10); /* user and password were lent until now; nothing may look at them again */
    mq_tick(bench.mq, NOW_MS + 5000);
    wrote_is("heartbeat");
    bench_clear();
}

/* ---- Heartbeats -------------------------------------------------------------------------------------------------- */

static void tick_at(uint64_t at_ms)
{
    bench.now_ms = NOW_MS + at_ms;
    mq_tick(bench.mq, bench.now_ms);
}

static void test_heartbeats_out(void **state)
{
    (void)state;
    shake_hands(10);
    tick_at(4999);
    wrote_is("");
    tick_at(5000);
    wrote_is("heartbeat");
    tick_at(9999);
    wrote_is("");
    tick_at(10000);
    assert_true(mq_output(bench.mq).size > 0);
    tick_at(15000); /* the first still waits to be written: one is enough */
    wrote_is("heartbeat");
    tick_at(19000);
    wrote_is("");
    bench_clear();
}

static void test_any_write_counts_as_heartbeat(void **state)
{
    (void)state;
    open_connection(1);
    bench.now_ms = NOW_MS + 4000;
    mq_ack(bench.channels[0], 1, false);
    wrote_is("1 ack 1");
    tick_at(5000);
    wrote_is("");
    tick_at(9000);
    wrote_is("heartbeat");
    bench_clear();
}

static void test_silent_broker(void **state)
{
    (void)state;
    shake_hands(10);
    tick_at(19999);
    state_is(MQ_OPEN, "");
    tick_at(20000);
    state_is(MQ_BROKEN, "the broker was silent for 20 s");
    bench_clear();
}

/* However the ticks fall: it ends when the silence is two heartbeats long, not at a tick behind that. */
static void test_silence_is_noticed_at_once(void **state)
{
    (void)state;
    shake_hands(10);
    bench.now_ms = NOW_MS + 4321;
    frames_heartbeat(&bench.in);
    feed();
    while (mq_state(bench.mq) == MQ_OPEN) {
        uint64_t interval_ms = mq_tick_interval_ms(bench.mq, bench.now_ms);

        assert_in_range(interval_ms, 1, 5000);
        mq_tick(bench.mq, bench.now_ms += interval_ms);
    }
    assert_int_equal(bench.now_ms, NOW_MS + 4321 + 20000);
    bench_clear();
}

static void test_any_byte_counts_as_heartbeat(void **state)
{
    (void)state;
    shake_hands(10);
    frames_heartbeat(&bench.in);
    bench.now_ms = NOW_MS + 15000;
    feed_copy(bench.in.data, 1); /* not even a whole frame */
    tick_at(34999);
    state_is(MQ_OPEN, "");
    tick_at(35000);
    state_is(MQ_BROKEN, "the broker was silent for 20 s");
    bench_clear();
}

static void test_no_heartbeats_wanted(void **state)
{
    (void)state;
    shake_hands(0);
    tick_at(100000000);
    state_is(MQ_OPEN, "");
    wrote_is("");
    assert_int_equal(mq_tick_interval_ms(bench.mq, bench.now_ms), 1000);
    bench_clear();
}

/* ---- Channels ---------------------------------------------------------------------------------------------------- */

CUT_TEST(test_set_up)
{
    struct mq_channel *channel;

    shake_hands(10);
    bench.channels[0] = channel = mq_channel_open(bench.mq, &channel_events, &indices[0]);
    mq_qos(channel, 10);
    mq_exchange_declare(channel, "nameko-rpc");
    mq_queue_declare(channel, &(struct mq_queue){.name = "rpc-orders", .durable = true});
    mq_queue_declare(channel, &(struct mq_queue){.name = "mine", .exclusive = true, .auto_delete = true});
    mq_queue_declare(channel, &(struct mq_queue){.name = "old", .durable = true, .expires_ms = 300000});
    mq_queue_bind(channel, "rpc-orders", "nameko-rpc", "orders.*");
    mq_confirm_select(channel);
    mq_consume(channel, "rpc-orders", "me", false);
    mq_consume(channel, "mine", "too", true);
    wrote_is("1 channel.open; 1 qos 10; 1 exchange nameko-rpc topic durable {}; 1 queue rpc-orders durable {}; "
             "1 queue mine exclusive auto-delete {}; 1 queue old durable {x-expires=300000}; "
             "1 bind rpc-orders to nameko-rpc by orders.*; 1 confirm.select; 1 consume rpc-orders as me; "
             "1 consume mine as too no-ack");
    METHOD(1, CHANNEL_OPEN_OK, channel_open_ok, 0);
    METHOD(1, BASIC_QOS_OK, basic_qos_ok, 0);
    METHOD(1, EXCHANGE_DECLARE_OK, exchange_declare_ok, 0);
    METHOD(1, QUEUE_DECLARE_OK, queue_declare_ok, .queue = amqp_cstring_bytes("rpc-orders"));
    METHOD(1, QUEUE_DECLARE_OK, queue_declare_ok, .queue = amqp_cstring_bytes("mine"));
    METHOD(1, QUEUE_DECLARE_OK, queue_declare_ok, .queue = amqp_cstring_bytes("old"));
    METHOD(1, QUEUE_BIND_OK, queue_bind_ok, 0);
    METHOD(1, CONFIRM_SELECT_OK, confirm_select_ok, 0);
    METHOD(1, BASIC_CONSUME_OK, basic_consume_ok, .consumer_tag = amqp_cstring_bytes("me"));
    deliver(1, 1, false, 3); /* before all answers are in */
    feed();
    story_is("1 got 1 from me x/s.m id=c-1 3");
    METHOD(1, BASIC_CONSUME_OK, basic_consume_ok, .consumer_tag = amqp_cstring_bytes("too"));
    feed();
    story_is("1 settled");
    mq_cancel(channel, "me");
    wrote_is("1 cancel me");
    METHOD(1, BASIC_CANCEL_OK, basic_cancel_ok, .consumer_tag = amqp_cstring_bytes("me"));
    feed();
    story_is("1 settled");
    state_is(MQ_OPEN, "");
}

static void test_more_answers_than_places(void **state)
{
    (void)state;
    open_connection(1);
    for (int i = 0; i < MQ_ANSWERS_MAX; i++)
        mq_qos(bench.channels[0], 1);
    state_is(MQ_OPEN, "");
    mq_qos(bench.channels[0], 1);
    state_is(MQ_BROKEN, "more than 64 answers awaited on a channel");
    bench_clear();
}

/* The ring of awaited answers, many times around. */
CUT_TEST(test_answers_go_round)
{
    open_connection(1);
    for (int i = 0; i < 3 * MQ_ANSWERS_MAX; i++) {
        mq_qos(bench.channels[0], 1);
        mq_confirm_select(bench.channels[0]);
        METHOD(1, BASIC_QOS_OK, basic_qos_ok, 0);
        METHOD(1, CONFIRM_SELECT_OK, confirm_select_ok, 0);
        feed();
        story_is("1 settled");
    }
    state_is(MQ_OPEN, "");
}

static void test_channel_numbers(void **state)
{
    struct mq_channel *channels[MQ_CHANNELS_MAX];

    (void)state;
    shake_hands(10);
    for (int i = 0; i < MQ_CHANNELS_MAX; i++) {
        channels[i] = mq_channel_open(bench.mq, &channel_events, &indices[0]);
        assert_non_null(channels[i]);
    }
    assert_null(mq_channel_open(bench.mq, &channel_events, &indices[0]));
    mq_channel_close(channels[41]);
    assert_null(mq_channel_open(bench.mq, &channel_events, &indices[0])); /* the broker still knows it */
    write_out();
    bench.wrote[0] = '\0';
    METHOD(42, CHANNEL_OPEN_OK, channel_open_ok, 0);
    METHOD(42, CHANNEL_CLOSE_OK, channel_close_ok, 0);
    feed();
    assert_non_null(mq_channel_open(bench.mq, &channel_events, &indices[1]));
    wrote_is("42 channel.open");
    METHOD(42, CHANNEL_OPEN_OK, channel_open_ok, 0);
    feed();
    story_is("2 settled");
    bench_clear();
}

static void test_channel_max_of_the_broker(void **state)
{
    (void)state;
    bench_init(10);
    broker_start(0, 9, "PLAIN");
    broker_tune(1, 0, 0);
    METHOD(0, CONNECTION_OPEN_OK, connection_open_ok, 0);
    feed();
    assert_non_null(mq_channel_open(bench.mq, &channel_events, &indices[0]));
    assert_null(mq_channel_open(bench.mq, &channel_events, &indices[1]));
    bench_clear();
}

CUT_TEST(test_channel_closed_by_the_broker)
{
    open_connection(2);
    mq_qos(bench.channels[0], 1); /* its answer will never come */
    METHOD(1, CHANNEL_CLOSE, channel_close, .reply_code = 406, .reply_text = amqp_cstring_bytes("PRECONDITION_FAILED"));
    deliver(2, 1, false, 1);
    feed();
    story_is("1 closed 406 PRECONDITION_FAILED; 2 got 1 from me x/s.m id=c-1 1");
    wrote_is("1 qos 1; 1 channel.close-ok");
    open_channel(1); /* the number is free again */
    state_is(MQ_OPEN, "");
}

CUT_TEST(test_channel_closed_by_us)
{
    open_connection(2);
    mq_channel_close(bench.channels[0]);
    wrote_is("1 channel.close");
    deliver(1, 1, false, 5000); /* was under way */
    METHOD(1, BASIC_ACK, basic_ack, .delivery_tag = 1);
    METHOD(1, BASIC_CANCEL, basic_cancel, .consumer_tag = amqp_cstring_bytes("me"));
    METHOD(1, CHANNEL_CLOSE_OK, channel_close_ok, 0);
    feed();
    story_is("");
    wrote_is("");
    open_channel(1);
    state_is(MQ_OPEN, "");
}

/* Both sides close at once: the broker answers our close although its own is answered too. */
CUT_TEST(test_channel_closed_by_both)
{
    open_connection(1);
    mq_channel_close(bench.channels[0]);
    METHOD(1, CHANNEL_CLOSE, channel_close, .reply_code = 404, .reply_text = amqp_cstring_bytes("NOT_FOUND"));
    feed();
    wrote_is("1 channel.close; 1 channel.close-ok");
    story_is("");
    METHOD(1, CHANNEL_CLOSE_OK, channel_close_ok, 0);
    feed();
    open_channel(1);
    state_is(MQ_OPEN, "");
}

CUT_TEST(test_channel_closed_within_its_delivery)
{
    open_connection(1);
    bench.closes_on_delivery = true;
    deliver(1, 1, false, 9000);
    deliver(1, 2, false, 1);
    feed();
    story_is("1 got 1 from me x/s.m id=c-1 9000");
    wrote_is("1 channel.close");
    state_is(MQ_OPEN, "");
}

/* ---- Deliveries -------------------------------------------------------------------------------------------------- */

static void delivery_is_whole_at(size_t size, int line)
{
    char said[64];

    deliver(1, 7, true, size);
    feed();
    snprintf(said, sizeof(said), "1 got 7 again from me x/s.m id=c-1 %zu", size);
    story_is_at(said, line);
}

#define delivery_is_whole(size) delivery_is_whole_at(size, __LINE__)

CUT_TEST(test_deliveries)
{
    open_connection(1);
    delivery_is_whole(0);
    delivery_is_whole(1);
    delivery_is_whole(FRAME_MAX - 9);
    delivery_is_whole(FRAME_MAX - 8);
    delivery_is_whole(FRAME_MAX - 7);
    delivery_is_whole(2 * (FRAME_MAX - 8) - 1);
    delivery_is_whole(2 * (FRAME_MAX - 8));
    delivery_is_whole(2 * (FRAME_MAX - 8) + 1);
    delivery_is_whole(3 * (FRAME_MAX - 8));
    state_is(MQ_OPEN, "");
}

CUT_TEST(test_many_body_frames)
{
    open_connection(1);
    deliver_method(1);
    header(1, 30);
    body(1, 0);
    frames_heartbeat(&bench.in); /* belongs to no channel, so it may stand anywhere */
    body(1, 26);
    body(1, 0);
    for (int i = 0; i < 4; i++)
        frames_raw(&bench.in, AMQP_FRAME_BODY, 1, (struct rpc_bytes){run_of_letters + i, 1});
    feed();
    story_is("1 got 1 from me x/s.m 30");
    delivery_is_whole(2);
}

CUT_TEST(test_interleaved_channels)
{
    open_connection(3);
    deliver_method(1);
    deliver_method(3);
    header(3, 4);
    METHOD(0, CONNECTION_BLOCKED, connection_blocked, .reason = amqp_cstring_bytes("low on memory"));
    header(1, 27);
    body(1, 26);
    deliver(2, 9, false, 5000);
    body(3, 4);
    frames_raw(&bench.in, AMQP_FRAME_BODY, 1, RPC_BYTES("a"));
    feed();
    story_is("blocked: low on memory; 2 got 9 from me x/s.m id=c-1 5000; 3 got 1 from me x/s.m 4; "
             "1 got 1 from me x/s.m 27");
    state_is(MQ_OPEN, "");
}

CUT_TEST(test_returns)
{
    const amqp_basic_properties_t properties = {._flags = AMQP_BASIC_CORRELATION_ID_FLAG,
                                                .correlation_id = amqp_cstring_bytes("c-9")};

    open_connection(1);
    METHOD(1, BASIC_RETURN, basic_return, .reply_code = 312, .reply_text = amqp_cstring_bytes("NO_ROUTE"),
           .exchange = amqp_cstring_bytes("x"), .routing_key = amqp_cstring_bytes("no.body"));
    frames_content(&bench.in, 1, &properties, (struct rpc_bytes){run_of_letters, 10}, FRAME_MAX);
    METHOD(1, BASIC_ACK, basic_ack, .delivery_tag = 1);
    deliver(1, 3, false, 0);
    feed();
    story_is("1 returned 312 x/no.body id=c-9 10; 1 ack 1; 1 got 3 from me x/s.m id=c-1 0");
    state_is(MQ_OPEN, "");
}

CUT_TEST(test_confirms)
{
    open_connection(1);
    METHOD(1, BASIC_ACK, basic_ack, .delivery_tag = 2);
    METHOD(1, BASIC_ACK, basic_ack, .delivery_tag = 7, .multiple = 1);
    METHOD(1, BASIC_NACK, basic_nack, .delivery_tag = 8);
    METHOD(1, BASIC_NACK, basic_nack, .delivery_tag = UINT64_MAX, .multiple = 1);
    feed();
    story_is("1 ack 2; 1 ack 7+; 1 nack 8; 1 nack 18446744073709551615+");
    state_is(MQ_OPEN, "");
}

CUT_TEST(test_cancelled_consumer)
{
    open_connection(1);
    METHOD(1, BASIC_CANCEL, basic_cancel, .consumer_tag = amqp_cstring_bytes("me"), .nowait = 1);
    feed();
    story_is("1 cancelled");
    state_is(MQ_OPEN, "");
}

/* Past the bound a message is told of without its body, and costs no more memory than a frame. */
/* A header `levels` arrays deep, behind a correlation id, and large enough to be looked at. */
static void deliver_nested(unsigned levels)
{
    static char raw[FRAME_MAX];
    enum { PADDING = FRAME_NESTING_UNCHECKED };
    const char padding[] = {1, 'p', 'S', 0, 0, (char)(PADDING >> 8), (char)(PADDING & 0xff)};
    unsigned size = (unsigned)sizeof(padding) + PADDING + 2 + levels * 5 + (levels == 0);
    const char flags[] = {0x24, 0, 0, 0, (char)(size >> 8), (char)size}; /* headers, correlation id */
    char *at = mempcpy(raw, flags, sizeof(flags));

    at = mempcpy(at, padding, sizeof(padding));
    memset(at, 'p', PADDING);
    at = mempcpy(at + PADDING, "\1n", 2);
    if (levels == 0)
        *at++ = 'V';
    for (unsigned level = levels; level-- > 0;)
        at = mempcpy(at, (char[]){'A', 0, 0, (char)(level * 5 >> 8), (char)(level * 5)}, 5);
    at = mempcpy(at, "\3c-1", 4);
    deliver_method(1);
    frames_header_raw(&bench.in, 1, (struct rpc_bytes){raw, (size_t)(at - raw)}, 3);
    body(1, 3);
}

/* rabbitmq-c would decode it by recursion: such a message comes without its properties. */
CUT_TEST(test_headers_nested_too_deep)
{
    open_connection(1);
    deliver_nested(FRAME_NESTING_MAX - 1); /* the headers are a table themselves */
    deliver_nested(FRAME_NESTING_MAX);
    deliver_nested(300);
    deliver_nested(0);
    feed();
    story_is("1 got 1 from me x/s.m id=c-1 3; 1 got 1 from me x/s.m 3; 1 got 1 from me x/s.m 3; "
             "1 got 1 from me x/s.m id=c-1 3");
    state_is(MQ_OPEN, "");
    bench_clear();
}

static void test_oversized(void **state)
{
    static char part[FRAME_MAX - 8];
    size_t left = MESSAGE_LARGE;

    (void)state;
    open_connection(1);
    deliver_method(1);
    header(1, MESSAGE_LARGE);
    feed();
    while (left > 0) {
        size_t size = left < sizeof(part) ? left : sizeof(part);

        frames_raw(&bench.in, AMQP_FRAME_BODY, 1, (struct rpc_bytes){part, size});
        feed();
        left -= size;
    }
    story_is("1 got 1 from  oversized");
    delivery_is_whole(3);
    METHOD(1, BASIC_RETURN, basic_return, .reply_code = 312, .exchange = amqp_cstring_bytes("x"));
    header(1, UINT64_MAX);
    body(1, 10);
    feed();
    story_is(""); /* for ever under way, and that is all */
    state_is(MQ_OPEN, "");
    bench_clear();
}

static void test_largest(void **state)
{
    static char part[RPC_MESSAGE_SIZE_MAX / 4];

    (void)state;
    bench_init(10);
    broker_start(0, 9, "PLAIN");
    broker_tune(0, 0, 10);
    METHOD(0, CONNECTION_OPEN_OK, connection_open_ok, 0);
    feed();
    story_is("open");
    open_channel(1);
    for (size_t i = 0; i < sizeof(part); i++)
        part[i] = (char)('a' + i % 26);
    deliver_method(1);
    header(1, RPC_MESSAGE_SIZE_MAX);
    feed();
    for (size_t at = 0; at < RPC_MESSAGE_SIZE_MAX;) {
        size_t size = RPC_MESSAGE_SIZE_MAX - at < 26 * 5000 ? RPC_MESSAGE_SIZE_MAX - at : 26 * 5000;

        frames_raw(&bench.in, AMQP_FRAME_BODY, 1, (struct rpc_bytes){part, size});
        feed();
        at += size;
    }
    story_is("1 got 1 from me x/s.m 16777216");
    bench_clear();
}

/* ---- The connection closes, blocks ------------------------------------------------------------------------------- */

CUT_TEST(test_connection_closed_by_the_broker)
{
    open_connection(2);
    broker_close(320, "CONNECTION_FORCED - broker forced connection closure");
    deliver(1, 1, false, 10);
    feed();
    state_is(MQ_CLOSED, "the broker closed the connection: 320 CONNECTION_FORCED - broker forced connection closure");
    assert_false(mq_refused(bench.mq));
    story_is("");
    wrote_is("0 connection.close-ok");
    assert_null(mq_channel_open(bench.mq, &channel_events, NULL));
}

CUT_TEST(test_connection_closed_by_us)
{
    open_connection(1);
    mq_close(bench.mq);
    state_is(MQ_CLOSING, "");
    wrote_is("0 connection.close");
    deliver(1, 1, false, 10); /* was under way */
    METHOD(0, CONNECTION_CLOSE_OK, connection_close_ok, 0);
    feed();
    story_is("1 got 1 from me x/s.m id=c-1 10");
    state_is(MQ_CLOSED, "");
}

CUT_TEST(test_connection_closed_by_both)
{
    open_connection(1);
    mq_close(bench.mq);
    broker_close(320, "bye");
    feed();
    state_is(MQ_CLOSED, "the broker closed the connection: 320 bye");
    wrote_is("0 connection.close; 0 connection.close-ok");
}

static enum rpc_status publish(int channel, size_t size, bool though_blocked)
{
    const amqp_basic_properties_t properties = {0};

    return mq_publish(bench.channels[channel - 1], &(struct mq_publish){.exchange = RPC_BYTES("x"),
                                                                        .routing_key = RPC_BYTES("s.m"),
                                                                        .mandatory = true,
                                                                        .though_blocked = though_blocked,
                                                                        .properties = &properties,
                                                                        .body = {run_of_letters, size}});
}

CUT_TEST(test_blocked)
{
    open_connection(1);
    assert_false(mq_blocked(bench.mq));
    METHOD(0, CONNECTION_BLOCKED, connection_blocked, .reason = amqp_cstring_bytes("low on disk"));
    feed();
    story_is("blocked: low on disk");
    assert_true(mq_blocked(bench.mq));
    assert_int_equal(publish(1, 3, false), RPC_BLOCKED);
    wrote_is("");
    assert_int_equal(publish(1, 3, true), RPC_OK); /* an answer */
    mq_ack(bench.channels[0], 4, true);
    wrote_is("1 publish x/s.m mandatory; 1 header 3; 1 body 3; 1 ack 4+");
    METHOD(0, CONNECTION_UNBLOCKED, connection_unblocked, 0);
    feed();
    story_is("unblocked");
    assert_int_equal(publish(1, 3, false), RPC_OK);
}

/* ---- Publishing -------------------------------------------------------------------------------------------------- */

static void published_in_at(size_t size, const char *frames, int line)
{
    char wrote[128];

    assert_int_equal(publish(1, size, false), RPC_OK);
    snprintf(wrote, sizeof(wrote), "1 publish x/s.m mandatory; 1 header %zu%s", size, frames);
    wrote_is_at(wrote, line);
}

#define published_in(size, frames) published_in_at(size, frames, __LINE__)

static void test_publish(void **state)
{
    (void)state;
    open_connection(1);
    published_in(0, "");
    published_in(1, "; 1 body 1");
    published_in(FRAME_MAX - 9, "; 1 body 4087");
    published_in(FRAME_MAX - 8, "; 1 body 4088");
    published_in(FRAME_MAX - 7, "; 1 body 4088; 1 body 1");
    published_in(2 * (FRAME_MAX - 8) - 1, "; 1 body 4088; 1 body 4087");
    published_in(2 * (FRAME_MAX - 8), "; 1 body 4088; 1 body 4088");
    published_in(2 * (FRAME_MAX - 8) + 1, "; 1 body 4088; 1 body 4088; 1 body 1");
    bench_clear();
}

static void test_acknowledge(void **state)
{
    (void)state;
    open_connection(1);
    mq_ack(bench.channels[0], 7, false);
    mq_ack(bench.channels[0], UINT64_MAX, true);
    mq_reject(bench.channels[0], 8, true);
    mq_reject(bench.channels[0], 9, false);
    wrote_is("1 ack 7; 1 ack 18446744073709551615+; 1 reject 8 requeue; 1 reject 9");
    bench_clear();
}

/* The bound on the output: a publish past it is refused whole; acknowledgements are not. */
static void test_output_bound(void **state)
{
    uint64_t appended;

    (void)state;
    open_connection(1);
    assert_int_equal(publish(1, OUTPUT_MAX / 2, false), RPC_OK);
    appended = mq_output_appended_total(bench.mq);
    assert_int_equal(publish(1, OUTPUT_MAX / 2, false), RPC_BUSY);
    assert_int_equal(publish(1, OUTPUT_MAX / 2, true), RPC_BUSY);
    assert_int_equal(mq_output_appended_total(bench.mq), appended);
    assert_int_equal(publish(1, OUTPUT_MAX / 4, false), RPC_OK);
    mq_ack(bench.channels[0], 1, false);
    wrote_is("1 publish x/s.m mandatory; 1 header 5000; 1 body 4088; 1 body 912; "
             "1 publish x/s.m mandatory; 1 header 2500; 1 body 2500; 1 ack 1");
    assert_int_equal(publish(1, OUTPUT_MAX + 2000, false), RPC_OK); /* alone, it only has its own bound */
    assert_int_equal(publish(1, 0, false), RPC_BUSY);
    bench_clear();
}

static void too_large_at(struct mq_publish publish, int line)
{
    uint64_t appended = mq_output_appended_total(bench.mq);
    enum rpc_status status = mq_publish(bench.channels[0], &publish);

    if (status != RPC_TOO_LARGE)
        fail_msg("line %d: status %s", line, rpc_status_name(status));
    assert_int_equal(mq_output_appended_total(bench.mq), appended);
    state_is_at(MQ_OPEN, "", line);
}

#define too_large(...) too_large_at((struct mq_publish){__VA_ARGS__}, __LINE__)

static void test_publish_too_large(void **state)
{
    static char large[MESSAGE_LARGE];
    const amqp_basic_properties_t none = {0};
    amqp_table_entry_t entry = {
        .key = amqp_cstring_bytes("k"),
        .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = {.len = FRAME_MAX, .bytes = run_of_letters}}};
    const amqp_basic_properties_t wide = {._flags = AMQP_BASIC_HEADERS_FLAG, .headers = {1, &entry}};
    const amqp_basic_properties_t long_id = {._flags = AMQP_BASIC_CORRELATION_ID_FLAG,
                                             .correlation_id = {256, run_of_letters}};

    (void)state;
    open_connection(1);
    too_large(.properties = &none, .body = {large, MESSAGE_LARGE});
    too_large(.properties = &none, .routing_key = {run_of_letters, 256});
    too_large(.properties = &none, .exchange = {run_of_letters, 256});
    too_large(.properties = &wide);
    too_large(.properties = &long_id);
    assert_int_equal(publish(1, 5, false), RPC_OK); /* what was taken back left nothing */
    wrote_is("1 publish x/s.m mandatory; 1 header 5; 1 body 5");
    bench_clear();
}

/* Headers that fit into a frame, but not into the first try at one. */
static void test_publish_wide_headers(void **state)
{
    (void)state;
    open_connection(1);
    for (size_t size = 900; size < FRAME_MAX; size += 61) {
        amqp_table_entry_t entry = {
            .key = amqp_cstring_bytes("k"),
            .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = {.len = size, .bytes = run_of_letters}}};
        const amqp_basic_properties_t properties = {._flags = AMQP_BASIC_HEADERS_FLAG, .headers = {1, &entry}};
        enum rpc_status status = mq_publish(bench.channels[0], &(struct mq_publish){.properties = &properties});

        /* flags 2, table 4, key 2, kind 1, text 4, class and size 12, frame 8 */
        assert_int_equal(status, size + 33 <= FRAME_MAX ? RPC_OK : RPC_TOO_LARGE);
        write_out();
    }
    bench_clear();
}

static void test_partial_writes(void **state)
{
    size_t size;

    (void)state;
    open_connection(1);
    bench.outputs = 0;
    assert_int_equal(publish(1, 100, false), RPC_OK);
    assert_int_equal(bench.outputs, 1); /* told once, until it is empty again */
    size = mq_output(bench.mq).size;
    for (size_t i = 0; i < size; i++) {
        assert_true(frames_read(&bench.reader, (struct rpc_bytes){mq_output(bench.mq).data, 1}, on_frame, NULL));
        mq_output_written(bench.mq, 1, bench.now_ms);
        if (i == size / 2)
            mq_ack(bench.channels[0], 1, false);
    }
    assert_int_equal(bench.outputs, 1);
    wrote_is("1 publish x/s.m mandatory; 1 header 100; 1 body 100; 1 ack 1");
    mq_ack(bench.channels[0], 2, false);
    assert_int_equal(bench.outputs, 2);
    bench_clear();
}

/* ---- What a broker must not do ----------------------------------------------------------------------------------- */

static void breaks_at(case_fn *broker, const char *error, int line)
{
    for (bench.feeding = WHOLE; bench.feeding <= AT_RANDOM; bench.feeding++) {
        bench.seed = 1;
        open_connection(2);
        broker();
        deliver(2, 5, false, 1); /* comes too late */
        feed();
        if (mq_state(bench.mq) != MQ_BROKEN || strncmp(mq_error(bench.mq), error, strlen(error)) != 0)
            fail_msg("line %d: feeding %d: state %d \"%s\" instead of \"%s\"", line, (int)bench.feeding,
                     (int)mq_state(bench.mq), mq_error(bench.mq), error);
        story_is_at("", line);
        bench_clear();
    }
    bench.feeding = WHOLE;
}

#define breaks(broker, error) breaks_at(broker, error, __LINE__)

REFUSAL(header_alone, header(1, 5))
REFUSAL(body_alone, body(1, 5))
REFUSAL(body_for_header, deliver_method(1); body(1, 5))
REFUSAL(header_twice, deliver_method(1); header(1, 5); header(1, 5))
REFUSAL(deliver_twice, deliver_method(1); deliver_method(1))
REFUSAL(method_within_body, deliver_method(1); header(1, 5); body(1, 2); deliver_method(1))
REFUSAL(close_within_body, deliver_method(1); header(1, 5); METHOD(1, CHANNEL_CLOSE, channel_close, .reply_code = 404))
REFUSAL(body_too_long, deliver_method(1); header(1, 5); body(1, 6))
REFUSAL(bodies_too_long, deliver_method(1); header(1, 5); body(1, 4); body(1, 2))
REFUSAL(answer_unasked, METHOD(1, QUEUE_DECLARE_OK, queue_declare_ok, 0))
REFUSAL(open_ok_unasked, METHOD(1, CHANNEL_OPEN_OK, channel_open_ok, 0))
REFUSAL(close_ok_of_channel_unasked, METHOD(1, CHANNEL_CLOSE_OK, channel_close_ok, 0))
REFUSAL(get_ok, METHOD(1, BASIC_GET_OK, basic_get_ok, 0))
REFUSAL(publish_from_broker, METHOD(1, BASIC_PUBLISH, basic_publish, 0))
REFUSAL(channel_3, METHOD(3, BASIC_QOS_OK, basic_qos_ok, 0))
REFUSAL(channel_65, METHOD(65, BASIC_QOS_OK, basic_qos_ok, 0))
REFUSAL(channel_65535, METHOD(65535, BASIC_QOS_OK, basic_qos_ok, 0))
REFUSAL(tune_again, broker_tune(0, 0, 10))
REFUSAL(open_ok_again, METHOD(0, CONNECTION_OPEN_OK, connection_open_ok, 0))
REFUSAL(close_ok_of_connection_unasked, METHOD(0, CONNECTION_CLOSE_OK, connection_close_ok, 0))
REFUSAL(delivery_on_0, METHOD(0, BASIC_DELIVER, basic_deliver, .delivery_tag = 1))
REFUSAL(body_on_0, body(0, 1))
REFUSAL(protocol_header, frames_append(&bench.in, RPC_BYTES("AMQP\0\0\x09\x01")))
REFUSAL(frame_too_large, frames_raw(&bench.in, AMQP_FRAME_BODY, 1, (struct rpc_bytes){run_of_letters, FRAME_MAX - 7}))
REFUSAL(frame_huge, frames_append(&bench.in, RPC_BYTES("\1\0\1\xff\xff\xff\xff")))
REFUSAL(frame_without_end, frames_append(&bench.in, RPC_BYTES("\1\0\1\0\0\0\4\0\x14\0\x0b\xcd")))
REFUSAL(method_unknown, frames_raw(&bench.in, AMQP_FRAME_METHOD, 1, RPC_BYTES("\0\x3c\x03\xe7")))
REFUSAL(method_empty, frames_raw(&bench.in, AMQP_FRAME_METHOD, 1, RPC_BYTES("")))
REFUSAL(method_of_3_bytes, frames_raw(&bench.in, AMQP_FRAME_METHOD, 1, RPC_BYTES("\0\x3c\0")))
REFUSAL(method_cut, frames_raw(&bench.in, AMQP_FRAME_METHOD, 1, RPC_BYTES("\0\x3c\0\x3c\x05me")))
REFUSAL(header_empty, deliver_method(1); frames_raw(&bench.in, AMQP_FRAME_HEADER, 1, RPC_BYTES("")))
REFUSAL(header_of_11_bytes, deliver_method(1);
        frames_raw(&bench.in, AMQP_FRAME_HEADER, 1, RPC_BYTES("\0\x3c\0\0\0\0\0\0\0\0\0")))
REFUSAL(header_without_flags, deliver_method(1);
        frames_raw(&bench.in, AMQP_FRAME_HEADER, 1, RPC_BYTES("\0\x3c\0\0\0\0\0\0\0\0\0\1")))
REFUSAL(header_text_cut, deliver_method(1); frames_raw(&bench.in, AMQP_FRAME_HEADER, 1,
                                                       RPC_BYTES("\0\x3c\0\0\0\0\0\0\0\0\0\1\x80\0\x09"
                                                                 "abc")))
REFUSAL(header_table_cut, deliver_method(1);
        frames_raw(&bench.in, AMQP_FRAME_HEADER, 1, RPC_BYTES("\0\x3c\0\0\0\0\0\0\0\0\0\1\x20\0\0\0\0\x09\1aS")))
REFUSAL(header_field_unknown, deliver_method(1);
        frames_raw(&bench.in, AMQP_FRAME_HEADER, 1, RPC_BYTES("\0\x3c\0\0\0\0\0\0\0\0\0\1\x20\0\0\0\0\3\1a?")))
REFUSAL(header_of_other_class, deliver_method(1);
        frames_raw(&bench.in, AMQP_FRAME_HEADER, 1, RPC_BYTES("\0\x32\0\0\0\0\0\0\0\0\0\1\0\0")))
REFUSAL(frame_type_0, frames_raw(&bench.in, 0, 1, RPC_BYTES("")))
REFUSAL(frame_type_4, frames_raw(&bench.in, 4, 1, RPC_BYTES("x")))
REFUSAL(frame_type_9, frames_raw(&bench.in, 9, 1, RPC_BYTES("xyz")))

#define NO_AMQP "the broker sent bytes that are no AMQP: "

static void test_illegal_frames(void **state)
{
    (void)state;
    breaks(header_alone, "the broker sent a frame of type 2 out of its turn");
    breaks(body_alone, "the broker sent a frame of type 3 out of its turn");
    breaks(body_for_header, "the broker sent a frame of type 3 out of its turn");
    breaks(header_twice, "the broker sent a frame of type 2 out of its turn");
    breaks(deliver_twice, "the broker sent AMQP_BASIC_DELIVER_METHOD within a message");
    breaks(method_within_body, "the broker sent AMQP_BASIC_DELIVER_METHOD within a message");
    breaks(close_within_body, "the broker sent AMQP_CHANNEL_CLOSE_METHOD within a message");
    breaks(body_too_long, "a message's body is longer than its header said");
    breaks(bodies_too_long, "a message's body is longer than its header said");
    breaks(answer_unasked, "the broker sent AMQP_QUEUE_DECLARE_OK_METHOD, which nobody asked for");
    breaks(open_ok_unasked, "the broker sent AMQP_CHANNEL_OPEN_OK_METHOD, which nobody asked for");
    breaks(close_ok_of_channel_unasked, "the broker closed a channel without being asked");
    breaks(get_ok, "the broker sent AMQP_BASIC_GET_OK_METHOD, which nobody asked for");
    breaks(publish_from_broker, "the broker sent AMQP_BASIC_PUBLISH_METHOD, which nobody asked for");
    breaks(channel_3, "the broker sent a frame on channel 3, which is not open");
    breaks(channel_65, "the broker sent a frame on channel 65, which is not open");
    breaks(channel_65535, "the broker sent a frame on channel 65535, which is not open");
    breaks(tune_again, "the broker sent AMQP_CONNECTION_TUNE_METHOD on channel 0");
    breaks(open_ok_again, "the broker sent AMQP_CONNECTION_OPEN_OK_METHOD on channel 0");
    breaks(close_ok_of_connection_unasked, "the broker sent AMQP_CONNECTION_CLOSE_OK_METHOD on channel 0");
    breaks(delivery_on_0, "the broker sent AMQP_BASIC_DELIVER_METHOD on channel 0");
    breaks(body_on_0, "the broker sent content on channel 0");
}

static void test_illegal_bytes(void **state)
{
    (void)state;
    breaks(protocol_header, "");
    breaks(frame_too_large, NO_AMQP);
    breaks(frame_huge, NO_AMQP);
    breaks(frame_without_end, NO_AMQP);
    breaks(method_unknown, NO_AMQP);
    breaks(method_empty, NO_AMQP);
    breaks(method_of_3_bytes, NO_AMQP);
    breaks(method_cut, NO_AMQP);
    breaks(header_empty, NO_AMQP);
    breaks(header_of_11_bytes, NO_AMQP);
    breaks(header_without_flags, NO_AMQP);
    breaks(header_text_cut, NO_AMQP);
    breaks(header_table_cut, NO_AMQP);
    breaks(header_field_unknown, NO_AMQP);
    breaks(header_of_other_class, "");
    breaks(frame_type_0, "the broker sent a frame of a type that AMQP does not know");
    breaks(frame_type_4, "the broker sent a frame of a type that AMQP does not know");
    breaks(frame_type_9, "the broker sent a frame of a type that AMQP does not know");
}

static void test_wrong_answer(void **state)
{
    (void)state;
    open_connection(1);
    mq_qos(bench.channels[0], 1);
    METHOD(1, BASIC_CONSUME_OK, basic_consume_ok, .consumer_tag = amqp_cstring_bytes("me"));
    feed();
    state_is(MQ_BROKEN, "the broker sent AMQP_BASIC_CONSUME_OK_METHOD, which nobody asked for");
    bench_clear();
}

static void test_confirm_unasked(void **state)
{
    (void)state;
    shake_hands(10);
    bench.channels[0] = mq_channel_open(bench.mq, &channel_events_no_confirm, &indices[0]);
    METHOD(1, CHANNEL_OPEN_OK, channel_open_ok, 0);
    METHOD(1, BASIC_ACK, basic_ack, .delivery_tag = 1);
    feed();
    state_is(MQ_BROKEN, "the broker confirmed a publish on a channel that did not ask for it");
    bench_clear();
}

static void test_names_too_long(void **state)
{
    char name[257];

    (void)state;
    memset(name, 'n', 256);
    name[256] = '\0';
    open_connection(1);
    mq_exchange_declare(bench.channels[0], name);
    state_is(MQ_BROKEN, "cannot send AMQP_EXCHANGE_DECLARE_METHOD: too_large");
    wrote_is("");
    bench_clear();
}

/* Random bytes, and sound frames with a byte turned: whatever comes, it ends in a state and not in a crash. */
static void test_random_input(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 400; seed++) {
        unsigned random = seed;

        bench.feeding = seed % 2 == 0 ? WHOLE : AT_RANDOM;
        bench.seed = seed;
        open_connection(2);
        deliver(1, 1, false, 300);
        deliver(2, 2, false, 5000);
        METHOD(1, BASIC_ACK, basic_ack, .delivery_tag = 1);
        METHOD(2, CHANNEL_CLOSE, channel_close, .reply_code = 404, .reply_text = amqp_cstring_bytes("x"));
        broker_close(320, "bye");
        for (int turns = 1 + (int)(seed % 3); turns > 0; turns--)
            bench.in.data[(unsigned)rand_r(&random) % (seed % 5 == 0 ? 80 : bench.in.size)] = (char)rand_r(&random);
        feed();
        bench_clear();
    }
    bench.feeding = WHOLE;
}

static int setup(void **state)
{
    (void)state;
    memset(&bench, 0, sizeof(bench));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bench_clear();
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_handshake),
        TEST(test_tune),
        TEST(test_refusals),
        TEST(test_no_amqp_at_all),
        TEST(test_refusal_is_answered),
        TEST(test_credentials_leave_no_trace),
        TEST(test_heartbeats_out),
        TEST(test_any_write_counts_as_heartbeat),
        TEST(test_silent_broker),
        TEST(test_silence_is_noticed_at_once),
        TEST(test_any_byte_counts_as_heartbeat),
        TEST(test_no_heartbeats_wanted),
        TEST(test_set_up),
        TEST(test_more_answers_than_places),
        TEST(test_answers_go_round),
        TEST(test_channel_numbers),
        TEST(test_channel_max_of_the_broker),
        TEST(test_channel_closed_by_the_broker),
        TEST(test_channel_closed_by_us),
        TEST(test_channel_closed_by_both),
        TEST(test_channel_closed_within_its_delivery),
        TEST(test_deliveries),
        TEST(test_headers_nested_too_deep),
        TEST(test_many_body_frames),
        TEST(test_interleaved_channels),
        TEST(test_returns),
        TEST(test_confirms),
        TEST(test_cancelled_consumer),
        TEST(test_oversized),
        TEST(test_largest),
        TEST(test_connection_closed_by_the_broker),
        TEST(test_connection_closed_by_us),
        TEST(test_connection_closed_by_both),
        TEST(test_blocked),
        TEST(test_publish),
        TEST(test_acknowledge),
        TEST(test_output_bound),
        TEST(test_publish_too_large),
        TEST(test_publish_wide_headers),
        TEST(test_partial_writes),
        TEST(test_illegal_frames),
        TEST(test_illegal_bytes),
        TEST(test_wrong_answer),
        TEST(test_confirm_unasked),
        TEST(test_names_too_long),
        TEST(test_random_input),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * amqp: a connection, as the broker's bytes move it.  However these are cut, it says and sends the same; what it sends is
 * AMQP; and once it is closed or broken it says nothing any more.
 *
 * The first byte says how the connection stands before the input arrives, the second one where it is cut and what the
 * owner does meanwhile; the rest is bytes, or, framed, a list of frames: type, channel, size (two bytes), payload.
 */
#include <fuzz.h>
#include <inttypes.h>
#include <stdarg.h>

#include "../test/simulation/frames.h"
#include "amqp/mq.h"
#include "rpclib/connection.h"
#include "rpclib/text.h"

#define NOW_MS       1000000
#define HEARTBEAT_S  10
#define FRAME_MAX    8192u
#define OUTPUT_MAX   100000
#define STORY_LINE   400
#define OPEN_MAX     6 /* channels that the owner opens again */
#define CONSUMER     1
#define PUBLISHER    2
#define BODY_SHOWN   40
#define CHUNK_MAX    300
#define BYTEWISE_MAX 1024

/* How the connection stands; more than one can be. */
enum standing {
    STANDS_OPEN = 1,       /* else fresh */
    STANDS_DELIVERING = 2, /* a message of several frames is half there */
    STANDS_CLOSING = 4,    /* the consumer's channel is being closed */
    STANDS_GOODBYE = 8,    /* mq_close() */
    STANDS_GETTING = 16,   /* basic.get is not answered yet */
    FRAMED = 32,
};

/* What the owner does in callbacks. */
enum habit {
    CLOSES_ON_DELIVERY = 64,
    PUBLISHES_ON_CONFIRM = 128,
};

enum cutting { WHOLE, AT_RANDOM, BYTE_BY_BYTE };

struct run {
    struct mq *mq;
    struct mq_channel *consumer, *publisher; /* NULL: closed */
    struct rpc_text story;
    unsigned events, opened;
    uint8_t habits;
};

__attribute__((format(printf, 2, 3))) static void tell(struct run *run, const char *format, ...)
{
    char line[STORY_LINE];
    va_list arguments;
    int size;

    va_start(arguments, format);
    size = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    HOLDS(rpc_text_append(&run->story,
                          (struct rpc_bytes){line, (size_t)size < sizeof(line) ? (size_t)size : sizeof(line)}));
    run->events++;
}

/* ---- The owner --------------------------------------------------------------------------------------------------- */

static void on_open(void *arg)
{
    tell(arg, "open;");
}

static void on_output(void *arg)
{
    (void)arg; /* how often depends on who writes, and when */
}

static void on_blocked(bool blocked, struct rpc_bytes reason, void *arg)
{
    struct run *run = arg;

    HOLDS(mq_blocked(run->mq) == blocked);
    tell(run, "blocked %d %.*s;", blocked, (int)reason.size, reason.data == NULL ? "" : reason.data);
}

static const struct mq_events mq_events = {.on_open = on_open, .on_blocked = on_blocked, .on_output = on_output};

static void on_settled(void *arg)
{
    tell(arg, "settled;");
}

/* Every byte of it is read, so that one that is not there is found. */
static uint32_t sum_of(struct rpc_bytes bytes)
{
    uint32_t sum = 5381;

    for (size_t i = 0; i < bytes.size; i++)
        sum = sum * 33 + (unsigned char)bytes.data[i];
    return sum;
}

static void tell_message(struct run *run, const struct mq_message *message)
{
    HOLDS(message->body.size <= RPC_MESSAGE_SIZE_MAX && message->oversized == (message->properties == NULL));
    HOLDS(!message->oversized || (message->body.size == 0 && message->exchange.size == 0));
    tell(run, "%08" PRIx32 "/%08" PRIx32 " %08" PRIx32 " %zu %08" PRIx32 "%s;", sum_of(message->exchange),
         sum_of(message->routing_key), sum_of(message->raw_properties), message->body.size, sum_of(message->body),
         message->oversized ? " oversized" : "");
    if (!message->oversized) {
        amqp_pool_t pool;
        void *decoded;

        init_amqp_pool(&pool, 512);
        HOLDS(amqp_decode_properties(AMQP_BASIC_CLASS, &pool, frames_in(message->raw_properties), &decoded) >= 0);
        HOLDS(((amqp_basic_properties_t *)decoded)->_flags == message->properties->_flags);
        empty_amqp_pool(&pool);
    }
}

static void on_delivery(const struct mq_delivery *delivery, void *arg)
{
    struct run *run = arg;

    tell(run, "delivery %" PRIu64 " %d %08" PRIx32 " ", delivery->tag, delivery->redelivered,
         sum_of(delivery->consumer_tag));
    tell_message(run, &delivery->message);
    if (run->consumer == NULL)
        return;
    if (delivery->tag % 3 == 0)
        mq_reject(run->consumer, delivery->tag, delivery->redelivered);
    else
        mq_ack(run->consumer, delivery->tag, delivery->tag % 3 == 1);
    if (run->habits & CLOSES_ON_DELIVERY) {
        mq_channel_close(run->consumer);
        run->consumer = NULL;
    }
}

static void on_return(const struct mq_message *message, uint16_t code, void *arg)
{
    tell(arg, "return %u ", code);
    tell_message(arg, message);
}

static enum rpc_status publish(struct run *run, struct rpc_bytes body)
{
    const amqp_basic_properties_t properties = {._flags = AMQP_BASIC_CONTENT_TYPE_FLAG,
                                                .content_type = amqp_cstring_bytes("application/json")};

    return mq_publish(run->publisher, &(struct mq_publish){.exchange = rpc_bytes_of("orders.events"),
                                                           .routing_key = rpc_bytes_of("order_created"),
                                                           .mandatory = true,
                                                           .properties = &properties,
                                                           .body = body});
}

static void on_confirm(uint64_t tag, bool multiple, bool ack, void *arg)
{
    struct run *run = arg;

    tell(run, "confirm %" PRIu64 " %d %d;", tag, multiple, ack);
    if (run->publisher != NULL && (run->habits & PUBLISHES_ON_CONFIRM))
        tell(run, "published %s;", rpc_status_name(publish(run, RPC_BYTES("[]"))));
}

static void on_empty(void *arg)
{
    tell(arg, "empty;");
}

static void on_cancelled(void *arg)
{
    tell(arg, "cancelled;");
}

static void consumer_open(struct run *run);
static void publisher_open(struct run *run);

static void on_consumer_closed(uint16_t code, struct rpc_bytes text, void *arg)
{
    struct run *run = arg;

    tell(run, "consumer closed %u %08" PRIx32 ";", code, sum_of(text));
    run->consumer = NULL;
    consumer_open(run);
}

static void on_publisher_closed(uint16_t code, struct rpc_bytes text, void *arg)
{
    struct run *run = arg;

    tell(run, "publisher closed %u %08" PRIx32 ";", code, sum_of(text));
    run->publisher = NULL;
    publisher_open(run);
}

static const struct mq_channel_events consumer_events = {
    .on_settled = on_settled,
    .on_delivery = on_delivery,
    .on_empty = on_empty,
    .on_cancelled = on_cancelled,
    .on_closed = on_consumer_closed,
};
static const struct mq_channel_events publisher_events = {
    .on_settled = on_settled,
    .on_delivery = on_delivery,
    .on_return = on_return,
    .on_confirm = on_confirm,
    .on_closed = on_publisher_closed,
};

static void consumer_open(struct run *run)
{
    if (run->opened++ >= OPEN_MAX)
        return;
    run->consumer = mq_channel_open(run->mq, &consumer_events, run);
    if (run->consumer == NULL)
        return;
    mq_qos(run->consumer, 10);
    mq_exchange_declare(run->consumer, "nameko-rpc");
    mq_queue_declare(run->consumer, &(struct mq_queue){.name = "rpc-products", .durable = true});
    mq_queue_bind(run->consumer, "rpc-products", "nameko-rpc", "products.*");
    mq_consume(run->consumer, "rpc-products", "tag", false);
}

static void publisher_open(struct run *run)
{
    if (run->opened++ >= OPEN_MAX)
        return;
    run->publisher = mq_channel_open(run->mq, &publisher_events, run);
    if (run->publisher != NULL)
        mq_confirm_select(run->publisher);
}

/* ---- The broker, until the input takes over ---------------------------------------------------------------------- */

#define METHOD(frames, channel, NAME, type, ...) \
    frames_method(frames, channel, AMQP_##NAME##_METHOD, &(amqp_##type##_t){__VA_ARGS__})

static void feed(struct run *run, struct frames *frames)
{
    HOLDS(mq_feed(run->mq, frames_bytes(frames), NOW_MS) == MQ_OPEN);
    frames_clear(frames);
}

static void shake_hands(struct run *run)
{
    struct frames frames = {0};

    METHOD(&frames, 0, CONNECTION_START, connection_start, .version_minor = 9,
           .mechanisms = amqp_cstring_bytes("AMQPLAIN PLAIN"), .locales = amqp_cstring_bytes("en_US"));
    METHOD(&frames, 0, CONNECTION_TUNE, connection_tune, .channel_max = 8, .frame_max = FRAME_MAX, .heartbeat = 60);
    METHOD(&frames, 0, CONNECTION_OPEN_OK, connection_open_ok, 0);
    feed(run, &frames);
    consumer_open(run);
    publisher_open(run);
    METHOD(&frames, CONSUMER, CHANNEL_OPEN_OK, channel_open_ok, 0);
    METHOD(&frames, CONSUMER, BASIC_QOS_OK, basic_qos_ok, 0);
    METHOD(&frames, CONSUMER, EXCHANGE_DECLARE_OK, exchange_declare_ok, 0);
    METHOD(&frames, CONSUMER, QUEUE_DECLARE_OK, queue_declare_ok, .queue = amqp_cstring_bytes("rpc-products"));
    METHOD(&frames, CONSUMER, QUEUE_BIND_OK, queue_bind_ok, 0);
    METHOD(&frames, CONSUMER, BASIC_CONSUME_OK, basic_consume_ok, .consumer_tag = amqp_cstring_bytes("tag"));
    METHOD(&frames, PUBLISHER, CHANNEL_OPEN_OK, channel_open_ok, 0);
    METHOD(&frames, PUBLISHER, CONFIRM_SELECT_OK, confirm_select_ok, 0);
    feed(run, &frames);
    for (int i = 0; i < 3; i++)
        HOLDS(publish(run, RPC_BYTES("{\"order\": 1}")) == RPC_OK);
}

static void deliver_half(struct run *run)
{
    const amqp_basic_properties_t properties = {._flags = AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG,
                                                .reply_to = amqp_cstring_bytes("caller"),
                                                .correlation_id = amqp_cstring_bytes("c-1")};
    struct frames frames = {0};

    METHOD(&frames, CONSUMER, BASIC_DELIVER, basic_deliver, .consumer_tag = amqp_cstring_bytes("tag"),
           .delivery_tag = 1, .exchange = amqp_cstring_bytes("nameko-rpc"),
           .routing_key = amqp_cstring_bytes("products.get"));
    frames_header(&frames, CONSUMER, &properties, 20);
    frames_body(&frames, CONSUMER, RPC_BYTES("{\"args\": "), FRAME_MAX);
    feed(run, &frames);
}

static void stand(struct run *run, uint8_t standing)
{
    shake_hands(run);
    if (standing & STANDS_GETTING)
        mq_get(run->consumer, "products.dead-letters");
    if (standing & STANDS_DELIVERING)
        deliver_half(run);
    if (standing & STANDS_CLOSING) {
        mq_channel_close(run->consumer);
        run->consumer = NULL;
    }
    if (standing & STANDS_GOODBYE)
        mq_close(run->mq);
}

/* ---- One run ----------------------------------------------------------------------------------------------------- */

static void on_sent(const amqp_frame_t *frame, void *arg)
{
    unsigned *frames = arg;

    (void)frame;
    ++*frames;
}

/* What the connection wrote is AMQP to its last byte. */
static void check_frames(struct rpc_bytes output)
{
    struct frames_reader reader;
    unsigned count = 0;

    frames_reader_init(&reader);
    HOLDS(frames_read(&reader, output, on_sent, &count));
    HOLDS(count >= 1);
    frames_reader_clear(&reader);
}

/* It is read once for all the ways in which the input is cut, which is slow: the story tells whether it is the same. */
static void check_output(struct run *run, struct rpc_bytes output, enum cutting cutting)
{
    if (cutting == WHOLE)
        check_frames(output);
    tell(run, "sent %zu bytes, %08" PRIx32 ";", output.size, sum_of(output));
    HOLDS(mq_output_appended_total(run->mq) == output.size && mq_output_written_total(run->mq) == output.size);
}

static size_t chunk_size(enum cutting cutting, uint32_t *seed)
{
    switch (cutting) {
    case WHOLE:
        break;
    case AT_RANDOM:
        return 1 + fuzz_random(seed, fuzz_random(seed, 3) == 0 ? CHUNK_MAX : 9);
    case BYTE_BY_BYTE:
        return 1;
    }
    return SIZE_MAX;
}

static void write_all(struct run *run, struct rpc_text *written)
{
    struct rpc_bytes output = mq_output(run->mq);

    HOLDS(rpc_text_append(written, output));
    mq_output_written(run->mq, output.size, NOW_MS);
}

/* What an end must look like. */
static void check_end(struct run *run, uint8_t standing)
{
    enum mq_state state = mq_state(run->mq);
    unsigned events = run->events;

    switch (state) {
    case MQ_HANDSHAKE:
    case MQ_OPEN:
    case MQ_CLOSING:
        HOLDS(mq_error(run->mq)[0] == '\0');
        break;
    case MQ_CLOSED:
        HOLDS(mq_error(run->mq)[0] != '\0' || (standing & STANDS_GOODBYE));
        break;
    case MQ_BROKEN:
        HOLDS(mq_error(run->mq)[0] != '\0' && !mq_refused(run->mq));
        break;
    }
    HOLDS(strnlen(mq_error(run->mq), MQ_ERROR_SIZE) < MQ_ERROR_SIZE);
    if (state == MQ_CLOSED || state == MQ_BROKEN) {
        HOLDS(mq_feed(run->mq, RPC_BYTES("\1\0\1\0\0\0\4\0\24\0\13\xce"), NOW_MS) == state);
        HOLDS(mq_tick(run->mq, NOW_MS + 1) == state && run->events == events);
    } else if (state == MQ_OPEN) {
        HOLDS(mq_tick(run->mq, NOW_MS + 10 * 1000 * HEARTBEAT_S) == MQ_BROKEN);
    }
}

static struct run run_once(struct rpc_bytes input, uint8_t standing, uint8_t habits, enum cutting cutting)
{
    struct run run = {.habits = habits};
    struct rpc_text written = {0};
    uint32_t seed = habits;

    run.mq = mq_new(&(struct mq_options){.user = "me",
                                         .password = "secret",
                                         .vhost = "/",
                                         .name = "fuzz",
                                         .version = "0",
                                         .heartbeat_s = HEARTBEAT_S,
                                         .output_size_max = OUTPUT_MAX,
                                         .now_ms = NOW_MS,
                                         .events = &mq_events,
                                         .arg = &run});
    HOLDS(run.mq != NULL);
    if (standing & STANDS_OPEN)
        stand(&run, standing);
    while (input.size > 0) {
        struct rpc_bytes chunk = fuzz_take(&input, chunk_size(cutting, &seed));
        char *exact = fuzz_exact(chunk);

        mq_feed(run.mq, (struct rpc_bytes){exact, chunk.size}, NOW_MS);
        free(exact);
    }
    write_all(&run, &written);
    tell(&run, "state %d, refused %d: %s;", mq_state(run.mq), mq_refused(run.mq), mq_error(run.mq));
    check_output(&run, rpc_text_bytes(&written), cutting);
    check_end(&run, standing);
    mq_free(run.mq);
    rpc_text_clear(&written);
    return run;
}

static void stories_are_equal(const struct run *one, const struct run *other)
{
    struct rpc_bytes a = rpc_text_bytes(&one->story), b = rpc_text_bytes(&other->story);

    if (!fuzz_equal(a, b))
        fprintf(stderr, "%.*s\nand, cut elsewhere:\n%.*s\n", (int)a.size, a.data, (int)b.size, b.data);
    HOLDS(fuzz_equal(a, b));
}

static struct frames frames_of(struct rpc_bytes input)
{
    struct frames frames = {0};

    while (input.size > 0) {
        uint8_t type = fuzz_byte(&input), channel = fuzz_byte(&input);
        size_t size = (size_t)fuzz_byte(&input) << 8;

        size |= fuzz_byte(&input);
        frames_raw(&frames, type, channel, fuzz_take(&input, size));
    }
    return frames;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_bytes input = fuzz_bytes(data, size);
    uint8_t standing = fuzz_byte(&input), habits = fuzz_byte(&input);
    struct frames frames = {0};
    struct run whole, cut;

    if (standing & FRAMED) {
        frames = frames_of(input);
        input = frames_bytes(&frames);
    }
    whole = run_once(input, standing, habits, WHOLE);
    cut = run_once(input, standing, habits, AT_RANDOM);
    stories_are_equal(&whole, &cut);
    rpc_text_clear(&cut.story);
    if (input.size <= BYTEWISE_MAX && habits % 8 == 0) {
        cut = run_once(input, standing, habits, BYTE_BY_BYTE);
        stories_are_equal(&whole, &cut);
        rpc_text_clear(&cut.story);
    }
    rpc_text_clear(&whole.story);
    frames_clear(&frames);
    return 0;
}

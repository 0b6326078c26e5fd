/* The connection: handshake, heartbeats, frames to their channels, blocked and unblocked, close. */
#include "amqp/mq.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "amqp/state.h"

#define PROTOCOL_HEADER             "AMQP\0\0\x09\x01"
#define PSEUDOFRAME_PROTOCOL_HEADER 'A' /* rabbitmq-c's own, in no header of it: the broker refused our version */
#define CLOSE_BY_CLIENT             200 /* reply-success */
#define ACCESS_REFUSED              403
#define TICK_IDLE_MS                1000 /* without heartbeats there is nothing to look for */
#define NOT_ALLOWED                 530  /* RabbitMQ's answer for a vhost that does not exist */

struct mq *mq_new(const struct mq_options *options)
{
    struct mq *mq = calloc(1, sizeof(*mq));

    if (mq == NULL)
        return NULL;
    mq->options = *options;
    mq->codec = amqp_new_connection();
    if (mq->codec == NULL || !rpc_text_append(&mq->output, RPC_BYTES(PROTOCOL_HEADER))) {
        mq_free(mq);
        return NULL;
    }
    mq->frame_max = MQ_FRAME_SIZE_MAX;
    mq->heartbeat_s = options->heartbeat_s;
    mq->sent_ms = mq->received_ms = options->now_ms;
    mq->handshake_awaits = AMQP_CONNECTION_START_METHOD;
    return mq;
}

void mq_free(struct mq *mq)
{
    if (mq == NULL)
        return;
    for (unsigned number = 1; number <= MQ_CHANNELS_MAX; number++)
        channel_free(mq->channels[number]);
    if (mq->codec != NULL)
        amqp_destroy_connection(mq->codec);
    rpc_text_clear(&mq->output);
    rpc_text_clear(&mq->held);
    free(mq);
}

enum mq_state mq_state(const struct mq *mq)
{
    return mq->state;
}

const char *mq_error(const struct mq *mq)
{
    return mq->error;
}

bool mq_refused(const struct mq *mq)
{
    return mq->refused;
}

bool mq_blocked(const struct mq *mq)
{
    return mq->blocked;
}

uint16_t mq_channels_max(const struct mq *mq)
{
    return mq->channel_max;
}

void mq_break(struct mq *mq, const char *format, ...)
{
    va_list arguments;

    if (mq->state == MQ_CLOSED || mq->state == MQ_BROKEN)
        return;
    mq->state = MQ_BROKEN;
    va_start(arguments, format);
    vsnprintf(mq->error, sizeof(mq->error), format, arguments);
    va_end(arguments);
}

/* --- output --- */

struct rpc_bytes mq_output(const struct mq *mq)
{
    return rpc_text_bytes(&mq->output);
}

void mq_output_written(struct mq *mq, size_t size, uint64_t now_ms)
{
    if (size == 0)
        return;
    rpc_text_consume(&mq->output, size);
    mq->written_total += size;
    mq->sent_ms = now_ms;
}

uint64_t mq_output_appended_total(const struct mq *mq)
{
    return mq->written_total + mq->output.size;
}

uint64_t mq_output_written_total(const struct mq *mq)
{
    return mq->written_total;
}

void mq_output_grew(struct mq *mq, size_t size_before)
{
    if (size_before == 0 && mq->output.size > 0)
        mq->options.events->on_output(mq->options.arg);
}

void mq_send_method(struct mq *mq, uint16_t channel, amqp_method_number_t id, void *method)
{
    size_t before = mq->output.size;
    enum rpc_status status = frame_append_method(&mq->output, channel, id, method, mq->frame_max);

    if (status != RPC_OK)
        mq_break(mq, "cannot send %s: %s", amqp_method_name(id), rpc_status_name(status));
    mq_output_grew(mq, before);
}

/* --- heartbeats --- */

uint64_t mq_tick_interval_ms(const struct mq *mq, uint64_t now_ms)
{
    uint64_t half_ms = (uint64_t)mq->heartbeat_s * 500;
    uint64_t limit_ms = mq->received_ms + MQ_HEARTBEATS_MISSED * 2 * half_ms;
    uint64_t left_ms = limit_ms > now_ms ? limit_ms - now_ms : 1;

    if (mq->heartbeat_s == 0)
        return TICK_IDLE_MS;
    return left_ms < half_ms ? left_ms : half_ms;
}

enum mq_state mq_tick(struct mq *mq, uint64_t now_ms)
{
    uint64_t interval_ms = (uint64_t)mq->heartbeat_s * 1000;

    if (interval_ms == 0 || mq->state != MQ_OPEN)
        return mq->state;
    if (now_ms - mq->received_ms >= MQ_HEARTBEATS_MISSED * interval_ms) {
        mq_break(mq, "the broker was silent for %u s", (unsigned)((now_ms - mq->received_ms) / 1000));
    } else if (now_ms - mq->sent_ms >= interval_ms / 2 && mq->output.size == 0) {
        /* Output that is waiting to be written would do as well, and a heartbeat behind it would only be late. */
        if (frame_append_heartbeat(&mq->output) != RPC_OK)
            mq_break(mq, "out of memory");
        mq_output_grew(mq, 0);
    }
    return mq->state;
}

/* --- handshake: start, tune, open --- */

static amqp_table_entry_t flag_entry(const char *key)
{
    return (amqp_table_entry_t){.key = amqp_cstring_bytes(key),
                                .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}};
}

static bool mechanism_offered(amqp_bytes_t mechanisms, const char *wanted)
{
    const char *at = mechanisms.bytes, *end = at + mechanisms.len;
    size_t size = strlen(wanted);

    while (at < end) {
        const char *space = memchr(at, ' ', (size_t)(end - at));
        const char *stop = space == NULL ? end : space;

        if ((size_t)(stop - at) == size && memcmp(at, wanted, size) == 0)
            return true;
        at = stop + 1;
    }
    return false;
}

/* SASL PLAIN (RFC 4616): NUL user NUL password. */
static bool sasl_plain(struct rpc_text *response, const struct mq_options *options)
{
    return rpc_text_append(response, RPC_BYTES("\0")) && rpc_text_append(response, rpc_bytes_of(options->user)) &&
           rpc_text_append(response, RPC_BYTES("\0")) && rpc_text_append(response, rpc_bytes_of(options->password));
}

static void handshake_on_start(struct mq *mq, const amqp_connection_start_t *start)
{
    amqp_table_entry_t capabilities[] = {
        flag_entry("authentication_failure_close"), flag_entry("connection.blocked"),
        flag_entry("consumer_cancel_notify"),       flag_entry("basic.nack"),
        flag_entry("publisher_confirms"),           flag_entry("exchange_exchange_bindings"),
    };
    amqp_table_entry_t properties[] = {
        frame_text_entry("product", RPC_BYTES("Airship rpclib")),
        frame_text_entry("version", rpc_bytes_of(mq->options.version)),
        frame_text_entry("platform", RPC_BYTES("C")),
        frame_text_entry("connection_name", rpc_bytes_of(mq->options.name)),
        {.key = amqp_cstring_bytes("capabilities"),
         .value = {.kind = AMQP_FIELD_KIND_TABLE,
                   .value.table = {.num_entries = sizeof(capabilities) / sizeof(capabilities[0]),
                                   .entries = capabilities}}},
    };
    struct rpc_text response = {0};

    if (start->version_major != 0 || start->version_minor != 9 || !mechanism_offered(start->mechanisms, "PLAIN")) {
        mq_break(mq, "the broker offers AMQP %d-%d without SASL PLAIN, or not 0-9", start->version_major,
                 start->version_minor);
        return;
    }
    if (!sasl_plain(&response, &mq->options)) {
        mq_break(mq, "out of memory");
    } else {
        amqp_connection_start_ok_t ok = {
            .client_properties = {.num_entries = sizeof(properties) / sizeof(properties[0]), .entries = properties},
            .mechanism = amqp_cstring_bytes("PLAIN"),
            .response = frame_bytes(rpc_text_bytes(&response)),
            .locale = amqp_cstring_bytes("en_US")};

        mq->handshake_awaits = AMQP_CONNECTION_TUNE_METHOD;
        mq_send_method(mq, 0, AMQP_CONNECTION_START_OK_METHOD, &ok);
        explicit_bzero(response.data, response.size);
    }
    rpc_text_clear(&response);
}

/* The smaller of both wishes; 0 means "no limit". */
static uint32_t tuned(uint32_t ours, uint32_t theirs)
{
    return theirs == 0 || ours < theirs ? ours : theirs;
}

static void handshake_on_tune(struct mq *mq, const amqp_connection_tune_t *tune)
{
    amqp_connection_open_t open = {.virtual_host = amqp_cstring_bytes(mq->options.vhost)};

    mq->channel_max = (uint16_t)tuned(MQ_CHANNELS_MAX, tune->channel_max);
    mq->frame_max = tuned(MQ_FRAME_SIZE_MAX, tune->frame_max);
    if (mq->heartbeat_s != 0) /* 0 asks for none; the broker's 0 leaves the choice to us */
        mq->heartbeat_s = (uint16_t)tuned(mq->heartbeat_s, tune->heartbeat);
    if (mq->frame_max < AMQP_FRAME_MIN_SIZE) {
        mq_break(mq, "the broker wants frames of %u bytes; AMQP's least is %d", mq->frame_max, AMQP_FRAME_MIN_SIZE);
        return;
    }
    if (amqp_tune_connection(mq->codec, mq->channel_max, (int)mq->frame_max, 0) != AMQP_STATUS_OK) {
        mq_break(mq, "out of memory");
        return;
    }
    amqp_connection_tune_ok_t ok = {
        .channel_max = mq->channel_max, .frame_max = mq->frame_max, .heartbeat = mq->heartbeat_s};

    mq->handshake_awaits = AMQP_CONNECTION_OPEN_OK_METHOD;
    mq_send_method(mq, 0, AMQP_CONNECTION_TUNE_OK_METHOD, &ok);
    mq_send_method(mq, 0, AMQP_CONNECTION_OPEN_METHOD, &open);
}

static void handshake_on_method(struct mq *mq, const amqp_method_t *method)
{
    if (method->id != mq->handshake_awaits) {
        mq_break(mq, "the broker sent %s where %s was due", amqp_method_name(method->id),
                 amqp_method_name(mq->handshake_awaits));
    } else if (method->id == AMQP_CONNECTION_START_METHOD) {
        handshake_on_start(mq, method->decoded);
    } else if (method->id == AMQP_CONNECTION_TUNE_METHOD) {
        handshake_on_tune(mq, method->decoded);
    } else {
        mq->state = MQ_OPEN;
        mq->handshake_awaits = 0;
        mq->options.user = mq->options.password = mq->options.vhost = NULL; /* were lent until now */
        mq->options.name = mq->options.version = NULL;
        mq->options.events->on_open(mq->options.arg);
    }
}

/* --- the connection's own methods --- */

void mq_close(struct mq *mq)
{
    amqp_connection_close_t close = {.reply_code = CLOSE_BY_CLIENT, .reply_text = amqp_cstring_bytes("goodbye")};

    if (mq->state != MQ_OPEN) {
        mq_break(mq, "closed before it was open");
        return;
    }
    mq->state = MQ_CLOSING;
    mq_send_method(mq, 0, AMQP_CONNECTION_CLOSE_METHOD, &close);
}

static void on_connection_close(struct mq *mq, const amqp_connection_close_t *close)
{
    amqp_connection_close_ok_t ok = {0};

    mq_send_method(mq, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &ok);
    if (mq->state == MQ_BROKEN)
        return;
    mq->refused =
        mq->state == MQ_HANDSHAKE && (close->reply_code == ACCESS_REFUSED || close->reply_code == NOT_ALLOWED);
    snprintf(mq->error, sizeof(mq->error), "the broker closed the connection: %d %.*s", close->reply_code,
             (int)close->reply_text.len, (const char *)close->reply_text.bytes);
    mq->state = MQ_CLOSED;
}

static void on_blocked(struct mq *mq, bool blocked, struct rpc_bytes reason)
{
    mq->blocked = blocked;
    mq->options.events->on_blocked(blocked, reason, mq->options.arg);
}

static void connection_on_method(struct mq *mq, const amqp_method_t *method)
{
    if (method->id == AMQP_CONNECTION_CLOSE_METHOD) {
        on_connection_close(mq, method->decoded);
    } else if (mq->state == MQ_HANDSHAKE) {
        handshake_on_method(mq, method);
    } else if (method->id == AMQP_CONNECTION_CLOSE_OK_METHOD && mq->state == MQ_CLOSING) {
        mq->state = MQ_CLOSED;
    } else if (method->id == AMQP_CONNECTION_BLOCKED_METHOD) {
        on_blocked(mq, true, frame_text(((amqp_connection_blocked_t *)method->decoded)->reason));
    } else if (method->id == AMQP_CONNECTION_UNBLOCKED_METHOD) {
        on_blocked(mq, false, rpc_bytes_of(""));
    } else {
        mq_break(mq, "the broker sent %s on channel 0", amqp_method_name(method->id));
    }
}

/* --- input --- */

static void on_frame(struct mq *mq, const amqp_frame_t *frame)
{
    struct mq_channel *channel;

    if (frame->frame_type == AMQP_FRAME_HEARTBEAT)
        return;
    if (frame->frame_type == PSEUDOFRAME_PROTOCOL_HEADER) {
        mq_break(mq, "the peer does not speak AMQP 0-9-1");
        return;
    }
    if (frame->channel == 0) {
        if (frame->frame_type == AMQP_FRAME_METHOD)
            connection_on_method(mq, &frame->payload.method);
        else
            mq_break(mq, "the broker sent content on channel 0");
        return;
    }
    channel = frame->channel <= MQ_CHANNELS_MAX ? mq->channels[frame->channel] : NULL;
    if (channel == NULL || mq->state == MQ_HANDSHAKE)
        mq_break(mq, "the broker sent a frame on channel %d, which is not open", frame->channel);
    else if (mq->state == MQ_OPEN || mq->state == MQ_CLOSING)
        channel_on_frame(channel, frame);
}

/* Hand bytes of one frame to the codec, and the frame on when it is whole.  Returns how many of them were taken. */
static size_t decode(struct mq *mq, struct rpc_bytes bytes)
{
    amqp_frame_t frame;
    int used = amqp_handle_input(mq->codec, frame_bytes(bytes), &frame);

    if (used < 0) {
        mq_break(mq, "the broker sent bytes that are no AMQP: %s", amqp_error_string2(used));
        return 0;
    }
    if (frame.frame_type != 0) {
        on_frame(mq, &frame);
        if (frame.channel == 0)
            amqp_maybe_release_buffers_on_channel(mq->codec, 0);
    } else if (amqp_release_buffers_ok(mq->codec)) {
        /* A whole frame came and the codec passed over it; AMQP calls that fatal, and its memory would stay. */
        mq_break(mq, "the broker sent a frame of a type that AMQP does not know");
    }
    return (size_t)used;
}

static void decode_held(struct mq *mq)
{
    while (mq->held.size > 0 && mq->state != MQ_CLOSED && mq->state != MQ_BROKEN)
        rpc_text_consume(&mq->held, decode(mq, rpc_text_bytes(&mq->held)));
}

static size_t hold(struct mq *mq, struct rpc_bytes bytes, size_t size)
{
    if (size > bytes.size)
        size = bytes.size;
    if (!rpc_text_append(&mq->held, (struct rpc_bytes){bytes.data, size}))
        mq_break(mq, "out of memory for a frame");
    return size;
}

/*
 * A large content header is whole.  One that is nested too deep would cost the codec's recursion more stack than there may
 * be; it goes on without its properties, and whoever gets the message refuses that.
 */
static void decode_large_header(struct mq *mq)
{
    struct rpc_bytes frame = rpc_text_bytes(&mq->held);
    struct rpc_bytes payload = {frame.data + FRAME_HEAD_SIZE, frame.size - FRAME_OVERHEAD};
    struct rpc_text bare = {0};

    mq->holds_frame = false;
    if (!frame_header_is_deep(payload)) {
        decode_held(mq);
        return;
    }
    if (frame_append_bare_header(&bare, frame_read_head(frame.data).channel, payload) != RPC_OK) {
        mq_break(mq, "out of memory for a frame");
        return;
    }
    rpc_text_clear(&mq->held);
    mq->held = bare;
    decode_held(mq);
}

/* A frame begins.  Returns how many bytes were taken: those of its head, or none when they go the usual way. */
static size_t input_begin(struct mq *mq, struct rpc_bytes bytes)
{
    size_t held = mq->held.size, taken = 0;
    struct frame_head head;

    if (held + bytes.size < FRAME_HEAD_SIZE)
        return hold(mq, bytes, bytes.size);
    if (held > 0)
        taken = hold(mq, bytes, FRAME_HEAD_SIZE - held);
    if (mq->state == MQ_BROKEN)
        return taken;
    head = frame_read_head(held > 0 ? rpc_text_bytes(&mq->held).data : bytes.data);
    mq->frame_left = (uint64_t)head.payload_size + FRAME_OVERHEAD - taken - held;
    mq->holds_frame = head.type == AMQP_FRAME_HEADER && head.payload_size > FRAME_NESTING_UNCHECKED &&
                      head.payload_size <= mq->frame_max;
    if (!mq->holds_frame)
        decode_held(mq);
    return taken;
}

static size_t input_take(struct mq *mq, struct rpc_bytes bytes)
{
    size_t size;

    if (mq->frame_left == 0) {
        size = input_begin(mq, bytes);
        if (size > 0 || mq->frame_left == 0)
            return size;
    }
    if (bytes.size > mq->frame_left)
        bytes.size = (size_t)mq->frame_left;
    size = mq->holds_frame ? hold(mq, bytes, bytes.size) : decode(mq, bytes);
    mq->frame_left -= size;
    if (mq->holds_frame && mq->frame_left == 0 && mq->state != MQ_BROKEN)
        decode_large_header(mq);
    return size;
}

enum mq_state mq_feed(struct mq *mq, struct rpc_bytes bytes, uint64_t now_ms)
{
    if (bytes.size > 0)
        mq->received_ms = now_ms;
    while (bytes.size > 0 && mq->state != MQ_CLOSED && mq->state != MQ_BROKEN) {
        size_t used = input_take(mq, bytes);

        bytes.data += used;
        bytes.size -= used;
    }
    return mq->state;
}

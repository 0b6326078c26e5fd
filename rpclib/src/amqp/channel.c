/* One channel: what was asked and is to be answered, messages put together from their frames, publish and acknowledge. */
#include <assert.h>
#include <stdlib.h>

#include "amqp/mq.h"
#include "amqp/state.h"
#include "rpclib/connection.h"

#define QUEUE_ARGUMENTS_MAX 4

struct mq_channel *mq_channel_open(struct mq *mq, const struct mq_channel_events *events, void *arg)
{
    amqp_channel_open_t open = {.out_of_band = amqp_empty_bytes};
    struct mq_channel *channel;
    uint16_t number = 1;

    while (number <= mq->channel_max && mq->channels[number] != NULL)
        number++;
    if (mq->state != MQ_OPEN || number > mq->channel_max)
        return NULL;
    channel = calloc(1, sizeof(*channel));
    if (channel == NULL)
        return NULL;
    channel->mq = mq;
    channel->number = number;
    channel->events = events;
    channel->arg = arg;
    channel->answers[channel->answers_count++] = AMQP_CHANNEL_OPEN_OK_METHOD;
    mq->channels[number] = channel;
    mq_send_method(mq, number, AMQP_CHANNEL_OPEN_METHOD, &open);
    return channel;
}

void channel_free(struct mq_channel *channel)
{
    if (channel == NULL)
        return;
    rpc_text_clear(&channel->content.joined);
    free(channel);
}

static void channel_forget(struct mq_channel *channel)
{
    channel->mq->channels[channel->number] = NULL;
    channel_free(channel);
}

void mq_channel_close(struct mq_channel *channel)
{
    amqp_channel_close_t close = {.reply_code = 200, .reply_text = amqp_cstring_bytes("goodbye")};

    channel->state = CHANNEL_CLOSING;
    mq_send_method(channel->mq, channel->number, AMQP_CHANNEL_CLOSE_METHOD, &close);
}

/* --- asking --- */

static void ask(struct mq_channel *channel, amqp_method_number_t id, void *method, amqp_method_number_t answer)
{
    unsigned end = (channel->answers_start + channel->answers_count) % MQ_ANSWERS_MAX;

    if (channel->answers_count == MQ_ANSWERS_MAX) {
        mq_break(channel->mq, "more than %d answers awaited on a channel", MQ_ANSWERS_MAX);
        return;
    }
    channel->answers[end] = answer;
    channel->answers_count++;
    mq_send_method(channel->mq, channel->number, id, method);
}

void mq_exchange_declare(struct mq_channel *channel, const char *name)
{
    amqp_exchange_declare_t declare = {
        .exchange = amqp_cstring_bytes(name), .type = amqp_cstring_bytes("topic"), .durable = 1};

    ask(channel, AMQP_EXCHANGE_DECLARE_METHOD, &declare, AMQP_EXCHANGE_DECLARE_OK_METHOD);
}

static amqp_table_entry_t argument_number(const char *key, int32_t number)
{
    return (amqp_table_entry_t){.key = amqp_cstring_bytes(key),
                                .value = {.kind = AMQP_FIELD_KIND_I32, .value.i32 = number}};
}

void mq_queue_declare(struct mq_channel *channel, const struct mq_queue *queue)
{
    amqp_table_entry_t arguments[QUEUE_ARGUMENTS_MAX];
    int count = 0;

    if (queue->expires_ms > 0)
        arguments[count++] = argument_number("x-expires", queue->expires_ms);
    if (queue->message_ttl_ms > 0)
        arguments[count++] = argument_number("x-message-ttl", queue->message_ttl_ms);
    if (queue->dead_letter_queue != NULL) {
        arguments[count++] = frame_text_entry("x-dead-letter-exchange", RPC_BYTES(""));
        arguments[count++] = frame_text_entry("x-dead-letter-routing-key", rpc_bytes_of(queue->dead_letter_queue));
    }
    amqp_queue_declare_t declare = {
        .queue = amqp_cstring_bytes(queue->name),
        .durable = queue->durable,
        .exclusive = queue->exclusive,
        .auto_delete = queue->auto_delete,
        .arguments = {.num_entries = count, .entries = arguments},
    };

    ask(channel, AMQP_QUEUE_DECLARE_METHOD, &declare, AMQP_QUEUE_DECLARE_OK_METHOD);
}

bool mq_channel_settled(const struct mq_channel *channel)
{
    return channel->answers_count == 0;
}

void mq_queue_inspect(struct mq_channel *channel, const char *queue)
{
    amqp_queue_declare_t declare = {.queue = amqp_cstring_bytes(queue), .passive = 1};

    assert(mq_channel_settled(channel));
    ask(channel, AMQP_QUEUE_DECLARE_METHOD, &declare, AMQP_QUEUE_DECLARE_OK_METHOD);
}

void mq_queue_bind(struct mq_channel *channel, const char *queue, const char *exchange, const char *routing_key)
{
    amqp_queue_bind_t bind = {.queue = amqp_cstring_bytes(queue),
                              .exchange = amqp_cstring_bytes(exchange),
                              .routing_key = amqp_cstring_bytes(routing_key)};

    ask(channel, AMQP_QUEUE_BIND_METHOD, &bind, AMQP_QUEUE_BIND_OK_METHOD);
}

void mq_qos(struct mq_channel *channel, uint16_t prefetch)
{
    amqp_basic_qos_t qos = {.prefetch_count = prefetch};

    ask(channel, AMQP_BASIC_QOS_METHOD, &qos, AMQP_BASIC_QOS_OK_METHOD);
}

void mq_consume(struct mq_channel *channel, const char *queue, const char *consumer_tag, bool no_ack)
{
    amqp_basic_consume_t consume = {
        .queue = amqp_cstring_bytes(queue), .consumer_tag = amqp_cstring_bytes(consumer_tag), .no_ack = no_ack};

    ask(channel, AMQP_BASIC_CONSUME_METHOD, &consume, AMQP_BASIC_CONSUME_OK_METHOD);
}

void mq_get(struct mq_channel *channel, const char *queue)
{
    amqp_basic_get_t get = {.queue = amqp_cstring_bytes(queue)};

    ask(channel, AMQP_BASIC_GET_METHOD, &get, AMQP_BASIC_GET_OK_METHOD);
}

void mq_cancel(struct mq_channel *channel, const char *consumer_tag)
{
    amqp_basic_cancel_t cancel = {.consumer_tag = amqp_cstring_bytes(consumer_tag)};

    ask(channel, AMQP_BASIC_CANCEL_METHOD, &cancel, AMQP_BASIC_CANCEL_OK_METHOD);
}

void mq_confirm_select(struct mq_channel *channel)
{
    amqp_confirm_select_t select = {0};

    ask(channel, AMQP_CONFIRM_SELECT_METHOD, &select, AMQP_CONFIRM_SELECT_OK_METHOD);
}

/* --- telling --- */

enum rpc_status mq_would_take(const struct mq_channel *channel, const struct mq_publish *publish)
{
    const struct mq *mq = channel->mq;
    size_t waiting = mq->output.size;

    if (publish->body.size > RPC_MESSAGE_SIZE_MAX)
        return RPC_TOO_LARGE;
    if (mq->blocked && !publish->though_blocked)
        return RPC_BLOCKED;
    if (waiting > 0 && waiting + publish->body.size > mq->options.output_size_max)
        return RPC_BUSY;
    return RPC_OK;
}

enum rpc_status mq_publish(struct mq_channel *channel, const struct mq_publish *publish)
{
    struct mq *mq = channel->mq;
    amqp_basic_publish_t method = {.exchange = frame_bytes(publish->exchange),
                                   .routing_key = frame_bytes(publish->routing_key),
                                   .mandatory = publish->mandatory};
    size_t before = mq->output.size;
    enum rpc_status status = mq_would_take(channel, publish);

    if (status != RPC_OK)
        return status;
    status = frame_append_method(&mq->output, channel->number, AMQP_BASIC_PUBLISH_METHOD, &method, mq->frame_max);
    if (status == RPC_OK)
        status = frame_append_content(&mq->output, channel->number, publish->properties, publish->raw_properties,
                                      publish->body, mq->frame_max);
    if (status != RPC_OK)
        rpc_text_truncate(&mq->output, before);
    mq_output_grew(mq, before);
    return status;
}

void mq_ack(struct mq_channel *channel, uint64_t tag, bool multiple)
{
    amqp_basic_ack_t ack = {.delivery_tag = tag, .multiple = multiple};

    mq_send_method(channel->mq, channel->number, AMQP_BASIC_ACK_METHOD, &ack);
}

void mq_reject(struct mq_channel *channel, uint64_t tag, bool requeue)
{
    amqp_basic_reject_t reject = {.delivery_tag = tag, .requeue = requeue};

    mq_send_method(channel->mq, channel->number, AMQP_BASIC_REJECT_METHOD, &reject);
}

/* --- messages --- */

static void content_reset(struct content *content)
{
    rpc_text_clear(&content->joined);
    *content = (struct content){.state = CONTENT_NONE};
}

static void content_on_deliver(struct content *content, const amqp_basic_deliver_t *deliver)
{
    content->state = CONTENT_HEADER;
    content->returned = false;
    content->delivery = (struct mq_delivery){
        .message = {.exchange = frame_text(deliver->exchange), .routing_key = frame_text(deliver->routing_key)},
        .consumer_tag = frame_text(deliver->consumer_tag),
        .tag = deliver->delivery_tag,
        .redelivered = deliver->redelivered};
}

static void content_on_got(struct content *content, const amqp_basic_get_ok_t *got)
{
    content->state = CONTENT_HEADER;
    content->returned = false;
    content->delivery = (struct mq_delivery){
        .message = {.exchange = frame_text(got->exchange), .routing_key = frame_text(got->routing_key)},
        .tag = got->delivery_tag,
        .redelivered = got->redelivered};
}

static void content_on_return(struct content *content, const amqp_basic_return_t *returned)
{
    content->state = CONTENT_HEADER;
    content->returned = true;
    content->return_code = returned->reply_code;
    content->delivery = (struct mq_delivery){
        .message = {.exchange = frame_text(returned->exchange), .routing_key = frame_text(returned->routing_key)}};
}

static void content_on_header(struct content *content, const amqp_frame_t *frame)
{
    struct mq_message *message = &content->delivery.message;

    content->state = CONTENT_BODY;
    content->size = frame->payload.properties.body_size;
    message->body_size = content->size;
    if (content->size <= RPC_MESSAGE_SIZE_MAX) {
        message->properties = frame->payload.properties.decoded;
        message->raw_properties = frame_text(frame->payload.properties.raw);
    } else { /* the pool is let go frame by frame, so nothing may point into it */
        *message = (struct mq_message){.body_size = content->size, .oversized = true};
        content->delivery.consumer_tag = rpc_bytes_of("");
    }
}

static void content_on_body(struct mq_channel *channel, struct rpc_bytes part)
{
    struct content *content = &channel->content;

    if (part.size > content->size - content->received) {
        mq_break(channel->mq, "a message's body is longer than its header said");
        return;
    }
    content->received += part.size;
    if (content->delivery.message.oversized)
        amqp_maybe_release_buffers_on_channel(channel->mq->codec, channel->number);
    else if (part.size == content->size)
        content->delivery.message.body = part; /* the usual case: one frame, lent from the codec */
    else if (!rpc_text_append(&content->joined, part))
        mq_break(channel->mq, "out of memory for a message of %llu bytes", (unsigned long long)content->size);
}

/* Hand out the message that is complete.  A closing channel hears nothing: the broker delivers it to another. */
static void content_hand_out(struct mq_channel *channel)
{
    struct content *content = &channel->content;
    struct mq_message *message = &content->delivery.message;

    if (content->joined.data != NULL)
        message->body = rpc_text_bytes(&content->joined);
    if (channel->state != CHANNEL_OPEN)
        return;
    if (!content->returned)
        channel->events->on_delivery(&content->delivery, channel->arg);
    else if (channel->events->on_return != NULL)
        channel->events->on_return(message, content->return_code, channel->arg);
}

static void content_on_frame(struct mq_channel *channel, const amqp_frame_t *frame)
{
    struct content *content = &channel->content;

    if (frame->frame_type == AMQP_FRAME_HEADER && content->state == CONTENT_HEADER &&
        frame->payload.properties.class_id == AMQP_BASIC_CLASS)
        content_on_header(content, frame);
    else if (frame->frame_type == AMQP_FRAME_BODY && content->state == CONTENT_BODY)
        content_on_body(channel, frame_text(frame->payload.body_fragment));
    else
        mq_break(channel->mq, "the broker sent a frame of type %d out of its turn", frame->frame_type);
    if (channel->mq->state != MQ_BROKEN && content->state == CONTENT_BODY && content->received == content->size) {
        content_hand_out(channel);
        content_reset(content);
    }
}

/* --- methods --- */

static void channel_on_close(struct mq_channel *channel, const amqp_channel_close_t *close)
{
    const struct mq_channel_events *events = channel->events;
    amqp_channel_close_ok_t ok = {0};
    bool wanted = channel->state == CHANNEL_OPEN;
    void *arg = channel->arg;

    mq_send_method(channel->mq, channel->number, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok);
    if (!wanted)
        return; /* both closed at once: close-ok for ours is still to come */
    channel_forget(channel);
    events->on_closed(close->reply_code, frame_text(close->reply_text), arg);
}

/* The next answer that is awaited has come.  False, with the connection broken, when it is another one. */
static bool channel_take_answer(struct mq_channel *channel, amqp_method_number_t id, amqp_method_number_t awaited)
{
    if (channel->answers_count == 0 || channel->answers[channel->answers_start] != awaited) {
        mq_break(channel->mq, "the broker sent %s, which nobody asked for", amqp_method_name(id));
        return false;
    }
    channel->answers_start = (channel->answers_start + 1) % MQ_ANSWERS_MAX;
    channel->answers_count--;
    return true;
}

static void channel_on_answer(struct mq_channel *channel, const amqp_method_t *method)
{
    if (!channel_take_answer(channel, method->id, method->id))
        return;
    if (method->id == AMQP_QUEUE_DECLARE_OK_METHOD && channel->state == CHANNEL_OPEN &&
        channel->events->on_queue != NULL)
        channel->events->on_queue(((const amqp_queue_declare_ok_t *)method->decoded)->consumer_count, channel->arg);
    if (channel->answers_count == 0 && channel->state == CHANNEL_OPEN) /* on_queue may have asked, or closed it */
        channel->events->on_settled(channel->arg);
}

static void channel_on_get_empty(struct mq_channel *channel)
{
    if (channel_take_answer(channel, AMQP_BASIC_GET_EMPTY_METHOD, AMQP_BASIC_GET_OK_METHOD) &&
        channel->state == CHANNEL_OPEN && channel->events->on_empty != NULL)
        channel->events->on_empty(channel->arg);
}

static void channel_on_confirm(struct mq_channel *channel, uint64_t tag, bool multiple, bool ack)
{
    if (channel->events->on_confirm == NULL)
        mq_break(channel->mq, "the broker confirmed a publish on a channel that did not ask for it");
    else if (channel->state == CHANNEL_OPEN)
        channel->events->on_confirm(tag, multiple, ack, channel->arg);
}

static void channel_on_cancel(struct mq_channel *channel)
{
    if (channel->state == CHANNEL_OPEN && channel->events->on_cancelled != NULL)
        channel->events->on_cancelled(channel->arg);
}

static void channel_on_method(struct mq_channel *channel, const amqp_method_t *method)
{
    if (channel->content.state != CONTENT_NONE) {
        mq_break(channel->mq, "the broker sent %s within a message", amqp_method_name(method->id));
        return;
    }
    switch (method->id) {
    case AMQP_BASIC_DELIVER_METHOD:
        content_on_deliver(&channel->content, method->decoded);
        break;
    case AMQP_BASIC_GET_OK_METHOD:
        if (channel_take_answer(channel, method->id, method->id))
            content_on_got(&channel->content, method->decoded);
        break;
    case AMQP_BASIC_GET_EMPTY_METHOD:
        channel_on_get_empty(channel);
        break;
    case AMQP_BASIC_RETURN_METHOD:
        content_on_return(&channel->content, method->decoded);
        break;
    case AMQP_BASIC_ACK_METHOD: {
        const amqp_basic_ack_t *ack = method->decoded;

        channel_on_confirm(channel, ack->delivery_tag, ack->multiple, true);
        break;
    }
    case AMQP_BASIC_NACK_METHOD: {
        const amqp_basic_nack_t *nack = method->decoded;

        channel_on_confirm(channel, nack->delivery_tag, nack->multiple, false);
        break;
    }
    case AMQP_BASIC_CANCEL_METHOD:
        channel_on_cancel(channel);
        break;
    case AMQP_CHANNEL_CLOSE_METHOD:
        channel_on_close(channel, method->decoded);
        break;
    case AMQP_CHANNEL_CLOSE_OK_METHOD:
        if (channel->state == CHANNEL_CLOSING)
            channel_forget(channel);
        else
            mq_break(channel->mq, "the broker closed a channel without being asked");
        break;
    default: /* method numbers are no enum: all others are answers */
        channel_on_answer(channel, method);
        break;
    }
}

void channel_on_frame(struct mq_channel *channel, const amqp_frame_t *frame)
{
    struct mq *mq = channel->mq;
    uint16_t number = channel->number;

    if (frame->frame_type == AMQP_FRAME_METHOD)
        channel_on_method(channel, &frame->payload.method);
    else
        content_on_frame(channel, frame);
    channel = mq->channels[number]; /* it may be gone */
    if (channel == NULL || channel->content.state == CONTENT_NONE)
        amqp_maybe_release_buffers_on_channel(mq->codec, number);
}

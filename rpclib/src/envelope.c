#include "envelope.h"

#include "amqp/frame.h"
#include "batch.h"
#include "wire.h"

size_t envelope_size(const struct mq_message *message)
{
    return FRAME_PROPERTY(message->properties, REPLY_TO, reply_to).size + message->raw_properties.size +
           FRAME_PROPERTY(message->properties, CORRELATION_ID, correlation_id).size + 1 +
           FRAME_PROPERTY(message->properties, CONTENT_TYPE, content_type).size + 1;
}

struct rpc_bytes envelope_keep(char **room, struct rpc_bytes bytes)
{
    struct rpc_bytes kept = {*room, bytes.size};

    if (bytes.size > 0)
        memcpy(*room, bytes.data, bytes.size);
    *room += bytes.size;
    return kept;
}

static const char *keep_text(char **room, struct rpc_bytes bytes)
{
    const char *text = envelope_keep(room, bytes).data;

    *(*room)++ = '\0';
    return text;
}

void envelope_copy(struct envelope *out, char *room, const struct mq_delivery *delivery)
{
    const struct mq_message *message = &delivery->message;

    out->reply_to = envelope_keep(&room, FRAME_PROPERTY(message->properties, REPLY_TO, reply_to));
    out->raw_properties = envelope_keep(&room, message->raw_properties);
    out->correlation_id = keep_text(&room, FRAME_PROPERTY(message->properties, CORRELATION_ID, correlation_id));
    out->content_type = keep_text(&room, FRAME_PROPERTY(message->properties, CONTENT_TYPE, content_type));
    out->redelivered = delivery->redelivered;
    out->takes_batches = batch_sender_takes(message->properties);
}

const char *message_unreadable(const struct mq_message *message)
{
    if (message->oversized)
        return "it is too large";
    if (!wire_is_json(FRAME_PROPERTY(message->properties, CONTENT_TYPE, content_type)))
        return "its content type is not JSON";
    return NULL;
}

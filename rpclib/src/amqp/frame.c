#include "amqp/frame.h"

#define FRAME_HEADER_SIZE 7
#define FRAME_FIRST_TRY   1024u /* what nearly every method and header fits into */

static void put_u16(char *at, uint16_t value)
{
    at[0] = (char)(value >> 8);
    at[1] = (char)value;
}

static void put_u32(char *at, uint32_t value)
{
    put_u16(at, (uint16_t)(value >> 16));
    put_u16(at + 2, (uint16_t)value);
}

static void put_u64(char *at, uint64_t value)
{
    put_u32(at, (uint32_t)(value >> 32));
    put_u32(at + 4, (uint32_t)value);
}

/* Write a frame's first and last bytes around `size` payload bytes at `frame`; the frame is complete then. */
static void frame_close(struct buffer *out, char *frame, uint8_t type, uint16_t channel, size_t size)
{
    frame[0] = (char)type;
    put_u16(frame + 1, channel);
    put_u32(frame + 3, (uint32_t)size);
    frame[FRAME_HEADER_SIZE + size] = (char)AMQP_FRAME_END;
    buffer_grown(out, size + FRAME_OVERHEAD);
}

/* What goes into a frame: writes it into `room` and returns its size, or a negative number when it does not fit. */
typedef int payload_fn(amqp_bytes_t room, const void *what);

static enum rpc_status frame_append(struct buffer *out, uint8_t type, uint16_t channel, payload_fn *payload,
                                    const void *what, uint32_t frame_max)
{
    size_t room = frame_max < FRAME_FIRST_TRY ? frame_max : FRAME_FIRST_TRY;

    for (;;) {
        char *frame = buffer_reserve(out, room);
        int size;

        if (frame == NULL)
            return RPC_NO_MEMORY;
        size = payload((amqp_bytes_t){room - FRAME_OVERHEAD, frame + FRAME_HEADER_SIZE}, what);
        if (size >= 0) {
            frame_close(out, frame, type, channel, (size_t)size);
            return RPC_OK;
        }
        if (room >= frame_max)
            return RPC_TOO_LARGE;
        room = room * 8 < frame_max ? room * 8 : frame_max;
    }
}

struct method {
    amqp_method_number_t id;
    void *decoded;
};

static int method_payload(amqp_bytes_t room, const void *what)
{
    const struct method *method = what;
    int size = amqp_encode_method(method->id, method->decoded, (amqp_bytes_t){room.len - 4, (char *)room.bytes + 4});

    put_u32(room.bytes, method->id);
    return size < 0 ? size : size + 4;
}

enum rpc_status frame_append_method(struct buffer *out, uint16_t channel, amqp_method_number_t id, void *decoded,
                                    uint32_t frame_max)
{
    const struct method method = {id, decoded};

    return frame_append(out, AMQP_FRAME_METHOD, channel, method_payload, &method, frame_max);
}

struct header {
    const amqp_basic_properties_t *properties;
    uint64_t body_size;
};

static int header_payload(amqp_bytes_t room, const void *what)
{
    const struct header *header = what;
    char *at = room.bytes;
    int size = amqp_encode_properties(AMQP_BASIC_CLASS, (void *)(uintptr_t)header->properties,
                                      (amqp_bytes_t){room.len - 12, at + 12});

    put_u16(at, AMQP_BASIC_CLASS);
    put_u16(at + 2, 0); /* the weight, unused */
    put_u64(at + 4, header->body_size);
    return size < 0 ? size : size + 12;
}

static enum rpc_status append_body(struct buffer *out, uint16_t channel, struct rpc_bytes body, uint32_t frame_max)
{
    const size_t fragment_max = frame_max - FRAME_OVERHEAD;

    while (body.size > 0) {
        size_t size = body.size < fragment_max ? body.size : fragment_max;
        char *frame = buffer_reserve(out, size + FRAME_OVERHEAD);

        if (frame == NULL)
            return RPC_NO_MEMORY;
        memcpy(frame + FRAME_HEADER_SIZE, body.data, size);
        frame_close(out, frame, AMQP_FRAME_BODY, channel, size);
        body.data += size;
        body.size -= size;
    }
    return RPC_OK;
}

enum rpc_status frame_append_content(struct buffer *out, uint16_t channel, const amqp_basic_properties_t *properties,
                                     struct rpc_bytes body, uint32_t frame_max)
{
    const struct header header = {properties, body.size};
    size_t before = buffer_size(out);
    enum rpc_status status = frame_append(out, AMQP_FRAME_HEADER, channel, header_payload, &header, frame_max);

    if (status == RPC_OK)
        status = append_body(out, channel, body, frame_max);
    if (status != RPC_OK)
        buffer_truncate(out, before);
    return status;
}

enum rpc_status frame_append_heartbeat(struct buffer *out)
{
    char *frame = buffer_reserve(out, FRAME_OVERHEAD);

    if (frame == NULL)
        return RPC_NO_MEMORY;
    frame_close(out, frame, AMQP_FRAME_HEARTBEAT, 0, 0);
    return RPC_OK;
}

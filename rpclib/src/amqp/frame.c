#include "amqp/frame.h"

#define FRAME_FIRST_TRY 1024u /* what nearly every method and header fits into */

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
static void frame_close(struct rpc_text *out, char *frame, uint8_t type, uint16_t channel, size_t size)
{
    frame[0] = (char)type;
    put_u16(frame + 1, channel);
    put_u32(frame + 3, (uint32_t)size);
    frame[FRAME_HEAD_SIZE + size] = (char)AMQP_FRAME_END;
    rpc_text_commit(out, size + FRAME_OVERHEAD);
}

/* What goes into a frame: writes it into `room` and returns its size, or a negative number when it does not fit. */
typedef int payload_fn(amqp_bytes_t room, const void *what);

static enum rpc_status frame_append(struct rpc_text *out, uint8_t type, uint16_t channel, payload_fn *payload,
                                    const void *what, uint32_t frame_max)
{
    size_t room = frame_max < FRAME_FIRST_TRY ? frame_max : FRAME_FIRST_TRY;

    for (;;) {
        char *frame = rpc_text_reserve(out, room);
        int size;

        if (frame == NULL)
            return RPC_NO_MEMORY;
        size = payload((amqp_bytes_t){room - FRAME_OVERHEAD, frame + FRAME_HEAD_SIZE}, what);
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

enum rpc_status frame_append_method(struct rpc_text *out, uint16_t channel, amqp_method_number_t id, void *decoded,
                                    uint32_t frame_max)
{
    const struct method method = {id, decoded};

    return frame_append(out, AMQP_FRAME_METHOD, channel, method_payload, &method, frame_max);
}

static int encode_properties(amqp_bytes_t room, const amqp_basic_properties_t *properties)
{
    return amqp_encode_properties(AMQP_BASIC_CLASS, (void *)(uintptr_t)properties, room);
}

enum rpc_status frame_append_properties(struct rpc_text *out, const amqp_basic_properties_t *properties,
                                        uint32_t size_max)
{
    for (uint32_t room_size = FRAME_FIRST_TRY; room_size <= size_max; room_size *= 2) {
        char *room = rpc_text_reserve(out, room_size);
        int size;

        if (room == NULL)
            return RPC_NO_MEMORY;
        size = encode_properties((amqp_bytes_t){room_size, room}, properties);
        if (size >= 0) {
            rpc_text_commit(out, (size_t)size);
            return RPC_OK;
        }
    }
    return RPC_TOO_LARGE;
}

struct header {
    const amqp_basic_properties_t *properties; /* NULL: `raw` */
    struct rpc_bytes raw;
    uint64_t body_size;
};

static int copy_properties(amqp_bytes_t room, struct rpc_bytes raw)
{
    if (raw.size > room.len)
        return -1;
    memcpy(room.bytes, raw.data, raw.size);
    return (int)raw.size;
}

static int header_payload(amqp_bytes_t room, const void *what)
{
    const struct header *header = what;
    char *at = room.bytes;
    amqp_bytes_t rest = {room.len - 12, at + 12};
    int size =
        header->properties != NULL ? encode_properties(rest, header->properties) : copy_properties(rest, header->raw);

    put_u16(at, AMQP_BASIC_CLASS);
    put_u16(at + 2, 0); /* the weight, unused */
    put_u64(at + 4, header->body_size);
    return size < 0 ? size : size + 12;
}

static enum rpc_status append_body(struct rpc_text *out, uint16_t channel, struct rpc_bytes body, uint32_t frame_max)
{
    const size_t fragment_max = frame_max - FRAME_OVERHEAD;

    while (body.size > 0) {
        size_t size = body.size < fragment_max ? body.size : fragment_max;
        char *frame = rpc_text_reserve(out, size + FRAME_OVERHEAD);

        if (frame == NULL)
            return RPC_NO_MEMORY;
        memcpy(frame + FRAME_HEAD_SIZE, body.data, size);
        frame_close(out, frame, AMQP_FRAME_BODY, channel, size);
        body.data += size;
        body.size -= size;
    }
    return RPC_OK;
}

enum rpc_status frame_append_content(struct rpc_text *out, uint16_t channel, const amqp_basic_properties_t *properties,
                                     struct rpc_bytes raw, struct rpc_bytes body, uint32_t frame_max)
{
    const struct header header = {properties, raw, body.size};
    size_t before = out->size;
    enum rpc_status status = frame_append(out, AMQP_FRAME_HEADER, channel, header_payload, &header, frame_max);

    if (status == RPC_OK)
        status = append_body(out, channel, body, frame_max);
    if (status != RPC_OK)
        rpc_text_truncate(out, before);
    return status;
}

enum rpc_status frame_append_heartbeat(struct rpc_text *out)
{
    char *frame = rpc_text_reserve(out, FRAME_OVERHEAD);

    if (frame == NULL)
        return RPC_NO_MEMORY;
    frame_close(out, frame, AMQP_FRAME_HEARTBEAT, 0, 0);
    return RPC_OK;
}

/* --- what arrived, before rabbitmq-c decodes it --- */

static uint32_t get_u32(const char *at)
{
    const unsigned char *byte = (const unsigned char *)at;

    return (uint32_t)byte[0] << 24 | (uint32_t)byte[1] << 16 | (uint32_t)byte[2] << 8 | byte[3];
}

static uint16_t get_u16(const char *at)
{
    return (uint16_t)((unsigned char)at[0] << 8 | (unsigned char)at[1]);
}

struct frame_head frame_read_head(const char head[FRAME_HEAD_SIZE])
{
    return (struct frame_head){
        .type = (uint8_t)head[0], .channel = get_u16(head + 1), .payload_size = get_u32(head + 3)};
}

/* Bytes that are read one after another; `data` is NULL once they did not suffice. */
static struct rpc_bytes take(struct rpc_bytes *from, size_t size)
{
    struct rpc_bytes taken = {from->data, size};

    if (from->data == NULL || size > from->size) {
        *from = (struct rpc_bytes){NULL, 0};
        return *from;
    }
    from->data += size;
    from->size -= size;
    return taken;
}

static struct rpc_bytes take_sized(struct rpc_bytes *from, size_t digits)
{
    struct rpc_bytes size = take(from, digits);

    if (size.data == NULL)
        return size;
    return take(from, digits == 1 ? (unsigned char)size.data[0] : get_u32(size.data));
}

/* A value's size by its kind; SIZE_MAX: it brings its own. */
static size_t value_size(char kind)
{
    switch (kind) { /* the characters are AMQP's and RabbitMQ's */
    case 'V':
        return 0;
    case 't':
    case 'b':
    case 'B':
        return 1;
    case 's':
    case 'u':
        return 2;
    case 'I':
    case 'i':
    case 'f':
        return 4;
    case 'D':
        return 5;
    case 'l':
    case 'L':
    case 'd':
    case 'T':
        return 8;
    default:
        return SIZE_MAX;
    }
}

static bool items_are_deep(struct rpc_bytes items, bool has_keys, unsigned depth)
{
    while (items.size > 0) {
        struct rpc_bytes kind;
        size_t size;

        if (has_keys)
            take_sized(&items, 1);
        kind = take(&items, 1);
        size = kind.data == NULL ? 0 : value_size(kind.data[0]);
        if (size != SIZE_MAX) {
            take(&items, size);
        } else if (kind.data[0] == 'F' || kind.data[0] == 'A') {
            bool is_table = kind.data[0] == 'F';

            if (depth == FRAME_NESTING_MAX || items_are_deep(take_sized(&items, 4), is_table, depth + 1))
                return true;
        } else if (kind.data[0] == 'S' || kind.data[0] == 'x') {
            take_sized(&items, 4);
        } else {
            return false;
        }
    }
    return false;
}

#define CONTENT_FIXED_SIZE 12 /* class, weight, body size */
#define FLAG_TYPE          0x8000u
#define FLAG_ENCODING      0x4000u
#define FLAG_HEADERS       0x2000u
#define FLAG_MORE          0x0001u /* another word of flags follows */

bool frame_properties_are_deep(struct rpc_bytes properties)
{
    struct rpc_bytes word;
    unsigned flags = 0;

    for (bool is_first = true, more = true; more; is_first = false) {
        word = take(&properties, 2);
        if (word.data == NULL)
            return false;
        if (is_first)
            flags = get_u16(word.data);
        more = get_u16(word.data) & FLAG_MORE;
    }
    if (flags & FLAG_TYPE)
        take_sized(&properties, 1);
    if (flags & FLAG_ENCODING)
        take_sized(&properties, 1);
    return (flags & FLAG_HEADERS) && items_are_deep(take_sized(&properties, 4), true, 1);
}

bool frame_header_is_deep(struct rpc_bytes payload)
{
    take(&payload, CONTENT_FIXED_SIZE);
    return frame_properties_are_deep(payload);
}

enum rpc_status frame_append_bare_header(struct rpc_text *out, uint16_t channel, struct rpc_bytes payload)
{
    char *frame = rpc_text_reserve(out, CONTENT_FIXED_SIZE + 2 + FRAME_OVERHEAD);

    if (frame == NULL)
        return RPC_NO_MEMORY;
    memcpy(frame + FRAME_HEAD_SIZE, payload.data, CONTENT_FIXED_SIZE);
    put_u16(frame + FRAME_HEAD_SIZE + CONTENT_FIXED_SIZE, 0);
    frame_close(out, frame, AMQP_FRAME_HEADER, channel, CONTENT_FIXED_SIZE + 2);
    return RPC_OK;
}

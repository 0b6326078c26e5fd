#include "frames.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#define FRAME_END     0xce
#define PAYLOAD_MAX   (192u * 1024)
#define FRAME_MAX     131072
#define METHOD_PREFIX "AMQP_"
#define METHOD_SUFFIX "_METHOD"

static void bug(const char *what)
{
    fprintf(stderr, "frames: %s\n", what);
    abort();
}

void frames_append(struct frames *out, struct rpc_bytes bytes)
{
    if (bytes.size == 0)
        return;
    if (out->capacity - out->size < bytes.size) {
        out->capacity = 2 * (out->size + bytes.size);
        out->data = realloc(out->data, out->capacity);
        if (out->data == NULL)
            bug("out of memory");
    }
    memcpy(out->data + out->size, bytes.data, bytes.size);
    out->size += bytes.size;
}

void frames_consume(struct frames *out, size_t size)
{
    if (size > out->size)
        bug("more consumed than there is");
    out->size -= size;
    if (out->size > 0)
        memmove(out->data, out->data + size, out->size);
}

void frames_clear(struct frames *out)
{
    free(out->data);
    *out = (struct frames){0};
}

/* ---- Writing ----------------------------------------------------------------------------------------------------- */

static void append_number(struct frames *out, uint64_t value, unsigned bytes)
{
    while (bytes-- > 0) {
        char byte = (char)(value >> (8 * bytes));

        frames_append(out, (struct rpc_bytes){&byte, 1});
    }
}

void frames_raw(struct frames *out, uint8_t type, uint16_t channel, struct rpc_bytes payload)
{
    append_number(out, type, 1);
    append_number(out, channel, 2);
    append_number(out, payload.size, 4);
    frames_append(out, payload);
    append_number(out, FRAME_END, 1);
}

static char scratch[PAYLOAD_MAX];

void frames_method(struct frames *out, uint16_t channel, amqp_method_number_t id, void *method)
{
    struct frames payload = {0};
    int size = amqp_encode_method(id, method, (amqp_bytes_t){sizeof(scratch), scratch});

    if (size < 0)
        bug("a method cannot be encoded");
    append_number(&payload, id, 4);
    frames_append(&payload, (struct rpc_bytes){scratch, (size_t)size});
    frames_raw(out, AMQP_FRAME_METHOD, channel, frames_bytes(&payload));
    frames_clear(&payload);
}

void frames_header_raw(struct frames *out, uint16_t channel, struct rpc_bytes raw_properties, uint64_t body_size)
{
    struct frames payload = {0};

    append_number(&payload, AMQP_BASIC_CLASS, 2);
    append_number(&payload, 0, 2);
    append_number(&payload, body_size, 8);
    frames_append(&payload, raw_properties);
    frames_raw(out, AMQP_FRAME_HEADER, channel, frames_bytes(&payload));
    frames_clear(&payload);
}

void frames_header(struct frames *out, uint16_t channel, const amqp_basic_properties_t *properties, uint64_t body_size)
{
    int size = amqp_encode_properties(AMQP_BASIC_CLASS, (void *)(uintptr_t)properties,
                                      (amqp_bytes_t){sizeof(scratch), scratch});

    if (size < 0)
        bug("properties cannot be encoded");
    frames_header_raw(out, channel, (struct rpc_bytes){scratch, (size_t)size}, body_size);
}

void frames_body(struct frames *out, uint16_t channel, struct rpc_bytes body, uint32_t frame_max)
{
    while (body.size > 0) {
        size_t size = body.size < frame_max - 8 ? body.size : frame_max - 8;

        frames_raw(out, AMQP_FRAME_BODY, channel, (struct rpc_bytes){body.data, size});
        body = (struct rpc_bytes){body.data + size, body.size - size};
    }
}

void frames_content(struct frames *out, uint16_t channel, const amqp_basic_properties_t *properties,
                    struct rpc_bytes body, uint32_t frame_max)
{
    frames_header(out, channel, properties, body.size);
    frames_body(out, channel, body, frame_max);
}

void frames_heartbeat(struct frames *out)
{
    frames_raw(out, AMQP_FRAME_HEARTBEAT, 0, (struct rpc_bytes){NULL, 0});
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

void frames_reader_init(struct frames_reader *reader)
{
    reader->tuned = false;
    reader->codec = amqp_new_connection();
    if (reader->codec == NULL)
        bug("out of memory");
}

/* Between two frames alone, and not before the first: rabbitmq-c ends the program otherwise. */
static void tune(struct frames_reader *reader)
{
    if (!reader->tuned && amqp_tune_connection(reader->codec, 0, FRAME_MAX, 0) != AMQP_STATUS_OK)
        bug("out of memory");
    reader->tuned = true;
}

void frames_reader_clear(struct frames_reader *reader)
{
    if (reader->codec != NULL)
        amqp_destroy_connection(reader->codec);
    reader->codec = NULL;
}

bool frames_read(struct frames_reader *reader, struct rpc_bytes bytes, frames_fn *fn, void *arg)
{
    while (bytes.size > 0) {
        amqp_frame_t frame;
        int used = amqp_handle_input(reader->codec, frames_in(bytes), &frame);

        if (used < 0)
            return false;
        bytes = (struct rpc_bytes){bytes.data + used, bytes.size - (size_t)used};
        if (frame.frame_type != 0) {
            tune(reader);
            fn(&frame, arg);
            amqp_maybe_release_buffers(reader->codec);
        }
    }
    return true;
}

const char *frames_method_name(amqp_method_number_t id, char out[40])
{
    const char *name = amqp_method_name(id);
    char separator = '.';
    size_t size = 0;

    if (name == NULL || strlen(name) > 39)
        return "?";
    for (name += sizeof(METHOD_PREFIX) - 1; *name != '\0' && strcmp(name, METHOD_SUFFIX) != 0; name++) {
        out[size++] = *name == '_' ? separator : (char)tolower(*name);
        separator = *name == '_' ? '-' : separator;
    }
    out[size] = '\0';
    return out;
}

/*
 * frames: AMQP 0-9-1 as the broker's side of a test writes and reads it.  It shares no code with rpclib: frames are put
 * together here, methods and properties by rabbitmq-c.  Out of memory ends the test.
 */
#ifndef RPCLIB_TEST_FRAMES_H
#define RPCLIB_TEST_FRAMES_H

#include <amqp.h>
#include <amqp_framing.h>
#include <stdint.h>

#include "rpclib/bytes.h"

/* Bytes in the order in which they will travel; zero it to begin with. */
struct frames {
    char *data;
    size_t size, capacity;
};

void frames_append(struct frames *out, struct rpc_bytes bytes);
void frames_consume(struct frames *out, size_t size);
void frames_clear(struct frames *out);

/* A frame of any type, sound or not. */
void frames_raw(struct frames *out, uint8_t type, uint16_t channel, struct rpc_bytes payload);
void frames_method(struct frames *out, uint16_t channel, amqp_method_number_t id, void *method);
void frames_header(struct frames *out, uint16_t channel, const amqp_basic_properties_t *properties, uint64_t body_size);
/* The same with properties that are encoded already. */
void frames_header_raw(struct frames *out, uint16_t channel, struct rpc_bytes raw_properties, uint64_t body_size);
/* Header and body, this one in frames of at most `frame_max` bytes. */
void frames_content(struct frames *out, uint16_t channel, const amqp_basic_properties_t *properties,
                    struct rpc_bytes body, uint32_t frame_max);
void frames_body(struct frames *out, uint16_t channel, struct rpc_bytes body, uint32_t frame_max);
void frames_heartbeat(struct frames *out);

static inline struct rpc_bytes frames_bytes(const struct frames *frames)
{
    return (struct rpc_bytes){frames->data, frames->size};
}

static inline amqp_bytes_t frames_in(struct rpc_bytes bytes)
{
    return (amqp_bytes_t){.len = bytes.size, .bytes = (void *)(uintptr_t)bytes.data};
}

static inline struct rpc_bytes frames_out(amqp_bytes_t bytes)
{
    return (struct rpc_bytes){.data = bytes.bytes, .size = bytes.len};
}

/* Takes a stream apart. */
struct frames_reader {
    amqp_connection_state_t codec;
    bool tuned;
};

/* One frame; all of it lent until the callback returns.  The protocol header has the type 'A'. */
typedef void frames_fn(const amqp_frame_t *frame, void *arg);

void frames_reader_init(struct frames_reader *reader);
void frames_reader_clear(struct frames_reader *reader);

/* Returns false when the bytes are no AMQP. */
bool frames_read(struct frames_reader *reader, struct rpc_bytes bytes, frames_fn *fn, void *arg);

/* "basic.ack" for AMQP_BASIC_ACK_METHOD. */
const char *frames_method_name(amqp_method_number_t id, char out[40]);

#endif

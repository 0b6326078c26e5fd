/*
 * Frames of AMQP 0-9-1, appended to a text; rabbitmq-c encodes what is inside them.
 *
 * Each function appends whole frames or, with a status other than RPC_OK, nothing: RPC_NO_MEMORY, or RPC_TOO_LARGE when
 * it does not fit into frame_max.
 */
#ifndef RPCLIB_SRC_AMQP_FRAME_H
#define RPCLIB_SRC_AMQP_FRAME_H

#include <amqp.h>
#include <amqp_framing.h>
#include <stdint.h>

#include "rpclib/status.h"
#include "rpclib/text.h"

#define FRAME_OVERHEAD    8  /* type, channel, size; end mark */
#define FRAME_HEAD_SIZE   7  /* of these, what comes first */
#define FRAME_NESTING_MAX 32 /* tables and arrays within each other; Nameko's headers have one */

/* A frame whose payload is no larger cannot be nested deeper than the stack bears, so nobody needs to look. */
#define FRAME_NESTING_UNCHECKED 2048

enum rpc_status frame_append_method(struct rpc_text *out, uint16_t channel, amqp_method_number_t id, void *method,
                                    uint32_t frame_max);

/* A message's properties as its header frame will hold them: for frame_append_content(), or for a batch. */
enum rpc_status frame_append_properties(struct rpc_text *out, const amqp_basic_properties_t *properties,
                                        uint32_t size_max);

/* A message's header and body, behind its basic.publish.  The properties are `raw` ones where `properties` is NULL. */
enum rpc_status frame_append_content(struct rpc_text *out, uint16_t channel, const amqp_basic_properties_t *properties,
                                     struct rpc_bytes raw, struct rpc_bytes body, uint32_t frame_max);

enum rpc_status frame_append_heartbeat(struct rpc_text *out);

/* What a frame's first FRAME_HEAD_SIZE bytes say. */
struct frame_head {
    uint8_t type;
    uint16_t channel;
    uint32_t payload_size;
};
struct frame_head frame_read_head(const char head[FRAME_HEAD_SIZE]);

/*
 * Whether the properties in a content header's payload nest tables and arrays more than FRAME_NESTING_MAX deep: rabbitmq-c
 * decodes them by recursion.  What cannot be read ends the search, as it will end the decoding.
 */
bool frame_header_is_deep(struct rpc_bytes payload);
/* The same of encoded properties alone, as a batch holds them. */
bool frame_properties_are_deep(struct rpc_bytes properties);

/* The same content header with no properties at all; RPC_OK or RPC_NO_MEMORY. */
enum rpc_status frame_append_bare_header(struct rpc_text *out, uint16_t channel, struct rpc_bytes payload);

static inline amqp_bytes_t frame_bytes(struct rpc_bytes bytes)
{
    return (amqp_bytes_t){.len = bytes.size, .bytes = (void *)(uintptr_t)bytes.data};
}

static inline struct rpc_bytes frame_text(amqp_bytes_t bytes)
{
    return (struct rpc_bytes){.data = bytes.bytes, .size = bytes.len};
}

/* A table's entry that is text; both are lent. */
static inline amqp_table_entry_t frame_text_entry(const char *key, struct rpc_bytes text)
{
    return (amqp_table_entry_t){.key = amqp_cstring_bytes(key),
                                .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = frame_bytes(text)}};
}

/* A property that is text; empty when the message has none: FRAME_PROPERTY(message->properties, REPLY_TO, reply_to). */
#define FRAME_PROPERTY(properties, FLAG, field)                                                                  \
    ((properties) != NULL && ((properties)->_flags & AMQP_BASIC_##FLAG##_FLAG) ? frame_text((properties)->field) \
                                                                               : RPC_BYTES(""))

#endif

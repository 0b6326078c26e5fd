/*
 * batch: several messages in one.
 *
 * A broker's work is by the message, so the calls of one turn to one service share a message, and so do the answers to
 * them, where both ends are rpclib (rpclib/README.md, "Batches").  To Nameko a batch is a sound message: a body that is
 * a JSON array of the messages' bodies, and one header, which tells where each of them begins and what belongs to it:
 *
 *     key size (1 byte), key, properties size (2), properties as AMQP encodes them, body size (4);   big-endian, repeated
 *
 * The key is a request's routing key, an answer's correlation id.  Pure: values in, bytes out, and back.
 */
#ifndef RPCLIB_SRC_BATCH_H
#define RPCLIB_SRC_BATCH_H

#include "amqp/frame.h"
#include "amqp/mq.h"
#include "rpclib/text.h"

#define BATCH_MESSAGES_MAX 64
#define BATCH_SIZE_MAX     65536 /* of the bodies together; larger messages go alone */

#define BATCH_METHOD "rpclib_batch" /* a batch of requests is sent to <service>.rpclib_batch */
#define BATCH_APP_ID "rpclib-1"     /* the app_id of messages whose sender takes batches */

struct batch {
    struct rpc_text index;
    struct rpc_text bodies;
    unsigned count;
};

struct batch_entry {
    struct rpc_bytes key, properties, body;
};

/* False, with nothing added, when there is no room in it, or no memory: the message goes alone then. */
bool batch_add(struct batch *batch, const struct batch_entry *entry);
/* Empty again, for the next one; its memory is kept. */
void batch_reset(struct batch *batch);
void batch_clear(struct batch *batch);

/* The header and the body of the message; lent until the batch changes.  There must be an entry. */
amqp_table_entry_t batch_header(const struct batch *batch);
struct rpc_bytes batch_body(const struct batch *batch);

/* Reads the entries one by one; they are lent as the message, or the batch, is. */
struct batch_reader {
    struct rpc_bytes index, bodies;
};

struct batch_reader batch_read(const struct batch *batch);
/* False: it is an ordinary message. */
bool batch_open(struct batch_reader *out, const struct mq_message *message);
/* False at the end, and where it is not sound. */
bool batch_next(struct batch_reader *reader, struct batch_entry *out);
/* Whether all of it can be read: ask before the first entry is acted upon. */
bool batch_is_sound(struct batch_reader reader);

/* Tell in a message's properties that its sender takes batches. */
static inline void batch_tell_taken(amqp_basic_properties_t *properties)
{
    properties->_flags |= AMQP_BASIC_APP_ID_FLAG;
    properties->app_id = frame_bytes(RPC_BYTES(BATCH_APP_ID));
}
/* Whether the sender of a message takes batches. */
bool batch_sender_takes(const amqp_basic_properties_t *properties);

#endif

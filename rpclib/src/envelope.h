/* envelope: what a message says beside its body.  Pure: no I/O, no clock. */
#ifndef RPCLIB_SRC_ENVELOPE_H
#define RPCLIB_SRC_ENVELOPE_H

#include "amqp/mq.h"

/* The fields of a message that outlive its delivery, copied behind the struct that holds them. */
struct envelope {
    struct rpc_bytes reply_to;
    struct rpc_bytes raw_properties;
    const char *correlation_id; /* ended by NUL */
    const char *content_type;   /* likewise */
    bool redelivered;
    bool takes_batches; /* its sender does */
};

/* How many bytes envelope_copy() needs, and the copy into them.  The message is not `oversized`. */
size_t envelope_size(const struct mq_message *message);
void envelope_copy(struct envelope *out, char *room, const struct mq_delivery *delivery);

/* Copy bytes to `*room` and step behind them. */
struct rpc_bytes envelope_keep(char **room, struct rpc_bytes bytes);

/* Why the message cannot even be read: too large, or not JSON by its content type; NULL when it can. */
const char *message_unreadable(const struct mq_message *message);

#endif

/* What the library itself needs of rpc_context: from a message's headers and into them. */
#ifndef RPCLIB_SRC_CONTEXT_H
#define RPCLIB_SRC_CONTEXT_H

#include <amqp.h>

#include "rpclib/context.h"

/*
 * The context of a request or event that arrived with these encoded properties: its headers, with this call's own id on
 * its call stack.  Properties that cannot be decoded are taken as none.  NULL when out of memory, whatever it is for: what
 * a header says may matter to what is done, so there is no context with a part of them.
 */
struct rpc_context *context_new_incoming(struct rpc_bytes raw_properties, const char *service, const char *method);

/* As headers of a message.  Lent until the context changes or goes; NULL gives an empty table. */
amqp_table_t context_headers(const struct rpc_context *context);

#endif

/* trace: whether what a client says of its trace can be passed on (W3C Trace Context, level 1, section 3).  Pure. */
#ifndef KORE_GATEWAY_TRACE_H
#define KORE_GATEWAY_TRACE_H

#include <rpclib/bytes.h>

#define TRACE_SIZE_MAX 512 /* bytes of a traceparent of a later version, and of a tracestate */

/* A traceparent of version 00, or of a later one, which may say more behind what we know. */
bool trace_parent_is_sound(struct rpc_bytes text);

/* A tracestate, which is passed on unread: printable ASCII, at least one byte. */
bool trace_state_is_sound(struct rpc_bytes text);

#endif

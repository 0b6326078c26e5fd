/*
 * rpc_context: what travels with a request besides its body (Nameko's context data, "nameko.*" headers).
 *
 * A service gets one with each request and passes it to every call and event that the request causes; that is how user,
 * language, trace and call stack follow the work.  A gateway makes one for each HTTP request.  Headers that nobody here
 * knows are passed on, "x" as "nameko.x"; null values are dropped (Nameko 2.14 and 3.0 do the same).
 *
 * A context has all of it or there is none: where memory ends the caller is told, and refuses the work.  To go on without a
 * header would lose a trace, or an idempotency key, and nobody would know.
 *
 * It has bounds, though, far above what Nameko sends: of a message with more than RPC_CONTEXT_VALUES_MAX headers, those that
 * stand first are kept and the call stack wherever it stands; the others are dropped, and nothing is logged of it.  So is a
 * header whose key has more than 255 bytes with its prefix, AMQP's bound.
 */
#ifndef RPCLIB_CONTEXT_H
#define RPCLIB_CONTEXT_H

#include <stddef.h>

#include "rpclib/bytes.h"

#define RPC_CALL_ID_STACK_MAX  11 /* Nameko's default: ten parents and the call itself */
#define RPC_CONTEXT_VALUES_MAX 64 /* the call stack is one */

struct rpc_context;

/*
 * An empty context for work that begins here, e.g. an HTTP request.  Its call stack is `<service>.<method>.<uuid>`.
 * NULL when out of memory.
 */
struct rpc_context *rpc_context_new(const char *service, const char *method);
void rpc_context_free(struct rpc_context *context); /* NULL is fine */

/*
 * Set a text value, e.g. "traceparent" or "idempotency_key" (it travels as "nameko.idempotency_key"); a value that is
 * there is replaced.  Returns false, with nothing changed, when out of memory, when it holds RPC_CONTEXT_VALUES_MAX, or when
 * the key is too long.
 */
bool rpc_context_set(struct rpc_context *context, const char *key, struct rpc_bytes value);

/*
 * The text value of `key`, without its prefix; {NULL, 0} when it is absent or no text.  Lent: until the context changes
 * or goes.  "traceparent" finds a bare header too.
 */
struct rpc_bytes rpc_context_get(const struct rpc_context *context, const char *key);

/*
 * The whole context as a JSON object, and back: to store it with an event that is published later.  The text is malloc'd
 * (free() it), `size` may be NULL.  Header values that JSON cannot hold are left out.  NULL when out of memory, for whichever
 * of them, or, reading, when the text is no JSON object.
 */
char *rpc_context_to_json(const struct rpc_context *context, size_t *size);
struct rpc_context *rpc_context_from_json(struct rpc_bytes text);

#endif

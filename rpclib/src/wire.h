/*
 * wire: Nameko's messages: envelope, error object, names.  Pure: values in, bytes out, and back.
 *
 * Source of every rule: Nameko 2.14.1 and 3.0.0rc (nameko/rpc.py, messaging.py, events.py, exceptions.py).
 */
#ifndef RPCLIB_SRC_WIRE_H
#define RPCLIB_SRC_WIRE_H

#include <jansson.h>

#include "amqp/frame.h"
#include "rpclib/client.h"
#include "rpclib/error.h"
#include "rpclib/service.h"
#include "rpclib/text.h"

#define WIRE_EXCHANGE     "nameko-rpc"
#define WIRE_CONTENT_TYPE "application/json"
#define WIRE_ENCODING     "utf-8"
/* delivery_mode: a caller who waits has no use for a copy on disk, an event has. */
#define WIRE_TRANSIENT    1
#define WIRE_PERSISTENT   2

#define WIRE_REASON_SIZE 512

/* --- properties --- */

/* What every message of Nameko's says: JSON in UTF-8, of no priority.  The rest is its sender's to add. */
static inline void wire_properties(amqp_basic_properties_t *out, uint8_t delivery_mode)
{
    *out = (amqp_basic_properties_t){
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
                  AMQP_BASIC_PRIORITY_FLAG,
        .content_type = frame_bytes(RPC_BYTES(WIRE_CONTENT_TYPE)),
        .content_encoding = frame_bytes(RPC_BYTES(WIRE_ENCODING)),
        .delivery_mode = delivery_mode,
    };
}

/* No headers are no property at all. */
static inline void wire_properties_add_headers(amqp_basic_properties_t *properties, amqp_table_t headers)
{
    if (headers.num_entries == 0)
        return;
    properties->_flags |= AMQP_BASIC_HEADERS_FLAG;
    properties->headers = headers;
}

/* --- bodies; false, with the text as it was, when out of memory --- */

bool wire_request(struct rpc_text *out, struct rpc_bytes args, struct rpc_bytes kwargs);
bool wire_result(struct rpc_text *out, struct rpc_bytes result);
bool wire_error(struct rpc_text *out, const struct rpc_error *error);

/* A request's body taken apart.  wire_call_clear() it in any case. */
struct wire_call {
    json_t *body;   /* owned */
    json_t *args;   /* lent from body: an array */
    json_t *kwargs; /* an object */
};

enum wire_call_status {
    WIRE_CALL_OK,
    WIRE_CALL_NOT_JSON,  /* cannot be answered usefully: `reason` for the log */
    WIRE_CALL_MALFORMED, /* JSON, but no request: answer MalformedRequest */
    WIRE_CALL_NO_MEMORY, /* nothing is known of it */
};

enum wire_call_status wire_call_parse(struct wire_call *out, struct rpc_bytes body, char reason[WIRE_REASON_SIZE]);
void wire_call_clear(struct wire_call *call);

/* An answer's body taken apart.  wire_answer_clear() it in any case. */
struct wire_answer {
    struct rpc_reply reply; /* lent from the body, and from `error` and `exc_args` below */
    json_t *error;
    char *exc_args;
};

/* RPC_OK, RPC_REMOTE_ERROR, RPC_BAD_REPLY; or RPC_LOST where there was no memory to read an error. */
enum rpc_status wire_answer_parse(struct wire_answer *out, struct rpc_bytes body);
void wire_answer_clear(struct wire_answer *answer);

/*
 * Whether a message's content type is JSON: application/json, with parameters or without; a missing one passes, since the
 * body will tell.
 */
bool wire_is_json(struct rpc_bytes content_type);

/*
 * Bind a request's arguments to a method's parameters: out[i] is the value of the i-th parameter, lent from the call, or
 * NULL for an optional one that is not there.  On failure `reason` is what Python says of it.
 */
bool wire_bind(const struct rpc_method *method, const struct wire_call *call, json_t *out[RPC_PARAMETERS_MAX],
               char reason[WIRE_REASON_SIZE]);

/* --- names; false when one does not fit into AMQP's 255 bytes --- */

#define WIRE_NAME_SIZE   256
#define WIRE_KEY_SIZE    (2 * RPC_NAME_SIZE_MAX + 1)
#define WIRE_NUMBER_SIZE 12

/* A request's routing key `<service>.<method>`; its size, without NUL, or 0 when a name is longer than RPC_NAME_SIZE_MAX. */
size_t wire_request_key(char out[WIRE_KEY_SIZE], const char *service, const char *method);
/* The `expiration` of a request whose caller waits so long, 0 or more; its size, without NUL. */
size_t wire_expiration(char out[WIRE_NUMBER_SIZE], int timeout_ms);

bool wire_rpc_queue(char out[WIRE_NAME_SIZE], const char *service);
bool wire_event_exchange(char out[WIRE_NAME_SIZE], const char *source);
bool wire_event_queue(char out[WIRE_NAME_SIZE], const struct rpc_event_handler *handler, const char *service,
                      const char *identifier);

#endif

/* complaint: what is wrong with a request's fields, as one line for people.  Pure. */
#ifndef KORE_GATEWAY_COMPLAINT_H
#define KORE_GATEWAY_COMPLAINT_H

#include <jansson.h>

#include <rpclib/text.h>

#define COMPLAINT_SIZE_MAX 4096 /* bytes; what goes beyond is cut, and says so */

/*
 * Append what marshmallow would say: {"title": ["Not a valid string."], "order_details": {"0": {"price": [...]}}} becomes
 * "title: Not a valid string. order_details.0.price: ...".  Whatever else it may hold is skipped.
 */
void complaint_append(struct rpc_text *text, const json_t *messages);

#endif

/*
 * product_text: a product as a service printed it, checked before it is handed on.  Pure.
 *
 * No product is built: the text is walked through once, and goes on as it came.  What a service says of a product besides its
 * five fields stays inside, whatever service that is and whatever it will learn to say.
 */
#ifndef KORE_GATEWAY_PRODUCT_TEXT_H
#define KORE_GATEWAY_PRODUCT_TEXT_H

#include "product.h"
#include <rpclib/text.h>

struct product_text { /* lends from the text */
    struct rpc_bytes text;
    struct rpc_bytes fields[PRODUCT_FIELDS]; /* their values as they stand */
    bool says_more;                          /* than these */
};

/*
 * Read the text of a product, which must be sound JSON.  False when it is none: a field is missing, said twice, or of another
 * type; an integer does not fit 64 bits.
 */
bool product_text_open(struct product_text *out, struct rpc_bytes text);

/* Its id: a JSON string, quotes included. */
static inline struct rpc_bytes product_text_id(const struct product_text *product)
{
    return product->fields[PRODUCT_ID];
}

/* Append what a client gets of it; never more bytes than it came with. */
void product_text_append(struct rpc_text *out, const struct product_text *product);

#endif

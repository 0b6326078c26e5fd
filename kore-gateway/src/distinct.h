/* distinct: the different ones among some texts, in the order in which they first came.  Pure; lends the texts. */
#ifndef KORE_GATEWAY_DISTINCT_H
#define KORE_GATEWAY_DISTINCT_H

#include <rpclib/bytes.h>
#include <stdint.h>

struct distinct {
    struct rpc_bytes *items; /* owned */
    size_t count;
    uint32_t *slots; /* owned; hash table of indices + 1; NULL while there are few */
    size_t slots_mask;
};

/* For up to `count_max` texts.  False when out of memory. */
bool distinct_init(struct distinct *distinct, size_t count_max);
/* The index of the text among the different ones; of a new one, its own. */
size_t distinct_add(struct distinct *distinct, struct rpc_bytes text);
void distinct_clear(struct distinct *distinct);

#endif

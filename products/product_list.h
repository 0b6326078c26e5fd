/*
 * product_list: collects products into the text of one JSON array.  Pure.
 *
 * SCAN may name a key twice, so it also knows which keys it has seen.  Keys and text are bounded, each by `size_max`.
 */
#ifndef PRODUCTS_PRODUCT_LIST_H
#define PRODUCTS_PRODUCT_LIST_H

#include <stddef.h>
#include <stdint.h>

#include "product.h"
#include "rpclib/text.h"

enum product_list_result {
    PRODUCT_LIST_OK,
    PRODUCT_LIST_SEEN,      /* the key was there before */
    PRODUCT_LIST_DAMAGED,   /* what was to be added is no product; it is left out */
    PRODUCT_LIST_TOO_MANY,  /* more than count_max keys */
    PRODUCT_LIST_TOO_LARGE, /* keys or text beyond size_max */
    PRODUCT_LIST_NO_MEMORY,
};

struct product_list {
    struct rpc_text text;            /* owned */
    struct rpc_text keys;            /* owned; one behind the other */
    struct product_list_slot *slots; /* owned; a hash table of the keys */
    struct rpc_text largest_id;      /* owned; of the product whose text is the longest */
    size_t largest_size;             /* of that text; 0: there is none */
    size_t slots_count;              /* a power of two */
    size_t count;                    /* keys */
    size_t count_max, size_max;
    uint64_t seed; /* of the hash, so that nobody can choose ids that all meet in one slot */
};

void product_list_init(struct product_list *list, size_t count_max, size_t size_max);

/* Remember a key.  On PRODUCT_LIST_OK *offset is where it lies in `keys`. */
enum product_list_result product_list_see(struct product_list *list, struct rpc_bytes key, size_t *offset);

enum product_list_result product_list_add(struct product_list *list, const struct rpc_bytes fields[PRODUCT_FIELDS]);

/* Finish the array; its text is lent until _clear().  {NULL, 0}: out of memory. */
struct rpc_bytes product_list_finish(struct product_list *list);

void product_list_clear(struct product_list *list);

#endif

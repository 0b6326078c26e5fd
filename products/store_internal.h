/* store_internal: what the parts of the store share. */
#ifndef PRODUCTS_STORE_INTERNAL_H
#define PRODUCTS_STORE_INTERNAL_H

#include <openssl/evp.h>

#include "store.h"

#define KEY_PREFIX       "products:"
#define DECIMAL_SIZE     24 /* an int64 and its NUL */
#define SCRIPT_HASH_SIZE 41 /* SHA-1 in hex, and NUL */

struct product_store {
    struct redis_link *link; /* owned */
    struct rpc_loop *loop;
    struct rpc_text key; /* of the command that is being put together */
    EVP_MD_CTX *hash;    /* owned */
    char applied_ttl_s[DECIMAL_SIZE];
    char script_hash[SCRIPT_HASH_SIZE];
    char refusal[REDIS_REASON_SIZE]; /* Redis' last */
    size_t lists;                    /* under way */
};

/* Of the script that applies an order: by its hash the server runs what it has seen before. */
void store_apply_script_hash(char out[SCRIPT_HASH_SIZE]);

#endif

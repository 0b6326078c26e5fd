#include "store_words.h"

#include <inttypes.h>
#include <stdio.h>

#include "store_reply.h"

#define KEY_KEEP_SIZE (64u * 1024) /* memory that is kept for the next command's key */

struct rpc_bytes words_decimal(char out[DECIMAL_SIZE], int64_t value)
{
    return (struct rpc_bytes){.data = out, .size = (size_t)snprintf(out, DECIMAL_SIZE, "%" PRId64, value)};
}

bool words_begin(struct words *words, struct product_store *store, struct rpc_bytes command, struct rpc_bytes id)
{
    words->count = 0;
    rpc_text_reset(&store->key, KEY_KEEP_SIZE);
    if (!rpc_text_append(&store->key, RPC_BYTES(KEY_PREFIX)) || !rpc_text_append(&store->key, id))
        return false;
    words_add(words, command);
    words_add(words, rpc_text_bytes(&store->key));
    return true;
}

void words_add_field_names(struct words *words)
{
    for (int field = 0; field < PRODUCT_FIELDS; field++)
        words_add(words, rpc_bytes_of(product_field_names[field]));
}

enum product_store_status words_send(const struct words *words, struct product_store *store,
                                     struct redis_command *command, redis_command_fn *done)
{
    const char *word[WORDS_MAX];

    memcpy(word, words->word, sizeof(word));
    return store_sent_status(redis_link_send(store->link, command, words->count, word, words->size, done));
}

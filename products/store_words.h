/* store_words: a command for Redis while it is put together. */
#ifndef PRODUCTS_STORE_WORDS_H
#define PRODUCTS_STORE_WORDS_H

#include <assert.h>

#include "store_internal.h"

#define WORDS_MAX 18

/* A command while it is put together.  Words are lent until it is sent. */
struct words {
    int count;
    const char *word[WORDS_MAX];
    size_t size[WORDS_MAX];
};

static inline void words_add(struct words *words, struct rpc_bytes word)
{
    assert(words->count < WORDS_MAX);
    words->word[words->count] = word.size > 0 ? word.data : "";
    words->size[words->count] = word.size;
    words->count++;
}

/* `<command> products:<id>`; the key is lent until the next call.  False when out of memory. */
bool words_begin(struct words *words, struct product_store *store, struct rpc_bytes command, struct rpc_bytes id);
void words_add_field_names(struct words *words);
enum product_store_status words_send(const struct words *words, struct product_store *store,
                                     struct redis_command *command, redis_command_fn *done);

/* The value as text; lent by `out`. */
struct rpc_bytes words_decimal(char out[DECIMAL_SIZE], int64_t value);

#endif

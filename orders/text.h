/*
 * text: bytes being written, one after another.  Writers need not check each step: a text that ran out of memory stays
 * failed, and whoever wanted it asks once, at the end.
 */
#ifndef ORDERS_TEXT_H
#define ORDERS_TEXT_H

#include <stdint.h>

#include "rpclib/bytes.h"

struct text {
    char *data; /* no NUL at its end */
    size_t size, capacity;
    bool failed;
};

void text_append(struct text *text, struct rpc_bytes bytes);
void text_append_integer(struct text *text, int64_t value);
/* `bytes` of UTF-8 as a JSON string, quotes included. */
void text_append_json_string(struct text *text, struct rpc_bytes bytes);

/* Room for `size` bytes at the end, which count as written; NULL when it failed.  Lent until the next call. */
char *text_extend(struct text *text, size_t size);

static inline struct rpc_bytes text_bytes(const struct text *text)
{
    return (struct rpc_bytes){.data = text->data, .size = text->size};
}

/* Empty it for the next use; it keeps its memory, unless that is more than `keep_size`. */
void text_reset(struct text *text, size_t keep_size);
void text_clear(struct text *text);

#endif

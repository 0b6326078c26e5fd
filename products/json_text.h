/*
 * json_text: JSON text printed straight into memory that is kept for the next time: what the hot path answers with.
 *
 * Pure; no jansson.  Every function returns false with the text as it was when the input cannot be printed or memory
 * runs out; which of the two, json_text_string() tells by json_text_is_sound().
 */
#ifndef PRODUCTS_JSON_TEXT_H
#define PRODUCTS_JSON_TEXT_H

#include <stdint.h>

#include "rpclib/bytes.h"

#define JSON_TEXT_KEEP_SIZE (64u * 1024) /* json_text_reset() gives back what is larger */

struct json_text {
    char *data; /* owned; not ended by NUL */
    size_t size, capacity;
};

/* Whether the bytes can stand in strict JSON as a string: UTF-8 (RFC 3629) without NUL. */
bool json_text_is_sound(struct rpc_bytes text);

bool json_text_append(struct json_text *text, struct rpc_bytes bytes);
/* Quoted and escaped; refused unless json_text_is_sound(). */
bool json_text_string(struct json_text *text, struct rpc_bytes value);
bool json_text_integer(struct json_text *text, int64_t value);

static inline struct rpc_bytes json_text_bytes(const struct json_text *text)
{
    return (struct rpc_bytes){.data = text->data, .size = text->size};
}

/* Drop all but the first `size` bytes. */
static inline void json_text_cut(struct json_text *text, size_t size)
{
    text->size = size;
}

void json_text_reset(struct json_text *text); /* empty; keeps up to JSON_TEXT_KEEP_SIZE */
void json_text_clear(struct json_text *text); /* gives back all */

#endif

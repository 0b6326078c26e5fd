/*
 * rpc_bytes: a run of bytes that belongs to somebody else.
 *
 * Every function that takes one copies what it needs before it returns; every callback that hands one out lends it until
 * the callback returns.  The bytes need not end in NUL and may hold NUL.
 */
#ifndef RPCLIB_BYTES_H
#define RPCLIB_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct rpc_bytes {
    const char *data; /* may be NULL when size is 0 */
    size_t size;
};

/* The bytes of a string without its NUL; NULL is taken as "". */
static inline struct rpc_bytes rpc_bytes_of(const char *text)
{
    return (struct rpc_bytes){.data = text, .size = text == NULL ? 0 : strlen(text)};
}

/* Whether the bytes are exactly those of `text`. */
static inline bool rpc_bytes_equal(struct rpc_bytes bytes, const char *text)
{
    size_t size = strlen(text);

    return bytes.size == size && (size == 0 || memcmp(bytes.data, text, size) == 0);
}

/* A string literal as bytes, without strlen(). */
#define RPC_BYTES(literal) ((struct rpc_bytes){.data = "" literal, .size = sizeof(literal) - 1})

#endif

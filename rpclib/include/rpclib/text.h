/*
 * rpc_text: bytes that are written one behind the other, into memory that is kept for the next time: what the hot paths
 * print by hand, and what waits to be sent.
 *
 * The struct is its user's; all zero is an empty text, and rpc_text_clear() gives back its memory.  `data`, `size` and
 * `failed` may be read at any time, and `data` is lent until the next call that appends.  No NUL stands at the end.
 *
 * It grows by doubling, up to half of the address space: the bound that counts is set by whoever appends.
 *
 * Out of memory, a call returns false (or NULL) with nothing appended, and the text is `failed` until it is reset or
 * cleared.  So a writer may look at each step and go on, or write to the end and ask once: a text that failed has gaps,
 * and is not to be used then.
 *
 * Pure: no globals, no I/O.
 */
#ifndef RPCLIB_TEXT_H
#define RPCLIB_TEXT_H

#include <stdint.h>

#include "rpclib/bytes.h"

#define RPC_TEXT_KEEP_SIZE (256u * 1024) /* rpc_text_consume() gives back what is larger, once it is empty */

struct rpc_text {
    char *data; /* owned */
    size_t size;
    bool failed;
    size_t capacity, consumed; /* its own: room from `data` on, and what lies before it */
};

/* --- appending --- */

bool rpc_text_append(struct rpc_text *text, struct rpc_bytes bytes);

/* In decimal digits. */
bool rpc_text_append_integer(struct rpc_text *text, int64_t value);

/*
 * As a JSON string with its quotes.  '"' and '\' get a backslash, the bytes below U+0020 are written as \u001f, all others
 * as they are; so it is JSON where `bytes` are UTF-8: rpc_utf8_check() tells.  The spelling is for good: hashes of such
 * texts are stored (orders, what a request asks for).
 */
bool rpc_text_append_json_string(struct rpc_text *text, struct rpc_bytes bytes);

/* Room for `size` bytes at the end, to be written by the caller; they count once they are committed.  NULL: no memory. */
char *rpc_text_reserve(struct rpc_text *text, size_t size);
/* The first `size` reserved bytes were written. */
void rpc_text_commit(struct rpc_text *text, size_t size);

/* --- using --- */

/* All of it; lent until the next call that changes the text. */
static inline struct rpc_bytes rpc_text_bytes(const struct rpc_text *text)
{
    return (struct rpc_bytes){.data = text->data, .size = text->size};
}

/* Drop all but the first `size` bytes: takes back what was appended since. */
void rpc_text_truncate(struct rpc_text *text, size_t size);

/* Drop the first `size` bytes, which were sent; cheap, nothing moves.  When these are all, it is reset. */
void rpc_text_consume(struct rpc_text *text, size_t size);

/* Empty it for the next use; its memory is kept, unless that is more than `keep_size`. */
void rpc_text_reset(struct rpc_text *text, size_t keep_size);

void rpc_text_clear(struct rpc_text *text);

#endif

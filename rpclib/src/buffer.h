/*
 * buffer: bytes appended at one end and taken at the other.  It grows as needed and keeps its memory; whoever appends
 * bounds it.
 */
#ifndef RPCLIB_SRC_BUFFER_H
#define RPCLIB_SRC_BUFFER_H

#include "rpclib/bytes.h"

#define BUFFER_KEEP_SIZE (256u * 1024) /* an empty buffer larger than this gives its memory back */

struct buffer {
    char *data;
    size_t start, end, capacity; /* the bytes are data[start..end) */
};

/* Room for `size` more bytes at the end; NULL when out of memory.  Lent until the next call; then buffer_grown(). */
char *buffer_reserve(struct buffer *buffer, size_t size);
/* The first `size` reserved bytes were written. */
void buffer_grown(struct buffer *buffer, size_t size);
/* False, with nothing appended, when out of memory. */
bool buffer_append(struct buffer *buffer, struct rpc_bytes bytes);

static inline size_t buffer_size(const struct buffer *buffer)
{
    return buffer->end - buffer->start;
}

/* All the bytes; lent until the next call that changes the buffer. */
struct rpc_bytes buffer_bytes(const struct buffer *buffer);
/* Drop `size` bytes at the start. */
void buffer_consume(struct buffer *buffer, size_t size);
/* Drop all but the first `size` bytes: takes back what was appended since. */
void buffer_truncate(struct buffer *buffer, size_t size);
void buffer_clear(struct buffer *buffer);

#endif

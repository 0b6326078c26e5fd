#include "buffer.h"

#include <assert.h>
#include <stdlib.h>

#define BUFFER_FIRST_SIZE 4096u

char *buffer_reserve(struct buffer *buffer, size_t size)
{
    size_t used = buffer_size(buffer), capacity = buffer->capacity;
    char *data;

    if (buffer->capacity - buffer->end >= size)
        return buffer->data + buffer->end;
    if (buffer->start > 0) { /* moving is cheap: the output is nearly always empty when it is written */
        memmove(buffer->data, buffer->data + buffer->start, used);
        buffer->start = 0;
        buffer->end = used;
        if (buffer->capacity - used >= size)
            return buffer->data + used;
    }
    if (capacity == 0)
        capacity = BUFFER_FIRST_SIZE;
    while (capacity - used < size)
        capacity *= 2;
    data = realloc(buffer->data, capacity);
    if (data == NULL)
        return NULL;
    buffer->data = data;
    buffer->capacity = capacity;
    return data + used;
}

void buffer_grown(struct buffer *buffer, size_t size)
{
    assert(buffer->capacity - buffer->end >= size);
    buffer->end += size;
}

bool buffer_append(struct buffer *buffer, struct rpc_bytes bytes)
{
    char *room;

    if (bytes.size == 0)
        return true;
    room = buffer_reserve(buffer, bytes.size);
    if (room == NULL)
        return false;
    memcpy(room, bytes.data, bytes.size);
    buffer->end += bytes.size;
    return true;
}

struct rpc_bytes buffer_bytes(const struct buffer *buffer)
{
    if (buffer->data == NULL)
        return (struct rpc_bytes){NULL, 0};
    return (struct rpc_bytes){buffer->data + buffer->start, buffer_size(buffer)};
}

void buffer_consume(struct buffer *buffer, size_t size)
{
    assert(size <= buffer_size(buffer));
    buffer->start += size;
    if (buffer->start < buffer->end)
        return;
    if (buffer->capacity > BUFFER_KEEP_SIZE)
        buffer_clear(buffer);
    else
        buffer->start = buffer->end = 0;
}

void buffer_truncate(struct buffer *buffer, size_t size)
{
    assert(size <= buffer_size(buffer));
    buffer->end = buffer->start + size;
}

void buffer_clear(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

#include "text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define CAPACITY_MIN 256

char *text_extend(struct text *text, size_t size)
{
    size_t capacity = text->capacity < CAPACITY_MIN ? CAPACITY_MIN : text->capacity;
    char *grown;

    if (text->failed || size > SIZE_MAX / 2 - text->size)
        goto failed;
    if (text->data == NULL || text->size + size > text->capacity) {
        while (capacity < text->size + size)
            capacity *= 2;
        grown = realloc(text->data, capacity);
        if (grown == NULL)
            goto failed;
        text->data = grown;
        text->capacity = capacity;
    }
    text->size += size;
    return text->data + text->size - size;
failed:
    text->failed = true;
    return NULL;
}

void text_append(struct text *text, struct rpc_bytes bytes)
{
    char *room = text_extend(text, bytes.size);

    if (room != NULL && bytes.size > 0)
        memcpy(room, bytes.data, bytes.size);
}

void text_append_integer(struct text *text, int64_t value)
{
    char digits[24];
    char *at = digits + sizeof(digits);
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;

    do
        *--at = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (value < 0)
        *--at = '-';
    text_append(text, (struct rpc_bytes){.data = at, .size = (size_t)(digits + sizeof(digits) - at)});
}

static void append_escaped(struct text *text, unsigned char c)
{
    char escaped[8];
    int size = c == '"' || c == '\\' ? snprintf(escaped, sizeof(escaped), "\\%c", c)
                                     : snprintf(escaped, sizeof(escaped), "\\u%04x", c);

    text_append(text, (struct rpc_bytes){.data = escaped, .size = (size_t)size});
}

void text_append_json_string(struct text *text, struct rpc_bytes bytes)
{
    size_t start = 0, at;

    text_append(text, RPC_BYTES("\""));
    for (at = 0; at < bytes.size; at++) {
        unsigned char c = (unsigned char)bytes.data[at];

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        text_append(text, (struct rpc_bytes){.data = bytes.data + start, .size = at - start});
        append_escaped(text, c);
        start = at + 1;
    }
    if (bytes.size > start)
        text_append(text, (struct rpc_bytes){.data = bytes.data + start, .size = bytes.size - start});
    text_append(text, RPC_BYTES("\""));
}

void text_reset(struct text *text, size_t keep_size)
{
    if (text->capacity > keep_size)
        text_clear(text);
    text->size = 0;
    text->failed = false;
}

void text_clear(struct text *text)
{
    free(text->data);
    *text = (struct text){.data = NULL};
}

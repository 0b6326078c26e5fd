#include "rpclib/text.h"

#include <assert.h>
#include <stdlib.h>

#include "plain.h"
#include "rpclib/hex.h"

#define FIRST_SIZE       512u
#define INTEGER_SIZE_MAX 20 /* "-9223372036854775808" */
#define ESCAPE_SIZE_MAX  6  /* "\u001f" */

/* ---- Room -------------------------------------------------------------------------------------------------------- */

/* The room of what was consumed is the text's again; what is left of the text, if anything, moves there. */
static void take_back_consumed(struct rpc_text *text)
{
    char *start = text->data - text->consumed;

    if (text->size > 0)
        memmove(start, text->data, text->size);
    text->data = start;
    text->capacity += text->consumed;
    text->consumed = 0;
}

static char *text_grow(struct rpc_text *text, size_t size)
{
    size_t capacity = FIRST_SIZE;
    char *data;

    /* Moving is cheap: what is consumed bit by bit is nearly always empty when it is written. */
    if (text->consumed > 0) {
        take_back_consumed(text);
        if (size <= text->capacity - text->size)
            return text->data + text->size;
    }
    if (size > SIZE_MAX / 2 - text->size)
        goto failed;
    if (capacity < text->capacity)
        capacity = text->capacity;
    while (capacity - text->size < size)
        capacity *= 2;
    data = realloc(text->data, capacity);
    if (data == NULL)
        goto failed;
    text->data = data;
    text->capacity = capacity;
    return data + text->size;
failed:
    text->failed = true;
    return NULL;
}

/* `size` is 1 or more: an empty text has no place to point to. */
static inline char *text_room(struct rpc_text *text, size_t size)
{
    return size <= text->capacity - text->size ? text->data + text->size : text_grow(text, size);
}

char *rpc_text_reserve(struct rpc_text *text, size_t size)
{
    return text_room(text, size > 0 ? size : 1);
}

void rpc_text_commit(struct rpc_text *text, size_t size)
{
    assert(size <= text->capacity - text->size);
    text->size += size;
}

void rpc_text_truncate(struct rpc_text *text, size_t size)
{
    assert(size <= text->size);
    text->size = size;
}

void rpc_text_consume(struct rpc_text *text, size_t size)
{
    assert(size <= text->size);
    if (size == text->size) {
        rpc_text_reset(text, RPC_TEXT_KEEP_SIZE);
        return;
    }
    text->data += size;
    text->size -= size;
    text->capacity -= size;
    text->consumed += size;
}

void rpc_text_reset(struct rpc_text *text, size_t keep_size)
{
    text->size = 0;
    text->failed = false;
    if (text->consumed > 0)
        take_back_consumed(text);
    if (text->capacity > keep_size)
        rpc_text_clear(text);
}

void rpc_text_clear(struct rpc_text *text)
{
    if (text->data != NULL)
        free(text->data - text->consumed);
    *text = (struct rpc_text){.data = NULL};
}

/* ---- Appending --------------------------------------------------------------------------------------------------- */

bool rpc_text_append(struct rpc_text *text, struct rpc_bytes bytes)
{
    char *room;

    if (bytes.size == 0)
        return true;
    room = text_room(text, bytes.size);
    if (room == NULL)
        return false;
    memcpy(room, bytes.data, bytes.size);
    text->size += bytes.size;
    return true;
}

bool rpc_text_append_integer(struct rpc_text *text, int64_t value)
{
    char digits[INTEGER_SIZE_MAX];
    char *at = digits + sizeof(digits);
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;

    do {
        *--at = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (value < 0)
        *--at = '-';
    return rpc_text_append(text, (struct rpc_bytes){at, (size_t)(digits + sizeof(digits) - at)});
}

/* Behind the bytes at `at` that stand in a JSON string as they are. */
static const unsigned char *skip_unescaped(const unsigned char *at, const unsigned char *end)
{
    for (;;) {
        at = plain_skip(at, end);
        if (at == end || *at < 0x80)
            return at;
        while (at < end && *at >= 0x80)
            at++;
    }
}

static bool append_escape(struct rpc_text *text, unsigned char byte)
{
    char *out = text_room(text, ESCAPE_SIZE_MAX);

    if (out == NULL)
        return false;
    out[0] = '\\';
    if (byte >= 0x20) {
        out[1] = (char)byte;
        text->size += 2;
        return true;
    }
    memcpy(out + 1, "u00", 3);
    rpc_hex_write(&byte, 1, out + 4);
    text->size += ESCAPE_SIZE_MAX;
    return true;
}

/* What stands between the quotes. */
static bool append_escaped(struct rpc_text *text, struct rpc_bytes bytes)
{
    const unsigned char *at = (const unsigned char *)bytes.data, *end = at + bytes.size;

    while (at < end) {
        const unsigned char *run = at;

        at = skip_unescaped(run, end);
        if (!rpc_text_append(text, (struct rpc_bytes){(const char *)run, (size_t)(at - run)}))
            return false;
        if (at < end && !append_escape(text, *at++))
            return false;
    }
    return true;
}

bool rpc_text_append_json_string(struct rpc_text *text, struct rpc_bytes bytes)
{
    size_t before = text->size;
    char *room = text_room(text, bytes.size + 2); /* for all of it, unless something is escaped */

    if (room == NULL)
        return false;
    *room = '"';
    text->size++;
    if ((bytes.size == 0 || append_escaped(text, bytes)) && rpc_text_append(text, RPC_BYTES("\"")))
        return true;
    text->size = before;
    return false;
}

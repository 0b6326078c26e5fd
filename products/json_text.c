#include "json_text.h"

#include <assert.h>
#include <stdlib.h>

#define CAPACITY_MIN     512u
#define INTEGER_SIZE_MAX 20 /* "-9223372036854775808" */
#define ESCAPE_SIZE_MAX  6  /* "\u001f" */

/* What a byte is at the start of a character. */
enum lead {
    LEAD_PLAIN = 0, /* stands for itself */
    LEAD_ESCAPED,
    LEAD_SEQUENCE, /* a character of several bytes, or none at all */
    LEAD_NUL,
};

static const unsigned char leads[256] = {
    [0] = LEAD_NUL,        [1 ... 0x1F] = LEAD_ESCAPED,     ['"'] = LEAD_ESCAPED,
    ['\\'] = LEAD_ESCAPED, [0x80 ... 0xFF] = LEAD_SEQUENCE,
};

static bool is_tail(unsigned char byte)
{
    return (byte & 0xC0) == 0x80;
}

/* The size of the character at `at`, or 0 when it is overlong, a surrogate, above U+10FFFF or cut off. */
static size_t sequence_size(const unsigned char *at, size_t room)
{
    static const struct {
        unsigned char first, last; /* the lead bytes */
        unsigned char low, high;   /* what the second byte may be */
        unsigned char size;
    } forms[] = {
        {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3}, {0xE1, 0xEC, 0x80, 0xBF, 3},
        {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4},
        {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4},
    };

    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if (at[0] < forms[i].first || at[0] > forms[i].last)
            continue;
        if (room < forms[i].size || at[1] < forms[i].low || at[1] > forms[i].high)
            return 0;
        for (size_t tail = 2; tail < forms[i].size; tail++)
            if (!is_tail(at[tail]))
                return 0;
        return forms[i].size;
    }
    return 0;
}

/*
 * The bytes from `at` on that may be copied as they are; they end where something is escaped or unsound, or at the end.
 */
static size_t run_size(const unsigned char *at, size_t room)
{
    size_t size = 0;

    while (size < room) {
        unsigned char lead = leads[at[size]];
        size_t step = 1;

        if (lead == LEAD_SEQUENCE)
            step = sequence_size(at + size, room - size);
        else if (lead != LEAD_PLAIN)
            step = 0;
        if (step == 0)
            break;
        size += step;
    }
    return size;
}

bool json_text_is_sound(struct rpc_bytes text)
{
    const unsigned char *at = (const unsigned char *)text.data;
    size_t room = text.size;

    while (room > 0) {
        size_t size = run_size(at, room);

        if (size < room) {
            if (leads[at[size]] != LEAD_ESCAPED)
                return false;
            size++;
        }
        at += size;
        room -= size;
    }
    return true;
}

static bool text_reserve(struct json_text *text, size_t size)
{
    size_t capacity = text->capacity < CAPACITY_MIN ? CAPACITY_MIN : text->capacity;
    char *data;

    if (size <= text->capacity - text->size)
        return true;
    if (size > SIZE_MAX / 4 - text->size)
        return false;
    while (capacity - text->size < size)
        capacity *= 2;
    data = realloc(text->data, capacity);
    if (data == NULL)
        return false;
    text->data = data;
    text->capacity = capacity;
    return true;
}

bool json_text_append(struct json_text *text, struct rpc_bytes bytes)
{
    if (!text_reserve(text, bytes.size))
        return false;
    if (bytes.size > 0)
        memcpy(text->data + text->size, bytes.data, bytes.size);
    text->size += bytes.size;
    return true;
}

static size_t escape(char out[ESCAPE_SIZE_MAX], unsigned char byte)
{
    static const char hex[] = "0123456789abcdef";
    static const char shorts[0x20] = {['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    char letter = byte < 0x20 ? shorts[byte] : (char)byte;

    out[0] = '\\';
    if (letter != '\0') {
        out[1] = letter;
        return 2;
    }
    memcpy(out + 1, "u00", 3);
    out[4] = hex[byte >> 4];
    out[5] = hex[byte & 0xF];
    return ESCAPE_SIZE_MAX;
}

bool json_text_string(struct json_text *text, struct rpc_bytes value)
{
    const unsigned char *at = (const unsigned char *)value.data;
    size_t room = value.size;
    size_t start = text->size;

    if (!text_reserve(text, value.size + 2))
        return false;
    text->data[text->size++] = '"';
    while (room > 0) {
        size_t size = run_size(at, room);

        if (!json_text_append(text, (struct rpc_bytes){(const char *)at, size}))
            goto refused;
        at += size;
        room -= size;
        if (room > 0) {
            if (leads[*at] != LEAD_ESCAPED || !text_reserve(text, ESCAPE_SIZE_MAX))
                goto refused;
            text->size += escape(text->data + text->size, *at);
            at++;
            room--;
        }
    }
    if (!json_text_append(text, RPC_BYTES("\"")))
        goto refused;
    return true;
refused:
    text->size = start;
    return false;
}

bool json_text_integer(struct json_text *text, int64_t value)
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
    assert(at >= digits);
    return json_text_append(text, (struct rpc_bytes){at, (size_t)(digits + sizeof(digits) - at)});
}

void json_text_reset(struct json_text *text)
{
    if (text->capacity > JSON_TEXT_KEEP_SIZE)
        json_text_clear(text);
    text->size = 0;
}

void json_text_clear(struct json_text *text)
{
    free(text->data);
    *text = (struct json_text){.data = NULL};
}

#include "python.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpclib/utf8.h"

#define NUMBER_SIZE     40
#define REAL_DIGITS_MAX 17 /* enough for any double */

struct range {
    uint32_t first, last;
};

/*
 * What str.isprintable() calls not printable beyond ASCII, which repr() escapes: controls, formats, separators but the
 * space, surrogates and private use (Unicode's Cc, Cf, Zs, Zl, Zp, Cs, Co).  Code points that Unicode has not assigned
 * are shown as they are, since which these are changes from year to year.
 */
static const struct range unprintable[] = {
    {0x7f, 0xa0},       {0xad, 0xad},       {0x600, 0x605},     {0x61c, 0x61c},      {0x6dd, 0x6dd},
    {0x70f, 0x70f},     {0x890, 0x891},     {0x8e2, 0x8e2},     {0x1680, 0x1680},    {0x180e, 0x180e},
    {0x2000, 0x200f},   {0x2028, 0x202f},   {0x205f, 0x206f},   {0x3000, 0x3000},    {0xd800, 0xf8ff},
    {0xfeff, 0xfeff},   {0xfff9, 0xfffb},   {0x110bd, 0x110bd}, {0x110cd, 0x110cd},  {0x13430, 0x1343f},
    {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0001, 0xe007f}, {0xf0000, 0x10ffff},
};

static bool is_printable(uint32_t code)
{
    for (size_t i = 0; i < sizeof(unprintable) / sizeof(unprintable[0]); i++) {
        if (code >= unprintable[i].first && code <= unprintable[i].last)
            return false;
    }
    return code >= 0x20;
}

static bool append_escape(struct rpc_text *out, uint32_t code)
{
    char escape[16];

    if (code == '\n' || code == '\r' || code == '\t')
        snprintf(escape, sizeof(escape), "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
    else if (code < 0x100)
        snprintf(escape, sizeof(escape), "\\x%02" PRIx32, code);
    else if (code < 0x10000)
        snprintf(escape, sizeof(escape), "\\u%04" PRIx32, code);
    else
        snprintf(escape, sizeof(escape), "\\U%08" PRIx32, code);
    return rpc_text_append(out, rpc_bytes_of(escape));
}

/* Single quotes, unless only single ones stand inside. */
static bool repr_text(struct rpc_text *out, const char *text, size_t size)
{
    const char quote = memchr(text, '\'', size) != NULL && memchr(text, '"', size) == NULL ? '"' : '\'';
    const struct rpc_bytes mark = {&quote, 1};
    bool done = rpc_text_append(out, mark);

    for (size_t at = 0; done && at < size;) {
        uint32_t code;
        size_t width = rpc_utf8_decode(text + at, &code);

        if (code == '\\' || code == (unsigned char)quote)
            done = rpc_text_append(out, RPC_BYTES("\\")) && rpc_text_append(out, (struct rpc_bytes){text + at, width});
        else if (is_printable(code))
            done = rpc_text_append(out, (struct rpc_bytes){text + at, width});
        else
            done = append_escape(out, code);
        at += width;
    }
    return done && rpc_text_append(out, mark);
}

static bool repr_list(struct rpc_text *out, const json_t *list)
{
    bool done = rpc_text_append(out, RPC_BYTES("["));

    for (size_t i = 0; done && i < json_array_size(list); i++)
        done = (i == 0 || rpc_text_append(out, RPC_BYTES(", "))) && python_repr(out, json_array_get(list, i));
    return done && rpc_text_append(out, RPC_BYTES("]"));
}

static bool repr_dict(struct rpc_text *out, json_t *object)
{
    bool done = rpc_text_append(out, RPC_BYTES("{")), first = true;
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value)
    {
        done = done && (first || rpc_text_append(out, RPC_BYTES(", "))) && repr_text(out, key, strlen(key)) &&
               rpc_text_append(out, RPC_BYTES(": ")) && python_repr(out, value);
        first = false;
    }
    return done && rpc_text_append(out, RPC_BYTES("}"));
}

/* The fewest digits that make the same double, in Python's notation: with an exponent from 1e16 on and below 1e-4. */
static void repr_real(char text[NUMBER_SIZE], double number)
{
    int digits = 1, exponent;

    do
        snprintf(text, NUMBER_SIZE, "%.*e", digits - 1, number);
    while (strtod(text, NULL) != number && digits++ < REAL_DIGITS_MAX);
    exponent = atoi(strchr(text, 'e') + 1);
    if (exponent >= -4 && exponent < 16)
        snprintf(text, NUMBER_SIZE, "%.*f", digits - exponent > 2 ? digits - exponent - 1 : 1, number);
}

static bool repr_number(struct rpc_text *out, const json_t *value)
{
    char text[NUMBER_SIZE];

    if (json_is_integer(value))
        snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else
        repr_real(text, json_real_value(value));
    return rpc_text_append(out, rpc_bytes_of(text));
}

bool python_repr(struct rpc_text *out, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return repr_dict(out, (json_t *)(uintptr_t)value);
    case JSON_ARRAY:
        return repr_list(out, value);
    case JSON_STRING:
        return repr_text(out, json_string_value(value), json_string_length(value));
    case JSON_INTEGER:
    case JSON_REAL:
        return repr_number(out, value);
    case JSON_TRUE:
        return rpc_text_append(out, RPC_BYTES("True"));
    case JSON_FALSE:
        return rpc_text_append(out, RPC_BYTES("False"));
    case JSON_NULL:
        return rpc_text_append(out, RPC_BYTES("None"));
    }
    return false;
}

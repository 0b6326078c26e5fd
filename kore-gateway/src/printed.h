/*
 * printed: takes JSON apart that stands exactly as our own services print it: no key to look for, no space to skip.  Whoever
 * finds it in another form, which is as good, has the walk (walk.h) for that.
 *
 * Each takes what stands at `*at`, and leaves that behind it; false, and *at where it was, when something else stands there.
 * The text must be sound, as rpc_json_check() has it; none leaves its bounds.  Pure, and here for the compiler to put into the
 * loops that use them.
 */
#ifndef KORE_GATEWAY_PRINTED_H
#define KORE_GATEWAY_PRINTED_H

#include "walk.h"

#define PRINTED_DIGITS_SAFE 18 /* every int64 has room for as many */

/* Exactly these bytes. */
static inline bool printed_label(const char **at, const char *end, struct rpc_bytes label)
{
    if ((size_t)(end - *at) < label.size || memcmp(*at, label.data, label.size) != 0)
        return false;
    *at += label.size;
    return true;
}

/* A string, quotes included. */
static inline bool printed_string(const char **at, const char *end, struct rpc_bytes *value)
{
    const char *stop;

    if (*at == end || **at != '"')
        return false;
    stop = walk_skip(*at, end);
    *value = (struct rpc_bytes){*at, (size_t)(stop - *at)};
    *at = stop;
    return true;
}

static inline const char *printed_skip_digits(const char *at, const char *end)
{
    while (at < end && (unsigned char)(*at - '0') <= 9)
        at++;
    return at;
}

/* An integer that fits 64 bits for certain. */
static inline bool printed_integer(const char **at, const char *end, struct rpc_bytes *value)
{
    const char *digits = *at + (*at < end && **at == '-'), *stop = printed_skip_digits(digits, end);

    if (stop == digits || stop - digits > PRINTED_DIGITS_SAFE)
        return false;
    *value = (struct rpc_bytes){*at, (size_t)(stop - *at)};
    *at = stop;
    return true;
}

#endif

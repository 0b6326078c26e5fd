/*
 * plain: the bytes that may stand in a JSON string as they are and are a character each: ASCII but controls, quote and
 * backslash.  They are most of every message, so they are passed over eight at a time.
 */
#ifndef RPCLIB_SRC_PLAIN_H
#define RPCLIB_SRC_PLAIN_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static const bool plain_bytes[256] = {
    [' ' ... '!'] = true,
    ['#' ... '['] = true,
    [']' ... 0x7F] = true,
};

/*
 * Behind the plain bytes at `at`.  A byte that is not plain is below a blank, a quote, a backslash, or has its highest bit
 * set; each test leaves that bit set in such a byte, and perhaps in those behind the first one.
 */
static inline const unsigned char *plain_skip(const unsigned char *at, const unsigned char *end)
{
    const uint64_t ones = 0x0101010101010101, highest = 0x80 * ones;

    while (end - at >= 8) {
        uint64_t bytes, quote, backslash, found;

        memcpy(&bytes, at, sizeof(bytes));
        bytes = le64toh(bytes);
        quote = bytes ^ ('"' * ones);
        backslash = bytes ^ ('\\' * ones);
        found = (bytes | (bytes - ' ' * ones) | (quote - ones) | (backslash - ones)) & highest;
        if (found != 0)
            return at + __builtin_ctzll(found) / 8;
        at += 8;
    }
    while (at < end && plain_bytes[*at])
        at++;
    return at;
}

#endif

/*
 * rpc_utf8: UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.  Pure.
 */
#ifndef RPCLIB_UTF8_H
#define RPCLIB_UTF8_H

#include <stdint.h>

#include "rpclib/bytes.h"

/* Whether the text is UTF-8 without NUL: what may stand in strict JSON as a string. */
bool rpc_utf8_check(struct rpc_bytes text);

/*
 * The text's beginning, lent as the text is: all of it, unseen, when it has no more than `size_max` bytes, else as many up to
 * that as do not end within a character.  Where the bytes are no UTF-8 less may be left of them, down to nothing.
 */
struct rpc_bytes rpc_utf8_cut(struct rpc_bytes text, size_t size_max);

/* Whether the byte is none that a character begins with. */
static inline bool rpc_utf8_tail(unsigned char byte)
{
    return (byte & 0xC0) == 0x80;
}

/* The bytes of the character at `at`, 1 to 4, or 0 when none that is sound begins there.  `at` must be before `end`. */
static inline size_t rpc_utf8_sequence(const unsigned char *at, const unsigned char *end)
{
    size_t room = (size_t)(end - at);
    unsigned char lead = at[0];
    unsigned char low = 0x80; /* the range of the second byte: narrower where a form would be overlong or a surrogate */
    unsigned char high = 0xBF;

    if (lead < 0x80)
        return 1;
    if (lead < 0xC2)
        return 0;
    if (lead < 0xE0)
        return room >= 2 && rpc_utf8_tail(at[1]) ? 2 : 0;
    if (lead < 0xF0) {
        if (lead == 0xE0)
            low = 0xA0;
        else if (lead == 0xED)
            high = 0x9F;
        return room >= 3 && at[1] >= low && at[1] <= high && rpc_utf8_tail(at[2]) ? 3 : 0;
    }
    if (lead > 0xF4)
        return 0;
    if (lead == 0xF0)
        low = 0x90;
    else if (lead == 0xF4)
        high = 0x8F;
    return room >= 4 && at[1] >= low && at[1] <= high && rpc_utf8_tail(at[2]) && rpc_utf8_tail(at[3]) ? 4 : 0;
}

/* Whether the character at `at`, of `size` bytes, is a control: C0, DEL, or C1, which terminals obey too. */
static inline bool rpc_utf8_is_control(const unsigned char *at, size_t size)
{
    return size == 1 ? at[0] < 0x20 || at[0] == 0x7F : size == 2 && at[0] == 0xC2 && at[1] < 0xA0;
}

/* The code point of the character at `at`, which must be sound; returns how many bytes it took. */
size_t rpc_utf8_decode(const char *at, uint32_t *code);

#endif

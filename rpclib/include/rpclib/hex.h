/* rpc_hex: hexadecimal digits.  Pure. */
#ifndef RPCLIB_HEX_H
#define RPCLIB_HEX_H

#include <stddef.h>

/* What a digit counts, in capitals or not; -1: it is none. */
static inline int rpc_hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/*
 * Write `size` bytes as digits, two for each byte, the high one first, a to f small.  `out` has room for 2 * size and lies
 * apart from the bytes; no NUL is put behind the digits.
 */
static inline void rpc_hex_write(const unsigned char *bytes, size_t size, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < size; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
}

#endif

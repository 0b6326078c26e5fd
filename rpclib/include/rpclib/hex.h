/* rpc_hex: hexadecimal digits. */
#ifndef RPCLIB_HEX_H
#define RPCLIB_HEX_H

/* What a digit counts, in capitals or not; -1: it is none. */
static inline int rpc_hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

#endif

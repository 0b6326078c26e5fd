#include "rpclib/percent.h"

#include "rpclib/hex.h"

bool rpc_percent_decode(struct rpc_bytes text, char *out, size_t *size)
{
    size_t used = 0;

    for (size_t at = 0; at < text.size; at++) {
        int high, low;

        if (text.data[at] != '%') {
            out[used++] = text.data[at];
            continue;
        }
        high = text.size - at > 2 ? rpc_hex_digit(text.data[at + 1]) : -1;
        low = text.size - at > 2 ? rpc_hex_digit(text.data[at + 2]) : -1;
        if (high < 0 || low < 0)
            return false;
        out[used++] = (char)(high << 4 | low);
        at += 2;
    }
    *size = used;
    return true;
}

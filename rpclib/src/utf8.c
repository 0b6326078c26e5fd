#include "rpclib/utf8.h"

#include "plain.h"

bool rpc_utf8_check(struct rpc_bytes text)
{
    const unsigned char *at = (const unsigned char *)text.data, *end;

    if (text.size == 0)
        return true;
    end = at + text.size;
    while ((at = plain_skip(at, end)) < end) {
        size_t size = *at == '\0' ? 0 : rpc_utf8_sequence(at, end);

        if (size == 0)
            return false;
        at += size;
    }
    return true;
}

struct rpc_bytes rpc_utf8_cut(struct rpc_bytes text, size_t size_max)
{
    if (text.size <= size_max)
        return text;
    while (size_max > 0 && rpc_utf8_tail((unsigned char)text.data[size_max]))
        size_max--;
    return (struct rpc_bytes){.data = text.data, .size = size_max};
}

size_t rpc_utf8_decode(const char *at, uint32_t *code)
{
    const unsigned char *bytes = (const unsigned char *)at;

    if (bytes[0] < 0x80) {
        *code = bytes[0];
        return 1;
    }
    if (bytes[0] < 0xE0) {
        *code = (bytes[0] & 0x1Fu) << 6 | (bytes[1] & 0x3Fu);
        return 2;
    }
    if (bytes[0] < 0xF0) {
        *code = (bytes[0] & 0xFu) << 12 | (bytes[1] & 0x3Fu) << 6 | (bytes[2] & 0x3Fu);
        return 3;
    }
    *code = (bytes[0] & 7u) << 18 | (bytes[1] & 0x3Fu) << 12 | (bytes[2] & 0x3Fu) << 6 | (bytes[3] & 0x3Fu);
    return 4;
}

#include "printable.h"

#include "rpclib/utf8.h"

void printable_write(FILE *out, struct rpc_bytes text)
{
    size_t size;

    for (; text.size > 0; text = (struct rpc_bytes){text.data + size, text.size - size}) {
        const unsigned char *at = (const unsigned char *)text.data;

        size = rpc_utf8_sequence(at, at + text.size);
        if (size == 0 || rpc_utf8_is_control(at, size))
            putc('?', out);
        else
            fwrite(at, 1, size, out);
        if (size == 0)
            size = 1;
    }
}

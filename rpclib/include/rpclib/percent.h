/* rpc_percent: percent-encoding, as URIs have it (RFC 3986). */
#ifndef RPCLIB_PERCENT_H
#define RPCLIB_PERCENT_H

#include "rpclib/bytes.h"

/*
 * Decode %XX into `out`, which has room for `text.size` bytes and gets no NUL at its end; %00 is a NUL as any byte.  False,
 * with *size as it was, when a percent sign is not followed by two hexadecimal digits; some of `out` may be written then.
 * A plus sign is a plus sign.
 */
bool rpc_percent_decode(struct rpc_bytes text, char *out, size_t *size);

#endif

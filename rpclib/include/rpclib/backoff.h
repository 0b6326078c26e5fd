/* rpc_backoff: how long to wait before the next attempt at what others attempt as well. */
#ifndef RPCLIB_BACKOFF_H
#define RPCLIB_BACKOFF_H

#include <stdint.h>

/*
 * `min_ms`, doubled for each attempt that failed before (`failures`, from 0; the caller counts), at most `max_ms`; of that the
 * upper half at random, so that a thousand programs do not come back in the same moment.  From half of `min_ms` to `max_ms`.
 */
uint64_t rpc_backoff_ms(unsigned failures, uint64_t min_ms, uint64_t max_ms);

#endif

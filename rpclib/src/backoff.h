/* backoff: how long to wait before the next attempt: doubling, bounded, spread at random over its upper half. */
#ifndef RPCLIB_SRC_BACKOFF_H
#define RPCLIB_SRC_BACKOFF_H

#include <stdint.h>

/* `failures` is how many attempts failed before, from 0. */
uint64_t backoff_ms(unsigned failures, uint64_t min_ms, uint64_t max_ms);

#endif

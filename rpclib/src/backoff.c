#include "rpclib/backoff.h"

#include <sys/random.h>

#define DOUBLINGS_MAX 20 /* keeps the shift defined; any sensible bound is reached long before */

uint64_t rpc_backoff_ms(unsigned failures, uint64_t min_ms, uint64_t max_ms)
{
    uint64_t delay_ms = min_ms << (failures < DOUBLINGS_MAX ? failures : DOUBLINGS_MAX);
    uint64_t spread = 0;

    if (delay_ms > max_ms)
        delay_ms = max_ms;
    if (getrandom(&spread, sizeof(spread), GRND_NONBLOCK) < 0)
        spread = 0; /* no entropy yet, early at boot: the full delay then */
    return delay_ms - spread % (delay_ms / 2 + 1);
}

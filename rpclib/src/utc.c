#include "rpclib/utc.h"

#include <stddef.h>

void rpc_utc_print(char out[RPC_UTC_SIZE], time_t at)
{
    struct tm parts;

    if (gmtime_r(&at, &parts) == NULL || strftime(out, RPC_UTC_SIZE, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        out[0] = '\0';
}

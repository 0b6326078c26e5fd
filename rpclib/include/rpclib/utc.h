/* rpc_utc: a moment as people read it in messages: "2026-11-22T00:15:00Z" (ISO 8601). */
#ifndef RPCLIB_UTC_H
#define RPCLIB_UTC_H

#include <time.h>

#define RPC_UTC_SIZE 32

/* In UTC, whatever the time zone; "" for a moment so far away that no calendar has it. */
void rpc_utc_print(char out[RPC_UTC_SIZE], time_t at);

#endif

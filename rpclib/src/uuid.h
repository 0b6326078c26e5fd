/* uuid: random identifiers (RFC 4122, version 4), of the system's random numbers, many at little cost. */
#ifndef RPCLIB_SRC_UUID_H
#define RPCLIB_SRC_UUID_H

#define RPC_UUID_SIZE 37 /* with its NUL */

/*
 * A fresh one in lower case: "6ba7b810-9dad-41d1-80b4-00c04fd430c8".  A child of fork() never repeats its parent's.  One
 * thread alone.  Without random numbers there is no safe way on: it ends the process.
 */
void rpc_uuid4(char out[RPC_UUID_SIZE]);

#endif

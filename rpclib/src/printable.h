/* printable: what others wrote, as a terminal may get it. */
#ifndef RPCLIB_SRC_PRINTABLE_H
#define RPCLIB_SRC_PRINTABLE_H

#include <stdio.h>

#include "rpclib/bytes.h"

/* As UTF-8 without control characters: a question mark stands for each of these, and for each byte that is no UTF-8. */
void printable_write(FILE *out, struct rpc_bytes text);

#endif

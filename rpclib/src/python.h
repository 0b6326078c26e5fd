/* python: what Python would print, where Nameko's errors are worded by it. */
#ifndef RPCLIB_SRC_PYTHON_H
#define RPCLIB_SRC_PYTHON_H

#include <jansson.h>

#include "rpclib/text.h"

/* Python's repr() of a value as json.loads() makes it.  False when out of memory. */
bool python_repr(struct rpc_text *out, const json_t *value);

#endif

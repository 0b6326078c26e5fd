/*
 * rpc_error: Nameko's error object, as a service answers it and as a caller gets it.
 *
 * A Python caller maps exc_path to an exception class.
 */
#ifndef RPCLIB_ERROR_H
#define RPCLIB_ERROR_H

#include "rpclib/bytes.h"

struct rpc_error {
    struct rpc_bytes exc_type; /* class name: "NotFound" */
    struct rpc_bytes exc_path; /* module path and class name: "orders.exceptions.NotFound" */
    struct rpc_bytes value;    /* text for people */
    struct rpc_bytes exc_args; /* a JSON array; {NULL, 0} when answering: [value] */
};

#endif

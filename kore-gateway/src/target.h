/* target: what a request names: its path, taken apart before it is decoded, and its query.  Pure. */
#ifndef KORE_GATEWAY_TARGET_H
#define KORE_GATEWAY_TARGET_H

#include <rpclib/bytes.h>
#include <stdint.h>

struct target {
    struct rpc_bytes path;  /* with its first slash, as it came */
    struct rpc_bytes query; /* behind the question mark; {NULL, 0} when there is none */
};

struct target target_of(struct rpc_bytes text);

/* How a parameter stands in a query. */
enum target_parameter {
    TARGET_ABSENT,
    TARGET_INTEGER, /* `*value` holds it */
    TARGET_INVALID, /* there twice, or no whole number in decimal digits */
};

/* A number of any size is one: what is more than INT64_MAX counts as INT64_MAX, which is beyond whatever we number. */
enum target_parameter target_integer(struct rpc_bytes query, const char *name, int64_t *value);

/* The same for digits that stand alone.  False, with *value as it was, for anything else. */
bool target_digits(struct rpc_bytes text, int64_t *value);

#endif

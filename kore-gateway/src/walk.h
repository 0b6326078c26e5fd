/*
 * walk: finds its way in JSON text without building anything, for what a service answered and we hand on.
 *
 * The text must be sound, as rpc_json_check() has it; the walk itself never leaves its bounds.  Pure.
 *
 *     walk_array(&walk, order_details);
 *     while (walk_next(&walk, NULL, &line))
 *         ...
 */
#ifndef KORE_GATEWAY_WALK_H
#define KORE_GATEWAY_WALK_H

#include <rpclib/bytes.h>
#include <stdint.h>

struct walk {
    const char *at, *end;
    bool object;
};

/* Begin with what an array (an object) holds.  False when the text is none. */
bool walk_array(struct walk *walk, struct rpc_bytes text);
bool walk_object(struct walk *walk, struct rpc_bytes text);

/*
 * The next element, or member: its bytes as they stand, strings with their quotes.  `key` gets what stands between the
 * key's quotes; it may be NULL.  False at the end.
 */
bool walk_next(struct walk *walk, struct rpc_bytes *key, struct rpc_bytes *value);

/* Behind the value that begins at `at`. */
const char *walk_skip(const char *at, const char *end);

/*
 * The members of the object that `text` is: values[i] gets the value of names[i], {NULL, 0} where there is none.  *others tells
 * of members of other names; it may be NULL.  False when the text is no object, or has one of these names twice: two readers
 * could take it for two things.
 */
bool walk_members(struct rpc_bytes text, size_t count, const char *const names[], struct rpc_bytes values[],
                  bool *others);

/* A value that is an integer.  False for every other one, and where it does not fit. */
bool walk_integer(struct rpc_bytes value, int64_t *integer);

/* Whether a value is a string. */
static inline bool walk_is_string(struct rpc_bytes value)
{
    return value.size >= 2 && value.data[0] == '"' && value.data[value.size - 1] == '"';
}

#endif

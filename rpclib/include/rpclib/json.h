/*
 * rpc_json: strict JSON, the same at every edge: what comes over HTTP, what comes over AMQP, what is handed on.
 *
 * Strict means RFC 8259 in UTF-8 and no more: no NaN, no lone surrogates, no NUL in strings, no duplicate keys, nothing
 * behind the document, at most RPC_JSON_DEPTH_MAX levels deep.  Pure: no globals, no I/O.
 */
#ifndef RPCLIB_JSON_H
#define RPCLIB_JSON_H

#include <jansson.h>

#include "rpclib/bytes.h"

#define RPC_JSON_DEPTH_MAX   64 /* objects and arrays within one another; a lone [] is 1 deep */
#define RPC_JSON_REASON_SIZE 120

/*
 * Read a document.  Returns a new reference, or NULL with a reason for people in `reason` (always ended by NUL; it says
 * what and where, never the text itself).  A number that no int64 or double can hold is no error of the document: it
 * comes back as a real that no integer field and no price will take.
 */
json_t *rpc_json_load(struct rpc_bytes text, char reason[RPC_JSON_REASON_SIZE]);

/* Whether that reason says nothing against the text: memory ran out.  Another try may succeed. */
bool rpc_json_no_memory(const char *reason);

/* What a string spells, lent from it; {NULL, 0}: the value is no string, or NULL. */
static inline struct rpc_bytes rpc_json_text(const json_t *value)
{
    return (struct rpc_bytes){.data = json_string_value(value), .size = json_string_length(value)};
}

/*
 * Check a document as strictly as rpc_json_load() does, except for duplicate keys, without building it: for what is only
 * handed on.  Returns whether it is sound.
 */
bool rpc_json_check(struct rpc_bytes text);

/*
 * Find members of the object that `text` is, without building it: `values[i]` gets the bytes of the value of `names[i]`,
 * or {NULL, 0} where it is absent.  The whole text is checked like rpc_json_check(); the last of duplicate keys wins;
 * a key spelled with escapes is not found.  Returns false when the text is not a sound JSON object.
 */
bool rpc_json_members(struct rpc_bytes text, size_t count, const char *const names[], struct rpc_bytes values[]);

/*
 * Whether a JSON string, its quotes included, spells a text; and whether two of them spell the same one: "\u00fc" is "ü".
 * The strings must be sound.
 */
bool rpc_json_string_spells(struct rpc_bytes string, struct rpc_bytes text);
bool rpc_json_strings_equal(struct rpc_bytes one, struct rpc_bytes other);

#endif

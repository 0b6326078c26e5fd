/*
 * json: the scanner against jansson.  They differ where it is said here, and nowhere else:
 *   - the scanner takes 64 levels, jansson 2048;
 *   - the scanner takes a number of any size, jansson none that an int64 or a double cannot hold (rpc_json_load() makes
 *     such a number a large real);
 *   - the check takes duplicate keys, rpc_json_load() does not;
 *   - jansson passes over a NUL behind a number or a word, the scanner never does.
 *
 * The input is the text.
 */
#include <fuzz.h>

#include "rpclib/json.h"

#define MARK ((struct rpc_bytes){"untouched", 3})

static json_t *built(struct rpc_bytes text, size_t flags, enum json_error_code *code)
{
    json_error_t error = {0};
    json_t *value = json_loadb(text.data, text.size, JSON_DECODE_ANY | flags, &error);

    *code = value == NULL ? json_error_code(&error) : json_error_unknown;
    return value;
}

static unsigned depth_of(const json_t *value)
{
    unsigned deepest = 0, depth;
    const char *key;
    json_t *member;

    for (size_t i = 0; i < json_array_size(value); i++) {
        depth = depth_of(json_array_get(value, i));
        deepest = depth > deepest ? depth : deepest;
    }
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        depth = depth_of(member);
        deepest = depth > deepest ? depth : deepest;
    }
    return deepest + (json_is_object(value) || json_is_array(value));
}

/* Levels that are open at once, counted in the text: good for texts that jansson could not build. */
static bool is_deep(struct rpc_bytes text)
{
    unsigned depth = 0;
    bool quoted = false;

    for (size_t i = 0; i < text.size; i++) {
        if (quoted && text.data[i] == '\\')
            i++;
        else if (text.data[i] == '"')
            quoted = !quoted;
        else if (!quoted && (text.data[i] == '[' || text.data[i] == '{'))
            depth++;
        else if (!quoted && (text.data[i] == ']' || text.data[i] == '}'))
            depth--;
        if (depth > RPC_JSON_DEPTH_MAX)
            return true;
    }
    return false;
}

/* ---- Checking ---------------------------------------------------------------------------------------------------- */

static void check_check(struct rpc_bytes text, const json_t *value, enum json_error_code code)
{
    if (rpc_json_check(text))
        HOLDS(value != NULL ? depth_of(value) <= RPC_JSON_DEPTH_MAX : code == json_error_numeric_overflow);
    else
        HOLDS(value == NULL || depth_of(value) > RPC_JSON_DEPTH_MAX || memchr(text.data, '\0', text.size) != NULL);
}

/* ---- Loading ----------------------------------------------------------------------------------------------------- */

static void check_reason(const char reason[RPC_JSON_REASON_SIZE], struct rpc_bytes text)
{
    size_t size = strnlen(reason, RPC_JSON_REASON_SIZE), line, column;
    const char *at = strstr(reason, " at line ");

    HOLDS(size > 0 && size < RPC_JSON_REASON_SIZE && !rpc_json_no_memory(reason));
    for (size_t i = 0; i < size; i++)
        HOLDS(reason[i] >= ' ' && reason[i] < 0x7F);
    if (at != NULL)
        HOLDS(sscanf(at, " at line %zu column %zu", &line, &column) == 2 && line >= 1 && column >= 1 &&
              line + column <= text.size + 2);
}

/* Printed and read again it is the same. */
static void check_round_trip(const json_t *value)
{
    char reason[RPC_JSON_REASON_SIZE];
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    json_t *again = text == NULL ? NULL : rpc_json_load(rpc_bytes_of(text), reason);

    HOLDS(again != NULL && json_equal(value, again));
    json_decref(again);
    free(text);
}

static void check_load(struct rpc_bytes text, json_t *unique, enum json_error_code code)
{
    char reason[RPC_JSON_REASON_SIZE];
    bool sound = rpc_json_check(text);
    json_t *value;

    memset(reason, 'x', sizeof(reason));
    value = rpc_json_load(text, reason);
    if (value == NULL) {
        check_reason(reason, text);
        HOLDS((strncmp(reason, "duplicate key", strlen("duplicate key")) == 0) == sound);
        HOLDS(unique == NULL || is_deep(text) || memchr(text.data, '\0', text.size) != NULL);
        return;
    }
    HOLDS(sound && reason[0] == '\0');
    if (unique != NULL)
        HOLDS(json_equal(value, unique));
    else
        HOLDS(code == json_error_numeric_overflow);
    check_round_trip(value);
    json_decref(value);
}

/* ---- Finding members --------------------------------------------------------------------------------------------- */

static void check_member(struct rpc_bytes text, struct rpc_bytes found, const json_t *expected)
{
    enum json_error_code code;
    json_t *value;

    HOLDS((found.data != NULL) == (expected != NULL));
    if (expected == NULL)
        return;
    HOLDS(found.data > text.data && found.data + found.size < text.data + text.size && found.size > 0);
    value = built(found, 0, &code);
    HOLDS(json_equal(value, expected));
    json_decref(value);
}

/* Jansson knows what escaped keys spell, so texts with escapes are checked less. */
static void check_members(struct rpc_bytes text, const json_t *value)
{
    static const char *const names[] = {"args", "kwargs", "result", "error", "id"};
    enum { NAMES = sizeof(names) / sizeof(names[0]) };
    struct rpc_bytes values[NAMES];
    bool plain = text.size == 0 || memchr(text.data, '\\', text.size) == NULL;

    for (int i = 0; i < NAMES; i++)
        values[i] = MARK;
    if (!rpc_json_members(text, NAMES, names, values)) {
        HOLDS(!json_is_object(value) || !rpc_json_check(text));
        for (int i = 0; i < NAMES; i++)
            HOLDS(values[i].data == NULL && values[i].size == 0);
        return;
    }
    HOLDS(rpc_json_check(text) && (value == NULL || json_is_object(value)));
    for (int i = 0; i < NAMES; i++) {
        HOLDS(values[i].data == NULL || rpc_json_check(values[i]));
        if (value != NULL && plain)
            check_member(text, values[i], json_object_get(value, names[i]));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_bytes text = fuzz_bytes(data, size);
    enum json_error_code code, unique_code;
    json_t *value = built(text, 0, &code), *unique = built(text, JSON_REJECT_DUPLICATES, &unique_code);

    check_check(text, value, code);
    check_load(text, unique, unique_code);
    check_members(text, value);
    json_decref(value);
    json_decref(unique);
    return 0;
}

#include "walk.h"

#define INTEGER_DIGITS_MAX 19 /* of an int64; as many of any kind fit a uint64 */

/* What numbers, true, false and null are spelled with. */
static const bool word[256] = {
    ['+'] = true, ['-' ... '.'] = true, ['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true,
};

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t'))
        at++;
    return at;
}

/* Whether an odd number of backslashes stands before the quote; the string's first quote is before them. */
static bool is_escaped(const char *quote)
{
    const char *at = quote;

    while (at[-1] == '\\')
        at--;
    return (quote - at) % 2 == 1;
}

/* Behind the string whose first quote is at `at`. */
static const char *skip_string(const char *at, const char *end)
{
    do {
        at++;
        at = memchr(at, '"', (size_t)(end - at));
    } while (at != NULL && is_escaped(at));
    return at != NULL ? at + 1 : end;
}

static const char *skip_container(const char *at, const char *end)
{
    unsigned depth = 0;

    while (at < end) {
        switch (*at) {
        case '"':
            at = skip_string(at, end);
            continue;
        case '[':
        case '{':
            depth++;
            break;
        case ']':
        case '}':
            if (--depth == 0)
                return at + 1;
            break;
        default:
            break;
        }
        at++;
    }
    return end;
}

const char *walk_skip(const char *at, const char *end)
{
    if (at == end)
        return end;
    if (*at == '"')
        return skip_string(at, end);
    if (*at == '[' || *at == '{')
        return skip_container(at, end);
    while (at < end && word[(unsigned char)*at])
        at++;
    return at;
}

static bool walk_begin(struct walk *walk, struct rpc_bytes text, char open)
{
    const char *at, *end;

    if (text.size == 0) /* and its data may be NULL: a member that is not there */
        return false;
    end = text.data + text.size;
    at = skip_space(text.data, end);
    if (at == end || *at != open)
        return false;
    *walk = (struct walk){.at = skip_space(at + 1, end), .end = end, .object = open == '{'};
    return true;
}

bool walk_array(struct walk *walk, struct rpc_bytes text)
{
    return walk_begin(walk, text, '[');
}

bool walk_object(struct walk *walk, struct rpc_bytes text)
{
    return walk_begin(walk, text, '{');
}

bool walk_next(struct walk *walk, struct rpc_bytes *key, struct rpc_bytes *value)
{
    const char *from = walk->at;

    if (from == walk->end || *from == ']' || *from == '}')
        return false;
    if (walk->object) {
        const char *stop = skip_string(from, walk->end);

        if (key != NULL && stop - from >= 2)
            *key = (struct rpc_bytes){from + 1, (size_t)(stop - from) - 2};
        from = skip_space(stop, walk->end);
        if (from == walk->end)
            return false;
        from = skip_space(from + 1, walk->end); /* the colon */
    }
    walk->at = walk_skip(from, walk->end);
    *value = (struct rpc_bytes){from, (size_t)(walk->at - from)};
    if (value->size == 0)
        return false; /* not sound, but no reason to run off */
    walk->at = skip_space(walk->at, walk->end);
    if (walk->at < walk->end && *walk->at == ',')
        walk->at = skip_space(walk->at + 1, walk->end);
    return true;
}

bool walk_members(struct rpc_bytes text, size_t count, const char *const names[], struct rpc_bytes values[],
                  bool *others)
{
    struct rpc_bytes key = {NULL, 0}, value;
    struct walk walk;
    bool has_others = false;

    memset(values, 0, count * sizeof(*values));
    if (!walk_object(&walk, text))
        return false;
    while (walk_next(&walk, &key, &value)) {
        size_t name = 0;

        while (name < count && !rpc_bytes_equal(key, names[name]))
            name++;
        if (name == count)
            has_others = true;
        else if (values[name].data != NULL)
            return false;
        else
            values[name] = value;
    }
    if (others != NULL)
        *others = has_others;
    return true;
}

bool walk_integer(struct rpc_bytes value, int64_t *integer)
{
    size_t negative = value.size > 0 && value.data[0] == '-';
    uint64_t result = 0;

    if (value.size == negative || value.size - negative > INTEGER_DIGITS_MAX)
        return false;
    for (size_t at = negative; at < value.size; at++) {
        unsigned digit = (unsigned char)value.data[at] - (unsigned)'0';

        if (digit > 9)
            return false;
        result = result * 10 + digit;
    }
    if (result > (uint64_t)INT64_MAX + negative)
        return false;
    *integer = negative ? (int64_t)(0 - result) : (int64_t)result;
    return true;
}

#include "target.h"

#include <rpclib/percent.h>

#include "guard.h"

struct target target_of(struct rpc_bytes text)
{
    const char *mark = text.size == 0 ? NULL : memchr(text.data, '?', text.size);
    struct target target = {.path = text};

    if (mark != NULL) {
        target.path.size = (size_t)(mark - text.data);
        target.query = (struct rpc_bytes){mark + 1, text.size - target.path.size - 1};
    }
    return target;
}

bool target_digits(struct rpc_bytes text, int64_t *value)
{
    int64_t result = 0;

    if (text.size == 0)
        return false;
    for (size_t i = 0; i < text.size; i++) {
        int digit = text.data[i] - '0';

        if (digit < 0 || digit > 9)
            return false;
        result = result > (INT64_MAX - digit) / 10 ? INT64_MAX : result * 10 + digit;
    }
    *value = result;
    return true;
}

static bool integer_of(struct rpc_bytes text, int64_t *value)
{
    char decoded[GUARD_TARGET_SIZE_MAX]; /* a part of a target */
    size_t size;

    return text.size <= sizeof(decoded) && rpc_percent_decode(text, decoded, &size) &&
           target_digits((struct rpc_bytes){decoded, size}, value);
}

enum target_parameter target_integer(struct rpc_bytes query, const char *name, int64_t *value)
{
    enum target_parameter found = TARGET_ABSENT;
    const char *at = query.data, *end = query.size == 0 ? at : at + query.size;

    while (at < end) {
        const char *ampersand = memchr(at, '&', (size_t)(end - at));
        const char *stop = ampersand == NULL ? end : ampersand;
        const char *equals = memchr(at, '=', (size_t)(stop - at));
        const char *name_end = equals == NULL ? stop : equals;
        struct rpc_bytes text = {name_end, 0};

        if (rpc_bytes_equal((struct rpc_bytes){at, (size_t)(name_end - at)}, name)) {
            if (equals != NULL)
                text = (struct rpc_bytes){equals + 1, (size_t)(stop - equals - 1)};
            if (found != TARGET_ABSENT || !integer_of(text, value))
                return TARGET_INVALID;
            found = TARGET_INTEGER;
        }
        at = stop + 1;
    }
    return found;
}

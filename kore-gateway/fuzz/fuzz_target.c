/*
 * target: what a request names.  What is encoded is decoded to the same; a path and its query are all of the text; an
 * integer in a query, however long it is, is judged by an oracle of 128 bits.
 *
 * The input is a request's target.
 */
#include <fuzz.h>
#include <rpclib/percent.h>

#include "guard.h"
#include "target.h"

#define UNTOUCHED INT64_C(-77)

static bool decoded(struct rpc_bytes text, struct rpc_bytes *out, char *room)
{
    size_t size = SIZE_MAX;

    if (!rpc_percent_decode(text, room, &size)) {
        HOLDS(size == SIZE_MAX);
        return false;
    }
    HOLDS(size <= text.size);
    *out = (struct rpc_bytes){room, size};
    return true;
}

/* Every byte of it percent-encoded. */
static void check_encoded(struct rpc_bytes text)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    char *encoded = malloc(3 * text.size + 1), *room = malloc(3 * text.size + 1);
    struct rpc_bytes again;

    HOLDS(encoded != NULL && room != NULL);
    for (size_t i = 0; i < text.size; i++) {
        unsigned char byte = (unsigned char)text.data[i];
        unsigned low = byte & 15;

        encoded[3 * i] = '%';
        encoded[3 * i + 1] = digits[byte >> 4];
        encoded[3 * i + 2] = digits[low > 9 && byte % 3 == 0 ? low + 6 : low];
    }
    HOLDS(decoded((struct rpc_bytes){encoded, 3 * text.size}, &again, room) && fuzz_equal(again, text));
    free(encoded);
    free(room);
}

/* Up to the first `end`, which is taken off as well. */
static struct rpc_bytes part_of(struct rpc_bytes *text, char end)
{
    const char *found = text->size == 0 ? NULL : memchr(text->data, end, text->size);
    struct rpc_bytes part = fuzz_take(text, found == NULL ? text->size : (size_t)(found - text->data));

    fuzz_take(text, 1);
    return part;
}

/* More than INT64_MAX counts as that. */
static bool number_oracle(int64_t *out, struct rpc_bytes digits)
{
    __int128 number = 0;

    for (size_t i = 0; i < digits.size; i++) {
        if (digits.data[i] < '0' || digits.data[i] > '9')
            return false;
        if (number <= INT64_MAX)
            number = number * 10 + (digits.data[i] - '0');
    }
    *out = number <= INT64_MAX ? (int64_t)number : INT64_MAX;
    return digits.size > 0;
}

static bool value_oracle(int64_t *out, struct rpc_bytes value)
{
    char *room = malloc(value.size + 1);
    struct rpc_bytes digits;
    bool sound;

    HOLDS(room != NULL);
    sound = value.size <= GUARD_TARGET_SIZE_MAX && decoded(value, &digits, room) && number_oracle(out, digits);
    free(room);
    return sound;
}

static void check_integer(struct rpc_bytes query, const char *name)
{
    int64_t value = UNTOUCHED, expected = UNTOUCHED;
    enum target_parameter found = target_integer(query, name, &value);
    unsigned named = 0;
    bool sound = true;

    while (query.size > 0) {
        struct rpc_bytes text = part_of(&query, '&'), key = part_of(&text, '=');

        if (rpc_bytes_equal(key, name)) {
            named++;
            sound = sound && value_oracle(&expected, text);
        }
    }
    if (named == 0)
        HOLDS(found == TARGET_ABSENT && value == UNTOUCHED);
    else if (named == 1 && sound)
        HOLDS(found == TARGET_INTEGER && value == expected && value >= 0);
    else
        HOLDS(found == TARGET_INVALID);
}

static void check_digits(struct rpc_bytes text)
{
    int64_t value = UNTOUCHED, expected = UNTOUCHED;

    if (target_digits(text, &value))
        HOLDS(number_oracle(&expected, text) && value == expected);
    else
        HOLDS(!number_oracle(&expected, text) && value == UNTOUCHED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_bytes text = fuzz_bytes(data, size), ignored;
    struct target target = target_of(text);
    char *room = malloc(size + 1);

    HOLDS(room != NULL);
    HOLDS(target.path.size + target.query.size + (target.query.data != NULL) == text.size);
    HOLDS(target.path.size == 0 || memchr(target.path.data, '?', target.path.size) == NULL);
    (void)decoded(target.path, &ignored, room);
    check_encoded(text);
    check_integer(target.query, "limit");
    check_integer(target.query, "after");
    check_digits(text);
    free(room);
    return 0;
}

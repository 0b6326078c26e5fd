/*
 * fuzz: what every fuzzer shares.  Each checks properties, not only that nothing crashes; a property that does not hold
 * ends the program, so that libFuzzer keeps the input.
 *
 * A fuzzer is built in two ways: with libFuzzer, which makes inputs up (`make fuzz`), and with replay.c, which runs those
 * that are kept in corpus/ as an ordinary test.
 */
#ifndef RPCLIB_FUZZ_FUZZ_H
#define RPCLIB_FUZZ_FUZZ_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "rpclib/bytes.h"

/* The entry point that libFuzzer wants.  The input may be NULL when its size is 0.  Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Told where a fuzzer that catches what is printed does not catch it. */
#define HOLDS(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            dprintf(STDERR_FILENO, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                              \
        }                                                                                         \
    } while (0)

static inline struct rpc_bytes fuzz_bytes(const uint8_t *data, size_t size)
{
    return (struct rpc_bytes){(const char *)data, size};
}

/* The next byte, taken off; 0 when there is none. */
static inline uint8_t fuzz_byte(struct rpc_bytes *input)
{
    if (input->size == 0)
        return 0;
    input->size--;
    return (uint8_t)*input->data++;
}

/* The next `size` bytes, taken off; fewer where there are fewer. */
static inline struct rpc_bytes fuzz_take(struct rpc_bytes *input, size_t size)
{
    struct rpc_bytes taken = {input->data, size < input->size ? size : input->size};

    if (taken.size > 0)
        *input = (struct rpc_bytes){input->data + taken.size, input->size - taken.size};
    return taken;
}

/* A copy that ends where the bytes end, so that a sanitizer sees a reader that goes on; the caller's to free. */
static inline char *fuzz_exact(struct rpc_bytes bytes)
{
    char *copy = malloc(bytes.size > 0 ? bytes.size : 1);

    HOLDS(copy != NULL);
    if (bytes.size > 0)
        memcpy(copy, bytes.data, bytes.size);
    return copy;
}

/* A string of them, up to the first NUL; the caller's to free. */
static inline char *fuzz_string(struct rpc_bytes bytes)
{
    char *copy = calloc(bytes.size + 1, 1);

    HOLDS(copy != NULL);
    for (size_t i = 0; i < bytes.size && bytes.data[i] != '\0'; i++)
        copy[i] = bytes.data[i];
    return copy;
}

/* Stands where a password stands: nothing that is shown or logged may hold it. */
#define FUZZ_MARK "Zq9xW7"

static inline const char *fuzz_behind_scheme(const char *uri) /* NULL: it has none */
{
    const char *scheme = strstr(uri, "://");

    return scheme == NULL ? NULL : scheme + 3;
}

/*
 * A copy of the URI with the mark between the first colon from `begin` on and the last at-sign; the caller's to free.  NULL
 * when there is no such place, or `begin` is NULL.
 */
static inline char *fuzz_marked(const char *uri, const char *begin, uint8_t where)
{
    const char *colon = begin == NULL ? NULL : strchr(begin, ':'), *at_sign = strrchr(uri, '@');
    char *marked;
    size_t place;

    if (colon == NULL || at_sign == NULL || at_sign < colon)
        return NULL;
    place = (size_t)(colon + 1 - uri) + where % (size_t)(at_sign - colon);
    HOLDS(asprintf(&marked, "%.*s" FUZZ_MARK "%s", (int)place, uri, uri + place) > 0);
    return marked;
}

/* Who reads a URI: `parse` fills `out` and leaves it as it is when it refuses; `check` what was taken, and clears it. */
struct fuzz_uri_reader {
    size_t out_size, reason_size;
    bool (*parse)(void *out, const char *text, char *reason);
    void (*check)(void *taken, const char *text);
};

/* What is refused leaves nothing behind, and no part of what stands where a password does gets into the reason. */
static inline void fuzz_uri(const struct fuzz_uri_reader *reader, const char *text)
{
    unsigned char *out = malloc(reader->out_size);
    char *reason = malloc(reader->reason_size);

    HOLDS(out != NULL && reason != NULL);
    memset(out, 0xA5, reader->out_size);
    memset(reason, 'x', reader->reason_size);
    if (reader->parse(out, text, reason)) {
        reader->check(out, text);
    } else {
        for (size_t i = 0; i < reader->out_size; i++)
            HOLDS(out[i] == 0xA5);
        HOLDS(memchr(reason, '\0', reader->reason_size) != NULL && reason[0] != '\0');
        HOLDS(strstr(reason, FUZZ_MARK) == NULL);
    }
    free(reason);
    free(out);
}

/* An input whose first byte says where in the password the mark is put; the rest is a URI, read without it and with it. */
static inline void fuzz_uri_marked(const struct fuzz_uri_reader *reader, struct rpc_bytes input)
{
    uint8_t where = fuzz_byte(&input);
    char *text = fuzz_string(input), *marked = fuzz_marked(text, fuzz_behind_scheme(text), where);

    fuzz_uri(reader, text);
    if (marked != NULL)
        fuzz_uri(reader, marked);
    free(marked);
    free(text);
}

static inline bool fuzz_equal(struct rpc_bytes one, struct rpc_bytes other)
{
    return one.size == other.size && (one.size == 0 || memcmp(one.data, other.data, one.size) == 0);
}

/* Whether `part` occurs in `whole`. */
static inline bool fuzz_contains(struct rpc_bytes whole, const char *part)
{
    return whole.size > 0 && memmem(whole.data, whole.size, part, strlen(part)) != NULL;
}

/* jansson's own judgement of UTF-8, none of ours. */
static inline bool fuzz_is_utf8(struct rpc_bytes text)
{
    json_t *value = json_stringn(text.size > 0 ? text.data : "", text.size);
    bool is = value != NULL;

    json_decref(value);
    return is;
}

/* Small random numbers that an input's seed decides. */
static inline uint32_t fuzz_random(uint32_t *seed, uint32_t below)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)*seed * below >> 32);
}

#endif

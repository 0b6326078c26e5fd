/*
 * redis_uri: what is taken is written again and taken as the same; what is refused leaves nothing behind, and no part of
 * what stands where a password does gets into the reason.
 *
 * The first byte says where in the password the harness puts a mark, the rest is a URI.
 */
#include <fuzz.h>

#include "redis_uri.h"

static void append_encoded(char **at, const char *text)
{
    for (; text != NULL && *text != '\0'; text++)
        *at += sprintf(*at, "%%%02X", (unsigned char)*text);
}

static bool are_equal(const char *one, const char *other)
{
    return one == NULL || other == NULL ? one == other : strcmp(one, other) == 0;
}

static size_t length(const char *text)
{
    return text == NULL ? 0 : strlen(text);
}

static void check_round_trip(const struct redis_uri *uri)
{
    char *text = malloc(3 * (length(uri->user) + length(uri->password) + length(uri->host)) + 64), *at = text;
    char reason[REDIS_URI_REASON_SIZE];
    struct redis_uri again;

    HOLDS(text != NULL);
    at += sprintf(at, "redis://");
    if (uri->password != NULL) {
        append_encoded(&at, uri->user);
        *at++ = ':';
        append_encoded(&at, uri->password);
        *at++ = '@';
    }
    *at++ = '[';
    append_encoded(&at, uri->host);
    sprintf(at, "]:%u/%d", uri->port, uri->database);
    HOLDS(redis_uri_read(&again, text, reason));
    HOLDS(are_equal(uri->user, again.user) && are_equal(uri->password, again.password));
    HOLDS(are_equal(uri->host, again.host) && uri->port == again.port && uri->database == again.database);
    redis_uri_clear(&again);
    free(text);
}

static bool parse(void *out, const char *text, char *reason)
{
    return redis_uri_read(out, text, reason);
}

static void check(void *taken, const char *text)
{
    struct redis_uri *uri = taken;

    HOLDS(uri->host != NULL && uri->host[0] != '\0' && strpbrk(uri->host, " \t\r\n/@") == NULL);
    HOLDS(uri->port > 0 && uri->database >= 0 && uri->database <= REDIS_URI_DATABASE_MAX);
    HOLDS(uri->user == NULL || uri->password != NULL);
    HOLDS(length(uri->host) + length(uri->user) + length(uri->password) <= strlen(text) + strlen("localhost"));
    check_round_trip(uri);
    redis_uri_clear(uri);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_uri_reader reader = {sizeof(struct redis_uri), REDIS_URI_REASON_SIZE, parse, check};

    fuzz_uri_marked(&reader, fuzz_bytes(data, size));
    return 0;
}

/* REDIS_URI: what is understood, and that no refusal shows a secret. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "redis_uri.h"

static void same(const char *got, const char *expected, const char *uri)
{
    if ((got == NULL) != (expected == NULL) || (got != NULL && strcmp(got, expected) != 0))
        fail_msg("%s: %s, not %s", uri, got == NULL ? "nothing" : got, expected == NULL ? "nothing" : expected);
}

static void is(const char *text, const char *host, int port, int database, const char *user, const char *password)
{
    char reason[REDIS_URI_REASON_SIZE];
    struct redis_uri uri;

    if (!redis_uri_read(&uri, text, reason))
        fail_msg("%s is refused: %s", text, reason);
    same(uri.host, host, text);
    same(uri.user, user, text);
    same(uri.password, password, text);
    if (uri.port != port || uri.database != database)
        fail_msg("%s: port %d, database %d", text, uri.port, uri.database);
    redis_uri_clear(&uri);
    assert_null(uri.password);
}

static void is_refused(const char *text, const char *word)
{
    struct redis_uri uri = {.port = 4711};
    char reason[REDIS_URI_REASON_SIZE] = "";

    if (redis_uri_read(&uri, text, reason))
        fail_msg("%s is taken", text);
    if (strstr(reason, word) == NULL)
        fail_msg("%s: \"%s\" does not say \"%s\"", text, reason, word);
    assert_null(strstr(reason, "sesame"));
    assert_int_equal(uri.port, 4711);
}

static void test_where(void **state)
{
    (void)state;
    is("redis://localhost:6379/0", "localhost", 6379, 0, NULL, NULL);
    is("redis://localhost", "localhost", 6379, 0, NULL, NULL);
    is("redis://localhost/", "localhost", 6379, 0, NULL, NULL);
    is("REDIS://Localhost/15", "Localhost", 6379, 15, NULL, NULL);
    is("redis://127.0.0.1:7000/dev", "127.0.0.1", 7000, 0, NULL, NULL);
    is("redis://[::1]:7000/3", "::1", 7000, 3, NULL, NULL);
    is("redis://[fe80::1%25eth0]", "fe80::1%eth0", 6379, 0, NULL, NULL);
    is("redis://:1", "localhost", 1, 0, NULL, NULL);
    is("redis:///2", "localhost", 6379, 2, NULL, NULL);
    is("redis://h:65535/007", "h", 65535, 7, NULL, NULL);
}

static void test_login(void **state)
{
    (void)state;
    is("redis://:sesame@h", "h", 6379, 0, NULL, "sesame");
    is("redis://ali:sesame@h:1/2", "h", 1, 2, "ali", "sesame");
    is("redis://a%3Ab:p%40s%2Fs%25@h", "h", 6379, 0, "a:b", "p@s/s%");
    is("redis://ali:open@sesame@h", "h", 6379, 0, "ali", "open@sesame");
    is("redis://ali:open:sesame@h", "h", 6379, 0, "ali", "open:sesame");
    is("redis://%C3%BC:%c3%bc@[::1]", "::1", 6379, 0, "ü", "ü");
}

static void test_refusals(void **state)
{
    (void)state;
    is_refused("", "redis://");
    is_refused("localhost:6379", "redis://");
    is_refused("redis:/h", "redis://");
    is_refused("http://h", "scheme");
    is_refused("unix:///tmp/redis.sock", "scheme");
    is_refused("rediss://:sesame@h", "TLS");
    is_refused("redis+sentinel://:sesame@h", "Sentinel");
    is_refused("redis+socket:///tmp/x", "Sentinel");
    is_refused("redis://h:0", "port");
    is_refused("redis://h:65536", "port");
    is_refused("redis://h:", "port");
    is_refused("redis://h:12a", "port");
    is_refused("redis://h:-1", "port");
    is_refused("redis://h:99999999999999999999", "port");
    is_refused("redis://:sesame@h:port", "port");
    is_refused("redis://::1", "port");
    is_refused("redis://[::1", "]");
    is_refused("redis://[::1]6379", "]");
    is_refused("redis://h/prod", "database");
    is_refused("redis://h/-1", "database");
    is_refused("redis://h/1/2", "database");
    is_refused("redis://h/99999999", "database");
    is_refused("redis://h?db=1", "options");
    is_refused("redis://:open?sesame@h", "options");
    is_refused("redis://h#1", "options");
    is_refused("redis://sesame@h", "user:password");
    is_refused("redis://ali:@h", "user:password");
    is_refused("redis://@h", "user:password");
    is_refused("redis://:sesame%@h", "password");
    is_refused("redis://:sesame%4@h", "password");
    is_refused("redis://:sesame%zz@h", "password");
    is_refused("redis://:sesame%00@h", "password");
    is_refused("redis://%00:sesame@h", "user");
    is_refused("redis://h%00", "host");
    is_refused("redis://a b", "host");
    is_refused("redis://a%0Ab", "host");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where),
        cmocka_unit_test(test_login),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

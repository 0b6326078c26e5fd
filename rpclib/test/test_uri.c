/* rpc_uri: AMQP URIs, among them the examples of RabbitMQ's specification and what Nameko's users write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "uri.h"

#define RANDOM_URIS 40000

static void uri_is_at(const char *text, const char *user, const char *password, const char *host, uint16_t port,
                      const char *vhost, int line)
{
    char reason[RPC_URI_REASON_SIZE];
    struct rpc_uri uri;

    if (!rpc_uri_parse(&uri, text, reason))
        fail_msg("line %d: %s", line, reason);
    if (strcmp(uri.user, user) != 0 || strcmp(uri.password, password) != 0 || strcmp(uri.host, host) != 0 ||
        uri.port != port || strcmp(uri.vhost, vhost) != 0)
        fail_msg("line %d: user \"%s\" password \"%s\" host \"%s\" port %u vhost \"%s\"", line, uri.user, uri.password,
                 uri.host, uri.port, uri.vhost);
    assert_string_equal(reason, "");
    rpc_uri_clear(&uri);
    rpc_uri_clear(&uri);
}

static void uri_is_refused_at(const char *text, const char *expected, int line)
{
    char reason[RPC_URI_REASON_SIZE] = "";
    struct rpc_uri uri;

    if (rpc_uri_parse(&uri, text, reason))
        fail_msg("line %d: taken", line);
    if (strcmp(reason, expected) != 0)
        fail_msg("line %d: \"%s\" instead of \"%s\"", line, reason, expected);
}

#define uri_is(text, user, password, host, port, vhost) uri_is_at(text, user, password, host, port, vhost, __LINE__)
#define uri_is_refused(text, reason)                    uri_is_refused_at(text, reason, __LINE__)

static void test_parts(void **state)
{
    (void)state;
    uri_is("amqp://user:pass@host:10000/vhost", "user", "pass", "host", 10000, "vhost");
    uri_is("amqp://user%61:%61pass@ho%61st:10000/v%2fhost", "usera", "apass", "hoast", 10000, "v/host");
    uri_is("amqp://", "guest", "guest", "localhost", 5672, "/");
    uri_is("amqp://:@/", "", "", "localhost", 5672, "/");
    uri_is("amqp://user@", "user", "guest", "localhost", 5672, "/");
    uri_is("amqp://user:pass@", "user", "pass", "localhost", 5672, "/");
    uri_is("amqp://host", "guest", "guest", "host", 5672, "/");
    uri_is("amqp://:10000", "guest", "guest", "localhost", 10000, "/");
    uri_is("amqp:///vhost", "guest", "guest", "localhost", 5672, "vhost");
    uri_is("amqp://host/", "guest", "guest", "host", 5672, "/");
    uri_is("amqp://host//", "guest", "guest", "host", 5672, "/");
    uri_is("amqp://host/%2f", "guest", "guest", "host", 5672, "/");
    uri_is("amqp://host/%2Fa/b", "guest", "guest", "host", 5672, "/a/b");
    uri_is("amqp://host?heartbeat=1", "guest", "guest", "host", 5672, "/");
    uri_is("amqp://host/?", "guest", "guest", "host", 5672, "/");
    uri_is("amqp://[::1]", "guest", "guest", "::1", 5672, "/");
    uri_is("amqp://[fe80::1%25eth0]:1/v", "guest", "guest", "fe80::1%eth0", 1, "v");
    uri_is("amqp://u:a:b@127.0.0.1:65535/v", "u", "a:b", "127.0.0.1", 65535, "v");
    uri_is("amqp://u:%40%2F%3F%23%25%3A@h/%20", "u", "@/?#%:", "h", 5672, " ");
    uri_is("amqps://host", "guest", "guest", "host", 5671, "/");
    uri_is("AMQPS://host", "guest", "guest", "host", 5671, "/");
    uri_is("pyamqp://guest:guest@rabbit", "guest", "guest", "rabbit", 5672, "/");
    uri_is("amqp://\xC3\xA9:\xC3\xA9@host/\xC3\xA9", "\xC3\xA9", "\xC3\xA9", "host", 5672, "\xC3\xA9");
}

static void test_refused(void **state)
{
    static const char scheme[] = "must begin with amqp:// or amqps://";
    static const char port[] = "the port must be a number from 1 to 65535";
    static const char space[] = "a space or control character must be written %20 and so on";
    static const char behind[] = "an @ behind the host must be written %40, a / or ? in user or password %2F or %3F";

    (void)state;
    uri_is_refused("", scheme);
    uri_is_refused("amqp:/host", scheme);
    uri_is_refused("http://host", scheme);
    uri_is_refused("host:5672", scheme);
    uri_is_refused(" amqp://host", space);
    uri_is_refused("amqp://host\n", space);
    uri_is_refused("amqp://host:", port);
    uri_is_refused("amqp://host:0", port);
    uri_is_refused("amqp://host:65536", port);
    uri_is_refused("amqp://host:99999999999999999999", port);
    uri_is_refused("amqp://host:-1", port);
    uri_is_refused("amqp://host:+1", port);
    uri_is_refused("amqp://host:56x", port);
    uri_is_refused("amqp://host:%35", port);
    uri_is_refused("amqp://[::1]5672", port);
    uri_is_refused("amqp://::1", "an IPv6 address must stand in [ ]");
    uri_is_refused("amqp://::1:5672/", "an IPv6 address must stand in [ ]");
    uri_is_refused("amqp://[::1", "the [ of an IPv6 address is not closed");
    uri_is_refused("amqp://[]", "what stands in [ ] is no IPv6 address");
    uri_is_refused("amqp://[host]", "what stands in [ ] is no IPv6 address");
    uri_is_refused("amqp://[1.2.3.4]", "what stands in [ ] is no IPv6 address");
    uri_is_refused("amqp://ho%20st", "the host has a character in it that no host name has");
    uri_is_refused("amqp://ho%40st", "the host has a character in it that no host name has");
    uri_is_refused("amqp://ho%", "the host has a % without two hexadecimal digits behind it");
    uri_is_refused("amqp://ho%4", "the host has a % without two hexadecimal digits behind it");
    uri_is_refused("amqp://u%zz:p@host", "the user has a % without two hexadecimal digits behind it");
    uri_is_refused("amqp://u:p%2@host", "the password has a % without two hexadecimal digits behind it");
    uri_is_refused("amqp://u:%00@host", "the password has a NUL in it");
    uri_is_refused("amqp://host/%00", "the vhost has a NUL in it");
    uri_is_refused("amqp://u:s3@cr3t@host", "an @ in user or password must be written %40");
    uri_is_refused("amqp://u:s3/cr3t@host", behind);
    uri_is_refused("amqp://u:12/cr3t@host", behind);
    uri_is_refused("amqp://u:12?cr3t=1@host", behind);
    uri_is_refused("amqp://u:s3#cr3t@host", "a # must be written %23");
    uri_is_refused("amqp://host/a@b", behind);
}

static void test_options(void **state)
{
    static const char known[] = "known are heartbeat, cafile, certfile, keyfile";
    char reason[RPC_URI_REASON_SIZE];
    char expected[RPC_URI_REASON_SIZE];
    struct rpc_uri uri;

    (void)state;
    assert_true(rpc_uri_parse(
        &uri, "amqps://h/?heartbeat=10&cafile=%2Fetc/ca.pem&&certfile=a%26b.pem&keyfile=key%3D.pem", reason));
    assert_true(uri.tls);
    assert_int_equal(uri.heartbeat_s, 10);
    assert_string_equal(uri.cafile, "/etc/ca.pem");
    assert_string_equal(uri.certfile, "a&b.pem");
    assert_string_equal(uri.keyfile, "key=.pem");
    rpc_uri_clear(&uri);

    assert_true(rpc_uri_parse(&uri, "amqp://h", reason));
    assert_false(uri.tls);
    assert_int_equal(uri.heartbeat_s, -1);
    assert_null(uri.cafile);
    assert_null(uri.certfile);
    assert_null(uri.keyfile);
    rpc_uri_clear(&uri);

    assert_true(rpc_uri_parse(&uri, "amqp://h/v?heartbeat=0", reason));
    assert_int_equal(uri.heartbeat_s, 0);
    rpc_uri_clear(&uri);

    snprintf(expected, sizeof(expected), "unknown option \"verify\"; %s", known);
    uri_is_refused("amqps://h?verify=none", expected);
    snprintf(expected, sizeof(expected), "unknown option \"Heartbeat\"; %s", known);
    uri_is_refused("amqps://h?Heartbeat=1", expected);
    snprintf(expected, sizeof(expected), "unknown option \"%.40s\"; %s", "a123456789b123456789c123456789d123456789e",
             known);
    uri_is_refused("amqps://h?a123456789b123456789c123456789d123456789e=1", expected);
    snprintf(expected, sizeof(expected), "unknown option; %s", known);
    uri_is_refused("amqps://h?a%62=1", expected);
    uri_is_refused("amqps://h?a?b", expected);
    uri_is_refused("amqp://h?heartbeat", "option heartbeat must be a number of seconds from 0 to 65535");
    uri_is_refused("amqp://h?heartbeat=", "option heartbeat must be a number of seconds from 0 to 65535");
    uri_is_refused("amqp://h?heartbeat=-1", "option heartbeat must be a number of seconds from 0 to 65535");
    uri_is_refused("amqp://h?heartbeat=65536", "option heartbeat must be a number of seconds from 0 to 65535");
    uri_is_refused("amqp://h?heartbeat=1&heartbeat=2", "option heartbeat is given twice");
    uri_is_refused("amqps://h?cafile=a&cafile=b", "option cafile is given twice");
    uri_is_refused("amqps://h?cafile=", "option cafile has no value");
    uri_is_refused("amqps://h?cafile=%zz", "the cafile has a % without two hexadecimal digits behind it");
    uri_is_refused("amqp://h?cafile=a", "option cafile needs amqps://");
    uri_is_refused("amqps://h?keyfile=a", "option keyfile needs certfile");
}

/* A part of `size` bytes between the rest of a URI. */
static void size_is(const char *before, size_t size, const char *behind, const char *refusal)
{
    char *text = malloc(strlen(before) + size + strlen(behind) + 1);
    char reason[RPC_URI_REASON_SIZE];
    struct rpc_uri uri;
    bool sound;

    assert_non_null(text);
    strcpy(text, before);
    memset(text + strlen(before), 'x', size);
    strcpy(text + strlen(before) + size, behind);
    sound = rpc_uri_parse(&uri, text, reason);
    assert_int_equal(sound, refusal == NULL);
    if (refusal != NULL)
        assert_string_equal(reason, refusal);
    else
        rpc_uri_clear(&uri);
    free(text);
}

static void test_sizes(void **state)
{
    (void)state;
    size_is("amqp://", 255, "/", NULL);
    size_is("amqp://", 256, "/", "the host is longer than 255 bytes");
    size_is("amqp://h/", 255, "", NULL);
    size_is("amqp://h/", 256, "", "the vhost is longer than 255 bytes");
    size_is("amqp://", 1024, "@h", NULL);
    size_is("amqp://", 1025, "@h", "the user is longer than 1024 bytes");
    size_is("amqp://u:", 1024, "@h", NULL);
    size_is("amqp://u:", 1025, "@h", "the password is longer than 1024 bytes");
    size_is("amqps://h?cafile=", 4096, "", "the cafile is longer than 4095 bytes");
}

static uint32_t random_below(uint32_t bound)
{
    static uint64_t random_state = 0x853C49E6748FEA9Bu; /* the same URIs in each run */

    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32) % bound;
}

/* Wherever special characters fall: no crash, a reason exactly when refused, and never with the password in it. */
static void test_random_uris_tell_no_password(void **state)
{
    static const char *const pieces[] = {
        "amqp://", "amqps://", "u", ":",   "@",    "/",    "?",           "#",        "&",   "=",   "%",   "%2",
        "%2f",     "[",        "]", "::1", "5672", "host", "heartbeat=1", "cafile=x", "zQx", "zQx", "zQx",
    };
    unsigned taken = 0;

    (void)state;
    for (int i = 0; i < RANDOM_URIS; i++) {
        uint32_t count = random_below(9);
        char text[200] = "amqp://u:zQx";
        char reason[RPC_URI_REASON_SIZE];
        struct rpc_uri uri;
        bool sound;

        for (uint32_t n = 0; n < count; n++)
            strcat(text, pieces[random_below(sizeof(pieces) / sizeof(pieces[0]))]);
        strcat(text, "@host");
        sound = rpc_uri_parse(&uri, text, reason);
        assert_int_equal(sound, reason[0] == '\0');
        if (strstr(reason, "zQx") != NULL)
            fail_msg("%s: %s", text, reason);
        if (!sound)
            continue;
        if (strstr(uri.host, "zQx") != NULL || strstr(uri.vhost, "zQx") != NULL)
            fail_msg("%s: host %s vhost %s", text, uri.host, uri.vhost);
        taken++;
        rpc_uri_clear(&uri);
    }
    assert_true(taken > RANDOM_URIS / 20);
}

static void test_public_check(void **state)
{
    char reason[RPC_URI_REASON_SIZE];

    (void)state;
    assert_true(rpc_uri_check("amqps://u:p@h/v?heartbeat=5", reason));
    assert_false(rpc_uri_check("amqp://h:0", reason));
    assert_string_equal(reason, "the port must be a number from 1 to 65535");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_random_uris_tell_no_password),
        cmocka_unit_test(test_public_check),
    };

    return cmocka_run_group_tests_name("uri", tests, NULL, NULL);
}

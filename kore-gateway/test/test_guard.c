/* guard: what is a request, where it ends, and what is refused; whole, byte by byte, and at random cuts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "guard.h"

#define RANDOM_CUTS 50

static const char *name_of(enum guard_verdict verdict)
{
    switch (verdict) {
    case GUARD_MORE:
        return "more";
    case GUARD_OK:
        return "ok";
    case GUARD_REFUSED:
        return "refused";
    }
    return "?";
}

/* Each look is at a copy of its exact size somewhere else, so that a sanitizer sees a guard that reads on or keeps pointers. */
static enum guard_verdict look(struct guard *guard, const char *text, size_t size)
{
    char *exact = malloc(size == 0 ? 1 : size);
    enum guard_verdict verdict;

    assert_non_null(exact);
    memcpy(exact, text, size);
    verdict = guard_check(guard, (struct rpc_bytes){exact, size});
    free(exact);
    return verdict;
}

/* Feed the text in pieces of 1 to `piece_max` bytes until there is a verdict. */
static enum guard_verdict feed(struct guard *guard, const char *text, size_t size, size_t piece_max)
{
    enum guard_verdict verdict = GUARD_MORE;
    size_t at = 0;

    *guard = (struct guard){0};
    while (at < size && verdict == GUARD_MORE) {
        at += piece_max == 1 ? 1 : 1 + (size_t)rand() % piece_max;
        if (at > size)
            at = size;
        verdict = look(guard, text, at);
    }
    return verdict;
}

static void expect(const struct guard *guard, enum guard_verdict verdict, enum guard_verdict expected, int status,
                   size_t head_size, const char *how, int line)
{
    if (verdict != expected)
        fail_msg("line %d: %s: %s, not %s", line, how, name_of(verdict), name_of(expected));
    if (verdict == GUARD_REFUSED && guard->refusal->status != status)
        fail_msg("line %d: %s: %d, not %d", line, how, guard->refusal->status, status);
    if (verdict == GUARD_OK && guard->request.head_size != head_size)
        fail_msg("line %d: %s: a head of %u bytes, not %zu", line, how, guard->request.head_size, head_size);
}

static void check(struct guard *guard, const char *text, size_t size, enum guard_verdict expected, int status,
                  size_t head_size, int line)
{
    for (int i = 0; i < RANDOM_CUTS; i++)
        expect(guard, feed(guard, text, size, size), expected, status, head_size, "at random cuts", line);
    expect(guard, feed(guard, text, size, 1), expected, status, head_size, "byte by byte", line);
    *guard = (struct guard){0};
    expect(guard, look(guard, text, size), expected, status, head_size, "whole", line);
}

static void refused_at(const char *text, size_t size, int status, int line)
{
    struct guard guard;

    check(&guard, text, size, GUARD_REFUSED, status, 0, line);
}

static void more_at(const char *text, size_t size, int line)
{
    struct guard guard;

    check(&guard, text, size, GUARD_MORE, 0, 0, line);
}

/* The request is sound, and what is behind it is not looked at. */
static struct guard sound_at(const char *head, const char *rest, int line)
{
    char *text = NULL;
    struct guard guard;
    int size = asprintf(&text, "%s%s", head, rest);

    assert_true(size >= 0);
    check(&guard, text, (size_t)size, GUARD_OK, 0, strlen(head), line);
    free(text);
    return guard;
}

#define refused(text, status) refused_at(text, sizeof(text) - 1, status, __LINE__)
#define more(text)            more_at(text, sizeof(text) - 1, __LINE__)
#define sound(head, rest)     sound_at(head, rest, __LINE__)
#define GET(headers)          "GET /products/x HTTP/1.1\r\nHost: x\r\n" headers "\r\n"
#define POST(headers)         "POST /products HTTP/1.1\r\nHost: x\r\n" headers "\r\n"

static void span_is(const char *head, struct guard_span span, const char *expected)
{
    assert_int_equal(span.size, strlen(expected));
    assert_memory_equal(head + span.at, expected, span.size);
}

static void test_requests(void **state)
{
    struct guard guard = sound(GET(""), "");

    (void)state;
    assert_int_equal(guard.request.method, GUARD_GET);
    span_is(GET(""), guard.request.target, "/products/x");
    span_is(GET(""), guard.request.method_name, "GET");
    assert_int_equal(guard.request.body_size, 0);
    assert_true(guard.request.keep_alive);
    assert_false(guard.request.has_key);
    guard = sound(POST("Content-Length: 5\r\n"), "12345GET / HTTP/1.1\r\n");
    assert_int_equal(guard.request.method, GUARD_POST);
    assert_int_equal(guard.request.body_size, 5);
    assert_int_equal(sound(POST("content-length:\t 0005 \t\r\n"), "").request.body_size, 5);
    assert_int_equal(sound(POST("Content-Length: 1048576\r\n"), "").request.body_size, GUARD_BODY_SIZE_MAX);
    assert_int_equal(sound("DELETE /products/x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "").request.method,
                     GUARD_DELETE);
    assert_int_equal(sound("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", "\n\n").request.method, GUARD_HEAD);
    assert_int_equal(sound("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "").request.method, GUARD_PUT);
    assert_int_equal(sound("PATCH / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "").request.method, GUARD_PATCH);
    assert_int_equal(sound("get / HTTP/1.1\r\nHost: x\r\n\r\n", "").request.method, GUARD_OTHER);
    assert_int_equal(sound("BREW / HTTP/1.1\r\nHost: x\r\n\r\n", "").request.method, GUARD_OTHER);
    /* An empty line that the request before has left. */
    assert_int_equal(sound("\r\n" GET(""), "").request.method, GUARD_GET);
    assert_int_equal(sound(GET("X:\r\nY: \t \r\nZ: \x80\xff \"\\\r\n"), "").request.method, GUARD_GET);
    assert_int_equal(sound("GET /a%2Fb?x=<>{}|^`[]\\ HTTP/1.1\r\nHost: x\r\n\r\n", "").request.method, GUARD_GET);
    assert_int_equal(sound("GET / HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", "").request.method, GUARD_GET);
}

static void test_connections(void **state)
{
    (void)state;
    assert_false(sound(GET("Connection: close\r\n"), "").request.keep_alive);
    assert_false(sound(GET("connection: x ,  CLOSE\t, y\r\n"), "").request.keep_alive);
    assert_false(sound(GET("Connection: keep-alive\r\nConnection: close\r\n"), "").request.keep_alive);
    assert_true(sound(GET("Connection: closed, close-not, ,\r\n"), "").request.keep_alive);
    assert_false(sound("GET / HTTP/1.0\r\n\r\n", "").request.keep_alive);
    assert_true(sound("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "").request.keep_alive);
    assert_true(sound(POST("Content-Length: 1\r\nExpect: 100-Continue\r\n"), "").request.expects_continue);
    assert_false(
        sound("POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", "").request.expects_continue);
    refused(POST("Content-Length: 1\r\nExpect: 200-ok\r\n"), 417);
}

static void test_headers_that_are_kept(void **state)
{
    struct guard guard = sound(GET("Idempotency-Key:  a b \r\ntraceparent: 00-x\r\nTRACESTATE: a=1\r\n"), "");

    (void)state;
    assert_true(guard.request.has_key);
    span_is(GET("Idempotency-Key:  a b \r\ntraceparent: 00-x\r\nTRACESTATE: a=1\r\n"), guard.request.idempotency_key,
            "a b");
    span_is(GET("Idempotency-Key:  a b \r\ntraceparent: 00-x\r\nTRACESTATE: a=1\r\n"), guard.request.traceparent,
            "00-x");
    span_is(GET("Idempotency-Key:  a b \r\ntraceparent: 00-x\r\nTRACESTATE: a=1\r\n"), guard.request.tracestate, "a=1");
    guard = sound(GET("traceparent: a\r\ntraceparent: b\r\ntraceparent: c\r\nIdempotency-Key:\r\n"), "");
    assert_int_equal(guard.request.traceparent.size, 0);
    assert_true(guard.request.has_key);
    assert_int_equal(guard.request.idempotency_key.size, 0);
    refused(GET("Idempotency-Key: a\r\nIdempotency-Key: a\r\n"), 400);
}

static void test_incomplete(void **state)
{
    (void)state;
    more("");
    more("\r");
    more("\r\n");
    more("G");
    more("GET / HTTP/1.1");
    more("GET / HTTP/1.1\r");
    more("GET / HTTP/1.1\r\nHost: x\r\n");
    more("GET / HTTP/1.1\r\nHost: x\r\n\r");
}

static void test_line_ends(void **state)
{
    (void)state;
    refused("GET / HTTP/1.1\nHost: x\n\n", 400);
    refused("GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: x\r\n\n", 400);
    refused("\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 400);
    refused("\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 400);
    refused("\r\rGET / HTTP/1.1\r\nHost: x\r\n\r\n", 400);
    refused(GET("X: a\rY: b\r\n"), 400);
    refused(GET("X: a\r\r\n"), 400);
    refused(GET("X: a\r\n b\r\n"), 400);
    refused(GET("X: a\r\n\tb\r\n"), 400);
    refused("GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400);
}

static void test_request_lines(void **state)
{
    (void)state;
    refused("\r\n \r\n", 400);
    refused("hello\r\n", 400);
    refused("GET /\r\n", 400);
    refused("GET  / HTTP/1.1\r\n", 400);
    refused("GET / HTTP/1.1 \r\n", 400);
    refused(" GET / HTTP/1.1\r\n", 400);
    refused("GET\t/\tHTTP/1.1\r\n", 400);
    refused("GET / x HTTP/1.1\r\n", 400);
    refused("GET / HTTP/1.10\r\n", 400);
    refused("GET / http/1.1\r\n", 400);
    refused("GET / HTTP/1.1x\r\n", 400);
    refused("GET / HTTP/2.0\r\n", 505);
    refused("GET / HTTP/1.2\r\n", 505);
    refused("GE(T / HTTP/1.1\r\n", 400);
    refused("GGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGG / HTTP/1.1\r\n", 400);
    refused("GET * HTTP/1.1\r\n", 400);
    refused("GET x HTTP/1.1\r\n", 400);
    refused("GET http://x/ HTTP/1.1\r\n", 400);
    refused("CONNECT x:1 HTTP/1.1\r\n", 400);
    refused("GET /# HTTP/1.1\r\n", 400);
    refused("GET /\x80 HTTP/1.1\r\n", 400);
    refused("GET /\x7f HTTP/1.1\r\n", 400);
    refused("GET /\0 HTTP/1.1\r\n", 400);
    refused("GET /\r HTTP/1.1\r\n", 400);
    refused("\x16\x03\x01", 400); /* TLS: at once, a line end may never come */
    refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400);
}

static void test_header_lines(void **state)
{
    (void)state;
    refused(GET("X\r\n"), 400);
    refused(GET(": x\r\n"), 400);
    refused(GET("X Y: x\r\n"), 400);
    refused(GET("X : x\r\n"), 400);
    refused(GET("X\0: x\r\n"), 400);
    refused(GET("X: a\0b\r\n"), 400);
    refused(GET("X: \x7f\r\n"), 400);
    refused(GET("X: \x1b\r\n"), 400);
    refused(GET("\x80: x\r\n"), 400);
}

static void test_hosts(void **state)
{
    (void)state;
    refused("GET / HTTP/1.1\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHostile: x\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: x y\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n", 400);
    refused("GET / HTTP/1.0\r\nHost: x\r\nhost: x\r\n\r\n", 400);
}

static void test_framing(void **state)
{
    (void)state;
    refused(POST(""), 411);
    refused(POST("Content-Length: 2\r\nContent-Length: 2\r\n"), 400);
    refused(POST("Content-Length: 2\r\nContent-Length: 200\r\n"), 400);
    refused(POST("Content-Length: 2, 2\r\n"), 400);
    refused(POST("Content-Length: -1\r\n"), 400);
    refused(POST("Content-Length: +2\r\n"), 400);
    refused(POST("Content-Length: 0x2\r\n"), 400);
    refused(POST("Content-Length: two\r\n"), 400);
    refused(POST("Content-Length:\r\n"), 400);
    refused(POST("Content-Length: 2 2\r\n"), 400);
    refused(POST("Content-Length: 2.0\r\n"), 400);
    refused(POST("Content-Length: 1048577\r\n"), 413);
    refused(POST("Content-Length: 4294967296\r\n"), 413);
    refused(POST("Content-Length: 18446744073709551618\r\n"), 413);
    refused(POST("Content-Length: 99999999999999999999999999999999999999999999999999999999999999\r\n"), 413);
    refused(POST("Content-Length : 2\r\n"), 400);
    refused(GET("Content-Length: 1\r\n"), 400);
    refused(GET("Content-Length: 1048577\r\n"), 400);
    refused("DELETE / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n", 400);
    refused("BREW / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n", 400);
    refused(POST("Transfer-Encoding: chunked\r\n"), 400);
    refused(POST("Content-Length: 2\r\nTRANSFER-ENCODING: identity\r\n"), 400);
    refused(GET("Transfer-Encoding:\r\n"), 400);
}

/* A head of `size` bytes in all, the last header of which fills it. */
static char *head_of(size_t size, size_t target_size, size_t headers)
{
    static const char begin[] = "GET /", middle[] = " HTTP/1.1\r\nHost: x\r\n", end[] = "\r\n\r\n";
    char *head = malloc(size + 1), *at = head;
    size_t rest;

    assert_non_null(head);
    at = stpcpy(at, begin);
    memset(at, 'x', target_size - 1);
    at = stpcpy(at + target_size - 1, middle);
    for (size_t i = 0; i < headers; i++)
        at = stpcpy(at, "X: y\r\n");
    at = stpcpy(at, "Z: ");
    rest = size - (size_t)(at - head) - strlen(end);
    memset(at, 'z', rest);
    stpcpy(at + rest, end);
    return head;
}

static void head_is(size_t size, size_t target_size, size_t headers, enum guard_verdict expected, int status, int line)
{
    char *head = head_of(size, target_size, headers);
    struct guard guard = {0};

    expect(&guard, look(&guard, head, size), expected, status, size, "whole", line);
    expect(&guard, feed(&guard, head, size, 1), expected, status, size, "byte by byte", line);
    free(head);
}

static void test_limits(void **state)
{
    (void)state;
    head_is(GUARD_HEAD_SIZE_MAX, 1, 0, GUARD_OK, 0, __LINE__);
    head_is(GUARD_HEAD_SIZE_MAX + 1, 1, 0, GUARD_REFUSED, 431, __LINE__);
    head_is(4 * GUARD_HEAD_SIZE_MAX, 1, 0, GUARD_REFUSED, 431, __LINE__);
    head_is(9000, GUARD_TARGET_SIZE_MAX, 0, GUARD_OK, 0, __LINE__);
    head_is(9000, GUARD_TARGET_SIZE_MAX + 1, 0, GUARD_REFUSED, 414, __LINE__);
    head_is(1000, 1, GUARD_HEADERS_MAX - 2, GUARD_OK, 0, __LINE__); /* and Host, and Z */
    head_is(1000, 1, GUARD_HEADERS_MAX - 1, GUARD_REFUSED, 400, __LINE__);
}

static void test_endless_lines(void **state)
{
    static char line[2 * GUARD_HEAD_SIZE_MAX];
    struct guard guard = {0};

    (void)state;
    memset(line, 'x', sizeof(line));
    expect(&guard, look(&guard, line, sizeof(line)), GUARD_REFUSED, 414, 0, "a method without end", __LINE__);
    memcpy(line, "GET /", 5);
    expect(&guard, feed(&guard, line, sizeof(line), 1), GUARD_REFUSED, 414, 0, "a target without end", __LINE__);
    memcpy(line, "GET / HTTP/1.1\r\nX: ", 19);
    expect(&guard, feed(&guard, line, sizeof(line), 1), GUARD_REFUSED, 431, 0, "a header without end", __LINE__);
}

/* A request line that is too long and wrong as well gets the same answer, whether it comes whole or in parts. */
static void test_long_lines(void **state)
{
    static const struct {
        const char *before, *behind;
    } lines[] = {
        {"", " / HTTP/1.1\r\n"}, {"GET ", " HTTP/1.1\r\n"}, {"GET /", "\x01 HTTP/1.1\r\n"}, {"GET /", " HTTP/1.1\n"}};
    char line[GUARD_HEAD_SIZE_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        size_t size = (size_t)snprintf(line, sizeof(line), "%s%0*d%s", lines[i].before, 9000, 0, lines[i].behind);
        struct guard guard = {0};

        expect(&guard, look(&guard, line, size), GUARD_REFUSED, 414, 0, "whole", __LINE__);
        expect(&guard, feed(&guard, line, size, 1), GUARD_REFUSED, 414, 0, "byte by byte", __LINE__);
    }
}

/* A verdict once given stays. */
static void test_verdicts_stay(void **state)
{
    static const char text[] = GET("") "GET / HTTP/1.1\n";
    struct guard guard = {0};

    (void)state;
    assert_int_equal(look(&guard, text, sizeof(GET("")) - 1), GUARD_OK);
    assert_int_equal(look(&guard, text, sizeof(text) - 1), GUARD_OK);
    guard = (struct guard){0};
    assert_int_equal(look(&guard, text + sizeof(GET("")) - 1, 15), GUARD_REFUSED);
    assert_int_equal(look(&guard, text + sizeof(GET("")) - 1, 15), GUARD_REFUSED);
}

/* Noise made of the pieces that matter: however it is cut, the verdict is one and the same. */
static void test_noise(void **state)
{
    static const char *const pieces[] = {
        "GET ",
        "POST ",
        "/",
        "/x",
        " HTTP/1.1",
        "\r\n",
        "\r\n",
        "\r",
        "\n",
        "Host: x",
        "Content-Length: ",
        "1",
        "99",
        ": ",
        "a",
        " ",
        ",",
        "Transfer-Encoding: chunked",
        "\t",
    };

    (void)state;
    for (int round = 0; round < 20000; round++) {
        char text[512] = "GET / HTTP/1.1\r\nHost: x\r\n";
        size_t size = round % 2 == 0 ? 0 : strlen(text), count = (size_t)rand() % 14;
        struct guard whole = {0}, cut;
        enum guard_verdict verdict;

        for (size_t i = 0; i < count; i++) {
            const char *piece = pieces[(size_t)rand() % (sizeof(pieces) / sizeof(pieces[0]))];

            memcpy(text + size, piece, strlen(piece));
            size += strlen(piece);
        }
        verdict = look(&whole, text, size);
        if (size > 0 && feed(&cut, text, size, 3) != verdict)
            fail_msg("round %d: another verdict when cut: %.*s", round, (int)size, text);
        if (verdict == GUARD_OK && memcmp(&whole.request, &cut.request, sizeof(whole.request)) != 0)
            fail_msg("round %d: another request when cut: %.*s", round, (int)size, text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_connections),
        cmocka_unit_test(test_headers_that_are_kept),
        cmocka_unit_test(test_incomplete),
        cmocka_unit_test(test_line_ends),
        cmocka_unit_test(test_request_lines),
        cmocka_unit_test(test_header_lines),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_framing),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_endless_lines),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_verdicts_stay),
        cmocka_unit_test(test_noise),
    };

    srand(20);
    return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}

/* answer: what leaves, to the byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "answer.h"

#define NOW_S 784111777 /* Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's own example */
#define COMMON \
    "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"

static void wire_is(struct answer *answer, struct answer_sending sending, const char *expected, int line)
{
    struct rpc_bytes wire;

    sending.now_s = NOW_S;
    assert_true(answer_finish(answer, &sending, &wire));
    if (!rpc_bytes_equal(wire, expected))
        fail_msg("line %d: got:\n%.*s\nnot:\n%s", line, (int)wire.size, wire.data, expected);
    answer_clear(answer);
}

#define leaves_as(answer, expected, ...) wire_is(answer, (struct answer_sending){__VA_ARGS__}, expected, __LINE__)

static struct answer with_body(int status, const char *body)
{
    struct answer answer = {0};

    answer_begin(&answer);
    rpc_text_append(answer_body(&answer), rpc_bytes_of(body));
    answer_end(&answer, status);
    return answer;
}

static void test_bodies(void **state)
{
    struct answer answer = with_body(200, "{}");

    (void)state;
    leaves_as(&answer, "HTTP/1.1 200 OK\r\n" COMMON "Content-Length: 2\r\n\r\n{}", .close = false);
    answer = with_body(200, "{}");
    leaves_as(&answer, "HTTP/1.1 200 OK\r\n" COMMON "Content-Length: 2\r\nConnection: close\r\n\r\n{}", .close = true);
    answer = with_body(200, "{}");
    leaves_as(&answer, "HTTP/1.1 200 OK\r\n" COMMON "Content-Length: 2\r\nConnection: keep-alive\r\n\r\n{}",
              .say_keep_alive = true);
    answer = with_body(200, "{}");
    leaves_as(&answer, "HTTP/1.1 200 OK\r\n" COMMON "Content-Length: 2\r\n\r\n", .without_body = true);
    answer = with_body(204, "");
    leaves_as(&answer, "HTTP/1.1 204 No Content\r\n" COMMON "\r\n", .close = false);
}

static void test_large_body(void **state)
{
    static char body[100001];
    struct answer answer;
    struct rpc_bytes wire;

    (void)state;
    memset(body, 'b', sizeof(body) - 1);
    answer = with_body(200, body);
    assert_true(answer_finish(&answer, &(struct answer_sending){.now_s = NOW_S}, &wire));
    assert_memory_equal(wire.data + wire.size - 100000, body, 100000);
    assert_non_null(memmem(wire.data, wire.size, "Content-Length: 100000\r\n\r\nb", 27));
    answer_clear(&answer);
}

static void test_headers(void **state)
{
    struct answer answer = with_body(200, "[]");

    (void)state;
    strcpy(answer.link, "</orders?after=2147483647&limit=10000>; rel=\"next\"");
    leaves_as(&answer,
              "HTTP/1.1 200 OK\r\n" COMMON
              "Content-Length: 2\r\nLink: </orders?after=2147483647&limit=10000>; rel=\"next\"\r\n\r\n[]",
              .close = false);
    answer = (struct answer){.allow = "DELETE, GET, HEAD"};
    answer_error(&answer, 405, "X", RPC_BYTES("y"));
    leaves_as(&answer,
              "HTTP/1.1 405 Method Not Allowed\r\n" COMMON
              "Content-Length: 30\r\nAllow: DELETE, GET, HEAD\r\n\r\n{\"error\": \"X\", \"message\": \"y\"}",
              .close = false);
    answer = (struct answer){.retry_after = true};
    answer_error(&answer, 503, "X", RPC_BYTES("y"));
    leaves_as(&answer,
              "HTTP/1.1 503 Service Unavailable\r\n" COMMON
              "Content-Length: 30\r\nRetry-After: 1\r\n\r\n{\"error\": \"X\", \"message\": \"y\"}",
              .close = false);
}

/* An error drops what was begun, and whatever it repeats stays within its string. */
static void test_errors(void **state)
{
    struct answer answer = with_body(200, "half of something");

    (void)state;
    answer_error(&answer, 404, "PRODUCT_NOT_FOUND", RPC_BYTES("Product Id a\"b\\\n\x01\xc3\xbc"));
    leaves_as(&answer,
              "HTTP/1.1 404 Not Found\r\n" COMMON "Content-Length: 76\r\n\r\n"
              "{\"error\": \"PRODUCT_NOT_FOUND\", \"message\": \"Product Id a\\\"b\\\\\\u000a\\u0001\xc3\xbc\"}",
              .close = false);
}

/* Memory ran out while the body was written: an honest answer, with none of its headers, and never half a body. */
static void test_no_memory(void **state)
{
    struct answer answer = {.link = "x", .allow = "GET"};

    (void)state;
    answer_begin(&answer);
    rpc_text_append(answer_body(&answer), RPC_BYTES("half of something"));
    answer.text.failed = true;
    answer_end(&answer, 200);
    assert_int_equal(answer.status, 503);
    leaves_as(&answer,
              "HTTP/1.1 503 Service Unavailable\r\n" COMMON "Content-Length: 94\r\nRetry-After: 1\r\n\r\n"
              "{\"error\": \"SERVICE_UNAVAILABLE\", \"message\": \"Out of memory for the answer; nothing was done.\"}",
              .close = false);
}

/* The same for a change, which may have been made; when to come back is not for us to say. */
static void test_no_memory_for_a_change(void **state)
{
    struct answer answer = {.of_change = true, .retry_after = true};

    (void)state;
    answer_begin(&answer);
    answer.text.failed = true;
    answer_end(&answer, 200);
    assert_int_equal(answer.status, 504);
    leaves_as(&answer,
              "HTTP/1.1 504 Gateway Timeout\r\n" COMMON "Content-Length: 95\r\n\r\n"
              "{\"error\": \"OUTCOME_UNKNOWN\", \"message\": \"Out of memory for the answer; it may have been done.\"}",
              .close = false);
}

/* Not even that fits: nothing leaves. */
static void test_no_memory_at_all(void **state)
{
    struct answer answer = with_body(200, "whole");
    struct rpc_bytes wire;

    (void)state;
    answer.text.failed = true;
    assert_false(answer_finish(&answer, &(struct answer_sending){.now_s = NOW_S}, &wire));
    answer_clear(&answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bodies),           cmocka_unit_test(test_large_body),
        cmocka_unit_test(test_headers),          cmocka_unit_test(test_errors),
        cmocka_unit_test(test_no_memory),        cmocka_unit_test(test_no_memory_for_a_change),
        cmocka_unit_test(test_no_memory_at_all),
    };

    return cmocka_run_group_tests_name("answer", tests, NULL, NULL);
}

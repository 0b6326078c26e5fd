/* hiredis' parser on our memory: the same replies, however the bytes are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "reply_memory.h"

#define LARGE (300 * 1024)

static const char stream[] = "*5\r\n$1\r\na\r\n$0\r\n\r\n$-1\r\n:42\r\n*2\r\n+OK\r\n-ERR no\r\n"
                             "*0\r\n"
                             ":-9223372036854775808\r\n"
                             "-LOADING later\r\n"
                             "$3\r\n\0\r\n\r\n";

static void check_reply(int number, const redisReply *reply)
{
    switch (number) {
    case 0:
        assert_int_equal(reply->type, REDIS_REPLY_ARRAY);
        assert_int_equal(reply->elements, 5);
        assert_string_equal(reply->element[0]->str, "a");
        assert_int_equal(reply->element[1]->type, REDIS_REPLY_STRING);
        assert_int_equal(reply->element[1]->len, 0);
        assert_string_equal(reply->element[1]->str, "");
        assert_int_equal(reply->element[2]->type, REDIS_REPLY_NIL);
        assert_int_equal(reply->element[3]->integer, 42);
        assert_int_equal(reply->element[4]->elements, 2);
        assert_int_equal(reply->element[4]->element[0]->type, REDIS_REPLY_STATUS);
        assert_int_equal(reply->element[4]->element[1]->type, REDIS_REPLY_ERROR);
        assert_string_equal(reply->element[4]->element[1]->str, "ERR no");
        break;
    case 1:
        assert_int_equal(reply->type, REDIS_REPLY_ARRAY);
        assert_int_equal(reply->elements, 0);
        break;
    case 2:
        assert_int_equal(reply->integer, INT64_MIN);
        break;
    case 3:
        assert_int_equal(reply->type, REDIS_REPLY_ERROR);
        assert_string_equal(reply->str, "LOADING later");
        break;
    case 4:
        assert_int_equal(reply->len, 3);
        assert_memory_equal(reply->str, "\0\r\n", 3);
        break;
    default:
        fail_msg("reply %d was never sent", number);
    }
}

static void test_cuts(void **state)
{
    struct reply_memory *memory = reply_memory_new();

    (void)state;
    for (size_t cut = 1; cut < sizeof(stream) - 1; cut++) {
        redisReader *reader = redisReaderCreate();
        int count = 0;

        reply_memory_serve(memory, reader, NULL, NULL);
        for (size_t at = 0; at < sizeof(stream) - 1; at += cut) {
            size_t left = sizeof(stream) - 1 - at;
            void *reply = NULL;

            assert_int_equal(redisReaderFeed(reader, stream + at, left < cut ? left : cut), REDIS_OK);
            while (redisReaderGetReply(reader, &reply) == REDIS_OK && reply != NULL) {
                check_reply(count++, reply);
                reader->fn->freeObject(reply);
            }
            assert_int_equal(reader->err, 0);
        }
        assert_int_equal(count, 5);
        redisReaderFree(reader);
    }
    reply_memory_free(memory);
}

static void test_large_replies(void **state)
{
    struct reply_memory *memory = reply_memory_new();
    redisReader *reader = redisReaderCreate();
    char *text = malloc(LARGE);
    redisReply *reply;

    (void)state;
    memset(text, 'x', LARGE);
    reply_memory_serve(memory, reader, NULL, NULL);
    for (int round = 0; round < 3; round++) {
        redisReaderFeed(reader, "*300\r\n", 6);
        for (int i = 0; i < 299; i++) {
            redisReaderFeed(reader, "$1000\r\n", 7);
            redisReaderFeed(reader, text, 1000);
            redisReaderFeed(reader, "\r\n", 2);
        }
        redisReaderFeed(reader, "$307200\r\n", 9);
        redisReaderFeed(reader, text, LARGE);
        redisReaderFeed(reader, "\r\n", 2);
        assert_int_equal(redisReaderGetReply(reader, (void **)&reply), REDIS_OK);
        assert_non_null(reply);
        for (int i = 0; i < 299; i++)
            assert_memory_equal(reply->element[i]->str, text, 1000);
        assert_int_equal(reply->element[299]->len, LARGE);
        assert_memory_equal(reply->element[299]->str, text, LARGE);
        reader->fn->freeObject(reply);
    }
    free(text);
    redisReaderFree(reader);
    reply_memory_free(memory);
}

static void breaks(const char *bytes)
{
    struct reply_memory *memory = reply_memory_new();
    redisReader *reader = redisReaderCreate();
    void *reply;

    reply_memory_serve(memory, reader, NULL, NULL);
    assert_int_equal(redisReaderFeed(reader, bytes, strlen(bytes)), REDIS_OK);
    assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_ERR);
    redisReaderFree(reader);
    reply_memory_free(memory);
}

static void test_nonsense_is_an_error(void **state)
{
    (void)state;
    breaks("HTTP/1.1 400 Bad Request\r\n");
    breaks("*1048577\r\n");
    breaks("*2147483647\r\n");
    breaks("*-2\r\n");
    breaks("$-2\r\n");
    breaks("*2\r\n$1\r\na\r\n?");
    breaks(":12x\r\n");
    breaks("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_large_replies),
        cmocka_unit_test(test_nonsense_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

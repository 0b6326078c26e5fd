/* rpc_text: what goes in comes out, in its order, however it is cut; and nothing of what found no memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rpclib/json.h"
#include "rpclib/text.h"

#define MIN "-9223372036854775808"
#define MAX "9223372036854775807"

void *__real_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size);

static unsigned reallocs;   /* since the last start of counting */
static unsigned fails_from; /* which of them fails, as do all behind it; 0: none */

void *__wrap_realloc(void *memory, size_t size)
{
    reallocs++;
    return fails_from > 0 && reallocs >= fails_from ? NULL : __real_realloc(memory, size);
}

static void memory_ends_with(unsigned nth)
{
    reallocs = 0;
    fails_from = nth;
}

static void holds_at(const struct rpc_text *text, const char *expected, int line)
{
    struct rpc_bytes bytes = rpc_text_bytes(text);

    if (!rpc_bytes_equal(bytes, expected) || text->size != strlen(expected))
        fail_msg("line %d: \"%.*s\"", line, (int)bytes.size, bytes.data);
}

#define holds(text, expected) holds_at(text, expected, __LINE__)

/* ---- What is appended and taken ---------------------------------------------------------------------------------- */

static void test_append_and_consume(void **state)
{
    struct rpc_text text = {0};

    (void)state;
    holds(&text, "");
    assert_true(rpc_text_append(&text, (struct rpc_bytes){NULL, 0}));
    holds(&text, "");
    assert_true(rpc_text_append(&text, RPC_BYTES("hello ")));
    assert_true(rpc_text_append(&text, RPC_BYTES("world")));
    holds(&text, "hello world");
    rpc_text_consume(&text, 0);
    rpc_text_consume(&text, 6);
    holds(&text, "world");
    rpc_text_truncate(&text, 3);
    holds(&text, "wor");
    assert_true(rpc_text_append(&text, RPC_BYTES("k")));
    holds(&text, "work");
    rpc_text_consume(&text, 4);
    holds(&text, "");
    rpc_text_clear(&text);
    rpc_text_clear(&text);
    rpc_text_consume(&text, 0);
    rpc_text_truncate(&text, 0);
    rpc_text_reset(&text, 0);
    holds(&text, "");
}

static void test_reserve(void **state)
{
    struct rpc_text text = {0};
    char *room = rpc_text_reserve(&text, 10);

    (void)state;
    assert_non_null(room);
    memcpy(room, "0123456789", 10);
    rpc_text_commit(&text, 4); /* less than was reserved */
    holds(&text, "0123");
    rpc_text_clear(&text);
    assert_non_null(rpc_text_reserve(&text, 0)); /* an empty one has a place too */
    holds(&text, "");
    rpc_text_clear(&text);
}

/* Appending behind what was consumed uses its room again instead of growing. */
static void test_room_is_used_again(void **state)
{
    struct rpc_text text = {0};

    (void)state;
    assert_non_null(rpc_text_reserve(&text, 1));
    memory_ends_with(1);
    for (int i = 0; i < 10000; i++) {
        assert_true(rpc_text_append(&text, RPC_BYTES("0123456789")));
        rpc_text_consume(&text, i == 0 ? 5 : 10);
    }
    memory_ends_with(0);
    holds(&text, "56789");
    rpc_text_clear(&text);
}

/* A peak's memory is given back once it is over. */
static void test_peak_is_given_back(void **state)
{
    struct rpc_text text = {0};

    (void)state;
    assert_non_null(rpc_text_reserve(&text, 2 * RPC_TEXT_KEEP_SIZE));
    rpc_text_commit(&text, 2 * RPC_TEXT_KEEP_SIZE);
    rpc_text_consume(&text, 2 * RPC_TEXT_KEEP_SIZE - 1);
    assert_non_null(text.data);
    rpc_text_consume(&text, 1);
    assert_null(text.data);
    assert_true(rpc_text_append(&text, RPC_BYTES("small")));
    rpc_text_consume(&text, 5);
    assert_non_null(text.data);
    rpc_text_clear(&text);
}

static void test_reset_keeps_little(void **state)
{
    struct rpc_text text = {0};

    (void)state;
    assert_non_null(rpc_text_reserve(&text, 5000));
    rpc_text_commit(&text, 5000);
    rpc_text_consume(&text, 4999); /* what was consumed counts too */
    rpc_text_reset(&text, 5000);
    assert_null(text.data);
    assert_true(rpc_text_append(&text, RPC_BYTES("small")));
    rpc_text_consume(&text, 1);
    rpc_text_reset(&text, 5000);
    assert_non_null(text.data);
    memory_ends_with(1);
    assert_true(rpc_text_append(&text, RPC_BYTES("again")));
    memory_ends_with(0);
    holds(&text, "again");
    rpc_text_clear(&text);
}

static void test_any_order(void **state)
{
    struct rpc_text text = {0};
    char model[20000];
    size_t size = 0;
    unsigned random = 3, next = 0;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        size_t part = (size_t)rand_r(&random) % 300;

        switch (rand_r(&random) % 3) {
        case 0:
            if (size + part > sizeof(model))
                break;
            for (size_t j = 0; j < part; j++)
                model[size + j] = (char)next++;
            assert_true(rpc_text_append(&text, (struct rpc_bytes){model + size, part}));
            size += part;
            break;
        case 1:
            part = part > size ? size : part;
            rpc_text_consume(&text, part);
            memmove(model, model + part, size - part);
            size -= part;
            break;
        default:
            size = part > size ? size : size - part;
            rpc_text_truncate(&text, size);
            break;
        }
        assert_int_equal(text.size, size);
        if (size > 0)
            assert_memory_equal(rpc_text_bytes(&text).data, model, size);
    }
    rpc_text_clear(&text);
}

/* ---- Numbers and JSON strings ------------------------------------------------------------------------------------ */

static void integer_is(int64_t value, const char *expected)
{
    struct rpc_text text = {0};

    assert_true(rpc_text_append(&text, RPC_BYTES("x")));
    assert_true(rpc_text_append_integer(&text, value));
    holds_at(&text, expected, __LINE__);
    rpc_text_clear(&text);
}

static void test_integers(void **state)
{
    (void)state;
    integer_is(0, "x0");
    integer_is(-1, "x-1");
    integer_is(10, "x10");
    integer_is(INT64_MAX, "x" MAX);
    integer_is(INT64_MIN, "x" MIN);
}

static void string_is(struct rpc_bytes bytes, const char *expected, int line)
{
    struct rpc_text text = {0};

    assert_true(rpc_text_append_json_string(&text, bytes));
    holds_at(&text, expected, line);
    rpc_text_clear(&text);
}

#define string(literal, expected) string_is(RPC_BYTES(literal), expected, __LINE__)

static void test_json_strings(void **state)
{
    (void)state;
    string_is((struct rpc_bytes){NULL, 0}, "\"\"", __LINE__);
    string("", "\"\"");
    string("The Odyssey", "\"The Odyssey\"");
    string("\"", "\"\\\"\"");
    string("\\", "\"\\\\\"");
    string("/", "\"/\"");
    string("\b\f\n\r\t", "\"\\u0008\\u000c\\u000a\\u000d\\u0009\"");
    string("\x01\x1f\x7f", "\"\\u0001\\u001f\x7f\"");
    string("\0", "\"\\u0000\"");
    string("a\"b\\c\nd", "\"a\\\"b\\\\c\\u000ad\"");
    string("1234567\"12345678\\123456789\n1234", "\"1234567\\\"12345678\\\\123456789\\u000a1234\"");
    string("ü飛🛩", "\"ü飛🛩\"");
    string("ü\"飛\\🛩\n", "\"ü\\\"飛\\\\🛩\\u000a\"");
    string("\xff\"", "\"\xff\\\"\""); /* no UTF-8: not its business */
}

/* Each byte but NUL at each place of a word of the machine: what reads it gets the same back. */
static void test_each_byte_comes_back(void **state)
{
    struct rpc_text text = {0};

    (void)state;
    for (int byte = 1; byte < 0x80; byte++) {
        for (size_t at = 0; at < 20; at++) {
            char value[] = "abcdefghijklmnopqrst", reason[RPC_JSON_REASON_SIZE];
            json_t *back;

            value[at] = (char)byte;
            rpc_text_reset(&text, RPC_TEXT_KEEP_SIZE);
            assert_true(rpc_text_append_json_string(&text, rpc_bytes_of(value)));
            back = rpc_json_load(rpc_text_bytes(&text), reason);
            if (back == NULL || strcmp(json_string_value(back), value) != 0)
                fail_msg("byte %d at %zu: %.*s: %s", byte, at, (int)text.size, text.data, reason);
            json_decref(back);
        }
    }
    rpc_text_clear(&text);
}

static void test_large_string(void **state)
{
    struct rpc_text text = {0};
    size_t size = 1 << 20;
    char *large = malloc(size);

    (void)state;
    memset(large, '\n', size);
    assert_true(rpc_text_append_json_string(&text, (struct rpc_bytes){large, size}));
    assert_int_equal(text.size, 6 * size + 2);
    rpc_text_reset(&text, 64 * 1024);
    assert_null(text.data);
    free(large);
}

/* ---- Memory that ends -------------------------------------------------------------------------------------------- */

/* What `append` says when it finds none, and that nothing of it is there; then that it works again. */
static void ends_at_once(bool (*append)(struct rpc_text *text), int line)
{
    struct rpc_text text = {0};
    size_t size;

    assert_true(rpc_text_append(&text, RPC_BYTES("before")));
    while (text.capacity > text.size)
        assert_true(rpc_text_append(&text, RPC_BYTES("x")));
    rpc_text_consume(&text, 1); /* of no help to what is larger */
    size = text.size;
    for (int i = 0; i < 2; i++) {
        memory_ends_with(1);
        if (append(&text) || !text.failed || text.size != size || memcmp(text.data, "eforex", 6) != 0)
            fail_msg("line %d: no memory, but %zu bytes", line, text.size);
        memory_ends_with(0);
    }
    if (!append(&text) || !text.failed) /* it goes on, but has a gap */
        fail_msg("line %d: memory is back", line);
    rpc_text_reset(&text, SIZE_MAX);
    assert_false(text.failed);
    assert_true(append(&text));
    assert_false(text.failed);
    rpc_text_clear(&text);
}

static bool append_bytes(struct rpc_text *text)
{
    return rpc_text_append(text, RPC_BYTES("12"));
}

static bool append_integer(struct rpc_text *text)
{
    return rpc_text_append_integer(text, INT64_MIN);
}

static bool append_string(struct rpc_text *text)
{
    return rpc_text_append_json_string(text, RPC_BYTES("12"));
}

static bool reserve(struct rpc_text *text)
{
    return rpc_text_reserve(text, 2) != NULL;
}

static void test_no_memory(void **state)
{
    (void)state;
    ends_at_once(append_bytes, __LINE__);
    ends_at_once(append_integer, __LINE__);
    ends_at_once(append_string, __LINE__);
    ends_at_once(reserve, __LINE__);
}

/* Memory ends within a string, at each place where it can. */
static void test_no_memory_within_a_string(void **state)
{
    struct rpc_text text = {0};
    char value[3000];
    unsigned nth = 0;
    bool done = false;

    (void)state;
    memset(value, '\x01', sizeof(value));
    while (!done) {
        rpc_text_clear(&text);
        assert_true(rpc_text_append(&text, RPC_BYTES("before")));
        memory_ends_with(++nth);
        done = rpc_text_append_json_string(&text, (struct rpc_bytes){value, sizeof(value)});
        memory_ends_with(0);
        assert_true(text.failed == !done);
        if (!done)
            holds(&text, "before");
    }
    assert_true(nth > 2);
    assert_int_equal(text.size, strlen("before\"\"") + 6 * sizeof(value));
    rpc_text_clear(&text);
}

static void test_more_than_there_can_be(void **state)
{
    struct rpc_text text = {0};

    (void)state;
    assert_true(rpc_text_append(&text, RPC_BYTES("before")));
    assert_null(rpc_text_reserve(&text, SIZE_MAX / 2));
    assert_null(rpc_text_reserve(&text, SIZE_MAX));
    assert_true(text.failed);
    holds(&text, "before");
    rpc_text_clear(&text);
    assert_false(text.failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append_and_consume),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_room_is_used_again),
        cmocka_unit_test(test_peak_is_given_back),
        cmocka_unit_test(test_reset_keeps_little),
        cmocka_unit_test(test_any_order),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_json_strings),
        cmocka_unit_test(test_each_byte_comes_back),
        cmocka_unit_test(test_large_string),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_no_memory_within_a_string),
        cmocka_unit_test(test_more_than_there_can_be),
    };

    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}

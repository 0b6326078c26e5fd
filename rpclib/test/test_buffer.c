/* buffer: what goes in comes out, in its order, however it is cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buffer.h"

static void holds_at(const struct buffer *buffer, const char *expected, int line)
{
    struct rpc_bytes bytes = buffer_bytes(buffer);

    if (!rpc_bytes_equal(bytes, expected) || buffer_size(buffer) != strlen(expected))
        fail_msg("line %d: \"%.*s\"", line, (int)bytes.size, bytes.data);
}

#define holds(buffer, expected) holds_at(buffer, expected, __LINE__)

static void test_append_and_consume(void **state)
{
    struct buffer buffer = {0};

    (void)state;
    holds(&buffer, "");
    assert_true(buffer_append(&buffer, (struct rpc_bytes){NULL, 0}));
    holds(&buffer, "");
    assert_true(buffer_append(&buffer, RPC_BYTES("hello ")));
    assert_true(buffer_append(&buffer, RPC_BYTES("world")));
    holds(&buffer, "hello world");
    buffer_consume(&buffer, 0);
    buffer_consume(&buffer, 6);
    holds(&buffer, "world");
    buffer_truncate(&buffer, 3);
    holds(&buffer, "wor");
    assert_true(buffer_append(&buffer, RPC_BYTES("k")));
    holds(&buffer, "work");
    buffer_consume(&buffer, 4);
    holds(&buffer, "");
    buffer_clear(&buffer);
    buffer_clear(&buffer);
    holds(&buffer, "");
}

static void test_reserve(void **state)
{
    struct buffer buffer = {0};
    char *room = buffer_reserve(&buffer, 10);

    (void)state;
    assert_non_null(room);
    memcpy(room, "0123456789", 10);
    buffer_grown(&buffer, 4); /* less than was reserved */
    holds(&buffer, "0123");
    buffer_clear(&buffer);
}

/* Appending behind what was consumed uses its room again instead of growing. */
static void test_room_is_used_again(void **state)
{
    struct buffer buffer = {0};
    size_t capacity;

    (void)state;
    assert_non_null(buffer_reserve(&buffer, 1));
    capacity = buffer.capacity;
    for (int i = 0; i < 10000; i++) {
        assert_true(buffer_append(&buffer, RPC_BYTES("0123456789")));
        buffer_consume(&buffer, i == 0 ? 5 : 10);
    }
    assert_int_equal(buffer.capacity, capacity);
    holds(&buffer, "56789");
    buffer_clear(&buffer);
}

/* A peak's memory is given back once it is over. */
static void test_peak_is_given_back(void **state)
{
    struct buffer buffer = {0};

    (void)state;
    assert_non_null(buffer_reserve(&buffer, 2 * BUFFER_KEEP_SIZE));
    buffer_grown(&buffer, 2 * BUFFER_KEEP_SIZE);
    buffer_consume(&buffer, 2 * BUFFER_KEEP_SIZE - 1);
    assert_true(buffer.capacity > BUFFER_KEEP_SIZE);
    buffer_consume(&buffer, 1);
    assert_int_equal(buffer.capacity, 0);
    assert_true(buffer_append(&buffer, RPC_BYTES("small")));
    buffer_consume(&buffer, 5);
    assert_true(buffer.capacity > 0);
    buffer_clear(&buffer);
}

static void test_any_order(void **state)
{
    struct buffer buffer = {0};
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
            assert_true(buffer_append(&buffer, (struct rpc_bytes){model + size, part}));
            size += part;
            break;
        case 1:
            part = part > size ? size : part;
            buffer_consume(&buffer, part);
            memmove(model, model + part, size - part);
            size -= part;
            break;
        default:
            size = part > size ? size : size - part;
            buffer_truncate(&buffer, size);
            break;
        }
        assert_int_equal(buffer_size(&buffer), size);
        if (size > 0)
            assert_memory_equal(buffer_bytes(&buffer).data, model, size);
    }
    buffer_clear(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append_and_consume), cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_room_is_used_again), cmocka_unit_test(test_peak_is_given_back),
        cmocka_unit_test(test_any_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

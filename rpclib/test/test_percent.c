/* rpc_percent: what is decoded, and what is refused.  rpc_hex: every digit, read and written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "rpclib/hex.h"
#include "rpclib/percent.h"

static void decodes(const char *text, const char *expected, size_t expected_size, int line)
{
    char out[256];
    size_t size = 7777;

    if (!rpc_percent_decode(rpc_bytes_of(text), out, &size))
        fail_msg("line %d: %s: refused", line, text);
    if (size != expected_size || memcmp(out, expected, size) != 0)
        fail_msg("line %d: %s: became %.*s", line, text, (int)size, out);
}

static void decodes_not(const char *text, int line)
{
    char out[256];
    size_t size = 7777;

    if (rpc_percent_decode(rpc_bytes_of(text), out, &size) || size != 7777)
        fail_msg("line %d: %s: taken", line, text);
}

#define decoded(text, expected) decodes(text, expected, sizeof(expected) - 1, __LINE__)
#define refused(text)           decodes_not(text, __LINE__)

static void test_decode(void **state)
{
    (void)state;
    decoded("", "");
    decoded("abc", "abc");
    decoded("a%20b", "a b");
    decoded("%2F%2f", "//");
    decoded("a+b", "a+b");
    decoded("%00", "\0");
    decoded("%25%30%30", "%00");
    decoded("%c3%BC", "\xc3\xbc");
    decoded("%FF", "\xff");
    refused("%");
    refused("a%");
    refused("%4");
    refused("%4g");
    refused("%g4");
    refused("%%41");
    refused("%-1");
    refused("% 1");
    refused("%1\xb1");
}

static void test_every_digit(void **state)
{
    static const char digits[] = "0123456789abcdef", capitals[] = "0123456789ABCDEF";

    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        const char *digit = byte == 0 ? NULL : strchr(digits, byte);

        if (byte != 0 && digit == NULL && strchr(capitals, byte) != NULL)
            digit = digits + (strchr(capitals, byte) - capitals);
        assert_int_equal(rpc_hex_digit((char)byte), digit == NULL ? -1 : digit - digits);
    }
}

/* Every byte, and nothing in front of the digits or behind them. */
static void test_write(void **state)
{
    unsigned char bytes[256];
    char out[1 + 2 * sizeof(bytes) + 1], expected[3];

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)i;
    memset(out, '!', sizeof(out));
    rpc_hex_write(bytes, 0, out + 1);
    assert_int_equal(out[1], '!');
    rpc_hex_write(bytes, sizeof(bytes), out + 1);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        snprintf(expected, sizeof(expected), "%02x", bytes[i]);
        assert_memory_equal(out + 1 + 2 * i, expected, 2);
    }
    assert_int_equal(out[0], '!');
    assert_int_equal(out[sizeof(out) - 1], '!');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_every_digit),
        cmocka_unit_test(test_write),
    };

    return cmocka_run_group_tests_name("percent", tests, NULL, NULL);
}

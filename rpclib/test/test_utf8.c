/* rpc_utf8: every character there is, and what only looks like one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rpclib/utf8.h"

#define LAST_POINT 0x10FFFFu

/* Whatever the point is: a surrogate too, or one above the last. */
static size_t encode(unsigned point, unsigned char out[4])
{
    static const unsigned char leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    size_t size = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;

    for (size_t i = size - 1; i > 0; i--, point >>= 6)
        out[i] = (unsigned char)(0x80 | (point & 0x3F));
    out[0] = (unsigned char)(leads[size] | point);
    return size;
}

static void test_every_character(void **state)
{
    (void)state;
    for (unsigned point = 1; point <= LAST_POINT + 1000; point++) {
        bool is_character = point <= LAST_POINT && (point < 0xD800 || point > 0xDFFF);
        unsigned char bytes[4];
        size_t size = encode(point, bytes);
        struct rpc_bytes text = {(const char *)bytes, size};
        uint32_t back;

        if (rpc_utf8_check(text) != is_character || rpc_utf8_sequence(bytes, bytes + size) != (is_character ? size : 0))
            fail_msg("U+%04X", point);
        if (is_character && (rpc_utf8_decode(text.data, &back) != size || back != point))
            fail_msg("U+%04X becomes U+%04X", point, back);
        if (size > 1 && rpc_utf8_check((struct rpc_bytes){text.data, size - 1}))
            fail_msg("U+%04X without its end", point);
    }
}

/* Each is tried at each place of a word of the machine. */
static void is(struct rpc_bytes text, bool sound, int line)
{
    char room[64];

    for (size_t before = 0; before < 18; before++) {
        for (size_t behind = 0; behind < 18; behind++) {
            memset(room, 'a', sizeof(room));
            memcpy(room + before, text.data, text.size);
            if (rpc_utf8_check((struct rpc_bytes){room, before + text.size + behind}) != sound)
                fail_msg("line %d: %zu bytes before it, %zu behind it", line, before, behind);
        }
    }
}

#define sound(literal)   is(RPC_BYTES(literal), true, __LINE__)
#define unsound(literal) is(RPC_BYTES(literal), false, __LINE__)

static void test_check(void **state)
{
    (void)state;
    assert_true(rpc_utf8_check((struct rpc_bytes){NULL, 0}));
    sound("");
    sound("\"\\\x01\x1f\x7f\n/");
    sound("ü飛🛩");
    sound("\xf4\x8f\xbf\xbf\xef\xbf\xbf");
    unsound("\0");
    unsound("a\0b");
    unsound("\xff");
    unsound("\xc3");
    unsound("\x80");
    unsound("\xc0\x80");
    unsound("\xc1\xbf");
    unsound("\xe0\x9f\xbf");
    unsound("\xed\xa0\x80");
    unsound("\xed\xbf\xbf");
    unsound("\xe2\x82");
    unsound("\xe2\x28\xa1");
    unsound("\xe2\x82\x28");
    unsound("\xf0\x8f\xbf\xbf");
    unsound("\xf4\x90\x80\x80");
    unsound("\xf5\x80\x80\x80");
    unsound("\xf0\x9f\x9b");
    unsound("\"quoted\" and then \n\xfe");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_character),
        cmocka_unit_test(test_check),
    };

    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}

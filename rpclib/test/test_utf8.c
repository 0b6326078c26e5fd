/* rpc_utf8: every character there is, and what only looks like one; where a text is cut. */
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

static void cut_is_at(struct rpc_bytes text, size_t size_max, size_t expected, int line)
{
    struct rpc_bytes cut = rpc_utf8_cut(text, size_max);

    if (cut.data != text.data || cut.size != expected)
        fail_msg("line %d: %zu bytes", line, cut.size);
}

#define cut_is(literal, size_max, expected) cut_is_at(RPC_BYTES(literal), size_max, expected, __LINE__)

static void test_cut(void **state)
{
    (void)state;
    cut_is_at((struct rpc_bytes){NULL, 0}, 0, 0, __LINE__);
    cut_is_at((struct rpc_bytes){NULL, 0}, SIZE_MAX, 0, __LINE__);
    cut_is("aü飛🛩b", SIZE_MAX, 11);
    cut_is("aü飛🛩b", 11, 11);
    cut_is("aü飛🛩b", 10, 10);
    cut_is("aü飛🛩b", 9, 6);
    cut_is("aü飛🛩b", 8, 6);
    cut_is("aü飛🛩b", 7, 6);
    cut_is("aü飛🛩b", 6, 6);
    cut_is("aü飛🛩b", 5, 3);
    cut_is("aü飛🛩b", 4, 3);
    cut_is("aü飛🛩b", 3, 3);
    cut_is("aü飛🛩b", 2, 1);
    cut_is("aü飛🛩b", 1, 1);
    cut_is("aü飛🛩b", 0, 0);
    cut_is("üb", 1, 0);
    cut_is("a\0b", 2, 2);
    cut_is("a\x80", 2, 2); /* no UTF-8: what fits is not looked at */
    cut_is("a\x80\x80\x80", 3, 0);
    cut_is("ab\x80\x80\x80", 4, 1);
    cut_is("\x80\x80\x80\x80\x80\x80", 5, 0);
    cut_is("\xff\xff\xff", 2, 2);
}

static void test_controls(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 0x100; code++) {
        const unsigned char one[] = {(unsigned char)code},
                            two[] = {(unsigned char)(0xC0 | code >> 6), (unsigned char)(0x80 | (code & 0x3F))};
        bool is_control = code < 0x20 || (code >= 0x7F && code < 0xA0);

        assert_int_equal(rpc_utf8_is_control(code < 0x80 ? one : two, code < 0x80 ? 1 : 2), is_control);
    }
    assert_false(rpc_utf8_is_control((const unsigned char *)"\xC3\x9B", 2));
    assert_false(rpc_utf8_is_control((const unsigned char *)"\xE2\x80\xA8", 3));
    assert_false(rpc_utf8_is_control((const unsigned char *)"\xF0\x9F\x9B\xA9", 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_character),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_controls),
    };

    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}

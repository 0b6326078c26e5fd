/* python: repr() as CPython 3.11 prints it; every expectation here is CPython's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "python.h"
#include "rpclib/json.h"

static void repr_is_at(const char *json, const char *expected, int line)
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *value = rpc_json_load(rpc_bytes_of(json), reason);
    struct rpc_text out = {0};

    if (value == NULL)
        fail_msg("line %d: %s", line, reason);
    assert_true(rpc_text_append(&out, RPC_BYTES("before ")));
    assert_true(python_repr(&out, value));
    assert_true(rpc_text_append(&out, RPC_BYTES("\0")));
    if (strncmp(out.data, "before ", 7) != 0 || strcmp(out.data + 7, expected) != 0)
        fail_msg("line %d: %s instead of %s", line, out.data + 7, expected);
    rpc_text_clear(&out);
    json_decref(value);
}

#define repr_is(json, expected) repr_is_at(json, expected, __LINE__)

static void test_constants_and_integers(void **state)
{
    (void)state;
    repr_is("null", "None");
    repr_is("true", "True");
    repr_is("false", "False");
    repr_is("0", "0");
    repr_is("-0", "0");
    repr_is("1", "1");
    repr_is("-1", "-1");
    repr_is("9223372036854775807", "9223372036854775807");
    repr_is("-9223372036854775808", "-9223372036854775808");
}

static void test_reals(void **state)
{
    (void)state;
    repr_is("0.0", "0.0");
    repr_is("-0.0", "-0.0");
    repr_is("1.0", "1.0");
    repr_is("0.1", "0.1");
    repr_is("0.2", "0.2");
    repr_is("0.30000000000000004", "0.30000000000000004");
    repr_is("100000.99", "100000.99");
    repr_is("1e15", "1000000000000000.0");
    repr_is("1e16", "1e+16");
    repr_is("123456789012345680.0", "1.2345678901234568e+17");
    repr_is("1234567890123456.7", "1234567890123456.8");
    repr_is("9999999999999998.0", "9999999999999998.0");
    repr_is("1e-4", "0.0001");
    repr_is("0.0001", "0.0001");
    repr_is("0.00001", "1e-05");
    repr_is("1.5e-5", "1.5e-05");
    repr_is("1e22", "1e+22");
    repr_is("1e23", "1e+23");
    repr_is("1e100", "1e+100");
    repr_is("1e308", "1e+308");
    repr_is("1.7976931348623157e308", "1.7976931348623157e+308");
    repr_is("5e-324", "5e-324");
    repr_is("2.2250738585072014e-308", "2.2250738585072014e-308");
    repr_is("-1.5", "-1.5");
    repr_is("3.141592653589793", "3.141592653589793");
    repr_is("1e-7", "1e-07");
    repr_is("12345678.9", "12345678.9");
    repr_is("0.1e1", "1.0");
    repr_is("1E2", "100.0");
    repr_is("4.35", "4.35");
    repr_is("2.675", "2.675");
    repr_is("1e21", "1e+21");
    repr_is("-1e-300", "-1e-300");
}

static void test_texts(void **state)
{
    (void)state;
    repr_is("\"\"", "''");
    repr_is("\"a\"", "'a'");
    repr_is("\"it's\"", "\"it's\"");
    repr_is("\"\\\"q\\\"\"", "'\"q\"'");
    repr_is("\"'\\\"\"", "'\\'\"'");
    repr_is("\"\\\\\"", "'\\\\'");
    repr_is("\"\\n\\r\\t\\b\\f\\u0001\\u001f\"", "'\\n\\r\\t\\x08\\x0c\\x01\\x1f'");
    repr_is("\"\\u007f\\u0080\\u009f\\u00a0\\u00ad\\u00ae\"", "'\\x7f\\x80\\x9f\\xa0\\xad\302\256'");
    repr_is("\"\303\251\342\202\254\360\237\230\200\"", "'\303\251\342\202\254\360\237\230\200'");
    repr_is("\"\\u200b\\u2028\\u3000\\ufeff\"", "'\\u200b\\u2028\\u3000\\ufeff'");
}

static void test_containers(void **state)
{
    (void)state;
    repr_is("[]", "[]");
    repr_is("[1]", "[1]");
    repr_is("[1, \"a\", null, [true, {}]]", "[1, 'a', None, [True, {}]]");
    repr_is("{}", "{}");
    repr_is("{\"a\": 1}", "{'a': 1}");
    repr_is("{\"b\": [1.5, \"x\"], \"a\": {\"it's\": null}}", "{'b': [1.5, 'x'], 'a': {\"it's\": None}}");
    repr_is("{\"_schema\": [\"Invalid input type.\"]}", "{'_schema': ['Invalid input type.']}");
    repr_is("{\"price\": [\"Missing data for required field.\"], \"title\": [\"Not a valid string.\"]}",
            "{'price': ['Missing data for required field.'], 'title': ['Not a valid string.']}");
    repr_is("{\"\\u00e9\": \"\\ud83d\\ude00\"}", "{'\303\251': '\360\237\230\200'}");
}

/* One code point in a string: shown as it is, or escaped. */
static void is_printable_at(uint32_t code, bool expected, int line)
{
    char json[16], escape[16];

    if (code < 0x10000)
        snprintf(json, sizeof(json), "\"\\u%04x\"", code);
    else
        snprintf(json, sizeof(json), "\"\\u%04x\\u%04x\"", 0xd7c0 + (code >> 10), 0xdc00 + (code & 0x3ff));
    if (expected) {
        json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);

        assert_non_null(value);
        snprintf(escape, sizeof(escape), "'%s'", json_string_value(value));
        json_decref(value);
    } else {
        snprintf(escape, sizeof(escape), code < 0x100 ? "'\\x%02x'" : code < 0x10000 ? "'\\u%04x'" : "'\\U%08x'", code);
    }
    repr_is_at(json, escape, line);
}

#define is_printable(code, expected) is_printable_at(code, expected, __LINE__)

/* Here and below: str.isprintable() at the edges of each range (Unicode 14), of what is assigned. */
static void test_printable_latin(void **state)
{
    (void)state;
    is_printable(0x1f, false);
    is_printable(0x20, true);
    is_printable(0x7e, true);
    is_printable(0x7f, false);
    is_printable(0xa0, false);
    is_printable(0xa1, true);
    is_printable(0xac, true);
    is_printable(0xad, false);
    is_printable(0xae, true);
}

/* Marks that a script has to itself: Arabic, Syriac, Ogham, Mongolian. */
static void test_printable_scripts(void **state)
{
    (void)state;
    is_printable(0x600, false);
    is_printable(0x605, false);
    is_printable(0x606, true);
    is_printable(0x61b, true);
    is_printable(0x61c, false);
    is_printable(0x61d, true);
    is_printable(0x6dc, true);
    is_printable(0x6dd, false);
    is_printable(0x6de, true);
    is_printable(0x70f, false);
    is_printable(0x710, true);
    is_printable(0x890, false);
    is_printable(0x891, false);
    is_printable(0x8e1, true);
    is_printable(0x8e2, false);
    is_printable(0x8e3, true);
    is_printable(0x167f, true);
    is_printable(0x1680, false);
    is_printable(0x1681, true);
    is_printable(0x180d, true);
    is_printable(0x180e, false);
    is_printable(0x180f, true);
}

/* Blanks, separators of lines, marks of direction and order. */
static void test_printable_punctuation(void **state)
{
    (void)state;
    is_printable(0x2000, false);
    is_printable(0x200f, false);
    is_printable(0x2010, true);
    is_printable(0x2027, true);
    is_printable(0x2028, false);
    is_printable(0x202f, false);
    is_printable(0x2030, true);
    is_printable(0x205e, true);
    is_printable(0x205f, false);
    is_printable(0x2064, false);
    is_printable(0x2066, false);
    is_printable(0x206f, false);
    is_printable(0x2070, true);
    is_printable(0x3000, false);
    is_printable(0x3001, true);
    is_printable(0xfeff, false);
    is_printable(0xfff9, false);
    is_printable(0xfffb, false);
    is_printable(0xfffc, true);
}

static void test_printable_other_planes(void **state)
{
    (void)state;
    is_printable(0x110bc, true);
    is_printable(0x110bd, false);
    is_printable(0x110be, true);
    is_printable(0x110cd, false);
    is_printable(0x13430, false);
    is_printable(0x13438, false);
    is_printable(0x1bc9f, true);
    is_printable(0x1bca0, false);
    is_printable(0x1bca3, false);
    is_printable(0x1d172, true);
    is_printable(0x1d173, false);
    is_printable(0x1d17a, false);
    is_printable(0x1d17b, true);
    is_printable(0xe0001, false);
    is_printable(0xe0020, false);
    is_printable(0xe007f, false);
}

static void test_printable_private_use(void **state)
{
    (void)state;
    is_printable(0xe000, false);
    is_printable(0xf8ff, false);
    is_printable(0xf900, true);
    is_printable(0xf0000, false);
    is_printable(0xffffd, false);
    is_printable(0x100000, false);
    is_printable(0x10fffd, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_constants_and_integers),
        cmocka_unit_test(test_reals),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_containers),
        cmocka_unit_test(test_printable_latin),
        cmocka_unit_test(test_printable_scripts),
        cmocka_unit_test(test_printable_punctuation),
        cmocka_unit_test(test_printable_other_planes),
        cmocka_unit_test(test_printable_private_use),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* rpc_json: the grammar case by case, then at random against jansson. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rpclib/json.h"

#define RANDOM_TEXTS 60000
#define RANDOM_SIZE  160

/* A copy of exactly the text's size, so that a sanitizer sees a scanner that reads on. */
static struct rpc_bytes exact(const char *text, size_t size)
{
    char *copy = malloc(size == 0 ? 1 : size);

    assert_non_null(copy);
    memcpy(copy, text, size);
    return (struct rpc_bytes){.data = copy, .size = size};
}

static void is_sound_at(const char *text, size_t size, int line)
{
    struct rpc_bytes bytes = exact(text, size);
    char reason[RPC_JSON_REASON_SIZE];
    json_t *document = rpc_json_load(bytes, reason);

    if (!rpc_json_check(bytes) || document == NULL)
        fail_msg("line %d: refused: %s", line, reason);
    assert_string_equal(reason, "");
    json_decref(document);
    free((char *)bytes.data);
}

static void is_refused_at(const char *text, size_t size, const char *expected, int line)
{
    struct rpc_bytes bytes = exact(text, size);
    char reason[RPC_JSON_REASON_SIZE] = "";
    json_t *document = rpc_json_load(bytes, reason);

    if (rpc_json_check(bytes) || document != NULL)
        fail_msg("line %d: taken", line);
    if (strcmp(reason, expected) != 0)
        fail_msg("line %d: \"%s\" instead of \"%s\"", line, reason, expected);
    free((char *)bytes.data);
}

#define is_sound(literal)           is_sound_at(literal, sizeof(literal) - 1, __LINE__)
#define is_refused(literal, reason) is_refused_at(literal, sizeof(literal) - 1, reason, __LINE__)

static void test_sound(void **state)
{
    (void)state;
    is_sound("{}");
    is_sound("[]");
    is_sound(" \t\r\n[ ] \t\r\n");
    is_sound("null");
    is_sound("true");
    is_sound("false");
    is_sound("0");
    is_sound("-0");
    is_sound("-0.0e-0");
    is_sound("1e5");
    is_sound("1E+5");
    is_sound("1.25e-400");
    is_sound("9223372036854775807");
    is_sound("-9223372036854775808");
    is_sound("\"\"");
    is_sound("\"\x7F\"");
    is_sound("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\uDE00\"");
    is_sound("\"\xC2\x80 \xDF\xBF \xE0\xA0\x80 \xED\x9F\xBF \xEE\x80\x80 \xEF\xBF\xBF\"");
    is_sound("\"\xF0\x90\x80\x80 \xF4\x8F\xBF\xBF\"");
    is_sound("{\"\":[{\"a\":[1,2,{}],\"b\":null}],\"c\" : -1.5 }");
}

static void test_refused(void **state)
{
    (void)state;
    is_refused("", "unexpected end at line 1 column 1");
    is_refused(" \n ", "unexpected end at line 2 column 2");
    is_refused("\0", "unexpected character at line 1 column 1");
    is_refused("\xEF\xBB\xBF{}", "unexpected character at line 1 column 1");
    is_refused("{} {}", "text behind the document at line 1 column 4");
    is_refused("1 2", "text behind the document at line 1 column 3");
    is_refused("[]\0", "text behind the document at line 1 column 3");
    is_refused("truex", "text behind the document at line 1 column 5");
    is_refused("True", "unexpected character at line 1 column 1");
    is_refused("NaN", "unexpected character at line 1 column 1");
    is_refused("nul", "unexpected end at line 1 column 4");
    is_refused("nulL", "unexpected character at line 1 column 4");
    is_refused("-Infinity", "invalid number at line 1 column 2");
    is_refused("-", "unexpected end at line 1 column 2");
    is_refused("+1", "unexpected character at line 1 column 1");
    is_refused(".5", "unexpected character at line 1 column 1");
    is_refused("01", "invalid number at line 1 column 2");
    is_refused("-01", "invalid number at line 1 column 3");
    is_refused("1.", "unexpected end at line 1 column 3");
    is_refused("[1.]", "invalid number at line 1 column 4");
    is_refused("[1e]", "invalid number at line 1 column 4");
    is_refused("1e+", "unexpected end at line 1 column 4");
    is_refused("0x10", "text behind the document at line 1 column 2");
    is_refused("[", "unexpected end at line 1 column 2");
    is_refused("[1", "unexpected end at line 1 column 3");
    is_refused("[1,", "unexpected end at line 1 column 4");
    is_refused("[1,]", "unexpected character at line 1 column 4");
    is_refused("[,1]", "unexpected character at line 1 column 2");
    is_refused("[1 2]", "unexpected character at line 1 column 4");
    is_refused("[1}", "unexpected character at line 1 column 3");
    is_refused("]", "unexpected character at line 1 column 1");
    is_refused("{", "unexpected end at line 1 column 2");
    is_refused("{1:2}", "unexpected character at line 1 column 2");
    is_refused("{\"a\"}", "unexpected character at line 1 column 5");
    is_refused("{\"a\"", "unexpected end at line 1 column 5");
    is_refused("{\"a\":", "unexpected end at line 1 column 6");
    is_refused("{\"a\":}", "unexpected character at line 1 column 6");
    is_refused("{\"a\":1,}", "unexpected character at line 1 column 8");
    is_refused("{\"a\":1]", "unexpected character at line 1 column 7");
    is_refused("{'a':1}", "unexpected character at line 1 column 2");
    is_refused("[1] // x", "text behind the document at line 1 column 5");
    is_refused("\"", "unexpected end at line 1 column 2");
    is_refused("\"\\", "unexpected end at line 1 column 3");
    is_refused("\"a\nb\"", "control character in a string at line 1 column 3");
    is_refused("\"a\0b\"", "control character in a string at line 1 column 3");
    is_refused("\"\\x\"", "invalid escape at line 1 column 2");
    is_refused("\"\\u12G4\"", "invalid escape at line 1 column 2");
    is_refused("\"\\u12", "invalid escape at line 1 column 2");
    is_refused("\"\\u0000\"", "NUL in a string at line 1 column 2");
    is_refused("{\"\\u0000\":1}", "NUL in a string at line 1 column 3");
    is_refused("\"\\uD800\"", "lone surrogate at line 1 column 2");
    is_refused("\"\\uD800\\n\"", "lone surrogate at line 1 column 2");
    is_refused("\"\\uD800\\u0041\"", "lone surrogate at line 1 column 2");
    is_refused("\"\\uD800\\uD800\"", "lone surrogate at line 1 column 2");
    is_refused("\"\\uDC00\"", "lone surrogate at line 1 column 2");
    is_refused("\"\x80\"", "invalid UTF-8 at line 1 column 2");
    is_refused("\"\xC0\x80\"", "invalid UTF-8 at line 1 column 2");
    is_refused("\"\xC1\xBF\"", "invalid UTF-8 at line 1 column 2");
    is_refused("\"\xC3\"", "invalid UTF-8 at line 1 column 2");
    is_refused("\"\xE0\x9F\xBF\"", "invalid UTF-8 at line 1 column 2");
    is_refused("\"\xED\xA0\x80\"", "invalid UTF-8 at line 1 column 2");
    is_refused("\"\xF0\x8F\xBF\xBF\"", "invalid UTF-8 at line 1 column 2");
    is_refused("\"\xF4\x90\x80\x80\"", "invalid UTF-8 at line 1 column 2");
    is_refused("\"\xF5\x80\x80\x80\"", "invalid UTF-8 at line 1 column 2");
    is_refused("\"\xE2\x82", "invalid UTF-8 at line 1 column 2");
    is_refused("[\n \"\xC3\xA9\xE2\x82\xAC\", x]", "unexpected character at line 2 column 8");
}

/* `levels` of [ and {, one within the other, closed again unless `open`. */
static struct rpc_bytes nested(size_t levels, bool open)
{
    char *text = malloc(levels * 6 + 1);
    char *at = text;

    assert_non_null(text);
    for (size_t i = 0; i < levels; i++)
        at = stpcpy(at, i % 2 == 0 ? "[" : i + 1 < levels ? "{\"a\":" : "{");
    for (size_t i = levels; !open && i-- > 0;)
        at = stpcpy(at, i % 2 == 0 ? "]" : "}");
    return (struct rpc_bytes){.data = text, .size = (size_t)(at - text)};
}

static void test_depth(void **state)
{
    char reason[RPC_JSON_REASON_SIZE];
    struct rpc_bytes text = nested(RPC_JSON_DEPTH_MAX, false);
    json_t *document = rpc_json_load(text, reason);

    (void)state;
    assert_non_null(document);
    assert_true(rpc_json_check(text));
    json_decref(document);
    free((char *)text.data);

    text = nested(RPC_JSON_DEPTH_MAX + 1, false);
    assert_false(rpc_json_check(text));
    assert_null(rpc_json_load(text, reason));
    assert_string_equal(reason, "nested more than 64 levels deep at line 1 column 193");
    free((char *)text.data);

    text = nested(10000, true);
    assert_false(rpc_json_check(text));
    assert_null(rpc_json_load(text, reason));
    free((char *)text.data);
}

static void duplicate_is(const char *text, const char *expected)
{
    char reason[RPC_JSON_REASON_SIZE];

    assert_true(rpc_json_check(rpc_bytes_of(text)));
    assert_null(rpc_json_load(rpc_bytes_of(text), reason));
    assert_string_equal(reason, expected);
}

static void test_duplicate_keys(void **state)
{
    (void)state;
    duplicate_is("{\"a\":1,\"a\":2}", "duplicate key at line 1 column 8");
    duplicate_is("{\"a\":1, \"\\u0061\" :2}", "duplicate key at line 1 column 9");
    duplicate_is("[{\"x\\\"\\\\\":1,\n \"b\":2,\"x\\\"\\\\\":3}]", "duplicate key at line 2 column 8");
    duplicate_is("{\"\":1,\"\":2}", "duplicate key at line 1 column 7");
    duplicate_is("{\"n\":1e999,\"a\":1,\"a\":2}", "duplicate key at line 1 column 18");
}

/* Every byte at every place of a string that is longer than the scanner's stride. */
static void test_bytes_in_strings(void **state)
{
    char text[] = "\"ABCDEFGHIJKLMNOPQRSTUVWXYZ\""; /* no letter of which an escape could be made */

    (void)state;
    for (size_t place = 1; place < sizeof(text) - 2; place++) {
        char before = text[place];

        for (int byte = 0; byte < 256; byte++) {
            struct rpc_bytes bytes;
            bool plain = byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';

            text[place] = (char)byte;
            bytes = exact(text, sizeof(text) - 1);
            if (rpc_json_check(bytes) != plain)
                fail_msg("byte %d at %zu: taken as %d", byte, place, !plain);
            free((char *)bytes.data);
        }
        text[place] = before;
    }
}

static void string_is(const char *text, const char *expected)
{
    struct rpc_bytes bytes = exact(text, strlen(text));
    char reason[RPC_JSON_REASON_SIZE];
    json_t *document = rpc_json_load(bytes, reason);

    assert_true(json_is_string(document));
    assert_string_equal(json_string_value(document), expected);
    assert_int_equal(json_string_length(document), strlen(expected));
    json_decref(document);
    free((char *)bytes.data);
}

static void test_strings(void **state)
{
    (void)state;
    string_is("\"\"", "");
    string_is("\"a\\u0041\"", "aA");
    string_is("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t");
    string_is("\"\\u007f\\u0080\\u07FF\\u0800\\uFFFF\"", "\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF");
    string_is("\"\\uD800\\uDC00\\uDBFF\\uDFFFx\"", "\xF0\x90\x80\x80\xF4\x8F\xBF\xBFx");
    string_is("\"\xE2\x82\xAC\\u20AC\"", "\xE2\x82\xAC\xE2\x82\xAC");
}

static void integer_is(const char *text, json_int_t expected)
{
    struct rpc_bytes bytes = exact(text, strlen(text));
    char reason[RPC_JSON_REASON_SIZE];
    json_t *document = rpc_json_load(bytes, reason);

    assert_true(json_is_integer(document));
    assert_true(json_integer_value(document) == expected);
    json_decref(document);
    free((char *)bytes.data);
}

static void test_integers(void **state)
{
    (void)state;
    integer_is("0", 0);
    integer_is("-0", 0);
    integer_is("-7", -7);
    integer_is("99999999999999999", 99999999999999999);
    integer_is("-99999999999999999", -99999999999999999);
    integer_is("999999999999999999", 999999999999999999);
    integer_is("-999999999999999999", -999999999999999999);
    integer_is("9223372036854775807", INT64_MAX);
    integer_is("-9223372036854775808", INT64_MIN);
}

static void real_is(const char *text, double expected)
{
    char reason[RPC_JSON_REASON_SIZE];
    char framed[600];
    json_t *document = rpc_json_load(rpc_bytes_of(text), reason);

    assert_true(rpc_json_check(rpc_bytes_of(text)));
    assert_true(json_is_real(document));
    assert_true(json_real_value(document) == expected);
    json_decref(document);

    /* the same between others, one of which looks like a number and is none */
    snprintf(framed, sizeof(framed), "{\"1e999\": [%s ,7,%s,1.5,\"\\\"-%s\"]}", text, text, text);
    document = rpc_json_load(rpc_bytes_of(framed), reason);
    assert_non_null(document);
    assert_true(json_real_value(json_array_get(json_object_get(document, "1e999"), 0)) == expected);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(document, "1e999"), 1)), 7);
    assert_true(json_real_value(json_array_get(json_object_get(document, "1e999"), 2)) == expected);
    assert_true(json_real_value(json_array_get(json_object_get(document, "1e999"), 3)) == 1.5);
    assert_string_equal(json_string_value(json_array_get(json_object_get(document, "1e999"), 4)) + 2, text);
    json_decref(document);
}

static void test_numbers_too_large(void **state)
{
    char digits[160];

    (void)state;
    real_is("9223372036854775808", 9223372036854775808.0);
    real_is("-9223372036854775809", -9223372036854775809.0);
    real_is("123456789012345678901234567890", 123456789012345678901234567890.0);
    real_is("2e308", 1e308);
    real_is("-2e308", -1e308);
    real_is("1E+999", 1e308);
    real_is("-1.5e99999999999999999999", -1e308);
    memset(digits, '9', sizeof(digits) - 1);
    digits[sizeof(digits) - 1] = '\0';
    real_is(digits, 1e159);
}

/* An integer of more digits than any double has, in a text of its own. */
static void test_integer_of_a_thousand_digits(void **state)
{
    char text[1003] = "[-";
    char reason[RPC_JSON_REASON_SIZE];
    json_t *document;

    (void)state;
    memset(text + 2, '7', 1000);
    text[1001] = ']';
    document = rpc_json_load((struct rpc_bytes){.data = text, .size = 1002}, reason);
    assert_non_null(document);
    assert_true(json_real_value(json_array_get(document, 0)) == -1e308);
    json_decref(document);
}

static void members_are(const char *text, const char *args, const char *kwargs)
{
    static const char *const names[] = {"args", "kwargs"};
    struct rpc_bytes values[2];

    assert_true(rpc_json_members(rpc_bytes_of(text), 2, names, values));
    for (size_t i = 0; i < 2; i++) {
        const char *expected = i == 0 ? args : kwargs;

        if (expected == NULL) {
            assert_null(values[i].data);
            assert_int_equal(values[i].size, 0);
        } else if (!rpc_bytes_equal(values[i], expected)) {
            fail_msg("%s: \"%.*s\" instead of \"%s\"", text, (int)values[i].size, values[i].data, expected);
        }
    }
}

static void members_are_refused(const char *text)
{
    static const char *const names[] = {"args", "kwargs"};
    struct rpc_bytes values[2] = {RPC_BYTES("left"), RPC_BYTES("over")};

    assert_false(rpc_json_members(rpc_bytes_of(text), 2, names, values));
    assert_null(values[0].data);
    assert_null(values[1].data);
}

static void test_members(void **state)
{
    (void)state;
    members_are("{\"args\":[1],\"kwargs\":{}}", "[1]", "{}");
    members_are(" { \"kwargs\" : {\"args\":[2]} , \"args\" : [ 1 ] } ", "[ 1 ]", "{\"args\":[2]}");
    members_are("{\"args\":1,\"args\":\"two\",\"x\":3}", "\"two\"", NULL);
    members_are("{\"args\":-1.5e3 ,\"kwargs\":null}", "-1.5e3", "null");
    members_are("{\"a\\u0072gs\":1,\"argsx\":2,\"arg\":3,\"\":4}", NULL, NULL);
    members_are("{}", NULL, NULL);
    members_are("{\"a\":{\"args\":1},\"b\":[{\"kwargs\":1}]}", NULL, NULL);
    members_are("{\"args\":[[],{}],\"kwargs\":[{\"args\":{}}]}", "[[],{}]", "[{\"args\":{}}]");
    members_are_refused("[]");
    members_are_refused("");
    members_are_refused("   ");
    members_are_refused("\"args\"");
    members_are_refused("{\"args\":[1],\"kwargs\":{}} x");
    members_are_refused("{\"args\":[1],\"kwargs\":{");
    members_are_refused("{\"args\":[1],\"kwargs\":}");
}

static void spells_at(const char *string, const char *text, bool expected, int line)
{
    struct rpc_bytes exact_string = exact(string, strlen(string)), exact_text = exact(text, strlen(text));

    if (rpc_json_string_spells(exact_string, exact_text) != expected)
        fail_msg("line %d: %s", line, string);
    free((char *)exact_string.data);
    free((char *)exact_text.data);
}

static void equal_at(const char *one, const char *other, bool expected, int line)
{
    struct rpc_bytes exact_one = exact(one, strlen(one)), exact_other = exact(other, strlen(other));

    if (rpc_json_strings_equal(exact_one, exact_other) != expected ||
        rpc_json_strings_equal(exact_other, exact_one) != expected)
        fail_msg("line %d: %s, %s", line, one, other);
    free((char *)exact_one.data);
    free((char *)exact_other.data);
}

#define spells(string, text)     spells_at(string, text, true, __LINE__)
#define spells_not(string, text) spells_at(string, text, false, __LINE__)
#define equal(one, other)        equal_at(one, other, true, __LINE__)
#define different(one, other)    equal_at(one, other, false, __LINE__)

static void test_what_strings_spell(void **state)
{
    (void)state;
    spells("\"\"", "");
    spells("\"abc\"", "abc");
    spells("\"a\\\"\\\\\\/\\n\\u0041\"", "a\"\\/\nA");
    spells("\"\\u00fc\\u20AC\\ud83d\\udE80\"", "\xc3\xbc\xe2\x82\xac\xf0\x9f\x9a\x80");
    spells("\"\xc3\xbc\xf0\x9f\x9a\x80\"", "\xc3\xbc\xf0\x9f\x9a\x80");
    spells_not("\"\"", "a");
    spells_not("\"a\"", "");
    spells_not("\"a\"", "ab");
    spells_not("\"ab\"", "a");
    spells_not("\"a\"", "A");
    spells_not("\"a\\n\"", "a\\n"); /* in a text a backslash is one */
    spells("\"a\\\\n\"", "a\\n");
    spells_not("\"\\u00fc\"", "\xfc"); /* no UTF-8 */
    spells_not("\"\\u00fc\"", "\xc3");
    equal("\"a\"", "\"a\"");
    equal("\"a\\/\"", "\"a/\"");
    equal("\"\\u00FC\"", "\"\xc3\xbc\"");
    equal("\"\\ud83d\\ude80\"", "\"\xf0\x9f\x9a\x80\"");
    equal("\"\\t\"", "\"\\u0009\"");
    different("\"a\"", "\"b\"");
    different("\"\"", "\"\\n\"");
    different("\"\\n\"", "\"\\\\n\"");
    different("\"\\u00fc\"", "\"\\u00fcx\"");
}

static void test_member_names_are_bytes(void **state)
{
    static const char *const names[] = {"a\\n", ""};
    struct rpc_bytes values[2];

    (void)state;
    assert_true(rpc_json_members(RPC_BYTES("{\"a\\n\":1,\"\":2}"), 2, names, values));
    assert_null(values[0].data); /* that key is a newline's, not a backslash's */
    assert_true(rpc_bytes_equal(values[1], "2"));
    assert_true(rpc_json_members(RPC_BYTES("{\"a\":1}"), 0, NULL, NULL));
}

/* ---- At random --------------------------------------------------------------------------------------------------- */

static uint64_t random_state = 0x9E3779B97F4A7C15u; /* the same texts in each run */

static uint32_t random_below(uint32_t bound)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32) % bound;
}

static const char *const pieces[] = {
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\"a\"",
    "\"b\":",
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1.5",
    "1e3",
    "1e999",
    " ",
    "\n",
    "\\u0041",
    "\\uD83D",
    "\\uDE00",
    "\\u0000",
    "\\n",
    "\\",
    "\xC3\xA9",
    "\xE2\x82\xAC",
    "\xED\xA0\x80",
    "\xF0\x9F\x98\x80",
    "\x80",
    "\x01",
    "99999999999999999999",
    "{\"a\":1}",
    "[1,2]",
    "\"x\\\"y\"",
    ".",
    "-",
    "e",
    "+",
    "\"\\uD83D\\uDE00\"",
};

static size_t text_of_pieces(char *text)
{
    size_t size = 0;
    uint32_t count = random_below(12);

    for (uint32_t i = 0; i < count; i++) {
        const char *piece = pieces[random_below(sizeof(pieces) / sizeof(pieces[0]))];

        memcpy(text + size, piece, strlen(piece));
        size += strlen(piece);
    }
    return size;
}

/* A sound value, at most `depth` deep. */
static char *grow(char *at, const char *end, unsigned depth)
{
    static const char *const scalars[] = {
        "null",  "true", "-12", "0.5e-7", "\"text\"", "\"\\u00e9\\n\"", "\"\xE2\x82\xAC\"", "123456789012345678901",
        "1e400",
    };
    uint32_t kind = depth == 0 || end - at < 60 ? 0 : random_below(3);
    uint32_t count = random_below(4);

    if (kind == 0)
        return stpcpy(at, scalars[random_below(sizeof(scalars) / sizeof(scalars[0]))]);
    at = stpcpy(at, kind == 1 ? "[" : "{");
    for (uint32_t i = 0; i < count && end - at >= 60; i++) {
        if (i > 0)
            at = stpcpy(at, random_below(2) == 0 ? "," : " , ");
        if (kind == 2)
            at += sprintf(at, "\"%u\":", random_below(9)); /* sometimes twice */
        at = grow(at, end, depth - 1);
    }
    return stpcpy(at, kind == 1 ? "]" : "}");
}

static size_t text_mutated(char *text)
{
    size_t size = (size_t)(grow(text, text + RANDOM_SIZE, 4) - text);
    uint32_t count = random_below(3);

    for (uint32_t i = 0; i < count && size > 0; i++) {
        size_t at = random_below((uint32_t)size);

        switch (random_below(3)) {
        case 0:
            text[at] = (char)random_below(256);
            break;
        case 1:
            memmove(text + at, text + at + 1, size - at - 1);
            size--;
            break;
        default:
            size = at;
            break;
        }
    }
    return size;
}

/* What jansson alone says of the same text, apart from what we ask beyond it or excuse. */
static void agrees(struct rpc_bytes text, unsigned taken[2])
{
    char reason[RPC_JSON_REASON_SIZE];
    json_error_t error = {0};
    json_t *document = rpc_json_load(text, reason);
    json_t *plain = json_loadb(text.data, text.size, JSON_DECODE_ANY, &error);
    bool sound = rpc_json_check(text);
    bool duplicate = strncmp(reason, "duplicate key", 13) == 0;

    if (sound != (document != NULL || duplicate))
        fail_msg("check says %d, load says \"%s\": %.*s", sound, reason, (int)text.size, text.data);
    if (memchr(text.data, '\0', text.size) != NULL) {
        assert_false(sound); /* jansson steps over a NUL behind a number */
    } else if (plain != NULL ||
               json_error_code(&error) != json_error_numeric_overflow) { /* there it stops, undecided */
        if (sound != (plain != NULL))
            fail_msg("check says %d, jansson says \"%s\": %.*s", sound, error.text, (int)text.size, text.data);
        if (document != NULL && !json_equal(document, plain))
            fail_msg("jansson reads other values: %.*s", (int)text.size, text.data);
    }
    taken[sound]++;
    json_decref(document);
    json_decref(plain);
}

static void test_random_texts(void **state)
{
    char text[RANDOM_SIZE * 3];
    unsigned taken[2] = {0, 0};

    (void)state;
    for (int i = 0; i < RANDOM_TEXTS; i++) {
        struct rpc_bytes bytes = exact(text, i % 2 == 0 ? text_of_pieces(text) : text_mutated(text));

        agrees(bytes, taken);
        free((char *)bytes.data);
    }
    /* the test tests something only while both kinds are common */
    assert_true(taken[false] > RANDOM_TEXTS / 10);
    assert_true(taken[true] > RANDOM_TEXTS / 10);
}

static void test_text_of_a_value(void **state)
{
    json_t *string = json_string("\xC3\xBC"), *number = json_integer(7);

    (void)state;
    assert_true(rpc_bytes_equal(rpc_json_text(string), "\xC3\xBC"));
    assert_null(rpc_json_text(number).data);
    assert_int_equal(rpc_json_text(number).size, 0);
    assert_null(rpc_json_text(NULL).data);
    assert_int_equal(rpc_json_text(NULL).size, 0);
    json_decref(string);
    json_decref(number);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_duplicate_keys),
        cmocka_unit_test(test_bytes_in_strings),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_numbers_too_large),
        cmocka_unit_test(test_integer_of_a_thousand_digits),
        cmocka_unit_test(test_what_strings_spell),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_member_names_are_bytes),
        cmocka_unit_test(test_random_texts),
        cmocka_unit_test(test_text_of_a_value),
    };

    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}

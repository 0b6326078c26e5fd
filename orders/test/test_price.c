/* price: text and JSON numbers to cents and back, one line a case. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "price.h"

#define UNTOUCHED  INT64_C(-77)
#define TEXT_BELOW 20000 /* all prices below this many cents */

static const char *name_of(enum price_status status)
{
    switch (status) {
    case PRICE_OK:
        return "PRICE_OK";
    case PRICE_NOT_DECIMAL:
        return "PRICE_NOT_DECIMAL";
    case PRICE_TOO_PRECISE:
        return "PRICE_TOO_PRECISE";
    case PRICE_INEXACT:
        return "PRICE_INEXACT";
    case PRICE_TOO_LARGE:
        return "PRICE_TOO_LARGE";
    case PRICE_NEGATIVE:
        return "PRICE_NEGATIVE";
    }
    return "?";
}

static void expect(enum price_status status, int64_t price_cents, enum price_status expected, int64_t expected_cents,
                   const char *what, int line)
{
    if (status != expected)
        fail_msg("line %d: %s: %s, not %s", line, what, name_of(status), name_of(expected));
    if (price_cents != expected_cents)
        fail_msg("line %d: %s: %lld cents, not %lld", line, what, (long long)price_cents, (long long)expected_cents);
}

/* The text is copied to its exact size, so that a sanitizer sees a parser that reads on. */
static void text_is(const char *text, size_t size, enum price_status expected, int64_t expected_cents, int line)
{
    int64_t price_cents = UNTOUCHED;
    char *exact = malloc(size == 0 ? 1 : size);
    enum price_status status;

    assert_non_null(exact);
    memcpy(exact, text, size);
    status = price_parse(&price_cents, (struct rpc_bytes){.data = exact, .size = size});
    free(exact);
    expect(status, price_cents, expected, expected_cents, text, line);
}

static void value_is(const char *json, enum price_status expected, int64_t expected_cents, int line)
{
    int64_t price_cents = UNTOUCHED;
    json_t *value = json_loads(json, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    enum price_status status;

    assert_non_null(value);
    status = price_read(&price_cents, value);
    json_decref(value);
    expect(status, price_cents, expected, expected_cents, json, line);
}

#define price_is(text, cents)          text_is("" text, sizeof(text) - 1, PRICE_OK, INT64_C(cents), __LINE__)
#define price_is_refused(text, status) text_is("" text, sizeof(text) - 1, status, UNTOUCHED, __LINE__)
#define json_is(json, cents)           value_is(json, PRICE_OK, INT64_C(cents), __LINE__)
#define json_is_refused(json, status)  value_is(json, status, UNTOUCHED, __LINE__)

static void test_text(void **state)
{
    (void)state;
    price_is("100000.99", 10000099);
    price_is("0.1", 10);
    price_is("0", 0);
    price_is("0.00", 0);
    price_is("0.01", 1);
    price_is("1.5", 150);
    price_is("5", 500);
    price_is("007.50", 750);
    price_is("9999999999999999.99", 999999999999999999);
    price_is("9999999999999999", 999999999999999900);
    price_is("9007199254740993.01", 900719925474099301); /* no double is this */
    price_is("00000000000000000000000000001", 100);
}

static void test_text_refused(void **state)
{
    (void)state;
    price_is_refused("1.005", PRICE_TOO_PRECISE);
    price_is_refused("0.001", PRICE_TOO_PRECISE);
    price_is_refused("1.500", PRICE_TOO_PRECISE);
    price_is_refused("10000000000000000", PRICE_TOO_LARGE);
    price_is_refused("10000000000000000.00", PRICE_TOO_LARGE);
    price_is_refused("99999999999999999999999999999999", PRICE_TOO_LARGE);
    price_is_refused("-1", PRICE_NEGATIVE);
    price_is_refused("-0.01", PRICE_NEGATIVE);
    price_is_refused("-0", PRICE_NEGATIVE);
    price_is_refused("", PRICE_NOT_DECIMAL);
    price_is_refused("-", PRICE_NOT_DECIMAL);
    price_is_refused("--1", PRICE_NOT_DECIMAL);
    price_is_refused("+1", PRICE_NOT_DECIMAL);
    price_is_refused(".", PRICE_NOT_DECIMAL);
    price_is_refused(".5", PRICE_NOT_DECIMAL);
    price_is_refused("1.", PRICE_NOT_DECIMAL);
    price_is_refused("1.2.3", PRICE_NOT_DECIMAL);
    price_is_refused("1e2", PRICE_NOT_DECIMAL);
    price_is_refused("1.0e1", PRICE_NOT_DECIMAL);
    price_is_refused(" 1", PRICE_NOT_DECIMAL);
    price_is_refused("1 ", PRICE_NOT_DECIMAL);
    price_is_refused("1\n", PRICE_NOT_DECIMAL);
    price_is_refused("1\0", PRICE_NOT_DECIMAL);
    price_is_refused("1,50", PRICE_NOT_DECIMAL);
    price_is_refused("1_000", PRICE_NOT_DECIMAL);
    price_is_refused("0x10", PRICE_NOT_DECIMAL);
    price_is_refused("NaN", PRICE_NOT_DECIMAL);
    price_is_refused("Infinity", PRICE_NOT_DECIMAL);
    price_is_refused("99999999999999999999x", PRICE_NOT_DECIMAL);
    price_is_refused("\xd9\xa1\xd9\xa2", PRICE_NOT_DECIMAL); /* Arabic digits */
    price_is_refused("1\xc2\xa0", PRICE_NOT_DECIMAL);
}

static void test_json(void **state)
{
    (void)state;
    json_is("\"19.99\"", 1999);
    json_is("100000.99", 10000099);
    json_is("0", 0);
    json_is("0.0", 0);
    json_is("-0.0", 0);
    json_is("0.1", 10);
    json_is("0.29", 29);
    json_is("1.15", 115);
    json_is("5.0", 500);
    json_is("1e2", 10000);
    json_is("99999999999.99", 9999999999999);
    json_is("70368744177663.99", 7036874417766399);
    json_is("9999999999999999", 999999999999999900);
}

static void test_json_refused(void **state)
{
    (void)state;
    json_is_refused("1.005", PRICE_TOO_PRECISE);
    json_is_refused("0.001", PRICE_TOO_PRECISE);
    json_is_refused("1e-300", PRICE_TOO_PRECISE);
    json_is_refused("100000.999", PRICE_TOO_PRECISE);
    json_is_refused("70368744177664.01", PRICE_INEXACT);
    json_is_refused("9007199254740992.01", PRICE_INEXACT);
    json_is_refused("10000000000000000", PRICE_TOO_LARGE);
    json_is_refused("9223372036854775807", PRICE_TOO_LARGE);
    json_is_refused("1e16", PRICE_TOO_LARGE);
    json_is_refused("1e300", PRICE_TOO_LARGE);
    json_is_refused("-1", PRICE_NEGATIVE);
    json_is_refused("-0.01", PRICE_NEGATIVE);
    json_is_refused("-9223372036854775808", PRICE_NEGATIVE);
    json_is_refused("true", PRICE_NOT_DECIMAL);
    json_is_refused("null", PRICE_NOT_DECIMAL);
    json_is_refused("[]", PRICE_NOT_DECIMAL);
    json_is_refused("{}", PRICE_NOT_DECIMAL);
    json_is_refused("\"1\\u0000\"", PRICE_NOT_DECIMAL);
}

static void test_print(void **state)
{
    char text[PRICE_TEXT_SIZE];
    int64_t price_cents, read_cents = 0;
    size_t size;

    (void)state;
    for (price_cents = 0; price_cents < TEXT_BELOW; price_cents++) {
        size = price_print(text, price_cents);
        assert_int_equal(size, strlen(text));
        assert_int_equal(price_parse(&read_cents, rpc_bytes_of(text)), PRICE_OK);
        assert_int_equal(read_cents, price_cents);
    }
    price_print(text, 5);
    assert_string_equal(text, "0.05");
    price_print(text, 10000099);
    assert_string_equal(text, "100000.99");
    assert_int_equal(price_print(text, PRICE_CENTS_MAX), PRICE_TEXT_SIZE - 1);
    assert_string_equal(text, "9999999999999999.99");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),         cmocka_unit_test(test_text_refused), cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_refused), cmocka_unit_test(test_print),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

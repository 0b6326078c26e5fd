/* target: paths and queries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "target.h"

static void test_split(void **state)
{
    struct target target = target_of(RPC_BYTES("/a?b?c"));

    (void)state;
    assert_true(rpc_bytes_equal(target.path, "/a"));
    assert_true(rpc_bytes_equal(target.query, "b?c"));
    target = target_of(RPC_BYTES("/a?"));
    assert_true(rpc_bytes_equal(target.path, "/a"));
    assert_int_equal(target.query.size, 0);
    target = target_of(RPC_BYTES("/a%3Fb"));
    assert_true(rpc_bytes_equal(target.path, "/a%3Fb"));
    assert_null(target.query.data);
}

static void integer_is(const char *query, enum target_parameter expected, int64_t expected_value, int line)
{
    int64_t value = 7777;
    enum target_parameter found = target_integer(rpc_bytes_of(query), "limit", &value);

    if (found != expected || (found == TARGET_INTEGER && value != expected_value) ||
        (found == TARGET_ABSENT && value != 7777))
        fail_msg("line %d: %s: %d, %lld", line, query, (int)found, (long long)value);
}

#define is(query, value) integer_is(query, TARGET_INTEGER, value, __LINE__)
#define absent(query)    integer_is(query, TARGET_ABSENT, 0, __LINE__)
#define invalid(query)   integer_is(query, TARGET_INVALID, 0, __LINE__)

static void test_integers(void **state)
{
    (void)state;
    is("limit=5", 5);
    is("limit=0", 0);
    is("limit=007", 7);
    is("limit=%31%30", 10);
    is("a=b&limit=9223372036854775807&c", INT64_MAX);
    is("&&=&limit=1&", 1);
    is("limit=9223372036854775806", INT64_MAX - 1);
    is("limit=9223372036854775808", INT64_MAX);
    is("limit=9223372036854775817", INT64_MAX);
    is("limit=18446744073709551617", INT64_MAX);
    is("limit=99999999999999999999999999999999999999999999999999999999999999999999999999999999", INT64_MAX);
    is("limit=%30000000000000000000000000000000000000000000000000000000000000000000000000000000000005", 5);
    invalid("limit=99999999999999999999x");
    absent("");
    absent("limits=5");
    absent("limi=5");
    absent("Limit=5");
    absent("a=limit=5");
    invalid("limit");
    invalid("limit=");
    invalid("limit=-1");
    invalid("limit=+1");
    invalid("limit=1.5");
    invalid("limit=1e1");
    invalid("limit=0x1");
    invalid("limit=%201");
    invalid("limit=1%00");
    invalid("limit=%");
    invalid("limit=%d9%a1");
    invalid("limit=1&limit=1");
    invalid("limit=1&x&limit=");
}

static void test_digits(void **state)
{
    int64_t value = 7777;

    (void)state;
    assert_false(target_digits(RPC_BYTES(""), &value));
    assert_false(target_digits(RPC_BYTES("-1"), &value));
    assert_false(target_digits(RPC_BYTES("%31"), &value));
    assert_false(target_digits(RPC_BYTES("1 "), &value));
    assert_int_equal(value, 7777);
    assert_true(target_digits(RPC_BYTES("0012"), &value) && value == 12);
    assert_true(target_digits(RPC_BYTES("9223372036854775807"), &value) && value == INT64_MAX);
    value = 0;
    assert_true(target_digits(RPC_BYTES("9223372036854775808"), &value) && value == INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_digits),
    };

    return cmocka_run_group_tests_name("target", tests, NULL, NULL);
}

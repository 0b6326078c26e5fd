/* rpc_utc: dates, whatever the time zone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "rpclib/utc.h"

static void is(time_t at, const char *expected)
{
    char text[RPC_UTC_SIZE] = "untouched";

    rpc_utc_print(text, at);
    assert_string_equal(text, expected);
}

static void test_moments(void **state)
{
    (void)state;
    setenv("TZ", "Asia/Kathmandu", 1);
    tzset();
    is(0, "1970-01-01T00:00:00Z");
    is(-1, "1969-12-31T23:59:59Z");
    is(951782400, "2000-02-29T00:00:00Z");
    is(1795306500, "2026-11-22T00:15:00Z");
    is(253402300800, "10000-01-01T00:00:00Z");
    is(INT64_MAX, "");
    is(INT64_MIN, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moments),
    };

    return cmocka_run_group_tests_name("utc", tests, NULL, NULL);
}

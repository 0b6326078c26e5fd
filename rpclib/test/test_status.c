/* rpc_status: a name for each, and the promise that nothing was done for those alone that can keep it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rpclib/status.h"

static void status_is(enum rpc_status status, const char *name, bool nothing_done)
{
    assert_string_equal(rpc_status_name(status), name);
    assert_int_equal(rpc_status_nothing_done(status), nothing_done);
}

static void test_statuses(void **state)
{
    (void)state;
    status_is(RPC_OK, "ok", false);
    status_is(RPC_REMOTE_ERROR, "remote_error", false);
    status_is(RPC_UNKNOWN_SERVICE, "unknown_service", true);
    status_is(RPC_BUSY, "busy", true);
    status_is(RPC_OFFLINE, "offline", true);
    status_is(RPC_BLOCKED, "blocked", true);
    status_is(RPC_TIMEOUT, "timeout", false);
    status_is(RPC_LOST, "lost", false);
    status_is(RPC_REFUSED, "refused", false);
    status_is(RPC_BAD_REPLY, "bad_reply", false);
    status_is(RPC_TOO_LARGE, "too_large", true);
    status_is(RPC_NO_MEMORY, "no_memory", true);
    status_is(RPC_CANCELLED, "cancelled", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_statuses)};

    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}

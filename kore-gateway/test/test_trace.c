/* trace: which traceparents and tracestates of a client's are passed on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "trace.h"

#define IDS "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"

static void parent_is_at(bool expected, const char *text, int line)
{
    if (trace_parent_is_sound(rpc_bytes_of(text)) != expected)
        fail_msg("line %d: \"%s\"", line, text);
}

#define parent_is_sound(text)   parent_is_at(true, text, __LINE__)
#define parent_is_refused(text) parent_is_at(false, text, __LINE__)

static void test_parent(void **state)
{
    (void)state;
    parent_is_sound("00-" IDS "-01");
    parent_is_sound("00-" IDS "-ff");
    parent_is_sound("cc-" IDS "-01");
    parent_is_sound("cc-" IDS "-01-what the future holds");
    parent_is_refused("");
    parent_is_refused("00-" IDS "-0");
    parent_is_refused("00-" IDS "-01-"); /* version 00 ends there */
    parent_is_refused("cc-" IDS "-01.what not");
    parent_is_refused("ff-" IDS "-01");
    parent_is_refused("0x-" IDS "-01");
    parent_is_refused("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01");
    parent_is_refused("00-00000000000000000000000000000000-b7ad6b7169203331-01");
    parent_is_refused("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01");
    parent_is_refused("00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    parent_is_refused("00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01");
    parent_is_refused("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01");
}

/* A header may be as long as a head; only so much of one travels on. */
static void test_sizes(void **state)
{
    char text[TRACE_SIZE_MAX + 1];

    (void)state;
    memset(text, 'a', sizeof(text));
    memcpy(text, "cc-" IDS "-01-", 56);
    assert_true(trace_parent_is_sound((struct rpc_bytes){text, TRACE_SIZE_MAX}));
    assert_false(trace_parent_is_sound((struct rpc_bytes){text, TRACE_SIZE_MAX + 1}));
    assert_true(trace_state_is_sound((struct rpc_bytes){text, TRACE_SIZE_MAX}));
    assert_false(trace_state_is_sound((struct rpc_bytes){text, TRACE_SIZE_MAX + 1}));
}

static void test_state(void **state)
{
    (void)state;
    assert_true(trace_state_is_sound(RPC_BYTES("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")));
    assert_true(trace_state_is_sound(RPC_BYTES(" ~")));
    assert_false(trace_state_is_sound(RPC_BYTES("")));
    assert_false(trace_state_is_sound((struct rpc_bytes){NULL, 0}));
    assert_false(trace_state_is_sound(RPC_BYTES("a\tb")));
    assert_false(trace_state_is_sound(RPC_BYTES("caf\xc3\xa9")));
    assert_false(trace_state_is_sound(RPC_BYTES("a\x7f")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parent),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

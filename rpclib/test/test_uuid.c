/* rpc_uuid4: the form, no repetition, and what a fork must not copy. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "uuid.h"

#define MANY 3000 /* the pool is filled a dozen times */

ssize_t __real_getrandom(void *out, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags);

static unsigned fills;  /* calls of getrandom() */
static bool interrupts; /* every other one is interrupted, the rest give a part */

ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags)
{
    fills++;
    if (interrupts && fills % 2 == 0) {
        errno = EINTR;
        return -1;
    }
    return __real_getrandom(out, interrupts && size > 100 ? 100 : size, flags);
}

static bool is_uuid4(const char *text)
{
    for (size_t i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (dash ? text[i] != '-' : text[i] == '\0' || strchr("0123456789abcdef", text[i]) == NULL)
            return false;
    }
    return text[36] == '\0' && text[14] == '4' && strchr("89ab", text[19]) != NULL;
}

static int compare(const void *one, const void *other)
{
    return memcmp(one, other, RPC_UUID_SIZE);
}

static void make_many(void)
{
    static char uuids[MANY][RPC_UUID_SIZE];

    for (size_t i = 0; i < MANY; i++) {
        memset(uuids[i], 'x', sizeof(uuids[i]));
        rpc_uuid4(uuids[i]);
        assert_true(is_uuid4(uuids[i]));
    }
    qsort(uuids, MANY, RPC_UUID_SIZE, compare);
    for (size_t i = 1; i < MANY; i++)
        assert_string_not_equal(uuids[i - 1], uuids[i]);
}

static void test_form_and_no_repetition(void **state)
{
    (void)state;
    fills = 0;
    make_many();
    assert_true(fills <= MANY / 256 + 1);
}

static void test_interrupted_system_calls(void **state)
{
    (void)state;
    interrupts = true;
    make_many();
    interrupts = false;
}

/* Every digit takes every value that it may: nothing is stuck. */
static void test_all_digits_vary(void **state)
{
    uint16_t seen[36] = {0};
    char uuid[RPC_UUID_SIZE];

    (void)state;
    for (int n = 0; n < MANY; n++) {
        rpc_uuid4(uuid);
        for (size_t i = 0; i < 36; i++) {
            if (uuid[i] != '-')
                seen[i] |= (uint16_t)(1u << (uuid[i] <= '9' ? uuid[i] - '0' : uuid[i] - 'a' + 10));
        }
    }
    for (size_t i = 0; i < 36; i++) {
        uint16_t expected = i == 8 || i == 13 || i == 18 || i == 23 ? 0 : 0xFFFF;

        if (i == 14)
            expected = 1 << 4;
        if (i == 19)
            expected = 0x0F00;
        assert_int_equal(seen[i], expected);
    }
}

static void test_fork_does_not_repeat(void **state)
{
    char before[RPC_UUID_SIZE], ours[RPC_UUID_SIZE], theirs[RPC_UUID_SIZE];
    int ends[2];
    int status;
    pid_t child;

    (void)state;
    rpc_uuid4(before); /* the pool is not empty now */
    assert_int_equal(pipe(ends), 0);
    child = fork();
    if (child == 0) {
        rpc_uuid4(theirs);
        _exit(write(ends[1], theirs, sizeof(theirs)) == (ssize_t)sizeof(theirs) ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(read(ends[0], theirs, sizeof(theirs)), sizeof(theirs));
    assert_true(is_uuid4(theirs));
    rpc_uuid4(ours);
    assert_string_not_equal(ours, theirs);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_form_and_no_repetition),
        cmocka_unit_test(test_interrupted_system_calls),
        cmocka_unit_test(test_all_digits_vary),
        cmocka_unit_test(test_fork_does_not_repeat),
    };

    return cmocka_run_group_tests_name("uuid", tests, NULL, NULL);
}

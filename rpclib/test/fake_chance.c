#include "fake_chance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/types.h>

#include <cmocka.h>

uint64_t fake_chance;
bool fake_chance_fails;

ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags);

ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags)
{
    (void)flags;
    assert_int_equal(size, sizeof(fake_chance));
    if (fake_chance_fails)
        return -1;
    memcpy(out, &fake_chance, sizeof(fake_chance));
    return (ssize_t)size;
}

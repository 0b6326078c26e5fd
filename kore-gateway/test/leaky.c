/*
 * A gateway that leaks, of sanitized builds alone: each GET /healthz loses a block of the C library's and one of Kore's.
 * test/test_sanitizers.py sees that both are reported, whatever of Kore's own is not.
 */
#include <kore/kore.h>

#include <stdlib.h>

#include "health.h"

#define OURS_SIZE  12345
#define KORES_SIZE 23456 /* beyond Kore's pools, in which no sanitizer sees a leak */

/* The linker has it called instead of health_alive(), which is __real_health_alive() here. */
void __wrap_health_alive(struct flight *flight);
void __real_health_alive(struct flight *flight);

static void *volatile lost;

void __wrap_health_alive(struct flight *flight)
{
    lost = malloc(OURS_SIZE);
    lost = kore_malloc(KORES_SIZE);
    lost = NULL;
    __real_health_alive(flight);
}

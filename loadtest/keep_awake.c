/*
 * Keeps each processor awake with a process that runs only where nobody else wants to (SCHED_IDLE): whoever wakes up
 * takes its place at once.  A processor without work sleeps; a virtual machine's is then given back to the host, and waking
 * it takes tens of microseconds, or a millisecond where the host is busy.  That is the machine's time, not the shop's.
 * Usage: keep_awake.  It ends with the process that started it.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* A turn of waiting that leaves the core to the other processor of a pair that shares one. */
static inline void rest(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static bool end_with_parent(pid_t parent)
{
    return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent;
}

static bool stay_on(size_t processor)
{
    const struct sched_param unused = {.sched_priority = 0};
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    return sched_setaffinity(0, sizeof(set), &set) == 0 && sched_setscheduler(0, SCHED_IDLE, &unused) == 0;
}

static void keep(size_t processor, pid_t parent)
{
    if (!end_with_parent(parent) || !stay_on(processor)) {
        fprintf(stderr, "keep_awake: processor %zu: %s\n", processor, strerror(errno));
        _exit(EXIT_FAILURE);
    }
    for (;;)
        rest();
}

int main(void)
{
    const pid_t self = getpid();
    cpu_set_t ours;
    int status = 0;

    if (!end_with_parent(getppid()) || sched_getaffinity(0, sizeof(ours), &ours) == -1)
        return EXIT_FAILURE;
    for (size_t processor = 0; processor < CPU_SETSIZE; processor++) {
        if (CPU_ISSET(processor, &ours) && fork() == 0)
            keep(processor, self);
    }
    return wait(&status) == -1 || status != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

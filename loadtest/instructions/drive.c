#include "drive.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) void drive_measured(void (*work)(void *arg), void *arg)
{
    work(arg);
    __asm__ volatile("" ::: "memory"); /* no tail call: the count ends where this function does */
}

static void turn(void *arg)
{
    event_base_loop(arg, EVLOOP_NONBLOCK);
}

void drive_turn(struct event_base *base, bool measured)
{
    static unsigned turns;

    drive_require(++turns < DRIVE_TURNS_MAX, "an end within the turns that it should take");
    if (measured)
        drive_measured(turn, base);
    else
        turn(base);
}

void drive_require(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "drive: it lacks %s\n", what);
    exit(1);
}

int drive_main(int argc, char *argv[], const struct drive_case *cases, size_t count)
{
    signal(SIGPIPE, SIG_IGN);
    setenv("LOG_LEVEL", "warning", 0);
    for (size_t i = 0; i < count; i++) {
        if (argc == 1)
            puts(cases[i].name);
        if (argc == 4 && strcmp(argv[1], cases[i].name) == 0) {
            cases[i].run((unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]));
            return 0;
        }
    }
    if (argc == 1)
        return 0;
    fprintf(stderr, "usage: %s [CASE REQUESTS AT_ONCE]\n", argv[0]);
    return 2;
}

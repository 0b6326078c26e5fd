/*
 * drive: what the programs share whose instructions are counted.
 *
 * Callgrind counts inside drive_measured() alone (--toggle-collect), so neither set-up nor the servers that the program plays
 * are in the figure.  A case answers `requests` requests; instructions.py divides.
 */
#ifndef LOADTEST_INSTRUCTIONS_DRIVE_H
#define LOADTEST_INSTRUCTIONS_DRIVE_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>

#define DRIVE_TURNS_MAX 1000000 /* then a driver has gone wrong */

/* What is counted: everything that `work` does. */
void drive_measured(void (*work)(void *arg), void *arg);

/* One turn of the loop, counted or not. */
void drive_turn(struct event_base *base, bool measured);

struct drive_case {
    const char *name;
    void (*run)(unsigned requests, unsigned at_once); /* `at_once` of them under way at the same time */
};

/* <program> CASE REQUESTS AT_ONCE, or <program> alone, which lists the cases. */
int drive_main(int argc, char *argv[], const struct drive_case *cases, size_t count);

/* Ends the program unless it holds. */
void drive_require(bool holds, const char *what);

#endif

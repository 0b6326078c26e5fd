/*
 * torture: the n-th allocation fails, or the n-th read or write, for each n: a scenario runs again and again, and one
 * thing fails in each run, until nothing is left that could.
 *
 * What is linked with it has malloc(), recv() and their like from here, its libraries too.  What counts is what the
 * program's own code asks for and what the libraries that it names ask for, on the thread of the scenario, while `when`
 * says so.  Everything else goes on to the C library.
 */
#ifndef RPCLIB_TEST_TORTURE_H
#define RPCLIB_TEST_TORTURE_H

#include <stdbool.h>
#include <stddef.h>

enum torture_fault {
    TORTURE_NO_MEMORY, /* malloc(), calloc(), realloc(), reallocarray(), strdup(): NULL */
    /* read(), recv(), write(), send() of a socket: */
    TORTURE_RESET, /* the connection is gone: ECONNRESET */
    TORTURE_AGAIN, /* nothing there, no room: EAGAIN, once */
    TORTURE_SHORT, /* one byte of many */
};

struct torture_options {
    const bool *when;                          /* what is counted, is counted while this is true */
    const char *const *libraries;              /* parts of their files' names, ended by NULL; NULL: none */
    bool (*spared)(size_t size, bool realloc); /* an allocation that must not fail; NULL: there is none */
};

/* Before the first scenario, on its thread; and again where others are to count. */
void torture_begin(const struct torture_options *options);

/* Run it for each n.  TORTURE_N in the environment says which n it is at, for runs that crash. */
void torture(const char *scenario, enum torture_fault fault, void (*run)(void));

/*
 * For sockets that the test plays itself: whether this read or write goes on, with *size bytes at most, which may be fewer
 * now.  False: it fails, and errno says why.
 */
bool torture_transfer(size_t *size);

/* From here on nothing fails, until it is told otherwise. */
void torture_spare(bool spared);

/* Whether something has failed in this run. */
bool torture_fell(void);

/* Something did not hold: said with scenario and n; the program fails. */
__attribute__((format(printf, 1, 2))) void torture_violated(const char *format, ...);

/* The program's exit code. */
int torture_end(void);

#endif

/*
 * fake_loop: an adapter of rpc_loop for tests, with a clock that stands still until it is told otherwise.
 *
 * Nothing happens by itself.  A turn is what rpc_loop promises: watches that are fired and timers that are due run their
 * callbacks, then the tasks, also those that tasks schedule.  Timers run in the order in which they are due, those of one
 * moment in the order in which they were started.  A timer that is started with no delay runs in the next turn.  The
 * same calls give the same run, always.
 */
#ifndef RPCLIB_TEST_FAKE_LOOP_H
#define RPCLIB_TEST_FAKE_LOOP_H

#include <stddef.h>

#include "rpclib/loop.h"

struct fake_loop;

struct fake_loop *fake_loop_new(void);       /* ends the test when out of memory; the clock is at FAKE_LOOP_START_MS */
void fake_loop_free(struct fake_loop *loop); /* ends the test when something made on it is left */

#define FAKE_LOOP_START_MS 1000000

/* For those who take an rpc_loop. */
struct rpc_loop *fake_loop_base(struct fake_loop *loop);

/* One turn at the present moment. */
void fake_loop_turn(struct fake_loop *loop);

/* Turns until `duration_ms` have passed, each at the moment at which a timer is due; one at least, at once. */
void fake_loop_advance(struct fake_loop *loop, uint64_t duration_ms);

/* The clock jumps without a turn: somebody was busy for that long. */
void fake_loop_delay(struct fake_loop *loop, uint64_t duration_ms);

/* A turn in which `fd` is ready for `events`: runs the watches that wait for one of them.  Returns how many ran. */
size_t fake_loop_fire(struct fake_loop *loop, int fd, unsigned events);

/* What all watches of `fd` together wait for. */
unsigned fake_loop_watched(const struct fake_loop *loop, int fd);

/* Milliseconds until the next timer is due; UINT64_MAX: none is running. */
uint64_t fake_loop_next_ms(const struct fake_loop *loop);

/* Watches, timers and tasks that exist. */
size_t fake_loop_handles(const struct fake_loop *loop);

/* Out of memory: after `count` more handles the next one is NULL, once. */
void fake_loop_fail_after(struct fake_loop *loop, unsigned count);

#endif

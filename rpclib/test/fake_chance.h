/*
 * fake_chance: getrandom() as the test has it, for what asks rpc_backoff_ms().  A program that uses it is linked with
 * -Wl,--wrap=getrandom.
 */
#ifndef RPCLIB_TEST_FAKE_CHANCE_H
#define RPCLIB_TEST_FAKE_CHANCE_H

#include <stdbool.h>
#include <stdint.h>

extern uint64_t fake_chance;   /* what it gives: so much shorter is a pause */
extern bool fake_chance_fails; /* it gives nothing */

#endif

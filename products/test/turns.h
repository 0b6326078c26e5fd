/* turns: a loop for tests, run until something is true, with a deadline and without sleeping. */
#ifndef PRODUCTS_TEST_TURNS_H
#define PRODUCTS_TEST_TURNS_H

#include <stdbool.h>

#include "rpclib/loop.h"

#define TURNS_DEADLINE_MS 30000 /* for anything at all, on a busy machine under sanitizers */

struct turns;

struct turns *turns_new(void);
void turns_free(struct turns *turns);
struct rpc_loop *turns_loop(struct turns *turns);

typedef bool turns_condition_fn(void *arg);

/* Whether the condition came true before the deadline. */
bool turns_until(struct turns *turns, turns_condition_fn *condition, void *arg);

/* What is due now, without waiting. */
void turns_once(struct turns *turns);

#endif

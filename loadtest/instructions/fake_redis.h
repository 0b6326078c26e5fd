/*
 * fake_redis: a Redis for one client in the same process, that has one product and says yes to the rest.
 *
 * HMGET answers the fields of a product, EXISTS 1, a script's run the counts of one product changed; all else OK.
 */
#ifndef LOADTEST_INSTRUCTIONS_FAKE_REDIS_H
#define LOADTEST_INSTRUCTIONS_FAKE_REDIS_H

#include <stdint.h>

struct fake_redis;

/* Everything here ends the program when it fails. */
struct fake_redis *fake_redis_new(void);
uint16_t fake_redis_port(const struct fake_redis *redis);
/* Take what has come and answer it; never waits. */
void fake_redis_turn(struct fake_redis *redis);

#endif

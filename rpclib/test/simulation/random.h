/* random: numbers that a seed decides (SplitMix64). */
#ifndef RPCLIB_TEST_RANDOM_H
#define RPCLIB_TEST_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_next(struct random *random)
{
    uint64_t mixed = random->state += 0x9e3779b97f4a7c15u;

    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebu;
    return mixed ^ mixed >> 31;
}

/* 0 to below - 1. */
static inline unsigned random_below(struct random *random, unsigned below)
{
    return (unsigned)(random_next(random) % below);
}

static inline bool random_percent(struct random *random, unsigned percent)
{
    return random_below(random, 100) < percent;
}

#endif

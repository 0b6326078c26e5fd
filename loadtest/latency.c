#include "latency.h"

#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#define STEPS (1u << LATENCY_STEP_BITS)

uint64_t latency_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void latencies_start(struct latencies *latencies)
{
    *latencies = (struct latencies){.started_ns = latency_now_ns()};
}

/* Below STEPS each nanosecond has a bucket; from there on each power of two has STEPS of them. */
static unsigned bucket_of(uint64_t ns)
{
    unsigned power;

    if (ns < STEPS)
        return (unsigned)ns;
    power = 63u - (unsigned)__builtin_clzll(ns);
    return (power - LATENCY_STEP_BITS + 1) * STEPS + (unsigned)((ns >> (power - LATENCY_STEP_BITS)) & (STEPS - 1));
}

/* The middle of a bucket. */
static uint64_t bucket_ns(unsigned bucket)
{
    unsigned shift;

    if (bucket < STEPS)
        return bucket;
    shift = bucket / STEPS - 1;
    return ((uint64_t)(STEPS + bucket % STEPS) << shift) + (((uint64_t)1 << shift) >> 1);
}

void latencies_add(struct latencies *latencies, uint64_t ns)
{
    latencies->count++;
    latencies->buckets[bucket_of(ns)]++;
    if (ns > latencies->max_ns)
        latencies->max_ns = ns;
}

uint64_t latencies_percentile_ns(const struct latencies *latencies, double share)
{
    uint64_t wanted = (uint64_t)((double)latencies->count * share), seen = 0;

    for (unsigned bucket = 0; bucket < LATENCY_BUCKETS; bucket++) {
        seen += latencies->buckets[bucket];
        if (seen > wanted) /* the last one's middle may lie behind the largest */
            return bucket_ns(bucket) < latencies->max_ns ? bucket_ns(bucket) : latencies->max_ns;
    }
    return latencies->max_ns;
}

void latencies_print_percentiles(const struct latencies *latencies)
{
    static const struct {
        const char *name;
        double share;
    } percentiles[] = {{"p50_us", 0.5}, {"p90_us", 0.9}, {"p99_us", 0.99}, {"p999_us", 0.999}};

    for (unsigned i = 0; i < sizeof(percentiles) / sizeof(percentiles[0]); i++)
        printf("\"%s\": %.1f, ", percentiles[i].name,
               (double)latencies_percentile_ns(latencies, percentiles[i].share) / 1e3);
    printf("\"max_us\": %.1f", (double)latencies->max_ns / 1e3);
}

void latencies_print(const struct latencies *latencies, const char *what, unsigned in_flight, uint64_t failures)
{
    double seconds = (double)(latency_now_ns() - latencies->started_ns) / 1e9;
    struct rusage usage;
    double cpu;

    getrusage(RUSAGE_SELF, &usage);
    cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
          (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"what\": \"%s\", \"in_flight\": %u, \"rate\": %.0f, ", what, in_flight,
           (double)latencies->count / seconds);
    latencies_print_percentiles(latencies);
    printf(", \"failures\": %llu, \"cpu_us\": %.1f}\n", (unsigned long long)failures,
           latencies->count > 0 ? cpu * 1e6 / (double)latencies->count : 0.0);
}

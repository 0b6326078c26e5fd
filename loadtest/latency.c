#include "latency.h"

#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#define STEPS 16 /* buckets a power of two */

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

static unsigned bucket_of(uint64_t ns)
{
    unsigned power, bucket;

    if (ns < STEPS)
        return (unsigned)ns;
    power = 63u - (unsigned)__builtin_clzll(ns);
    bucket = (power - 3) * STEPS + (unsigned)((ns >> (power - 4)) & (STEPS - 1));
    return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

static uint64_t bucket_ns(unsigned bucket)
{
    unsigned power = bucket / STEPS + 3;

    if (bucket < STEPS)
        return bucket;
    return (uint64_t)(STEPS + bucket % STEPS) << (power - 4);
}

void latencies_add(struct latencies *latencies, uint64_t ns)
{
    latencies->count++;
    latencies->buckets[bucket_of(ns)]++;
}

uint64_t latencies_percentile_ns(const struct latencies *latencies, double share)
{
    uint64_t wanted = (uint64_t)((double)latencies->count * share), seen = 0;

    for (unsigned bucket = 0; bucket < LATENCY_BUCKETS; bucket++) {
        seen += latencies->buckets[bucket];
        if (seen > wanted)
            return bucket_ns(bucket);
    }
    return 0;
}

void latencies_print(const struct latencies *latencies, const char *what, unsigned in_flight, uint64_t failures)
{
    double seconds = (double)(latency_now_ns() - latencies->started_ns) / 1e9;
    struct rusage usage;
    double cpu;

    getrusage(RUSAGE_SELF, &usage);
    cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
          (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf(
        "{\"what\": \"%s\", \"in_flight\": %u, \"rate\": %.0f, \"p50_us\": %.0f, \"p99_us\": %.0f, \"failures\": %llu, "
        "\"cpu_us\": %.1f}\n",
        what, in_flight, (double)latencies->count / seconds, (double)latencies_percentile_ns(latencies, 0.5) / 1e3,
        (double)latencies_percentile_ns(latencies, 0.99) / 1e3, (unsigned long long)failures,
        latencies->count > 0 ? cpu * 1e6 / (double)latencies->count : 0.0);
}

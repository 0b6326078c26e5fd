/* latency: a histogram of latencies and the line that sums a run up. */
#ifndef LOADTEST_LATENCY_H
#define LOADTEST_LATENCY_H

#include <stdint.h>

#define LATENCY_STEP_BITS 7 /* 128 buckets a power of two of nanoseconds: a percentile is right within 1 % */
#define LATENCY_BUCKETS   ((64 - LATENCY_STEP_BITS + 1) << LATENCY_STEP_BITS)

struct latencies {
    uint64_t started_ns;
    uint64_t count;
    uint64_t max_ns;
    uint64_t buckets[LATENCY_BUCKETS];
};

uint64_t latency_now_ns(void);
void latencies_start(struct latencies *latencies);
void latencies_add(struct latencies *latencies, uint64_t ns);
uint64_t latencies_percentile_ns(const struct latencies *latencies, double share);

/* The members of a JSON object that tell the percentiles, without braces. */
void latencies_print_percentiles(const struct latencies *latencies);

/* One line of JSON: rate, percentiles, failures, CPU of this process a request. */
void latencies_print(const struct latencies *latencies, const char *what, unsigned in_flight, uint64_t failures);

#endif

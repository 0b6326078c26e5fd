#include "metrics.h"

/* Every status that the gateway answers with, the usual one first; another one counts as the last. */
static const int statuses[] = {200, 204, 400, 404, 405, 408, 409, 411, 413, 414, 417, 422, 431, 503, 504, 505, 500};

#define STATUSES (sizeof(statuses) / sizeof(statuses[0]))

/* The histogram's buckets: as many requests took less than so much. */
static const struct {
    uint64_t limit_ms;
    const char *limit_s;
} buckets[] = {
    {1, "0.001"},  {2, "0.002"}, {5, "0.005"}, {10, "0.01"},  {25, "0.025"}, {50, "0.05"},  {100, "0.1"},
    {250, "0.25"}, {500, "0.5"}, {1000, "1"},  {2500, "2.5"}, {5000, "5"},   {10000, "10"},
};

#define BUCKETS (sizeof(buckets) / sizeof(buckets[0]))

static struct {
    uint64_t by_status[STATUSES];
    uint64_t by_bucket[BUCKETS + 1]; /* the last one: longer than all of them */
    uint64_t duration_ms;
} answers[ROUTES];

static uint64_t refusals[METRICS_BOUNDS];

static const char *const bound_names[METRICS_BOUNDS] = {
    [METRICS_BOUND_CONNECTIONS] = "connections",
    [METRICS_BOUND_REQUESTS] = "requests",
    [METRICS_BOUND_CALLS] = "calls",
    [METRICS_BOUND_INPUT] = "input",
    [METRICS_BOUND_OUTPUT] = "output",
};

/* --- counting --- */

void metrics_count_answer(enum route_id route, int status, uint64_t duration_ms)
{
    size_t at_status = 0, at_bucket = 0;

    while (at_status < STATUSES - 1 && statuses[at_status] != status)
        at_status++;
    while (at_bucket < BUCKETS && duration_ms >= buckets[at_bucket].limit_ms)
        at_bucket++;
    answers[route].by_status[at_status]++;
    answers[route].by_bucket[at_bucket]++;
    answers[route].duration_ms += duration_ms;
}

void metrics_count_refusal(enum metrics_bound bound)
{
    refusals[bound]++;
}

/* --- printing --- */

static void print_text(struct rpc_text *out, const char *text)
{
    rpc_text_append(out, rpc_bytes_of(text));
}

static void print_value(struct rpc_text *out, uint64_t value)
{
    rpc_text_append_integer(out, (int64_t)value);
    print_text(out, "\n");
}

static void print_head(struct rpc_text *out, const char *name, const char *type, const char *help)
{
    const char *const parts[] = {"# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n"};

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        print_text(out, parts[i]);
}

static void print_one(struct rpc_text *out, const char *name, const char *type, const char *help, uint64_t value)
{
    print_head(out, name, type, help);
    print_text(out, name);
    print_text(out, " ");
    print_value(out, value);
}

static void print_counter(struct rpc_text *out, const char *name, const char *help, uint64_t value)
{
    print_one(out, name, "counter", help, value);
}

static void print_gauge(struct rpc_text *out, const char *name, const char *help, uint64_t value)
{
    print_one(out, name, "gauge", help, value);
}

/* <name>{route="<route>" */
static void print_route(struct rpc_text *out, const char *name, enum route_id route)
{
    print_text(out, name);
    print_text(out, "{route=\"");
    print_text(out, route_name(route));
    print_text(out, "\"");
}

static void print_statuses(struct rpc_text *out)
{
    print_head(out, "gateway_requests_total", "counter", "Requests answered");
    for (size_t route = 0; route < ROUTES; route++) {
        for (size_t i = 0; i < STATUSES; i++) {
            if (answers[route].by_status[i] == 0)
                continue;
            print_route(out, "gateway_requests_total", (enum route_id)route);
            print_text(out, ",status=\"");
            rpc_text_append_integer(out, statuses[i]);
            print_text(out, "\"} ");
            print_value(out, answers[route].by_status[i]);
        }
    }
}

static void print_seconds(struct rpc_text *out, uint64_t duration_ms)
{
    char fraction[] = ".000\n";
    uint64_t rest = duration_ms % 1000;

    for (int i = 3; i > 0; i--, rest /= 10)
        fraction[i] = (char)('0' + rest % 10);
    rpc_text_append_integer(out, (int64_t)(duration_ms / 1000));
    print_text(out, fraction);
}

static void print_histogram(struct rpc_text *out, enum route_id route)
{
    uint64_t count = 0;

    for (size_t i = 0; i <= BUCKETS; i++) {
        count += answers[route].by_bucket[i];
        print_route(out, "gateway_request_duration_seconds_bucket", route);
        print_text(out, ",le=\"");
        print_text(out, i < BUCKETS ? buckets[i].limit_s : "+Inf");
        print_text(out, "\"} ");
        print_value(out, count);
    }
    print_route(out, "gateway_request_duration_seconds_sum", route);
    print_text(out, "} ");
    print_seconds(out, answers[route].duration_ms);
    print_route(out, "gateway_request_duration_seconds_count", route);
    print_text(out, "} ");
    print_value(out, count);
}

static bool was_asked(enum route_id route)
{
    for (size_t i = 0; i <= BUCKETS; i++) {
        if (answers[route].by_bucket[i] > 0)
            return true;
    }
    return false;
}

static void print_durations(struct rpc_text *out)
{
    print_head(out, "gateway_request_duration_seconds", "histogram", "From a request's arrival to its answer");
    for (size_t route = 0; route < ROUTES; route++) {
        if (was_asked((enum route_id)route))
            print_histogram(out, (enum route_id)route);
    }
}

static void print_refusals(struct rpc_text *out)
{
    print_head(out, "gateway_refused_total", "counter", "Refused at once because a bound was reached");
    for (size_t i = 0; i < METRICS_BOUNDS; i++) {
        print_text(out, "gateway_refused_total{bound=\"");
        print_text(out, bound_names[i]);
        print_text(out, "\"} ");
        print_value(out, refusals[i]);
    }
}

static void print_client(struct rpc_text *out, const struct rpc_client *client)
{
    struct rpc_client_stats stats;

    rpc_client_stats(client, &stats);
    print_gauge(out, "rpc_in_flight", "Calls under way", rpc_client_in_flight(client));
    print_counter(out, "rpc_calls_total", "Calls sent", stats.calls);
    print_counter(out, "rpc_replies_total", "Answers to calls", stats.replies);
    print_counter(out, "rpc_timeouts_total", "Calls without an answer in time", stats.timeouts);
    print_counter(out, "rpc_late_replies_total", "Answers that nobody waited for", stats.late_replies);
    print_counter(out, "rpc_returned_total", "Calls of a service that is not there", stats.returned);
    print_counter(out, "rpc_lost_total", "Calls lost with the link to the broker", stats.lost);
}

void metrics_print(struct rpc_text *out, const struct metrics_now *now)
{
    print_gauge(out, "rpc_ready", "Whether a call made now would leave", now->ready);
    print_gauge(out, "gateway_connections", "Connections of clients", now->connections);
    print_gauge(out, "gateway_requests_in_flight", "Requests being answered", now->requests);
    print_statuses(out);
    print_durations(out);
    print_refusals(out);
    if (now->client != NULL)
        print_client(out, now->client);
}

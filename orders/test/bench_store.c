/*
 * How many orders a second the store makes and reads: bench_store [in flight] [seconds] [connections]
 * [create|get|mixed]. Against a PostgreSQL of its own with fsync on and a few orders in it, or the one at POSTGRES_URI,
 * which has BENCH_ORDERS.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "postgres.h"
#include "stage.h"

#define LATENCIES_MAX 4000000
#define LINES         "[{\"product_id\":\"the_odyssey\",\"price\":\"100000.99\",\"quantity\":1}]"

static struct {
    struct stage stage;
    bool creates, gets, stopping;
    long ended, failed, in_flight;
    int32_t last_id;
    uint32_t *latencies;
    int64_t events[ORDER_STORE_IDS_MAX];
    size_t events_count;
    bool deleting;
} bench;

static void bench_next(void);

static void delete_end(struct act *act)
{
    act_free(act);
    bench.deleting = false;
}

/* As the outbox does, once the broker has them. */
static void bench_delete(void)
{
    struct act *act;

    if (bench.deleting || bench.events_count < 64)
        return;
    bench.deleting = true;
    act = act_delete_events(&bench.stage, bench.events, bench.events_count);
    bench.events_count = 0;
    act->on_end = delete_end;
}

static void bench_end(struct act *act)
{
    if (act->status != ORDER_STORE_OK)
        bench.failed++;
    else if (bench.ended < LATENCIES_MAX)
        bench.latencies[bench.ended++] = (uint32_t)(act->end_us - act->start_us);
    if (act->unit.order != NULL) {
        bench.last_id = act->order.id;
        if (bench.events_count < ORDER_STORE_IDS_MAX)
            bench.events[bench.events_count++] = act->event_id;
        bench_delete();
    }
    bench.in_flight--;
    act_free(act);
    if (!bench.stopping)
        bench_next();
}

static void bench_next(void)
{
    bool create = bench.creates && (!bench.gets || bench.ended % 2 == 0);
    char request_id[32];
    static long number;
    struct act *act;

    snprintf(request_id, sizeof(request_id), "%d %ld %ld", getpid(), (long)time(NULL), number++);
    act = create ? act_create(&bench.stage, LINES, request_id, NULL)
                 : act_get(&bench.stage, 1 + (int32_t)(random() % bench.last_id));
    if (act->done) {
        fprintf(stderr, "refused: %d\n", act->status);
        exit(1);
    }
    bench.in_flight++;
    act->on_end = bench_end;
}

static int compare(const void *a, const void *b)
{
    return (*(const uint32_t *)a > *(const uint32_t *)b) - (*(const uint32_t *)a < *(const uint32_t *)b);
}

static bool is_idle(void *arg)
{
    (void)arg;
    return bench.in_flight == 0 && !bench.deleting;
}

/* A database of our own, with some orders to read. */
static struct postgres *own_postgres(void)
{
    struct postgres *postgres = postgres_new(true);

    free(postgres_sql(postgres,
                      "INSERT INTO orders SELECT g, now(), now() FROM generate_series(1, 20000) g;"
                      "INSERT INTO order_details (order_id, product_id, price, quantity, created_at, updated_at)"
                      " SELECT g, 'p', 1, 1, now(), now() FROM generate_series(1, 20000) g;"
                      "SELECT setval('orders_id_seq', 20000)"));
    free(postgres_sql(postgres, "VACUUM ANALYZE"));
    return postgres;
}

static void bench_run(long in_flight, long seconds)
{
    time_t end = time(NULL) + seconds;

    while (bench.in_flight < in_flight)
        bench_next();
    while (time(NULL) < end)
        stage_turn(&bench.stage);
    bench.stopping = true;
    qsort(bench.latencies, (size_t)bench.ended, sizeof(*bench.latencies), compare);
}

int main(int argc, char *argv[])
{
    long in_flight = argc > 1 ? atol(argv[1]) : 64, seconds = argc > 2 ? atol(argv[2]) : 5;
    unsigned connections = argc > 3 ? (unsigned)atoi(argv[3]) : 4;
    const char *what = argc > 4 ? argv[4] : "create", *uri = getenv("POSTGRES_URI");
    struct postgres *postgres = uri == NULL ? own_postgres() : NULL;

    bench.latencies = calloc(LATENCIES_MAX, sizeof(*bench.latencies));
    bench.last_id = uri == NULL ? 20000 : atoi(getenv("BENCH_ORDERS"));
    bench.creates = strcmp(what, "get") != 0;
    bench.gets = strcmp(what, "create") != 0;
    stage_open(&bench.stage, uri == NULL ? postgres_uri(postgres) : uri, connections);
    stage_wait_up(&bench.stage);
    bench_run(in_flight, seconds);
    printf("%s: %ld in flight, %u connections: %ld/s, p50 %u us, p99 %u us, %ld failed\n", what, in_flight, connections,
           bench.ended / seconds, bench.latencies[bench.ended / 2], bench.latencies[bench.ended * 99 / 100],
           bench.failed);
    stage_wait(&bench.stage, is_idle, NULL, "idle");
    stage_close(&bench.stage);
    if (postgres != NULL)
        postgres_free(postgres);
    free(bench.latencies);
    return 0;
}

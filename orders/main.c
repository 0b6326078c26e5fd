/* The orders service: its settings and its wiring; the life of its process is rpc_program's. */
#include "rpclib/program.h"

#include "database.h"
#include "service.h"
#include "store.h"

static const struct rpc_setting settings_table[] = {
    {.name = "POSTGRES_URI",
     .kind = RPC_SETTING_URI,
     .fallback = "postgresql://postgres:postgres@localhost:5432/orders",
     .help = "where the orders are: postgresql://[user:password@]host[:port]/database[?sslmode=verify-full&...]"},
    {.name = "DATABASE_CONNECTIONS",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "4",
     .help = "connections to PostgreSQL",
     .minimum = 1,
     .maximum = DATABASE_CONNECTIONS_MAX},
    {.name = "STORE_TIMEOUT_MS",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "4000",
     .help = "how long PostgreSQL may take for a statement, in ms",
     .minimum = 10,
     .maximum = 600000},
    {.name = "IDEMPOTENCY_TTL_S",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "86400",
     .help = "how long an Idempotency-Key is known, in s",
     .minimum = 1,
     .maximum = 315360000},
    {.name = NULL},
};

struct orders {
    struct orders_service *service;
};

static int orders_check(const struct rpc_settings *settings, void *state)
{
    char reason[DATABASE_URI_REASON_SIZE];

    (void)state;
    if (!order_store_uri_check(rpc_settings_text(settings, "POSTGRES_URI"), reason))
        return rpc_settings_refuse(settings, "POSTGRES_URI", reason);
    return RPC_EXIT_OK;
}

static bool orders_start(struct rpc_program *program, void *state)
{
    const struct rpc_settings *settings = rpc_program_settings(program);
    struct orders *orders = state;

    orders->service = orders_service_new(&(struct orders_service_options){
        .loop = rpc_program_loop(program),
        .connection = rpc_program_connection(program),
        .postgres_uri = rpc_settings_text(settings, "POSTGRES_URI"),
        .database_connections = (unsigned)rpc_settings_integer(settings, "DATABASE_CONNECTIONS"),
        .store_timeout_ms = (int)rpc_settings_integer(settings, "STORE_TIMEOUT_MS"),
        .key_ttl_s = rpc_settings_integer(settings, "IDEMPOTENCY_TTL_S"),
        .prefetch = rpc_program_workers(program),
        .on_ready = rpc_program_on_change,
        .arg = program,
    });
    return orders->service != NULL;
}

static bool orders_is_ready(void *state)
{
    return orders_service_ready(((struct orders *)state)->service);
}

static void orders_stop(int timeout_ms, rpc_loop_fn *done, void *done_arg, void *state)
{
    orders_service_stop(((struct orders *)state)->service, timeout_ms, done, done_arg);
}

static void orders_metrics(struct rpc_metrics *metrics, void *state)
{
    orders_service_metrics(((struct orders *)state)->service, metrics);
}

static void orders_free(void *state)
{
    orders_service_free(((struct orders *)state)->service);
}

int main(int argc, char *argv[])
{
    static const struct rpc_program_description description = {
        .name = "orders",
        .summary = "Takes the shop's orders: RPC and events over AMQP, data in PostgreSQL.",
        .version = AIRSHIP_VERSION,
        .table = settings_table,
        .state_size = sizeof(struct orders),
        .check = orders_check,
        .start = orders_start,
        .is_ready = orders_is_ready,
        .stop = orders_stop,
        .free = orders_free,
        .metrics = orders_metrics,
    };

    return rpc_program_main(&description, argc, argv);
}

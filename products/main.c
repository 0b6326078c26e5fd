/* The products service: its settings and its wiring; the life of its process is rpc_program's. */
#include "redis_uri.h"
#include "rpclib/program.h"
#include "service.h"

static const struct rpc_setting settings_table[] = {
    {.name = "REDIS_URI",
     .kind = RPC_SETTING_URI,
     .fallback = "redis://localhost:6379/0",
     .help = "where the products are: redis://[user:password@]host[:port][/database]"},
    {.name = "STORE_TIMEOUT_MS",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "2000",
     .help = "how long Redis may take for a command, in ms",
     .minimum = 10,
     .maximum = 600000},
    {.name = "APPLIED_TTL_S",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "604800",
     .help = "how long it is remembered which orders were applied to the stock, in s",
     .minimum = 3600,
     .maximum = 315360000},
    {.name = NULL},
};

struct products {
    struct redis_uri redis; /* owned */
    struct products_service *service;
};

static int products_check(const struct rpc_settings *settings, void *state)
{
    struct products *products = state;
    char reason[REDIS_URI_REASON_SIZE];

    if (!redis_uri_read(&products->redis, rpc_settings_text(settings, "REDIS_URI"), reason))
        return rpc_settings_refuse(settings, "REDIS_URI", reason);
    return RPC_EXIT_OK;
}

static bool products_start(struct rpc_program *program, void *state)
{
    const struct rpc_settings *settings = rpc_program_settings(program);
    struct products *products = state;

    products->service = products_service_new(&(struct products_service_options){
        .loop = rpc_program_loop(program),
        .connection = rpc_program_connection(program),
        .redis = &products->redis,
        .store_timeout_ms = (int)rpc_settings_integer(settings, "STORE_TIMEOUT_MS"),
        .applied_ttl_s = rpc_settings_integer(settings, "APPLIED_TTL_S"),
        .prefetch = rpc_program_workers(program),
        .on_ready = rpc_program_on_change,
        .arg = program,
    });
    return products->service != NULL;
}

static bool products_is_ready(void *state)
{
    return products_service_ready(((struct products *)state)->service);
}

static void products_stop(int timeout_ms, rpc_loop_fn *done, void *done_arg, void *state)
{
    products_service_stop(((struct products *)state)->service, timeout_ms, done, done_arg);
}

static void products_metrics(struct rpc_metrics *metrics, void *state)
{
    products_service_metrics(((struct products *)state)->service, metrics);
}

static void products_free(void *state)
{
    struct products *products = state;

    products_service_free(products->service);
    redis_uri_clear(&products->redis);
}

int main(int argc, char *argv[])
{
    static const struct rpc_program_description description = {
        .name = "products",
        .summary = "Answers for the shop's products: RPC and events over AMQP, data in Redis.",
        .version = AIRSHIP_VERSION,
        .table = settings_table,
        .state_size = sizeof(struct products),
        .check = products_check,
        .start = products_start,
        .is_ready = products_is_ready,
        .stop = products_stop,
        .free = products_free,
        .metrics = products_metrics,
    };

    return rpc_program_main(&description, argc, argv);
}

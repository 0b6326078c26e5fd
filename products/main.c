/* The products service: settings, wiring, signals. */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "redis_uri.h"
#include "rpclib/connection.h"
#include "rpclib/log.h"
#include "rpclib/loop_libevent.h"
#include "rpclib/settings.h"
#include "service.h"

/* Room for the largest answer (a list) beside another one. */
#define OUTPUT_SIZE_MAX  (2 * (size_t)RPC_MESSAGE_SIZE_MAX)
#define CLOSE_TIMEOUT_MS 2000
#define READY_FILE_MODE  0644

static const struct rpc_setting settings_table[] = {
    {.name = "AMQP_URI",
     .kind = RPC_SETTING_URI,
     .fallback = "amqp://guest:guest@localhost:5672",
     .help = "the broker: amqp://user:password@host:port/vhost, or amqps://"},
    {.name = "REDIS_URI",
     .kind = RPC_SETTING_URI,
     .fallback = "redis://localhost:6379/0",
     .help = "where the products are: redis://[user:password@]host[:port][/database]"},
    {.name = "MAX_WORKERS",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "100",
     .help = "requests, and as many events, under way at once",
     .minimum = 1,
     .maximum = PRODUCTS_PREFETCH_MAX},
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
    {.name = "DRAIN_TIMEOUT_MS",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "10000",
     .help = "how long a stop may wait for what is under way, in ms",
     .minimum = 0,
     .maximum = 600000},
    {.name = "READY_FILE",
     .kind = RPC_SETTING_TEXT,
     .help = "a file to create when the service is ready for the first time"},
    {.name = NULL},
};

static const struct rpc_settings_program program_description = {
    .name = "products",
    .summary = "Answers for the shop's products: RPC and events over AMQP, data in Redis.",
    .version = AIRSHIP_VERSION,
    .table = settings_table,
};

struct program {
    struct event_base *base;
    struct rpc_loop *loop;
    struct rpc_connection *connection;
    struct products_service *service;
    struct event *signals[2];
    unsigned stop_signals; /* a bit for each that came */
    int drain_timeout_ms;
    const char *ready_file; /* NULL: none */
    bool is_ready_told;
};

static void program_leave(void *arg)
{
    struct program *program = arg;

    event_base_loopbreak(program->base);
}

static void program_close(void *arg)
{
    struct program *program = arg;

    rpc_connection_close(program->connection, CLOSE_TIMEOUT_MS, program_leave, program);
}

/*
 * The first signal drains.  The same one again leaves at once; the other one does not: Ctrl-C reaches a whole group of
 * processes, and the script that started this one then adds its SIGTERM.
 */
static void program_on_signal(evutil_socket_t number, short what, void *arg)
{
    struct program *program = arg;
    unsigned bit = 1u << number;

    (void)what;
    if (program->stop_signals & bit) {
        rpc_log(RPC_LOG_WARNING, "leaving at once", RPC_LOG_INT("signal", number));
        event_base_loopbreak(program->base);
        return;
    }
    if (program->stop_signals == 0) {
        rpc_log(RPC_LOG_INFO, "stopping", RPC_LOG_INT("signal", number));
        products_service_stop(program->service, program->drain_timeout_ms, program_close, program);
    }
    program->stop_signals |= bit;
}

static void ready_file_create(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, READY_FILE_MODE);

    if (fd < 0)
        rpc_log(RPC_LOG_ERROR, "the ready file cannot be created", RPC_LOG_TEXT("path", path),
                RPC_LOG_TEXT("reason", strerror(errno)));
    else
        close(fd);
}

static void program_on_ready(void *arg)
{
    struct program *program = arg;

    if (program->is_ready_told)
        return;
    program->is_ready_told = true;
    rpc_log(RPC_LOG_INFO, "ready");
    if (program->ready_file != NULL)
        ready_file_create(program->ready_file);
}

static bool program_start_loop(struct program *program)
{
    static const int numbers[] = {SIGTERM, SIGINT};

    program->base = event_base_new();
    if (program->base == NULL)
        return false;
    program->loop = rpc_loop_libevent_new(program->base);
    if (program->loop == NULL)
        return false;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        program->signals[i] = evsignal_new(program->base, numbers[i], program_on_signal, program);
        if (program->signals[i] == NULL || evsignal_add(program->signals[i], NULL) != 0)
            return false;
    }
    return true;
}

static bool program_start(struct program *program, const struct rpc_settings *settings, const struct redis_uri *redis)
{
    program->drain_timeout_ms = (int)rpc_settings_integer(settings, "DRAIN_TIMEOUT_MS");
    program->ready_file = rpc_settings_text(settings, "READY_FILE");
    if (program->ready_file != NULL)
        unlink(program->ready_file); /* a predecessor's that was killed */
    if (!program_start_loop(program))
        return false;
    program->connection = rpc_connection_new(&(struct rpc_connection_options){
        .loop = program->loop,
        .uri = rpc_settings_text(settings, "AMQP_URI"),
        .name = "products",
        .output_size_max = OUTPUT_SIZE_MAX,
    });
    if (program->connection == NULL)
        return false;
    program->service = products_service_new(&(struct products_service_options){
        .loop = program->loop,
        .connection = program->connection,
        .redis = redis,
        .store_timeout_ms = (int)rpc_settings_integer(settings, "STORE_TIMEOUT_MS"),
        .applied_ttl_s = rpc_settings_integer(settings, "APPLIED_TTL_S"),
        .prefetch = (uint16_t)rpc_settings_integer(settings, "MAX_WORKERS"),
        .on_ready = program_on_ready,
        .arg = program,
    });
    return program->service != NULL;
}

static void program_clear(struct program *program)
{
    products_service_free(program->service);
    rpc_connection_free(program->connection);
    for (size_t i = 0; i < sizeof(program->signals) / sizeof(program->signals[0]); i++)
        if (program->signals[i] != NULL)
            event_free(program->signals[i]);
    rpc_loop_libevent_free(program->loop);
    if (program->base != NULL)
        event_base_free(program->base);
    if (program->ready_file != NULL)
        unlink(program->ready_file);
}

static int run(const struct rpc_settings *settings, const struct redis_uri *redis)
{
    struct program program = {.base = NULL};
    int exit_code = RPC_EXIT_FAILED;

    if (!program_start(&program, settings, redis)) {
        rpc_log(RPC_LOG_ERROR, "cannot start: no memory or no descriptors");
        goto done;
    }
    if (event_base_dispatch(program.base) < 0) {
        rpc_log(RPC_LOG_ERROR, "the event loop failed", RPC_LOG_TEXT("reason", strerror(errno)));
        goto done;
    }
    rpc_log(RPC_LOG_INFO, "stopped");
    exit_code = RPC_EXIT_OK;
done:
    program_clear(&program);
    return exit_code;
}

int main(int argc, char *argv[])
{
    struct rpc_settings *settings = NULL;
    struct redis_uri redis = {.host = NULL};
    char uri_reason[RPC_URI_REASON_SIZE], redis_reason[REDIS_URI_REASON_SIZE];
    int exit_code;

    if (!rpc_settings_load(&settings, &program_description, argc, argv, &exit_code))
        return exit_code;
    signal(SIGPIPE, SIG_IGN); /* hiredis writes without MSG_NOSIGNAL */
    if (!rpc_uri_check(rpc_settings_text(settings, "AMQP_URI"), uri_reason))
        exit_code = rpc_settings_refuse(settings, "AMQP_URI", uri_reason);
    else if (!redis_uri_read(&redis, rpc_settings_text(settings, "REDIS_URI"), redis_reason))
        exit_code = rpc_settings_refuse(settings, "REDIS_URI", redis_reason);
    else
        exit_code = run(settings, &redis);
    redis_uri_clear(&redis);
    rpc_settings_free(settings);
    return exit_code;
}

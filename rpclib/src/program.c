#include "rpclib/program.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor.h"
#include "rpclib/log.h"
#include "rpclib/loop_libevent.h"

/* Room for the largest answer beside another one. */
#define OUTPUT_SIZE_MAX  (2 * (size_t)RPC_MESSAGE_SIZE_MAX)
#define CLOSE_TIMEOUT_MS 2000
#define READY_FILE_MODE  0644
#define SIGNALS_COUNT    2

static const int handled_signals[SIGNALS_COUNT] = {SIGTERM, SIGINT};

struct rpc_program {
    const struct rpc_program_description *description;
    void *state;
    struct rpc_settings *settings;
    struct event_base *base;
    struct rpc_loop *loop;
    struct rpc_connection *connection;
    struct monitor *monitor;
    struct event *signals[SIGNALS_COUNT];
    uint64_t stop_signals; /* a bit for each that came */
    bool is_started;
    bool is_ready_told;
};

static const struct rpc_setting common_table[] = {
    {.name = "AMQP_URI",
     .kind = RPC_SETTING_URI,
     .fallback = "amqp://guest:guest@localhost:5672",
     .help = "the broker: amqp://user:password@host:port/vhost, or amqps://"},
    {.name = "MAX_WORKERS",
     .kind = RPC_SETTING_INTEGER,
     .fallback = RPC_PROGRAM_WORKERS_DEFAULT,
     .help = "messages of requests, and apart from them events, under way at once (the prefetch)",
     .minimum = 1,
     .maximum = RPC_PROGRAM_WORKERS_MAX},
    {.name = "DRAIN_TIMEOUT_MS",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "10000",
     .help = "how long a stop may wait for what is under way, in ms",
     .minimum = 0,
     .maximum = 600000},
    {.name = "READY_FILE",
     .kind = RPC_SETTING_TEXT,
     .help = "a file to create when the program is ready for the first time"},
    {.name = "METRICS_PORT",
     .kind = RPC_SETTING_INTEGER,
     .help = "the port of /healthz, /readyz and /metrics; none if it is not set",
     .minimum = 1,
     .maximum = 65535},
    {.name = "METRICS_ADDRESS", .kind = RPC_SETTING_TEXT, .fallback = "127.0.0.1", .help = "the address of that port"},
};

/* --- what hooks ask --- */

struct rpc_loop *rpc_program_loop(const struct rpc_program *program)
{
    return program->loop;
}

struct rpc_connection *rpc_program_connection(const struct rpc_program *program)
{
    return program->connection;
}

const struct rpc_settings *rpc_program_settings(const struct rpc_program *program)
{
    return program->settings;
}

uint16_t rpc_program_workers(const struct rpc_program *program)
{
    return (uint16_t)rpc_settings_integer(program->settings, "MAX_WORKERS");
}

/* --- ready --- */

static bool program_is_ready(void *arg)
{
    struct rpc_program *program = arg;

    return program->is_started && program->stop_signals == 0 &&
           rpc_connection_state(program->connection) == RPC_CONNECTION_UP &&
           program->description->is_ready(program->state);
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

void rpc_program_on_change(void *arg)
{
    struct rpc_program *program = arg;
    const char *ready_file = rpc_settings_text(program->settings, "READY_FILE");

    if (program->is_ready_told || !program_is_ready(program))
        return;
    program->is_ready_told = true;
    rpc_log(RPC_LOG_INFO, "ready");
    if (ready_file != NULL)
        ready_file_create(ready_file);
}

static void program_on_connection(enum rpc_connection_state state, void *arg)
{
    (void)state;
    rpc_program_on_change(arg);
}

static void program_metrics(struct rpc_metrics *metrics, void *arg)
{
    struct rpc_program *program = arg;

    rpc_metrics_gauge(metrics, "rpc_ready", "Whether the program would do its work now", program_is_ready(program));
    rpc_metrics_gauge(metrics, "rpc_connected", "Whether the broker is connected",
                      rpc_connection_state(program->connection) != RPC_CONNECTION_DOWN);
    if (program->description->metrics != NULL && program->is_started)
        program->description->metrics(metrics, program->state);
}

/* --- stopping --- */

static void program_leave(void *arg)
{
    struct rpc_program *program = arg;

    event_base_loopbreak(program->base);
}

static void program_close(void *arg)
{
    struct rpc_program *program = arg;

    rpc_connection_close(program->connection, CLOSE_TIMEOUT_MS, program_leave, program);
}

/*
 * The first signal drains.  The same one again leaves at once; the other one does not: Ctrl-C reaches a whole group of
 * processes, and the script that started this one then adds its SIGTERM.
 */
static void program_on_signal(evutil_socket_t number, short what, void *arg)
{
    struct rpc_program *program = arg;
    uint64_t bit = UINT64_C(1) << number;
    bool first = program->stop_signals == 0, again = (program->stop_signals & bit) != 0;

    (void)what;
    program->stop_signals |= bit;
    if (again) {
        rpc_log(RPC_LOG_WARNING, "leaving at once", RPC_LOG_INT("signal", number));
        program_leave(program);
    } else if (first) {
        rpc_log(RPC_LOG_INFO, "stopping", RPC_LOG_INT("signal", number));
        program->description->stop((int)rpc_settings_integer(program->settings, "DRAIN_TIMEOUT_MS"), program_close,
                                   program, program->state);
    }
}

/* --- starting --- */

static bool program_listen(struct rpc_program *program)
{
    const char *address = rpc_settings_text(program->settings, "METRICS_ADDRESS");

    if (rpc_settings_text(program->settings, "METRICS_PORT") == NULL)
        return true;
    program->monitor = monitor_new(&(struct monitor_options){
        .base = program->base,
        .address = address,
        .port = (uint16_t)rpc_settings_integer(program->settings, "METRICS_PORT"),
        .is_ready = program_is_ready,
        .metrics = program_metrics,
        .arg = program,
    });
    if (program->monitor == NULL)
        rpc_settings_refuse(program->settings, "METRICS_PORT", strerror(errno));
    return program->monitor != NULL;
}

static bool program_catch_signals(struct rpc_program *program)
{
    for (size_t i = 0; i < SIGNALS_COUNT; i++) {
        program->signals[i] = evsignal_new(program->base, handled_signals[i], program_on_signal, program);
        if (program->signals[i] == NULL || evsignal_add(program->signals[i], NULL) != 0)
            return false;
    }
    return true;
}

static bool program_start(struct rpc_program *program)
{
    const char *ready_file = rpc_settings_text(program->settings, "READY_FILE");

    if (ready_file != NULL)
        unlink(ready_file); /* a predecessor's that was killed */
    program->loop = rpc_loop_libevent_new(program->base);
    if (program->loop == NULL || !program_catch_signals(program))
        return false;
    program->connection = rpc_connection_new(&(struct rpc_connection_options){
        .loop = program->loop,
        .uri = rpc_settings_text(program->settings, "AMQP_URI"),
        .name = program->description->name,
        .output_size_max = OUTPUT_SIZE_MAX,
        .on_state = program_on_connection,
        .arg = program,
    });
    if (program->connection == NULL)
        return false;
    program->is_started = program->description->start(program, program->state);
    return program->is_started;
}

static int program_run(struct rpc_program *program)
{
    program->base = event_base_new();
    if (program->base != NULL && !program_listen(program))
        return RPC_EXIT_USAGE;
    if (program->base == NULL || !program_start(program)) {
        rpc_log(RPC_LOG_ERROR, "cannot start: no memory or no descriptors");
        return RPC_EXIT_FAILED;
    }
    if (event_base_dispatch(program->base) < 0) {
        rpc_log(RPC_LOG_ERROR, "the event loop failed", RPC_LOG_TEXT("reason", strerror(errno)));
        return RPC_EXIT_FAILED;
    }
    rpc_log(RPC_LOG_INFO, "stopped");
    return RPC_EXIT_OK;
}

/* It has left its loop: who asks again gets what is coming anyway.  event_free() brings back what a signal does to others. */
static void program_block_signals(void)
{
    sigset_t stop;

    sigemptyset(&stop);
    for (size_t i = 0; i < SIGNALS_COUNT; i++)
        sigaddset(&stop, handled_signals[i]);
    sigprocmask(SIG_BLOCK, &stop, NULL);
}

static void program_clear(struct rpc_program *program)
{
    const char *ready_file = rpc_settings_text(program->settings, "READY_FILE");

    program_block_signals();
    program->description->free(program->state);
    rpc_connection_free(program->connection);
    monitor_free(program->monitor);
    for (size_t i = 0; i < SIGNALS_COUNT; i++)
        if (program->signals[i] != NULL)
            event_free(program->signals[i]);
    rpc_loop_libevent_free(program->loop);
    if (program->base != NULL)
        event_base_free(program->base);
    if (program->is_ready_told && ready_file != NULL)
        unlink(ready_file);
}

/* --- settings --- */

static size_t table_size(const struct rpc_setting *table)
{
    size_t size = 0;

    while (table != NULL && table[size].name != NULL)
        size++;
    return size;
}

/* The common settings, then the program's own.  NULL when out of memory. */
static struct rpc_setting *table_join(const struct rpc_setting *own)
{
    const size_t common = sizeof(common_table) / sizeof(common_table[0]), owns = table_size(own);
    struct rpc_setting *table = calloc(common + owns + 1, sizeof(*table));

    if (table == NULL)
        return NULL;
    memcpy(table, common_table, sizeof(common_table));
    if (owns > 0)
        memcpy(table + common, own, owns * sizeof(*own));
    return table;
}

static int program_check(struct rpc_program *program)
{
    char reason[RPC_URI_REASON_SIZE];

    if (!rpc_uri_check(rpc_settings_text(program->settings, "AMQP_URI"), reason))
        return rpc_settings_refuse(program->settings, "AMQP_URI", reason);
    return program->description->check == NULL ? RPC_EXIT_OK
                                               : program->description->check(program->settings, program->state);
}

int rpc_program_main(const struct rpc_program_description *description, int argc, char *argv[])
{
    struct rpc_setting *table = table_join(description->table);
    struct rpc_program program = {.description = description, .state = calloc(1, description->state_size + 1)};
    int exit_code = RPC_EXIT_FAILED;

    signal(SIGPIPE, SIG_IGN); /* TLS and stores write without MSG_NOSIGNAL */
    if (table == NULL || program.state == NULL)
        goto done;
    if (!rpc_settings_load(&program.settings,
                           &(struct rpc_settings_program){.name = description->name,
                                                          .summary = description->summary,
                                                          .version = description->version,
                                                          .table = table},
                           argc, argv, &exit_code))
        goto done;
    exit_code = program_check(&program);
    if (exit_code == RPC_EXIT_OK)
        exit_code = program_run(&program);
    program_clear(&program);
    rpc_settings_free(program.settings);
done:
    free(program.state);
    free(table);
    return exit_code;
}

/*
 * The Kore module: its hooks, and the wiring of all that is behind them.
 *
 * The parent reads the settings, listens, and starts one worker; the worker alone speaks HTTP and AMQP.  Kore's sandbox
 * is on before the worker runs a line of ours, so whatever may need other system calls is done in the parent.
 */
#include <kore/kore.h>

#include <kore/http.h>
#include <kore/seccomp.h>
#pragma GCC visibility push(default) /* what Kore looks up by name */
#include <kore/hooks.h>
void gateway_connect(struct connection *connection);
void gateway_connect_metrics(struct connection *connection);
#pragma GCC visibility pop

#include <fcntl.h>
#include <rpclib/client.h>
#include <rpclib/connection.h>
#include <rpclib/log.h>
#include <rpclib/loop_kore.h>
#include <stdio.h>
#include <time.h>

#include "flight.h"
#include "health.h"
#include "metrics.h"
#include "orders.h"
#include "peer.h"
#include "settings.h"

#define SERVER_NAME        "gateway" /* as in kore.conf */
#define DRAIN_GRACE_MS     100       /* a client between two requests may send one more, which is answered */
#define DRAIN_WAIT_MS      20        /* how late the end of a drain may be noticed */
#define GOODBYE_TIMEOUT_MS 500       /* to take leave of the broker */
#define RESTART_DELAY_MS   200       /* a worker that dies at once must not be started again without end */

static struct {
    struct rpc_settings *settings;
    struct rpc_loop *loop;
    struct rpc_connection *connection;
    struct rpc_client *client;
    bool announced; /* READY_FILE is written */
} gateway;

/* --- the sandbox --- */

/* Kore leaves a worker the system calls that Kore itself makes.  These are ours. */
#ifdef GATEWAY_SANITIZED
/* The sanitizers' reports and checks make any; the first rule lets them all through. */
KORE_SECCOMP_FILTER("gateway", KORE_BPF_RET(SECCOMP_RET_ALLOW))
#else
/* clang-format off */
KORE_SECCOMP_FILTER("gateway",
    KORE_SYSCALL_ALLOW(shutdown), /* the end of a connection, and of listening */
    KORE_SYSCALL_ALLOW(mremap),   /* realloc() of what is large */
    KORE_SYSCALL_ALLOW(sysinfo),  /* qsort() of what is large */
    /* files: OpenSSL's certificates, /etc/hosts */
    KORE_SYSCALL_ALLOW(newfstatat), KORE_SYSCALL_ALLOW(getdents64),
    /* a name is looked up by a thread: starting one, ... */
    KORE_SYSCALL_DENY(clone3, ENOSYS), KORE_SYSCALL_ALLOW(rseq), KORE_SYSCALL_ALLOW(pipe2),
    KORE_SYSCALL_ALLOW(prlimit64), KORE_SYSCALL_ALLOW(sched_getaffinity),
    /* ... and what getaddrinfo() does in it */
    KORE_SYSCALL_ALLOW_ARG(socket, 0, AF_NETLINK), KORE_SYSCALL_ALLOW(bind), KORE_SYSCALL_ALLOW(sendmmsg),
    KORE_SYSCALL_ALLOW(recvmsg), KORE_SYSCALL_ALLOW(uname))
/* clang-format on */
#endif

/* --- the parent --- */

/* Kore takes SIGHUP as "load the module anew", which a module with connections cannot survive.  It is a way to stop. */
static void on_hangup(int number)
{
    (void)number;
    kore_signal(SIGTERM);
}

static void take_hangup(void)
{
    struct sigaction action = {.sa_handler = on_hangup};

    sigfillset(&action.sa_mask);
    sigaction(SIGHUP, &action, NULL);
}

static void listen_on(const char *address_setting, const char *port_setting, const char *on_connect)
{
    const char *address = rpc_settings_text(gateway.settings, address_setting);
    const char *port = rpc_settings_text(gateway.settings, port_setting);

    if (port != NULL && !kore_server_bind(kore_server_lookup(SERVER_NAME), address, port, on_connect))
        exit(rpc_settings_refuse(gateway.settings, port_setting, "cannot listen"));
}

void kore_parent_configure(int argc, char *argv[])
{
    char name[] = "kore-gateway", *no_arguments[] = {name, NULL};
    int exit_code = RPC_EXIT_FAILED;

    (void)argc;
    (void)argv;
    /* What Kore says goes where our own lines go, and at once. */
    dup2(STDERR_FILENO, STDOUT_FILENO);
    setvbuf(stdout, NULL, _IOLBF, 0);
    /* It has written the process id into the launcher's memory; there is nothing to remove at the end. */
    kore_pidfile = kore_strdup("");
    if (strcmp(kore_version, KORE_RELEASE) != 0) {
        fprintf(stderr, "kore-gateway: built for Kore %s, but this is Kore %s\n", KORE_RELEASE, kore_version);
        exit(RPC_EXIT_FAILED);
    }
    if (!rpc_settings_load(&gateway.settings, &gateway_program, 1, no_arguments, &exit_code))
        exit(exit_code);
    listen_on("BIND_ADDRESS", "PORT", "gateway_connect");
    listen_on("METRICS_ADDRESS", "METRICS_PORT", "gateway_connect_metrics");
    take_hangup();
    tzset();
}

/* --- the worker: starting --- */

static void announce(void)
{
    const char *path = rpc_settings_text(gateway.settings, "READY_FILE");
    int fd;

    if (gateway.announced)
        return;
    gateway.announced = true;
    rpc_log(RPC_LOG_INFO, "ready", RPC_LOG_TEXT("address", rpc_settings_text(gateway.settings, "BIND_ADDRESS")),
            RPC_LOG_TEXT("port", rpc_settings_text(gateway.settings, "PORT")));
    if (path == NULL)
        return;
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd == -1)
        rpc_log(RPC_LOG_ERROR, "READY_FILE cannot be written", RPC_LOG_TEXT("path", path),
                RPC_LOG_TEXT("reason", strerror(errno)));
    else
        close(fd);
}

static void on_ready(void *arg)
{
    (void)arg;
    announce();
}

/* More connections than there is room for: without this the worker would spin, and they would wait for nothing. */
static void refuse_connection(const struct listener *listener)
{
    struct answer answer = {.retry_after = true};
    struct rpc_bytes wire;
    int fd = accept(listener->fd, NULL, NULL);

    if (fd == -1)
        return;
    metrics_count_refusal(METRICS_BOUND_CONNECTIONS);
    answer_error(&answer, 503, "SERVICE_UNAVAILABLE", RPC_BYTES("There are too many connections."));
    if (answer_finish(&answer, &(struct answer_sending){.close = true, .now_s = time(NULL)}, &wire))
        (void)send(fd, wire.data, wire.size, MSG_DONTWAIT | MSG_NOSIGNAL);
    answer_clear(&answer);
    (void)shutdown(fd, SHUT_WR);
    close(fd);
}

static void on_accept(void *arg, int error)
{
    if (worker_active_connections < worker_max_connections)
        kore_listener_accept(arg, error);
    else if (!peers_evict())
        refuse_connection(arg);
}

static void each_listener(void (*fn)(struct listener *listener))
{
    struct kore_server *server;
    struct listener *listener;

    LIST_FOREACH(server, &kore_servers, list)
    {
        LIST_FOREACH(listener, &server->listeners, list)
        {
            fn(listener);
        }
    }
}

static void take_accept(struct listener *listener)
{
    listener->evt.handle = on_accept;
}

static void wait_after_crash(void)
{
    struct timespec delay = {.tv_nsec = RESTART_DELAY_MS * 1000000L};

    if (worker->restarted == 0)
        return;
    rpc_log(RPC_LOG_ERROR, "the worker died and was started again");
    nanosleep(&delay, NULL);
}

void kore_worker_configure(void)
{
    const struct rpc_settings *settings = gateway.settings;

    take_hangup();
    close(worker->pipe[0]); /* the parent's end: as long as it is open here, too, nobody sees the parent die */
    wait_after_crash();
    gateway.loop = rpc_loop_kore_new();
    if (gateway.loop != NULL)
        gateway.connection = rpc_connection_new(&(struct rpc_connection_options){
            .loop = gateway.loop, .uri = rpc_settings_text(settings, "AMQP_URI"), .name = "gateway"});
    if (gateway.connection != NULL)
        gateway.client = rpc_client_new(
            gateway.connection, &(struct rpc_client_options){
                                    .name = "gateway",
                                    .calls_max = (uint32_t)rpc_settings_integer(settings, "CALLS_MAX"),
                                    .one_call_a_message = strcmp(rpc_settings_text(settings, "RPC_BATCHES"), "no") == 0,
                                    .on_ready = on_ready});
    if (gateway.client == NULL || !orders_start(rpc_settings_text(settings, "PRODUCT_IMAGE_ROOT"))) {
        rpc_log(RPC_LOG_ERROR, "out of memory");
        exit(RPC_EXIT_FAILED);
    }
    peers_start();
    health_start(gateway.client);
    flights_start(&(struct flight_options){.client = gateway.client,
                                           .timeout_ms = (int)rpc_settings_integer(settings, "RPC_TIMEOUT_MS"),
                                           .flights_max = (unsigned)rpc_settings_integer(settings, "REQUESTS_MAX")});
    each_listener(take_accept);
}

/* Kore's hooks for a new connection. */
void gateway_connect(struct connection *connection)
{
    peer_connect(connection, ROUTE_PORT_SHOP);
}

void gateway_connect_metrics(struct connection *connection)
{
    peer_connect(connection, ROUTE_PORT_METRICS);
}

/* --- the worker: leaving --- */

/* One turn of Kore's loop, which it has left by now. */
static void turn(void)
{
    uint64_t wait_ms = kore_timer_next_run(kore_time_ms());

    kore_platform_event_wait(wait_ms < DRAIN_WAIT_MS ? wait_ms : DRAIN_WAIT_MS);
    kore_timer_run(kore_time_ms());
    http_process();
    kore_connection_prune(KORE_CONNECTION_PRUNE_DISCONNECT);
}

/*
 * Who has been let in by the kernel gets in; then the socket listens no more, for the parent neither, so that new
 * clients are refused at once and can go elsewhere.
 */
static void stop_listening(struct listener *listener)
{
    listener->evt.flags |= KORE_EVENT_READ;
    kore_listener_accept(listener, 0);
    (void)shutdown(listener->fd, SHUT_RDWR);
}

static void drain(uint64_t until_ms)
{
    uint64_t grace_ms = kore_time_ms() + DRAIN_GRACE_MS, now_ms;

    health_stop();
    kore_platform_disable_accept();
    each_listener(stop_listening);
    peers_drain();
    while ((peers_count() > 0 || flights_count() > 0) && (now_ms = kore_time_ms()) < until_ms) {
        if (now_ms >= grace_ms)
            peers_close_idle();
        turn();
    }
}

static void on_goodbye(void *arg)
{
    *(bool *)arg = true;
}

static void say_goodbye(void)
{
    bool said = false;

    flights_stop();
    rpc_client_free(gateway.client);
    rpc_connection_close(gateway.connection, GOODBYE_TIMEOUT_MS, on_goodbye, &said);
    while (!said)
        turn();
    rpc_connection_free(gateway.connection);
    rpc_loop_kore_free(gateway.loop);
}

void kore_worker_teardown(void)
{
    uint64_t timeout_ms = (uint64_t)rpc_settings_integer(gateway.settings, "DRAIN_TIMEOUT_MS");

    rpc_log(RPC_LOG_INFO, "stopping", RPC_LOG_INT("connections", peers_count()),
            RPC_LOG_INT("requests", flights_count()));
    drain(kore_time_ms() + timeout_ms);
    rpc_log(flights_count() == 0 ? RPC_LOG_INFO : RPC_LOG_WARNING, "stopped",
            RPC_LOG_INT("requests_left", flights_count()));
    say_goodbye();
    rpc_settings_free(gateway.settings);
    gateway.settings = NULL;
}

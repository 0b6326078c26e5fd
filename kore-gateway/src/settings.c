#include "settings.h"

#include <errno.h>
#include <netdb.h>
#include <rpclib/connection.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REASON_SIZE 200

static const struct rpc_setting table[] = {
    {.name = "AMQP_URI",
     .kind = RPC_SETTING_URI,
     .fallback = "amqp://guest:guest@localhost:5672",
     .help = "the broker"},
    {.name = "PORT",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "8000",
     .help = "TCP port to listen on",
     .minimum = 1,
     .maximum = 65535},
    {.name = "BIND_ADDRESS", .kind = RPC_SETTING_TEXT, .fallback = "127.0.0.1", .help = "address to listen on"},
    {.name = "PRODUCT_IMAGE_ROOT",
     .kind = RPC_SETTING_TEXT,
     .fallback = "http://www.example.com/airship/images",
     .help = "where the images of products are"},
    {.name = "RPC_TIMEOUT_MS",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "5000",
     .help = "time for all calls of a request, in ms",
     .minimum = 1,
     .maximum = 3600000},
    {.name = "CALLS_MAX",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "4096",
     .help = "calls to services under way at once",
     .minimum = 1,
     .maximum = 1000000},
    {.name = "RPC_BATCHES",
     .kind = RPC_SETTING_CHOICE,
     .fallback = "yes",
     .help = "whether calls made at the same moment share messages, where the service is rpclib's",
     .choices = "yes|no"},
    {.name = "REQUESTS_MAX",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "1000",
     .help = "requests being answered at once",
     .minimum = 1,
     .maximum = 65535},
    {.name = "CONNECTIONS_MAX",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "1024",
     .help = "client connections at once",
     .minimum = 1,
     .maximum = 65535},
    {.name = "DRAIN_TIMEOUT_MS",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "10000",
     .help = "time for requests under way after SIGTERM, in ms",
     .minimum = 0,
     .maximum = 3600000},
    {.name = "METRICS_PORT",
     .kind = RPC_SETTING_INTEGER,
     .help = "TCP port of /healthz, /readyz and /metrics; none: they are not served",
     .minimum = 1,
     .maximum = 65535},
    {.name = "METRICS_ADDRESS", .kind = RPC_SETTING_TEXT, .fallback = "127.0.0.1", .help = "the address of that port"},
    {.name = "READY_FILE", .kind = RPC_SETTING_TEXT, .help = "file to create when ready for requests"},
    {.name = NULL},
};

const struct rpc_settings_program gateway_program = {
    .name = "kore-gateway",
    .summary = "The shop's HTTP gateway: answers HTTP/JSON requests by calling orders and products.",
    .version = AIRSHIP_VERSION,
    .table = table,
};

/*
 * As Kore binds, but without listening: nobody can connect meanwhile.  Linux refuses it while somebody else listens there,
 * though both allow the address to be reused.
 */
static const char *bind_fault(const struct addrinfo *address)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    const char *fault = NULL;

    if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == -1 ||
        bind(fd, address->ai_addr, address->ai_addrlen) == -1)
        fault = strerror(errno);
    if (fd != -1)
        close(fd);
    return fault;
}

static bool check_address(const struct rpc_settings *settings, const char *host_setting, const char *port_setting,
                          int *exit_code)
{
    const char *host = rpc_settings_text(settings, host_setting), *port = rpc_settings_text(settings, port_setting);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *address = NULL;
    const char *fault;
    char reason[REASON_SIZE];
    int status;

    if (port == NULL)
        return true;
    status = getaddrinfo(host, port, &hints, &address);
    if (status != 0) {
        *exit_code = rpc_settings_refuse(settings, host_setting, gai_strerror(status));
        return false;
    }
    fault = bind_fault(address);
    freeaddrinfo(address);
    if (fault == NULL)
        return true;
    snprintf(reason, sizeof(reason), "cannot listen on %.100s port %s: %s", host, port, fault);
    *exit_code = rpc_settings_refuse(settings, port_setting, reason);
    return false;
}

bool gateway_settings_check(const struct rpc_settings *settings, int *exit_code)
{
    char reason[RPC_URI_REASON_SIZE];

    if (!rpc_uri_check(rpc_settings_text(settings, "AMQP_URI"), reason)) {
        *exit_code = rpc_settings_refuse(settings, "AMQP_URI", reason);
        return false;
    }
    return check_address(settings, "BIND_ADDRESS", "PORT", exit_code) &&
           check_address(settings, "METRICS_ADDRESS", "METRICS_PORT", exit_code);
}

#include "redis_server.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define POLL_MS 5

static void die(const char *what)
{
    fprintf(stderr, "redis_server: %s: %s\n", what, strerror(errno));
    abort();
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        die("no free port");
    close(fd);
    return ntohs(address.sin_port);
}

void redis_server_init(struct redis_server *server)
{
    *server = (struct redis_server){.port = free_port(), .folder = "/tmp/products-test-XXXXXX"};
    if (mkdtemp(server->folder) == NULL)
        die("no folder");
}

static void run_server(const struct redis_server *server, pid_t parent)
{
    char port[16];
    int log = -1;

    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that dies takes it along */
    if (getppid() != parent || chdir(server->folder) != 0)
        _exit(1);
    log = open("log", O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(log, 1);
    dup2(log, 2);
    snprintf(port, sizeof(port), "%d", server->port);
    execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes",
           "--appendfsync", "always", "--daemonize", "no", (char *)NULL);
    _exit(127);
}

/* Connected, and not loading its data any more. */
static bool is_serving(struct redis_server *server)
{
    redisReply *reply;
    bool serving;

    server->control = redisConnect("127.0.0.1", server->port);
    reply = server->control != NULL && server->control->err == 0 ? redisCommand(server->control, "PING") : NULL;
    serving = reply != NULL && reply->type == REDIS_REPLY_STATUS;
    freeReplyObject(reply);
    if (!serving) {
        redisFree(server->control);
        server->control = NULL;
    }
    return serving;
}

void redis_server_start(struct redis_server *server)
{
    uint64_t deadline_ms = now_ms() + REDIS_SERVER_START_TIMEOUT_MS;
    pid_t parent = getpid();
    int status;

    server->pid = fork();
    if (server->pid < 0)
        die("fork");
    if (server->pid == 0)
        run_server(server, parent);
    while (!is_serving(server)) {
        if (waitpid(server->pid, &status, WNOHANG) == server->pid || now_ms() >= deadline_ms)
            die("redis-server does not start; is it installed?");
        poll(NULL, 0, POLL_MS);
    }
}

void redis_server_signal(struct redis_server *server, int number)
{
    kill(server->pid, number);
    if (number != SIGKILL)
        return;
    waitpid(server->pid, NULL, 0);
    server->pid = 0;
    redisFree(server->control);
    server->control = NULL;
}

static void remove_folder(const char *path)
{
    char entry[512];
    DIR *folder = opendir(path);

    if (folder == NULL)
        return;
    for (const struct dirent *at = readdir(folder); at != NULL; at = readdir(folder)) {
        if (strcmp(at->d_name, ".") == 0 || strcmp(at->d_name, "..") == 0)
            continue;
        snprintf(entry, sizeof(entry), "%s/%s", path, at->d_name);
        if (at->d_type == DT_DIR)
            remove_folder(entry);
        else
            unlink(entry);
    }
    closedir(folder);
    rmdir(path);
}

void redis_server_clear(struct redis_server *server)
{
    if (server->pid != 0)
        redis_server_signal(server, SIGKILL);
    remove_folder(server->folder);
}

static redisReply *ask(struct redis_server *server, const char *format, va_list arguments)
{
    redisReply *reply = redisvCommand(server->control, format, arguments);

    if (reply == NULL || reply->type == REDIS_REPLY_ERROR) {
        fprintf(stderr, "redis_server: %s: %s\n", format, reply == NULL ? server->control->errstr : reply->str);
        abort();
    }
    return reply;
}

redisReply *redis_server_ask(struct redis_server *server, const char *format, ...)
{
    va_list arguments;
    redisReply *reply;

    va_start(arguments, format);
    reply = ask(server, format, arguments);
    va_end(arguments);
    return reply;
}

int64_t redis_server_integer(struct redis_server *server, const char *format, ...)
{
    va_list arguments;
    redisReply *reply;
    int64_t value;

    va_start(arguments, format);
    reply = ask(server, format, arguments);
    va_end(arguments);
    value = reply->type == REDIS_REPLY_INTEGER ? reply->integer
            : reply->type == REDIS_REPLY_NIL   ? INT64_MIN
                                               : strtoll(reply->str, NULL, 10);
    freeReplyObject(reply);
    return value;
}

void redis_server_do(struct redis_server *server, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    freeReplyObject(ask(server, format, arguments));
    va_end(arguments);
}

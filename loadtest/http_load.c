/*
 * http_load: requests over HTTP/1.1 keep-alive connections, each answer checked to the byte, for bench.py.
 *
 *     http_load PLAN PORT CONNECTIONS SECONDS RATE [IDS]
 *
 * RATE 0 is a closed loop: each connection sends its next request when the answer to the last one is in.  Any other RATE is an
 * open loop: request k is due at k / RATE, whatever the server does.  One that finds no connection idle waits in
 * line, and its latency counts from the moment at which it was due: a server that stalls is charged for all who came
 * meanwhile, not for those alone that were being served.
 *
 * An answer that the plan calls a refusal is neither right nor wrong: it is counted, and timed from when its request was sent.
 * "work_rate" is all other answers, those after SECONDS too, by the time until the last of them: what the server did, also where
 * it answers many at once or has a line of requests left at the end.
 *
 * PLAN is described in load_plan.h.  The ids of orders that were made go to IDS, a line each.  At the end, what is under way is
 * waited for.  Prints one line of JSON; exit code 0 also when answers were wrong: the line says so.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "latency.h"
#include "load_plan.h"

#define CONNECTIONS_MAX  4096
#define INPUT_SIZE       (256u * 1024)
#define EVENTS_MAX       256
#define DRAIN_TIMEOUT_NS 10000000000u
#define WRONG_SHOWN_MAX  3
#define NS_A_SECOND      1000000000u

struct connection {
    int fd;
    const struct plan_kind *kind; /* of the request under way; NULL: idle */
    uint64_t number;
    uint64_t due_ns, sent_ns;
    size_t input_size;
    char *input; /* INPUT_SIZE and a NUL */
    struct connection *next_idle;
};

struct load {
    struct plan plan;
    int epoll;
    uint16_t port;
    unsigned connections_count;
    struct connection *connections, *idle;
    double interval_ns; /* 0: closed loop */
    uint64_t started_ns, end_ns;
    uint64_t scheduled; /* requests of the open loop that were taken from the schedule */
    uint64_t random;
    char *request; /* being printed */
    FILE *ids;

    struct latencies latencies, refusals;
    uint64_t sent, answered, wrong, failed, unsent, backlog_max;
    uint64_t answered_in_time; /* before the end: for the rate */
    uint64_t last_ns;          /* when the last answer came that was no refusal */
};

_Noreturn static void give_up(const char *what)
{
    fprintf(stderr, "http_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* splitmix64, seeded by the clock: caches that an earlier run filled are no help. */
static uint64_t next_random(struct load *load)
{
    uint64_t z = load->random += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void connection_open(struct load *load, struct connection *connection)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(load->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    int one = 1;

    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        give_up("no connection to the gateway");
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (fcntl(connection->fd, F_SETFL, O_NONBLOCK) != 0 ||
        epoll_ctl(load->epoll, EPOLL_CTL_ADD, connection->fd, &event) != 0)
        give_up("epoll");
    connection->input_size = 0;
}

static void connection_set_idle(struct load *load, struct connection *connection)
{
    connection->kind = NULL;
    connection->next_idle = load->idle;
    load->idle = connection;
}

/* The server hung up: what was under way failed, the next one gets a new connection. */
static void connection_failed(struct load *load, struct connection *connection)
{
    if (connection->kind != NULL)
        load->failed++;
    close(connection->fd);
    connection_open(load, connection);
}

static void connection_send(struct load *load, struct connection *connection, uint64_t due_ns)
{
    uint64_t random_kind = next_random(load);
    ssize_t size;

    connection->kind = plan_draw(&load->plan, random_kind, next_random(load), &connection->number);
    connection->due_ns = due_ns;
    connection->sent_ns = latency_now_ns();
    size = (ssize_t)plan_request_print(&load->plan, connection->kind, connection->number, load->request);
    load->sent++;
    /* A request is small and its connection has nothing else under way: it fits the socket's buffer. */
    if (send(connection->fd, load->request, (size_t)size, MSG_NOSIGNAL) != size) {
        connection_failed(load, connection);
        connection_set_idle(load, connection);
    }
}

/* --- answers --- */

/* The body of a complete answer, its size in *size; NULL: not all of it is there.  Every answer has a Content-Length. */
static char *answer_body(struct connection *connection, size_t *size)
{
    char *end, *line;

    connection->input[connection->input_size] = '\0';
    end = strstr(connection->input, "\r\n\r\n");
    if (end == NULL)
        return NULL;
    *size = 0;
    for (line = connection->input; line < end; line = strstr(line, "\r\n") + 2)
        if (strncasecmp(line, "content-length:", strlen("content-length:")) == 0)
            *size = strtoul(line + strlen("content-length:"), NULL, 10);
    if (*size > INPUT_SIZE - (size_t)(end + 4 - connection->input)) {
        errno = EMSGSIZE;
        give_up("an answer");
    }
    return connection->input_size >= (size_t)(end + 4 - connection->input) + *size ? end + 4 : NULL;
}

static int answer_status(const struct connection *connection)
{
    return connection->input_size > strlen("HTTP/1.1 ") ? atoi(connection->input + strlen("HTTP/1.1 ")) : 0;
}

static void answer_is_wrong(struct load *load, const struct connection *connection)
{
    if (load->wrong++ < WRONG_SHOWN_MAX)
        fprintf(stderr, "http_load: a wrong answer to %s of %llu: %.*s\n", connection->kind->name,
                (unsigned long long)connection->number,
                (int)(connection->input_size < 2000 ? connection->input_size : 2000), connection->input);
}

/* It must say when to come again, or it is no refusal. */
static bool answer_refuses(const struct load *load, const struct connection *connection, const char *body)
{
    const char *line;

    if (load->plan.refused == 0 || answer_status(connection) != load->plan.refused)
        return false;
    line = strcasestr(connection->input, "\r\nretry-after:");
    return line != NULL && line < body;
}

static void answer_take(struct load *load, struct connection *connection, const char *body, size_t size)
{
    uint64_t now_ns = latency_now_ns(), new_id = 0;
    bool is_last = body + size == connection->input + connection->input_size; /* nothing that nobody asked for */

    if (is_last && answer_refuses(load, connection, body)) {
        latencies_add(&load->refusals, now_ns - connection->sent_ns);
        load->answered++;
        connection->input_size = 0;
        return;
    }
    if (!is_last || answer_status(connection) != connection->kind->status ||
        !plan_answer_matches(&load->plan, connection->kind, connection->number, body, size, &new_id))
        answer_is_wrong(load, connection);
    else if (new_id > 0 && load->ids != NULL)
        fprintf(load->ids, "%llu\n", (unsigned long long)new_id);
    latencies_add(&load->latencies, now_ns - connection->due_ns);
    load->answered++;
    load->answered_in_time += now_ns < load->end_ns;
    load->last_ns = now_ns;
    connection->input_size = 0;
}

/* Returns whether the connection's request is done, one way or the other. */
static bool connection_read(struct load *load, struct connection *connection)
{
    ssize_t received =
        recv(connection->fd, connection->input + connection->input_size, INPUT_SIZE - connection->input_size, 0);
    size_t size;
    char *body;

    if (received < 0 && errno == EAGAIN)
        return false;
    if (received <= 0) {
        bool was_under_way = connection->kind != NULL;

        connection_failed(load, connection);
        return was_under_way;
    }
    connection->input_size += (size_t)received;
    if (connection->kind == NULL) { /* an answer to nothing */
        load->wrong++;
        connection->input_size = 0;
        return false;
    }
    body = answer_body(connection, &size);
    if (body == NULL)
        return false;
    answer_take(load, connection, body, size);
    return true;
}

/* --- the schedule --- */

static uint64_t due_ns(const struct load *load, uint64_t number)
{
    return load->started_ns + (uint64_t)((double)number * load->interval_ns);
}

/* Open loop: give what is due to idle connections. */
static void send_due(struct load *load, uint64_t now_ns)
{
    while (load->idle != NULL && due_ns(load, load->scheduled) <= now_ns &&
           due_ns(load, load->scheduled) < load->end_ns) {
        struct connection *connection = load->idle;

        load->idle = connection->next_idle;
        connection_send(load, connection, due_ns(load, load->scheduled++));
    }
    if (load->idle == NULL && now_ns > due_ns(load, load->scheduled)) {
        uint64_t waiting = (uint64_t)((double)(now_ns - due_ns(load, load->scheduled)) / load->interval_ns);

        load->backlog_max = waiting > load->backlog_max ? waiting : load->backlog_max;
    }
}

static void send_next(struct load *load, uint64_t now_ns)
{
    if (load->interval_ns > 0) {
        send_due(load, now_ns);
        return;
    }
    while (load->idle != NULL && now_ns < load->end_ns) {
        struct connection *connection = load->idle;

        load->idle = connection->next_idle;
        connection_send(load, connection, latency_now_ns());
    }
}

static bool is_done(const struct load *load, uint64_t now_ns)
{
    bool all_sent = load->interval_ns > 0 ? due_ns(load, load->scheduled) >= load->end_ns : now_ns >= load->end_ns;

    return (all_sent && load->answered + load->failed >= load->sent) || now_ns >= load->end_ns + DRAIN_TIMEOUT_NS;
}

/* Until the next request is due, if a connection is there for it. */
static struct timespec wait_time(const struct load *load, uint64_t now_ns)
{
    uint64_t until_ns = load->end_ns > now_ns ? load->end_ns : load->end_ns + DRAIN_TIMEOUT_NS;

    if (load->interval_ns > 0 && load->idle != NULL && due_ns(load, load->scheduled) < load->end_ns)
        until_ns = due_ns(load, load->scheduled);
    until_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    return (struct timespec){.tv_sec = (time_t)(until_ns / NS_A_SECOND), .tv_nsec = (long)(until_ns % NS_A_SECOND)};
}

static void run(struct load *load)
{
    uint64_t now_ns = latency_now_ns();

    while (!is_done(load, now_ns)) {
        struct epoll_event events[EVENTS_MAX];
        struct timespec wait;
        int count;

        send_next(load, now_ns);
        wait = wait_time(load, latency_now_ns());
        count = epoll_pwait2(load->epoll, events, EVENTS_MAX, &wait, NULL);
        for (int i = 0; i < count; i++)
            if (connection_read(load, events[i].data.ptr))
                connection_set_idle(load, events[i].data.ptr);
        now_ns = latency_now_ns();
    }
    if (load->interval_ns > 0)
        while (due_ns(load, load->scheduled + load->unsent) < load->end_ns)
            load->unsent++;
}

static void print_result(const struct load *load)
{
    double seconds = (double)(load->end_ns - load->started_ns) / 1e9;
    double work_seconds = load->last_ns > 0 ? (double)(load->last_ns - load->started_ns) / 1e9 : 0;

    printf("{\"rate\": %.1f, \"work_rate\": %.1f, \"offered\": %.1f, ", (double)load->answered_in_time / seconds,
           work_seconds > 0 ? (double)load->latencies.count / work_seconds : 0.0,
           load->interval_ns > 0 ? 1e9 / load->interval_ns : 0.0);
    printf(
        "\"sent\": %llu, \"answered\": %llu, \"wrong\": %llu, \"failed\": %llu, \"unanswered\": %llu, \"unsent\": %llu, "
        "\"backlog_max\": %llu, ",
        (unsigned long long)load->sent, (unsigned long long)load->answered, (unsigned long long)load->wrong,
        (unsigned long long)load->failed, (unsigned long long)(load->sent - load->answered - load->failed),
        (unsigned long long)load->unsent, (unsigned long long)load->backlog_max);
    latencies_print_percentiles(&load->latencies);
    printf(", \"refused\": %llu, \"refused_p99_us\": %.1f, \"refused_max_us\": %.1f}\n",
           (unsigned long long)load->refusals.count, (double)latencies_percentile_ns(&load->refusals, 0.99) / 1e3,
           (double)load->refusals.max_ns / 1e3);
}

static void open_connections(struct load *load)
{
    load->connections = calloc(load->connections_count, sizeof(*load->connections));
    for (unsigned i = 0; i < load->connections_count; i++) {
        struct connection *connection = &load->connections[i];

        connection->input = malloc(INPUT_SIZE + 1);
        if (connection->input == NULL)
            give_up("memory");
        connection_open(load, connection);
        connection_set_idle(load, connection);
    }
}

int main(int argc, char *argv[])
{
    static struct load the_load;
    struct load *load = &the_load;
    size_t request_size_max = 0;
    double seconds, rate;

    if (argc < 6 || argc > 7 || atoi(argv[3]) < 1 || atoi(argv[3]) > CONNECTIONS_MAX || atof(argv[4]) <= 0) {
        fputs("usage: http_load PLAN PORT CONNECTIONS SECONDS RATE [IDS]   (RATE 0: closed loop)\n", stderr);
        return 2;
    }
    plan_read(&load->plan, argv[1]);
    for (size_t i = 0; i < load->plan.kinds_count; i++)
        if (load->plan.kinds[i].request.size_max > request_size_max)
            request_size_max = load->plan.kinds[i].request.size_max;
    load->request = malloc(request_size_max + 1);
    load->port = (uint16_t)atoi(argv[2]);
    load->connections_count = (unsigned)atoi(argv[3]);
    seconds = atof(argv[4]);
    rate = atof(argv[5]);
    load->interval_ns = rate > 0 ? 1e9 / rate : 0;
    load->ids = argc > 6 ? fopen(argv[6], "w") : NULL;
    if (argc > 6 && load->ids == NULL)
        give_up(argv[6]);
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    load->random = latency_now_ns();
    prctl(PR_SET_TIMERSLACK, 1); /* the kernel's 50 us would be most of a request's latency */
    open_connections(load);
    latencies_start(&load->latencies);
    load->started_ns = load->latencies.started_ns;
    load->end_ns = load->started_ns + (uint64_t)(seconds * 1e9);
    run(load);
    print_result(load);
    if (load->ids != NULL && fclose(load->ids) != 0)
        give_up(argv[6]);
    return 0;
}

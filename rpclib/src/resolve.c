#include "rpclib/resolve.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define PORT_TEXT_SIZE 6

/* What thread and loop share; the last of the two to leave frees it. */
struct lookup {
    atomic_int holders;
    int answered_fd; /* the thread's end of the pipe: closed when the answer is there */
    char *host;
    char port[PORT_TEXT_SIZE];
    struct rpc_resolve_answer answer;
};

struct rpc_resolve {
    struct lookup *lookup;
    struct rpc_loop_watch *watch;
    struct rpc_loop_task *task; /* for an address, which needs no thread */
    int answered_fd;
    rpc_resolve_fn *fn;
    void *arg;
};

static void lookup_release(struct lookup *lookup)
{
    if (lookup == NULL || atomic_fetch_sub(&lookup->holders, 1) != 1)
        return;
    free(lookup->host);
    free(lookup);
}

static void answer_add_v4(struct rpc_resolve_answer *answer, struct in_addr address, uint16_t port)
{
    struct rpc_resolve_address *entry = &answer->addresses[answer->count++];
    struct sockaddr_in *v4 = (struct sockaddr_in *)&entry->address;

    *v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = address};
    entry->size = sizeof(*v4);
}

static void answer_add_v6(struct rpc_resolve_answer *answer, struct in6_addr address, uint16_t port)
{
    struct rpc_resolve_address *entry = &answer->addresses[answer->count++];
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&entry->address;

    *v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = address};
    entry->size = sizeof(*v6);
}

/*
 * What needs no question: an address, and "localhost", which is the loopback wherever one is (RFC 6761, 6.3).  Without
 * system calls: a gateway in Kore's sandbox may not make those of getaddrinfo().
 */
static bool answer_known(struct rpc_resolve_answer *answer, const char *host, uint16_t port)
{
    struct in_addr v4;
    struct in6_addr v6;

    answer->error = "";
    if (strcasecmp(host, "localhost") == 0) {
        answer_add_v4(answer, (struct in_addr){htonl(INADDR_LOOPBACK)}, port);
        answer_add_v6(answer, (struct in6_addr)IN6ADDR_LOOPBACK_INIT, port);
    } else if (inet_pton(AF_INET, host, &v4) == 1) {
        answer_add_v4(answer, v4, port);
    } else if (inet_pton(AF_INET6, host, &v6) == 1) {
        answer_add_v6(answer, v6, port);
    }
    return answer->count > 0;
}

static void lookup_ask(struct lookup *lookup)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *found = NULL;
    int code = getaddrinfo(lookup->host, lookup->port, &hints, &found);

    for (struct addrinfo *at = found; at != NULL && lookup->answer.count < RPC_RESOLVE_ADDRESSES_MAX;
         at = at->ai_next) {
        struct rpc_resolve_address *address = &lookup->answer.addresses[lookup->answer.count++];

        memcpy(&address->address, at->ai_addr, at->ai_addrlen);
        address->size = at->ai_addrlen;
    }
    lookup->answer.error = code == 0 ? "" : gai_strerror(code);
    if (found != NULL)
        freeaddrinfo(found);
}

static void *lookup_thread(void *arg)
{
    struct lookup *lookup = arg;
    int fd = lookup->answered_fd;

    lookup_ask(lookup);
    lookup_release(lookup);
    close(fd); /* the loop reads the pipe's end */
    return NULL;
}

static void resolve_finish(void *of)
{
    struct rpc_resolve *resolve = of;
    struct lookup *lookup = resolve->lookup;
    rpc_resolve_fn *fn = resolve->fn;
    void *arg = resolve->arg;

    resolve->lookup = NULL;
    rpc_resolve_cancel(resolve);
    (void)atomic_load(&lookup->holders); /* acquires what the thread wrote before it let go */
    fn(&lookup->answer, arg);
    lookup_release(lookup);
}

static void resolve_on_answer(int fd, unsigned events, void *arg)
{
    (void)fd;
    (void)events;
    resolve_finish(arg);
}

/* Signals are for the thread of the loop. */
static bool thread_start(struct lookup *lookup)
{
    sigset_t all, before;
    pthread_t thread;
    bool started;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    started = pthread_create(&thread, NULL, lookup_thread, lookup) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started)
        pthread_detach(thread);
    return started;
}

static bool resolve_in_thread(struct rpc_resolve *resolve, struct rpc_loop *loop)
{
    struct lookup *lookup = resolve->lookup;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    resolve->answered_fd = ends[0];
    lookup->answered_fd = ends[1];
    resolve->watch = rpc_loop_watch_new(loop, ends[0], RPC_LOOP_READ, resolve_on_answer, resolve);
    atomic_store(&lookup->holders, 2);
    if (resolve->watch != NULL && thread_start(lookup))
        return true;
    atomic_store(&lookup->holders, 1);
    close(ends[1]);
    return false;
}

struct rpc_resolve *rpc_resolve_start(struct rpc_loop *loop, const char *host, uint16_t port, rpc_resolve_fn *fn,
                                      void *arg)
{
    struct rpc_resolve *resolve = calloc(1, sizeof(*resolve));
    bool started = false;

    if (resolve == NULL)
        return NULL;
    resolve->answered_fd = -1;
    resolve->fn = fn;
    resolve->arg = arg;
    resolve->lookup = calloc(1, sizeof(*resolve->lookup));
    if (resolve->lookup != NULL) {
        atomic_store(&resolve->lookup->holders, 1);
        snprintf(resolve->lookup->port, PORT_TEXT_SIZE, "%u", port);
        resolve->lookup->host = strdup(host);
    }
    if (resolve->lookup != NULL && resolve->lookup->host != NULL) {
        if (answer_known(&resolve->lookup->answer, host, port)) {
            resolve->task = rpc_loop_task_new(loop, resolve_finish, resolve);
            started = resolve->task != NULL;
        } else {
            started = resolve_in_thread(resolve, loop);
        }
    }
    if (!started) {
        rpc_resolve_cancel(resolve);
        return NULL;
    }
    if (resolve->task != NULL)
        rpc_loop_task_schedule(resolve->task);
    return resolve;
}

void rpc_resolve_cancel(struct rpc_resolve *resolve)
{
    if (resolve == NULL)
        return;
    rpc_loop_task_free(resolve->task);
    rpc_loop_watch_free(resolve->watch);
    if (resolve->answered_fd >= 0)
        close(resolve->answered_fd);
    lookup_release(resolve->lookup);
    free(resolve);
}

#include "address.h"

#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* What the thread and the loop share; the last of the two frees it.  The eventfd hands the result over. */
struct job {
    atomic_int owners;
    int eventfd;
    int fault; /* of getaddrinfo(); 0: none */
    struct address_list list;
    char host[HOST_NAME_SIZE_MAX + 1];
};

struct address_lookup {
    struct job *job;
    struct rpc_loop_watch *watch;
    address_found_fn *done;
    void *arg;
};

static void job_release(struct job *job)
{
    if (atomic_fetch_sub(&job->owners, 1) > 1)
        return;
    close(job->eventfd);
    free(job);
}

static void job_look_up(struct job *job)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;

    job->fault = getaddrinfo(job->host, NULL, &hints, &found);
    if (job->fault != 0)
        return;
    for (const struct addrinfo *at = found; at != NULL && job->list.count < ADDRESSES_MAX; at = at->ai_next)
        if (getnameinfo(at->ai_addr, at->ai_addrlen, job->list.address[job->list.count], ADDRESS_SIZE_MAX, NULL, 0,
                        NI_NUMERICHOST) == 0)
            job->list.count++;
    freeaddrinfo(found);
    if (job->list.count == 0)
        job->fault = EAI_NONAME;
}

static void *job_run(void *arg)
{
    struct job *job = arg;
    uint64_t one = 1;

    job_look_up(job);
    if (write(job->eventfd, &one, sizeof(one)) != sizeof(one))
        abort(); /* an eventfd at 0 takes a 1 */
    job_release(job);
    return NULL;
}

static bool job_start(struct job *job)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    bool started;

    if (pthread_attr_init(&attributes) != 0)
        return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
    atomic_fetch_add(&job->owners, 1);
    started = pthread_create(&thread, &attributes, job_run, job) == 0;
    if (!started)
        atomic_fetch_sub(&job->owners, 1);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

static void lookup_on_done(int fd, unsigned events, void *arg)
{
    struct address_lookup *lookup = arg;
    uint64_t count;

    (void)events;
    if (read(fd, &count, sizeof(count)) != sizeof(count))
        return;
    lookup->done(&lookup->job->list, lookup->job->fault == 0 ? NULL : gai_strerror(lookup->job->fault), lookup->arg);
}

struct address_lookup *address_lookup_new(struct rpc_loop *loop, const char *host, address_found_fn *done, void *arg)
{
    struct address_lookup *lookup = calloc(1, sizeof(*lookup));
    struct job *job = calloc(1, sizeof(*job));

    if (lookup == NULL || job == NULL || strlen(host) > HOST_NAME_SIZE_MAX)
        goto failed;
    job->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (job->eventfd < 0)
        goto failed;
    atomic_init(&job->owners, 1);
    strcpy(job->host, host);
    lookup->job = job;
    lookup->done = done;
    lookup->arg = arg;
    job = NULL; /* the lookup's from here on */
    lookup->watch = rpc_loop_watch_new(loop, lookup->job->eventfd, RPC_LOOP_READ, lookup_on_done, lookup);
    if (lookup->watch == NULL || !job_start(lookup->job))
        goto failed;
    return lookup;
failed:
    free(job);
    address_lookup_free(lookup);
    return NULL;
}

void address_lookup_free(struct address_lookup *lookup)
{
    if (lookup == NULL)
        return;
    rpc_loop_watch_free(lookup->watch);
    if (lookup->job != NULL)
        job_release(lookup->job);
    free(lookup);
}

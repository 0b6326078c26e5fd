#include "network.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define LINKS_MAX 8

static struct {
    struct network_link links[LINKS_MAX];
    unsigned opened;
    int refuse;
    void (*on_close)(struct network_link *link);
} network;

int __real_socket(int domain, int type, int protocol);
int __real_connect(int fd, const struct sockaddr *address, socklen_t size);
ssize_t __real_recv(int fd, void *data, size_t size, int flags);
ssize_t __real_send(int fd, const void *data, size_t size, int flags);
int __real_close(int fd);
int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *size);
int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
int __wrap_socket(int domain, int type, int protocol);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size);
ssize_t __wrap_recv(int fd, void *data, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t size, int flags);
int __wrap_close(int fd);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *size);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size);

bool network_in_rpclib;
bool (*network_transfer)(size_t *size);

static void bug(const char *what, int fd)
{
    fprintf(stderr, "network: %s (%d)\n", what, fd);
    abort();
}

static struct network_link *find(int fd)
{
    for (size_t i = 0; i < LINKS_MAX; i++) {
        if (fd >= NETWORK_FIRST_FD && network.links[i].fd == fd)
            return &network.links[i];
    }
    if (fd >= NETWORK_FIRST_FD)
        bug("a socket is used that is closed", fd);
    return NULL;
}

static void clear(struct network_link *link)
{
    frames_clear(&link->inbound);
    frames_clear(&link->outbound);
    *link = (struct network_link){0};
}

unsigned network_reset(void)
{
    unsigned open = 0;

    for (size_t i = 0; i < LINKS_MAX; i++) {
        open += network.links[i].fd != 0;
        clear(&network.links[i]);
    }
    network.opened = 0;
    network.refuse = 0;
    return open;
}

struct network_link *network_link(void)
{
    struct network_link *newest = NULL;

    for (size_t i = 0; i < LINKS_MAX; i++) {
        if (network.links[i].fd != 0 && (newest == NULL || network.links[i].fd > newest->fd))
            newest = &network.links[i];
    }
    return newest;
}

struct network_link *network_next(const struct network_link *link)
{
    for (size_t i = link == NULL ? 0 : (size_t)(link - network.links) + 1; i < LINKS_MAX; i++) {
        if (network.links[i].fd != 0)
            return &network.links[i];
    }
    return NULL;
}

void network_on_close(void (*on_close)(struct network_link *link))
{
    network.on_close = on_close;
}

void network_refuse(int error)
{
    network.refuse = error;
}

unsigned network_opened(void)
{
    return network.opened;
}

/* ---- What rpclib calls ------------------------------------------------------------------------------------------- */

int __wrap_socket(int domain, int type, int protocol)
{
    if (domain != AF_INET && domain != AF_INET6)
        return __real_socket(domain, type, protocol);
    for (size_t i = 0; i < LINKS_MAX; i++) {
        struct network_link *link = &network.links[i];

        if (link->fd != 0)
            continue;
        link->fd = NETWORK_FIRST_FD + (int)network.opened++;
        link->room = link->read_max = link->write_max = SIZE_MAX;
        return link->fd;
    }
    errno = EMFILE;
    return -1;
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    if (find(fd) == NULL)
        return __real_connect(fd, address, size);
    errno = network.refuse != 0 ? network.refuse : EINPROGRESS;
    return -1;
}

ssize_t __wrap_recv(int fd, void *data, size_t size, int flags)
{
    struct network_link *link = find(fd);

    if (link == NULL)
        return __real_recv(fd, data, size, flags);
    if (network_transfer != NULL && !network_transfer(&size))
        return -1;
    if (link->inbound.size == 0) {
        errno = link->gone ? link->gone_error : EAGAIN;
        return link->gone && link->gone_error == 0 ? 0 : -1;
    }
    if (size > link->read_max)
        size = link->read_max;
    if (size > link->inbound.size)
        size = link->inbound.size;
    memcpy(data, link->inbound.data, size);
    frames_consume(&link->inbound, size);
    return (ssize_t)size;
}

ssize_t __wrap_send(int fd, const void *data, size_t size, int flags)
{
    struct network_link *link = find(fd);
    bool in_rpclib;

    if (link == NULL)
        return __real_send(fd, data, size, flags);
    if (!(flags & MSG_NOSIGNAL))
        bug("send() without MSG_NOSIGNAL", fd);
    if (network_transfer != NULL && !network_transfer(&size))
        return -1;
    if (link->gone) {
        errno = link->gone_error != 0 ? link->gone_error : EPIPE;
        return -1;
    }
    if (!link->connected || link->room == 0) {
        errno = EAGAIN;
        return -1;
    }
    if (size > link->write_max)
        size = link->write_max;
    if (size > link->room)
        size = link->room;
    in_rpclib = network_in_rpclib;
    network_in_rpclib = false;
    frames_append(&link->outbound, (struct rpc_bytes){data, size});
    network_in_rpclib = in_rpclib;
    link->room -= size;
    link->sent += size;
    return (ssize_t)size;
}

int __wrap_close(int fd)
{
    struct network_link *link = find(fd);
    bool in_rpclib;

    if (link == NULL)
        return __real_close(fd);
    in_rpclib = network_in_rpclib;
    network_in_rpclib = false;
    if (network.on_close != NULL)
        network.on_close(link);
    clear(link);
    network_in_rpclib = in_rpclib;
    return 0;
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
    struct network_link *link = find(fd);

    if (link == NULL)
        return __real_getsockopt(fd, level, name, value, size);
    if (level == SOL_SOCKET && name == SO_ERROR)
        *(int *)value = link->connect_error;
    return 0;
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    return find(fd) == NULL ? __real_setsockopt(fd, level, name, value, size) : 0;
}

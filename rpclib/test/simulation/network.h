/*
 * network: the sockets of a program that has no network.  Link with network_link_args: socket(), connect(), send() and
 * the like are these then, for rpclib too.  Each socket has a far end that the test holds.  Descriptors are numbers that no
 * real one has; calls for others go on to the system.
 */
#ifndef RPCLIB_TEST_NETWORK_H
#define RPCLIB_TEST_NETWORK_H

#include "frames.h"

#define NETWORK_FIRST_FD 100000

struct network_link {
    int fd;                 /* 0: unused */
    bool connected;         /* set by the far end; before it, nothing can be read or written */
    int connect_error;      /* what SO_ERROR says once it is writable */
    struct frames inbound;  /* written by the far end, not read yet */
    struct frames outbound; /* written by rpclib, not taken by the far end yet */
    size_t room;            /* bytes that send() still takes before it says EAGAIN */
    size_t read_max;        /* bytes that one recv() gives at most */
    size_t write_max;       /* bytes that one send() takes at most */
    bool gone;              /* the far end left: after what is inbound comes the end */
    int gone_error;         /* 0: a proper end; else recv() fails with it */
    uint64_t sent;          /* bytes that rpclib wrote in all */
    void *far_end;          /* the test's own */
};

/* Forget all sockets.  Returns how many rpclib had left open. */
unsigned network_reset(void);

/* The socket that was opened last and is still open; NULL: none. */
struct network_link *network_link(void);

/* The open sockets, one after another: NULL gives the first, and ends them. */
struct network_link *network_next(const struct network_link *link);

/* Runs when rpclib closes a socket, while it is still there; NULL: nothing runs. */
void network_on_close(void (*on_close)(struct network_link *link));

/* connect() fails at once with this; 0: it is under way. */
void network_refuse(int error);

/* Set by a test around its calls of rpclib, when it minds who allocates; these sockets' own memory is not rpclib's. */
extern bool network_in_rpclib;

/* Asked before each read and write: whether it goes on, with *size bytes at most; if not, errno says why.  NULL: they all do. */
extern bool (*network_transfer)(size_t *size);

/* Sockets opened since the last reset. */
unsigned network_opened(void);

#endif

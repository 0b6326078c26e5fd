/*
 * One getrandom() serves POOL_SIZE / 16 identifiers.  Bytes are wiped as they are used: an identifier may be all that
 * protects a reply queue, and the pool must not tell past ones.
 *
 * A child of fork() has a copy of the pool, and must not use it.  pthread_atfork() costs nothing an identifier, unlike
 * getpid(), and is no system call that a sandbox could refuse, unlike madvise(MADV_WIPEONFORK).
 */
#include "uuid.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "rpclib/hex.h"

#define UUID_BYTES 16
#define POOL_SIZE  4096

static struct {
    unsigned char bytes[POOL_SIZE];
    size_t left; /* unused ones, at the end */
    bool empties_on_fork;
} pool;

static void on_fork_in_child(void)
{
    explicit_bzero(pool.bytes, sizeof(pool.bytes));
    pool.left = 0;
}

static void random_fill(unsigned char *out, size_t size)
{
    while (size > 0) {
        ssize_t part = getrandom(out, size, 0);

        if (part > 0) {
            out += part;
            size -= (size_t)part;
        } else if (errno != EINTR) {
            abort();
        }
    }
}

static void pool_take(unsigned char out[UUID_BYTES])
{
    unsigned char *next;

    if (!pool.empties_on_fork)
        pool.empties_on_fork = pthread_atfork(NULL, NULL, on_fork_in_child) == 0;
    if (!pool.empties_on_fork) {
        random_fill(out, UUID_BYTES); /* no memory for the handler: no pool either */
        return;
    }
    if (pool.left == 0) {
        random_fill(pool.bytes, sizeof(pool.bytes));
        pool.left = sizeof(pool.bytes);
    }
    next = pool.bytes + sizeof(pool.bytes) - pool.left;
    memcpy(out, next, UUID_BYTES);
    explicit_bzero(next, UUID_BYTES);
    pool.left -= UUID_BYTES;
}

void rpc_uuid4(char out[RPC_UUID_SIZE])
{
    unsigned char bytes[UUID_BYTES];

    pool_take(bytes);
    bytes[6] = (unsigned char)((bytes[6] & 0x0F) | 0x40); /* version 4 */
    bytes[8] = (unsigned char)((bytes[8] & 0x3F) | 0x80); /* RFC 4122's variant */
    rpc_hex_write(bytes, 4, out);
    rpc_hex_write(bytes + 4, 2, out + 9);
    rpc_hex_write(bytes + 6, 2, out + 14);
    rpc_hex_write(bytes + 8, 2, out + 19);
    rpc_hex_write(bytes + 10, 6, out + 24);
    out[8] = out[13] = out[18] = out[23] = '-';
    out[36] = '\0';
}

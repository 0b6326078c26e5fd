/*
 * address_lookup: turns a host's name into addresses without holding up the loop: getaddrinfo() has no other way to wait
 * than to block, so it runs in a thread of its own, one at a time, and hands over its result through an eventfd.
 */
#ifndef PRODUCTS_ADDRESS_H
#define PRODUCTS_ADDRESS_H

#include <netinet/in.h>
#include <stddef.h>

#include "rpclib/loop.h"

#define ADDRESSES_MAX      8                       /* more of them are not tried */
#define ADDRESS_SIZE_MAX   (INET6_ADDRSTRLEN + 20) /* with a scope: "fe80::1%eth0" */
#define HOST_NAME_SIZE_MAX 255

struct address_list {
    size_t count;
    char address[ADDRESSES_MAX][ADDRESS_SIZE_MAX]; /* numeric, in the resolver's order of preference */
};

struct address_lookup;

/* Runs once, from the loop, never from inside address_lookup_new().  `fault` is NULL, or why the list is empty. */
typedef void address_found_fn(const struct address_list *list, const char *fault, void *arg);

/* NULL when out of memory or threads.  Free it in the callback or whenever you like. */
struct address_lookup *address_lookup_new(struct rpc_loop *loop, const char *host, address_found_fn *done, void *arg);

/* Before the result came: it is dropped when it comes.  NULL is fine. */
void address_lookup_free(struct address_lookup *lookup);

#endif

/*
 * uri: where the broker is, as AMQP_URI tells: amqp[s]://user:password@host:port/vhost?heartbeat=10&cafile=...
 *
 * RabbitMQ's AMQP URI specification, read as Nameko's users write it: no path, "/" and "//" all mean the vhost "/", and
 * pyamqp:// is amqp://.
 */
#ifndef RPCLIB_SRC_URI_H
#define RPCLIB_SRC_URI_H

#include <stdbool.h>
#include <stdint.h>

#include "rpclib/connection.h"

/* Texts are owned, decoded and never NULL, except for the files. */
struct rpc_uri {
    bool tls;
    char *host; /* a name, an IPv4 or an IPv6 address, this one without its brackets */
    uint16_t port;
    char *user;
    char *password;
    char *vhost;
    char *cafile; /* NULL: the system's store; like the next two only with tls */
    char *certfile;
    char *keyfile;
    int heartbeat_s; /* -1: not told; 0: none */
};

/* Returns false, with nothing to clear, and says in `reason` what is wrong; never with a part of the password. */
bool rpc_uri_parse(struct rpc_uri *out, const char *text, char reason[RPC_URI_REASON_SIZE]);

/* Frees the texts and wipes the password; then it is empty, and may be cleared again. */
void rpc_uri_clear(struct rpc_uri *uri);

#endif

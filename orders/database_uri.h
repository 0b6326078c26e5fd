/*
 * database_uri: where a database is, as libpq understands it (a URI or keyword=value), taken apart into what one
 * attempt to connect needs: one host, one address, so that libpq never looks up a name (it would block).
 */
#ifndef ORDERS_DATABASE_URI_H
#define ORDERS_DATABASE_URI_H

#include <libpq-fe.h>
#include <stdint.h>

#include "rpclib/bytes.h"

#define DATABASE_HOSTS_MAX       8
#define DATABASE_URI_REASON_SIZE 160

struct database_host {
    char *name;    /* NULL: libpq's default, a local socket */
    char *address; /* NULL: `name` is to be looked up, unless it is a socket's folder */
    char *port;    /* NULL: libpq's default */
};

struct database_uri {
    PQconninfoOption *options;
    struct database_host hosts[DATABASE_HOSTS_MAX];
    size_t hosts_count; /* at least 1 */
};

/* False, with what is wrong in `reason` (never the password), when libpq does not understand it. */
bool database_uri_parse(struct database_uri *out, const char *text, char reason[DATABASE_URI_REASON_SIZE]);
void database_uri_clear(struct database_uri *uri);

/* Whether the host's name must be looked up before it is connected to. */
bool database_host_is_name(const struct database_host *host);
uint16_t database_host_port(const struct database_host *host);

/* PQconnectStart() to one host at one address (numeric; NULL where none is needed); NULL when out of memory. */
PGconn *database_uri_connect(const struct database_uri *uri, const struct database_host *host, const char *address);

#endif

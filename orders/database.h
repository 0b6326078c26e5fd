/*
 * database: a pool of connections to one PostgreSQL.  It knows no table: its statements are given to it.
 *
 * It holds no queue: a statement is sent now or not at all, and whoever has more to do sends it when an
 * answer came or a connection came up.
 */
#ifndef ORDERS_DATABASE_H
#define ORDERS_DATABASE_H

#include "database_link.h"

#define DATABASE_CONNECTIONS_MAX 64

struct database;

struct database_options {
    struct rpc_loop *loop;
    const char *uri;                             /* copied; one that database_uri_parse() takes */
    const struct database_statement *statements; /* ended by a NULL name; lent for the database's life */
    unsigned connections;                        /* 1..DATABASE_CONNECTIONS_MAX */
    int timeout_ms;                              /* after which the server gives a statement up */
    void (*on_room)(void *arg);        /* a connection came up; otherwise a statement's answer is what makes room */
    void (*on_up)(bool up, void *arg); /* the first connection is there, the last one is gone; may be NULL */
    void *arg;
};

/* Starts connecting; a server that is away is no error.  NULL when out of memory. */
struct database *database_new(const struct database_options *options);

/* What is under way ends with DATABASE_LOST, from inside this call.  Not from inside a callback of the database. */
void database_free(struct database *database); /* NULL is fine */

bool database_has_room(const struct database *database);

/* As database_link_send(), on the connection that has the least to do. */
bool database_send(struct database *database, const char *statement, const struct parameters *parameters,
                   database_fn *done, void *arg);

/* How long there has been no connection, in ms; 0: there is one. */
uint64_t database_down_ms(const struct database *database);
unsigned database_connections(const struct database *database); /* that are up */

#endif

/*
 * database_link: one connection to PostgreSQL in pipeline mode, kept up for as long as it exists.
 *
 * Each statement is a transaction of its own, closed by a Sync: it counts as done when the server has answered that,
 * for not before then is it committed.  Statements are prepared when the connection comes up.  A server that falls
 * silent is given up after its time, one that answers without an end after DATABASE_ANSWER_SIZE_MAX bytes, and the link
 * connects anew, with a delay spread at random that grows until a connection answers a statement: to log in is not enough.
 *
 * The bytes are TCP's (nobody counts those of a Unix socket), looked at between libpq's reads: it reads a row to its end for
 * as long as the server sends faster than that.
 */
#ifndef ORDERS_DATABASE_LINK_H
#define ORDERS_DATABASE_LINK_H

#include <libpq-fe.h>

#include "rpclib/loop.h"

#include "database_uri.h"
#include "parameters.h"

#define DATABASE_PIPELINE_DEPTH     2  /* statements sent and not answered, a connection */
#define DATABASE_SLOW_MS            20 /* behind a statement that takes longer, or follows one, nothing more is sent */
#define DATABASE_PING_MS            2000 /* an idle connection is asked whether it still answers */
#define DATABASE_CONNECT_TIMEOUT_MS 5000 /* from the look-up of the name to the prepared statements */
#define DATABASE_RECONNECT_MIN_MS   50
#define DATABASE_RECONNECT_MAX_MS   2000
#define DATABASE_STAY_MS            2000 /* a database that was up for less was not: the outage goes on */
#define DATABASE_STALL_MARGIN_MS    1000 /* beyond the server's own time limit for a statement */
#define DATABASE_REASON_SIZE        256
/*
 * Bytes of one statement's answer.  Twice what a message may hold: the rows of orders take no more bytes than their JSON, so
 * nobody could be answered with more.
 */
#define DATABASE_ANSWER_SIZE_MAX    (32u * 1024 * 1024)

enum database_status {
    DATABASE_OK,        /* committed; `rows` holds what it returned */
    DATABASE_REFUSED,   /* the server said no, and rolled it back; `rows` holds the error */
    DATABASE_LOST,      /* the connection broke: it may have been committed; `rows` is NULL */
    DATABASE_TOO_LARGE, /* the answer went beyond DATABASE_ANSWER_SIZE_MAX and was given up: as DATABASE_LOST otherwise */
};

/* `rows` is lent until the callback returns. */
typedef void database_fn(enum database_status status, const PGresult *rows, void *arg);

struct database_statement {
    const char *name, *sql;
};

struct database_link;

struct database_link_options {
    struct rpc_loop *loop;
    const struct database_uri *uri;              /* lent for the link's life, as are the statements */
    const struct database_statement *statements; /* ended by a NULL name */
    const char *settings;                        /* a SELECT that sets the session up */
    int timeout_ms;                              /* what that allows a statement */
    /*
     * Ready, or not any more; `reason` says why not (for logs; lent).  Called from the loop.  Ready is said again when the
     * link takes statements again without one of its owner's having ended.
     */
    void (*on_state)(struct database_link *link, bool ready, const char *reason, void *arg);
    void *arg;
};

/* NULL when out of memory. */
struct database_link *database_link_new(const struct database_link_options *options);

/* What is under way ends with DATABASE_LOST, from inside this call.  Not from inside a callback of the link. */
void database_link_free(struct database_link *link); /* NULL is fine */

/* How many more statements it takes now. */
unsigned database_link_room(const struct database_link *link);

/*
 * Send a statement; `done` runs exactly once, later, from the loop.  False, with nothing sent, when it has no room or
 * memory.
 */
bool database_link_send(struct database_link *link, const char *statement, const struct parameters *parameters,
                        database_fn *done, void *arg);

#endif

/*
 * work: units of work on their way through the database: waiting, sent, sent again, ended.
 *
 * A unit is one thing that somebody asked for: one order to make, one to read.  Units of the same kind that wait at the
 * same time travel in one statement and are committed together: that is what makes the rate, for a commit costs the
 * same for one order as for fifty.  No unit pays for its neighbours, though: when a statement fails that carries
 * several, each is run again alone.
 *
 * What was sent on a connection that broke may have been committed or not.  Units whose kind is safe to repeat are sent
 * again, and then know; the others end with WORK_UNKNOWN.  Each unit ends once, at its deadline at the latest.
 */
#ifndef ORDERS_WORK_H
#define ORDERS_WORK_H

#include <libpq-fe.h>
#include <stdint.h>

#include "rpclib/loop.h"

#include "parameters.h"

#define WORK_UNITS_MAX      8000 /* under way; past it WORK_BUSY.  100 messages of 64 requests are less */
#define WORK_SIZE_MAX       (32u * 1024 * 1024) /* bytes of their contents together; past it WORK_BUSY */
#define WORK_BATCH_MAX      64                  /* units in one statement */
#define WORK_BATCH_SIZE_MAX (256u * 1024)       /* bytes of their contents together, unless it is one unit */
#define WORK_ATTEMPTS_MAX   8                   /* of one unit */
#define WORK_PATIENCE_MS    1000                /* how long a unit waits for a database that is away */
#define WORK_OPERATIONS_MAX 16

enum work_status {
    WORK_OK,          /* committed, and taken by its operation */
    WORK_BUSY,        /* a bound is reached; nothing was done */
    WORK_UNAVAILABLE, /* the database is away, too slow or short of something; nothing was done */
    WORK_UNKNOWN,     /* it may have been done, or may be done yet */
    WORK_TOO_LARGE,   /* its rows are more than DATABASE_ANSWER_SIZE_MAX; of a read alone */
    WORK_FAILED,      /* the database refused it for a reason that no repetition will change; nothing was done */
};

struct work;
struct work_batch;
struct work_unit;

/* The unit has ended, and is the caller's again.  Never from inside work_start(). */
typedef void work_fn(struct work_unit *unit, enum work_status status);

/* One kind of work. */
struct work_operation {
    const char *name; /* of its prepared statement; NULL ends a table */
    const char *sql;
    size_t batch_max;   /* units in one statement, 1..WORK_BATCH_MAX */
    bool is_read;       /* it changes nothing */
    bool is_repeatable; /* doing it twice is as good as once */
    int columns;        /* of its rows; an answer of another number is none.  0: whatever comes */
    /* Whether two units must not share a statement; NULL: any may. */
    bool (*excludes)(const struct work_unit *unit, const struct work_unit *other);
    /* Fill in the statement's parameters. */
    void (*bind)(struct parameters *parameters, struct work_unit *const units[], size_t count, void *arg);
    /*
     * Take the `index`-th unit's share of the rows; they are lent until the unit's `done` has returned.  False: they
     * are not what they must be.
     */
    bool (*take)(struct work_unit *unit, size_t index, const PGresult *rows, void *arg);
};

/* Embedded in what the unit is about; zeroed before it is started. */
struct work_unit {
    const struct work_operation *operation;
    work_fn *done;
    uint64_t deadline_ms; /* of the loop's clock */
    size_t size;          /* bytes of its contents, about */
    /* the rest is work's own */
    struct work_unit *next, *previous; /* while it waits */
    uint64_t number;                   /* they are served in this order */
    struct work_batch *batch;          /* while it is sent */
    size_t batch_index;
    unsigned attempts;
    bool is_alone;    /* it travels by itself */
    bool may_be_done; /* an attempt ended without an answer */
};

struct work_options {
    struct rpc_loop *loop;
    const char *uri;
    const struct work_operation *operations; /* a table; lent for its life */
    unsigned connections;
    int timeout_ms;
    void (*on_up)(bool up, void *arg); /* may be NULL */
    void *arg;                         /* also bind's and take's */
};

/* NULL when out of memory. */
struct work *work_new(const struct work_options *options);

/* What is under way ends from inside this call.  Not from inside a callback. */
void work_free(struct work *work); /* NULL is fine */

/* WORK_OK: `done` will run.  WORK_BUSY, WORK_UNAVAILABLE: it will not. */
enum work_status work_start(struct work *work, struct work_unit *unit);

bool work_is_up(const struct work *work);
uint64_t work_down_ms(const struct work *work); /* how long the database has been away; 0: it is there */

struct work_stats {
    uint64_t started, statements, repeated, unknown;
    size_t in_flight;
    unsigned connections; /* that are up */
};
void work_stats(const struct work *work, struct work_stats *stats);

#endif

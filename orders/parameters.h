/*
 * parameters: a statement's values in PostgreSQL's binary format, and the values of its rows read back from it.  Arrays
 * carry many units of work in one statement; nothing is quoted, so nothing can be misread.
 */
#ifndef ORDERS_PARAMETERS_H
#define ORDERS_PARAMETERS_H

#include <libpq-fe.h>
#include <stdint.h>

#include "rpclib/text.h"

#define PARAMETERS_MAX       16
#define PARAMETERS_KEEP_SIZE (256u * 1024) /* memory kept from one use to the next */

enum parameters_element { PARAMETERS_INT4 = 23, PARAMETERS_INT8 = 20, PARAMETERS_TEXT = 25 }; /* oids: pg_type.dat */

struct parameters {
    struct rpc_text bytes;
    int count;
    size_t starts[PARAMETERS_MAX];
};

void parameters_reset(struct parameters *parameters);
void parameters_clear(struct parameters *parameters);

/* Each adds the next parameter. */
void parameters_add_int4(struct parameters *parameters, int32_t value);
void parameters_add_int8(struct parameters *parameters, int64_t value);
void parameters_add_text(struct parameters *parameters, struct rpc_bytes value);

/* An array, whose `count` elements must follow. */
void parameters_add_array(struct parameters *parameters, enum parameters_element element, size_t count);
void parameters_element_int4(struct parameters *parameters, int32_t value);
void parameters_element_int8(struct parameters *parameters, int64_t value);
void parameters_element_text(struct parameters *parameters, struct rpc_bytes value); /* data NULL: null */

/* Queue the prepared statement with these parameters; its rows come in binary.  False when that failed. */
bool parameters_send(const struct parameters *parameters, PGconn *db, const char *statement);

/* ---- Rows ---- */

static inline bool row_is_null(const PGresult *rows, int row, int column)
{
    return PQgetisnull(rows, row, column) != 0;
}

int32_t row_int4(const PGresult *rows, int row, int column); /* null: 0 */
int64_t row_int8(const PGresult *rows, int row, int column); /* null: 0 */
/* Lent for the rows' life; null: {NULL, 0}. */
struct rpc_bytes row_text(const PGresult *rows, int row, int column);
/* The elements of an int4[] without nulls; false, with `out` partly written, when there are not exactly `count`. */
bool row_int4_array(const PGresult *rows, int row, int column, void (*take)(size_t index, int32_t value, void *arg),
                    size_t count, void *arg);

#endif

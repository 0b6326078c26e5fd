/*
 * price: money, exact: decimal text and JSON numbers to whole cents and back.  Pure; no float ever holds money.
 *
 * What a price may be: 0 or more, plain decimal notation (ASCII digits, a point, one or two digits), within
 * PostgreSQL's decimal(18,2).
 */
#ifndef ORDERS_PRICE_H
#define ORDERS_PRICE_H

#include <jansson.h>
#include <stdint.h>

#include "rpclib/bytes.h"

#define PRICE_CENTS_MAX INT64_C(999999999999999999) /* decimal(18,2) */
#define PRICE_TEXT_SIZE 20                          /* "9999999999999999.99" and its NUL */

enum price_status {
    PRICE_OK,
    PRICE_NOT_DECIMAL, /* no plain decimal notation, or no text and no number at all */
    PRICE_TOO_PRECISE, /* more than two decimal places */
    PRICE_INEXACT,     /* a real so large that several prices are the same double; as text it would be one of them */
    PRICE_TOO_LARGE,   /* more than PRICE_CENTS_MAX */
    PRICE_NEGATIVE,
};

/* Read decimal text.  *out stays as it was unless the status is PRICE_OK; so it does with the others. */
enum price_status price_parse(int64_t *out, struct rpc_bytes text);

/*
 * Read a JSON value: text as above, an integer, or a real whose nearest value of two decimal places is the same double
 * (0.29 is a price, 1.005 is too precise).  From 2^46 on, some 70 trillion, neighbours of two places share a double: a
 * real there does not say which of them was meant, and is refused.
 */
enum price_status price_read(int64_t *out, const json_t *value);

/* Print 0..PRICE_CENTS_MAX cents with two decimal places.  Returns the size without the NUL. */
size_t price_print(char out[PRICE_TEXT_SIZE], int64_t price_cents);

#endif

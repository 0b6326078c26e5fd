/*
 * order: what an order is, what a client may ask for, and how an order looks as JSON.  Pure: values in, values out.
 *
 * What is refused is described as marshmallow describes it: an object of field -> array of messages, in which
 * the lines of an order stand under their index: {"order_details": {"0": {"price": ["Not a valid number."]}}}.
 */
#ifndef ORDERS_ORDER_H
#define ORDERS_ORDER_H

#include <jansson.h>
#include <stdint.h>

#include "rpclib/bytes.h"

#include "rpclib/text.h"

#define ORDER_LINES_MAX           1000
#define ORDER_PRODUCT_ID_SIZE_MAX 1024 /* bytes of UTF-8 */
#define ORDER_QUANTITY_MAX        INT32_MAX
#define ORDER_ID_MAX              INT32_MAX
#define ORDER_ID_TEXT_SIZE        64
#define ORDER_PAGE_DEFAULT        10000                    /* LIST_MAX: orders of a page without a limit */
#define ORDER_PAGE_MAX            (ORDER_PAGE_DEFAULT + 1) /* whoever asks for one more learns whether more follow */

struct order_line {
    int32_t id;                  /* 0: none yet */
    struct rpc_bytes product_id; /* UTF-8 without NUL */
    struct rpc_bytes price;      /* decimal text with two places */
    int32_t quantity;
};

/*
 * Made by one of the order_read...() functions, it owns its lines and is cleared; made from a database's rows, it
 * lends.
 */
struct order {
    int32_t id; /* 0: none yet */
    size_t lines_count;
    struct order_line *lines;
    void *memory; /* what it owns */
};

enum order_status {
    ORDER_OK,
    ORDER_INVALID, /* *errors is a new reference: the messages */
    ORDER_NO_MEMORY,
};

/*
 * Read the lines of a new order, {product_id, price, quantity} each; `details` may be NULL (missing).  Fields that
 * nobody knows are ignored.  All that is wrong is told at once.  *out and *errors are set with their own status alone;
 * *out is the caller's to clear.
 */
enum order_status order_read_new(struct order *out, const json_t *details, json_t **errors);

/*
 * Read what is to change in an order, {id, order_details: [{id, price, quantity}]}: the lines' product_id stays empty.
 * An id that no order (no line) can have is 0 in *out.  No lines are fine; a line named twice is not.
 */
enum order_status order_read_change(struct order *out, const json_t *change, json_t **errors);

void order_clear(struct order *order);

/* ---- Ids and other integers of a client ---- */

enum order_id_status {
    ORDER_ID_OK,
    ORDER_ID_IMPOSSIBLE, /* an integer, but none that an order can have (1..ORDER_ID_MAX): it does not exist */
    ORDER_ID_INVALID,    /* no integer */
};

/* An integer, one without a fraction spelled as a real (7.0), or numeric text ("7"); `true` is none. */
enum order_id_status order_id_read(int32_t *out, const json_t *value);

/*
 * The id as the client wrote it, for a message; cut, with "..." behind, where it is too long.  Ends in NUL.  `spelled` is
 * its JSON as it came, for an integer beyond 64 bits, of which `value` has not all digits; {NULL, 0} where nobody knows.
 */
void order_id_print(char out[ORDER_ID_TEXT_SIZE], const json_t *value, struct rpc_bytes spelled);

/* Where a page of the list starts and how long it is at most. */
struct order_page {
    int32_t after; /* orders with greater ids */
    int32_t limit;
};

/*
 * NULL and null mean: from the first, ORDER_PAGE_DEFAULT orders at most.  A limit above ORDER_PAGE_MAX is refused, not
 * lowered: the client would take the page for the last one.
 */
enum order_status order_read_page(struct order_page *out, const json_t *after, const json_t *limit, json_t **errors);

/* ---- As JSON ---- */

/* What order_print() writes in front of each value (a price has quotes), between two lines, behind a line, and behind all. */
#define ORDER_LABEL_ID         "{\"id\":"
#define ORDER_LABEL_DETAILS    ",\"order_details\":["
#define ORDER_LABEL_PRODUCT_ID ",\"product_id\":"
#define ORDER_LABEL_PRICE      ",\"price\":"
#define ORDER_LABEL_QUANTITY   ",\"quantity\":"
#define ORDER_LABEL_NEXT       ","
#define ORDER_LABEL_LINE_END   "}"
#define ORDER_LABEL_END        "]}"

/* {"id":1,"order_details":[{"id":1,"product_id":"the_odyssey","price":"100000.99","quantity":1}]} */
void order_print(struct rpc_text *out, const struct order *order);

/* The rest of a line behind its id: ,"product_id":"the_odyssey","price":"100000.99","quantity":1} */
void order_print_line_rest(struct rpc_text *out, const struct order_line *line);

/* {"<field>":["<message>"]} as a new reference; NULL when out of memory. */
json_t *order_error(const char *field, const char *message);

#endif

/*
 * load_plan: what a load asks for and what every answer to it must be, read from a file that bench.py writes.
 *
 * A line is a word, a space and a value:
 *
 *     products 1000                  numbers to draw from: 1 to 1,000
 *     orders 1000
 *     refused 503                    this status, with Retry-After, is a refusal: counted by itself (left out: none is)
 *     kind get_product               begins one kind of request; the lines below belong to it
 *     weight 60                      its share of all requests
 *     numbers products               what it draws its number from
 *     status 200
 *     request GET /products/bench-{product} HTTP/1.1\r\nHost: bench\r\n\r\n
 *     answer {"id":"bench-{product}","in_stock":{integer}}
 *
 * In requests and answers {order} is the number drawn; {product} is it too, but taken around the number of products,
 * with PLAN_PRODUCT_DIGITS digits.  In answers {integer} is any integer and {new} the id of an order that was made.
 * Every other byte of an answer must be as it stands here.
 */
#ifndef LOADTEST_LOAD_PLAN_H
#define LOADTEST_LOAD_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLAN_KINDS_MAX      16
#define PLAN_PARTS_MAX      32
#define PLAN_PRODUCT_DIGITS 12

enum plan_part_type { PLAN_TEXT, PLAN_PRODUCT, PLAN_ORDER, PLAN_INTEGER, PLAN_NEW };

struct plan_part {
    enum plan_part_type type;
    const char *text; /* PLAN_TEXT */
    size_t size;
};

struct plan_template {
    size_t parts_count;
    struct plan_part parts[PLAN_PARTS_MAX];
    size_t size_max; /* of the text that it makes */
};

struct plan_kind {
    const char *name;
    unsigned weight;
    bool draws_orders; /* otherwise products */
    int status;
    struct plan_template request, answer;
};

struct plan {
    uint64_t products, orders;
    int refused; /* the status of a refusal; 0: none is one */
    size_t kinds_count;
    unsigned weights; /* the sum */
    struct plan_kind kinds[PLAN_KINDS_MAX];
};

/* Ends the program with a line on stderr when the file cannot be used.  What it read stays for the program's life. */
void plan_read(struct plan *plan, const char *path);

/* Draw a kind and its number from 64 random bits each. */
const struct plan_kind *plan_draw(const struct plan *plan, uint64_t random_kind, uint64_t random_number,
                                  uint64_t *number);

/* The request's bytes; `out` holds kind->request.size_max.  Returns the size. */
size_t plan_request_print(const struct plan *plan, const struct plan_kind *kind, uint64_t number, char *out);

/* Whether `body` answers the request with this number; *new_id is set where the answer has a {new}. */
bool plan_answer_matches(const struct plan *plan, const struct plan_kind *kind, uint64_t number, const char *body,
                         size_t size, uint64_t *new_id);

#endif

/*
 * product_store: the products in Redis.  Knows nothing of RPC.
 *
 * One hash a product, key `products:<id>`, fields id, title, passenger_capacity, maximum_speed, in_stock, all text: as the
 * Python original has them.  What is remembered of orders lies under `airship:applied:<order id>`, of requests under
 * `airship:created:<hash>` and `airship:deleted:<hash>`: see product_store_apply() and struct product_request_name.
 *
 * Operations never block; each takes the memory of a request struct that its caller keeps until `done` ran.  A function
 * that returns PRODUCT_STORE_OK runs `done` exactly once, later, from the loop; any other result means that nothing was
 * done and `done` never runs.
 */
#ifndef PRODUCTS_STORE_H
#define PRODUCTS_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "order_event.h"
#include "product.h"
#include "redis_link.h"
#include "redis_uri.h"
#include "rpclib/bytes.h"
#include "rpclib/loop.h"

#define PRODUCT_LIST_MAX          100000          /* products of one list */
#define PRODUCT_LISTS_MAX         4               /* lists under way at once: each may hold much memory */
#define PRODUCT_REQUEST_TTL_S     (24 * 3600)     /* how long a request to create or delete is remembered, at most */
#define PRODUCT_APPLIED_TTL_S     (7 * 24 * 3600) /* how long an order is remembered, by default */
#define PRODUCT_APPLY_CHANGES_MAX 500 /* products that one run of the script changes: it holds up the server */

struct product_store;

/* How an operation ended. */
enum product_store_status {
    PRODUCT_STORE_OK,
    PRODUCT_STORE_NOT_FOUND,   /* there is no such product */
    PRODUCT_STORE_DAMAGED,     /* what lies under its key is no product */
    PRODUCT_STORE_UNAVAILABLE, /* Redis is away, or refuses commands for now; nothing was done */
    PRODUCT_STORE_BUSY,        /* a bound of this process is reached; nothing was done */
    PRODUCT_STORE_UNKNOWN,     /* the answer never came: it may have been done (never of get, exists and list) */
    PRODUCT_STORE_FAILED,      /* Redis refuses the command as such, see product_store_reason(); nothing was done */
    PRODUCT_STORE_TOO_MANY,    /* more than PRODUCT_LIST_MAX products */
    PRODUCT_STORE_TOO_LARGE,   /* the list is longer than its size_max */
    PRODUCT_STORE_LATE,        /* the list's deadline passed */
    PRODUCT_STORE_NO_MEMORY,   /* nothing was done */
};

/* A short name for logs.  Static. */
const char *product_store_status_name(enum product_store_status status);

struct product_store_options {
    struct rpc_loop *loop;
    const struct redis_uri *uri;          /* copied */
    int timeout_ms;                       /* for each command, 1 or more */
    int64_t applied_ttl_s;                /* how long an order is remembered; 0: PRODUCT_APPLIED_TTL_S */
    void (*on_state)(bool up, void *arg); /* may be NULL */
    void *arg;
};

/* NULL when out of memory.  Starts connecting; a server that is away is no error. */
struct product_store *product_store_new(const struct product_store_options *options);

/* Operations under way end from inside this call.  Not from inside a callback. */
void product_store_free(struct product_store *store); /* NULL is fine */

bool product_store_is_up(const struct product_store *store);
/* Since when (time of day) it is up or not. */
time_t product_store_since(const struct product_store *store);
/* Why it is not up, or else Redis' last refusal; for logs: it may be a library's words.  Lent. */
const char *product_store_reason(const struct product_store *store);

/* Commands that were sent and not answered yet. */
size_t product_store_in_flight(const struct product_store *store);

/* --- one product --- */

struct product_request;

/*
 * `fields` is for product_store_get() with PRODUCT_STORE_OK, lent until this returns: the product's fields as Redis has
 * them, unchecked, for product_print(); NULL otherwise.
 */
typedef void product_request_fn(struct product_request *request, enum product_store_status status,
                                const struct rpc_bytes fields[PRODUCT_FIELDS]);

struct product_request {
    struct redis_command command; /* first; the store's */
    struct product_store *store;
    product_request_fn *done;
};

enum product_store_status product_store_get(struct product_store *store, struct product_request *request,
                                            struct rpc_bytes id, product_request_fn *done);

/* Ends with PRODUCT_STORE_OK when it is there, else PRODUCT_STORE_NOT_FOUND. */
enum product_store_status product_store_exists(struct product_store *store, struct product_request *request,
                                               struct rpc_bytes id, product_request_fn *done);

/* Replaces a product of the same id, all five fields in one command. */
enum product_store_status product_store_create(struct product_store *store, struct product_request *request,
                                               const struct product *product, product_request_fn *done);

/*
 * What a request is known by.  A change of that name is carried out once: one that comes again changes nothing and ends
 * as the first did.  Between the two an order may have lowered the stock, or somebody may have replaced, deleted or made
 * the product; all of that was acknowledged.
 *
 * Looking, remembering and writing are one script.  The key holds a hash of request id and product, so that a caller who
 * uses an id again for another product is not taken for himself.  Only a change that was carried out is remembered: one
 * that Redis refused was answered as such, and may be tried when it comes again.
 */
struct product_request_name {
    struct rpc_bytes request_id; /* the request's correlation id; not empty */
    int64_t remember_s;          /* for how long it may come again: 1..PRODUCT_REQUEST_TTL_S */
};

enum product_store_status product_store_create_once(struct product_store *store, struct product_request *request,
                                                    const struct product *product,
                                                    const struct product_request_name *name, product_request_fn *done);

/* A product that is not there is deleted too. */
enum product_store_status product_store_delete(struct product_store *store, struct product_request *request,
                                               struct rpc_bytes id, product_request_fn *done);
enum product_store_status product_store_delete_once(struct product_store *store, struct product_request *request,
                                                    struct rpc_bytes id, const struct product_request_name *name,
                                                    product_request_fn *done);

/* --- all products --- */

struct product_list_limits {
    size_t size_max;      /* bytes of the text */
    uint64_t deadline_ms; /* of the loop's clock: nobody wants it later */
};

/* What came of a list, whatever its status; lent. */
struct product_listing {
    struct rpc_bytes products;   /* a JSON array; {NULL, 0} unless PRODUCT_STORE_OK */
    size_t damaged;              /* what is no product and was left out */
    struct rpc_bytes largest_id; /* of the products that were read, the one whose JSON is the longest; */
    size_t largest_size;         /* its bytes; 0: none was read */
};

typedef void product_list_fn(enum product_store_status status, const struct product_listing *listing, void *arg);

/*
 * By SCAN, a little at a time, so that it stalls nobody: products that are made or deleted meanwhile may be in it or not;
 * all others are, once each.
 */
enum product_store_status product_store_list(struct product_store *store, const struct product_list_limits *limits,
                                             product_list_fn *done, void *arg);

/* --- orders --- */

struct product_application;

/*
 * PRODUCT_STORE_OK: the whole order is applied.  Anything else: some of its products may be; apply it again, as often as
 * it takes.
 */
typedef void product_application_fn(struct product_application *application, enum product_store_status status);

struct product_application {
    struct redis_command command; /* first; the store's, as is all but the counts */
    struct product_store *store;
    product_application_fn *done;
    const struct order_event *event;
    size_t from, to; /* the changes under way */
    bool is_script_sent;

    size_t applied; /* products whose stock was lowered just now */
    size_t seen;    /* that this order had been applied to before */
    size_t missing; /* that are not there */
    size_t refused; /* whose stock is no integer, or would no longer fit 64 bits; not remembered: apply it again */
};

/*
 * Lower the stock of an order's products, once for each order and product however often it is called.
 *
 * A script does it in one piece, so that neither a crash nor another instance comes between: it looks whether the
 * order's hash `airship:applied:<order id>` names the product; if not, it notes it there and lowers the stock, if the
 * product is there.  What must hold:
 * - The note belongs to the order, not to the product, and a deleted product does not take it along: deleting and
 *   making a product again neither applies an old order a second time nor loses a new one.  An order that finds no
 *   product is noted too, so that its second delivery does not lower the stock of a product that was made since.
 * - The note is made before the stock is lowered and taken back if that fails, so that a failure halfway is never
 *   applied twice, and what a damaged product refused is applied when it was mended and the order comes again.
 * - It is bounded: one small hash an order, gone applied_ttl_s after the order's last delivery.  Redelivery ends
 *   long before: an event lies in the queue again only while a service that had begun it is away.
 * `event` must stay until `done` ran.
 */
enum product_store_status product_store_apply(struct product_store *store, struct product_application *application,
                                              const struct order_event *event, product_application_fn *done);

#endif

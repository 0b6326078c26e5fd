/*
 * order_store: orders in PostgreSQL, and the outbox of their events.  Knows nothing of RPC.
 *
 * Each operation takes the memory of a unit that its caller keeps until the unit's `done` ran, and never blocks.  A
 * function that returns ORDER_STORE_OK runs `done` exactly once, later, from the loop, at the deadline at the latest;
 * with any other result nothing was done and `done` never runs.
 *
 * What makes an order is one statement and one transaction: the order, its lines, its event in the outbox, and the key
 * under which the request is known.  A request that comes again under its key makes nothing and gets the first one's
 * answer; so the store itself may send a request again whose connection broke, and learns that way what became of it.
 *
 * What changes or deletes one is known by its correlation id in the same way: it is carried out once, and what others
 * changed since stays.  A repeated deletion is answered as the first was.  A repeated change is answered by the order as it
 * is now, or ORDER_STORE_NOT_FOUND when it has been deleted since.  An error is not remembered, for nothing was done: what
 * was not found when the request came first is looked for again, and ids are never given twice, so it stays an error.
 */
#ifndef ORDERS_STORE_H
#define ORDERS_STORE_H

#include "rpclib/bytes.h"
#include "rpclib/loop.h"
#include "rpclib/metrics.h"

#include "database_uri.h"
#include "order.h"
#include "work.h"

#define ORDER_STORE_REQUEST_TTL_S   (24 * 3600)       /* how long a request is known by its correlation id */
#define ORDER_STORE_LIST_LINES_MAX  100000            /* lines of one page, so many that it could hardly be answered */
#define ORDER_STORE_KEY_SIZE_MAX    255               /* bytes of an Idempotency-Key */
#define ORDER_STORE_EVENTS_MAX      100               /* taken from the outbox at once */
#define ORDER_STORE_EVENTS_SIZE_MAX (4 * 1024 * 1024) /* bytes of these together, unless it is one event */
#define ORDER_STORE_IDS_MAX         500               /* events named in one statement */
#define ORDER_STORE_FORGET_MAX      1000              /* expired keys deleted by one statement */

struct order_store;
struct order_store_unit;

enum order_store_status {
    ORDER_STORE_OK,
    ORDER_STORE_NOT_FOUND,      /* no such order */
    ORDER_STORE_LINE_NOT_FOUND, /* update: the order has no such line (the unit's `missing`); nothing was changed */
    ORDER_STORE_KEY_REUSED,     /* create, recall: the key belongs to another body */
    ORDER_STORE_TOO_LARGE,      /* get, list: DATABASE_ANSWER_SIZE_MAX, ORDER_STORE_LIST_LINES_MAX */
    ORDER_STORE_BUSY,           /* a bound of this process is reached; nothing was done */
    ORDER_STORE_UNAVAILABLE,    /* the database is away or too slow; nothing was done */
    ORDER_STORE_UNKNOWN,        /* it may have been done (never of get, list and recall) */
    ORDER_STORE_FAILED,         /* the database refused it; it is in the log */
};

/* An event of the outbox. */
struct order_event {
    int64_t id;
    struct rpc_bytes type, payload;
    struct rpc_bytes headers; /* {NULL, 0}: none */
};

typedef void order_store_fn(struct order_store_unit *unit, enum order_store_status status);

#define ORDER_STORE_HASH_SIZE 64 /* SHA-256 in hexadecimal digits */

/* Zeroed by its owner, then handed to one operation. */
struct order_store_unit {
    struct work_unit work; /* first; the store's */
    struct order_store *store;
    order_store_fn *done;
    enum order_store_status status;
    /* What is asked for; set by the operation. */
    struct order *order;
    int32_t order_id;
    struct order_page page;
    struct rpc_bytes headers;
    char request_hash[ORDER_STORE_HASH_SIZE]; /* of the body; without an Idempotency-Key of the correlation id, too */
    struct rpc_bytes key;
    const int64_t *event_ids;
    size_t event_ids_count;
    int32_t limit;
    bool is_event_claimed;
    unsigned next; /* the operation that reads the answer of a change which was made before; 0: none */
    /* What came of it; lent until `done` returns. */
    const struct order *orders;
    size_t orders_count;
    const struct order_event *events;
    size_t events_count;
    int64_t event_id; /* create: of the new order's event, if it is the caller's to publish; else 0 */
    int32_t missing;  /* update: a line's id */
    int32_t count;    /* forget: how many */
};

struct order_store_options {
    struct rpc_loop *loop;
    const char *uri;
    unsigned connections;
    int timeout_ms;                    /* of a statement */
    int64_t key_ttl_s;                 /* how long an Idempotency-Key is known */
    int claim_ms;                      /* how long an event is its finder's to publish */
    void (*on_up)(bool up, void *arg); /* may be NULL */
    void *arg;
};

/* False, with what is wrong in `reason`, when libpq does not understand the URI. */
bool order_store_uri_check(const char *uri, char reason[DATABASE_URI_REASON_SIZE]);

/* Starts connecting; a database that is away is no error.  NULL when out of memory. */
struct order_store *order_store_new(const struct order_store_options *options);

/* What is under way ends from inside this call.  Not from inside a callback. */
void order_store_free(struct order_store *store); /* NULL is fine */

bool order_store_is_up(const struct order_store *store);
uint64_t order_store_down_ms(const struct order_store *store);     /* how long it has been away; 0: it is there */
unsigned order_store_connections(const struct order_store *store); /* that are up now */

void order_store_metrics(const struct order_store *store, struct rpc_metrics *metrics);

/* ---- Orders: `deadline_ms` is of the loop's clock; what an operation is given must stay until `done` ran ---- */

struct order_creation {
    struct order *order;              /* gets its ids */
    struct rpc_bytes request_id;      /* the request's correlation id; empty: it has none */
    struct rpc_bytes idempotency_key; /* {NULL, 0}: none; else 1..ORDER_STORE_KEY_SIZE_MAX bytes of UTF-8 without NUL */
    struct rpc_bytes headers;         /* stored with the event; {NULL, 0}: none */
};

/* With ORDER_STORE_OK the order has its ids: new ones, or those of the first time. */
enum order_store_status order_store_create(struct order_store *store, struct order_store_unit *unit,
                                           const struct order_creation *creation, uint64_t deadline_ms,
                                           order_store_fn *done);

/* What create would answer without making anything: the order made under this key, or ORDER_STORE_NOT_FOUND. */
enum order_store_status order_store_recall(struct order_store *store, struct order_store_unit *unit,
                                           const struct order_creation *creation, uint64_t deadline_ms,
                                           order_store_fn *done);

enum order_store_status order_store_get(struct order_store *store, struct order_store_unit *unit, int32_t id,
                                        uint64_t deadline_ms, order_store_fn *done);

/*
 * Set price and quantity of the lines in `change`; the unit gets the whole order.  `request_id` is the request's correlation
 * id, here and below; empty: it has none.  It need not stay.
 */
enum order_store_status order_store_update(struct order_store *store, struct order_store_unit *unit,
                                           struct order *change, struct rpc_bytes request_id, uint64_t deadline_ms,
                                           order_store_fn *done);

enum order_store_status order_store_delete(struct order_store *store, struct order_store_unit *unit, int32_t id,
                                           struct rpc_bytes request_id, uint64_t deadline_ms, order_store_fn *done);

enum order_store_status order_store_list(struct order_store *store, struct order_store_unit *unit,
                                         struct order_page page, uint64_t deadline_ms, order_store_fn *done);

/* ---- The outbox ---- */

/* Whether the events of orders made from now on are claimed for whoever made them; false at first. */
void order_store_claim_new_events(struct order_store *store, bool claim);

/* Take over events that nobody has a claim to, the oldest first, 1..ORDER_STORE_EVENTS_MAX of them at most. */
enum order_store_status order_store_claim_events(struct order_store *store, struct order_store_unit *unit,
                                                 int32_t limit, uint64_t deadline_ms, order_store_fn *done);

/* Give up the claim to events: 1..ORDER_STORE_IDS_MAX of them. */
enum order_store_status order_store_release_events(struct order_store *store, struct order_store_unit *unit,
                                                   const int64_t *ids, size_t count, uint64_t deadline_ms,
                                                   order_store_fn *done);

/* 1..ORDER_STORE_IDS_MAX of them; those that are gone already are fine. */
enum order_store_status order_store_delete_events(struct order_store *store, struct order_store_unit *unit,
                                                  const int64_t *ids, size_t count, uint64_t deadline_ms,
                                                  order_store_fn *done);

/* ---- Keys that have expired: the unit's `count` is how many went, ORDER_STORE_FORGET_MAX at most ---- */

enum order_store_status order_store_forget_requests(struct order_store *store, struct order_store_unit *unit,
                                                    uint64_t deadline_ms, order_store_fn *done);
enum order_store_status order_store_forget_keys(struct order_store *store, struct order_store_unit *unit,
                                                uint64_t deadline_ms, order_store_fn *done);

#endif

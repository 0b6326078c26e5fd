/*
 * dead_letters: what a service could not handle, kept where people find it: tried again after a while, or put aside.
 *
 *     <service>.dead-letters         what can never be handled, or failed too often
 *     <event queue>.retry-<delay ms> waits for its delay, then the broker puts it back into the event's own queue
 *     <event queue>.retry-0          the suspects: what was delivered before and not acknowledged; consumed one at a time
 *
 * All are queues of ours alone, durable, reached through the default exchange; Nameko's queues keep their arguments.
 * A message is published there first, persistent and confirmed, and settled after that: it is never in neither place.  What
 * is put aside is rejected then (a dead-letter policy of the broker's sees it too), what is tried again is acknowledged.
 * It carries its own properties and headers, and these of ours:
 *
 *     x-airship-cause, x-airship-attempts, x-airship-time (ISO 8601, UTC)
 *     x-airship-queue                                      the queue that it was delivered by
 *     x-airship-exchange, x-airship-routing-key            where it was published at first, however often it comes back
 *
 * The last two go with the suspects as well.
 */
#ifndef RPCLIB_SRC_DEAD_LETTERS_H
#define RPCLIB_SRC_DEAD_LETTERS_H

#include "confirms.h"
#include "consumer.h"
#include "wire.h"

#define DEAD_LETTERS_HEADERS_MAX 128
#define DEAD_LETTERS_CAUSE_MAX   512 /* bytes of a cause that are kept */

#define DEAD_LETTERS_PARK_MS 1000 /* a message that cannot be put aside does not come again at full speed */

#define LETTER_CAUSE       "x-airship-cause"
#define LETTER_ATTEMPTS    "x-airship-attempts"
#define LETTER_TIME        "x-airship-time"
#define LETTER_QUEUE       "x-airship-queue"
#define LETTER_EXCHANGE    "x-airship-exchange"
#define LETTER_ROUTING_KEY "x-airship-routing-key"

/* The delays before the second, third ... attempt; the last one serves all that follow. */
#define RETRY_DELAYS_MS    1000, 5000, 30000, 120000
#define RETRY_DELAYS_COUNT 4

/*
 * The broker routes what is published to each key of these headers as well: what somebody sent us with them would leave
 * us for queues of his choice.
 */
#define LETTER_IS_ROUTE(key) (rpc_bytes_equal((key), "CC") || rpc_bytes_equal((key), "BCC"))

/* Where the message was published at first: what is put back into its queue keeps them. */
#define LETTER_IS_ORIGIN(key) (rpc_bytes_equal((key), LETTER_EXCHANGE) || rpc_bytes_equal((key), LETTER_ROUTING_KEY))

struct burial;

struct dead_letters_options {
    const char *service; /* its name */
    uint32_t unconfirmed_max;
    /* The index-th event queue whose messages are tried again, asked at each declaration; NULL: there are no more. */
    const char *(*retried)(size_t index, void *arg);
    rpc_loop_fn *on_up; /* letters may be put aside (again) */
    void *arg;
};

struct dead_letters {
    struct confirms confirms;
    const char *(*retried)(size_t index, void *arg);
    rpc_loop_fn *on_up;
    void *arg;
    char queue[256];
    struct burial *parked; /* failed, and handed back to the broker after DEAD_LETTERS_PARK_MS */
    struct rpc_loop_timer *unpark;
};

/* A message that was not handled.  All lent. */
struct letter {
    struct rpc_bytes raw_properties;
    struct rpc_bytes body;
    struct rpc_bytes exchange, routing_key;
    const char *queue; /* it was delivered by */
    const char *cause;
};

/* False when out of memory or the service's name is too long. */
bool dead_letters_init(struct dead_letters *letters, struct rpc_connection *connection,
                       const struct dead_letters_options *options);
bool dead_letters_ready(const struct dead_letters *letters);
/* The name of an event queue's suspects; false when it is too long. */
bool dead_letters_suspects(char out[WIRE_NAME_SIZE], const char *queue);
void dead_letters_clear(struct dead_letters *letters);

/* Put the message aside, then reject `taken`; hand that back to the broker if it cannot be done. */
void dead_letters_bury(struct dead_letters *letters, const struct letter *letter, struct taken *taken);

/*
 * Try again after a delay that grows with the attempts, or put aside after `attempts_max` of them (0: at once); then settle
 * `taken`.  Returns the delay in ms, 0 when it was put aside.
 */
unsigned dead_letters_retry(struct dead_letters *letters, const struct letter *letter, uint32_t attempts_max,
                            struct taken *taken);

/* Put the message among its queue's suspects as it is (the letter's cause is not used), then settle `taken`. */
void dead_letters_suspect(struct dead_letters *letters, const struct letter *letter, struct taken *taken);

#endif

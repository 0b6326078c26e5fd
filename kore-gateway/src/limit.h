/*
 * limit: how many calls may wait for a service at once, by what it has been seen to do.
 *
 * A number alone is no bound on a wait: a thousand calls are a third of a second for a service that is well, and more than
 * any deadline for one whose database is slow; all would then be answered just too late.  So, while a service is slow, no more
 * wait for it than it answers in `wait_ms`: its rate times that (Little's law).  While it is quick, nobody is refused.
 *
 * Pure: the time comes from the caller.
 */
#ifndef KORE_GATEWAY_LIMIT_H
#define KORE_GATEWAY_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#define LIMIT_LEAST 16 /* so many may always wait: what is answered of them tells when it gets better */

struct limit {
    uint32_t wait_ms;
    unsigned under_way;
    uint64_t moved_ms;       /* when the last answer came; or since when somebody waits */
    uint64_t took_ms;        /* by the last answer, or until the last deadline */
    uint64_t window_ms;      /* when the current window began */
    unsigned window_answers; /* in it */
    uint64_t rate;           /* answers a second, of the windows before; the newer the more */
};

void limit_init(struct limit *limit, uint32_t wait_ms, uint64_t now_ms);

/* Whether limit_enter() would be true now. */
bool limit_has_room(struct limit *limit, uint64_t now_ms);

/* A call wants to begin.  False: it would wait too long; refuse it.  Each true needs one limit_leave(). */
bool limit_enter(struct limit *limit, uint64_t now_ms);

enum limit_end {
    LIMIT_ANSWERED,  /* whatever the answer */
    LIMIT_EXPIRED,   /* its deadline came first */
    LIMIT_CANCELLED, /* for a reason that says nothing about the service */
};

void limit_leave(struct limit *limit, enum limit_end end, uint64_t now_ms, uint64_t began_ms);

#endif

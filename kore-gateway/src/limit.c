#include "limit.h"

#include <assert.h>

#define WINDOW_MS  1000u /* answers are counted over such windows */
#define SLOW_SHARE 4u    /* a service is slow when an answer takes, or keeps us waiting for, more than 1/4 of wait_ms */

void limit_init(struct limit *limit, uint32_t wait_ms, uint64_t now_ms)
{
    *limit = (struct limit){.wait_ms = wait_ms, .window_ms = now_ms, .moved_ms = now_ms};
}

/* Half of the rate is the last window's, a quarter the one's before, and so on. */
static void limit_turn_window(struct limit *limit, uint64_t now_ms)
{
    uint64_t age_ms = now_ms - limit->window_ms;

    if (age_ms >= WINDOW_MS) {
        uint64_t rate = limit->window_answers * (uint64_t)WINDOW_MS / age_ms;

        limit->rate = limit->rate == 0 ? rate : (limit->rate + rate) / 2;
        limit->window_answers = 0;
        limit->window_ms = now_ms;
    }
    if (now_ms - limit->moved_ms > limit->wait_ms)
        limit->rate = 0; /* it has stopped */
}

static bool limit_is_slow(const struct limit *limit, uint64_t now_ms)
{
    uint64_t slow_ms = limit->wait_ms / SLOW_SHARE;

    return limit->took_ms > slow_ms || now_ms - limit->moved_ms > slow_ms;
}

bool limit_has_room(struct limit *limit, uint64_t now_ms)
{
    if (limit->under_way == 0) { /* nobody knows of any trouble */
        limit->moved_ms = now_ms;
        limit->took_ms = 0;
    }
    limit_turn_window(limit, now_ms);
    return limit->under_way < LIMIT_LEAST || !limit_is_slow(limit, now_ms) ||
           limit->under_way < limit->rate * limit->wait_ms / 1000;
}

bool limit_enter(struct limit *limit, uint64_t now_ms)
{
    if (!limit_has_room(limit, now_ms))
        return false;
    limit->under_way++;
    return true;
}

void limit_leave(struct limit *limit, enum limit_end end, uint64_t now_ms, uint64_t began_ms)
{
    assert(limit->under_way > 0);
    limit->under_way--;
    switch (end) {
    case LIMIT_ANSWERED:
        limit_turn_window(limit, now_ms);
        limit->window_answers++;
        limit->moved_ms = now_ms;
        limit->took_ms = now_ms - began_ms;
        break;
    case LIMIT_EXPIRED:
        limit->took_ms = now_ms - began_ms;
        break;
    case LIMIT_CANCELLED:
        break;
    }
}

#include "rpclib/outage.h"

#include <stdio.h>
#include <string.h>

#include "rpclib/backoff.h"

void rpc_outage_init(struct rpc_outage *outage, uint64_t stay_ms, uint64_t now_ms)
{
    *outage = (struct rpc_outage){.stay_ms = stay_ms, .since_ms = now_ms};
}

static bool outage_has_stayed(const struct rpc_outage *outage, uint64_t now_ms)
{
    return outage->is_up && now_ms - outage->up_ms >= outage->stay_ms;
}

static bool outage_knows(const struct rpc_outage *outage, const char *reason)
{
    unsigned known = outage->reasons_count < RPC_OUTAGE_REASONS_MAX ? outage->reasons_count : RPC_OUTAGE_REASONS_MAX;

    for (unsigned i = 0; i < known; i++)
        if (strncmp(outage->reasons[i], reason, RPC_OUTAGE_REASON_SIZE - 1) == 0)
            return true;
    return false;
}

/* Chance is asked once a line, not whenever somebody asks whether it is time for the next. */
static void outage_pause(struct rpc_outage *outage)
{
    outage->again_ms = rpc_backoff_ms(outage->pauses++, RPC_OUTAGE_AGAIN_MIN_MS, RPC_OUTAGE_AGAIN_MAX_MS);
}

static bool outage_tell(struct rpc_outage *outage, const char *reason, uint64_t now_ms)
{
    if (!outage_knows(outage, reason))
        snprintf(outage->reasons[outage->reasons_count++ % RPC_OUTAGE_REASONS_MAX], RPC_OUTAGE_REASON_SIZE, "%s",
                 reason);
    outage->is_told = true;
    outage->told_ms = now_ms;
    return true;
}

bool rpc_outage_down(struct rpc_outage *outage, const char *reason, uint64_t now_ms)
{
    bool has_stayed = outage_has_stayed(outage, now_ms), was_up = outage->is_up;

    if (was_up)
        outage->was_short = !has_stayed;
    outage->is_up = false;
    if (has_stayed || !outage->is_told) { /* a new one, or the last word was that the peer is there */
        outage->reasons_count = outage->pauses = 0;
        outage_pause(outage);
        if (was_up)
            outage->since_ms = now_ms;
        return outage_tell(outage, reason, now_ms);
    }
    if (!outage_knows(outage, reason))
        return outage_tell(outage, reason, now_ms);
    if (now_ms - outage->told_ms < outage->again_ms)
        return false;
    outage_pause(outage);
    return outage_tell(outage, reason, now_ms);
}

bool rpc_outage_up(struct rpc_outage *outage, uint64_t now_ms)
{
    outage->is_up = true;
    outage->up_ms = now_ms;
    if (outage->was_short)
        return false;
    outage->is_told = false;
    return true;
}

bool rpc_outage_stayed(struct rpc_outage *outage, uint64_t now_ms)
{
    if (!outage->is_told || !outage_has_stayed(outage, now_ms))
        return false;
    outage->is_told = outage->was_short = false;
    return true;
}

uint64_t rpc_outage_ms(const struct rpc_outage *outage, uint64_t now_ms)
{
    return now_ms - outage->since_ms;
}

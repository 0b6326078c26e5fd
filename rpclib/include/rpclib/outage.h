/*
 * rpc_outage: what the log is told of a peer that comes and goes.
 *
 * An outage begins when the peer goes, and is over when it has stayed for a while: one that takes each login and then hangs
 * up is away all the time.  An outage is told of once, again for a reason that is new, and now and then while it goes on.
 * No clock, no log; the memory is the caller's.  Times are those of one clock that never goes back.
 */
#ifndef RPCLIB_OUTAGE_H
#define RPCLIB_OUTAGE_H

#include <stdbool.h>
#include <stdint.h>

#define RPC_OUTAGE_REASON_SIZE  256 /* of a reason, that much is compared */
#define RPC_OUTAGE_REASONS_MAX  4   /* that are remembered: two hosts that fail in turn are two lines */
/* The pauses between lines of the same reason, see rpc_backoff_ms(): all programs lost their broker at the same moment. */
#define RPC_OUTAGE_AGAIN_MIN_MS 60000
#define RPC_OUTAGE_AGAIN_MAX_MS 600000

struct rpc_outage {
    uint64_t stay_ms;  /* the peer must be there for so long before the outage is over */
    uint64_t since_ms; /* when it began */
    uint64_t up_ms;    /* when the peer last came */
    uint64_t told_ms, again_ms;
    unsigned pauses; /* chosen since it began */
    bool is_up;
    bool was_short; /* it came and did not stay */
    bool is_told;   /* the log's last word is that the peer is away */
    unsigned reasons_count;
    char reasons[RPC_OUTAGE_REASONS_MAX][RPC_OUTAGE_REASON_SIZE]; /* told of, a ring */
};

/* The peer is away, and nothing is told yet. */
void rpc_outage_init(struct rpc_outage *outage, uint64_t stay_ms, uint64_t now_ms);

/* The peer went, or an attempt to reach it failed.  True: tell. */
bool rpc_outage_down(struct rpc_outage *outage, const char *reason, uint64_t now_ms);

/* The peer is there.  True: tell; false: call rpc_outage_stayed() after `stay_ms`. */
bool rpc_outage_up(struct rpc_outage *outage, uint64_t now_ms);

/* Whether it has stayed, and that is to be told now. */
bool rpc_outage_stayed(struct rpc_outage *outage, uint64_t now_ms);

/* How long ago the outage began that is on, or was the last. */
uint64_t rpc_outage_ms(const struct rpc_outage *outage, uint64_t now_ms);

#endif

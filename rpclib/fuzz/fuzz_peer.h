/*
 * A connection before a broker that is played by hand, and kept from one input to the next: to make it anew costs more than
 * what most inputs do.  Each input finds it at rest, with no channel, and leaves it so.
 */
#ifndef RPCLIB_FUZZ_FUZZ_PEER_H
#define RPCLIB_FUZZ_FUZZ_PEER_H

#include "../test/simulation/peer.h"
#include "fuzz.h"

#define FUZZ_PEER_SHARE \
    32 /* one of so many sizes of an input ends the connection too, so that an end is tried as well */

static size_t fuzz_peer_at_rest; /* handles of the loop */

static inline void fuzz_peer_begin(void)
{
    if (peer.connection != NULL)
        return;
    peer_init();
    fuzz_peer_at_rest = fake_loop_handles(peer.loop);
}

/* What was made on the connection is freed. */
static inline void fuzz_peer_end(size_t input_size)
{
    peer_run();
    HOLDS(rpc_connection_state(peer.connection) == RPC_CONNECTION_UP && peer.handshakes == 1);
    HOLDS(fake_loop_handles(peer.loop) == fuzz_peer_at_rest);
    peer_forget();
    if (input_size % FUZZ_PEER_SHARE == 0)
        peer_clear();
}

#endif

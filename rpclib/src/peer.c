#include "peer.h"

#include <assert.h>
#include <stdlib.h>

#define TIMEOUTS_DIFFER_MAX 2 /* times the shortest time limit in a batch */

struct peer *peers_get(struct peers *peers, const char *name)
{
    struct peer *peer = peers->first;

    while (peer != NULL && strcmp(peer->name, name) != 0)
        peer = peer->next;
    if (peer != NULL || peers->count == PEERS_MAX || strlen(name) > RPC_NAME_SIZE_MAX)
        return peer;
    peer = calloc(1, sizeof(*peer));
    if (peer == NULL)
        return NULL;
    memcpy(peer->name, name, strlen(name) + 1);
    peer->next = peers->first;
    peers->first = peer;
    peers->count++;
    return peer;
}

static void batch_free(struct peer_batch *batch)
{
    batch_clear(&batch->batch);
    free(batch);
}

void peers_forget(struct peers *peers)
{
    assert(peers->leaving.first == NULL && peers->sent.first == NULL);
    for (struct peer *peer = peers->first; peer != NULL; peer = peer->next) {
        assert(peer->gathered.first == NULL);
        peer->takes_batches = false;
        peer->not_before_ms = 0;
    }
}

void peers_clear(struct peers *peers)
{
    peers_forget(peers);
    while (peers->first != NULL) {
        struct peer *peer = peers->first;

        peers->first = peer->next;
        free(peer);
    }
    peers->count = 0;
}

void peer_answered(struct peer *peer, bool takes_batches, uint64_t now_ms)
{
    peer->takes_batches = takes_batches && now_ms >= peer->not_before_ms;
}

void peer_refused(struct peer *peer, uint64_t now_ms)
{
    peer->takes_batches = false;
    peer->not_before_ms = now_ms + PEER_BATCH_PAUSE_MS;
}

/* --- gathering --- */

static void list_append(struct peer_batches *list, struct peer_batch *batch)
{
    batch->list = list;
    batch->previous = list->last;
    batch->next = NULL;
    if (list->last != NULL)
        list->last->next = batch;
    else
        list->first = batch;
    list->last = batch;
}

static void list_remove(struct peer_batch *batch)
{
    struct peer_batches *list = batch->list;

    if (batch->previous != NULL)
        batch->previous->next = batch->next;
    else
        list->first = batch->next;
    if (batch->next != NULL)
        batch->next->previous = batch->previous;
    else
        list->last = batch->previous;
    batch->list = NULL;
}

static bool batch_suits(const struct peer_batch *batch, int timeout_ms)
{
    return (int64_t)timeout_ms <= (int64_t)TIMEOUTS_DIFFER_MAX * batch->timeout_min_ms &&
           (int64_t)timeout_ms * TIMEOUTS_DIFFER_MAX >= batch->timeout_max_ms;
}

static bool batch_join(struct peer_batch *batch, struct call *call, rpc_call_id id, const struct batch_entry *entry,
                       int timeout_ms)
{
    if (!batch_suits(batch, timeout_ms) || !batch_add(&batch->batch, entry))
        return false;
    batch->calls[batch->batch.count - 1] = id;
    batch->open++;
    if (timeout_ms < batch->timeout_min_ms)
        batch->timeout_min_ms = timeout_ms;
    if (timeout_ms > batch->timeout_max_ms)
        batch->timeout_max_ms = timeout_ms;
    call->shared = batch;
    return true;
}

bool peer_gather(struct peer *peer, struct call *call, rpc_call_id id, const struct batch_entry *entry, int timeout_ms)
{
    struct peer_batch *batch = peer->gathered.last;

    if (batch != NULL && batch_join(batch, call, id, entry, timeout_ms))
        return true;
    batch = calloc(1, sizeof(*batch));
    if (batch == NULL)
        return false;
    batch->peer = peer;
    batch->timeout_min_ms = batch->timeout_max_ms = timeout_ms;
    if (!batch_join(batch, call, id, entry, timeout_ms)) {
        batch_free(batch);
        return false;
    }
    list_append(&peer->gathered, batch);
    return true;
}

void peers_leave(struct peers *peers)
{
    for (struct peer *peer = peers->first; peer != NULL; peer = peer->next) {
        struct peer_batch *batch;

        while ((batch = peer->gathered.first) != NULL) {
            list_remove(batch);
            list_append(&peers->leaving, batch);
        }
    }
}

struct peer_batch *peers_take(struct peers *peers)
{
    struct peer_batch *batch = peers->leaving.first;

    if (batch != NULL) {
        list_remove(batch);
        peer_batch_hold(batch);
    }
    return batch;
}

/* --- under way --- */

void peers_sent(struct peers *peers, struct peer_batch *batch)
{
    list_append(&peers->sent, batch);
}

struct peer_batch *peers_find_sent(const struct peers *peers, struct rpc_bytes correlation_id)
{
    struct peer_batch *batch = peers->sent.first;

    while (batch != NULL && !rpc_bytes_equal(correlation_id, batch->correlation_id))
        batch = batch->next;
    return batch;
}

void peer_batch_release(struct peer_batch *batch)
{
    if (--batch->open > 0)
        return;
    if (batch->list != NULL)
        list_remove(batch);
    batch_free(batch);
}

#include "calls.h"

#include <stdlib.h>

#define CALLS_MAX 1000000u

struct calls {
    uint32_t calls_max, count;
    uint32_t buckets_mask;
    struct call *places; /* calls_max of them */
    struct call *unused;
    struct call **buckets;
    struct call **heap; /* a binary heap: the parent of i is (i - 1) / 2, and its deadline is not later */
};

struct calls *calls_new(uint32_t calls_max)
{
    struct calls *calls = calloc(1, sizeof(*calls));
    uint32_t buckets = 1;

    if (calls == NULL)
        return NULL;
    if (calls_max > CALLS_MAX)
        calls_max = CALLS_MAX;
    while (buckets < 2 * calls_max)
        buckets *= 2;
    calls->calls_max = calls_max;
    calls->buckets_mask = buckets - 1;
    calls->places = calloc(calls_max, sizeof(*calls->places));
    calls->buckets = calloc(buckets, sizeof(struct call *));
    calls->heap = calloc(calls_max, sizeof(struct call *));
    if (calls->places == NULL || calls->buckets == NULL || calls->heap == NULL) {
        calls_free(calls);
        return NULL;
    }
    for (uint32_t i = calls_max; i-- > 0;) {
        calls->places[i].next = calls->unused;
        calls->unused = &calls->places[i];
    }
    return calls;
}

void calls_free(struct calls *calls)
{
    if (calls == NULL)
        return;
    free(calls->places);
    free(calls->buckets);
    free(calls->heap);
    free(calls);
}

uint32_t calls_count(const struct calls *calls)
{
    return calls->count;
}

/* --- by correlation id --- */

/* The ids are random, but text: multiplying spreads the few values of a hex digit over the whole word. */
static struct call **bucket_of(const struct calls *calls, const char *correlation_id)
{
    uint64_t word;

    memcpy(&word, correlation_id, sizeof(word));
    return &calls->buckets[(word * 0x9e3779b97f4a7c15u >> 32) & calls->buckets_mask];
}

struct call *calls_find(const struct calls *calls, struct rpc_bytes correlation_id)
{
    struct call *call;

    if (correlation_id.size != RPC_UUID_SIZE - 1)
        return NULL;
    call = *bucket_of(calls, correlation_id.data);
    while (call != NULL && memcmp(call->correlation_id, correlation_id.data, correlation_id.size) != 0)
        call = call->next;
    return call;
}

/* --- by name --- */

rpc_call_id calls_id(const struct calls *calls, const struct call *call)
{
    return (rpc_call_id)call->generation << 32 | (rpc_call_id)(call - calls->places + 1);
}

struct call *calls_find_id(const struct calls *calls, rpc_call_id id)
{
    uint64_t place = (id & UINT32_MAX);
    struct call *call;

    if (place == 0 || place > calls->calls_max)
        return NULL;
    call = &calls->places[place - 1];
    return call->done != NULL && call->generation == id >> 32 ? call : NULL;
}

/* --- by deadline --- */

static void heap_put(struct calls *calls, uint32_t index, struct call *call)
{
    calls->heap[index] = call;
    call->heap_index = index;
}

static void heap_up(struct calls *calls, uint32_t index, struct call *call)
{
    while (index > 0 && calls->heap[(index - 1) / 2]->deadline_ms > call->deadline_ms) {
        heap_put(calls, index, calls->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    heap_put(calls, index, call);
}

static void heap_down(struct calls *calls, uint32_t index, struct call *call)
{
    for (;;) {
        uint32_t child = 2 * index + 1;

        if (child + 1 < calls->count && calls->heap[child + 1]->deadline_ms < calls->heap[child]->deadline_ms)
            child++;
        if (child >= calls->count || calls->heap[child]->deadline_ms >= call->deadline_ms)
            break;
        heap_put(calls, index, calls->heap[child]);
        index = child;
    }
    heap_put(calls, index, call);
}

struct call *calls_first(const struct calls *calls)
{
    return calls->count > 0 ? calls->heap[0] : NULL;
}

/* --- in and out --- */

struct call *calls_add(struct calls *calls, uint64_t deadline_ms, rpc_reply_fn *done, void *arg)
{
    struct call *call = calls->unused, **bucket;

    if (call == NULL)
        return NULL;
    calls->unused = call->next;
    call->generation++;
    call->deadline_ms = deadline_ms;
    call->position = CALL_NOT_APPENDED;
    call->again = false;
    call->done = done;
    call->arg = arg;
    call->callee = NULL;
    call->shared = NULL;
    call->is_alone = false;
    rpc_uuid4(call->correlation_id);
    bucket = bucket_of(calls, call->correlation_id);
    call->next = *bucket;
    *bucket = call;
    heap_up(calls, calls->count++, call);
    return call;
}

void calls_remove(struct calls *calls, struct call *call)
{
    struct call **at = bucket_of(calls, call->correlation_id), *last;

    while (*at != call)
        at = &(*at)->next;
    *at = call->next;

    last = calls->heap[--calls->count];
    if (last != call) {
        uint32_t index = call->heap_index;

        if (last->deadline_ms < call->deadline_ms)
            heap_up(calls, index, last);
        else
            heap_down(calls, index, last);
    }
    call->done = NULL;
    call->next = calls->unused;
    calls->unused = call;
}

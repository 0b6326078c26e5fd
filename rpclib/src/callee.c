#include "callee.h"

#include <assert.h>
#include <stdlib.h>

#define TIMEOUTS_DIFFER_MAX 2 /* times the shortest time limit in a batch */

struct callee *callees_get(struct callees *callees, const char *name)
{
    struct callee *callee = callees->first;

    while (callee != NULL && strcmp(callee->name, name) != 0)
        callee = callee->next;
    if (callee != NULL || callees->count == CALLEES_MAX || strlen(name) > RPC_NAME_SIZE_MAX)
        return callee;
    callee = calloc(1, sizeof(*callee));
    if (callee == NULL)
        return NULL;
    memcpy(callee->name, name, strlen(name) + 1);
    callee->next = callees->first;
    callees->first = callee;
    callees->count++;
    return callee;
}

static void batch_free(struct callee_batch *batch)
{
    batch_clear(&batch->batch);
    free(batch);
}

void callees_forget(struct callees *callees)
{
    assert(callees->leaving.first == NULL && callees->sent.first == NULL);
    for (struct callee *callee = callees->first; callee != NULL; callee = callee->next) {
        assert(callee->gathered.first == NULL);
        callee->takes_batches = false;
        callee->not_before_ms = 0;
    }
}

void callees_clear(struct callees *callees)
{
    callees_forget(callees);
    while (callees->first != NULL) {
        struct callee *callee = callees->first;

        callees->first = callee->next;
        free(callee);
    }
    callees->count = 0;
}

void callee_answered(struct callee *callee, bool takes_batches, uint64_t now_ms)
{
    callee->takes_batches = takes_batches && now_ms >= callee->not_before_ms;
}

void callee_refused(struct callee *callee, uint64_t now_ms)
{
    callee->takes_batches = false;
    callee->not_before_ms = now_ms + CALLEE_BATCH_PAUSE_MS;
}

/* --- gathering --- */

static void list_append(struct callee_batches *list, struct callee_batch *batch)
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

static void list_remove(struct callee_batch *batch)
{
    struct callee_batches *list = batch->list;

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

static bool batch_suits(const struct callee_batch *batch, int timeout_ms)
{
    return (int64_t)timeout_ms <= (int64_t)TIMEOUTS_DIFFER_MAX * batch->timeout_min_ms &&
           (int64_t)timeout_ms * TIMEOUTS_DIFFER_MAX >= batch->timeout_max_ms;
}

static bool batch_join(struct callee_batch *batch, struct call *call, rpc_call_id id, const struct batch_entry *entry,
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

bool callee_gather(struct callee *callee, struct call *call, rpc_call_id id, const struct batch_entry *entry,
                   int timeout_ms)
{
    struct callee_batch *batch = callee->gathered.last;

    if (batch != NULL && batch_join(batch, call, id, entry, timeout_ms))
        return true;
    batch = calloc(1, sizeof(*batch));
    if (batch == NULL)
        return false;
    batch->callee = callee;
    batch->timeout_min_ms = batch->timeout_max_ms = timeout_ms;
    if (!batch_join(batch, call, id, entry, timeout_ms)) {
        batch_free(batch);
        return false;
    }
    list_append(&callee->gathered, batch);
    return true;
}

static void callees_leave_first(struct callees *callees, struct callee *callee)
{
    struct callee_batch *batch = callee->gathered.first;

    list_remove(batch);
    list_append(&callees->leaving, batch);
    batch->is_message = true;
    callee->messages++;
}

static bool batch_is_full(const struct callee_batch *batch)
{
    return batch->next != NULL || batch->batch.count == BATCH_MESSAGES_MAX;
}

bool callee_may_leave(const struct callee *callee)
{
    const struct callee_batch *first = callee->gathered.first;

    return first != NULL && (callee->messages < CALLEE_MESSAGES_MAX || batch_is_full(first));
}

bool callees_leave(struct callees *callees)
{
    bool waits = false;

    for (struct callee *callee = callees->first; callee != NULL; callee = callee->next) {
        while (callee_may_leave(callee))
            callees_leave_first(callees, callee);
        waits |= callee->gathered.first != NULL;
    }
    return waits;
}

void callees_leave_all(struct callees *callees)
{
    for (struct callee *callee = callees->first; callee != NULL; callee = callee->next)
        while (callee->gathered.first != NULL)
            callees_leave_first(callees, callee);
}

struct callee_batch *callees_take(struct callees *callees)
{
    struct callee_batch *batch = callees->leaving.first;

    if (batch != NULL) {
        list_remove(batch);
        callee_batch_hold(batch);
    }
    return batch;
}

/* --- under way --- */

void callees_sent(struct callees *callees, struct callee_batch *batch)
{
    list_append(&callees->sent, batch);
}

struct callee_batch *callees_find_sent(const struct callees *callees, struct rpc_bytes correlation_id)
{
    struct callee_batch *batch = callees->sent.first;

    while (batch != NULL && !rpc_bytes_equal(correlation_id, batch->correlation_id))
        batch = batch->next;
    return batch;
}

void callee_batch_release(struct callee_batch *batch)
{
    if (--batch->open > 0)
        return;
    if (batch->list != NULL)
        list_remove(batch);
    if (batch->is_message)
        batch->callee->messages--;
    batch_free(batch);
}

void callee_call_alone(struct call *call)
{
    struct callee_batch *batch = call->shared;

    call->shared = NULL;
    call->is_alone = true;
    call->callee->messages++;
    callee_batch_release(batch);
}

void callee_call_ended(struct call *call)
{
    if (call->is_alone)
        call->callee->messages--;
    if (call->shared != NULL)
        callee_batch_release(call->shared);
    call->is_alone = false;
    call->shared = NULL;
}

#include "work.h"

#include <assert.h>
#include <stdlib.h>

#include "rpclib/log.h"

#include "database.h"

#define SWEEP_INTERVAL_MS 20 /* how late a deadline may be noticed */

struct work_batch {
    struct work *work;
    const struct work_operation *operation; /* NULL: free */
    size_t count;
    struct work_unit *units[WORK_BATCH_MAX]; /* NULL where a unit did not wait for the answer */
};

struct queue {
    struct work_unit *first, *last;
};

struct work {
    struct work_options options;
    struct database *database;
    struct database_statement statements[WORK_OPERATIONS_MAX + 1];
    struct queue queues[WORK_OPERATIONS_MAX]; /* one an operation */
    size_t operations_count;
    struct work_batch *batches;
    size_t batches_count;
    struct parameters parameters; /* of the statement being sent */
    size_t units_count, size;     /* of all units */
    uint64_t number;
    struct rpc_loop_task *task; /* sends what waits, at the end of the turn */
    struct rpc_loop_timer *sweep;
    bool is_sweeping;
    struct work_stats stats;
};

/* ---- Waiting ----------------------------------------------------------------------------------------------------- */

static struct queue *queue_of(struct work *work, const struct work_unit *unit)
{
    return &work->queues[unit->operation - work->options.operations];
}

static void queue_append(struct queue *queue, struct work_unit *unit)
{
    unit->next = NULL;
    unit->previous = queue->last;
    *(queue->last == NULL ? &queue->first : &queue->last->next) = unit;
    queue->last = unit;
}

static void queue_prepend(struct queue *queue, struct work_unit *unit)
{
    unit->previous = NULL;
    unit->next = queue->first;
    *(queue->first == NULL ? &queue->last : &queue->first->previous) = unit;
    queue->first = unit;
}

static void queue_remove(struct queue *queue, struct work_unit *unit)
{
    *(unit->previous == NULL ? &queue->first : &unit->previous->next) = unit->next;
    *(unit->next == NULL ? &queue->last : &unit->next->previous) = unit->previous;
}

/* ---- Ending ------------------------------------------------------------------------------------------------------ */

/* The only way out.  `status` speaks of the last attempt; an earlier one may have done it all the same. */
static void unit_end(struct work *work, struct work_unit *unit, enum work_status status)
{
    if (unit->may_be_done && status != WORK_OK)
        status = WORK_UNKNOWN;
    if (status == WORK_UNKNOWN)
        work->stats.unknown++;
    work->units_count--;
    work->size -= unit->size;
    unit->done(unit, status);
}

/* It waits no longer and is not sent. */
static void unit_end_waiting(struct work *work, struct work_unit *unit, enum work_status status)
{
    queue_remove(queue_of(work, unit), unit);
    unit_end(work, unit, status);
}

/* It is sent and does not wait for the answer. */
static void unit_end_sent(struct work *work, struct work_unit *unit)
{
    unit->batch->units[unit->batch_index] = NULL;
    unit->may_be_done = !unit->operation->is_read;
    unit_end(work, unit, WORK_UNAVAILABLE);
}

/* Once more, by itself, before those that came later; it ends when that has been tried often enough. */
static void unit_repeat(struct work *work, struct work_unit *unit)
{
    if (++unit->attempts >= WORK_ATTEMPTS_MAX) {
        unit_end(work, unit, WORK_UNAVAILABLE);
        return;
    }
    work->stats.repeated++;
    unit->is_alone = true;
    queue_prepend(queue_of(work, unit), unit);
    rpc_loop_task_schedule(work->task);
}

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

/* What an error says about doing the same again (PostgreSQL's appendix A). */
enum refusal {
    REFUSAL_REPEAT,      /* it lost a race, or this session cannot do it */
    REFUSAL_UNAVAILABLE, /* too slow, or the server is short of something */
    REFUSAL_FINAL,
};

static enum refusal refusal_of(const char *sqlstate)
{
    static const struct {
        const char *prefix;
        enum refusal refusal;
    } refusals[] = {
        {"40001", REFUSAL_REPEAT},      /* serialization_failure */
        {"40P01", REFUSAL_REPEAT},      /* deadlock_detected */
        {"25006", REFUSAL_REPEAT},      /* read_only_sql_transaction: a stand-by */
        {"26000", REFUSAL_REPEAT},      /* invalid_sql_statement_name: not prepared any more */
        {"0A000", REFUSAL_REPEAT},      /* the plan no longer fits the tables */
        {"55P03", REFUSAL_UNAVAILABLE}, /* lock_not_available */
        {"57", REFUSAL_UNAVAILABLE},    /* operator intervention, statement_timeout included */
        {"53", REFUSAL_UNAVAILABLE},    /* insufficient resources */
        {"58", REFUSAL_UNAVAILABLE},    /* system errors */
        {"08", REFUSAL_UNAVAILABLE},    /* connection exceptions */
    };
    size_t index;

    for (index = 0; sqlstate != NULL && index < sizeof(refusals) / sizeof(refusals[0]); index++)
        if (strncmp(sqlstate, refusals[index].prefix, strlen(refusals[index].prefix)) == 0)
            return refusals[index].refusal;
    return REFUSAL_FINAL;
}

static void log_refusal(const struct work_operation *operation, const PGresult *rows)
{
    rpc_log(RPC_LOG_ERROR, "statement refused", RPC_LOG_TEXT("statement", operation->name),
            RPC_LOG_TEXT("sqlstate", rows == NULL ? NULL : PQresultErrorField(rows, PG_DIAG_SQLSTATE)),
            RPC_LOG_TEXT("reason", rows == NULL ? NULL : PQresultErrorField(rows, PG_DIAG_MESSAGE_PRIMARY)));
}

static void unit_on_refused(struct work *work, struct work_unit *unit, size_t count, const PGresult *rows)
{
    enum refusal refusal = refusal_of(rows == NULL ? NULL : PQresultErrorField(rows, PG_DIAG_SQLSTATE));

    if (count > 1 || refusal == REFUSAL_REPEAT) {
        unit_repeat(work, unit);
        return;
    }
    log_refusal(unit->operation, rows);
    unit_end(work, unit, refusal == REFUSAL_FINAL ? WORK_FAILED : WORK_UNAVAILABLE);
}

static void unit_on_lost(struct work *work, struct work_unit *unit)
{
    unit->may_be_done = !unit->operation->is_read;
    if (unit->operation->is_repeatable)
        unit_repeat(work, unit);
    else
        unit_end(work, unit, WORK_UNAVAILABLE);
}

/* Alone it may be little; what is too much alone stays so. */
static void unit_on_too_large(struct work *work, struct work_unit *unit, size_t count)
{
    unit->may_be_done = !unit->operation->is_read;
    if (count > 1 && unit->operation->is_repeatable) {
        unit_repeat(work, unit);
        return;
    }
    rpc_log(RPC_LOG_ERROR, "statement answered without an end", RPC_LOG_TEXT("statement", unit->operation->name),
            RPC_LOG_INT("bytes_max", DATABASE_ANSWER_SIZE_MAX));
    unit_end(work, unit, WORK_TOO_LARGE);
}

static void unit_on_rows(struct work *work, struct work_unit *unit, size_t index, const PGresult *rows)
{
    int columns = unit->operation->columns;

    if ((columns == 0 || PQnfields(rows) == columns) && unit->operation->take(unit, index, rows, work->options.arg)) {
        unit_end(work, unit, WORK_OK);
        return;
    }
    rpc_log(RPC_LOG_ERROR, "statement answered oddly", RPC_LOG_TEXT("statement", unit->operation->name));
    unit->may_be_done = !unit->operation->is_read;
    unit_end(work, unit, WORK_FAILED);
}

static void work_on_answer(enum database_status status, const PGresult *rows, void *arg)
{
    struct work_batch *batch = arg, answered = *batch;
    struct work *work = batch->work;
    size_t index;

    batch->operation = NULL; /* free for the next, before anybody is told */
    rpc_loop_task_schedule(work->task);
    for (index = 0; index < answered.count; index++)
        if (answered.units[index] != NULL)
            answered.units[index]->batch = NULL;
    for (index = 0; index < answered.count; index++) {
        /* From behind unless all is well: then those who go back to the queue's head keep their order. */
        size_t at = status == DATABASE_OK ? index : answered.count - 1 - index;
        struct work_unit *unit = answered.units[at];

        if (unit == NULL)
            continue;
        switch (status) {
        case DATABASE_OK:
            unit_on_rows(work, unit, at, rows);
            break;
        case DATABASE_REFUSED:
            unit_on_refused(work, unit, answered.count, rows);
            break;
        case DATABASE_LOST:
            unit_on_lost(work, unit);
            break;
        case DATABASE_TOO_LARGE:
            unit_on_too_large(work, unit, answered.count);
            break;
        }
    }
}

/* ---- Sending ----------------------------------------------------------------------------------------------------- */

/* Nobody waits any more for what is past its deadline: it is not begun. */
static struct queue *work_oldest_queue(struct work *work, uint64_t now_ms)
{
    struct queue *oldest = NULL;
    size_t index;

    for (index = 0; index < work->operations_count; index++) {
        struct queue *queue = &work->queues[index];

        while (queue->first != NULL && queue->first->deadline_ms <= now_ms)
            unit_end_waiting(work, queue->first, WORK_UNAVAILABLE);
        if (queue->first != NULL && (oldest == NULL || queue->first->number < oldest->first->number))
            oldest = queue;
    }
    return oldest;
}

static bool batch_excludes(const struct work_batch *batch, const struct work_unit *unit)
{
    size_t index;

    for (index = 0; batch->operation->excludes != NULL && index < batch->count; index++)
        if (batch->operation->excludes(batch->units[index], unit))
            return true;
    return false;
}

/* The queue's first unit and, if they may go together, those behind it. */
static void batch_fill(struct work_batch *batch, struct queue *queue, uint64_t now_ms)
{
    struct work_unit *unit = queue->first, *next;
    size_t size = 0;

    batch->operation = unit->operation;
    batch->count = 0;
    for (; unit != NULL && batch->count < batch->operation->batch_max; unit = next) {
        next = unit->next;
        if (batch->count > 0 && (unit->is_alone || size + unit->size > WORK_BATCH_SIZE_MAX))
            break;
        if (unit->deadline_ms <= now_ms || batch_excludes(batch, unit))
            continue; /* it ends, or goes with the next one */
        queue_remove(queue, unit);
        size += unit->size;
        unit->batch = batch;
        unit->batch_index = batch->count;
        batch->units[batch->count++] = unit;
        if (unit->is_alone)
            break;
    }
}

/* It could not be sent after all. */
static void batch_give_back(struct work_batch *batch, struct queue *queue)
{
    while (batch->count > 0) {
        struct work_unit *unit = batch->units[--batch->count];

        unit->batch = NULL;
        queue_prepend(queue, unit);
    }
    batch->operation = NULL;
}

static struct work_batch *work_free_batch(struct work *work)
{
    size_t index;

    for (index = 0; index < work->batches_count; index++)
        if (work->batches[index].operation == NULL)
            return &work->batches[index];
    return NULL;
}

static bool work_send(struct work *work, struct work_batch *batch, struct queue *queue, uint64_t now_ms)
{
    batch_fill(batch, queue, now_ms);
    parameters_reset(&work->parameters);
    batch->operation->bind(&work->parameters, batch->units, batch->count, work->options.arg);
    if (database_send(work->database, batch->operation->name, &work->parameters, work_on_answer, batch)) {
        work->stats.statements++;
        return true;
    }
    batch_give_back(batch, queue);
    return false;
}

static void work_send_all(void *arg)
{
    struct work *work = arg;
    uint64_t now_ms = rpc_loop_now_ms(work->options.loop);
    struct work_batch *batch;
    struct queue *queue;

    while ((queue = work_oldest_queue(work, now_ms)) != NULL && database_has_room(work->database) &&
           (batch = work_free_batch(work)) != NULL)
        if (!work_send(work, batch, queue, now_ms))
            break;
}

/* ---- Deadlines --------------------------------------------------------------------------------------------------- */

static void work_arm_sweep(struct work *work)
{
    if (!work->is_sweeping && work->units_count > 0) {
        work->is_sweeping = true;
        rpc_loop_timer_start(work->sweep, SWEEP_INTERVAL_MS);
    }
}

/* While the database is away, units that nobody has begun wait for a short time only. */
static void queue_sweep(struct work *work, struct queue *queue, uint64_t now_ms, bool is_away)
{
    struct work_unit *unit, *next;

    for (unit = queue->first; unit != NULL; unit = next) {
        next = unit->next;
        if (unit->deadline_ms <= now_ms || (is_away && !unit->may_be_done))
            unit_end_waiting(work, unit, WORK_UNAVAILABLE);
    }
}

static void batch_sweep(struct work *work, struct work_batch *batch, uint64_t now_ms)
{
    size_t index;

    for (index = 0; batch->operation != NULL && index < batch->count; index++)
        if (batch->units[index] != NULL && batch->units[index]->deadline_ms <= now_ms)
            unit_end_sent(work, batch->units[index]);
}

static void work_sweep(void *arg)
{
    struct work *work = arg;
    uint64_t now_ms = rpc_loop_now_ms(work->options.loop);
    bool is_away = database_down_ms(work->database) > WORK_PATIENCE_MS;
    size_t index;

    work->is_sweeping = false;
    for (index = 0; index < work->operations_count; index++)
        queue_sweep(work, &work->queues[index], now_ms, is_away);
    for (index = 0; index < work->batches_count; index++)
        batch_sweep(work, &work->batches[index], now_ms);
    work_arm_sweep(work);
}

/* ---- For its owner ----------------------------------------------------------------------------------------------- */

static void work_on_room(void *arg)
{
    struct work *work = arg;

    rpc_loop_task_schedule(work->task);
}

static void work_on_up(bool up, void *arg)
{
    struct work *work = arg;

    if (work->options.on_up != NULL)
        work->options.on_up(up, work->options.arg);
}

struct work *work_new(const struct work_options *options)
{
    struct work *work = calloc(1, sizeof(*work));
    size_t index;

    if (work == NULL)
        return NULL;
    work->options = *options;
    for (; options->operations[work->operations_count].name != NULL; work->operations_count++) {
        assert(work->operations_count < WORK_OPERATIONS_MAX);
        work->statements[work->operations_count] =
            (struct database_statement){.name = options->operations[work->operations_count].name,
                                        .sql = options->operations[work->operations_count].sql};
    }
    work->batches_count = (size_t)options->connections * DATABASE_PIPELINE_DEPTH;
    work->batches = calloc(work->batches_count, sizeof(*work->batches));
    work->task = rpc_loop_task_new(options->loop, work_send_all, work);
    work->sweep = rpc_loop_timer_new(options->loop, work_sweep, work);
    work->database = database_new(&(struct database_options){.loop = options->loop,
                                                             .uri = options->uri,
                                                             .statements = work->statements,
                                                             .connections = options->connections,
                                                             .timeout_ms = options->timeout_ms,
                                                             .on_room = work_on_room,
                                                             .on_up = work_on_up,
                                                             .arg = work});
    if (work->batches == NULL || work->task == NULL || work->sweep == NULL || work->database == NULL) {
        work_free(work);
        return NULL;
    }
    for (index = 0; index < work->batches_count; index++)
        work->batches[index].work = work;
    return work;
}

void work_free(struct work *work)
{
    size_t index;

    if (work == NULL)
        return;
    database_free(work->database); /* what was sent ends or goes back to its queue */
    work->database = NULL;
    for (index = 0; index < work->operations_count; index++)
        while (work->queues[index].first != NULL)
            unit_end_waiting(work, work->queues[index].first, WORK_UNAVAILABLE);
    rpc_loop_task_free(work->task);
    rpc_loop_timer_free(work->sweep);
    parameters_clear(&work->parameters);
    free(work->batches);
    free(work);
}

enum work_status work_start(struct work *work, struct work_unit *unit)
{
    if (work->database == NULL || database_down_ms(work->database) > WORK_PATIENCE_MS)
        return WORK_UNAVAILABLE;
    if (work->units_count >= WORK_UNITS_MAX || work->size + unit->size > WORK_SIZE_MAX)
        return WORK_BUSY;
    work->stats.started++;
    unit->number = work->number++;
    unit->batch = NULL;
    unit->attempts = 0;
    unit->is_alone = unit->may_be_done = false;
    work->units_count++;
    work->size += unit->size;
    queue_append(queue_of(work, unit), unit);
    rpc_loop_task_schedule(work->task);
    work_arm_sweep(work);
    return WORK_OK;
}

bool work_is_up(const struct work *work)
{
    return work->database != NULL && database_down_ms(work->database) == 0;
}

uint64_t work_down_ms(const struct work *work)
{
    return work->database == NULL ? 1 : database_down_ms(work->database); /* NULL: it is being freed */
}

void work_stats(const struct work *work, struct work_stats *stats)
{
    *stats = work->stats;
    stats->in_flight = work->units_count;
    stats->connections = work->database == NULL ? 0 : database_connections(work->database);
}

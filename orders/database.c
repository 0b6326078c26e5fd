#include "database.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpclib/log.h"
#include "rpclib/outage.h"

#define SETTINGS_SIZE 512

struct database {
    struct database_options options;
    struct database_uri uri;
    char settings[SETTINGS_SIZE];
    struct database_link *links[DATABASE_CONNECTIONS_MAX];
    bool ready[DATABASE_CONNECTIONS_MAX];
    unsigned ready_count;
    uint64_t down_since_ms;
    struct rpc_outage outage; /* of all connections */
    struct rpc_outage losses; /* of one, while others are up */
    struct rpc_loop_timer *stays;
};

/*
 * The server gives up a little before whoever waits for it does; waiting for a lock takes a part of that time only.  A third
 * of the default's four seconds is longer than PostgreSQL's deadlock_timeout: the detector ends a deadlock for one side, and
 * the other goes on.
 */
#define LOCK_TIMEOUT_SHARE 3
#define IDLE_TIMEOUT_SHARE 2

/*
 * No plan of ours ever reads a whole table: with sequential scans ruled out, a plan that was made while the tables were
 * empty is still right when they hold millions of rows.
 */
static void database_print_settings(struct database *database)
{
    int timeout_ms = database->options.timeout_ms;

    snprintf(database->settings, sizeof(database->settings),
             "SELECT set_config('statement_timeout', '%d', false), set_config('lock_timeout', '%d', false),"
             " set_config('idle_in_transaction_session_timeout', '%d', false),"
             " set_config('default_transaction_isolation', 'read committed', false),"
             " set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),"
             " set_config('jit', 'off', false)",
             timeout_ms, timeout_ms / LOCK_TIMEOUT_SHARE + 1, timeout_ms / IDLE_TIMEOUT_SHARE + 1);
}

static void database_log_up(const struct database *database, uint64_t now_ms)
{
    rpc_log(RPC_LOG_INFO, "database up", RPC_LOG_INT("down_ms", rpc_outage_ms(&database->outage, now_ms)));
}

static void database_on_stay(void *arg)
{
    struct database *database = arg;
    uint64_t now_ms = rpc_loop_now_ms(database->options.loop);

    if (rpc_outage_stayed(&database->outage, now_ms))
        database_log_up(database, now_ms);
}

/* Whatever is not told for the second time is there at the level of debugging. */
static void database_log(struct database *database, bool was_up, bool was_ready, bool ready, const char *reason)
{
    uint64_t now_ms = rpc_loop_now_ms(database->options.loop);
    bool is_up = database->ready_count > 0, is_told;

    if (is_up && !was_up) {
        if (rpc_outage_up(&database->outage, now_ms))
            database_log_up(database, now_ms);
        else
            rpc_loop_timer_start(database->stays, DATABASE_STAY_MS);
    } else if (!is_up) {
        is_told = rpc_outage_down(&database->outage, reason, now_ms);
        rpc_log(is_told ? RPC_LOG_WARNING : RPC_LOG_DEBUG, "database down", RPC_LOG_TEXT("reason", reason));
    } else if (was_ready && !ready) {
        is_told = rpc_outage_down(&database->losses, reason, now_ms);
        rpc_log(is_told ? RPC_LOG_WARNING : RPC_LOG_DEBUG, "database connection lost", RPC_LOG_TEXT("reason", reason));
    }
}

static void database_on_link(struct database_link *link, bool ready, const char *reason, void *arg)
{
    struct database *database = arg;
    bool was_up = database->ready_count > 0, was_ready, is_up;
    unsigned index = 0;

    while (database->links[index] != link)
        index++;
    was_ready = database->ready[index];
    database->ready[index] = ready;
    if (ready && !was_ready)
        database->ready_count++;
    else if (!ready && was_ready)
        database->ready_count--;
    is_up = database->ready_count > 0;
    if (was_up && !is_up)
        database->down_since_ms = rpc_loop_now_ms(database->options.loop);
    database_log(database, was_up, was_ready, ready, reason);
    if (is_up != was_up && database->options.on_up != NULL)
        database->options.on_up(is_up, database->options.arg);
    if (ready)
        database->options.on_room(database->options.arg);
}

struct database *database_new(const struct database_options *options)
{
    struct database *database = calloc(1, sizeof(*database));
    char reason[DATABASE_URI_REASON_SIZE];
    unsigned index;

    assert(options->connections >= 1 && options->connections <= DATABASE_CONNECTIONS_MAX);
    if (database == NULL)
        return NULL;
    database->options = *options;
    database->down_since_ms = rpc_loop_now_ms(options->loop);
    rpc_outage_init(&database->outage, DATABASE_STAY_MS, database->down_since_ms);
    rpc_outage_init(&database->losses, DATABASE_STAY_MS, database->down_since_ms);
    database_print_settings(database);
    database->stays = rpc_loop_timer_new(options->loop, database_on_stay, database);
    if (database->stays == NULL || !database_uri_parse(&database->uri, options->uri, reason))
        goto failed;
    for (index = 0; index < options->connections; index++) {
        database->links[index] = database_link_new(&(struct database_link_options){
            .loop = options->loop,
            .uri = &database->uri,
            .statements = options->statements,
            .settings = database->settings,
            .timeout_ms = options->timeout_ms,
            .on_state = database_on_link,
            .arg = database,
        });
        if (database->links[index] == NULL)
            goto failed;
    }
    return database;
failed:
    database_free(database);
    return NULL;
}

void database_free(struct database *database)
{
    unsigned index;

    if (database == NULL)
        return;
    for (index = 0; index < database->options.connections; index++)
        database_link_free(database->links[index]);
    rpc_loop_timer_free(database->stays);
    database_uri_clear(&database->uri);
    free(database);
}

/* The link with the most room, NULL when none has any. */
static struct database_link *database_choose(const struct database *database)
{
    struct database_link *best = NULL;
    unsigned index, room, best_room = 0;

    for (index = 0; index < database->options.connections; index++) {
        room = database_link_room(database->links[index]);
        if (room > best_room) {
            best = database->links[index];
            best_room = room;
        }
    }
    return best;
}

bool database_has_room(const struct database *database)
{
    return database_choose(database) != NULL;
}

bool database_send(struct database *database, const char *statement, const struct parameters *parameters,
                   database_fn *done, void *arg)
{
    struct database_link *link = database_choose(database);

    return link != NULL && database_link_send(link, statement, parameters, done, arg);
}

unsigned database_connections(const struct database *database)
{
    return database->ready_count;
}

uint64_t database_down_ms(const struct database *database)
{
    uint64_t down_ms;

    if (database->ready_count > 0)
        return 0;
    down_ms = rpc_loop_now_ms(database->options.loop) - database->down_since_ms;
    return down_ms == 0 ? 1 : down_ms;
}

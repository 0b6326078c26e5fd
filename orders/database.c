#include "database.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "rpclib/log.h"

#define SETTINGS_SIZE 512

struct database {
    struct database_options options;
    struct database_uri uri;
    char settings[SETTINGS_SIZE];
    struct database_link *links[DATABASE_CONNECTIONS_MAX];
    bool ready[DATABASE_CONNECTIONS_MAX];
    unsigned ready_count;
    uint64_t down_since_ms;
    bool down_told; /* the log has been told of this outage */
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

/* One line when an outage begins, one when it ends, and one for each connection that is lost in between. */
static void database_log(struct database *database, bool was_up, bool was_ready, bool ready, const char *reason)
{
    if (database->ready_count > 0 && !was_up) {
        rpc_log(RPC_LOG_INFO, "database up",
                RPC_LOG_INT("down_ms", rpc_loop_now_ms(database->options.loop) - database->down_since_ms));
        database->down_told = false;
    } else if (database->ready_count == 0 && !database->down_told) {
        rpc_log(RPC_LOG_WARNING, "database down", RPC_LOG_TEXT("reason", reason));
        database->down_told = true;
    } else if (database->ready_count > 0 && was_ready && !ready) {
        rpc_log(RPC_LOG_WARNING, "database connection lost", RPC_LOG_TEXT("reason", reason));
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
    database_print_settings(database);
    if (!database_uri_parse(&database->uri, options->uri, reason))
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

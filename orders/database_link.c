#include "database_link.h"

#include <arpa/inet.h>
#include <assert.h>
#include <linux/tcp.h> /* its tcp_info is the kernel's, the C library's lacks what came later */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "rpclib/backoff.h"
#include "rpclib/log.h"
#include "rpclib/resolve.h"

enum link_state {
    LINK_WAITING,    /* for the next attempt */
    LINK_RESOLVING,  /* the host's name */
    LINK_CONNECTING, /* libpq's handshake */
    LINK_PREPARING,  /* the session and its statements */
    LINK_READY,
};

struct sent {
    database_fn *done;
    void *arg;
    PGresult *rows; /* owned; what came before the Sync's answer */
};

struct database_link {
    struct database_link_options options;
    enum link_state state;
    PGconn *db;
    struct rpc_loop_watch *watch;
    int watched_fd;
    struct rpc_loop_timer *timer; /* the state's deadline; READY: looks whether the server still answers */
    struct rpc_resolve *resolve;
    struct sent sent[DATABASE_PIPELINE_DEPTH]; /* a ring, in the order sent */
    unsigned sent_first, sent_count;
    uint64_t answer_start; /* of the bytes that came, where the oldest statement's answer begins; 0: not looked at */
    uint64_t progress_ms;  /* when something was last heard while something was under way */
    unsigned attempts;     /* picks host and address */
    unsigned failures;     /* since a connection last answered a statement: how long to wait */
    bool broken;           /* sending failed */
    bool was_silent;       /* for longer than DATABASE_SLOW_MS since the oldest statement is the oldest */
    bool is_slow;          /* the last statement's answer was so late */
};

static void link_lose(struct database_link *link, const char *reason);
static void link_on_ready_to_read_or_write(int fd, unsigned events, void *arg);

/* ---- Coming up --------------------------------------------------------------------------------------------------- */

static uint64_t link_stall_ms(const struct database_link *link)
{
    return (uint64_t)link->options.timeout_ms + DATABASE_STALL_MARGIN_MS;
}

static void link_enter(struct database_link *link, enum link_state state)
{
    bool was_ready = link->state == LINK_READY;

    link->state = state;
    switch (state) {
    case LINK_WAITING:
        rpc_loop_timer_start(link->timer,
                             rpc_backoff_ms(link->failures++, DATABASE_RECONNECT_MIN_MS, DATABASE_RECONNECT_MAX_MS));
        break;
    case LINK_RESOLVING:
        rpc_loop_timer_start(link->timer, DATABASE_CONNECT_TIMEOUT_MS);
        break;
    case LINK_CONNECTING:
    case LINK_PREPARING: /* within the same time */
        break;
    case LINK_READY:
        rpc_loop_timer_start(link->timer, DATABASE_PING_MS);
        break;
    }
    if (state == LINK_READY || was_ready)
        rpc_log(RPC_LOG_DEBUG, state == LINK_READY ? "database connection up" : "database connection down");
}

/* libpq may change its socket from one step to the next; `events` is what it waits for. */
static bool link_watch(struct database_link *link, unsigned events)
{
    int fd = PQsocket(link->db);

    if (link->watch != NULL && fd == link->watched_fd) {
        rpc_loop_watch_set(link->watch, events);
        return true;
    }
    rpc_loop_watch_free(link->watch);
    link->watched_fd = fd;
    link->watch =
        fd < 0 ? NULL : rpc_loop_watch_new(link->options.loop, fd, events, link_on_ready_to_read_or_write, link);
    return link->watch != NULL;
}

/* Send what is queued.  While some of it is left, reading goes on too: the server may be waiting for that (P1). */
static void link_flush(struct database_link *link)
{
    int left = PQflush(link->db);

    if (left < 0 || !link_watch(link, left > 0 ? RPC_LOOP_READ | RPC_LOOP_WRITE : RPC_LOOP_READ))
        link_lose(link, PQerrorMessage(link->db));
}

static void link_push(struct database_link *link, database_fn *done, void *arg)
{
    assert(link->sent_count < DATABASE_PIPELINE_DEPTH);
    if (link->sent_count == 0)
        link->progress_ms = rpc_loop_now_ms(link->options.loop);
    link->sent[(link->sent_first + link->sent_count++) % DATABASE_PIPELINE_DEPTH] =
        (struct sent){.done = done, .arg = arg};
}

static void link_on_prepared(enum database_status status, const PGresult *rows, void *arg)
{
    struct database_link *link = arg;
    const char *message = rows == NULL ? NULL : PQresultErrorField(rows, PG_DIAG_MESSAGE_PRIMARY);

    if (status == DATABASE_LOST || status == DATABASE_TOO_LARGE)
        return; /* whoever says so does the rest */
    if (status == DATABASE_REFUSED) {
        link_lose(link, message == NULL ? "the statements could not be prepared" : message);
        return;
    }
    link_enter(link, LINK_READY);
    link->options.on_state(link, true, NULL, link->options.arg);
}

/* The session's settings and all statements in one round trip. */
static void link_prepare(struct database_link *link)
{
    const struct database_statement *statement = link->options.statements;
    bool queued = PQsetnonblocking(link->db, 1) == 0 && PQenterPipelineMode(link->db) != 0 &&
                  PQsendQueryParams(link->db, link->options.settings, 0, NULL, NULL, NULL, NULL, 0) != 0;

    for (; queued && statement->name != NULL; statement++)
        queued = PQsendPrepare(link->db, statement->name, statement->sql, 0, NULL) != 0;
    if (!queued || PQpipelineSync(link->db) == 0) {
        link_lose(link, PQerrorMessage(link->db));
        return;
    }
    link_enter(link, LINK_PREPARING);
    link_push(link, link_on_prepared, link);
    link_flush(link);
}

static void link_ignore_notice(void *arg, const PGresult *notice)
{
    (void)arg;
    (void)notice;
}

static void link_poll(struct database_link *link)
{
    bool watched = true;

    rpc_loop_watch_free(link->watch); /* it may close its socket, and open another one of the same number */
    link->watch = NULL;
    switch (PQconnectPoll(link->db)) {
    case PGRES_POLLING_READING:
        watched = link_watch(link, RPC_LOOP_READ);
        break;
    case PGRES_POLLING_WRITING:
        watched = link_watch(link, RPC_LOOP_WRITE);
        break;
    case PGRES_POLLING_OK:
        link_prepare(link);
        break;
    case PGRES_POLLING_ACTIVE:
    case PGRES_POLLING_FAILED:
        watched = false;
        break;
    }
    if (!watched)
        link_lose(link, PQerrorMessage(link->db));
}

static const struct database_host *link_host(const struct database_link *link)
{
    return &link->options.uri->hosts[link->attempts % link->options.uri->hosts_count];
}

static void link_connect(struct database_link *link, const char *address)
{
    link->db = database_uri_connect(link->options.uri, link_host(link), address);
    if (link->db == NULL || PQstatus(link->db) == CONNECTION_BAD) {
        link_lose(link, link->db == NULL ? "out of memory" : PQerrorMessage(link->db));
        return;
    }
    PQsetNoticeReceiver(link->db, link_ignore_notice, NULL);
    link_enter(link, LINK_CONNECTING);
    if (!link_watch(link, RPC_LOOP_WRITE)) /* as if the last poll had said so */
        link_lose(link, "out of memory");
}

static void link_on_resolved(const struct rpc_resolve_answer *answer, void *arg)
{
    struct database_link *link = arg;
    const struct sockaddr_storage *chosen;
    char address[INET6_ADDRSTRLEN] = "";

    link->resolve = NULL;
    if (answer->count == 0) {
        link_lose(link, answer->error);
        return;
    }
    chosen = &answer->addresses[link->attempts / link->options.uri->hosts_count % answer->count].address;
    if (chosen->ss_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)chosen)->sin_addr, address, sizeof(address));
    else
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)chosen)->sin6_addr, address, sizeof(address));
    link_connect(link, address);
}

static void link_start(struct database_link *link)
{
    const struct database_host *host = link_host(link);

    link_enter(link, LINK_RESOLVING);
    if (!database_host_is_name(host)) {
        link_connect(link, host->address);
        return;
    }
    link->resolve = rpc_resolve_start(link->options.loop, host->name, database_host_port(host), link_on_resolved, link);
    if (link->resolve == NULL)
        link_lose(link, "out of memory");
}

/* ---- Going down -------------------------------------------------------------------------------------------------- */

/* Close the connection; what was under way comes back through `lost`, for its callers to be told afterwards. */
static unsigned link_close(struct database_link *link, struct sent lost[DATABASE_PIPELINE_DEPTH])
{
    unsigned count = link->sent_count, index;

    for (index = 0; index < count; index++)
        lost[index] = link->sent[(link->sent_first + index) % DATABASE_PIPELINE_DEPTH];
    link->sent_first = link->sent_count = 0;
    link->answer_start = 0;
    link->was_silent = link->is_slow = false;
    rpc_resolve_cancel(link->resolve);
    link->resolve = NULL;
    rpc_loop_watch_free(link->watch); /* before its descriptor is closed */
    link->watch = NULL;
    PQfinish(link->db);
    link->db = NULL;
    return count;
}

/* The first of them ends with a status of its own. */
static void tell_lost(struct sent lost[], unsigned count, enum database_status first)
{
    unsigned index;

    for (index = 0; index < count; index++) {
        PQclear(lost[index].rows);
        lost[index].done(index == 0 ? first : DATABASE_LOST, NULL, lost[index].arg);
    }
}

/* The connection is of no use any more: close it, try again later.  `oldest` is how the oldest statement ends. */
static void link_lose_as(struct database_link *link, enum database_status oldest, const char *reason)
{
    struct sent lost[DATABASE_PIPELINE_DEPTH];
    char why[DATABASE_REASON_SIZE];
    unsigned count;

    snprintf(why, sizeof(why), "%.*s", (int)strcspn(reason, "\n"),
             reason); /* libpq's own words go with the connection */
    count = link_close(link, lost);
    link->attempts++;
    link_enter(link, LINK_WAITING);
    link->broken = false;
    link->options.on_state(link, false, why, link->options.arg);
    tell_lost(lost, count, oldest);
}

static void link_lose(struct database_link *link, const char *reason)
{
    link_lose_as(link, DATABASE_LOST, reason);
}

static void link_on_ping(enum database_status status, const PGresult *rows, void *arg)
{
    struct database_link *link = arg;

    (void)rows;
    if (status == DATABASE_LOST || status == DATABASE_TOO_LARGE)
        return;
    rpc_loop_timer_start(link->timer, DATABASE_PING_MS);
    link->options.on_state(link, true, NULL, link->options.arg); /* a late answer had kept statements from it */
}

/* An idle connection says nothing when its server is gone or frozen: a Sync without a statement asks. */
static void link_ping(struct database_link *link)
{
    link_push(link, link_on_ping, link);
    rpc_loop_timer_start(link->timer, link_stall_ms(link));
    if (PQpipelineSync(link->db) == 0)
        link_lose(link, PQerrorMessage(link->db));
    else
        link_flush(link);
}

static void link_on_timer(void *arg)
{
    struct database_link *link = arg;
    uint64_t silent_ms = rpc_loop_now_ms(link->options.loop) - link->progress_ms;

    switch (link->state) {
    case LINK_WAITING:
        link_start(link);
        break;
    case LINK_RESOLVING:
    case LINK_CONNECTING:
    case LINK_PREPARING:
        link_lose(link, "the server did not answer in time");
        break;
    case LINK_READY:
        if (link->broken)
            link_lose(link, PQerrorMessage(link->db));
        else if (link->sent_count == 0)
            link_ping(link);
        else if (silent_ms < link_stall_ms(link))
            rpc_loop_timer_start(link->timer, link_stall_ms(link) - silent_ms);
        else
            link_lose(link, "the server does not answer");
        break;
    }
}

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

/*
 * Errors that speak of the connection, not of the statement: a server that only reads (a stand-by), a session that lost
 * its prepared statements or whose plans no longer fit the tables.
 */
static bool spoils_link(const PGresult *rows)
{
    static const char *const states[] = {"25006", "26000", "0A000"};
    const char *state = PQresultErrorField(rows, PG_DIAG_SQLSTATE);
    size_t index;

    for (index = 0; state != NULL && index < sizeof(states) / sizeof(states[0]); index++)
        if (strcmp(state, states[index]) == 0)
            return true;
    return false;
}

/* The Sync's answer: the oldest statement is done, and its transaction closed. */
static void link_deliver(struct database_link *link)
{
    struct sent *oldest = &link->sent[link->sent_first], sent = *oldest;
    bool refused = sent.rows != NULL && PQresultStatus(sent.rows) == PGRES_FATAL_ERROR;
    bool spoilt = refused && link->state == LINK_READY && spoils_link(sent.rows);

    if (sent.rows == NULL && sent.done != link_on_ping) { /* it is the answer to nothing that was asked */
        link_lose(link, "the server skipped a statement");
        return;
    }
    if (link->state == LINK_READY && !spoilt)
        link->failures = 0;
    oldest->rows = NULL;
    link->answer_start = 0;
    link->is_slow = link->was_silent;
    link->was_silent = false;
    link->sent_first = (link->sent_first + 1) % DATABASE_PIPELINE_DEPTH;
    link->sent_count--;
    sent.done(refused ? DATABASE_REFUSED : DATABASE_OK, sent.rows, sent.arg);
    PQclear(sent.rows);
    if (spoilt)
        link_lose(link, "the session is of no use any more");
}

/*
 * The server's errors carry an SQLSTATE.  One without is libpq's own: the connection is gone, or its memory ran out within
 * an answer, and then neither that statement's end is known, nor which of the results behind it belongs to which.
 */
static bool is_libpqs_own(const PGresult *rows)
{
    return PQresultStatus(rows) == PGRES_FATAL_ERROR && PQresultErrorField(rows, PG_DIAG_SQLSTATE) == NULL;
}

static bool is_copy(const PGresult *rows)
{
    ExecStatusType status = PQresultStatus(rows);

    return status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH;
}

/* One result; the first error stands, whatever the server says of what came behind it. */
static void link_take(struct database_link *link, PGresult *rows)
{
    struct sent *oldest = &link->sent[link->sent_first];
    uint64_t now_ms = rpc_loop_now_ms(link->options.loop);

    if (link->sent_count > 0 && now_ms - link->progress_ms > DATABASE_SLOW_MS)
        link->was_silent = true;
    link->progress_ms = now_ms;
    if (is_copy(rows)) { /* libpq would hand it out again and again */
        link_lose(link, "the server copies, which nobody asked for");
        PQclear(rows);
    } else if (is_libpqs_own(rows)) {
        link_lose(link, PQresultErrorMessage(rows));
        PQclear(rows);
    } else if (link->sent_count == 0) {
        PQclear(rows);
    } else if (PQresultStatus(rows) == PGRES_PIPELINE_SYNC) {
        PQclear(rows);
        link_deliver(link);
    } else if (oldest->rows != NULL && PQresultStatus(oldest->rows) == PGRES_FATAL_ERROR) {
        PQclear(rows);
    } else {
        PQclear(oldest->rows);
        oldest->rows = rows;
    }
}

/*
 * All results that are there.  A NULL stands behind each statement, two in a row mean that there are no more.  A server
 * that ended the session may never answer the Sync (P4), so the connection's own state ends this as well.
 */
static void link_take_all(struct database_link *link)
{
    unsigned nulls = 0;

    while (link->db != NULL && nulls < 2 && !PQisBusy(link->db)) {
        PGresult *rows = PQgetResult(link->db);

        nulls = rows == NULL ? nulls + 1 : 0;
        if (rows != NULL)
            link_take(link, rows);
        if (link->db != NULL && rows != NULL && PQstatus(link->db) == CONNECTION_BAD)
            break;
    }
}

/* How many bytes came on the connection so far; 0 where nobody counts: on a Unix socket. */
static uint64_t link_received(const struct database_link *link)
{
    struct tcp_info info = {.tcpi_bytes_received = 0};
    socklen_t size = sizeof(info);

    return getsockopt(PQsocket(link->db), IPPROTO_TCP, TCP_INFO, &info, &size) == 0 ? info.tcpi_bytes_received : 0;
}

/*
 * libpq collects an answer's rows until the last one is there, however many they are, and tells nobody.  So the socket's
 * bytes are counted, from the first read that ends no answer: most answers come whole, and cost nothing here.
 */
static void link_check_answer_size(struct database_link *link)
{
    uint64_t received = link_received(link);

    if (link->answer_start == 0)
        link->answer_start = received;
    else if (received - link->answer_start > DATABASE_ANSWER_SIZE_MAX)
        link_lose_as(link, DATABASE_TOO_LARGE, "the server answers with more than anybody could want");
}

static void link_read(struct database_link *link)
{
    unsigned first = link->sent_first, count = link->sent_count;
    bool readable = PQconsumeInput(link->db) != 0;

    if (!readable) { /* it has closed its socket */
        rpc_loop_watch_free(link->watch);
        link->watch = NULL;
    }
    link_take_all(link); /* also of what came before the end */
    if (link->db != NULL && (!readable || PQstatus(link->db) == CONNECTION_BAD))
        link_lose(link, PQerrorMessage(link->db));
    else if (link->db != NULL && count > 0 && link->sent_first == first && link->sent_count == count)
        link_check_answer_size(link);
}

static void link_on_ready_to_read_or_write(int fd, unsigned events, void *arg)
{
    struct database_link *link = arg;

    (void)fd;
    if (link->state == LINK_CONNECTING) {
        link_poll(link);
        return;
    }
    if (events & RPC_LOOP_READ)
        link_read(link);
    if (link->db != NULL && events & RPC_LOOP_WRITE)
        link_flush(link);
}

/* ---- For its owner ----------------------------------------------------------------------------------------------- */

struct database_link *database_link_new(const struct database_link_options *options)
{
    struct database_link *link = calloc(1, sizeof(*link));

    if (link == NULL)
        return NULL;
    link->options = *options;
    link->timer = rpc_loop_timer_new(options->loop, link_on_timer, link);
    if (link->timer == NULL) {
        free(link);
        return NULL;
    }
    rpc_loop_timer_start(link->timer, 0); /* LINK_WAITING: for the loop to run */
    return link;
}

void database_link_free(struct database_link *link)
{
    struct sent lost[DATABASE_PIPELINE_DEPTH];

    if (link == NULL)
        return;
    tell_lost(lost, link_close(link, lost), DATABASE_LOST);
    rpc_loop_timer_free(link->timer);
    free(link);
}

/*
 * Statements are answered in the order sent: nothing is to wait behind one that waits for a lock, nor behind one that may be as
 * slow as its forerunner, while it could wait here, with others, for whichever link is free first.
 */
unsigned database_link_room(const struct database_link *link)
{
    if (link->state != LINK_READY || link->broken)
        return 0;
    if (link->sent_count > 0 &&
        (link->is_slow || rpc_loop_now_ms(link->options.loop) - link->progress_ms > DATABASE_SLOW_MS))
        return 0;
    return DATABASE_PIPELINE_DEPTH - link->sent_count;
}

bool database_link_send(struct database_link *link, const char *statement, const struct parameters *parameters,
                        database_fn *done, void *arg)
{
    int left;

    if (database_link_room(link) == 0 || !parameters_send(parameters, link->db, statement))
        return false;
    link_push(link, done, arg);
    left = PQpipelineSync(link->db) == 0 ? -1 : PQflush(link->db);
    if (left < 0) {
        link->broken = true;
        rpc_loop_timer_start(link->timer, 0); /* told from the loop, not from inside this call */
    } else if (left > 0) {
        rpc_loop_watch_set(link->watch, RPC_LOOP_READ | RPC_LOOP_WRITE);
    }
    return true;
}

/*
 * hiredis 0.14 owns the socket and the parser; this file owns everything that it leaves open: when to write, when to
 * give up, when to try again, and what became of a command when the connection died.
 */
#include "redis_link.h"

#include <assert.h>
#include <hiredis/async.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reply_memory.h"
#include "rpclib/backoff.h"
#include "rpclib/log.h"
#include "rpclib/outage.h"
#include "rpclib/resolve.h"
#include "rpclib/text.h"

#define READS_PER_WAKEUP_MAX 16 /* of 16 KiB each; then the loop's other business has its turn */
#define NAME_SIZE_MAX        64
#define TEXT_KEEP_SIZE       (64u * 1024)
#define WORD_HEAD_SIZE       24 /* "$18446744073709551615\r\n" and some */

enum phase {
    PHASE_WAITING,    /* for the next attempt */
    PHASE_LOOKING_UP, /* the host's addresses */
    PHASE_CONNECTING, /* TCP */
    PHASE_GREETING,   /* AUTH, SELECT, ... */
    PHASE_UP,
    PHASE_LEAVING, /* the server is not one to stay with; what was sent is still answered */
    PHASE_CLOSED,  /* being freed */
};

/* What is said first on a new connection, all at once. */
enum greeting {
    GREETING_AUTH,
    GREETING_SELECT,
    GREETING_QUESTION, /* its answer means that the server serves */
    GREETING_NAME,     /* behind it, so that a server with too many clients tells the question why */
};

struct redis_link {
    struct rpc_loop *loop;
    struct redis_uri uri; /* owned */
    char name[NAME_SIZE_MAX + 1];
    int timeout_ms;
    redis_link_state_fn *on_state;
    void *arg;

    enum phase phase;
    redisAsyncContext *redis; /* NULL: no connection; hiredis frees it by itself */
    struct rpc_loop_watch *watch;
    unsigned watched; /* what `watch` is set to */
    struct rpc_loop_task *flush;
    struct rpc_loop_timer *timer; /* by phase: the next attempt, the end of patience, the oldest command */
    bool timer_runs;              /* in PHASE_UP and PHASE_LEAVING: it is set for some command */
    bool writing;
    bool was_unasked; /* the server sent a reply that no command waits for */
    struct reply_memory *replies;

    struct rpc_resolve *lookup; /* in PHASE_LOOKING_UP */
    struct rpc_resolve_answer addresses;
    unsigned address_next;  /* how many of them were tried */
    unsigned address_first; /* where to begin; moves on when a server is left */
    uint64_t left_ms;       /* when one was left last; 0: never */
    unsigned failures;      /* since a command was last answered, or the connection stayed: how long to wait */

    struct redis_command *oldest, *newest; /* in flight, in the order in which Redis answers */
    size_t in_flight;
    uint64_t answered_ms; /* when the last one was answered that had others behind it; 0: none yet */
    uint64_t appended;    /* bytes given to this connection's output buffer */
    struct rpc_text text; /* the command that is being written */

    bool was_told_up; /* the last that on_state heard */
    struct rpc_outage outage;
    struct rpc_loop_timer *stays;
    time_t since;
    char reason[REDIS_REASON_SIZE];
};

static void link_drop(struct redis_link *link, const char *reason);

/* ---- The state ---------------------------------------------------------------------------------------------------- */

static void link_tell(struct redis_link *link, bool up)
{
    if (up == link->was_told_up)
        return;
    link->was_told_up = up;
    link->since = time(NULL);
    if (link->on_state != NULL)
        link->on_state(up, link->arg);
}

static void link_log_away(struct redis_link *link, const char *reason)
{
    bool is_told;

    snprintf(link->reason, sizeof(link->reason), "%s", reason);
    is_told = rpc_outage_down(&link->outage, link->reason, rpc_loop_now_ms(link->loop));
    rpc_log(is_told ? RPC_LOG_WARNING : RPC_LOG_DEBUG, "redis is away", RPC_LOG_TEXT("host", link->uri.host),
            RPC_LOG_INT("port", link->uri.port), RPC_LOG_TEXT("reason", link->reason));
}

static void link_log_up(struct redis_link *link)
{
    rpc_log(RPC_LOG_INFO, "redis is there", RPC_LOG_TEXT("host", link->uri.host), RPC_LOG_INT("port", link->uri.port),
            RPC_LOG_INT("database", link->uri.database),
            RPC_LOG_INT("away_ms", rpc_outage_ms(&link->outage, rpc_loop_now_ms(link->loop))));
}

static void link_on_stay(void *arg)
{
    struct redis_link *link = arg;

    link->failures = 0;
    if (rpc_outage_stayed(&link->outage, rpc_loop_now_ms(link->loop)))
        link_log_up(link);
}

/* The one place where the phase changes. */
static void link_enter(struct redis_link *link, enum phase phase)
{
    link->phase = phase;
    if (phase != PHASE_GREETING && phase != PHASE_LEAVING) { /* these go on with the timer of the phase before */
        link->timer_runs = false;
        rpc_loop_timer_stop(link->timer);
    }
    switch (phase) {
    case PHASE_WAITING:
        if (link->address_next < link->addresses.count) {
            rpc_loop_timer_start(link->timer, 0); /* the host has another address */
            break;
        }
        link->addresses.count = link->address_next = 0;
        rpc_loop_timer_start(link->timer,
                             rpc_backoff_ms(link->failures++, REDIS_RECONNECT_MIN_MS, REDIS_RECONNECT_MAX_MS));
        break;
    case PHASE_LOOKING_UP:
    case PHASE_CONNECTING:
        rpc_loop_timer_start(link->timer, REDIS_CONNECT_TIMEOUT_MS);
        break;
    case PHASE_UP:
        link->addresses.count = link->address_next = 0;
        if (rpc_outage_up(&link->outage, rpc_loop_now_ms(link->loop)))
            link_log_up(link);
        rpc_loop_timer_start(link->stays, REDIS_STAY_MS);
        link_tell(link, true);
        break;
    case PHASE_LEAVING:
        link->left_ms = rpc_loop_now_ms(link->loop);
        link->address_first++;
        rpc_loop_timer_stop(link->stays);
        link_tell(link, false);
        break;
    case PHASE_GREETING:
    case PHASE_CLOSED:
        break;
    }
}

/* The connection is gone or going: from here on nothing is sent, and a new one will be made. */
static void link_lost(struct redis_link *link, const char *reason)
{
    link->redis = NULL;
    if (link->phase == PHASE_CLOSED)
        return;
    link_log_away(link, reason);
    rpc_loop_timer_stop(link->stays);
    link_enter(link, PHASE_WAITING);
    link_tell(link, false);
}

/* ---- hiredis' hooks into the loop --------------------------------------------------------------------------------- */

static void link_watch(struct redis_link *link, unsigned events)
{
    if (link->watch != NULL && events != link->watched)
        rpc_loop_watch_set(link->watch, events);
    link->watched = events;
}

static void hook_read_on(void *arg)
{
    struct redis_link *link = arg;

    link_watch(link, link->watched | RPC_LOOP_READ);
}

static void hook_read_off(void *arg)
{
    struct redis_link *link = arg;

    link_watch(link, link->watched & ~(unsigned)RPC_LOOP_READ);
}

/* Before the connection is there, and when a write did not take it all, the socket says when; else the turn's end. */
static void hook_write_on(void *arg)
{
    struct redis_link *link = arg;

    if (link->writing || link->phase == PHASE_CONNECTING)
        link_watch(link, link->watched | RPC_LOOP_WRITE);
    else if (!(link->watched & RPC_LOOP_WRITE))
        rpc_loop_task_schedule(link->flush);
}

static void hook_write_off(void *arg)
{
    struct redis_link *link = arg;

    link_watch(link, link->watched & ~(unsigned)RPC_LOOP_WRITE);
}

static void hook_cleanup(void *arg)
{
    struct redis_link *link = arg;

    rpc_loop_watch_free(link->watch);
    link->watch = NULL;
    link->watched = 0;
}

/* hiredis may free the context in any of its calls; `link->redis` is NULL then. */
static void link_write(struct redis_link *link)
{
    link->writing = true;
    redisAsyncHandleWrite(link->redis);
    link->writing = false;
}

/*
 * Whether the last read ended within a reply: then there is more, and no need to ask the loop first.  Bytes that were
 * understood may still lie in the reader's buffer, and its stack is set up for a reply that has not begun.
 */
static bool reply_is_cut(const redisReader *reader)
{
    return reader->pos < reader->len || reader->ridx > 0;
}

/* One read takes 16 KiB at most.  hiredis keeps what it cannot read yet, however much that is. */
static void link_read(struct redis_link *link)
{
    for (int i = 0; i < READS_PER_WAKEUP_MAX; i++) {
        redisAsyncHandleRead(link->redis);
        if (link->redis == NULL || !reply_is_cut(link->redis->c.reader))
            return;
        if (link->redis->c.reader->len > REDIS_REPLY_SIZE_MAX) {
            link_drop(link, "a reply that is too large");
            return;
        }
    }
}

static void link_on_event(int fd, unsigned events, void *arg)
{
    struct redis_link *link = arg;

    (void)fd;
    if ((events & RPC_LOOP_READ) && link->redis != NULL)
        link_read(link);
    if ((events & RPC_LOOP_WRITE) && link->redis != NULL)
        link_write(link);
}

static void link_on_turn_end(void *arg)
{
    struct redis_link *link = arg;

    if (link->redis != NULL &&
        (link->phase == PHASE_GREETING || link->phase == PHASE_UP || link->phase == PHASE_LEAVING))
        link_write(link);
}

/* ---- The greeting ------------------------------------------------------------------------------------------------- */

/* A server that does not know AUTH repeats what came with it, the password too, and perhaps cut short. */
static bool shows_password(const struct redis_link *link, const char *error)
{
    return strstr(error, "unknown command") != NULL || strstr(error, link->uri.password) != NULL;
}

static void greeting_refused(struct redis_link *link, enum greeting greeting, const char *error)
{
    static const char *const said[] = {[GREETING_AUTH] = "it refuses the login: ",
                                       [GREETING_SELECT] = "it refuses the database: ",
                                       [GREETING_QUESTION] = ""};
    bool is_code_enough = greeting == GREETING_AUTH && shows_password(link, error);
    char reason[REDIS_REASON_SIZE];

    snprintf(reason, sizeof(reason), "%s%.*s", said[greeting],
             (int)(is_code_enough ? strcspn(error, " ") : strlen(error)), error);
    link_drop(link, reason);
}

static void greeting_on_reply(redisAsyncContext *redis, void *reply_pointer, void *privdata)
{
    struct redis_link *link = redis->data;
    const redisReply *reply = reply_pointer;
    enum greeting greeting = (enum greeting)(uintptr_t)privdata;

    if (reply == NULL || link->redis != redis)
        return; /* it broke meanwhile; link_lost() sees to that */
    if (reply->type == REDIS_REPLY_ERROR) {
        if (greeting != GREETING_NAME) /* a courtesy to whoever reads CLIENT LIST, and perhaps not permitted */
            greeting_refused(link, greeting, reply->str);
    } else if (greeting == GREETING_QUESTION) {
        link_enter(link, PHASE_UP);
    }
}

static bool greet(struct redis_link *link, enum greeting greeting, int count, const char *words[])
{
    size_t sizes[3];

    assert(count <= 3);
    for (int i = 0; i < count; i++)
        sizes[i] = strlen(words[i]);
    return redisAsyncCommandArgv(link->redis, greeting_on_reply, (void *)(uintptr_t)greeting, count, words, sizes) ==
           REDIS_OK;
}

/*
 * PING would do as the question, but a server whose disk is full refuses it although it still serves reads, and a
 * restricted user may not send it; EXISTS is what this link is for, and a server that is loading its data refuses it.
 */
static void link_greet(struct redis_link *link)
{
    char database[16];
    bool sent = true;

    snprintf(database, sizeof(database), "%d", link->uri.database);
    if (link->uri.password != NULL && link->uri.user != NULL)
        sent = greet(link, GREETING_AUTH, 3, (const char *[]){"AUTH", link->uri.user, link->uri.password});
    else if (link->uri.password != NULL)
        sent = greet(link, GREETING_AUTH, 2, (const char *[]){"AUTH", link->uri.password});
    if (link->uri.database != 0)
        sent = sent && greet(link, GREETING_SELECT, 2, (const char *[]){"SELECT", database});
    sent = sent && greet(link, GREETING_QUESTION, 2, (const char *[]){"EXISTS", "products:"});
    if (sent)
        greet(link, GREETING_NAME, 3, (const char *[]){"CLIENT", "SETNAME", link->name});
}

/* ---- Connecting --------------------------------------------------------------------------------------------------- */

/* Nothing may be freed or begun in here: hiredis goes on using the context when this returns. */
static void link_on_connect(const redisAsyncContext *redis, int status)
{
    struct redis_link *link = redis->data;

    if (link->redis != redis)
        return;
    if (status != REDIS_OK) {
        link_lost(link, redis->c.errstr);
        return;
    }
    link_enter(link, PHASE_GREETING);
    link_watch(link, link->watched & ~(unsigned)RPC_LOOP_WRITE);
    link_greet(link); /* what could not be sent is not answered in time */
}

static void link_on_disconnect(const redisAsyncContext *redis, int status)
{
    struct redis_link *link = redis->data;

    (void)status;
    if (link->redis == redis)
        link_lost(link, link->was_unasked ? "a reply that nobody asked for" : redis->c.errstr);
}

static void link_drop(struct redis_link *link, const char *reason)
{
    redisAsyncContext *redis = link->redis;

    link_lost(link, reason);
    redisAsyncFree(redis); /* the commands end now, or when the callback that we are in returns to hiredis */
}

static bool link_reply_is_awaited(void *arg)
{
    const redisAsyncContext *redis = arg;
    struct redis_link *link = redis->data;

    link->was_unasked = redis->replies.head == NULL;
    return !link->was_unasked;
}

static void link_connect(struct redis_link *link)
{
    unsigned index = (link->address_first + link->address_next++) % link->addresses.count;
    const struct rpc_resolve_address *address = &link->addresses.addresses[index];
    char host[INET6_ADDRSTRLEN + IF_NAMESIZE + 1];
    redisAsyncContext *redis;

    if (getnameinfo((const struct sockaddr *)&address->address, address->size, host, sizeof(host), NULL, 0,
                    NI_NUMERICHOST) != 0) {
        link_lost(link, "an address that cannot be written as text");
        return;
    }
    redis = redisAsyncConnect(host, link->uri.port); /* numeric: hiredis' own getaddrinfo() asks nobody */
    if (redis == NULL || redis->err != 0) {
        link_lost(link, redis == NULL ? "out of memory" : redis->errstr);
        goto failed;
    }
    link->redis = redis;
    redis->data = link;
    redis->ev.data = link;
    redis->ev.addRead = hook_read_on;
    redis->ev.delRead = hook_read_off;
    redis->ev.addWrite = hook_write_on;
    redis->ev.delWrite = hook_write_off;
    redis->ev.cleanup = hook_cleanup;
    link->was_unasked = false;
    reply_memory_serve(link->replies, redis->c.reader, link_reply_is_awaited, redis);
    redisEnableKeepAlive(&redis->c); /* without it, a silent link is noticed by the next command's time limit */
    link->appended = 0;
    link->watched = 0;
    link->watch = rpc_loop_watch_new(link->loop, redis->c.fd, 0, link_on_event, link);
    if (link->watch == NULL) {
        link_lost(link, "out of memory");
        goto failed;
    }
    link_enter(link, PHASE_CONNECTING);
    redisAsyncSetDisconnectCallback(redis, link_on_disconnect);
    redisAsyncSetConnectCallback(redis, link_on_connect);
    return;
failed:
    if (redis != NULL)
        redisAsyncFree(redis);
}

static void link_on_addresses(const struct rpc_resolve_answer *answer, void *arg)
{
    struct redis_link *link = arg;

    link->lookup = NULL;
    link->addresses = *answer;
    link->address_next = 0;
    if (answer->count > 0)
        link_connect(link);
    else
        link_lost(link, answer->error);
}

static void link_look_up(struct redis_link *link)
{
    link_enter(link, PHASE_LOOKING_UP);
    link->lookup = rpc_resolve_start(link->loop, link->uri.host, link->uri.port, link_on_addresses, link);
    if (link->lookup == NULL)
        link_lost(link, "no memory, thread or descriptor to look up the host");
}

/*
 * When the oldest command is given up.  Redis answers one after the other, so its turn begins with the answer before it:
 * behind many large replies it waits for us, who read them, not for Redis.
 */
static uint64_t link_due_ms(const struct redis_link *link)
{
    uint64_t timeout_ms = (uint64_t)link->timeout_ms, sent_ms = link->oldest->sent_ms;
    uint64_t begun_ms = sent_ms > link->answered_ms ? sent_ms : link->answered_ms;
    uint64_t due_ms = begun_ms + timeout_ms, last_ms = sent_ms + REDIS_PATIENCE * timeout_ms;

    return due_ms < last_ms ? due_ms : last_ms;
}

/*
 * The oldest command's time is up.  Its answer may lie in the socket, unread because this process did not run: look
 * once more before giving up, and again as long as that finds answers.
 */
static void link_check_oldest(struct redis_link *link)
{
    const struct redis_command *oldest = link->oldest;
    uint64_t now_ms = rpc_loop_now_ms(link->loop);
    char reason[REDIS_REASON_SIZE];

    link->timer_runs = false;
    if (oldest != NULL && link_due_ms(link) <= now_ms)
        link_read(link);
    if ((link->phase != PHASE_UP && link->phase != PHASE_LEAVING) || link->oldest == NULL)
        return;
    if (link_due_ms(link) > now_ms || link->oldest != oldest) {
        uint64_t due_ms = link_due_ms(link);

        rpc_loop_timer_start(link->timer, due_ms > now_ms ? due_ms - now_ms : 0);
        link->timer_runs = true;
        return;
    }
    snprintf(reason, sizeof(reason), "no answer within %d ms", link->timeout_ms);
    link_drop(link, reason);
}

static void link_on_timer(void *arg)
{
    struct redis_link *link = arg;

    switch (link->phase) {
    case PHASE_WAITING:
        if (link->address_next < link->addresses.count)
            link_connect(link);
        else
            link_look_up(link);
        break;
    case PHASE_CONNECTING:
        link_drop(link, "it does not take the connection in time");
        break;
    case PHASE_GREETING:
        link_drop(link, "it takes the connection, but does not answer in time");
        break;
    case PHASE_UP:
    case PHASE_LEAVING:
        link_check_oldest(link);
        break;
    case PHASE_LOOKING_UP:
        rpc_resolve_cancel(link->lookup);
        link->lookup = NULL;
        link_lost(link, "its host's name is not looked up in time");
        break;
    case PHASE_CLOSED:
        break;
    }
}

/* ---- Commands ----------------------------------------------------------------------------------------------------- */

/*
 * Errors that speak of the server, not of the command: it has become a replica, or does not serve (yet).  Redis before 7
 * wraps what a script's command was refused for in words of its own, so they are looked for anywhere.
 */
static bool speaks_of_server(const redisReply *reply)
{
    static const char *const words[] = {"READONLY", "LOADING", "MASTERDOWN"};

    if (reply->type != REDIS_REPLY_ERROR)
        return false;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strstr(reply->str, words[i]) != NULL)
            return true;
    return false;
}

/* The commands that are under way are answered first: what it refuses of them was not done, and their callers learn it. */
static void link_leave(struct redis_link *link, const char *reason)
{
    uint64_t now_ms = rpc_loop_now_ms(link->loop);

    if (link->phase != PHASE_UP || (link->left_ms != 0 && now_ms - link->left_ms < REDIS_LEAVE_INTERVAL_MS))
        return;
    link_log_away(link, reason);
    link_enter(link, PHASE_LEAVING);
}

static void link_end_leaving(struct redis_link *link)
{
    char reason[REDIS_REASON_SIZE];

    memcpy(reason, link->reason, sizeof(reason));
    link_drop(link, reason);
}

static void command_on_reply(redisAsyncContext *redis, void *reply_pointer, void *privdata)
{
    struct redis_command *command = privdata;
    struct redis_link *link = command->link;
    const redisReply *reply = reply_pointer;
    enum redis_result result;

    if (reply == NULL) {
        uint64_t written = link->appended - sdslen(redis->c.obuf);

        if (link->redis == redis)
            link_lost(link, redis->c.errstr);
        result = command->end > written ? REDIS_OFFLINE : REDIS_LOST; /* half a command is none to the server */
    } else {
        result = reply->type == REDIS_REPLY_ERROR ? REDIS_REFUSED : REDIS_ANSWERED;
    }
    assert(link->oldest == command); /* hiredis runs its callbacks in the order of the commands */
    if (reply != NULL) {
        link->failures = 0;
        if (command->next != NULL)
            link->answered_ms = rpc_loop_now_ms(link->loop);
    }
    link->oldest = command->next;
    if (link->oldest == NULL)
        link->newest = NULL;
    link->in_flight--;
    if (reply != NULL && link->redis == redis && speaks_of_server(reply))
        link_leave(link, reply->str);
    if (link->phase == PHASE_LEAVING && link->redis == redis && link->oldest == NULL)
        link_end_leaving(link); /* hiredis lets go of the reply when this returns, and of the connection then */
    command->done(command, result, reply);
}

/* "*2\r\n" or "$5\r\n". */
static char *write_head(char *at, char mark, size_t number)
{
    char digits[WORD_HEAD_SIZE];
    char *digit = digits + sizeof(digits);

    do {
        *--digit = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    *at++ = mark;
    at = mempcpy(at, digit, (size_t)(digits + sizeof(digits) - digit));
    *at++ = '\r';
    *at++ = '\n';
    return at;
}

/*
 * The command in the protocol's words, as redisAsyncCommandArgv() would write it, but into memory that is there already.
 * `size` is what the words are long together.  False when out of memory.
 */
static bool link_write_text(struct redis_link *link, int count, const char *words[], const size_t sizes[], size_t size)
{
    char *start = rpc_text_reserve(&link->text, size + ((size_t)count + 1) * (WORD_HEAD_SIZE + 2) + 1), *at;

    if (start == NULL)
        return false;
    at = write_head(start, '*', (size_t)count);
    for (int i = 0; i < count; i++) {
        at = write_head(at, '$', sizes[i]);
        at = mempcpy(at, words[i], sizes[i]);
        *at++ = '\r';
        *at++ = '\n';
    }
    *at = '\0'; /* hiredis searches it as a string; not part of the command */
    rpc_text_commit(&link->text, (size_t)(at - start));
    return true;
}

enum redis_result redis_link_send(struct redis_link *link, struct redis_command *command, int count,
                                  const char *words[], const size_t sizes[], redis_command_fn *done)
{
    size_t unsent, size = 0;
    bool sent;

    if (link->phase != PHASE_UP || link->redis == NULL)
        return REDIS_OFFLINE;
    unsent = sdslen(link->redis->c.obuf);
    for (int i = 0; i < count; i++)
        size += sizes[i];
    if (link->in_flight >= REDIS_COMMANDS_MAX || (unsent > 0 && unsent + size > REDIS_OUTPUT_SIZE_MAX))
        return REDIS_BUSY;
    *command = (struct redis_command){
        .link = link,
        .done = done,
        .sent_ms = rpc_loop_now_ms(link->loop),
    };
    if (!link_write_text(link, count, words, sizes, size))
        return REDIS_BUSY; /* of memory */
    size = link->text.size;
    sent = redisAsyncFormattedCommand(link->redis, command_on_reply, command, link->text.data, size) == REDIS_OK;
    rpc_text_reset(&link->text, TEXT_KEEP_SIZE);
    if (!sent)
        return REDIS_OFFLINE; /* the connection is on its way out */
    link->appended += size;
    command->end = link->appended;
    if (link->newest != NULL)
        link->newest->next = command;
    else
        link->oldest = command;
    link->newest = command;
    link->in_flight++;
    if (!link->timer_runs) {
        link->timer_runs = true;
        rpc_loop_timer_start(link->timer, (uint64_t)link->timeout_ms);
    }
    return REDIS_ANSWERED;
}

/* ---- The link ----------------------------------------------------------------------------------------------------- */

static bool uri_copy(struct redis_uri *out, const struct redis_uri *uri)
{
    *out = (struct redis_uri){.port = uri->port, .database = uri->database};
    out->host = strdup(uri->host);
    if (uri->user != NULL)
        out->user = strdup(uri->user);
    if (uri->password != NULL)
        out->password = strdup(uri->password);
    return out->host != NULL && (uri->user == NULL) == (out->user == NULL) &&
           (uri->password == NULL) == (out->password == NULL);
}

struct redis_link *redis_link_new(const struct redis_link_options *options)
{
    struct redis_link *link = calloc(1, sizeof(*link));

    if (link == NULL)
        goto failed;
    link->loop = options->loop;
    link->timeout_ms = options->timeout_ms;
    link->on_state = options->on_state;
    link->arg = options->arg;
    link->since = time(NULL);
    rpc_outage_init(&link->outage, REDIS_STAY_MS, rpc_loop_now_ms(link->loop));
    link->phase = PHASE_WAITING;
    snprintf(link->name, sizeof(link->name), "%s", options->name);
    snprintf(link->reason, sizeof(link->reason), "not connected yet");
    link->replies = reply_memory_new();
    link->flush = rpc_loop_task_new(link->loop, link_on_turn_end, link);
    link->timer = rpc_loop_timer_new(link->loop, link_on_timer, link);
    link->stays = rpc_loop_timer_new(link->loop, link_on_stay, link);
    if (!uri_copy(&link->uri, options->uri) || link->replies == NULL || link->flush == NULL || link->timer == NULL ||
        link->stays == NULL)
        goto failed;
    rpc_loop_timer_start(link->timer, 0);
    return link;
failed:
    redis_link_free(link);
    return NULL;
}

void redis_link_free(struct redis_link *link)
{
    if (link == NULL)
        return;
    link->phase = PHASE_CLOSED;
    if (link->redis != NULL)
        redisAsyncFree(link->redis);
    rpc_resolve_cancel(link->lookup);
    rpc_loop_timer_free(link->timer);
    rpc_loop_timer_free(link->stays);
    rpc_loop_task_free(link->flush);
    reply_memory_free(link->replies);
    rpc_text_clear(&link->text);
    redis_uri_clear(&link->uri);
    free(link);
}

bool redis_link_is_up(const struct redis_link *link)
{
    return link->phase == PHASE_UP;
}

time_t redis_link_since(const struct redis_link *link)
{
    return link->since;
}

const char *redis_link_reason(const struct redis_link *link)
{
    return link->reason;
}

size_t redis_link_in_flight(const struct redis_link *link)
{
    return link->in_flight;
}

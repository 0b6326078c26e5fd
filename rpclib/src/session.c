#include "session.h"

#include <stdio.h>

#include "connection.h"
#include "rpclib/backoff.h"
#include "rpclib/log.h"

#define SESSION_REASON_SIZE 320

static void session_open(struct session *session);

static uint64_t session_now_ms(const struct session *session)
{
    return rpc_loop_now_ms(connection_loop(session->connection));
}

/* A broker in an alarm reads nothing from a connection that publishes: that is no fault of the link. */
static void session_on_timer(void *arg)
{
    struct session *session = arg;
    const struct mq *mq = connection_mq(session->connection);
    char reason[SESSION_REASON_SIZE];

    if (session->channel == NULL) {
        session_open(session);
    } else if (mq == NULL || mq_blocked(mq)) {
        rpc_loop_timer_start(session->timer, SESSION_SETUP_MAX_MS);
    } else {
        snprintf(reason, sizeof(reason), "no answer to %s of \"%s\" within %d ms",
                 session->up ? "a question" : "the set-up", session->what, SESSION_SETUP_MAX_MS);
        connection_give_up(session->connection, reason);
    }
}

static void session_reopen_later(struct session *session)
{
    rpc_loop_timer_start(session->timer,
                         rpc_backoff_ms(session->failures++, SESSION_REOPEN_MIN_MS, SESSION_REOPEN_MAX_MS));
}

/* The channel is gone, whoever closed it. */
static void session_enter_down(struct session *session)
{
    bool owed = session->opened;

    session->channel = NULL;
    session->up = session->opened = session->awaits = false;
    if (owed)
        session->events->on_down(session->arg);
}

/* What fails again and again is told of once.  Returns the level at which to tell. */
static enum rpc_log_level session_failure_level(struct session *session, enum rpc_log_level level)
{
    if (session->up && session_now_ms(session) - session->up_ms >= SESSION_REOPEN_MAX_MS)
        session->failures = 0;
    return session->failures == 0 ? level : RPC_LOG_DEBUG;
}

/* --- the channel's events --- */

static void session_on_settled(void *arg)
{
    struct session *session = arg;

    rpc_loop_timer_stop(session->timer);
    session->awaits = false;
    if (session->up) {
        if (session->events->on_settled != NULL)
            session->events->on_settled(session->arg);
        return;
    }
    session->up = true;
    session->up_ms = session_now_ms(session);
    session->events->on_up(session->arg);
}

/* What the set-up declared is answered before the session is up. */
static void session_on_queue(uint32_t consumers, void *arg)
{
    struct session *session = arg;

    if (session->up && session->events->on_queue != NULL)
        session->events->on_queue(consumers, session->arg);
}

static void session_on_delivery(const struct mq_delivery *delivery, void *arg)
{
    struct session *session = arg;

    if (delivery->message.oversized) /* nobody can say whose it was: not even its properties were kept */
        rpc_log(RPC_LOG_WARNING, "a message is too large and was not read", RPC_LOG_TEXT("what", session->what),
                RPC_LOG_INT("size", (int64_t)delivery->message.body_size));
    session->events->on_delivery(delivery, session->arg);
}

static void session_on_empty(void *arg)
{
    struct session *session = arg;

    if (session->events->on_empty != NULL)
        session->events->on_empty(session->arg);
}

static void session_on_return(const struct mq_message *message, uint16_t code, void *arg)
{
    struct session *session = arg;

    if (session->events->on_return != NULL)
        session->events->on_return(message, code, session->arg);
}

static void session_on_confirm(uint64_t tag, bool multiple, bool ack, void *arg)
{
    struct session *session = arg;

    if (session->events->on_confirm != NULL)
        session->events->on_confirm(tag, multiple, ack, session->arg);
}

void session_restart(struct session *session)
{
    if (session->channel == NULL)
        return;
    (void)session_failure_level(session, RPC_LOG_DEBUG);
    mq_channel_close(session->channel);
    session_reopen_later(session);
    session_enter_down(session);
}

static void session_on_cancelled(void *arg)
{
    struct session *session = arg;

    rpc_log(session_failure_level(session, RPC_LOG_WARNING),
            "the broker cancelled a consumer: its queue is gone; declaring it again",
            RPC_LOG_TEXT("what", session->what));
    session_restart(session);
}

static void session_on_closed(uint16_t code, struct rpc_bytes text, void *arg)
{
    struct session *session = arg;

    rpc_log(session_failure_level(session, RPC_LOG_ERROR), "the broker closed a channel; opening it again",
            RPC_LOG_TEXT("what", session->what), RPC_LOG_INT("code", code), RPC_LOG_BYTES("reason", text));
    session_reopen_later(session);
    session_enter_down(session);
}

static const struct mq_channel_events session_channel_events = {
    .on_settled = session_on_settled,
    .on_queue = session_on_queue,
    .on_delivery = session_on_delivery,
    .on_empty = session_on_empty,
    .on_return = session_on_return,
    .on_confirm = session_on_confirm,
    .on_cancelled = session_on_cancelled,
    .on_closed = session_on_closed,
};

/* --- life --- */

static void session_open(struct session *session)
{
    struct mq *mq = connection_mq(session->connection);

    if (mq == NULL || session->channel != NULL)
        return; /* it opens when the connection comes up */
    session->channel = mq_channel_open(mq, &session_channel_events, session);
    if (session->channel == NULL) {
        if (mq_state(mq) != MQ_OPEN)
            return;
        rpc_log(session_failure_level(session, RPC_LOG_ERROR),
                "no channel: memory is short, or the broker's channel_max is too small; trying again",
                RPC_LOG_TEXT("what", session->what), RPC_LOG_INT("channels_max", mq_channels_max(mq)));
        session_reopen_later(session);
        return;
    }
    session->opened = true;
    rpc_loop_timer_start(session->timer, SESSION_SETUP_MAX_MS);
    session->events->setup(session->channel, session->arg);
}

bool session_init(struct session *session, struct rpc_connection *connection, const char *what,
                  const struct session_events *events, void *arg)
{
    *session = (struct session){.connection = connection, .events = events, .arg = arg, .what = what};
    session->timer = rpc_loop_timer_new(connection_loop(connection), session_on_timer, session);
    if (session->timer == NULL)
        return false;
    connection_session_add(connection, session);
    session_open(session);
    return true;
}

void session_clear(struct session *session)
{
    if (session->timer == NULL)
        return; /* never initialised */
    if (session->channel != NULL)
        mq_channel_close(session->channel);
    connection_session_remove(session->connection, session);
    rpc_loop_timer_free(session->timer);
    *session = (struct session){0};
}

void session_on_connection_up(struct session *session)
{
    session->failures = 0;
    session_open(session);
}

void session_on_connection_unblocked(struct session *session)
{
    if (session->up)
        session->events->on_up(session->arg);
}

void session_on_connection_down(struct session *session)
{
    rpc_loop_timer_stop(session->timer);
    session_enter_down(session);
}

/* The oldest question's time runs: one that is asked behind it does not make that longer. */
void session_await_answers(struct session *session)
{
    if (!session->up || session->awaits)
        return;
    session->awaits = true;
    rpc_loop_timer_start(session->timer, SESSION_SETUP_MAX_MS);
}

struct mq_channel *session_channel(const struct session *session)
{
    return session->up ? session->channel : NULL;
}

enum rpc_status session_status(const struct session *session)
{
    if (!session->up)
        return RPC_OFFLINE;
    switch (rpc_connection_state(session->connection)) {
    case RPC_CONNECTION_UP:
        return RPC_OK;
    case RPC_CONNECTION_BLOCKED:
        return RPC_BLOCKED;
    case RPC_CONNECTION_DOWN: /* also while it says goodbye: what is sent behind that is not read */
    case RPC_CONNECTION_CLOSED:
        break;
    }
    return RPC_OFFLINE;
}

void session_flush_later(struct session *session)
{
    connection_flush_later(session->connection);
}

uint64_t session_output_appended(const struct session *session)
{
    return mq_output_appended_total(connection_mq_counters(session->connection));
}

bool session_never_left(const struct session *session, uint64_t position)
{
    return connection_mq(session->connection) == NULL &&
           position >= mq_output_written_total(connection_mq_counters(session->connection));
}

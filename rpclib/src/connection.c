/*
 * rpc_connection: a socket, an mq and the loop, kept together and kept up.
 *
 *     WAITING -> RESOLVING -> CONNECTING -> HANDSHAKE -> UP -> CLOSING -> CLOSED
 *        ^------------------------------------------------'
 *
 * Each phase but WAITING and UP has a deadline; one timer serves them all: the delay before the next attempt, the
 * deadline of the attempt, the heartbeats of a link that is up.
 */
#include "connection.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fault_text.h"
#include "rpclib/backoff.h"
#include "rpclib/log.h"
#include "rpclib/outage.h"
#include "rpclib/resolve.h"
#include "stream.h"
#include "uri.h"

#define OUTPUT_SIZE_DEFAULT     (8u * 1024 * 1024)
#define CONNECT_TIMEOUT_DEFAULT 5000
#define HEARTBEAT_DEFAULT_S     10
#define INPUT_SIZE              (64u * 1024)
#define READS_A_TURN_MAX        16 /* then the loop's other descriptors get their turn */

enum phase { PHASE_WAITING, PHASE_RESOLVING, PHASE_CONNECTING, PHASE_HANDSHAKE, PHASE_UP, PHASE_CLOSING, PHASE_CLOSED };

struct rpc_connection {
    struct rpc_loop *loop;
    struct rpc_uri uri;
    char *name;
    size_t output_size_max;
    int connect_timeout_ms;
    uint16_t heartbeat_s;
    rpc_connection_state_fn *on_state;
    void *arg;

    enum phase phase;
    enum rpc_connection_state told; /* what on_state heard last */
    unsigned failures;              /* attempts since a link last stayed */
    uint64_t up_ms;                 /* when the link came up */
    struct rpc_outage outage;       /* what the log is told of the broker */
    struct rpc_loop_timer *timer;
    struct rpc_loop_task *flush;
    struct rpc_loop_task *tell;

    struct rpc_resolve *resolve;
    struct rpc_resolve_answer peer; /* where to connect */
    unsigned peer_next;
    struct stream *stream;
    struct rpc_loop_watch *watch;
    int connecting_fd; /* until the stream has it; -1 */
    struct mq *mq;
    bool read_wants_write, write_wants_write;
    bool write_wants_read; /* TLS: a handshake must go on before more can be written */

    struct session *sessions;
    struct session *session_next; /* the walk that is going on, so that sessions may leave during it */
    rpc_loop_fn *on_closed;
    void *on_closed_arg;
    char input[INPUT_SIZE];
};

static void connection_lost(struct rpc_connection *connection, const char *reason);
static void connection_connect_next(struct rpc_connection *connection);

/* --- what others see --- */

enum rpc_connection_state rpc_connection_state(const struct rpc_connection *connection)
{
    switch (connection->phase) {
    case PHASE_UP:
        return mq_blocked(connection->mq) ? RPC_CONNECTION_BLOCKED : RPC_CONNECTION_UP;
    case PHASE_CLOSED:
        return RPC_CONNECTION_CLOSED;
    case PHASE_WAITING:
    case PHASE_RESOLVING:
    case PHASE_CONNECTING:
    case PHASE_HANDSHAKE:
    case PHASE_CLOSING:
        break;
    }
    return RPC_CONNECTION_DOWN;
}

static void connection_on_tell(void *arg)
{
    struct rpc_connection *connection = arg;
    enum rpc_connection_state state = rpc_connection_state(connection);

    if (state == connection->told)
        return;
    connection->told = state;
    if (connection->on_state != NULL)
        connection->on_state(state, connection->arg);
}

static void connection_enter(struct rpc_connection *connection, enum phase phase)
{
    connection->phase = phase;
    rpc_loop_task_schedule(connection->tell);
}

struct rpc_loop *connection_loop(const struct rpc_connection *connection)
{
    return connection->loop;
}

struct mq *connection_mq(const struct rpc_connection *connection)
{
    return connection->phase == PHASE_UP ? connection->mq : NULL;
}

const struct mq *connection_mq_counters(const struct rpc_connection *connection)
{
    return connection->mq;
}

void connection_flush_later(struct rpc_connection *connection)
{
    rpc_loop_task_schedule(connection->flush);
}

void connection_session_add(struct rpc_connection *connection, struct session *session)
{
    session->next = connection->sessions;
    connection->sessions = session;
}

void connection_session_remove(struct rpc_connection *connection, struct session *session)
{
    struct session **at = &connection->sessions;

    if (connection->session_next == session)
        connection->session_next = session->next;
    while (*at != NULL && *at != session)
        at = &(*at)->next;
    if (*at != NULL)
        *at = session->next;
}

/* Sessions may leave, and join in front, while each of them is visited. */
static void connection_visit(struct rpc_connection *connection, void (*visit)(struct session *session))
{
    for (struct session *session = connection->sessions; session != NULL; session = connection->session_next) {
        connection->session_next = session->next;
        visit(session);
    }
    connection->session_next = NULL;
}

/* --- output --- */

static void connection_watch(struct rpc_connection *connection)
{
    bool write = connection->read_wants_write || connection->write_wants_write;

    rpc_loop_watch_set(connection->watch, RPC_LOOP_READ | (write ? RPC_LOOP_WRITE : 0u));
}

static void session_flush(struct session *session)
{
    if (session->up && session->events->on_flush != NULL)
        session->events->on_flush(session->arg);
}

static void connection_write(struct rpc_connection *connection)
{
    struct rpc_bytes output = mq_output(connection->mq);

    connection->write_wants_write = connection->write_wants_read = false;
    while (output.size > 0) {
        ssize_t size = stream_write(connection->stream, output.data, output.size);

        if (size == STREAM_CLOSED) {
            connection_lost(connection, stream_error(connection->stream));
            return;
        }
        if (size == STREAM_AGAIN) {
            connection->write_wants_write = stream_wants_write(connection->stream);
            connection->write_wants_read = !connection->write_wants_write;
            break;
        }
        mq_output_written(connection->mq, (size_t)size, rpc_loop_now_ms(connection->loop));
        output = mq_output(connection->mq);
    }
    connection_watch(connection);
}

static void connection_on_flush(void *arg)
{
    struct rpc_connection *connection = arg;

    if (connection->stream == NULL)
        return;
    if (connection->phase == PHASE_UP || connection->phase == PHASE_CLOSING)
        connection_visit(connection, session_flush);
    if (!connection->write_wants_write)
        connection_write(connection);
}

/* --- the mq's events --- */

static void connection_log_up(struct rpc_connection *connection)
{
    rpc_log(RPC_LOG_INFO, "connected to the broker", RPC_LOG_TEXT("host", connection->uri.host),
            RPC_LOG_INT("port", connection->uri.port), RPC_LOG_TEXT("vhost", connection->uri.vhost));
}

/* Whether the link has been up for so long that it may be called one. */
static bool connection_has_stayed(const struct rpc_connection *connection)
{
    return connection->phase == PHASE_UP &&
           rpc_loop_now_ms(connection->loop) - connection->up_ms >= RPC_RECONNECT_MAX_MS;
}

static void connection_on_open(void *arg)
{
    struct rpc_connection *connection = arg;

    connection->up_ms = rpc_loop_now_ms(connection->loop);
    connection_enter(connection, PHASE_UP);
    if (rpc_outage_up(&connection->outage, connection->up_ms))
        connection_log_up(connection);
    rpc_loop_timer_start(connection->timer, mq_tick_interval_ms(connection->mq, rpc_loop_now_ms(connection->loop)));
    connection_visit(connection, session_on_connection_up);
}

static void connection_on_blocked(bool blocked, struct rpc_bytes reason, void *arg)
{
    struct rpc_connection *connection = arg;

    if (blocked)
        rpc_log(RPC_LOG_WARNING, "the broker takes no messages for now", RPC_LOG_BYTES("reason", reason));
    else
        rpc_log(RPC_LOG_INFO, "the broker takes messages again");
    rpc_loop_task_schedule(connection->tell);
    if (!blocked)
        connection_visit(connection, session_on_connection_unblocked);
}

static void connection_on_output(void *arg)
{
    connection_flush_later(arg);
}

static const struct mq_events connection_mq_events = {
    .on_open = connection_on_open,
    .on_blocked = connection_on_blocked,
    .on_output = connection_on_output,
};

/* --- losing the link --- */

static void connection_drop_link(struct rpc_connection *connection)
{
    rpc_resolve_cancel(connection->resolve);
    connection->resolve = NULL;
    rpc_loop_watch_free(connection->watch);
    connection->watch = NULL;
    stream_free(connection->stream);
    connection->stream = NULL;
    if (connection->connecting_fd >= 0)
        close(connection->connecting_fd);
    connection->connecting_fd = -1;
    connection->read_wants_write = connection->write_wants_write = connection->write_wants_read = false;
}

/* The sessions still see the dead mq's counters while they are told. */
static void connection_tell_sessions_down(struct rpc_connection *connection)
{
    connection_visit(connection, session_on_connection_down);
    mq_free(connection->mq);
    connection->mq = NULL;
}

/* `on_closed` may free the connection, which no other callback would survive: it comes from the timer. */
static void connection_finish_close(struct rpc_connection *connection)
{
    connection_drop_link(connection);
    connection_enter(connection, PHASE_CLOSED);
    rpc_loop_timer_start(connection->timer, 0);
    connection_tell_sessions_down(connection);
}

static void connection_on_closed(struct rpc_connection *connection)
{
    rpc_loop_fn *on_closed = connection->on_closed;

    connection->on_closed = NULL;
    if (on_closed != NULL)
        on_closed(connection->on_closed_arg);
}

static void connection_log_lost(struct rpc_connection *connection, bool was_up, const char *reason)
{
    bool is_refused = connection->mq != NULL && mq_refused(connection->mq);
    enum rpc_log_level level = is_refused ? RPC_LOG_ERROR : RPC_LOG_WARNING;

    if (!rpc_outage_down(&connection->outage, reason, rpc_loop_now_ms(connection->loop)))
        level = RPC_LOG_DEBUG;
    rpc_log(level, was_up ? "lost the broker; connecting again" : "cannot connect to the broker; trying again",
            RPC_LOG_TEXT("host", connection->uri.host), RPC_LOG_INT("port", connection->uri.port),
            RPC_LOG_TEXT("reason", reason));
}

static void connection_lost(struct rpc_connection *connection, const char *reason)
{
    bool was_up = connection->phase == PHASE_UP;

    if (connection->phase == PHASE_CLOSING) {
        connection_finish_close(connection);
        return;
    }
    connection_log_lost(connection, was_up, reason);
    if (connection_has_stayed(connection))
        connection->failures = 0;
    connection_drop_link(connection);
    connection_enter(connection, PHASE_WAITING);
    rpc_loop_timer_start(connection->timer,
                         rpc_backoff_ms(connection->failures++, RPC_RECONNECT_MIN_MS, RPC_RECONNECT_MAX_MS));
    connection_tell_sessions_down(connection);
}

void connection_give_up(struct rpc_connection *connection, const char *reason)
{
    if (connection->phase == PHASE_UP)
        connection_lost(connection, reason);
}

/* --- input --- */

/* What the mq's state means for the link.  False when the link is gone. */
static bool connection_check_mq(struct rpc_connection *connection)
{
    switch (mq_state(connection->mq)) {
    case MQ_HANDSHAKE:
    case MQ_OPEN:
    case MQ_CLOSING:
        return true;
    case MQ_CLOSED: { /* our close-ok, if one is due, should leave; more than a try it is not worth */
        struct rpc_bytes output = mq_output(connection->mq);

        if (output.size > 0)
            (void)stream_write(connection->stream, output.data, output.size);
        break;
    }
    case MQ_BROKEN:
        break;
    }
    connection_lost(connection, mq_error(connection->mq));
    return false;
}

static void connection_read(struct rpc_connection *connection)
{
    connection->read_wants_write = false;
    for (int reads = 0; reads < READS_A_TURN_MAX; reads++) {
        ssize_t size = stream_read(connection->stream, connection->input, INPUT_SIZE);

        if (size == STREAM_CLOSED) {
            connection_lost(connection, stream_error(connection->stream));
            return;
        }
        if (size == STREAM_AGAIN) {
            connection->read_wants_write = stream_wants_write(connection->stream);
            return;
        }
        mq_feed(connection->mq, (struct rpc_bytes){connection->input, (size_t)size}, rpc_loop_now_ms(connection->loop));
        if (!connection_check_mq(connection))
            return;
        if ((size_t)size < INPUT_SIZE && stream_short_read_is_last(connection->stream))
            return;
    }
}

static void connection_on_ready(int fd, unsigned events, void *arg)
{
    struct rpc_connection *connection = arg;

    (void)fd;
    if ((events & RPC_LOOP_WRITE) && connection->stream != NULL)
        connection_write(connection);
    if (connection->stream != NULL)
        connection_read(connection);
    if (connection->stream != NULL && connection->write_wants_read)
        connection_write(connection);
    if (connection->stream != NULL)
        connection_watch(connection);
}

/* --- connecting --- */

static struct stream *connection_stream_new(struct rpc_connection *connection, int fd, char error[STREAM_ERROR_SIZE])
{
    const struct stream_tls_options options = {.host = connection->uri.host,
                                               .ca_file = connection->uri.cafile,
                                               .cert_file = connection->uri.certfile,
                                               .key_file = connection->uri.keyfile};

    if (connection->uri.tls)
        return stream_tls_new(fd, &options, error);
    snprintf(error, STREAM_ERROR_SIZE, "out of memory");
    return stream_plain_new(fd);
}

static void connection_on_connected(struct rpc_connection *connection)
{
    char error[STREAM_ERROR_SIZE];
    int fd = connection->connecting_fd;

    connection->connecting_fd = -1;
    rpc_loop_watch_free(connection->watch); /* before the stream may close the descriptor */
    connection->watch = NULL;
    connection->stream = connection_stream_new(connection, fd, error);
    if (connection->stream == NULL) {
        connection_lost(connection, error);
        return;
    }
    connection->watch = rpc_loop_watch_new(connection->loop, fd, RPC_LOOP_READ, connection_on_ready, connection);
    connection->mq = mq_new(&(struct mq_options){.user = connection->uri.user,
                                                 .password = connection->uri.password,
                                                 .vhost = connection->uri.vhost,
                                                 .name = connection->name,
                                                 .version = AIRSHIP_VERSION,
                                                 .heartbeat_s = connection->heartbeat_s,
                                                 .output_size_max = connection->output_size_max,
                                                 .now_ms = rpc_loop_now_ms(connection->loop),
                                                 .events = &connection_mq_events,
                                                 .arg = connection});
    if (connection->watch == NULL || connection->mq == NULL) {
        connection_lost(connection, "out of memory");
        return;
    }
    connection_enter(connection, PHASE_HANDSHAKE);
    connection_write(connection);
}

static void connection_on_connecting(int fd, unsigned events, void *arg)
{
    struct rpc_connection *connection = arg;
    socklen_t size = sizeof(int);
    int error = 0;

    (void)events;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        error = errno;
    if (error == 0) {
        connection_on_connected(connection);
        return;
    }
    if (connection->peer_next < connection->peer.count) {
        connection_connect_next(connection);
        return;
    }
    connection_lost(connection, fault_text(error));
}

/* No TCP_USER_TIMEOUT: heartbeats find a dead peer, and a broker in an alarm, which reads nothing for a while, is alive. */
static int connection_socket(const struct rpc_resolve_address *address)
{
    int one = 1;
    int fd = socket(address->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

/* Try the peer's addresses one after another. */
static void connection_connect_next(struct rpc_connection *connection)
{
    int error = 0;

    connection_drop_link(connection);
    while (connection->peer_next < connection->peer.count) {
        const struct rpc_resolve_address *address = &connection->peer.addresses[connection->peer_next++];
        int fd = connection_socket(address);

        if (fd < 0) {
            error = errno;
            continue;
        }
        if (connect(fd, (const struct sockaddr *)&address->address, address->size) == 0 || errno == EINPROGRESS) {
            connection->connecting_fd = fd;
            connection->watch =
                rpc_loop_watch_new(connection->loop, fd, RPC_LOOP_WRITE, connection_on_connecting, connection);
            if (connection->watch == NULL)
                connection_lost(connection, "out of memory");
            return;
        }
        error = errno;
        close(fd);
    }
    connection_lost(connection, fault_text(error));
}

static void connection_on_resolved(const struct rpc_resolve_answer *answer, void *arg)
{
    struct rpc_connection *connection = arg;

    connection->resolve = NULL;
    connection->peer = *answer;
    connection->peer_next = 0;
    if (answer->count == 0) {
        connection_lost(connection, answer->error);
        return;
    }
    connection_enter(connection, PHASE_CONNECTING);
    connection_connect_next(connection);
}

static void connection_attempt(struct rpc_connection *connection)
{
    connection_enter(connection, PHASE_RESOLVING);
    rpc_loop_timer_start(connection->timer, (uint64_t)connection->connect_timeout_ms);
    connection->resolve = rpc_resolve_start(connection->loop, connection->uri.host, connection->uri.port,
                                            connection_on_resolved, connection);
    if (connection->resolve == NULL)
        connection_lost(connection, "out of memory or descriptors");
}

static void connection_on_timer(void *arg)
{
    struct rpc_connection *connection = arg;

    switch (connection->phase) {
    case PHASE_WAITING:
        connection_attempt(connection);
        break;
    case PHASE_RESOLVING:
        connection_lost(connection, "the host's name was not resolved in time");
        break;
    case PHASE_CONNECTING:
        if (connection->peer_next < connection->peer.count) { /* the next address may be better */
            rpc_loop_timer_start(connection->timer, (uint64_t)connection->connect_timeout_ms);
            connection_connect_next(connection);
        } else {
            connection_lost(connection, "no connection in time");
        }
        break;
    case PHASE_HANDSHAKE:
        connection_lost(connection, "no handshake in time");
        break;
    case PHASE_UP:
        if (rpc_outage_stayed(&connection->outage, rpc_loop_now_ms(connection->loop)))
            connection_log_up(connection);
        mq_tick(connection->mq, rpc_loop_now_ms(connection->loop));
        if (connection_check_mq(connection))
            rpc_loop_timer_start(connection->timer,
                                 mq_tick_interval_ms(connection->mq, rpc_loop_now_ms(connection->loop)));
        break;
    case PHASE_CLOSING:
        connection_finish_close(connection);
        break;
    case PHASE_CLOSED:
        connection_on_closed(connection);
        break;
    }
}

/* --- life --- */

bool rpc_uri_check(const char *uri, char reason[RPC_URI_REASON_SIZE])
{
    struct rpc_uri parsed;

    if (!rpc_uri_parse(&parsed, uri, reason))
        return false;
    rpc_uri_clear(&parsed);
    return true;
}

static uint16_t heartbeat_of(const struct rpc_connection_options *options, const struct rpc_uri *uri)
{
    if (options->heartbeat_s > 0)
        return (uint16_t)options->heartbeat_s;
    return (uint16_t)(uri->heartbeat_s >= 0 ? uri->heartbeat_s : HEARTBEAT_DEFAULT_S);
}

struct rpc_connection *rpc_connection_new(const struct rpc_connection_options *options)
{
    struct rpc_connection *connection = calloc(1, sizeof(*connection));
    char reason[RPC_URI_REASON_SIZE];

    if (connection == NULL)
        return NULL;
    connection->connecting_fd = -1;
    connection->loop = options->loop;
    connection->on_state = options->on_state;
    connection->arg = options->arg;
    connection->output_size_max = options->output_size_max > 0 ? options->output_size_max : OUTPUT_SIZE_DEFAULT;
    connection->connect_timeout_ms =
        options->connect_timeout_ms > 0 ? options->connect_timeout_ms : CONNECT_TIMEOUT_DEFAULT;
    connection->name = strdup(options->name);
    connection->timer = rpc_loop_timer_new(options->loop, connection_on_timer, connection);
    rpc_outage_init(&connection->outage, RPC_RECONNECT_MAX_MS, rpc_loop_now_ms(options->loop));
    connection->flush = rpc_loop_task_new(options->loop, connection_on_flush, connection);
    connection->tell = rpc_loop_task_new(options->loop, connection_on_tell, connection);
    if (connection->name == NULL || connection->timer == NULL || connection->flush == NULL ||
        connection->tell == NULL || !rpc_uri_parse(&connection->uri, options->uri, reason)) {
        rpc_connection_free(connection);
        return NULL;
    }
    connection->heartbeat_s = heartbeat_of(options, &connection->uri);
    connection_attempt(connection);
    return connection;
}

void rpc_connection_close(struct rpc_connection *connection, int timeout_ms, rpc_loop_fn *done, void *arg)
{
    connection->on_closed = done;
    connection->on_closed_arg = arg;
    if (connection->phase == PHASE_UP) {
        /* The last acknowledgements go before the goodbye; writing is for later, since we may be within mq_feed(). */
        connection_visit(connection, session_flush);
        mq_close(connection->mq);
        connection_enter(connection, PHASE_CLOSING);
        rpc_loop_timer_start(connection->timer, (uint64_t)timeout_ms);
    } else {
        connection_drop_link(connection);
        connection_enter(connection, PHASE_CLOSING);
        rpc_loop_timer_start(connection->timer, 0);
    }
}

void rpc_connection_free(struct rpc_connection *connection)
{
    if (connection == NULL)
        return;
    connection_drop_link(connection);
    mq_free(connection->mq);
    rpc_loop_timer_free(connection->timer);
    rpc_loop_task_free(connection->flush);
    rpc_loop_task_free(connection->tell);
    rpc_uri_clear(&connection->uri);
    free(connection->name);
    free(connection);
}

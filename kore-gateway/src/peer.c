#include "peer.h"

#include <kore/kore.h>

#include <kore/http.h>

#include <rpclib/log.h>
#include <stdlib.h>
#include <time.h>

#include "flight.h"
#include "metrics.h"

#define INPUT_SIZE_MIN  4096u               /* a connection's buffer, to begin with */
#define INPUT_SIZE_KEEP (64u * 1024)        /* a larger one is bounded, and given back after its request */
#define DISCARD_SIZE    (64u * 1024)        /* bytes thrown away at a time, behind the last answer */
#define DISCARD_MAX     (16u * 1024 * 1024) /* and in all, before we hang up */
#define SWEEP_MS        250                 /* how late a deadline may be noticed */
#define OUTPUT_SIZE_ANY (64u * 1024)        /* an answer up to this size is kept whatever the others hold */

#define PEER_STATES PEER_GONE /* how many have a list */

/* What Kore gets to parse for each request. */
#define CANONICAL "GET / HTTP/1.1\r\nhost: gateway\r\n\r\n"

enum peer_state {
    PEER_FRESH,   /* connected, nothing has come yet */
    PEER_IDLE,    /* between two requests */
    PEER_HEAD,    /* a request's head is being read */
    PEER_BODY,    /* its body is */
    PEER_FLIGHT,  /* a request is being answered; nothing is read */
    PEER_SENDING, /* its answer is being written */
    PEER_CLOSING, /* the last answer is out: what still comes is thrown away until the client hangs up, too */
    PEER_GONE,    /* Kore is about to remove the connection; in no list */
};

struct peer {
    struct connection *connection;
    enum route_port port;
    enum peer_state state;
    uint64_t since_ms; /* when it entered the state */
    TAILQ_ENTRY(peer) link;
    struct flight *flight; /* with PEER_FLIGHT */
    struct guard guard;
    char *input; /* owned */
    size_t size, capacity;
    size_t discarded;
    bool continued; /* "100 Continue" was sent */
    bool drained;   /* nothing was left to read when the request was complete */
    bool last;      /* no request follows the one being answered */
};

TAILQ_HEAD(peer_list, peer);

/* One list a state: all in it have the same time, so the first is the first whose time is over. */
static struct peer_list peers[PEER_STATES];
static unsigned count;
static size_t input_size, output_size; /* of all together */
static struct kore_timer *kick_timer;
static bool draining;

static const uint64_t timeout_ms[PEER_STATES] = {
    [PEER_FRESH] = PEER_HEAD_TIMEOUT_MS,    [PEER_IDLE] = PEER_IDLE_TIMEOUT_MS, [PEER_HEAD] = PEER_HEAD_TIMEOUT_MS,
    [PEER_BODY] = PEER_BODY_TIMEOUT_MS,     [PEER_FLIGHT] = UINT64_MAX,         [PEER_SENDING] = PEER_SEND_TIMEOUT_MS,
    [PEER_CLOSING] = PEER_CLOSE_TIMEOUT_MS,
};

static void peer_enter(struct peer *peer, enum peer_state state)
{
    if (peer->state == PEER_GONE)
        return;
    TAILQ_REMOVE(&peers[peer->state], peer, link);
    peer->state = state;
    if (timeout_ms[state] != UINT64_MAX)
        peer->since_ms = kore_time_ms();
    TAILQ_INSERT_TAIL(&peers[state], peer, link);
}

struct peer *peer_of(const struct connection *connection)
{
    return connection == NULL || connection->state == CONN_STATE_DISCONNECTING ? NULL : connection->hdlr_extra;
}

const struct guard_request *peer_request(const struct peer *peer)
{
    return &peer->guard.request;
}

const char *peer_input(const struct peer *peer)
{
    return peer->input;
}

void peer_set_flight(struct peer *peer, struct flight *flight)
{
    peer->flight = flight;
    /* From here on the flag tells whether more came meanwhile: that saves asking the socket after the answer. */
    if (peer->drained)
        peer->connection->evt.flags &= ~KORE_EVENT_READ;
}

/* --- Kore's turn --- */

static void on_kick(void *arg, u_int64_t now)
{
    (void)arg;
    (void)now;
    kick_timer = NULL;
    http_process();
}

/*
 * Have Kore handle its requests before this turn ends.  It would do so by itself, but after the timers, so that what the
 * handlers send would wait for the next turn; and a request that is found while another is being handled would wait for
 * whatever wakes the worker next.
 */
static void kick(void)
{
    if (kick_timer == NULL)
        kick_timer = kore_timer_add(on_kick, 0, NULL, KORE_TIMER_ONESHOT);
}

/* --- writing --- */

/* Kore's own writes 8 KiB at a time. */
static int peer_write(struct connection *c, size_t size, size_t *written)
{
    ssize_t sent = send(c->fd, c->snb->buf + c->snb->s_off, c->snb->b_len - c->snb->s_off, MSG_NOSIGNAL);

    (void)size;
    *written = 0;
    if (sent >= 0) {
        *written = (size_t)sent;
        return KORE_RESULT_OK;
    }
    if (errno == EAGAIN)
        c->evt.flags &= ~KORE_EVENT_WRITE;
    return errno == EAGAIN || errno == EINTR ? KORE_RESULT_OK : KORE_RESULT_ERROR;
}

/* The answer has left, or its connection has. */
static int on_sent(struct netbuf *netbuf)
{
    output_size -= netbuf->b_len;
    free(netbuf->extra);
    return KORE_RESULT_OK;
}

bool peer_has_room(size_t size)
{
    return size <= OUTPUT_SIZE_ANY || (output_size < PEER_OUTPUT_SIZE_MAX && size < PEER_OUTPUT_SIZE_MAX - output_size);
}

/* Give back all of it. */
static void input_clear(struct peer *peer)
{
    input_size -= peer->capacity;
    free(peer->input);
    peer->input = NULL;
    peer->size = peer->capacity = 0;
}

static void peer_next(struct peer *peer);

/* The answer is out: on to the next request, or to the end. */
static void peer_sent(struct peer *peer)
{
    struct connection *c = peer->connection;

    if (c->rnb->buf == NULL) /* Kore's request took it */
        net_recv_reset(c, http_header_max, http_header_recv);
    c->http_timeout = 0;
    if (!peer->last) {
        peer_next(peer);
        return;
    }
    /* To close now, with bytes unread, would reset the connection, and the client could lose the answer. */
    shutdown(c->fd, SHUT_WR);
    peer_enter(peer, PEER_CLOSING);
    c->evt.flags |= KORE_EVENT_READ;
    if (!net_recv_flush(c))
        kore_connection_disconnect(c);
}

static void peer_flush(struct peer *peer)
{
    struct connection *c = peer->connection;

    if (!net_send_flush(c))
        kore_connection_disconnect(c);
    else if (peer->state == PEER_SENDING && TAILQ_EMPTY(&c->send_queue))
        peer_sent(peer);
}

void peer_answer(struct peer *peer, struct answer *answer)
{
    const struct guard_request *request = &peer->guard.request;
    struct netbuf *netbuf;
    struct rpc_bytes wire;
    struct answer_sending sending = {
        .without_body = request->method == GUARD_HEAD && peer->guard.refusal == NULL,
        .close = draining || peer->guard.refusal != NULL || !request->keep_alive,
        .say_keep_alive = request->http_1_0,
        .now_s = (int64_t)time(NULL),
    };

    peer->flight = NULL;
    peer->last = sending.close;
    if (peer->last) /* its client may take its time to go, while others wait for the room */
        input_clear(peer);
    if (!answer_finish(answer, &sending, &wire)) {
        kore_connection_disconnect(peer->connection);
        return;
    }
    peer_enter(peer, PEER_SENDING);
    output_size += wire.size;
    net_send_stream(peer->connection, (void *)(uintptr_t)wire.data, wire.size, on_sent, &netbuf);
    netbuf->extra = answer->text.data;
    answer->text = (struct rpc_text){0};
    peer->connection->evt.flags |= KORE_EVENT_WRITE;
    peer_flush(peer);
}

static void peer_refuse(struct peer *peer, const struct guard_refusal *refusal)
{
    struct answer answer = {0};

    rpc_log(RPC_LOG_DEBUG, "request refused", RPC_LOG_INT("status", refusal->status),
            RPC_LOG_TEXT("reason", refusal->message));
    peer->guard.refusal = refusal;
    metrics_count_answer(ROUTE_NONE, refusal->status, 0);
    if (refusal->status == 503)
        metrics_count_refusal(METRICS_BOUND_INPUT);
    answer.retry_after = refusal->status == 503;
    answer_error(&answer, refusal->status, refusal->code, rpc_bytes_of(refusal->message));
    peer->connection->evt.flags &= ~KORE_EVENT_READ;
    peer_answer(peer, &answer);
}

/* --- reading --- */

static bool input_resize(struct peer *peer, size_t capacity)
{
    char *input = realloc(peer->input, capacity);

    if (input == NULL)
        return false;
    input_size = input_size - peer->capacity + capacity;
    peer->input = input;
    peer->capacity = capacity;
    return true;
}

/*
 * Room behind what is there: twice as much each time; beyond INPUT_SIZE_KEEP, where there is a bound, all that the request
 * will have, at once.  So a request is refused when it gets there, or can be read to its end whoever comes after it.
 */
static bool input_grow(struct peer *peer)
{
    const struct guard_request *request = &peer->guard.request;
    size_t capacity = peer->capacity == 0 ? INPUT_SIZE_MIN : peer->capacity * 2;
    size_t whole = (size_t)request->head_size + request->body_size;

    if (peer->size < peer->capacity)
        return true;
    if (request->head_size > 0 && (capacity > whole || capacity > INPUT_SIZE_KEEP))
        capacity = whole;
    if (capacity > INPUT_SIZE_KEEP && input_size - peer->capacity + capacity > PEER_INPUT_SIZE_MAX)
        return false;
    return input_resize(peer, capacity);
}

/* Forget the request that was answered, keep what came behind it. */
static void input_consume(struct peer *peer)
{
    size_t used = (size_t)peer->guard.request.head_size + peer->guard.request.body_size;

    peer->size -= used;
    if (peer->size > 0)
        memmove(peer->input, peer->input + used, peer->size);
    if (peer->capacity > INPUT_SIZE_KEEP && peer->size <= INPUT_SIZE_MIN)
        (void)input_resize(peer, INPUT_SIZE_MIN);
    peer->guard = (struct guard){0};
    peer->continued = false;
}

static void peer_next(struct peer *peer)
{
    struct connection *c = peer->connection;

    input_consume(peer);
    peer_enter(peer, PEER_IDLE);
    if (peer->size > 0) /* what is here already raises no event any more */
        c->evt.flags |= KORE_EVENT_READ;
    if (!net_recv_flush(c))
        kore_connection_disconnect(c);
}

static void peer_say_continue(struct peer *peer)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";

    peer->continued = true;
    net_send_queue(peer->connection, text, sizeof(text) - 1);
    peer->connection->evt.flags |= KORE_EVENT_WRITE;
    peer_flush(peer);
}

enum progress { PROGRESS_MORE, PROGRESS_WHOLE, PROGRESS_REFUSED };

/* How far the request has come that begins at the input's first byte. */
static enum progress peer_check(struct peer *peer)
{
    const struct guard_request *request = &peer->guard.request;

    if (peer->size == 0)
        return PROGRESS_MORE;
    switch (guard_check(&peer->guard, (struct rpc_bytes){peer->input, peer->size})) {
    case GUARD_MORE:
        if (peer->state != PEER_HEAD)
            peer_enter(peer, PEER_HEAD);
        return PROGRESS_MORE;
    case GUARD_REFUSED:
        peer_refuse(peer, peer->guard.refusal);
        return PROGRESS_REFUSED;
    case GUARD_OK:
        break;
    }
    if (peer->size >= (size_t)request->head_size + request->body_size)
        return PROGRESS_WHOLE;
    if (peer->state != PEER_BODY)
        peer_enter(peer, PEER_BODY);
    if (request->expects_continue && !peer->continued && peer->size == request->head_size)
        peer_say_continue(peer);
    return PROGRESS_MORE;
}

static int peer_discard(struct peer *peer)
{
    static char nowhere[DISCARD_SIZE];
    ssize_t got;

    while ((got = recv(peer->connection->fd, nowhere, sizeof(nowhere), 0)) > 0 && peer->discarded < DISCARD_MAX)
        peer->discarded += (size_t)got;
    peer->connection->evt.flags &= ~KORE_EVENT_READ;
    return got == -1 && (errno == EAGAIN || errno == EINTR) ? KORE_RESULT_OK : KORE_RESULT_ERROR;
}

/* Give Kore its request; its parser runs when this returns. */
static void peer_hand_over(struct peer *peer, size_t *bytes)
{
    struct netbuf *netbuf = peer->connection->rnb;

    memcpy(netbuf->buf, CANONICAL, sizeof(CANONICAL) - 1);
    netbuf->s_off = 0;
    *bytes = sizeof(CANONICAL) - 1;
    peer_enter(peer, PEER_FLIGHT);
    kick();
}

/* What has come of the request, as far as there is room for it.  An error when the client has gone. */
static int peer_receive(struct peer *peer)
{
    size_t room = peer->capacity - peer->size;
    ssize_t got = recv(peer->connection->fd, peer->input + peer->size, room, 0);

    if (got == -1 && errno == EINTR)
        return KORE_RESULT_OK;
    if (got == 0 || (got == -1 && errno != EAGAIN))
        return KORE_RESULT_ERROR;
    /* The socket is edge-triggered: less than asked for means that more will raise a new event. */
    peer->drained = got == -1 || (size_t)got < room;
    peer->size += got == -1 ? 0 : (size_t)got;
    return KORE_RESULT_OK;
}

static int peer_stop_reading(struct peer *peer)
{
    peer->connection->evt.flags &= ~KORE_EVENT_READ;
    return KORE_RESULT_OK;
}

/* Read until a request is whole, or refused, or nothing is left to read. */
static int peer_read_request(struct peer *peer, size_t *bytes)
{
    static const struct guard_refusal too_many = {503, "SERVICE_UNAVAILABLE", "Too many requests are being read."};

    for (;;) {
        switch (peer_check(peer)) {
        case PROGRESS_WHOLE:
            peer_hand_over(peer, bytes);
            return KORE_RESULT_OK;
        case PROGRESS_REFUSED:
            return KORE_RESULT_OK;
        case PROGRESS_MORE:
            break;
        }
        if (peer->drained || peer->connection->state == CONN_STATE_DISCONNECTING)
            return peer_stop_reading(peer);
        if (!input_grow(peer)) {
            peer_refuse(peer, &too_many);
            return KORE_RESULT_OK;
        }
        if (!peer_receive(peer))
            return KORE_RESULT_ERROR;
    }
}

/* Kore's read hook: what it sees of the connection. */
static int peer_read(struct connection *c, size_t *bytes)
{
    struct peer *peer = c->hdlr_extra;

    *bytes = 0;
    peer->drained = false;
    if (peer->state == PEER_CLOSING)
        return peer_discard(peer);
    if (peer->state == PEER_SENDING) /* a refusal that has not left yet: it would be given again for each packet */
        return peer_stop_reading(peer);
    return peer_read_request(peer, bytes);
}

/* --- Kore's other hooks --- */

static int peer_handle(struct connection *c)
{
    struct peer *peer = c->hdlr_extra;

    if (!kore_connection_handle(c))
        return KORE_RESULT_ERROR;
    if (c->state != CONN_STATE_DISCONNECTING && peer->state == PEER_SENDING && TAILQ_EMPTY(&c->send_queue))
        peer_sent(peer);
    return KORE_RESULT_OK;
}

/* The peer itself is freed by Kore, with the connection. */
static void peer_on_disconnect(struct connection *c)
{
    struct peer *peer = c->hdlr_extra;

    if (peer->flight != NULL)
        flight_abandon(peer->flight);
    peer->flight = NULL;
    input_clear(peer);
    TAILQ_REMOVE(&peers[peer->state], peer, link);
    peer->state = PEER_GONE;
    count--;
}

enum route_port peer_port(const struct peer *peer)
{
    return peer->port;
}

void peer_connect(struct connection *c, enum route_port port)
{
    struct peer *peer = kore_calloc(1, sizeof(*peer));

    peer->connection = c;
    peer->port = port;
    peer->state = PEER_FRESH;
    peer->since_ms = kore_time_ms();
    TAILQ_INSERT_TAIL(&peers[PEER_FRESH], peer, link);
    count++;
    c->proto = CONN_PROTO_HTTP;
    c->http_timeout = 0; /* deadlines are ours, and so is what a client is told then */
    c->idle_timer.length = UINT64_MAX;
    c->evt.flags = 0; /* Kore leaves what the last connection in this place had */
    c->hdlr_extra = peer;
    c->read = peer_read;
    c->write = peer_write;
    c->handle = peer_handle;
    c->disconnect = peer_on_disconnect;
    net_recv_queue(c, http_header_max, NETBUF_CALL_CB_ALWAYS, http_header_recv);
}

/* --- all of them --- */

static void peer_expire(struct peer *peer)
{
    static const struct guard_refusal too_slow = {408, "REQUEST_TIMEOUT", "The request did not arrive in time."};

    switch (peer->state) {
    case PEER_HEAD:
    case PEER_BODY:
        peer_refuse(peer, &too_slow);
        break;
    case PEER_FRESH:
    case PEER_IDLE:
    case PEER_SENDING:
    case PEER_CLOSING:
        kore_connection_disconnect(peer->connection);
        break;
    case PEER_FLIGHT:
    case PEER_GONE:
        break;
    }
}

static void on_sweep(void *arg, u_int64_t now_ms)
{
    (void)arg;
    for (int state = 0; state < PEER_STATES; state++) {
        struct peer *peer;

        /* Each expired one leaves its list. */
        while ((peer = TAILQ_FIRST(&peers[state])) != NULL && peer->since_ms < now_ms &&
               now_ms - peer->since_ms >= timeout_ms[state])
            peer_expire(peer);
    }
}

void peers_start(void)
{
    for (int state = 0; state < PEER_STATES; state++)
        TAILQ_INIT(&peers[state]);
    kore_timer_add(on_sweep, SWEEP_MS, NULL, 0);
}

bool peers_evict(void)
{
    struct peer *peer = TAILQ_FIRST(&peers[PEER_IDLE]);

    if (peer == NULL)
        return false;
    kore_connection_disconnect(peer->connection);
    return true;
}

void peers_drain(void)
{
    draining = true;
}

void peers_close_idle(void)
{
    struct peer *peer;

    while ((peer = TAILQ_FIRST(&peers[PEER_IDLE])) != NULL || (peer = TAILQ_FIRST(&peers[PEER_FRESH])) != NULL)
        kore_connection_disconnect(peer->connection);
}

unsigned peers_count(void)
{
    return count;
}

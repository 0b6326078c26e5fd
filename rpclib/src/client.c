#include <assert.h>
#include <stdlib.h>

#include "amqp/frame.h"
#include "callee.h"
#include "calls.h"
#include "connection.h"
#include "context.h"
#include "rpclib/client.h"
#include "rpclib/log.h"
#include "session.h"
#include "uuid.h"
#include "wire.h"

#define CALLS_MAX_DEFAULT  1000
#define REPLY_CONSUMER_TAG "replies"

struct rpc_client {
    struct session session;
    struct rpc_loop *loop;
    char *name;
    char *exchange;
    rpc_loop_fn *on_ready;
    void *arg;
    struct calls *calls;
    bool batches; /* several calls may share a message */
    struct callees callees;
    char reply_to[RPC_UUID_SIZE]; /* a new one for each channel: the old queue may still be held by a dead link */
    struct rpc_loop_timer *timer;
    uint64_t timer_at_ms;        /* when it will run; UINT64_MAX while it is stopped */
    struct rpc_loop_timer *hold; /* ends the waiting of calls for one another */
    bool holds;                  /* it runs */
    struct rpc_text body, properties;
    struct rpc_client_stats stats;
};

/* --- the end of a call --- */

static void client_forget(struct rpc_client *client, struct call *call)
{
    const struct callee *callee = call->callee;

    callee_call_ended(call);
    calls_remove(client->calls, call);
    if (callee != NULL && callee_may_leave(callee) && session_channel(&client->session) != NULL)
        session_flush_later(&client->session);
}

static void client_end(struct rpc_client *client, struct call *call, enum rpc_status status,
                       const struct rpc_reply *reply)
{
    rpc_reply_fn *done = call->done;
    void *arg = call->arg;

    if (call->again && rpc_status_nothing_done(status))
        status = RPC_LOST;
    client_forget(client, call);
    done(status, reply, arg);
}

/* --- a message to a service: a call, or a batch of them --- */

struct outgoing {
    char key[WIRE_KEY_SIZE], expiration[WIRE_NUMBER_SIZE];
    amqp_basic_properties_t properties;
    struct mq_publish publish;
};

/* The texts and the body are lent until it is published.  False: a name is too long. */
static bool outgoing_init(struct outgoing *out, const struct rpc_client *client, const struct rpc_request *request,
                          const char *correlation_id, amqp_table_t headers, struct rpc_bytes body)
{
    size_t key_size = wire_request_key(out->key, request->service, request->method);

    if (key_size == 0)
        return false;
    wire_properties(&out->properties, WIRE_TRANSIENT);
    out->properties._flags |= AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_EXPIRATION_FLAG;
    out->properties.correlation_id = amqp_cstring_bytes(correlation_id);
    out->properties.reply_to = amqp_cstring_bytes(client->reply_to);
    out->properties.expiration = (amqp_bytes_t){wire_expiration(out->expiration, request->timeout_ms), out->expiration};
    wire_properties_add_headers(&out->properties, headers);
    if (client->batches)
        batch_tell_taken(&out->properties);
    out->publish = (struct mq_publish){.exchange = rpc_bytes_of(client->exchange),
                                       .routing_key = {out->key, key_size},
                                       .mandatory = true,
                                       .properties = &out->properties,
                                       .body = body};
    return true;
}

/* --- batches: what was gathered in a turn, on its way --- */

static enum rpc_status client_publish_alone(struct rpc_client *client, const struct batch_entry *entry)
{
    return mq_publish(session_channel(&client->session),
                      &(struct mq_publish){.exchange = rpc_bytes_of(client->exchange),
                                           .routing_key = entry->key,
                                           .mandatory = true,
                                           .raw_properties = entry->properties,
                                           .body = entry->body});
}

static enum rpc_status client_publish_batch(struct rpc_client *client, struct callee_batch *batch)
{
    const struct rpc_request request = {
        .service = batch->callee->name, .method = BATCH_METHOD, .timeout_ms = batch->timeout_min_ms};
    amqp_table_entry_t header = batch_header(&batch->batch);
    struct outgoing out;

    rpc_uuid4(batch->correlation_id);
    if (!outgoing_init(&out, client, &request, batch->correlation_id,
                       (amqp_table_t){.num_entries = 1, .entries = &header}, batch_body(&batch->batch)))
        return RPC_TOO_LARGE;
    return mq_publish(session_channel(&client->session), &out.publish);
}

/*
 * Send the calls that are still in flight alone.  One that the output has no room for ends here: nothing of it was sent.
 * (After a refusal a message may outlive its call by the time that the refusal took.)
 */
static void client_send_alone(struct rpc_client *client, struct callee_batch *batch)
{
    struct batch_reader reader = batch_read(&batch->batch);
    bool again = batch->list != NULL; /* among those under way */
    struct batch_entry entry;

    for (unsigned i = 0; batch_next(&reader, &entry); i++) {
        struct call *call = calls_find_id(client->calls, batch->calls[i]);
        enum rpc_status status;

        if (call == NULL)
            continue; /* cancelled, or ended by the callback of another */
        call->again = again;
        callee_call_alone(call);
        call->position = session_output_appended(&client->session);
        status = session_status(&client->session);
        if (status == RPC_OK)
            status = client_publish_alone(client, &entry);
        if (status != RPC_OK)
            client_end(client, call, status, NULL);
    }
}

static void client_mark_sent(struct rpc_client *client, struct callee_batch *batch, uint64_t position)
{
    for (unsigned i = 0; i < batch->batch.count; i++) {
        struct call *call = calls_find_id(client->calls, batch->calls[i]);

        if (call != NULL)
            call->position = position;
    }
    callees_sent(&client->callees, batch);
}

/* The end of the turn. */
static void client_on_flush(void *arg)
{
    struct rpc_client *client = arg;
    struct callee_batch *batch;

    if (callees_leave(&client->callees) && !client->holds) {
        client->holds = true;
        rpc_loop_timer_start(client->hold, CALLEE_HOLD_MS);
    }
    while ((batch = callees_take(&client->callees)) != NULL) {
        uint64_t position = session_output_appended(&client->session);

        if (batch->batch.count > 1 && session_status(&client->session) == RPC_OK &&
            client_publish_batch(client, batch) == RPC_OK)
            client_mark_sent(client, batch, position);
        else
            client_send_alone(client, batch);
        callee_batch_release(batch);
    }
}

static void client_on_held(void *arg)
{
    struct rpc_client *client = arg;

    client->holds = false;
    callees_leave_all(&client->callees);
    if (session_channel(&client->session) != NULL)
        session_flush_later(&client->session);
}

/*
 * An answer to the batch itself: its receiver does not know what that is, and has done nothing.  One that had it before,
 * and lost its link, may have.
 */
static bool client_on_batch_refused(struct rpc_client *client, struct rpc_bytes id)
{
    struct callee_batch *batch = callees_find_sent(&client->callees, id);

    if (batch == NULL)
        return false;
    rpc_log(RPC_LOG_INFO, "a service takes no batches; its calls go alone for a while",
            RPC_LOG_TEXT("service", batch->callee->name));
    callee_refused(batch->callee, rpc_loop_now_ms(client->loop));
    callee_batch_hold(batch);
    client_send_alone(client, batch);
    callee_batch_release(batch);
    return true;
}

static void client_end_batch(struct rpc_client *client, struct callee_batch *batch, enum rpc_status status)
{
    callee_batch_hold(batch);
    for (unsigned i = 0; i < batch->batch.count; i++) {
        struct call *call = calls_find_id(client->calls, batch->calls[i]);

        if (call != NULL)
            client_end(client, call, status, NULL);
    }
    callee_batch_release(batch);
}

/* --- answers: what came for a call --- */

static void client_on_answer(struct rpc_client *client, struct call *call, struct rpc_bytes body, bool takes_batches)
{
    struct wire_answer answer;
    enum rpc_status status = wire_answer_parse(&answer, body);

    client->stats.replies++;
    if (client->batches && call->callee != NULL)
        callee_answered(call->callee, takes_batches, rpc_loop_now_ms(client->loop));
    if (status == RPC_BAD_REPLY)
        rpc_log(RPC_LOG_ERROR, "an answer is no Nameko answer", RPC_LOG_TEXT("correlation_id", call->correlation_id),
                RPC_LOG_INT("size", body.size));
    client_end(client, call, status, status == RPC_OK || status == RPC_REMOTE_ERROR ? &answer.reply : NULL);
    wire_answer_clear(&answer);
}

static void client_on_batch(struct rpc_client *client, struct batch_reader reader)
{
    struct batch_entry entry;

    if (!batch_is_sound(reader)) {
        rpc_log(RPC_LOG_ERROR, "a batch of answers cannot be read", RPC_LOG_INT("size", reader.bodies.size));
        return;
    }
    while (batch_next(&reader, &entry)) {
        struct call *call = calls_find(client->calls, entry.key);

        if (call != NULL)
            client_on_answer(client, call, entry.body, true);
        else
            client->stats.late_replies++;
    }
}

static void client_on_delivery(const struct mq_delivery *delivery, void *arg)
{
    struct rpc_client *client = arg;
    const amqp_basic_properties_t *properties = delivery->message.properties;
    struct rpc_bytes id = FRAME_PROPERTY(properties, CORRELATION_ID, correlation_id);
    struct call *call = calls_find(client->calls, id);
    struct batch_reader batch;

    if (call != NULL)
        client_on_answer(client, call, delivery->message.body, batch_sender_takes(properties));
    else if (batch_open(&batch, &delivery->message))
        client_on_batch(client, batch);
    else if (!client_on_batch_refused(client, id))
        client->stats.late_replies++;
}

/* A message that nobody is bound for comes back; other returns do not exist without `immediate`. */
static void client_on_return(const struct mq_message *message, uint16_t code, void *arg)
{
    struct rpc_client *client = arg;
    struct rpc_bytes id = FRAME_PROPERTY(message->properties, CORRELATION_ID, correlation_id);
    struct call *call = calls_find(client->calls, id);
    struct callee_batch *batch = callees_find_sent(&client->callees, id);

    (void)code;
    if (call != NULL) {
        client->stats.returned++;
        client_end(client, call, RPC_UNKNOWN_SERVICE, NULL);
    } else if (batch != NULL) {
        client->stats.returned += batch->batch.count;
        client_end_batch(client, batch, RPC_UNKNOWN_SERVICE);
    } /* else it is cancelled, or past its deadline */
}

static void client_on_down(void *arg)
{
    struct rpc_client *client = arg;
    struct call *call;

    while ((call = calls_first(client->calls)) != NULL) {
        bool unsent = call->position == CALL_NOT_APPENDED || session_never_left(&client->session, call->position);

        client->stats.lost++;
        client_end(client, call, unsent ? RPC_OFFLINE : RPC_LOST, NULL);
    }
    callees_forget(&client->callees);
}

static void client_arm(struct rpc_client *client)
{
    const struct call *first = calls_first(client->calls);
    uint64_t now_ms;

    if (first == NULL || first->deadline_ms >= client->timer_at_ms)
        return; /* it runs early enough; a run that finds nothing due costs little */
    now_ms = rpc_loop_now_ms(client->loop);
    client->timer_at_ms = first->deadline_ms;
    rpc_loop_timer_start(client->timer, first->deadline_ms > now_ms ? first->deadline_ms - now_ms : 0);
}

static void client_on_timer(void *arg)
{
    struct rpc_client *client = arg;
    uint64_t now_ms = rpc_loop_now_ms(client->loop);
    struct call *call;

    client->timer_at_ms = UINT64_MAX;
    while ((call = calls_first(client->calls)) != NULL && call->deadline_ms <= now_ms) {
        client->stats.timeouts++;
        if (call->shared != NULL) /* whoever got it may be another one now: let its next answer tell */
            call->callee->takes_batches = false;
        client_end(client, call, RPC_TIMEOUT, NULL);
    }
    client_arm(client);
}

/* --- calls --- */

/* Have the call wait for others until the end of the turn.  False: it goes alone. */
static bool client_gather(struct rpc_client *client, const struct outgoing *out, int timeout_ms, struct call *call)
{
    bool gathered;

    if (frame_append_properties(&client->properties, &out->properties, BATCH_SIZE_MAX) != RPC_OK)
        return false;
    gathered = callee_gather(call->callee, call, calls_id(client->calls, call),
                             &(struct batch_entry){.key = out->publish.routing_key,
                                                   .properties = rpc_text_bytes(&client->properties),
                                                   .body = out->publish.body},
                             timeout_ms);
    rpc_text_reset(&client->properties, RPC_TEXT_KEEP_SIZE);
    if (gathered)
        session_flush_later(&client->session);
    return gathered;
}

static enum rpc_status client_send(struct rpc_client *client, const struct rpc_request *request, struct call *call)
{
    struct mq_channel *channel = session_channel(&client->session);
    struct outgoing out;

    if (!wire_request(&client->body, request->args, request->kwargs))
        return RPC_NO_MEMORY;
    if (!outgoing_init(&out, client, request, call->correlation_id, context_headers(request->context),
                       rpc_text_bytes(&client->body)))
        return RPC_TOO_LARGE;
    if (client->batches)
        call->callee = callees_get(&client->callees, request->service);
    if (call->callee != NULL && call->callee->takes_batches && mq_would_take(channel, &out.publish) == RPC_OK &&
        client_gather(client, &out, request->timeout_ms, call))
        return RPC_OK;
    call->position = session_output_appended(&client->session);
    return mq_publish(channel, &out.publish);
}

enum rpc_status rpc_call(struct rpc_client *client, const struct rpc_request *request, rpc_reply_fn *done, void *arg,
                         rpc_call_id *id)
{
    enum rpc_status status = session_status(&client->session);
    struct call *call;

    assert(done != NULL);
    if (status != RPC_OK)
        return status;
    if (request->timeout_ms < 1) /* the broker would close the channel over such an expiration */
        return RPC_TIMEOUT;
    call = calls_add(client->calls, rpc_loop_now_ms(client->loop) + (uint64_t)request->timeout_ms, done, arg);
    if (call == NULL)
        return RPC_BUSY;
    status = client_send(client, request, call);
    rpc_text_reset(&client->body, RPC_TEXT_KEEP_SIZE);
    if (status != RPC_OK) {
        client_forget(client, call);
        return status;
    }
    client->stats.calls++;
    if (id != NULL)
        *id = calls_id(client->calls, call);
    client_arm(client);
    return RPC_OK;
}

void rpc_client_cancel(struct rpc_client *client, rpc_call_id id)
{
    struct call *call = calls_find_id(client->calls, id);

    if (call != NULL)
        client_forget(client, call);
}

/* --- the reply queue --- */

static void client_setup(struct mq_channel *channel, void *arg)
{
    struct rpc_client *client = arg;
    char queue[WIRE_NAME_SIZE];

    rpc_uuid4(client->reply_to);
    snprintf(queue, sizeof(queue), "rpc.reply-%.*s-%s", RPC_NAME_SIZE_MAX, client->name, client->reply_to);
    mq_exchange_declare(channel, client->exchange);
    mq_queue_declare(channel, &(struct mq_queue){.name = queue, .exclusive = true, .auto_delete = true});
    mq_queue_bind(channel, queue, client->exchange, client->reply_to);
    mq_consume(channel, queue, REPLY_CONSUMER_TAG, true);
}

static void client_on_up(void *arg)
{
    struct rpc_client *client = arg;

    if (client->on_ready != NULL)
        client->on_ready(client->arg);
}

static const struct session_events client_session_events = {
    .setup = client_setup,
    .on_up = client_on_up,
    .on_down = client_on_down,
    .on_delivery = client_on_delivery,
    .on_return = client_on_return,
    .on_flush = client_on_flush,
};

/* --- life --- */

struct rpc_client *rpc_client_new(struct rpc_connection *connection, const struct rpc_client_options *options)
{
    struct rpc_client *client = calloc(1, sizeof(*client));

    if (client == NULL)
        return NULL;
    client->loop = connection_loop(connection);
    client->timer_at_ms = UINT64_MAX;
    client->on_ready = options->on_ready;
    client->arg = options->arg;
    client->batches = !options->one_call_a_message;
    client->name = strdup(options->name);
    client->exchange = strdup(options->exchange != NULL ? options->exchange : WIRE_EXCHANGE);
    client->calls = calls_new(options->calls_max > 0 ? options->calls_max : CALLS_MAX_DEFAULT);
    client->timer = rpc_loop_timer_new(client->loop, client_on_timer, client);
    client->hold = rpc_loop_timer_new(client->loop, client_on_held, client);
    if (client->name == NULL || client->exchange == NULL || client->calls == NULL || client->timer == NULL ||
        client->hold == NULL || !session_init(&client->session, connection, "client", &client_session_events, client)) {
        rpc_client_free(client);
        return NULL;
    }
    return client;
}

void rpc_client_free(struct rpc_client *client)
{
    struct call *call;

    if (client == NULL)
        return;
    session_clear(&client->session);
    while (client->calls != NULL && (call = calls_first(client->calls)) != NULL)
        client_end(client, call, RPC_CANCELLED, NULL);
    calls_free(client->calls);
    rpc_loop_timer_free(client->timer);
    rpc_loop_timer_free(client->hold);
    callees_clear(&client->callees);
    rpc_text_clear(&client->body);
    rpc_text_clear(&client->properties);
    free(client->name);
    free(client->exchange);
    free(client);
}

bool rpc_client_ready(const struct rpc_client *client)
{
    return session_status(&client->session) == RPC_OK;
}

uint32_t rpc_client_in_flight(const struct rpc_client *client)
{
    return calls_count(client->calls);
}

void rpc_client_stats(const struct rpc_client *client, struct rpc_client_stats *stats)
{
    *stats = client->stats;
}

#include <stdio.h>
#include <stdlib.h>

#include "amqp/frame.h"
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
    char reply_to[CORRELATION_ID_SIZE]; /* a new one for each channel: the old queue may still be held by a dead link */
    struct rpc_loop_timer *timer;
    uint64_t timer_at_ms; /* when it will run; UINT64_MAX while it is stopped */
    struct buffer body;
    struct rpc_client_stats stats;
};

/* --- answers: each call ends in exactly one of these --- */

static void client_end(struct rpc_client *client, struct call *call, enum rpc_status status,
                       const struct rpc_reply *reply)
{
    rpc_reply_fn *done = call->done;
    void *arg = call->arg;

    calls_remove(client->calls, call);
    done(status, reply, arg);
}

static void client_on_delivery(const struct mq_delivery *delivery, void *arg)
{
    struct rpc_client *client = arg;
    const amqp_basic_properties_t *properties = delivery->message.properties;
    struct call *call = NULL;
    struct wire_answer answer;
    enum rpc_status status;

    if (properties != NULL && (properties->_flags & AMQP_BASIC_CORRELATION_ID_FLAG))
        call = calls_find(client->calls, frame_text(properties->correlation_id));
    if (call == NULL) {
        client->stats.late_replies++;
        return;
    }
    client->stats.replies++;
    status = wire_answer_parse(&answer, delivery->message.body);
    if (status == RPC_BAD_REPLY)
        rpc_log(RPC_LOG_ERROR, "an answer is no Nameko answer", RPC_LOG_TEXT("correlation_id", call->correlation_id),
                RPC_LOG_INT("size", delivery->message.body.size));
    client_end(client, call, status, status == RPC_BAD_REPLY ? NULL : &answer.reply);
    wire_answer_clear(&answer);
}

/* A message that nobody is bound for comes back; other returns do not exist without `immediate`. */
static void client_on_return(const struct mq_message *message, uint16_t code, void *arg)
{
    struct rpc_client *client = arg;
    struct call *call = NULL;

    (void)code;
    if (message->properties != NULL && (message->properties->_flags & AMQP_BASIC_CORRELATION_ID_FLAG))
        call = calls_find(client->calls, frame_text(message->properties->correlation_id));
    if (call == NULL)
        return; /* cancelled, or past its deadline */
    client->stats.returned++;
    client_end(client, call, RPC_UNKNOWN_SERVICE, NULL);
}

static void client_on_down(void *arg)
{
    struct rpc_client *client = arg;
    struct call *call;

    while ((call = calls_first(client->calls)) != NULL) {
        bool unsent = session_never_left(&client->session, call->position);

        client->stats.lost++;
        client_end(client, call, unsent ? RPC_OFFLINE : RPC_LOST, NULL);
    }
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
        client_end(client, call, RPC_TIMEOUT, NULL);
    }
    client_arm(client);
}

/* --- calls --- */

static enum rpc_status client_publish(struct rpc_client *client, const struct rpc_request *request,
                                      const struct call *call)
{
    char key[WIRE_KEY_SIZE], expiration[WIRE_NUMBER_SIZE];
    size_t key_size = wire_request_key(key, request->service, request->method);
    amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
                  AMQP_BASIC_PRIORITY_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG |
                  AMQP_BASIC_EXPIRATION_FLAG,
        .content_type = amqp_cstring_bytes(WIRE_CONTENT_TYPE),
        .content_encoding = amqp_cstring_bytes(WIRE_ENCODING),
        .delivery_mode = WIRE_TRANSIENT,
        .correlation_id = amqp_cstring_bytes(call->correlation_id),
        .reply_to = amqp_cstring_bytes(client->reply_to),
        .expiration = {wire_expiration(expiration, request->timeout_ms), expiration},
        .headers = context_headers(request->context),
    };

    if (key_size == 0)
        return RPC_TOO_LARGE;
    if (properties.headers.num_entries > 0)
        properties._flags |= AMQP_BASIC_HEADERS_FLAG;
    return mq_publish(session_channel(&client->session),
                      &(struct mq_publish){.exchange = rpc_bytes_of(client->exchange),
                                           .routing_key = {key, key_size},
                                           .mandatory = true,
                                           .properties = &properties,
                                           .body = buffer_bytes(&client->body)});
}

enum rpc_status rpc_call(struct rpc_client *client, const struct rpc_request *request, rpc_reply_fn *done, void *arg,
                         rpc_call_id *id)
{
    enum rpc_status status = session_status(&client->session);
    struct call *call;

    if (status != RPC_OK)
        return status;
    if (request->timeout_ms < 1) /* the broker would close the channel over such an expiration */
        return RPC_TIMEOUT;
    call = calls_add(client->calls, rpc_loop_now_ms(client->loop) + (uint64_t)request->timeout_ms, done, arg);
    if (call == NULL)
        return RPC_BUSY;
    call->position = session_output_appended(&client->session);
    status = wire_request(&client->body, request->args, request->kwargs) ? client_publish(client, request, call)
                                                                         : RPC_NO_MEMORY;
    buffer_consume(&client->body, buffer_size(&client->body));
    if (status != RPC_OK) {
        calls_remove(client->calls, call);
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
        calls_remove(client->calls, call);
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
    client->name = strdup(options->name);
    client->exchange = strdup(options->exchange != NULL ? options->exchange : WIRE_EXCHANGE);
    client->calls = calls_new(options->calls_max > 0 ? options->calls_max : CALLS_MAX_DEFAULT);
    client->timer = rpc_loop_timer_new(client->loop, client_on_timer, client);
    if (client->name == NULL || client->exchange == NULL || client->calls == NULL || client->timer == NULL ||
        !session_init(&client->session, connection, "client", &client_session_events, client)) {
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
    buffer_clear(&client->body);
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

/* One request: from its delivery to its answer. */
#include "incoming.h"

#include <stdio.h>
#include <stdlib.h>

#include "amqp/frame.h"
#include "connection.h"
#include "context.h"
#include "python.h"
#include "rpclib/log.h"
#include "uuid.h"
#include "wire.h"

#define EXC_PATH_SIZE     (RPC_NAME_SIZE_MAX + 128)
#define EXPIRATION_DIGITS 15

/* Requests that came in one message, which is settled when the last of them is. */
struct incoming_batch {
    struct taken taken; /* first: the consumer frees it */
    unsigned open;
    bool requeue; /* one of them could not be answered: all come again */
};

struct rpc_incoming {
    struct taken taken;           /* first: the consumer frees it; unused in a batch */
    struct incoming_batch *batch; /* NULL: it came alone */
    struct rpc_incoming *next;    /* among the answers that wait, or are gone */
    bool unsent;                  /* of the latter: it could not be sent */
    struct rpc_service *service;
    const struct rpc_method *method; /* NULL: none of that name */
    struct rpc_context *context;     /* made when it is asked for */
    uint64_t deadline_ms;
    struct envelope envelope;
    char texts[];
};

/* --- envelope --- */

static struct rpc_bytes property(const amqp_basic_properties_t *properties, amqp_flags_t flag, amqp_bytes_t value)
{
    return properties->_flags & flag ? frame_text(value) : rpc_bytes_of("");
}

#define PROPERTY(message, FLAG, field) \
    property((message)->properties, AMQP_BASIC_##FLAG##_FLAG, (message)->properties->field)

size_t envelope_size(const struct mq_message *message)
{
    return PROPERTY(message, REPLY_TO, reply_to).size + message->raw_properties.size +
           PROPERTY(message, CORRELATION_ID, correlation_id).size + 1 +
           PROPERTY(message, CONTENT_TYPE, content_type).size + 1;
}

struct rpc_bytes envelope_keep(char **room, struct rpc_bytes bytes)
{
    struct rpc_bytes kept = {*room, bytes.size};

    if (bytes.size > 0)
        memcpy(*room, bytes.data, bytes.size);
    *room += bytes.size;
    return kept;
}

static const char *keep_text(char **room, struct rpc_bytes bytes)
{
    const char *text = envelope_keep(room, bytes).data;

    *(*room)++ = '\0';
    return text;
}

void envelope_copy(struct envelope *out, char *room, const struct mq_delivery *delivery)
{
    const struct mq_message *message = &delivery->message;

    out->reply_to = envelope_keep(&room, PROPERTY(message, REPLY_TO, reply_to));
    out->raw_properties = envelope_keep(&room, message->raw_properties);
    out->correlation_id = keep_text(&room, PROPERTY(message, CORRELATION_ID, correlation_id));
    out->content_type = keep_text(&room, PROPERTY(message, CONTENT_TYPE, content_type));
    out->redelivered = delivery->redelivered;
    out->takes_batches = batch_sender_takes(message->properties);
}

const char *message_unreadable(const struct mq_message *message)
{
    if (message->oversized)
        return "it is too large";
    if (!wire_is_json(PROPERTY(message, CONTENT_TYPE, content_type)))
        return "its content type is not JSON";
    return NULL;
}

/* --- letting go --- */

/* NULL: the service is gone. */
static struct consumer *incoming_consumer(const struct rpc_incoming *request)
{
    return request->batch != NULL ? request->batch->taken.consumer : request->taken.consumer;
}

static void batch_release(struct incoming_batch *batch)
{
    if (--batch->open > 0)
        return;
    if (batch->requeue)
        consumer_reject(&batch->taken, true);
    else
        consumer_done(&batch->taken);
}

static void incoming_finish(struct rpc_incoming *request, bool answered)
{
    struct incoming_batch *batch = request->batch;

    rpc_context_free(request->context);
    if (batch != NULL) {
        free(request);
        batch->requeue |= !answered;
        batch_release(batch);
    } else if (answered)
        consumer_done(&request->taken);
    else
        consumer_reject(&request->taken, true);
}

static enum rpc_status incoming_publish(const struct rpc_incoming *request, struct mq_channel *channel,
                                        struct rpc_bytes body)
{
    const struct envelope *envelope = &request->envelope;
    amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
                  AMQP_BASIC_PRIORITY_FLAG,
        .content_type =
            amqp_cstring_bytes(envelope->content_type[0] != '\0' ? envelope->content_type : WIRE_CONTENT_TYPE),
        .content_encoding = amqp_cstring_bytes(WIRE_ENCODING),
        .delivery_mode = WIRE_TRANSIENT,
        .correlation_id = amqp_cstring_bytes(envelope->correlation_id),
        .app_id = amqp_cstring_bytes(BATCH_APP_ID),
    };

    if (envelope->correlation_id[0] != '\0')
        properties._flags |= AMQP_BASIC_CORRELATION_ID_FLAG;
    if (envelope->takes_batches)
        properties._flags |= AMQP_BASIC_APP_ID_FLAG;
    return mq_publish(channel, &(struct mq_publish){.exchange = rpc_bytes_of(request->service->exchange),
                                                    .routing_key = envelope->reply_to,
                                                    .though_blocked = true,
                                                    .properties = &properties,
                                                    .body = body});
}

/* --- answers that travel together --- */

static enum rpc_status answers_publish(struct rpc_service *service, struct mq_channel *channel)
{
    amqp_table_entry_t header = batch_header(&service->answers.batch);
    amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG | AMQP_BASIC_HEADERS_FLAG |
                  AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_PRIORITY_FLAG | AMQP_BASIC_APP_ID_FLAG,
        .content_type = amqp_cstring_bytes(WIRE_CONTENT_TYPE),
        .content_encoding = amqp_cstring_bytes(WIRE_ENCODING),
        .headers = {.num_entries = 1, .entries = &header},
        .delivery_mode = WIRE_TRANSIENT,
        .app_id = amqp_cstring_bytes(BATCH_APP_ID),
    };

    return mq_publish(channel, &(struct mq_publish){.exchange = rpc_bytes_of(service->exchange),
                                                    .routing_key = service->answers.waiting.first->envelope.reply_to,
                                                    .though_blocked = true,
                                                    .properties = &properties,
                                                    .body = batch_body(&service->answers.batch)});
}

static void list_append(struct incoming_list *list, struct rpc_incoming *request)
{
    request->next = NULL;
    if (list->last != NULL)
        list->last->next = request;
    else
        list->first = request;
    list->last = request;
}

static struct rpc_incoming *list_take(struct incoming_list *list)
{
    struct rpc_incoming *request = list->first;

    if (request != NULL)
        list->first = request->next;
    if (list->first == NULL)
        list->last = NULL;
    return request;
}

/* Letting a request go may run on_ready, where the owner may answer another one. */
static void answers_let_go(struct incoming_list *list)
{
    struct rpc_incoming *request;

    while ((request = list_take(list)) != NULL)
        incoming_finish(request, !request->unsent);
}

void incoming_drop_answers(struct rpc_service *service)
{
    batch_reset(&service->answers.batch);
    answers_let_go(&service->answers.gone);
    answers_let_go(&service->answers.waiting);
}

static void log_unsent(const struct rpc_incoming *request, enum rpc_status status)
{
    rpc_log(RPC_LOG_WARNING, "an answer was not sent; its request is handed back",
            RPC_LOG_TEXT("correlation_id", request->envelope.correlation_id),
            RPC_LOG_TEXT("reason", rpc_status_name(status)));
}

/* What does not go together goes alone; what does not go at all is handed back. */
static void answers_send(struct rpc_service *service, struct mq_channel *channel)
{
    struct answers *answers = &service->answers;
    struct batch_reader reader = batch_read(&answers->batch);
    bool together = answers->batch.count > 1 && answers_publish(service, channel) == RPC_OK;
    struct rpc_incoming *request;
    struct batch_entry entry;

    while (batch_next(&reader, &entry) && (request = list_take(&answers->waiting)) != NULL) {
        enum rpc_status status = together ? RPC_OK : incoming_publish(request, channel, entry.body);

        if (status != RPC_OK)
            log_unsent(request, status);
        request->unsent = status != RPC_OK;
        list_append(&answers->gone, request);
    }
    batch_reset(&answers->batch);
}

static void answers_on_flush(void *arg)
{
    struct rpc_service *service = arg;
    struct mq_channel *channel = session_channel(&service->requests.session);

    if (channel == NULL) {
        incoming_drop_answers(service);
        return;
    }
    answers_send(service, channel);
    answers_let_go(&service->answers.gone);
}

static bool same_sender(const struct rpc_incoming *request, const struct rpc_incoming *other)
{
    return request->envelope.reply_to.size == other->envelope.reply_to.size &&
           memcmp(request->envelope.reply_to.data, other->envelope.reply_to.data, other->envelope.reply_to.size) == 0;
}

/*
 * Have the answer wait for others until the end of the turn.  False: it goes alone, as one to a sender that takes no batches
 * does, though its request came in one.
 */
static bool answers_gather(struct rpc_incoming *request, struct mq_channel *channel)
{
    struct rpc_service *service = request->service;
    struct answers *answers = &service->answers;
    const struct batch_entry entry = {.key = rpc_bytes_of(request->envelope.correlation_id),
                                      .body = buffer_bytes(&service->body)};

    if (request->batch == NULL || !request->envelope.takes_batches)
        return false;
    if (answers->waiting.first != NULL && !same_sender(request, answers->waiting.first))
        answers_send(service, channel);
    if (!batch_add(&answers->batch, &entry)) {
        answers_send(service, channel);
        if (!batch_add(&answers->batch, &entry))
            return false;
    }
    list_append(&answers->waiting, request);
    session_flush_later(&service->requests.session);
    return true;
}

/* --- answering --- */

/*
 * Send the body that was made and let the request go.  Without a link the answer is dropped: the request was not
 * acknowledged, so it is delivered again.  One that the output has no room for is handed back for the same reason.
 */
static void incoming_send(struct rpc_incoming *request, bool made, bool is_error)
{
    struct rpc_service *service = request->service;
    struct mq_channel *channel = session_channel(&service->requests.session);
    enum rpc_status status = RPC_OFFLINE;
    bool waits = false;

    if (!made)
        status = RPC_NO_MEMORY;
    else if (channel != NULL && !(waits = answers_gather(request, channel)))
        status = incoming_publish(request, channel, buffer_bytes(&service->body));
    buffer_consume(&service->body, buffer_size(&service->body));
    if (status == RPC_TOO_LARGE) { /* handed back, it would come again and again; the answer to this is a small one */
        rpc_incoming_fail_unexpected(request, "the answer is larger than a message may be");
        return;
    }
    service->stats.answers++;
    service->stats.errors += is_error;
    if (waits)
        return;
    if (status != RPC_OK && status != RPC_OFFLINE)
        log_unsent(request, status);
    incoming_finish(request, status == RPC_OK || status == RPC_OFFLINE);
}

/* The service is gone: there is nobody to send by. */
static bool incoming_orphaned(struct rpc_incoming *request)
{
    if (incoming_consumer(request) != NULL)
        return false;
    incoming_finish(request, true);
    return true;
}

void rpc_incoming_answer(struct rpc_incoming *request, struct rpc_bytes result)
{
    if (!incoming_orphaned(request))
        incoming_send(request, wire_result(&request->service->body, result), false);
}

void rpc_incoming_answer_json(struct rpc_incoming *request, const json_t *result)
{
    char *text = result == NULL ? NULL : json_dumps(result, JSON_ENCODE_ANY);

    if (result != NULL && text == NULL)
        rpc_incoming_fail_unexpected(request, "the result cannot be written as JSON");
    else
        rpc_incoming_answer(request, rpc_bytes_of(text)); /* nothing stands for null */
    free(text);
}

void rpc_incoming_answer_error(struct rpc_incoming *request, const struct rpc_error *error)
{
    if (!incoming_orphaned(request))
        incoming_send(request, wire_error(&request->service->body, error), true);
}

static void answer_nameko_error(struct rpc_incoming *request, const char *name, const char *value)
{
    char path[EXC_PATH_SIZE];

    snprintf(path, sizeof(path), "nameko.exceptions.%s", name);
    rpc_incoming_answer_error(request, &(struct rpc_error){.exc_type = rpc_bytes_of(name),
                                                           .exc_path = rpc_bytes_of(path),
                                                           .value = rpc_bytes_of(value)});
}

void rpc_incoming_fail(struct rpc_incoming *request, const char *name, const char *value)
{
    char path[EXC_PATH_SIZE];

    if (incoming_orphaned(request))
        return;
    snprintf(path, sizeof(path), "%s.exceptions.%s", request->service->name, name);
    rpc_incoming_answer_error(request, &(struct rpc_error){.exc_type = rpc_bytes_of(name),
                                                           .exc_path = rpc_bytes_of(path),
                                                           .value = rpc_bytes_of(value)});
}

void rpc_incoming_fail_unexpected(struct rpc_incoming *request, const char *cause)
{
    char reference[37];

    if (incoming_orphaned(request))
        return;
    rpc_uuid4(reference);
    rpc_log(RPC_LOG_ERROR, "a request failed unexpectedly", RPC_LOG_TEXT("reference", reference),
            RPC_LOG_TEXT("correlation_id", request->envelope.correlation_id),
            RPC_LOG_TEXT("method", request->method != NULL ? request->method->name : ""), RPC_LOG_TEXT("cause", cause));
    rpc_incoming_fail(request, "UnexpectedError", reference);
}

void rpc_incoming_fail_validation(struct rpc_incoming *request, const json_t *messages)
{
    struct buffer value = {0};
    char *text = json_dumps(messages, JSON_ENCODE_ANY);
    struct buffer exc_args = {0};

    if (text != NULL && python_repr(&value, messages) && buffer_append(&exc_args, RPC_BYTES("[")) &&
        buffer_append(&exc_args, rpc_bytes_of(text)) && buffer_append(&exc_args, RPC_BYTES("]")))
        rpc_incoming_answer_error(request,
                                  &(struct rpc_error){.exc_type = RPC_BYTES("ValidationError"),
                                                      .exc_path = RPC_BYTES("marshmallow.exceptions.ValidationError"),
                                                      .value = buffer_bytes(&value),
                                                      .exc_args = buffer_bytes(&exc_args)});
    else
        rpc_incoming_fail_unexpected(request, "out of memory");
    free(text);
    buffer_clear(&value);
    buffer_clear(&exc_args);
}

/* --- what a handler asks of its request --- */

const char *rpc_incoming_correlation_id(const struct rpc_incoming *request)
{
    return request->envelope.correlation_id;
}

bool rpc_incoming_redelivered(const struct rpc_incoming *request)
{
    return request->envelope.redelivered;
}

uint64_t rpc_incoming_deadline_ms(const struct rpc_incoming *request)
{
    return request->deadline_ms;
}

struct rpc_context *rpc_incoming_context(struct rpc_incoming *request)
{
    if (request->context == NULL && incoming_consumer(request) != NULL)
        request->context = context_new_incoming(request->envelope.raw_properties, request->service->name,
                                                request->method != NULL ? request->method->name : "");
    return request->context;
}

/* --- from a delivery to its handler --- */

static uint64_t deadline_of(const struct rpc_service *service, const struct mq_message *message)
{
    struct rpc_bytes expiration = PROPERTY(message, EXPIRATION, expiration);
    uint64_t left_ms = 0;

    if (expiration.size == 0 || expiration.size > EXPIRATION_DIGITS)
        return UINT64_MAX;
    for (size_t i = 0; i < expiration.size; i++) {
        if (expiration.data[i] < '0' || expiration.data[i] > '9')
            return UINT64_MAX;
        left_ms = left_ms * 10 + (uint64_t)(expiration.data[i] - '0');
    }
    return rpc_loop_now_ms(service->loop) + left_ms;
}

/* The method's name is the last word of the routing key, `<service>.<method>`. */
static struct rpc_bytes method_name_of(const struct mq_message *message)
{
    struct rpc_bytes key = message->routing_key;
    const char *dot = key.size > 0 ? memrchr(key.data, '.', key.size) : NULL;

    if (dot == NULL)
        return key;
    return (struct rpc_bytes){dot + 1, (size_t)(key.data + key.size - dot - 1)};
}

static const struct rpc_method *method_find(const struct rpc_service *service, struct rpc_bytes name)
{
    for (size_t i = 0; i < service->options.methods_count; i++) {
        if (rpc_bytes_equal(name, service->options.methods[i].name))
            return &service->options.methods[i];
    }
    return NULL;
}

static void incoming_dispatch(struct rpc_incoming *request, struct rpc_bytes name, const struct wire_call *call,
                              enum wire_call_status status, char reason[WIRE_REASON_SIZE])
{
    json_t *arguments[RPC_PARAMETERS_MAX] = {NULL};
    char shown[RPC_NAME_SIZE_MAX * 3];

    if (request->method == NULL) { /* Nameko looks for the method first, then at the body */
        snprintf(shown, sizeof(shown), "%.*s", (int)name.size, name.data);
        answer_nameko_error(request, "MethodNotFound", shown);
    } else if (status == WIRE_CALL_MALFORMED) {
        answer_nameko_error(request, "MalformedRequest", reason);
    } else if (!wire_bind(request->method, call, arguments, reason)) {
        answer_nameko_error(request, "IncorrectSignature", reason);
    } else {
        request->method->handler(request, arguments, request->service->options.arg);
    }
}

/* In a batch the request holds that; alone, its own delivery. */
static struct rpc_incoming *incoming_new(struct rpc_service *service, const struct mq_delivery *delivery,
                                         struct incoming_batch *batch)
{
    struct rpc_incoming *request = malloc(sizeof(*request) + envelope_size(&delivery->message));

    if (request == NULL)
        return NULL;
    request->service = service;
    request->context = NULL;
    request->unsent = false;
    request->method = method_find(service, method_name_of(&delivery->message));
    request->deadline_ms = deadline_of(service, &delivery->message);
    envelope_copy(&request->envelope, request->texts, delivery);
    request->batch = batch;
    if (batch != NULL)
        batch->open++;
    else
        consumer_take(&service->requests, &request->taken, delivery);
    return request;
}

/*
 * A reply queue is bound with one word, a uuid of Nameko's.  A key with a dot in it could be a request's: the answer would
 * reach another service, on the word of whoever sent this.
 */
static bool reply_key_is_sound(struct rpc_bytes key)
{
    static const bool sound[256] = {
        ['a' ... 'z'] = true, ['A' ... 'Z'] = true, ['0' ... '9'] = true, ['-'] = true, ['_'] = true,
    };
    size_t at = 0;

    while (at < key.size && sound[(unsigned char)key.data[at]])
        at++;
    return at == key.size;
}

static const char *request_unreadable(const struct mq_message *message)
{
    const char *unreadable = message_unreadable(message);
    struct rpc_bytes reply_to;

    if (unreadable != NULL)
        return unreadable; /* one that is too large came without its properties */
    reply_to = PROPERTY(message, REPLY_TO, reply_to);
    if (reply_to.size == 0)
        return "it has no reply_to";
    return reply_key_is_sound(reply_to) ? NULL : "its reply_to cannot be a reply queue's key";
}

static void request_refuse(struct rpc_service *service, const struct mq_delivery *delivery,
                           struct incoming_batch *batch, const char *reason)
{
    if (batch == NULL) {
        service_refuse(service, &service->requests, delivery, reason);
        return;
    }
    service->stats.rejected++; /* the rest of the batch is sound; whoever waits for this one will give up */
    rpc_log(RPC_LOG_WARNING, "a request in a batch was dropped",
            RPC_LOG_BYTES("routing_key", delivery->message.routing_key), RPC_LOG_TEXT("reason", reason));
}

static void request_hand_back(struct rpc_service *service, const struct mq_delivery *delivery,
                              struct incoming_batch *batch)
{
    if (batch == NULL)
        consumer_refuse(&service->requests, delivery, true);
    else
        batch->requeue = true;
}

static void request_begin(struct rpc_service *service, const struct mq_delivery *delivery, struct incoming_batch *batch)
{
    const char *unreadable = request_unreadable(&delivery->message);
    char reason[WIRE_REASON_SIZE];
    struct wire_call call = {0};
    enum wire_call_status status;
    struct rpc_incoming *request;

    service->stats.requests++;
    if (unreadable != NULL) {
        request_refuse(service, delivery, batch, unreadable);
        return;
    }
    status = wire_call_parse(&call, delivery->message.body, reason);
    if (status == WIRE_CALL_NOT_JSON) {
        request_refuse(service, delivery, batch, reason);
    } else {
        request = status == WIRE_CALL_NO_MEMORY ? NULL : incoming_new(service, delivery, batch);
        if (request != NULL)
            incoming_dispatch(request, method_name_of(&delivery->message), &call, status, reason);
        else
            request_hand_back(service, delivery, batch); /* out of memory here; another may have some */
    }
    wire_call_clear(&call);
}

/* --- from a batch to its requests --- */

/* The entry as the delivery that it would have been alone.  The status is rabbitmq-c's, of decoding its properties. */
static int batch_entry_delivery(struct rpc_service *service, const struct batch_entry *entry,
                                struct mq_delivery *delivery)
{
    void *properties;
    int status;

    if (entry->properties.size > FRAME_NESTING_UNCHECKED && frame_properties_are_deep(entry->properties))
        return AMQP_STATUS_BAD_AMQP_DATA;
    status =
        amqp_decode_properties(AMQP_BASIC_CLASS, &service->batch_pool, frame_bytes(entry->properties), &properties);
    if (status < 0)
        return status;
    delivery->message.routing_key = entry->key;
    delivery->message.properties = properties;
    delivery->message.raw_properties = entry->properties;
    delivery->message.body = entry->body;
    return AMQP_STATUS_OK;
}

static void batch_begin(struct rpc_service *service, const struct mq_delivery *delivery, struct batch_reader reader)
{
    struct incoming_batch *batch = calloc(1, sizeof(*batch));
    struct mq_delivery one = *delivery;
    struct batch_entry entry;

    if (batch == NULL) {
        consumer_refuse(&service->requests, delivery, true);
        return;
    }
    consumer_take(&service->requests, &batch->taken, delivery);
    batch->open = 1;                                                       /* until all have begun */
    while (batch->taken.consumer != NULL && batch_next(&reader, &entry)) { /* a handler may free the service */
        int status = batch_entry_delivery(service, &entry, &one);

        if (status == AMQP_STATUS_OK)
            request_begin(service, &one, batch);
        else if (status == AMQP_STATUS_NO_MEMORY)
            request_hand_back(service, delivery, batch);
        else
            request_refuse(service, delivery, batch, "its properties cannot be read");
    }
    if (batch->taken.consumer != NULL)
        recycle_amqp_pool(&service->batch_pool);
    batch_release(batch);
}

static void requests_on_message(const struct mq_delivery *delivery, void *arg)
{
    struct rpc_service *service = arg;
    struct batch_reader batch;

    if (!rpc_bytes_equal(method_name_of(&delivery->message), BATCH_METHOD) || !batch_open(&batch, &delivery->message))
        request_begin(service, delivery, NULL);
    else if (batch_is_sound(batch))
        batch_begin(service, delivery, batch);
    else
        service_refuse(service, &service->requests, delivery, "a batch that cannot be read");
}

static void requests_declare(struct mq_channel *channel, void *arg)
{
    struct rpc_service *service = arg;
    char key[RPC_NAME_SIZE_MAX + 3];

    snprintf(key, sizeof(key), "%s.*", service->name);
    mq_exchange_declare(channel, service->exchange);
    mq_queue_declare(channel, &(struct mq_queue){.name = service->requests.queue, .durable = true});
    mq_queue_bind(channel, service->requests.queue, service->exchange, key);
}

const struct consumer_events incoming_consumer_events = {
    .declare = requests_declare,
    .on_message = requests_on_message,
    .on_change = service_on_change,
    .on_standby = service_on_standby,
    .on_flush = answers_on_flush,
};

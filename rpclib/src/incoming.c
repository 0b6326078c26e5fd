#include "incoming.h"

#include <stdio.h>
#include <stdlib.h>

#include "amqp/frame.h"
#include "context.h"
#include "python.h"
#include "request_batch.h"
#include "rpclib/log.h"
#include "uuid.h"
#include "wire.h"

#define EXC_PATH_SIZE     (RPC_NAME_SIZE_MAX + 128)
#define EXPIRATION_DIGITS 15
#define NAMEKO            "nameko" /* its errors are those of its own module */

/* --- letting go --- */

/* NULL: the service is gone. */
static struct consumer *incoming_consumer(const struct rpc_incoming *request)
{
    return request->batch != NULL ? request->batch->taken.consumer : request->taken.consumer;
}

void incoming_finish(struct rpc_incoming *request, bool answered)
{
    struct request_batch *batch = request->batch;

    rpc_context_free(request->context);
    if (batch != NULL) {
        free(request);
        request_batch_release(batch, answered);
    } else if (answered)
        consumer_done(&request->taken);
    else
        consumer_reject(&request->taken, true);
}

/* --- answering --- */

void incoming_log_unsent(const struct rpc_incoming *request, enum rpc_status status)
{
    rpc_log(RPC_LOG_WARNING, "an answer was not sent; its request is handed back",
            RPC_LOG_TEXT("correlation_id", request->envelope.correlation_id),
            RPC_LOG_TEXT("reason", rpc_status_name(status)));
}

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
        status = answers_send_one(request, channel, rpc_text_bytes(&service->body));
    rpc_text_reset(&service->body, RPC_TEXT_KEEP_SIZE);
    if (status == RPC_TOO_LARGE) { /* handed back, it would come again and again; the answer to this is a small one */
        rpc_incoming_fail_unexpected(request, "the answer is larger than a message may be");
        return;
    }
    service->stats.answers++;
    service->stats.errors += is_error;
    if (waits)
        return;
    if (status != RPC_OK && status != RPC_OFFLINE)
        incoming_log_unsent(request, status);
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

/* By an exception of `<module>.exceptions`. */
static void answer_exception(struct rpc_incoming *request, const char *module, const char *name, const char *value)
{
    char path[EXC_PATH_SIZE];

    snprintf(path, sizeof(path), "%s.exceptions.%s", module, name);
    rpc_incoming_answer_error(request, &(struct rpc_error){.exc_type = rpc_bytes_of(name),
                                                           .exc_path = rpc_bytes_of(path),
                                                           .value = rpc_bytes_of(value)});
}

void rpc_incoming_fail(struct rpc_incoming *request, const char *name, const char *value)
{
    if (!incoming_orphaned(request))
        answer_exception(request, request->service->name, name, value);
}

void rpc_incoming_fail_unexpected(struct rpc_incoming *request, const char *cause)
{
    char reference[RPC_UUID_SIZE];

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
    struct rpc_text value = {0};
    char *text = json_dumps(messages, JSON_ENCODE_ANY);
    struct rpc_text exc_args = {0};

    if (text != NULL && python_repr(&value, messages) && rpc_text_append(&exc_args, RPC_BYTES("[")) &&
        rpc_text_append(&exc_args, rpc_bytes_of(text)) && rpc_text_append(&exc_args, RPC_BYTES("]")))
        rpc_incoming_answer_error(request,
                                  &(struct rpc_error){.exc_type = RPC_BYTES("ValidationError"),
                                                      .exc_path = RPC_BYTES("marshmallow.exceptions.ValidationError"),
                                                      .value = rpc_text_bytes(&value),
                                                      .exc_args = rpc_text_bytes(&exc_args)});
    else
        rpc_incoming_fail_unexpected(request, "out of memory");
    free(text);
    rpc_text_clear(&value);
    rpc_text_clear(&exc_args);
}

/* --- what a handler asks of its request --- */

struct rpc_bytes rpc_incoming_body(const struct rpc_incoming *request)
{
    return request->body;
}

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
    struct rpc_bytes expiration = FRAME_PROPERTY(message->properties, EXPIRATION, expiration);
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
        answer_exception(request, NAMEKO, "MethodNotFound", shown);
    } else if (status == WIRE_CALL_MALFORMED) {
        answer_exception(request, NAMEKO, "MalformedRequest", reason);
    } else if (!wire_bind(request->method, call, arguments, reason)) {
        answer_exception(request, NAMEKO, "IncorrectSignature", reason);
    } else {
        request->method->handler(request, arguments, request->service->options.arg);
    }
}

/* In a batch the request holds that; alone, its own delivery. */
static struct rpc_incoming *incoming_new(struct rpc_service *service, const struct mq_delivery *delivery,
                                         struct request_batch *batch)
{
    struct rpc_incoming *request = malloc(sizeof(*request) + envelope_size(&delivery->message));

    if (request == NULL)
        return NULL;
    request->service = service;
    request->context = NULL;
    request->unsent = false;
    request->body = delivery->message.body;
    request->method = method_find(service, method_name_of(&delivery->message));
    request->deadline_ms = deadline_of(service, &delivery->message);
    envelope_copy(&request->envelope, request->texts, delivery);
    request->batch = batch;
    if (batch != NULL)
        request_batch_hold(batch);
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
    reply_to = FRAME_PROPERTY(message->properties, REPLY_TO, reply_to);
    if (reply_to.size == 0)
        return "it has no reply_to";
    return reply_key_is_sound(reply_to) ? NULL : "its reply_to cannot be a reply queue's key";
}

static void request_refuse(struct rpc_service *service, const struct mq_delivery *delivery, struct request_batch *batch,
                           const char *reason)
{
    if (batch != NULL)
        request_batch_drop(service, delivery, reason);
    else
        service_refuse(service, &service->requests, delivery, reason);
}

static void request_hand_back(struct rpc_service *service, const struct mq_delivery *delivery,
                              struct request_batch *batch)
{
    if (batch != NULL)
        batch->requeue = true;
    else
        consumer_refuse(&service->requests, delivery, true);
}

void incoming_begin(struct rpc_service *service, const struct mq_delivery *delivery, struct request_batch *batch)
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

static void requests_on_message(const struct mq_delivery *delivery, void *arg)
{
    struct rpc_service *service = arg;
    struct batch_reader batch;

    if (!rpc_bytes_equal(method_name_of(&delivery->message), BATCH_METHOD) || !batch_open(&batch, &delivery->message))
        incoming_begin(service, delivery, NULL);
    else if (batch_is_sound(batch))
        request_batch_begin(service, delivery, batch);
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

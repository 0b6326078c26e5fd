#include "failure.h"

#include <rpclib/json.h>
#include <rpclib/log.h>
#include <stdio.h>

#include "complaint.h"
#include "metrics.h"

#define MESSAGE_SIZE 160 /* bytes of a message of our own, which holds a service's name at most */

static bool path_is(struct rpc_bytes path, const char *module, const char *name)
{
    static const char middle[] = ".exceptions.";
    size_t module_size = strlen(module), name_size = strlen(name), middle_size = sizeof(middle) - 1;

    return path.size == module_size + middle_size + name_size && memcmp(path.data, module, module_size) == 0 &&
           memcmp(path.data + module_size, middle, middle_size) == 0 &&
           memcmp(path.data + module_size + middle_size, name, name_size) == 0;
}

bool failure_is(enum rpc_status status, const struct rpc_reply *reply, const char *service, const char *name)
{
    return status == RPC_REMOTE_ERROR && path_is(reply->error.exc_path, service, name);
}

bool failure_is_nameko(enum rpc_status status, const struct rpc_reply *reply, const char *name)
{
    return failure_is(status, reply, "nameko", name);
}

/* "The service orders ...": `rest` is what it did or did not. */
static void answer_says(struct flight *flight, int status, const char *code, const char *service, const char *rest)
{
    char message[MESSAGE_SIZE];

    snprintf(message, sizeof(message), "The service %s %s", service, rest);
    flight_error(flight, status, code, rpc_bytes_of(message));
}

static void answer_unavailable(struct flight *flight, const char *service, const char *rest)
{
    answer_says(flight, 503, "SERVICE_UNAVAILABLE", service, rest);
}

/* A bound was reached, which passes by itself. */
static void answer_busy(struct flight *flight, const char *service, const char *rest)
{
    flight_answer(flight)->retry_after = true;
    answer_unavailable(flight, service, rest);
}

/* Something may have been done, or may yet be. */
static void answer_unknown(struct flight *flight, enum failure_of of, const char *service)
{
    switch (of) {
    case FAILURE_OF_READ:
        answer_says(flight, 504, "TIMEOUT", service, "did not answer in time.");
        break;
    case FAILURE_OF_PREPARE:
        answer_unavailable(flight, service, "did not answer in time; nothing was done.");
        break;
    case FAILURE_OF_CHANGE:
        answer_says(flight, 504, "OUTCOME_UNKNOWN", service, "did not answer in time; it may have done it.");
        break;
    }
}

static void answer_unexpected(struct flight *flight, const char *service)
{
    answer_says(flight, 500, "UNEXPECTED_ERROR", service, "failed.");
}

static void failure_log(const struct flight *flight, const char *service, enum rpc_status status,
                        const struct rpc_reply *reply)
{
    const struct rpc_bytes none = {NULL, 0};
    bool remote = status == RPC_REMOTE_ERROR;
    bool busy = status == RPC_BUSY || failure_is(status, reply, service, "ServiceBusy");

    /* Who is refused for being one too many is many: the first refused request tells of them all. */
    rpc_log(busy ? RPC_LOG_DEBUG : RPC_LOG_WARNING, "call failed", RPC_LOG_TEXT("service", service),
            RPC_LOG_TEXT("outcome", rpc_status_name(status)),
            RPC_LOG_BYTES(remote ? "exc_path" : NULL, remote ? reply->error.exc_path : none),
            RPC_LOG_BYTES(remote ? "reason" : NULL, remote ? reply->error.value : none),
            RPC_LOG_BYTES("target", flight_target(flight)));
}

/* Nothing was done, and the request may be fine. */
static void answer_out_of_memory(struct flight *flight)
{
    flight_answer(flight)->retry_after = true;
    flight_error(flight, 503, "SERVICE_UNAVAILABLE", RPC_BYTES("Out of memory."));
}

json_t *failure_or_json(struct flight *flight)
{
    char reason[RPC_JSON_REASON_SIZE], message[RPC_JSON_REASON_SIZE + sizeof("Invalid json: ")];
    json_t *json = rpc_json_load(flight_body(flight), reason);

    if (json == NULL && rpc_json_no_memory(reason)) {
        answer_out_of_memory(flight);
    } else if (json == NULL) {
        snprintf(message, sizeof(message), "Invalid json: %s", reason);
        flight_error(flight, 400, "BAD_REQUEST", rpc_bytes_of(message));
    }
    return json;
}

void failure_answer_invalid(struct flight *flight, json_t *messages)
{
    struct rpc_text text = {0};

    complaint_append(&text, messages);
    if (messages == NULL || text.failed)
        answer_out_of_memory(flight);
    else
        flight_error(flight, 400, "VALIDATION_ERROR",
                     text.size > 0 ? rpc_text_bytes(&text) : RPC_BYTES("The request is not valid."));
    rpc_text_clear(&text);
    json_decref(messages);
}

/* A service's own check said no: exc_args[0] says which fields and why; a Python service may say it as text alone. */
static void answer_remote_invalid(struct flight *flight, const struct rpc_error *error)
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *args = rpc_json_load(error->exc_args, reason);
    json_t *messages = json_incref(json_array_get(args, 0));

    if (messages == NULL && !(args == NULL && rpc_json_no_memory(reason)))
        messages = json_stringn(error->value.data == NULL ? "" : error->value.data, error->value.size);
    json_decref(args);
    failure_answer_invalid(flight, messages);
}

static void answer_remote(struct flight *flight, enum failure_of of, const char *service, const struct rpc_reply *reply)
{
    if (path_is(reply->error.exc_path, "marshmallow", "ValidationError"))
        answer_remote_invalid(flight, &reply->error);
    else if (path_is(reply->error.exc_path, service, "ServiceUnavailable"))
        answer_unavailable(flight, service, "cannot reach its data; nothing was done.");
    else if (path_is(reply->error.exc_path, service, "ServiceBusy"))
        answer_busy(flight, service, "is busy; nothing was done.");
    else if (path_is(reply->error.exc_path, service, "OutcomeUnknown"))
        answer_unknown(flight, of, service);
    else
        answer_unexpected(flight, service);
}

void failure_answer_nonsense(struct flight *flight, enum failure_of of, const char *service)
{
    rpc_log(RPC_LOG_ERROR, "a result makes no sense", RPC_LOG_TEXT("service", service),
            RPC_LOG_BYTES("target", flight_target(flight)));
    if (of == FAILURE_OF_CHANGE)
        answer_unknown(flight, of, service);
    else
        answer_unexpected(flight, service);
}

void failure_answer(struct flight *flight, enum failure_of of, const char *service, enum rpc_status status,
                    const struct rpc_reply *reply)
{
    failure_log(flight, service, status, reply);
    switch (status) {
    case RPC_REMOTE_ERROR:
        answer_remote(flight, of, service, reply);
        break;
    case RPC_UNKNOWN_SERVICE:
        answer_unavailable(flight, service, "is not running; nothing was done.");
        break;
    case RPC_BUSY:
    case RPC_NO_MEMORY:
        if (status == RPC_BUSY)
            metrics_count_refusal(METRICS_BOUND_CALLS);
        answer_busy(flight, service, "cannot be called now, with so much under way; nothing was done.");
        break;
    case RPC_OFFLINE:
    case RPC_BLOCKED:
    case RPC_REFUSED:
        answer_unavailable(flight, service, "cannot be reached; nothing was done.");
        break;
    case RPC_TIMEOUT:
    case RPC_LOST:
    case RPC_CANCELLED:
        answer_unknown(flight, of, service);
        break;
    case RPC_BAD_REPLY:
        failure_answer_nonsense(flight, of, service);
        break;
    case RPC_TOO_LARGE:
    case RPC_OK:
        answer_unexpected(flight, service);
        break;
    }
}

bool failure_or_call(struct flight *flight, const struct flight_request *request, enum failure_of of,
                     flight_reply_fn *done)
{
    enum rpc_status status = flight_call(flight, request, done);

    if (status != RPC_OK)
        failure_answer(flight, of, request->service, status, NULL);
    else if (of == FAILURE_OF_CHANGE)
        flight_answer(flight)->of_change = true;
    return status == RPC_OK;
}

bool failure_or_call_alone(struct flight *flight, const struct flight_request *request, enum failure_of of,
                           flight_reply_fn *done)
{
    if (flight_prepare(flight, 1))
        return failure_or_call(flight, request, of, done);
    failure_answer(flight, of, request->service, RPC_NO_MEMORY, NULL);
    return false;
}

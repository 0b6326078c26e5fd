#include "wire.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "rpclib/json.h"

/* --- bodies --- */

static bool append_all(struct rpc_text *out, size_t count, const struct rpc_bytes parts[])
{
    size_t before = out->size;

    for (size_t i = 0; i < count; i++) {
        if (!rpc_text_append(out, parts[i])) {
            rpc_text_truncate(out, before);
            return false;
        }
    }
    return true;
}

#define APPEND(out, ...)                                                                  \
    append_all(out, sizeof((struct rpc_bytes[]){__VA_ARGS__}) / sizeof(struct rpc_bytes), \
               (struct rpc_bytes[]){__VA_ARGS__})

static struct rpc_bytes or_default(struct rpc_bytes given, struct rpc_bytes fallback)
{
    return given.size > 0 ? given : fallback;
}

bool wire_request(struct rpc_text *out, struct rpc_bytes args, struct rpc_bytes kwargs)
{
    return APPEND(out, RPC_BYTES("{\"args\": "), or_default(args, RPC_BYTES("[]")), RPC_BYTES(", \"kwargs\": "),
                  or_default(kwargs, RPC_BYTES("{}")), RPC_BYTES("}"));
}

bool wire_result(struct rpc_text *out, struct rpc_bytes result)
{
    return APPEND(out, RPC_BYTES("{\"result\": "), or_default(result, RPC_BYTES("null")),
                  RPC_BYTES(", \"error\": null}"));
}

/* Text as a JSON value; what is no UTF-8 is not repeated. */
static json_t *text_value(struct rpc_bytes text)
{
    json_t *value = json_stringn(text.size > 0 ? text.data : "", text.size);

    return value != NULL ? value : json_string("(text that is no UTF-8)");
}

bool wire_error(struct rpc_text *out, const struct rpc_error *error)
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *exc_args = error->exc_args.size > 0 ? rpc_json_load(error->exc_args, reason) : NULL;
    char *text = NULL;
    json_t *body;
    bool done;

    if (!json_is_array(exc_args)) {
        json_decref(exc_args);
        exc_args = json_pack("[o]", text_value(error->value));
    }
    body = json_pack("{s:n, s:{s:o, s:o, s:o, s:o}}", "result", "error", "exc_type", text_value(error->exc_type),
                     "exc_path", text_value(error->exc_path), "exc_args", exc_args, "value", text_value(error->value));
    if (body != NULL)
        text = json_dumps(body, 0);
    done = text != NULL && rpc_text_append(out, rpc_bytes_of(text));
    free(text);
    json_decref(body);
    return done;
}

enum wire_call_status wire_call_parse(struct wire_call *out, struct rpc_bytes body, char reason[WIRE_REASON_SIZE])
{
    char why[RPC_JSON_REASON_SIZE];

    *out = (struct wire_call){.body = rpc_json_load(body, why)};
    if (out->body == NULL && rpc_json_no_memory(why))
        return WIRE_CALL_NO_MEMORY;
    if (out->body == NULL) {
        snprintf(reason, WIRE_REASON_SIZE, "the body is not JSON: %s", why);
        return WIRE_CALL_NOT_JSON;
    }
    out->args = json_object_get(out->body, "args");
    out->kwargs = json_object_get(out->body, "kwargs");
    if (json_is_array(out->args) && json_is_object(out->kwargs))
        return WIRE_CALL_OK;
    snprintf(reason, WIRE_REASON_SIZE, "Message missing `args` or `kwargs`");
    return WIRE_CALL_MALFORMED;
}

void wire_call_clear(struct wire_call *call)
{
    json_decref(call->body);
    *call = (struct wire_call){0};
}

static struct rpc_bytes member_text(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);

    return json_is_string(value) ? rpc_json_text(value) : rpc_bytes_of("");
}

static enum rpc_status answer_take_error(struct wire_answer *out, struct rpc_bytes text)
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *exc_args;

    out->error = rpc_json_load(text, reason);
    if (out->error == NULL && rpc_json_no_memory(reason))
        return RPC_LOST;
    if (!json_is_object(out->error))
        return RPC_BAD_REPLY;
    exc_args = json_object_get(out->error, "exc_args");
    if (json_is_array(exc_args))
        out->exc_args = json_dumps(exc_args, 0);
    out->reply.error = (struct rpc_error){
        .exc_type = member_text(out->error, "exc_type"),
        .exc_path = member_text(out->error, "exc_path"),
        .value = member_text(out->error, "value"),
        .exc_args = rpc_bytes_of(out->exc_args != NULL ? out->exc_args : "[]"),
    };
    return RPC_REMOTE_ERROR;
}

enum rpc_status wire_answer_parse(struct wire_answer *out, struct rpc_bytes body)
{
    static const char *const names[] = {"result", "error"};
    struct rpc_bytes values[2];

    *out = (struct wire_answer){0};
    if (!rpc_json_members(body, 2, names, values) || values[1].data == NULL)
        return RPC_BAD_REPLY;
    if (!rpc_bytes_equal(values[1], "null"))
        return answer_take_error(out, values[1]);
    if (values[0].data == NULL)
        return RPC_BAD_REPLY;
    out->reply.result = values[0];
    return RPC_OK;
}

void wire_answer_clear(struct wire_answer *answer)
{
    json_decref(answer->error);
    free(answer->exc_args);
    *answer = (struct wire_answer){0};
}

bool wire_is_json(struct rpc_bytes content_type)
{
    const size_t size = sizeof(WIRE_CONTENT_TYPE) - 1;

    if (content_type.size == 0)
        return true;
    if (content_type.size < size || strncasecmp(content_type.data, WIRE_CONTENT_TYPE, size) != 0)
        return false;
    return content_type.size == size || content_type.data[size] == ';' || content_type.data[size] == ' ';
}

/* --- names --- */

/* By hand, as the next one: both are on the way of every call, and printf() would be an eighth of its cost. */
size_t wire_request_key(char out[WIRE_KEY_SIZE], const char *service, const char *method)
{
    size_t service_size = strlen(service), method_size = strlen(method);

    if (service_size > RPC_NAME_SIZE_MAX || method_size > RPC_NAME_SIZE_MAX)
        return 0;
    memcpy(out, service, service_size);
    out[service_size] = '.';
    memcpy(out + service_size + 1, method, method_size);
    return service_size + 1 + method_size;
}

size_t wire_expiration(char out[WIRE_NUMBER_SIZE], int timeout_ms)
{
    char digits[WIRE_NUMBER_SIZE], *at = digits + sizeof(digits);
    size_t size;

    do
        *--at = (char)('0' + timeout_ms % 10);
    while ((timeout_ms /= 10) > 0);
    size = (size_t)(digits + sizeof(digits) - at);
    memcpy(out, at, size);
    return size;
}

static bool name(char out[WIRE_NAME_SIZE], const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool name(char out[WIRE_NAME_SIZE], const char *format, ...)
{
    va_list arguments;
    int size;

    va_start(arguments, format);
    size = vsnprintf(out, WIRE_NAME_SIZE, format, arguments);
    va_end(arguments);
    return size > 0 && size < WIRE_NAME_SIZE;
}

bool wire_rpc_queue(char out[WIRE_NAME_SIZE], const char *service)
{
    return name(out, "rpc-%s", service);
}

bool wire_event_exchange(char out[WIRE_NAME_SIZE], const char *source)
{
    return name(out, "%s.events", source);
}

bool wire_event_queue(char out[WIRE_NAME_SIZE], const struct rpc_event_handler *handler, const char *service,
                      const char *identifier)
{
    switch (handler->kind) {
    case RPC_EVENT_SERVICE_POOL:
        return name(out, "evt-%s-%s--%s.%s", handler->source, handler->event_type, service, handler->name);
    case RPC_EVENT_SINGLETON:
        return name(out, "evt-%s-%s", handler->source, handler->event_type);
    case RPC_EVENT_BROADCAST:
        return name(out, "evt-%s-%s--%s.%s-%s", handler->source, handler->event_type, service, handler->name,
                    identifier);
    }
    return false;
}

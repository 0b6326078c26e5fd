/*
 * wire: bodies of requests and answers.  What is made is taken apart as the same; a request is bound to a method as
 * getcallargs() would, by an oracle that only knows the rule; and what is said of a request is text, and not too long.
 *
 * The input is a body.
 */
#include <fuzz.h>

#include "python.h"
#include "rpclib/json.h"
#include "wire.h"

#define REPR_GROWTH 16 /* bytes of repr() for a byte of JSON: \U000e0001 stands for four, 1e15 becomes 18 */

static const char *const names_many[] = {"a", "b", "c", "args", "kwargs", "self_", "i", "j", NULL};
static const char *const names_two[] = {"a", "b", NULL};

static const struct rpc_method methods[] = {
    {.name = "none", .parameters = NULL, .parameters_required = 0},
    {.name = "one_of_two", .parameters = names_two, .parameters_required = 1},
    {.name = "two", .parameters = names_two, .parameters_required = 2},
    {.name = "many", .parameters = names_many, .parameters_required = 3},
};

static bool is_text(const char *text, size_t size_max)
{
    size_t size = strnlen(text, size_max);

    return size > 0 && size < size_max && fuzz_is_utf8((struct rpc_bytes){text, size});
}

/* ---- Requests ---------------------------------------------------------------------------------------------------- */

static size_t index_of(const struct rpc_method *method, size_t count, const char *name)
{
    size_t i = 0;

    while (i < count && strcmp(method->parameters[i], name) != 0)
        i++;
    return i;
}

static bool bind_oracle(const struct rpc_method *method, size_t count, const struct wire_call *call)
{
    size_t given = json_array_size(call->args);
    const char *name;
    json_t *value;

    if (given > count)
        return false;
    json_object_foreach(call->kwargs, name, value)
    {
        size_t i = index_of(method, count, name);

        if (i == count || i < given)
            return false;
    }
    for (size_t i = given; i < method->parameters_required; i++)
        if (json_object_get(call->kwargs, method->parameters[i]) == NULL)
            return false;
    return true;
}

static void check_bind(const struct rpc_method *method, const struct wire_call *call)
{
    char reason[WIRE_REASON_SIZE];
    json_t *bound[RPC_PARAMETERS_MAX] = {NULL};
    size_t count = 0, given = json_array_size(call->args);

    while (method->parameters != NULL && method->parameters[count] != NULL)
        count++;
    memset(reason, 'x', sizeof(reason));
    if (!wire_bind(method, call, bound, reason)) {
        HOLDS(!bind_oracle(method, count, call) && is_text(reason, sizeof(reason)));
        HOLDS(strncmp(reason, method->name, strlen(method->name)) == 0);
        return;
    }
    HOLDS(bind_oracle(method, count, call));
    for (size_t i = 0; i < count; i++)
        HOLDS(bound[i] ==
              (i < given ? json_array_get(call->args, i) : json_object_get(call->kwargs, method->parameters[i])));
}

static char *printed(const json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY);

    HOLDS(text != NULL);
    return text;
}

static void check_request_round_trip(const struct wire_call *call)
{
    char *args = printed(call->args), *kwargs = printed(call->kwargs), reason[WIRE_REASON_SIZE];
    struct rpc_text body = {0};
    struct wire_call again;

    HOLDS(wire_request(&body, rpc_bytes_of(args), rpc_bytes_of(kwargs)));
    HOLDS(wire_call_parse(&again, rpc_text_bytes(&body), reason) == WIRE_CALL_OK);
    HOLDS(json_equal(call->args, again.args) && json_equal(call->kwargs, again.kwargs));
    wire_call_clear(&again);
    rpc_text_clear(&body);
    free(args);
    free(kwargs);
}

static void check_repr(const json_t *value, size_t size)
{
    struct rpc_text out = {0};
    struct rpc_bytes text;

    HOLDS(python_repr(&out, value));
    text = rpc_text_bytes(&out);
    HOLDS(text.size > 0 && text.size <= REPR_GROWTH * size && fuzz_is_utf8(text));
    for (size_t i = 0; i < text.size; i++)
        HOLDS((unsigned char)text.data[i] >= ' ' && text.data[i] != 0x7F);
    rpc_text_clear(&out);
}

static void check_request(struct rpc_bytes body)
{
    char reason[WIRE_REASON_SIZE];
    struct wire_call call;

    memset(reason, 'x', sizeof(reason));
    switch (wire_call_parse(&call, body, reason)) {
    case WIRE_CALL_OK:
        HOLDS(json_is_array(call.args) && json_is_object(call.kwargs));
        for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
            check_bind(&methods[i], &call);
        check_request_round_trip(&call);
        break;
    case WIRE_CALL_MALFORMED:
        HOLDS(rpc_json_check(body) && is_text(reason, sizeof(reason)));
        HOLDS(!json_is_array(json_object_get(call.body, "args")) ||
              !json_is_object(json_object_get(call.body, "kwargs")));
        break;
    case WIRE_CALL_NOT_JSON:
        HOLDS(call.body == NULL && is_text(reason, sizeof(reason)));
        break;
    case WIRE_CALL_NO_MEMORY:
        HOLDS(false); /* there is enough */
        break;
    }
    if (call.body != NULL)
        check_repr(call.body, body.size);
    wire_call_clear(&call);
    HOLDS(call.body == NULL);
}

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

static void errors_are_equal(const struct rpc_error *one, const struct rpc_error *other)
{
    HOLDS(fuzz_equal(one->exc_type, other->exc_type) && fuzz_equal(one->exc_path, other->exc_path));
    HOLDS(fuzz_equal(one->value, other->value) && fuzz_equal(one->exc_args, other->exc_args));
}

static void check_error(const struct rpc_error *error)
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *exc_args = rpc_json_load(error->exc_args, reason);
    struct rpc_text body = {0};
    struct wire_answer again;

    HOLDS(json_is_array(exc_args));
    HOLDS(fuzz_is_utf8(error->exc_type) && fuzz_is_utf8(error->exc_path) && fuzz_is_utf8(error->value));
    HOLDS(wire_error(&body, error));
    HOLDS(wire_answer_parse(&again, rpc_text_bytes(&body)) == RPC_REMOTE_ERROR);
    errors_are_equal(error, &again.reply.error);
    wire_answer_clear(&again);
    rpc_text_clear(&body);
    json_decref(exc_args);
}

static void check_result(struct rpc_bytes result)
{
    struct rpc_text body = {0};
    struct wire_answer again;

    HOLDS(rpc_json_check(result));
    HOLDS(wire_result(&body, result));
    HOLDS(wire_answer_parse(&again, rpc_text_bytes(&body)) == RPC_OK);
    HOLDS(fuzz_equal(result, again.reply.result));
    wire_answer_clear(&again);
    rpc_text_clear(&body);
}

static void check_answer(struct rpc_bytes body)
{
    struct wire_answer answer;
    enum rpc_status status = wire_answer_parse(&answer, body);

    HOLDS(status == RPC_OK || status == RPC_REMOTE_ERROR || status == RPC_BAD_REPLY);
    if (status == RPC_OK) {
        HOLDS(answer.reply.result.data > body.data && answer.reply.result.size < body.size);
        check_result(answer.reply.result);
    } else if (status == RPC_REMOTE_ERROR) {
        check_error(&answer.reply.error);
    }
    wire_answer_clear(&answer);
}

/* Any text may be an error's: what is no UTF-8 is not repeated. */
static void check_own_error(struct rpc_bytes text)
{
    const struct rpc_error error = {.exc_type = text, .exc_path = text, .value = text};
    struct rpc_text body = {0};
    struct wire_answer again;

    HOLDS(wire_error(&body, &error) && body.size > 0);
    if (text.size == 0 || memchr(text.data, '\0', text.size) == NULL)
        HOLDS(wire_answer_parse(&again, rpc_text_bytes(&body)) == RPC_REMOTE_ERROR);
    else
        HOLDS(wire_answer_parse(&again, rpc_text_bytes(&body)) != RPC_OK);
    wire_answer_clear(&again);
    rpc_text_clear(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_bytes body = fuzz_bytes(data, size);

    check_request(body);
    check_answer(body);
    check_own_error(body);
    (void)wire_is_json(body);
    return 0;
}

/*
 * Binding of arguments to parameters, and what Python says when they do not fit: the words and their order are those of
 * inspect.getcallargs(), by which Nameko checks a request; every count includes `self`.
 */
#include <assert.h>
#include <stdio.h>

#include "python.h"
#include "rpclib/utf8.h"
#include "wire.h"

static size_t parameters_count(const struct rpc_method *method)
{
    size_t count = 0;

    while (method->parameters != NULL && method->parameters[count] != NULL)
        count++;
    assert(count <= RPC_PARAMETERS_MAX);
    return count;
}

/* repr() of a name, for a message.  A name that is too long is cut: the message has a bound. */
static void name_repr(const char *name, char out[WIRE_REASON_SIZE / 2])
{
    struct rpc_text text = {0};
    json_t *value = json_string(name);
    struct rpc_bytes bytes = {"?", 1};

    if (value != NULL && python_repr(&text, value))
        bytes = rpc_text_bytes(&text);
    bytes = rpc_utf8_cut(bytes, WIRE_REASON_SIZE / 2 - 1);
    snprintf(out, WIRE_REASON_SIZE / 2, "%.*s", (int)bytes.size, bytes.data);
    rpc_text_clear(&text);
    json_decref(value);
}

static void too_many(const struct rpc_method *method, size_t count, size_t given, char reason[WIRE_REASON_SIZE])
{
    if (method->parameters_required < count)
        snprintf(reason, WIRE_REASON_SIZE, "%s() takes from %zu to %zu positional arguments but %zu were given",
                 method->name, method->parameters_required + 1, count + 1, given + 1);
    else
        snprintf(reason, WIRE_REASON_SIZE, "%s() takes %zu positional argument%s but %zu were given", method->name,
                 count + 1, count == 0 ? "" : "s", given + 1);
}

static void missing(const struct rpc_method *method, json_t *const bound[], char reason[WIRE_REASON_SIZE])
{
    const char *names[RPC_PARAMETERS_MAX];
    size_t count = 0;
    int used;

    for (size_t i = 0; i < method->parameters_required; i++) {
        if (bound[i] == NULL)
            names[count++] = method->parameters[i];
    }
    used = snprintf(reason, WIRE_REASON_SIZE, "%s() missing %zu required positional argument%s: ", method->name, count,
                    count == 1 ? "" : "s");
    for (size_t i = 0; i < count && used > 0 && used < WIRE_REASON_SIZE; i++) {
        const char *before = i == 0 ? "" : i + 1 == count ? " and " : ", ";

        used += snprintf(reason + used, (size_t)(WIRE_REASON_SIZE - used), "%s'%s'", before, names[i]);
    }
}

/* The arguments by name.  Fails at the first that has no place, or whose place is taken. */
static bool bind_named(const struct rpc_method *method, size_t count, json_t *kwargs, json_t *bound[],
                       char reason[WIRE_REASON_SIZE])
{
    char shown[WIRE_REASON_SIZE / 2];
    const char *name;
    json_t *value;

    json_object_foreach(kwargs, name, value)
    {
        size_t i = 0;

        while (i < count && strcmp(method->parameters[i], name) != 0)
            i++;
        if (i < count && bound[i] == NULL) {
            bound[i] = value;
            continue;
        }
        name_repr(name, shown);
        /* `self` is Python's first parameter, and always taken. */
        if (i < count || strcmp(name, "self") == 0)
            snprintf(reason, WIRE_REASON_SIZE, "%s() got multiple values for argument %s", method->name, shown);
        else
            snprintf(reason, WIRE_REASON_SIZE, "%s() got an unexpected keyword argument %s", method->name, shown);
        return false;
    }
    return true;
}

bool wire_bind(const struct rpc_method *method, const struct wire_call *call, json_t *out[RPC_PARAMETERS_MAX],
               char reason[WIRE_REASON_SIZE])
{
    size_t count = parameters_count(method), given = json_array_size(call->args);

    for (size_t i = 0; i < count; i++)
        out[i] = i < given ? json_array_get(call->args, i) : NULL;
    if (!bind_named(method, count, call->kwargs, out, reason))
        return false;
    if (given > count) {
        too_many(method, count, given, reason);
        return false;
    }
    for (size_t i = 0; i < method->parameters_required; i++) {
        if (out[i] == NULL) {
            missing(method, out, reason);
            return false;
        }
    }
    return true;
}

/*
 * Binding of arguments: what inspect.getcallargs() of CPython 3.11 made of the same call, to the letter.  Every
 * expectation here is its own, for methods of a class, called as Nameko calls it (self is None).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rpclib/json.h"
#include "wire.h"

#define SHOWN_SIZE 256

static const struct rpc_method nothing = {.name = "nothing"};
static const struct rpc_method get = {
    .name = "get", .parameters = (const char *const[]){"product_id", NULL}, .parameters_required = 1};
static const struct rpc_method two = {
    .name = "two", .parameters = (const char *const[]){"a", "b", NULL}, .parameters_required = 2};
static const struct rpc_method three = {
    .name = "three", .parameters = (const char *const[]){"a", "b", "c", NULL}, .parameters_required = 3};
static const struct rpc_method opt = {
    .name = "opt", .parameters = (const char *const[]){"a", "b", NULL}, .parameters_required = 1};
static const struct rpc_method opts = {
    .name = "opts", .parameters = (const char *const[]){"a", "b", NULL}, .parameters_required = 0};
static const struct rpc_method four = {
    .name = "four", .parameters = (const char *const[]){"a", "b", "c", "d", NULL}, .parameters_required = 3};

/* "a=1 b=-": every parameter with its value; "-" is an optional one that was not given. */
static void show(const struct rpc_method *method, json_t *const bound[], char out[SHOWN_SIZE])
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; method->parameters != NULL && method->parameters[i] != NULL; i++) {
        char *text = bound[i] == NULL ? NULL : json_dumps(bound[i], JSON_ENCODE_ANY);

        used += (size_t)snprintf(out + used, SHOWN_SIZE - used, "%s%s=%s", i == 0 ? "" : " ", method->parameters[i],
                                 text == NULL ? "-" : text);
        free(text);
    }
}

static void bind_at(const struct rpc_method *method, const char *args, const char *kwargs, bool expected,
                    const char *outcome, int line)
{
    json_t *bound[RPC_PARAMETERS_MAX] = {NULL};
    struct wire_call call = {.args = json_loads(args, 0, NULL), .kwargs = json_loads(kwargs, 0, NULL)};
    char reason[WIRE_REASON_SIZE] = "", shown[SHOWN_SIZE] = "";
    bool done;

    assert_non_null(call.args);
    assert_non_null(call.kwargs);
    done = wire_bind(method, &call, bound, reason);
    if (done)
        show(method, bound, shown);
    if (done != expected || strcmp(done ? shown : reason, outcome) != 0)
        fail_msg("line %d: %s: \"%s\" instead of \"%s\"", line, done ? "bound" : "not bound", done ? shown : reason,
                 outcome);
    json_decref(call.args);
    json_decref(call.kwargs);
}

#define binds(method, args, kwargs, outcome)     bind_at(method, args, kwargs, true, outcome, __LINE__)
#define binds_not(method, args, kwargs, outcome) bind_at(method, args, kwargs, false, outcome, __LINE__)

static void test_getcallargs(void **state)
{
    (void)state;
    binds(&nothing, "[]", "{}", "");
    binds_not(&nothing, "[1]", "{}", "nothing() takes 1 positional argument but 2 were given");
    binds_not(&nothing, "[1, 2]", "{}", "nothing() takes 1 positional argument but 3 were given");
    binds_not(&nothing, "[]", "{\"x\": 1}", "nothing() got an unexpected keyword argument 'x'");
    binds_not(&nothing, "[]", "{\"self\": 1}", "nothing() got multiple values for argument 'self'");
    binds_not(&get, "[]", "{}", "get() missing 1 required positional argument: 'product_id'");
    binds(&get, "[\"a\"]", "{}", "product_id=\"a\"");
    binds(&get, "[]", "{\"product_id\": \"a\"}", "product_id=\"a\"");
    binds_not(&get, "[\"a\", \"b\"]", "{}", "get() takes 2 positional arguments but 3 were given");
    binds_not(&get, "[\"a\", \"b\", \"c\"]", "{}", "get() takes 2 positional arguments but 4 were given");
    binds_not(&get, "[\"a\"]", "{\"product_id\": \"b\"}", "get() got multiple values for argument 'product_id'");
    binds_not(&get, "[]", "{\"x\": 1}", "get() got an unexpected keyword argument 'x'");
    binds_not(&get, "[\"a\"]", "{\"x\": 1}", "get() got an unexpected keyword argument 'x'");
    binds_not(&get, "[\"a\", \"b\"]", "{\"x\": 1}", "get() got an unexpected keyword argument 'x'");
    binds_not(&get, "[]", "{\"product_id\": 1, \"x\": 2}", "get() got an unexpected keyword argument 'x'");
    binds_not(&get, "[]", "{\"x\": 2, \"product_id\": 1}", "get() got an unexpected keyword argument 'x'");
    binds_not(&get, "[]", "{\"self\": 1}", "get() got multiple values for argument 'self'");
    binds_not(&get, "[\"a\"]", "{\"self\": 1}", "get() got multiple values for argument 'self'");
    binds_not(&get, "[\"a\", \"b\"]", "{\"product_id\": 1}", "get() got multiple values for argument 'product_id'");
    binds(&get, "[null]", "{}", "product_id=null");
    binds(&get, "[]", "{\"product_id\": null}", "product_id=null");
    binds_not(&get, "[]", "{\"it's\": 1}", "get() got an unexpected keyword argument \"it's\"");
    binds_not(&get, "[]", "{\"\\\"q\\\"\": 1}", "get() got an unexpected keyword argument '\"q\"'");
    binds_not(&get, "[]", "{\"'\\\"\": 1}", "get() got an unexpected keyword argument '\\'\"'");
    binds_not(&get, "[]", "{\"\": 1}", "get() got an unexpected keyword argument ''");
    binds_not(&get, "[]", "{\"a\\nb\\t\\\\\": 1}", "get() got an unexpected keyword argument 'a\\nb\\t\\\\'");
    binds_not(&get, "[]", "{\"\303\251\": 1}", "get() got an unexpected keyword argument '\303\251'");
    binds_not(&get, "[]", "{\"\342\200\213\356\200\200\177\360\237\230\200\363\240\200\201\": 1}",
              "get() got an unexpected keyword argument '\\u200b\\ue000\\x7f\360\237\230\200\\U000e0001'");
    binds_not(&two, "[]", "{}", "two() missing 2 required positional arguments: 'a' and 'b'");
    binds_not(&two, "[1]", "{}", "two() missing 1 required positional argument: 'b'");
    binds_not(&two, "[]", "{\"b\": 1}", "two() missing 1 required positional argument: 'a'");
    binds(&two, "[]", "{\"b\": 1, \"a\": 2}", "a=2 b=1");
    binds_not(&two, "[1]", "{\"a\": 2}", "two() got multiple values for argument 'a'");
    binds(&two, "[1]", "{\"b\": 2}", "a=1 b=2");
    binds_not(&two, "[1, 2, 3]", "{}", "two() takes 3 positional arguments but 4 were given");
    binds_not(&two, "[1, 2, 3]", "{\"b\": 1}", "two() got multiple values for argument 'b'");
    binds_not(&three, "[]", "{}", "three() missing 3 required positional arguments: 'a', 'b' and 'c'");
    binds_not(&three, "[]", "{\"b\": 1}", "three() missing 2 required positional arguments: 'a' and 'c'");
    binds_not(&three, "[1]", "{}", "three() missing 2 required positional arguments: 'b' and 'c'");
    binds_not(&three, "[1]", "{\"c\": 1}", "three() missing 1 required positional argument: 'b'");
    binds_not(&three, "[1, 2, 3, 4, 5]", "{}", "three() takes 4 positional arguments but 6 were given");
    binds_not(&opt, "[]", "{}", "opt() missing 1 required positional argument: 'a'");
    binds(&opt, "[1]", "{}", "a=1 b=-");
    binds(&opt, "[1, 2]", "{}", "a=1 b=2");
    binds_not(&opt, "[1, 2, 3]", "{}", "opt() takes from 2 to 3 positional arguments but 4 were given");
    binds_not(&opt, "[]", "{\"b\": 2}", "opt() missing 1 required positional argument: 'a'");
    binds(&opt, "[1]", "{\"b\": 2}", "a=1 b=2");
    binds_not(&opt, "[1, 2]", "{\"b\": 2}", "opt() got multiple values for argument 'b'");
    binds(&opt, "[]", "{\"a\": 1}", "a=1 b=-");
    binds(&opts, "[]", "{}", "a=- b=-");
    binds_not(&opts, "[1, 2, 3]", "{}", "opts() takes from 1 to 3 positional arguments but 4 were given");
    binds(&opts, "[]", "{\"b\": 1}", "a=- b=1");
    binds_not(&opts, "[]", "{\"c\": 1}", "opts() got an unexpected keyword argument 'c'");
    binds_not(&four, "[]", "{}", "four() missing 3 required positional arguments: 'a', 'b' and 'c'");
    binds_not(&four, "[]", "{\"d\": 1}", "four() missing 3 required positional arguments: 'a', 'b' and 'c'");
    binds(&four, "[1, 2, 3]", "{}", "a=1 b=2 c=3 d=-");
    binds_not(&four, "[1, 2, 3, 4, 5]", "{}", "four() takes from 4 to 5 positional arguments but 6 were given");
    binds_not(&four, "[1]", "{\"c\": 3}", "four() missing 1 required positional argument: 'b'");
}

/* The words have a bound: a name that is longer is cut, between two characters. */
static void test_long_names(void **state)
{
    char kwargs[3000], reason[WIRE_REASON_SIZE];
    json_t *bound[RPC_PARAMETERS_MAX] = {NULL};
    struct wire_call call = {.args = json_array()};

    (void)state;
    snprintf(kwargs, sizeof(kwargs), "{\"%02000d\": 1}", 0);
    call.kwargs = json_loads(kwargs, 0, NULL);
    assert_non_null(call.kwargs);
    assert_false(wire_bind(&get, &call, bound, reason));
    assert_int_equal(strncmp(reason, "get() got an unexpected keyword argument '000", 45), 0);
    assert_in_range(strlen(reason), 200, WIRE_REASON_SIZE - 1);
    json_decref(call.kwargs);
    for (int shift = 0; shift < 4; shift++) {
        json_t *text;

        call.kwargs = json_object();
        memset(kwargs, 'x', sizeof(kwargs));
        for (int i = shift; i + 3 < 1000; i += 3)
            memcpy(kwargs + i, "\342\202\254", 4);
        json_object_set_new(call.kwargs, kwargs, json_true());
        assert_false(wire_bind(&get, &call, bound, reason));
        text = json_string(reason); /* refuses what is no UTF-8 */
        assert_non_null(text);
        json_decref(text);
        json_decref(call.kwargs);
    }
    json_decref(call.args);
}

/* The most parameters that a method may have. */
static void test_sixteen(void **state)
{
    static const char *const names[RPC_PARAMETERS_MAX + 1] = {"a", "b", "c", "d", "e", "f", "g", "h",
                                                              "i", "j", "k", "l", "m", "n", "o", "p"};
    const struct rpc_method many = {.name = "many", .parameters = names, .parameters_required = RPC_PARAMETERS_MAX};

    (void)state;
    binds(&many, "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]", "{\"p\": 16}",
          "a=1 b=2 c=3 d=4 e=5 f=6 g=7 h=8 i=9 j=10 k=11 l=12 m=13 n=14 o=15 p=16");
    binds_not(&many, "[]", "{}",
              "many() missing 16 required positional arguments: 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', "
              "'k', 'l', 'm', 'n', 'o' and 'p'");
    binds_not(&many, "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]", "{}",
              "many() takes 17 positional arguments but 18 were given");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_getcallargs),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_sixteen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

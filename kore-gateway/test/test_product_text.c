/* product_text: what a service may say of a product, and what a client gets of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "product_text.h"

/* A copy of its exact size, so that a sanitizer sees a walk that leaves its bounds. */
static struct rpc_bytes exact(const char *text, size_t size)
{
    char *copy = malloc(size == 0 ? 1 : size);

    assert_non_null(copy);
    memcpy(copy, text, size);
    return (struct rpc_bytes){copy, size};
}

static void becomes(const char *text, const char *expected, int line)
{
    struct rpc_bytes bytes = exact(text, strlen(text));
    struct product_text product;
    struct rpc_text out = {0};

    if (!product_text_open(&product, bytes))
        fail_msg("line %d: refused: %s", line, text);
    product_text_append(&out, &product);
    if (!rpc_bytes_equal(rpc_text_bytes(&out), expected))
        fail_msg("line %d: %.*s", line, (int)out.size, out.data);
    if (out.size > bytes.size)
        fail_msg("line %d: it has grown", line);
    rpc_text_clear(&out);
    free((void *)(uintptr_t)bytes.data);
}

static void is_nonsense(const char *text, int line)
{
    struct rpc_bytes bytes = exact(text, strlen(text));
    struct product_text product;

    if (product_text_open(&product, bytes))
        fail_msg("line %d: taken: %s", line, text);
    free((void *)(uintptr_t)bytes.data);
}

#define prints(text, expected) becomes(text, expected, __LINE__)
#define stays(text)            becomes(text, text, __LINE__)
#define nonsense(text)         is_nonsense(text, __LINE__)

#define REST ",\"title\":\"T\",\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":3}"
#define ALL  "{\"id\":\"a\"" REST

static void test_as_printed(void **state)
{
    (void)state;
    stays(ALL);
    stays(
        "{\"id\":\"\",\"title\":\"\",\"passenger_capacity\":0,\"maximum_speed\":-1,\"in_stock\":-9223372036854775808}");
    stays("{\"id\":\"a\\\\\",\"title\":\"\\\"\\\\\\\"\",\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":"
          "9223372036854775807}");
    stays("{\"id\":\"\xc3\xbc,\",\"title\":\"a,b:c}]\",\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":3}");
}

static void test_other_forms(void **state)
{
    (void)state;
    /* Python's; any order; any space. */
    stays("{\"id\": \"\\u00fc\", \"title\": \"T\", \"passenger_capacity\": 1, \"maximum_speed\": 2, \"in_stock\": 3}");
    stays("{\"in_stock\":3,\"maximum_speed\":2,\"passenger_capacity\":1,\"title\":\"T\",\"id\":\"a\"}");
    stays(" \t{\r\n\"id\"\n:\n\"a\"\n" REST " \n");
    stays("{\"id\":\"a\",\"title\":\"T\",\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":3 }");
}

static void test_what_stays_inside(void **state)
{
    (void)state;
    prints("{\"cost\":{\"in_stock\":[9,\"}\"]}, \"id\":\"a\"" REST, ALL);
    prints("{\"id\":\"a\",\"title\":\"T\",\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":3,\"\":0}", ALL);
    prints("{\"id\" : \"a\\/b\" , \"x\":null,\"x\":null" REST, "{\"id\":\"a\\/b\"" REST);
    prints("{\"i\\u0064\":\"b\",\"id\":\"a\"" REST, ALL); /* no field as it is spelled, and so none at all */
}

static void test_nonsense(void **state)
{
    (void)state;
    nonsense("");
    nonsense(" ");
    nonsense("null");
    nonsense("5");
    nonsense("\"a\"");
    nonsense("[]");
    nonsense("[" ALL "]");
    nonsense("{}");
    nonsense("{\"id\":5}");
    nonsense("{\"id\":\"a\"}");
    nonsense("{\"product\":" ALL "}");
    /* Each field: missing, null, of another type; an integer that is none or does not fit. */
    nonsense("{\"i\":\"a\"" REST);
    nonsense("{\"id\":null" REST);
    nonsense("{\"id\":5" REST);
    nonsense("{\"id\":[\"a\"]" REST);
    nonsense("{\"id\":\"a\",\"title\":null,\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":3}");
    nonsense("{\"id\":\"a\",\"title\":{},\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":3}");
    nonsense("{\"id\":\"a\",\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":3}");
    nonsense("{\"id\":\"a\",\"title\":\"T\",\"passenger_capacity\":\"1\",\"maximum_speed\":2,\"in_stock\":3}");
    nonsense("{\"id\":\"a\",\"title\":\"T\",\"passenger_capacity\":true,\"maximum_speed\":2,\"in_stock\":3}");
    nonsense("{\"id\":\"a\",\"title\":\"T\",\"passenger_capacity\":1,\"maximum_speed\":2.0,\"in_stock\":3}");
    nonsense("{\"id\":\"a\",\"title\":\"T\",\"passenger_capacity\":1,\"maximum_speed\":2e1,\"in_stock\":3}");
    nonsense("{\"id\":\"a\",\"title\":\"T\",\"passenger_capacity\":1,\"maximum_speed\":[],\"in_stock\":3}");
    nonsense("{\"id\":\"a\",\"title\":\"T\",\"passenger_capacity\":1,\"maximum_speed\":2}");
    nonsense("{\"id\":\"a\",\"title\":\"T\",\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":null}");
    nonsense(
        "{\"id\":\"a\",\"title\":\"T\",\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":9223372036854775808}");
    nonsense(
        "{\"id\":\"a\",\"title\":\"T\",\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":-9223372036854775809}");
    nonsense(
        "{\"id\":\"a\",\"title\":\"T\",\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":18446744073709551617}");
    /* A field twice, be it the same. */
    nonsense("{\"id\":\"a\",\"id\":\"a\"" REST);
    nonsense(
        "{\"id\":\"a\",\"title\":\"T\",\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":3,\"in_stock\":4}");
}

static void test_id(void **state)
{
    struct product_text product;

    (void)state;
    assert_true(product_text_open(&product, RPC_BYTES(" {\"title\":\"T\",\"id\":\"a\\n\",\"passenger_capacity\":1,"
                                                      "\"maximum_speed\":2,\"in_stock\":3}")));
    assert_true(rpc_bytes_equal(product_text_id(&product), "\"a\\n\""));
}

/* Not sound, and so nothing is promised but that no byte outside is read. */
static void test_unsound(void **state)
{
    static const char text[] = "{\"id\":\"a\\\"\",\"title\":\"T\\\\\",\"passenger_capacity\":1,\"x\":[{\"y\":\"]\"}],"
                               "\"maximum_speed\":2,\"in_stock\":3}";

    (void)state;
    for (size_t size = 0; size < sizeof(text); size++) {
        for (size_t damaged = 0; damaged <= size; damaged++) {
            char changed[sizeof(text)];
            struct product_text product;
            struct rpc_bytes bytes;

            memcpy(changed, text, sizeof(text));
            if (damaged < size)
                changed[damaged] = '\\';
            bytes = exact(changed, size);
            (void)product_text_open(&product, bytes);
            free((void *)(uintptr_t)bytes.data);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_printed), cmocka_unit_test(test_other_forms), cmocka_unit_test(test_what_stays_inside),
        cmocka_unit_test(test_nonsense),   cmocka_unit_test(test_id),          cmocka_unit_test(test_unsound),
    };

    return cmocka_run_group_tests_name("product_text", tests, NULL, NULL);
}

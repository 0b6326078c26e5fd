/* order_text, and with it walk and distinct: products put into an order's text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "order_text.h"
#include "walk.h"

/* A copy of its exact size, so that a sanitizer sees a walk that leaves its bounds. */
static struct rpc_bytes exact(const char *text)
{
    size_t size = strlen(text);
    char *copy = malloc(size == 0 ? 1 : size);

    assert_non_null(copy);
    memcpy(copy, text, size);
    return (struct rpc_bytes){copy, size};
}

static void becomes(const char *text, const char *const products[], const char *expected, int line)
{
    struct rpc_bytes bytes = exact(text), lent[8];
    struct order_text order;
    struct rpc_text out = {0};

    if (order_text_open(&order, bytes) != ORDER_TEXT_OK)
        fail_msg("line %d: refused: %s", line, text);
    for (size_t i = 0; i < order.products.count; i++)
        lent[i] = rpc_bytes_of(products[i]);
    order_text_print(&out, &order, lent, RPC_BYTES("http://i"));
    if (order.id != 1)
        fail_msg("line %d: order %lld", line, (long long)order.id);
    if (!rpc_bytes_equal(rpc_text_bytes(&out), expected))
        fail_msg("line %d: got:\n%.*s\nnot:\n%s", line, (int)out.size, out.data, expected);
    if (order_text_size(&order, lent, RPC_BYTES("http://i")) != out.size)
        fail_msg("line %d: its size was said to be another", line);
    rpc_text_clear(&out);
    order_text_clear(&order);
    free((void *)(uintptr_t)bytes.data);
}

#define prints(text, expected, ...) becomes(text, (const char *const[]){__VA_ARGS__}, expected, __LINE__)

static void test_orders(void **state)
{
    (void)state;
    prints("{\"id\":1,\"order_details\":[]}", "{\"id\":1,\"order_details\":[]}", "");
    prints(
        "{\"id\":1,\"order_details\":[{\"id\":2,\"product_id\":\"a\",\"price\":\"1.00\"}]}",
        "{\"id\":1,\"order_details\":[{\"id\":2,\"product_id\":\"a\",\"price\":\"1.00\", \"product\": {\"id\": \"a\"}, "
        "\"image\": \"http://i/a.jpg\"}]}",
        "{\"id\": \"a\"}");
    /* Spaces, another order of members, members that we do not know, brackets in strings. */
    prints(
        " { \"x\" : \"]}\\\"\" , \"order_details\" : [ { \"product_id\" : \"a\" , \"y\" : [ { } ] } ] , \"id\" : 1 } ",
        " { \"x\" : \"]}\\\"\" , \"order_details\" : [ { \"product_id\" : \"a\" , \"y\" : [ { } ] , \"product\": null, "
        "\"image\": \"http://i/a.jpg\"} ] , \"id\" : 1 } ",
        "null");
    /* One product on two lines is asked for once; what is escaped stays so. */
    prints(
        "{\"id\":1,\"order_details\":[{\"product_id\":\"a\\\"\\u00fc/\"},{\"product_id\":\"b\"},{\"product_id\":\"a\\\"\\u00fc/\"}]}",
        "{\"id\":1,\"order_details\":[{\"product_id\":\"a\\\"\\u00fc/\", \"product\": {\"n\":1}, \"image\": "
        "\"http://i/a\\\"\\u00fc/.jpg\"},{\"product_id\":\"b\", \"product\": {\"n\":2}, \"image\": "
        "\"http://i/b.jpg\"},{\"product_id\":\"a\\\"\\u00fc/\", \"product\": {\"n\":1}, \"image\": "
        "\"http://i/a\\\"\\u00fc/.jpg\"}]}",
        "{\"n\":1}", "{\"n\":2}");
}

static void is_nonsense(const char *text, int line)
{
    struct rpc_bytes bytes = exact(text);
    struct order_text order = {.lines_count = 7777};

    if (order_text_open(&order, bytes) != ORDER_TEXT_NONSENSE || order.lines_count != 7777)
        fail_msg("line %d: taken: %s", line, text);
    free((void *)(uintptr_t)bytes.data);
}

#define nonsense(text) is_nonsense(text, __LINE__)

static void test_nonsense(void **state)
{
    (void)state;
    nonsense("");
    nonsense(" ");
    nonsense("null");
    nonsense("5");
    nonsense("\"x\"");
    nonsense("[]");
    nonsense("{}");
    nonsense("{\"id\":1}");
    nonsense("{\"order_details\":[]}");
    nonsense("{\"id\":\"1\",\"order_details\":[]}");
    nonsense("{\"id\":1.5,\"order_details\":[]}");
    nonsense("{\"id\":1,\"order_details\":null}");
    nonsense("{\"id\":1,\"order_details\":{}}");
    nonsense("{\"id\":1,\"order_details\":[null]}");
    nonsense("{\"id\":1,\"order_details\":[[]]}");
    nonsense("{\"id\":1,\"order_details\":[{}]}");
    nonsense("{\"id\":1,\"order_details\":[{\"product_id\":5}]}");
    nonsense("{\"id\":1,\"order_details\":[{\"product_id\":null}]}");
    nonsense("{\"id\":1,\"order_details\":[{\"product_id\":\"a\"},{\"id\":1}]}");
}

/* Not sound, and so nothing is promised but that no byte beyond the end is read: an order, or none. */
static void test_unsound(void **state)
{
    static const char text[] = "{\"id\":1,\"order_details\":[{\"product_id\":\"a\\\"\",\"x\":[{}]}]}";

    (void)state;
    for (size_t size = 0; size < sizeof(text); size++) {
        char *cut = strndup(text, size);
        struct rpc_bytes bytes = exact(cut), product = RPC_BYTES("null");
        struct order_text order;
        struct rpc_text out = {0};

        if (order_text_open(&order, bytes) == ORDER_TEXT_OK) {
            order_text_print(&out, &order, &product, RPC_BYTES(""));
            order_text_clear(&order);
        }
        rpc_text_clear(&out);
        free((void *)(uintptr_t)bytes.data);
        free(cut);
    }
}

static void test_many_products(void **state)
{
    static const char last[] = "\"p999\", \"product\": \"p999\", \"image\": \"/p999.jpg\"";
    struct rpc_text text = {0}, out = {0};
    struct rpc_bytes products[1000];
    struct order_text order;

    (void)state;
    rpc_text_append(&text, RPC_BYTES("{\"id\":1,\"order_details\":["));
    for (int i = 0; i < 3000; i++) {
        char line[64];

        snprintf(line, sizeof(line), "%s{\"product_id\":\"p%d\"}", i == 0 ? "" : ",", i % 1000);
        rpc_text_append(&text, rpc_bytes_of(line));
    }
    rpc_text_append(&text, RPC_BYTES("]}"));
    assert_int_equal(order_text_open(&order, rpc_text_bytes(&text)), ORDER_TEXT_OK);
    assert_int_equal(order.lines_count, 3000);
    assert_int_equal(order.products.count, 1000);
    for (size_t i = 0; i < 1000; i++) {
        char id[16];

        snprintf(id, sizeof(id), "\"p%zu\"", i);
        assert_true(rpc_bytes_equal(order.products.items[i], id));
        products[i] = order.products.items[i];
    }
    order_text_print(&out, &order, products, RPC_BYTES(""));
    assert_non_null(memmem(out.data, out.size, last, sizeof(last) - 1));
    assert_memory_equal(out.data + out.size - 3 - sizeof(last) + 1, last, sizeof(last) - 1);
    order_text_clear(&order);
    rpc_text_clear(&text);
    rpc_text_clear(&out);
}

static void test_walk(void **state)
{
    int64_t integer = 7777;

    (void)state;
    assert_true(rpc_bytes_equal(walk_member(RPC_BYTES("{\"a\":1,\"b\":[1,2],\"a\":\"x\"}"), "a"), "\"x\""));
    assert_true(rpc_bytes_equal(walk_member(RPC_BYTES("{\"a\":1,\"b\":[1,{\"c\":\"]\"}]}"), "b"), "[1,{\"c\":\"]\"}]"));
    assert_null(walk_member(RPC_BYTES("{\"a\":{\"b\":1}}"), "b").data);
    assert_true(walk_integer(RPC_BYTES("-9223372036854775808"), &integer) && integer == INT64_MIN);
    assert_true(walk_integer(RPC_BYTES("9223372036854775807"), &integer) && integer == INT64_MAX);
    assert_true(walk_integer(RPC_BYTES("-0"), &integer) && integer == 0);
    assert_false(walk_integer(RPC_BYTES("9223372036854775808"), &integer));
    assert_false(walk_integer(RPC_BYTES("-9223372036854775809"), &integer));
    assert_false(walk_integer(RPC_BYTES("18446744073709551617"), &integer));
    assert_false(walk_integer(RPC_BYTES("99999999999999999999"), &integer));
    assert_false(walk_integer(RPC_BYTES("1.0"), &integer));
    assert_false(walk_integer(RPC_BYTES("1e1"), &integer));
    assert_false(walk_integer(RPC_BYTES("\"1\""), &integer));
    assert_false(walk_integer(RPC_BYTES("-"), &integer));
    assert_false(walk_integer((struct rpc_bytes){NULL, 0}, &integer));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders),        cmocka_unit_test(test_nonsense), cmocka_unit_test(test_unsound),
        cmocka_unit_test(test_many_products), cmocka_unit_test(test_walk),
    };

    return cmocka_run_group_tests_name("order_text", tests, NULL, NULL);
}

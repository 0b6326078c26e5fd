/* order_text, and with it printed, walk and distinct: what is an order, and products put into its text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "order.h"
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
    int64_t id = 0;

    if (!order_text_check(bytes, &id) || id != 1)
        fail_msg("line %d: no order 1: %s", line, text);
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

#define LINE(product_id)         "{\"id\":2,\"product_id\":" product_id ",\"price\":\"1.00\",\"quantity\":3"
#define ORDER(lines)             "{\"id\":1,\"order_details\":[" lines "]}"
#define PUT(product, product_id) ", \"product\": " product ", \"image\": \"http://i/" product_id ".jpg\"}"

static void test_as_printed(void **state)
{
    (void)state;
    prints(ORDER(""), ORDER(""), "");
    prints(ORDER(LINE("\"a\"") "}"), ORDER(LINE("\"a\"") PUT("{\"id\": \"a\"}", "a")), "{\"id\": \"a\"}");
    /* One product on two lines is asked for once; what is escaped stays so. */
    prints(ORDER(LINE("\"a\\\"\\u00fc/\"") "}," LINE("\"b\"") "}," LINE("\"a\\\"\\u00fc/\"") "}"),
           ORDER(LINE("\"a\\\"\\u00fc/\"") PUT("{\"n\":1}", "a\\\"\\u00fc/") "," LINE("\"b\"")
                     PUT("{\"n\":2}", "b") "," LINE("\"a\\\"\\u00fc/\"") PUT("{\"n\":1}", "a\\\"\\u00fc/")),
           "{\"n\":1}", "{\"n\":2}");
    /* Prices and quantities as somebody may have stored them. */
    prints("{\"id\":1,\"order_details\":[{\"id\":-2,\"product_id\":\"\",\"price\":\"-0.5\",\"quantity\":-3}]}",
           "{\"id\":1,\"order_details\":[{\"id\":-2,\"product_id\":\"\",\"price\":\"-0.5\",\"quantity\":-3" PUT(
               "null", "") "]}",
           "null");
    prints(
        "{\"id\":1,\"order_details\":[{\"id\":999999999999999999,\"product_id\":\"a\",\"price\":\"7\",\"quantity\":0}]}",
        "{\"id\":1,\"order_details\":[{\"id\":999999999999999999,\"product_id\":\"a\",\"price\":\"7\",\"quantity\":0" PUT(
            "null", "a") "]}",
        "null");
}

static void test_other_forms(void **state)
{
    (void)state;
    /* Python's. */
    prints("{\"id\": 1, \"order_details\": []}", ORDER(""), "");
    prints("{\"id\": 1, \"order_details\": [{\"id\": 2, \"product_id\": \"a\", \"price\": \"1.00\", \"quantity\": 3}, "
           "{\"id\": 2, \"product_id\": \"b\", \"price\": \"1.00\", \"quantity\": 3}]}",
           ORDER(LINE("\"a\"") PUT("{}", "a") "," LINE("\"b\"") PUT("null", "b")), "{}", "null");
    /* Any order, any space. */
    prints(
        "\t{\r\n\"order_details\" : [ { \"quantity\" : 3 , \"price\" : \"1.00\" , \"product_id\" : \"a\" , \"id\" : 2 } ] "
        ", \"id\" : 1 } ",
        ORDER(LINE("\"a\"") PUT("null", "a")), "null");
    prints(ORDER(LINE("\"a\"") " }"), ORDER(LINE("\"a\"") PUT("null", "a")), "null");
    prints(ORDER(LINE("\"a\"") "}") " ", ORDER(LINE("\"a\"") PUT("null", "a")), "null");
}

static void test_what_stays_inside(void **state)
{
    (void)state;
    prints("{\"x\":\"]}\\\"\",\"id\":1,\"order_details\":[" LINE(
               "\"a\"") ",\"cost\":[{\"id\":9}]}],\"y\":{\"id\":8},\"x\":0}",
           ORDER(LINE("\"a\"") PUT("null", "a")), "null");
    /* It may not say itself what is put in. */
    prints(ORDER(LINE("\"a\"") ",\"product\":{\"id\":\"b\"},\"image\":\"b.jpg\"}"),
           ORDER(LINE("\"a\"") PUT("null", "a")), "null");
    prints("{\"i\\u0064\":7,\"id\":1,\"order_details\":[]}", ORDER(""), "");
}

/* What our own service prints is an order, to the end of what it can print. */
static void test_what_orders_prints(void **state)
{
    struct order_line lines[] = {
        {.id = 1, .product_id = RPC_BYTES("a\"\\\x01\xc3\xbc"), .price = RPC_BYTES("0.00"), .quantity = 1},
        {.id = INT32_MAX,
         .product_id = RPC_BYTES("}],"),
         .price = RPC_BYTES("9999999999999999.99"),
         .quantity = ORDER_QUANTITY_MAX}};
    const struct order order = {.id = ORDER_ID_MAX, .lines_count = 2, .lines = lines};
    struct rpc_text text = {0};
    const char *at, *end;
    int64_t id = 0;

    (void)state;
    order_print(&text, &order);
    assert_false(text.failed);
    at = text.data;
    end = text.data + text.size;
    assert_true(order_text_skip(&at, end, &id)); /* in its form, not only as an order */
    assert_true(at == end && id == ORDER_ID_MAX);
    rpc_text_clear(&text);
}

static void is_nonsense(const char *text, int line)
{
    struct rpc_bytes bytes = exact(text);
    struct order_text order = {.lines_count = 7777};
    int64_t id;

    if (order_text_open(&order, bytes) != ORDER_TEXT_NONSENSE || order.lines_count != 7777)
        fail_msg("line %d: taken: %s", line, text);
    if (order_text_check(bytes, &id))
        fail_msg("line %d: an order: %s", line, text);
    free((void *)(uintptr_t)bytes.data);
}

#define nonsense(text)         is_nonsense(text, __LINE__)
/* As our own service prints it, and in another form. */
#define nonsense_line(members) (nonsense(ORDER("{" members "}")), nonsense(ORDER("{" members " }")))

static void test_nonsense(void **state)
{
    (void)state;
    nonsense("");
    nonsense(" ");
    nonsense("null");
    nonsense("5");
    nonsense("\"x\"");
    nonsense("[]");
    nonsense("[" ORDER("") "]");
    nonsense("{}");
    nonsense("{\"id\":1}");
    nonsense("{\"order_details\":[]}");
    nonsense("{\"id\":null,\"order_details\":[]}");
    nonsense("{\"id\":\"1\",\"order_details\":[]}");
    nonsense("{\"id\":1.5,\"order_details\":[]}");
    nonsense("{\"id\":1e5,\"order_details\":[]}");
    nonsense("{\"id\":18446744073709551617,\"order_details\":[]}");
    nonsense("{\"id\":1,\"order_details\":null}");
    nonsense("{\"id\":1,\"order_details\":{}}");
    nonsense("{\"id\":1,\"order_details\":\"[]\"}");
    nonsense("{\"id\":1,\"id\":1,\"order_details\":[]}");
    nonsense("{\"id\":1,\"order_details\":[],\"order_details\":[]}");
    nonsense(ORDER("null"));
    nonsense(ORDER("[]"));
    nonsense(ORDER("{}"));
    nonsense(ORDER("{},{}"));
    nonsense(ORDER(LINE("\"a\"") "},"
                                 "{\"id\":1}"));
}

static void test_nonsense_lines(void **state)
{
    (void)state;
    /* Each field: missing, null, of another type; an integer that is none, or of too many digits. */
    nonsense_line("\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":3");
    nonsense_line("\"id\":2,\"price\":\"1.00\",\"quantity\":3");
    nonsense_line("\"id\":2,\"product_id\":\"a\",\"quantity\":3");
    nonsense_line("\"id\":2,\"product_id\":\"a\",\"price\":\"1.00\"");
    nonsense_line("\"id\":null,\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":3");
    nonsense_line("\"id\":\"2\",\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":3");
    nonsense_line("\"id\":2.0,\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":3");
    nonsense_line("\"id\":1000000000000000000,\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":3");
    nonsense_line("\"id\":2,\"product_id\":null,\"price\":\"1.00\",\"quantity\":3");
    nonsense_line("\"id\":2,\"product_id\":5,\"price\":\"1.00\",\"quantity\":3");
    nonsense_line("\"id\":2,\"product_id\":[\"a\"],\"price\":\"1.00\",\"quantity\":3");
    nonsense_line("\"id\":2,\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":null");
    nonsense_line("\"id\":2,\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":\"3\"");
    nonsense_line("\"id\":2,\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":true");
    nonsense_line("\"id\":2,\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":3e1");
    nonsense_line("\"id\":2,\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":18446744073709551617");
    /* Twice, be it the same. */
    nonsense_line("\"id\":2,\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":3,\"quantity\":3");
    nonsense_line("\"id\":2,\"product_id\":\"a\",\"product_id\":\"b\",\"price\":\"1.00\",\"quantity\":3");
}

static void is_no_price(const char *price, int line)
{
    char text[256];

    snprintf(text, sizeof(text),
             "{\"id\":1,\"order_details\":[{\"id\":2,\"product_id\":\"a\",\"price\":%s,\"quantity\":3}]}", price);
    is_nonsense(text, line);
    snprintf(text, sizeof(text),
             "{\"id\":1,\"order_details\":[{\"price\":%s,\"id\":2,\"product_id\":\"a\",\"quantity\":3}]}", price);
    is_nonsense(text, line);
}

#define no_price(price) is_no_price(price, __LINE__)

static void test_no_prices(void **state)
{
    (void)state;
    no_price("null");
    no_price("1");
    no_price("1.5");
    no_price("true");
    no_price("[\"1.00\"]");
    no_price("\"\"");
    no_price("\"-\"");
    no_price("\".\"");
    no_price("\"1.\"");
    no_price("\".5\"");
    no_price("\"1.0.0\"");
    no_price("\"--1\"");
    no_price("\"+1\"");
    no_price("\" 1\"");
    no_price("\"1 \"");
    no_price("\"1e5\"");
    no_price("\"1,00\"");
    no_price("\"NaN\"");
    no_price("\"\\u0031\"");
}

/* Not sound, and so nothing is promised but that no byte beyond the end is read: an order, or none. */
static void test_unsound(void **state)
{
    static const char text[] =
        "{\"id\":1,\"order_details\":[{\"id\":2,\"product_id\":\"a\\\"\",\"price\":\"1.00\",\"quantity\":3},"
        "{\"x\":[{}],\"id\":2,\"product_id\":\"a\\\"\",\"price\":\"1.00\",\"quantity\":3}]}";

    (void)state;
    for (size_t size = 0; size < sizeof(text); size++) {
        for (size_t damaged = 0; damaged <= size; damaged++) {
            char changed[sizeof(text)];
            struct rpc_bytes bytes, product = RPC_BYTES("null"), products[] = {product, product};
            struct order_text order;
            struct rpc_text out = {0};

            memcpy(changed, text, sizeof(text));
            changed[size] = '\0';
            if (damaged < size)
                changed[damaged] = '\\';
            bytes = exact(changed);
            if (order_text_open(&order, bytes) == ORDER_TEXT_OK) {
                order_text_print(&out, &order, products, RPC_BYTES(""));
                order_text_clear(&order);
            }
            rpc_text_clear(&out);
            free((void *)(uintptr_t)bytes.data);
        }
    }
}

static void test_many_products(void **state)
{
    static const char last[] = "\"quantity\":1, \"product\": \"p999\", \"image\": \"/p999.jpg\"";
    struct rpc_text text = {0}, out = {0};
    struct rpc_bytes products[1000];
    struct order_text order;

    (void)state;
    rpc_text_append(&text, RPC_BYTES("{\"id\":1,\"order_details\":["));
    for (int i = 0; i < 3000; i++) {
        char line[96];

        snprintf(line, sizeof(line), "%s{\"id\":%d,\"product_id\":\"p%d\",\"price\":\"1\",\"quantity\":1}",
                 i == 0 ? "" : ",", i, i % 1000);
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

static void test_members(void **state)
{
    static const char *const names[] = {"a", "b"};
    struct rpc_bytes values[2];
    bool others = true;

    (void)state;
    assert_true(walk_members(RPC_BYTES("{\"a\":1,\"b\":[1,{\"c\":\"]\"}]}"), 2, names, values, &others));
    assert_true(rpc_bytes_equal(values[0], "1") && rpc_bytes_equal(values[1], "[1,{\"c\":\"]\"}]") && !others);
    assert_true(walk_members(RPC_BYTES("{\"c\":{\"b\":1},\"a\":\"x\",\"c\":2}"), 2, names, values, &others));
    assert_true(rpc_bytes_equal(values[0], "\"x\"") && values[1].data == NULL && others);
    assert_true(walk_members(RPC_BYTES("{}"), 2, names, values, NULL));
    assert_true(values[0].data == NULL && values[1].data == NULL);
    assert_false(walk_members(RPC_BYTES("{\"a\":1,\"b\":2,\"a\":1}"), 2, names, values, NULL));
    assert_false(walk_members(RPC_BYTES("[]"), 2, names, values, NULL));
    assert_false(walk_members(RPC_BYTES("5"), 2, names, values, NULL));
}

static void test_integers(void **state)
{
    int64_t integer = 7777;

    (void)state;
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
        cmocka_unit_test(test_as_printed),        cmocka_unit_test(test_other_forms),
        cmocka_unit_test(test_what_stays_inside), cmocka_unit_test(test_what_orders_prints),
        cmocka_unit_test(test_nonsense),          cmocka_unit_test(test_nonsense_lines),
        cmocka_unit_test(test_no_prices),         cmocka_unit_test(test_unsound),
        cmocka_unit_test(test_many_products),     cmocka_unit_test(test_members),
        cmocka_unit_test(test_integers),
    };

    return cmocka_run_group_tests_name("order_text", tests, NULL, NULL);
}

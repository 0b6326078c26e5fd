/* What an order_created event says, and what is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "order_event.h"

static json_t *load(const char *text)
{
    json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);

    if (json == NULL)
        fail_msg("no JSON: %s", text);
    return json;
}

static void is_refused(const char *text, const char *word)
{
    struct order_event event = {.order_id = 4711};
    json_t *json = load(text);
    const char *fault = NULL;
    size_t references = json->refcount;

    if (order_event_read(&event, json, &fault))
        fail_msg("taken: %s", text);
    if (fault == NULL || strstr(fault, word) == NULL)
        fail_msg("%s: \"%s\" does not say \"%s\"", text, fault, word);
    assert_int_equal(event.order_id, 4711);
    assert_int_equal(json->refcount, references);
    json_decref(json);
}

#define LINE(line) "{\"order\": {\"id\": 7, \"order_details\": [{\"product_id\": \"a\", \"quantity\": 1}, " line "]}}"

static void test_refusals(void **state)
{
    (void)state;
    is_refused("null", "no order");
    is_refused("[]", "no order");
    is_refused("{}", "no order");
    is_refused("{\"order\": null}", "no order");
    is_refused("{\"order\": \"x\"}", "no order");
    is_refused("{\"order\": {}}", "id");
    is_refused("{\"order\": {\"id\": \"7\", \"order_details\": []}}", "id");
    is_refused("{\"order\": {\"id\": true, \"order_details\": []}}", "id");
    is_refused("{\"order\": {\"id\": 7.0, \"order_details\": []}}", "id");
    is_refused("{\"order\": {\"id\": 0, \"order_details\": []}}", "id");
    is_refused("{\"order\": {\"id\": -1, \"order_details\": []}}", "id");
    is_refused("{\"order\": {\"id\": 7}}", "order_details");
    is_refused("{\"order\": {\"id\": 7, \"order_details\": null}}", "order_details");
    is_refused("{\"order\": {\"id\": 7, \"order_details\": {}}}", "order_details");
    is_refused(LINE("null"), "line");
    is_refused(LINE("[]"), "line");
    is_refused(LINE("{}"), "product_id");
    is_refused(LINE("{\"product_id\": 5, \"quantity\": 1}"), "product_id");
    is_refused(LINE("{\"product_id\": \"b\"}"), "quantity");
    is_refused(LINE("{\"product_id\": \"b\", \"quantity\": \"1\"}"), "quantity");
    is_refused(LINE("{\"product_id\": \"b\", \"quantity\": 1.0}"), "quantity");
    is_refused(LINE("{\"product_id\": \"b\", \"quantity\": true}"), "quantity");
    is_refused(LINE("{\"product_id\": \"b\", \"quantity\": 0}"), "quantity");
    is_refused(LINE("{\"product_id\": \"b\", \"quantity\": -5}"), "quantity");
    is_refused(LINE("{\"product_id\": \"b\", \"quantity\": 2147483648}"), "quantity");
    is_refused(LINE("{\"product_id\": \"b\", \"quantity\": 9223372036854775807}"), "quantity");
}

static void test_lines_of_one_product_count_together(void **state)
{
    json_t *json = load("{\"order\": {\"id\": 9223372036854775807, \"x\": 1, \"order_details\": ["
                        "{\"product_id\": \"b\", \"quantity\": 2147483647, \"price\": \"1.00\"},"
                        "{\"product_id\": \"a\", \"quantity\": 1}, {\"product_id\": \"ab\", \"quantity\": 10},"
                        "{\"product_id\": \"b\", \"quantity\": 2147483647}, {\"product_id\": \"\", \"quantity\": 5},"
                        "{\"product_id\": \"a\", \"quantity\": 2}]}}");
    struct order_event event;
    const char *fault;

    (void)state;
    assert_true(order_event_read(&event, json, &fault));
    json_decref(json); /* the event holds on to it */
    assert_int_equal(event.order_id, INT64_MAX);
    assert_int_equal(event.count, 4);
    assert_true(rpc_bytes_equal(event.changes[0].product_id, ""));
    assert_int_equal(event.changes[0].quantity, 5);
    assert_true(rpc_bytes_equal(event.changes[1].product_id, "a"));
    assert_int_equal(event.changes[1].quantity, 3);
    assert_true(rpc_bytes_equal(event.changes[2].product_id, "ab"));
    assert_int_equal(event.changes[2].quantity, 10);
    assert_true(rpc_bytes_equal(event.changes[3].product_id, "b"));
    assert_int_equal(event.changes[3].quantity, 4294967294);
    order_event_clear(&event);
}

static void test_an_order_of_nothing(void **state)
{
    json_t *json = load("{\"order\": {\"id\": 1, \"order_details\": []}}");
    struct order_event event;
    const char *fault;

    (void)state;
    assert_true(order_event_read(&event, json, &fault));
    assert_int_equal(event.count, 0);
    order_event_clear(&event);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_lines_of_one_product_count_together),
        cmocka_unit_test(test_an_order_of_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

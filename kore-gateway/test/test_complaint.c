/* complaint: messages of fields as one line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "complaint.h"

static void complaint_is(const char *messages, const char *expected, int line)
{
    json_t *json = json_loads(messages, JSON_DECODE_ANY, NULL);
    struct rpc_text text = {0};

    assert_non_null(json);
    complaint_append(&text, json);
    if (!rpc_bytes_equal(rpc_text_bytes(&text), expected))
        fail_msg("line %d: %.*s", line, (int)text.size, text.data);
    rpc_text_clear(&text);
    json_decref(json);
}

#define is(messages, expected) complaint_is(messages, expected, __LINE__)

static void test_words(void **state)
{
    (void)state;
    is("{\"title\": [\"Not a valid string.\"]}", "title: Not a valid string.");
    is("{\"a\": [\"x.\", \"y.\"], \"b\": [\"z.\"]}", "a: x. a: y. b: z.");
    is("{\"order_details\": {\"0\": {\"price\": [\"Not a valid number.\"]}}}",
       "order_details.0.price: Not a valid number.");
    is("{\"_schema\": [\"Invalid input type.\"]}", "Invalid input type.");
    is("{\"order_details\": {\"3\": {\"_schema\": [\"Invalid.\"]}}}", "order_details.3: Invalid.");
    is("\"a text\"", "a text");
    is("{\"a\": \"x.\"}", "a: x.");
    is("{\"a\": [5, null, true, [], {}]}", "");
    is("[]", "");
    is("null", "");
}

static void test_bounds(void **state)
{
    json_t *all = json_object();
    struct rpc_text text = {0};

    (void)state;
    for (int i = 0; i < 1000; i++) {
        char name[16];

        snprintf(name, sizeof(name), "%d", i);
        json_object_set_new(all, name, json_pack("{s:[s]}", "price", "Not a valid number."));
    }
    complaint_append(&text, all);
    assert_true(text.size > COMPLAINT_SIZE_MAX / 2 && text.size <= COMPLAINT_SIZE_MAX + 4);
    assert_memory_equal(text.data + text.size - 4, " ...", 4);
    rpc_text_clear(&text);
    json_decref(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_words), cmocka_unit_test(test_bounds)};

    return cmocka_run_group_tests_name("complaint", tests, NULL, NULL);
}

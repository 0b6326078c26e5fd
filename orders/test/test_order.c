/* order: what is taken, what is refused and in which words, and how an order looks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "order.h"
#include "rpclib/json.h"

#define LINE_OK "{\"product_id\":\"a\",\"price\":1,\"quantity\":1}"

static json_t *load_at(const char *text, int line)
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *value = rpc_json_load(rpc_bytes_of(text), reason);

    if (value == NULL)
        fail_msg("line %d: %s", line, reason);
    return value;
}

static char *print(const struct order *order)
{
    struct rpc_text text = {.data = NULL};

    order_print(&text, order);
    rpc_text_append(&text, (struct rpc_bytes){.data = "", .size = 1});
    assert_false(text.failed);
    return text.data;
}

enum what { NEW, CHANGE };

static enum order_status read_as(enum what what, struct order *order, const json_t *value, json_t **errors)
{
    return what == NEW ? order_read_new(order, value, errors) : order_read_change(order, value, errors);
}

static void taken_at(enum what what, const char *json, const char *expected, int line)
{
    json_t *value = load_at(json, line), *errors = NULL;
    struct order order = {.id = 0};
    enum order_status status = read_as(what, &order, value, &errors);
    char *printed;

    if (status != ORDER_OK)
        fail_msg("line %d: refused: %s", line, json_dumps(errors, 0));
    json_decref(value); /* what was read stands on its own */
    printed = print(&order);
    if (strcmp(printed, expected) != 0)
        fail_msg("line %d: %s", line, printed);
    free(printed);
    order_clear(&order);
}

static void refused_at(enum what what, const char *json, const char *expected, int line)
{
    json_t *value = json == NULL ? NULL : load_at(json, line), *errors = NULL;
    struct order order = {.id = 77};
    char *text;

    if (read_as(what, &order, value, &errors) != ORDER_INVALID)
        fail_msg("line %d: not refused: %s", line, json);
    assert_int_equal(order.id, 77); /* stays as it was */
    text = json_dumps(errors, JSON_COMPACT | JSON_SORT_KEYS);
    if (strcmp(text, expected) != 0)
        fail_msg("line %d: %s", line, text);
    free(text);
    json_decref(errors);
    json_decref(value);
}

#define is_taken(json, expected)        taken_at(NEW, json, expected, __LINE__)
#define is_refused(json, expected)      refused_at(NEW, json, "{\"order_details\":" expected "}", __LINE__)
#define line_is_refused(fields, error)  is_refused("[{" fields "}]", "{\"0\":" error "}")
#define change_is_taken(json, expected) taken_at(CHANGE, json, expected, __LINE__)
#define change_is_refused(json, error)  refused_at(CHANGE, json, error, __LINE__)

static void test_lines(void **state)
{
    (void)state;
    is_taken(
        "[{\"product_id\":\"the_odyssey\",\"price\":\"100000.99\",\"quantity\":1}]",
        "{\"id\":0,\"order_details\":[{\"id\":0,\"product_id\":\"the_odyssey\",\"price\":\"100000.99\",\"quantity\":1}]}");
    is_taken("[{\"product_id\":\"a\",\"price\":0.1,\"quantity\":\"8\",\"id\":7,\"colour\":[]}," LINE_OK "]",
             "{\"id\":0,\"order_details\":[{\"id\":0,\"product_id\":\"a\",\"price\":\"0.10\",\"quantity\":8},"
             "{\"id\":0,\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":1}]}");
    is_taken("[{\"product_id\":\"\\\"\\\\\\n\\u0001\\u007f\xc3\xbc/\",\"price\":5.0,\"quantity\":2147483647}]",
             "{\"id\":0,\"order_details\":[{\"id\":0,\"product_id\":\"\\\"\\\\\\u000a\\u0001\x7f\xc3\xbc/\","
             "\"price\":\"5.00\",\"quantity\":2147483647}]}");
    is_taken("[{\"product_id\":\"a\",\"price\":1,\"quantity\":3.0}]",
             "{\"id\":0,\"order_details\":[{\"id\":0,\"product_id\":\"a\",\"price\":\"1.00\",\"quantity\":3}]}");
}

static void test_lines_refused(void **state)
{
    (void)state;
    refused_at(NEW, NULL, "{\"order_details\":[\"Missing data for required field.\"]}", __LINE__);
    is_refused("null", "[\"Field may not be null.\"]");
    is_refused("{}", "[\"Invalid type.\"]");
    is_refused("\"x\"", "[\"Invalid type.\"]");
    is_refused("true", "[\"Invalid type.\"]");
    is_refused("[]", "[\"Length must be between 1 and 1000.\"]");
    is_refused("[null]", "{\"0\":{\"_schema\":[\"Invalid input type.\"]}}");
    is_refused("[" LINE_OK ",[]]", "{\"1\":{\"_schema\":[\"Invalid input type.\"]}}");
    line_is_refused(
        "", "{\"price\":[\"Missing data for required field.\"],\"product_id\":[\"Missing data for required field.\"],"
            "\"quantity\":[\"Missing data for required field.\"]}");
    line_is_refused("\"product_id\":null,\"price\":null,\"quantity\":null",
                    "{\"price\":[\"Field may not be null.\"],\"product_id\":[\"Field may not be null.\"],"
                    "\"quantity\":[\"Field may not be null.\"]}");
    is_refused("[{\"product_id\":5,\"price\":1,\"quantity\":1}," LINE_OK
               ",{\"product_id\":\"a\",\"price\":-1,\"quantity\":1}]",
               "{\"0\":{\"product_id\":[\"Not a valid string.\"]},"
               "\"2\":{\"price\":[\"Must be greater than or equal to 0.\"]}}");
}

#define price_is_refused(json, message) \
    line_is_refused("\"product_id\":\"a\",\"quantity\":1,\"price\":" json, "{\"price\":[\"" message "\"]}")
#define quantity_is_refused(json, message) \
    line_is_refused("\"product_id\":\"a\",\"price\":1,\"quantity\":" json, "{\"quantity\":[\"" message "\"]}")
#define NOT_INTEGER  "Not a valid integer."
#define OUT_OF_RANGE "Must be greater than or equal to 1 and less than or equal to 2147483647."

static void test_fields_refused(void **state)
{
    (void)state;
    price_is_refused("\"1.005\"", "Must have no more than 2 decimal places.");
    price_is_refused("1.005", "Must have no more than 2 decimal places.");
    price_is_refused("1e16", "Must be less than or equal to 9999999999999999.99.");
    price_is_refused("-0.01", "Must be greater than or equal to 0.");
    price_is_refused("\"abc\"", "Not a valid number.");
    price_is_refused("true", "Not a valid number.");
    quantity_is_refused("0", OUT_OF_RANGE);
    quantity_is_refused("-1", OUT_OF_RANGE);
    quantity_is_refused("2147483648", OUT_OF_RANGE);
    quantity_is_refused("9223372036854775808", OUT_OF_RANGE);
    quantity_is_refused("1e300", OUT_OF_RANGE);
    quantity_is_refused("\"2147483648\"", OUT_OF_RANGE);
    quantity_is_refused("\"99999999999999999999\"", OUT_OF_RANGE);
    quantity_is_refused("\"-1\"", OUT_OF_RANGE);
    quantity_is_refused("3.7", NOT_INTEGER);
    quantity_is_refused("\"1.5\"", NOT_INTEGER);
    quantity_is_refused("\"1e1\"", NOT_INTEGER);
    quantity_is_refused("\"\"", NOT_INTEGER);
    quantity_is_refused("\"-\"", NOT_INTEGER);
    quantity_is_refused("\" 1\"", NOT_INTEGER);
    quantity_is_refused("\"99999999999999999999x\"", NOT_INTEGER);
    quantity_is_refused("true", NOT_INTEGER);
    quantity_is_refused("[1]", NOT_INTEGER);
}

/* [{"product_id": <`id`>, ...}, ...] */
static char *lines_of(size_t count, const char *id)
{
    struct rpc_text text = {.data = NULL};
    size_t index;

    for (index = 0; index < count; index++) {
        rpc_text_append(&text, index == 0 ? RPC_BYTES("[{\"product_id\":") : RPC_BYTES(",{\"product_id\":"));
        rpc_text_append_json_string(&text, rpc_bytes_of(id));
        rpc_text_append(&text, RPC_BYTES(",\"price\":\"9999999999999999.99\",\"quantity\":1}"));
    }
    rpc_text_append(&text, (struct rpc_bytes){.data = "]", .size = 2});
    return text.data;
}

static void test_limits(void **state)
{
    char id[ORDER_PRODUCT_ID_SIZE_MAX + 2];
    char *json;
    json_t *value, *errors = NULL;
    struct order order;

    (void)state;
    memset(id, 'x', sizeof(id));
    id[ORDER_PRODUCT_ID_SIZE_MAX] = '\0';
    json = lines_of(ORDER_LINES_MAX, id);
    value = load_at(json, __LINE__);
    assert_int_equal(order_read_new(&order, value, &errors), ORDER_OK);
    assert_int_equal(order.lines_count, ORDER_LINES_MAX);
    assert_true(rpc_bytes_equal(order.lines[ORDER_LINES_MAX - 1].product_id, id));
    assert_true(rpc_bytes_equal(order.lines[0].price, "9999999999999999.99"));
    order_clear(&order);
    json_decref(value);
    free(json);

    json = lines_of(ORDER_LINES_MAX + 1, "x");
    is_refused(json, "[\"Length must be between 1 and 1000.\"]");
    free(json);
    id[ORDER_PRODUCT_ID_SIZE_MAX] = 'x';
    id[ORDER_PRODUCT_ID_SIZE_MAX + 1] = '\0';
    json = lines_of(1, id);
    is_refused(json, "{\"0\":{\"product_id\":[\"Length must be between 1 and 1024.\"]}}");
    free(json);
    json = lines_of(1, "");
    is_refused(json, "{\"0\":{\"product_id\":[\"Length must be between 1 and 1024.\"]}}");
    free(json);
}

static void test_change(void **state)
{
    (void)state;
    change_is_taken("{\"id\":7,\"order_details\":[{\"id\":\"9\",\"product_id\":null,\"price\":\"1\",\"quantity\":2}]}",
                    "{\"id\":7,\"order_details\":[{\"id\":9,\"product_id\":\"\",\"price\":\"1.00\",\"quantity\":2}]}");
    change_is_taken("{\"id\":2147483648,\"order_details\":[{\"id\":0,\"price\":\"1\",\"quantity\":2},"
                    "{\"id\":-1,\"price\":\"1\",\"quantity\":2}]}",
                    "{\"id\":0,\"order_details\":[{\"id\":0,\"product_id\":\"\",\"price\":\"1.00\",\"quantity\":2},"
                    "{\"id\":0,\"product_id\":\"\",\"price\":\"1.00\",\"quantity\":2}]}");
    change_is_taken("{\"id\":1,\"order_details\":[]}", "{\"id\":1,\"order_details\":[]}");
    change_is_refused("[]", "{\"_schema\":[\"Invalid input type.\"]}");
    change_is_refused("{}", "{\"id\":[\"Missing data for required field.\"],"
                            "\"order_details\":[\"Missing data for required field.\"]}");
    change_is_refused("{\"id\":true,\"order_details\":null}",
                      "{\"id\":[\"Not a valid integer.\"],\"order_details\":[\"Field may not be null.\"]}");
    change_is_refused("{\"id\":1,\"order_details\":{}}", "{\"order_details\":[\"Invalid type.\"]}");
    change_is_refused("{\"id\":1,\"order_details\":[{\"price\":\"x\",\"quantity\":0}]}",
                      "{\"order_details\":{\"0\":{\"id\":[\"Missing data for required field.\"],"
                      "\"price\":[\"Not a valid number.\"],\"quantity\":[\"" OUT_OF_RANGE "\"]}}}");
    change_is_refused("{\"id\":1,\"order_details\":[{\"id\":5,\"price\":1,\"quantity\":1},"
                      "{\"id\":6,\"price\":1,\"quantity\":1},{\"id\":\"5\",\"price\":1,\"quantity\":1}]}",
                      "{\"order_details\":{\"2\":{\"id\":[\"Must not be named twice.\"]}}}");
}

static void id_at(const char *json, enum order_id_status expected, int32_t expected_id, const char *printed, int line)
{
    json_t *value = load_at(json, line);
    char text[ORDER_ID_TEXT_SIZE];
    int32_t id = 0;

    if (order_id_read(&id, value) != expected || id != expected_id)
        fail_msg("line %d: %s", line, json);
    order_id_print(text, value, (struct rpc_bytes){.data = NULL, .size = 0});
    if (printed != NULL && strcmp(text, printed) != 0)
        fail_msg("line %d: %s", line, text);
    json_decref(value);
}

#define id_is(json, id)                 id_at(json, ORDER_ID_OK, id, NULL, __LINE__)
#define id_is_impossible(json, printed) id_at(json, ORDER_ID_IMPOSSIBLE, 0, printed, __LINE__)
#define id_is_invalid(json)             id_at(json, ORDER_ID_INVALID, 0, NULL, __LINE__)

static void test_ids(void **state)
{
    (void)state;
    id_is("1", 1);
    id_is("2147483647", 2147483647);
    id_is("\"7\"", 7);
    id_is("7.0", 7);
    id_is_impossible("0", "0");
    id_is_impossible("-1", "-1");
    id_is_impossible("2147483648", "2147483648");
    id_is_impossible("9223372036854775807", "9223372036854775807");
    id_is_impossible("-9223372036854775808", "-9223372036854775808");
    id_is_impossible("9223372036854775808", "9223372036854775808");
    id_is_impossible("18446744073709551616", "18446744073709551616");
    id_is_impossible("1000000000000000000000000000000", "1000000000000000000000000000000");
    id_is_impossible("-125000000000000000000000000000", "-125000000000000000000000000000");
    id_is_impossible("1e300", "1e+300");
    id_is_impossible("\"99999999999999999999\"", "99999999999999999999");
    id_is_impossible("\"-9223372036854775808\"", NULL);
    id_is_impossible("\"1111111111111111111111111111111111111111111111111111111111111111111111\"",
                     "111111111111111111111111111111111111111111111111111111111111...");
    id_is_invalid("1.5");
    id_is_invalid("true");
    id_is_invalid("null");
    id_is_invalid("\"\"");
    id_is_invalid("\"abc\"");
    id_is_invalid("\"1; DROP TABLE orders\"");
    id_is_invalid("[1]");
    id_is_invalid("{}");
}

static void prints_at(const char *json, const char *spelled, const char *printed, int line)
{
    json_t *value = load_at(json, line);
    char text[ORDER_ID_TEXT_SIZE];

    order_id_print(text, value, rpc_bytes_of(spelled));
    if (strcmp(text, printed) != 0)
        fail_msg("line %d: %s", line, text);
    json_decref(value);
}

/* As it came; and, where only its value is known, as whoever wrote it would most likely have. */
#define prints(json, printed)             prints_at(json, json, printed, __LINE__)
#define prints_as(json, spelled, printed) prints_at(json, spelled, printed, __LINE__)

static void test_spelled_ids(void **state)
{
    (void)state;
    prints("7", "7");
    prints("\"007\"", "007");
    prints("7.0", "7");
    prints("1180591620717411303424", "1180591620717411303424");
    prints("-1180591620717411303425", "-1180591620717411303425");
    prints("123456789012345678901234567890123456789012345678901234567890123",
           "123456789012345678901234567890123456789012345678901234567890123");
    prints("1234567890123456789012345678901234567890123456789012345678901234",
           "123456789012345678901234567890123456789012345678901234567890...");
    prints("1e30", "1000000000000000000000000000000");
    prints_as("1180591620717411303424", "", "1180591620717411300000");
    prints_as("1180591620717411303424", "-", "1180591620717411300000");
    prints_as("1180591620717411303424", "12a", "1180591620717411300000");
}

static void page_at(const char *after, const char *limit, int32_t expected_after, int32_t expected_limit,
                    const char *expected_errors, int line)
{
    json_t *after_value = after == NULL ? NULL : load_at(after, line);
    json_t *limit_value = limit == NULL ? NULL : load_at(limit, line);
    json_t *errors = NULL;
    struct order_page page = {.after = 0, .limit = 0};
    char *text = NULL;

    if (order_read_page(&page, after_value, limit_value, &errors) == ORDER_INVALID)
        text = json_dumps(errors, JSON_COMPACT | JSON_SORT_KEYS);
    if (page.after != expected_after || page.limit != expected_limit || (text == NULL) != (expected_errors == NULL) ||
        (text != NULL && strcmp(text, expected_errors) != 0))
        fail_msg("line %d: after %d, limit %d, %s", line, page.after, page.limit, text == NULL ? "no errors" : text);
    free(text);
    json_decref(errors);
    json_decref(after_value);
    json_decref(limit_value);
}

#define page_is(after, limit, a, l)          page_at(after, limit, a, l, NULL, __LINE__)
#define page_is_refused(after, limit, error) page_at(after, limit, 0, 0, error, __LINE__)
#define LIMIT_RANGE                          "{\"limit\":[\"Must be greater than or equal to 1 and less than or equal to 10001.\"]}"

static void test_pages(void **state)
{
    (void)state;
    page_is(NULL, NULL, 0, ORDER_PAGE_DEFAULT);
    page_is("null", "null", 0, ORDER_PAGE_DEFAULT);
    page_is("5", "\"10\"", 5, 10);
    page_is("99999999999999999999", "1", ORDER_ID_MAX, 1);
    page_is("2147483648", "10001", ORDER_ID_MAX, ORDER_PAGE_MAX);
    page_is_refused("-1", "1", "{\"after\":[\"Must be greater than or equal to 0.\"]}");
    page_is_refused("-1e30", "1", "{\"after\":[\"Must be greater than or equal to 0.\"]}");
    page_is_refused("\"-99999999999999999999\"", "1", "{\"after\":[\"Must be greater than or equal to 0.\"]}");
    page_is_refused("\"abc\"", "true", "{\"after\":[\"Not a valid integer.\"],\"limit\":[\"Not a valid integer.\"]}");
    page_is_refused("1.5", NULL, "{\"after\":[\"Not a valid integer.\"]}");
    page_is_refused(NULL, "0", LIMIT_RANGE);
    page_is_refused(NULL, "10002", LIMIT_RANGE);
    page_is_refused(NULL, "1e30", LIMIT_RANGE);
}

static void test_print(void **state)
{
    struct order_line lines[] = {
        {.id = 3, .product_id = RPC_BYTES("a\"b"), .price = RPC_BYTES("-1.50"), .quantity = -2147483647 - 1},
    };
    struct order order = {.id = INT32_MAX, .lines_count = 1, .lines = lines};
    struct order empty = {.id = 1};
    char *text = print(&order);

    (void)state;
    /* What the Python service let in is shown as it stands. */
    assert_string_equal(text,
                        "{\"id\":2147483647,\"order_details\":[{\"id\":3,\"product_id\":\"a\\\"b\",\"price\":\"-1.50\","
                        "\"quantity\":-2147483648}]}");
    free(text);
    text = print(&empty);
    assert_string_equal(text, "{\"id\":1,\"order_details\":[]}");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),  cmocka_unit_test(test_lines_refused), cmocka_unit_test(test_fields_refused),
        cmocka_unit_test(test_limits), cmocka_unit_test(test_change),        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_pages),  cmocka_unit_test(test_print),         cmocka_unit_test(test_spelled_ids),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The rules of a product: what is taken, what is refused with which words, and what is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "product.h"

#define MISSING "Missing data for required field."
#define IS_NULL "Field may not be null."
#define STRING  "Not a valid string."
#define INTEGER "Not a valid integer."
#define RANGE   "Must be greater than or equal to -9223372036854775808 and less than or equal to 9223372036854775807."
#define LENGTH  "Length must be between 1 and 1024 bytes."
#define TEXT    "Must be UTF-8 without NUL."

#define MAX "9223372036854775807"
#define MIN "-9223372036854775808"

static json_t *load(const char *text)
{
    json_t *json = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);

    if (json == NULL)
        fail_msg("no JSON: %s", text);
    return json;
}

/* ---- Reading ------------------------------------------------------------------------------------------------------ */

static void refused_json(json_t *json, const char *expected, const char *shown)
{
    struct product product = {.in_stock = 4711};
    json_t *messages = NULL;
    char *text;

    if (product_from_json(&product, json, &messages))
        fail_msg("taken: %s", shown);
    assert_non_null(messages);
    text = json_dumps(messages, JSON_COMPACT);
    if (strcmp(text, expected) != 0)
        fail_msg("%s\nis   %s\nnot  %s", shown, text, expected);
    assert_int_equal(product.in_stock, 4711);
    assert_null(product.id.data);
    free(text);
    json_decref(messages);
    json_decref(json);
}

static void refused(const char *text, const char *expected)
{
    refused_json(load(text), expected, text);
}

/* A product that is fine but for one field. */
static json_t *with(const char *field, json_t *value)
{
    json_t *json = load("{\"id\":\"a\",\"title\":\"t\",\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":3}");

    json_object_set_new(json, field, value);
    return json;
}

static void field_refused(const char *field, const char *value, const char *message)
{
    json_t *messages = json_pack("{s:[s]}", field, message);
    char *expected = json_dumps(messages, JSON_COMPACT);

    refused_json(with(field, load(value)), expected, value);
    free(expected);
    json_decref(messages);
}

static void integer_taken(const char *value, int64_t expected)
{
    static const char *const fields[] = {"passenger_capacity", "maximum_speed", "in_stock"};

    for (size_t i = 0; i < 3; i++) {
        json_t *json = with(fields[i], load(value));
        struct product product;
        json_t *messages;
        int64_t got;

        if (!product_from_json(&product, json, &messages))
            fail_msg("refused: %s", value);
        got = i == 0 ? product.passenger_capacity : i == 1 ? product.maximum_speed : product.in_stock;
        if (got != expected)
            fail_msg("%s is %lld", value, (long long)got);
        assert_null(messages);
        json_decref(json);
    }
}

static void integer_refused(const char *value, const char *message)
{
    field_refused("passenger_capacity", value, message);
    field_refused("maximum_speed", value, message);
    field_refused("in_stock", value, message);
}

static void test_a_product(void **state)
{
    json_t *json = load("{\"id\":\"the_odyssey\",\"title\":\"\",\"passenger_capacity\":101,\"maximum_speed\":\"5\","
                        "\"in_stock\":-10,\"colour\":{\"deep\":[1]},\"\":null}");
    struct product product;
    json_t *messages;

    (void)state;
    assert_true(product_from_json(&product, json, &messages));
    assert_true(rpc_bytes_equal(product.id, "the_odyssey"));
    assert_true(rpc_bytes_equal(product.title, ""));
    assert_int_equal(product.passenger_capacity, 101);
    assert_int_equal(product.maximum_speed, 5);
    assert_int_equal(product.in_stock, -10);
    json_decref(json);
}

static void test_no_object(void **state)
{
    (void)state;
    refused("null", "{\"_schema\":[\"Invalid input type.\"]}");
    refused("[]", "{\"_schema\":[\"Invalid input type.\"]}");
    refused("[{}]", "{\"_schema\":[\"Invalid input type.\"]}");
    refused("\"text\"", "{\"_schema\":[\"Invalid input type.\"]}");
    refused("5", "{\"_schema\":[\"Invalid input type.\"]}");
    refused("1.5", "{\"_schema\":[\"Invalid input type.\"]}");
    refused("true", "{\"_schema\":[\"Invalid input type.\"]}");
}

static void test_all_faults_at_once(void **state)
{
    (void)state;
    refused("{}", "{\"id\":[\"" MISSING "\"],\"title\":[\"" MISSING "\"],\"passenger_capacity\":[\"" MISSING
                  "\"],\"maximum_speed\":[\"" MISSING "\"],\"in_stock\":[\"" MISSING "\"]}");
    refused("{\"id\":1,\"title\":null,\"passenger_capacity\":\"x\",\"maximum_speed\":3}",
            "{\"id\":[\"" STRING "\"],\"title\":[\"" IS_NULL "\"],\"passenger_capacity\":[\"" INTEGER
            "\"],\"in_stock\":[\"" MISSING "\"]}");
}

static void test_texts(void **state)
{
    (void)state;
    field_refused("id", "null", IS_NULL);
    field_refused("id", "5", STRING);
    field_refused("id", "true", STRING);
    field_refused("id", "[\"a\"]", STRING);
    field_refused("id", "{}", STRING);
    field_refused("id", "\"\"", LENGTH);
    field_refused("id", "\"a\\u0000b\"", TEXT);
    field_refused("title", "null", IS_NULL);
    field_refused("title", "1.5", STRING);
    field_refused("title", "false", STRING);
    field_refused("title", "\"\\u0000\"", TEXT);
}

static void id_of_size(size_t count, const char *unit, bool is_taken)
{
    size_t size = strlen(unit);
    char *id = malloc(count * size);
    json_t *json, *messages = NULL;
    struct product product;

    for (size_t i = 0; i < count; i++)
        memcpy(id + i * size, unit, size);
    json = with("id", json_stringn(id, count * size));
    assert_int_equal(product_from_json(&product, json, &messages), is_taken);
    assert_int_equal(product_id_is_valid((struct rpc_bytes){id, count * size}), is_taken);
    if (!is_taken)
        assert_string_equal(json_string_value(json_array_get(json_object_get(messages, "id"), 0)), LENGTH);
    json_decref(messages);
    json_decref(json);
    free(id);
}

static void test_size_of_an_id(void **state)
{
    (void)state;
    id_of_size(1, "a", true);
    id_of_size(1024, "a", true);
    id_of_size(1025, "a", false);
    id_of_size(512, "ü", true);
    id_of_size(513, "ü", false);
    id_of_size(10240, "a", false);
}

static void test_ids(void **state)
{
    (void)state;
    assert_true(product_id_is_valid(RPC_BYTES("a/b/../c *#?\r\n[x]{}\x7f")));
    assert_true(product_id_is_valid(RPC_BYTES("飛行船-🛩")));
    assert_false(product_id_is_valid(RPC_BYTES("")));
    assert_false(product_id_is_valid(RPC_BYTES("a\0b")));
    assert_false(product_id_is_valid(RPC_BYTES("\xff")));
    assert_false(product_id_is_valid(RPC_BYTES("\xc0\xaf")));
    assert_false(product_id_is_valid(RPC_BYTES("\xed\xa0\x80")));
}

static void test_integers(void **state)
{
    (void)state;
    integer_taken("0", 0);
    integer_taken("-1", -1);
    integer_taken(MAX, INT64_MAX);
    integer_taken(MIN, INT64_MIN);
    integer_taken("5.0", 5);
    integer_taken("-0.0", 0);
    integer_taken("9007199254740992.0", 9007199254740992);
    integer_taken("\"0\"", 0);
    integer_taken("\"-0\"", 0);
    integer_taken("\"+7\"", 7);
    integer_taken("\"007\"", 7);
    integer_taken("\"" MAX "\"", INT64_MAX);
    integer_taken("\"" MIN "\"", INT64_MIN);
    integer_taken("\"000000000000000000000000000000001\"", 1);

    integer_refused("null", IS_NULL);
    integer_refused("true", INTEGER);
    integer_refused("false", INTEGER);
    integer_refused("[]", INTEGER);
    integer_refused("{}", INTEGER);
    integer_refused("[1]", INTEGER);
    integer_refused("3.7", INTEGER);
    integer_refused("-0.5", INTEGER);
    integer_refused("1e300", INTEGER);
    integer_refused("9007199254740994.0", INTEGER); /* nobody knows any more which integer was meant */
    integer_refused("\"\"", INTEGER);
    integer_refused("\"-\"", INTEGER);
    integer_refused("\"+\"", INTEGER);
    integer_refused("\"+-1\"", INTEGER);
    integer_refused("\"1.5\"", INTEGER);
    integer_refused("\"5.0\"", INTEGER);
    integer_refused("\"1e3\"", INTEGER);
    integer_refused("\"0x10\"", INTEGER);
    integer_refused("\" 5\"", INTEGER);
    integer_refused("\"5\\n\"", INTEGER);
    integer_refused("\"1_000\"", INTEGER);
    integer_refused("\"٣\"", INTEGER);
    integer_refused("\"5 apples\"", INTEGER);
    integer_refused("\"99999999999999999999x\"", INTEGER);
    integer_refused("\"1\\u0000\"", INTEGER);
    integer_refused("\"9223372036854775808\"", RANGE);
    integer_refused("\"-9223372036854775809\"", RANGE);
    integer_refused("\"18446744073709551616\"", RANGE);
    integer_refused("\"18446744073709551617\"", RANGE);
    integer_refused("\"99999999999999999999999999999999999999\"", RANGE);
}

/* ---- Printing ----------------------------------------------------------------------------------------------------- */

#define GOOD                                                                            \
    {                                                                                   \
        RPC_BYTES("a"), RPC_BYTES("t"), RPC_BYTES("1"), RPC_BYTES("2"), RPC_BYTES("3"), \
    }

static void prints(enum product_field field, struct rpc_bytes value, const char *expected)
{
    struct rpc_bytes fields[PRODUCT_FIELDS] = GOOD;
    struct rpc_text text = {.data = NULL};
    json_t *json;

    fields[field] = value;
    assert_int_equal(product_print(&text, fields), PRODUCT_PRINT_OK);
    if (!rpc_bytes_equal(rpc_text_bytes(&text), expected))
        fail_msg("%.*s\nnot %s", (int)text.size, text.data, expected);
    json = json_loadb(text.data, text.size, 0, NULL);
    assert_non_null(json);
    if (field == PRODUCT_ID || field == PRODUCT_TITLE) {
        const json_t *back = json_object_get(json, product_field_names[field]);

        assert_int_equal(json_string_length(back), value.size);
        assert_memory_equal(json_string_value(back), value.data, value.size);
    }
    json_decref(json);
    rpc_text_clear(&text);
}

static void is_damaged(enum product_field field, struct rpc_bytes value)
{
    struct rpc_bytes fields[PRODUCT_FIELDS] = GOOD;
    struct rpc_text text = {.data = NULL};

    fields[field] = value;
    assert_true(rpc_text_append(&text, RPC_BYTES("before")));
    if (product_print(&text, fields) != PRODUCT_PRINT_DAMAGED)
        fail_msg("printed: %.*s", (int)text.size, text.data);
    assert_true(rpc_bytes_equal(rpc_text_bytes(&text), "before"));
    rpc_text_clear(&text);
}

#define PRINTED(title) "{\"id\":\"a\",\"title\":" title ",\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":3}"
#define PRINTED_STOCK(in) \
    "{\"id\":\"a\",\"title\":\"t\",\"passenger_capacity\":1,\"maximum_speed\":2,\"in_stock\":" in "}"

static void test_printing(void **state)
{
    (void)state;
    prints(PRODUCT_TITLE, RPC_BYTES("The Odyssey"), PRINTED("\"The Odyssey\""));
    prints(PRODUCT_TITLE, RPC_BYTES(""), PRINTED("\"\""));
    prints(PRODUCT_TITLE, RPC_BYTES("\""), PRINTED("\"\\\"\""));
    prints(PRODUCT_TITLE, RPC_BYTES("\\"), PRINTED("\"\\\\\""));
    prints(PRODUCT_TITLE, RPC_BYTES("/"), PRINTED("\"/\""));
    prints(PRODUCT_TITLE, RPC_BYTES("\b\f\n\r\t"), PRINTED("\"\\u0008\\u000c\\u000a\\u000d\\u0009\""));
    prints(PRODUCT_TITLE, RPC_BYTES("\x01\x1f\x7f"), PRINTED("\"\\u0001\\u001f\x7f\""));
    prints(PRODUCT_TITLE, RPC_BYTES("a\"b\\c\nd"), PRINTED("\"a\\\"b\\\\c\\u000ad\""));
    prints(PRODUCT_TITLE, RPC_BYTES("ü飛🛩"), PRINTED("\"ü飛🛩\""));
    prints(PRODUCT_TITLE, RPC_BYTES("\xf4\x8f\xbf\xbf\xef\xbf\xbf"), PRINTED("\"\xf4\x8f\xbf\xbf\xef\xbf\xbf\""));
    prints(PRODUCT_IN_STOCK, RPC_BYTES("0"), PRINTED_STOCK("0"));
    prints(PRODUCT_IN_STOCK, RPC_BYTES("-7"), PRINTED_STOCK("-7"));
    prints(PRODUCT_IN_STOCK, RPC_BYTES("007"), PRINTED_STOCK("7"));
    prints(PRODUCT_IN_STOCK, RPC_BYTES("+7"), PRINTED_STOCK("7"));
    prints(PRODUCT_IN_STOCK, RPC_BYTES(MAX), PRINTED_STOCK(MAX));
    prints(PRODUCT_IN_STOCK, RPC_BYTES(MIN), PRINTED_STOCK(MIN));
}

static void test_damaged_data_is_never_printed(void **state)
{
    (void)state;
    for (int field = 0; field < PRODUCT_FIELDS; field++)
        is_damaged((enum product_field)field, (struct rpc_bytes){.data = NULL});
    is_damaged(PRODUCT_TITLE, RPC_BYTES("\xff"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("ok\xc3"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("\x80"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("\xc0\x80"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("\xc1\xbf"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("\xe0\x9f\xbf"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("\xed\xa0\x80"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("\xed\xbf\xbf"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("\xe2\x82"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("\xe2\x28\xa1"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("\xe2\x82\x28"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("\xf0\x8f\xbf\xbf"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("\xf4\x90\x80\x80"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("\xf5\x80\x80\x80"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("\xf0\x9f\x9b"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("a\0b"));
    is_damaged(PRODUCT_TITLE, RPC_BYTES("\"quoted\" and then \n\xfe"));
    is_damaged(PRODUCT_ID, RPC_BYTES("\xff"));
    is_damaged(PRODUCT_IN_STOCK, RPC_BYTES(""));
    is_damaged(PRODUCT_IN_STOCK, RPC_BYTES("many"));
    is_damaged(PRODUCT_IN_STOCK, RPC_BYTES("1.5"));
    is_damaged(PRODUCT_IN_STOCK, RPC_BYTES("1,\"x\":2"));
    is_damaged(PRODUCT_IN_STOCK, RPC_BYTES("9223372036854775808"));
    is_damaged(PRODUCT_PASSENGER_CAPACITY, RPC_BYTES(" 1"));
    is_damaged(PRODUCT_MAXIMUM_SPEED, RPC_BYTES("1\0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_product),
        cmocka_unit_test(test_no_object),
        cmocka_unit_test(test_all_faults_at_once),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_size_of_an_id),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_printing),
        cmocka_unit_test(test_damaged_data_is_never_printed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

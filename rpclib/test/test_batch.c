/* batch: several messages in one, and out again; what cannot be read is found before anything is done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "batch.h"

static bool add(struct batch *batch, const char *key, const char *properties, const char *body)
{
    return batch_add(batch, &(struct batch_entry){.key = rpc_bytes_of(key),
                                                  .properties = rpc_bytes_of(properties),
                                                  .body = rpc_bytes_of(body)});
}

static void is_at(struct rpc_bytes bytes, const char *expected, int line)
{
    if (!rpc_bytes_equal(bytes, expected))
        fail_msg("line %d: \"%.*s\" instead of \"%s\"", line, (int)bytes.size, bytes.data, expected);
}

#define is(bytes, expected) is_at(bytes, expected, __LINE__)

static void test_round_trip(void **state)
{
    struct batch batch = {0};
    struct batch_reader reader;
    struct batch_entry entry;

    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        assert_true(add(&batch, "shop.get", "p1", "{\"args\": [1]}"));
        is(batch_body(&batch), "[{\"args\": [1]}]");
        assert_true(add(&batch, "shop.list", "", "null"));
        is(batch_body(&batch), "[{\"args\": [1]},null]"); /* one JSON value at each step */
        reader = batch_read(&batch);
        assert_true(batch_is_sound(reader));
        assert_true(batch_next(&reader, &entry));
        is(entry.key, "shop.get");
        is(entry.properties, "p1");
        is(entry.body, "{\"args\": [1]}");
        assert_true(batch_next(&reader, &entry));
        is(entry.key, "shop.list");
        is(entry.properties, "");
        is(entry.body, "null");
        assert_false(batch_next(&reader, &entry));
        batch_reset(&batch);
        assert_int_equal(batch.count, 0);
    }
    batch_clear(&batch);
}

static void does_not_fit(const char *key, size_t properties_size, size_t body_size)
{
    struct batch batch = {0};
    char *filler = malloc(properties_size + body_size + 1);

    assert_non_null(filler);
    memset(filler, '1', properties_size + body_size + 1);
    assert_true(add(&batch, "k", "", "1"));
    assert_false(batch_add(&batch, &(struct batch_entry){.key = rpc_bytes_of(key),
                                                         .properties = {filler, properties_size},
                                                         .body = {filler, body_size}}));
    is(batch_body(&batch), "[1]");
    assert_true(batch_is_sound(batch_read(&batch)));
    free(filler);
    batch_clear(&batch);
}

static void test_bounds(void **state)
{
    struct batch batch = {0};
    char key[258];

    (void)state;
    memset(key, 'k', sizeof(key) - 1);
    key[256] = '\0';
    for (unsigned i = 0; i < BATCH_MESSAGES_MAX; i++)
        assert_true(add(&batch, "k", "p", "[]"));
    assert_false(add(&batch, "k", "p", "[]"));
    assert_true(batch_is_sound(batch_read(&batch)));
    batch_clear(&batch);
    does_not_fit(key, 0, 1);
    does_not_fit("", 0, 1);
    does_not_fit("k", 0, 0);
    does_not_fit("k", 65536, 1);
    does_not_fit("k", 0, BATCH_SIZE_MAX);
}

static void unsound(struct rpc_bytes index, const char *bodies, int line)
{
    if (batch_is_sound((struct batch_reader){index, rpc_bytes_of(bodies)}))
        fail_msg("line %d: taken as sound", line);
}

#define UNSOUND(index, bodies) unsound(RPC_BYTES(index), bodies, __LINE__)
#define ENTRY                  "\1k\0\0\0\0\0\1" /* a key of one byte, no properties, a body of one byte */

static void test_unsound(void **state)
{
    (void)state;
    assert_true(batch_is_sound((struct batch_reader){RPC_BYTES(ENTRY), RPC_BYTES("[1]")}));
    assert_true(batch_is_sound((struct batch_reader){RPC_BYTES(ENTRY ENTRY), RPC_BYTES("[1,2]")}));
    UNSOUND("", "[]");
    UNSOUND("", "");
    UNSOUND(ENTRY, "");
    UNSOUND(ENTRY, "[");
    UNSOUND(ENTRY, "[1");
    UNSOUND(ENTRY, "[1,");
    UNSOUND(ENTRY, "[12]");
    UNSOUND(ENTRY, "[1,2]");
    UNSOUND(ENTRY, "(1)");
    UNSOUND(ENTRY, "[1]]");
    UNSOUND(ENTRY ENTRY, "[1]");
    UNSOUND(ENTRY ENTRY, "[1 2]");
    UNSOUND("\1", "[1]");
    UNSOUND("\1k\0", "[1]");
    UNSOUND("\1k\0\5\0\0\0\1", "[1]");
    UNSOUND("\1k\0\0\0\0\0", "[1]");
    UNSOUND("\1k\0\0\xff\xff\xff\xff", "[1]");
    UNSOUND("\1k\xff\xff\0\0\0\1", "[1]");
    UNSOUND("\0\0\0\0\0\0\1", "[1]"); /* no key */
    UNSOUND("\1k\0\0\0\0\0\0", "[]"); /* no body */
}

/* More than any batch of ours holds: a sender that ignores the bound is none of us. */
static void test_too_many(void **state)
{
    char index[(BATCH_MESSAGES_MAX + 1) * 8], bodies[2 * BATCH_MESSAGES_MAX + 4];

    (void)state;
    for (unsigned i = 0; i <= BATCH_MESSAGES_MAX; i++) {
        memcpy(index + (size_t)i * 8, ENTRY, 8);
        memcpy(bodies + (size_t)i * 2, i == 0 ? "[1" : ",1", 2);
    }
    memcpy(bodies + sizeof(bodies) - 2, "]", 2);
    assert_false(batch_is_sound((struct batch_reader){{index, sizeof(index)}, rpc_bytes_of(bodies)}));
    memcpy(bodies + sizeof(bodies) - 4, "]", 2);
    assert_true(batch_is_sound((struct batch_reader){{index, sizeof(index) - 8}, rpc_bytes_of(bodies)}));
}

/* Only the header of that name and kind makes a batch. */
static void test_open(void **state)
{
    struct batch batch = {0};
    struct batch_reader reader;
    amqp_table_entry_t headers[2] = {
        {.key = amqp_cstring_bytes("nameko.language"), .value.kind = AMQP_FIELD_KIND_VOID}};
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_HEADERS_FLAG,
                                          .headers = {.num_entries = 2, .entries = headers}};
    struct mq_message message = {.properties = &properties};

    (void)state;
    assert_true(add(&batch, "k", "", "1"));
    headers[1] = batch_header(&batch);
    message.body = batch_body(&batch);
    assert_true(batch_open(&reader, &message));
    assert_true(batch_is_sound(reader));
    headers[1].value.kind = AMQP_FIELD_KIND_UTF8;
    assert_false(batch_open(&reader, &message));
    headers[1] = batch_header(&batch);
    properties._flags = 0;
    assert_false(batch_open(&reader, &message));
    message.properties = NULL;
    assert_false(batch_open(&reader, &message));
    batch_clear(&batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_bounds), cmocka_unit_test(test_unsound),
        cmocka_unit_test(test_too_many),   cmocka_unit_test(test_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

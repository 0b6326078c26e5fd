/*
 * What Redis holds, where somebody else may have written it: a product's fields as they come are printed as sound JSON or
 * called damaged, with nothing appended; a list knows its keys and keeps within its bounds.
 *
 * The input is fields, each behind a byte that is its size; 255 stands for one that is missing.
 */
#include <fuzz.h>

#include "rpclib/json.h"
#include "rpclib/utf8.h"

#include "product.h"
#include "product_list.h"

#define UNTOUCHED   INT64_C(-77)
#define MISSING     255
#define KEYS_MAX    600  /* beyond where the list's table grows first */
#define BYTES_MAX   4000 /* of the list's keys, and of its text */
#define FIELDS_MAX  1000
#define HUGE_NUMBER ((__int128)1 << 100)

static struct rpc_bytes field_next(struct rpc_bytes *input)
{
    uint8_t size = fuzz_byte(input);
    struct rpc_bytes field = {NULL, 0};

    if (size == MISSING)
        return field;
    field = fuzz_take(input, size);
    if (field.data == NULL)
        field.data = "";
    return field;
}

/* ---- Integers ---------------------------------------------------------------------------------------------------- */

static enum product_integer integer_oracle(__int128 *out, struct rpc_bytes text)
{
    size_t at = text.size > 0 && (text.data[0] == '-' || text.data[0] == '+') ? 1 : 0;

    *out = 0;
    if (at == text.size)
        return PRODUCT_INTEGER_NONE;
    for (; at < text.size; at++) {
        if (text.data[at] < '0' || text.data[at] > '9')
            return PRODUCT_INTEGER_NONE;
        if (*out < HUGE_NUMBER)
            *out = *out * 10 + (text.data[at] - '0');
    }
    if (text.data[0] == '-')
        *out = -*out;
    return *out < INT64_MIN || *out > INT64_MAX ? PRODUCT_INTEGER_OUT_OF_RANGE : PRODUCT_INTEGER_OK;
}

static bool check_integer(struct rpc_bytes text, int64_t *integer)
{
    __int128 expected;
    enum product_integer status = integer_oracle(&expected, text);

    *integer = UNTOUCHED;
    HOLDS(product_integer_read(integer, text) == status);
    HOLDS(*integer == (status == PRODUCT_INTEGER_OK ? expected : UNTOUCHED));
    return status == PRODUCT_INTEGER_OK;
}

/* ---- Products ---------------------------------------------------------------------------------------------------- */

static bool is_text(struct rpc_bytes field)
{
    bool is = fuzz_is_utf8(field) && (field.size == 0 || memchr(field.data, '\0', field.size) == NULL);

    HOLDS(rpc_utf8_check(field) == is);
    return is;
}

static void check_printed(struct rpc_bytes printed, const struct rpc_bytes fields[PRODUCT_FIELDS],
                          const int64_t integers[PRODUCT_FIELDS])
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *json = rpc_json_load(printed, reason);

    HOLDS(json_object_size(json) == PRODUCT_FIELDS);
    for (int field = 0; field < PRODUCT_FIELDS; field++) {
        const json_t *value = json_object_get(json, product_field_names[field]);

        if (field == PRODUCT_ID || field == PRODUCT_TITLE)
            HOLDS(json_is_string(value) &&
                  fuzz_equal(fields[field], (struct rpc_bytes){json_string_value(value), json_string_length(value)}));
        else
            HOLDS(json_is_integer(value) && json_integer_value(value) == integers[field]);
    }
    json_decref(json);
}

static void check_product(const struct rpc_bytes fields[PRODUCT_FIELDS], struct product_list *list)
{
    int64_t integers[PRODUCT_FIELDS];
    struct rpc_text out = {.data = NULL};
    size_t before = list->text.size;
    bool sound = true;

    for (int field = 0; field < PRODUCT_FIELDS; field++) {
        bool is_sound = field == PRODUCT_ID || field == PRODUCT_TITLE ? is_text(fields[field])
                                                                      : check_integer(fields[field], &integers[field]);

        sound = sound && is_sound && fields[field].data != NULL;
    }
    HOLDS(rpc_text_append(&out, RPC_BYTES("x")));
    if (sound) {
        HOLDS(product_print(&out, fields) == PRODUCT_PRINT_OK);
        check_printed((struct rpc_bytes){out.data + 1, out.size - 1}, fields, integers);
    } else {
        HOLDS(product_print(&out, fields) == PRODUCT_PRINT_DAMAGED && out.size == 1);
    }
    rpc_text_clear(&out);
    switch (product_list_add(list, fields)) {
    case PRODUCT_LIST_OK:
        HOLDS(sound && list->text.size < BYTES_MAX);
        break;
    case PRODUCT_LIST_TOO_LARGE:
        HOLDS(sound && list->text.size >= BYTES_MAX);
        break;
    case PRODUCT_LIST_DAMAGED:
        HOLDS(!sound && list->text.size == before);
        break;
    case PRODUCT_LIST_SEEN:
    case PRODUCT_LIST_TOO_MANY:
    case PRODUCT_LIST_NO_MEMORY:
        HOLDS(false); /* none of product_list_add()'s answers */
    }
}

/* ---- Keys -------------------------------------------------------------------------------------------------------- */

struct keys {
    struct rpc_bytes items[KEYS_MAX];
    size_t count, size;
};

static void check_key(struct keys *keys, struct rpc_bytes key, struct product_list *list)
{
    size_t offset = SIZE_MAX, i = 0;
    enum product_list_result expected = PRODUCT_LIST_OK;

    while (i < keys->count && !fuzz_equal(keys->items[i], key))
        i++;
    if (i < keys->count)
        expected = PRODUCT_LIST_SEEN;
    else if (keys->count == KEYS_MAX)
        expected = PRODUCT_LIST_TOO_MANY;
    else if (keys->size + key.size > BYTES_MAX)
        expected = PRODUCT_LIST_TOO_LARGE;
    HOLDS(product_list_see(list, key, &offset) == expected);
    if (expected != PRODUCT_LIST_OK) {
        HOLDS(offset == SIZE_MAX);
        return;
    }
    HOLDS(offset == keys->size && list->keys.size == offset + key.size);
    HOLDS(key.size == 0 || memcmp(list->keys.data + offset, key.data, key.size) == 0);
    keys->size += key.size;
    keys->items[keys->count++] = key;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct keys keys;
    struct rpc_bytes input = fuzz_bytes(data, size), keyed = input, fields[PRODUCT_FIELDS], text;
    struct product_list list;

    product_list_init(&list, KEYS_MAX, BYTES_MAX);
    for (int i = 0; input.size > 0 && i < FIELDS_MAX; i++) {
        for (int field = 0; field < PRODUCT_FIELDS; field++)
            fields[field] = field_next(&input);
        check_product(fields, &list);
    }
    keys.count = keys.size = 0;
    while (keyed.size > 0)
        check_key(&keys, field_next(&keyed), &list);
    text = product_list_finish(&list);
    HOLDS(rpc_json_check(text));
    product_list_clear(&list);
    return 0;
}

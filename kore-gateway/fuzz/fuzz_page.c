/*
 * page, order_text, walk: what a service answered, cut open without being built.  What comes out is sound JSON, and the
 * same as one gets who builds it all with jansson; on text that is no JSON nobody leaves the bounds.
 *
 * The first two bytes are `after` and `limit`, the rest is the text.
 */
#include <fuzz.h>

#include "rpclib/json.h"

#include "order_text.h"
#include "page.h"
#include "walk.h"

#define LEVELS_MAX 70 /* more than a sound text has */
#define IMAGE_ROOT "http://x/i"

/* ---- walk -------------------------------------------------------------------------------------------------------- */

static bool lies_within(struct rpc_bytes part, struct rpc_bytes whole)
{
    return part.data >= whole.data && part.size <= whole.size &&
           (size_t)(part.data - whole.data) <= whole.size - part.size;
}

/* Down into every value.  Returns how many there are. */
static size_t walk_all(struct rpc_bytes text, bool sound, int levels)
{
    struct walk walk;
    struct rpc_bytes key, value;
    size_t count = 1;

    if (levels == 0 || (!walk_array(&walk, text) && !walk_object(&walk, text)))
        return 1;
    while (walk_next(&walk, &key, &value)) {
        HOLDS(lies_within(value, text) && value.size > 0);
        HOLDS(!sound || rpc_json_check(value));
        count += walk_all(value, sound, levels - 1);
    }
    return count;
}

static size_t count_all(const json_t *value)
{
    size_t count = 1;
    const char *key;
    json_t *member;

    for (size_t i = 0; i < json_array_size(value); i++)
        count += count_all(json_array_get(value, i));
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        count += count_all(member);
    }
    return count;
}

/* ---- what an order is, as jansson sees it -------------------------------------------------------------------------- */

/* Nothing but these members, whatever the service said; `put_in`: with its product in it. */
static bool is_line(const json_t *line, bool put_in)
{
    return json_object_size(line) == (put_in ? 6 : 4) && json_is_integer(json_object_get(line, "id")) &&
           json_is_string(json_object_get(line, "product_id")) && json_is_string(json_object_get(line, "price")) &&
           json_is_integer(json_object_get(line, "quantity"));
}

static bool is_order(const json_t *order, bool put_in)
{
    const json_t *lines = json_object_get(order, "order_details");

    for (size_t i = 0; i < json_array_size(lines); i++) {
        if (!is_line(json_array_get(lines, i), put_in))
            return false;
    }
    return json_object_size(order) == 2 && json_is_integer(json_object_get(order, "id")) && json_is_array(lines);
}

/* ---- page -------------------------------------------------------------------------------------------------------- */

/* NULL where a double would be too small or an integer too large: then there is nothing to compare with. */
static json_t *built(struct rpc_bytes text, size_t flags)
{
    json_error_t error;

    return json_loadb(text.data, text.size, JSON_DECODE_ANY | flags, &error);
}

static int by_value(const void *one, const void *other)
{
    json_int_t a = *(const json_int_t *)one, b = *(const json_int_t *)other;

    return a < b ? -1 : a > b;
}

/* The ids that a page of the list must have, sorted; SIZE_MAX when the list is none. */
static size_t ids_expected(json_int_t *ids, const json_t *list, int64_t after)
{
    size_t count = 0;

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *id = json_object_get(json_array_get(list, i), "id");

        if (!json_is_integer(id))
            return SIZE_MAX;
        if (json_integer_value(id) > after)
            ids[count++] = json_integer_value(id);
    }
    qsort(ids, count, sizeof(*ids), by_value);
    return json_is_array(list) ? count : SIZE_MAX;
}

static void check_page_of(const json_t *list, struct rpc_bytes printed, const struct page_cut *cut, int64_t after,
                          size_t limit)
{
    json_int_t *ids = calloc(json_array_size(list) + 1, sizeof(*ids));
    json_t *page = built(printed, 0);
    size_t count;

    HOLDS(ids != NULL && json_is_array(page));
    count = ids_expected(ids, list, after);
    HOLDS(count != SIZE_MAX);
    HOLDS(cut->count == (count < limit ? count : limit) && cut->count == json_array_size(page));
    HOLDS(cut->more == (cut->count < count));
    HOLDS(cut->count == 0 || cut->last_id == ids[cut->count - 1]);
    for (size_t i = 0; i < cut->count; i++) {
        HOLDS(is_order(json_array_get(page, i), false));
        HOLDS(json_integer_value(json_object_get(json_array_get(page, i), "id")) == ids[i]);
    }
    json_decref(page);
    free(ids);
}

static void check_page(struct rpc_bytes text, int64_t after, size_t limit, bool sound, const json_t *list)
{
    static const struct page_cut untouched = {77, false, 77};
    struct page_cut cut = untouched;
    struct rpc_text out = {.data = NULL};

    rpc_text_append(&out, RPC_BYTES("x"));
    if (page_append(&out, text, after, limit, &cut) == PAGE_OK) {
        struct rpc_bytes printed = rpc_text_bytes(&out);

        HOLDS(!out.failed && cut.count <= limit);
        fuzz_take(&printed, 1);
        HOLDS(!sound || rpc_json_check(printed));
        if (list != NULL)
            check_page_of(list, printed, &cut, after, limit);
    } else {
        HOLDS(out.size == 1 && cut.count == 77 && cut.last_id == 77 && !cut.more);
    }
    rpc_text_clear(&out);
}

/* ---- order_text -------------------------------------------------------------------------------------------------- */

static void check_printed(struct rpc_bytes printed, const struct order_text *order, struct rpc_bytes text)
{
    json_t *was = built(text, 0), *is = built(printed, 0);
    const json_t *before = json_object_get(was, "order_details"), *after = json_object_get(is, "order_details");

    HOLDS(rpc_json_check(printed));
    HOLDS(is == NULL || is_order(is, true));
    if (was != NULL) {
        HOLDS(json_equal(json_object_get(was, "id"), json_object_get(is, "id")));
        HOLDS(json_array_size(before) == order->lines_count && json_array_size(after) == order->lines_count);
        for (size_t i = 0; i < order->lines_count; i++) {
            const json_t *line = json_array_get(after, i), *id = json_object_get(line, "product_id");
            const char *image = json_string_value(json_object_get(line, "image"));

            HOLDS(json_equal(id, json_object_get(json_array_get(before, i), "product_id")));
            HOLDS(json_equal(json_object_get(line, "price"), json_object_get(json_array_get(before, i), "price")));
            HOLDS(json_object_size(json_object_get(line, "product")) == 0);
            HOLDS(image != NULL && strncmp(image, IMAGE_ROOT "/", strlen(IMAGE_ROOT "/")) == 0);
            HOLDS(strncmp(image + strlen(IMAGE_ROOT "/"), json_string_value(id), json_string_length(id)) == 0);
        }
    }
    json_decref(was);
    json_decref(is);
}

/* Keys spelled with escapes are strangers to the walk, not to jansson. */
static void check_order(struct rpc_bytes text, bool sound)
{
    struct order_text order = {.lines_count = 77};
    struct rpc_bytes *products;
    struct rpc_text out = {.data = NULL};
    int64_t id = 77;
    bool is = order_text_check(text, &id);

    if (order_text_open(&order, text) != ORDER_TEXT_OK) {
        HOLDS(order.lines_count == 77 && order.lines == NULL);
        HOLDS(!sound || !is);
        return;
    }
    HOLDS(!sound || (is && id == order.id));
    HOLDS(order.products.count <= order.lines_count);
    products = calloc(order.products.count + 1, sizeof(*products));
    HOLDS(products != NULL);
    for (size_t i = 0; i < order.products.count; i++)
        products[i] = RPC_BYTES("{}");
    order_text_print(&out, &order, products, RPC_BYTES(IMAGE_ROOT));
    HOLDS(!out.failed);
    if (sound && !fuzz_contains(text, "\\"))
        check_printed(rpc_text_bytes(&out), &order, text);
    else if (sound)
        HOLDS(rpc_json_check(rpc_text_bytes(&out)));
    rpc_text_clear(&out);
    free(products);
    order_text_clear(&order);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_bytes text = fuzz_bytes(data, size);
    int64_t after = (int8_t)fuzz_byte(&text);
    size_t limit = fuzz_byte(&text) % 16u, count;
    bool sound = rpc_json_check(text);
    json_t *unique = sound ? built(text, JSON_REJECT_DUPLICATES) : NULL;
    json_t *list = sound && !fuzz_contains(text, "\\") ? built(text, 0) : NULL;

    count = walk_all(text, sound, LEVELS_MAX);
    HOLDS(unique == NULL || count == count_all(unique));
    check_page(text, after, limit, sound, list);
    check_order(text, sound);
    json_decref(unique);
    json_decref(list);
    return 0;
}

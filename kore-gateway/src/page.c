#include "page.h"

#include <stdlib.h>

#include "walk.h"

struct entry {
    int64_t id;
    struct rpc_bytes text;
};

struct entries {
    struct entry *items; /* owned */
    size_t count, capacity;
    bool all;    /* none was left out */
    bool sorted; /* by id */
};

static bool entries_add(struct entries *entries, int64_t id, struct rpc_bytes text)
{
    if (entries->count == entries->capacity) {
        size_t capacity = entries->capacity == 0 ? 64 : 2 * entries->capacity;
        struct entry *items = reallocarray(entries->items, capacity, sizeof(*items));

        if (items == NULL)
            return false;
        entries->items = items;
        entries->capacity = capacity;
    }
    if (entries->count > 0 && entries->items[entries->count - 1].id > id)
        entries->sorted = false;
    entries->items[entries->count++] = (struct entry){id, text};
    return true;
}

static enum page_status entries_read(struct entries *entries, struct rpc_bytes list, int64_t after)
{
    struct walk walk;
    struct rpc_bytes order;
    int64_t id;

    if (!walk_array(&walk, list))
        return PAGE_NONSENSE;
    while (walk_next(&walk, NULL, &order)) {
        if (!walk_integer(walk_member(order, "id"), &id))
            return PAGE_NONSENSE;
        if (id <= after)
            entries->all = false;
        else if (!entries_add(entries, id, order))
            return PAGE_NO_MEMORY;
    }
    return PAGE_OK;
}

static int by_id(const void *one, const void *other)
{
    int64_t a = ((const struct entry *)one)->id, b = ((const struct entry *)other)->id;

    return a < b ? -1 : a > b;
}

static void entries_print(struct rpc_text *out, const struct entries *entries, size_t count)
{
    rpc_text_append(out, RPC_BYTES("["));
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            rpc_text_append(out, RPC_BYTES(", "));
        rpc_text_append(out, entries->items[i].text);
    }
    rpc_text_append(out, RPC_BYTES("]"));
}

enum page_status page_append(struct rpc_text *out, struct rpc_bytes list, int64_t after, size_t limit,
                             struct page_cut *cut)
{
    struct entries entries = {.all = true, .sorted = true};
    enum page_status status = entries_read(&entries, list, after);
    size_t count = entries.count < limit ? entries.count : limit;

    if (status == PAGE_OK) {
        if (!entries.sorted)
            qsort(entries.items, entries.count, sizeof(*entries.items), by_id);
        if (entries.all && entries.sorted && count == entries.count)
            rpc_text_append(out, list);
        else
            entries_print(out, &entries, count);
        *cut = (struct page_cut){.count = count, .more = count < entries.count};
        cut->last_id = count > 0 ? entries.items[count - 1].id : 0;
    }
    free(entries.items);
    return status;
}

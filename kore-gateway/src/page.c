#include "page.h"

#include <stdlib.h>

#include "order_text.h"
#include "printed.h"

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

/* As our own service prints the list; PAGE_NONSENSE when it stands in another form, or is none. */
static enum page_status entries_read(struct entries *entries, struct rpc_bytes list, int64_t after)
{
    const char *at = list.data, *end, *order;
    int64_t id;

    *entries = (struct entries){.all = true, .sorted = true};
    if (rpc_bytes_equal(list, "[]"))
        return PAGE_OK;
    if (list.size == 0 || *at++ != '[')
        return PAGE_NONSENSE;
    end = list.data + list.size;
    do {
        order = at;
        if (!order_text_skip(&at, end, &id))
            return PAGE_NONSENSE;
        if (id <= after)
            entries->all = false;
        else if (!entries_add(entries, id, (struct rpc_bytes){order, (size_t)(at - order)}))
            return PAGE_NO_MEMORY;
    } while (printed_label(&at, end, RPC_BYTES(",")));
    return printed_label(&at, end, RPC_BYTES("]")) && at == end ? PAGE_OK : PAGE_NONSENSE;
}

static enum page_status list_rewrite(struct rpc_text *out, struct rpc_bytes list)
{
    struct rpc_bytes order;
    struct walk walk;

    if (!walk_array(&walk, list))
        return PAGE_NONSENSE;
    rpc_text_append(out, RPC_BYTES("["));
    for (bool first = true; walk_next(&walk, NULL, &order); first = false) {
        rpc_text_append(out, first ? RPC_BYTES("") : RPC_BYTES(","));
        if (!order_text_rewrite(out, order))
            return PAGE_NONSENSE;
    }
    rpc_text_append(out, RPC_BYTES("]"));
    return out->failed ? PAGE_NO_MEMORY : PAGE_OK;
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

static void entries_cut(struct rpc_text *out, struct entries *entries, struct rpc_bytes list, size_t limit,
                        struct page_cut *cut)
{
    size_t count = entries->count < limit ? entries->count : limit;

    if (!entries->sorted)
        qsort(entries->items, entries->count, sizeof(*entries->items), by_id);
    if (entries->all && entries->sorted && count == entries->count)
        rpc_text_append(out, list);
    else
        entries_print(out, entries, count);
    *cut = (struct page_cut){.count = count, .more = count < entries->count};
    cut->last_id = count > 0 ? entries->items[count - 1].id : 0;
}

enum page_status page_append(struct rpc_text *out, struct rpc_bytes list, int64_t after, size_t limit,
                             struct page_cut *cut)
{
    struct rpc_text rewritten = {.data = NULL};
    struct entries entries;
    enum page_status status = entries_read(&entries, list, after);

    if (status == PAGE_NONSENSE) {
        free(entries.items);
        entries.items = NULL;
        status = list_rewrite(&rewritten, list);
        list = rpc_text_bytes(&rewritten);
        if (status == PAGE_OK)
            status = entries_read(&entries, list, after);
    }
    if (status == PAGE_OK)
        entries_cut(out, &entries, list, limit, cut);
    free(entries.items);
    rpc_text_clear(&rewritten);
    return status;
}

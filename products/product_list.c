#include "product_list.h"

#include <stdlib.h>

#define SLOTS_MIN    256u
#define ID_KEEP_SIZE (64u * 1024) /* memory that is kept for the next id */

/* Where a key lies; a size of SIZE_MAX marks a slot that is free. */
struct product_list_slot {
    size_t offset, size;
    uint64_t hash;
};

/* FNV-1a, seeded. */
static uint64_t key_hash(const struct product_list *list, struct rpc_bytes key)
{
    uint64_t hash = list->seed;

    for (size_t i = 0; i < key.size; i++)
        hash = (hash ^ (unsigned char)key.data[i]) * 0x100000001B3u;
    return hash ^ hash >> 32;
}

void product_list_init(struct product_list *list, size_t count_max, size_t size_max)
{
    *list = (struct product_list){.count_max = count_max, .size_max = size_max};
    arc4random_buf(&list->seed, sizeof(list->seed));
}

/* The key's slot, or the free one where it belongs. */
static struct product_list_slot *slot_find(const struct product_list *list, struct rpc_bytes key, uint64_t hash)
{
    size_t at = (size_t)hash & (list->slots_count - 1);

    for (;; at = (at + 1) & (list->slots_count - 1)) {
        struct product_list_slot *slot = &list->slots[at];

        if (slot->size == SIZE_MAX)
            return slot;
        if (slot->hash == hash && slot->size == key.size &&
            (key.size == 0 || memcmp(list->keys.data + slot->offset, key.data, key.size) == 0))
            return slot;
    }
}

static bool slots_grow(struct product_list *list)
{
    struct product_list_slot *old = list->slots;
    size_t old_count = list->slots_count;
    size_t count = old_count == 0 ? SLOTS_MIN : old_count * 2;
    struct product_list_slot *slots = calloc(count, sizeof(*slots));

    if (slots == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        slots[i].size = SIZE_MAX;
    list->slots = slots;
    list->slots_count = count;
    for (size_t i = 0; i < old_count; i++)
        if (old[i].size != SIZE_MAX)
            *slot_find(list, (struct rpc_bytes){list->keys.data + old[i].offset, old[i].size}, old[i].hash) = old[i];
    free(old);
    return true;
}

enum product_list_result product_list_see(struct product_list *list, struct rpc_bytes key, size_t *offset)
{
    uint64_t hash = key_hash(list, key);
    struct product_list_slot *slot;

    if (list->count >= list->slots_count / 2 && !slots_grow(list))
        return PRODUCT_LIST_NO_MEMORY;
    slot = slot_find(list, key, hash);
    if (slot->size != SIZE_MAX)
        return PRODUCT_LIST_SEEN;
    if (list->count >= list->count_max)
        return PRODUCT_LIST_TOO_MANY;
    if (list->keys.size + key.size > list->size_max)
        return PRODUCT_LIST_TOO_LARGE;
    *offset = list->keys.size;
    if (!rpc_text_append(&list->keys, key))
        return PRODUCT_LIST_NO_MEMORY;
    *slot = (struct product_list_slot){.offset = *offset, .size = key.size, .hash = hash};
    list->count++;
    return PRODUCT_LIST_OK;
}

/* Who asks why a list is too large wants a name.  False when out of memory. */
static bool list_note_size(struct product_list *list, struct rpc_bytes id, size_t size)
{
    if (size <= list->largest_size)
        return true;
    rpc_text_reset(&list->largest_id, ID_KEEP_SIZE);
    list->largest_size = rpc_text_append(&list->largest_id, id) ? size : 0;
    return list->largest_size > 0;
}

enum product_list_result product_list_add(struct product_list *list, const struct rpc_bytes fields[PRODUCT_FIELDS])
{
    size_t start = list->text.size;

    if (!rpc_text_append(&list->text, start == 0 ? RPC_BYTES("[") : RPC_BYTES(",")))
        return PRODUCT_LIST_NO_MEMORY;
    switch (product_print(&list->text, fields)) {
    case PRODUCT_PRINT_OK:
        if (!list_note_size(list, fields[PRODUCT_ID], list->text.size - start - 1))
            break;
        return list->text.size < list->size_max ? PRODUCT_LIST_OK : PRODUCT_LIST_TOO_LARGE;
    case PRODUCT_PRINT_DAMAGED:
        rpc_text_truncate(&list->text, start);
        return PRODUCT_LIST_DAMAGED;
    case PRODUCT_PRINT_NO_MEMORY:
        break;
    }
    rpc_text_truncate(&list->text, start);
    return PRODUCT_LIST_NO_MEMORY;
}

struct rpc_bytes product_list_finish(struct product_list *list)
{
    if (!rpc_text_append(&list->text, list->text.size == 0 ? RPC_BYTES("[]") : RPC_BYTES("]")))
        return (struct rpc_bytes){.data = NULL};
    return rpc_text_bytes(&list->text);
}

void product_list_clear(struct product_list *list)
{
    rpc_text_clear(&list->text);
    rpc_text_clear(&list->keys);
    rpc_text_clear(&list->largest_id);
    free(list->slots);
    *list = (struct product_list){.slots = NULL};
}

#include "distinct.h"

#include <stdlib.h>

#define FEW 16 /* texts that are found faster one by one */

bool distinct_init(struct distinct *distinct, size_t count_max)
{
    size_t slots = 2 * FEW;

    *distinct = (struct distinct){0};
    distinct->items = calloc(count_max == 0 ? 1 : count_max, sizeof(*distinct->items));
    if (distinct->items == NULL)
        return false;
    if (count_max <= FEW)
        return true;
    while (slots < 2 * count_max)
        slots *= 2;
    distinct->slots = calloc(slots, sizeof(*distinct->slots));
    distinct->slots_mask = slots - 1;
    if (distinct->slots == NULL)
        distinct_clear(distinct);
    return distinct->slots != NULL;
}

/* FNV-1a.  Who makes its ids collide slows down a request of its own, by a bound that is small enough. */
static size_t hash_of(struct rpc_bytes text)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < text.size; i++)
        hash = (hash ^ (unsigned char)text.data[i]) * UINT64_C(1099511628211);
    return (size_t)(hash ^ hash >> 32);
}

static bool same(struct rpc_bytes one, struct rpc_bytes other)
{
    return one.size == other.size && (one.size == 0 || memcmp(one.data, other.data, one.size) == 0);
}

size_t distinct_add(struct distinct *distinct, struct rpc_bytes text)
{
    uint32_t *slot = NULL;

    if (distinct->slots == NULL) {
        for (size_t i = 0; i < distinct->count; i++) {
            if (same(distinct->items[i], text))
                return i;
        }
    } else {
        for (size_t at = hash_of(text);; at++) {
            slot = &distinct->slots[at & distinct->slots_mask];
            if (*slot == 0)
                break;
            if (same(distinct->items[*slot - 1], text))
                return *slot - 1;
        }
    }
    distinct->items[distinct->count++] = text;
    if (slot != NULL)
        *slot = (uint32_t)distinct->count;
    return distinct->count - 1;
}

void distinct_clear(struct distinct *distinct)
{
    free(distinct->items);
    free(distinct->slots);
    *distinct = (struct distinct){0};
}

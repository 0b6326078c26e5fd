/*
 * What rabbitmq-c allocates by 64 and 128 KiB, kept from one input to the next.  A connection of its own takes several of
 * these, most of them for sockets that a fuzzer has not; to ask the system for them each time took most of a run.
 *
 * A fuzzer's copy of the library calls these functions instead of malloc() and its like (meson.build).  What is large lies
 * in slots here, poisoned where it is not allocated, so that a sanitizer sees as much as before; the rest goes on.
 */
#include <malloc.h>
#include <sanitizer/asan_interface.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_SIZE  (128u * 1024)
#define SLOT_GAP   64u /* poisoned: who leaves a slot does not come into the next one */
#define SLOTS      32
#define LARGE_SIZE (32u * 1024)

void *codec_malloc(size_t size);
void *codec_calloc(size_t count, size_t size);
void *codec_realloc(void *memory, size_t size);
void codec_free(void *memory);

static _Alignas(16) char slots[SLOTS][SLOT_SIZE + SLOT_GAP];
static struct {
    bool used;
    size_t size;
} allocated[SLOTS];

static bool is_slot(const void *memory)
{
    return (uintptr_t)memory >= (uintptr_t)slots && (uintptr_t)memory < (uintptr_t)slots + sizeof(slots);
}

static size_t slot_of(const void *memory)
{
    return ((uintptr_t)memory - (uintptr_t)slots) / sizeof(slots[0]);
}

/* NULL: it is none for a slot, or all are taken. */
static void *slot_take(size_t size)
{
    if (size < LARGE_SIZE || size > SLOT_SIZE)
        return NULL;
    for (size_t i = 0; i < SLOTS; i++) {
        if (allocated[i].used)
            continue;
        allocated[i].used = true;
        allocated[i].size = size;
        ASAN_UNPOISON_MEMORY_REGION(slots[i], size);
        ASAN_POISON_MEMORY_REGION(slots[i] + size, sizeof(slots[i]) - size);
        return slots[i];
    }
    return NULL;
}

static size_t size_of(void *memory)
{
    return is_slot(memory) ? allocated[slot_of(memory)].size : malloc_usable_size(memory);
}

void *codec_malloc(size_t size)
{
    void *slot = slot_take(size);

    return slot != NULL ? slot : malloc(size);
}

void *codec_calloc(size_t count, size_t size)
{
    void *slot = size > 0 && count > SLOT_SIZE / size ? NULL : slot_take(count * size);

    return slot != NULL ? memset(slot, 0, count * size) : calloc(count, size);
}

void *codec_realloc(void *memory, size_t size)
{
    size_t size_before = memory == NULL ? 0 : size_of(memory);
    void *moved;

    if (!is_slot(memory) && (size < LARGE_SIZE || size > SLOT_SIZE))
        return realloc(memory, size);
    moved = codec_malloc(size);
    if (moved == NULL)
        return NULL;
    if (memory != NULL)
        memcpy(moved, memory, size_before < size ? size_before : size);
    codec_free(memory);
    return moved;
}

void codec_free(void *memory)
{
    size_t slot;

    if (!is_slot(memory)) {
        free(memory);
        return;
    }
    slot = slot_of(memory);
    if (!allocated[slot].used || memory != slots[slot])
        abort(); /* freed twice, or within */
    allocated[slot].used = false;
    ASAN_POISON_MEMORY_REGION(slots[slot], sizeof(slots[slot]));
}

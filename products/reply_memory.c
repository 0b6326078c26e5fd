#include "reply_memory.h"

#include <assert.h>
#include <hiredis/hiredis.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_SIZE   (16u * 1024)
#define ELEMENTS_MAX (1024 * 1024)       /* of one array; nothing that is asked for here has nearly as many */
#define EXTRA_MAX    (64u * 1024 * 1024) /* bytes of all further blocks; the same holds */

/* What does not fit the first block lies in further ones, which go with the reply. */
struct block {
    struct block *next;
    size_t size, used;
    alignas(max_align_t) char data[];
};

struct reply_memory {
    struct block *extra; /* owned */
    size_t extra_size;   /* of all of them */
    size_t used;
    reply_memory_awaited_fn *awaited; /* may be NULL */
    void *arg;
    alignas(max_align_t) char data[BLOCK_SIZE];
};

/* hiredis hands the object alone to freeObject(); this is how that finds the memory. */
struct object {
    redisReply reply; /* first: what hiredis and its users see */
    struct reply_memory *memory;
    bool is_root;
};

static void memory_reset(struct reply_memory *memory)
{
    while (memory->extra != NULL) {
        struct block *block = memory->extra;

        memory->extra = block->next;
        free(block);
    }
    memory->extra_size = 0;
    memory->used = 0;
}

static void *memory_take(struct reply_memory *memory, size_t size)
{
    size_t room = size <= SIZE_MAX / 2 ? (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1) : SIZE_MAX;
    struct block *block = memory->extra;
    void *taken;

    if (room <= BLOCK_SIZE - memory->used) {
        taken = memory->data + memory->used;
        memory->used += room;
        return taken;
    }
    if (block == NULL || room > block->size - block->used) {
        size_t block_size = room > BLOCK_SIZE ? room : BLOCK_SIZE;

        if (block_size > EXTRA_MAX - memory->extra_size)
            return NULL;
        block = malloc(sizeof(*block) + block_size);
        if (block == NULL)
            return NULL;
        *block = (struct block){.next = memory->extra, .size = block_size};
        memory->extra = block;
        memory->extra_size += block_size;
    }
    taken = block->data + block->used;
    block->used += room;
    return taken;
}

static struct object *object_new(const redisReadTask *task)
{
    struct reply_memory *memory = task->privdata;
    struct object *object;

    if (task->parent == NULL) {
        if (task->type != REDIS_REPLY_ERROR && memory->awaited != NULL && !memory->awaited(memory->arg))
            return NULL;
        memory_reset(memory);
    }
    object = memory_take(memory, sizeof(*object));
    if (object == NULL)
        return NULL;
    *object = (struct object){.reply.type = task->type, .memory = memory, .is_root = task->parent == NULL};
    return object;
}

static void *object_join(const redisReadTask *task, struct object *object)
{
    if (task->parent != NULL) {
        redisReply *parent = task->parent->obj;

        assert(parent->type == REDIS_REPLY_ARRAY);
        parent->element[task->idx] = &object->reply;
    }
    return object;
}

static void *create_string(const redisReadTask *task, char *text, size_t size)
{
    struct object *object = object_new(task);

    if (object == NULL)
        return NULL;
    object->reply.str = memory_take(object->memory, size + 1);
    if (object->reply.str == NULL)
        return NULL;
    memcpy(object->reply.str, text, size);
    object->reply.str[size] = '\0';
    object->reply.len = size;
    return object_join(task, object);
}

static void *create_array(const redisReadTask *task, int count)
{
    struct object *object = count <= ELEMENTS_MAX ? object_new(task) : NULL;

    if (object == NULL)
        return NULL;
    if (count > 0) {
        object->reply.element = memory_take(object->memory, (size_t)count * sizeof(redisReply *));
        if (object->reply.element == NULL)
            return NULL;
        memset(object->reply.element, 0, (size_t)count * sizeof(redisReply *));
    }
    object->reply.elements = (size_t)count;
    return object_join(task, object);
}

static void *create_integer(const redisReadTask *task, long long value)
{
    struct object *object = object_new(task);

    if (object == NULL)
        return NULL;
    object->reply.type = REDIS_REPLY_INTEGER;
    object->reply.integer = value;
    return object_join(task, object);
}

static void *create_nil(const redisReadTask *task)
{
    struct object *object = object_new(task);

    if (object == NULL)
        return NULL;
    object->reply.type = REDIS_REPLY_NIL;
    return object_join(task, object);
}

static void free_object(void *reply)
{
    struct object *object = reply;

    if (object != NULL && object->is_root)
        memory_reset(object->memory);
}

struct reply_memory *reply_memory_new(void)
{
    struct reply_memory *memory = malloc(sizeof(*memory));

    if (memory != NULL) {
        memory->extra = NULL;
        memory->extra_size = memory->used = 0;
        memory->awaited = NULL;
    }
    return memory;
}

void reply_memory_serve(struct reply_memory *memory, redisReader *reader, reply_memory_awaited_fn *awaited, void *arg)
{
    static redisReplyObjectFunctions functions = {
        .createString = create_string,
        .createArray = create_array,
        .createInteger = create_integer,
        .createNil = create_nil,
        .freeObject = free_object,
    };

    reader->fn = &functions;
    reader->privdata = memory;
    memory->awaited = awaited;
    memory->arg = arg;
}

void reply_memory_free(struct reply_memory *memory)
{
    if (memory == NULL)
        return;
    memory_reset(memory);
    free(memory);
}

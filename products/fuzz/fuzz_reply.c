/*
 * reply_memory: replies as Redis sends them, built in memory of our own: the same ones as hiredis builds by itself, however
 * the bytes are cut.
 *
 * The first byte decides where the bytes are cut; the rest is what the server sends.
 */
#include <fuzz.h>
#include <hiredis/hiredis.h>

#include "reply_memory.h"
#include "rpclib/text.h"

#define REPLIES_MAX    50
#define DIGITS_MAX     5 /* of an array's size, where hiredis itself is asked for the memory */
#define CHUNK_SIZE_MAX 40

enum builder { OURS, HIREDIS };

static void tell(struct rpc_text *story, struct rpc_bytes bytes)
{
    HOLDS(rpc_text_append(story, bytes));
}

static void tell_reply(struct rpc_text *story, const redisReply *reply)
{
    if (reply == NULL) {
        tell(story, RPC_BYTES("nothing "));
        return;
    }
    HOLDS(rpc_text_append_integer(story, reply->type));
    switch (reply->type) {
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
    case REDIS_REPLY_ERROR:
        tell(story, RPC_BYTES(" \""));
        tell(story, (struct rpc_bytes){reply->str, reply->len});
        HOLDS(reply->str[reply->len] == '\0');
        break;
    case REDIS_REPLY_INTEGER:
        tell(story, RPC_BYTES(" "));
        HOLDS(rpc_text_append_integer(story, reply->integer));
        break;
    case REDIS_REPLY_ARRAY:
        tell(story, RPC_BYTES(" ["));
        for (size_t i = 0; i < reply->elements; i++)
            tell_reply(story, reply->element[i]);
        tell(story, RPC_BYTES("]"));
        break;
    case REDIS_REPLY_NIL:
        break;
    default:
        HOLDS(false); /* no other kind is made */
    }
    tell(story, RPC_BYTES(";"));
}

/* Every reply that is there now.  False once the reader gave up. */
static bool take_replies(redisReader *reader, struct rpc_text *story, unsigned *count)
{
    void *reply = NULL;

    while (*count < REPLIES_MAX) {
        if (redisReaderGetReply(reader, &reply) != REDIS_OK) {
            tell(story, RPC_BYTES("error"));
            return false;
        }
        if (reply == NULL)
            return true;
        tell_reply(story, reply);
        reader->fn->freeObject(reply);
        ++*count;
    }
    return false;
}

static struct rpc_text read_all(struct rpc_bytes input, enum builder builder, bool cut, uint32_t seed)
{
    struct reply_memory *memory = reply_memory_new();
    redisReader *reader = redisReaderCreate();
    struct rpc_text story = {.data = NULL};
    unsigned count = 0;
    bool more = true;

    HOLDS(memory != NULL && reader != NULL);
    if (builder == OURS)
        reply_memory_serve(memory, reader, NULL, NULL);
    while (more && input.size > 0) {
        struct rpc_bytes chunk = fuzz_take(&input, cut ? 1 + fuzz_random(&seed, CHUNK_SIZE_MAX) : input.size);

        HOLDS(redisReaderFeed(reader, chunk.data, chunk.size) == REDIS_OK);
        more = take_replies(reader, &story, &count);
    }
    redisReaderFree(reader);
    reply_memory_free(memory);
    return story;
}

static void are_equal(struct rpc_bytes input, const struct rpc_text *expected, enum builder builder, bool cut,
                      uint32_t seed)
{
    struct rpc_text story = read_all(input, builder, cut, seed);

    if (!fuzz_equal(rpc_text_bytes(&story), rpc_text_bytes(expected)))
        fprintf(stderr, "%.*s\nand not\n%.*s\n", (int)story.size, story.data, (int)expected->size, expected->data);
    HOLDS(fuzz_equal(rpc_text_bytes(&story), rpc_text_bytes(expected)));
    rpc_text_clear(&story);
}

/* An array so large that only one of the two bounds it. */
static bool has_large_array(struct rpc_bytes input)
{
    for (size_t i = 0; i < input.size; i++) {
        size_t digits = 0;

        while (input.data[i] == '*' && i + 1 + digits < input.size &&
               strchr("+-0123456789", input.data[i + 1 + digits]))
            digits++;
        if (digits > DIGITS_MAX)
            return true;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_bytes input = fuzz_bytes(data, size);
    uint32_t seed = fuzz_byte(&input);
    struct rpc_text story = read_all(input, OURS, false, 0);

    are_equal(input, &story, OURS, true, seed);
    if (!has_large_array(input))
        are_equal(input, &story, HIREDIS, true, seed + 1);
    rpc_text_clear(&story);
    return 0;
}

#include "store_product.h"

#include <assert.h>

#include "rpclib/hex.h"
#include "store_reply.h"
#include "store_words.h"

#define CREATED_KEY_PREFIX "airship:created:"
#define DELETED_KEY_PREFIX "airship:deleted:"
#define REQUEST_HASH_SIZE  16 /* bytes of the hash that stand in the key */

static void get_on_reply(struct redis_command *command, enum redis_result result, const redisReply *reply)
{
    struct product_request *request = (struct product_request *)command;
    enum product_store_status status = store_reply_read_status(request->store, result, reply, REDIS_REPLY_ARRAY);
    struct rpc_bytes fields[PRODUCT_FIELDS];

    if (status == PRODUCT_STORE_OK)
        status = store_reply_fields(fields, reply);
    request->done(request, status, status == PRODUCT_STORE_OK ? fields : NULL);
}

static void exists_on_reply(struct redis_command *command, enum redis_result result, const redisReply *reply)
{
    struct product_request *request = (struct product_request *)command;
    enum product_store_status status = store_reply_read_status(request->store, result, reply, REDIS_REPLY_INTEGER);

    if (status == PRODUCT_STORE_OK && reply->integer == 0)
        status = PRODUCT_STORE_NOT_FOUND;
    request->done(request, status, NULL);
}

static void change_on_reply(struct redis_command *command, enum redis_result result, const redisReply *reply)
{
    struct product_request *request = (struct product_request *)command;

    request->done(request, store_reply_status(request->store, result, reply, REDIS_REPLY_INTEGER), NULL);
}

/* `on_reply` reads Redis' answer, and tells `done` what it comes to. */
static enum product_store_status request_send(struct product_request *request, struct product_store *store,
                                              const struct words *words, redis_command_fn *on_reply,
                                              product_request_fn *done)
{
    request->store = store;
    request->done = done;
    return words_send(words, store, &request->command, on_reply);
}

enum product_store_status product_store_get(struct product_store *store, struct product_request *request,
                                            struct rpc_bytes id, product_request_fn *done)
{
    struct words words;

    if (!words_begin(&words, store, RPC_BYTES("HMGET"), id))
        return PRODUCT_STORE_NO_MEMORY;
    words_add_field_names(&words);
    return request_send(request, store, &words, get_on_reply, done);
}

enum product_store_status product_store_exists(struct product_store *store, struct product_request *request,
                                               struct rpc_bytes id, product_request_fn *done)
{
    struct words words;

    if (!words_begin(&words, store, RPC_BYTES("EXISTS"), id))
        return PRODUCT_STORE_NO_MEMORY;
    return request_send(request, store, &words, exists_on_reply, done);
}

/* A product's fields as HSET takes them; the values are lent, by the product and by `digits`. */
struct product_texts {
    struct rpc_bytes values[PRODUCT_FIELDS];
    char digits[3][DECIMAL_SIZE];
};

static void texts_write(struct product_texts *texts, const struct product *product)
{
    texts->values[PRODUCT_ID] = product->id;
    texts->values[PRODUCT_TITLE] = product->title;
    texts->values[PRODUCT_PASSENGER_CAPACITY] = words_decimal(texts->digits[0], product->passenger_capacity);
    texts->values[PRODUCT_MAXIMUM_SPEED] = words_decimal(texts->digits[1], product->maximum_speed);
    texts->values[PRODUCT_IN_STOCK] = words_decimal(texts->digits[2], product->in_stock);
}

static void words_add_fields(struct words *words, const struct product_texts *texts)
{
    for (int field = 0; field < PRODUCT_FIELDS; field++) {
        words_add(words, rpc_bytes_of(product_field_names[field]));
        words_add(words, texts->values[field]);
    }
}

enum product_store_status product_store_create(struct product_store *store, struct product_request *request,
                                               const struct product *product, product_request_fn *done)
{
    struct product_texts texts;
    struct words words;

    if (!words_begin(&words, store, RPC_BYTES("HSET"), product->id))
        return PRODUCT_STORE_NO_MEMORY;
    texts_write(&texts, product);
    words_add_fields(&words, &texts);
    return request_send(request, store, &words, change_on_reply, done);
}

/*
 * KEYS: the product, what is remembered of the request.  ARGV: for how many seconds, then HSET's fields and values.  What
 * is remembered comes first and is taken back when the write is refused, so that neither is there without the other.
 */
static const char create_script[] = "if not redis.call('SET', KEYS[2], 1, 'NX', 'EX', ARGV[1]) then\n"
                                    "    return 0\n"
                                    "end\n"
                                    "local done = redis.pcall('HSET', KEYS[1], unpack(ARGV, 2))\n"
                                    "if type(done) == 'table' and done.err then\n"
                                    "    redis.call('DEL', KEYS[2])\n"
                                    "end\n"
                                    "return done\n";

/*
 * The same for a deletion.  The product goes first: Redis checks its memory limit before a script's first write and not
 * after it, so that a full one still deletes, and remembers it.
 */
static const char delete_script[] = "if redis.call('EXISTS', KEYS[2]) == 1 then\n"
                                    "    return 0\n"
                                    "end\n"
                                    "local done = redis.call('DEL', KEYS[1])\n"
                                    "redis.call('SET', KEYS[2], 1, 'EX', ARGV[1])\n"
                                    "return done\n";

#define REQUEST_KEY_PREFIX_SIZE (sizeof(CREATED_KEY_PREFIX) - 1)
#define REQUEST_KEY_SIZE        (REQUEST_KEY_PREFIX_SIZE + 2 * REQUEST_HASH_SIZE + 1)

_Static_assert(sizeof(CREATED_KEY_PREFIX) == sizeof(DELETED_KEY_PREFIX), "a request's key has room for either prefix");

/* Each text with its size before it: no two requests have the same bytes. */
static bool hash_add(EVP_MD_CTX *hash, struct rpc_bytes text)
{
    uint64_t size = text.size;

    return EVP_DigestUpdate(hash, &size, sizeof(size)) == 1 && EVP_DigestUpdate(hash, text.data, text.size) == 1;
}

/* Under which a request is remembered: what it is, who asks, and for what.  False when out of memory. */
static bool request_key_write(char out[REQUEST_KEY_SIZE], EVP_MD_CTX *hash, const char *prefix,
                              struct rpc_bytes request_id, const struct rpc_bytes *texts, size_t texts_count)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    bool done = EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1 && hash_add(hash, request_id);

    for (size_t i = 0; i < texts_count; i++)
        done = done && hash_add(hash, texts[i]);
    if (!done || EVP_DigestFinal_ex(hash, digest, NULL) != 1)
        return false;
    memcpy(out, prefix, REQUEST_KEY_PREFIX_SIZE);
    rpc_hex_write(digest, REQUEST_HASH_SIZE, out + REQUEST_KEY_PREFIX_SIZE);
    out[REQUEST_KEY_SIZE - 1] = '\0';
    return true;
}

/*
 * `EVAL <script> 2 <the product> <the request> <for how many seconds>`; what it lends stays until the next call.  The
 * script's whole text each time: it is short, changes are rare, and there is no second way when it is not known.  False
 * when out of memory.
 */
static bool words_begin_once(struct words *words, struct product_store *store, const char *change_script,
                             struct rpc_bytes id, const char *request_key, struct rpc_bytes remember_s)
{
    if (!words_begin(words, store, RPC_BYTES("EVAL"), id))
        return false;
    words->count = 1; /* the key comes later */
    words_add(words, rpc_bytes_of(change_script));
    words_add(words, RPC_BYTES("2"));
    words_add(words, rpc_text_bytes(&store->key));
    words_add(words, rpc_bytes_of(request_key));
    words_add(words, remember_s);
    return true;
}

enum product_store_status product_store_create_once(struct product_store *store, struct product_request *request,
                                                    const struct product *product,
                                                    const struct product_request_name *name, product_request_fn *done)
{
    char request_key[REQUEST_KEY_SIZE], remember_s[DECIMAL_SIZE];
    struct product_texts texts;
    struct words words;

    assert(name->request_id.size > 0 && name->remember_s >= 1);
    texts_write(&texts, product);
    if (!request_key_write(request_key, store->hash, CREATED_KEY_PREFIX, name->request_id, texts.values,
                           PRODUCT_FIELDS) ||
        !words_begin_once(&words, store, create_script, product->id, request_key,
                          words_decimal(remember_s, name->remember_s)))
        return PRODUCT_STORE_NO_MEMORY;
    words_add_fields(&words, &texts);
    return request_send(request, store, &words, change_on_reply, done);
}

enum product_store_status product_store_delete(struct product_store *store, struct product_request *request,
                                               struct rpc_bytes id, product_request_fn *done)
{
    struct words words;

    if (!words_begin(&words, store, RPC_BYTES("DEL"), id))
        return PRODUCT_STORE_NO_MEMORY;
    return request_send(request, store, &words, change_on_reply, done);
}

enum product_store_status product_store_delete_once(struct product_store *store, struct product_request *request,
                                                    struct rpc_bytes id, const struct product_request_name *name,
                                                    product_request_fn *done)
{
    char request_key[REQUEST_KEY_SIZE], remember_s[DECIMAL_SIZE];
    struct words words;

    assert(name->request_id.size > 0 && name->remember_s >= 1);
    if (!request_key_write(request_key, store->hash, DELETED_KEY_PREFIX, name->request_id, &id, 1) ||
        !words_begin_once(&words, store, delete_script, id, request_key, words_decimal(remember_s, name->remember_s)))
        return PRODUCT_STORE_NO_MEMORY;
    return request_send(request, store, &words, change_on_reply, done);
}

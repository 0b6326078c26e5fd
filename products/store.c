#include "store.h"

#include <assert.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "product_list.h"

#define KEY_PREFIX         "products:"
#define APPLIED_KEY_PREFIX "airship:applied:"
#define CREATED_KEY_PREFIX "airship:created:"
#define DELETED_KEY_PREFIX "airship:deleted:"
#define REQUEST_HASH_SIZE  16 /* bytes of the hash that stand in the key */
#define DECIMAL_SIZE       24 /* an int64 and its NUL */
#define LIST_FETCHES_MAX   64 /* products asked for at once: they share the connection with everyone else */
#define SCRIPT_HASH_SIZE   41 /* SHA-1 in hex, and NUL */
#define WORDS_MAX          18

struct product_store {
    struct redis_link *link; /* owned */
    struct rpc_loop *loop;
    struct json_text key; /* of the command that is being put together */
    EVP_MD_CTX *hash;     /* owned */
    char applied_ttl_s[DECIMAL_SIZE];
    char script_hash[SCRIPT_HASH_SIZE];
    char refusal[REDIS_REASON_SIZE]; /* Redis' last */
    size_t lists;                    /* under way */
};

/* ---- Commands ----------------------------------------------------------------------------------------------------- */

/* A command while it is put together.  Words are lent until it is sent. */
struct words {
    int count;
    const char *word[WORDS_MAX];
    size_t size[WORDS_MAX];
};

static void words_add(struct words *words, struct rpc_bytes word)
{
    assert(words->count < WORDS_MAX);
    words->word[words->count] = word.size > 0 ? word.data : "";
    words->size[words->count] = word.size;
    words->count++;
}

static struct rpc_bytes decimal(char out[DECIMAL_SIZE], int64_t value)
{
    return (struct rpc_bytes){.data = out, .size = (size_t)snprintf(out, DECIMAL_SIZE, "%" PRId64, value)};
}

/* `<command> products:<id>`; the key is lent until the next call.  False when out of memory. */
static bool words_begin(struct words *words, struct product_store *store, struct rpc_bytes command, struct rpc_bytes id)
{
    words->count = 0;
    json_text_reset(&store->key);
    if (!json_text_append(&store->key, RPC_BYTES(KEY_PREFIX)) || !json_text_append(&store->key, id))
        return false;
    words_add(words, command);
    words_add(words, json_text_bytes(&store->key));
    return true;
}

static void words_add_field_names(struct words *words)
{
    for (int field = 0; field < PRODUCT_FIELDS; field++)
        words_add(words, rpc_bytes_of(product_field_names[field]));
}

/* What redis_link_send() said. */
static enum product_store_status sent_status(enum redis_result result)
{
    switch (result) {
    case REDIS_ANSWERED:
        return PRODUCT_STORE_OK;
    case REDIS_BUSY:
        return PRODUCT_STORE_BUSY;
    case REDIS_OFFLINE:
    case REDIS_REFUSED:
    case REDIS_LOST:
        break;
    }
    return PRODUCT_STORE_UNAVAILABLE;
}

static enum product_store_status words_send(const struct words *words, struct product_store *store,
                                            struct redis_command *command, redis_command_fn *done)
{
    const char *word[WORDS_MAX];

    memcpy(word, words->word, sizeof(word));
    return sent_status(redis_link_send(store->link, command, words->count, word, words->size, done));
}

/*
 * An error reply: is it the data's fault, the moment's, or ours?  Redis before 7 wraps in words of its own what a
 * script's command was refused for, so the moment's words are looked for anywhere.
 */
static enum product_store_status refusal_status(struct product_store *store, const char *text)
{
    static const char *const passing[] = {"LOADING",  "BUSY",       "MASTERDOWN",  "MISCONF", "OOM",
                                          "READONLY", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN"};

    snprintf(store->refusal, sizeof(store->refusal), "%s", text);
    if (strncmp(text, "WRONGTYPE", strlen("WRONGTYPE")) == 0)
        return PRODUCT_STORE_DAMAGED;
    for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++)
        if (strstr(text, passing[i]) != NULL)
            return PRODUCT_STORE_UNAVAILABLE;
    return PRODUCT_STORE_FAILED;
}

/* PRODUCT_STORE_OK: there is a reply, and it is of the type asked for. */
static enum product_store_status reply_status(struct product_store *store, enum redis_result result,
                                              const redisReply *reply, int type)
{
    switch (result) {
    case REDIS_ANSWERED:
        if (reply->type == type)
            return PRODUCT_STORE_OK;
        snprintf(store->refusal, sizeof(store->refusal), "a reply of type %d instead of %d", reply->type, type);
        return PRODUCT_STORE_FAILED;
    case REDIS_REFUSED:
        return refusal_status(store, reply->str);
    case REDIS_OFFLINE:
        return PRODUCT_STORE_UNAVAILABLE;
    case REDIS_BUSY:
        return PRODUCT_STORE_BUSY;
    case REDIS_LOST:
        break;
    }
    return PRODUCT_STORE_UNKNOWN;
}

/* The same for a command that only reads: whatever became of it, nothing was done. */
static enum product_store_status read_status(struct product_store *store, enum redis_result result,
                                             const redisReply *reply, int type)
{
    enum product_store_status status = reply_status(store, result, reply, type);

    return status == PRODUCT_STORE_UNKNOWN ? PRODUCT_STORE_UNAVAILABLE : status;
}

/* ---- One product -------------------------------------------------------------------------------------------------- */

/* The answer of HMGET; a field that is not there has no data pointer. */
static enum product_store_status fields_read(struct rpc_bytes fields[PRODUCT_FIELDS], const redisReply *reply)
{
    size_t present = 0;

    if (reply->elements != PRODUCT_FIELDS)
        return PRODUCT_STORE_FAILED;
    for (int field = 0; field < PRODUCT_FIELDS; field++) {
        const redisReply *value = reply->element[field];
        bool is_present = value->type == REDIS_REPLY_STRING;

        if (!is_present && value->type != REDIS_REPLY_NIL)
            return PRODUCT_STORE_FAILED;
        fields[field] = (struct rpc_bytes){is_present ? value->str : NULL, is_present ? value->len : 0};
        present += is_present;
    }
    return present > 0 ? PRODUCT_STORE_OK : PRODUCT_STORE_NOT_FOUND;
}

static void get_on_reply(struct redis_command *command, enum redis_result result, const redisReply *reply)
{
    struct product_request *request = (struct product_request *)command;
    enum product_store_status status = read_status(request->store, result, reply, REDIS_REPLY_ARRAY);
    struct rpc_bytes fields[PRODUCT_FIELDS];

    if (status == PRODUCT_STORE_OK)
        status = fields_read(fields, reply);
    request->done(request, status, status == PRODUCT_STORE_OK ? fields : NULL);
}

static void exists_on_reply(struct redis_command *command, enum redis_result result, const redisReply *reply)
{
    struct product_request *request = (struct product_request *)command;
    enum product_store_status status = read_status(request->store, result, reply, REDIS_REPLY_INTEGER);

    if (status == PRODUCT_STORE_OK && reply->integer == 0)
        status = PRODUCT_STORE_NOT_FOUND;
    request->done(request, status, NULL);
}

static void change_on_reply(struct redis_command *command, enum redis_result result, const redisReply *reply)
{
    struct product_request *request = (struct product_request *)command;

    request->done(request, reply_status(request->store, result, reply, REDIS_REPLY_INTEGER), NULL);
}

enum product_store_status product_store_get(struct product_store *store, struct product_request *request,
                                            struct rpc_bytes id, product_request_fn *done)
{
    struct words words;

    if (!words_begin(&words, store, RPC_BYTES("HMGET"), id))
        return PRODUCT_STORE_NO_MEMORY;
    words_add_field_names(&words);
    request->store = store;
    request->done = done;
    return words_send(&words, store, &request->command, get_on_reply);
}

enum product_store_status product_store_exists(struct product_store *store, struct product_request *request,
                                               struct rpc_bytes id, product_request_fn *done)
{
    struct words words;

    if (!words_begin(&words, store, RPC_BYTES("EXISTS"), id))
        return PRODUCT_STORE_NO_MEMORY;
    request->store = store;
    request->done = done;
    return words_send(&words, store, &request->command, exists_on_reply);
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
    texts->values[PRODUCT_PASSENGER_CAPACITY] = decimal(texts->digits[0], product->passenger_capacity);
    texts->values[PRODUCT_MAXIMUM_SPEED] = decimal(texts->digits[1], product->maximum_speed);
    texts->values[PRODUCT_IN_STOCK] = decimal(texts->digits[2], product->in_stock);
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
    request->store = store;
    request->done = done;
    return words_send(&words, store, &request->command, change_on_reply);
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
    char *at = out + REQUEST_KEY_PREFIX_SIZE;
    bool done = EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1 && hash_add(hash, request_id);

    for (size_t i = 0; i < texts_count; i++)
        done = done && hash_add(hash, texts[i]);
    if (!done || EVP_DigestFinal_ex(hash, digest, NULL) != 1)
        return false;
    memcpy(out, prefix, REQUEST_KEY_PREFIX_SIZE);
    for (int i = 0; i < REQUEST_HASH_SIZE; i++, at += 2)
        snprintf(at, 3, "%02x", digest[i]);
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
    words_add(words, json_text_bytes(&store->key));
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
                          decimal(remember_s, name->remember_s)))
        return PRODUCT_STORE_NO_MEMORY;
    words_add_fields(&words, &texts);
    request->store = store;
    request->done = done;
    return words_send(&words, store, &request->command, change_on_reply);
}

enum product_store_status product_store_delete(struct product_store *store, struct product_request *request,
                                               struct rpc_bytes id, product_request_fn *done)
{
    struct words words;

    if (!words_begin(&words, store, RPC_BYTES("DEL"), id))
        return PRODUCT_STORE_NO_MEMORY;
    request->store = store;
    request->done = done;
    return words_send(&words, store, &request->command, change_on_reply);
}

enum product_store_status product_store_delete_once(struct product_store *store, struct product_request *request,
                                                    struct rpc_bytes id, const struct product_request_name *name,
                                                    product_request_fn *done)
{
    char request_key[REQUEST_KEY_SIZE], remember_s[DECIMAL_SIZE];
    struct words words;

    assert(name->request_id.size > 0 && name->remember_s >= 1);
    if (!request_key_write(request_key, store->hash, DELETED_KEY_PREFIX, name->request_id, &id, 1) ||
        !words_begin_once(&words, store, delete_script, id, request_key, decimal(remember_s, name->remember_s)))
        return PRODUCT_STORE_NO_MEMORY;
    request->store = store;
    request->done = done;
    return words_send(&words, store, &request->command, change_on_reply);
}

/* ---- All products ------------------------------------------------------------------------------------------------- */

struct list;

struct list_fetch {
    struct redis_command command; /* first */
    struct list *list;
};

struct list_key {
    size_t offset, size; /* in products.keys */
};

/*
 * scan -> fetch, fetch, ... -> scan -> ... -> end.  A failure is noted, and ends it when nothing is in flight any more.
 */
struct list {
    struct redis_command scan; /* first */
    struct product_store *store;
    struct product_list_limits limits;
    product_list_fn *done;
    void *arg;
    enum product_store_status status;
    struct product_list products;
    size_t damaged;
    bool is_scanned; /* the last SCAN said so */
    char cursor[DECIMAL_SIZE];
    struct list_key *keys; /* owned; what the last SCAN found new */
    size_t keys_count, keys_capacity, keys_next;
    size_t in_flight;
    struct list_fetch fetches[LIST_FETCHES_MAX];
};

static void list_go_on(struct list *list);

static void list_free(struct list *list)
{
    list->store->lists--;
    product_list_clear(&list->products);
    free(list->keys);
    free(list);
}

static void list_end(struct list *list)
{
    struct product_listing listing = {
        .damaged = list->damaged,
        .largest_id = json_text_bytes(&list->products.largest_id),
        .largest_size = list->products.largest_size,
    };

    if (list->status == PRODUCT_STORE_OK) {
        listing.products = product_list_finish(&list->products);
        if (listing.products.data == NULL)
            list->status = PRODUCT_STORE_NO_MEMORY;
    }
    list->done(list->status, &listing, list->arg);
    list_free(list);
}

static enum product_store_status list_status(enum product_list_result result)
{
    switch (result) {
    case PRODUCT_LIST_OK:
    case PRODUCT_LIST_SEEN:
    case PRODUCT_LIST_DAMAGED:
        return PRODUCT_STORE_OK;
    case PRODUCT_LIST_TOO_MANY:
        return PRODUCT_STORE_TOO_MANY;
    case PRODUCT_LIST_TOO_LARGE:
        return PRODUCT_STORE_TOO_LARGE;
    case PRODUCT_LIST_NO_MEMORY:
        break;
    }
    return PRODUCT_STORE_NO_MEMORY;
}

/* A product that was deleted since it was scanned is no longer there, and no longer listed. */
static void list_on_product(struct redis_command *command, enum redis_result result, const redisReply *reply)
{
    struct list *list = ((struct list_fetch *)command)->list;
    enum product_store_status status = read_status(list->store, result, reply, REDIS_REPLY_ARRAY);
    struct rpc_bytes fields[PRODUCT_FIELDS];

    list->in_flight--;
    if (status == PRODUCT_STORE_OK)
        status = fields_read(fields, reply);
    if (status == PRODUCT_STORE_OK && list->status == PRODUCT_STORE_OK) {
        enum product_list_result added = product_list_add(&list->products, fields);

        list->damaged += added == PRODUCT_LIST_DAMAGED;
        list->status = list_status(added);
    } else if (status == PRODUCT_STORE_DAMAGED) {
        list->damaged++;
    } else if (status != PRODUCT_STORE_OK && status != PRODUCT_STORE_NOT_FOUND && list->status == PRODUCT_STORE_OK) {
        list->status = status;
    }
    if (list->in_flight == 0)
        list_go_on(list);
}

static void list_fetch(struct list *list)
{
    while (list->keys_next < list->keys_count && list->in_flight < LIST_FETCHES_MAX) {
        struct list_fetch *fetch = &list->fetches[list->in_flight];
        struct list_key key = list->keys[list->keys_next++];
        struct words words = {.count = 0};

        words_add(&words, RPC_BYTES("HMGET"));
        words_add(&words, (struct rpc_bytes){list->products.keys.data + key.offset, key.size});
        words_add_field_names(&words);
        fetch->list = list;
        list->status = words_send(&words, list->store, &fetch->command, list_on_product);
        if (list->status != PRODUCT_STORE_OK)
            break;
        list->in_flight++;
    }
}

static bool list_keys_reserve(struct list *list, size_t count)
{
    struct list_key *keys;

    if (count <= list->keys_capacity)
        return true;
    keys = realloc(list->keys, count * sizeof(*keys));
    if (keys == NULL)
        return false;
    list->keys = keys;
    list->keys_capacity = count;
    return true;
}

/* The answer of SCAN: the next cursor, "0" at the end, and some keys. */
static enum product_store_status list_read_scan(struct list *list, const redisReply *reply)
{
    const redisReply *cursor = reply->elements == 2 ? reply->element[0] : NULL;
    const redisReply *found = reply->elements == 2 ? reply->element[1] : NULL;

    if (cursor == NULL || cursor->type != REDIS_REPLY_STRING || cursor->len >= sizeof(list->cursor) ||
        found->type != REDIS_REPLY_ARRAY)
        return PRODUCT_STORE_FAILED;
    memcpy(list->cursor, cursor->str, cursor->len + 1);
    list->is_scanned = strcmp(list->cursor, "0") == 0;
    list->keys_count = list->keys_next = 0;
    if (!list_keys_reserve(list, found->elements))
        return PRODUCT_STORE_NO_MEMORY;
    for (size_t i = 0; i < found->elements; i++) {
        struct rpc_bytes key = {found->element[i]->str, found->element[i]->len};
        struct list_key *seen = &list->keys[list->keys_count];
        enum product_list_result result;

        if (found->element[i]->type != REDIS_REPLY_STRING)
            return PRODUCT_STORE_FAILED;
        result = product_list_see(&list->products, key, &seen->offset);
        if (list_status(result) != PRODUCT_STORE_OK)
            return list_status(result);
        seen->size = key.size;
        list->keys_count += result == PRODUCT_LIST_OK;
    }
    return PRODUCT_STORE_OK;
}

static void list_on_scan(struct redis_command *command, enum redis_result result, const redisReply *reply)
{
    struct list *list = (struct list *)command;

    list->status = read_status(list->store, result, reply, REDIS_REPLY_ARRAY);
    if (list->status == PRODUCT_STORE_OK)
        list->status = list_read_scan(list, reply);
    list_go_on(list);
}

static enum product_store_status list_scan(struct list *list)
{
    struct words words = {.count = 0};

    words_add(&words, RPC_BYTES("SCAN"));
    words_add(&words, rpc_bytes_of(list->cursor));
    words_add(&words, RPC_BYTES("MATCH"));
    words_add(&words, RPC_BYTES(KEY_PREFIX "*"));
    words_add(&words, RPC_BYTES("COUNT"));
    words_add(&words, RPC_BYTES("500")); /* some 100 us of the server's time */
    return words_send(&words, list->store, &list->scan, list_on_scan);
}

/* Nothing of it is in flight: what is next? */
static void list_go_on(struct list *list)
{
    if (list->status == PRODUCT_STORE_OK && rpc_loop_now_ms(list->store->loop) >= list->limits.deadline_ms)
        list->status = PRODUCT_STORE_LATE;
    if (list->status == PRODUCT_STORE_OK && list->keys_next < list->keys_count)
        list_fetch(list);
    else if (list->status == PRODUCT_STORE_OK && !list->is_scanned) {
        list->status = list_scan(list);
        if (list->status == PRODUCT_STORE_OK)
            return;
    }
    if (list->in_flight == 0)
        list_end(list);
}

enum product_store_status product_store_list(struct product_store *store, const struct product_list_limits *limits,
                                             product_list_fn *done, void *arg)
{
    enum product_store_status status;
    struct list *list;

    if (store->lists >= PRODUCT_LISTS_MAX)
        return PRODUCT_STORE_BUSY;
    list = calloc(1, sizeof(*list));
    if (list == NULL)
        return PRODUCT_STORE_NO_MEMORY;
    list->store = store;
    list->limits = *limits;
    list->done = done;
    list->arg = arg;
    strcpy(list->cursor, "0");
    product_list_init(&list->products, PRODUCT_LIST_MAX, limits->size_max);
    store->lists++;
    status = list_scan(list);
    if (status != PRODUCT_STORE_OK)
        list_free(list);
    return status;
}

/* ---- Orders ------------------------------------------------------------------------------------------------------- */

/* What the script says of each product, in the order of its keys. */
enum outcome {
    OUTCOME_SEEN = 0,
    OUTCOME_APPLIED = 1,
    OUTCOME_MISSING = 2,
    OUTCOME_REFUSED = 3,
};

/*
 * KEYS: what is remembered of the order, then its products.  ARGV: for how many seconds, then each product's change.
 * Redis checks its memory limit before a script's first write and not after it, so the two writes go together.
 */
static const char script[] = "local function is_of_the_data(text)\n"
                             "    return text:find('WRONGTYPE', 1, true) or text:find('not an integer', 1, true)\n"
                             "        or text:find('overflow', 1, true)\n"
                             "end\n"
                             "local outcomes = {}\n"
                             "for i = 2, #KEYS do\n"
                             "    if redis.call('HSETNX', KEYS[1], KEYS[i], ARGV[i]) == 0 then\n"
                             "        outcomes[i - 1] = 0\n"
                             "    else\n"
                             "        redis.call('EXPIRE', KEYS[1], ARGV[1])\n"
                             "        local done = redis.pcall('HEXISTS', KEYS[i], 'in_stock')\n"
                             "        if done == 0 then\n"
                             "            outcomes[i - 1] = 2\n"
                             "        else\n"
                             "            if done == 1 then\n"
                             "                done = redis.pcall('HINCRBY', KEYS[i], 'in_stock', ARGV[i])\n"
                             "            end\n"
                             "            outcomes[i - 1] = 1\n"
                             "            if type(done) == 'table' and done.err then\n"
                             "                redis.call('HDEL', KEYS[1], KEYS[i])\n"
                             "                if not is_of_the_data(done.err) then\n"
                             "                    return done\n"
                             "                end\n"
                             "                outcomes[i - 1] = 3\n"
                             "            end\n"
                             "        end\n"
                             "    end\n"
                             "end\n"
                             "redis.call('EXPIRE', KEYS[1], ARGV[1])\n"
                             "return outcomes\n";

/* By its hash the server runs what it has seen before; without one, it answers NOSCRIPT, and gets the text. */
static void script_hash(char out[SCRIPT_HASH_SIZE])
{
    unsigned char digest[EVP_MAX_MD_SIZE] = {0};
    unsigned size = 0;

    EVP_Digest(script, sizeof(script) - 1, digest, &size, EVP_sha1(), NULL);
    for (int i = 0; i < SCRIPT_HASH_SIZE / 2; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static void application_on_reply(struct redis_command *command, enum redis_result result, const redisReply *reply);

/* One run of the script: words of any number, and the text that some of them need. */
struct script_call {
    const char **words; /* owned, as is the rest */
    size_t *sizes;
    int count;
    struct json_text text; /* grown to its full size before any word points into it */
};

static void call_clear(struct script_call *call)
{
    free(call->words);
    free(call->sizes);
    json_text_clear(&call->text);
}

static void call_add(struct script_call *call, const char *word, size_t size)
{
    call->words[call->count] = word;
    call->sizes[call->count] = size;
    call->count++;
}

/* The text of all keys and changes, one behind the other; call_add_texts() cuts it up in the same order. */
static bool call_write_texts(struct script_call *call, const struct product_application *application)
{
    const struct order_event *event = application->event;
    bool written =
        json_text_append(&call->text, RPC_BYTES(APPLIED_KEY_PREFIX)) && json_text_integer(&call->text, event->order_id);

    for (size_t i = application->from; i < application->to; i++)
        written = written && json_text_append(&call->text, RPC_BYTES(KEY_PREFIX)) &&
                  json_text_append(&call->text, event->changes[i].product_id);
    for (size_t i = application->from; i < application->to; i++)
        written = written && json_text_integer(&call->text, -event->changes[i].quantity);
    return written;
}

static size_t integer_size(int64_t value)
{
    char digits[DECIMAL_SIZE];

    return decimal(digits, value).size;
}

static void call_add_texts(struct script_call *call, const struct product_application *application)
{
    const struct order_event *event = application->event;
    const char *at = call->text.data;
    size_t size = sizeof(APPLIED_KEY_PREFIX) - 1 + integer_size(event->order_id);

    call_add(call, at, size);
    at += size;
    for (size_t i = application->from; i < application->to; i++, at += size) {
        size = sizeof(KEY_PREFIX) - 1 + event->changes[i].product_id.size;
        call_add(call, at, size);
    }
    call_add(call, application->store->applied_ttl_s, strlen(application->store->applied_ttl_s));
    for (size_t i = application->from; i < application->to; i++, at += size) {
        size = integer_size(-event->changes[i].quantity);
        call_add(call, at, size);
    }
}

static enum product_store_status application_send(struct product_application *application)
{
    struct product_store *store = application->store;
    size_t changes = application->to - application->from;
    size_t words_max = 5 + 2 * changes;
    struct script_call call = {
        .words = calloc(words_max, sizeof(*call.words)),
        .sizes = calloc(words_max, sizeof(*call.sizes)),
    };
    enum product_store_status status = PRODUCT_STORE_NO_MEMORY;
    char keys_count[DECIMAL_SIZE];

    if (call.words == NULL || call.sizes == NULL || !call_write_texts(&call, application))
        goto done;
    if (application->is_script_sent) {
        call_add(&call, "EVAL", 4);
        call_add(&call, script, sizeof(script) - 1);
    } else {
        call_add(&call, "EVALSHA", 7);
        call_add(&call, store->script_hash, SCRIPT_HASH_SIZE - 1);
    }
    call_add(&call, keys_count, decimal(keys_count, (int64_t)changes + 1).size);
    call_add_texts(&call, application);
    assert((size_t)call.count == words_max);
    status = sent_status(
        redis_link_send(store->link, &application->command, call.count, call.words, call.sizes, application_on_reply));
done:
    call_clear(&call);
    return status;
}

/* The next run of the script, if there is anything left to do; PRODUCT_STORE_OK with from == to says that there is not. */
static enum product_store_status application_go_on(struct product_application *application)
{
    size_t left = application->event->count - application->to;

    application->from = application->to;
    application->to += left < PRODUCT_APPLY_CHANGES_MAX ? left : PRODUCT_APPLY_CHANGES_MAX;
    application->is_script_sent = false;
    return left == 0 ? PRODUCT_STORE_OK : application_send(application);
}

static enum product_store_status application_count(struct product_application *application, const redisReply *reply)
{
    if (reply->elements != application->to - application->from)
        return PRODUCT_STORE_FAILED;
    for (size_t i = 0; i < reply->elements; i++) {
        if (reply->element[i]->type != REDIS_REPLY_INTEGER)
            return PRODUCT_STORE_FAILED;
        application->seen += reply->element[i]->integer == OUTCOME_SEEN;
        application->applied += reply->element[i]->integer == OUTCOME_APPLIED;
        application->missing += reply->element[i]->integer == OUTCOME_MISSING;
        application->refused += reply->element[i]->integer == OUTCOME_REFUSED;
    }
    return PRODUCT_STORE_OK;
}

static void application_on_reply(struct redis_command *command, enum redis_result result, const redisReply *reply)
{
    struct product_application *application = (struct product_application *)command;
    enum product_store_status status;

    if (result == REDIS_REFUSED && !application->is_script_sent && strncmp(reply->str, "NOSCRIPT", 8) == 0) {
        application->is_script_sent = true;
        status = application_send(application);
        if (status == PRODUCT_STORE_OK)
            return;
    } else {
        status = reply_status(application->store, result, reply, REDIS_REPLY_ARRAY);
        if (status == PRODUCT_STORE_OK)
            status = application_count(application, reply);
        if (status == PRODUCT_STORE_OK) {
            status = application_go_on(application);
            if (status == PRODUCT_STORE_OK && application->from < application->to)
                return;
        }
    }
    application->done(application, status);
}

enum product_store_status product_store_apply(struct product_store *store, struct product_application *application,
                                              const struct order_event *event, product_application_fn *done)
{
    assert(event->count > 0);
    *application = (struct product_application){.store = store, .done = done, .event = event};
    return application_go_on(application);
}

/* ---- The store ---------------------------------------------------------------------------------------------------- */

const char *product_store_status_name(enum product_store_status status)
{
    switch (status) {
    case PRODUCT_STORE_OK:
        return "ok";
    case PRODUCT_STORE_NOT_FOUND:
        return "not_found";
    case PRODUCT_STORE_DAMAGED:
        return "damaged";
    case PRODUCT_STORE_UNAVAILABLE:
        return "unavailable";
    case PRODUCT_STORE_BUSY:
        return "busy";
    case PRODUCT_STORE_UNKNOWN:
        return "outcome_unknown";
    case PRODUCT_STORE_FAILED:
        return "failed";
    case PRODUCT_STORE_TOO_MANY:
        return "too_many";
    case PRODUCT_STORE_TOO_LARGE:
        return "too_large";
    case PRODUCT_STORE_LATE:
        return "late";
    case PRODUCT_STORE_NO_MEMORY:
        break;
    }
    return "no_memory";
}

struct product_store *product_store_new(const struct product_store_options *options)
{
    struct product_store *store = calloc(1, sizeof(*store));

    if (store == NULL)
        return NULL;
    store->loop = options->loop;
    decimal(store->applied_ttl_s, options->applied_ttl_s > 0 ? options->applied_ttl_s : PRODUCT_APPLIED_TTL_S);
    script_hash(store->script_hash);
    store->hash = EVP_MD_CTX_new();
    store->link = redis_link_new(&(struct redis_link_options){
        .loop = options->loop,
        .uri = options->uri,
        .name = "products",
        .timeout_ms = options->timeout_ms,
        .on_state = options->on_state,
        .arg = options->arg,
    });
    if (store->hash == NULL || store->link == NULL) {
        product_store_free(store);
        return NULL;
    }
    return store;
}

void product_store_free(struct product_store *store)
{
    if (store == NULL)
        return;
    redis_link_free(store->link);
    EVP_MD_CTX_free(store->hash);
    json_text_clear(&store->key);
    free(store);
}

bool product_store_is_up(const struct product_store *store)
{
    return redis_link_is_up(store->link);
}

time_t product_store_since(const struct product_store *store)
{
    return redis_link_since(store->link);
}

const char *product_store_reason(const struct product_store *store)
{
    return redis_link_is_up(store->link) ? store->refusal : redis_link_reason(store->link);
}

size_t product_store_in_flight(const struct product_store *store)
{
    return redis_link_in_flight(store->link);
}

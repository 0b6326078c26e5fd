#include "store_list.h"

#include <stdlib.h>

#include "product_list.h"
#include "store_reply.h"
#include "store_words.h"

#define LIST_FETCHES_MAX 64 /* products asked for at once: they share the connection with everyone else */

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
        .largest_id = rpc_text_bytes(&list->products.largest_id),
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
    enum product_store_status status = store_reply_read_status(list->store, result, reply, REDIS_REPLY_ARRAY);
    struct rpc_bytes fields[PRODUCT_FIELDS];

    list->in_flight--;
    if (status == PRODUCT_STORE_OK)
        status = store_reply_fields(fields, reply);
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

    list->status = store_reply_read_status(list->store, result, reply, REDIS_REPLY_ARRAY);
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

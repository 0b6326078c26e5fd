#include "store_reply.h"

#include <stdio.h>

enum product_store_status store_sent_status(enum redis_result result)
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

enum product_store_status store_reply_status(struct product_store *store, enum redis_result result,
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

enum product_store_status store_reply_read_status(struct product_store *store, enum redis_result result,
                                                  const redisReply *reply, int type)
{
    enum product_store_status status = store_reply_status(store, result, reply, type);

    return status == PRODUCT_STORE_UNKNOWN ? PRODUCT_STORE_UNAVAILABLE : status;
}

enum product_store_status store_reply_fields(struct rpc_bytes fields[PRODUCT_FIELDS], const redisReply *reply)
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

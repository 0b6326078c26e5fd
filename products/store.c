#include "store_internal.h"

#include <stdlib.h>

#include "store_words.h"

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
    words_decimal(store->applied_ttl_s, options->applied_ttl_s > 0 ? options->applied_ttl_s : PRODUCT_APPLIED_TTL_S);
    store_apply_script_hash(store->script_hash);
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
    rpc_text_clear(&store->key);
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

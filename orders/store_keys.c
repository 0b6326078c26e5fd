#include "store_keys.h"

#include <openssl/rand.h>

#include "rpclib/hex.h"
#include "sql.h"

#define REQUEST_ID_SIZE 32 /* hexadecimal digits of the hash that names a request */
#define SHA256_SIZE     32

bool store_key_hash(const struct order_store *store, char out[ORDER_STORE_HASH_SIZE], struct rpc_bytes a,
                    struct rpc_bytes b)
{
    unsigned char hash[SHA256_SIZE];
    EVP_MD_CTX *digest = store->digest;
    bool hashed = EVP_DigestInit_ex2(digest, store->sha256, NULL) == 1 &&
                  EVP_DigestUpdate(digest, a.data, a.size) == 1 && EVP_DigestUpdate(digest, "", 1) == 1 &&
                  EVP_DigestUpdate(digest, b.data, b.size) == 1 && EVP_DigestFinal_ex(digest, hash, NULL) == 1;

    if (hashed)
        rpc_hex_write(hash, SHA256_SIZE, out);
    return hashed;
}

bool store_key_of_request(struct order_store_unit *unit, struct rpc_bytes request_id, const struct rpc_text *asked)
{
    unsigned char random[SHA256_SIZE];

    if (asked->failed)
        return false;
    if (request_id.size == 0) { /* still to be told apart from others when it is sent again */
        if (RAND_bytes(random, sizeof(random)) != 1)
            return false;
        request_id = (struct rpc_bytes){.data = (const char *)random, .size = sizeof(random)};
    }
    unit->key = (struct rpc_bytes){.data = unit->request_hash, .size = REQUEST_ID_SIZE};
    return store_key_hash(unit->store, unit->request_hash, request_id, rpc_text_bytes(asked));
}

void store_key_bind(struct parameters *parameters, const struct order_store_unit *unit)
{
    parameters_add_text(parameters, unit->key);
    parameters_add_int8(parameters, ORDER_STORE_REQUEST_TTL_S);
}

/* ---- Keys that have expired ---------------------------------------------------------------------------------------- */

/* The statements keep the layout of SQL. */
/* clang-format off */

#define FORGET(table, key)                                                                                           \
    "WITH expired AS MATERIALIZED ("                                                                                 \
    "  SELECT " key " FROM " table " WHERE created_at < now() - $1::bigint * interval '1 second'"                    \
    "   ORDER BY created_at LIMIT $2::int FOR UPDATE SKIP LOCKED"                                                    \
    "), gone AS ("                                                                                                   \
    "  DELETE FROM " table " AS known USING expired, " WITHOUT_WAITING " WHERE known." key " = expired." key         \
    "  RETURNING 1"                                                                                                  \
    ") SELECT count(*)::int FROM gone"

/* clang-format on */

static void bind_forget_requests(struct parameters *parameters, struct work_unit *const units[], size_t count,
                                 void *arg)
{
    (void)units;
    (void)count;
    (void)arg;
    parameters_add_int8(parameters, ORDER_STORE_REQUEST_TTL_S);
    parameters_add_int4(parameters, ORDER_STORE_FORGET_MAX);
}

static void bind_forget_keys(struct parameters *parameters, struct work_unit *const units[], size_t count, void *arg)
{
    struct order_store *store = arg;

    (void)units;
    (void)count;
    parameters_add_int8(parameters, store->options.key_ttl_s);
    parameters_add_int4(parameters, ORDER_STORE_FORGET_MAX);
}

static bool take_forgotten(struct work_unit *work, size_t index, const PGresult *rows, void *arg)
{
    (void)index;
    (void)arg;
    if (PQntuples(rows) != 1)
        return false;
    store_unit_of(work)->count = row_int4(rows, 0, 0);
    return true;
}

const struct work_operation store_forget_requests = {
    .name = "forget_requests",
    .sql = FORGET("order_requests", "request_id"),
    .batch_max = 1,
    .is_repeatable = true,
    .columns = 1,
    .bind = bind_forget_requests,
    .take = take_forgotten,
};

const struct work_operation store_forget_keys = {
    .name = "forget_keys",
    .sql = FORGET("order_idempotency", "idempotency_key"),
    .batch_max = 1,
    .is_repeatable = true,
    .columns = 1,
    .bind = bind_forget_keys,
    .take = take_forgotten,
};

enum order_store_status order_store_forget_requests(struct order_store *store, struct order_store_unit *unit,
                                                    uint64_t deadline_ms, order_store_fn *done)
{
    return store_start(store, unit, STORE_FORGET_REQUESTS, deadline_ms, done);
}

enum order_store_status order_store_forget_keys(struct order_store *store, struct order_store_unit *unit,
                                                uint64_t deadline_ms, order_store_fn *done)
{
    return store_start(store, unit, STORE_FORGET_KEYS, deadline_ms, done);
}

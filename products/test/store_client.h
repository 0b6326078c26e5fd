/* What the tests of the store share: a Redis, a store on it, and operations that a test waits for. */
#ifndef PRODUCTS_TEST_STORE_CLIENT_H
#define PRODUCTS_TEST_STORE_CLIENT_H

#include "redis_server.h"
#include "store_apply.h"
#include "store_product.h"
#include "turns.h"

#define TIMEOUT_MS       20000 /* of a command, where no test is about it: megabytes, on a busy machine under sanitizers */
#define TIMEOUT_SHORT_MS 300
#define SIZE_UNLIMITED   (16u * 1024 * 1024)
#define PENDING          (-1) /* no status yet */

#define FILL                                                                                               \
    "for i = 1, tonumber(ARGV[1]) do redis.call('HSET', 'products:p' .. i, 'id', 'p' .. i, 'title', 't', " \
    "'passenger_capacity', '1', 'maximum_speed', '2', 'in_stock', i) end"

extern struct redis_server server; /* started by the program, as is the loop */
extern struct turns *turns;

/* Each runs its tests; how many failed. */
int test_store_product(void);
int test_store_list(void);
int test_store_apply(void);

/* ---- One store a test ---- */

struct client {
    struct product_store *store;
    int ups, downs;
};

void client_open(struct client *client, const char *uri_text, int timeout_ms);
bool client_is_up(void *arg);
bool client_is_down(void *arg);
void client_wait_up(struct client *client);
/* Against the group's server, its data gone. */
void client_begin(struct client *client, int timeout_ms);
void client_end(struct client *client);

/* ---- Operations that a test waits for: their statuses ---- */

struct answer {
    struct product_request request; /* first */
    int status;                     /* PENDING until it is there */
    char text[512];                 /* of get */
};

bool answer_is_there(void *arg);
void answer_on_done(struct product_request *request, enum product_store_status status,
                    const struct rpc_bytes fields[PRODUCT_FIELDS]);
int answer_wait(struct answer *answer, enum product_store_status sent);
int client_get(struct client *client, struct rpc_bytes id, struct answer *answer);
int client_get_status(struct client *client, const char *id);
int client_exists(struct client *client, struct rpc_bytes id);
int client_delete(struct client *client, struct rpc_bytes id);
int client_create(struct client *client, struct rpc_bytes id, int64_t in_stock);
int client_create_once(struct client *client, const char *request_id, const char *id, int64_t in_stock);
int client_delete_once(struct client *client, const char *request_id, const char *id);
void client_make(struct client *client, const char *id, int64_t in_stock);
int64_t server_stock(const char *id);

/* ---- Orders that are applied ---- */

struct applied {
    struct product_application application; /* first */
    struct order_event event;               /* owned */
    int status;
};

bool applied_is_there(void *arg);
void applied_begin(struct applied *applied, int64_t order_id);
void applied_line(struct applied *applied, const char *id, int64_t quantity);
void applied_clear(struct applied *applied);
int applied_send(struct client *client, struct applied *applied);
int applied_apply(struct client *client, struct applied *applied);
void applied_counts_are(const struct applied *applied, size_t done, size_t seen, size_t missing, size_t refused);

#endif

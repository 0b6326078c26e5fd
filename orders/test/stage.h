/* What a test of the store plays on: a loop, a store on a database, and units that wait for their end. */
#ifndef ORDERS_TEST_STAGE_H
#define ORDERS_TEST_STAGE_H

#include "store.h"

#define STAGE_WAIT_MS    20000 /* for anything that must happen */
#define STAGE_TIMEOUT_MS 2000  /* of a statement */

struct event_base;

struct stage {
    struct event_base *base;
    struct rpc_loop *loop;
    struct order_store *store;
    unsigned connections;
};

/* One operation and what came of it. */
struct act {
    struct order_store_unit unit; /* first */
    struct stage *stage;
    struct order order;
    char key[64], request_id[64];
    bool done;
    enum order_store_status status;
    int64_t event_id;
    size_t count; /* orders, events or keys */
    char *text;   /* the orders as JSON, one after another, or the events' payloads */
    int64_t ids[ORDER_STORE_EVENTS_MAX];
    uint64_t start_us, end_us;
    void (*on_end)(struct act *act); /* may be NULL */
    void *arg;
};

void stage_open(struct stage *stage, const char *uri, unsigned connections);
void stage_close(struct stage *stage);
void stage_wait_up(struct stage *stage);
/* ... by all its connections: what one of them waits for holds up nobody on another. */
void stage_wait_all_up(struct stage *stage);

/* Run the loop until `condition` holds; fails the program after STAGE_WAIT_MS. */
void stage_wait(struct stage *stage, bool (*condition)(void *arg), void *arg, const char *what);
void stage_turn(struct stage *stage); /* one turn, 10 ms at most */
uint64_t stage_deadline(const struct stage *stage, uint64_t ms);

struct act *act_new(struct stage *stage);
void act_free(struct act *act);
enum order_store_status act_wait(struct act *act);

/* An order of `lines` (JSON) asked for under a correlation id and a key, either may be NULL. */
struct act *act_create(struct stage *stage, const char *lines, const char *request_id, const char *key);
struct act *act_recall(struct stage *stage, const char *lines, const char *key);
struct act *act_get(struct stage *stage, int32_t id);
struct act *act_update(struct stage *stage, const char *change);
struct act *act_delete(struct stage *stage, int32_t id);
/* The same under a correlation id. */
struct act *act_update_as(struct stage *stage, const char *request_id, const char *change);
struct act *act_delete_as(struct stage *stage, const char *request_id, int32_t id);
struct act *act_list(struct stage *stage, int32_t after, int32_t limit);
struct act *act_claim(struct stage *stage);
struct act *act_delete_events(struct stage *stage, const int64_t *ids, size_t count);

#endif

/*
 * The n-th allocation, read or write fails, for each n: the rules of orders, and the store before a real PostgreSQL, with
 * libpq's own.  No crash, no leak (the address sanitizer looks), an honest status, and afterwards all of it works again.
 */
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "database_uri.h"
#include "parameters.h"
#include "postgres.h"
#include "rpclib/json.h"
#include "rpclib/log.h"
#include "rpclib/loop_libevent.h"
#include "store.h"
#include "torture.h"

#define WAIT_MS          60000 /* for anything that must happen, on a busy machine */
#define TIMEOUT_MS       8000  /* of a statement */
#define DEADLINE_MS      3000  /* of an operation while something fails */
#define LONG_DEADLINE_MS 30000 /* of one that must succeed */
#define CLAIM_MS         60000
#define TURN_MS          10
#define NAME_SIZE        64

static bool counted;

static json_t *load(const char *text)
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *json = rpc_json_load(rpc_bytes_of(text), reason);

    if (json == NULL) {
        fprintf(stderr, "%s: %s\n", text, reason);
        exit(1);
    }
    return json;
}

/* ---- What is pure ------------------------------------------------------------------------------------------------ */

static const char good[] = "[{\"product_id\": \"a\", \"price\": \"1.5\", \"quantity\": 1}, "
                           "{\"product_id\": \"b\\\"\", \"price\": 0.1, \"quantity\": \"2\"}]";
static const char bad[] = "[{\"product_id\": 7, \"price\": \"x\", \"quantity\": 0}, 7, {\"product_id\": \"\"}]";
static const char good_change[] = "{\"id\": 1, \"order_details\": [{\"id\": 1, \"price\": 2, \"quantity\": 1}]}";
static const char bad_change[] = "{\"id\": 1, \"order_details\": [{\"id\": 1, \"price\": 2, \"quantity\": 1}, "
                                 "{\"id\": 1, \"price\": 2, \"quantity\": 1}]}";

typedef enum order_status read_fn(struct order *out, const json_t *json, json_t **errors);

/* `complaints`: what is said when memory lasts, as JSON; NULL: nothing is wrong. */
static void read_one(read_fn *read, const char *text, const char *complaints)
{
    json_t *json = load(text), *errors = NULL;
    struct order order = {.id = 4711};
    enum order_status status;

    counted = true;
    status = read(&order, json, &errors);
    counted = false;
    json_decref(json);
    if (status != ORDER_OK && (order.id != 4711 || order.memory != NULL))
        torture_violated("refused, though something was written: %s", text);
    if (status != ORDER_INVALID && errors != NULL)
        torture_violated("complaints with status %d", (int)status);
    if (status == ORDER_INVALID) {
        char *said = json_dumps(errors, JSON_COMPACT | JSON_SORT_KEYS);

        if (complaints == NULL || strcmp(said, complaints) != 0)
            torture_violated("%s: %s", text, said);
        free(said);
        json_decref(errors);
    } else if (status == ORDER_OK) {
        if (complaints != NULL)
            torture_violated("taken: %s", text);
        order_clear(&order);
    } else if (!torture_fell()) {
        torture_violated("no memory, though none failed");
    }
}

static void reads_orders(void)
{
    read_one(order_read_new, good, NULL);
    read_one(order_read_new, bad,
             "{\"order_details\":{\"0\":{\"price\":[\"Not a valid number.\"],\"product_id\":[\"Not a valid string.\"],"
             "\"quantity\":[\"Must be greater than or equal to 1 and less than or equal to 2147483647.\"]},"
             "\"1\":{\"_schema\":[\"Invalid input type.\"]},"
             "\"2\":{\"price\":[\"Missing data for required field.\"],"
             "\"product_id\":[\"Length must be between 1 and 1024.\"],"
             "\"quantity\":[\"Missing data for required field.\"]}}}");
    read_one(order_read_new, "7", "{\"order_details\":[\"Invalid type.\"]}");
    read_one(order_read_change, good_change, NULL);
    read_one(order_read_change, bad_change, "{\"order_details\":{\"1\":{\"id\":[\"Must not be named twice.\"]}}}");
    read_one(
        order_read_change, "{}",
        "{\"id\":[\"Missing data for required field.\"],\"order_details\":[\"Missing data for required field.\"]}");
}

static void reads_a_page(void)
{
    json_t *after = json_string("x"), *limit = json_integer(0), *errors = NULL;
    struct order_page page = {.after = 4711};
    enum order_status status;

    counted = true;
    status = order_read_page(&page, after, limit, &errors);
    counted = false;
    if (page.after != 4711 || status == ORDER_OK || (errors == NULL) != (status == ORDER_NO_MEMORY))
        torture_violated("status %d", (int)status);
    if (errors != NULL && json_object_size(errors) != 2)
        torture_violated("%zu of 2 complaints", json_object_size(errors));
    json_decref(errors);
    json_decref(after);
    json_decref(limit);
}

static void prints(void)
{
    struct rpc_text text = {.data = NULL};
    struct parameters parameters = {.count = 0};
    struct order order;
    json_t *json = load(good), *errors;

    if (order_read_new(&order, json, &errors) != ORDER_OK)
        exit(1);
    counted = true;
    for (int i = 0; i < 20; i++)
        order_print(&text, &order);
    if (text.failed != torture_fell())
        torture_violated("a text that is not whole does not say so");
    rpc_text_reset(&text, 0);
    order_print(&text, &order);
    if (text.failed && !torture_fell())
        torture_violated("it stays failed");
    parameters_reset(&parameters);
    parameters_add_array(&parameters, PARAMETERS_TEXT, 300);
    for (int i = 0; i < 300; i++)
        parameters_element_text(&parameters, RPC_BYTES("the_odyssey"));
    parameters_add_int8(&parameters, 7);
    parameters_reset(&parameters);
    parameters_add_int4(&parameters, 7);
    parameters_clear(&parameters);
    rpc_text_clear(&text);
    counted = false;
    order_clear(&order);
    json_decref(json);
}

static void reads_a_uri(void)
{
    struct database_uri uri = {.hosts_count = 4711};
    char reason[DATABASE_URI_REASON_SIZE] = "";
    PGconn *db;
    bool taken;

    counted = true;
    taken = database_uri_parse(&uri, "postgresql://user:secret@127.0.0.1:1,127.0.0.2:2/orders", reason);
    counted = false;
    if (!taken && (uri.hosts_count != 4711 || strstr(reason, "secret") != NULL || reason[0] == '\0'))
        torture_violated("refused with \"%s\"", reason);
    if (!taken)
        return;
    if (uri.hosts_count != 2 || strcmp(uri.hosts[1].address == NULL ? "" : uri.hosts[1].name, "127.0.0.2") != 0)
        torture_violated("taken without all of it");
    counted = true;
    db = database_uri_connect(&uri, &uri.hosts[0], "127.0.0.1");
    PQfinish(db);
    counted = false;
    database_uri_clear(&uri);
}

/* ---- The store --------------------------------------------------------------------------------------------------- */

static struct postgres *postgres;
static long run_number;

static struct {
    struct event_base *base;
    struct rpc_loop *loop;
    struct order_store *store;
} stage;

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool stage_run(bool (*enough)(void *arg), void *arg)
{
    uint64_t end_ms = now_ms() + WAIT_MS;

    while (!enough(arg) && now_ms() < end_ms) {
        event_base_loopexit(stage.base, &(struct timeval){.tv_usec = TURN_MS * 1000});
        counted = true;
        event_base_loop(stage.base, EVLOOP_ONCE);
        counted = false;
    }
    return enough(arg);
}

static bool is_up(void *arg)
{
    (void)arg;
    return order_store_is_up(stage.store);
}

/* One operation. */
struct act {
    struct order_store_unit unit; /* first */
    struct order order;
    bool done;
    enum order_store_status status;
    int32_t order_id;
    int64_t event_id;
};

static void on_end(struct order_store_unit *unit, enum order_store_status status)
{
    struct act *act = (struct act *)unit;
    bool did_count = counted;

    counted = false;
    if (act->done)
        torture_violated("an operation ended twice");
    act->done = true;
    act->status = status;
    if (status == ORDER_STORE_OK && unit->order != NULL)
        act->order_id = unit->order->id;
    if (status == ORDER_STORE_OK)
        act->event_id = unit->event_id;
    counted = did_count;
}

enum kind { CREATE, RECALL, GET, LIST, UPDATE, CLAIM, RELEASE, DELETE_EVENTS, DELETE, FORGET, KINDS };

static const char *const kind_names[KINDS] = {"create", "recall",  "get",           "list",   "update",
                                              "claim",  "release", "delete_events", "delete", "forget"};

static void act_start(struct act *act, enum kind kind, const char *key, uint64_t timeout_ms)
{
    const struct order_creation creation = {
        .order = &act->order, .request_id = RPC_BYTES("r"), .idempotency_key = rpc_bytes_of(key)};
    uint64_t deadline_ms = rpc_loop_now_ms(stage.loop) + timeout_ms;
    static const int64_t event_id = INT64_MAX; /* there is no such event: its claim or its row is not there either */
    enum order_store_status status = ORDER_STORE_FAILED;

    counted = true;
    switch (kind) {
    case CREATE:
        status = order_store_create(stage.store, &act->unit, &creation, deadline_ms, on_end);
        break;
    case RECALL:
        status = order_store_recall(stage.store, &act->unit, &creation, deadline_ms, on_end);
        break;
    case GET:
        status = order_store_get(stage.store, &act->unit, 1, deadline_ms, on_end);
        break;
    case LIST:
        status =
            order_store_list(stage.store, &act->unit, (struct order_page){.after = 0, .limit = 5}, deadline_ms, on_end);
        break;
    case UPDATE:
        status = order_store_update(stage.store, &act->unit, &act->order, RPC_BYTES(""), deadline_ms, on_end);
        break;
    case CLAIM:
        status = order_store_claim_events(stage.store, &act->unit, 5, deadline_ms, on_end);
        break;
    case RELEASE:
        status = order_store_release_events(stage.store, &act->unit, &event_id, 1, deadline_ms, on_end);
        break;
    case DELETE_EVENTS:
        status = order_store_delete_events(stage.store, &act->unit, &event_id, 1, deadline_ms, on_end);
        break;
    case DELETE: /* an order that nobody has made */
        status = order_store_delete(stage.store, &act->unit, ORDER_ID_MAX, RPC_BYTES(""), deadline_ms, on_end);
        break;
    case FORGET:
        status = order_store_forget_keys(stage.store, &act->unit, deadline_ms, on_end);
        break;
    case KINDS:
        break;
    }
    counted = false;
    if (status == ORDER_STORE_OK)
        return;
    if (act->done)
        torture_violated("%s ended, though it was not taken", kind_names[kind]);
    act->done = true;
    act->status = status;
}

static long orders_of(const char *product_id)
{
    char sql[200];

    snprintf(sql, sizeof(sql), "SELECT count(DISTINCT order_id) FROM order_details WHERE product_id = '%s'",
             product_id);
    return postgres_number(postgres, sql);
}

static bool is_honest(enum kind kind, enum order_store_status status)
{
    bool reads = kind == GET || kind == LIST || kind == RECALL;

    switch (status) {
    case ORDER_STORE_OK:
    case ORDER_STORE_BUSY:
    case ORDER_STORE_UNAVAILABLE:
        return true;
    case ORDER_STORE_UNKNOWN:
        return !reads;
    case ORDER_STORE_NOT_FOUND: /* of the create that failed */
        return kind == RECALL || kind == DELETE;
    case ORDER_STORE_LINE_NOT_FOUND:
    case ORDER_STORE_KEY_REUSED:
    case ORDER_STORE_TOO_LARGE:
    case ORDER_STORE_FAILED: /* it would be the database's fault */
        break;
    }
    return false;
}

static bool all_are_done(void *arg)
{
    const struct act *acts = arg;

    for (enum kind kind = 0; kind < KINDS; kind++)
        if (!acts[kind].done)
            return false;
    return true;
}

static void read_order(struct order *out, read_fn *read, const char *text)
{
    json_t *json = load(text), *errors;

    if (read(out, json, &errors) != ORDER_OK)
        exit(1);
    json_decref(json);
}

/* What came of it must fit what is there. */
static void check_created(const struct act *create, long before, long after)
{
    bool is_made = after > before;

    if (after > 1)
        torture_violated("%ld orders under one key", after);
    if (create->status == ORDER_STORE_OK && (after != 1 || create->order_id == 0))
        torture_violated("create is ok, and there are %ld orders", after);
    if (create->status != ORDER_STORE_OK && create->status != ORDER_STORE_UNKNOWN && is_made)
        torture_violated("create ends with status %d, and the order is there", (int)create->status);
}

/* One of each at once; order 1 was there before.  What the run makes stands under its own product and key. */
static void round_of_acts(const char *product_id, bool must_succeed)
{
    struct act acts[KINDS] = {{.done = false}};
    long before = orders_of(product_id);
    char lines[200];

    snprintf(lines, sizeof(lines), "[{\"product_id\": \"%s\", \"price\": 1, \"quantity\": 1}]", product_id);
    read_order(&acts[CREATE].order, order_read_new, lines);
    read_order(&acts[RECALL].order, order_read_new, lines);
    read_order(&acts[UPDATE].order, order_read_change, good_change);
    for (enum kind kind = 0; kind < KINDS; kind++)
        act_start(&acts[kind], kind, product_id, must_succeed ? LONG_DEADLINE_MS : DEADLINE_MS);
    if (!stage_run(all_are_done, acts)) {
        torture_violated("an operation never ends");
        exit(torture_end());
    }
    for (enum kind kind = 0; kind < KINDS; kind++) {
        bool failed = acts[kind].status != (kind == DELETE ? ORDER_STORE_NOT_FOUND : ORDER_STORE_OK);

        if (!is_honest(kind, acts[kind].status) || (failed && must_succeed))
            torture_violated("%s ends with status %d", kind_names[kind], (int)acts[kind].status);
        order_clear(&acts[kind].order);
    }
    check_created(&acts[CREATE], before, orders_of(product_id));
}

static void store(void)
{
    char product_id[NAME_SIZE];

    snprintf(product_id, sizeof(product_id), "run-%ld", ++run_number);
    stage.base = event_base_new();
    stage.loop = rpc_loop_libevent_new(stage.base);
    counted = true;
    stage.store = order_store_new(&(struct order_store_options){.loop = stage.loop,
                                                                .uri = postgres_uri(postgres),
                                                                .connections = 1,
                                                                .timeout_ms = TIMEOUT_MS,
                                                                .key_ttl_s = 3600,
                                                                .claim_ms = CLAIM_MS});
    counted = false;
    if (stage.store != NULL) {
        order_store_claim_new_events(stage.store, true);
        if (!stage_run(is_up, NULL))
            torture_violated("it does not come up");
        round_of_acts(product_id, false);
        if (!stage_run(is_up, NULL)) /* one failure is over by now */
            torture_violated("it does not come back");
        torture_spare(true);
        round_of_acts(product_id, true);
        torture_spare(false);
    } else if (!torture_fell()) {
        torture_violated("cannot start, though nothing failed");
    }
    counted = true;
    order_store_free(stage.store);
    counted = false;
    rpc_loop_libevent_free(stage.loop);
    event_base_free(stage.base);
}

int main(void)
{
    static const char *const libraries[] = {"libpq", "libjansson", NULL};

    signal(SIGPIPE, SIG_IGN);
    rpc_log_configure("torture", RPC_LOG_ERROR, RPC_LOG_LOGFMT);
    torture_begin(&(struct torture_options){.when = &counted, .libraries = libraries});
    torture("orders are read", TORTURE_NO_MEMORY, reads_orders);
    torture("a page is read", TORTURE_NO_MEMORY, reads_a_page);
    torture("orders are printed", TORTURE_NO_MEMORY, prints);
    torture("a URI is read", TORTURE_NO_MEMORY, reads_a_uri);
    postgres = postgres_new(false);
    free(postgres_sql(postgres, "INSERT INTO orders (created_at, updated_at) VALUES (now(), now()); "
                                "INSERT INTO order_details (order_id, product_id, price, quantity, created_at, "
                                "updated_at) VALUES (1, 'first', 1, 1, now(), now())"));
    torture("store", TORTURE_RESET, store);
    torture("store", TORTURE_AGAIN, store);
    torture("store", TORTURE_SHORT, store);
    torture("store", TORTURE_NO_MEMORY, store);
    postgres_free(postgres);
    return torture_end();
}

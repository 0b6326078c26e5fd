/* The store against a real Redis: what it does, and what it says when Redis dies, sleeps, forgets or refuses. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "redis_server.h"
#include "store_apply.h"
#include "store_list.h"
#include "store_product.h"
#include "turns.h"

#define TIMEOUT_MS       20000 /* of a command, where no test is about it: megabytes, on a busy machine under sanitizers */
#define TIMEOUT_SHORT_MS 300
#define SIZE_UNLIMITED   (16u * 1024 * 1024)
#define PENDING          (-1) /* no status yet */

static struct redis_server server;
static struct turns *turns;

/* ---- One store a test --------------------------------------------------------------------------------------------- */

struct client {
    struct product_store *store;
    int ups, downs;
};

static void client_on_state(bool up, void *arg)
{
    struct client *client = arg;

    client->ups += up;
    client->downs += !up;
    assert_int_equal(product_store_is_up(client->store), up);
}

static void client_open(struct client *client, const char *uri_text, int timeout_ms)
{
    char reason[REDIS_URI_REASON_SIZE];
    struct redis_uri uri;

    *client = (struct client){.ups = 0};
    if (!redis_uri_read(&uri, uri_text, reason))
        fail_msg("%s", reason);
    client->store = product_store_new(&(struct product_store_options){
        .loop = turns_loop(turns),
        .uri = &uri,
        .timeout_ms = timeout_ms,
        .on_state = client_on_state,
        .arg = client,
    });
    assert_non_null(client->store);
    redis_uri_clear(&uri);
}

static bool client_is_up(void *arg)
{
    return product_store_is_up(((struct client *)arg)->store);
}

static bool client_is_down(void *arg)
{
    return !client_is_up(arg);
}

static void client_wait_up(struct client *client)
{
    assert_true(turns_until(turns, client_is_up, client));
}

/* Against the group's server, its data gone. */
static void client_begin(struct client *client, int timeout_ms)
{
    char uri[64];

    redis_server_do(&server, "FLUSHALL");
    snprintf(uri, sizeof(uri), "redis://127.0.0.1:%d/0", server.port);
    client_open(client, uri, timeout_ms);
    client_wait_up(client);
}

static void client_end(struct client *client)
{
    product_store_free(client->store);
}

/* ---- Operations that a test waits for ----------------------------------------------------------------------------- */

struct answer {
    struct product_request request; /* first */
    int status;                     /* PENDING until it is there */
    char text[512];                 /* of get */
};

static bool answer_is_there(void *arg)
{
    return ((struct answer *)arg)->status != PENDING;
}

static void answer_on_done(struct product_request *request, enum product_store_status status,
                           const struct rpc_bytes fields[PRODUCT_FIELDS])
{
    struct answer *answer = (struct answer *)request;
    struct json_text text = {.data = NULL};

    assert_int_equal(answer->status, PENDING); /* once */
    answer->status = (int)status;
    if (fields == NULL)
        return;
    if (product_print(&text, fields) != PRODUCT_PRINT_OK)
        snprintf(answer->text, sizeof(answer->text), "damaged");
    else
        snprintf(answer->text, sizeof(answer->text), "%.*s", (int)text.size, text.data);
    json_text_clear(&text);
}

static int answer_wait(struct answer *answer, enum product_store_status sent)
{
    if (sent != PRODUCT_STORE_OK)
        return (int)sent;
    assert_int_equal(answer->status, PENDING); /* never from inside the call */
    assert_true(turns_until(turns, answer_is_there, answer));
    return answer->status;
}

static int get(struct client *client, struct rpc_bytes id, struct answer *answer)
{
    *answer = (struct answer){.status = PENDING};
    return answer_wait(answer, product_store_get(client->store, &answer->request, id, answer_on_done));
}

static int get_status(struct client *client, const char *id)
{
    struct answer answer;

    return get(client, rpc_bytes_of(id), &answer);
}

static int exists(struct client *client, struct rpc_bytes id)
{
    struct answer answer = {.status = PENDING};

    return answer_wait(&answer, product_store_exists(client->store, &answer.request, id, answer_on_done));
}

static int delete (struct client *client, struct rpc_bytes id)
{
    struct answer answer = {.status = PENDING};

    return answer_wait(&answer, product_store_delete(client->store, &answer.request, id, answer_on_done));
}

static int create(struct client *client, struct rpc_bytes id, int64_t in_stock)
{
    const struct product product = {.id = id, .title = RPC_BYTES("t"), .maximum_speed = 5, .in_stock = in_stock};
    struct answer answer = {.status = PENDING};

    return answer_wait(&answer, product_store_create(client->store, &answer.request, &product, answer_on_done));
}

static int create_once(struct client *client, const char *request_id, const char *id, int64_t in_stock)
{
    const struct product product = {
        .id = rpc_bytes_of(id), .title = RPC_BYTES("t"), .maximum_speed = 5, .in_stock = in_stock};
    const struct product_request_name name = {.request_id = rpc_bytes_of(request_id), .remember_s = 100};
    struct answer answer = {.status = PENDING};

    return answer_wait(&answer,
                       product_store_create_once(client->store, &answer.request, &product, &name, answer_on_done));
}

static int delete_once(struct client *client, const char *request_id, const char *id)
{
    const struct product_request_name name = {.request_id = rpc_bytes_of(request_id), .remember_s = 100};
    struct answer answer = {.status = PENDING};

    return answer_wait(
        &answer, product_store_delete_once(client->store, &answer.request, rpc_bytes_of(id), &name, answer_on_done));
}

static void make(struct client *client, const char *id, int64_t in_stock)
{
    assert_int_equal(create(client, rpc_bytes_of(id), in_stock), PRODUCT_STORE_OK);
}

static int64_t stock(const char *id)
{
    return redis_server_integer(&server, "HGET products:%s in_stock", id);
}

/* ---- One product -------------------------------------------------------------------------------------------------- */

static void test_a_product_s_life(void **state)
{
    static const struct rpc_bytes ids[] = {
        RPC_BYTES("a"),      RPC_BYTES("with space"), RPC_BYTES("line\r\nbreak"), RPC_BYTES("*"),  RPC_BYTES("[a-z]?"),
        RPC_BYTES("%s%n%b"), RPC_BYTES("飛行船"),     RPC_BYTES("products:1"),    RPC_BYTES("\""), RPC_BYTES(""),
    };
    struct client client;
    struct answer answer;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        assert_int_equal(get(&client, ids[i], &answer), PRODUCT_STORE_NOT_FOUND);
        assert_int_equal(exists(&client, ids[i]), PRODUCT_STORE_NOT_FOUND);
        assert_int_equal(delete (&client, ids[i]), PRODUCT_STORE_OK);
        assert_int_equal(create(&client, ids[i], INT64_MIN), PRODUCT_STORE_OK);
        assert_int_equal(get(&client, ids[i], &answer), PRODUCT_STORE_OK);
        assert_non_null(strstr(answer.text, "\"in_stock\":-9223372036854775808}"));
        assert_int_equal(exists(&client, ids[i]), PRODUCT_STORE_OK);
        assert_int_equal(redis_server_integer(&server, "HLEN products:%b", ids[i].data, ids[i].size), 5);
        assert_int_equal(delete (&client, ids[i]), PRODUCT_STORE_OK);
        assert_int_equal(exists(&client, ids[i]), PRODUCT_STORE_NOT_FOUND);
    }
    assert_int_equal(redis_server_integer(&server, "DBSIZE"), 0);
    client_end(&client);
}

static void test_as_the_original_stores(void **state)
{
    struct client client;
    struct answer answer;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    redis_server_do(&server,
                    "HSET products:the_odyssey id the_odyssey title %s passenger_capacity 101 maximum_speed 5 "
                    "in_stock 10",
                    "The Odyssey");
    assert_int_equal(get(&client, RPC_BYTES("the_odyssey"), &answer), PRODUCT_STORE_OK);
    assert_string_equal(answer.text, "{\"id\":\"the_odyssey\",\"title\":\"The Odyssey\",\"passenger_capacity\":101,"
                                     "\"maximum_speed\":5,\"in_stock\":10}");
    client_end(&client);
}

static void test_create_replaces(void **state)
{
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    make(&client, "a", 1);
    make(&client, "a", 2);
    assert_int_equal(stock("a"), 2);
    assert_int_equal(redis_server_integer(&server, "HLEN products:a"), 5);
    client_end(&client);
}

static void test_what_is_no_product(void **state)
{
    struct client client;
    struct answer answer;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    redis_server_do(&server, "SET products:text x");
    redis_server_do(&server, "HSET products:half in_stock -1");
    assert_int_equal(get_status(&client, "text"), PRODUCT_STORE_DAMAGED);
    assert_int_equal(create(&client, RPC_BYTES("text"), 1), PRODUCT_STORE_DAMAGED);
    assert_int_equal(get(&client, RPC_BYTES("half"), &answer), PRODUCT_STORE_OK);
    assert_string_equal(answer.text, "damaged");
    client_end(&client);
}

static void test_each_gets_its_own_answer(void **state)
{
    enum { COUNT = 1000 };
    struct answer *answers = calloc(COUNT, sizeof(*answers));
    struct client client;
    char id[32];

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    for (int i = 0; i < COUNT; i += 2) {
        snprintf(id, sizeof(id), "p%d", i);
        make(&client, id, i);
    }
    for (int i = 0; i < COUNT; i++) {
        snprintf(id, sizeof(id), "p%d", i);
        answers[i].status = PENDING;
        assert_int_equal(product_store_get(client.store, &answers[i].request, rpc_bytes_of(id), answer_on_done),
                         PRODUCT_STORE_OK);
    }
    for (int i = 0; i < COUNT; i++) {
        assert_true(turns_until(turns, answer_is_there, &answers[i]));
        assert_int_equal(answers[i].status, i % 2 == 0 ? PRODUCT_STORE_OK : PRODUCT_STORE_NOT_FOUND);
        snprintf(id, sizeof(id), "\"in_stock\":%d}", i);
        if (i % 2 == 0)
            assert_non_null(strstr(answers[i].text, id));
    }
    client_end(&client);
    free(answers);
}

static int64_t reads_of_the_server(void)
{
    redisReply *reply = redis_server_ask(&server, "INFO stats");
    const char *at = strstr(reply->str, "total_reads_processed:");
    int64_t reads;

    assert_non_null(at);
    reads = strtoll(at + strlen("total_reads_processed:"), NULL, 10);
    freeReplyObject(reply);
    return reads;
}

static void test_a_turn_s_commands_leave_in_one_write(void **state)
{
    enum { COUNT = 64 };
    struct answer answers[COUNT];
    struct client client;
    int64_t reads;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    reads = reads_of_the_server();
    for (int i = 0; i < COUNT; i++) {
        answers[i] = (struct answer){.status = PENDING};
        assert_int_equal(product_store_get(client.store, &answers[i].request, RPC_BYTES("x"), answer_on_done),
                         PRODUCT_STORE_OK);
    }
    assert_true(turns_until(turns, answer_is_there, &answers[COUNT - 1]));
    assert_int_equal(reads_of_the_server(), reads + 2); /* ours, and the question itself */
    client_end(&client);
}

/* How often this process has called read() or the like. */
static int64_t reads_of_this_process(void)
{
    FILE *file = fopen("/proc/self/io", "r");
    char line[128];
    long long reads = -1;

    assert_non_null(file);
    while (reads < 0 && fgets(line, sizeof(line), file) != NULL)
        sscanf(line, "syscr: %lld", &reads);
    fclose(file);
    assert_true(reads >= 0);
    return reads;
}

static void test_an_answer_takes_one_read(void **state)
{
    enum { COUNT = 100 };
    struct client client;
    int64_t none, reads;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    make(&client, "a", 1);
    none = -reads_of_this_process();
    none += reads_of_this_process();
    reads = -reads_of_this_process();
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_OK);
    reads += reads_of_this_process();
    assert_in_range(reads - none, 1, COUNT + COUNT / 10);
    client_end(&client);
}

/* A request that comes again changes nothing, whatever happened since. */
static void test_created_once(void **state)
{
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    assert_int_equal(create_once(&client, "r1", "once", 10), PRODUCT_STORE_OK);
    assert_int_equal(stock("once"), 10);
    assert_int_equal(redis_server_integer(&server, "HLEN products:once"), 5);
    redis_server_do(&server, "HINCRBY products:once in_stock -3");
    assert_int_equal(create_once(&client, "r1", "once", 10), PRODUCT_STORE_OK);
    assert_int_equal(stock("once"), 7);
    assert_int_equal(create_once(&client, "r2", "once", 10), PRODUCT_STORE_OK);
    assert_int_equal(stock("once"), 10);
    assert_int_equal(create_once(&client, "r2", "once", 11), PRODUCT_STORE_OK); /* another product, one careless id */
    assert_int_equal(stock("once"), 11);
    assert_int_equal(delete (&client, RPC_BYTES("once")), PRODUCT_STORE_OK);
    assert_int_equal(create_once(&client, "r2", "once", 11), PRODUCT_STORE_OK);
    assert_int_equal(exists(&client, RPC_BYTES("once")), PRODUCT_STORE_NOT_FOUND);
    client_end(&client);
}

static void test_deleted_once(void **state)
{
    struct client client;
    redisReply *keys;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    make(&client, "once", 10);
    make(&client, "other", 10);
    assert_int_equal(delete_once(&client, "r1", "once"), PRODUCT_STORE_OK);
    assert_int_equal(exists(&client, RPC_BYTES("once")), PRODUCT_STORE_NOT_FOUND);
    assert_int_equal(create_once(&client, "r2", "once", 11), PRODUCT_STORE_OK);
    assert_int_equal(delete_once(&client, "r1", "once"), PRODUCT_STORE_OK); /* it comes again */
    assert_int_equal(stock("once"), 11);
    assert_int_equal(delete_once(&client, "r1", "other"), PRODUCT_STORE_OK); /* another product, one careless id */
    assert_int_equal(exists(&client, RPC_BYTES("other")), PRODUCT_STORE_NOT_FOUND);
    assert_int_equal(delete_once(&client, "r3", "nothing"), PRODUCT_STORE_OK); /* what was not there, too */
    make(&client, "nothing", 1);
    assert_int_equal(delete_once(&client, "r3", "nothing"), PRODUCT_STORE_OK);
    assert_int_equal(stock("nothing"), 1);
    assert_int_equal(delete_once(&client, "r4", "once"), PRODUCT_STORE_OK);
    assert_int_equal(exists(&client, RPC_BYTES("once")), PRODUCT_STORE_NOT_FOUND);
    keys = redis_server_ask(&server, "KEYS airship:deleted:*");
    assert_int_equal(keys->elements, 4);
    assert_int_equal(keys->element[0]->len, strlen("airship:deleted:") + 32);
    assert_in_range(redis_server_integer(&server, "TTL %s", keys->element[0]->str), 90, 100);
    freeReplyObject(keys);
    client_end(&client);
}

/* It is remembered for a while under 32 digits; a write that was refused is not. */
static void test_created_is_remembered(void **state)
{
    struct client client;
    redisReply *keys;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    redis_server_do(&server, "SET products:wrong text");
    assert_int_equal(create_once(&client, "r1", "wrong", 10), PRODUCT_STORE_DAMAGED);
    keys = redis_server_ask(&server, "KEYS airship:*");
    assert_int_equal(keys->elements, 0);
    freeReplyObject(keys);
    redis_server_do(&server, "DEL products:wrong");
    assert_int_equal(create_once(&client, "r1", "wrong", 10), PRODUCT_STORE_OK);
    assert_int_equal(stock("wrong"), 10);
    keys = redis_server_ask(&server, "KEYS airship:created:*");
    assert_int_equal(keys->elements, 1);
    assert_int_equal(keys->element[0]->len, strlen("airship:created:") + 32);
    assert_in_range(redis_server_integer(&server, "TTL %s", keys->element[0]->str), 90, 100);
    freeReplyObject(keys);
    client_end(&client);
}

static void test_large_values(void **state)
{
    enum { SIZE = 8 * 1024 * 1024 };
    char *title = malloc(SIZE);
    struct product product = {.id = RPC_BYTES("large"), .title = {title, SIZE}};
    struct answer answer = {.status = PENDING};
    struct client client;

    (void)state;
    memset(title, 't', SIZE);
    client_begin(&client, TIMEOUT_MS);
    assert_int_equal(
        answer_wait(&answer, product_store_create(client.store, &answer.request, &product, answer_on_done)),
        PRODUCT_STORE_OK);
    assert_int_equal(redis_server_integer(&server, "HSTRLEN products:large title"), SIZE);
    assert_int_equal(get(&client, RPC_BYTES("large"), &answer), PRODUCT_STORE_OK);
    assert_memory_equal(answer.text, "{\"id\":\"large\",\"title\":\"ttt", 26);
    assert_int_equal(get_status(&client, "small"), PRODUCT_STORE_NOT_FOUND);
    client_end(&client);
    free(title);
}

/* ---- All products ------------------------------------------------------------------------------------------------- */

struct listing {
    int status;
    json_t *products; /* owned */
    size_t damaged;
    size_t largest_size;
    char largest_id[64];
};

static bool listing_is_there(void *arg)
{
    return ((struct listing *)arg)->status != PENDING;
}

static void listing_on_done(enum product_store_status status, const struct product_listing *came, void *arg)
{
    struct listing *listing = arg;
    struct rpc_bytes products = came->products;

    assert_int_equal(listing->status, PENDING);
    listing->status = (int)status;
    listing->damaged = came->damaged;
    listing->largest_size = came->largest_size;
    snprintf(listing->largest_id, sizeof(listing->largest_id), "%.*s", (int)came->largest_id.size,
             came->largest_id.size > 0 ? came->largest_id.data : "");
    assert_int_equal(products.data != NULL, status == PRODUCT_STORE_OK);
    if (products.data != NULL)
        listing->products = json_loadb(products.data, products.size, JSON_REJECT_DUPLICATES, NULL);
}

static int list(struct client *client, struct listing *listing, size_t size_max, uint64_t deadline_ms)
{
    enum product_store_status status;

    *listing = (struct listing){.status = PENDING};
    status = product_store_list(client->store,
                                &(struct product_list_limits){.size_max = size_max, .deadline_ms = deadline_ms},
                                listing_on_done, listing);
    if (status != PRODUCT_STORE_OK)
        return (int)status;
    assert_true(turns_until(turns, listing_is_there, listing));
    return listing->status;
}

#define FILL                                                                                               \
    "for i = 1, tonumber(ARGV[1]) do redis.call('HSET', 'products:p' .. i, 'id', 'p' .. i, 'title', 't', " \
    "'passenger_capacity', '1', 'maximum_speed', '2', 'in_stock', i) end"

static void test_list(void **state)
{
    struct client client;
    struct listing listing;
    json_t *seen = json_object();

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    assert_int_equal(list(&client, &listing, SIZE_UNLIMITED, UINT64_MAX), PRODUCT_STORE_OK);
    assert_int_equal(json_array_size(listing.products), 0);
    json_decref(listing.products);

    redis_server_do(&server, "EVAL %s 0 3000", FILL);
    redis_server_do(&server, "SET other:p1 x");
    redis_server_do(&server, "HSET airship:applied:1 products:p1 -1");
    redis_server_do(&server, "SET products:text x");
    redis_server_do(&server, "HSET products:half in_stock -1");
    assert_int_equal(list(&client, &listing, SIZE_UNLIMITED, UINT64_MAX), PRODUCT_STORE_OK);
    assert_int_equal(json_array_size(listing.products), 3000);
    assert_int_equal(listing.damaged, 2);
    for (size_t i = 0; i < 3000; i++) {
        const json_t *product = json_array_get(listing.products, i);

        assert_int_equal(json_object_size(product), 5);
        json_object_set(seen, json_string_value(json_object_get(product, "id")), json_object_get(product, "in_stock"));
    }
    assert_int_equal(json_object_size(seen), 3000);
    assert_int_equal(json_integer_value(json_object_get(seen, "p1234")), 1234);
    json_decref(seen);
    json_decref(listing.products);
    client_end(&client);
}

static void test_list_limits(void **state)
{
    struct client client;
    struct listing listing, listings[PRODUCT_LISTS_MAX];

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    redis_server_do(&server, "EVAL %s 0 1000", FILL);
    assert_int_equal(list(&client, &listing, 50000, UINT64_MAX), PRODUCT_STORE_TOO_LARGE);
    assert_int_equal(list(&client, &listing, 100, UINT64_MAX), PRODUCT_STORE_TOO_LARGE);
    assert_int_equal(list(&client, &listing, SIZE_UNLIMITED, 0), PRODUCT_STORE_LATE);
    for (int i = 0; i < PRODUCT_LISTS_MAX; i++) {
        const struct product_list_limits limits = {.size_max = SIZE_UNLIMITED, .deadline_ms = UINT64_MAX};

        listings[i] = (struct listing){.status = PENDING};
        assert_int_equal(product_store_list(client.store, &limits, listing_on_done, &listings[i]), PRODUCT_STORE_OK);
    }
    assert_int_equal(list(&client, &listing, SIZE_UNLIMITED, UINT64_MAX), PRODUCT_STORE_BUSY);
    for (int i = 0; i < PRODUCT_LISTS_MAX; i++) {
        assert_true(turns_until(turns, listing_is_there, &listings[i]));
        assert_int_equal(json_array_size(listings[i].products), 1000);
        json_decref(listings[i].products);
    }
    redis_server_do(&server, "EVAL %s 0 %d", FILL, PRODUCT_LIST_MAX);
    assert_int_equal(list(&client, &listing, SIZE_UNLIMITED, UINT64_MAX), PRODUCT_STORE_OK);
    assert_int_equal(json_array_size(listing.products), PRODUCT_LIST_MAX);
    json_decref(listing.products);
    make(&client, "one more", 1);
    assert_int_equal(list(&client, &listing, SIZE_UNLIMITED, UINT64_MAX), PRODUCT_STORE_TOO_MANY);
    client_end(&client);
}

/* One product takes all the room: whoever asks is told which. */
static void test_a_list_names_what_is_too_large(void **state)
{
    struct client client;
    struct listing listing;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    make(&client, "small", 1);
    make(&client, "large", 1);
    redis_server_do(&server, "EVAL %s 0",
                    "return redis.call('HSET', 'products:large', 'title', string.rep('t', 90000))");
    assert_int_equal(list(&client, &listing, 50000, UINT64_MAX), PRODUCT_STORE_TOO_LARGE);
    assert_string_equal(listing.largest_id, "large");
    assert_in_range(listing.largest_size, 90000, 90200);
    client_end(&client);
}

static void test_list_while_redis_dies(void **state)
{
    const struct product_list_limits limits = {.size_max = SIZE_UNLIMITED, .deadline_ms = UINT64_MAX};
    struct listing listing = {.status = PENDING};
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    redis_server_do(&server, "EVAL %s 0 5000", FILL);
    assert_int_equal(product_store_list(client.store, &limits, listing_on_done, &listing), PRODUCT_STORE_OK);
    for (int i = 0; i < 4; i++)
        turns_once(turns);
    redis_server_signal(&server, SIGKILL);
    assert_true(turns_until(turns, listing_is_there, &listing));
    assert_int_equal(listing.status, PRODUCT_STORE_UNAVAILABLE);
    redis_server_start(&server);
    client_wait_up(&client);
    assert_int_equal(list(&client, &listing, SIZE_UNLIMITED, UINT64_MAX), PRODUCT_STORE_OK);
    assert_int_equal(json_array_size(listing.products), 5000);
    json_decref(listing.products);
    client_end(&client);
}

/* ---- Orders ------------------------------------------------------------------------------------------------------- */

struct applied {
    struct product_application application; /* first */
    struct order_event event;               /* owned */
    int status;
};

static bool applied_is_there(void *arg)
{
    return ((struct applied *)arg)->status != PENDING;
}

static void applied_on_done(struct product_application *application, enum product_store_status status)
{
    struct applied *applied = (struct applied *)application;

    assert_int_equal(applied->status, PENDING);
    applied->status = (int)status;
}

static void order_begin(struct applied *applied, int64_t order_id)
{
    *applied = (struct applied){.status = PENDING, .event.order_id = order_id};
}

static void order_line(struct applied *applied, const char *id, int64_t quantity)
{
    struct order_event *event = &applied->event;

    event->changes = realloc(event->changes, (event->count + 1) * sizeof(*event->changes));
    event->changes[event->count++] = (struct order_change){rpc_bytes_of(strdup(id)), quantity};
}

static void order_clear(struct applied *applied)
{
    for (size_t i = 0; i < applied->event.count; i++)
        free((char *)applied->event.changes[i].product_id.data);
    order_event_clear(&applied->event);
}

static int order_send(struct client *client, struct applied *applied)
{
    applied->status = PENDING;
    return (int)product_store_apply(client->store, &applied->application, &applied->event, applied_on_done);
}

static int order_apply(struct client *client, struct applied *applied)
{
    int sent = order_send(client, applied);

    if (sent != PRODUCT_STORE_OK)
        return sent;
    assert_true(turns_until(turns, applied_is_there, applied));
    return applied->status;
}

static void counts_are(const struct applied *applied, size_t done, size_t seen, size_t missing, size_t refused)
{
    assert_int_equal(applied->application.applied, done);
    assert_int_equal(applied->application.seen, seen);
    assert_int_equal(applied->application.missing, missing);
    assert_int_equal(applied->application.refused, refused);
}

static void test_an_order_counts_once(void **state)
{
    struct client client;
    struct applied order, other;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    make(&client, "a", 10);
    make(&client, "b", 10);
    order_begin(&order, 7);
    order_line(&order, "a", 3);
    order_line(&order, "b", 2147483647);
    order_begin(&other, 8);
    order_line(&other, "a", 1);

    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_OK);
    counts_are(&order, 2, 0, 0, 0);
    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_OK);
    counts_are(&order, 0, 2, 0, 0);
    assert_int_equal(order_apply(&client, &other), PRODUCT_STORE_OK);
    counts_are(&other, 1, 0, 0, 0);
    assert_int_equal(stock("a"), 6);
    assert_int_equal(stock("b"), 10 - INT64_C(2147483647));
    assert_int_equal(redis_server_integer(&server, "HLEN airship:applied:7"), 2);
    assert_in_range(redis_server_integer(&server, "TTL airship:applied:7"), PRODUCT_APPLIED_TTL_S - 60,
                    PRODUCT_APPLIED_TTL_S);
    order_clear(&order);
    order_clear(&other);
    client_end(&client);
}

static void test_a_deleted_product(void **state)
{
    struct client client;
    struct applied order, later;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    order_begin(&order, 7);
    order_line(&order, "a", 3);
    order_begin(&later, 8);
    order_line(&later, "a", 1);

    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_OK); /* there is none */
    counts_are(&order, 0, 0, 1, 0);
    assert_int_equal(redis_server_integer(&server, "EXISTS products:a"), 0);
    make(&client, "a", 10); /* made after the order: its second delivery is none of this product's business */
    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_OK);
    counts_are(&order, 0, 1, 0, 0);
    assert_int_equal(stock("a"), 10);

    assert_int_equal(order_apply(&client, &later), PRODUCT_STORE_OK);
    assert_int_equal(stock("a"), 9);
    assert_int_equal(delete (&client, RPC_BYTES("a")), PRODUCT_STORE_OK);
    make(&client, "a", 20); /* made again: what was applied stays applied */
    assert_int_equal(order_apply(&client, &later), PRODUCT_STORE_OK);
    counts_are(&later, 0, 1, 0, 0);
    assert_int_equal(stock("a"), 20);
    order_clear(&order);
    order_clear(&later);
    client_end(&client);
}

static void test_stock_that_cannot_be_lowered(void **state)
{
    struct client client;
    struct applied order;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    make(&client, "good", 1);
    make(&client, "edge", INT64_MIN);
    redis_server_do(&server, "HSET products:word id word in_stock many");
    redis_server_do(&server, "HSET products:half id half");
    redis_server_do(&server, "SET products:text x");
    order_begin(&order, 7);
    order_line(&order, "word", 1);
    order_line(&order, "edge", 1);
    order_line(&order, "half", 1);
    order_line(&order, "text", 1);
    order_line(&order, "good", 1);
    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_OK);
    counts_are(&order, 1, 0, 1, 3);
    assert_int_equal(stock("good"), 0);
    assert_int_equal(stock("edge"), INT64_MIN);
    assert_int_equal(redis_server_integer(&server, "HEXISTS products:half in_stock"), 0);
    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_OK);
    counts_are(&order, 0, 2, 0, 3); /* what was refused is not remembered: it is owed */
    redis_server_do(&server, "HSET products:word in_stock 5");
    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_OK);
    counts_are(&order, 1, 2, 0, 2);
    assert_int_equal(stock("word"), 4);
    assert_int_equal(stock("good"), 0);
    order_clear(&order);
    client_end(&client);
}

static void test_many_products(void **state)
{
    enum { COUNT = 2 * PRODUCT_APPLY_CHANGES_MAX + 100 };
    struct client client;
    struct applied order;
    char id[32];

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    redis_server_do(&server, "EVAL %s 0 %d", FILL, COUNT);
    order_begin(&order, INT64_MAX);
    for (int i = 1; i <= COUNT; i++) {
        snprintf(id, sizeof(id), "p%d", i);
        order_line(&order, id, i);
    }
    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_OK);
    counts_are(&order, COUNT, 0, 0, 0);
    for (int i = 1; i <= COUNT; i++) {
        snprintf(id, sizeof(id), "p%d", i);
        assert_int_equal(stock(id), 0);
    }
    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_OK);
    counts_are(&order, 0, COUNT, 0, 0);
    order_clear(&order);
    client_end(&client);
}

static void test_the_server_forgets_the_script(void **state)
{
    struct client client;
    struct applied orders[20];

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    make(&client, "a", 100);
    for (int i = 0; i < 20; i++) {
        order_begin(&orders[i], i + 1);
        order_line(&orders[i], "a", 2);
        if (i == 0 || i == 10)
            redis_server_do(&server, "SCRIPT FLUSH");
        if (i < 10)
            assert_int_equal(order_apply(&client, &orders[i]), PRODUCT_STORE_OK);
        else
            assert_int_equal(order_send(&client, &orders[i]), PRODUCT_STORE_OK); /* all refused at once */
    }
    for (int i = 10; i < 20; i++) {
        assert_true(turns_until(turns, applied_is_there, &orders[i]));
        assert_int_equal(orders[i].status, PRODUCT_STORE_OK);
    }
    assert_int_equal(stock("a"), 60);
    for (int i = 0; i < 20; i++)
        order_clear(&orders[i]);
    client_end(&client);
}

static void test_two_instances_and_one_event(void **state)
{
    struct client clients[2];
    struct applied orders[2][50];

    (void)state;
    client_begin(&clients[0], TIMEOUT_MS);
    make(&clients[0], "a", 50);
    client_begin(&clients[1], TIMEOUT_MS);
    make(&clients[1], "a", 50);
    for (int i = 0; i < 100; i++) {
        struct applied *order = &orders[i % 2][i / 2];

        order_begin(order, i / 2 + 1);
        order_line(order, "a", 1);
        assert_int_equal(order_send(&clients[i % 2], order), PRODUCT_STORE_OK);
    }
    for (int i = 0; i < 100; i++) {
        struct applied *order = &orders[i % 2][i / 2];

        assert_true(turns_until(turns, applied_is_there, order));
        assert_int_equal(order->status, PRODUCT_STORE_OK);
    }
    for (int i = 0; i < 50; i++) {
        assert_int_equal(orders[0][i].application.applied + orders[1][i].application.applied, 1);
        order_clear(&orders[0][i]);
        order_clear(&orders[1][i]);
    }
    assert_int_equal(stock("a"), 0);
    client_end(&clients[0]);
    client_end(&clients[1]);
}

/* An order is applied whatever happens, and once: killed, asked again, killed again. */
static void test_orders_while_redis_dies(void **state)
{
    enum { COUNT = 200 };
    struct applied *orders = calloc(COUNT, sizeof(*orders));
    struct client client;
    size_t open = COUNT;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    make(&client, "a", COUNT);
    for (int i = 0; i < COUNT; i++) {
        order_begin(&orders[i], i + 1);
        order_line(&orders[i], "a", 1);
    }
    for (int round = 0; open > 0; round++) {
        assert_true(round < 50);
        client_wait_up(&client);
        for (int i = 0; i < COUNT; i++)
            if (orders[i].status != PRODUCT_STORE_OK && order_send(&client, &orders[i]) != PRODUCT_STORE_OK)
                orders[i].status = PRODUCT_STORE_UNAVAILABLE;
        if (round < 3) {
            for (int i = 0; i <= round; i++)
                turns_once(turns);
            redis_server_signal(&server, SIGKILL);
            redis_server_start(&server);
        }
        open = 0;
        for (int i = 0; i < COUNT; i++) {
            assert_true(turns_until(turns, applied_is_there, &orders[i]));
            open += orders[i].status != PRODUCT_STORE_OK;
        }
    }
    assert_int_equal(stock("a"), 0);
    for (int i = 0; i < COUNT; i++)
        order_clear(&orders[i]);
    free(orders);
    client_end(&client);
}

/* ---- When Redis refuses ------------------------------------------------------------------------------------------- */

static void test_out_of_memory(void **state)
{
    struct client client;
    struct applied order;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    make(&client, "a", 10);
    order_begin(&order, 7);
    order_line(&order, "a", 1);
    redis_server_do(&server, "CONFIG SET maxmemory 1");
    assert_int_equal(create(&client, RPC_BYTES("b"), 1), PRODUCT_STORE_UNAVAILABLE);
    assert_non_null(strstr(product_store_reason(client.store), "OOM"));
    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_UNAVAILABLE);
    assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_OK);
    assert_int_equal(delete (&client, RPC_BYTES("x")), PRODUCT_STORE_OK);
    assert_int_equal(delete_once(&client, "full", "y"), PRODUCT_STORE_OK); /* a full one can be emptied */
    assert_true(product_store_is_up(client.store));
    redis_server_do(&server, "CONFIG SET maxmemory 0");
    make(&client, "y", 3);
    assert_int_equal(delete_once(&client, "full", "y"), PRODUCT_STORE_OK);
    assert_int_equal(stock("y"), 3);
    assert_int_equal(stock("a"), 10);
    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_OK);
    counts_are(&order, 1, 0, 0, 0);
    assert_int_equal(stock("a"), 9);
    order_clear(&order);
    client_end(&client);
}

static void test_a_replica(void **state)
{
    struct client client;
    struct applied order;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    make(&client, "a", 10);
    order_begin(&order, 7);
    order_line(&order, "a", 1);
    redis_server_do(&server, "REPLICAOF 127.0.0.1 1");
    assert_int_equal(create(&client, RPC_BYTES("b"), 1), PRODUCT_STORE_UNAVAILABLE);
    assert_int_equal(client.downs, 1); /* it looks for the server that took over */
    client_wait_up(&client);
    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_UNAVAILABLE);
    client_wait_up(&client);
    assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_OK);
    redis_server_do(&server, "REPLICAOF NO ONE");
    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_OK);
    assert_int_equal(stock("a"), 9);
    order_clear(&order);
    client_end(&client);
}

/* A user who may do one write of the script and not the other must not have half of it done. */
static void test_permissions(void **state)
{
    struct client admin, client;
    struct applied order;
    char uri[96];

    (void)state;
    client_begin(&admin, TIMEOUT_MS);
    make(&admin, "a", 10);
    redis_server_do(&server, "ACL SETUSER shop reset on >sesame ~products:* ~airship:applied:* +@all -hincrby");
    snprintf(uri, sizeof(uri), "redis://shop:sesame@localhost:%d", server.port);
    client_open(&client, uri, TIMEOUT_MS);
    client_wait_up(&client);
    order_begin(&order, 7);
    order_line(&order, "a", 1);
    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_FAILED);
    assert_int_equal(redis_server_integer(&server, "EXISTS airship:applied:7"), 0);
    assert_int_equal(stock("a"), 10);
    redis_server_do(&server, "ACL SETUSER shop +hincrby");
    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_OK);
    assert_int_equal(stock("a"), 9);
    redis_server_do(&server, "ACL SETUSER shop -hmget");
    assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_FAILED);
    client_end(&client);

    /* All that the service ever sends. */
    redis_server_do(
        &server,
        "ACL SETUSER shop reset on >sesame ~products:* ~airship:applied:* ~airship:created:* "
        "~airship:deleted:* +hmget +exists +scan +hset +set +del +eval +evalsha +hsetnx +expire +hexists +hincrby +hdel +client|setname");
    client_open(&client, uri, TIMEOUT_MS);
    client_wait_up(&client);
    assert_int_equal(create_once(&client, "r", "b", 1), PRODUCT_STORE_OK);
    assert_int_equal(get_status(&client, "b"), PRODUCT_STORE_OK);
    assert_int_equal(exists(&client, RPC_BYTES("b")), PRODUCT_STORE_OK);
    order_clear(&order);
    order_begin(&order, 8);
    order_line(&order, "b", 1);
    assert_int_equal(order_apply(&client, &order), PRODUCT_STORE_OK);
    assert_int_equal(stock("b"), 0);
    assert_int_equal(delete_once(&client, "r", "b"), PRODUCT_STORE_OK);
    assert_int_equal(delete (&client, RPC_BYTES("b")), PRODUCT_STORE_OK);
    client_end(&client);
    redis_server_do(&server, "ACL DELUSER shop");
    order_clear(&order);
    client_end(&admin);
}

static bool reason_is_login(void *arg)
{
    return strstr(product_store_reason(((struct client *)arg)->store), "refuses the login") != NULL;
}

static bool reason_is_database(void *arg)
{
    return strstr(product_store_reason(((struct client *)arg)->store), "refuses the database") != NULL;
}

static void test_login(void **state)
{
    struct client client;
    char uri[96];

    (void)state;
    redis_server_do(&server, "FLUSHALL");
    snprintf(uri, sizeof(uri), "redis://:sesame@127.0.0.1:%d", server.port);
    client_open(&client, uri, TIMEOUT_MS); /* the server wants none */
    assert_true(turns_until(turns, reason_is_login, &client));
    assert_null(strstr(product_store_reason(client.store), "sesame"));
    redis_server_do(&server, "CONFIG SET requirepass right");
    assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_UNAVAILABLE);
    redis_server_do(&server, "CONFIG SET requirepass sesame"); /* now it is the right one: no restart needed */
    client_wait_up(&client);
    assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_NOT_FOUND);
    redis_server_do(&server, "CONFIG SET requirepass %s", "");
    client_end(&client);
}

static void test_databases(void **state)
{
    struct client client;
    char uri[96];

    (void)state;
    redis_server_do(&server, "FLUSHALL");
    snprintf(uri, sizeof(uri), "redis://127.0.0.1:%d/7", server.port);
    client_open(&client, uri, TIMEOUT_MS);
    client_wait_up(&client);
    make(&client, "a", 1);
    assert_int_equal(redis_server_integer(&server, "DBSIZE"), 0);
    redis_server_do(&server, "SELECT 7");
    assert_int_equal(redis_server_integer(&server, "DBSIZE"), 1);
    redis_server_do(&server, "SELECT 0");
    client_end(&client);

    snprintf(uri, sizeof(uri), "redis://127.0.0.1:%d/16", server.port);
    client_open(&client, uri, TIMEOUT_MS);
    assert_true(turns_until(turns, reason_is_database, &client));
    client_end(&client);
}

static void test_the_connection_has_a_name(void **state)
{
    struct client client;
    redisReply *reply;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    get_status(&client, "a"); /* behind the name */
    reply = redis_server_ask(&server, "CLIENT LIST");
    assert_non_null(strstr(reply->str, "name=products "));
    freeReplyObject(reply);
    client_end(&client);
}

/* ---- When Redis is away ------------------------------------------------------------------------------------------- */

static bool reason_is_refused(void *arg)
{
    return strstr(product_store_reason(((struct client *)arg)->store), "refused") != NULL;
}

static void test_redis_comes_later(void **state)
{
    struct redis_server late;
    struct client client;
    char uri[64];

    (void)state;
    redis_server_init(&late);
    snprintf(uri, sizeof(uri), "redis://localhost:%d", late.port);
    client_open(&client, uri, TIMEOUT_MS);
    assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_UNAVAILABLE);
    assert_true(turns_until(turns, reason_is_refused, &client));
    assert_int_equal(client.ups + client.downs, 0);
    redis_server_start(&late);
    client_wait_up(&client);
    assert_int_equal(client.ups, 1);
    assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_NOT_FOUND);
    client_end(&client);
    redis_server_clear(&late);
}

static void test_an_unknown_host(void **state)
{
    struct client client;

    (void)state;
    client_open(&client, "redis://no-such-host.invalid", TIMEOUT_MS);
    assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_UNAVAILABLE);
    for (int i = 0; i < 20; i++)
        turns_once(turns);
    client_end(&client); /* also while the name is being looked up */
}

static void test_kill_and_restart(void **state)
{
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    make(&client, "a", 1);
    for (int round = 1; round <= 3; round++) {
        redis_server_signal(&server, SIGKILL);
        assert_true(turns_until(turns, client_is_down, &client));
        assert_int_equal(client.downs, round);
        assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_UNAVAILABLE);
        assert_int_equal(create(&client, RPC_BYTES("b"), 1), PRODUCT_STORE_UNAVAILABLE);
        redis_server_start(&server);
        client_wait_up(&client);
        assert_int_equal(client.ups, round + 1);
        assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_OK);
    }
    client_end(&client);
}

static void test_the_server_drops_the_connection(void **state)
{
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    make(&client, "a", 1);
    redis_server_do(&server, "CLIENT KILL TYPE normal SKIPME yes");
    assert_true(turns_until(turns, client_is_down, &client));
    client_wait_up(&client);
    assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_OK);
    client_end(&client);
}

/* What was sent and not answered: reads were not done, writes may have been. */
static void test_lost_on_the_way(void **state)
{
    const struct product product = {.id = RPC_BYTES("b"), .title = RPC_BYTES("t")};
    struct answer read = {.status = PENDING}, write = {.status = PENDING};
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    redis_server_signal(&server, SIGSTOP);
    assert_int_equal(product_store_get(client.store, &read.request, RPC_BYTES("a"), answer_on_done), PRODUCT_STORE_OK);
    assert_int_equal(product_store_create(client.store, &write.request, &product, answer_on_done), PRODUCT_STORE_OK);
    turns_once(turns); /* they leave */
    redis_server_signal(&server, SIGKILL);
    assert_true(turns_until(turns, answer_is_there, &write));
    assert_int_equal(read.status, PRODUCT_STORE_UNAVAILABLE);
    assert_int_equal(write.status, PRODUCT_STORE_UNKNOWN);
    redis_server_start(&server);
    client_wait_up(&client);
    client_end(&client);
}

static void test_not_sent_yet(void **state)
{
    const struct product product = {.id = RPC_BYTES("b"), .title = RPC_BYTES("t")};
    struct answer read = {.status = PENDING}, write = {.status = PENDING};
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    assert_int_equal(product_store_get(client.store, &read.request, RPC_BYTES("a"), answer_on_done), PRODUCT_STORE_OK);
    assert_int_equal(product_store_create(client.store, &write.request, &product, answer_on_done), PRODUCT_STORE_OK);
    client_end(&client);
    assert_int_equal(read.status, PRODUCT_STORE_UNAVAILABLE);
    assert_int_equal(write.status, PRODUCT_STORE_UNAVAILABLE); /* nothing was done: not a byte had left */
    assert_int_equal(redis_server_integer(&server, "DBSIZE"), 0);
}

static void test_a_redis_that_sleeps(void **state)
{
    const struct product product = {.id = RPC_BYTES("b"), .title = RPC_BYTES("t")};
    struct answer read = {.status = PENDING}, write = {.status = PENDING};
    uint64_t began_ms = rpc_loop_now_ms(turns_loop(turns));
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_SHORT_MS);
    make(&client, "a", 1);
    redis_server_signal(&server, SIGSTOP);
    assert_int_equal(product_store_get(client.store, &read.request, RPC_BYTES("a"), answer_on_done), PRODUCT_STORE_OK);
    assert_int_equal(product_store_create(client.store, &write.request, &product, answer_on_done), PRODUCT_STORE_OK);
    assert_true(turns_until(turns, answer_is_there, &write));
    assert_int_equal(read.status, PRODUCT_STORE_UNAVAILABLE);
    assert_int_equal(write.status, PRODUCT_STORE_UNKNOWN);
    assert_true(rpc_loop_now_ms(turns_loop(turns)) - began_ms >= TIMEOUT_SHORT_MS);
    assert_non_null(strstr(product_store_reason(client.store), "no answer within 300 ms"));
    assert_int_equal(client.downs, 1);
    redis_server_signal(&server, SIGCONT);
    client_wait_up(&client);
    assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_OK);
    client_end(&client);
}

/* Steady work must not run into the time limit of commands that were answered long ago. */
static void test_time_limit_is_each_command_s_own(void **state)
{
    uint64_t began_ms = rpc_loop_now_ms(turns_loop(turns));
    struct client client;
    int count = 0;

    (void)state;
    client_begin(&client, TIMEOUT_SHORT_MS);
    while (rpc_loop_now_ms(turns_loop(turns)) - began_ms < 4 * TIMEOUT_SHORT_MS) {
        assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_NOT_FOUND);
        count++;
    }
    assert_true(count > 10);
    assert_int_equal(client.downs, 0);
    client_end(&client);
}

static void test_commands_are_bounded(void **state)
{
    struct answer *answers = calloc(REDIS_COMMANDS_MAX + 1, sizeof(*answers));
    struct client client;

    (void)state;
    client_begin(&client, TIMEOUT_MS);
    for (int i = 0; i < REDIS_COMMANDS_MAX; i++) {
        answers[i].status = PENDING;
        assert_int_equal(product_store_get(client.store, &answers[i].request, RPC_BYTES("a"), answer_on_done),
                         PRODUCT_STORE_OK);
    }
    assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_BUSY);
    assert_true(turns_until(turns, answer_is_there, &answers[REDIS_COMMANDS_MAX - 1]));
    assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_NOT_FOUND);
    client_end(&client);
    free(answers);
}

static void test_bytes_are_bounded(void **state)
{
    enum { SIZE = 8 * 1024 * 1024, COUNT = REDIS_OUTPUT_SIZE_MAX / SIZE };
    char *title = malloc(SIZE);
    const struct product product = {.id = RPC_BYTES("large"), .title = {title, SIZE}};
    struct answer answers[COUNT];
    struct client client;
    int sent = 0;

    (void)state;
    memset(title, 't', SIZE);
    client_begin(&client, TIMEOUT_MS);
    for (int i = 0; i < COUNT; i++) {
        answers[i] = (struct answer){.status = PENDING};
        if (product_store_create(client.store, &answers[i].request, &product, answer_on_done) == PRODUCT_STORE_OK)
            sent++;
    }
    assert_int_equal(sent, COUNT - 1);
    assert_int_equal(get_status(&client, "a"), PRODUCT_STORE_NOT_FOUND); /* there is room for little ones */
    assert_int_equal(answers[COUNT - 2].status, PRODUCT_STORE_OK);
    client_end(&client);
    free(title);
}

/* ---- The group ---------------------------------------------------------------------------------------------------- */

static int group_begin(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    turns = turns_new();
    redis_server_init(&server);
    redis_server_start(&server);
    return 0;
}

static int group_end(void **state)
{
    (void)state;
    redis_server_clear(&server);
    turns_free(turns);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_product_s_life),
        cmocka_unit_test(test_as_the_original_stores),
        cmocka_unit_test(test_create_replaces),
        cmocka_unit_test(test_what_is_no_product),
        cmocka_unit_test(test_each_gets_its_own_answer),
        cmocka_unit_test(test_a_turn_s_commands_leave_in_one_write),
        cmocka_unit_test(test_an_answer_takes_one_read),
        cmocka_unit_test(test_created_once),
        cmocka_unit_test(test_deleted_once),
        cmocka_unit_test(test_created_is_remembered),
        cmocka_unit_test(test_large_values),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_list_limits),
        cmocka_unit_test(test_a_list_names_what_is_too_large),
        cmocka_unit_test(test_list_while_redis_dies),
        cmocka_unit_test(test_an_order_counts_once),
        cmocka_unit_test(test_a_deleted_product),
        cmocka_unit_test(test_stock_that_cannot_be_lowered),
        cmocka_unit_test(test_many_products),
        cmocka_unit_test(test_the_server_forgets_the_script),
        cmocka_unit_test(test_two_instances_and_one_event),
        cmocka_unit_test(test_orders_while_redis_dies),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_a_replica),
        cmocka_unit_test(test_permissions),
        cmocka_unit_test(test_login),
        cmocka_unit_test(test_databases),
        cmocka_unit_test(test_the_connection_has_a_name),
        cmocka_unit_test(test_redis_comes_later),
        cmocka_unit_test(test_an_unknown_host),
        cmocka_unit_test(test_kill_and_restart),
        cmocka_unit_test(test_the_server_drops_the_connection),
        cmocka_unit_test(test_lost_on_the_way),
        cmocka_unit_test(test_not_sent_yet),
        cmocka_unit_test(test_a_redis_that_sleeps),
        cmocka_unit_test(test_time_limit_is_each_command_s_own),
        cmocka_unit_test(test_commands_are_bounded),
        cmocka_unit_test(test_bytes_are_bounded),
    };

    return cmocka_run_group_tests(tests, group_begin, group_end);
}

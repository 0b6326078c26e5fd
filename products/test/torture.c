/*
 * The n-th allocation, read or write fails, for each n: the rules of products, and the store before a server that keeps
 * count of what it carried out.  No crash, no leak (the address sanitizer looks), an honest status, and afterwards all of
 * it works again.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_loop.h"
#include "order_event.h"
#include "product.h"
#include "product_list.h"
#include "redis_uri.h"
#include "rpclib/log.h"
#include "store_apply.h"
#include "store_list.h"
#include "store_product.h"
#include "torture.h"

#define STEP_MS         5 /* of the loop's clock, for each MOMENT_MS in which nothing happens */
#define MOMENT_MS       1
#define RUN_MS          20000 /* of the loop's clock: for anything at all */
#define TIMEOUT_MS      2000
#define DESCRIPTORS_MAX 64
#define PENDING         (-1)

static bool counted;

/* ---- What is pure ------------------------------------------------------------------------------------------------ */

static const char good[] = "{\"id\": \"the \\\"odyssey\\\"\", \"title\": \"T\", \"passenger_capacity\": 101, "
                           "\"maximum_speed\": 5, \"in_stock\": -3}";
static const char bad[] = "{\"id\": 7, \"title\": null, \"maximum_speed\": 1.5, \"in_stock\": true}";
static const char event[] = "{\"order\": {\"id\": 7, \"order_details\": [{\"product_id\": \"b\", \"quantity\": 2}, "
                            "{\"product_id\": \"a\", \"quantity\": 1}, {\"product_id\": \"b\", \"quantity\": 3}]}}";

static const struct rpc_bytes stored[PRODUCT_FIELDS] = {RPC_BYTES("a\"\x1f"), RPC_BYTES("T"), RPC_BYTES("1"),
                                                        RPC_BYTES("2"), RPC_BYTES("-3")};

static void reads_a_product(void)
{
    json_t *sound = json_loads(good, 0, NULL), *unsound = json_loads(bad, 0, NULL), *messages = NULL;
    struct product product = {.in_stock = 4711}, untouched = product;
    bool taken;

    counted = true;
    taken = product_from_json(&product, unsound, &messages);
    counted = false;
    if (taken || memcmp(&product, &untouched, sizeof(product)) != 0)
        torture_violated("a bad product was taken");
    if (messages == NULL && !torture_fell())
        torture_violated("no complaint");
    if (messages != NULL && json_object_size(messages) != PRODUCT_FIELDS)
        torture_violated("%zu of 5 complaints", json_object_size(messages));
    json_decref(messages);
    counted = true;
    taken = product_from_json(&product, sound, &messages);
    counted = false;
    if (!taken)
        torture_violated("a good product needs no memory");
    json_decref(sound);
    json_decref(unsound);
}

static void prints_products(void)
{
    struct rpc_bytes printed = {.data = NULL};
    struct product_list list;
    struct rpc_text text = {.data = NULL};
    size_t offset, added = 0;
    char key[32];

    counted = true;
    if (product_print(&text, stored) != PRODUCT_PRINT_OK && text.size != 0)
        torture_violated("a part of a product is left");
    (void)rpc_text_append_json_string(&text, RPC_BYTES("\x01\x02\x03"));
    rpc_text_reset(&text, 0);
    product_list_init(&list, 1000, 1 << 20);
    for (int i = 0; i < 300; i++) {
        struct rpc_bytes bytes = {.data = key, .size = (size_t)snprintf(key, sizeof(key), "products:%d", i % 200)};
        enum product_list_result seen = product_list_see(&list, bytes, &offset);

        if (seen == PRODUCT_LIST_NO_MEMORY)
            seen = product_list_see(&list, bytes, &offset); /* the next attempt finds memory, and nothing half done */
        if (seen != (i < 200 ? PRODUCT_LIST_OK : PRODUCT_LIST_SEEN))
            torture_violated("key %d: %d", i, (int)seen);
        if (seen == PRODUCT_LIST_OK)
            added += product_list_add(&list, stored) == PRODUCT_LIST_OK;
    }
    printed = product_list_finish(&list);
    counted = false;
    if (!torture_fell() && (printed.data == NULL || added != 200))
        torture_violated("a list of %zu", added);
    product_list_clear(&list);
    rpc_text_clear(&text);
}

static void reads_an_event(void)
{
    struct order_event read = {.order_id = 4711};
    json_t *data = json_loads(event, 0, NULL);
    const char *fault = "untouched";
    bool taken;

    counted = true;
    taken = order_event_read(&read, data, &fault);
    counted = false;
    if (!taken && (fault != NULL || read.order_id != 4711))
        torture_violated("no memory is the event's fault: %s", fault);
    if (taken && (read.count != 2 || read.changes[1].quantity != 5))
        torture_violated("read wrongly");
    if (taken)
        order_event_clear(&read);
    json_decref(data);
}

static void reads_a_uri(void)
{
    struct redis_uri uri = {.port = 4711};
    char reason[REDIS_URI_REASON_SIZE];
    bool taken;

    counted = true;
    taken = redis_uri_read(&uri, "redis://user:p%40ss@host:1234/3", reason);
    counted = false;
    if (!taken && uri.port != 4711)
        torture_violated("written to, though refused");
    if (taken && (strcmp(uri.password, "p@ss") != 0 || strcmp(uri.user, "user") != 0 || strcmp(uri.host, "host") != 0))
        torture_violated("taken without all of it");
    if (taken)
        redis_uri_clear(&uri);
    else if (!torture_fell())
        torture_violated("%s", reason);
}

/* ---- A server that answers in canned words ----------------------------------------------------------------------- */

enum kind { KIND_CREATE, KIND_GET, KIND_EXISTS, KIND_DELETE, KIND_APPLY, KIND_LIST, KINDS };

static const char *const kind_names[KINDS] = {"create", "get", "exists", "delete", "apply", "list"};

static struct {
    int listener, port, client; /* client -1: none */
    redisReader *reader;
    unsigned carried_out[KINDS];
} server;

static void server_start(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);

    server.client = -1;
    server.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(server.listener, (struct sockaddr *)&address, size) != 0 || listen(server.listener, 16) != 0 ||
        getsockname(server.listener, (struct sockaddr *)&address, &size) != 0) {
        perror("no server");
        exit(1);
    }
    server.port = ntohs(address.sin_port);
}

static void server_hang_up(void)
{
    if (server.client < 0)
        return;
    redisReaderFree(server.reader);
    close(server.client);
    server.client = -1;
}

/* What Redis would say; a product is there from the first, and a script is never known. */
static const char *answer_to(const redisReply *command)
{
    static const struct {
        const char *word, *answer;
        enum kind kind; /* KINDS: nobody counts it */
    } answers[] = {
        {"HSET", ":5\r\n", KIND_CREATE},
        {"HMGET", "*5\r\n$1\r\na\r\n$1\r\nT\r\n$1\r\n1\r\n$1\r\n2\r\n$2\r\n-3\r\n", KIND_GET},
        {"EXISTS", ":1\r\n", KIND_EXISTS},
        {"DEL", ":1\r\n", KIND_DELETE},
        {"EVALSHA", "-NOSCRIPT No matching script. Please use EVAL.\r\n", KINDS},
        {"EVAL", "*2\r\n:1\r\n:1\r\n", KIND_APPLY},
        {"SCAN", "*2\r\n$1\r\n0\r\n*2\r\n$10\r\nproducts:a\r\n$10\r\nproducts:b\r\n", KIND_LIST},
    };

    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        if (strcmp(command->element[0]->str, answers[i].word) != 0)
            continue;
        if (answers[i].kind < KINDS)
            server.carried_out[answers[i].kind]++;
        return answers[i].answer;
    }
    return "+OK\r\n";
}

static void server_turn(void)
{
    redisReply *command;
    char bytes[16384];
    ssize_t size;
    int fd = accept4(server.listener, NULL, NULL, SOCK_NONBLOCK), on = 1;

    if (fd >= 0) {
        server_hang_up();
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        server.client = fd;
        server.reader = redisReaderCreate();
    }
    while (server.client >= 0 && (size = recv(server.client, bytes, sizeof(bytes), 0)) != -1) {
        if (size == 0) {
            server_hang_up();
            return;
        }
        redisReaderFeed(server.reader, bytes, (size_t)size);
        while (redisReaderGetReply(server.reader, (void **)&command) == REDIS_OK && command != NULL) {
            const char *answer = answer_to(command);

            (void)send(server.client, answer, strlen(answer), MSG_NOSIGNAL);
            freeReplyObject(command);
        }
    }
}

/* ---- The store before it ----------------------------------------------------------------------------------------- */

struct operation {
    union {
        struct product_request request;
        struct product_application application;
    };
    enum kind kind;
    int status; /* PENDING until it is there */
};

static struct {
    struct fake_loop *loop;
    struct product_store *store;
    struct operation operations[KINDS];
    struct order_event order;
} world;

static uint64_t now_ms(void)
{
    return rpc_loop_now_ms(fake_loop_base(world.loop));
}

/* What has been sent may be on its way still. */
static void wait_a_moment(void)
{
    struct pollfd descriptors[DESCRIPTORS_MAX + 2] = {{.fd = server.listener, .events = POLLIN},
                                                      {.fd = server.client, .events = POLLIN}};

    for (int fd = 0; fd < DESCRIPTORS_MAX; fd++)
        descriptors[fd + 2] =
            (struct pollfd){.fd = fake_loop_watched(world.loop, fd) & RPC_LOOP_READ ? fd : -1, .events = POLLIN};
    (void)poll(descriptors, DESCRIPTORS_MAX + 2, MOMENT_MS);
}

/* Fires what is ready; the clock moves when nothing is. */
static void world_step(void)
{
    bool fired = false;

    server_turn();
    for (int fd = 0; fd < DESCRIPTORS_MAX; fd++) {
        unsigned watched = fake_loop_watched(world.loop, fd), ready = 0;
        struct pollfd descriptor = {
            .fd = fd,
            .events = (short)((watched & RPC_LOOP_READ ? POLLIN : 0) | (watched & RPC_LOOP_WRITE ? POLLOUT : 0))};

        if (watched == 0 || poll(&descriptor, 1, 0) <= 0)
            continue;
        if (descriptor.revents & (POLLIN | POLLHUP | POLLERR))
            ready |= RPC_LOOP_READ;
        if (descriptor.revents & (POLLOUT | POLLHUP | POLLERR))
            ready |= RPC_LOOP_WRITE;
        counted = true;
        fired |= fake_loop_fire(world.loop, fd, ready & watched) > 0;
        counted = false;
    }
    if (!fired)
        wait_a_moment();
    counted = true;
    if (fired)
        fake_loop_turn(world.loop);
    else
        fake_loop_advance(world.loop, STEP_MS);
    counted = false;
}

static bool world_run(bool (*enough)(void))
{
    uint64_t end_ms = now_ms() + RUN_MS;

    while (!enough() && now_ms() < end_ms)
        world_step();
    return enough();
}

static bool is_up(void)
{
    return product_store_is_up(world.store);
}

static bool all_ended(void)
{
    for (enum kind kind = 0; kind < KINDS; kind++)
        if (world.operations[kind].status == PENDING)
            return false;
    return true;
}

static void operation_end(struct operation *operation, enum product_store_status status)
{
    if (operation->status != PENDING)
        torture_violated("%s ended twice", kind_names[operation->kind]);
    operation->status = (int)status;
}

static void on_request(struct product_request *request, enum product_store_status status,
                       const struct rpc_bytes fields[PRODUCT_FIELDS])
{
    struct operation *operation = (struct operation *)request;

    if (status == PRODUCT_STORE_OK && operation->kind == KIND_GET && !rpc_bytes_equal(fields[PRODUCT_IN_STOCK], "-3"))
        torture_violated("another product was got");
    operation_end(operation, status);
}

static void on_application(struct product_application *application, enum product_store_status status)
{
    if (status == PRODUCT_STORE_OK && application->applied != 2)
        torture_violated("%zu of 2 changes are applied", application->applied);
    operation_end((struct operation *)application, status);
}

static void on_list(enum product_store_status status, const struct product_listing *listing, void *arg)
{
    struct rpc_bytes products = listing->products;

    if (status == PRODUCT_STORE_OK &&
        (listing->damaged != 0 || products.size < 100 || products.data[products.size - 1] != ']'))
        torture_violated("a list of %zu bytes", products.size);
    operation_end(arg, status);
}

static enum product_store_status operation_start(struct operation *operation)
{
    const struct product product = {.id = RPC_BYTES("a"), .title = RPC_BYTES("T"), .in_stock = -3};
    const struct product_list_limits limits = {.size_max = 1 << 20, .deadline_ms = now_ms() + TIMEOUT_MS};

    switch (operation->kind) {
    case KIND_CREATE:
        return product_store_create(world.store, &operation->request, &product, on_request);
    case KIND_GET:
        return product_store_get(world.store, &operation->request, product.id, on_request);
    case KIND_EXISTS:
        return product_store_exists(world.store, &operation->request, product.id, on_request);
    case KIND_DELETE:
        return product_store_delete(world.store, &operation->request, product.id, on_request);
    case KIND_APPLY:
        return product_store_apply(world.store, &operation->application, &world.order, on_application);
    case KIND_LIST:
        return product_store_list(world.store, &limits, on_list, operation);
    case KINDS:
        break;
    }
    return PRODUCT_STORE_FAILED;
}

/* One of each at once; what came of each must fit what the server did. */
static void round_of_operations(bool must_succeed)
{
    unsigned carried_out[KINDS];

    memcpy(carried_out, server.carried_out, sizeof(carried_out));
    for (enum kind kind = 0; kind < KINDS; kind++) {
        struct operation *operation = &world.operations[kind];
        enum product_store_status status;

        *operation = (struct operation){.kind = kind, .status = PENDING};
        counted = true;
        status = operation_start(operation);
        counted = false;
        if (status != PRODUCT_STORE_OK)
            operation->status = (int)status;
        else if (operation->status != PENDING)
            torture_violated("%s ended from inside its call", kind_names[kind]);
    }
    if (!world_run(all_ended))
        torture_violated("an operation never ends");
    for (enum kind kind = 0; kind < KINDS; kind++) {
        enum product_store_status status = (enum product_store_status)world.operations[kind].status;
        unsigned did = server.carried_out[kind] - carried_out[kind];
        bool changes = kind == KIND_CREATE || kind == KIND_DELETE || kind == KIND_APPLY;

        if (status != PRODUCT_STORE_OK && (must_succeed || !torture_fell()))
            torture_violated("%s ends with %s", kind_names[kind], product_store_status_name(status));
        if (changes && status == PRODUCT_STORE_OK && did != 1)
            torture_violated("%s is ok, and was done %u times", kind_names[kind], did);
        if (changes && status != PRODUCT_STORE_OK && status != PRODUCT_STORE_UNKNOWN && did != 0)
            torture_violated("%s ends with %s, and was done", kind_names[kind], product_store_status_name(status));
        if (!changes && status == PRODUCT_STORE_UNKNOWN)
            torture_violated("%s is of unknown outcome", kind_names[kind]);
    }
}

static void store(void)
{
    char host[] = "127.0.0.1", user[] = "u", password[] = "p";
    const struct redis_uri uri = {
        .host = host, .user = user, .password = password, .port = (uint16_t)server.port, .database = 3};

    world.loop = fake_loop_new();
    counted = true;
    world.store = product_store_new(
        &(struct product_store_options){.loop = fake_loop_base(world.loop), .uri = &uri, .timeout_ms = TIMEOUT_MS});
    counted = false;
    if (world.store != NULL) {
        if (!world_run(is_up))
            torture_violated("it does not come up");
        round_of_operations(false);
        if (!world_run(is_up)) /* one failure is over by now */
            torture_violated("it does not come back");
        if (torture_fell())
            round_of_operations(true);
    } else if (!torture_fell()) {
        torture_violated("cannot start, though nothing failed");
    }
    counted = true;
    product_store_free(world.store);
    counted = false;
    if (fake_loop_handles(world.loop) > 0)
        torture_violated("handles of the loop are left");
    else
        fake_loop_free(world.loop);
    world.store = NULL;
    server_hang_up();
}

int main(void)
{
    static const char *const jansson[] = {"libjansson", NULL}, *const hiredis[] = {"libhiredis", NULL};
    json_t *data = json_loads("{\"order\": {\"id\": 7, \"order_details\": [{\"product_id\": \"a\", \"quantity\": 1}, "
                              "{\"product_id\": \"b\", \"quantity\": 2}]}}",
                              0, NULL);
    const char *fault;

    signal(SIGPIPE, SIG_IGN);
    rpc_log_configure("torture", RPC_LOG_ERROR, RPC_LOG_LOGFMT);
    if (!order_event_read(&world.order, data, &fault))
        return 1;
    json_decref(data);
    server_start();
    /* Not hiredis' own memory: 0.14 aborts when that runs out. */
    torture_begin(&(struct torture_options){.when = &counted, .libraries = jansson});
    torture("a product is read", TORTURE_NO_MEMORY, reads_a_product);
    torture("products are printed", TORTURE_NO_MEMORY, prints_products);
    torture("an event is read", TORTURE_NO_MEMORY, reads_an_event);
    torture("a URI is read", TORTURE_NO_MEMORY, reads_a_uri);
    torture("store", TORTURE_NO_MEMORY, store);
    torture_begin(&(struct torture_options){.when = &counted, .libraries = hiredis});
    torture("store", TORTURE_RESET, store);
    torture("store", TORTURE_AGAIN, store);
    torture("store", TORTURE_SHORT, store);
    order_event_clear(&world.order);
    close(server.listener);
    return torture_end();
}

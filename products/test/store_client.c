#include "store_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct redis_server server;
struct turns *turns;

static void client_on_state(bool up, void *arg)
{
    struct client *client = arg;

    client->ups += up;
    client->downs += !up;
    assert_int_equal(product_store_is_up(client->store), up);
}

void client_open(struct client *client, const char *uri_text, int timeout_ms)
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

bool client_is_up(void *arg)
{
    return product_store_is_up(((struct client *)arg)->store);
}

bool client_is_down(void *arg)
{
    return !client_is_up(arg);
}

void client_wait_up(struct client *client)
{
    assert_true(turns_until(turns, client_is_up, client));
}

void client_begin(struct client *client, int timeout_ms)
{
    char uri[64];

    redis_server_do(&server, "FLUSHALL");
    snprintf(uri, sizeof(uri), "redis://127.0.0.1:%d/0", server.port);
    client_open(client, uri, timeout_ms);
    client_wait_up(client);
}

void client_end(struct client *client)
{
    product_store_free(client->store);
}

bool answer_is_there(void *arg)
{
    return ((struct answer *)arg)->status != PENDING;
}

void answer_on_done(struct product_request *request, enum product_store_status status,
                    const struct rpc_bytes fields[PRODUCT_FIELDS])
{
    struct answer *answer = (struct answer *)request;
    struct rpc_text text = {.data = NULL};

    assert_int_equal(answer->status, PENDING); /* once */
    answer->status = (int)status;
    if (fields == NULL)
        return;
    if (product_print(&text, fields) != PRODUCT_PRINT_OK)
        snprintf(answer->text, sizeof(answer->text), "damaged");
    else
        snprintf(answer->text, sizeof(answer->text), "%.*s", (int)text.size, text.data);
    rpc_text_clear(&text);
}

int answer_wait(struct answer *answer, enum product_store_status sent)
{
    if (sent != PRODUCT_STORE_OK)
        return (int)sent;
    assert_int_equal(answer->status, PENDING); /* never from inside the call */
    assert_true(turns_until(turns, answer_is_there, answer));
    return answer->status;
}

int client_get(struct client *client, struct rpc_bytes id, struct answer *answer)
{
    *answer = (struct answer){.status = PENDING};
    return answer_wait(answer, product_store_get(client->store, &answer->request, id, answer_on_done));
}

int client_get_status(struct client *client, const char *id)
{
    struct answer answer;

    return client_get(client, rpc_bytes_of(id), &answer);
}

int client_exists(struct client *client, struct rpc_bytes id)
{
    struct answer answer = {.status = PENDING};

    return answer_wait(&answer, product_store_exists(client->store, &answer.request, id, answer_on_done));
}

int client_delete(struct client *client, struct rpc_bytes id)
{
    struct answer answer = {.status = PENDING};

    return answer_wait(&answer, product_store_delete(client->store, &answer.request, id, answer_on_done));
}

int client_create(struct client *client, struct rpc_bytes id, int64_t in_stock)
{
    const struct product product = {.id = id, .title = RPC_BYTES("t"), .maximum_speed = 5, .in_stock = in_stock};
    struct answer answer = {.status = PENDING};

    return answer_wait(&answer, product_store_create(client->store, &answer.request, &product, answer_on_done));
}

int client_create_once(struct client *client, const char *request_id, const char *id, int64_t in_stock)
{
    const struct product product = {
        .id = rpc_bytes_of(id), .title = RPC_BYTES("t"), .maximum_speed = 5, .in_stock = in_stock};
    const struct product_request_name name = {.request_id = rpc_bytes_of(request_id), .remember_s = 100};
    struct answer answer = {.status = PENDING};

    return answer_wait(&answer,
                       product_store_create_once(client->store, &answer.request, &product, &name, answer_on_done));
}

int client_delete_once(struct client *client, const char *request_id, const char *id)
{
    const struct product_request_name name = {.request_id = rpc_bytes_of(request_id), .remember_s = 100};
    struct answer answer = {.status = PENDING};

    return answer_wait(
        &answer, product_store_delete_once(client->store, &answer.request, rpc_bytes_of(id), &name, answer_on_done));
}

void client_make(struct client *client, const char *id, int64_t in_stock)
{
    assert_int_equal(client_create(client, rpc_bytes_of(id), in_stock), PRODUCT_STORE_OK);
}

int64_t server_stock(const char *id)
{
    return redis_server_integer(&server, "HGET products:%s in_stock", id);
}

bool applied_is_there(void *arg)
{
    return ((struct applied *)arg)->status != PENDING;
}

static void applied_on_done(struct product_application *application, enum product_store_status status)
{
    struct applied *applied = (struct applied *)application;

    assert_int_equal(applied->status, PENDING);
    applied->status = (int)status;
}

void applied_begin(struct applied *applied, int64_t order_id)
{
    *applied = (struct applied){.status = PENDING, .event.order_id = order_id};
}

void applied_line(struct applied *applied, const char *id, int64_t quantity)
{
    struct order_event *event = &applied->event;

    event->changes = realloc(event->changes, (event->count + 1) * sizeof(*event->changes));
    event->changes[event->count++] = (struct order_change){rpc_bytes_of(strdup(id)), quantity};
}

void applied_clear(struct applied *applied)
{
    for (size_t i = 0; i < applied->event.count; i++)
        free((char *)applied->event.changes[i].product_id.data);
    order_event_clear(&applied->event);
}

int applied_send(struct client *client, struct applied *applied)
{
    applied->status = PENDING;
    return (int)product_store_apply(client->store, &applied->application, &applied->event, applied_on_done);
}

int applied_apply(struct client *client, struct applied *applied)
{
    int sent = applied_send(client, applied);

    if (sent != PRODUCT_STORE_OK)
        return sent;
    assert_true(turns_until(turns, applied_is_there, applied));
    return applied->status;
}

void applied_counts_are(const struct applied *applied, size_t done, size_t seen, size_t missing, size_t refused)
{
    assert_int_equal(applied->application.applied, done);
    assert_int_equal(applied->application.seen, seen);
    assert_int_equal(applied->application.missing, missing);
    assert_int_equal(applied->application.refused, refused);
}

#include "service_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "rpclib/log.h"
#include "session.h"

struct rpc_service *service;
struct rpc_incoming *held[HELD_MAX];
struct rpc_event *held_events[HELD_MAX];
unsigned held_count, held_events_count, ready, stopped, standbys;
char story[STORY_SIZE];

/* ---- Methods: as the golden products service has them, and a few more -------------------------------------------- */

static void on_exists(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    (void)arg;
    (void)arguments;
    rpc_incoming_answer_json(request, json_true());
}

static void on_list(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    (void)arg;
    (void)arguments;
    rpc_incoming_answer(request, RPC_BYTES("[]"));
}

static void on_delete(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    (void)arg;
    (void)arguments;
    rpc_incoming_answer_json(request, NULL);
}

static void on_get(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    char value[100];

    (void)arg;
    snprintf(value, sizeof(value), "Product ID %s does not exist", json_string_value(arguments[0]));
    rpc_incoming_fail(request, "NotFound", value);
}

static void on_create(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    json_t *messages =
        json_pack("{s:[s], s:[s]}", "title", "Missing data for required field.", "in_stock", "Not a valid integer.");

    (void)arg;
    (void)arguments;
    rpc_incoming_fail_validation(request, messages);
    json_decref(messages);
}

/* Answers later. */
static void on_hold(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    (void)arg;
    (void)arguments;
    story_tell(story, "hold %s%s", rpc_incoming_correlation_id(request),
               rpc_incoming_redelivered(request) ? " again" : "");
    assert_true(held_count < HELD_MAX);
    held[held_count++] = request;
}

static void on_echo(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    json_t *both = json_pack("[O, O*]", arguments[0], arguments[1]);

    (void)arg;
    rpc_incoming_answer_json(request, both);
    json_decref(both);
}

static void on_fail(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    const char *how = json_string_value(arguments[0]);
    static char large[RPC_MESSAGE_SIZE_MAX + 10];

    (void)arg;
    if (strcmp(how, "unexpected") == 0) {
        rpc_incoming_fail_unexpected(request, "secret cause");
    } else if (strcmp(how, "large result") == 0) {
        memset(large, '1', sizeof(large));
        rpc_incoming_answer(request, (struct rpc_bytes){large, sizeof(large)});
    } else if (strcmp(how, "large error") == 0) {
        memset(large, 'e', sizeof(large) - 1);
        large[sizeof(large) - 1] = '\0';
        rpc_incoming_fail(request, "NotFound", large);
    } else if (strcmp(how, "no utf-8") == 0) {
        rpc_incoming_fail(request, "NotFound", "caf\xe9");
    } else if (strcmp(how, "own args") == 0) {
        rpc_incoming_answer_error(request, &(struct rpc_error){.exc_type = RPC_BYTES("Odd"),
                                                               .exc_path = RPC_BYTES("a.Odd"),
                                                               .value = RPC_BYTES("v"),
                                                               .exc_args = RPC_BYTES("[1, {\"a\": null}]")});
    } else {
        rpc_incoming_answer_error(request, &(struct rpc_error){.exc_type = RPC_BYTES("Odd"),
                                                               .exc_path = RPC_BYTES("a.Odd"),
                                                               .value = RPC_BYTES("v"),
                                                               .exc_args = RPC_BYTES("no JSON")});
    }
}

static void on_free(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    (void)arg;
    (void)arguments;
    rpc_service_free(service);
    service = NULL;
    rpc_incoming_answer_json(request, json_true());
}

#define PARAMETERS(...)   \
    (const char *const[]) \
    {                     \
        __VA_ARGS__, NULL \
    }

const struct rpc_method methods[METHODS_COUNT] = {
    {"exists", PARAMETERS("product_id"), 1, on_exists},
    {"list", NULL, 0, on_list},
    {"delete", PARAMETERS("product_id"), 1, on_delete},
    {"get", PARAMETERS("product_id"), 1, on_get},
    {"create", PARAMETERS("product"), 1, on_create},
    {"hold", NULL, 0, on_hold},
    {"echo", PARAMETERS("a", "b"), 1, on_echo},
    {"fail", PARAMETERS("how"), 1, on_fail},
    {"free", NULL, 0, on_free},
};

void on_event(struct rpc_event *event, json_t *data, void *arg)
{
    char *text = json_dumps(data, JSON_ENCODE_ANY);

    (void)arg;
    story_tell(story, "event %s%s", text, rpc_event_redelivered(event) ? " again" : "");
    free(text);
    held_events[held_events_count++] = event;
}

const struct rpc_event_handler handlers[HANDLERS_COUNT] = {
    {.source = "orders", .event_type = "order_created", .name = "on_order", .handler = on_event},
    {.source = "orders",
     .event_type = "order_created",
     .name = "on_requeue",
     .requeue_on_error = true,
     .handler = on_event},
};

/* ---- The service ------------------------------------------------------------------------------------------------- */

void on_ready(void *arg)
{
    (void)arg;
    ready++;
}

void on_standby(void *arg)
{
    (void)arg;
    standbys++;
}

void on_stopped(void *arg)
{
    (void)arg;
    stopped++;
}

void start(size_t handlers_count)
{
    service = rpc_service_new(peer.connection, &(struct rpc_service_options){.name = "products",
                                                                             .methods = methods,
                                                                             .methods_count = METHODS_COUNT,
                                                                             .event_handlers = handlers,
                                                                             .event_handlers_count = handlers_count,
                                                                             .on_ready = on_ready,
                                                                             .on_standby = on_standby});
    assert_non_null(service);
    assert_false(rpc_service_ready(service));
    peer_run();
    assert_true(rpc_service_ready(service));
    assert_int_equal(ready, 1);
}

int setup(void **state)
{
    (void)state;
    rpc_log_configure("test", RPC_LOG_ERROR + 1, RPC_LOG_LOGFMT);
    story[0] = '\0';
    held_count = held_events_count = ready = stopped = standbys = 0;
    service = NULL;
    peer_init();
    return 0;
}

int teardown(void **state)
{
    (void)state;
    rpc_service_free(service);
    service = NULL;
    peer_clear();
    return 0;
}

void event(unsigned channel, const char *body)
{
    peer_deliver((uint16_t)channel, 1, false, "order_created", &(amqp_basic_properties_t){0}, rpc_bytes_of(body));
    peer_run();
}

void silence_is_given_up(void)
{
    unsigned handshakes = peer.handshakes;

    assert_true(peer.holds_answers);
    peer_block(true);
    peer_advance(SESSION_SETUP_MAX_MS);
    assert_false(rpc_service_ready(service));
    assert_int_equal(peer.handshakes, handshakes);
    peer_block(false);
    peer_advance(SESSION_SETUP_MAX_MS - 1);
    assert_false(rpc_service_ready(service));
    assert_int_equal(peer.handshakes, handshakes);
    peer.holds_answers = false;
    peer_advance(1 + RPC_RECONNECT_MAX_MS);
    assert_int_equal(peer.handshakes, handshakes + 1);
    assert_true(rpc_service_ready(service));
    peer_advance(SESSION_SETUP_MAX_MS);
    assert_true(rpc_service_ready(service));
    assert_int_equal(peer.handshakes, handshakes + 1);
}

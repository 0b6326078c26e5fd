/* products_service: what becomes of an order that Redis does not take at once.  Redis and the broker are the test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fake_chance.h"
#include "fake_loop.h"
#include "rpclib/service.h"
#include "service.h"
#include "store_apply.h"

#define RETRY_MAX_MS 5000

static struct {
    struct fake_loop *loop;
    struct products_service *service;
    struct product_store_options store;
    struct rpc_service_options rpc;
    enum product_store_status says; /* what the store says to an order; PRODUCT_STORE_OK: it is begun */
    struct product_application *begun;
    product_application_fn *on_applied;
    unsigned attempts, done, handed_back;
} world;

/* ---- Redis, the broker and chance -------------------------------------------------------------------------------- */

struct product_store *__wrap_product_store_new(const struct product_store_options *options);
void __wrap_product_store_free(struct product_store *store);
bool __wrap_product_store_is_up(const struct product_store *store);
enum product_store_status __wrap_product_store_apply(struct product_store *store,
                                                     struct product_application *application,
                                                     const struct order_event *event, product_application_fn *done);
struct rpc_service *__wrap_rpc_service_new(struct rpc_connection *connection,
                                           const struct rpc_service_options *options);
void __wrap_rpc_service_free(struct rpc_service *service);
void __wrap_rpc_service_set_able(struct rpc_service *service, bool able);
void __wrap_rpc_event_done(struct rpc_event *event);
void __wrap_rpc_event_hand_back(struct rpc_event *event);
bool __wrap_rpc_event_standby(const struct rpc_event *event);

struct product_store *__wrap_product_store_new(const struct product_store_options *options)
{
    world.store = *options;
    return (struct product_store *)(void *)&world;
}

void __wrap_product_store_free(struct product_store *store)
{
    (void)store;
}

bool __wrap_product_store_is_up(const struct product_store *store)
{
    (void)store;
    return false; /* so nothing is logged */
}

enum product_store_status __wrap_product_store_apply(struct product_store *store,
                                                     struct product_application *application,
                                                     const struct order_event *event, product_application_fn *done)
{
    (void)store;
    assert_int_equal(event->order_id, 7);
    assert_null(world.begun);
    world.attempts++;
    if (world.says == PRODUCT_STORE_OK) {
        world.begun = application;
        world.on_applied = done;
    }
    return world.says;
}

struct rpc_service *__wrap_rpc_service_new(struct rpc_connection *connection, const struct rpc_service_options *options)
{
    (void)connection;
    world.rpc = *options;
    return (struct rpc_service *)(void *)&world;
}

void __wrap_rpc_service_free(struct rpc_service *service)
{
    (void)service;
}

void __wrap_rpc_service_set_able(struct rpc_service *service, bool able)
{
    (void)service;
    (void)able;
}

void __wrap_rpc_event_done(struct rpc_event *event)
{
    (void)event;
    world.done++;
}

void __wrap_rpc_event_hand_back(struct rpc_event *event)
{
    (void)event;
    world.handed_back++;
}

bool __wrap_rpc_event_standby(const struct rpc_event *event)
{
    (void)event;
    return false;
}

/* ---- What happens ------------------------------------------------------------------------------------------------ */

static void order_comes(void)
{
    json_t *data =
        json_pack("{s:{s:i, s:[{s:s, s:i}]}}", "order", "id", 7, "order_details", "product_id", "a", "quantity", 1);

    assert_non_null(data);
    world.rpc.event_handlers[0].handler((struct rpc_event *)(void *)&world, data, world.rpc.arg);
    json_decref(data);
}

/* The next attempt is made then, not earlier; `chance` decides about the pause after it. */
static void is_tried_after(uint64_t pause_ms, uint64_t chance)
{
    unsigned attempts = world.attempts;

    assert_int_equal(fake_loop_next_ms(world.loop), pause_ms);
    fake_chance = chance;
    fake_loop_advance(world.loop, pause_ms);
    assert_int_equal(world.attempts, attempts + 1);
}

static void order_is_applied(void)
{
    struct product_application *begun = world.begun;

    assert_non_null(begun);
    world.begun = NULL;
    begun->applied = 1;
    world.on_applied(begun, PRODUCT_STORE_OK);
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

static int setup(void **state)
{
    (void)state;
    memset(&world, 0, sizeof(world));
    fake_chance = 0;
    world.says = PRODUCT_STORE_UNAVAILABLE;
    world.loop = fake_loop_new();
    world.service = products_service_new(&(struct products_service_options){.loop = fake_loop_base(world.loop)});
    assert_non_null(world.service);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    products_service_free(world.service);
    fake_loop_free(world.loop);
    return 0;
}

/* More and more rarely, and not in step with other instances. */
static void test_pauses_grow_and_vary(void **state)
{
    (void)state;
    order_comes();
    assert_int_equal(world.attempts, 1);
    is_tried_after(100, 100);
    is_tried_after(200 - 100, 0);
    is_tried_after(400, 1);
    is_tried_after(800 - 1, 0);
    is_tried_after(1600, 0);
    is_tried_after(3200, RETRY_MAX_MS / 2);
    is_tried_after(RETRY_MAX_MS / 2, 0);
    is_tried_after(RETRY_MAX_MS, 0);
    is_tried_after(RETRY_MAX_MS, 0);
    products_service_free(world.service);
    world.service = NULL;
    assert_int_equal(world.handed_back, 1);
    assert_int_equal(world.done, 0);
}

static void test_one_that_is_applied_at_last(void **state)
{
    (void)state;
    order_comes();
    is_tried_after(100, 0);
    is_tried_after(200, 0);
    world.says = PRODUCT_STORE_OK;
    is_tried_after(400, 0);
    order_is_applied();
    assert_int_equal(world.done, 1);
    assert_int_equal(fake_loop_next_ms(world.loop), UINT64_MAX);
    world.says = PRODUCT_STORE_UNAVAILABLE;
    order_comes();
    is_tried_after(100, 0); /* from the beginning */
}

/* Whoever knows that Redis is there does not wait. */
static void test_redis_comes(void **state)
{
    (void)state;
    order_comes();
    is_tried_after(100, 0);
    is_tried_after(200, 0);
    is_tried_after(400, 0);
    world.store.on_state(true, world.store.arg);
    is_tried_after(0, 0);
    is_tried_after(100, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_pauses_grow_and_vary),
        TEST(test_one_that_is_applied_at_last),
        TEST(test_redis_comes),
    };

    return cmocka_run_group_tests_name("service", tests, NULL, NULL);
}

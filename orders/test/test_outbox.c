/* outbox: what it does while no queue is bound to the events.  Database and broker are the test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fake_chance.h"
#include "fake_loop.h"
#include "outbox.h"
#include "rpclib/publisher.h"

struct statement {
    struct order_store_unit *unit;
    order_store_fn *done; /* NULL: none is under way */
};

static struct {
    struct fake_loop *loop;
    struct outbox *outbox;
    struct rpc_publisher_options publisher;
    struct statement look, released, deleted;
    int32_t limit; /* of the last look */
    rpc_confirm_fn *confirm;
    void *confirm_arg;
    bool is_claiming;
} world;

/* ---- Database, broker and chance --------------------------------------------------------------------------------- */

void __wrap_order_store_claim_new_events(struct order_store *store, bool claim);
enum order_store_status __wrap_order_store_claim_events(struct order_store *store, struct order_store_unit *unit,
                                                        int32_t limit, uint64_t deadline_ms, order_store_fn *done);
enum order_store_status __wrap_order_store_release_events(struct order_store *store, struct order_store_unit *unit,
                                                          const int64_t *ids, size_t count, uint64_t deadline_ms,
                                                          order_store_fn *done);
enum order_store_status __wrap_order_store_delete_events(struct order_store *store, struct order_store_unit *unit,
                                                         const int64_t *ids, size_t count, uint64_t deadline_ms,
                                                         order_store_fn *done);
struct rpc_publisher *__wrap_rpc_publisher_new(struct rpc_connection *connection,
                                               const struct rpc_publisher_options *options);
void __wrap_rpc_publisher_free(struct rpc_publisher *publisher);
bool __wrap_rpc_publisher_ready(const struct rpc_publisher *publisher);
enum rpc_status __wrap_rpc_publish(struct rpc_publisher *publisher, const char *event_type, struct rpc_bytes data,
                                   const struct rpc_context *context, rpc_confirm_fn *done, void *arg);

void __wrap_order_store_claim_new_events(struct order_store *store, bool claim)
{
    (void)store;
    world.is_claiming = claim;
}

enum order_store_status __wrap_order_store_claim_events(struct order_store *store, struct order_store_unit *unit,
                                                        int32_t limit, uint64_t deadline_ms, order_store_fn *done)
{
    (void)store;
    (void)deadline_ms;
    assert_null(world.look.done);
    world.look = (struct statement){unit, done};
    world.limit = limit;
    return ORDER_STORE_OK;
}

enum order_store_status __wrap_order_store_release_events(struct order_store *store, struct order_store_unit *unit,
                                                          const int64_t *ids, size_t count, uint64_t deadline_ms,
                                                          order_store_fn *done)
{
    (void)store;
    (void)ids;
    (void)deadline_ms;
    assert_int_equal(count, 1);
    world.released = (struct statement){unit, done};
    return ORDER_STORE_OK;
}

enum order_store_status __wrap_order_store_delete_events(struct order_store *store, struct order_store_unit *unit,
                                                         const int64_t *ids, size_t count, uint64_t deadline_ms,
                                                         order_store_fn *done)
{
    (void)store;
    (void)ids;
    (void)deadline_ms;
    assert_int_equal(count, 1);
    world.deleted = (struct statement){unit, done};
    return ORDER_STORE_OK;
}

struct rpc_publisher *__wrap_rpc_publisher_new(struct rpc_connection *connection,
                                               const struct rpc_publisher_options *options)
{
    (void)connection;
    world.publisher = *options;
    return (struct rpc_publisher *)(void *)&world;
}

void __wrap_rpc_publisher_free(struct rpc_publisher *publisher)
{
    (void)publisher;
}

bool __wrap_rpc_publisher_ready(const struct rpc_publisher *publisher)
{
    (void)publisher;
    return true;
}

enum rpc_status __wrap_rpc_publish(struct rpc_publisher *publisher, const char *event_type, struct rpc_bytes data,
                                   const struct rpc_context *context, rpc_confirm_fn *done, void *arg)
{
    (void)publisher;
    (void)data;
    (void)context;
    assert_string_equal(event_type, "order_created");
    assert_null(world.confirm); /* one at a time */
    world.confirm = done;
    world.confirm_arg = arg;
    return RPC_OK;
}

/* ---- What happens ------------------------------------------------------------------------------------------------ */

static void statement_end(struct statement *statement)
{
    struct statement ended = *statement;

    if (ended.done == NULL)
        return;
    statement->done = NULL;
    ended.done(ended.unit, ORDER_STORE_OK);
}

static void look_finds_one(void)
{
    static const struct order_event event = {
        .id = 7, .type = RPC_BYTES("order_created"), .payload = RPC_BYTES("{\"order\": {}}")};

    world.look.unit->limit = world.limit;
    world.look.unit->events = &event;
    world.look.unit->events_count = 1;
    statement_end(&world.look);
}

static void broker_says(enum rpc_status status)
{
    rpc_confirm_fn *confirm = world.confirm;

    assert_non_null(confirm);
    world.confirm = NULL;
    confirm(status, world.confirm_arg);
}

static uint64_t until_it_looks(void)
{
    uint64_t start_ms = rpc_loop_now_ms(fake_loop_base(world.loop));

    while (world.look.done == NULL) {
        fake_loop_advance(world.loop, fake_loop_next_ms(world.loop));
        statement_end(&world.released);
        statement_end(&world.deleted);
    }
    return rpc_loop_now_ms(fake_loop_base(world.loop)) - start_ms;
}

/* No queue is bound to the event that the look finds.  Returns how long the outbox waits then. */
static uint64_t pause_ms(uint64_t chance)
{
    fake_chance = chance;
    look_finds_one();
    broker_says(RPC_UNKNOWN_SERVICE);
    assert_false(world.is_claiming);
    return until_it_looks();
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

static int setup(void **state)
{
    (void)state;
    memset(&world, 0, sizeof(world));
    fake_chance = 0;
    world.loop = fake_loop_new();
    world.outbox = outbox_new(&(struct outbox_options){.loop = fake_loop_base(world.loop), .store_timeout_ms = 1000});
    assert_non_null(world.outbox);
    world.publisher.on_ready(world.publisher.arg);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    outbox_free(world.outbox);
    fake_loop_free(world.loop);
    return 0;
}

/* One event at a time, more and more rarely, and not in step with other instances. */
static void test_pauses_while_no_queue_is_bound(void **state)
{
    (void)state;
    assert_true(world.is_claiming);
    assert_int_equal(world.limit, ORDER_STORE_EVENTS_MAX);
    assert_int_equal(pause_ms(0), 100);
    assert_int_equal(world.limit, 1);
    assert_int_equal(pause_ms(100), 200 - 100);
    assert_int_equal(pause_ms(0), 400);
    assert_int_equal(pause_ms(1), 800 - 1);
    assert_int_equal(pause_ms(0), 1600);
    assert_int_equal(pause_ms(1600), 3200 - 1600);
    assert_int_equal(pause_ms(0), OUTBOX_HOLD_MAX_MS);
    assert_int_equal(pause_ms(OUTBOX_HOLD_MAX_MS / 2), OUTBOX_HOLD_MAX_MS / 2);
    assert_int_equal(pause_ms(0), OUTBOX_HOLD_MAX_MS);
    assert_int_equal(world.limit, 1);
}

static void test_a_queue_is_bound_again(void **state)
{
    (void)state;
    assert_int_equal(pause_ms(0), 100);
    assert_int_equal(pause_ms(0), 200);
    look_finds_one();
    broker_says(RPC_OK);
    assert_true(world.is_claiming);
    assert_int_equal(until_it_looks(), 0); /* for the others */
    assert_int_equal(world.limit, ORDER_STORE_EVENTS_MAX);
    assert_int_equal(pause_ms(0), 100); /* from the beginning */
    assert_int_equal(pause_ms(0), 200);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_pauses_while_no_queue_is_bound),
        TEST(test_a_queue_is_bound_again),
    };

    return cmocka_run_group_tests_name("outbox", tests, NULL, NULL);
}

/* Events of one service: messages to its exchange, each confirmed. */
#include "rpclib/publisher.h"

#include <assert.h>
#include <stdlib.h>

#include "amqp/frame.h"
#include "confirms.h"
#include "context.h"
#include "wire.h"

#define UNCONFIRMED_MAX_DEFAULT    1000
#define CONFIRM_TIMEOUT_DEFAULT_MS 30000

struct rpc_publisher {
    struct confirms confirms;
    char exchange[WIRE_NAME_SIZE];
    bool mandatory;
    rpc_loop_fn *on_ready;
    void *arg;
};

enum rpc_status rpc_publish(struct rpc_publisher *publisher, const char *event_type, struct rpc_bytes data,
                            const struct rpc_context *context, rpc_confirm_fn *done, void *arg)
{
    amqp_basic_properties_t properties;

    assert(done != NULL); /* NULL marks what is confirmed */
    if (strlen(event_type) > RPC_NAME_SIZE_MAX)
        return RPC_TOO_LARGE;
    wire_properties(&properties, WIRE_PERSISTENT);
    wire_properties_add_headers(&properties, context_headers(context));
    return confirms_publish(&publisher->confirms,
                            &(struct mq_publish){.exchange = rpc_bytes_of(publisher->exchange),
                                                 .routing_key = rpc_bytes_of(event_type),
                                                 .mandatory = publisher->mandatory,
                                                 .body = data},
                            &properties, done, arg);
}

uint32_t rpc_publisher_unconfirmed(const struct rpc_publisher *publisher)
{
    return publisher->confirms.unconfirmed;
}

bool rpc_publisher_ready(const struct rpc_publisher *publisher)
{
    return session_status(&publisher->confirms.session) == RPC_OK;
}

static void publisher_declare(struct mq_channel *channel, void *arg)
{
    struct rpc_publisher *publisher = arg;

    mq_exchange_declare(channel, publisher->exchange);
}

static void publisher_on_up(void *arg)
{
    struct rpc_publisher *publisher = arg;

    if (publisher->on_ready != NULL)
        publisher->on_ready(publisher->arg);
}

struct rpc_publisher *rpc_publisher_new(struct rpc_connection *connection, const struct rpc_publisher_options *options)
{
    struct rpc_publisher *publisher = calloc(1, sizeof(*publisher));

    if (publisher == NULL)
        return NULL;
    publisher->mandatory = options->mandatory;
    publisher->on_ready = options->on_ready;
    publisher->arg = options->arg;
    if (!wire_event_exchange(publisher->exchange, options->source) ||
        !confirms_init(
            &publisher->confirms, connection,
            &(struct confirms_options){
                .what = "publisher",
                .unconfirmed_max = options->unconfirmed_max > 0 ? options->unconfirmed_max : UNCONFIRMED_MAX_DEFAULT,
                .timeout_ms = options->confirm_timeout_ms > 0 ? (uint64_t)options->confirm_timeout_ms
                                                              : CONFIRM_TIMEOUT_DEFAULT_MS,
                .declare = publisher_declare,
                .on_up = publisher_on_up,
                .arg = publisher,
            })) {
        rpc_publisher_free(publisher);
        return NULL;
    }
    return publisher;
}

void rpc_publisher_free(struct rpc_publisher *publisher)
{
    if (publisher == NULL)
        return;
    confirms_clear(&publisher->confirms);
    free(publisher);
}

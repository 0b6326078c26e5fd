/*
 * Events and their confirms.  The broker numbers what is published on a channel in confirm mode 1, 2, 3 ...; so do we, and
 * since numbers are never left out, the unconfirmed events are a ring that begins at the lowest of them.  Confirms may come
 * out of order and for many at once; a basic.return comes before the confirm of its event.
 */
#include "rpclib/publisher.h"

#include <stdlib.h>

#include "amqp/frame.h"
#include "connection.h"
#include "context.h"
#include "rpclib/log.h"
#include "session.h"
#include "uuid.h"
#include "wire.h"

#define UNCONFIRMED_MAX_DEFAULT    1000
#define CONFIRM_TIMEOUT_DEFAULT_MS 30000
#define DELIVERY_PERSISTENT        2

struct unconfirmed {
    rpc_confirm_fn *done; /* NULL: confirmed already, and waiting for those before it */
    void *arg;
    uint64_t deadline_ms;
    uint64_t position; /* of its first byte in the connection's output */
    bool returned;
    char message_id[37]; /* finds it again when it is returned */
};

struct rpc_publisher {
    struct session session;
    struct rpc_loop *loop;
    char exchange[WIRE_NAME_SIZE];
    bool mandatory;
    uint64_t confirm_timeout_ms;
    rpc_loop_fn *on_ready;
    void *arg;
    struct unconfirmed *ring;
    uint32_t ring_size;
    uint64_t first_tag; /* the lowest unconfirmed */
    uint64_t next_tag;  /* of the next publish */
    uint32_t unconfirmed;
    struct rpc_loop_timer *timer;
};

static struct unconfirmed *place_of(struct rpc_publisher *publisher, uint64_t tag)
{
    return &publisher->ring[tag % publisher->ring_size];
}

static void publisher_skip_confirmed(struct rpc_publisher *publisher)
{
    while (publisher->first_tag < publisher->next_tag && place_of(publisher, publisher->first_tag)->done == NULL)
        publisher->first_tag++;
}

/* One event ended. */
static void publisher_end(struct rpc_publisher *publisher, uint64_t tag, enum rpc_status status)
{
    struct unconfirmed *event = place_of(publisher, tag);
    rpc_confirm_fn *done = event->done;

    if (done == NULL)
        return;
    event->done = NULL;
    publisher->unconfirmed--;
    publisher_skip_confirmed(publisher);
    done(event->returned && status == RPC_OK ? RPC_UNKNOWN_SERVICE : status, event->arg);
}

static void publisher_on_confirm(uint64_t tag, bool multiple, bool ack, void *arg)
{
    struct rpc_publisher *publisher = arg;
    enum rpc_status status = ack ? RPC_OK : RPC_REFUSED;
    uint64_t last_tag = multiple && tag == 0 ? publisher->next_tag - 1 : tag; /* 0 with multiple: all so far */

    if (last_tag < publisher->first_tag || last_tag >= publisher->next_tag)
        return;
    for (uint64_t at = multiple ? publisher->first_tag : last_tag; at <= last_tag; at++)
        publisher_end(publisher, at, status);
}

static void publisher_on_return(const struct mq_message *message, uint16_t code, void *arg)
{
    struct rpc_publisher *publisher = arg;
    struct rpc_bytes id;

    (void)code;
    if (message->properties == NULL || !(message->properties->_flags & AMQP_BASIC_MESSAGE_ID_FLAG))
        return;
    id = frame_text(message->properties->message_id);
    for (uint64_t tag = publisher->first_tag; tag < publisher->next_tag; tag++) {
        struct unconfirmed *event = place_of(publisher, tag);

        if (event->done != NULL && rpc_bytes_equal(id, event->message_id)) {
            event->returned = true;
            return;
        }
    }
}

static void publisher_end_all(struct rpc_publisher *publisher,
                              enum rpc_status (*status)(const struct rpc_publisher *, const struct unconfirmed *))
{
    uint64_t last_tag = publisher->next_tag;

    for (uint64_t tag = publisher->first_tag; tag < last_tag; tag++)
        publisher_end(publisher, tag, status(publisher, place_of(publisher, tag)));
}

static enum rpc_status status_lost(const struct rpc_publisher *publisher, const struct unconfirmed *event)
{
    return event->position >= session_output_written(&publisher->session) ? RPC_OFFLINE : RPC_LOST;
}

static enum rpc_status status_cancelled(const struct rpc_publisher *publisher, const struct unconfirmed *event)
{
    (void)publisher;
    (void)event;
    return RPC_CANCELLED;
}

/* --- deadlines: every event waits equally long, so they come in the order of the tags --- */

static void publisher_arm(struct rpc_publisher *publisher, uint64_t now_ms)
{
    uint64_t deadline_ms;

    if (publisher->first_tag == publisher->next_tag)
        return;
    deadline_ms = place_of(publisher, publisher->first_tag)->deadline_ms;
    rpc_loop_timer_start(publisher->timer, deadline_ms > now_ms ? deadline_ms - now_ms : 0);
}

static void publisher_on_timer(void *arg)
{
    struct rpc_publisher *publisher = arg;
    uint64_t now_ms = rpc_loop_now_ms(publisher->loop);

    while (publisher->first_tag < publisher->next_tag &&
           place_of(publisher, publisher->first_tag)->deadline_ms <= now_ms)
        publisher_end(publisher, publisher->first_tag, RPC_TIMEOUT);
    publisher_arm(publisher, now_ms);
}

/* --- publishing --- */

static enum rpc_status publisher_send(struct rpc_publisher *publisher, const char *event_type, struct rpc_bytes data,
                                      const struct rpc_context *context, struct unconfirmed *event)
{
    amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
                  AMQP_BASIC_PRIORITY_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG,
        .content_type = amqp_cstring_bytes(WIRE_CONTENT_TYPE),
        .content_encoding = amqp_cstring_bytes(WIRE_ENCODING),
        .delivery_mode = DELIVERY_PERSISTENT,
        .message_id = amqp_cstring_bytes(event->message_id),
        .headers = context_headers(context),
    };

    if (properties.headers.num_entries > 0)
        properties._flags |= AMQP_BASIC_HEADERS_FLAG;
    return mq_publish(session_channel(&publisher->session),
                      &(struct mq_publish){.exchange = rpc_bytes_of(publisher->exchange),
                                           .routing_key = rpc_bytes_of(event_type),
                                           .mandatory = publisher->mandatory,
                                           .properties = &properties,
                                           .body = data});
}

enum rpc_status rpc_publish(struct rpc_publisher *publisher, const char *event_type, struct rpc_bytes data,
                            const struct rpc_context *context, rpc_confirm_fn *done, void *arg)
{
    enum rpc_status status = session_status(&publisher->session);
    uint64_t now_ms = rpc_loop_now_ms(publisher->loop);
    struct unconfirmed *event;

    if (status != RPC_OK)
        return status;
    if (publisher->next_tag - publisher->first_tag == publisher->ring_size)
        return RPC_BUSY;
    event = place_of(publisher, publisher->next_tag);
    *event = (struct unconfirmed){.done = done,
                                  .arg = arg,
                                  .deadline_ms = now_ms + publisher->confirm_timeout_ms,
                                  .position = session_output_appended(&publisher->session)};
    rpc_uuid4(event->message_id);
    status = publisher_send(publisher, event_type, data, context, event);
    if (status != RPC_OK) {
        event->done = NULL;
        return status;
    }
    publisher->next_tag++;
    publisher->unconfirmed++;
    if (publisher->unconfirmed == 1)
        publisher_arm(publisher, now_ms);
    return RPC_OK;
}

uint32_t rpc_publisher_unconfirmed(const struct rpc_publisher *publisher)
{
    return publisher->unconfirmed;
}

bool rpc_publisher_ready(const struct rpc_publisher *publisher)
{
    return session_status(&publisher->session) == RPC_OK;
}

/* --- the channel comes and goes --- */

static void publisher_setup(struct mq_channel *channel, void *arg)
{
    struct rpc_publisher *publisher = arg;

    publisher->first_tag = publisher->next_tag = 1;
    mq_exchange_declare(channel, publisher->exchange);
    mq_confirm_select(channel);
}

static void publisher_on_up(void *arg)
{
    struct rpc_publisher *publisher = arg;

    if (publisher->on_ready != NULL)
        publisher->on_ready(publisher->arg);
}

static void publisher_on_down(void *arg)
{
    struct rpc_publisher *publisher = arg;

    rpc_loop_timer_stop(publisher->timer);
    publisher_end_all(publisher, status_lost);
}

static void publisher_on_delivery(const struct mq_delivery *delivery, void *arg)
{
    (void)delivery; /* it consumes nothing */
    (void)arg;
}

static const struct session_events publisher_session_events = {
    .setup = publisher_setup,
    .on_up = publisher_on_up,
    .on_down = publisher_on_down,
    .on_delivery = publisher_on_delivery,
    .on_return = publisher_on_return,
    .on_confirm = publisher_on_confirm,
};

/* --- life --- */

struct rpc_publisher *rpc_publisher_new(struct rpc_connection *connection, const struct rpc_publisher_options *options)
{
    struct rpc_publisher *publisher = calloc(1, sizeof(*publisher));

    if (publisher == NULL)
        return NULL;
    publisher->loop = connection_loop(connection);
    publisher->mandatory = options->mandatory;
    publisher->confirm_timeout_ms =
        options->confirm_timeout_ms > 0 ? (uint64_t)options->confirm_timeout_ms : CONFIRM_TIMEOUT_DEFAULT_MS;
    publisher->on_ready = options->on_ready;
    publisher->arg = options->arg;
    publisher->ring_size = options->unconfirmed_max > 0 ? options->unconfirmed_max : UNCONFIRMED_MAX_DEFAULT;
    publisher->ring = calloc(publisher->ring_size, sizeof(*publisher->ring));
    publisher->first_tag = publisher->next_tag = 1;
    publisher->timer = rpc_loop_timer_new(publisher->loop, publisher_on_timer, publisher);
    if (publisher->ring == NULL || publisher->timer == NULL ||
        !wire_event_exchange(publisher->exchange, options->source) ||
        !session_init(&publisher->session, connection, "publisher", &publisher_session_events, publisher)) {
        rpc_publisher_free(publisher);
        return NULL;
    }
    return publisher;
}

void rpc_publisher_free(struct rpc_publisher *publisher)
{
    if (publisher == NULL)
        return;
    session_clear(&publisher->session);
    if (publisher->ring != NULL)
        publisher_end_all(publisher, status_cancelled);
    rpc_loop_timer_free(publisher->timer);
    free(publisher->ring);
    free(publisher);
}

#include "confirms.h"

#include <stdlib.h>

#include "amqp/frame.h"
#include "connection.h"
#include "uuid.h"
#include "wire.h"

struct unconfirmed {
    rpc_confirm_fn *done; /* NULL: confirmed already, and waiting for those before it */
    void *arg;
    uint64_t deadline_ms;
    uint64_t position; /* of its first byte in the connection's output */
    bool returned;
    char message_id[RPC_UUID_SIZE]; /* finds it again when it is returned */
};

static struct unconfirmed *place_of(struct confirms *confirms, uint64_t tag)
{
    return &confirms->ring[tag % confirms->options.unconfirmed_max];
}

static void confirms_skip_confirmed(struct confirms *confirms)
{
    while (confirms->first_tag < confirms->next_tag && place_of(confirms, confirms->first_tag)->done == NULL)
        confirms->first_tag++;
}

/* One event ended. */
static void confirms_end(struct confirms *confirms, uint64_t tag, enum rpc_status status)
{
    struct unconfirmed *event = place_of(confirms, tag);
    rpc_confirm_fn *done = event->done;

    if (done == NULL)
        return;
    event->done = NULL;
    confirms->unconfirmed--;
    confirms_skip_confirmed(confirms);
    done(event->returned && status == RPC_OK ? RPC_UNKNOWN_SERVICE : status, event->arg);
}

static void confirms_on_confirm(uint64_t tag, bool multiple, bool ack, void *arg)
{
    struct confirms *confirms = arg;
    enum rpc_status status = ack ? RPC_OK : RPC_REFUSED;
    uint64_t last_tag = multiple && tag == 0 ? confirms->next_tag - 1 : tag; /* 0 with multiple: all so far */

    if (last_tag < confirms->first_tag || last_tag >= confirms->next_tag)
        return;
    for (uint64_t at = multiple ? confirms->first_tag : last_tag; at <= last_tag; at++) {
        if (at >= confirms->first_tag) /* else confirmed before, and its place may be another's by now */
            confirms_end(confirms, at, status);
    }
}

static void confirms_on_return(const struct mq_message *message, uint16_t code, void *arg)
{
    struct confirms *confirms = arg;
    struct rpc_bytes id;

    (void)code;
    if (message->properties == NULL || !(message->properties->_flags & AMQP_BASIC_MESSAGE_ID_FLAG))
        return;
    id = frame_text(message->properties->message_id);
    for (uint64_t tag = confirms->first_tag; tag < confirms->next_tag; tag++) {
        struct unconfirmed *event = place_of(confirms, tag);

        if (event->done != NULL && rpc_bytes_equal(id, event->message_id)) {
            event->returned = true;
            return;
        }
    }
}

static void confirms_end_all(struct confirms *confirms,
                             enum rpc_status (*status)(const struct confirms *, const struct unconfirmed *))
{
    uint64_t last_tag = confirms->next_tag;

    for (uint64_t tag = confirms->first_tag; tag < last_tag; tag++)
        confirms_end(confirms, tag, status(confirms, place_of(confirms, tag)));
}

static enum rpc_status status_lost(const struct confirms *confirms, const struct unconfirmed *event)
{
    return session_never_left(&confirms->session, event->position) ? RPC_OFFLINE : RPC_LOST;
}

static enum rpc_status status_cancelled(const struct confirms *confirms, const struct unconfirmed *event)
{
    (void)confirms;
    (void)event;
    return RPC_CANCELLED;
}

/* --- deadlines: every event waits equally long, so they come in the order of the tags --- */

static void confirms_arm(struct confirms *confirms, uint64_t now_ms)
{
    uint64_t deadline_ms;

    if (confirms->first_tag == confirms->next_tag)
        return;
    deadline_ms = place_of(confirms, confirms->first_tag)->deadline_ms;
    rpc_loop_timer_start(confirms->timer, deadline_ms > now_ms ? deadline_ms - now_ms : 0);
}

static void confirms_on_timer(void *arg)
{
    struct confirms *confirms = arg;
    uint64_t now_ms = rpc_loop_now_ms(confirms->loop);

    while (confirms->first_tag < confirms->next_tag && place_of(confirms, confirms->first_tag)->deadline_ms <= now_ms)
        confirms_end(confirms, confirms->first_tag, RPC_TIMEOUT);
    confirms_arm(confirms, now_ms);
}

/* --- publishing --- */

enum rpc_status confirms_publish(struct confirms *confirms, const struct mq_publish *publish,
                                 amqp_basic_properties_t *properties, rpc_confirm_fn *done, void *arg)
{
    enum rpc_status status = session_status(&confirms->session);
    uint64_t now_ms = rpc_loop_now_ms(confirms->loop);
    struct mq_publish message = *publish;
    struct unconfirmed *event;

    if (status != RPC_OK)
        return status;
    if (confirms->next_tag - confirms->first_tag == confirms->options.unconfirmed_max)
        return RPC_BUSY;
    event = place_of(confirms, confirms->next_tag);
    *event = (struct unconfirmed){.done = done,
                                  .arg = arg,
                                  .deadline_ms = now_ms + confirms->options.timeout_ms,
                                  .position = session_output_appended(&confirms->session)};
    rpc_uuid4(event->message_id);
    properties->message_id = amqp_cstring_bytes(event->message_id);
    properties->delivery_mode = WIRE_PERSISTENT;
    properties->_flags |= AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG;
    message.properties = properties;
    status = mq_publish(session_channel(&confirms->session), &message);
    if (status != RPC_OK) {
        event->done = NULL;
        return status;
    }
    confirms->next_tag++;
    confirms->unconfirmed++;
    if (confirms->unconfirmed == 1)
        confirms_arm(confirms, now_ms);
    return RPC_OK;
}

/* --- the channel comes and goes --- */

static void confirms_setup(struct mq_channel *channel, void *arg)
{
    struct confirms *confirms = arg;

    confirms->first_tag = confirms->next_tag = 1;
    confirms->options.declare(channel, confirms->options.arg);
    mq_confirm_select(channel);
}

static void confirms_on_up(void *arg)
{
    struct confirms *confirms = arg;

    if (confirms->options.on_up != NULL)
        confirms->options.on_up(confirms->options.arg);
}

static void confirms_on_down(void *arg)
{
    struct confirms *confirms = arg;

    rpc_loop_timer_stop(confirms->timer);
    confirms_end_all(confirms, status_lost);
}

static void confirms_on_delivery(const struct mq_delivery *delivery, void *arg)
{
    struct confirms *confirms = arg;

    if (confirms->options.on_delivery != NULL)
        confirms->options.on_delivery(delivery, confirms->options.arg);
}

static void confirms_on_empty(void *arg)
{
    struct confirms *confirms = arg;

    if (confirms->options.on_empty != NULL)
        confirms->options.on_empty(confirms->options.arg);
}

static const struct session_events confirms_session_events = {
    .setup = confirms_setup,
    .on_up = confirms_on_up,
    .on_down = confirms_on_down,
    .on_delivery = confirms_on_delivery,
    .on_empty = confirms_on_empty,
    .on_return = confirms_on_return,
    .on_confirm = confirms_on_confirm,
};

/* --- life --- */

bool confirms_init(struct confirms *confirms, struct rpc_connection *connection, const struct confirms_options *options)
{
    confirms->options = *options;
    confirms->loop = connection_loop(connection);
    confirms->first_tag = confirms->next_tag = 1;
    confirms->ring = calloc(options->unconfirmed_max, sizeof(*confirms->ring));
    confirms->timer = rpc_loop_timer_new(confirms->loop, confirms_on_timer, confirms);
    return confirms->ring != NULL && confirms->timer != NULL &&
           session_init(&confirms->session, connection, options->what, &confirms_session_events, confirms);
}

void confirms_clear(struct confirms *confirms)
{
    session_clear(&confirms->session);
    if (confirms->ring != NULL)
        confirms_end_all(confirms, status_cancelled);
    rpc_loop_timer_free(confirms->timer);
    free(confirms->ring);
    *confirms = (struct confirms){.ring = NULL};
}

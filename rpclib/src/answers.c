#include "answers.h"

#include "amqp/frame.h"
#include "incoming.h"
#include "wire.h"

static void answer_properties(amqp_basic_properties_t *out, const struct envelope *to)
{
    wire_properties(out, WIRE_TRANSIENT);
    if (to->takes_batches)
        batch_tell_taken(out);
}

static enum rpc_status answer_publish(const struct rpc_incoming *request, struct mq_channel *channel,
                                      const amqp_basic_properties_t *properties, struct rpc_bytes body)
{
    return mq_publish(channel, &(struct mq_publish){.exchange = rpc_bytes_of(request->service->exchange),
                                                    .routing_key = request->envelope.reply_to,
                                                    .though_blocked = true,
                                                    .properties = properties,
                                                    .body = body});
}

enum rpc_status answers_send_one(const struct rpc_incoming *request, struct mq_channel *channel, struct rpc_bytes body)
{
    const struct envelope *envelope = &request->envelope;
    amqp_basic_properties_t properties;

    answer_properties(&properties, envelope);
    if (envelope->content_type[0] != '\0')
        properties.content_type = amqp_cstring_bytes(envelope->content_type);
    if (envelope->correlation_id[0] != '\0') {
        properties._flags |= AMQP_BASIC_CORRELATION_ID_FLAG;
        properties.correlation_id = amqp_cstring_bytes(envelope->correlation_id);
    }
    return answer_publish(request, channel, &properties, body);
}

/* --- together --- */

static enum rpc_status answers_send_batch(const struct answers *answers, struct mq_channel *channel)
{
    const struct rpc_incoming *first = answers->waiting.first;
    amqp_table_entry_t header = batch_header(&answers->batch);
    amqp_basic_properties_t properties;

    answer_properties(&properties, &first->envelope);
    wire_properties_add_headers(&properties, (amqp_table_t){.num_entries = 1, .entries = &header});
    return answer_publish(first, channel, &properties, batch_body(&answers->batch));
}

static void list_append(struct incoming_list *list, struct rpc_incoming *request)
{
    request->next = NULL;
    if (list->last != NULL)
        list->last->next = request;
    else
        list->first = request;
    list->last = request;
}

static struct rpc_incoming *list_take(struct incoming_list *list)
{
    struct rpc_incoming *request = list->first;

    if (request != NULL)
        list->first = request->next;
    if (list->first == NULL)
        list->last = NULL;
    return request;
}

/* Letting a request go may run on_ready, where the owner may answer another one. */
static void answers_let_go(struct incoming_list *list)
{
    struct rpc_incoming *request;

    while ((request = list_take(list)) != NULL)
        incoming_finish(request, !request->unsent);
}

void answers_drop(struct rpc_service *service)
{
    batch_reset(&service->answers.batch);
    answers_let_go(&service->answers.gone);
    answers_let_go(&service->answers.waiting);
}

/* What does not go together goes alone; what does not go at all is handed back. */
static void answers_send(struct rpc_service *service, struct mq_channel *channel)
{
    struct answers *answers = &service->answers;
    struct batch_reader reader = batch_read(&answers->batch);
    bool together = answers->batch.count > 1 && answers_send_batch(answers, channel) == RPC_OK;
    struct rpc_incoming *request;
    struct batch_entry entry;

    while (batch_next(&reader, &entry) && (request = list_take(&answers->waiting)) != NULL) {
        enum rpc_status status = together ? RPC_OK : answers_send_one(request, channel, entry.body);

        if (status != RPC_OK)
            incoming_log_unsent(request, status);
        request->unsent = status != RPC_OK;
        list_append(&answers->gone, request);
    }
    batch_reset(&answers->batch);
}

void answers_on_flush(void *arg)
{
    struct rpc_service *service = arg;
    struct mq_channel *channel = session_channel(&service->requests.session);

    if (channel == NULL) {
        answers_drop(service);
        return;
    }
    answers_send(service, channel);
    answers_let_go(&service->answers.gone);
}

static bool same_sender(const struct rpc_incoming *request, const struct rpc_incoming *other)
{
    return request->envelope.reply_to.size == other->envelope.reply_to.size &&
           memcmp(request->envelope.reply_to.data, other->envelope.reply_to.data, other->envelope.reply_to.size) == 0;
}

bool answers_gather(struct rpc_incoming *request, struct mq_channel *channel)
{
    struct rpc_service *service = request->service;
    struct answers *answers = &service->answers;
    const struct batch_entry entry = {.key = rpc_bytes_of(request->envelope.correlation_id),
                                      .body = rpc_text_bytes(&service->body)};

    if (request->batch == NULL || !request->envelope.takes_batches)
        return false;
    if (answers->waiting.first != NULL && !same_sender(request, answers->waiting.first))
        answers_send(service, channel);
    if (!batch_add(&answers->batch, &entry)) {
        answers_send(service, channel);
        if (!batch_add(&answers->batch, &entry))
            return false;
    }
    list_append(&answers->waiting, request);
    session_flush_later(&service->requests.session);
    return true;
}

#include "request_batch.h"

#include <stdlib.h>

#include "amqp/frame.h"
#include "incoming.h"
#include "rpclib/log.h"

void request_batch_release(struct request_batch *batch, bool answered)
{
    batch->requeue |= !answered;
    if (--batch->open > 0)
        return;
    if (batch->requeue)
        consumer_reject(&batch->taken, true);
    else
        consumer_done(&batch->taken);
}

/* The rest of the batch is sound; whoever waits for this request will give up. */
void request_batch_drop(struct rpc_service *service, const struct mq_delivery *delivery, const char *reason)
{
    service->stats.rejected++;
    rpc_log(RPC_LOG_WARNING, "a request in a batch was dropped",
            RPC_LOG_BYTES("routing_key", delivery->message.routing_key), RPC_LOG_TEXT("reason", reason));
}

/* The entry as the delivery that it would have been alone.  The status is rabbitmq-c's, of decoding its properties. */
static int entry_delivery(struct rpc_service *service, const struct batch_entry *entry, struct mq_delivery *delivery)
{
    void *properties;
    int status;

    if (entry->properties.size > FRAME_NESTING_UNCHECKED && frame_properties_are_deep(entry->properties))
        return AMQP_STATUS_BAD_AMQP_DATA;
    status =
        amqp_decode_properties(AMQP_BASIC_CLASS, &service->batch_pool, frame_bytes(entry->properties), &properties);
    if (status < 0)
        return status;
    delivery->message.routing_key = entry->key;
    delivery->message.properties = properties;
    delivery->message.raw_properties = entry->properties;
    delivery->message.body = entry->body;
    return AMQP_STATUS_OK;
}

void request_batch_begin(struct rpc_service *service, const struct mq_delivery *delivery, struct batch_reader reader)
{
    struct request_batch *batch = calloc(1, sizeof(*batch));
    struct mq_delivery one = *delivery;
    struct batch_entry entry;

    if (batch == NULL) {
        consumer_refuse(&service->requests, delivery, true);
        return;
    }
    consumer_take(&service->requests, &batch->taken, delivery);
    request_batch_hold(batch);                                             /* until all have begun */
    while (batch->taken.consumer != NULL && batch_next(&reader, &entry)) { /* a handler may free the service */
        int status = entry_delivery(service, &entry, &one);

        if (status == AMQP_STATUS_OK)
            incoming_begin(service, &one, batch);
        else if (status == AMQP_STATUS_NO_MEMORY)
            batch->requeue = true;
        else
            request_batch_drop(service, delivery, "its properties cannot be read");
    }
    if (batch->taken.consumer != NULL)
        recycle_amqp_pool(&service->batch_pool);
    request_batch_release(batch, true);
}

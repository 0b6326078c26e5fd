#include "broker.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define CHANNELS_MAX 8
#define NAME_SIZE    BROKER_NAME_SIZE
#define CONFIRMS_MAX 64

enum link_state { LINK_HEADER, LINK_START, LINK_TUNE, LINK_OPENING, LINK_OPEN, LINK_CLOSING, LINK_CLOSED };
enum channel_state { CHANNEL_CLOSED, CHANNEL_OPEN, CHANNEL_CLOSING };

struct delivery {
    struct delivery *next;
    struct queue *queue;
    struct broker_message *message;
    uint64_t tag;
};

struct confirm {
    uint64_t tag;
    uint64_t due_ms;
    bool ack;
};

struct channel {
    enum channel_state state;
    uint16_t number;
    uint16_t prefetch;
    uint64_t deliveries; /* the last tag */
    struct delivery *unacked, **unacked_end;
    unsigned unacked_count;
    bool confirms_on;
    uint64_t publishes; /* the last tag */
    struct confirm confirms[CONFIRMS_MAX];
    unsigned confirms_count;
    /* the message that is arriving */
    struct broker_message *arriving;
    uint64_t arriving_size;
    bool arriving_mandatory;
    bool header_due;
    struct frames late; /* what the queues answer, while what the channel itself answers overtakes it */
};

struct broker_link {
    struct broker *broker;
    char name[NAME_SIZE];
    bool used;
    enum link_state state;
    struct frames_reader reader;
    struct frames out;
    struct channel channels[CHANNELS_MAX + 1];
    uint64_t received_ms, sent_ms;
    uint16_t heartbeat_s;
    bool told_blocked;
    bool held_up;
};

struct consumer {
    struct consumer *next;
    struct broker_link *link;
    uint16_t channel;
    char tag[NAME_SIZE];
    bool no_ack;
};

struct queue {
    struct queue *next;
    char name[NAME_SIZE];
    bool durable, exclusive, auto_delete, had_consumer;
    struct broker_link *owner;
    struct broker_message *first, **end;
    unsigned count;
    struct consumer *consumers;
    uint64_t ttl_ms;            /* of its messages; 0: none */
    char expired_to[NAME_SIZE]; /* the queue for what has expired; "": none */
};

struct binding {
    struct binding *next;
    char exchange[NAME_SIZE], key[NAME_SIZE];
    struct queue *queue;
};

struct exchange {
    struct exchange *next;
    char name[NAME_SIZE];
};

struct broker {
    struct random *random;
    struct broker_watcher watcher;
    struct broker_rules rules;
    uint64_t now_ms;
    bool alarm;
    struct broker_link links[BROKER_LINKS_MAX];
    struct queue *queues;
    struct binding *bindings;
    struct exchange *exchanges;
};

__attribute__((format(printf, 2, 3))) static void violation(struct broker *broker, const char *format, ...)
{
    char what[400];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    broker->watcher.on_violation(what, broker->watcher.arg);
}

__attribute__((format(printf, 2, 3))) static void story(struct broker *broker, const char *format, ...)
{
    char line[400];
    va_list arguments;

    if (broker->watcher.on_story == NULL)
        return;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    broker->watcher.on_story(line, broker->watcher.arg);
}

static void *allocate(size_t size)
{
    void *memory = calloc(1, size);

    if (memory == NULL)
        abort();
    return memory;
}

static struct rpc_bytes copy_of(amqp_bytes_t bytes)
{
    char *data = allocate(bytes.len + 1);

    if (bytes.len > 0)
        memcpy(data, bytes.bytes, bytes.len);
    return (struct rpc_bytes){data, bytes.len};
}

static void name_of(struct broker *broker, char out[NAME_SIZE], amqp_bytes_t bytes)
{
    if (bytes.len >= NAME_SIZE)
        violation(broker, "a name of %zu bytes", bytes.len);
    snprintf(out, NAME_SIZE, "%.*s", (int)bytes.len, (const char *)bytes.bytes);
}

#define SEND(link, channel, NAME, type, ...) \
    frames_method(&(link)->out, channel, AMQP_##NAME##_METHOD, &(amqp_##type##_t){__VA_ARGS__})

/* ---- Messages and queues ----------------------------------------------------------------------------------------- */

static void message_free(struct broker_message *message)
{
    if (message == NULL)
        return;
    free((char *)(uintptr_t)message->raw_properties.data);
    free((char *)(uintptr_t)message->body.data);
    free(message);
}

static struct broker_message *message_copy(const struct broker_message *message)
{
    struct broker_message *copy = allocate(sizeof(*copy));

    *copy = *message;
    copy->next = NULL;
    copy->raw_properties = copy_of(frames_in(message->raw_properties));
    copy->body = copy_of(frames_in(message->body));
    return copy;
}

static struct queue *queue_find(const struct broker *broker, const char *name)
{
    struct queue *queue = broker->queues;

    while (queue != NULL && strcmp(queue->name, name) != 0)
        queue = queue->next;
    return queue;
}

static void queue_push(struct queue *queue, struct broker_message *message)
{
    message->next = NULL;
    *queue->end = message;
    queue->end = &message->next;
    queue->count++;
}

static void queue_push_front(struct queue *queue, struct broker_message *message)
{
    message->next = queue->first;
    if (queue->first == NULL)
        queue->end = &message->next;
    queue->first = message;
    queue->count++;
}

static struct broker_message *queue_pop(struct queue *queue)
{
    struct broker_message *message = queue->first;

    queue->first = message->next;
    if (queue->first == NULL)
        queue->end = &queue->first;
    queue->count--;
    return message;
}

static struct queue *queue_new(struct broker *broker, const char *name)
{
    struct queue *queue = allocate(sizeof(*queue)), **at = &broker->queues;

    snprintf(queue->name, sizeof(queue->name), "%s", name);
    queue->end = &queue->first;
    while (*at != NULL)
        at = &(*at)->next;
    *at = queue;
    return queue;
}

/* Deliveries of a queue that is deleted settle nothing any more. */
static void queue_forget_deliveries(struct broker *broker, const struct queue *queue)
{
    for (unsigned i = 0; i < BROKER_LINKS_MAX; i++) {
        for (unsigned number = 1; number <= CHANNELS_MAX; number++) {
            for (struct delivery *at = broker->links[i].channels[number].unacked; at != NULL; at = at->next) {
                if (at->queue == queue)
                    at->queue = NULL;
            }
        }
    }
}

static void queue_delete(struct broker *broker, struct queue *queue)
{
    struct queue **at = &broker->queues;
    struct binding **binding = &broker->bindings;

    story(broker, "queue %s is deleted with %u messages", queue->name, queue->count);
    while (*at != queue)
        at = &(*at)->next;
    *at = queue->next;
    while (*binding != NULL) {
        struct binding *gone = *binding;

        if (gone->queue == queue) {
            *binding = gone->next;
            free(gone);
        } else {
            binding = &gone->next;
        }
    }
    queue_forget_deliveries(broker, queue);
    while (queue->first != NULL)
        message_free(queue_pop(queue));
    while (queue->consumers != NULL) {
        struct consumer *consumer = queue->consumers;

        queue->consumers = consumer->next;
        free(consumer);
    }
    free(queue);
}

/* Delete queues whose last consumer, or owner, has left. */
static void queues_sweep(struct broker *broker)
{
    struct queue *queue = broker->queues;

    while (queue != NULL) {
        struct queue *next = queue->next;

        if (queue->auto_delete && queue->had_consumer && queue->consumers == NULL)
            queue_delete(broker, queue);
        queue = next;
    }
}

/* Whether a topic's binding key has the routing key: words by dots, '*' one of them, '#' any number. */
static bool topic_matches(const char *binding, const char *key)
{
    size_t word = strcspn(binding, "."), key_word = strcspn(key, ".");

    if (strcmp(binding, "#") == 0)
        return true;
    if (!(word == 1 && binding[0] == '*') && (word != key_word || strncmp(binding, key, word) != 0))
        return false;
    if (binding[word] == '\0' || key[key_word] == '\0')
        return binding[word] == key[key_word];
    return topic_matches(binding + word + 1, key + key_word + 1);
}

/* A message comes into the queue. */
static void queue_take(const struct broker *broker, struct queue *queue, struct broker_message *message)
{
    if (queue->ttl_ms > 0 && message->expires_ms > broker->now_ms + queue->ttl_ms)
        message->expires_ms = broker->now_ms + queue->ttl_ms;
    queue_push(queue, message);
}

static unsigned route(struct broker *broker, const struct broker_message *message)
{
    unsigned queues = 0;

    for (const struct binding *binding = broker->bindings; binding != NULL; binding = binding->next) {
        if (strcmp(binding->exchange, message->exchange) == 0 && topic_matches(binding->key, message->routing_key)) {
            queue_take(broker, binding->queue, message_copy(message));
            queues++;
        }
    }
    if (message->exchange[0] == '\0' && queue_find(broker, message->routing_key) != NULL) {
        queue_take(broker, queue_find(broker, message->routing_key), message_copy(message));
        queues++;
    }
    return queues;
}

/* ---- Channels that end ------------------------------------------------------------------------------------------- */

/* What was delivered and not settled goes back to where it was, in its order. */
static void channel_requeue(struct channel *channel)
{
    struct delivery *reversed = NULL;

    while (channel->unacked != NULL) {
        struct delivery *delivery = channel->unacked;

        channel->unacked = delivery->next;
        delivery->next = reversed;
        reversed = delivery;
    }
    while (reversed != NULL) {
        struct delivery *delivery = reversed;

        reversed = delivery->next;
        delivery->message->redelivered = true;
        if (delivery->queue != NULL)
            queue_push_front(delivery->queue, delivery->message);
        else
            message_free(delivery->message);
        free(delivery);
    }
    channel->unacked_end = &channel->unacked;
    channel->unacked_count = 0;
}

static void consumers_remove(struct broker *broker, const struct broker_link *link, uint16_t channel, const char *tag)
{
    for (struct queue *queue = broker->queues; queue != NULL; queue = queue->next) {
        struct consumer **at = &queue->consumers;

        while (*at != NULL) {
            struct consumer *consumer = *at;

            if (consumer->link == link && consumer->channel == channel &&
                (tag == NULL || strcmp(consumer->tag, tag) == 0)) {
                *at = consumer->next;
                free(consumer);
            } else {
                at = &consumer->next;
            }
        }
    }
}

static void channel_end(struct broker *broker, struct broker_link *link, uint16_t number, enum channel_state state)
{
    struct channel *channel = &link->channels[number];

    consumers_remove(broker, link, number, NULL);
    channel_requeue(channel);
    message_free(channel->arriving);
    frames_clear(&channel->late);
    *channel = (struct channel){.state = state, .number = number, .unacked_end = NULL};
    channel->unacked_end = &channel->unacked;
    queues_sweep(broker);
}

static void link_end(struct broker *broker, struct broker_link *link)
{
    for (uint16_t number = 1; number <= CHANNELS_MAX; number++)
        channel_end(broker, link, number, CHANNEL_CLOSED);
    for (struct queue *queue = broker->queues, *next; queue != NULL; queue = next) {
        next = queue->next;
        if (queue->exclusive && queue->owner == link)
            queue_delete(broker, queue);
    }
}

__attribute__((format(printf, 5, 6))) static void channel_refuse(struct broker *broker, struct broker_link *link,
                                                                 uint16_t number, uint16_t code, const char *format,
                                                                 ...)
{
    char text[200];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    story(broker, "%s: channel %u is closed: %u %s", link->name, number, code, text);
    SEND(link, number, CHANNEL_CLOSE, channel_close, .reply_code = code, .reply_text = amqp_cstring_bytes(text));
    channel_end(broker, link, number, CHANNEL_CLOSING);
}

/* ---- Publishing -------------------------------------------------------------------------------------------------- */

static bool exchange_exists(const struct broker *broker, const char *name)
{
    const struct exchange *exchange = broker->exchanges;

    while (exchange != NULL && strcmp(exchange->name, name) != 0)
        exchange = exchange->next;
    return exchange != NULL || name[0] == '\0';
}

static void exchange_make(struct broker *broker, const char *name)
{
    struct exchange *exchange;

    if (exchange_exists(broker, name))
        return;
    exchange = allocate(sizeof(*exchange));
    snprintf(exchange->name, NAME_SIZE, "%s", name);
    exchange->next = broker->exchanges;
    broker->exchanges = exchange;
}

static void binding_make(struct broker *broker, struct queue *queue, const char *exchange, const char *key)
{
    struct binding *binding = allocate(sizeof(*binding));

    snprintf(binding->exchange, NAME_SIZE, "%s", exchange);
    snprintf(binding->key, NAME_SIZE, "%s", key);
    binding->queue = queue;
    binding->next = broker->bindings;
    broker->bindings = binding;
}

static void publish_return(struct broker_link *link, const struct channel *channel,
                           const struct broker_message *message)
{
    SEND(link, channel->number, BASIC_RETURN, basic_return, .reply_code = 312,
         .reply_text = amqp_cstring_bytes("NO_ROUTE"), .exchange = amqp_cstring_bytes(message->exchange),
         .routing_key = amqp_cstring_bytes(message->routing_key));
    frames_header_raw(&link->out, channel->number, message->raw_properties, message->body.size);
    frames_body(&link->out, channel->number, message->body, BROKER_FRAME_MAX);
}

static void publish_complete(struct broker *broker, struct broker_link *link, struct channel *channel)
{
    struct broker_message *message = channel->arriving;
    bool accepted = !(channel->confirms_on && random_percent(broker->random, broker->rules.nack_percent));
    unsigned queues = 0;

    channel->arriving = NULL;
    if (accepted)
        queues = route(broker, message);
    broker->watcher.on_publish(message, queues, accepted, broker->watcher.arg);
    if (accepted && queues == 0 && channel->arriving_mandatory)
        publish_return(link, channel, message);
    if (channel->confirms_on) {
        if (channel->confirms_count == CONFIRMS_MAX) {
            violation(broker, "%s: more than %u confirms pending", link->name, CONFIRMS_MAX);
        } else {
            unsigned delay = broker->rules.confirm_delay_max_ms;

            channel->confirms[channel->confirms_count++] =
                (struct confirm){.tag = ++channel->publishes,
                                 .due_ms = broker->now_ms + (delay == 0 ? 0 : random_below(broker->random, delay)),
                                 .ack = accepted};
        }
    }
    message_free(message);
}

static void publish_begin(struct broker *broker, struct broker_link *link, struct channel *channel,
                          const amqp_basic_publish_t *publish)
{
    struct broker_message *message = allocate(sizeof(*message));

    name_of(broker, message->exchange, publish->exchange);
    name_of(broker, message->routing_key, publish->routing_key);
    message->expires_ms = UINT64_MAX;
    channel->arriving = message;
    channel->arriving_mandatory = publish->mandatory;
    channel->header_due = true;
    if (broker->alarm)
        link->held_up = true;
}

static void publish_header(struct broker *broker, struct broker_link *link, struct channel *channel,
                           const amqp_frame_t *frame)
{
    const amqp_basic_properties_t *properties = frame->payload.properties.decoded;
    struct broker_message *message = channel->arriving;

    if (message == NULL || !channel->header_due) {
        violation(broker, "%s: a header without a publish", link->name);
        return;
    }
    channel->header_due = false;
    message->raw_properties = copy_of(frame->payload.properties.raw);
    message->body = (struct rpc_bytes){allocate(frame->payload.properties.body_size + 1), 0};
    channel->arriving_size = frame->payload.properties.body_size;
    if (properties->_flags & AMQP_BASIC_CORRELATION_ID_FLAG)
        name_of(broker, message->correlation_id, properties->correlation_id);
    if (properties->_flags & AMQP_BASIC_REPLY_TO_FLAG)
        name_of(broker, message->reply_to, properties->reply_to);
    if (properties->_flags & AMQP_BASIC_DELIVERY_MODE_FLAG)
        message->persistent = properties->delivery_mode == 2;
    if (properties->_flags & AMQP_BASIC_EXPIRATION_FLAG) {
        char text[NAME_SIZE], *end;

        name_of(broker, text, properties->expiration);
        message->expires_ms = broker->now_ms + strtoull(text, &end, 10);
        if (end == text || *end != '\0' || text[0] == '-')
            channel_refuse(broker, link, channel->number, 406, "invalid expiration '%s'", text);
    }
    if (channel->arriving != NULL && channel->arriving_size == 0)
        publish_complete(broker, link, channel);
}

static void publish_body(struct broker *broker, struct broker_link *link, struct channel *channel, amqp_bytes_t part)
{
    struct broker_message *message = channel->arriving;

    if (message == NULL || channel->header_due || message->body.size + part.len > channel->arriving_size) {
        violation(broker, "%s: a body out of its turn", link->name);
        return;
    }
    memcpy((char *)(uintptr_t)message->body.data + message->body.size, part.bytes, part.len);
    message->body.size += part.len;
    if (message->body.size == channel->arriving_size)
        publish_complete(broker, link, channel);
}

/* ---- Acknowledging ----------------------------------------------------------------------------------------------- */

static void settle(struct broker *broker, struct channel *channel, struct delivery **at, enum broker_fate fate,
                   bool requeue)
{
    struct delivery *delivery = *at;

    *at = delivery->next;
    if (channel->unacked_end == &delivery->next)
        channel->unacked_end = at;
    channel->unacked_count--;
    if (requeue) {
        delivery->message->redelivered = true;
        if (delivery->queue != NULL)
            queue_push_front(delivery->queue, delivery->message);
        else
            message_free(delivery->message);
    } else {
        if (broker->watcher.on_settled != NULL)
            broker->watcher.on_settled(delivery->message, delivery->queue == NULL ? "" : delivery->queue->name, fate,
                                       broker->watcher.arg);
        message_free(delivery->message);
    }
    free(delivery);
}

static void settle_tag(struct broker *broker, struct broker_link *link, struct channel *channel, uint64_t tag,
                       bool multiple, enum broker_fate fate, bool requeue)
{
    struct delivery **at = &channel->unacked;
    bool found = false;

    while (*at != NULL) {
        if ((*at)->tag == tag || (multiple && (*at)->tag < tag)) {
            found = found || (*at)->tag == tag;
            settle(broker, channel, at, fate, requeue);
        } else {
            at = &(*at)->next;
        }
    }
    if (!found) {
        violation(broker, "%s: channel %u settles tag %llu, which it does not have", link->name, channel->number,
                  (unsigned long long)tag);
        channel_refuse(broker, link, channel->number, 406, "unknown delivery tag %llu", (unsigned long long)tag);
    }
}

/* As RabbitMQ: consume and cancel are answered by the queue's process, all else by the channel's, and that may be first. */
static void send_late(struct broker *broker, struct broker_link *link, uint16_t number, amqp_method_number_t id,
                      void *method)
{
    struct channel *channel = &link->channels[number];

    frames_method(channel->late.size > 0 || random_percent(broker->random, 50) ? &channel->late : &link->out, number,
                  id, method);
}

static void links_send_late(struct broker *broker)
{
    for (unsigned i = 0; i < BROKER_LINKS_MAX; i++) {
        struct broker_link *link = &broker->links[i];

        for (uint16_t number = 1; link->used && number <= CHANNELS_MAX; number++) {
            struct frames *late = &link->channels[number].late;

            frames_append(&link->out, frames_bytes(late));
            late->size = 0;
        }
    }
}

/* ---- Handing out ------------------------------------------------------------------------------------------------- */

static void send_message(struct broker_link *link, const struct channel *channel, const struct broker_message *message)
{
    frames_header_raw(&link->out, channel->number, message->raw_properties, message->body.size);
    frames_body(&link->out, channel->number, message->body, BROKER_FRAME_MAX);
}

/* The message was the channel's last delivery, and is to be acknowledged. */
static void channel_owes(struct channel *channel, struct queue *queue, struct broker_message *message)
{
    struct delivery *delivery = allocate(sizeof(*delivery));

    *delivery = (struct delivery){.queue = queue, .message = message, .tag = channel->deliveries};
    *channel->unacked_end = delivery;
    channel->unacked_end = &delivery->next;
    channel->unacked_count++;
}

/* ---- Methods ----------------------------------------------------------------------------------------------------- */

static unsigned consumers_count(const struct queue *queue)
{
    unsigned count = 0;

    for (const struct consumer *at = queue->consumers; at != NULL; at = at->next)
        count++;
    return count;
}

static void queue_read_arguments(struct broker *broker, struct queue *queue, const amqp_table_t *arguments)
{
    for (int i = 0; i < arguments->num_entries; i++) {
        const amqp_table_entry_t *entry = &arguments->entries[i];
        char key[NAME_SIZE];

        name_of(broker, key, entry->key);
        if (strcmp(key, "x-message-ttl") == 0)
            queue->ttl_ms = (uint64_t)entry->value.value.i32;
        else if (strcmp(key, "x-dead-letter-routing-key") == 0)
            name_of(broker, queue->expired_to, entry->value.value.bytes);
    }
}

static void on_queue_declare(struct broker *broker, struct broker_link *link, uint16_t number,
                             const amqp_queue_declare_t *declare)
{
    char name[NAME_SIZE];
    struct queue *queue;

    name_of(broker, name, declare->queue);
    queue = queue_find(broker, name);
    if (queue != NULL && queue->exclusive && queue->owner != link) {
        channel_refuse(broker, link, number, 405, "RESOURCE_LOCKED - %s", name);
        return;
    }
    if (queue == NULL && declare->passive) {
        channel_refuse(broker, link, number, 404, "NOT_FOUND - no queue '%s'", name);
        return;
    }
    if (queue != NULL && !declare->passive &&
        (queue->durable != declare->durable || queue->auto_delete != declare->auto_delete ||
         queue->exclusive != declare->exclusive)) {
        violation(broker, "%s: queue %s is declared otherwise", link->name, name);
        channel_refuse(broker, link, number, 406, "PRECONDITION_FAILED - %s", name);
        return;
    }
    if (queue == NULL) {
        queue = queue_new(broker, name);
        queue->durable = declare->durable;
        queue->exclusive = declare->exclusive;
        queue->auto_delete = declare->auto_delete;
        queue->owner = declare->exclusive ? link : NULL;
        queue_read_arguments(broker, queue, &declare->arguments);
    }
    SEND(link, number, QUEUE_DECLARE_OK, queue_declare_ok, .queue = declare->queue, .message_count = queue->count,
         .consumer_count = consumers_count(queue));
}

static void on_queue_bind(struct broker *broker, struct broker_link *link, uint16_t number,
                          const amqp_queue_bind_t *bind)
{
    char name[NAME_SIZE], exchange[NAME_SIZE], key[NAME_SIZE];
    const struct binding *at = broker->bindings;
    struct queue *queue;

    name_of(broker, name, bind->queue);
    name_of(broker, exchange, bind->exchange);
    name_of(broker, key, bind->routing_key);
    queue = queue_find(broker, name);
    if (queue == NULL || !exchange_exists(broker, exchange)) {
        channel_refuse(broker, link, number, 404, "NOT_FOUND - %s", name);
        return;
    }
    while (at != NULL && !(at->queue == queue && strcmp(at->exchange, exchange) == 0 && strcmp(at->key, key) == 0))
        at = at->next;
    if (at == NULL)
        binding_make(broker, queue, exchange, key);
    SEND(link, number, QUEUE_BIND_OK, queue_bind_ok, 0);
}

static void on_consume(struct broker *broker, struct broker_link *link, uint16_t number,
                       const amqp_basic_consume_t *consume)
{
    struct consumer *consumer, **at;
    char name[NAME_SIZE];
    struct queue *queue;

    name_of(broker, name, consume->queue);
    queue = queue_find(broker, name);
    if (queue == NULL) {
        channel_refuse(broker, link, number, 404, "NOT_FOUND - no queue '%s'", name);
        return;
    }
    consumer = allocate(sizeof(*consumer));
    consumer->link = link;
    consumer->channel = number;
    consumer->no_ack = consume->no_ack;
    name_of(broker, consumer->tag, consume->consumer_tag);
    for (at = &queue->consumers; *at != NULL; at = &(*at)->next) {
        if ((*at)->link == link && (*at)->channel == number && strcmp((*at)->tag, consumer->tag) == 0)
            violation(broker, "%s: consumes %s twice on channel %u", link->name, name, number);
    }
    *at = consumer;
    queue->had_consumer = true;
    send_late(broker, link, number, AMQP_BASIC_CONSUME_OK_METHOD,
              &(amqp_basic_consume_ok_t){.consumer_tag = consume->consumer_tag});
}

static void on_get(struct broker *broker, struct broker_link *link, uint16_t number, const amqp_basic_get_t *get)
{
    char name[NAME_SIZE];
    struct queue *queue;
    struct broker_message *message;

    name_of(broker, name, get->queue);
    queue = queue_find(broker, name);
    if (queue == NULL) {
        channel_refuse(broker, link, number, 404, "NOT_FOUND - no queue '%s'", name);
        return;
    }
    if (queue->first == NULL) {
        SEND(link, number, BASIC_GET_EMPTY, basic_get_empty, 0);
        return;
    }
    message = queue_pop(queue);
    SEND(link, number, BASIC_GET_OK, basic_get_ok, .delivery_tag = ++link->channels[number].deliveries,
         .redelivered = message->redelivered, .exchange = amqp_cstring_bytes(message->exchange),
         .routing_key = amqp_cstring_bytes(message->routing_key), .message_count = queue->count);
    send_message(link, &link->channels[number], message);
    channel_owes(&link->channels[number], queue, message);
}

static void on_exchange_declare(struct broker *broker, struct broker_link *link, uint16_t number,
                                const amqp_exchange_declare_t *declare)
{
    char name[NAME_SIZE];

    name_of(broker, name, declare->exchange);
    exchange_make(broker, name);
    SEND(link, number, EXCHANGE_DECLARE_OK, exchange_declare_ok, 0);
}

static void on_channel_open(struct broker_link *link, uint16_t number)
{
    struct channel *channel = &link->channels[number];

    *channel = (struct channel){.state = CHANNEL_OPEN, .number = number};
    channel->unacked_end = &channel->unacked;
    SEND(link, number, CHANNEL_OPEN_OK, channel_open_ok, 0);
}

static void on_channel_close(struct broker *broker, struct broker_link *link, uint16_t number)
{
    channel_end(broker, link, number, CHANNEL_CLOSED);
    SEND(link, number, CHANNEL_CLOSE_OK, channel_close_ok, 0);
}

static void on_qos(struct broker_link *link, uint16_t number, const amqp_basic_qos_t *qos)
{
    link->channels[number].prefetch = qos->prefetch_count;
    SEND(link, number, BASIC_QOS_OK, basic_qos_ok, 0);
}

static void on_cancel(struct broker *broker, struct broker_link *link, uint16_t number,
                      const amqp_basic_cancel_t *cancel)
{
    char tag[NAME_SIZE];

    name_of(broker, tag, cancel->consumer_tag);
    consumers_remove(broker, link, number, tag);
    send_late(broker, link, number, AMQP_BASIC_CANCEL_OK_METHOD,
              &(amqp_basic_cancel_ok_t){.consumer_tag = cancel->consumer_tag});
    queues_sweep(broker);
}

static void on_publish(struct broker *broker, struct broker_link *link, uint16_t number,
                       const amqp_basic_publish_t *publish)
{
    struct channel *channel = &link->channels[number];

    publish_begin(broker, link, channel, publish);
    if (!exchange_exists(broker, channel->arriving->exchange)) {
        violation(broker, "%s: publishes to %s, which does not exist", link->name, channel->arriving->exchange);
        channel_refuse(broker, link, number, 404, "no exchange");
    }
}

static void on_ack(struct broker *broker, struct broker_link *link, uint16_t number, const amqp_basic_ack_t *ack)
{
    settle_tag(broker, link, &link->channels[number], ack->delivery_tag, ack->multiple, BROKER_ACKED, false);
}

static void on_reject(struct broker *broker, struct broker_link *link, uint16_t number,
                      const amqp_basic_reject_t *reject)
{
    settle_tag(broker, link, &link->channels[number], reject->delivery_tag, false, BROKER_REJECTED, reject->requeue);
}

static void on_confirm_select(struct broker_link *link, uint16_t number)
{
    link->channels[number].confirms_on = true;
    SEND(link, number, CONFIRM_SELECT_OK, confirm_select_ok, 0);
}

/* On a channel that we closed: everything but its end is passed over. */
static void on_closing_channel_method(struct broker_link *link, uint16_t number, amqp_method_number_t id)
{
    if (id == AMQP_CHANNEL_CLOSE_OK_METHOD)
        link->channels[number].state = CHANNEL_CLOSED;
    else if (id == AMQP_CHANNEL_CLOSE_METHOD)
        SEND(link, number, CHANNEL_CLOSE_OK, channel_close_ok, 0);
}

/* Whether AMQP allows this method now. */
static bool channel_method_is_due(struct broker *broker, const struct broker_link *link, uint16_t number,
                                  amqp_method_number_t id)
{
    const struct channel *channel = &link->channels[number];
    char name[40];

    if ((channel->state == CHANNEL_CLOSED) != (id == AMQP_CHANNEL_OPEN_METHOD)) {
        violation(broker, "%s: %s on channel %u, state %d", link->name, frames_method_name(id, name), number,
                  (int)channel->state);
        return false;
    }
    if (channel->arriving != NULL) {
        violation(broker, "%s: %s within a message", link->name, frames_method_name(id, name));
        return false;
    }
    return true;
}

static void on_channel_method(struct broker *broker, struct broker_link *link, uint16_t number,
                              const amqp_method_t *method)
{
    const void *decoded = method->decoded;
    char name[40];

    if (link->channels[number].state == CHANNEL_CLOSING) {
        on_closing_channel_method(link, number, method->id);
        return;
    }
    if (!channel_method_is_due(broker, link, number, method->id))
        return;
    switch (method->id) {
    case AMQP_CHANNEL_OPEN_METHOD:
        on_channel_open(link, number);
        break;
    case AMQP_CHANNEL_CLOSE_METHOD:
        on_channel_close(broker, link, number);
        break;
    case AMQP_EXCHANGE_DECLARE_METHOD:
        on_exchange_declare(broker, link, number, decoded);
        break;
    case AMQP_QUEUE_DECLARE_METHOD:
        on_queue_declare(broker, link, number, decoded);
        break;
    case AMQP_QUEUE_BIND_METHOD:
        on_queue_bind(broker, link, number, decoded);
        break;
    case AMQP_BASIC_QOS_METHOD:
        on_qos(link, number, decoded);
        break;
    case AMQP_BASIC_CONSUME_METHOD:
        on_consume(broker, link, number, decoded);
        break;
    case AMQP_BASIC_GET_METHOD:
        on_get(broker, link, number, decoded);
        break;
    case AMQP_BASIC_CANCEL_METHOD:
        on_cancel(broker, link, number, decoded);
        break;
    case AMQP_BASIC_PUBLISH_METHOD:
        on_publish(broker, link, number, decoded);
        break;
    case AMQP_BASIC_ACK_METHOD:
        on_ack(broker, link, number, decoded);
        break;
    case AMQP_BASIC_REJECT_METHOD:
        on_reject(broker, link, number, decoded);
        break;
    case AMQP_CONFIRM_SELECT_METHOD:
        on_confirm_select(link, number);
        break;
    default:
        violation(broker, "%s: %s", link->name, frames_method_name(method->id, name));
        break;
    }
}

static void on_link_method(struct broker *broker, struct broker_link *link, const amqp_method_t *method)
{
    char name[40];

    if (link->state == LINK_CLOSING && method->id == AMQP_CONNECTION_CLOSE_OK_METHOD) {
        link->state = LINK_CLOSED;
    } else if (method->id == AMQP_CONNECTION_CLOSE_METHOD) {
        SEND(link, 0, CONNECTION_CLOSE_OK, connection_close_ok, 0);
        link_end(broker, link);
        link->state = LINK_CLOSED;
    } else if (link->state == LINK_CLOSING) {
        return;
    } else if (link->state == LINK_START && method->id == AMQP_CONNECTION_START_OK_METHOD) {
        SEND(link, 0, CONNECTION_TUNE, connection_tune, .channel_max = CHANNELS_MAX, .frame_max = BROKER_FRAME_MAX,
             .heartbeat = broker->rules.heartbeat_s);
        link->state = LINK_TUNE;
    } else if (link->state == LINK_TUNE && method->id == AMQP_CONNECTION_TUNE_OK_METHOD) {
        link->heartbeat_s = ((const amqp_connection_tune_ok_t *)method->decoded)->heartbeat;
        link->state = LINK_OPENING;
    } else if (link->state == LINK_OPENING && method->id == AMQP_CONNECTION_OPEN_METHOD) {
        SEND(link, 0, CONNECTION_OPEN_OK, connection_open_ok, 0);
        link->state = LINK_OPEN;
    } else {
        violation(broker, "%s: %s in state %d", link->name, frames_method_name(method->id, name), (int)link->state);
    }
}

static void on_frame(const amqp_frame_t *frame, void *arg)
{
    struct broker_link *link = arg;
    struct broker *broker = link->broker;
    struct channel *channel;

    if (frame->frame_type == 'A') {
        SEND(link, 0, CONNECTION_START, connection_start, .version_minor = 9,
             .mechanisms = amqp_cstring_bytes("PLAIN AMQPLAIN"), .locales = amqp_cstring_bytes("en_US"));
        link->state = LINK_START;
        return;
    }
    if (frame->frame_type == AMQP_FRAME_HEARTBEAT)
        return;
    if (frame->channel == 0) {
        on_link_method(broker, link, &frame->payload.method);
        return;
    }
    if (link->state == LINK_CLOSING || link->state == LINK_CLOSED)
        return;
    if (frame->channel > CHANNELS_MAX || link->state != LINK_OPEN) {
        violation(broker, "%s: a frame on channel %u", link->name, frame->channel);
        return;
    }
    channel = &link->channels[frame->channel];
    if (frame->frame_type == AMQP_FRAME_METHOD)
        on_channel_method(broker, link, frame->channel, &frame->payload.method);
    else if (channel->state == CHANNEL_CLOSING)
        return;
    else if (frame->frame_type == AMQP_FRAME_HEADER)
        publish_header(broker, link, channel, frame);
    else
        publish_body(broker, link, channel, frame->payload.body_fragment);
}

/* ---- Links ------------------------------------------------------------------------------------------------------- */

struct broker_link *broker_accept(struct broker *broker, const char *name)
{
    for (unsigned i = 0; i < BROKER_LINKS_MAX; i++) {
        struct broker_link *link = &broker->links[i];

        if (link->used)
            continue;
        memset(link, 0, sizeof(*link));
        link->broker = broker;
        link->used = true;
        link->received_ms = link->sent_ms = broker->now_ms;
        snprintf(link->name, sizeof(link->name), "%s", name);
        for (unsigned number = 1; number <= CHANNELS_MAX; number++)
            link->channels[number].unacked_end = &link->channels[number].unacked;
        frames_reader_init(&link->reader);
        return link;
    }
    return NULL;
}

void broker_receive(struct broker *broker, struct broker_link *link, struct rpc_bytes bytes, uint64_t now_ms)
{
    broker->now_ms = now_ms;
    link->received_ms = now_ms;
    if (!frames_read(&link->reader, bytes, on_frame, link))
        violation(broker, "%s: sent what is no AMQP", link->name);
}

struct frames *broker_output(struct broker_link *link)
{
    return &link->out;
}

bool broker_reads(const struct broker_link *link)
{
    return !link->held_up;
}

bool broker_closes(const struct broker_link *link)
{
    return link->state == LINK_CLOSED;
}

void broker_drop(struct broker *broker, struct broker_link *link)
{
    link_end(broker, link);
    frames_reader_clear(&link->reader);
    frames_clear(&link->out);
    link->used = false;
}

void broker_close_link(struct broker *broker, struct broker_link *link)
{
    if (link->state != LINK_OPEN)
        return;
    SEND(link, 0, CONNECTION_CLOSE, connection_close, .reply_code = 320,
         .reply_text = amqp_cstring_bytes("CONNECTION_FORCED"));
    link_end(broker, link);
    link->state = LINK_CLOSING;
}

bool broker_close_channel(struct broker *broker, struct broker_link *link)
{
    for (unsigned tries = 0; tries < CHANNELS_MAX; tries++) {
        uint16_t number = (uint16_t)(1 + random_below(broker->random, 6));

        if (link->state != LINK_OPEN || link->channels[number].state != CHANNEL_OPEN)
            continue;
        channel_refuse(broker, link, number, 541, "INTERNAL_ERROR");
        return true;
    }
    return false;
}

/* ---- Time -------------------------------------------------------------------------------------------------------- */

static void deliver(struct broker_link *link, struct queue *queue, const struct consumer *consumer)
{
    struct channel *channel = &link->channels[consumer->channel];
    struct broker_message *message = queue_pop(queue);

    SEND(link, channel->number, BASIC_DELIVER, basic_deliver, .consumer_tag = amqp_cstring_bytes(consumer->tag),
         .delivery_tag = ++channel->deliveries, .redelivered = message->redelivered,
         .exchange = amqp_cstring_bytes(message->exchange), .routing_key = amqp_cstring_bytes(message->routing_key));
    send_message(link, channel, message);
    if (consumer->no_ack)
        message_free(message);
    else
        channel_owes(channel, queue, message);
}

static bool consumer_takes(const struct consumer *consumer)
{
    const struct channel *channel = &consumer->link->channels[consumer->channel];

    return consumer->no_ack || channel->prefetch == 0 || channel->unacked_count < channel->prefetch;
}

/* Its first message has waited long enough: it goes where the queue has such messages go. */
static void queue_expire(struct broker *broker, struct queue *queue)
{
    struct queue *target = queue_find(broker, queue->expired_to);
    struct broker_message *message = queue_pop(queue);

    story(broker, "a message of %s expires", queue->name);
    if (target == NULL) {
        message_free(message);
        return;
    }
    message->exchange[0] = '\0';
    snprintf(message->routing_key, sizeof(message->routing_key), "%s", queue->expired_to);
    message->expires_ms = UINT64_MAX;
    message->redelivered = false;
    queue_take(broker, target, message);
}

static void queue_dispatch(struct broker *broker, struct queue *queue)
{
    while (queue->first != NULL) {
        struct consumer **at = &queue->consumers, *consumer, **end;

        if (queue->first->expires_ms <= broker->now_ms) {
            queue_expire(broker, queue);
            continue;
        }
        while (*at != NULL && !consumer_takes(*at))
            at = &(*at)->next;
        if (*at == NULL)
            return;
        consumer = *at;
        deliver(consumer->link, queue, consumer);
        *at = consumer->next; /* the others first, next time */
        consumer->next = NULL;
        for (end = &queue->consumers; *end != NULL; end = &(*end)->next)
            ;
        *end = consumer;
    }
}

/* One confirm, or many of them by one. */
static void channel_confirm(struct broker *broker, struct broker_link *link, struct channel *channel)
{
    unsigned due[CONFIRMS_MAX], due_count = 0, prefix = 0, chosen;

    for (unsigned i = 0; i < channel->confirms_count; i++) {
        if (channel->confirms[i].due_ms <= broker->now_ms)
            due[due_count++] = i;
    }
    if (due_count == 0)
        return;
    while (prefix < channel->confirms_count && channel->confirms[prefix].due_ms <= broker->now_ms &&
           channel->confirms[prefix].ack == channel->confirms[0].ack)
        prefix++;
    if (prefix > 0 && random_percent(broker->random, broker->rules.multiple_percent)) {
        uint64_t tag = channel->confirms[prefix - 1].tag;

        if (channel->confirms[0].ack)
            SEND(link, channel->number, BASIC_ACK, basic_ack, .delivery_tag = tag, .multiple = 1);
        else
            SEND(link, channel->number, BASIC_NACK, basic_nack, .delivery_tag = tag, .multiple = 1);
        channel->confirms_count -= prefix;
        memmove(channel->confirms, channel->confirms + prefix, channel->confirms_count * sizeof(struct confirm));
        return;
    }
    chosen = due[random_below(broker->random, due_count)];
    if (channel->confirms[chosen].ack)
        SEND(link, channel->number, BASIC_ACK, basic_ack, .delivery_tag = channel->confirms[chosen].tag);
    else
        SEND(link, channel->number, BASIC_NACK, basic_nack, .delivery_tag = channel->confirms[chosen].tag);
    channel->confirms_count--;
    memmove(channel->confirms + chosen, channel->confirms + chosen + 1,
            (channel->confirms_count - chosen) * sizeof(struct confirm));
}

static void link_tick(struct broker *broker, struct broker_link *link)
{
    uint64_t interval_ms = (uint64_t)link->heartbeat_s * 1000;

    if (link->state != LINK_OPEN)
        return;
    for (unsigned number = 1; number <= CHANNELS_MAX; number++) {
        for (int times = 0; times < 4 && link->channels[number].confirms_count > 0; times++)
            channel_confirm(broker, link, &link->channels[number]);
    }
    if (broker->alarm && link->held_up && !link->told_blocked) {
        SEND(link, 0, CONNECTION_BLOCKED, connection_blocked, .reason = amqp_cstring_bytes("low on memory"));
        link->told_blocked = true;
    }
    if (interval_ms == 0)
        return;
    if (link->out.size > 0) {
        link->sent_ms = broker->now_ms;
    } else if (broker->now_ms - link->sent_ms >= interval_ms / 2) {
        frames_heartbeat(&link->out);
        link->sent_ms = broker->now_ms;
    }
    if (link->held_up)
        link->received_ms = broker->now_ms; /* it does not read, so it does not judge */
    if (broker->now_ms - link->received_ms > 3 * interval_ms) {
        story(broker, "%s: was silent for too long", link->name);
        link_end(broker, link);
        link->state = LINK_CLOSED;
    }
}

void broker_tick(struct broker *broker, uint64_t now_ms)
{
    broker->now_ms = now_ms;
    links_send_late(broker);
    for (struct queue *queue = broker->queues; queue != NULL; queue = queue->next)
        queue_dispatch(broker, queue);
    for (unsigned i = 0; i < BROKER_LINKS_MAX; i++) {
        if (broker->links[i].used)
            link_tick(broker, &broker->links[i]);
    }
}

/* ---- Faults ------------------------------------------------------------------------------------------------------ */

void broker_alarm(struct broker *broker, bool on)
{
    broker->alarm = on;
    for (unsigned i = 0; i < BROKER_LINKS_MAX; i++) {
        struct broker_link *link = &broker->links[i];

        if (!link->used || link->state != LINK_OPEN)
            continue;
        if (on && random_percent(broker->random, 50)) {
            SEND(link, 0, CONNECTION_BLOCKED, connection_blocked, .reason = amqp_cstring_bytes("low on disk"));
            link->told_blocked = true;
        } else if (!on && link->told_blocked) {
            SEND(link, 0, CONNECTION_UNBLOCKED, connection_unblocked, 0);
            link->told_blocked = false;
        }
        if (!on)
            link->held_up = false;
    }
}

bool broker_delete_queue(struct broker *broker, const char *name)
{
    struct queue *queue = queue_find(broker, name);

    if (queue == NULL)
        return false;
    for (const struct consumer *consumer = queue->consumers; consumer != NULL; consumer = consumer->next)
        SEND(consumer->link, consumer->channel, BASIC_CANCEL, basic_cancel,
             .consumer_tag = amqp_cstring_bytes(consumer->tag), .nowait = 1);
    queue_delete(broker, queue);
    return true;
}

static void queue_keep_persistent(struct queue *queue)
{
    struct broker_message *message = queue->first, *next;

    queue->first = NULL;
    queue->end = &queue->first;
    queue->count = 0;
    for (; message != NULL; message = next) {
        next = message->next;
        if (message->persistent)
            queue_push(queue, message);
        else
            message_free(message);
    }
}

void broker_restart(struct broker *broker)
{
    for (unsigned i = 0; i < BROKER_LINKS_MAX; i++) {
        if (broker->links[i].used)
            broker_drop(broker, &broker->links[i]);
    }
    for (struct queue *queue = broker->queues, *next; queue != NULL; queue = next) {
        next = queue->next;
        if (!queue->durable)
            queue_delete(broker, queue);
        else
            queue_keep_persistent(queue);
    }
    broker->alarm = false;
}

void broker_declare(struct broker *broker, const char *name, const char *exchange, const char *key)
{
    struct queue *queue = queue_new(broker, name);

    queue->durable = true;
    if (exchange == NULL)
        return;
    exchange_make(broker, exchange);
    binding_make(broker, queue, exchange, key);
}

bool broker_inject(struct broker *broker, const char *queue_name, const char *routing_key,
                   const amqp_basic_properties_t *properties, struct rpc_bytes body, bool poison)
{
    struct queue *queue = queue_find(broker, queue_name);
    struct broker_message *message;
    char raw[1024];
    int size;

    if (queue == NULL)
        return false;
    size = amqp_encode_properties(AMQP_BASIC_CLASS, (void *)(uintptr_t)properties, (amqp_bytes_t){sizeof(raw), raw});
    if (size < 0)
        abort();
    message = allocate(sizeof(*message));
    snprintf(message->exchange, NAME_SIZE, "nameko-rpc");
    snprintf(message->routing_key, NAME_SIZE, "%s", routing_key);
    message->raw_properties = copy_of((amqp_bytes_t){(size_t)size, raw});
    message->body = copy_of(frames_in(body));
    message->expires_ms = UINT64_MAX;
    message->poison = poison;
    queue_push(queue, message);
    return true;
}

const struct broker_message *broker_first(const struct broker *broker, const char *name)
{
    const struct queue *queue = queue_find(broker, name);

    return queue == NULL ? NULL : queue->first;
}

void broker_drop_first(struct broker *broker, const char *name)
{
    message_free(queue_pop(queue_find(broker, name)));
}

const char *broker_queue_like(const struct broker *broker, const char *prefix)
{
    for (const struct queue *queue = broker->queues; queue != NULL; queue = queue->next) {
        if (strncmp(queue->name, prefix, strlen(prefix)) == 0)
            return queue->name;
    }
    return NULL;
}

unsigned broker_consumers(const struct broker *broker, const char *name)
{
    const struct queue *queue = queue_find(broker, name);

    return queue == NULL ? 0 : consumers_count(queue);
}

unsigned broker_depth(const struct broker *broker, const char *name)
{
    const struct queue *queue = queue_find(broker, name);
    unsigned depth = queue == NULL ? 0 : queue->count;

    for (unsigned i = 0; i < BROKER_LINKS_MAX; i++) {
        for (unsigned number = 1; number <= CHANNELS_MAX; number++) {
            for (const struct delivery *at = broker->links[i].channels[number].unacked; at != NULL; at = at->next)
                depth += queue != NULL && at->queue == queue;
        }
    }
    return depth;
}

/* ---- Life -------------------------------------------------------------------------------------------------------- */

struct broker *broker_new(struct random *random, const struct broker_watcher *watcher)
{
    struct broker *broker = allocate(sizeof(*broker));

    broker->random = random;
    broker->watcher = *watcher;
    return broker;
}

struct broker_rules *broker_rules(struct broker *broker)
{
    return &broker->rules;
}

void broker_free(struct broker *broker)
{
    broker_restart(broker);
    while (broker->queues != NULL)
        queue_delete(broker, broker->queues);
    while (broker->exchanges != NULL) {
        struct exchange *exchange = broker->exchanges;

        broker->exchanges = exchange->next;
        free(exchange);
    }
    free(broker);
}

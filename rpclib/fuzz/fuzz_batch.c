/*
 * batch: several messages in one.  What is read is within the bytes that came, in their order, and written anew it is the
 * same; what is written can be read.  A service that gets any batch settles it once, answers each request at most once, and
 * where its sender said so; a client that gets any batch of answers ends each of its calls at most once.
 *
 * The input is a byte that says who gets it, two of the index's size, the index, and the bodies.
 */
#include <fuzz.h>

#include "amqp/frame.h"
#include "fuzz_peer.h"
#include "rpclib/client.h"
#include "rpclib/log.h"
#include "rpclib/service.h"

#define CHANNEL   1
#define CALLS     3
#define TO_CLIENT 1 /* of the first byte */

static struct rpc_service *service;
static struct rpc_client *client;
static unsigned handled, ended[CALLS];

/* ---- Reading and writing ----------------------------------------------------------------------------------------- */

static bool is_within(struct rpc_bytes part, struct rpc_bytes whole)
{
    return part.data >= whole.data && part.data + part.size <= whole.data + whole.size;
}

/* The entries lie one behind the other, and nothing is left over. */
static unsigned check_read(struct rpc_bytes index, struct rpc_bytes bodies, struct batch_entry *entries)
{
    struct batch_reader reader = {index, bodies};
    const char *index_at = index.data, *bodies_at = bodies.data;
    unsigned count = 0;

    while (count < BATCH_MESSAGES_MAX && batch_next(&reader, &entries[count])) {
        const struct batch_entry *entry = &entries[count++];

        HOLDS(is_within(entry->key, index) && is_within(entry->properties, index) && is_within(entry->body, bodies));
        HOLDS(entry->key.data == index_at + 1 && entry->properties.data == entry->key.data + entry->key.size + 2);
        HOLDS(entry->body.data == bodies_at + 1);
        index_at = entry->properties.data + entry->properties.size + 4;
        bodies_at = entry->body.data + entry->body.size;
    }
    if (!batch_is_sound((struct batch_reader){index, bodies}))
        return 0;
    HOLDS(count > 0 && index_at == index.data + index.size && bodies_at + 1 == bodies.data + bodies.size);
    HOLDS(bodies.data[0] == '[' && *bodies_at == ']');
    return count;
}

/* What could be read is written anew: the same bytes, unless it is larger than a batch of ours. */
static void check_write(struct rpc_bytes index, struct rpc_bytes bodies, const struct batch_entry *entries,
                        unsigned count)
{
    struct batch batch = {0};
    struct batch_reader written;
    unsigned added = 0;

    while (added < count && batch_add(&batch, &entries[added])) {
        added++;
        HOLDS(batch.count == added && batch_is_sound(batch_read(&batch)));
        HOLDS(batch.bodies.size <= BATCH_SIZE_MAX + 2 * BATCH_MESSAGES_MAX);
    }
    written = batch_read(&batch);
    HOLDS(added == count || bodies.size > BATCH_SIZE_MAX); /* the index is too small for its own bound */
    if (added == count)
        HOLDS(fuzz_equal(written.index, index) && fuzz_equal(written.bodies, bodies));
    batch_reset(&batch);
    HOLDS(batch.count == 0 && batch_add(&batch, &(struct batch_entry){.key = RPC_BYTES("k"), .body = RPC_BYTES("1")}));
    HOLDS(rpc_bytes_equal(batch_body(&batch), "[1]"));
    batch_clear(&batch);
}

static void check_bytes(struct rpc_bytes index, struct rpc_bytes bodies)
{
    struct rpc_bytes exact_index = {fuzz_exact(index), index.size}, exact_bodies = {fuzz_exact(bodies), bodies.size};
    struct batch_entry entries[BATCH_MESSAGES_MAX];
    unsigned count = check_read(exact_index, exact_bodies, entries);

    if (count > 0)
        check_write(exact_index, exact_bodies, entries, count);
    free((char *)(uintptr_t)exact_index.data);
    free((char *)(uintptr_t)exact_bodies.data);
}

/* ---- A service that gets it -------------------------------------------------------------------------------------- */

static void on_echo(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    (void)arg;
    handled++;
    HOLDS(rpc_incoming_context(request) != NULL);
    rpc_incoming_answer_json(request, arguments[0]);
}

static const struct rpc_method methods[] = {
    {.name = "echo", .parameters = (const char *const[]){"a", NULL}, .parameters_required = 1, .handler = on_echo}};

static void deliver(const char *routing_key, struct rpc_bytes index, struct rpc_bytes bodies)
{
    amqp_table_entry_t header = {.key = amqp_cstring_bytes("rpclib-batch"),
                                 .value = {.kind = AMQP_FIELD_KIND_BYTES, .value.bytes = frame_bytes(index)}};

    peer_deliver(CHANNEL, 1, false, routing_key,
                 &(amqp_basic_properties_t){._flags = AMQP_BASIC_HEADERS_FLAG | AMQP_BASIC_REPLY_TO_FLAG,
                                            .reply_to = amqp_cstring_bytes("caller"),
                                            .headers = {.num_entries = 1, .entries = &header}},
                 bodies);
    peer_run();
}

static unsigned answers_count(void)
{
    struct batch_entry entries[BATCH_MESSAGES_MAX];
    unsigned count = 0;

    for (unsigned i = 0; i < peer.messages_count; i++) {
        unsigned together = peer_batch(i, entries);

        HOLDS(together != 1 && strchr(peer.messages[i].routing_key, '.') == NULL);
        count += together > 0 ? together : 1;
    }
    return count;
}

static void check_service(struct rpc_bytes index, struct rpc_bytes bodies)
{
    bool sound = batch_is_sound((struct batch_reader){index, bodies});
    struct rpc_service_stats stats;
    const char *settled;

    service = rpc_service_new(peer.connection,
                              &(struct rpc_service_options){.name = "shop", .methods = methods, .methods_count = 1});
    HOLDS(service != NULL);
    peer_run();
    peer.story[0] = '\0';
    handled = 0;
    deliver("shop." BATCH_METHOD, index, bodies);
    settled = strrchr(peer.story, ';');
    settled = settled == NULL ? peer.story : settled + 2;
    HOLDS(strcmp(settled, sound ? "1 ack 1" : "1 reject 1") == 0 && strstr(peer.story, "1 ack 1; ") == NULL);
    rpc_service_stats(service, &stats);
    HOLDS(answers_count() == stats.answers && stats.answers <= (sound ? BATCH_MESSAGES_MAX : 0));
    HOLDS(handled <= stats.answers && rpc_service_in_flight(service) == 0);
    rpc_service_free(service);
}

/* ---- A client that gets it --------------------------------------------------------------------------------------- */

static void on_reply(enum rpc_status status, const struct rpc_reply *reply, void *arg)
{
    unsigned *count = arg;

    HOLDS((reply != NULL) == (status == RPC_OK || status == RPC_REMOTE_ERROR));
    HOLDS(++*count == 1);
}

static void call(unsigned number)
{
    HOLDS(rpc_call(client, &(struct rpc_request){.service = "shop", .method = "echo", .timeout_ms = 1000}, on_reply,
                   &ended[number], NULL) == RPC_OK);
}

/* Keys that begin with NUL and a number stand for the calls' own ids, which are random. */
static struct rpc_bytes with_ids(struct rpc_bytes index, struct rpc_bytes bodies, struct batch *batch)
{
    struct batch_reader reader = {index, bodies};
    struct batch_entry entry;

    while (batch->count < BATCH_MESSAGES_MAX && batch_next(&reader, &entry)) {
        if (entry.key.size == 2 && entry.key.data[0] == '\0')
            entry.key = rpc_bytes_of(peer.messages[(unsigned char)entry.key.data[1] % CALLS].correlation_id);
        if (!batch_add(batch, &entry))
            break;
    }
    return batch_read(batch).index;
}

static void check_client(struct rpc_bytes index, struct rpc_bytes bodies)
{
    bool sound = batch_is_sound((struct batch_reader){index, bodies});
    struct batch batch = {0};
    struct rpc_client_stats stats;

    memset(ended, 0, sizeof(ended));
    client = rpc_client_new(peer.connection, &(struct rpc_client_options){.name = "front"});
    HOLDS(client != NULL);
    peer_run();
    for (unsigned i = 0; i < CALLS; i++)
        call(i);
    peer_run();
    HOLDS(peer.messages_count == CALLS);
    if (sound)
        index = with_ids(index, bodies, &batch);
    deliver(peer.messages[0].reply_to, index, batch.count > 0 ? batch_body(&batch) : bodies);
    rpc_client_stats(client, &stats);
    HOLDS(stats.replies == ended[0] + ended[1] + ended[2] && stats.replies + stats.late_replies == batch.count);
    rpc_client_free(client);
    HOLDS(ended[0] == 1 && ended[1] == 1 && ended[2] == 1);
    batch_clear(&batch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_bytes input = fuzz_bytes(data, size), index;
    uint8_t who = fuzz_byte(&input);
    size_t index_size = (size_t)fuzz_byte(&input) << 8;

    index_size |= fuzz_byte(&input);
    index = fuzz_take(&input, index_size);
    check_bytes(index, input);
    if (index.size > 3500) /* the peer's frames are small */
        return 0;
    rpc_log_configure("fuzz", RPC_LOG_ERROR + 1, RPC_LOG_LOGFMT);
    fuzz_peer_begin();
    if (who & TO_CLIENT)
        check_client(index, input);
    else
        check_service(index, input);
    fuzz_peer_end(size);
    return 0;
}

#include "batch.h"

#define HEADER         "rpclib-batch"
#define KEY_SIZE_MAX   255
#define PROPERTIES_MAX 65535
#define INDEX_ROOM     7     /* the three sizes of an entry */
#define INDEX_SIZE_MAX 65536 /* a header travels in one frame */

static void put(char *at, size_t value, unsigned size)
{
    while (size-- > 0) {
        at[size] = (char)(value & 0xff);
        value >>= 8;
    }
}

static bool index_add(struct rpc_text *index, const struct batch_entry *entry)
{
    size_t size = INDEX_ROOM + entry->key.size + entry->properties.size;
    char *at = rpc_text_reserve(index, size);

    if (at == NULL)
        return false;
    put(at, entry->key.size, 1);
    memcpy(at + 1, entry->key.data, entry->key.size);
    at += 1 + entry->key.size;
    put(at, entry->properties.size, 2);
    if (entry->properties.size > 0)
        memcpy(at + 2, entry->properties.data, entry->properties.size);
    at += 2 + entry->properties.size;
    put(at, entry->body.size, 4);
    rpc_text_commit(index, size);
    return true;
}

/* The array is closed at each step, so that what is there is always the whole body. */
static bool bodies_add(struct rpc_text *bodies, struct rpc_bytes body)
{
    size_t before = bodies->size;
    char *at = rpc_text_reserve(bodies, body.size + 2);

    if (at == NULL)
        return false;
    if (before > 0) {
        rpc_text_truncate(bodies, before - 1);
        *--at = ',';
    } else {
        *at = '[';
    }
    memcpy(at + 1, body.data, body.size);
    at[1 + body.size] = ']';
    rpc_text_commit(bodies, body.size + 2);
    return true;
}

bool batch_add(struct batch *batch, const struct batch_entry *entry)
{
    size_t before = batch->index.size;

    if (batch->count == BATCH_MESSAGES_MAX || entry->key.size == 0 || entry->key.size > KEY_SIZE_MAX ||
        entry->properties.size > PROPERTIES_MAX || entry->body.size == 0 ||
        batch->bodies.size + entry->body.size > BATCH_SIZE_MAX || before + entry->properties.size > INDEX_SIZE_MAX ||
        !index_add(&batch->index, entry))
        return false;
    if (!bodies_add(&batch->bodies, entry->body)) {
        rpc_text_truncate(&batch->index, before);
        return false;
    }
    batch->count++;
    return true;
}

void batch_reset(struct batch *batch)
{
    rpc_text_reset(&batch->index, RPC_TEXT_KEEP_SIZE);
    rpc_text_reset(&batch->bodies, RPC_TEXT_KEEP_SIZE);
    batch->count = 0;
}

void batch_clear(struct batch *batch)
{
    rpc_text_clear(&batch->index);
    rpc_text_clear(&batch->bodies);
    batch->count = 0;
}

amqp_table_entry_t batch_header(const struct batch *batch)
{
    return (amqp_table_entry_t){
        .key = amqp_cstring_bytes(HEADER),
        .value = {.kind = AMQP_FIELD_KIND_BYTES, .value.bytes = frame_bytes(rpc_text_bytes(&batch->index))}};
}

struct rpc_bytes batch_body(const struct batch *batch)
{
    return rpc_text_bytes(&batch->bodies);
}

/* --- reading --- */

struct batch_reader batch_read(const struct batch *batch)
{
    return (struct batch_reader){rpc_text_bytes(&batch->index), batch_body(batch)};
}

bool batch_open(struct batch_reader *out, const struct mq_message *message)
{
    const amqp_basic_properties_t *properties = message->properties;

    if (properties == NULL || !(properties->_flags & AMQP_BASIC_HEADERS_FLAG))
        return false;
    for (int i = 0; i < properties->headers.num_entries; i++) {
        const amqp_table_entry_t *header = &properties->headers.entries[i];

        if (header->value.kind == AMQP_FIELD_KIND_BYTES && rpc_bytes_equal(frame_text(header->key), HEADER)) {
            *out = (struct batch_reader){frame_text(header->value.value.bytes), message->body};
            return true;
        }
    }
    return false;
}

/* The first `size` bytes of `from`, taken off it.  False when there are fewer. */
static bool take(struct rpc_bytes *from, size_t size, struct rpc_bytes *out)
{
    if (from->size < size)
        return false;
    *out = (struct rpc_bytes){from->data, size};
    from->data += size;
    from->size -= size;
    return true;
}

static bool take_size(struct rpc_bytes *from, unsigned size, size_t *out)
{
    struct rpc_bytes digits;

    if (!take(from, size, &digits))
        return false;
    *out = 0;
    for (unsigned i = 0; i < size; i++)
        *out = *out << 8 | (unsigned char)digits.data[i];
    return true;
}

/* A body stands behind '[' or ','; the last one before ']'. */
bool batch_next(struct batch_reader *reader, struct batch_entry *out)
{
    struct rpc_bytes mark;
    size_t size;

    return take_size(&reader->index, 1, &size) && take(&reader->index, size, &out->key) &&
           take_size(&reader->index, 2, &size) && take(&reader->index, size, &out->properties) &&
           take_size(&reader->index, 4, &size) && take(&reader->bodies, 1, &mark) &&
           take(&reader->bodies, size, &out->body);
}

bool batch_is_sound(struct batch_reader reader)
{
    struct batch_entry entry;
    unsigned count = 0;

    while (reader.index.size > 0) {
        char mark = reader.bodies.size > 0 ? reader.bodies.data[0] : '\0';

        if (mark != (count == 0 ? '[' : ',') || count == BATCH_MESSAGES_MAX || !batch_next(&reader, &entry) ||
            entry.key.size == 0 || entry.body.size == 0)
            return false;
        count++;
    }
    return count > 0 && rpc_bytes_equal(reader.bodies, "]");
}

bool batch_sender_takes(const amqp_basic_properties_t *properties)
{
    return rpc_bytes_equal(FRAME_PROPERTY(properties, APP_ID, app_id), BATCH_APP_ID);
}

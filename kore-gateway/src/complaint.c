#include "complaint.h"

#include <rpclib/json.h>

#define PATH_SIZE_MAX 256 /* bytes of a field's path; what is deeper is told by less of it */

struct complaint {
    struct rpc_text *text;
    size_t limit; /* the text's size at which it ends */
    bool cut;
};

static void append_message(struct complaint *complaint, struct rpc_bytes path, const json_t *message)
{
    struct rpc_bytes words = rpc_json_text(message);
    bool first = complaint->text->size + COMPLAINT_SIZE_MAX == complaint->limit;

    if (complaint->cut || complaint->text->size + path.size + words.size + 4 > complaint->limit) {
        complaint->cut = true;
        return;
    }
    if (!first)
        rpc_text_append(complaint->text, RPC_BYTES(" "));
    rpc_text_append(complaint->text, path);
    if (path.size > 0)
        rpc_text_append(complaint->text, RPC_BYTES(": "));
    rpc_text_append(complaint->text, words);
}

static void append_value(struct complaint *complaint, struct rpc_bytes path, const json_t *value);

static void append_field(struct complaint *complaint, struct rpc_bytes path, const char *name, const json_t *value)
{
    char longer[PATH_SIZE_MAX];
    size_t size = strlen(name);

    /* What concerns an object as a whole has no name of its own. */
    if (strcmp(name, "_schema") == 0 || path.size + 1 + size > sizeof(longer)) {
        append_value(complaint, path, value);
        return;
    }
    if (path.size > 0) {
        memcpy(longer, path.data, path.size);
        longer[path.size++] = '.';
    }
    memcpy(longer + path.size, name, size);
    append_value(complaint, (struct rpc_bytes){longer, path.size + size}, value);
}

/* As deep as the JSON is, which is bounded where it was read. */
static void append_value(struct complaint *complaint, struct rpc_bytes path, const json_t *value)
{
    const char *name;
    const json_t *member;

    if (json_is_string(value))
        append_message(complaint, path, value);
    for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++)
        append_value(complaint, path, json_array_get(value, i));
    if (!json_is_object(value))
        return;
    json_object_foreach((json_t *)(uintptr_t)value, name, member)
    {
        append_field(complaint, path, name, member);
    }
}

void complaint_append(struct rpc_text *text, const json_t *messages)
{
    struct complaint complaint = {.text = text, .limit = text->size + COMPLAINT_SIZE_MAX};

    append_value(&complaint, (struct rpc_bytes){NULL, 0}, messages);
    if (complaint.cut)
        rpc_text_append(text, RPC_BYTES(" ..."));
}

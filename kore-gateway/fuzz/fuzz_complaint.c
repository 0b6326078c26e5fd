/*
 * complaint and answer: what a service finds wrong, as a client gets it.  The line is UTF-8, has its bound, and says of each
 * message as much as fits; the response around it has one head, whose length is the body's, and a body that is JSON and
 * holds the line as it was.
 *
 * The first byte says how the response leaves, the rest is the messages' JSON.
 */
#include <fuzz.h>

#include "answer.h"
#include "complaint.h"
#include "rpclib/json.h"

#define BEGIN    "Bad request. "
#define CUT_SIZE 4 /* " ..." */

enum leaving { WITHOUT_BODY = 1, CLOSES = 2, SAYS_KEEP_ALIVE = 4, RETRY_AFTER = 8 };

/* All texts of it, as many bytes as they have. */
static size_t texts_size(const json_t *value)
{
    size_t size = json_is_string(value) ? json_string_length(value) : 0;
    const char *name;
    json_t *member;

    for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++)
        size += texts_size(json_array_get(value, i));
    json_object_foreach((json_t *)(uintptr_t)value, name, member)
    {
        size += texts_size(member);
    }
    return size;
}

static void check_line(struct rpc_bytes line, const json_t *messages)
{
    struct rpc_bytes added = {line.data + strlen(BEGIN), line.size - strlen(BEGIN)};
    bool is_cut = added.size >= CUT_SIZE && memcmp(added.data + added.size - CUT_SIZE, " ...", CUT_SIZE) == 0;

    HOLDS(memcmp(line.data, BEGIN, strlen(BEGIN)) == 0 && added.size <= COMPLAINT_SIZE_MAX + CUT_SIZE);
    HOLDS(fuzz_is_utf8(line));
    HOLDS(is_cut || added.size >= texts_size(messages));
    if (json_is_string(messages) && !is_cut)
        HOLDS(added.size == json_string_length(messages) &&
              memcmp(added.data, json_string_value(messages), added.size) == 0);
}

static unsigned count(struct rpc_bytes head, const char *part)
{
    size_t size = strlen(part);
    unsigned found = 0;

    for (size_t at = 0; at + size <= head.size; at++)
        found += memcmp(head.data + at, part, size) == 0;
    return found;
}

/* Lines that end in CRLF, none of them empty but the last. */
static struct rpc_bytes head_of(struct rpc_bytes wire)
{
    const char *end = memmem(wire.data, wire.size, "\r\n\r\n", 4);

    HOLDS(end != NULL);
    return (struct rpc_bytes){wire.data, (size_t)(end + 4 - wire.data)};
}

static void check_body(struct rpc_bytes body, struct rpc_bytes line)
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *value = rpc_json_load(body, reason);
    const json_t *message = json_object_get(value, "message");

    HOLDS(json_object_size(value) == 2 && json_string_length(message) == line.size);
    HOLDS(memcmp(json_string_value(message), line.data, line.size) == 0);
    json_decref(value);
}

static void check_response(uint8_t how, struct rpc_bytes line)
{
    const struct answer_sending sending = {.without_body = how & WITHOUT_BODY,
                                           .close = how & CLOSES,
                                           .say_keep_alive = how & SAYS_KEEP_ALIVE,
                                           .now_s = 1800000000};
    struct answer answer = {.retry_after = how & RETRY_AFTER};
    struct rpc_bytes wire, head, body;
    size_t length;

    answer_error(&answer, 400, "VALIDATION_ERROR", line);
    HOLDS(answer_finish(&answer, &sending, &wire));
    head = head_of(wire);
    body = (struct rpc_bytes){wire.data + head.size, wire.size - head.size};
    HOLDS(count(head, "HTTP/1.1 400 Bad Request\r\n") == 1 && count(head, "\r\nContent-Length: ") == 1);
    HOLDS(count(head, "\r\nConnection: ") == ((how & (CLOSES | SAYS_KEEP_ALIVE)) != 0));
    HOLDS(count(head, "\r\nRetry-After: ") == ((how & RETRY_AFTER) != 0));
    length = strtoul((const char *)memmem(head.data, head.size, "Content-Length: ", 16) + 16, NULL, 10);
    HOLDS(how & WITHOUT_BODY ? body.size == 0 && length > 0 : body.size == length);
    if (!(how & WITHOUT_BODY))
        check_body(body, line);
    answer_clear(&answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_bytes input = fuzz_bytes(data, size);
    uint8_t how = fuzz_byte(&input);
    char reason[RPC_JSON_REASON_SIZE];
    json_t *messages = rpc_json_load(input, reason);
    struct rpc_text text = {.data = NULL};

    if (messages == NULL)
        return 0;
    rpc_text_append(&text, RPC_BYTES(BEGIN));
    complaint_append(&text, messages);
    HOLDS(!text.failed);
    check_line(rpc_text_bytes(&text), messages);
    check_response(how, rpc_text_bytes(&text));
    rpc_text_clear(&text);
    json_decref(messages);
    return 0;
}

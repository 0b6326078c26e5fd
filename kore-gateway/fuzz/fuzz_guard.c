/*
 * guard: one decision about a stream of requests, however it is cut, and never another one than a reader has that knows
 * nothing of the guard: it looks at the head that was taken as lines, one after another.
 *
 * The first byte decides where the stream is cut; the rest is what a client sends.
 */
#include <fuzz.h>
#include <strings.h>

#include "guard.h"

#define REQUESTS_MAX   8 /* of one stream */
#define BYTEWISE_MAX   2048
#define CHUNK_SIZE_MAX 700

/* ---- The same, cut or not ---------------------------------------------------------------------------------------- */

struct decision {
    enum guard_verdict verdict;
    struct guard_request request;
    const struct guard_refusal *refusal; /* NULL: not refused */
};

struct decisions {
    struct decision items[REQUESTS_MAX];
    unsigned count;
};

enum cutting { WHOLE, AT_RANDOM, BYTE_BY_BYTE };

static size_t next_size(enum cutting cutting, uint32_t *seed, size_t stream_size)
{
    switch (cutting) {
    case WHOLE:
        break;
    case AT_RANDOM:
        return 1 + fuzz_random(seed, fuzz_random(seed, 4) == 0 ? CHUNK_SIZE_MAX : 20 + (uint32_t)(stream_size / 50));
    case BYTE_BY_BYTE:
        return 1;
    }
    return SIZE_MAX / 2;
}

/* One request, its bytes handed over bit by bit, each time at another place. */
static struct decision decide(struct rpc_bytes input, enum cutting cutting, uint32_t *seed)
{
    struct decision decision = {.verdict = GUARD_MORE};
    struct guard guard = {.refusal = NULL};
    size_t size = 0;

    while (decision.verdict == GUARD_MORE && size < input.size) {
        char *moved;

        size += next_size(cutting, seed, input.size);
        if (size > input.size)
            size = input.size;
        moved = fuzz_exact((struct rpc_bytes){input.data, size});
        decision.verdict = guard_check(&guard, (struct rpc_bytes){moved, size});
        HOLDS(guard_check(&guard, (struct rpc_bytes){moved, size}) == decision.verdict);
        free(moved);
    }
    HOLDS((decision.verdict == GUARD_REFUSED) == (guard.refusal != NULL));
    HOLDS((decision.verdict == GUARD_OK) == (guard.refusal == NULL && guard.request.head_size > 0));
    if (decision.verdict == GUARD_OK)
        decision.request = guard.request;
    decision.refusal = guard.refusal;
    return decision;
}

static struct decisions decide_all(struct rpc_bytes stream, enum cutting cutting, uint32_t seed)
{
    struct decisions decisions = {.count = 0};

    while (decisions.count < REQUESTS_MAX) {
        struct decision *decision = &decisions.items[decisions.count++];

        *decision = decide(stream, cutting, &seed);
        if (decision->verdict != GUARD_OK)
            break;
        fuzz_take(&stream, (size_t)decision->request.head_size + decision->request.body_size);
    }
    return decisions;
}

static bool span_is(struct guard_span one, struct guard_span other)
{
    return one.at == other.at && one.size == other.size;
}

static void are_equal(const struct decisions *one, const struct decisions *other)
{
    HOLDS(one->count == other->count);
    for (unsigned i = 0; i < one->count; i++) {
        const struct guard_request *a = &one->items[i].request, *b = &other->items[i].request;

        HOLDS(one->items[i].verdict == other->items[i].verdict);
        HOLDS(one->items[i].refusal == other->items[i].refusal);
        HOLDS(a->method == b->method && a->keep_alive == b->keep_alive && a->http_1_0 == b->http_1_0);
        HOLDS(a->expects_continue == b->expects_continue && a->has_key == b->has_key);
        HOLDS(a->head_size == b->head_size && a->body_size == b->body_size);
        HOLDS(span_is(a->method_name, b->method_name) && span_is(a->target, b->target));
        HOLDS(span_is(a->idempotency_key, b->idempotency_key));
        HOLDS(span_is(a->traceparent, b->traceparent) && span_is(a->tracestate, b->tracestate));
    }
}

/* ---- What a request was, as the other reader sees it ------------------------------------------------------------- */

struct seen {
    unsigned lines, hosts, lengths, codings, keys;
    uint64_t length;
    bool close, keep;
};

static struct rpc_bytes trimmed(struct rpc_bytes text)
{
    while (text.size > 0 && (*text.data == ' ' || *text.data == '\t'))
        text = (struct rpc_bytes){text.data + 1, text.size - 1};
    while (text.size > 0 && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\t'))
        text.size--;
    return text;
}

static bool is_word(struct rpc_bytes text, const char *word)
{
    return text.size == strlen(word) && strncasecmp(text.data, word, text.size) == 0;
}

/* The bytes up to the first `end`, which is taken off as well. */
static struct rpc_bytes part_of(struct rpc_bytes *text, const char *end)
{
    const char *found = text->size == 0 ? NULL : memmem(text->data, text->size, end, strlen(end));
    struct rpc_bytes part = fuzz_take(text, found == NULL ? text->size : (size_t)(found - text->data));

    fuzz_take(text, strlen(end));
    return part;
}

static void see_header(struct seen *seen, struct rpc_bytes line)
{
    struct rpc_bytes name = part_of(&line, ":"), value = trimmed(line);

    HOLDS(name.size > 0);
    for (size_t i = 0; i < name.size; i++)
        HOLDS(name.data[i] > ' ' && name.data[i] < 0x7F && strchr("\"(),/:;<=>?@[\\]{}", name.data[i]) == NULL);
    for (size_t i = 0; i < value.size; i++)
        HOLDS((unsigned char)value.data[i] >= ' ' || value.data[i] == '\t');
    seen->lines++;
    seen->hosts += is_word(name, "host");
    seen->codings += is_word(name, "transfer-encoding");
    seen->keys += is_word(name, "idempotency-key");
    if (is_word(name, "content-length")) {
        seen->lengths++;
        HOLDS(value.size > 0);
        for (size_t i = 0; i < value.size; i++) {
            HOLDS(value.data[i] >= '0' && value.data[i] <= '9');
            seen->length = seen->length * 10 + (uint64_t)(value.data[i] - '0');
            HOLDS(seen->length <= GUARD_BODY_SIZE_MAX);
        }
    }
    while (is_word(name, "connection") && value.size > 0) {
        struct rpc_bytes word = trimmed(part_of(&value, ","));

        seen->close |= is_word(word, "close");
        seen->keep |= is_word(word, "keep-alive");
    }
}

static bool has_body(enum guard_method method)
{
    return method == GUARD_POST || method == GUARD_PUT || method == GUARD_PATCH;
}

static void check_request_line(const struct guard_request *request, const char *input, struct rpc_bytes line)
{
    struct rpc_bytes method = part_of(&line, " "), target = part_of(&line, " ");

    HOLDS(fuzz_equal(method, guard_bytes(input, request->method_name)) && method.size > 0);
    HOLDS(fuzz_equal(target, guard_bytes(input, request->target)) && target.size <= GUARD_TARGET_SIZE_MAX);
    HOLDS(target.size > 0 && target.data[0] == '/');
    for (size_t i = 0; i < target.size; i++)
        HOLDS(target.data[i] > ' ' && target.data[i] < 0x7F && target.data[i] != '#');
    HOLDS(rpc_bytes_equal(line, request->http_1_0 ? "HTTP/1.0" : "HTTP/1.1"));
}

static void check_request(const struct guard_request *request, const char *input)
{
    struct rpc_bytes head = {input, request->head_size}, line;
    struct seen seen = {0};

    HOLDS(request->head_size <= GUARD_HEAD_SIZE_MAX && request->body_size <= GUARD_BODY_SIZE_MAX);
    HOLDS(memcmp(input + head.size - 4, "\r\n\r\n", 4) == 0);
    for (size_t i = 0; i < head.size; i++)
        HOLDS(input[i] != '\0' && (input[i] != '\n' || (i > 0 && input[i - 1] == '\r')) &&
              (input[i] != '\r' || input[i + 1] == '\n'));
    line = part_of(&head, "\r\n");
    if (line.size == 0)
        line = part_of(&head, "\r\n");
    check_request_line(request, input, line);
    for (line = part_of(&head, "\r\n"); line.size > 0; line = part_of(&head, "\r\n"))
        see_header(&seen, line);
    HOLDS(head.size == 0);
    HOLDS(seen.lines <= GUARD_HEADERS_MAX && seen.codings == 0 && seen.lengths <= 1 && seen.keys <= 1);
    HOLDS(seen.hosts == 1 || (seen.hosts == 0 && request->http_1_0));
    HOLDS(seen.length == request->body_size);
    HOLDS(has_body(request->method) ? seen.lengths == 1 : request->body_size == 0);
    HOLDS(request->keep_alive == (!seen.close && (!request->http_1_0 || seen.keep)));
    HOLDS(request->has_key == (seen.keys == 1));
}

static void check_requests(const struct decisions *decisions, struct rpc_bytes stream)
{
    for (unsigned i = 0; i < decisions->count && decisions->items[i].verdict == GUARD_OK; i++) {
        const struct guard_request *request = &decisions->items[i].request;

        HOLDS(request->head_size <= stream.size);
        check_request(request, stream.data);
        fuzz_take(&stream, (size_t)request->head_size + request->body_size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_bytes stream = fuzz_bytes(data, size);
    uint32_t seed = fuzz_byte(&stream);
    struct decisions whole = decide_all(stream, WHOLE, 0), cut = decide_all(stream, AT_RANDOM, seed);

    are_equal(&whole, &cut);
    if (stream.size <= BYTEWISE_MAX) {
        cut = decide_all(stream, BYTE_BY_BYTE, 0);
        are_equal(&whole, &cut);
    }
    check_requests(&whole, stream);
    return 0;
}

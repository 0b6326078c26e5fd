/*
 * letter: an event that is not handled, whatever its properties are.  It is put aside once, with its body, its headers and
 * ours, which count its attempts, and settled when the broker has that.  Then the tool gets it, or the event itself, as
 * somebody else might have put it there: what is shown is text without control characters; nothing is acknowledged but
 * what was purged, or replayed and confirmed; a replayed one has no mark of ours, but where it was published at first.
 *
 * The input is a byte that says what the tool does, two of the properties' size, the properties, and the body.
 */
#include <fuzz.h>

#include "amqp/frame.h"
#include "fuzz_peer.h"
#include "rpclib/log.h"
#include "rpclib/service.h"
#include "rpclib/settings.h"
#include "src/dead_letters.h"
#include "tools/dead_letters.h"

#define EVENTS         2    /* behind the dead letters; the service has no methods */
#define TOOL           1    /* the tool's, once the service is gone */
#define PROPERTIES_MAX 3500 /* the peer's frames are small */
#define ROOM           500  /* for our headers, in such a frame */
#define ATTEMPTS_MAX   3
#define ATTEMPTS_LIMIT 1000000000
#define QUESTIONS_MAX  8
#define SHOWN_LINES    7

#define EVENT_QUEUE "evt-orders-order_created--products.on_order"

enum verb { VERB_LIST, VERB_SHOW, VERB_REPLAY, VERB_PURGE, VERBS };

/* The first byte, but for the verb. */
enum circumstances {
    IS_FOREIGN = 4, /* the tool gets what came, not what the service made of it */
    ALL = 8,        /* "all", not "1" */
    DRY_RUN = 16,
    NOT_CONFIRMED = 32,
    RETURNED = 64,
};

static unsigned failed; /* events at the handler */

/* ---- Properties -------------------------------------------------------------------------------------------------- */

struct decoded {
    amqp_pool_t pool;
    amqp_basic_properties_t *properties;
};

static bool decode(struct decoded *out, struct rpc_bytes raw)
{
    void *properties;
    bool sound;

    init_amqp_pool(&out->pool, 4096);
    sound = amqp_decode_properties(AMQP_BASIC_CLASS, &out->pool, frame_bytes(raw), &properties) >= 0;
    out->properties = sound ? properties : NULL;
    if (!sound)
        empty_amqp_pool(&out->pool);
    return sound;
}

static const amqp_table_t *headers_of(const struct decoded *decoded)
{
    static const amqp_table_t none = {0};

    return decoded->properties->_flags & AMQP_BASIC_HEADERS_FLAG ? &decoded->properties->headers : &none;
}

static unsigned count(const amqp_table_t *headers, const char *key)
{
    unsigned found = 0;

    for (int i = 0; i < headers->num_entries; i++)
        found += rpc_bytes_equal(frame_text(headers->entries[i].key), key);
    return found;
}

static bool is_mark(struct rpc_bytes key)
{
    return (key.size > 10 && memcmp(key.data, "x-airship-", 10) == 0) || rpc_bytes_equal(key, "CC") ||
           rpc_bytes_equal(key, "BCC");
}

static unsigned unmarked_count(const amqp_table_t *headers)
{
    unsigned found = 0;

    for (int i = 0; i < headers->num_entries; i++)
        found += !is_mark(frame_text(headers->entries[i].key));
    return found;
}

/* The first text of that name. */
static struct rpc_bytes text_of(const amqp_table_t *headers, const char *key)
{
    for (int i = 0; i < headers->num_entries; i++) {
        const amqp_table_entry_t *entry = &headers->entries[i];

        if (rpc_bytes_equal(frame_text(entry->key), key) && entry->value.kind == AMQP_FIELD_KIND_UTF8)
            return frame_text(entry->value.value.bytes);
    }
    return (struct rpc_bytes){"", 0};
}

/* A request goes where it was published at first; what goes to its queue is told where that was. */
static bool is_request(const amqp_table_t *headers)
{
    struct rpc_bytes queue = text_of(headers, LETTER_QUEUE);

    return queue.size > 4 && memcmp(queue.data, "rpc-", 4) == 0;
}

static unsigned replayed_count(const amqp_table_t *headers)
{
    return unmarked_count(headers) +
           (is_request(headers) ? 0 : count(headers, LETTER_EXCHANGE) + count(headers, LETTER_ROUTING_KEY));
}

/* Of what somebody wrote: the last number that can be one. */
static int64_t attempts_of(const amqp_table_t *headers)
{
    int64_t attempts = 0;

    for (int i = 0; i < headers->num_entries; i++) {
        const amqp_table_entry_t *entry = &headers->entries[i];

        if (rpc_bytes_equal(frame_text(entry->key), LETTER_ATTEMPTS) && entry->value.kind == AMQP_FIELD_KIND_I64 &&
            entry->value.value.i64 > 0)
            attempts = entry->value.value.i64;
    }
    return attempts < ATTEMPTS_LIMIT ? attempts : ATTEMPTS_LIMIT;
}

/* ---- The service puts it aside ----------------------------------------------------------------------------------- */

static void on_event(struct rpc_event *event, json_t *data, void *arg)
{
    (void)data;
    (void)arg;
    failed++;
    rpc_event_fail(event, "no \xff such\x1b[2J product");
}

static const struct rpc_event_handler handlers[] = {{.source = "orders",
                                                     .event_type = "order_created",
                                                     .name = "on_order",
                                                     .attempts_max = ATTEMPTS_MAX,
                                                     .handler = on_event}};

static void check_route(const struct peer_message *letter, int64_t attempts)
{
    char retry[128];

    snprintf(retry, sizeof(retry), EVENT_QUEUE ".retry-%d", attempts == 1 ? 1000 : 5000);
    HOLDS(letter->mandatory && letter->exchange[0] == '\0');
    if (failed > 0 && attempts < ATTEMPTS_MAX)
        HOLDS(strcmp(letter->routing_key, retry) == 0);
    else
        HOLDS(strcmp(letter->routing_key, "products.dead-letters") == 0);
}

static void check_letter(const struct peer_message *letter, const struct decoded *event, struct rpc_bytes body)
{
    static const char *const ours[] = {LETTER_CAUSE, LETTER_ATTEMPTS, LETTER_TIME,
                                       LETTER_QUEUE, LETTER_EXCHANGE, LETTER_ROUTING_KEY};
    struct decoded decoded;
    const amqp_table_t *headers;

    HOLDS(decode(&decoded, (struct rpc_bytes){letter->raw_properties, letter->raw_size}));
    headers = headers_of(&decoded);
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        HOLDS(count(headers, ours[i]) == 1);
    HOLDS(count(headers, "CC") == 0 && count(headers, "BCC") == 0);
    HOLDS(headers_of(event)->num_entries > DEAD_LETTERS_HEADERS_MAX - 6 ||
          unmarked_count(headers) == unmarked_count(headers_of(event)));
    HOLDS(attempts_of(headers) ==
          (attempts_of(headers_of(event)) == ATTEMPTS_LIMIT ? ATTEMPTS_LIMIT : attempts_of(headers_of(event)) + 1));
    HOLDS(rpc_bytes_equal(text_of(headers, LETTER_QUEUE), EVENT_QUEUE));
    HOLDS(rpc_bytes_equal(text_of(headers, LETTER_EXCHANGE), "orders.events")); /* whatever somebody wrote */
    HOLDS(rpc_bytes_equal(text_of(headers, LETTER_ROUTING_KEY), "order_created"));
    HOLDS(!(decoded.properties->_flags & (AMQP_BASIC_EXPIRATION_FLAG | AMQP_BASIC_USER_ID_FLAG)));
    HOLDS(letter->delivery_mode == 2 && fuzz_equal((struct rpc_bytes){letter->body, letter->body_size}, body));
    check_route(letter, attempts_of(headers));
    empty_amqp_pool(&decoded.pool);
}

static void deliver(uint16_t channel, bool is_answer, struct rpc_bytes raw, struct rpc_bytes body)
{
    if (is_answer)
        PEER_METHOD(channel, BASIC_GET_OK, basic_get_ok, .delivery_tag = 1,
                    .exchange = amqp_cstring_bytes("orders.events"),
                    .routing_key = amqp_cstring_bytes("order_created"));
    else
        PEER_METHOD(channel, BASIC_DELIVER, basic_deliver, .consumer_tag = amqp_cstring_bytes("any"), .delivery_tag = 1,
                    .exchange = amqp_cstring_bytes("orders.events"),
                    .routing_key = amqp_cstring_bytes("order_created"));
    frames_header_raw(peer_out(), channel, raw, body.size);
    frames_body(peer_out(), channel, body, 4096);
    peer_run();
}

/* Returns the letter's properties, the caller's to free; NULL data: there was no room for our headers in a frame. */
static struct rpc_bytes put_aside(const struct decoded *event, struct rpc_bytes raw, struct rpc_bytes body)
{
    struct rpc_service *service = rpc_service_new(
        peer.connection,
        &(struct rpc_service_options){
            .name = "products", .event_handlers = handlers, .event_handlers_count = 1, .keep_dead_letters = true});
    struct rpc_bytes letter = {NULL, 0};
    char settled[32];

    HOLDS(service != NULL);
    peer_run();
    HOLDS(rpc_service_ready(service));
    peer.story[0] = '\0';
    failed = 0;
    deliver(EVENTS, false, raw, body);
    snprintf(settled, sizeof(settled), "%d %s 1", EVENTS, "reject");
    HOLDS(peer.messages_count <= 1);
    if (peer.messages_count == 0) {
        HOLDS(raw.size > PROPERTIES_MAX - ROOM && strcmp(peer.story, settled) == 0);
    } else {
        const struct peer_message *message = &peer.messages[0];

        check_letter(message, event, body);
        HOLDS(strstr(peer.story, " ack ") == NULL && strstr(peer.story, " reject ") == NULL);
        peer.story[0] = '\0';
        peer_confirm(message->channel, 1, false, true);
        peer_run();
        if (strcmp(message->routing_key, "products.dead-letters") != 0)
            snprintf(settled, sizeof(settled), "%d ack 1", EVENTS);
        HOLDS(strcmp(peer.story, settled) == 0);
        letter.size = message->raw_size;
        letter.data = fuzz_exact((struct rpc_bytes){message->raw_properties, message->raw_size});
    }
    rpc_service_free(service);
    peer_run();
    peer_forget();
    return letter;
}

/* ---- The tool gets it -------------------------------------------------------------------------------------------- */

/* What the tool prints. */
struct caught {
    FILE *was_out, *was_error;
    char *out_text, *error_text;
    size_t out_size, error_size;
};

static void catch_begin(struct caught *caught)
{
    *caught = (struct caught){.was_out = stdout, .was_error = stderr};
    stdout = open_memstream(&caught->out_text, &caught->out_size);
    stderr = open_memstream(&caught->error_text, &caught->error_size);
    HOLDS(stdout != NULL && stderr != NULL);
}

static void catch_end(struct caught *caught)
{
    HOLDS(fclose(stdout) == 0 && fclose(stderr) == 0);
    stdout = caught->was_out;
    stderr = caught->was_error;
}

static unsigned lines_of_text(const char *text, size_t size)
{
    unsigned lines = 0;

    HOLDS(fuzz_is_utf8((struct rpc_bytes){text, size}));
    for (size_t i = 0; i < size; i++) {
        HOLDS((unsigned char)text[i] >= ' ' || text[i] == '\n');
        HOLDS(text[i] != 0x7f && !((unsigned char)text[i] == 0xc2 && (unsigned char)text[i + 1] < 0xa0));
        lines += text[i] == '\n';
    }
    return lines;
}

static unsigned ends, exit_code_told;

static void on_done(int exit_code, void *arg)
{
    (void)arg;
    ends++;
    exit_code_told = (unsigned)exit_code;
}

static bool is_acknowledged(void)
{
    HOLDS(peer.acks <= 1);
    return peer.acks == 1;
}

static void check_replayed(const struct peer_message *message, const struct decoded *letter, struct rpc_bytes body)
{
    const amqp_table_t *headers = headers_of(letter), *sent_headers;
    struct rpc_bytes queue = text_of(headers, LETTER_QUEUE), exchange = {"", 0}, key = queue;
    struct decoded sent;

    if (is_request(headers)) {
        exchange = text_of(headers, LETTER_EXCHANGE);
        key = text_of(headers, LETTER_ROUTING_KEY);
    }
    HOLDS(message->mandatory && fuzz_equal((struct rpc_bytes){message->body, message->body_size}, body));
    HOLDS(strncmp(message->exchange, exchange.data, exchange.size) == 0);
    HOLDS(strncmp(message->routing_key, key.data, key.size) == 0);
    HOLDS(decode(&sent, (struct rpc_bytes){message->raw_properties, message->raw_size}));
    sent_headers = headers_of(&sent);
    HOLDS(sent_headers->num_entries >= 0 && replayed_count(headers) == (unsigned)sent_headers->num_entries);
    HOLDS(unmarked_count(sent_headers) == unmarked_count(headers));
    HOLDS(!(sent.properties->_flags & AMQP_BASIC_USER_ID_FLAG));
    empty_amqp_pool(&sent.pool);
}

/* The broker answers; what was published is confirmed, or not, before anything is acknowledged. */
static void serve(uint8_t how, const struct decoded *letter, struct rpc_bytes raw, struct rpc_bytes body)
{
    unsigned answered = 0, confirmed = 0;

    peer_run();
    while (ends == 0) {
        if (peer.messages_count > confirmed) {
            HOLDS(confirmed == 0 && !is_acknowledged());
            check_replayed(&peer.messages[0], letter, body);
            if (how & RETURNED)
                peer_return(0);
            peer_confirm(TOOL, ++confirmed, false, !(how & NOT_CONFIRMED));
            peer_run();
            continue;
        }
        HOLDS(peer.gets == answered + 1 && answered < QUESTIONS_MAX);
        if (answered++ == 0) {
            deliver(TOOL, true, raw, body);
        } else {
            PEER_METHOD(TOOL, BASIC_GET_EMPTY, basic_get_empty, 0);
            peer_run();
        }
    }
    HOLDS(ends == 1 && peer.messages_count == confirmed);
}

static void check_printed(enum verb verb, bool is_dry, const struct caught *caught)
{
    unsigned lines = lines_of_text(caught->out_text, caught->out_size);

    lines_of_text(caught->error_text, caught->error_size);
    HOLDS((exit_code_told == RPC_EXIT_OK) == (caught->error_size == 0));
    if (verb == VERB_SHOW)
        HOLDS(lines == SHOWN_LINES);
    else
        HOLDS(lines == (verb == VERB_LIST || is_dry ? 2 : 1));
}

static void check_tool(uint8_t how, struct rpc_bytes raw, struct rpc_bytes body)
{
    static const char *const names[] = {"list", "show", "replay", "purge"};
    enum verb verb = how % VERBS;
    bool takes_number = verb != VERB_LIST, changes = verb == VERB_REPLAY || verb == VERB_PURGE;
    bool is_dry = changes && (how & DRY_RUN), is_confirmed = !(how & (NOT_CONFIRMED | RETURNED));
    char service[] = "products", name[8], number[4], dry[] = "--dry-run";
    char *words[] = {service, name, number, dry};
    struct dead_letters_tool *tool;
    struct caught caught;
    struct decoded letter;

    snprintf(name, sizeof(name), "%s", names[verb]);
    snprintf(number, sizeof(number), "%s", changes && (how & ALL) ? "all" : "1");
    HOLDS(decode(&letter, raw));
    ends = 0;
    catch_begin(&caught);
    tool = dead_letters_tool_new(peer.connection, takes_number ? is_dry ? 4 : 3 : 2, words, on_done, NULL);
    HOLDS(tool != NULL);
    serve(how, &letter, raw, body);
    dead_letters_tool_free(tool);
    catch_end(&caught);
    if (verb == VERB_REPLAY && !is_dry) {
        HOLDS(is_acknowledged() == (peer.messages_count == 1 && is_confirmed));
        HOLDS(peer.messages_count == 1 || raw.size > PROPERTIES_MAX - ROOM ||
              replayed_count(headers_of(&letter)) > DEAD_LETTERS_HEADERS_MAX);
        HOLDS((exit_code_told == RPC_EXIT_OK) == is_acknowledged());
    } else {
        HOLDS(peer.messages_count == 0 && is_acknowledged() == (verb == VERB_PURGE && !is_dry));
        HOLDS(exit_code_told == RPC_EXIT_OK);
    }
    check_printed(verb, is_dry, &caught);
    empty_amqp_pool(&letter.pool);
    free(caught.out_text);
    free(caught.error_text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_bytes input = fuzz_bytes(data, size), raw, letter;
    uint8_t how = fuzz_byte(&input);
    size_t raw_size = (size_t)fuzz_byte(&input) << 8;
    struct decoded event;

    raw_size |= fuzz_byte(&input);
    raw = fuzz_take(&input, raw_size);
    if (raw.size > PROPERTIES_MAX || !decode(&event, raw))
        return 0;
    rpc_log_configure("fuzz", RPC_LOG_ERROR + 1, RPC_LOG_LOGFMT);
    /* What is nested deeply comes without its properties. */
    if (!frame_properties_are_deep(raw)) {
        fuzz_peer_begin();
        letter = put_aside(&event, raw, input);
        if (how & IS_FOREIGN)
            check_tool(how, raw, input);
        else if (letter.data != NULL && letter.size <= PROPERTIES_MAX)
            check_tool(how, letter, input);
        free((char *)(uintptr_t)letter.data);
        fuzz_peer_end(size);
    }
    empty_amqp_pool(&event.pool);
    return 0;
}

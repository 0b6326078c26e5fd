/*
 * The letters are fetched one by one without acknowledging them, looked at, and given back by closing the channel; only
 * what was replayed (and confirmed) or purged is acknowledged.  So a tool that dies loses nothing.  Nor does it leave
 * anything behind: the queue is the service's to declare, and one that is not there is told of.
 *
 * AMQP answers no acknowledgement.  What is answered is the next question on the same channel, after all that came before:
 * so one more letter is asked for at the end, and what is told to be replayed or purged is so at the broker.
 */
#include "dead_letters.h"

#include <stdio.h>
#include <stdlib.h>

#include "amqp/frame.h"
#include "confirms.h"
#include "connection.h"
#include "printable.h"
#include "rpclib/settings.h"
#include "src/dead_letters.h"

#define LETTERS_MAX        10000 /* looked at by one command; the rest stays for the next */
#define CONFIRM_TIMEOUT_MS 10000
#define POOL_PAGE          4096

enum verb { VERB_LIST, VERB_SHOW, VERB_REPLAY, VERB_PURGE };

struct lookup;

struct dead_letters_tool {
    struct confirms confirms;
    struct lookup *lookups; /* owned */
    enum verb verb;
    bool dry_run;
    unsigned long wanted; /* a letter's number from 1; 0: all */
    char queue[256];
    unsigned long seen, chosen; /* letters */
    unsigned long done_count;   /* of the chosen: listed, shown, replayed or purged */
    unsigned long unconfirmed;
    bool found;        /* the queue, since the channel came up */
    bool asks;         /* for a letter; the answer is not there yet */
    bool fetched;      /* all there are, or that are wanted */
    bool acknowledged; /* a letter, and the broker may not have seen that yet */
    bool lost;         /* the channel, with letters that were fetched on it */
    bool failed;
    bool ended;
    dead_letters_done_fn *done;
    void *arg;
};

struct replay {
    struct dead_letters_tool *tool;
    uint64_t tag;
    unsigned long number;
};

/*
 * The question whether the queue is there, on a channel of its own, for the broker closes the one that asks for a queue
 * that is not.  A link that breaks takes the channel along without a word, so each question is kept until the tool ends.
 */
struct lookup {
    struct dead_letters_tool *tool;
    struct mq_channel *channel; /* alive while its events run */
    struct lookup *next;
};

/* --- words --- */

static bool verb_of(const char *word, enum verb *verb)
{
    static const char *const words[] = {"list", "show", "replay", "purge"};

    for (int i = 0; i < 4; i++) {
        if (strcmp(word, words[i]) == 0) {
            *verb = (enum verb)i;
            return true;
        }
    }
    return false;
}

static bool number_of(const char *word, bool all_is_fine, unsigned long *number)
{
    char *end;

    *number = 0;
    if (all_is_fine && strcmp(word, "all") == 0)
        return true;
    *number = strtoul(word, &end, 10);
    return *word >= '1' && *word <= '9' && *end == '\0' && *number <= LETTERS_MAX;
}

static bool words_read(int count, char *words[], enum verb *verb, unsigned long *wanted, bool *dry_run)
{
    *wanted = 0;
    *dry_run = false;
    if (count < 2 || !verb_of(words[1], verb))
        return false;
    if (*verb == VERB_LIST)
        return count == 2;
    *dry_run = count == 4 && strcmp(words[3], "--dry-run") == 0;
    if (count < 3 || (count > 3 && !*dry_run) || (count > 3 && *verb == VERB_SHOW))
        return false;
    return number_of(words[2], *verb != VERB_SHOW, wanted);
}

bool dead_letters_words_fit(int count, char *words[])
{
    unsigned long wanted;
    enum verb verb;
    bool dry_run;

    return words_read(count, words, &verb, &wanted, &dry_run) && strlen(words[0]) <= RPC_NAME_SIZE_MAX;
}

/* --- the end --- */

static void tool_end(struct dead_letters_tool *tool)
{
    if (tool->wanted > 0 && tool->chosen == 0) {
        fprintf(stderr, "rpc: there is no letter %lu in %s; it holds %lu\n", tool->wanted, tool->queue, tool->seen);
        tool->failed = true;
    } else if (tool->verb == VERB_LIST) {
        printf("%lu in %s%s\n", tool->seen, tool->queue, tool->seen == LETTERS_MAX ? ", and perhaps more" : "");
    } else if (tool->verb != VERB_SHOW) {
        printf("%lu %s%s\n", tool->done_count, tool->dry_run ? "would be " : "",
               tool->verb == VERB_REPLAY ? "replayed" : "purged");
    }
    tool->ended = true;
    tool->done(tool->failed ? RPC_EXIT_FAILED : RPC_EXIT_OK, tool->arg);
}

/* The reason was told. */
static void tool_fail(struct dead_letters_tool *tool)
{
    tool->ended = true;
    tool->done(RPC_EXIT_FAILED, tool->arg);
}

static void tool_ask(struct dead_letters_tool *tool)
{
    struct mq_channel *channel = session_channel(&tool->confirms.session);

    if (tool->asks || channel == NULL) /* without a channel: it comes back, and tool_on_up() goes on */
        return;
    tool->asks = true;
    mq_get(channel, tool->queue);
}

static void tool_check_end(struct dead_letters_tool *tool)
{
    if (tool->ended || tool->lost || !tool->fetched || tool->unconfirmed > 0)
        return;
    if (tool->acknowledged)
        tool_ask(tool);
    else
        tool_end(tool);
}

static void letter_acknowledge(struct dead_letters_tool *tool, uint64_t tag)
{
    tool->acknowledged = true;
    tool->done_count++;
    mq_ack(tool->confirms.session.channel, tag, false);
}

/* --- one letter --- */

/* NULL: there is none of that kind. */
static const amqp_field_value_t *header_find(const amqp_basic_properties_t *properties, const char *key, uint8_t kind)
{
    const amqp_table_t *headers = &properties->headers;

    for (int i = 0; (properties->_flags & AMQP_BASIC_HEADERS_FLAG) && i < headers->num_entries; i++) {
        const amqp_table_entry_t *entry = &headers->entries[i];

        if (rpc_bytes_equal(frame_text(entry->key), key) && entry->value.kind == kind)
            return &entry->value;
    }
    return NULL;
}

static struct rpc_bytes header_text(const amqp_basic_properties_t *properties, const char *key)
{
    const amqp_field_value_t *value = header_find(properties, key, AMQP_FIELD_KIND_UTF8);

    return value != NULL ? frame_text(value->value.bytes) : rpc_bytes_of("");
}

static long long header_number(const amqp_basic_properties_t *properties, const char *key)
{
    const amqp_field_value_t *value = header_find(properties, key, AMQP_FIELD_KIND_I64);

    return value != NULL ? value->value.i64 : 0;
}

/* What comes from a message may hold anything. */
static void print_text(struct rpc_bytes text)
{
    printable_write(stdout, text);
}

static void print_field(const char *name, struct rpc_bytes text)
{
    printf("%-12s", name);
    print_text(text);
    putchar('\n');
}

static void letter_list(const struct dead_letters_tool *tool, const struct mq_message *message)
{
    const amqp_basic_properties_t *properties = message->properties;

    printf("%4lu  ", tool->seen);
    print_text(header_text(properties, LETTER_TIME));
    printf("  %lld attempt%s  ", header_number(properties, LETTER_ATTEMPTS),
           header_number(properties, LETTER_ATTEMPTS) == 1 ? "" : "s");
    print_text(header_text(properties, LETTER_ROUTING_KEY));
    printf("  ");
    print_text(header_text(properties, LETTER_CAUSE));
    putchar('\n');
}

static void letter_show(const struct mq_message *message)
{
    const amqp_basic_properties_t *properties = message->properties;

    print_field("time", header_text(properties, LETTER_TIME));
    printf("%-12s%lld\n", "attempts", header_number(properties, LETTER_ATTEMPTS));
    print_field("cause", header_text(properties, LETTER_CAUSE));
    print_field("queue", header_text(properties, LETTER_QUEUE));
    print_field("exchange", header_text(properties, LETTER_EXCHANGE));
    print_field("routing key", header_text(properties, LETTER_ROUTING_KEY));
    print_field("body", message->body);
}

static void letter_not_replayed(struct dead_letters_tool *tool, unsigned long number, enum rpc_status status)
{
    fprintf(stderr, "rpc: letter %lu %s: %s\n", number,
            rpc_status_nothing_done(status) ? "was not replayed" : "stays, and may have been replayed",
            rpc_status_name(status));
    tool->failed = true;
}

static void on_replayed(enum rpc_status status, void *arg)
{
    struct replay *replay = arg;
    struct dead_letters_tool *tool = replay->tool;

    tool->unconfirmed--;
    if (status == RPC_OK)
        letter_acknowledge(tool, replay->tag);
    else
        letter_not_replayed(tool, replay->number, status);
    free(replay);
    tool_check_end(tool);
}

static bool is_mark(struct rpc_bytes key)
{
    return (key.size > 10 && memcmp(key.data, "x-airship-", 10) == 0) || LETTER_IS_ROUTE(key);
}

/*
 * Without the marks of its failure, so that its attempts count anew, and without the user who sent it: the broker takes a
 * message of nobody else.  What goes to its queue takes along where it was published, or its next failure could not tell.
 * False: it has too many headers.
 */
static bool unmarked(amqp_basic_properties_t *properties, amqp_table_entry_t entries[DEAD_LETTERS_HEADERS_MAX],
                     bool keeps_origin)
{
    const amqp_table_t given = properties->headers;
    int count = 0;

    for (int i = 0; (properties->_flags & AMQP_BASIC_HEADERS_FLAG) && i < given.num_entries; i++) {
        struct rpc_bytes key = frame_text(given.entries[i].key);

        if (is_mark(key) && !(keeps_origin && LETTER_IS_ORIGIN(key)))
            continue;
        if (count == DEAD_LETTERS_HEADERS_MAX)
            return false;
        entries[count++] = given.entries[i];
    }
    properties->_flags &= ~(amqp_flags_t)AMQP_BASIC_USER_ID_FLAG;
    properties->headers = (amqp_table_t){.num_entries = count, .entries = entries};
    return true;
}

/*
 * An event goes straight back to its own queue: by its exchange the other subscribers would get it as well, and they have
 * handled theirs.  A request goes by its exchange, since its routing key names the method.
 */
static enum rpc_status letter_publish(struct replay *replay, const struct mq_message *message)
{
    struct rpc_bytes queue = header_text(message->properties, LETTER_QUEUE);
    bool is_request = queue.size > 4 && memcmp(queue.data, "rpc-", 4) == 0;
    amqp_table_entry_t entries[DEAD_LETTERS_HEADERS_MAX];
    amqp_basic_properties_t properties = *message->properties;

    if (!unmarked(&properties, entries, !is_request))
        return RPC_TOO_LARGE;
    return confirms_publish(
        &replay->tool->confirms,
        &(struct mq_publish){.exchange =
                                 is_request ? header_text(message->properties, LETTER_EXCHANGE) : rpc_bytes_of(""),
                             .routing_key = is_request ? header_text(message->properties, LETTER_ROUTING_KEY) : queue,
                             .mandatory = true,
                             .body = message->body},
        &properties, on_replayed, replay);
}

static void letter_replay(struct dead_letters_tool *tool, const struct mq_delivery *delivery)
{
    struct replay *replay = malloc(sizeof(*replay));
    enum rpc_status status = RPC_NO_MEMORY;

    if (replay != NULL) {
        *replay = (struct replay){tool, delivery->tag, tool->seen};
        status = delivery->message.oversized ? RPC_TOO_LARGE : letter_publish(replay, &delivery->message);
    }
    if (status == RPC_OK) {
        tool->unconfirmed++;
        return;
    }
    letter_not_replayed(tool, tool->seen, status);
    free(replay);
}

static void letter_choose(struct dead_letters_tool *tool, const struct mq_delivery *delivery)
{
    bool shows = tool->verb == VERB_SHOW, lists = tool->verb == VERB_LIST || tool->dry_run;

    tool->chosen++;
    if (tool->verb == VERB_REPLAY && !tool->dry_run) {
        letter_replay(tool, delivery);
        return;
    }
    if (tool->verb == VERB_PURGE && !tool->dry_run) {
        letter_acknowledge(tool, delivery->tag);
        return;
    }
    tool->done_count++;
    if (delivery->message.oversized)
        printf("%4lu  %llu bytes: too large to be read\n", tool->seen, (unsigned long long)delivery->message.body_size);
    else if (lists)
        letter_list(tool, &delivery->message);
    else if (shows)
        letter_show(&delivery->message);
}

/* --- whether there is such a queue --- */

static void lookup_on_settled(void *arg)
{
    struct lookup *lookup = arg;

    mq_queue_inspect(lookup->channel, lookup->tool->queue);
}

static void lookup_on_queue(uint32_t consumers, void *arg)
{
    struct lookup *lookup = arg;

    (void)consumers;
    mq_channel_close(lookup->channel);
    lookup->tool->found = true;
    if (!lookup->tool->ended)
        tool_ask(lookup->tool);
}

static void lookup_on_closed(uint16_t code, struct rpc_bytes text, void *arg)
{
    struct dead_letters_tool *tool = ((struct lookup *)arg)->tool;

    (void)text;
    if (tool->ended)
        return;
    if (code == AMQP_NOT_FOUND)
        fprintf(stderr, "rpc: there is no queue %s: no service of that name has kept dead letters here\n", tool->queue);
    else
        fprintf(stderr, "rpc: the broker does not tell whether there is a queue %s: code %u\n", tool->queue, code);
    tool_fail(tool);
}

/* Nobody consumes on this channel. */
static void lookup_on_delivery(const struct mq_delivery *delivery, void *arg)
{
    (void)delivery;
    (void)arg;
}

static const struct mq_channel_events lookup_events = {
    .on_settled = lookup_on_settled,
    .on_queue = lookup_on_queue,
    .on_delivery = lookup_on_delivery,
    .on_closed = lookup_on_closed,
};

static void lookup_begin(struct dead_letters_tool *tool)
{
    struct lookup *lookup = calloc(1, sizeof(*lookup));

    if (lookup != NULL) {
        *lookup = (struct lookup){.tool = tool, .next = tool->lookups};
        tool->lookups = lookup;
        lookup->channel = mq_channel_open(connection_mq(tool->confirms.session.connection), &lookup_events, lookup);
    }
    if (lookup == NULL || lookup->channel == NULL) {
        fputs("rpc: memory is short, or the broker allows no second channel\n", stderr);
        tool_fail(tool);
    }
}

/* --- the queue --- */

/* Whether that answers the question behind the acknowledgements; the letter that may come with it is not looked at. */
static bool tool_is_answered(struct dead_letters_tool *tool)
{
    tool->asks = false;
    if (!tool->fetched || tool->lost)
        return false;
    if (tool->unconfirmed == 0)
        tool->acknowledged = false;
    tool_check_end(tool);
    return true;
}

static void tool_on_letter(const struct mq_delivery *delivery, void *arg)
{
    struct dead_letters_tool *tool = arg;

    if (tool_is_answered(tool))
        return;
    tool->seen++;
    if (tool->wanted == 0 || tool->wanted == tool->seen)
        letter_choose(tool, delivery);
    tool->fetched = tool->seen == LETTERS_MAX || tool->seen == tool->wanted;
    if (tool->fetched)
        tool_check_end(tool);
    else
        tool_ask(tool);
}

static void tool_on_empty(void *arg)
{
    struct dead_letters_tool *tool = arg;

    if (tool_is_answered(tool))
        return;
    tool->fetched = true;
    tool_check_end(tool);
}

/* A new channel: what was fetched on another one is the queue's again.  Nothing is declared. */
static void tool_on_setup(struct mq_channel *channel, void *arg)
{
    struct dead_letters_tool *tool = arg;

    (void)channel;
    tool->asks = tool->found = false;
    tool->lost = tool->seen > 0;
}

static void tool_on_up(void *arg)
{
    struct dead_letters_tool *tool = arg;

    if (tool->ended)
        return;
    if (tool->lost) {
        fprintf(stderr, "rpc: lost the broker meanwhile; what is left is in %s\n", tool->queue);
        tool_fail(tool);
    } else if (tool->found) {
        tool_ask(tool);
    } else {
        lookup_begin(tool);
    }
}

/* --- life --- */

struct dead_letters_tool *dead_letters_tool_new(struct rpc_connection *connection, int count, char *words[],
                                                dead_letters_done_fn *done, void *arg)
{
    struct dead_letters_tool *tool = calloc(1, sizeof(*tool));

    if (tool == NULL || !words_read(count, words, &tool->verb, &tool->wanted, &tool->dry_run)) {
        free(tool);
        return NULL;
    }
    tool->done = done;
    tool->arg = arg;
    snprintf(tool->queue, sizeof(tool->queue), "%s.dead-letters", words[0]);
    if (!confirms_init(&tool->confirms, connection,
                       &(struct confirms_options){.what = "dead letters",
                                                  .unconfirmed_max = LETTERS_MAX,
                                                  .timeout_ms = CONFIRM_TIMEOUT_MS,
                                                  .declare = tool_on_setup,
                                                  .on_up = tool_on_up,
                                                  .on_delivery = tool_on_letter,
                                                  .on_empty = tool_on_empty,
                                                  .arg = tool})) {
        dead_letters_tool_free(tool);
        return NULL;
    }
    return tool;
}

void dead_letters_tool_free(struct dead_letters_tool *tool)
{
    if (tool == NULL)
        return;
    tool->ended = true;
    confirms_clear(&tool->confirms);
    while (tool->lookups != NULL) {
        struct lookup *lookup = tool->lookups;

        tool->lookups = lookup->next;
        free(lookup);
    }
    free(tool);
}

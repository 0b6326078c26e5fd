#include "dead_letters.h"

#include <stdio.h>
#include <stdlib.h>

#include "amqp/frame.h"
#include "connection.h"
#include "rpclib/log.h"
#include "rpclib/utc.h"
#include "wire.h"

#define CONFIRM_TIMEOUT_MS 10000
#define POOL_PAGE          4096
#define ATTEMPTS_MAX       1000000000 /* more are not counted */
#define OURS_COUNT         6          /* headers of ours */
#define ORIGIN_COUNT       2          /* of them: where the message was published at first */

static const unsigned delays_ms[RETRY_DELAYS_COUNT] = {RETRY_DELAYS_MS};

static bool retry_queue(char out[WIRE_NAME_SIZE], const char *queue, unsigned delay_ms)
{
    return snprintf(out, WIRE_NAME_SIZE, "%s.retry-%u", queue, delay_ms) < WIRE_NAME_SIZE;
}

bool dead_letters_suspects(char out[WIRE_NAME_SIZE], const char *queue)
{
    return retry_queue(out, queue, 0);
}

/* --- a letter's headers: its own, and ours behind them --- */

struct headers {
    amqp_table_entry_t entries[DEAD_LETTERS_HEADERS_MAX];
    int count;
    /* As the last failure wrote them, and `rpc dead-letters` left them. */
    int64_t attempts;                                 /* 0: at the first */
    const amqp_table_entry_t *exchange, *routing_key; /* NULL: likewise */
};

static bool key_is(const amqp_table_entry_t *entry, const char *key)
{
    return rpc_bytes_equal(frame_text(entry->key), key);
}

static bool is_ours(const amqp_table_entry_t *entry)
{
    static const char *const keys[] = {LETTER_CAUSE, LETTER_ATTEMPTS, LETTER_TIME,
                                       LETTER_QUEUE, LETTER_EXCHANGE, LETTER_ROUTING_KEY};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (key_is(entry, keys[i]))
            return true;
    }
    return false;
}

static void origin_take(struct headers *headers, const amqp_table_entry_t *entry)
{
    if (entry->value.kind != AMQP_FIELD_KIND_UTF8)
        return;
    if (key_is(entry, LETTER_EXCHANGE))
        headers->exchange = entry;
    else if (key_is(entry, LETTER_ROUTING_KEY))
        headers->routing_key = entry;
}

/* What was there before; ours of an earlier failure only if they are kept.  Room for what is added stays. */
static void headers_take(struct headers *headers, const amqp_table_t *table, bool keep_ours)
{
    int count_max = DEAD_LETTERS_HEADERS_MAX - (keep_ours ? ORIGIN_COUNT : OURS_COUNT);

    for (int i = 0; i < table->num_entries; i++) {
        const amqp_table_entry_t *entry = &table->entries[i];

        if (key_is(entry, LETTER_ATTEMPTS) && entry->value.kind == AMQP_FIELD_KIND_I64 &&
            entry->value.value.i64 > 0) /* anybody can write it */
            headers->attempts = entry->value.value.i64 < ATTEMPTS_MAX ? entry->value.value.i64 : ATTEMPTS_MAX;
        origin_take(headers, entry);
        if (LETTER_IS_ROUTE(frame_text(entry->key)) || LETTER_IS_ORIGIN(frame_text(entry->key)))
            continue;
        if ((keep_ours || !is_ours(entry)) && headers->count < count_max)
            headers->entries[headers->count++] = *entry;
    }
}

static void headers_add_text(struct headers *headers, const char *key, struct rpc_bytes text)
{
    headers->entries[headers->count++] = frame_text_entry(key, text);
}

static void headers_add_number(struct headers *headers, const char *key, int64_t number)
{
    headers->entries[headers->count++] = (amqp_table_entry_t){
        .key = amqp_cstring_bytes(key), .value = {.kind = AMQP_FIELD_KIND_I64, .value.i64 = number}};
}

/*
 * What comes by the default exchange was put back: by a queue of ours, or by `rpc dead-letters`.  Where it was published at
 * first is what its headers say.
 */
static void headers_add_origin(struct headers *headers, const struct letter *letter)
{
    bool was_put_back = letter->exchange.size == 0 && headers->exchange != NULL && headers->routing_key != NULL;

    if (was_put_back) {
        headers->entries[headers->count++] = *headers->exchange;
        headers->entries[headers->count++] = *headers->routing_key;
    } else {
        headers_add_text(headers, LETTER_EXCHANGE, letter->exchange);
        headers_add_text(headers, LETTER_ROUTING_KEY, letter->routing_key);
    }
}

/* --- sending --- */

/* One message on its way to a queue of ours. */
struct burial {
    struct dead_letters *letters;
    struct taken *taken;
    bool reject; /* for good; else it will be tried again */
    struct burial *next;
};

static void burial_hand_back(struct burial *burial)
{
    consumer_reject(burial->taken, true);
    free(burial);
}

static void letters_unpark(void *arg)
{
    struct dead_letters *letters = arg;

    while (letters->parked != NULL) {
        struct burial *burial = letters->parked;

        letters->parked = burial->next;
        burial_hand_back(burial);
    }
}

static void burial_park(struct burial *burial, enum rpc_status status)
{
    struct dead_letters *letters = burial->letters;

    rpc_log(status == RPC_OFFLINE || status == RPC_BLOCKED ? RPC_LOG_DEBUG : RPC_LOG_ERROR, /* else the link tells it */
            "a message could not be put aside; handed back to the broker",
            RPC_LOG_TEXT("reason", rpc_status_name(status)));
    if (status == RPC_UNKNOWN_SERVICE) /* somebody deleted the queue */
        session_restart(&letters->confirms.session);
    if (letters->parked == NULL)
        rpc_loop_timer_start(letters->unpark, DEAD_LETTERS_PARK_MS);
    burial->next = letters->parked;
    letters->parked = burial;
}

static void burial_on_confirmed(enum rpc_status status, void *arg)
{
    struct burial *burial = arg;

    if (status == RPC_CANCELLED) {
        burial_hand_back(burial);
        return;
    }
    if (status != RPC_OK && status != RPC_TOO_LARGE) {
        burial_park(burial, status);
        return;
    }
    /* Rejected so that a dead-letter policy of the broker's sees it as well; or alone, when our headers found no room. */
    if (burial->reject || status == RPC_TOO_LARGE)
        consumer_reject(burial->taken, false);
    else
        consumer_done_at_once(burial->taken);
    free(burial);
}

/* An expiration would let it vanish here, a foreign user_id have it refused. */
static amqp_basic_properties_t kept_properties(const amqp_basic_properties_t *given, const struct headers *headers)
{
    amqp_basic_properties_t properties = *given;

    properties._flags &= ~(amqp_flags_t)(AMQP_BASIC_EXPIRATION_FLAG | AMQP_BASIC_USER_ID_FLAG);
    properties._flags |= AMQP_BASIC_HEADERS_FLAG;
    properties.headers =
        (amqp_table_t){.num_entries = headers->count, .entries = (amqp_table_entry_t *)(uintptr_t)headers->entries};
    return properties;
}

static void letter_publish(struct dead_letters *letters, const struct letter *letter, const char *queue,
                           const amqp_basic_properties_t *given, const struct headers *headers, struct taken *taken)
{
    struct burial *burial = malloc(sizeof(*burial));
    amqp_basic_properties_t properties = kept_properties(given, headers);
    enum rpc_status status;

    if (burial == NULL) {
        consumer_reject(taken, true);
        return;
    }
    *burial = (struct burial){.letters = letters, .taken = taken, .reject = queue == letters->queue};
    status = confirms_publish(
        &letters->confirms,
        &(struct mq_publish){
            .exchange = rpc_bytes_of(""), .routing_key = rpc_bytes_of(queue), .mandatory = true, .body = letter->body},
        &properties, burial_on_confirmed, burial);
    if (status != RPC_OK)
        burial_on_confirmed(status, burial);
}

/* One more attempt has failed: it is told in headers of ours. */
static void letter_send(struct dead_letters *letters, const struct letter *letter, const char *queue,
                        const amqp_basic_properties_t *given, struct headers *headers, struct taken *taken)
{
    size_t cause_size = strlen(letter->cause);
    struct rpc_bytes cause = {letter->cause, cause_size < DEAD_LETTERS_CAUSE_MAX ? cause_size : DEAD_LETTERS_CAUSE_MAX};
    char now[RPC_UTC_SIZE];

    rpc_utc_print(now, time(NULL));
    headers_add_text(headers, LETTER_CAUSE, cause);
    headers_add_number(headers, LETTER_ATTEMPTS, headers->attempts + 1);
    headers_add_text(headers, LETTER_TIME, rpc_bytes_of(now));
    headers_add_text(headers, LETTER_QUEUE, rpc_bytes_of(letter->queue));
    headers_add_origin(headers, letter);
    letter_publish(letters, letter, queue, given, headers, taken);
}

/* The message's own properties and headers, decoded into the pool. */
static const amqp_basic_properties_t *letter_open(const struct letter *letter, struct headers *headers, bool keep_ours,
                                                  amqp_pool_t *pool)
{
    static const amqp_basic_properties_t none = {0};
    const amqp_basic_properties_t *properties;
    void *decoded = NULL;

    if (letter->raw_properties.size == 0 ||
        amqp_decode_properties(AMQP_BASIC_CLASS, pool, frame_bytes(letter->raw_properties), &decoded) < 0)
        return &none;
    properties = decoded;
    if (properties->_flags & AMQP_BASIC_HEADERS_FLAG)
        headers_take(headers, &properties->headers, keep_ours);
    return properties;
}

unsigned dead_letters_retry(struct dead_letters *letters, const struct letter *letter, uint32_t attempts_max,
                            struct taken *taken)
{
    const amqp_basic_properties_t *properties;
    struct headers headers = {.count = 0};
    char queue[WIRE_NAME_SIZE];
    const char *target = letters->queue;
    unsigned delay_ms = 0;
    amqp_pool_t pool;

    init_amqp_pool(&pool, POOL_PAGE);
    properties = letter_open(letter, &headers, false, &pool);
    if (headers.attempts + 1 < attempts_max) {
        delay_ms = delays_ms[headers.attempts < RETRY_DELAYS_COUNT ? headers.attempts : RETRY_DELAYS_COUNT - 1];
        if (retry_queue(queue, letter->queue, delay_ms))
            target = queue;
    }
    letter_send(letters, letter, target, properties, &headers, taken);
    empty_amqp_pool(&pool);
    return delay_ms;
}

void dead_letters_bury(struct dead_letters *letters, const struct letter *letter, struct taken *taken)
{
    (void)dead_letters_retry(letters, letter, 0, taken);
}

void dead_letters_suspect(struct dead_letters *letters, const struct letter *letter, struct taken *taken)
{
    const amqp_basic_properties_t *properties;
    struct headers headers = {.count = 0};
    char queue[WIRE_NAME_SIZE];
    amqp_pool_t pool;

    init_amqp_pool(&pool, POOL_PAGE);
    properties = letter_open(letter, &headers, true, &pool);
    headers_add_origin(&headers, letter);
    if (dead_letters_suspects(queue, letter->queue))
        letter_publish(letters, letter, queue, properties, &headers, taken);
    else
        consumer_reject(taken, true);
    empty_amqp_pool(&pool);
}

/* --- the queues --- */

static void dead_letters_declare(struct mq_channel *channel, void *arg)
{
    const struct dead_letters *letters = arg;
    char queue[WIRE_NAME_SIZE];
    const char *retried;

    mq_queue_declare(channel, &(struct mq_queue){.name = letters->queue, .durable = true});
    for (size_t i = 0; (retried = letters->retried(i, letters->arg)) != NULL; i++) {
        if (dead_letters_suspects(queue, retried))
            mq_queue_declare(channel, &(struct mq_queue){.name = queue, .durable = true});
        for (size_t delay = 0; delay < RETRY_DELAYS_COUNT; delay++) {
            if (retry_queue(queue, retried, delays_ms[delay]))
                mq_queue_declare(channel, &(struct mq_queue){.name = queue,
                                                             .durable = true,
                                                             .message_ttl_ms = (int32_t)delays_ms[delay],
                                                             .dead_letter_queue = retried});
        }
    }
}

static void dead_letters_on_up(void *arg)
{
    struct dead_letters *letters = arg;

    rpc_loop_timer_stop(letters->unpark);
    letters_unpark(letters); /* what came before it was up, or failed when it went down */
    letters->on_up(letters->arg);
}

bool dead_letters_ready(const struct dead_letters *letters)
{
    return session_status(&letters->confirms.session) == RPC_OK;
}

bool dead_letters_init(struct dead_letters *letters, struct rpc_connection *connection,
                       const struct dead_letters_options *options)
{
    int size = snprintf(letters->queue, sizeof(letters->queue), "%s.dead-letters", options->service);

    letters->retried = options->retried;
    letters->on_up = options->on_up;
    letters->arg = options->arg;
    letters->unpark = rpc_loop_timer_new(connection_loop(connection), letters_unpark, letters);
    return letters->unpark != NULL && size > 0 && (size_t)size < sizeof(letters->queue) &&
           confirms_init(&letters->confirms, connection,
                         &(struct confirms_options){.what = "dead letters",
                                                    .unconfirmed_max = options->unconfirmed_max,
                                                    .timeout_ms = CONFIRM_TIMEOUT_MS,
                                                    .declare = dead_letters_declare,
                                                    .on_up = dead_letters_on_up,
                                                    .arg = letters});
}

void dead_letters_clear(struct dead_letters *letters)
{
    confirms_clear(&letters->confirms);
    letters_unpark(letters);
    rpc_loop_timer_free(letters->unpark);
    letters->unpark = NULL;
}

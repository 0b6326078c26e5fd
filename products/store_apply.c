#include "store_apply.h"

#include <assert.h>
#include <stdlib.h>

#include "rpclib/hex.h"
#include "store_reply.h"
#include "store_words.h"

#define APPLIED_KEY_PREFIX "airship:applied:"

/* What the script says of each product, in the order of its keys. */
enum outcome {
    OUTCOME_SEEN = 0,
    OUTCOME_APPLIED = 1,
    OUTCOME_MISSING = 2,
    OUTCOME_REFUSED = 3,
};

/*
 * KEYS: what is remembered of the order, then its products.  ARGV: for how many seconds, then each product's change.
 * Redis checks its memory limit before a script's first write and not after it, so the two writes go together.
 */
static const char script[] = "local function is_of_the_data(text)\n"
                             "    return text:find('WRONGTYPE', 1, true) or text:find('not an integer', 1, true)\n"
                             "        or text:find('overflow', 1, true)\n"
                             "end\n"
                             "local outcomes = {}\n"
                             "for i = 2, #KEYS do\n"
                             "    if redis.call('HSETNX', KEYS[1], KEYS[i], ARGV[i]) == 0 then\n"
                             "        outcomes[i - 1] = 0\n"
                             "    else\n"
                             "        redis.call('EXPIRE', KEYS[1], ARGV[1])\n"
                             "        local done = redis.pcall('HEXISTS', KEYS[i], 'in_stock')\n"
                             "        if done == 0 then\n"
                             "            outcomes[i - 1] = 2\n"
                             "        else\n"
                             "            if done == 1 then\n"
                             "                done = redis.pcall('HINCRBY', KEYS[i], 'in_stock', ARGV[i])\n"
                             "            end\n"
                             "            outcomes[i - 1] = 1\n"
                             "            if type(done) == 'table' and done.err then\n"
                             "                redis.call('HDEL', KEYS[1], KEYS[i])\n"
                             "                if not is_of_the_data(done.err) then\n"
                             "                    return done\n"
                             "                end\n"
                             "                outcomes[i - 1] = 3\n"
                             "            end\n"
                             "        end\n"
                             "    end\n"
                             "end\n"
                             "redis.call('EXPIRE', KEYS[1], ARGV[1])\n"
                             "return outcomes\n";

void store_apply_script_hash(char out[SCRIPT_HASH_SIZE])
{
    unsigned char digest[EVP_MAX_MD_SIZE] = {0};
    unsigned size = 0;

    EVP_Digest(script, sizeof(script) - 1, digest, &size, EVP_sha1(), NULL);
    rpc_hex_write(digest, SCRIPT_HASH_SIZE / 2, out);
    out[SCRIPT_HASH_SIZE - 1] = '\0';
}

static void application_on_reply(struct redis_command *command, enum redis_result result, const redisReply *reply);

/* One run of the script: words of any number, and the text that some of them need. */
struct script_call {
    const char **words; /* owned, as is the rest */
    size_t *sizes;
    int count;
    struct rpc_text text; /* grown to its full size before any word points into it */
};

static void call_clear(struct script_call *call)
{
    free(call->words);
    free(call->sizes);
    rpc_text_clear(&call->text);
}

static void call_add(struct script_call *call, const char *word, size_t size)
{
    call->words[call->count] = word;
    call->sizes[call->count] = size;
    call->count++;
}

/* The text of all keys and changes, one behind the other; call_add_texts() cuts it up in the same order. */
static bool call_write_texts(struct script_call *call, const struct product_application *application)
{
    const struct order_event *event = application->event;
    bool written = rpc_text_append(&call->text, RPC_BYTES(APPLIED_KEY_PREFIX)) &&
                   rpc_text_append_integer(&call->text, event->order_id);

    for (size_t i = application->from; i < application->to; i++)
        written = written && rpc_text_append(&call->text, RPC_BYTES(KEY_PREFIX)) &&
                  rpc_text_append(&call->text, event->changes[i].product_id);
    for (size_t i = application->from; i < application->to; i++)
        written = written && rpc_text_append_integer(&call->text, -event->changes[i].quantity);
    return written;
}

static size_t integer_size(int64_t value)
{
    char digits[DECIMAL_SIZE];

    return words_decimal(digits, value).size;
}

static void call_add_texts(struct script_call *call, const struct product_application *application)
{
    const struct order_event *event = application->event;
    const char *at = call->text.data;
    size_t size = sizeof(APPLIED_KEY_PREFIX) - 1 + integer_size(event->order_id);

    call_add(call, at, size);
    at += size;
    for (size_t i = application->from; i < application->to; i++, at += size) {
        size = sizeof(KEY_PREFIX) - 1 + event->changes[i].product_id.size;
        call_add(call, at, size);
    }
    call_add(call, application->store->applied_ttl_s, strlen(application->store->applied_ttl_s));
    for (size_t i = application->from; i < application->to; i++, at += size) {
        size = integer_size(-event->changes[i].quantity);
        call_add(call, at, size);
    }
}

/* By its hash, if the server knows it; else it answers NOSCRIPT, and gets the text. */
static enum product_store_status application_send(struct product_application *application)
{
    struct product_store *store = application->store;
    size_t changes = application->to - application->from;
    size_t words_max = 5 + 2 * changes;
    struct script_call call = {
        .words = calloc(words_max, sizeof(*call.words)),
        .sizes = calloc(words_max, sizeof(*call.sizes)),
    };
    enum product_store_status status = PRODUCT_STORE_NO_MEMORY;
    char keys_count[DECIMAL_SIZE];

    if (call.words == NULL || call.sizes == NULL || !call_write_texts(&call, application))
        goto done;
    if (application->is_script_sent) {
        call_add(&call, "EVAL", 4);
        call_add(&call, script, sizeof(script) - 1);
    } else {
        call_add(&call, "EVALSHA", 7);
        call_add(&call, store->script_hash, SCRIPT_HASH_SIZE - 1);
    }
    call_add(&call, keys_count, words_decimal(keys_count, (int64_t)changes + 1).size);
    call_add_texts(&call, application);
    assert((size_t)call.count == words_max);
    status = store_sent_status(
        redis_link_send(store->link, &application->command, call.count, call.words, call.sizes, application_on_reply));
done:
    call_clear(&call);
    return status;
}

/* The next run of the script, if there is anything left to do; PRODUCT_STORE_OK with from == to says that there is not. */
static enum product_store_status application_go_on(struct product_application *application)
{
    size_t left = application->event->count - application->to;

    application->from = application->to;
    application->to += left < PRODUCT_APPLY_CHANGES_MAX ? left : PRODUCT_APPLY_CHANGES_MAX;
    application->is_script_sent = false;
    return left == 0 ? PRODUCT_STORE_OK : application_send(application);
}

static enum product_store_status application_count(struct product_application *application, const redisReply *reply)
{
    if (reply->elements != application->to - application->from)
        return PRODUCT_STORE_FAILED;
    for (size_t i = 0; i < reply->elements; i++) {
        if (reply->element[i]->type != REDIS_REPLY_INTEGER)
            return PRODUCT_STORE_FAILED;
        application->seen += reply->element[i]->integer == OUTCOME_SEEN;
        application->applied += reply->element[i]->integer == OUTCOME_APPLIED;
        application->missing += reply->element[i]->integer == OUTCOME_MISSING;
        application->refused += reply->element[i]->integer == OUTCOME_REFUSED;
    }
    return PRODUCT_STORE_OK;
}

static void application_on_reply(struct redis_command *command, enum redis_result result, const redisReply *reply)
{
    struct product_application *application = (struct product_application *)command;
    enum product_store_status status;

    if (result == REDIS_REFUSED && !application->is_script_sent && strncmp(reply->str, "NOSCRIPT", 8) == 0) {
        application->is_script_sent = true;
        status = application_send(application);
        if (status == PRODUCT_STORE_OK)
            return;
    } else {
        status = store_reply_status(application->store, result, reply, REDIS_REPLY_ARRAY);
        if (status == PRODUCT_STORE_OK)
            status = application_count(application, reply);
        if (status == PRODUCT_STORE_OK) {
            status = application_go_on(application);
            if (status == PRODUCT_STORE_OK && application->from < application->to)
                return;
        }
    }
    application->done(application, status);
}

enum product_store_status product_store_apply(struct product_store *store, struct product_application *application,
                                              const struct order_event *event, product_application_fn *done)
{
    assert(event->count > 0);
    *application = (struct product_application){.store = store, .done = done, .event = event};
    return application_go_on(application);
}

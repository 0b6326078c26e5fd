/*
 * rpc: calls a service, or publishes an event, from a shell.
 *
 *     rpc call products get '["the_odyssey"]'
 *     rpc call orders list_orders '[]' '{"limit": 10}'
 *     rpc publish orders order_created '{"order": {...}}'
 *     rpc dead-letters products list
 */
#include <event2/event.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dead_letters.h"
#include "rpclib/client.h"
#include "rpclib/json.h"
#include "rpclib/log.h"
#include "rpclib/loop_libevent.h"
#include "rpclib/publisher.h"
#include "rpclib/settings.h"

static const struct rpc_setting settings_table[] = {
    {.name = "AMQP_URI",
     .kind = RPC_SETTING_URI,
     .fallback = "amqp://guest:guest@localhost:5672",
     .help = "the broker: amqp:// or amqps://user:password@host:port/vhost"},
    {.name = "RPC_TIMEOUT_MS",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "5000",
     .minimum = 1,
     .maximum = 3600000,
     .help = "how long to wait for the broker and the answer, in ms"},
    /* rpclib's default is for services. */
    {.name = "LOG_LEVEL",
     .kind = RPC_SETTING_CHOICE,
     .fallback = "warning",
     .choices = RPC_SETTING_LOG_LEVELS,
     .help = "least severe level that is logged; the answer alone tells that all went well"},
    {.name = NULL},
};

struct tool {
    struct event_base *base;
    struct rpc_loop *loop;
    struct rpc_connection *connection;
    struct rpc_client *client;
    struct rpc_publisher *publisher;
    struct dead_letters_tool *dead_letters;
    struct rpc_loop_timer *deadline;
    char **words; /* what follows "call" or "publish" */
    int words_count;
    int timeout_ms;
    bool sent;
    int exit_code;
};

static const char usage[] =
    "usage: rpc call SERVICE METHOD [ARGS [KWARGS]]   ARGS: a JSON array, KWARGS: a JSON object\n"
    "       rpc publish SOURCE EVENT_TYPE DATA        DATA: JSON\n" DEAD_LETTERS_USAGE
    "       rpc --help | --version | --show-config\n";

static void tool_end(struct tool *tool, int exit_code)
{
    tool->exit_code = exit_code;
    event_base_loopbreak(tool->base);
}

static void tool_fail(struct tool *tool, const char *what)
{
    fprintf(stderr, "rpc: %s\n", what);
    tool_end(tool, RPC_EXIT_FAILED);
}

static struct rpc_bytes word(const struct tool *tool, int index)
{
    return rpc_bytes_of(index < tool->words_count ? tool->words[index] : NULL);
}

/* --- call --- */

static void print_error(const struct rpc_error *error)
{
    json_t *exc_args = json_loadb(error->exc_args.data, error->exc_args.size, 0, NULL);
    json_t *object = json_pack("{s:s%, s:s%, s:o?, s:s%}", "exc_type", error->exc_type.data, error->exc_type.size,
                               "exc_path", error->exc_path.data, error->exc_path.size, "exc_args", exc_args, "value",
                               error->value.data, error->value.size);
    char *text = object == NULL ? NULL : json_dumps(object, 0);

    puts(text != NULL ? text : "(an error that cannot be shown)");
    free(text);
    json_decref(object);
}

static void on_reply(enum rpc_status status, const struct rpc_reply *reply, void *arg)
{
    struct tool *tool = arg;

    if (status == RPC_OK) {
        printf("%.*s\n", (int)reply->result.size, reply->result.data);
        tool_end(tool, RPC_EXIT_OK);
    } else if (status == RPC_REMOTE_ERROR) {
        print_error(&reply->error);
        tool_end(tool, RPC_EXIT_FAILED);
    } else {
        tool_fail(tool, rpc_status_name(status));
    }
}

static void on_client_ready(void *arg)
{
    struct tool *tool = arg;
    enum rpc_status status;

    if (tool->sent)
        return;
    tool->sent = true;
    status = rpc_call(tool->client,
                      &(struct rpc_request){.service = tool->words[0],
                                            .method = tool->words[1],
                                            .args = word(tool, 2),
                                            .kwargs = word(tool, 3),
                                            .timeout_ms = tool->timeout_ms},
                      on_reply, tool, NULL);
    if (status != RPC_OK)
        tool_fail(tool, rpc_status_name(status));
}

/* --- publish --- */

static void on_confirm(enum rpc_status status, void *arg)
{
    struct tool *tool = arg;

    if (status == RPC_OK)
        tool_end(tool, RPC_EXIT_OK);
    else
        tool_fail(tool, status == RPC_UNKNOWN_SERVICE ? "no queue is bound to this event" : rpc_status_name(status));
}

static void on_publisher_ready(void *arg)
{
    struct tool *tool = arg;
    enum rpc_status status;

    if (tool->sent)
        return;
    tool->sent = true;
    status = rpc_publish(tool->publisher, tool->words[1], word(tool, 2), NULL, on_confirm, tool);
    if (status != RPC_OK)
        tool_fail(tool, rpc_status_name(status));
}

/* --- life --- */

static void on_deadline(void *arg)
{
    struct tool *tool = arg;
    bool is_down = rpc_connection_state(tool->connection) == RPC_CONNECTION_DOWN;

    tool_fail(tool, is_down ? "the broker cannot be reached" : "it was not done in time");
}

/* Returns an exit code. */
static int json_is(const char *text, bool (*kind)(const json_t *value), const char *what)
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *value = rpc_json_load(rpc_bytes_of(text), reason);
    bool is_json = value != NULL, fits = is_json && kind(value);

    json_decref(value);
    if (fits)
        return RPC_EXIT_OK;
    if (is_json) {
        fprintf(stderr, "rpc: %s is JSON of another kind\n%s", what, usage);
        return RPC_EXIT_USAGE;
    }
    fprintf(stderr, "rpc: %s is not JSON: %s\n", what, reason);
    return rpc_json_no_memory(reason) ? RPC_EXIT_FAILED : RPC_EXIT_USAGE;
}

static bool is_array(const json_t *value)
{
    return json_is_array(value);
}

static bool is_object(const json_t *value)
{
    return json_is_object(value);
}

static bool is_any(const json_t *value)
{
    return value != NULL;
}

static int words_of_call_fit(int count, char *words[])
{
    int exit_code = count < 3 ? RPC_EXIT_OK : json_is(words[2], is_array, "ARGS");

    return exit_code != RPC_EXIT_OK || count < 4 ? exit_code : json_is(words[3], is_object, "KWARGS");
}

/* What is wrong with the words is found before the broker is asked.  Returns an exit code. */
static int words_fit(const char *command, int count, char *words[])
{
    if (strcmp(command, "call") == 0 && count >= 2 && count <= 4)
        return words_of_call_fit(count, words);
    if (strcmp(command, "publish") == 0 && count == 3)
        return json_is(words[2], is_any, "DATA");
    if (strcmp(command, "dead-letters") == 0 && dead_letters_words_fit(count, words))
        return RPC_EXIT_OK;
    fputs(usage, stderr);
    return RPC_EXIT_USAGE;
}

/* --- dead-letters --- */

static void tool_leave(void *arg)
{
    struct tool *tool = arg;

    event_base_loopbreak(tool->base);
}

/* What was acknowledged must reach the broker before the program ends. */
static void on_dead_letters_done(int exit_code, void *arg)
{
    struct tool *tool = arg;

    tool->exit_code = exit_code;
    rpc_connection_close(tool->connection, tool->timeout_ms, tool_leave, tool);
}

static bool tool_start(struct tool *tool, const char *command, const char *uri)
{
    tool->base = event_base_new();
    if (tool->base != NULL)
        tool->loop = rpc_loop_libevent_new(tool->base);
    if (tool->loop == NULL)
        return false;
    tool->connection =
        rpc_connection_new(&(struct rpc_connection_options){.loop = tool->loop, .uri = uri, .name = "rpc"});
    tool->deadline = rpc_loop_timer_new(tool->loop, on_deadline, tool);
    if (tool->connection == NULL || tool->deadline == NULL)
        return false;
    /* Twice: the broker's share and the answer's, which has its own deadline. */
    rpc_loop_timer_start(tool->deadline, 2 * (uint64_t)tool->timeout_ms);
    if (strcmp(command, "call") == 0)
        tool->client = rpc_client_new(
            tool->connection,
            &(struct rpc_client_options){.name = "rpc", .calls_max = 1, .on_ready = on_client_ready, .arg = tool});
    else if (strcmp(command, "dead-letters") == 0)
        tool->dead_letters =
            dead_letters_tool_new(tool->connection, tool->words_count, tool->words, on_dead_letters_done, tool);
    else
        tool->publisher =
            rpc_publisher_new(tool->connection, &(struct rpc_publisher_options){.source = tool->words[0],
                                                                                .unconfirmed_max = 1,
                                                                                .mandatory = true,
                                                                                .on_ready = on_publisher_ready,
                                                                                .arg = tool});
    return tool->client != NULL || tool->publisher != NULL || tool->dead_letters != NULL;
}

static void tool_clear(struct tool *tool)
{
    rpc_client_free(tool->client);
    rpc_publisher_free(tool->publisher);
    dead_letters_tool_free(tool->dead_letters);
    rpc_connection_free(tool->connection);
    rpc_loop_timer_free(tool->deadline);
    rpc_loop_libevent_free(tool->loop);
    if (tool->base != NULL)
        event_base_free(tool->base);
}

/* Who reads the answer from a file or a pipe must not take half of it for all. */
static bool output_is_written(void)
{
    bool is_written = fflush(stdout) == 0 && !ferror(stdout);

    if (!is_written)
        fputs("rpc: the output cannot be written\n", stderr);
    return is_written;
}

int main(int argc, char *argv[])
{
    struct tool tool = {.words = argv + 2, .words_count = argc - 2, .exit_code = RPC_EXIT_FAILED};
    bool asks_settings = argc > 1 && strncmp(argv[1], "--", 2) == 0;
    char reason[RPC_URI_REASON_SIZE];
    struct rpc_settings *settings;
    int exit_code;

    signal(SIGPIPE, SIG_IGN);
    if (!rpc_settings_load(&settings,
                           &(struct rpc_settings_program){.name = "rpc",
                                                          .summary = "calls a service, or publishes an event",
                                                          .version = AIRSHIP_VERSION,
                                                          .table = settings_table},
                           asks_settings ? argc : 1, argv, &exit_code)) {
        if (asks_settings && exit_code == RPC_EXIT_OK && strcmp(argv[1], "--help") == 0)
            fputs(usage, stdout);
        return exit_code;
    }
    if (!rpc_uri_check(rpc_settings_text(settings, "AMQP_URI"), reason)) {
        exit_code = rpc_settings_refuse(settings, "AMQP_URI", reason);
        rpc_settings_free(settings);
        return exit_code;
    }
    exit_code = words_fit(argc < 2 ? "" : argv[1], tool.words_count, tool.words);
    if (exit_code != RPC_EXIT_OK) {
        rpc_settings_free(settings);
        return exit_code;
    }
    tool.timeout_ms = (int)rpc_settings_integer(settings, "RPC_TIMEOUT_MS");
    if (tool_start(&tool, argv[1], rpc_settings_text(settings, "AMQP_URI")))
        event_base_dispatch(tool.base);
    else
        fputs("rpc: out of memory\n", stderr);
    tool_clear(&tool);
    rpc_settings_free(settings);
    return output_is_written() ? tool.exit_code : RPC_EXIT_FAILED;
}

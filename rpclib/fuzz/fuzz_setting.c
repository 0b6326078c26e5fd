/*
 * setting and uri: a value of the environment.  A password is not shown, wherever the value is; an integer is judged by an
 * oracle of 128 bits; an AMQP URI that is taken is written again and taken as the same.
 *
 * The first byte says where in the password the harness puts a mark, the rest is the value.
 */
#include <fuzz.h>

#include "rpclib/settings.h"
#include "uri.h"

#define VALUE_SIZE_MAX 2048
#define MINIMUM        (-100000)
#define MAXIMUM        INT64_MAX
#define HUGE_NUMBER    ((__int128)1 << 100)
#define HOST_MAX       255
#define VHOST_MAX      255
#define CREDENTIAL_MAX 1024

/* ---- Programs that read it --------------------------------------------------------------------------------------- */

static const struct rpc_setting table_of_uri[] = {{.name = "FUZZ_URI", .kind = RPC_SETTING_URI, .help = "a URI"},
                                                  {.name = NULL}};
static const struct rpc_setting table_of_integer[] = {{.name = "FUZZ_INTEGER",
                                                       .kind = RPC_SETTING_INTEGER,
                                                       .fallback = "5",
                                                       .help = "an integer",
                                                       .minimum = MINIMUM,
                                                       .maximum = MAXIMUM},
                                                      {.name = NULL}};
static const struct rpc_setting table_of_choice[] = {
    {.name = "FUZZ_CHOICE", .kind = RPC_SETTING_CHOICE, .help = "a choice", .choices = "auto|logfmt|json"},
    {.name = NULL}};

/* What the program prints meanwhile is caught. */
struct caught {
    FILE *out, *was_out, *was_error;
    char *text;
    size_t size;
};

static void catch_begin(struct caught *caught)
{
    *caught = (struct caught){.was_out = stdout, .was_error = stderr};
    caught->out = open_memstream(&caught->text, &caught->size);
    HOLDS(caught->out != NULL);
    stdout = stderr = caught->out;
}

static void catch_end(struct caught *caught)
{
    stdout = caught->was_out;
    stderr = caught->was_error;
    HOLDS(fclose(caught->out) == 0);
}

/* Returns what was printed, the caller's to free. */
static char *load(struct rpc_settings **out, const struct rpc_setting *table, const char *option, const char *text,
                  int *exit_code, bool *go_on)
{
    const struct rpc_settings_program program = {
        .name = "fuzz", .summary = "A program.", .version = "0", .table = table};
    char name[] = "fuzz", argument[32];
    char *argv[] = {name, argument, NULL};
    struct caught caught;

    snprintf(argument, sizeof(argument), "%s", option == NULL ? "" : option);
    HOLDS(setenv(table[0].name, text, 1) == 0);
    catch_begin(&caught);
    *go_on = rpc_settings_load(out, &program, option == NULL ? 1 : 2, argv, exit_code);
    catch_end(&caught);
    HOLDS(unsetenv(table[0].name) == 0);
    return caught.text;
}

/* ---- Integers and choices ---------------------------------------------------------------------------------------- */

/* Digits with or without a minus, and no zeros before them. */
static bool integer_oracle(int64_t *out, const char *text)
{
    const char *digits = text[0] == '-' ? text + 1 : text;
    __int128 number = 0;

    if (digits[0] == '\0' || digits[strspn(digits, "0123456789")] != '\0' || (digits[0] == '0' && digits[1] != '\0'))
        return false;
    for (; *digits != '\0'; digits++)
        if (number < HUGE_NUMBER)
            number = number * 10 + (*digits - '0');
    if (text[0] == '-')
        number = -number;
    *out = (int64_t)number;
    return number >= MINIMUM && number <= MAXIMUM;
}

static void check_integer(const char *text)
{
    struct rpc_settings *settings = NULL;
    int64_t expected = 5;
    bool go_on, sound = text[0] == '\0' || integer_oracle(&expected, text);
    int exit_code;
    char *printed = load(&settings, table_of_integer, NULL, text, &exit_code, &go_on);

    HOLDS(go_on == sound && (settings != NULL) == sound);
    HOLDS(exit_code == (sound ? RPC_EXIT_OK : RPC_EXIT_USAGE) && (printed[0] == '\0') == sound);
    HOLDS(!sound || rpc_settings_integer(settings, "FUZZ_INTEGER") == expected);
    rpc_settings_free(settings);
    free(printed);
}

static void check_choice(const char *text)
{
    struct rpc_settings *settings = NULL;
    int exit_code;
    bool go_on;
    char *printed = load(&settings, table_of_choice, NULL, text, &exit_code, &go_on);

    if (go_on) {
        const char *value = rpc_settings_text(settings, "FUZZ_CHOICE");

        HOLDS(text[0] == '\0' ? value == NULL : strcasecmp(value, text) == 0);
        HOLDS(value == NULL || strcmp(value, "auto") == 0 || strcmp(value, "logfmt") == 0 ||
              strcmp(value, "json") == 0);
    } else {
        HOLDS(exit_code == RPC_EXIT_USAGE && settings == NULL && printed[0] != '\0');
    }
    rpc_settings_free(settings);
    free(printed);
}

/* ---- What is shown ----------------------------------------------------------------------------------------------- */

static void check_shown(const char *text)
{
    struct rpc_settings *settings = NULL;
    int exit_code;
    bool go_on;
    char *printed = load(&settings, table_of_uri, "--show-config", text, &exit_code, &go_on);

    HOLDS(!go_on && settings == NULL && exit_code == RPC_EXIT_OK);
    HOLDS(strncmp(printed, "FUZZ_URI=", strlen("FUZZ_URI=")) == 0);
    if (strstr(printed, FUZZ_MARK) != NULL)
        fprintf(stderr, "%s\nis shown as\n%s\n", text, printed);
    HOLDS(strstr(printed, FUZZ_MARK) == NULL);
    for (const char *at = printed; *at != '\0'; at++)
        HOLDS((unsigned char)*at >= ' ' || *at == '\n');
    free(printed);
}

/* ---- AMQP's URIs ------------------------------------------------------------------------------------------------- */

static void append_encoded(char **at, const char *text)
{
    for (; *text != '\0'; text++)
        *at += sprintf(*at, "%%%02x", (unsigned char)*text);
}

static void append_file(char **at, const char *name, const char *file)
{
    if (file == NULL)
        return;
    *at += sprintf(*at, "&%s=", name);
    append_encoded(at, file);
}

static size_t length(const char *text)
{
    return text == NULL ? 0 : strlen(text);
}

static bool are_equal(const char *one, const char *other)
{
    return one == NULL || other == NULL ? one == other : strcmp(one, other) == 0;
}

static void check_round_trip(const struct rpc_uri *uri)
{
    size_t size = length(uri->host) + length(uri->user) + length(uri->password) + length(uri->vhost) +
                  length(uri->cafile) + length(uri->certfile) + length(uri->keyfile);
    char *text = malloc(3 * size + 128), *at = text, reason[RPC_URI_REASON_SIZE];
    bool bracket = strchr(uri->host, ':') != NULL;
    struct rpc_uri again;

    HOLDS(text != NULL);
    at += sprintf(at, uri->tls ? "amqps://" : "amqp://");
    append_encoded(&at, uri->user);
    *at++ = ':';
    append_encoded(&at, uri->password);
    at += sprintf(at, bracket ? "@[" : "@");
    append_encoded(&at, uri->host);
    at += sprintf(at, bracket ? "]:%u/" : ":%u/", uri->port);
    append_encoded(&at, uri->vhost);
    *at++ = '?';
    if (uri->heartbeat_s >= 0)
        at += sprintf(at, "heartbeat=%d", uri->heartbeat_s);
    append_file(&at, "cafile", uri->cafile);
    append_file(&at, "certfile", uri->certfile);
    append_file(&at, "keyfile", uri->keyfile);
    *at = '\0';
    HOLDS(rpc_uri_parse(&again, text, reason));
    HOLDS(are_equal(uri->host, again.host) && are_equal(uri->user, again.user) && are_equal(uri->vhost, again.vhost));
    HOLDS(are_equal(uri->password, again.password) && uri->tls == again.tls && uri->port == again.port);
    HOLDS(are_equal(uri->cafile, again.cafile) && are_equal(uri->certfile, again.certfile));
    HOLDS(are_equal(uri->keyfile, again.keyfile) && uri->heartbeat_s == again.heartbeat_s);
    rpc_uri_clear(&again);
    free(text);
}

static bool parse(void *out, const char *text, char *reason)
{
    return rpc_uri_parse(out, text, reason);
}

static void check(void *taken, const char *text)
{
    struct rpc_uri *uri = taken;

    (void)text;
    HOLDS(uri->host != NULL && uri->host[0] != '\0' && strlen(uri->host) <= HOST_MAX && uri->port > 0);
    HOLDS(strlen(uri->user) <= CREDENTIAL_MAX && strlen(uri->password) <= CREDENTIAL_MAX);
    HOLDS(strlen(uri->vhost) >= 1 && strlen(uri->vhost) <= VHOST_MAX);
    HOLDS(uri->heartbeat_s >= -1 && uri->heartbeat_s <= UINT16_MAX);
    HOLDS(uri->tls || (uri->cafile == NULL && uri->certfile == NULL && uri->keyfile == NULL));
    HOLDS(uri->keyfile == NULL || uri->certfile != NULL);
    check_round_trip(uri);
    rpc_uri_clear(uri);
}

static const struct fuzz_uri_reader amqp_uri = {sizeof(struct rpc_uri), RPC_URI_REASON_SIZE, parse, check};

/* A password by its name in a query, whose letters the bits of `encoded` have percent-encoded. */
static void check_named(const char *text, uint8_t encoded)
{
    static const char word[] = "password";
    char name[3 * sizeof(word)], *at = name, *named;

    for (size_t i = 0; word[i] != '\0'; i++)
        at += sprintf(at, encoded >> i & 1 ? "%%%02x" : "%c", (unsigned)word[i]);
    HOLDS(asprintf(&named, "%s?%s=" FUZZ_MARK, text, name) > 0);
    check_shown(named);
    free(named);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_bytes input = fuzz_bytes(data, size < VALUE_SIZE_MAX ? size : VALUE_SIZE_MAX);
    uint8_t where = fuzz_byte(&input);
    char *text = fuzz_string(input), *marked;
    const char *begin = fuzz_behind_scheme(text);

    if (strstr(text, FUZZ_MARK) == NULL) {
        check_shown(text);
        check_named(text, where);
        fuzz_uri(&amqp_uri, text);
        marked = fuzz_marked(text, begin == NULL ? text : begin, where);
        if (marked != NULL) {
            fuzz_uri(&amqp_uri, marked);
            check_shown(marked);
        }
        free(marked);
        check_integer(text);
        check_choice(text);
    }
    free(text);
    return 0;
}

#include "rpclib/settings.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "printable.h"
#include "rpclib/hex.h"
#include "rpclib/log.h"
#include "rpclib/utf8.h"

#define FILE_SIZE_MAX 65536 /* bytes of a file that NAME_FILE names */
#define NAME_SIZE_MAX 64    /* bytes of NAME_FILE with its NUL */
#define SHOWN_MAX     40    /* bytes of a wrong value that are shown */
#define MASK          "***"

enum source { SOURCE_NONE, SOURCE_DEFAULT, SOURCE_ENVIRONMENT, SOURCE_FILE };

struct value {
    const struct rpc_setting *setting;
    enum source source;
    char *text;       /* owned, wiped when freed; NULL without a value */
    const char *file; /* the environment's; with SOURCE_FILE */
    int64_t integer;
};

struct rpc_settings {
    struct rpc_settings_program program;
    struct value *values;
    size_t count;
};

/* What every program has besides its own. */
static const struct rpc_setting common[] = {
    {.name = "LOG_LEVEL",
     .kind = RPC_SETTING_CHOICE,
     .fallback = "info",
     .help = "least severe level that is logged",
     .choices = RPC_SETTING_LOG_LEVELS},
    {.name = "LOG_FORMAT",
     .kind = RPC_SETTING_CHOICE,
     .fallback = "auto",
     .help = "what log lines look like; auto: logfmt on a terminal, JSON otherwise",
     .choices = "auto|logfmt|json"},
    {.name = NULL},
};

/* Whether the program has a row of its own for what every program has: that one counts. */
static bool is_replaced(const struct rpc_setting *setting, const struct rpc_settings_program *program)
{
    for (const struct rpc_setting *own = program->table; own->name != NULL; own++) {
        if (strcmp(own->name, setting->name) == 0)
            return true;
    }
    return false;
}

static size_t table_count(const struct rpc_setting *table)
{
    size_t count = 0;

    while (table[count].name != NULL)
        count++;
    return count;
}

/* ---- Showing values ---------------------------------------------------------------------------------------------- */

/* Behind "password", whose letters may stand percent-encoded: libpq decodes the names in a query.  NULL: it is another word. */
static const char *password_skip(const char *at)
{
    for (const char *letter = "password"; *letter != '\0'; letter++) {
        int high = at[0] == '%' ? rpc_hex_digit(at[1]) : -1, low = high < 0 ? -1 : rpc_hex_digit(at[2]);

        if (tolower(low < 0 ? (unsigned char)at[0] : high << 4 | low) != *letter)
            return NULL;
        at += low < 0 ? 1 : 3;
    }
    return at;
}

/* At "password": the value behind its '=', as a URI's query (a=b&c=d) or libpq's key words (a = 'b' c=d) have it. */
static bool password_value(const char *at, const char **start, const char **end)
{
    at = password_skip(at);
    if (at == NULL)
        return false;
    at += strspn(at, " ");
    if (*at != '=')
        return false;
    at++;
    at += strspn(at, " ");
    *start = at;
    if (*at != '\'') {
        *end = at + strcspn(at, "& \t\r\n");
        return true;
    }
    for (at++; *at != '\0' && *at != '\''; at++) {
        if (*at == '\\' && at[1] != '\0')
            at++;
    }
    *end = *at == '\0' ? at : at + 1;
    return true;
}

/*
 * A URI with its passwords masked; the caller's to free; NULL: out of memory.  What stands between the first colon and
 * the LAST at-sign counts as one: a password with a raw '/' or '@' in it is wrong, but still a password.
 */
static char *uri_masked(const char *uri)
{
    const char *scheme_end = strstr(uri, "://");
    const char *user = scheme_end == NULL ? uri : scheme_end + 3;
    const char *at_sign = strrchr(user, '@');
    const char *colon = at_sign == NULL ? NULL : memchr(user, ':', (size_t)(at_sign - user));
    char *masked = calloc(4 * strlen(uri) + sizeof(MASK), 1);
    char *out = masked;
    const char *start;
    const char *end;

    if (masked == NULL)
        return NULL;
    for (const char *at = uri; *at != '\0';) {
        if (at == colon) {
            out = stpcpy(out, ":" MASK);
            at = at_sign;
        } else if (password_value(at, &start, &end)) {
            memcpy(out, at, (size_t)(start - at));
            out = stpcpy(out + (start - at), MASK);
            /* A user that is called so: the password behind the colon begins within what was masked. */
            at = colon != NULL && colon >= start && colon < end && end < at_sign ? at_sign : end;
        } else {
            *out++ = *at++;
        }
    }
    *out = '\0';
    return masked;
}

static void print_plain(FILE *out, const char *text)
{
    printable_write(out, rpc_bytes_of(text));
}

/* The beginning of what is wrong. */
static void print_wrong(FILE *out, const char *text)
{
    struct rpc_bytes all = rpc_bytes_of(text), shown = rpc_utf8_cut(all, SHOWN_MAX);

    printable_write(out, shown);
    if (shown.size < all.size)
        fputs("...", out);
}

static void print_value(FILE *out, const struct rpc_setting *setting, const char *text)
{
    char *masked;

    if (setting->kind != RPC_SETTING_URI) {
        print_plain(out, text);
        return;
    }
    masked = uri_masked(text);
    print_plain(out, masked == NULL ? MASK : masked);
    free(masked);
}

/* What the setting may be: "an integer from 1 to 10"; nothing where anything goes. */
static void print_range(FILE *out, const struct rpc_setting *setting)
{
    switch (setting->kind) {
    case RPC_SETTING_TEXT:
    case RPC_SETTING_URI:
        break;
    case RPC_SETTING_INTEGER:
        fprintf(out, "an integer from %" PRId64 " to %" PRId64, setting->minimum, setting->maximum);
        break;
    case RPC_SETTING_CHOICE:
        fprintf(out, "one of %s", setting->choices);
        break;
    }
}

/* ---- Options ----------------------------------------------------------------------------------------------------- */

static void help_setting(const struct rpc_setting *setting, int width)
{
    printf("  %-*s  %s (", width, setting->name, setting->help);
    print_range(stdout, setting);
    if (setting->kind == RPC_SETTING_INTEGER || setting->kind == RPC_SETTING_CHOICE)
        printf("; ");
    if (setting->fallback != NULL) {
        printf("default: ");
        print_value(stdout, setting, setting->fallback);
    } else {
        printf("no default");
    }
    printf(")\n");
}

static int name_width(const struct rpc_setting *table, int least)
{
    for (; table->name != NULL; table++) {
        if ((int)strlen(table->name) > least)
            least = (int)strlen(table->name);
    }
    return least;
}

/* Whatever was printed has arrived, or the exit code says that it has not. */
static int exit_code_of_stdout(void)
{
    return fflush(stdout) == 0 && !ferror(stdout) ? RPC_EXIT_OK : RPC_EXIT_FAILED;
}

static int help(const struct rpc_settings_program *program)
{
    int width = name_width(program->table, name_width(common, 0));

    printf("Usage: %s [--help | --version | --show-config]\n\n%s\n\n", program->name, program->summary);
    printf("  --help         print this and exit\n"
           "  --version      print the version and exit\n"
           "  --show-config  print every setting, its value and where that came from, and exit\n\n"
           "All settings come from the environment. NAME is read from the variable NAME, or from\n"
           "the file that NAME_FILE names. An empty variable counts as not set.\n\n");
    for (const struct rpc_setting *own = program->table; own->name != NULL; own++)
        help_setting(own, width);
    for (const struct rpc_setting *row = common; row->name != NULL; row++) {
        if (!is_replaced(row, program))
            help_setting(row, width);
    }
    printf("\nExit codes: %d stopped as asked, %d failed while running, %d wrong usage or setting.\n", RPC_EXIT_OK,
           RPC_EXIT_FAILED, RPC_EXIT_USAGE);
    return exit_code_of_stdout();
}

static int version(const struct rpc_settings_program *program)
{
    printf("%s %s\n", program->name, program->version);
    return exit_code_of_stdout();
}

static int show_config(const struct rpc_settings *settings)
{
    for (size_t i = 0; i < settings->count; i++) {
        const struct value *value = &settings->values[i];

        printf("%s=", value->setting->name);
        if (value->text != NULL)
            print_value(stdout, value->setting, value->text);
        switch (value->source) {
        case SOURCE_NONE:
            printf("  # not set\n");
            break;
        case SOURCE_DEFAULT:
            printf("  # default\n");
            break;
        case SOURCE_ENVIRONMENT:
            printf("  # environment\n");
            break;
        case SOURCE_FILE:
            printf("  # file ");
            print_plain(stdout, value->file);
            printf("\n");
            break;
        }
    }
    return exit_code_of_stdout();
}

enum option { OPTION_NONE, OPTION_SHOW_CONFIG, OPTION_VERSION, OPTION_HELP, OPTION_UNKNOWN };

/* The option that counts most of those given. */
static enum option option_of(const char *program, int argc, char *argv[])
{
    static const char *const names[] = {"", "--show-config", "--version", "--help"};
    enum option asked = OPTION_NONE;

    for (int i = 1; i < argc; i++) {
        enum option option = OPTION_UNKNOWN;

        for (int name = OPTION_SHOW_CONFIG; name < OPTION_UNKNOWN; name++) {
            if (strcmp(argv[i], names[name]) == 0)
                option = (enum option)name;
        }
        if (option == OPTION_UNKNOWN) {
            fprintf(stderr, "%s: unknown argument \"", program);
            print_wrong(stderr, argv[i]);
            fprintf(stderr, "\"; see %s --help\n", program);
            return OPTION_UNKNOWN;
        }
        if (option > asked)
            asked = option;
    }
    return asked;
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

static bool parse_integer(const struct rpc_setting *setting, const char *text, int64_t *out)
{
    const char *first = text[0] == '-' ? text + 1 : text;
    char *end;
    long long number;

    if (!isdigit((unsigned char)*first) || (*first == '0' && first[1] != '\0'))
        return false; /* neither spaces, nor a plus, nor what might be meant as octal */
    errno = 0;
    number = strtoll(text, &end, 10);
    if (*end != '\0' || errno != 0 || number < setting->minimum || number > setting->maximum)
        return false;
    *out = number;
    return true;
}

/* Finds `text` among "a|b|c", in capitals or not, and spells it as the table does. */
static bool parse_choice(const struct rpc_setting *setting, char *text)
{
    size_t size = strlen(text);
    const char *choice = setting->choices;

    while (*choice != '\0') {
        size_t choice_size = strcspn(choice, "|");

        if (choice_size == size && strncasecmp(choice, text, size) == 0) {
            memcpy(text, choice, size);
            return true;
        }
        choice += choice_size;
        choice += strspn(choice, "|");
    }
    return false;
}

static bool parse(struct value *value)
{
    switch (value->setting->kind) {
    case RPC_SETTING_TEXT:
    case RPC_SETTING_URI:
        break;
    case RPC_SETTING_INTEGER:
        return parse_integer(value->setting, value->text, &value->integer);
    case RPC_SETTING_CHOICE:
        return parse_choice(value->setting, value->text);
    }
    return true;
}

static ssize_t read_all(int fd, char *buffer, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t part = read(fd, buffer + done, size - done);

        if (part == 0)
            break;
        if (part > 0)
            done += (size_t)part;
        else if (errno != EINTR)
            return -1;
    }
    return (ssize_t)done;
}

/* The text of a file without its last newline.  NULL, with the reason in *reason, when it has none. */
static char *file_text(const char *path, const char **reason)
{
    char *text = NULL;
    char *buffer = malloc(FILE_SIZE_MAX + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    ssize_t size = -1;

    if (buffer == NULL) {
        *reason = "out of memory";
        goto done;
    }
    if (fd >= 0)
        size = read_all(fd, buffer, FILE_SIZE_MAX + 1);
    if (size < 0) {
        *reason = strerror(errno);
        goto done;
    }
    *reason = "is larger than a setting may be";
    if (size > FILE_SIZE_MAX)
        goto done;
    *reason = "holds a NUL";
    if (memchr(buffer, '\0', (size_t)size) != NULL)
        goto done;
    if (size > 0 && buffer[size - 1] == '\n')
        size -= size > 1 && buffer[size - 2] == '\r' ? 2 : 1;
    *reason = "is empty";
    if (size == 0)
        goto done;
    text = strndup(buffer, (size_t)size);
    *reason = "out of memory";
done:
    if (fd >= 0)
        close(fd);
    if (buffer != NULL)
        explicit_bzero(buffer, FILE_SIZE_MAX + 1);
    free(buffer);
    return text;
}

/* Where the value comes from, and its text.  Returns false after saying what is wrong. */
static bool value_find(const char *program, struct value *value)
{
    const char *name = value->setting->name;
    const char *text = getenv(name);
    char file_name[NAME_SIZE_MAX];
    const char *reason;

    assert(strlen(name) + sizeof("_FILE") <= sizeof(file_name));
    stpcpy(stpcpy(file_name, name), "_FILE");
    value->file = getenv(file_name);
    if (text != NULL && *text == '\0')
        text = NULL;
    if (value->file != NULL && *value->file == '\0')
        value->file = NULL;
    if (text != NULL && value->file != NULL) {
        fprintf(stderr, "%s: %s: %s is set as well; set one of them\n", program, name, file_name);
        return false;
    }
    if (value->file != NULL) {
        value->source = SOURCE_FILE;
        value->text = file_text(value->file, &reason);
        if (value->text == NULL) {
            fprintf(stderr, "%s: %s: the file \"", program, file_name);
            print_plain(stderr, value->file);
            fprintf(stderr, "\": %s\n", reason);
        }
        return value->text != NULL;
    }
    value->source = text != NULL ? SOURCE_ENVIRONMENT : value->setting->fallback != NULL ? SOURCE_DEFAULT : SOURCE_NONE;
    if (text == NULL)
        text = value->setting->fallback;
    if (text == NULL)
        return true;
    value->text = strdup(text);
    if (value->text == NULL)
        fprintf(stderr, "%s: %s: out of memory\n", program, name);
    return value->text != NULL;
}

static bool value_read(const char *program, struct value *value)
{
    if (!value_find(program, value))
        return false;
    if (value->text == NULL || parse(value))
        return true;
    assert(value->source != SOURCE_DEFAULT); /* the table contradicts itself */
    fprintf(stderr, "%s: %s: must be ", program, value->setting->name);
    print_range(stderr, value->setting);
    if (value->source == SOURCE_ENVIRONMENT) { /* a file's text is a secret */
        fprintf(stderr, ", not \"");
        print_wrong(stderr, value->text);
        fprintf(stderr, "\"");
    }
    fprintf(stderr, "\n");
    return false;
}

static struct rpc_settings *settings_new(const struct rpc_settings_program *program)
{
    size_t own = table_count(program->table), rows = own + table_count(common);
    struct rpc_settings *settings = calloc(1, sizeof(*settings));
    struct value *values;
    size_t count = 0;

    if (settings == NULL)
        return NULL;
    assert(rows > 0);
    values = calloc(rows, sizeof(*values));
    if (values == NULL) {
        free(settings);
        return NULL;
    }
    for (size_t i = 0; i < rows; i++) {
        const struct rpc_setting *row = i < own ? &program->table[i] : &common[i - own];

        if (i < own || !is_replaced(row, program))
            values[count++].setting = row;
    }
    *settings = (struct rpc_settings){.program = *program, .values = values, .count = count};
    return settings;
}

static void configure_log(const struct rpc_settings *settings)
{
    static const char *const levels[] = {"debug", "info", "warning", "error"};
    const char *level = rpc_settings_text(settings, "LOG_LEVEL");
    const char *format = rpc_settings_text(settings, "LOG_FORMAT");
    bool logfmt = strcmp(format, "auto") == 0 ? isatty(STDERR_FILENO) == 1 : strcmp(format, "logfmt") == 0;

    for (int i = RPC_LOG_DEBUG; i <= RPC_LOG_ERROR; i++) {
        if (strcmp(level, levels[i]) == 0)
            rpc_log_configure(settings->program.name, (enum rpc_log_level)i, logfmt ? RPC_LOG_LOGFMT : RPC_LOG_JSON);
    }
}

bool rpc_settings_load(struct rpc_settings **out, const struct rpc_settings_program *program, int argc, char *argv[],
                       int *exit_code)
{
    enum option option = option_of(program->name, argc, argv);
    struct rpc_settings *settings = NULL;
    bool sound = true;
    bool go_on = false;

    *exit_code = RPC_EXIT_USAGE;
    if (option == OPTION_UNKNOWN)
        goto done;
    if (option == OPTION_HELP || option == OPTION_VERSION) {
        *exit_code = option == OPTION_HELP ? help(program) : version(program);
        goto done;
    }
    settings = settings_new(program);
    if (settings == NULL) {
        fprintf(stderr, "%s: out of memory\n", program->name);
        *exit_code = RPC_EXIT_FAILED;
        goto done;
    }
    for (size_t i = 0; i < settings->count; i++) { /* all of them: one run tells all that is wrong */
        if (!value_read(program->name, &settings->values[i]))
            sound = false;
    }
    if (!sound)
        goto done;
    if (option == OPTION_SHOW_CONFIG) {
        *exit_code = show_config(settings);
        goto done;
    }
    configure_log(settings);
    *exit_code = RPC_EXIT_OK;
    *out = settings;
    settings = NULL; /* the caller's from here on */
    go_on = true;
done:
    rpc_settings_free(settings);
    return go_on;
}

/* ---- Use --------------------------------------------------------------------------------------------------------- */

static const struct value *value_of(const struct rpc_settings *settings, const char *name)
{
    for (size_t i = 0; i < settings->count; i++) {
        if (strcmp(settings->values[i].setting->name, name) == 0)
            return &settings->values[i];
    }
    assert(false && "a setting that is not in the table");
    abort();
}

const char *rpc_settings_text(const struct rpc_settings *settings, const char *name)
{
    return value_of(settings, name)->text;
}

int64_t rpc_settings_integer(const struct rpc_settings *settings, const char *name)
{
    const struct value *value = value_of(settings, name);

    assert(value->setting->kind == RPC_SETTING_INTEGER);
    return value->integer;
}

int rpc_settings_refuse(const struct rpc_settings *settings, const char *name, const char *reason)
{
    fprintf(stderr, "%s: %s: %s\n", settings->program.name, value_of(settings, name)->setting->name, reason);
    return RPC_EXIT_USAGE;
}

void rpc_settings_free(struct rpc_settings *settings)
{
    if (settings == NULL)
        return;
    for (size_t i = 0; i < settings->count; i++) {
        if (settings->values[i].text != NULL)
            explicit_bzero(settings->values[i].text, strlen(settings->values[i].text));
        free(settings->values[i].text);
    }
    free(settings->values);
    free(settings);
}

/* rpc_settings: each case in a process of its own, as a program would run it. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpclib/log.h"
#include "rpclib/settings.h"

#define OUTPUT_SIZE      8192
#define ARGUMENTS_MAX    4
#define VARIABLES_MAX    4
#define EXIT_WENT_ON     42
#define EXIT_TEST_BUG    43
#define SECRET           "s3cr3t"
#define SECRET_URI       "amqp://shop:" SECRET "@broker:5673/vhost?heartbeat=5"
#define SECRET_URI_SHOWN "amqp://shop:***@broker:5673/vhost?heartbeat=5"

static const struct rpc_setting table[] = {
    {.name = "T_URI", .kind = RPC_SETTING_URI, .fallback = "amqp://guest:guest@127.0.0.1/", .help = "the broker"},
    {.name = "T_TIMEOUT_MS",
     .kind = RPC_SETTING_INTEGER,
     .fallback = "5000",
     .help = "limit of a call, in ms",
     .minimum = -10,
     .maximum = 60000},
    {.name = "T_BIG", .kind = RPC_SETTING_INTEGER, .help = "anything", .minimum = INT64_MIN, .maximum = INT64_MAX},
    {.name = "T_KIND", .kind = RPC_SETTING_CHOICE, .fallback = "b", .help = "which", .choices = "a|b|longer"},
    {.name = "T_NAME", .kind = RPC_SETTING_TEXT, .help = "a name"},
    {.name = NULL},
};

static const struct rpc_settings_program program = {
    .name = "shop", .summary = "Sells things.", .version = "1.2.3", .table = table};

/* One that has a default of its own for what every program has. */
static const struct rpc_setting quiet_table[] = {
    {.name = "LOG_LEVEL",
     .kind = RPC_SETTING_CHOICE,
     .fallback = "error",
     .help = "what is logged",
     .choices = RPC_SETTING_LOG_LEVELS},
    {.name = "T_NAME", .kind = RPC_SETTING_TEXT, .help = "a name"},
    {.name = NULL},
};

static const struct rpc_settings_program quiet_program = {
    .name = "quiet", .summary = "Sells nothing.", .version = "1.2.3", .table = quiet_table};

struct run {
    const struct rpc_settings_program *program; /* NULL: the shop */
    const char *variables[VARIABLES_MAX * 2];   /* name, value, ...; NULL ends */
    const char *arguments[ARGUMENTS_MAX];       /* NULL ends */
    const char *prints;                         /* a setting: printed where the program goes on */
    int out;                                    /* a descriptor for standard output; 0: read by us */
    int exit_code;
    char output[OUTPUT_SIZE]; /* of both */
};

static char folder[] = "/tmp/test_settings_XXXXXX";

static void run_in_child(const struct run *run)
{
    const struct rpc_settings_program *runs = run->program != NULL ? run->program : &program;
    char *argv[ARGUMENTS_MAX + 2] = {(char *)(uintptr_t)runs->name};
    struct rpc_settings *settings = NULL;
    int argc = 1;
    int exit_code = EXIT_TEST_BUG;

    clearenv();
    for (size_t i = 0; i + 1 < VARIABLES_MAX * 2 && run->variables[i] != NULL; i += 2)
        setenv(run->variables[i], run->variables[i + 1], 1);
    for (; argc <= ARGUMENTS_MAX && run->arguments[argc - 1] != NULL; argc++)
        argv[argc] = (char *)run->arguments[argc - 1];
    if (rpc_settings_load(&settings, runs, argc, argv, &exit_code)) {
        const char *text = run->prints == NULL ? "" : rpc_settings_text(settings, run->prints);

        dprintf(STDOUT_FILENO, "%s", text == NULL ? "(null)" : text);
        exit_code = EXIT_WENT_ON;
    } else if (settings != NULL) {
        exit_code = EXIT_TEST_BUG;
    }
    rpc_settings_free(settings);
    fflush(NULL);
    exit(exit_code);
}

static void run(struct run *run)
{
    size_t size = 0;
    ssize_t part;
    int ends[2];
    int status;
    pid_t child;

    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(run->out == 0 ? ends[1] : run->out, STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        run_in_child(run);
    }
    close(ends[1]);
    while ((part = read(ends[0], run->output + size, OUTPUT_SIZE - 1 - size)) > 0)
        size += (size_t)part;
    run->output[size] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    run->exit_code = WEXITSTATUS(status);
}

static void value_is_at(const char *name, const char *variable, const char *value, const char *expected, int line)
{
    struct run with = {.variables = {variable, value}, .prints = name};

    run(&with);
    if (with.exit_code != EXIT_WENT_ON || strcmp(with.output, expected) != 0)
        fail_msg("line %d: exit code %d, \"%s\" instead of \"%s\"", line, with.exit_code, with.output, expected);
}

static void value_is_refused_at(const char *variable, const char *value, const char *expected, int line)
{
    struct run with = {.variables = {variable, value}};

    run(&with);
    if (with.exit_code != RPC_EXIT_USAGE || strcmp(with.output, expected) != 0)
        fail_msg("line %d: exit code %d, \"%s\" instead of \"%s\"", line, with.exit_code, with.output, expected);
}

#define value_is(name, variable, value, expected)   value_is_at(name, variable, value, expected, __LINE__)
#define value_is_refused(variable, value, expected) value_is_refused_at(variable, value, expected, __LINE__)

static const char *file_of(const char *text, size_t size)
{
    static char path[64];
    int fd;

    snprintf(path, sizeof(path), "%s/value", folder);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    for (size_t done = 0; done < size;) {
        ssize_t part = write(fd, text + done, size - done);

        assert_true(part > 0);
        done += (size_t)part;
    }
    close(fd);
    return path;
}

static void test_where_values_come_from(void **state)
{
    (void)state;
    value_is("T_URI", NULL, NULL, "amqp://guest:guest@127.0.0.1/");
    value_is("T_URI", "T_URI", SECRET_URI, SECRET_URI);
    value_is("T_URI", "T_URI", "", "amqp://guest:guest@127.0.0.1/");
    value_is("T_URI", "T_URI_FILE", "", "amqp://guest:guest@127.0.0.1/");
    value_is("T_NAME", NULL, NULL, "(null)");
    value_is("T_NAME", "T_NAME", " a b ", " a b ");
    value_is("T_NAME", "T_NAME_FILE", file_of("x", 1), "x");
    value_is("T_NAME", "T_NAME_FILE", file_of("x\n", 2), "x");
    value_is("T_NAME", "T_NAME_FILE", file_of("x\r\n", 3), "x");
    value_is("T_NAME", "T_NAME_FILE", file_of("x\n\n", 3), "x\n");
    value_is("T_TIMEOUT_MS", "T_TIMEOUT_MS_FILE", file_of("7\n", 2), "7");
}

static void test_files_that_are_refused(void **state)
{
    char expected[300];
    char *large = calloc(1, 70000);

    (void)state;
    value_is_refused("T_NAME_FILE", "/nonexistent\n/file",
                     "shop: T_NAME_FILE: the file \"/nonexistent?/file\": No such file or directory\n");
    snprintf(expected, sizeof(expected), "shop: T_NAME_FILE: the file \"%s\": Is a directory\n", folder);
    value_is_refused("T_NAME_FILE", folder, expected);
    snprintf(expected, sizeof(expected), "shop: T_NAME_FILE: the file \"%s/value\": is empty\n", folder);
    value_is_refused("T_NAME_FILE", file_of("", 0), expected);
    value_is_refused("T_NAME_FILE", file_of("\n", 1), expected);
    snprintf(expected, sizeof(expected), "shop: T_NAME_FILE: the file \"%s/value\": holds a NUL\n", folder);
    value_is_refused("T_NAME_FILE", file_of("a\0b", 3), expected);
    assert_non_null(large);
    memset(large, 'x', 70000);
    snprintf(expected, sizeof(expected), "shop: T_NAME_FILE: the file \"%s/value\": is larger than a setting may be\n",
             folder);
    value_is_refused("T_NAME_FILE", file_of(large, 70000), expected);
    value_is_refused("T_TIMEOUT_MS_FILE", file_of(SECRET, strlen(SECRET)),
                     "shop: T_TIMEOUT_MS: must be an integer from -10 to 60000\n");
    free(large);
}

static void test_both_at_once(void **state)
{
    struct run both = {.variables = {"T_NAME", "a", "T_NAME_FILE", "/etc/hostname"}};

    (void)state;
    run(&both);
    assert_int_equal(both.exit_code, RPC_EXIT_USAGE);
    assert_string_equal(both.output, "shop: T_NAME: T_NAME_FILE is set as well; set one of them\n");
}

static void timeout_is_refused_at(const char *value, int line)
{
    char expected[200];

    snprintf(expected, sizeof(expected), "shop: T_TIMEOUT_MS: must be an integer from -10 to 60000, not \"%s\"\n",
             value);
    value_is_refused_at("T_TIMEOUT_MS", value, expected, line);
}

#define timeout_is_refused(value) timeout_is_refused_at(value, __LINE__)

static void test_integers(void **state)
{
    (void)state;
    value_is("T_TIMEOUT_MS", "T_TIMEOUT_MS", "0", "0");
    value_is("T_TIMEOUT_MS", "T_TIMEOUT_MS", "-10", "-10");
    value_is("T_TIMEOUT_MS", "T_TIMEOUT_MS", "60000", "60000");
    value_is("T_BIG", "T_BIG", "9223372036854775807", "9223372036854775807");
    value_is("T_BIG", "T_BIG", "-9223372036854775808", "-9223372036854775808");
    value_is("T_BIG", NULL, NULL, "(null)");
    timeout_is_refused("-11");
    timeout_is_refused("60001");
    timeout_is_refused("abc");
    timeout_is_refused(" 1");
    timeout_is_refused("1 ");
    timeout_is_refused("+1");
    timeout_is_refused("010");
    timeout_is_refused("0x10");
    timeout_is_refused("1.0");
    timeout_is_refused("1e3");
    timeout_is_refused("-");
    timeout_is_refused("--1");
    timeout_is_refused("5000ms");
    timeout_is_refused("99999999999999999999");
    value_is_refused("T_BIG", "9223372036854775808",
                     "shop: T_BIG: must be an integer from -9223372036854775808 to 9223372036854775807, "
                     "not \"9223372036854775808\"\n");
    value_is_refused("T_TIMEOUT_MS", "1\n2", "shop: T_TIMEOUT_MS: must be an integer from -10 to 60000, not \"1?2\"\n");
    value_is_refused("T_TIMEOUT_MS", "\xC2\x9B[2J \xFF \xC3\xBC",
                     "shop: T_TIMEOUT_MS: must be an integer from -10 to 60000, not \"?[2J ? \xC3\xBC\"\n");
    value_is_refused("T_TIMEOUT_MS", "012345678901234567890123456789012345678\xC3\xBC",
                     "shop: T_TIMEOUT_MS: must be an integer from -10 to 60000, "
                     "not \"012345678901234567890123456789012345678...\"\n");
    value_is_refused("T_TIMEOUT_MS", "0123456789012345678901234567890123456789tail",
                     "shop: T_TIMEOUT_MS: must be an integer from -10 to 60000, "
                     "not \"0123456789012345678901234567890123456789...\"\n");
}

static void test_integer_values(void **state)
{
    struct rpc_settings *settings = NULL;
    int exit_code;

    (void)state;
    setenv("T_BIG", "-12", 1);
    assert_true(rpc_settings_load(&settings, &program, 0, NULL, &exit_code));
    unsetenv("T_BIG");
    assert_int_equal(exit_code, RPC_EXIT_OK);
    assert_int_equal(rpc_settings_integer(settings, "T_BIG"), -12);
    assert_int_equal(rpc_settings_integer(settings, "T_TIMEOUT_MS"), 5000);
    rpc_settings_free(settings);
    rpc_settings_free(NULL);
}

static void test_choices(void **state)
{
    (void)state;
    value_is("T_KIND", NULL, NULL, "b");
    value_is("T_KIND", "T_KIND", "longer", "longer");
    value_is("T_KIND", "T_KIND", "Longer", "longer");
    value_is("LOG_LEVEL", "LOG_LEVEL", "WARNING", "warning");
    value_is_refused("T_KIND", "long", "shop: T_KIND: must be one of a|b|longer, not \"long\"\n");
    value_is_refused("T_KIND", "a|b", "shop: T_KIND: must be one of a|b|longer, not \"a|b\"\n");
    value_is_refused("LOG_LEVEL", "loud", "shop: LOG_LEVEL: must be one of debug|info|warning|error, not \"loud\"\n");
    value_is_refused("LOG_FORMAT", "xml", "shop: LOG_FORMAT: must be one of auto|logfmt|json, not \"xml\"\n");
}

static void test_every_wrong_value_is_told(void **state)
{
    struct run two = {.variables = {"T_KIND", "c", "T_TIMEOUT_MS", "x"}};

    (void)state;
    run(&two);
    assert_int_equal(two.exit_code, RPC_EXIT_USAGE);
    assert_string_equal(two.output, "shop: T_TIMEOUT_MS: must be an integer from -10 to 60000, not \"x\"\n"
                                    "shop: T_KIND: must be one of a|b|longer, not \"c\"\n");
}

static void test_help(void **state)
{
    struct run help = {.variables = {"T_KIND", "wrong", "T_URI", SECRET_URI}, .arguments = {"--version", "--help"}};

    (void)state;
    run(&help);
    assert_int_equal(help.exit_code, RPC_EXIT_OK);
    assert_memory_equal(help.output, "Usage: shop [--help | --version | --show-config]\n\nSells things.\n", 64);
    assert_non_null(strstr(help.output, "\n  T_URI         the broker (default: amqp://guest:***@127.0.0.1/)\n"));
    assert_non_null(strstr(help.output,
                           "\n  T_TIMEOUT_MS  limit of a call, in ms (an integer from -10 to 60000; default: 5000)\n"));
    assert_non_null(strstr(help.output, "\n  T_KIND        which (one of a|b|longer; default: b)\n"));
    assert_non_null(strstr(help.output, "\n  T_NAME        a name (no default)\n"));
    assert_non_null(strstr(help.output, "\n  LOG_LEVEL     "));
    assert_non_null(strstr(help.output, "\n  LOG_FORMAT    "));
    assert_null(strstr(help.output, SECRET));
}

static void test_version(void **state)
{
    struct run version = {.variables = {"T_KIND", "wrong"}, .arguments = {"--version"}};

    (void)state;
    run(&version);
    assert_int_equal(version.exit_code, RPC_EXIT_OK);
    assert_string_equal(version.output, "shop 1.2.3\n");
}

static void test_unknown_argument(void **state)
{
    struct run unknown = {.arguments = {"--help", "--port\x1B=80"}};
    struct run word = {.arguments = {"start"}};

    (void)state;
    run(&unknown);
    assert_int_equal(unknown.exit_code, RPC_EXIT_USAGE);
    assert_string_equal(unknown.output, "shop: unknown argument \"--port?=80\"; see shop --help\n");
    run(&word);
    assert_int_equal(word.exit_code, RPC_EXIT_USAGE);
}

static void test_output_that_does_not_arrive(void **state)
{
    struct run help = {.arguments = {"--help"}, .out = open("/dev/full", O_WRONLY)};

    (void)state;
    assert_true(help.out > 0);
    run(&help);
    assert_int_equal(help.exit_code, RPC_EXIT_FAILED);
    close(help.out);
}

static void test_show_config(void **state)
{
    const char *path = file_of("from\x07 a file\n", 13);
    struct run show = {.variables = {"T_URI", SECRET_URI, "T_NAME_FILE", path, "LOG_LEVEL", "DEBUG"},
                       .arguments = {"--show-config"}};
    struct run wrong = {.variables = {"T_KIND", "wrong"}, .arguments = {"--show-config"}};
    char expected[500];

    (void)state;
    run(&show);
    assert_int_equal(show.exit_code, RPC_EXIT_OK);
    snprintf(expected, sizeof(expected),
             "T_URI=" SECRET_URI_SHOWN "  # environment\nT_TIMEOUT_MS=5000  # default\nT_BIG=  # not set\n"
             "T_KIND=b  # default\nT_NAME=from? a file  # file %s\nLOG_LEVEL=debug  # environment\n"
             "LOG_FORMAT=auto  # default\n",
             path);
    assert_string_equal(show.output, expected);
    run(&wrong);
    assert_int_equal(wrong.exit_code, RPC_EXIT_USAGE);
}

static void masked_is_at(const char *uri, const char *expected, int line)
{
    struct run show = {.variables = {"T_URI", uri}, .arguments = {"--show-config"}};
    char first[400];

    run(&show);
    snprintf(first, sizeof(first), "T_URI=%s  # environment\n", expected);
    if (show.exit_code != RPC_EXIT_OK || strncmp(show.output, first, strlen(first)) != 0)
        fail_msg("line %d: %s instead of %s", line, show.output, first);
}

#define masked_is(uri, expected) masked_is_at(uri, expected, __LINE__)

static void test_masks(void **state)
{
    (void)state;
    masked_is("redis://:" SECRET "@host/0", "redis://:***@host/0");
    masked_is("amqp://user@host:5672/", "amqp://user@host:5672/");
    masked_is("amqp://host:5672/v", "amqp://host:5672/v");
    masked_is("amqp://[::1]:5672/v", "amqp://[::1]:5672/v");
    masked_is("amqp://u:@host", "amqp://u:***@host");
    masked_is("amqp://u:" SECRET "/" SECRET "@host/v", "amqp://u:***@host/v");
    masked_is("amqp://u:" SECRET "@" SECRET "?@host/v", "amqp://u:***@host/v");
    masked_is("amqp:/u:" SECRET "@host", "amqp:***@host");
    masked_is("u:" SECRET "@host", "u:***@host");
    masked_is("postgresql:///orders?user=x&password=" SECRET "&port=1",
              "postgresql:///orders?user=x&password=***&port=1");
    masked_is("postgresql://h/o?sslpassword=" SECRET, "postgresql://h/o?sslpassword=***");
    masked_is("host=h password=" SECRET " port=1", "host=h password=*** port=1");
    masked_is("host=h PassWord = '" SECRET " \\' " SECRET "' port=1", "host=h PassWord = *** port=1");
    masked_is("host=h password='" SECRET, "host=h password=***");
    masked_is("password=", "password=***");
    masked_is("amqp://password=:&" SECRET "@host/v", "amqp://password=***@host/v");
    masked_is("amqp://password='a:b'" SECRET "@host/v", "amqp://password=***@host/v");
    masked_is("postgresql://h/o?pass%77ord=" SECRET "&port=1", "postgresql://h/o?pass%77ord=***&port=1");
    masked_is("postgresql://h/o?%70%41SSwor%64=" SECRET, "postgresql://h/o?%70%41SSwor%64=***");
    masked_is("postgresql://u:%73ecret@h/o?pass%7=1&pass%zzord=2", "postgresql://u:***@h/o?pass%7=1&pass%zzord=2");
    masked_is("host=password passwords=3", "host=password passwords=3");
}

static void test_refuse(void **state)
{
    struct rpc_settings *settings = NULL;
    char output[200];
    int exit_code;
    int kept = dup(STDERR_FILENO);
    int ends[2];
    ssize_t size;

    (void)state;
    assert_true(rpc_settings_load(&settings, &program, 0, NULL, &exit_code));
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    exit_code = rpc_settings_refuse(settings, "T_URI", "no host");
    dup2(kept, STDERR_FILENO);
    size = read(ends[0], output, sizeof(output) - 1);
    assert_true(size > 0);
    output[size] = '\0';
    assert_int_equal(exit_code, RPC_EXIT_USAGE);
    assert_string_equal(output, "shop: T_URI: no host\n");
    close(kept);
    close(ends[0]);
    close(ends[1]);
    rpc_settings_free(settings);
}

static void log_level_is(const struct rpc_settings_program *of, enum rpc_log_level level)
{
    struct rpc_settings *settings = NULL;
    int exit_code;

    assert_true(rpc_settings_load(&settings, of, 0, NULL, &exit_code));
    rpc_settings_free(settings);
    for (int i = RPC_LOG_DEBUG; i <= RPC_LOG_ERROR; i++)
        assert_int_equal(rpc_log_enabled((enum rpc_log_level)i), i >= (int)level);
}

static void test_logging_is_configured(void **state)
{
    (void)state;
    log_level_is(&program, RPC_LOG_INFO);
    log_level_is(&quiet_program, RPC_LOG_ERROR);
    setenv("LOG_LEVEL", "warning", 1);
    log_level_is(&program, RPC_LOG_WARNING);
    log_level_is(&quiet_program, RPC_LOG_WARNING);
    setenv("LOG_LEVEL", "debug", 1);
    log_level_is(&program, RPC_LOG_DEBUG);
    unsetenv("LOG_LEVEL");
}

static void test_a_default_of_its_own(void **state)
{
    struct run help = {.program = &quiet_program, .arguments = {"--help"}};
    struct run unset = {.program = &quiet_program, .arguments = {"--show-config"}};
    struct run set = {.program = &quiet_program, .variables = {"LOG_LEVEL", "DEBUG"}, .arguments = {"--show-config"}};
    struct run wrong = {.program = &quiet_program, .variables = {"LOG_LEVEL", "loud"}};
    const char *row;

    (void)state;
    run(&help);
    assert_int_equal(help.exit_code, RPC_EXIT_OK);
    row = strstr(help.output, "\n  LOG_LEVEL ");
    assert_non_null(row);
    assert_non_null(strstr(row, "  what is logged (one of debug|info|warning|error; default: error)\n"));
    assert_null(strstr(row + 1, "\n  LOG_LEVEL ")); /* once */
    assert_non_null(strstr(row, "\n  LOG_FORMAT "));
    run(&unset);
    assert_int_equal(unset.exit_code, RPC_EXIT_OK);
    assert_string_equal(unset.output, "LOG_LEVEL=error  # default\nT_NAME=  # not set\nLOG_FORMAT=auto  # default\n");
    run(&set);
    assert_string_equal(set.output, "LOG_LEVEL=debug  # environment\nT_NAME=  # not set\nLOG_FORMAT=auto  # default\n");
    run(&wrong);
    assert_int_equal(wrong.exit_code, RPC_EXIT_USAGE);
    assert_string_equal(wrong.output, "quiet: LOG_LEVEL: must be one of debug|info|warning|error, not \"loud\"\n");
}

static int folder_make(void **state)
{
    (void)state;
    clearenv(); /* the caller's LOG_LEVEL is not ours */
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static int folder_remove(void **state)
{
    char path[64];

    (void)state;
    snprintf(path, sizeof(path), "%s/value", folder);
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where_values_come_from),
        cmocka_unit_test(test_files_that_are_refused),
        cmocka_unit_test(test_both_at_once),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_integer_values),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_every_wrong_value_is_told),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_version),
        cmocka_unit_test(test_unknown_argument),
        cmocka_unit_test(test_output_that_does_not_arrive),
        cmocka_unit_test(test_show_config),
        cmocka_unit_test(test_masks),
        cmocka_unit_test(test_refuse),
        cmocka_unit_test(test_a_default_of_its_own),
        cmocka_unit_test(test_logging_is_configured),
    };

    return cmocka_run_group_tests_name("settings", tests, folder_make, folder_remove);
}

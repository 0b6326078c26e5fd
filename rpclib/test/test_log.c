/* rpc_log: what stands on standard error, which is a pipe or a socket of ours here. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpclib/json.h"
#include "rpclib/log.h"

#define BLOCKED_AFTER_S 10 /* a log call that waits ends the program by SIGALRM */

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

static struct timespec fixed_time; /* what the clock says, unless it is 0 */

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    if (clock != CLOCK_REALTIME || fixed_time.tv_sec == 0)
        return __real_clock_gettime(clock, now);
    *now = fixed_time;
    return 0;
}

ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);

/* What befalls the next writes, the first of these that is not 0. */
static int write_interrupts; /* so many fail with EINTR */
static int write_error;      /* one fails with this */
static size_t write_room;    /* one takes no more than this */

ssize_t __wrap_write(int fd, const void *data, size_t size)
{
    if (write_interrupts > 0) {
        write_interrupts--;
        errno = EINTR;
        return -1;
    }
    if (write_error != 0) {
        errno = write_error;
        write_error = 0;
        return -1;
    }
    if (write_room > 0) {
        size = write_room < size ? write_room : size;
        write_room = 0;
    }
    return __real_write(fd, data, size);
}

/* Standard error led into a pipe for as long as a test runs. */
static int stderr_kept;
static int reader;

static void lead(int from[2])
{
    stderr_kept = dup(STDERR_FILENO);
    assert_true(stderr_kept >= 0);
    assert_int_equal(dup2(from[1], STDERR_FILENO), STDERR_FILENO);
    close(from[1]);
    reader = from[0];
}

static int setup(void **state)
{
    int ends[2];

    (void)state;
    if (pipe(ends) != 0)
        return -1;
    lead(ends);
    fixed_time = (struct timespec){.tv_sec = 1767225600, .tv_nsec = 7999999};
    rpc_log_configure("orders", RPC_LOG_INFO, RPC_LOG_JSON);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dup2(stderr_kept, STDERR_FILENO);
    close(stderr_kept);
    if (reader >= 0)
        close(reader);
    reader = -1;
    return 0;
}

/* What stands in the pipe now, as a string. */
static const char *output(void)
{
    static char text[4 * RPC_LOG_LINE_SIZE_MAX];
    struct pollfd waiting = {.fd = reader, .events = POLLIN};
    ssize_t size = 0;

    if (poll(&waiting, 1, 0) == 1)
        size = read(reader, text, sizeof(text) - 1);
    assert_true(size >= 0);
    text[size] = '\0';
    return text;
}

/* The one line in the pipe, as a document: it must be strict JSON. */
static json_t *output_json(void)
{
    const char *text = output();
    char reason[RPC_JSON_REASON_SIZE];
    json_t *line;

    assert_true(strlen(text) > 0 && strlen(text) <= RPC_LOG_LINE_SIZE_MAX);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    line = rpc_json_load(rpc_bytes_of(text), reason);
    if (line == NULL)
        fail_msg("%s: %s", reason, text);
    return line;
}

static const char *text_of(const json_t *line, const char *key)
{
    return json_string_value(json_object_get(line, key));
}

static void test_json_line(void **state)
{
    char expected[400];

    (void)state;
    rpc_log(RPC_LOG_INFO, "request rejected", RPC_LOG_TEXT("correlation_id", "c-1"), RPC_LOG_INT("size", 12),
            RPC_LOG_BYTES("queue", ((struct rpc_bytes){"rpc-orders!", 10})), (struct rpc_log_field){.key = NULL},
            RPC_LOG_INT("least", INT64_MIN), RPC_LOG_TEXT("nothing", NULL));
    snprintf(expected, sizeof(expected),
             "{\"time\":\"2026-01-01T00:00:00.007Z\",\"level\":\"info\",\"program\":\"orders\",\"pid\":%d,"
             "\"message\":\"request rejected\",\"correlation_id\":\"c-1\",\"size\":12,\"queue\":\"rpc-orders\","
             "\"least\":-9223372036854775808,\"nothing\":\"\"}\n",
             (int)getpid());
    assert_string_equal(output(), expected);
}

static void test_logfmt_line(void **state)
{
    (void)state;
    rpc_log_configure("orders", RPC_LOG_DEBUG, RPC_LOG_LOGFMT);
    rpc_log(RPC_LOG_DEBUG, "a \"b\"", RPC_LOG_TEXT("id", "c-1"), RPC_LOG_INT("size", -12), RPC_LOG_TEXT("empty", ""),
            RPC_LOG_TEXT("spaced", "a b"), RPC_LOG_TEXT("equal", "a=b"), RPC_LOG_TEXT("accent", "\xC3\xA9"),
            RPC_LOG_TEXT("line", "a\nb\x1B[31m\xC2\x9B"), RPC_LOG_TEXT("bad", "\xFFz"), RPC_LOG_TEXT("a b=\"c", "d"));
    assert_string_equal(output(), "time=2026-01-01T00:00:00.007Z level=debug program=orders msg=\"a \\\"b\\\"\" id=c-1 "
                                  "size=-12 empty=\"\" spaced=\"a b\" equal=\"a=b\" accent=\"\xC3\xA9\" "
                                  "line=\"a\\nb\\u001b[31m\\u009b\" bad=\"\xEF\xBF\xBDz\" a_b__c=d\n");
}

static void test_levels(void **state)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};

    (void)state;
    for (int least = RPC_LOG_DEBUG; least <= RPC_LOG_ERROR; least++) {
        rpc_log_configure("orders", (enum rpc_log_level)least, RPC_LOG_JSON);
        for (int level = RPC_LOG_DEBUG; level <= RPC_LOG_ERROR; level++) {
            json_t *line;

            assert_int_equal(rpc_log_enabled((enum rpc_log_level)level), level >= least);
            rpc_log((enum rpc_log_level)level, "m");
            if (level < least) {
                assert_string_equal(output(), "");
                continue;
            }
            line = output_json();
            assert_string_equal(text_of(line, "level"), names[level]);
            json_decref(line);
        }
    }
}

/* Each byte alone and behind others: the line stays strict JSON, and the text comes back where it was sound. */
static void test_any_byte(void **state)
{
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        char text[] = {'a', (char)byte, 'b'};
        struct rpc_bytes bytes = {.data = text, .size = sizeof(text)};
        json_t *line;

        rpc_log(RPC_LOG_INFO, "any byte", RPC_LOG_BYTES("text", bytes));
        if (byte == 0) { /* strict JSON has no NUL in a string, yet it must not end the text */
            assert_non_null(strstr(output(), "\"text\":\"a\\u0000b\"}\n"));
            continue;
        }
        line = output_json();
        if (byte < 0x80)
            assert_memory_equal(text_of(line, "text"), text, sizeof(text));
        else
            assert_string_equal(text_of(line, "text"), "a\xEF\xBF\xBD"
                                                       "b");
        json_decref(line);
    }
}

static void test_long_line_is_cut(void **state)
{
    char text[5000];
    json_t *line;

    (void)state;
    for (size_t i = 0; i < sizeof(text) - 1; i += 2)
        memcpy(text + i, "\xC3\xA9", 2);
    text[sizeof(text) - 2] = '\0';
    for (size_t shift = 0; shift < 12; shift++) {
        rpc_log(RPC_LOG_INFO, text + shift * 2, RPC_LOG_TEXT("error", text), RPC_LOG_TEXT("correlation_id", "c-1"),
                RPC_LOG_INT("size", 77));
        line = output_json();
        assert_true(json_is_true(json_object_get(line, "cut")));
        assert_string_equal(text_of(line, "correlation_id"), "c-1");
        assert_int_equal(json_integer_value(json_object_get(line, "size")), 77);
        assert_true(strlen(text_of(line, "message")) > 1000);
        assert_memory_equal(text_of(line, "message"), text, strlen(text_of(line, "message")));
        json_decref(line);
    }
    text[1700] = '\0'; /* an even one: whole */
    rpc_log(RPC_LOG_INFO, text);
    line = output_json();
    assert_null(json_object_get(line, "cut"));
    assert_string_equal(text_of(line, "message"), text);
    json_decref(line);
}

/* As many fields, as long and as awkward as they come, in both formats: the line ends where it must. */
static void test_too_many_fields(void **state)
{
    struct rpc_log_field fields[90];
    char text[400];

    (void)state;
    memset(text, '\x01', sizeof(text));
    for (size_t length = 20; length < sizeof(text); length += 3) {
        json_t *line;
        const char *logfmt;

        for (size_t i = 0; i < 90; i++)
            fields[i] = i % 3 == 0 ? RPC_LOG_INT("number", INT64_MAX)
                                   : RPC_LOG_BYTES("text", ((struct rpc_bytes){text, length}));
        rpc_log_configure("orders", RPC_LOG_INFO, RPC_LOG_JSON);
        /* equal keys: not for rpc_json_load() */
        rpc_log_write(RPC_LOG_INFO, "m", fields, 90);
        line = json_loads(output(), 0, NULL);
        assert_true(json_is_true(json_object_get(line, "cut")));
        assert_true(json_integer_value(json_object_get(line, "number")) == INT64_MAX);
        json_decref(line);
        rpc_log_configure("orders", RPC_LOG_INFO, RPC_LOG_LOGFMT);
        rpc_log_write(RPC_LOG_INFO, "m", fields, 90);
        logfmt = output();
        assert_true(strlen(logfmt) > 10 && strlen(logfmt) <= RPC_LOG_LINE_SIZE_MAX);
        assert_string_equal(logfmt + strlen(logfmt) - 10, " cut=true\n");
    }
}

static void test_long_keys_and_program(void **state)
{
    char name[3000];
    json_t *line;

    (void)state;
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    rpc_log_configure(name, RPC_LOG_INFO, RPC_LOG_JSON);
    rpc_log(RPC_LOG_INFO, "m", RPC_LOG_INT(name, 1), RPC_LOG_INT("size", 2));
    line = output_json();
    assert_string_equal(text_of(line, "message"), "m");
    assert_true(json_is_true(json_object_get(line, "cut")));
    assert_null(json_object_get(line, name));
    assert_int_equal(json_integer_value(json_object_get(line, "size")), 2);
    json_decref(line);
}

static void test_calendar(void **state)
{
    static const int64_t moments[] = {
        1,          86399,      86400,      951782399,  951782400,  951868800,   1078012800,   1735689599,
        1767225599, 4107542399, 4107542400, 4133980800, 7258118400, 32503680000, 253402300799,
    };
    time_t at = 1;

    (void)state;
    rpc_log_configure("orders", RPC_LOG_INFO, RPC_LOG_JSON);
    for (size_t i = 0; i < sizeof(moments) / sizeof(moments[0]) + 2000; i++) {
        char expected[40];
        struct tm parts;

        /* the moments above, then every so often until 2240 */
        at = i < sizeof(moments) / sizeof(moments[0]) ? (time_t)moments[i] : (time_t)(i * 4257001);
        fixed_time = (struct timespec){.tv_sec = at, .tv_nsec = 0};
        rpc_log(RPC_LOG_INFO, "m");
        gmtime_r(&at, &parts);
        strftime(expected, sizeof(expected), "{\"time\":\"%Y-%m-%dT%H:%M:%S.000Z\"", &parts);
        assert_memory_equal(output(), expected, strlen(expected));
    }
}

/* Fill what stands behind standard error without waiting. */
static void sink_fill(void)
{
    int flags = fcntl(STDERR_FILENO, F_GETFL);
    char block[1024] = {0};

    fcntl(STDERR_FILENO, F_SETFL, flags | O_NONBLOCK);
    while (write(STDERR_FILENO, block, sizeof(block)) > 0)
        ;
    assert_int_equal(errno, EAGAIN);
    fcntl(STDERR_FILENO, F_SETFL, flags);
}

static void sink_empty(void)
{
    while (output()[0] != '\0' || poll(&(struct pollfd){.fd = reader, .events = POLLIN}, 1, 0) == 1)
        ;
}

static void test_full_sink_never_blocks(void **state)
{
    json_t *line;

    (void)state;
    sink_fill();
    alarm(BLOCKED_AFTER_S);
    for (int i = 0; i < 3; i++)
        rpc_log(RPC_LOG_ERROR, "lost");
    alarm(0);
    sink_empty();
    rpc_log(RPC_LOG_INFO, "found");
    line = output_json();
    assert_string_equal(text_of(line, "message"), "found");
    assert_int_equal(json_integer_value(json_object_get(line, "dropped_lines")), 3);
    json_decref(line);
    rpc_log(RPC_LOG_INFO, "again"); /* told once */
    line = output_json();
    assert_null(json_object_get(line, "dropped_lines"));
    json_decref(line);
}

static void test_dropped_lines_in_logfmt(void **state)
{
    (void)state;
    sink_fill();
    rpc_log(RPC_LOG_ERROR, "lost");
    sink_empty();
    rpc_log_configure("orders", RPC_LOG_INFO, RPC_LOG_LOGFMT);
    rpc_log(RPC_LOG_INFO, "found");
    assert_string_equal(output(),
                        "time=2026-01-01T00:00:00.007Z level=info program=orders msg=\"found\" dropped_lines=1\n");
}

/* Nobody reads any more: no SIGPIPE, no wait; and with standard error closed, the same. */
static void test_lost_sink(void **state)
{
    int ends[2];
    json_t *line;

    (void)state;
    close(reader);
    reader = -1;
    errno = 4711;
    rpc_log(RPC_LOG_ERROR, "lost");
    assert_int_equal(errno, 4711);
    close(STDERR_FILENO);
    rpc_log(RPC_LOG_ERROR, "lost");
    assert_int_equal(errno, 4711);

    assert_int_equal(pipe(ends), 0);
    reader = ends[0] == STDERR_FILENO ? dup(ends[0]) : ends[0];
    dup2(ends[1], STDERR_FILENO);
    if (ends[1] != STDERR_FILENO)
        close(ends[1]);
    rpc_log(RPC_LOG_INFO, "found");
    line = output_json();
    assert_int_equal(json_integer_value(json_object_get(line, "dropped_lines")), 2);
    json_decref(line);
}

static void test_fork_has_its_own_pid(void **state)
{
    json_t *line;
    pid_t child;
    int status;

    (void)state;
    child = fork();
    if (child == 0) {
        rpc_log(RPC_LOG_INFO, "child");
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    line = output_json();
    assert_int_equal(json_integer_value(json_object_get(line, "pid")), child);
    json_decref(line);
}

/* A sanitizer's own system calls are not the log's: under one there is nothing to find out here. */
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

#define ALLOW(number) BPF_JUMP(BPF_JMP + BPF_JEQ + BPF_K, number, 0, 1), BPF_STMT(BPF_RET + BPF_K, SECCOMP_RET_ALLOW)

static bool sandbox_enter(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD + BPF_W + BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_write),
#ifdef SYS_poll
        ALLOW(SYS_poll),
#endif
        ALLOW(SYS_ppoll), /* poll() itself, where the machine has no other */
        ALLOW(SYS_clock_gettime),
        ALLOW(SYS_exit_group),
        BPF_STMT(BPF_RET + BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static void test_in_a_sandbox(void **state)
{
    json_t *line;
    pid_t child;
    int status;

    (void)state;
    if (SANITIZED)
        skip();
    fixed_time.tv_sec = 0;
    child = fork();
    if (child == 0) {
        if (!sandbox_enter())
            _exit(77);
        rpc_log(RPC_LOG_INFO, "inside", RPC_LOG_INT("size", 1), RPC_LOG_TEXT("id", "c-1"));
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip(); /* no seccomp here */
    assert_int_equal(status, 0);
    line = output_json();
    assert_string_equal(text_of(line, "message"), "inside");
    json_decref(line);
}

/* The sink takes a part of a line: the next one starts on a line of its own and tells of it. */
static void test_torn_line(void **state)
{
    (void)state;
    rpc_log_configure("orders", RPC_LOG_INFO, RPC_LOG_LOGFMT);
    write_room = 30;
    rpc_log(RPC_LOG_INFO, "torn");
    write_error = ENOSPC;
    rpc_log(RPC_LOG_INFO, "not even a part");
    rpc_log(RPC_LOG_INFO, "whole");
    rpc_log(RPC_LOG_INFO, "whole");
    assert_string_equal(output(),
                        "time=2026-01-01T00:00:00.007Z "
                        "\ntime=2026-01-01T00:00:00.007Z level=info program=orders msg=\"whole\" dropped_lines=2"
                        "\ntime=2026-01-01T00:00:00.007Z level=info program=orders msg=\"whole\"\n");
}

static void test_interrupted_write(void **state)
{
    json_t *line;

    (void)state;
    write_interrupts = 3;
    rpc_log(RPC_LOG_INFO, "late");
    line = output_json();
    assert_string_equal(text_of(line, "message"), "late");
    json_decref(line);
    write_interrupts = 1000; /* for ever, as it seems: given up */
    rpc_log(RPC_LOG_INFO, "lost");
    assert_true(write_interrupts > 900);
    write_interrupts = 0;
    assert_string_equal(output(), "");
    rpc_log(RPC_LOG_INFO, "found");
    line = output_json();
    assert_int_equal(json_integer_value(json_object_get(line, "dropped_lines")), 1);
    json_decref(line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_json_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_logfmt_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_levels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_any_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_line_is_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many_fields, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_keys_and_program, setup, teardown),
        cmocka_unit_test_setup_teardown(test_calendar, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_sink_never_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dropped_lines_in_logfmt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_sink, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fork_has_its_own_pid, setup, teardown),
        cmocka_unit_test_setup_teardown(test_in_a_sandbox, setup, teardown),
        cmocka_unit_test_setup_teardown(test_torn_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupted_write, setup, teardown),
    };

    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}

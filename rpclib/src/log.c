/*
 * A line is put together on the stack and leaves in one write(2).  Once rpc_log_configure() has run, nothing here asks
 * the system for more than write, poll and clock_gettime, so that a sandboxed process can log: no gmtime_r(), which reads
 * the time zone's file, and no getpid() a line.
 *
 * A sink that is full is found out by poll() and not by O_NONBLOCK, which would be set for every process that shares the
 * descriptor.  A pipe or socket that is writable takes a line of less than PIPE_BUF bytes whole.
 */
#include "rpclib/log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "rpclib/hex.h"
#include "rpclib/utf8.h"

_Static_assert(RPC_LOG_LINE_SIZE_MAX < PIPE_BUF, "a line is written whole or not at all");

#define TAIL_SIZE       80 /* room kept for what ends a line: a quote, that it was cut, how many are missing */
#define CLAIM_TEXT_SIZE 64 /* bytes of each later field that a long text before it must leave room for */
#define PROGRAM_SIZE    64 /* bytes of a program's name that are shown */
#define INTERRUPTS_MAX  8  /* signals in a row, after which a line is given up */

static struct {
    const char *program;
    enum rpc_log_level level;
    enum rpc_log_format format;
    pid_t pid;
    bool configured;
    bool follows_fork;
} settings = {.level = RPC_LOG_INFO};

static atomic_uint_fast64_t dropped; /* lines that no line has told of yet */
static atomic_bool torn;             /* the sink took a part of the last line: the next one begins with a newline */

/* A line while it is written.  What does not fit below `limit` is left out, and `cut` says so. */
struct line {
    char text[RPC_LOG_LINE_SIZE_MAX];
    size_t size;
    size_t limit;
    bool cut;
};

/* ---- Settings ---------------------------------------------------------------------------------------------------- */

static void on_fork_in_child(void)
{
    settings.pid = getpid();
}

void rpc_log_configure(const char *program, enum rpc_log_level level, enum rpc_log_format format)
{
    settings.program = program;
    settings.level = level;
    settings.format = format;
    settings.pid = getpid();
    settings.configured = true;
    if (!settings.follows_fork)
        settings.follows_fork = pthread_atfork(NULL, NULL, on_fork_in_child) == 0;
}

bool rpc_log_enabled(enum rpc_log_level level)
{
    return level >= settings.level;
}

static const char *level_name(enum rpc_log_level level)
{
    switch (level) {
    case RPC_LOG_DEBUG:
        return "debug";
    case RPC_LOG_INFO:
        return "info";
    case RPC_LOG_WARNING:
        return "warning";
    case RPC_LOG_ERROR:
        return "error";
    }
    return "error";
}

/* ---- Writing into a line ----------------------------------------------------------------------------------------- */

static bool put(struct line *line, const char *data, size_t size)
{
    if (line->size + size > line->limit) {
        line->cut = true;
        return false;
    }
    memcpy(line->text + line->size, data, size);
    line->size += size;
    return true;
}

static bool put_text(struct line *line, const char *text)
{
    return put(line, text, strlen(text));
}

/* Into the room that TAIL_SIZE keeps. */
static void put_tail(struct line *line, const char *text)
{
    line->limit = sizeof(line->text);
    put_text(line, text);
}

/* The digits of `number`, at least `width` of them, at the end of `out`; returns the first. */
static char *digits(char out[24], uint64_t number, int width)
{
    char *at = out + 23;

    *at = '\0';
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
        width--;
    } while (number > 0 || width > 0);
    return at;
}

static bool put_integer(struct line *line, int64_t integer)
{
    char buffer[24];
    char *at = digits(buffer, integer < 0 ? 0 - (uint64_t)integer : (uint64_t)integer, 1);

    if (integer < 0)
        *--at = '-';
    return put_text(line, at);
}

/* One character that cannot stand as it is, escaped as JSON does. */
static bool put_escaped(struct line *line, const unsigned char *at, size_t sequence)
{
    char escape[] = "\\u00xx";

    if (sequence == 0)
        return put(line, "\xEF\xBF\xBD", 3); /* U+FFFD for a byte that is no UTF-8 */
    switch (*at) {
    case '"':
        return put(line, "\\\"", 2);
    case '\\':
        return put(line, "\\\\", 2);
    case '\n':
        return put(line, "\\n", 2);
    case '\r':
        return put(line, "\\r", 2);
    case '\t':
        return put(line, "\\t", 2);
    default:
        if (!rpc_utf8_is_control(at, sequence))
            return put(line, (const char *)at, sequence);
        rpc_hex_write(&at[sequence - 1], 1, escape + 4); /* of C1, too: U+0085 is 0xC2 0x85 */
        return put_text(line, escape);
    }
}

/* A text's characters, as many as fit, never a part of one.  Returns whether all did. */
static bool put_characters(struct line *line, struct rpc_bytes text)
{
    const unsigned char *at = (const unsigned char *)text.data;
    const unsigned char *end = at + text.size;

    while (at < end) {
        size_t sequence = rpc_utf8_sequence(at, end);

        if (!put_escaped(line, at, sequence))
            return false;
        at += sequence == 0 ? 1 : sequence;
    }
    return true;
}

/* Returns whether it is whole.  The closing quote may stand beyond the limit; TAIL_SIZE knows of it. */
static bool put_quoted(struct line *line, struct rpc_bytes text)
{
    bool whole;

    if (!put(line, "\"", 1))
        return false;
    whole = text.size == 0 || put_characters(line, text);
    line->text[line->size++] = '"';
    return whole;
}

/* Whether logfmt may go without quotes. */
static bool is_bare(struct rpc_bytes text)
{
    const unsigned char *at = (const unsigned char *)text.data;

    for (size_t i = 0; i < text.size; i++) {
        if (at[i] <= ' ' || at[i] >= 0x7F || at[i] == '"' || at[i] == '=' || at[i] == '\\')
            return false;
    }
    return text.size > 0;
}

static void put_value(struct line *line, struct rpc_bytes text)
{
    if (settings.format == RPC_LOG_LOGFMT && is_bare(text) && line->size + text.size <= line->limit)
        put(line, text.data, text.size);
    else
        put_quoted(line, text);
}

/* `,"key":` or ` key=`.  In logfmt a key has no quotes, so what is no plain character becomes '_'. */
static bool put_key(struct line *line, const char *key)
{
    char plain[64];
    size_t size = 0;

    if (settings.format == RPC_LOG_JSON) {
        size_t start = line->size;

        if (put(line, ",", 1) && put_quoted(line, rpc_bytes_of(key)) && put(line, ":", 1))
            return true;
        line->size = start;
        return false;
    }
    for (; key[size] != '\0' && size < sizeof(plain); size++)
        plain[size] = key[size] > ' ' && key[size] < 0x7F && key[size] != '=' && key[size] != '"' ? key[size] : '_';
    return put(line, " ", 1) && put(line, plain, size) && put(line, "=", 1);
}

/* ---- The parts of a line ----------------------------------------------------------------------------------------- */

/*
 * Days since 1970-01-01 as a date.  Years are counted from March, so that the leap day is the last one of a year, and in
 * eras of 400 years, which are all alike: 146097 days.
 */
static void date_of_days(int64_t days, int64_t *year, unsigned *month, unsigned *day)
{
    int64_t since = days + 719468; /* 0000-03-01 */
    int64_t era = (since >= 0 ? since : since - 146096) / 146097;
    unsigned day_of_era = (unsigned)(since - era * 146097);
    unsigned year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    unsigned day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned month_from_march = (5 * day_of_year + 2) / 153;

    *day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    *month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    *year = year_of_era + era * 400 + (*month <= 2 ? 1 : 0);
}

static void put_number(struct line *line, uint64_t number, int width, const char *behind)
{
    char buffer[24];

    put_text(line, digits(buffer, number, width));
    put_text(line, behind);
}

static void put_time(struct line *line)
{
    struct timespec now;
    int64_t year;
    unsigned month, day, second;

    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec < 0)
        now.tv_sec = 0;
    date_of_days(now.tv_sec / 86400, &year, &month, &day);
    second = (unsigned)(now.tv_sec % 86400);
    put_number(line, (uint64_t)year, 4, "-");
    put_number(line, month, 2, "-");
    put_number(line, day, 2, "T");
    put_number(line, second / 3600, 2, ":");
    put_number(line, second / 60 % 60, 2, ":");
    put_number(line, second % 60, 2, ".");
    put_number(line, (uint64_t)now.tv_nsec / 1000000, 3, "Z");
}

static void put_head(struct line *line, enum rpc_log_level level, const char *message)
{
    struct rpc_bytes program = rpc_bytes_of(settings.program);
    bool json = settings.format == RPC_LOG_JSON;

    if (program.size > PROGRAM_SIZE)
        program.size = PROGRAM_SIZE;
    put_text(line, json ? "{\"time\":\"" : "time=");
    put_time(line);
    put_text(line, json ? "\",\"level\":\"" : " level=");
    put_text(line, level_name(level));
    if (json)
        put_text(line, "\"");
    put_key(line, "program");
    put_value(line, program);
    if (json && put_key(line, "pid"))
        put_integer(line, settings.pid);
    if (put_key(line, json ? "message" : "msg"))
        put_quoted(line, rpc_bytes_of(message));
}

static void put_field(struct line *line, const struct rpc_log_field *field)
{
    size_t start = line->size;

    if (!put_key(line, field->key) || line->size + 1 > line->limit) {
        line->size = start; /* no key without a value */
        line->cut = true;
    } else if (field->is_text) {
        put_value(line, field->text);
    } else if (!put_integer(line, field->integer)) {
        line->size = start; /* a part of a number is another number */
    }
}

/* The room that what comes before `field` leaves it, so that a long text does not drive out a correlation id. */
static size_t claim_of(const struct rpc_log_field *field)
{
    size_t size = field->is_text ? field->text.size : 20;

    if (field->key == NULL)
        return 0;
    return strlen(field->key) + 8 + (size < CLAIM_TEXT_SIZE ? size : CLAIM_TEXT_SIZE);
}

static void limit_set(struct line *line, size_t claims)
{
    size_t room = sizeof(line->text) - TAIL_SIZE;

    line->limit = room - (claims < room / 2 ? claims : room / 2);
}

static void put_tail_of_line(struct line *line, uint64_t missing)
{
    bool json = settings.format == RPC_LOG_JSON;
    char buffer[24];

    if (line->cut)
        put_tail(line, json ? ",\"cut\":true" : " cut=true");
    if (missing > 0) {
        put_tail(line, json ? ",\"dropped_lines\":" : " dropped_lines=");
        put_tail(line, digits(buffer, missing, 1));
    }
    put_tail(line, json ? "}\n" : "\n");
}

/* ---- The sink ---------------------------------------------------------------------------------------------------- */

/* Whether a line can be written without waiting and without a SIGPIPE. */
static bool sink_is_ready(void)
{
    struct pollfd sink = {.fd = STDERR_FILENO, .events = POLLOUT};

    for (int i = 0; i < INTERRUPTS_MAX; i++) {
        int count = poll(&sink, 1, 0);

        if (count >= 0)
            return count == 1 && sink.revents == POLLOUT; /* with POLLERR, POLLHUP or POLLNVAL nobody reads */
        if (errno != EINTR)
            return false;
    }
    return false;
}

static bool sink_write(const char *data, size_t size)
{
    for (int i = 0; i < INTERRUPTS_MAX; i++) {
        ssize_t written = write(STDERR_FILENO, data, size);

        if (written == (ssize_t)size) {
            atomic_store(&torn, false);
            return true;
        }
        if (written > 0) {
            atomic_store(&torn, true);
            return false;
        }
        if (written == 0 || errno != EINTR)
            return false;
    }
    return false;
}

void rpc_log_write(enum rpc_log_level level, const char *message, const struct rpc_log_field *fields, size_t count)
{
    int errno_before = errno; /* logging must not disturb whoever is about to look at it */
    uint64_t missing = atomic_load(&dropped);
    size_t claims = 0;
    struct line line;

    if (!settings.configured)
        rpc_log_configure(program_invocation_short_name, settings.level,
                          isatty(STDERR_FILENO) ? RPC_LOG_LOGFMT : RPC_LOG_JSON);
    if (!sink_is_ready()) {
        atomic_fetch_add(&dropped, 1);
        goto done;
    }
    line.size = 0;
    line.cut = false;
    for (size_t i = 0; i < count; i++)
        claims += claim_of(&fields[i]);
    limit_set(&line, claims);
    if (atomic_load(&torn))
        put(&line, "\n", 1);
    put_head(&line, level, message);
    for (size_t i = 0; i < count; i++) {
        claims -= claim_of(&fields[i]);
        limit_set(&line, claims);
        if (fields[i].key != NULL)
            put_field(&line, &fields[i]);
    }
    put_tail_of_line(&line, missing);
    if (sink_write(line.text, line.size))
        atomic_fetch_sub(&dropped, missing);
    else
        atomic_fetch_add(&dropped, 1);
done:
    errno = errno_before;
}

/*
 * One scanner knows the grammar; jansson only builds.  Whatever rpc_json_load() takes, the scanner has taken before, so
 * that what one program accepts for handing on is what the next one accepts for reading.
 */
#include "rpclib/json.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "utf8.h"

_Static_assert(RPC_JSON_DEPTH_MAX == 64, "the scanner keeps one bit a level in a uint64_t");

/* ---- The scanner ------------------------------------------------------------------------------------------------- */

enum fault {
    FAULT_NONE,
    FAULT_END,
    FAULT_CHARACTER,
    FAULT_UTF8,
    FAULT_CONTROL,
    FAULT_ESCAPE,
    FAULT_SURROGATE,
    FAULT_NUL,
    FAULT_NUMBER,
    FAULT_DEPTH,
    FAULT_REST,
};

/* The members that rpc_json_members() looks for, and the one that the scanner is in. */
struct search {
    size_t count;
    const char *const *names;
    struct rpc_bytes *values;
    struct rpc_bytes key;
    const unsigned char *value;
};

struct scan {
    const unsigned char *at; /* the next byte; after a fault: where it is */
    const unsigned char *end;
    uint64_t objects; /* bit n: what is open at depth n + 1 is an object */
    unsigned depth;
    struct search *search; /* NULL: nothing is looked for */
};

/* Bytes that may stand in a string as they are and are a character each. */
static const bool plain[256] = {
    [' ' ... '!'] = true,
    ['#' ... '['] = true,
    [']' ... 0x7F] = true,
};

static bool is_digit(unsigned char byte)
{
    return byte >= '0' && byte <= '9';
}

static void skip_space(struct scan *scan)
{
    while (scan->at < scan->end && (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\r' || *scan->at == '\t'))
        scan->at++;
}

static int hex_digit(unsigned char byte)
{
    if (is_digit(byte))
        return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* The XXXX of \uXXXX at `at`; -1 when it is none. */
static int hex_unit(const unsigned char *at, const unsigned char *end)
{
    int unit = 0;

    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(at[i]);

        if (digit < 0)
            return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

/* At the backslash of \uXXXX. */
static enum fault scan_unicode_escape(struct scan *scan)
{
    int unit = hex_unit(scan->at + 2, scan->end);
    size_t size = 6;

    if (unit < 0)
        return FAULT_ESCAPE;
    if (unit == 0)
        return FAULT_NUL;
    if (unit >= 0xDC00 && unit <= 0xDFFF)
        return FAULT_SURROGATE;
    if (unit >= 0xD800 && unit <= 0xDBFF) {
        int low;

        if (scan->end - scan->at < 12 || scan->at[6] != '\\' || scan->at[7] != 'u')
            return FAULT_SURROGATE;
        low = hex_unit(scan->at + 8, scan->end);
        if (low < 0xDC00 || low > 0xDFFF)
            return FAULT_SURROGATE;
        size = 12;
    }
    scan->at += size;
    return FAULT_NONE;
}

/* At a backslash. */
static enum fault scan_escape(struct scan *scan)
{
    if (scan->end - scan->at < 2) {
        scan->at = scan->end;
        return FAULT_END;
    }
    switch (scan->at[1]) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        scan->at += 2;
        return FAULT_NONE;
    case 'u':
        return scan_unicode_escape(scan);
    default:
        return FAULT_ESCAPE;
    }
}

/* At the opening quote; leaves behind the closing one. */
static enum fault scan_string(struct scan *scan)
{
    scan->at++;
    for (;;) {
        enum fault fault;
        size_t size;

        while (scan->at < scan->end && plain[*scan->at])
            scan->at++;
        if (scan->at == scan->end)
            return FAULT_END;
        if (*scan->at == '"') {
            scan->at++;
            return FAULT_NONE;
        }
        if (*scan->at == '\\') {
            fault = scan_escape(scan);
            if (fault != FAULT_NONE)
                return fault;
            continue;
        }
        if (*scan->at < 0x20)
            return FAULT_CONTROL;
        size = rpc_utf8_sequence(scan->at, scan->end);
        if (size == 0)
            return FAULT_UTF8;
        scan->at += size;
    }
}

/* One digit or more. */
static enum fault scan_digits(struct scan *scan)
{
    if (scan->at == scan->end)
        return FAULT_END;
    if (!is_digit(*scan->at))
        return FAULT_NUMBER;
    while (scan->at < scan->end && is_digit(*scan->at))
        scan->at++;
    return FAULT_NONE;
}

/* At a minus or a digit. */
static enum fault scan_number(struct scan *scan)
{
    enum fault fault;

    if (*scan->at == '-')
        scan->at++;
    if (scan->at < scan->end && *scan->at == '0') {
        scan->at++;
        if (scan->at < scan->end && is_digit(*scan->at))
            return FAULT_NUMBER;
    } else {
        fault = scan_digits(scan);
        if (fault != FAULT_NONE)
            return fault;
    }
    if (scan->at < scan->end && *scan->at == '.') {
        scan->at++;
        fault = scan_digits(scan);
        if (fault != FAULT_NONE)
            return fault;
    }
    if (scan->at < scan->end && (*scan->at | 0x20) == 'e') {
        scan->at++;
        if (scan->at < scan->end && (*scan->at == '+' || *scan->at == '-'))
            scan->at++;
        return scan_digits(scan);
    }
    return FAULT_NONE;
}

static enum fault scan_word(struct scan *scan, const char *word)
{
    for (; *word != '\0'; word++, scan->at++) {
        if (scan->at == scan->end)
            return FAULT_END;
        if (*scan->at != (unsigned char)*word)
            return FAULT_CHARACTER;
    }
    return FAULT_NONE;
}

/* At the first byte of a value that is no object and no array. */
static enum fault scan_scalar(struct scan *scan)
{
    switch (*scan->at) {
    case '"':
        return scan_string(scan);
    case 't':
        return scan_word(scan, "true");
    case 'f':
        return scan_word(scan, "false");
    case 'n':
        return scan_word(scan, "null");
    default:
        return *scan->at == '-' || is_digit(*scan->at) ? scan_number(scan) : FAULT_CHARACTER;
    }
}

/* Whether the innermost thing that is open is an object.  Something must be open. */
static bool in_object(const struct scan *scan)
{
    return scan->objects >> (scan->depth - 1) & 1;
}

/* At '{' or '['. */
static enum fault scan_open(struct scan *scan)
{
    uint64_t bit;

    if (scan->depth == RPC_JSON_DEPTH_MAX)
        return FAULT_DEPTH;
    bit = (uint64_t)1 << scan->depth++;
    if (*scan->at == '{')
        scan->objects |= bit;
    else
        scan->objects &= ~bit;
    scan->at++;
    return FAULT_NONE;
}

/* A member's key and its colon; leaves at the first byte of the value. */
static enum fault scan_key(struct scan *scan)
{
    const unsigned char *key = scan->at + 1;
    enum fault fault;

    if (scan->at == scan->end)
        return FAULT_END;
    if (*scan->at != '"')
        return FAULT_CHARACTER;
    fault = scan_string(scan);
    if (fault != FAULT_NONE)
        return fault;
    if (scan->search != NULL && scan->depth == 1)
        scan->search->key = (struct rpc_bytes){(const char *)key, (size_t)(scan->at - 1 - key)};
    skip_space(scan);
    if (scan->at == scan->end)
        return FAULT_END;
    if (*scan->at != ':')
        return FAULT_CHARACTER;
    scan->at++;
    skip_space(scan);
    if (scan->search != NULL && scan->depth == 1)
        scan->search->value = scan->at;
    return FAULT_NONE;
}

/* A member of the outermost object has ended: is it one of those looked for? */
static void search_on_member(struct search *search, const unsigned char *end)
{
    for (size_t i = 0; i < search->count; i++) {
        if (!rpc_bytes_equal(search->key, search->names[i]))
            continue;
        if (search->key.size > 0 && memchr(search->key.data, '\\', search->key.size) != NULL)
            continue; /* the same bytes, but they spell another key */
        search->values[i] = (struct rpc_bytes){(const char *)search->value, (size_t)(end - search->value)};
    }
}

/*
 * Behind a value: close what ends here, step over a comma.  Leaves at the next value, with depth 0 behind the document.
 */
static enum fault scan_next(struct scan *scan)
{
    while (scan->depth > 0) {
        bool object = in_object(scan);

        if (scan->search != NULL && scan->depth == 1)
            search_on_member(scan->search, scan->at);
        skip_space(scan);
        if (scan->at == scan->end)
            return FAULT_END;
        if (*scan->at == ',') {
            scan->at++;
            skip_space(scan);
            return object ? scan_key(scan) : FAULT_NONE;
        }
        if (*scan->at != (object ? '}' : ']'))
            return FAULT_CHARACTER;
        scan->at++;
        scan->depth--;
    }
    return FAULT_NONE;
}

/* At a value: go down into it until a scalar or an empty object or array is behind. */
static enum fault scan_value(struct scan *scan)
{
    for (;;) {
        enum fault fault;
        bool object;

        if (scan->at == scan->end)
            return FAULT_END;
        if (*scan->at != '{' && *scan->at != '[')
            return scan_scalar(scan);
        fault = scan_open(scan);
        if (fault != FAULT_NONE)
            return fault;
        object = in_object(scan);
        skip_space(scan);
        if (scan->at < scan->end && *scan->at == (object ? '}' : ']')) {
            scan->at++;
            scan->depth--;
            return FAULT_NONE;
        }
        if (object) {
            fault = scan_key(scan);
            if (fault != FAULT_NONE)
                return fault;
        }
    }
}

static enum fault scan_text(struct scan *scan, struct rpc_bytes text, struct search *search)
{
    static const unsigned char nothing[1];
    enum fault fault;

    scan->at = text.size == 0 ? nothing : (const unsigned char *)text.data;
    scan->end = scan->at + text.size;
    scan->objects = 0;
    scan->depth = 0;
    scan->search = search;
    skip_space(scan);
    do {
        fault = scan_value(scan);
        if (fault == FAULT_NONE)
            fault = scan_next(scan);
    } while (fault == FAULT_NONE && scan->depth > 0);
    if (fault != FAULT_NONE)
        return fault;
    skip_space(scan);
    return scan->at == scan->end ? FAULT_NONE : FAULT_REST;
}

bool rpc_json_check(struct rpc_bytes text)
{
    struct scan scan;

    return scan_text(&scan, text, NULL) == FAULT_NONE;
}

bool rpc_json_members(struct rpc_bytes text, size_t count, const char *const names[], struct rpc_bytes values[])
{
    struct search search = {.count = count, .names = names, .values = values};
    struct rpc_bytes none = {.data = NULL, .size = 0};
    struct scan scan;
    size_t start = 0;
    bool sound;

    for (size_t i = 0; i < count; i++)
        values[i] = none;
    while (start < text.size && memchr(" \n\r\t", text.data[start], 4) != NULL)
        start++;
    sound = start < text.size && text.data[start] == '{' && scan_text(&scan, text, &search) == FAULT_NONE;
    for (size_t i = 0; i < count && !sound; i++)
        values[i] = none;
    return sound;
}

/* ---- Reasons for people ------------------------------------------------------------------------------------------ */

static const char *fault_text(enum fault fault)
{
    switch (fault) {
    case FAULT_NONE:
        break;
    case FAULT_END:
        return "unexpected end";
    case FAULT_CHARACTER:
        return "unexpected character";
    case FAULT_UTF8:
        return "invalid UTF-8";
    case FAULT_CONTROL:
        return "control character in a string";
    case FAULT_ESCAPE:
        return "invalid escape";
    case FAULT_SURROGATE:
        return "lone surrogate";
    case FAULT_NUL:
        return "NUL in a string";
    case FAULT_NUMBER:
        return "invalid number";
    case FAULT_DEPTH:
        return "nested more than 64 levels deep";
    case FAULT_REST:
        return "text behind the document";
    }
    return "sound";
}

/* "<what> at line 1 column 12", both counted from 1, the column in characters. */
static void reason_at(char reason[RPC_JSON_REASON_SIZE], const char *what, struct rpc_bytes text, size_t position)
{
    size_t line = 1;
    size_t column = 1;

    for (size_t i = 0; i < position && i < text.size; i++) {
        if (text.data[i] == '\n') {
            line++;
            column = 1;
        } else if (!rpc_utf8_tail((unsigned char)text.data[i])) {
            column++;
        }
    }
    snprintf(reason, RPC_JSON_REASON_SIZE, "%s at line %zu column %zu", what, line, column);
}

/*
 * jansson stops behind the second of two equal keys; people look for where it begins.  In a string a quote stands only
 * behind a backslash, and a string's own first quote never does.
 */
static size_t key_start(struct rpc_bytes text, size_t behind)
{
    if (behind < 2 || behind > text.size)
        return 0;
    for (size_t i = behind - 1; i-- > 0;) {
        if (text.data[i] == '"' && (i == 0 || text.data[i - 1] != '\\'))
            return i;
    }
    return 0;
}

/* ---- Building ---------------------------------------------------------------------------------------------------- */

#define LOAD_FLAGS (JSON_REJECT_DUPLICATES | JSON_DECODE_ANY)

/* Digits that every int64 has room for, and the shortest literal that a double cannot hold ("2e308"). */
#define INTEGER_DIGITS_SAFE 18
#define REAL_SIZE_SAFE      4

static bool overflows(const char *literal, size_t size)
{
    json_error_t error = {0}; /* jansson leaves its code unset in places */
    json_t *number = json_loadb(literal, size, LOAD_FLAGS, &error);

    if (number == NULL)
        return json_error_code(&error) == json_error_numeric_overflow;
    json_decref(number);
    return false;
}

/*
 * Write a number at `out` so that jansson takes it, asking jansson itself what it takes: it knows the locale's decimal
 * point and the limits.  At most two bytes longer than `literal`, and only where that has more than
 * INTEGER_DIGITS_SAFE bytes.  Returns its size.
 */
static size_t number_tame(char *out, struct rpc_bytes literal)
{
    bool integer = memchr(literal.data, '.', literal.size) == NULL && memchr(literal.data, 'e', literal.size) == NULL &&
                   memchr(literal.data, 'E', literal.size) == NULL;
    size_t size = literal.size;

    memcpy(out, literal.data, size);
    if (size <= (integer ? INTEGER_DIGITS_SAFE : REAL_SIZE_SAFE) || !overflows(out, size))
        return size;
    if (integer) {
        memcpy(out + size, "e0", 2); /* the same number as a real */
        size += 2;
    }
    if (!integer || overflows(out, size)) {
        size = 0;
        if (literal.data[0] == '-')
            out[size++] = '-';
        memcpy(out + size, "1e308", 5);
        size += 5;
    }
    return size;
}

/* A sound text with the numbers that jansson cannot hold made smaller.  The caller's to free; {NULL, 0}: no memory. */
static struct rpc_bytes numbers_tame(struct rpc_bytes text)
{
    struct scan scan = {.at = (const unsigned char *)text.data, .end = (const unsigned char *)text.data + text.size};
    char *copy = malloc(text.size + 2 * (text.size / INTEGER_DIGITS_SAFE) + 1);
    size_t size = 0;

    if (copy == NULL)
        return (struct rpc_bytes){.data = NULL, .size = 0};
    while (scan.at < scan.end) {
        const unsigned char *start = scan.at;
        bool number = *start == '-' || is_digit(*start);

        if (number)
            scan_number(&scan);
        else if (*start == '"')
            scan_string(&scan);
        else
            scan.at++;
        if (number) {
            size += number_tame(copy + size, (struct rpc_bytes){(const char *)start, (size_t)(scan.at - start)});
        } else {
            memcpy(copy + size, start, (size_t)(scan.at - start));
            size += (size_t)(scan.at - start);
        }
    }
    return (struct rpc_bytes){.data = copy, .size = size};
}

#define NO_MEMORY "out of memory"

/*
 * jansson's own texts quote the document; ours must not.  Of what the scanner took, jansson refuses nothing but duplicate
 * keys, unless memory ran out, for which it has a code in some places only.
 */
static void reason_of_jansson(char reason[RPC_JSON_REASON_SIZE], const json_error_t *error, struct rpc_bytes text,
                              bool tamed)
{
    if (json_error_code(error) != json_error_duplicate_key)
        snprintf(reason, RPC_JSON_REASON_SIZE, NO_MEMORY);
    else if (tamed) /* positions are the copy's */
        snprintf(reason, RPC_JSON_REASON_SIZE, "duplicate key");
    else
        reason_at(reason, "duplicate key", text, key_start(text, error->position < 0 ? 0 : (size_t)error->position));
}

bool rpc_json_no_memory(const char *reason)
{
    return strcmp(reason, NO_MEMORY) == 0;
}

json_t *rpc_json_load(struct rpc_bytes text, char reason[RPC_JSON_REASON_SIZE])
{
    struct rpc_bytes tame = {.data = NULL, .size = 0};
    struct scan scan;
    enum fault fault = scan_text(&scan, text, NULL);
    json_error_t error = {0}; /* jansson leaves its code unset in places */
    json_t *document;

    reason[0] = '\0';
    if (fault != FAULT_NONE) {
        reason_at(reason, fault_text(fault), text, text.size == 0 ? 0 : (size_t)((const char *)scan.at - text.data));
        return NULL;
    }
    document = json_loadb(text.data, text.size, LOAD_FLAGS, &error);
    if (document == NULL && json_error_code(&error) == json_error_numeric_overflow) {
        tame = numbers_tame(text);
        if (tame.data == NULL) {
            snprintf(reason, RPC_JSON_REASON_SIZE, NO_MEMORY);
            return NULL;
        }
        document = json_loadb(tame.data, tame.size, LOAD_FLAGS, &error);
    }
    if (document == NULL)
        reason_of_jansson(reason, &error, text, tame.data != NULL);
    free((char *)tame.data);
    return document;
}

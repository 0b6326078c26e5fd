/*
 * One scanner knows the grammar, whether it only checks, looks for members, or builds on its way: what one program
 * accepts for handing on is what the next one accepts for reading.  jansson keeps the values; of its parser only numbers
 * have need.
 */
#include "rpclib/json.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "plain.h"
#include "rpclib/hex.h"
#include "rpclib/utf8.h"

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

/*
 * The document that is being built.  A value is put into what holds it as soon as it begins, so there is never more than
 * the document to let go of.  What memory is lacking for is left out: nobody gets to see it.
 */
struct build {
    json_t *document;                 /* owned */
    json_t *open[RPC_JSON_DEPTH_MAX]; /* lent from the document; NULL where memory was lacking */
    struct rpc_bytes key;             /* of the member that comes next, as it is spelled */
    bool key_escaped;
    const char *duplicate; /* the first key that its object had already; NULL: none */
    bool no_memory;
};

struct scan {
    const unsigned char *at; /* the next byte; after a fault: where it is */
    const unsigned char *end;
    uint64_t objects; /* bit n: what is open at depth n + 1 is an object */
    unsigned depth;
    bool escaped;          /* the last string has escapes */
    struct search *search; /* NULL: nothing is looked for */
    struct build *build;   /* NULL: nothing is built */
};

static void build_scalar(struct scan *scan, const unsigned char *start);
static void build_open(struct scan *scan);

static bool is_digit(unsigned char byte)
{
    return byte >= '0' && byte <= '9';
}

static void skip_space(struct scan *scan)
{
    while (scan->at < scan->end && (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\r' || *scan->at == '\t'))
        scan->at++;
}

/* The XXXX of \uXXXX at `at`; -1 when it is none. */
static int hex_unit(const unsigned char *at, const unsigned char *end)
{
    int unit = 0;

    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = rpc_hex_digit((char)at[i]);

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
    scan->escaped = false;
    for (;;) {
        enum fault fault;
        size_t size;

        scan->at = plain_skip(scan->at, scan->end);
        if (scan->at == scan->end)
            return FAULT_END;
        if (*scan->at == '"') {
            scan->at++;
            return FAULT_NONE;
        }
        if (*scan->at == '\\') {
            scan->escaped = true;
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
    const unsigned char *start = scan->at;
    enum fault fault;

    switch (*start) {
    case '"':
        fault = scan_string(scan);
        break;
    case 't':
        fault = scan_word(scan, "true");
        break;
    case 'f':
        fault = scan_word(scan, "false");
        break;
    case 'n':
        fault = scan_word(scan, "null");
        break;
    default:
        fault = *start == '-' || is_digit(*start) ? scan_number(scan) : FAULT_CHARACTER;
        break;
    }
    if (fault == FAULT_NONE && scan->build != NULL)
        build_scalar(scan, start);
    return fault;
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
    if (scan->build != NULL)
        build_open(scan);
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
    if (scan->build != NULL) {
        scan->build->key = (struct rpc_bytes){(const char *)key, (size_t)(scan->at - 1 - key)};
        scan->build->key_escaped = scan->escaped;
    }
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

/* `search` and `build` may be NULL. */
static enum fault scan_text(struct scan *scan, struct rpc_bytes text, struct search *search, struct build *build)
{
    static const unsigned char nothing[1];
    enum fault fault;

    scan->at = text.size == 0 ? nothing : (const unsigned char *)text.data;
    scan->end = scan->at + text.size;
    scan->objects = 0;
    scan->depth = 0;
    scan->search = search;
    scan->build = build;
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

    return scan_text(&scan, text, NULL, NULL) == FAULT_NONE;
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
    sound = start < text.size && text.data[start] == '{' && scan_text(&scan, text, &search, NULL) == FAULT_NONE;
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

/* ---- Building ---------------------------------------------------------------------------------------------------- */

/* Digits that every int64 has room for. */
#define INTEGER_DIGITS_SAFE 18

static char *utf8_put(char *out, unsigned code)
{
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xC0 | code >> 6);
        *out++ = (char)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *out++ = (char)(0xE0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    } else {
        *out++ = (char)(0xF0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 0x3F));
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    }
    return out;
}

/* The escape at the backslash `*at`, of a string that the scanner took; steps behind it. */
static unsigned unescape(const unsigned char **at, const unsigned char *end)
{
    static const char letters[] = "bfnrt", meant[] = "\b\f\n\r\t";
    unsigned char kind = (*at)[1];
    const char *letter = strchr(letters, kind);
    unsigned unit;

    *at += 2;
    if (kind != 'u')
        return letter != NULL ? (unsigned char)meant[letter - letters] : kind;
    unit = (unsigned)hex_unit(*at, end);
    *at += 4;
    if (unit < 0xD800 || unit > 0xDBFF)
        return unit;
    unit = 0x10000 + ((unit - 0xD800) << 10) + ((unsigned)hex_unit(*at + 2, end) - 0xDC00);
    *at += 6;
    return unit;
}

/* What a string that has escapes spells; never longer than itself.  The caller's to free; {NULL, 0}: no memory. */
static struct rpc_bytes text_unescape(struct rpc_bytes spelled)
{
    const unsigned char *at = (const unsigned char *)spelled.data, *end = at + spelled.size;
    char *text = malloc(spelled.size), *out = text;

    if (text == NULL)
        return (struct rpc_bytes){.data = NULL, .size = 0};
    while (at < end) {
        if (*at == '\\')
            out = utf8_put(out, unescape(&at, end));
        else
            *out++ = (char)*at++;
    }
    return (struct rpc_bytes){.data = text, .size = (size_t)(out - text)};
}

/* What stands between a string's quotes.  NULL when out of memory, as with all that makes a value. */
static json_t *string_new(struct rpc_bytes spelled, bool escaped)
{
    struct rpc_bytes text;
    json_t *value;

    if (!escaped)
        return json_stringn_nocheck(spelled.data, spelled.size);
    text = text_unescape(spelled);
    value = text.data == NULL ? NULL : json_stringn_nocheck(text.data, text.size);
    free((char *)text.data);
    return value;
}

/* A text, character by character: as it stands, or as a JSON string spells it. */
struct reader {
    const unsigned char *at, *end;
    bool escapes; /* a backslash begins an escape */
};

/* What stands between a string's quotes. */
static struct reader reader_of_string(struct rpc_bytes string)
{
    const unsigned char *quote = (const unsigned char *)string.data;

    return (struct reader){.at = quote + 1, .end = quote + string.size - 1, .escapes = true};
}

/* The next character in UTF-8; returns its size, 0 at the end. */
static size_t reader_take(struct reader *reader, char character[4])
{
    size_t size;

    if (reader->at == reader->end)
        return 0;
    if (reader->escapes && *reader->at == '\\')
        return (size_t)(utf8_put(character, unescape(&reader->at, reader->end)) - character);
    size = rpc_utf8_sequence(reader->at, reader->end);
    size = size > 0 ? size : 1; /* no UTF-8, which no string spells */
    memcpy(character, reader->at, size);
    reader->at += size;
    return size;
}

static bool readers_equal(struct reader one, struct reader other)
{
    char character[4], others[4];
    size_t size;

    do {
        size = reader_take(&one, character);
        if (reader_take(&other, others) != size || memcmp(character, others, size) != 0)
            return false;
    } while (size > 0);
    return true;
}

bool rpc_json_string_spells(struct rpc_bytes string, struct rpc_bytes text)
{
    struct reader reader = {.at = (const unsigned char *)text.data};

    if (text.size == 0)
        return string.size == 2;
    if (string.size == text.size + 2 && memcmp(string.data + 1, text.data, text.size) == 0 &&
        memchr(text.data, '\\', text.size) == NULL)
        return true;
    reader.end = reader.at + text.size;
    return readers_equal(reader_of_string(string), reader);
}

bool rpc_json_strings_equal(struct rpc_bytes one, struct rpc_bytes other)
{
    if (one.size == other.size && memcmp(one.data, other.data, one.size) == 0)
        return true;
    return readers_equal(reader_of_string(one), reader_of_string(other));
}

/* jansson reads it: it knows the locale's decimal point and the limits.  *too_large tells of a number beyond these. */
static json_t *number_read(const char *literal, size_t size, bool *too_large)
{
    json_error_t error = {0}; /* jansson leaves its code unset in places */
    json_t *number = json_loadb(literal, size, JSON_DECODE_ANY, &error);

    *too_large = number == NULL && json_error_code(&error) == json_error_numeric_overflow;
    return number;
}

/* An integer that no int64 can hold, as a real. */
static json_t *integer_as_real(struct rpc_bytes literal, bool *too_large)
{
    char *real = malloc(literal.size + 2);
    json_t *number = NULL;

    *too_large = false;
    if (real == NULL)
        return NULL;
    memcpy(real, literal.data, literal.size);
    memcpy(real + literal.size, "e0", 2);
    number = number_read(real, literal.size + 2, too_large);
    free(real);
    return number;
}

static json_t *number_new(struct rpc_bytes literal)
{
    bool negative = literal.data[0] == '-', integer = true, too_large = false;
    json_int_t value = 0;
    json_t *number;

    for (size_t i = negative; i < literal.size && integer; i++) {
        integer = is_digit((unsigned char)literal.data[i]);
        if (integer && i < INTEGER_DIGITS_SAFE)
            value = value * 10 + (literal.data[i] - '0');
    }
    if (integer && literal.size <= INTEGER_DIGITS_SAFE)
        return json_integer(negative ? -value : value);
    number = number_read(literal.data, literal.size, &too_large);
    if (too_large && integer)
        number = integer_as_real(literal, &too_large);
    return too_large ? json_real(negative ? -1e308 : 1e308) : number;
}

static void build_member(struct build *build, json_t *object, json_t *value)
{
    struct rpc_bytes key = build->key_escaped ? text_unescape(build->key) : build->key;
    size_t count = json_object_size(object);

    if (key.data == NULL) {
        json_decref(value);
        build->no_memory = true;
        return;
    }
    if (json_object_setn_new_nocheck(object, key.data, key.size, value) != 0)
        build->no_memory = true;
    else if (json_object_size(object) == count && build->duplicate == NULL)
        build->duplicate = build->key.data - 1; /* its quote */
    if (build->key_escaped)
        free((char *)key.data);
}

/* Put a new value, NULL when there was no memory for it, into what is open at `depth`.  Returns it, or NULL. */
static json_t *build_put(struct build *build, unsigned depth, json_t *value)
{
    json_t *parent = depth > 0 ? build->open[depth - 1] : NULL;

    if (value == NULL || (depth > 0 && parent == NULL))
        build->no_memory = true;
    if (build->no_memory) {
        json_decref(value);
        return NULL;
    }
    if (depth == 0)
        build->document = value;
    else if (json_is_object(parent))
        build_member(build, parent, value);
    else if (json_array_append_new(parent, value) != 0)
        build->no_memory = true;
    return build->no_memory ? NULL : value;
}

/* Behind a value that is no object and no array, and began at `start`. */
static void build_scalar(struct scan *scan, const unsigned char *start)
{
    struct rpc_bytes spelled = {(const char *)start, (size_t)(scan->at - start)};
    json_t *value;

    switch (*start) {
    case '"':
        value = string_new((struct rpc_bytes){spelled.data + 1, spelled.size - 2}, scan->escaped);
        break;
    case 't':
        value = json_true();
        break;
    case 'f':
        value = json_false();
        break;
    case 'n':
        value = json_null();
        break;
    default:
        value = number_new(spelled);
        break;
    }
    (void)build_put(scan->build, scan->depth, value);
}

/* Behind '{' or '['. */
static void build_open(struct scan *scan)
{
    json_t *value = in_object(scan) ? json_object() : json_array();

    scan->build->open[scan->depth - 1] = build_put(scan->build, scan->depth - 1, value);
}

#define NO_MEMORY "out of memory"

bool rpc_json_no_memory(const char *reason)
{
    return strcmp(reason, NO_MEMORY) == 0;
}

json_t *rpc_json_load(struct rpc_bytes text, char reason[RPC_JSON_REASON_SIZE])
{
    struct build build; /* `open` is written before it is read */
    struct scan scan;
    enum fault fault;

    build.document = NULL;
    build.duplicate = NULL;
    build.no_memory = false;
    fault = scan_text(&scan, text, NULL, &build);
    reason[0] = '\0';
    if (fault != FAULT_NONE)
        reason_at(reason, fault_text(fault), text, text.size == 0 ? 0 : (size_t)((const char *)scan.at - text.data));
    else if (build.no_memory)
        snprintf(reason, RPC_JSON_REASON_SIZE, NO_MEMORY);
    else if (build.duplicate != NULL)
        reason_at(reason, "duplicate key", text, (size_t)(build.duplicate - text.data));
    else
        return build.document;
    json_decref(build.document);
    return NULL;
}

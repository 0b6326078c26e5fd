/*
 * A password with a raw '@', '/', '?' or '#' in it makes a URI that reads as another one: a part of the password would
 * become host, vhost or option, and from there get into logs.  Hence the at-signs are counted first.
 */
#include "uri.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "rpclib/bytes.h"
#include "rpclib/percent.h"

#define HOST_SIZE_MAX       255
#define VHOST_SIZE_MAX      255  /* connection.open has a short string for it */
#define CREDENTIAL_SIZE_MAX 1024 /* both must fit into a frame before its size is agreed on: 4096 bytes */
#define FILE_SIZE_MAX       4095
#define HEARTBEAT_MAX_S     65535
#define OPTION_SHOWN_MAX    40 /* bytes of an unknown option's name that are shown */

struct parse {
    struct rpc_uri uri;
    char *reason;
};

__attribute__((format(printf, 2, 3))) static bool refuse(struct parse *parse, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(parse->reason, RPC_URI_REASON_SIZE, format, arguments);
    va_end(arguments);
    return false;
}

/* The part of `text` before the first `end`; `text` then begins behind that one, or is empty. */
static struct rpc_bytes cut_off(struct rpc_bytes *text, char end)
{
    const char *found = text->size == 0 ? NULL : memchr(text->data, end, text->size);
    struct rpc_bytes part = {.data = text->data, .size = found == NULL ? text->size : (size_t)(found - text->data)};
    size_t used = part.size + (found == NULL ? 0 : 1);

    if (used > 0)
        *text = (struct rpc_bytes){.data = text->data + used, .size = text->size - used};
    return part;
}

static bool contains(struct rpc_bytes text, char character)
{
    return text.size > 0 && memchr(text.data, character, text.size) != NULL;
}

/* Decode %XX into a text of its own, at most `size_max` bytes.  `what` names it in reasons. */
static bool decode(struct parse *parse, char **out, struct rpc_bytes part, const char *what, size_t size_max)
{
    char *text = malloc(part.size + 1);
    size_t size = 0;
    bool decoded;

    *out = text; /* wiped and freed with the rest, also after a refusal */
    if (text == NULL)
        return refuse(parse, "out of memory");
    decoded = rpc_percent_decode(part, text, &size);
    text[size] = '\0';
    if (decoded && strlen(text) == size)
        return size <= size_max || refuse(parse, "the %s is longer than %zu bytes", what, size_max);
    explicit_bzero(text, part.size); /* what is wiped as a string would end at a NUL within it */
    if (decoded)
        return refuse(parse, "the %s has a NUL in it", what);
    return refuse(parse, "the %s has a %% without two hexadecimal digits behind it", what);
}

/* Digits alone. */
static bool parse_number(struct rpc_bytes text, long maximum, long *out)
{
    long number = 0;

    for (size_t i = 0; i < text.size; i++) {
        if (!isdigit((unsigned char)text.data[i]))
            return false;
        number = number * 10 + (text.data[i] - '0');
        if (number > maximum)
            return false;
    }
    *out = number;
    return text.size > 0;
}

/* ---- The parts, from left to right ------------------------------------------------------------------------------- */

static bool parse_scheme(struct parse *parse, struct rpc_bytes *rest)
{
    static const struct {
        const char *prefix;
        bool tls;
    } schemes[] = {{"amqp://", false}, {"amqps://", true}, {"pyamqp://", false}};

    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t size = strlen(schemes[i].prefix);

        if (rest->size < size || strncasecmp(rest->data, schemes[i].prefix, size) != 0)
            continue;
        parse->uri.tls = schemes[i].tls;
        *rest = (struct rpc_bytes){.data = rest->data + size, .size = rest->size - size};
        return true;
    }
    return refuse(parse, "must begin with amqp:// or amqps://");
}

/* user[:password], or nothing at all. */
static bool parse_user(struct parse *parse, struct rpc_bytes part, bool given)
{
    bool with_password = contains(part, ':');
    struct rpc_bytes user = cut_off(&part, ':');

    if (!decode(parse, &parse->uri.user, given ? user : RPC_BYTES("guest"), "user", CREDENTIAL_SIZE_MAX))
        return false;
    return decode(parse, &parse->uri.password, with_password ? part : RPC_BYTES("guest"), "password",
                  CREDENTIAL_SIZE_MAX);
}

/* [address], with or without %25zone: leaves what follows the bracket. */
static bool parse_ipv6(struct parse *parse, struct rpc_bytes *part)
{
    struct rpc_bytes inner;
    struct in6_addr address;
    char *zone;
    bool sound;

    if (!contains(*part, ']'))
        return refuse(parse, "the [ of an IPv6 address is not closed");
    inner = cut_off(part, ']');
    inner = (struct rpc_bytes){.data = inner.data + 1, .size = inner.size - 1};
    if (!decode(parse, &parse->uri.host, inner, "host", HOST_SIZE_MAX))
        return false;
    zone = strchr(parse->uri.host, '%');
    if (zone != NULL)
        *zone = '\0';
    sound = inet_pton(AF_INET6, parse->uri.host, &address) == 1;
    if (zone != NULL)
        *zone = '%';
    return sound || refuse(parse, "what stands in [ ] is no IPv6 address");
}

static bool parse_name(struct parse *parse, struct rpc_bytes *part)
{
    const char *colon = part->size == 0 ? NULL : memchr(part->data, ':', part->size);
    struct rpc_bytes name = *part;

    if (colon != NULL)
        name.size = (size_t)(colon - part->data);
    *part = (struct rpc_bytes){.data = part->data + name.size, .size = part->size - name.size};
    if (name.size == 0)
        name = RPC_BYTES("localhost");
    if (!decode(parse, &parse->uri.host, name, "host", HOST_SIZE_MAX))
        return false;
    for (const char *at = parse->uri.host; *at != '\0'; at++) {
        if (!isgraph((unsigned char)*at) || strchr("/@:[]", *at) != NULL)
            return refuse(parse, "the host has a character in it that no host name has");
    }
    return true;
}

/* host[:port] */
static bool parse_place(struct parse *parse, struct rpc_bytes part)
{
    long port = parse->uri.tls ? 5671 : 5672;
    bool bracket = part.size > 0 && part.data[0] == '[';

    if (!(bracket ? parse_ipv6(parse, &part) : parse_name(parse, &part)))
        return false;
    if (part.size > 0) {
        struct rpc_bytes digits = {.data = part.data + 1, .size = part.size - 1};

        if (!bracket && contains(digits, ':'))
            return refuse(parse, "an IPv6 address must stand in [ ]");
        if (part.data[0] != ':' || !parse_number(digits, UINT16_MAX, &port) || port == 0)
            return refuse(parse, "the port must be a number from 1 to 65535");
    }
    parse->uri.port = (uint16_t)port;
    return true;
}

/* The path without its first slash. */
static bool parse_vhost(struct parse *parse, struct rpc_bytes part)
{
    if (part.size == 0)
        part = RPC_BYTES("/");
    return decode(parse, &parse->uri.vhost, part, "vhost", VHOST_SIZE_MAX);
}

/* Only what looks like an option's name is shown as one. */
static bool refuse_option(struct parse *parse, struct rpc_bytes name)
{
    static const char known[] = "known are heartbeat, cafile, certfile, keyfile";

    for (size_t i = 0; i < name.size; i++) {
        if (!isalnum((unsigned char)name.data[i]) && strchr("_-.", name.data[i]) == NULL)
            return refuse(parse, "unknown option; %s", known);
    }
    return refuse(parse, "unknown option \"%.*s\"; %s",
                  (int)(name.size < OPTION_SHOWN_MAX ? name.size : OPTION_SHOWN_MAX), name.data, known);
}

static bool parse_heartbeat(struct parse *parse, struct rpc_bytes value)
{
    long seconds;

    if (parse->uri.heartbeat_s >= 0)
        return refuse(parse, "option heartbeat is given twice");
    if (!parse_number(value, HEARTBEAT_MAX_S, &seconds))
        return refuse(parse, "option heartbeat must be a number of seconds from 0 to %d", HEARTBEAT_MAX_S);
    parse->uri.heartbeat_s = (int)seconds;
    return true;
}

static bool parse_option(struct parse *parse, struct rpc_bytes part)
{
    struct rpc_uri *uri = &parse->uri;
    const struct {
        const char *name;
        char **out;
    } files[] = {{"cafile", &uri->cafile}, {"certfile", &uri->certfile}, {"keyfile", &uri->keyfile}};
    struct rpc_bytes name = cut_off(&part, '=');

    if (rpc_bytes_equal(name, "heartbeat"))
        return parse_heartbeat(parse, part);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        if (!rpc_bytes_equal(name, files[i].name))
            continue;
        if (*files[i].out != NULL)
            return refuse(parse, "option %s is given twice", files[i].name);
        if (!uri->tls)
            return refuse(parse, "option %s needs amqps://", files[i].name);
        if (part.size == 0)
            return refuse(parse, "option %s has no value", files[i].name);
        return decode(parse, files[i].out, part, files[i].name, FILE_SIZE_MAX);
    }
    return refuse_option(parse, name);
}

static bool parse_query(struct parse *parse, struct rpc_bytes query)
{
    while (query.size > 0) {
        struct rpc_bytes option = cut_off(&query, '&');

        if (option.size > 0 && !parse_option(parse, option))
            return false;
    }
    if (parse->uri.keyfile != NULL && parse->uri.certfile == NULL)
        return refuse(parse, "option keyfile needs certfile");
    return true;
}

static bool parse_characters(struct parse *parse, struct rpc_bytes text)
{
    for (size_t i = 0; i < text.size; i++) {
        if ((unsigned char)text.data[i] <= ' ' || text.data[i] == 0x7F)
            return refuse(parse, "a space or control character must be written %%20 and so on");
    }
    return true;
}

static bool parse_text(struct parse *parse, struct rpc_bytes rest)
{
    struct rpc_bytes before_query, authority, user = {.data = NULL, .size = 0};
    bool with_user;

    if (!parse_characters(parse, rest) || !parse_scheme(parse, &rest))
        return false;
    if (contains(rest, '#'))
        return refuse(parse, "a # must be written %%23");
    before_query = cut_off(&rest, '?');
    authority = cut_off(&before_query, '/');
    if (contains(before_query, '@') || contains(rest, '@'))
        return refuse(parse, "an @ behind the host must be written %%40, a / or ? in user or password %%2F or %%3F");
    with_user = contains(authority, '@');
    if (with_user)
        user = cut_off(&authority, '@');
    if (contains(authority, '@'))
        return refuse(parse, "an @ in user or password must be written %%40");
    return parse_user(parse, user, with_user) && parse_place(parse, authority) && parse_vhost(parse, before_query) &&
           parse_query(parse, rest);
}

bool rpc_uri_parse(struct rpc_uri *out, const char *text, char reason[RPC_URI_REASON_SIZE])
{
    struct parse parse = {.uri = {.heartbeat_s = -1}, .reason = reason};

    reason[0] = '\0';
    if (!parse_text(&parse, rpc_bytes_of(text))) {
        rpc_uri_clear(&parse.uri);
        return false;
    }
    *out = parse.uri;
    return true;
}

static void wipe(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

void rpc_uri_clear(struct rpc_uri *uri)
{
    free(uri->host);
    free(uri->user);
    wipe(uri->password);
    free(uri->vhost);
    free(uri->cafile);
    free(uri->certfile);
    free(uri->keyfile);
    *uri = (struct rpc_uri){.heartbeat_s = -1};
}

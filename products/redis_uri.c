#include "redis_uri.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "rpclib/bytes.h"
#include "rpclib/percent.h"

#define DECIMAL_DIGITS_MAX 9

static bool refuse(char reason[REDIS_URI_REASON_SIZE], const char *why)
{
    snprintf(reason, REDIS_URI_REASON_SIZE, "%s", why);
    return false;
}

static struct rpc_bytes bytes_between(const char *start, const char *end)
{
    return (struct rpc_bytes){.data = start, .size = (size_t)(end - start)};
}

/* A percent-encoded text, decoded; NULL when the encoding is broken or hides a NUL, or out of memory. */
static char *decode(struct rpc_bytes text)
{
    char *out = malloc(text.size + 1);
    size_t size;

    if (out == NULL)
        return NULL;
    if (rpc_percent_decode(text, out, &size) && memchr(out, '\0', size) == NULL) {
        out[size] = '\0';
        return out;
    }
    explicit_bzero(out, text.size);
    free(out);
    return NULL;
}

static bool read_decimal(long *out, struct rpc_bytes text)
{
    long value = 0;

    if (text.size == 0 || text.size > DECIMAL_DIGITS_MAX)
        return false;
    for (size_t at = 0; at < text.size; at++) {
        if (text.data[at] < '0' || text.data[at] > '9')
            return false;
        value = value * 10 + (text.data[at] - '0');
    }
    *out = value;
    return true;
}

static bool read_scheme(const char **text, char reason[REDIS_URI_REASON_SIZE])
{
    const char *end = strstr(*text, "://");

    if (end == NULL)
        return refuse(reason, "must look like redis://[user:password@]host[:port][/database]");
    if (end - *text == 6 && strncasecmp(*text, "rediss", 6) == 0)
        return refuse(reason, "rediss:// (TLS) is not supported; put a TLS tunnel beside this program");
    if (end - *text > 5 && strncasecmp(*text, "redis+", 6) == 0)
        return refuse(reason,
                      "redis+...:// (Sentinel, Cluster, sockets) is not supported; name one server by redis://");
    if (end - *text != 5 || strncasecmp(*text, "redis", 5) != 0)
        return refuse(reason, "the scheme must be redis://");
    *text = end + 3;
    return true;
}

static bool read_login(struct redis_uri *uri, struct rpc_bytes login, char reason[REDIS_URI_REASON_SIZE])
{
    const char *colon = memchr(login.data, ':', login.size);

    if (colon == NULL || colon + 1 == login.data + login.size)
        return refuse(reason, "before the @ must stand user:password or :password");
    uri->password = decode(bytes_between(colon + 1, login.data + login.size));
    if (uri->password == NULL)
        return refuse(reason, "the password's percent-encoding is broken");
    if (colon == login.data)
        return true;
    uri->user = decode(bytes_between(login.data, colon));
    return uri->user != NULL || refuse(reason, "the user's percent-encoding is broken");
}

static bool read_host(struct redis_uri *uri, struct rpc_bytes host, char reason[REDIS_URI_REASON_SIZE])
{
    if (host.size == 0)
        host = RPC_BYTES("localhost");
    uri->host = decode(host);
    if (uri->host == NULL)
        return refuse(reason, "the host's percent-encoding is broken");
    for (const unsigned char *at = (const unsigned char *)uri->host; *at != '\0'; at++)
        if (*at <= ' ' || *at == 0x7F || strchr("/@[]", *at) != NULL)
            return refuse(reason, "the host holds a character that no host has");
    return true;
}

static bool read_port(struct redis_uri *uri, struct rpc_bytes port, char reason[REDIS_URI_REASON_SIZE])
{
    long value;

    if (!read_decimal(&value, port) || value < 1 || value > UINT16_MAX)
        return refuse(reason, "the port must be a number from 1 to 65535");
    uri->port = (uint16_t)value;
    return true;
}

/* [user:password@]host[:port] */
static bool read_authority(struct redis_uri *uri, struct rpc_bytes text, char reason[REDIS_URI_REASON_SIZE])
{
    const char *end = text.data + text.size;
    const char *at = memrchr(text.data, '@', text.size);
    const char *host = at == NULL ? text.data : at + 1;
    const char *host_end;

    if (at != NULL && !read_login(uri, bytes_between(text.data, at), reason))
        return false;
    if (host < end && *host == '[') {
        host_end = memchr(host, ']', (size_t)(end - host));
        if (host_end == NULL)
            return refuse(reason, "the host's ] is missing");
        if (!read_host(uri, bytes_between(host + 1, host_end), reason))
            return false;
        host_end++;
        if (host_end < end && *host_end != ':')
            return refuse(reason, "behind the host's ] must stand :port or nothing");
    } else {
        host_end = memchr(host, ':', (size_t)(end - host));
        if (host_end == NULL)
            host_end = end;
        if (!read_host(uri, bytes_between(host, host_end), reason))
            return false;
    }
    uri->port = REDIS_URI_PORT;
    return host_end == end || read_port(uri, bytes_between(host_end + 1, end), reason);
}

static bool read_database(struct redis_uri *uri, struct rpc_bytes path, char reason[REDIS_URI_REASON_SIZE])
{
    long value = 0;

    if (path.size > 0 && !rpc_bytes_equal(path, "dev") &&
        (!read_decimal(&value, path) || value > REDIS_URI_DATABASE_MAX))
        return refuse(reason, "behind the / must stand the number of a database");
    uri->database = (int)value;
    return true;
}

bool redis_uri_read(struct redis_uri *out, const char *text, char reason[REDIS_URI_REASON_SIZE])
{
    struct redis_uri uri = {.host = NULL};
    const char *end = text + strlen(text);
    const char *slash;

    if (!read_scheme(&text, reason))
        goto refused;
    if (strpbrk(text, "?#") != NULL) {
        refuse(reason, "options (?...) are not supported; a ? or # in a password is written %3F or %23");
        goto refused;
    }
    slash = strchr(text, '/');
    if (!read_authority(&uri, bytes_between(text, slash == NULL ? end : slash), reason))
        goto refused;
    if (slash != NULL && !read_database(&uri, bytes_between(slash + 1, end), reason))
        goto refused;
    *out = uri;
    return true;
refused:
    redis_uri_clear(&uri);
    return false;
}

void redis_uri_clear(struct redis_uri *uri)
{
    if (uri->password != NULL)
        explicit_bzero(uri->password, strlen(uri->password));
    free(uri->password);
    free(uri->user);
    free(uri->host);
    *uri = (struct redis_uri){.host = NULL};
}

#include "database_uri.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#define PORT_DEFAULT 5432
#define KEYWORDS_MAX 80 /* libpq 15 knows about 50 */

/* What we ask for where the URI does not say otherwise. */
static const struct {
    const char *keyword, *value;
} defaults[] = {
    {"fallback_application_name", "orders"},
    {"gssencmode", "disable"}, /* its libraries look up names, and block */
    {"keepalives_idle", "10"},
    {"keepalives_interval", "3"},
    {"keepalives_count", "3"},
    {"tcp_user_timeout", "10000"}, /* ms */
};
#define DEFAULTS_COUNT (sizeof(defaults) / sizeof(defaults[0]))

static const char *option_get(const PQconninfoOption *options, const char *keyword)
{
    for (; options != NULL && options->keyword != NULL; options++)
        if (strcmp(options->keyword, keyword) == 0)
            return options->val != NULL && options->val[0] != '\0' ? options->val : NULL;
    return NULL;
}

/* The `index`-th of a comma separated list, or its only one; *out is malloc'd, NULL when it is empty. */
static bool list_get(char **out, const char *list, size_t index)
{
    const char *end;

    *out = NULL;
    if (list == NULL)
        return true;
    if (strchr(list, ',') == NULL)
        index = 0;
    for (; index > 0; index--) {
        list = strchr(list, ',');
        if (list == NULL)
            return true;
        list++;
    }
    end = strchrnul(list, ',');
    if (end == list)
        return true;
    *out = strndup(list, (size_t)(end - list));
    return *out != NULL;
}

static size_t list_count(const char *list)
{
    size_t count = 1;

    for (; list != NULL && *list != '\0'; list++)
        if (*list == ',')
            count++;
    return count;
}

/* libpq itself would look at it with each attempt only. */
static bool is_sslmode(const char *text)
{
    static const char *const modes[] = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"};

    for (size_t index = 0; index < sizeof(modes) / sizeof(modes[0]); index++)
        if (strcmp(text, modes[index]) == 0)
            return true;
    return false;
}

/* What each attempt sets by itself. */
static bool is_ours(const char *keyword)
{
    return strcmp(keyword, "host") == 0 || strcmp(keyword, "hostaddr") == 0 || strcmp(keyword, "port") == 0 ||
           strcmp(keyword, "client_encoding") == 0;
}

static bool is_address(const char *text)
{
    char binary[16];

    return inet_pton(AF_INET, text, binary) == 1 || inet_pton(AF_INET6, text, binary) == 1;
}

static bool uri_split_hosts(struct database_uri *uri, const char *names, const char *addresses, const char *ports)
{
    size_t index;

    uri->hosts_count = list_count(addresses != NULL ? addresses : names);
    if (uri->hosts_count > DATABASE_HOSTS_MAX)
        uri->hosts_count = DATABASE_HOSTS_MAX;
    for (index = 0; index < uri->hosts_count; index++) {
        struct database_host *host = &uri->hosts[index];

        if (!list_get(&host->name, names, index) || !list_get(&host->address, addresses, index) ||
            !list_get(&host->port, ports, index))
            return false;
        if (host->address == NULL && host->name != NULL && is_address(host->name)) {
            host->address = strdup(host->name);
            if (host->address == NULL)
                return false;
        }
    }
    return true;
}

/*
 * A password with a raw '/' or '@' in it makes a URI that libpq reads as another one: a part of the password would be its
 * host, its port or its database, which later messages name.  It shows by what none of these has: an at-sign in host or
 * database, or (are_ports()) a port that is no number.
 */
static bool is_misread_uri(const char *text)
{
    const char *rest = strstr(text, "://"), *user_end;

    if (rest == NULL || (strncmp(text, "postgresql://", 13) != 0 && strncmp(text, "postgres://", 11) != 0))
        return false;
    rest += strlen("://");
    user_end = strpbrk(rest, "@/"); /* as libpq looks for it */
    if (user_end != NULL && *user_end == '@')
        rest = user_end + 1;
    return memchr(rest, '@', strcspn(rest, "?")) != NULL;
}

static bool are_ports(const char *list)
{
    return list == NULL || list[strspn(list, "0123456789,")] == '\0';
}

bool database_uri_parse(struct database_uri *out, const char *text, char reason[DATABASE_URI_REASON_SIZE])
{
    struct database_uri uri = {.options = NULL};
    PQconninfoOption *fallbacks = PQconndefaults(); /* what the environment says */
    const char *names, *ports, *sslmode;
    char *error = NULL;
    bool parsed = false;

    uri.options = PQconninfoParse(text, &error);
    if (uri.options == NULL) {
        /* libpq's own message may quote the text, and with it the password. */
        snprintf(reason, DATABASE_URI_REASON_SIZE,
                 "must be a PostgreSQL URI: postgresql://user:password@host:port/database");
        goto done;
    }
    if (is_misread_uri(text) || !are_ports(option_get(uri.options, "port"))) {
        snprintf(reason, DATABASE_URI_REASON_SIZE,
                 "port must be a number; a / or @ in user, password or database must be written %%2F or %%40");
        goto done;
    }
    sslmode = option_get(uri.options, "sslmode");
    if (sslmode != NULL && !is_sslmode(sslmode)) {
        snprintf(reason, DATABASE_URI_REASON_SIZE,
                 "sslmode must be disable, allow, prefer, require, verify-ca or verify-full");
        goto done;
    }
    names = option_get(uri.options, "host");
    ports = option_get(uri.options, "port");
    parsed =
        uri_split_hosts(&uri, names != NULL ? names : option_get(fallbacks, "host"),
                        option_get(uri.options, "hostaddr"), ports != NULL ? ports : option_get(fallbacks, "port"));
    if (!parsed)
        snprintf(reason, DATABASE_URI_REASON_SIZE, "out of memory");
done:
    PQconninfoFree(fallbacks);
    PQfreemem(error);
    if (parsed)
        *out = uri;
    else
        database_uri_clear(&uri);
    return parsed;
}

void database_uri_clear(struct database_uri *uri)
{
    size_t index;

    PQconninfoFree(uri->options);
    for (index = 0; index < uri->hosts_count; index++) {
        free(uri->hosts[index].name);
        free(uri->hosts[index].address);
        free(uri->hosts[index].port);
    }
    *uri = (struct database_uri){.options = NULL};
}

bool database_host_is_name(const struct database_host *host)
{
    return host->address == NULL && host->name != NULL && host->name[0] != '/' && host->name[0] != '@';
}

uint16_t database_host_port(const struct database_host *host)
{
    long port = host->port == NULL ? PORT_DEFAULT : strtol(host->port, NULL, 10);

    return port > 0 && port <= UINT16_MAX ? (uint16_t)port : PORT_DEFAULT;
}

PGconn *database_uri_connect(const struct database_uri *uri, const struct database_host *host, const char *address)
{
    const char *keywords[KEYWORDS_MAX + 1], *values[KEYWORDS_MAX + 1];
    const PQconninfoOption *option;
    size_t count = 0, index;

    for (index = 0; index < DEFAULTS_COUNT; index++) { /* first: the last of two wins */
        keywords[count] = defaults[index].keyword;
        values[count++] = defaults[index].value;
    }
    for (option = uri->options; option->keyword != NULL && count < KEYWORDS_MAX - 4; option++) {
        if (option->val == NULL || option->val[0] == '\0' || is_ours(option->keyword))
            continue;
        keywords[count] = option->keyword;
        values[count++] = option->val;
    }
    keywords[count] = "host"; /* also where the address is known: TLS checks the name */
    values[count++] = host->name == NULL ? "" : host->name;
    keywords[count] = "hostaddr";
    values[count++] = address == NULL ? "" : address;
    keywords[count] = "port";
    values[count++] = host->port == NULL ? "" : host->port;
    keywords[count] = "client_encoding";
    values[count++] = "UTF8";
    keywords[count] = NULL;
    values[count] = NULL;
    return PQconnectStartParams(keywords, values, 0);
}

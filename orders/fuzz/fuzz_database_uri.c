/*
 * database_uri: a PostgreSQL URI, or key words.  What is taken apart has hosts that can be connected to, one by one; what
 * is refused leaves nothing behind, and no part of what stands where a password does gets into the reason.
 *
 * The first byte says where in the password the harness puts a mark, the rest is a URI.
 */
#include <arpa/inet.h>
#include <fuzz.h>

#include "database_uri.h"

static const char *option_of(const struct database_uri *uri, const char *keyword)
{
    const PQconninfoOption *option = uri->options;

    while (option->keyword != NULL && strcmp(option->keyword, keyword) != 0)
        option++;
    return option->keyword == NULL || option->val == NULL ? "" : option->val;
}

static bool is_address(const char *text)
{
    char binary[16];

    return inet_pton(AF_INET, text, binary) == 1 || inet_pton(AF_INET6, text, binary) == 1;
}

/* Whether `part` is one of the comma separated parts of `list`; NULL is an empty one. */
static bool is_part(const char *part, const char *list)
{
    size_t size = part == NULL ? 0 : strlen(part);

    for (;; list++) {
        const char *end = strchrnul(list, ',');

        if ((size_t)(end - list) == size && (size == 0 || memcmp(list, part, size) == 0))
            return true;
        if (*end == '\0')
            return false;
        list = end;
    }
}

static void check_host(const struct database_uri *uri, const struct database_host *host)
{
    HOLDS(host->name == NULL || (host->name[0] != '\0' && strchr(host->name, ',') == NULL));
    HOLDS(host->name == NULL || is_part(host->name, option_of(uri, "host")));
    if (option_of(uri, "hostaddr")[0] != '\0')
        HOLDS(host->address == NULL || is_part(host->address, option_of(uri, "hostaddr")) ||
              (host->name != NULL && strcmp(host->address, host->name) == 0));
    else if (host->name != NULL && is_address(host->name))
        HOLDS(host->address != NULL && strcmp(host->address, host->name) == 0);
    else
        HOLDS(host->address == NULL);
    HOLDS(host->port == NULL || host->port[strspn(host->port, "0123456789")] == '\0');
    HOLDS(database_host_port(host) > 0);
    HOLDS(database_host_is_name(host) ==
          (host->address == NULL && host->name != NULL && strchr("/@", host->name[0]) == NULL));
}

static bool parse(void *out, const char *text, char *reason)
{
    return database_uri_parse(out, text, reason);
}

static void check(void *taken, const char *text)
{
    struct database_uri *uri = taken;

    (void)text;
    HOLDS(uri->options != NULL && uri->hosts_count >= 1 && uri->hosts_count <= DATABASE_HOSTS_MAX);
    for (size_t i = 0; i < uri->hosts_count; i++)
        check_host(uri, &uri->hosts[i]);
    database_uri_clear(uri);
    HOLDS(uri->options == NULL && uri->hosts_count == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_uri_reader reader = {sizeof(struct database_uri), DATABASE_URI_REASON_SIZE, parse, check};

    fuzz_uri_marked(&reader, fuzz_bytes(data, size));
    return 0;
}

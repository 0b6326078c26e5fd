/* redis_uri: where a Redis is and how to log in: redis://[user:password@]host[:port][/database].  Pure. */
#ifndef PRODUCTS_REDIS_URI_H
#define PRODUCTS_REDIS_URI_H

#include <stdbool.h>
#include <stdint.h>

#define REDIS_URI_REASON_SIZE  160
#define REDIS_URI_PORT         6379
#define REDIS_URI_DATABASE_MAX 999999 /* the server knows how many it has; this only keeps the number short */

struct redis_uri {
    char *host;     /* owned, as are the next two; a name or an address, without brackets */
    char *user;     /* NULL: the default user */
    char *password; /* NULL: no login */
    uint16_t port;
    int database;
};

/*
 * Read a URI; user, password and host may be percent-encoded.  The path "/dev" is database 0: the Python original's
 * settings say so, and its client reads any word as 0.  Any other word is refused: it is a typing error.
 * On success *out is the caller's to clear; else `reason` says what is wrong, without any secret.
 */
bool redis_uri_read(struct redis_uri *out, const char *text, char reason[REDIS_URI_REASON_SIZE]);

void redis_uri_clear(struct redis_uri *uri); /* wipes the password */

#endif

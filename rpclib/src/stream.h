/*
 * stream: bytes to and from one peer, plain or by TLS, without blocking.
 *
 * It owns its descriptor.  TLS shakes hands by itself, inside the first reads and writes; certificate and host name are
 * always verified.
 */
#ifndef RPCLIB_SRC_STREAM_H
#define RPCLIB_SRC_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define STREAM_AGAIN      0    /* nothing now: wait until the descriptor is ready */
#define STREAM_CLOSED     (-1) /* the end, or an error: see stream_error() */
#define STREAM_ERROR_SIZE 200

struct stream;

struct stream_tls_options {
    const char *host;                 /* whose certificate it must be; a name or an address */
    const char *ca_file;              /* NULL: the system's store */
    const char *cert_file, *key_file; /* NULL: none shown; the key alone NULL: it stands with the certificate */
};

/* Take over a descriptor that is connected and does not block.  NULL, with the descriptor closed, when out of memory. */
struct stream *stream_plain_new(int fd);
/* The same by TLS 1.2 or newer.  NULL also when a file cannot be read; then `error` says which. */
struct stream *stream_tls_new(int fd, const struct stream_tls_options *options, char error[STREAM_ERROR_SIZE]);

/* More than 0: so many bytes.  Else STREAM_AGAIN or STREAM_CLOSED. */
ssize_t stream_read(struct stream *stream, char *data, size_t size);
ssize_t stream_write(struct stream *stream, const char *data, size_t size);

/* Whether what stopped with STREAM_AGAIN waits for the descriptor to become writable (TLS may, even to read). */
bool stream_wants_write(const struct stream *stream);
/* Whether a read that filled its buffer only in part has certainly emptied the stream for now. */
bool stream_short_read_is_last(const struct stream *stream);
/* Why it is closed; lent until the stream goes. */
const char *stream_error(const struct stream *stream);

void stream_free(struct stream *stream); /* NULL is fine */

#endif

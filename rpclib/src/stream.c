#include "stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fault_text.h"

#define TLS_ALERT 0x15 /* a record's type; no AMQP begins so */

struct stream {
    int fd;
    bool wants_write;
    bool has_read;
    SSL_CTX *context; /* NULL: plain */
    SSL *tls;
    char error[STREAM_ERROR_SIZE];
};

struct stream *stream_plain_new(int fd)
{
    struct stream *stream = calloc(1, sizeof(*stream));

    if (stream == NULL)
        close(fd);
    else
        stream->fd = fd;
    return stream;
}

void stream_free(struct stream *stream)
{
    if (stream == NULL)
        return;
    SSL_free(stream->tls);
    SSL_CTX_free(stream->context);
    close(stream->fd);
    free(stream);
}

const char *stream_error(const struct stream *stream)
{
    return stream->error;
}

bool stream_wants_write(const struct stream *stream)
{
    return stream->wants_write;
}

bool stream_short_read_is_last(const struct stream *stream)
{
    return stream->tls == NULL;
}

/* --- plain --- */

static ssize_t plain_result(struct stream *stream, ssize_t size, bool writing)
{
    if (size > 0)
        return size;
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        stream->wants_write = writing;
        return STREAM_AGAIN;
    }
    snprintf(stream->error, sizeof(stream->error), "%s", size == 0 ? "closed by the peer" : fault_text(errno));
    return STREAM_CLOSED;
}

/* A server of TLS answers a plain greeting by an alert or not at all, and leaves. */
static ssize_t plain_read(struct stream *stream, char *data, size_t size)
{
    ssize_t result = recv(stream->fd, data, size, 0);
    bool is_first = !stream->has_read, has_left = result == 0 || (result < 0 && errno == ECONNRESET);

    stream->has_read = stream->has_read || result > 0;
    if (!is_first || (result > 0 ? data[0] != TLS_ALERT : !has_left))
        return plain_result(stream, result, false);
    snprintf(stream->error, sizeof(stream->error), "closed by the peer%s",
             result > 0 ? ": it speaks TLS, which needs amqps://" : " without a word; does it want TLS (amqps://)?");
    return STREAM_CLOSED;
}

/* --- TLS --- */

/* OpenSSL has no words for what the system refused, and says "wrong version" of whatever is no TLS at all. */
static const char *tls_reason(unsigned long code)
{
    const char *reason;

    if (ERR_SYSTEM_ERROR(code))
        return fault_text(ERR_GET_REASON(code));
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_WRONG_VERSION_NUMBER)
        return "the server does not speak TLS";
    reason = ERR_reason_error_string(code);
    return reason == NULL ? "unknown" : reason;
}

/* The oldest error of OpenSSL's queue tells the cause; the rest is dropped. */
static void tls_error_text(char error[STREAM_ERROR_SIZE], const char *what)
{
    snprintf(error, STREAM_ERROR_SIZE, "%s: %s", what, tls_reason(ERR_get_error()));
    ERR_clear_error();
}

static bool tls_verify_host(SSL *tls, const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];

    if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), host) == 1;
    SSL_set_hostflags(tls, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set_tlsext_host_name(tls, host) == 1 && SSL_set1_host(tls, host) == 1;
}

static SSL_CTX *tls_context_new(const struct stream_tls_options *options, char error[STREAM_ERROR_SIZE])
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    bool ready;

    if (context == NULL) {
        tls_error_text(error, "TLS");
        return NULL;
    }
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (options->ca_file != NULL)
        ready = SSL_CTX_load_verify_locations(context, options->ca_file, NULL) == 1;
    else
        ready = SSL_CTX_set_default_verify_paths(context) == 1;
    if (!ready)
        tls_error_text(error, options->ca_file == NULL ? "the system's certificates" : options->ca_file);
    if (ready && options->cert_file != NULL) {
        const char *key_file = options->key_file != NULL ? options->key_file : options->cert_file;

        ready = SSL_CTX_use_certificate_chain_file(context, options->cert_file) == 1 &&
                SSL_CTX_use_PrivateKey_file(context, key_file, SSL_FILETYPE_PEM) == 1;
        if (!ready)
            tls_error_text(error, options->cert_file);
    }
    if (ready)
        return context;
    SSL_CTX_free(context);
    return NULL;
}

struct stream *stream_tls_new(int fd, const struct stream_tls_options *options, char error[STREAM_ERROR_SIZE])
{
    struct stream *stream = stream_plain_new(fd);

    if (stream == NULL) {
        snprintf(error, STREAM_ERROR_SIZE, "out of memory");
        return NULL;
    }
    stream->context = tls_context_new(options, error);
    if (stream->context != NULL) {
        stream->tls = SSL_new(stream->context);
        if (stream->tls != NULL && tls_verify_host(stream->tls, options->host) && SSL_set_fd(stream->tls, fd) == 1) {
            SSL_set_connect_state(stream->tls);
            return stream;
        }
        tls_error_text(error, "TLS");
    }
    stream_free(stream);
    return NULL;
}

static void tls_closed_text(struct stream *stream, int code)
{
    long verified = SSL_get_verify_result(stream->tls);

    if (code == SSL_ERROR_ZERO_RETURN)
        snprintf(stream->error, sizeof(stream->error), "closed by the peer");
    else if (verified != X509_V_OK)
        snprintf(stream->error, sizeof(stream->error), "TLS: the certificate is refused: %s",
                 X509_verify_cert_error_string(verified));
    else if (code == SSL_ERROR_SYSCALL)
        snprintf(stream->error, sizeof(stream->error), "%s", errno == 0 ? "closed by the peer" : fault_text(errno));
    else
        tls_error_text(stream->error, "TLS");
}

static ssize_t tls_result(struct stream *stream, int result, size_t size)
{
    int code;

    if (result > 0)
        return (ssize_t)size;
    code = SSL_get_error(stream->tls, result);
    if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE) {
        stream->wants_write = code == SSL_ERROR_WANT_WRITE;
        return STREAM_AGAIN;
    }
    tls_closed_text(stream, code);
    ERR_clear_error();
    return STREAM_CLOSED;
}

/* --- both --- */

ssize_t stream_read(struct stream *stream, char *data, size_t size)
{
    size_t done = 0;
    int result;

    stream->wants_write = false;
    if (stream->tls == NULL)
        return plain_read(stream, data, size);
    ERR_clear_error();
    errno = 0;
    result = SSL_read_ex(stream->tls, data, size, &done);
    return tls_result(stream, result, done);
}

ssize_t stream_write(struct stream *stream, const char *data, size_t size)
{
    size_t done = 0;
    int result;

    stream->wants_write = false;
    if (stream->tls == NULL)
        return plain_result(stream, send(stream->fd, data, size, MSG_NOSIGNAL), true);
    ERR_clear_error();
    errno = 0;
    result = SSL_write_ex(stream->tls, data, size, &done);
    return tls_result(stream, result, done);
}

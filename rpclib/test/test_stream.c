/*
 * stream: plain and by TLS, against a server in this program, with certificates of a CA that the test makes; and a
 * connection by amqps:// on top of it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_loop.h"
#include "rpclib/connection.h"
#include "rpclib/log.h"
#include "simulation/frames.h"
#include "stream.h"

#define DAY_S      (24 * 60 * 60)
#define ROUNDS_MAX 200000
#define PATH_MAX_  300
#define FDS_MAX    40
#define POLL_MS    100
#define POLLS_MAX  200 /* many more than it takes */

/* ---- Certificates ------------------------------------------------------------------------------------------------ */

struct identity {
    EVP_PKEY *key;
    X509 *certificate;
};

static char folder[] = "/tmp/test_stream_XXXXXX";
static struct identity ca, other_ca, server, server_by_ip, server_expired, server_future, client;
static char ca_file[PATH_MAX_], other_ca_file[PATH_MAX_], client_file[PATH_MAX_], key_file[PATH_MAX_],
    missing_file[PATH_MAX_], garbage_file[PATH_MAX_];

static void extend(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509_EXTENSION *extension;

    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static struct identity identity_new(const struct identity *issuer, const char *name, const char *subject_names,
                                    long begins_s, long ends_s)
{
    static long serial = 1;
    struct identity made = {.key = EVP_EC_gen("P-256"), .certificate = X509_new()};
    X509_NAME *subject;

    assert_non_null(made.key);
    assert_non_null(made.certificate);
    X509_set_version(made.certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made.certificate), serial++);
    X509_gmtime_adj(X509_getm_notBefore(made.certificate), begins_s);
    X509_gmtime_adj(X509_getm_notAfter(made.certificate), ends_s);
    X509_set_pubkey(made.certificate, made.key);
    subject = X509_get_subject_name(made.certificate);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(made.certificate, issuer == NULL ? subject : X509_get_subject_name(issuer->certificate));
    extend(made.certificate, issuer == NULL ? made.certificate : issuer->certificate, NID_basic_constraints,
           issuer == NULL ? "critical,CA:TRUE" : "critical,CA:FALSE");
    if (subject_names != NULL)
        extend(made.certificate, issuer->certificate, NID_subject_alt_name, subject_names);
    assert_true(X509_sign(made.certificate, issuer == NULL ? made.key : issuer->key, EVP_sha256()) > 0);
    return made;
}

static void identity_free(struct identity *identity)
{
    EVP_PKEY_free(identity->key);
    X509_free(identity->certificate);
}

static void certificate_write(char path[PATH_MAX_], const char *name, X509 *certificate)
{
    FILE *file;

    snprintf(path, PATH_MAX_, "%s/%s", folder, name);
    file = fopen(path, "w");
    assert_non_null(file);
    if (certificate == NULL)
        fputs("no certificate\n", file);
    else
        PEM_write_X509(file, certificate);
    fclose(file);
}

static int make_certificates(void **state)
{
    FILE *file;

    (void)state;
    rpc_log_configure("test", RPC_LOG_ERROR + 1, RPC_LOG_LOGFMT);
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    assert_non_null(mkdtemp(folder));
    ca = identity_new(NULL, "Test CA", NULL, -DAY_S, DAY_S);
    other_ca = identity_new(NULL, "Other CA", NULL, -DAY_S, DAY_S);
    server = identity_new(&ca, "server", "DNS:broker.test,DNS:*.shop.test", -DAY_S, DAY_S);
    server_by_ip = identity_new(&ca, "127.0.0.1", "IP:127.0.0.1,IP:::1", -DAY_S, DAY_S);
    server_expired = identity_new(&ca, "server", "DNS:broker.test", -2 * DAY_S, -DAY_S);
    server_future = identity_new(&ca, "server", "DNS:broker.test", DAY_S, 2 * DAY_S);
    client = identity_new(&ca, "client", NULL, -DAY_S, DAY_S);
    certificate_write(ca_file, "ca.pem", ca.certificate);
    certificate_write(other_ca_file, "other.pem", other_ca.certificate);
    certificate_write(client_file, "client.pem", client.certificate);
    certificate_write(garbage_file, "garbage.pem", NULL);
    snprintf(missing_file, sizeof(missing_file), "%s/missing.pem", folder);
    snprintf(key_file, sizeof(key_file), "%s/key.pem", folder);
    file = fopen(key_file, "w");
    assert_non_null(file);
    PEM_write_PrivateKey(file, client.key, NULL, NULL, 0, NULL, NULL);
    fclose(file);
    return 0;
}

static int remove_certificates(void **state)
{
    (void)state;
    unlink(ca_file);
    unlink(other_ca_file);
    unlink(client_file);
    unlink(garbage_file);
    unlink(key_file);
    rmdir(folder);
    identity_free(&ca);
    identity_free(&other_ca);
    identity_free(&server);
    identity_free(&server_by_ip);
    identity_free(&server_expired);
    identity_free(&server_future);
    identity_free(&client);
    return 0;
}

/* ---- The server's side ------------------------------------------------------------------------------------------- */

struct far_end {
    int fd;
    SSL_CTX *context;
    SSL *tls; /* NULL: plain */
};

static void not_blocking(int fd)
{
    assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

static void far_end_tls(struct far_end *end, const struct identity *identity, int version_max, bool wants_client)
{
    end->context = SSL_CTX_new(TLS_server_method());
    assert_non_null(end->context);
    SSL_CTX_set_security_level(end->context, 0);
    SSL_CTX_set_min_proto_version(end->context, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(end->context, version_max);
    assert_int_equal(SSL_CTX_use_certificate(end->context, identity->certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(end->context, identity->key), 1);
    if (wants_client) {
        SSL_CTX_load_verify_locations(end->context, ca_file, NULL);
        SSL_CTX_set_verify(end->context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    SSL_CTX_set_mode(end->context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    end->tls = SSL_new(end->context);
    assert_non_null(end->tls);
    SSL_set_fd(end->tls, end->fd);
    SSL_set_accept_state(end->tls);
}

/* Bytes read or written; 0: nothing now; -1: the end. */
static ssize_t far_end_read(struct far_end *end, char *data, size_t size)
{
    ssize_t result;

    if (end->tls != NULL) {
        result = SSL_read(end->tls, data, (int)size);
        if (result > 0)
            return result;
        switch (SSL_get_error(end->tls, (int)result)) {
        case SSL_ERROR_WANT_READ:
        case SSL_ERROR_WANT_WRITE:
            return 0;
        default:
            ERR_clear_error();
            return -1;
        }
    }
    result = recv(end->fd, data, size, 0);
    return result > 0 ? result : result < 0 && errno == EAGAIN ? 0 : -1;
}

static ssize_t far_end_write(struct far_end *end, const char *data, size_t size)
{
    ssize_t result;

    if (end->tls != NULL) {
        result = SSL_write(end->tls, data, (int)size);
        if (result <= 0)
            ERR_clear_error();
        return result > 0 ? result : 0;
    }
    result = send(end->fd, data, size, MSG_NOSIGNAL);
    return result > 0 ? result : 0;
}

static void far_end_close(struct far_end *end)
{
    if (end->tls != NULL)
        SSL_shutdown(end->tls);
    SSL_free(end->tls);
    SSL_CTX_free(end->context);
    if (end->fd >= 0)
        close(end->fd);
    *end = (struct far_end){.fd = -1};
}

/* ---- Streams ----------------------------------------------------------------------------------------------------- */

static void pair(int *near_fd, struct far_end *end)
{
    int ends[2], small = 8192;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    not_blocking(ends[0]);
    not_blocking(ends[1]);
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)); /* so that writes are partial */
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    *near_fd = ends[0];
    *end = (struct far_end){.fd = ends[1]};
}

static char letter(size_t i)
{
    return (char)('a' + i % 23 + (i >> 12) % 3);
}

/* `size` bytes from the stream to the far end and as many back, both at once. */
static void exchange(struct stream *stream, struct far_end *end, size_t size)
{
    size_t sent = 0, arrived = 0, returned = 0, back = 0;
    char *data = malloc(size), buffer[5000];

    assert_non_null(data);
    for (size_t i = 0; i < size; i++)
        data[i] = letter(i);
    for (int rounds = 0; arrived < size || back < size; rounds++) {
        ssize_t part;

        if (rounds == ROUNDS_MAX)
            fail_msg("no progress: sent %zu, arrived %zu, returned %zu, back %zu of %zu", sent, arrived, returned, back,
                     size);
        if (sent < size) {
            part = stream_write(stream, data + sent, size - sent);
            assert_true(part >= 0);
            sent += (size_t)part;
        }
        part = far_end_read(end, buffer, sizeof(buffer));
        assert_true(part >= 0);
        for (ssize_t i = 0; i < part; i++)
            assert_int_equal(buffer[i], letter(arrived++));
        if (returned < size)
            returned += (size_t)far_end_write(end, data + returned, size - returned);
        part = stream_read(stream, buffer, sizeof(buffer));
        if (part < 0)
            fail_msg("closed: %s", stream_error(stream));
        for (ssize_t i = 0; i < part; i++)
            assert_int_equal(buffer[i], letter(back++));
    }
    free(data);
}

static void test_plain(void **state)
{
    struct far_end end;
    struct stream *stream;
    char byte;
    int fd;

    (void)state;
    pair(&fd, &end);
    stream = stream_plain_new(fd);
    assert_non_null(stream);
    assert_int_equal(stream_read(stream, &byte, 1), STREAM_AGAIN);
    assert_false(stream_wants_write(stream));
    exchange(stream, &end, 1);
    exchange(stream, &end, 100000);
    assert_true(stream_short_read_is_last(stream));
    far_end_close(&end);
    assert_int_equal(stream_read(stream, &byte, 1), STREAM_CLOSED);
    assert_string_equal(stream_error(stream), "closed by the peer");
    assert_int_equal(stream_write(stream, "x", 1), STREAM_CLOSED); /* and no SIGPIPE */
    assert_string_equal(stream_error(stream), "Broken pipe");
    stream_free(stream);
}

static void test_plain_full(void **state)
{
    static char data[1000000];
    struct far_end end;
    struct stream *stream;
    ssize_t size;
    int fd;

    (void)state;
    pair(&fd, &end);
    stream = stream_plain_new(fd);
    while ((size = stream_write(stream, data, sizeof(data))) > 0)
        ;
    assert_int_equal(size, STREAM_AGAIN);
    assert_true(stream_wants_write(stream));
    far_end_close(&end);
    stream_free(stream);
}

static struct stream *tls_new(int fd, const char *host, const char *trusted)
{
    char error[STREAM_ERROR_SIZE] = "";
    struct stream *stream = stream_tls_new(fd, &(struct stream_tls_options){.host = host, .ca_file = trusted}, error);

    if (stream == NULL)
        fail_msg("%s", error);
    return stream;
}

static void tls_works_at(const struct identity *identity, const char *host, int version, int line)
{
    struct far_end end;
    struct stream *stream;
    char byte;
    int fd;

    pair(&fd, &end);
    far_end_tls(&end, identity, version, false);
    stream = tls_new(fd, host, ca_file);
    exchange(stream, &end, 1);
    exchange(stream, &end, 200000);
    assert_false(stream_short_read_is_last(stream));
    assert_int_equal(stream_read(stream, &byte, 1), STREAM_AGAIN);
    far_end_close(&end);
    assert_int_equal(stream_read(stream, &byte, 1), STREAM_CLOSED);
    if (strcmp(stream_error(stream), "closed by the peer") != 0)
        fail_msg("line %d: %s", line, stream_error(stream));
    stream_free(stream);
}

#define tls_works(identity, host, version) tls_works_at(identity, host, version, __LINE__)

static void test_tls(void **state)
{
    (void)state;
    tls_works(&server, "broker.test", TLS1_3_VERSION);
    tls_works(&server, "broker.test", TLS1_2_VERSION);
    tls_works(&server, "BROKER.test", TLS1_3_VERSION);
    tls_works(&server, "mq.shop.test", TLS1_3_VERSION);
    tls_works(&server_by_ip, "127.0.0.1", TLS1_3_VERSION);
    tls_works(&server_by_ip, "::1", TLS1_3_VERSION);
}

static void tls_is_refused_at(const struct identity *identity, const char *host, const char *trusted, int version,
                              const char *expected, int line)
{
    struct far_end end;
    struct stream *stream;
    ssize_t result = STREAM_AGAIN;
    char byte, seen[100];
    int fd;

    pair(&fd, &end);
    far_end_tls(&end, identity, version, false);
    stream = tls_new(fd, host, trusted);
    for (int rounds = 0; result == STREAM_AGAIN && rounds < 100; rounds++) {
        result = stream_write(stream, "secret", 6);
        if (far_end_read(&end, seen, sizeof(seen)) > 0)
            fail_msg("line %d: the server got to read", line);
        if (result == STREAM_AGAIN)
            result = stream_read(stream, &byte, 1);
    }
    if (result != STREAM_CLOSED || strstr(stream_error(stream), expected) == NULL)
        fail_msg("line %d: %zd \"%s\"", line, result, stream_error(stream));
    stream_free(stream);
    far_end_close(&end);
}

#define tls_is_refused(identity, host, trusted, version, expected) \
    tls_is_refused_at(identity, host, trusted, version, expected, __LINE__)
#define REFUSED "TLS: the certificate is refused: "

static void test_tls_refused(void **state)
{
    (void)state;
    tls_is_refused(&server, "broker.test", other_ca_file, TLS1_3_VERSION, REFUSED);
    tls_is_refused(&server, "broker.test", other_ca_file, TLS1_2_VERSION, REFUSED);
    tls_is_refused(&server, "broker.test", NULL, TLS1_3_VERSION, REFUSED); /* the system's store does not know it */
    tls_is_refused(&server, "other.test", ca_file, TLS1_3_VERSION, REFUSED "hostname mismatch");
    tls_is_refused(&server, "server", ca_file, TLS1_3_VERSION, REFUSED "hostname mismatch"); /* its CN: names win */
    tls_is_refused(&server, "a.b.shop.test", ca_file, TLS1_3_VERSION, REFUSED "hostname mismatch");
    tls_is_refused(&server, "shop.test", ca_file, TLS1_3_VERSION, REFUSED "hostname mismatch");
    tls_is_refused(&server, "127.0.0.1", ca_file, TLS1_3_VERSION, REFUSED "IP address mismatch");
    tls_is_refused(&server_by_ip, "127.0.0.2", ca_file, TLS1_3_VERSION, REFUSED "IP address mismatch");
    tls_is_refused(&server_by_ip, "::2", ca_file, TLS1_3_VERSION, REFUSED "IP address mismatch");
    tls_is_refused(&server_expired, "broker.test", ca_file, TLS1_3_VERSION, REFUSED "certificate has expired");
    tls_is_refused(&server_future, "broker.test", ca_file, TLS1_3_VERSION, REFUSED "certificate is not yet valid");
    tls_is_refused(&other_ca, "Other CA", ca_file, TLS1_3_VERSION, REFUSED "self-signed certificate");
    tls_is_refused(&server, "broker.test", ca_file, TLS1_1_VERSION, "TLS: ");
}

static void test_tls_client_certificate(void **state)
{
    const struct stream_tls_options options = {
        .host = "broker.test", .ca_file = ca_file, .cert_file = client_file, .key_file = key_file};
    char error[STREAM_ERROR_SIZE];
    struct far_end end;
    struct stream *stream;
    int fd;

    (void)state;
    pair(&fd, &end);
    far_end_tls(&end, &server, TLS1_3_VERSION, true);
    stream = stream_tls_new(fd, &options, error);
    assert_non_null(stream);
    exchange(stream, &end, 1000);
    stream_free(stream);
    far_end_close(&end);
}

/* A file that is wrong is named; the descriptor is closed. */
static void file_is_refused_at(const struct stream_tls_options *options, const char *file, int line)
{
    char error[STREAM_ERROR_SIZE] = "";
    struct far_end end;
    char byte;
    int fd;

    pair(&fd, &end);
    if (stream_tls_new(fd, options, error) != NULL)
        fail_msg("line %d: taken", line);
    if (strncmp(error, file, strlen(file)) != 0)
        fail_msg("line %d: \"%s\"", line, error);
    assert_int_equal(far_end_read(&end, &byte, 1), -1);
    far_end_close(&end);
}

#define file_is_refused(file, ...) \
    file_is_refused_at(&(struct stream_tls_options){.host = "broker.test", __VA_ARGS__}, file, __LINE__)

static void test_tls_files(void **state)
{
    (void)state;
    file_is_refused(missing_file, .ca_file = missing_file);
    file_is_refused(garbage_file, .ca_file = garbage_file);
    file_is_refused(missing_file, .ca_file = ca_file, .cert_file = missing_file, .key_file = key_file);
    file_is_refused(garbage_file, .ca_file = ca_file, .cert_file = garbage_file, .key_file = key_file);
    file_is_refused(client_file, .ca_file = ca_file, .cert_file = client_file, .key_file = missing_file);
    file_is_refused(ca_file, .ca_file = ca_file, .cert_file = ca_file, .key_file = key_file); /* not its key */
    file_is_refused(client_file, .ca_file = ca_file, .cert_file = client_file); /* no key of its own in it */
}

/* The peer speaks something else, or leaves in the middle. */
static void test_tls_no_tls(void **state)
{
    struct far_end end;
    struct stream *stream;
    char byte;
    int fd;

    (void)state;
    pair(&fd, &end);
    stream = tls_new(fd, "broker.test", ca_file);
    assert_int_equal(stream_write(stream, "x", 1), STREAM_AGAIN);
    assert_true(far_end_write(&end, "HTTP/1.1 400 Bad Request\r\n\r\n", 28) > 0);
    assert_int_equal(stream_read(stream, &byte, 1), STREAM_CLOSED);
    assert_int_equal(strncmp(stream_error(stream), "TLS: ", 5), 0);
    stream_free(stream);
    far_end_close(&end);

    pair(&fd, &end);
    stream = tls_new(fd, "broker.test", ca_file);
    assert_int_equal(stream_write(stream, "x", 1), STREAM_AGAIN);
    far_end_close(&end);
    assert_int_equal(stream_read(stream, &byte, 1), STREAM_CLOSED);
    assert_true(stream_error(stream)[0] != '\0');
    stream_free(stream);
}

/* ---- A connection by amqps:// ------------------------------------------------------------------------------------ */

struct broker {
    int listener;
    struct far_end end;
    struct frames_reader reader;
    struct frames out;
    bool left; /* the other side did */
};

static struct broker broker;

static void broker_on_frame(const amqp_frame_t *frame, void *arg)
{
    (void)arg;
    if (frame->frame_type == 'A')
        frames_method(&broker.out, 0, AMQP_CONNECTION_START_METHOD,
                      &(amqp_connection_start_t){.version_minor = 9,
                                                 .mechanisms = amqp_cstring_bytes("PLAIN"),
                                                 .locales = amqp_cstring_bytes("en_US")});
    else if (frame->frame_type == AMQP_FRAME_METHOD && frame->payload.method.id == AMQP_CONNECTION_START_OK_METHOD)
        frames_method(&broker.out, 0, AMQP_CONNECTION_TUNE_METHOD, &(amqp_connection_tune_t){.heartbeat = 60});
    else if (frame->frame_type == AMQP_FRAME_METHOD && frame->payload.method.id == AMQP_CONNECTION_OPEN_METHOD)
        frames_method(&broker.out, 0, AMQP_CONNECTION_OPEN_OK_METHOD, &(amqp_connection_open_ok_t){0});
}

static void broker_step(const struct identity *identity, int version)
{
    char data[4096];
    ssize_t size;

    if (broker.end.fd < 0) {
        broker.end.fd = accept(broker.listener, NULL, NULL);
        if (broker.end.fd < 0)
            return;
        not_blocking(broker.end.fd);
        far_end_tls(&broker.end, identity, version, false);
    }
    while ((size = far_end_read(&broker.end, data, sizeof(data))) > 0)
        assert_true(frames_read(&broker.reader, (struct rpc_bytes){data, (size_t)size}, broker_on_frame, NULL));
    broker.left = size < 0;
    if (broker.out.size > 0)
        frames_consume(&broker.out, (size_t)far_end_write(&broker.end, broker.out.data, broker.out.size));
}

/* One turn of a real poll(): only what the kernel says is ready is fired. */
static void poll_and_fire(struct fake_loop *loop)
{
    struct pollfd ready[FDS_MAX];
    nfds_t count = 0;

    for (int fd = 3; fd < FDS_MAX; fd++) {
        unsigned watched = fake_loop_watched(loop, fd);

        if (watched != 0)
            ready[count++] = (struct pollfd){
                .fd = fd,
                .events = (short)((watched & RPC_LOOP_READ ? POLLIN : 0) | (watched & RPC_LOOP_WRITE ? POLLOUT : 0))};
    }
    ready[count++] = (struct pollfd){.fd = broker.end.fd >= 0 ? broker.end.fd : broker.listener, .events = POLLIN};
    poll(ready, count, POLL_MS);
    for (nfds_t i = 0; i + 1 < count; i++) {
        if (ready[i].revents != 0)
            fake_loop_fire(loop, ready[i].fd,
                           (ready[i].revents & (POLLIN | POLLHUP | POLLERR) ? RPC_LOOP_READ : 0u) |
                               (ready[i].revents & POLLOUT ? RPC_LOOP_WRITE : 0u));
    }
    fake_loop_turn(loop);
}

static bool amqps_comes_up(const struct identity *identity, int version)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    struct fake_loop *loop = fake_loop_new();
    struct rpc_connection *connection;
    char uri[400];
    bool up = false;

    broker = (struct broker){.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), .end.fd = -1};
    assert_int_equal(bind(broker.listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(broker.listener, 5), 0);
    assert_int_equal(getsockname(broker.listener, (struct sockaddr *)&address, &size), 0);
    frames_reader_init(&broker.reader);
    snprintf(uri, sizeof(uri), "amqps://me:secret@127.0.0.1:%u/?cafile=%s", ntohs(address.sin_port), ca_file);
    connection =
        rpc_connection_new(&(struct rpc_connection_options){.loop = fake_loop_base(loop), .uri = uri, .name = "test"});
    assert_non_null(connection);
    for (int rounds = 0; !up && !broker.left && rounds < POLLS_MAX; rounds++) {
        poll_and_fire(loop);
        broker_step(identity, version);
        up = rpc_connection_state(connection) == RPC_CONNECTION_UP;
    }
    rpc_connection_free(connection);
    fake_loop_free(loop);
    frames_reader_clear(&broker.reader);
    frames_clear(&broker.out);
    far_end_close(&broker.end);
    close(broker.listener);
    return up;
}

static void test_amqps(void **state)
{
    (void)state;
    assert_true(amqps_comes_up(&server_by_ip, TLS1_3_VERSION));
    assert_true(amqps_comes_up(&server_by_ip, TLS1_2_VERSION));
    assert_false(amqps_comes_up(&server, TLS1_3_VERSION));
    assert_false(amqps_comes_up(&server_expired, TLS1_3_VERSION));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_plain_full),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_tls_refused),
        cmocka_unit_test(test_tls_client_certificate),
        cmocka_unit_test(test_tls_files),
        cmocka_unit_test(test_tls_no_tls),
        cmocka_unit_test(test_amqps),
    };

    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}

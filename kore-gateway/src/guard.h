/*
 * guard: decides over the bytes of an HTTP/1.x request before any parser sees them.
 *
 * Kore's parser takes bare line feeds, two lengths, a length beside a transfer coding, a header that merely begins with
 * "host", and drops what comes after the 23rd header; each of these lets two programs read one stream differently.  So
 * nothing of a client's reaches it: the guard reads requests by RFC 9110 and 9112, without any of the leniency that
 * these allow, and says exactly where one ends.
 *
 * Pure: bytes in, a verdict out; no allocation, no I/O, no clock.
 */
#ifndef KORE_GATEWAY_GUARD_H
#define KORE_GATEWAY_GUARD_H

#include <rpclib/bytes.h>
#include <stdint.h>

#define GUARD_HEAD_SIZE_MAX   (16u * 1024) /* bytes of request line and headers */
#define GUARD_TARGET_SIZE_MAX 8000u /* bytes of a request target: an id of 1,024 bytes, all percent-encoded, fits */
#define GUARD_HEADERS_MAX     100u  /* header lines of a request */
#define GUARD_BODY_SIZE_MAX   (1024u * 1024) /* bytes of a request's body */

enum guard_method {
    GUARD_GET,
    GUARD_HEAD,
    GUARD_POST,
    GUARD_PUT,
    GUARD_PATCH,
    GUARD_DELETE,
    GUARD_OTHER, /* a token that is none of these */
};

enum guard_verdict {
    GUARD_MORE,    /* sound so far; come back with more bytes behind these */
    GUARD_OK,      /* a sound head; `request` is filled in */
    GUARD_REFUSED, /* no request that we answer otherwise than by `refusal`, and where the next one begins is unknown */
};

/* Bytes of the input by their place, so that the input may move while it grows. */
struct guard_span {
    uint32_t at, size;
};

struct guard_request {
    enum guard_method method;
    struct guard_span method_name;
    struct guard_span target; /* origin-form: begins with a slash */
    bool keep_alive;          /* the client would use the connection again */
    bool http_1_0;
    bool expects_continue;             /* it waits for "100 Continue" before it sends the body */
    bool has_key;                      /* an Idempotency-Key header is there, if only an empty one */
    uint32_t head_size;                /* bytes up to the body */
    uint32_t body_size;                /* bytes of the body */
    struct guard_span idempotency_key; /* size 0: none, or empty */
    struct guard_span traceparent;     /* these two: size 0 when there is none, or more than one */
    struct guard_span tracestate;
};

/* What to answer; static. */
struct guard_refusal {
    int status;
    const char *code;
    const char *message;
};

/* One request being read.  Zero it to begin with the next one. */
struct guard {
    struct guard_request request;
    const struct guard_refusal *refusal;
    uint32_t line;     /* where the line begins whose end has not come yet */
    uint32_t searched; /* bytes in which its end was looked for */
    uint32_t headers;  /* header lines so far */
    uint32_t hosts, lengths, keys, traceparents, tracestates;
    bool has_request_line;
    bool close, keep; /* Connection: close, keep-alive */
};

/*
 * Look at `input`, all bytes from the request's first one.  With GUARD_MORE call again with the same bytes and more behind
 * them; each byte is looked at a bounded number of times.  After another verdict the answer stays the same.
 */
enum guard_verdict guard_check(struct guard *guard, struct rpc_bytes input);

static inline struct rpc_bytes guard_bytes(const char *input, struct guard_span span)
{
    return (struct rpc_bytes){.data = input + span.at, .size = span.size};
}

#endif

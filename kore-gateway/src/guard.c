#include "guard.h"

#include <strings.h>

#define METHOD_SIZE_MAX  32u /* bytes of a method's name */
#define LINE_SIZE_MAX    (METHOD_SIZE_MAX + 1 + GUARD_TARGET_SIZE_MAX + sizeof(" HTTP/1.1\r")) /* of a request line */
#define LENGTH_TOO_LARGE UINT32_MAX

static const struct guard_refusal bad_line_end = {400, "BAD_REQUEST", "A line must end in CR LF."};
static const struct guard_refusal bad_request_line = {400, "BAD_REQUEST", "The request line is malformed."};
static const struct guard_refusal bad_target = {400, "BAD_REQUEST", "The request target must be a path."};
static const struct guard_refusal bad_version = {505, "HTTP_VERSION_NOT_SUPPORTED", "This server speaks HTTP/1.1."};
static const struct guard_refusal bad_header = {400, "BAD_REQUEST", "A header is malformed."};
static const struct guard_refusal bad_host = {400, "BAD_REQUEST", "There must be exactly one Host header."};
static const struct guard_refusal bad_length = {400, "BAD_REQUEST", "Content-Length must be there once, in digits."};
static const struct guard_refusal no_body_here = {400, "BAD_REQUEST", "A request with this method has no body."};
static const struct guard_refusal bad_coding = {400, "BAD_REQUEST",
                                                "Transfer-Encoding is not supported; send Content-Length."};
static const struct guard_refusal bad_key = {400, "VALIDATION_ERROR", "Idempotency-Key: There must be at most one."};
static const struct guard_refusal bad_expectation = {417, "EXPECTATION_FAILED", "Only 100-continue can be expected."};
static const struct guard_refusal no_length = {411, "LENGTH_REQUIRED", "A request with a body needs Content-Length."};
static const struct guard_refusal body_too_large = {413, "CONTENT_TOO_LARGE", "The body is larger than 1 MiB."};
static const struct guard_refusal target_too_long = {414, "URI_TOO_LONG", "The request target is too long."};
static const struct guard_refusal head_too_large = {431, "HEADERS_TOO_LARGE", "The headers are too large."};
static const struct guard_refusal too_many_headers = {400, "BAD_REQUEST", "There are too many headers."};

/* RFC 9110, 5.6.2 */
static const bool token[256] = {
    ['!'] = true,         ['#' ... '\''] = true, ['*'] = true,         ['+'] = true, ['-'] = true, ['.'] = true,
    ['0' ... '9'] = true, ['A' ... 'Z'] = true,  ['^' ... 'z'] = true, ['|'] = true, ['~'] = true,
};

/* RFC 9110, 5.5: what a header's value may hold; tab and space within it, too. */
static const bool text[256] = {['\t'] = true, [' ' ... '~'] = true, [0x80 ... 0xFF] = true};

/* Printable ASCII without "#": nobody sends a fragment.  What a URI does not allow otherwise is taken as it stands. */
static const bool target[256] = {['!' ... '"'] = true, ['$' ... '~'] = true};

static const bool host[256] = {
    ['!'] = true,         ['$' ... '+'] = true, ['-' ... '.'] = true, ['0' ... ';'] = true, ['='] = true,
    ['A' ... '['] = true, [']'] = true,         ['_'] = true,         ['a' ... 'z'] = true, ['~'] = true,
};

static bool all(const bool allowed[256], const char *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (!allowed[(unsigned char)data[i]])
            return false;
    }
    return true;
}

static bool is(struct rpc_bytes bytes, const char *name)
{
    return bytes.size == strlen(name) && strncasecmp(bytes.data, name, bytes.size) == 0;
}

/* Without the spaces and tabs around it: OWS of RFC 9110, 5.6.3. */
static struct rpc_bytes trimmed(struct rpc_bytes bytes)
{
    while (bytes.size > 0 && (bytes.data[0] == ' ' || bytes.data[0] == '\t')) {
        bytes.data++;
        bytes.size--;
    }
    while (bytes.size > 0 && (bytes.data[bytes.size - 1] == ' ' || bytes.data[bytes.size - 1] == '\t'))
        bytes.size--;
    return bytes;
}

/* Returns false, and remembers why, so that refusing reads as `return refuse(...)`. */
static bool refuse(struct guard *guard, const struct guard_refusal *refusal)
{
    guard->refusal = refusal;
    return false;
}

static enum guard_method method_of(struct rpc_bytes name)
{
    static const struct {
        const char *name;
        enum guard_method method;
    } methods[] = {{"GET", GUARD_GET}, {"HEAD", GUARD_HEAD},   {"POST", GUARD_POST},
                   {"PUT", GUARD_PUT}, {"PATCH", GUARD_PATCH}, {"DELETE", GUARD_DELETE}};

    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (rpc_bytes_equal(name, methods[i].name))
            return methods[i].method;
    }
    return GUARD_OTHER;
}

/* method SP target SP version, and nothing else anywhere (RFC 9112, 3). */
static bool take_request_line(struct guard *guard, const char *input, struct guard_span line)
{
    struct guard_request *request = &guard->request;
    const char *begin = input + line.at, *end = begin + line.size;
    const char *space = memchr(begin, ' ', line.size);
    const char *second = space == NULL ? NULL : memchr(space + 1, ' ', (size_t)(end - space - 1));
    struct rpc_bytes method, version;

    if (second == NULL)
        return refuse(guard, &bad_request_line);
    method = (struct rpc_bytes){begin, (size_t)(space - begin)};
    version = (struct rpc_bytes){second + 1, (size_t)(end - second - 1)};
    if (method.size == 0 || method.size > METHOD_SIZE_MAX || !all(token, method.data, method.size))
        return refuse(guard, &bad_request_line);
    request->method = method_of(method);
    request->method_name = (struct guard_span){line.at, (uint32_t)method.size};
    request->target = (struct guard_span){(uint32_t)(space + 1 - input), (uint32_t)(second - space - 1)};
    if (request->target.size == 0 || space[1] != '/' || !all(target, space + 1, request->target.size))
        return refuse(guard, &bad_target);
    if (request->target.size > GUARD_TARGET_SIZE_MAX)
        return refuse(guard, &target_too_long);
    request->http_1_0 = rpc_bytes_equal(version, "HTTP/1.0");
    if (request->http_1_0 || rpc_bytes_equal(version, "HTTP/1.1"))
        return true;
    if (version.size == 8 && memcmp(version.data, "HTTP/", 5) == 0 && version.data[6] == '.')
        return refuse(guard, &bad_version);
    return refuse(guard, &bad_request_line);
}

static bool take_length(struct guard *guard, struct rpc_bytes value)
{
    uint64_t length = 0;

    if (guard->lengths++ > 0 || value.size == 0)
        return refuse(guard, &bad_length);
    for (size_t i = 0; i < value.size; i++) {
        if (value.data[i] < '0' || value.data[i] > '9')
            return refuse(guard, &bad_length);
        length = length * 10 + (uint64_t)(value.data[i] - '0');
        if (length > GUARD_BODY_SIZE_MAX)
            length = LENGTH_TOO_LARGE; /* and stays so: ten times it is still too large, and no overflow */
    }
    guard->request.body_size = length > GUARD_BODY_SIZE_MAX ? LENGTH_TOO_LARGE : (uint32_t)length;
    return true;
}

/* A list of tokens; those that we do not know are none of our business. */
static void take_connection(struct guard *guard, struct rpc_bytes value)
{
    const char *at = value.data, *end = value.data + value.size;

    while (at < end) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        const char *stop = comma == NULL ? end : comma;
        struct rpc_bytes word = trimmed((struct rpc_bytes){at, (size_t)(stop - at)});

        if (is(word, "close"))
            guard->close = true;
        if (is(word, "keep-alive"))
            guard->keep = true;
        at = stop + 1;
    }
}

/* One of a kind is kept; of more than one, none (W3C Trace Context, 3.2: such a trace is to be ignored). */
static void take_trace(uint32_t *count, struct guard_span *kept, struct guard_span value)
{
    *kept = (*count)++ == 0 ? value : (struct guard_span){0, 0};
}

static bool take_header(struct guard *guard, struct rpc_bytes name, struct rpc_bytes value, struct guard_span span)
{
    switch (name.size) {
    case 4:
        if (is(name, "host") && (guard->hosts++ > 0 || value.size == 0 || !all(host, value.data, value.size)))
            return refuse(guard, &bad_host);
        return true;
    case 6:
        if (is(name, "expect")) {
            if (!is(value, "100-continue"))
                return refuse(guard, &bad_expectation);
            guard->request.expects_continue = true;
        }
        return true;
    case 10:
        if (is(name, "connection"))
            take_connection(guard, value);
        else if (is(name, "tracestate"))
            take_trace(&guard->tracestates, &guard->request.tracestate, span);
        return true;
    case 11:
        if (is(name, "traceparent"))
            take_trace(&guard->traceparents, &guard->request.traceparent, span);
        return true;
    case 14:
        return !is(name, "content-length") || take_length(guard, value);
    case 15:
        if (is(name, "idempotency-key")) {
            if (guard->keys++ > 0)
                return refuse(guard, &bad_key);
            guard->request.has_key = true;
            guard->request.idempotency_key = span;
        }
        return true;
    case 17:
        return !is(name, "transfer-encoding") || refuse(guard, &bad_coding);
    default:
        return true;
    }
}

/* name ":" OWS value OWS; a line that begins with a space would go on with the one before, and is refused with it. */
static bool take_header_line(struct guard *guard, const char *input, struct guard_span line)
{
    const char *begin = input + line.at;
    const char *colon = memchr(begin, ':', line.size);
    struct rpc_bytes name, value;

    if (++guard->headers > GUARD_HEADERS_MAX)
        return refuse(guard, &too_many_headers);
    if (colon == NULL)
        return refuse(guard, &bad_header);
    name = (struct rpc_bytes){begin, (size_t)(colon - begin)};
    value = (struct rpc_bytes){colon + 1, line.size - name.size - 1};
    if (name.size == 0 || !all(token, name.data, name.size) || !all(text, value.data, value.size))
        return refuse(guard, &bad_header);
    value = trimmed(value);
    return take_header(guard, name, value, (struct guard_span){(uint32_t)(value.data - input), (uint32_t)value.size});
}

/* The head is complete: what only all of it can tell. */
static bool take_end(struct guard *guard)
{
    struct guard_request *request = &guard->request;
    bool has_body = request->method == GUARD_POST || request->method == GUARD_PUT || request->method == GUARD_PATCH;

    /* HTTP/1.0 knows requests without Host, and none that names two. */
    if (guard->hosts == 0 && !request->http_1_0)
        return refuse(guard, &bad_host);
    if (!has_body && request->body_size > 0)
        return refuse(guard, &no_body_here);
    if (has_body && guard->lengths == 0)
        return refuse(guard, &no_length);
    if (request->body_size == LENGTH_TOO_LARGE)
        return refuse(guard, &body_too_large);
    request->keep_alive = !guard->close && (!request->http_1_0 || guard->keep);
    request->expects_continue = request->expects_continue && !request->http_1_0;
    return true;
}

/*
 * The request line as far as it is there, `size` bytes of it: no request already, or too much.  Asked of a line that has
 * ended as well, so that the answer does not depend on how the bytes arrived.
 */
static bool is_hopeless(struct guard *guard, const char *input, size_t size)
{
    if (size > 0 && !token[(unsigned char)input[guard->line]] && input[guard->line] != '\r')
        refuse(guard, &bad_request_line);
    else if (size > LINE_SIZE_MAX)
        refuse(guard, &target_too_long);
    return guard->refusal != NULL;
}

/* The line that ends at `line_feed`.  False when it was the last one, or refused. */
static bool take_line(struct guard *guard, const char *input, uint32_t line_feed)
{
    struct guard_span line = {guard->line, line_feed - guard->line - 1};

    if (!guard->has_request_line && is_hopeless(guard, input, line_feed - guard->line))
        return false;
    if (line_feed == guard->line || input[line_feed - 1] != '\r')
        return refuse(guard, &bad_line_end);
    guard->line = guard->searched = line_feed + 1;
    if (!guard->has_request_line) {
        /* RFC 9112, 2.2: an empty line before the request is left over from the one before. */
        if (line.size == 0 && line.at == 0)
            return true;
        guard->has_request_line = true;
        return take_request_line(guard, input, line);
    }
    if (line.size > 0)
        return take_header_line(guard, input, line);
    if (take_end(guard))
        guard->request.head_size = guard->line;
    return false;
}

/* The line has not ended yet, and all there is of it is too much or no request already. */
static void check_rest(struct guard *guard, struct rpc_bytes input)
{
    if (!guard->has_request_line && is_hopeless(guard, input.data, input.size - guard->line))
        return;
    if (input.size > GUARD_HEAD_SIZE_MAX)
        refuse(guard, &head_too_large);
}

enum guard_verdict guard_check(struct guard *guard, struct rpc_bytes input)
{
    /* What lies behind the largest head is no head's, so offsets fit 32 bits whatever the input's size. */
    size_t limit = input.size < GUARD_HEAD_SIZE_MAX ? input.size : GUARD_HEAD_SIZE_MAX;

    while (input.size > 0 && guard->refusal == NULL && guard->request.head_size == 0) {
        const char *found = memchr(input.data + guard->searched, '\n', limit - guard->searched);

        if (found == NULL) {
            guard->searched = (uint32_t)limit;
            check_rest(guard, input);
            break;
        }
        if (!take_line(guard, input.data, (uint32_t)(found - input.data)))
            break;
    }
    if (guard->refusal != NULL)
        return GUARD_REFUSED;
    return guard->request.head_size > 0 ? GUARD_OK : GUARD_MORE;
}

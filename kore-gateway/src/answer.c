#include "answer.h"

#include <assert.h>
#include <stdio.h>
#include <time.h>

#define HEAD_SIZE_MAX   512u /* every header that we send, at its longest */
#define BODY_SIZE_USUAL 512u /* most answers need no more memory than this */
#define DATE_SIZE       40

static const char *reason_of(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 204:
        return "No Content";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 408:
        return "Request Timeout";
    case 409:
        return "Conflict";
    case 411:
        return "Length Required";
    case 413:
        return "Content Too Large";
    case 414:
        return "URI Too Long";
    case 417:
        return "Expectation Failed";
    case 422:
        return "Unprocessable Content";
    case 431:
        return "Request Header Fields Too Large";
    case 503:
        return "Service Unavailable";
    case 504:
        return "Gateway Timeout";
    case 505:
        return "HTTP Version Not Supported";
    default:
        return "Internal Server Error";
    }
}

void answer_begin(struct answer *answer)
{
    answer->status = 0;
    rpc_text_reset(&answer->text, SIZE_MAX);
    if (rpc_text_reserve(&answer->text, HEAD_SIZE_MAX + BODY_SIZE_USUAL) != NULL)
        rpc_text_commit(&answer->text, HEAD_SIZE_MAX);
}

static void print_error(struct answer *answer, const char *code, struct rpc_bytes message)
{
    struct rpc_text *body = answer_body(answer);

    answer_begin(answer);
    answer->content_type = NULL;
    rpc_text_append(body, RPC_BYTES("{\"error\": "));
    rpc_text_append_json_string(body, rpc_bytes_of(code));
    rpc_text_append(body, RPC_BYTES(", \"message\": "));
    rpc_text_append_json_string(body, message);
    rpc_text_append(body, RPC_BYTES("}"));
}

/* What there is of it is given back first: that may be all that is missing. */
static void lose_answer(struct answer *answer)
{
    answer_clear(answer);
    answer->allow = NULL;
    answer->link[0] = '\0';
    answer->retry_after = !answer->of_change;
    if (answer->of_change)
        print_error(answer, "OUTCOME_UNKNOWN", RPC_BYTES("Out of memory for the answer; it may have been done."));
    else
        print_error(answer, "SERVICE_UNAVAILABLE", RPC_BYTES("Out of memory for the answer; nothing was done."));
    answer->status = answer->of_change ? 504 : 503;
}

void answer_end(struct answer *answer, int status)
{
    answer->status = status;
    if (answer->text.failed)
        lose_answer(answer);
}

void answer_error(struct answer *answer, int status, const char *code, struct rpc_bytes message)
{
    print_error(answer, code, message);
    answer_end(answer, status);
}

/* RFC 9110, 5.6.7, in English whatever the locale; made anew once a second. */
static const char *date_of(int64_t now_s)
{
    static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static char date[DATE_SIZE];
    static int64_t date_s = -1;
    time_t now = (time_t)now_s;
    struct tm tm;

    if (now_s != date_s && gmtime_r(&now, &tm) != NULL) {
        snprintf(date, sizeof(date), "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + 3 * tm.tm_wday, tm.tm_mday,
                 months + 3 * tm.tm_mon, (tm.tm_year + 1900) % 10000, tm.tm_hour, tm.tm_min, tm.tm_sec);
        date_s = now_s;
    }
    return date;
}

/* Behind what is there; HEAD_SIZE_MAX bytes hold all that can come together. */
static void put(char head[HEAD_SIZE_MAX], size_t *size, struct rpc_bytes bytes)
{
    assert(bytes.size <= HEAD_SIZE_MAX - *size);
    memcpy(head + *size, bytes.data, bytes.size);
    *size += bytes.size;
}

static void put_number(char head[HEAD_SIZE_MAX], size_t *size, size_t number)
{
    char digits[24], *at = digits + sizeof(digits);

    do
        *--at = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    put(head, size, (struct rpc_bytes){at, (size_t)(digits + sizeof(digits) - at)});
}

static void put_header(char head[HEAD_SIZE_MAX], size_t *size, struct rpc_bytes name, const char *value)
{
    if (value == NULL || value[0] == '\0')
        return;
    put(head, size, name);
    put(head, size, rpc_bytes_of(value));
    put(head, size, RPC_BYTES("\r\n"));
}

/* By hand: this is on the way of every answer, and printf() would be a tenth of its cost. */
static size_t write_head(const struct answer *answer, const struct answer_sending *sending, size_t body_size,
                         char head[HEAD_SIZE_MAX])
{
    size_t size = 0;

    put(head, &size, RPC_BYTES("HTTP/1.1 "));
    put_number(head, &size, (size_t)answer->status);
    put(head, &size, RPC_BYTES(" "));
    put(head, &size, rpc_bytes_of(reason_of(answer->status)));
    put(head, &size, RPC_BYTES("\r\nDate: "));
    put(head, &size, rpc_bytes_of(date_of(sending->now_s)));
    put(head, &size, RPC_BYTES("\r\n"));
    put_header(head, &size, RPC_BYTES("Content-Type: "),
               answer->content_type != NULL ? answer->content_type : "application/json");
    put(head, &size, RPC_BYTES("X-Content-Type-Options: nosniff\r\n"));
    if (answer->status != 204) { /* RFC 9110, 8.6: it has none */
        put(head, &size, RPC_BYTES("Content-Length: "));
        put_number(head, &size, body_size);
        put(head, &size, RPC_BYTES("\r\n"));
    }
    if (answer->retry_after) {
        put(head, &size, RPC_BYTES("Retry-After: "));
        put_number(head, &size, ANSWER_RETRY_AFTER_S);
        put(head, &size, RPC_BYTES("\r\n"));
    }
    put_header(head, &size, RPC_BYTES("Allow: "), answer->allow);
    put_header(head, &size, RPC_BYTES("Link: "), answer->link);
    if (sending->close)
        put(head, &size, RPC_BYTES("Connection: close\r\n"));
    else if (sending->say_keep_alive)
        put(head, &size, RPC_BYTES("Connection: keep-alive\r\n"));
    put(head, &size, RPC_BYTES("\r\n"));
    return size;
}

bool answer_finish(struct answer *answer, const struct answer_sending *sending, struct rpc_bytes *wire)
{
    char head[HEAD_SIZE_MAX];
    size_t head_size, body_size;

    if (answer->text.failed)
        return false;
    body_size = answer->text.size - HEAD_SIZE_MAX;
    head_size = write_head(answer, sending, body_size, head);
    memcpy(answer->text.data + HEAD_SIZE_MAX - head_size, head, head_size);
    wire->data = answer->text.data + HEAD_SIZE_MAX - head_size;
    wire->size = head_size + (sending->without_body || answer->status == 204 ? 0 : body_size);
    return true;
}

void answer_clear(struct answer *answer)
{
    rpc_text_clear(&answer->text);
}

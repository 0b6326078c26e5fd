#include "answer.h"

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
    answer->text.size = 0;
    answer->text.failed = false;
    if (text_extend(&answer->text, HEAD_SIZE_MAX + BODY_SIZE_USUAL) != NULL)
        answer->text.size = HEAD_SIZE_MAX;
}

void answer_end(struct answer *answer, int status)
{
    answer->status = status;
}

void answer_error(struct answer *answer, int status, const char *code, struct rpc_bytes message)
{
    struct text *body = answer_body(answer);

    answer_begin(answer);
    text_append(body, RPC_BYTES("{\"error\": "));
    text_append_json_string(body, rpc_bytes_of(code));
    text_append(body, RPC_BYTES(", \"message\": "));
    text_append_json_string(body, message);
    text_append(body, RPC_BYTES("}"));
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

static size_t write_head(const struct answer *answer, const struct answer_sending *sending, size_t body_size,
                         char head[HEAD_SIZE_MAX])
{
    char length[40] = "", retry_after[40] = "";
    int size;

    if (answer->status != 204) /* RFC 9110, 8.6: it has none */
        snprintf(length, sizeof(length), "Content-Length: %zu\r\n", body_size);
    if (answer->retry_after)
        snprintf(retry_after, sizeof(retry_after), "Retry-After: %d\r\n", ANSWER_RETRY_AFTER_S);
    size =
        snprintf(head, HEAD_SIZE_MAX,
                 "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
                 "%s%s%s%s%s%s%s%s%s\r\n",
                 answer->status, reason_of(answer->status), date_of(sending->now_s), length, retry_after,
                 answer->allow == NULL ? "" : "Allow: ", answer->allow == NULL ? "" : answer->allow,
                 answer->allow == NULL ? "" : "\r\n", answer->link[0] == '\0' ? "" : "Link: ", answer->link,
                 answer->link[0] == '\0' ? "" : "\r\n",
                 sending->close            ? "Connection: close\r\n"
                 : sending->say_keep_alive ? "Connection: keep-alive\r\n"
                                           : "");
    return (size_t)size;
}

bool answer_finish(struct answer *answer, const struct answer_sending *sending, struct rpc_bytes *wire)
{
    char head[HEAD_SIZE_MAX];
    size_t head_size, body_size;

    if (answer->text.failed) {
        text_clear(&answer->text);
        answer->allow = NULL;
        answer->link[0] = '\0';
        answer_error(answer, 500, "UNEXPECTED_ERROR", RPC_BYTES("The answer does not fit into memory."));
    }
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
    text_clear(&answer->text);
}

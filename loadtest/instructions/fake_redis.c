#include "fake_redis.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define INPUT_SIZE  (1024 * 1024)
#define OUTPUT_SIZE (1024 * 1024)
#define WORD_MAX    64

#define BULK(size, text) "$" #size "\r\n" text "\r\n"
#define PRODUCT                                                                                                       \
    "*5\r\n" BULK(18, "bench-000000000777") BULK(33, "Airship 000000000777 of the fleet") BULK(3, "101") BULK(1, "5") \
        BULK(13, "1000000000000")

struct fake_redis {
    int listener, fd;
    uint16_t port;
    char input[INPUT_SIZE];
    size_t input_size;
    char output[OUTPUT_SIZE];
    size_t output_size;
};

_Noreturn static void give_up(const char *what)
{
    fprintf(stderr, "fake_redis: %s: %s\n", what, strerror(errno));
    exit(1);
}

struct fake_redis *fake_redis_new(void)
{
    struct fake_redis *redis = calloc(1, sizeof(*redis));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);

    if (redis == NULL)
        give_up("memory");
    redis->fd = -1;
    redis->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (redis->listener < 0 || bind(redis->listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(redis->listener, 4) != 0 || getsockname(redis->listener, (struct sockaddr *)&address, &size) != 0)
        give_up("listen");
    redis->port = ntohs(address.sin_port);
    return redis;
}

uint16_t fake_redis_port(const struct fake_redis *redis)
{
    return redis->port;
}

static void answer(struct fake_redis *redis, const char *word)
{
    static const struct {
        const char *word, *answer;
    } answers[] = {{"HMGET", PRODUCT}, {"EXISTS", ":1\r\n"}, {"EVALSHA", "*1\r\n:1\r\n"}, {"EVAL", "*1\r\n:1\r\n"}};
    const char *text = "+OK\r\n";

    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
        if (strcmp(word, answers[i].word) == 0)
            text = answers[i].answer;
    if (redis->output_size + strlen(text) > OUTPUT_SIZE)
        give_up("too much output");
    memcpy(redis->output + redis->output_size, text, strlen(text));
    redis->output_size += strlen(text);
}

/* The end of "<type><number>\r\n" at `at`, its number in *number; NULL: not all of it is there. */
static const char *number_read(const char *at, const char *end, size_t *number)
{
    const char *line_end = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;

    if (line_end == NULL)
        return NULL;
    *number = strtoul(at + 1, NULL, 10);
    return line_end + 1;
}

/* One command, "*<words>" and so many "$<size>" with bytes; returns its end, or NULL: not all of it is there. */
static const char *command_read(const char *at, const char *end, char first_word[WORD_MAX])
{
    size_t words, size;

    at = number_read(at, end, &words);
    for (size_t i = 0; at != NULL && i < words; i++) {
        at = number_read(at, end, &size);
        if (at == NULL || (size_t)(end - at) < size + 2)
            return NULL;
        if (i == 0)
            snprintf(first_word, WORD_MAX, "%.*s", (int)size, at);
        at += size + 2;
    }
    return at;
}

void fake_redis_turn(struct fake_redis *redis)
{
    const char *at = redis->input, *next;
    char word[WORD_MAX];
    ssize_t size;
    int one = 1;

    if (redis->fd < 0) {
        redis->fd = accept(redis->listener, NULL, NULL);
        if (redis->fd < 0)
            return;
        setsockopt(redis->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    while ((size = recv(redis->fd, redis->input + redis->input_size, INPUT_SIZE - redis->input_size, MSG_DONTWAIT)) > 0)
        redis->input_size += (size_t)size;
    if (size == 0)
        give_up("the client hung up");
    while ((next = command_read(at, redis->input + redis->input_size, word)) != NULL) {
        answer(redis, word);
        at = next;
    }
    redis->input_size -= (size_t)(at - redis->input);
    memmove(redis->input, at, redis->input_size);
    if (redis->output_size > 0 &&
        send(redis->fd, redis->output, redis->output_size, MSG_NOSIGNAL) != (ssize_t)redis->output_size)
        give_up("send");
    redis->output_size = 0;
}

/* redis_server: a real redis-server on a port of its own, with its data in a folder of its own. */
#ifndef PRODUCTS_TEST_REDIS_SERVER_H
#define PRODUCTS_TEST_REDIS_SERVER_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define REDIS_SERVER_START_TIMEOUT_MS 30000

struct redis_server {
    pid_t pid; /* 0: not running */
    int port;
    char folder[64];
    redisContext *control; /* for the tests' own commands; NULL: not connected */
};

/* A port and a folder; nothing runs yet. */
void redis_server_init(struct redis_server *server);
/* Starts it and waits until it answers.  What it acknowledged survives its death (append-only file, always synced). */
void redis_server_start(struct redis_server *server);
/* SIGKILL, SIGSTOP, SIGCONT; after SIGKILL it is gone when this returns. */
void redis_server_signal(struct redis_server *server, int number);
void redis_server_clear(struct redis_server *server);

/* A command on a connection of its own, which waits; the reply is no error, or the test fails.  freeReplyObject() it. */
redisReply *redis_server_ask(struct redis_server *server, const char *format, ...);
/* The same for an answer that is an integer, or a text of one; INT64_MIN for nil. */
int64_t redis_server_integer(struct redis_server *server, const char *format, ...);
/* The same where the answer does not matter. */
void redis_server_do(struct redis_server *server, const char *format, ...);

int free_port(void);

#endif

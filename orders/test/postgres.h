/* A PostgreSQL of the test's own: on a free port of 127.0.0.1, in a folder that goes when it stops. */
#ifndef ORDERS_TEST_POSTGRES_H
#define ORDERS_TEST_POSTGRES_H

#include <stdbool.h>

struct postgres;

/* Started, with the tables made as the migrations make them; anything that fails ends the program with a message. */
struct postgres *postgres_new(bool durable);
void postgres_free(struct postgres *postgres);

/* A URI by which it is reached; lent. */
const char *postgres_uri(const struct postgres *postgres);

/* Run SQL, any number of statements; the last one's first value as malloc'd text, "" when there is none. */
char *postgres_sql(struct postgres *postgres, const char *sql);
/* The same as a number. */
long postgres_number(struct postgres *postgres, const char *sql);

/* End it without a word to its clients (SIGKILL to all its processes), and start it again. */
void postgres_kill(struct postgres *postgres);
void postgres_start(struct postgres *postgres);

/* Freeze all its processes, and let them go on. */
void postgres_pause(struct postgres *postgres);
void postgres_resume(struct postgres *postgres);

#endif

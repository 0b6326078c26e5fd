/* rpc dead-letters: what a service could not handle: list, show, replay, purge. */
#ifndef RPCLIB_TOOLS_DEAD_LETTERS_H
#define RPCLIB_TOOLS_DEAD_LETTERS_H

#include "rpclib/connection.h"

#define DEAD_LETTERS_USAGE                                                                             \
    "       rpc dead-letters SERVICE list\n"                                                           \
    "       rpc dead-letters SERVICE show NUMBER\n"                                                    \
    "       rpc dead-letters SERVICE replay NUMBER|all [--dry-run]   back to the queue it came from\n" \
    "       rpc dead-letters SERVICE purge NUMBER|all [--dry-run]    gone for good\n"

struct dead_letters_tool;

/* Runs once, with the program's exit code. */
typedef void dead_letters_done_fn(int exit_code, void *arg);

/* Whether the words behind "dead-letters" are a command.  Pure. */
bool dead_letters_words_fit(int count, char *words[]);

/* Start on a connection; NULL when out of memory.  Nothing is declared: a queue that is not there is told of, and fails. */
struct dead_letters_tool *dead_letters_tool_new(struct rpc_connection *connection, int count, char *words[],
                                                dead_letters_done_fn *done, void *arg);
void dead_letters_tool_free(struct dead_letters_tool *tool); /* NULL is fine */

#endif

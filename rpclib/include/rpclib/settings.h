/*
 * rpc_settings: a program's settings, from the environment alone (12factor.net), described in one table.
 *
 * NAME is read from the variable NAME, or from the file that NAME_FILE names (secrets; its last newline is cut); both at
 * once is an error.  A value that is wrong stops the program with exit code 2 and one line that names it and says what it
 * may be.  Every program gets --help, --version and --show-config from the table; passwords in URIs are masked.
 */
#ifndef RPCLIB_SETTINGS_H
#define RPCLIB_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define RPC_EXIT_OK     0 /* stopped as asked */
#define RPC_EXIT_FAILED 1 /* failed while running */
#define RPC_EXIT_USAGE  2 /* wrong usage or setting */

enum rpc_setting_kind {
    RPC_SETTING_TEXT,
    RPC_SETTING_URI,     /* text whose password is masked where it is shown */
    RPC_SETTING_INTEGER, /* within minimum..maximum */
    RPC_SETTING_CHOICE,  /* one of `choices`, "a|b|c" */
};

/* What LOG_LEVEL may be, for a program that has another default. */
#define RPC_SETTING_LOG_LEVELS "debug|info|warning|error"

struct rpc_setting {
    const char *name; /* "RPC_TIMEOUT_MS"; NULL ends a table */
    enum rpc_setting_kind kind;
    const char *fallback; /* the default, as text; NULL: none, the value is then NULL */
    const char *help;     /* one line, with the unit */
    int64_t minimum, maximum;
    const char *choices;
};

struct rpc_settings;

struct rpc_settings_program {
    const char *name;    /* "orders" */
    const char *summary; /* one line for --help */
    const char *version;
    /*
     * Lent for the settings' life.  rpclib's own, LOG_LEVEL (info) and LOG_FORMAT (auto), are added, each unless the table has
     * a row of that name: one with another default, and the same choices.
     */
    const struct rpc_setting *table;
};

/*
 * Read the settings and the command line.  Returns true to go on; false when the program is to leave with *exit_code: 0
 * after --help, --version or --show-config, 2 after an error, which was printed to stderr.  On success *out is the
 * caller's and logging is configured (rpclib/log.h).
 */
bool rpc_settings_load(struct rpc_settings **out, const struct rpc_settings_program *program, int argc, char *argv[],
                       int *exit_code);

/* Lent for the settings' life.  A name that is not in the table is a bug (assert). */
const char *rpc_settings_text(const struct rpc_settings *settings, const char *name);
int64_t rpc_settings_integer(const struct rpc_settings *settings, const char *name);

/*
 * Print "<program>: <name>: <reason>" for a value that only the program itself can judge (a URI).  Returns RPC_EXIT_USAGE.
 */
int rpc_settings_refuse(const struct rpc_settings *settings, const char *name, const char *reason);

void rpc_settings_free(struct rpc_settings *settings); /* NULL is fine; wipes the values */

#endif

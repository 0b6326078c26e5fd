/*
 * rpc_log: one line an event, on standard error: logfmt on a terminal, JSON otherwise (LOG_FORMAT=logfmt|json|auto).
 *
 *     rpc_log(RPC_LOG_WARNING, "request rejected", RPC_LOG_TEXT("correlation_id", id), RPC_LOG_INT("size", size));
 *
 * Logging never blocks and never fails: a line that the sink does not take at once is dropped and counted, and the next
 * line that gets through says how many are missing.  No secrets: nobody hands a password to it.
 */
#ifndef RPCLIB_LOG_H
#define RPCLIB_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpclib/bytes.h"

#define RPC_LOG_LINE_SIZE_MAX 2048 /* a longer line is cut, and says so */

enum rpc_log_level { RPC_LOG_DEBUG, RPC_LOG_INFO, RPC_LOG_WARNING, RPC_LOG_ERROR };
enum rpc_log_format { RPC_LOG_LOGFMT, RPC_LOG_JSON };

struct rpc_log_field {
    const char *key; /* NULL: skipped */
    struct rpc_bytes text;
    int64_t integer;
    bool is_text;
};

#define RPC_LOG_TEXT(k, v)  ((struct rpc_log_field){.key = (k), .text = rpc_bytes_of(v), .is_text = true})
#define RPC_LOG_BYTES(k, v) ((struct rpc_log_field){.key = (k), .text = (v), .is_text = true})
#define RPC_LOG_INT(k, v)   ((struct rpc_log_field){.key = (k), .integer = (int64_t)(v)})

/* `program` is lent and stands on each line.  The default, before any call: info, by what stderr is. */
void rpc_log_configure(const char *program, enum rpc_log_level level, enum rpc_log_format format);
bool rpc_log_enabled(enum rpc_log_level level);

/* One line with RPC_LOG_TEXT(), RPC_LOG_BYTES(), RPC_LOG_INT(); the fields are not even made when it is not logged. */
#define rpc_log(level, message, ...)                                                       \
    do {                                                                                   \
        const enum rpc_log_level rpc_log_level_ = (level);                                 \
        if (rpc_log_enabled(rpc_log_level_)) {                                             \
            const struct rpc_log_field rpc_log_fields_[] = {{.key = NULL}, ##__VA_ARGS__}; \
            rpc_log_write(rpc_log_level_, message, rpc_log_fields_,                        \
                          sizeof(rpc_log_fields_) / sizeof(rpc_log_fields_[0]));           \
        }                                                                                  \
    } while (0)

/* What rpc_log() calls.  Fields without a key are skipped. */
void rpc_log_write(enum rpc_log_level level, const char *message, const struct rpc_log_field *fields, size_t count);

#endif

/* What rpc_connection shows to the sessions on it. */
#ifndef RPCLIB_SRC_CONNECTION_H
#define RPCLIB_SRC_CONNECTION_H

#include "amqp/mq.h"
#include "rpclib/connection.h"
#include "session.h"

struct rpc_loop *connection_loop(const struct rpc_connection *connection);
/* NULL unless the connection is up. */
struct mq *connection_mq(const struct rpc_connection *connection);
/* The same, but in sessions' on_down it is there yet: dead, for its counters alone. */
const struct mq *connection_mq_counters(const struct rpc_connection *connection);
void connection_session_add(struct rpc_connection *connection, struct session *session);
void connection_session_remove(struct rpc_connection *connection, struct session *session);
void connection_flush_later(struct rpc_connection *connection);
/* The link is of no use: connect again.  Not from inside a callback of the mq's. */
void connection_give_up(struct rpc_connection *connection, const char *reason);

#endif

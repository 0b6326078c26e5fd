/* settings: what the gateway can be told, for its launcher and for its module alike. */
#ifndef KORE_GATEWAY_SETTINGS_H
#define KORE_GATEWAY_SETTINGS_H

#include <rpclib/settings.h>

extern const struct rpc_settings_program gateway_program;

/*
 * Whether PORT on BIND_ADDRESS is free, and AMQP_URI one that rpclib takes.  False, with *exit_code set, after it has
 * said on stderr what is wrong.
 */
bool gateway_settings_check(const struct rpc_settings *settings, int *exit_code);

#endif

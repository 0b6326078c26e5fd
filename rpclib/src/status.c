#include "rpclib/status.h"

const char *rpc_status_name(enum rpc_status status)
{
    switch (status) {
    case RPC_OK:
        return "ok";
    case RPC_REMOTE_ERROR:
        return "remote_error";
    case RPC_UNKNOWN_SERVICE:
        return "unknown_service";
    case RPC_BUSY:
        return "busy";
    case RPC_OFFLINE:
        return "offline";
    case RPC_BLOCKED:
        return "blocked";
    case RPC_TIMEOUT:
        return "timeout";
    case RPC_LOST:
        return "lost";
    case RPC_REFUSED:
        return "refused";
    case RPC_BAD_REPLY:
        return "bad_reply";
    case RPC_TOO_LARGE:
        return "too_large";
    case RPC_NO_MEMORY:
        return "no_memory";
    case RPC_CANCELLED:
        return "cancelled";
    }
    return "unknown_status";
}

bool rpc_status_nothing_done(enum rpc_status status)
{
    switch (status) {
    case RPC_UNKNOWN_SERVICE:
    case RPC_BUSY:
    case RPC_OFFLINE:
    case RPC_BLOCKED:
    case RPC_TOO_LARGE:
    case RPC_NO_MEMORY:
        return true;
    case RPC_OK:
    case RPC_REMOTE_ERROR: /* the service ran and says itself how far it came */
    case RPC_TIMEOUT:
    case RPC_LOST:
    case RPC_REFUSED:
    case RPC_BAD_REPLY:
    case RPC_CANCELLED:
        return false;
    }
    return false;
}

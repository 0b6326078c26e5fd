/* A client: asks the greeter to greet Ada, prints the answer and leaves. */
#include <event2/event.h>
#include <rpclib/client.h>
#include <rpclib/loop_libevent.h>
#include <stdio.h>
#include <stdlib.h>

static struct rpc_client *client;

static void on_reply(enum rpc_status status, const struct rpc_reply *reply, void *base)
{
    if (status == RPC_OK)
        printf("%.*s\n", (int)reply->result.size, reply->result.data);
    else
        puts(rpc_status_name(status));
    event_base_loopbreak(base);
}

static void on_ready(void *base)
{
    rpc_call(client,
             &(struct rpc_request){
                 .service = "greeter", .method = "greet", .args = RPC_BYTES("[\"Ada\"]"), .timeout_ms = 1000},
             on_reply, base, NULL);
}

int main(void)
{
    struct event_base *base = event_base_new();
    struct rpc_connection *connection = rpc_connection_new(&(struct rpc_connection_options){
        .loop = rpc_loop_libevent_new(base), .uri = getenv("AMQP_URI"), .name = "caller"});

    client =
        rpc_client_new(connection, &(struct rpc_client_options){.name = "caller", .on_ready = on_ready, .arg = base});
    return event_base_dispatch(base);
}

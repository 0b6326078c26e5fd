/* A service: greets whoever calls it.  `rpc call greeter greet '["Ada"]'` answers "Hello, Ada!". */
#include <event2/event.h>
#include <rpclib/loop_libevent.h>
#include <rpclib/service.h>
#include <stdlib.h>

static void greet(struct rpc_incoming *request, json_t *const arguments[], void *arg)
{
    json_t *answer = json_sprintf("Hello, %s!", json_string_value(arguments[0]));

    (void)arg;
    rpc_incoming_answer_json(request, answer);
    json_decref(answer);
}

int main(void)
{
    const char *const parameters[] = {"name", NULL};
    const struct rpc_method methods[] = {{"greet", parameters, 1, greet}};
    struct event_base *base = event_base_new();
    struct rpc_connection *connection = rpc_connection_new(&(struct rpc_connection_options){
        .loop = rpc_loop_libevent_new(base), .uri = getenv("AMQP_URI"), .name = "greeter"});

    rpc_service_new(connection,
                    &(struct rpc_service_options){.name = "greeter", .methods = methods, .methods_count = 1});
    return event_base_dispatch(base);
}

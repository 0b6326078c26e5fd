#include "health.h"

#include <rpclib/client.h>

#include "flight.h"
#include "metrics.h"
#include "peer.h"

static const struct rpc_client *client;

void health_start(const struct rpc_client *of)
{
    client = of;
}

void health_stop(void)
{
    client = NULL;
}

static void answer_ok(struct flight *flight)
{
    struct answer *answer = flight_answer(flight);

    answer_begin(answer);
    rpc_text_append(answer_body(answer), RPC_BYTES("{\"status\": \"ok\"}"));
    answer_end(answer, 200);
    flight_done(flight);
}

void health_alive(struct flight *flight)
{
    answer_ok(flight);
}

void health_ready(struct flight *flight)
{
    if (client != NULL && rpc_client_ready(client))
        answer_ok(flight);
    else
        flight_error(flight, 503, "SERVICE_UNAVAILABLE", RPC_BYTES("The gateway is not ready."));
}

void health_metrics(struct flight *flight)
{
    struct answer *answer = flight_answer(flight);

    answer_begin(answer);
    answer->content_type = "text/plain; version=0.0.4; charset=utf-8";
    metrics_print(answer_body(answer), &(struct metrics_now){.ready = client != NULL && rpc_client_ready(client),
                                                             .connections = peers_count(),
                                                             .requests = flights_count(),
                                                             .client = client});
    answer_end(answer, 200);
    flight_done(flight);
}

#include "monitor.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <inttypes.h>
#include <stdlib.h>

#define REQUEST_TIMEOUT_S 5
#define HEADERS_SIZE_MAX  4096
#define BODY_SIZE_MAX     0
#define ACCEPT_PAUSE_MS   200 /* after a client could not be taken, mostly for want of a descriptor */

struct monitor {
    struct evhttp *http;
    struct evconnlistener *listener; /* lent by `http` */
    struct event *pause;             /* its end */
    struct monitor_options options;
};

/* The one that listens; what runs when a client cannot be taken is handed libevent's own data. */
static struct monitor *listening;

struct rpc_metrics {
    struct evbuffer *text;
};

void rpc_metrics_counter(struct rpc_metrics *metrics, const char *name, const char *help, uint64_t value)
{
    evbuffer_add_printf(metrics->text, "# HELP %s %s\n# TYPE %s counter\n%s %" PRIu64 "\n", name, help, name, name,
                        value);
}

void rpc_metrics_gauge(struct rpc_metrics *metrics, const char *name, const char *help, int64_t value)
{
    evbuffer_add_printf(metrics->text, "# HELP %s %s\n# TYPE %s gauge\n%s %" PRId64 "\n", name, help, name, name,
                        value);
}

static void answer(struct evhttp_request *request, int code, const char *reason, struct evbuffer *body,
                   const char *content_type)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);

    evhttp_add_header(headers, "Content-Type", content_type);
    evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
    evhttp_add_header(headers, "Cache-Control", "no-store");
    evhttp_send_reply(request, code, reason, body);
}

static void answer_text(struct evhttp_request *request, int code, const char *reason, const char *text)
{
    struct evbuffer *body = evbuffer_new();

    if (body != NULL)
        evbuffer_add_printf(body, "%s\n", text);
    answer(request, code, reason, body, "text/plain; charset=utf-8");
    if (body != NULL)
        evbuffer_free(body);
}

static void on_healthz(struct evhttp_request *request, void *arg)
{
    (void)arg;
    answer_text(request, HTTP_OK, "OK", "alive");
}

static void on_readyz(struct evhttp_request *request, void *arg)
{
    const struct monitor *monitor = arg;

    if (monitor->options.is_ready(monitor->options.arg))
        answer_text(request, HTTP_OK, "OK", "ready");
    else
        answer_text(request, HTTP_SERVUNAVAIL, "Service Unavailable", "not ready");
}

static void on_metrics(struct evhttp_request *request, void *arg)
{
    const struct monitor *monitor = arg;
    struct rpc_metrics metrics = {.text = evbuffer_new()};

    if (metrics.text == NULL) {
        answer_text(request, HTTP_INTERNAL, "Internal Server Error", "out of memory");
        return;
    }
    monitor->options.metrics(&metrics, monitor->options.arg);
    answer(request, HTTP_OK, "OK", metrics.text, "text/plain; version=0.0.4; charset=utf-8");
    evbuffer_free(metrics.text);
}

static void on_other(struct evhttp_request *request, void *arg)
{
    (void)arg;
    answer_text(request, HTTP_NOTFOUND, "Not Found", "there are /healthz, /readyz and /metrics");
}

/* The client stays where he is, and without a pause the loop would look after him without end. */
static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    (void)arg;
    evconnlistener_disable(listener);
    evtimer_add(listening->pause, &(struct timeval){.tv_usec = ACCEPT_PAUSE_MS * 1000});
}

static void on_pause_end(evutil_socket_t fd, short what, void *arg)
{
    struct monitor *monitor = arg;

    (void)fd;
    (void)what;
    evconnlistener_enable(monitor->listener);
}

static bool monitor_listen(struct monitor *monitor)
{
    struct evhttp_bound_socket *bound =
        evhttp_bind_socket_with_handle(monitor->http, monitor->options.address, monitor->options.port);

    if (bound == NULL)
        return false;
    monitor->listener = evhttp_bound_socket_get_listener(bound);
    listening = monitor;
    evconnlistener_set_error_cb(monitor->listener, on_accept_error);
    return true;
}

struct monitor *monitor_new(const struct monitor_options *options)
{
    struct monitor *monitor = calloc(1, sizeof(*monitor));

    if (monitor == NULL)
        return NULL;
    monitor->options = *options;
    monitor->http = evhttp_new(options->base);
    monitor->pause = evtimer_new(options->base, on_pause_end, monitor);
    if (monitor->http == NULL || monitor->pause == NULL || !monitor_listen(monitor)) {
        monitor_free(monitor);
        return NULL;
    }
    evhttp_set_allowed_methods(monitor->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
    evhttp_set_timeout(monitor->http, REQUEST_TIMEOUT_S);
    evhttp_set_max_headers_size(monitor->http, HEADERS_SIZE_MAX);
    evhttp_set_max_body_size(monitor->http, BODY_SIZE_MAX);
    evhttp_set_cb(monitor->http, "/healthz", on_healthz, monitor);
    evhttp_set_cb(monitor->http, "/readyz", on_readyz, monitor);
    evhttp_set_cb(monitor->http, "/metrics", on_metrics, monitor);
    evhttp_set_gencb(monitor->http, on_other, monitor);
    return monitor;
}

void monitor_free(struct monitor *monitor)
{
    if (monitor == NULL)
        return;
    if (monitor->pause != NULL)
        event_free(monitor->pause);
    if (monitor->http != NULL)
        evhttp_free(monitor->http);
    free(monitor);
}

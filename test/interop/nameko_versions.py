"""The few places where Nameko 2.14 and 3.0 differ, for all that must run on both."""
import signal
from importlib.metadata import version

import eventlet
from nameko.runners import ServiceRunner

VERSION = version("nameko")
HAS_GLOBAL_CONFIG = not VERSION.startswith("2.")


def configure(config):
    """3.0 reads one global configuration, and some of it while services are being defined: call this before importing them."""
    if HAS_GLOBAL_CONFIG:
        import nameko

        nameko.config.setup(config)


def settings(amqp_uri, max_workers=10, prefetch=None, web_address=None):
    """A service's configuration.  2.14 has no prefetch of its own: there it is max_workers."""
    config = {"AMQP_URI": amqp_uri, "max_workers": max_workers, "PREFETCH_COUNT": prefetch or max_workers}
    if web_address is not None:
        config["WEB_SERVER_ADDRESS"] = web_address
    return config


def cluster_rpc(amqp_uri, context=None, timeout_s=None):
    """The standalone client: a context manager whose value is called as client.service.method()."""
    if HAS_GLOBAL_CONFIG:
        from nameko.standalone.rpc import ClusterRpcClient

        return ClusterRpcClient(context_data=context, timeout=timeout_s, uri=amqp_uri)
    from nameko.standalone.rpc import ClusterRpcProxy

    return ClusterRpcProxy({"AMQP_URI": amqp_uri}, context_data=context, timeout=timeout_s)


def service_rpc(amqp_uri, service, timeout_s=None):
    """The standalone client of one service: called as client.method()."""
    if HAS_GLOBAL_CONFIG:
        from nameko.standalone.rpc import ServiceRpcClient

        return ServiceRpcClient(service, timeout=timeout_s, uri=amqp_uri)
    from nameko.standalone.rpc import ServiceRpcProxy

    return ServiceRpcProxy(service, {"AMQP_URI": amqp_uri}, timeout=timeout_s)


def event_dispatcher(amqp_uri):
    """dispatch(source service, event type, data)"""
    from nameko.standalone.events import event_dispatcher as make

    return make(uri=amqp_uri) if HAS_GLOBAL_CONFIG else make({"AMQP_URI": amqp_uri})


def serve(services, config, on_ready=None):
    """Run services until SIGTERM; returns when they have finished what they were doing."""
    runner = ServiceRunner() if HAS_GLOBAL_CONFIG else ServiceRunner(config)
    for service in services:
        runner.add_service(service)
    signal.signal(signal.SIGTERM, lambda number, frame: eventlet.spawn_n(runner.stop))
    runner.start()
    if on_ready is not None:
        on_ready()
    waiting = eventlet.spawn(runner.wait)
    while True:
        try:
            return waiting.wait()
        except InterruptedError:
            continue  # the signal interrupted the hub's wait for its sockets

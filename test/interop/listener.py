"""A Nameko service that handles order_created in each of the three ways, and keeps what it got in Redis."""
import eventlet

eventlet.monkey_patch()  # before anything else imports sockets

import json  # noqa: E402
import os  # noqa: E402
from pathlib import Path  # noqa: E402

import nameko_versions  # noqa: E402

CONFIG = nameko_versions.settings(os.environ["AMQP_URI"])
nameko_versions.configure(CONFIG)

import redis  # noqa: E402
from nameko.events import BROADCAST, SERVICE_POOL, SINGLETON, event_handler  # noqa: E402
from nameko.extensions import DependencyProvider  # noqa: E402


class Keeper(DependencyProvider):
    def setup(self):
        self._client = redis.Redis.from_url(os.environ["REDIS_URI"])

    def get_dependency(self, worker_ctx):
        def keep(kind, payload):
            heard = {"payload": payload, "context": dict(worker_ctx.context_data)}
            self._client.rpush(f"heard:{kind}", json.dumps(heard))

        return keep


class Listener:
    name = "listener"
    keep = Keeper()

    @event_handler("orders", "order_created", handler_type=SERVICE_POOL)
    def on_pool(self, payload):
        self.keep("pool", payload)

    @event_handler("orders", "order_created", handler_type=SINGLETON)
    def on_singleton(self, payload):
        self.keep("singleton", payload)

    @event_handler("orders", "order_created", handler_type=BROADCAST, reliable_delivery=False)
    def on_broadcast(self, payload):
        self.keep("broadcast", payload)


if __name__ == "__main__":
    nameko_versions.serve([Listener], CONFIG, Path(os.environ["READY_FILE"]).touch)

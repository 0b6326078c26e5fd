"""Run services of the Nameko shop:  serve.py SERVICE...   (products, orders, gateway)

Settings, from the environment:
  AMQP_URI, REDIS_URI, POSTGRES_URI   as the C programs take them
  MAX_WORKERS     requests under way at once in a service (10)
  PREFETCH        messages fetched ahead; Nameko 2.14 always takes MAX_WORKERS (MAX_WORKERS)
  POSTGRES_CONNECTIONS                orders' connections to its database (MAX_WORKERS, at most 20)
  PORT, BIND_ADDRESS, PRODUCT_IMAGE_ROOT   the gateway's (8000, 127.0.0.1)
  LOG_LEVEL       (warning)
  READY_FILE      made when everything answers
"""
import eventlet

eventlet.monkey_patch()  # before anything else imports sockets

import importlib  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import nameko_versions  # noqa: E402

SERVICES = {
    "products": ("products.service", "ProductsService"),
    "orders": ("orders.service", "OrdersService"),
    "gateway": ("gateway.service", "GatewayService"),
}


def main(names):
    if not names or not set(names) <= set(SERVICES):
        sys.exit(__doc__)
    environment = os.environ.get
    logging.basicConfig(level=environment("LOG_LEVEL", "warning").upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    max_workers = int(environment("MAX_WORKERS", "10"))
    config = nameko_versions.settings(
        environment("AMQP_URI", "amqp://guest:guest@localhost:5672"),
        max_workers=max_workers,
        prefetch=int(environment("PREFETCH", max_workers)),
        web_address=f"{environment('BIND_ADDRESS', '127.0.0.1')}:{environment('PORT', '8000')}",
    )
    nameko_versions.configure(config)
    services = [getattr(importlib.import_module(module), name) for module, name in map(SERVICES.get, names)]

    def on_ready():
        logging.getLogger("serve").info("%s ready on Nameko %s", ", ".join(names), nameko_versions.VERSION)
        if environment("READY_FILE"):
            Path(environment("READY_FILE")).touch()

    nameko_versions.serve(services, config, on_ready)


if __name__ == "__main__":
    main(sys.argv[1:])

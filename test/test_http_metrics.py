"""The gateway's second port, METRICS_PORT: health, and what it did as Prometheus reads it."""
import re
import subprocess

import pytest

from support.clock import READY_S
from support.http import Http, RawConnection, path_of
from support.program import PATHS
from support.shop import a_line, a_product, free_port

SAMPLE = re.compile(r'^([a-z_]+)(?:\{([a-z_]+="[^"\\\n]*"(?:,[a-z_]+="[^"\\\n]*")*)\})? (-?[0-9.]+)$')


@pytest.fixture(scope="module")
def gateway(shop):
    """A gateway of this module's own, so that nobody else is counted; beside the shop's."""
    gateway = shop.add("gateway", METRICS_PORT=str(free_port()))
    gateway.start()
    gateway.wait_ready()
    yield gateway
    gateway.terminate()
    gateway.finish()
    shop.programs.remove(gateway)


@pytest.fixture
def http(shop, gateway):
    return shop.http_of(gateway)


@pytest.fixture
def monitor(gateway):
    return Http(int(gateway.environment["METRICS_PORT"]))


def samples(monitor):
    """(name, labels) -> value; each line must be as the format has it, each name described once, before its samples."""
    response = monitor.get("/metrics", check=False)
    assert response.status == 200, str(response)
    assert response.header_all("Content-Type") == ["text/plain; version=0.0.4; charset=utf-8"], str(response)
    assert response.header_all("X-Content-Type-Options") == ["nosniff"], str(response)
    text = response.body.decode()
    assert text.endswith("\n")
    found, types = {}, {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, line
            types[name] = kind
            continue
        match = SAMPLE.match(line)
        assert match, line
        name, labels, value = match.groups()
        family = name if name in types else re.sub(r"_(bucket|sum|count)$", "", name)
        assert family in types and (family == name or types[family] == "histogram"), line
        key = (name, tuple(sorted(re.findall(r'([a-z_]+)="([^"]*)"', labels or ""))))
        assert key not in found, line
        found[key] = float(value)
    return found


def value(found, name, **labels):
    return found.get((name, tuple(sorted(labels.items()))), 0)


def test_requests_are_counted_by_route_and_status(http, monitor):
    before = samples(monitor)
    product = http.make_product(a_product())
    for _ in range(3):
        http.get_product(product["id"])
    order_id = http.make_order([a_line(product["id"])])
    http.get_order(order_id)
    assert http.get(path_of("products", "nobody")).status == 404
    assert http.get("/nothing").status == 404
    assert http.request("PUT", "/orders").status == 405
    after = samples(monitor)
    expected = {
        ("products_create", "200"): 1,
        ("products_get", "200"): 3,
        ("products_get", "404"): 1,
        ("orders_create", "200"): 1,
        ("orders_get", "200"): 1,
        ("none", "404"): 1,
        ("none", "405"): 1,
    }
    counted = {}
    for (name, labels), count in after.items():
        if name == "gateway_requests_total" and count != before.get((name, labels), 0):
            labels = dict(labels)
            counted[labels["route"], labels["status"]] = count - value(before, name, **labels)
    assert counted == expected


def test_durations_are_a_histogram(http, monitor):
    product = http.make_product(a_product())
    http.get_product(product["id"])
    found = samples(monitor)
    routes = {dict(labels)["route"] for name, labels in found if name == "gateway_requests_total"}
    assert {"products_create", "products_get"} <= routes
    for route in routes:
        buckets = [
            (float(dict(labels)["le"]), count)
            for (name, labels), count in found.items()
            if name == "gateway_request_duration_seconds_bucket" and dict(labels)["route"] == route
        ]
        counts = [count for _, count in sorted(buckets)]
        requests = sum(
            count for (name, labels), count in found.items()
            if name == "gateway_requests_total" and dict(labels)["route"] == route
        )
        assert max(le for le, _ in buckets) == float("inf")
        assert counts == sorted(counts)
        assert counts[-1] == requests == value(found, "gateway_request_duration_seconds_count", route=route)
        assert value(found, "gateway_request_duration_seconds_sum", route=route) >= 0


def test_calls_are_counted(http, monitor):
    product = http.make_product(a_product())
    before = samples(monitor)
    http.get_product(product["id"])
    http.make_order([a_line(product["id"])])  # exists, create_order
    after = samples(monitor)
    for name in ("rpc_calls_total", "rpc_replies_total"):
        assert value(after, name) - value(before, name) == 3
    for name in ("rpc_in_flight", "rpc_timeouts_total", "rpc_lost_total", "rpc_returned_total"):
        assert value(after, name) == 0
    assert value(after, "rpc_ready") == 1


def test_a_malformed_request_is_counted(gateway, monitor):
    before = samples(monitor)
    with RawConnection(int(gateway.environment["PORT"])) as raw:
        raw.socket.sendall(b"NONSENSE\r\n\r\n")
        assert raw.socket.recv(12) == b"HTTP/1.1 400"
    after = samples(monitor)
    labels = {"route": "none", "status": "400"}
    assert value(after, "gateway_requests_total", **labels) - value(before, "gateway_requests_total", **labels) == 1


def test_health_and_nothing_else(http, monitor):
    assert monitor.get("/healthz").status == 200
    assert monitor.get("/readyz").status == 200
    assert monitor.request("HEAD", "/metrics", check=False).body == b""
    assert monitor.post("/metrics", {}).status == 405
    assert monitor.get("/products/x").status == 404
    assert http.get("/metrics").status == 404  # clients of the shop do not see it
    found = samples(monitor)
    assert value(found, "gateway_requests_in_flight") == 1  # this one
    assert value(found, "gateway_connections") >= 1
    for bound in ("connections", "requests", "calls", "input", "output"):
        assert ("gateway_refused_total", (("bound", bound),)) in found


def test_a_port_that_is_taken_is_refused(gateway):
    environment = {**gateway.environment, "PORT": str(free_port()), "METRICS_PORT": gateway.environment["METRICS_PORT"]}
    environment.pop("READY_FILE", None)
    result = subprocess.run([PATHS["gateway"]], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=READY_S)
    assert result.returncode == 2, result.stderr
    assert "METRICS_PORT" in result.stderr

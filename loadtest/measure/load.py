"""Load on a shop: what is asked for, by wrk in a closed loop or by http_load at a constant rate, every answer checked."""
import http.client
import json
import os
import re
import resource
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from . import data, peers

HERE = Path(__file__).resolve().parents[1]
SCRIPT = HERE / "wrk" / "check.lua"
SAMPLE = 777  # digits that no other part of an answer has
LIST_LIMIT = 50
HOST = "Host: bench\r\n"
TRACE_PARENT = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
CONSTANT_PATH = "/there-is-nothing-here"
RPC_TIMEOUT_S = 10
MARGIN_S = 60

KINDS = ("get_product", "post_order", "get_order", "list_orders", "constant")
MIX = {"get_product": 60, "get_order": 20, "post_order": 15, "list_orders": 5}  # per cent of requests
LOADS = {**{kind: {kind: 1} for kind in KINDS}, "mixed": MIX}  # of "mixed", what the shop has
TITLES = {
    "get_product": "GET /products/{id}",
    "post_order": "POST /orders, one line",
    "get_order": "GET /orders/{id}, one line",
    "list_orders": f"GET /orders?limit={LIST_LIMIT}",
    "mixed": "mixed load",
    "constant": "Kore alone (the gateway's 404)",
}


class WrongAnswer(Exception):
    """The shop answered, and not with what it must."""


def _request(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=RPC_TIMEOUT_S)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def _escaped(text):
    return text.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")


def _raw(method, path, body=None):
    size = len((body or "").replace("{product}", "0" * 12))
    length = f"Content-Length: {size}\r\n" if body is not None else ""
    return f"{method} {path} HTTP/1.1\r\n{HOST}{length}\r\n{body or ''}"


ORDER_BODY = json.dumps({"order_details": [{"product_id": "bench-{product}", "price": data.PRICE, "quantity": 1}]})


@dataclass
class Ledger:
    """What was asked of the shop since it was filled; the invariants are checked against it."""

    products: int
    orders: int
    posts_sent: int = 0
    ids: list = field(default_factory=list)  # of orders that were acknowledged since the last check
    acknowledged: int = 0


class Workload:
    """The requests of one shop.  How its answers look is learned from one answer of each kind, which is checked for its
    meaning; from then on every answer must be the same text, but for the numbers."""

    def __init__(self, shop, ledger, directory, traced=False):
        self.shop = shop
        self.traced = traced  # each request carries a trace context
        self.ledger = ledger
        self.directory = directory
        self.templates = {}
        # A peer's gateway has no answer of its own to compare.
        self.kinds = [kind for kind in KINDS if kind != "list_orders" or shop.has_pages]
        self.kinds = [kind for kind in self.kinds if kind != "constant" or shop.peer is None]
        for kind in self.kinds:
            getattr(self, f"_learn_{kind}")()

    def _ask(self, method, path, body=None):
        status, text = _request(self.shop.ports[0], method, path, body)
        if status != 200:
            raise WrongAnswer(f"{method} {path}: {status} {text[:500]}")
        return text, json.loads(text)

    @staticmethod
    def _expect(what, found, expected):
        if found != expected:
            raise WrongAnswer(f"{what}: {data.pretty(found)[:500]} instead of {data.pretty(expected)[:500]}")

    @staticmethod
    def _open_numbers(text):
        text = re.sub(r'("in_stock":\s*)-?\d+', r"\1{integer}", text)
        text = text.replace(f"{SAMPLE:012d}", "{product}")
        return re.sub(rf"\b{SAMPLE}\b", "{order}", text)

    def _learn_get_product(self):
        text, found = self._ask("GET", f"/products/{data.product_id(SAMPLE)}")
        self._expect("GET product", found, {**data.product(SAMPLE), "in_stock": found.get("in_stock")})
        request = _raw("GET", "/products/bench-{product}")
        self.templates["get_product"] = ("products", request, 200, self._open_numbers(text))

    def _learn_post_order(self):
        self.ledger.posts_sent += 1
        text, found = self._ask("POST", "/orders", ORDER_BODY.replace("{product}", f"{SAMPLE:012d}"))
        self._expect("POST order", {**found, "id": type(found.get("id")).__name__}, {"id": "int"})
        self.ledger.ids.append(found["id"])
        answer = re.sub(r"\d+", "{new}", text)
        self.templates["post_order"] = ("products", _raw("POST", "/orders", ORDER_BODY), 200, answer)

    def _learn_get_order(self):
        text, found = self._ask("GET", f"/orders/{SAMPLE}")
        line = {"id": SAMPLE, "product_id": data.product_id(SAMPLE), "price": data.PRICE, "quantity": 1}
        line["image"] = f"http://images.example.com/of/airships/{data.product_id(SAMPLE)}.jpg"
        line["product"] = {**data.product(SAMPLE), "in_stock": found["order_details"][0]["product"]["in_stock"]}
        self._expect("GET order", found, {"id": SAMPLE, "order_details": [line]})
        self.templates["get_order"] = ("orders", _raw("GET", "/orders/{order}"), 200, self._open_numbers(text))

    def _learn_list_orders(self):
        path = f"/orders?limit={LIST_LIMIT}"
        text, found = self._ask("GET", path)
        line = {"price": data.PRICE, "quantity": 1}
        expected = [
            {"id": n, "order_details": [{"id": n, "product_id": data.product_id(n), **line}]}
            for n in range(1, LIST_LIMIT + 1)
        ]
        self._expect("GET orders", found, expected)
        self.templates["list_orders"] = ("orders", _raw("GET", path), 200, text)

    def _learn_constant(self):
        """What the gateway answers by itself: Kore's share of every other answer.  A stand-in for a bare Kore."""
        status, text = _request(self.shop.ports[0], "GET", CONSTANT_PATH)
        self._expect(f"GET {CONSTANT_PATH}", status, 404)
        self.templates["constant"] = ("products", _raw("GET", CONSTANT_PATH), status, text)

    def plan(self, load):
        """The file that says what to ask and what to expect."""
        lines = [f"products {self.ledger.products}", f"orders {self.ledger.orders}"]
        for kind, weight in LOADS[load].items():
            if kind not in self.kinds:
                continue
            numbers, request, status, answer = self.templates[kind]
            request = request.replace(HOST, HOST + TRACE_PARENT, 1) if self.traced else request
            lines += [f"kind {kind}", f"weight {weight}", f"numbers {numbers}", f"status {status}"]
            lines += [f"request {_escaped(request)}", f"answer {_escaped(answer)}"]
        path = self.directory / f"{self.shop.room.name}-{load}.plan"
        path.write_text("\n".join(lines) + "\n")
        return path

    def loads(self):
        asked = LOADS if self.shop.peer is None else peers.LOADS
        return [load for load in asked if load == "mixed" or load in self.kinds]


def _run(command, environment, seconds):
    """(the object in the last line of the output, what the command wrote to stderr)"""
    result = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds + MARGIN_S,
    )
    lines = result.stdout.strip().splitlines()
    if result.returncode != 0 or not lines or not lines[-1].startswith("{"):
        raise RuntimeError(f"{command[0]} ended with {result.returncode}:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    return json.loads(lines[-1]), result.stderr


def _shares(connections, ports):
    """How many connections each gateway gets; none gets none."""
    ports = ports[:connections]
    return [(port, connections // len(ports) + (i < connections % len(ports))) for i, port in enumerate(ports)]


def _merged(results):
    """Several generators at once: what is counted is added; a percentile is the worst of theirs."""
    total = {}
    for result in results:
        for name, value in result.items():
            worst = name.endswith("_us") or name == "backlog_max"
            total[name] = max(total.get(name, 0), value) if worst else total.get(name, 0) + value
    return total


class Generator:
    """Runs wrk or http_load against all gateways of a shop."""

    def __init__(self, build_dir, directory):
        self.http_load = build_dir / "loadtest" / "http_load"
        self.directory = directory

    def _all(self, workload, load, command_of, connections, seconds):
        plan = workload.plan(load)
        prefix = self.directory / "ids"
        for old in self.directory.glob("ids*"):
            old.unlink()
        shares = _shares(connections, workload.shop.ports)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with ThreadPoolExecutor(len(shares)) as pool:
            runs = [
                pool.submit(
                    _run,
                    command_of(plan, port, count, count / connections, f"{prefix}-{port}"),
                    {"LOAD_PLAN": str(plan), "LOAD_IDS": f"{prefix}-{port}"},
                    seconds,
                )
                for port, count in shares
            ]
            results = [run.result() for run in runs]
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        merged = _merged([result for result, _ in results])
        merged["connections"] = connections
        merged["generator_cpu_s"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        merged["complaints"] = "".join(complaint for _, complaint in results)[:4000]
        self._note(workload.ledger, load, merged)
        return merged

    def _note(self, ledger, load, result):
        """A run of a mixed load does not say how many of its requests were orders: all of them may have been."""
        if "post_order" in LOADS[load]:
            ledger.posts_sent += int(result["sent"])
        for path in self.directory.glob("ids*"):
            ledger.ids += [int(line) for line in path.read_text().split()]

    def closed(self, workload, load, connections, seconds):
        """wrk: each connection asks again as soon as it has its answer."""

        def command(plan, port, count, share, ids):
            threads = 1 if count < 32 else 2
            return ["wrk", "-t", threads, "-c", count, "-d", f"{seconds}s", "--timeout", f"{RPC_TIMEOUT_S}s", "--latency",
                    "-s", SCRIPT, f"http://127.0.0.1:{port}/"]

        return self._all(workload, load, command, connections, seconds)

    def closed_exact(self, workload, load, connections, seconds):
        """http_load in a closed loop: it also knows which connection an answer belongs to, and costs less CPU."""

        def command(plan, port, count, share, ids):
            return [self.http_load, plan, port, count, seconds, 0, ids]

        return self._all(workload, load, command, connections, seconds)

    def constant(self, workload, load, connections, seconds, rate):
        """http_load in an open loop: so many requests a second, come what may."""

        def command(plan, port, count, share, ids):
            return [self.http_load, plan, port, count, seconds, f"{rate * share:.3f}", ids]

        return self._all(workload, load, command, connections, seconds)


def faults(result):
    """What makes a run worthless; empty when nothing does."""
    found = []
    for name in ("wrong", "failed", "timeouts", "unanswered"):
        if result.get(name):
            found.append(f"{int(result[name])} {name}")
    if not result["answered"]:
        found.append("no answers at all")
    if found and result.get("complaints"):
        found.append(result["complaints"].strip())
    return found

"""The result as text for a README: against the targets, the rest, what a request costs and what follows from that."""
from statistics import mode

from .figures import count, median, rate
from .load import TITLES

PARTS = ("gateway", "products", "orders", "rabbitmq", "redis", "postgres", "generator")
NAMES = {"rabbitmq": "RabbitMQ", "redis": "Redis", "postgres": "PostgreSQL", "generator": "generator"}
# RPC calls that a request makes, and events that follow from it.  The second of two calls waits for the first.
CALLS = {"get_product": (1, 0), "get_order": (2, 0), "post_order": (2, 1), "list_orders": (1, 0)}
WANTED_RATE = 100_000  # of the worked example
USABLE = 0.8  # of a processor, before queues grow


def _table(headings, rows):
    lines = ["| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def _machine(report, result):
    machine, versions = report.machine, report.machine["versions"]
    named = {"rabbitmq-server": "RabbitMQ", "redis-server": "Redis", "postgresql-15": "PostgreSQL", "kore": "Kore"}
    named.update({"nameko": "Nameko", "moleculer": "Moleculer", "node": "Node.js"})
    servers = ", ".join(f"{title} {versions[name]}" for name, title in named.items() if name in versions)
    durability = ", ".join(f"{name} {value}" for name, value in report.durability.items() if name in _DURABILITY)
    awake = ", kept awake at one connection" if machine.get("processors_awake_at") else ""
    repetitions = mode(len(runs) for runs in report.measured.results.values())
    return (
        f"{machine['processors']} processors ({machine['processor']}{awake}), {machine['memory_mib'] / 1024:.0f} GiB, Linux"
        f" {machine['kernel']}, shared by all servers, programs and the load generator. {servers}. {durability}; events"
        f" persistent and confirmed. Commit {machine['commit']}, {' '.join(machine['build'].values())}; medians of"
        f" {repetitions} repetitions, measured in {result['seconds'] / 60:.0f} minutes."
    )


_DURABILITY = ("postgres fsync", "postgres synchronous_commit", "redis appendonly", "redis appendfsync")


def _targets(lines):
    met = {True: "met", False: "**missed**", None: "not decided"}
    headings = ("what", "target", "measured", "ceiling of the same run", "ratio", "")
    return _table(headings, [[l.what, l.target, l.figure, l.ceiling, l.share, met[l.met]] for l in lines if l.target])


def _others(lines):
    headings = ("what", "measured", "beside", "ratio", "of the wire's")
    rows = [[l.what, l.figure, l.ceiling, l.share, l.of_wire] for l in lines if not l.target]
    return _table(headings, [row for row in rows if not row[0].startswith("CPU us a request")])


def _costs(report, most):
    """request -> part -> CPU microseconds a request, at the most connections"""
    costs = {}
    for name in CALLS:
        runs = report.measured.values(name, most, "cpu_us")
        if runs:
            costs[name] = {part: median([run[part] for run in runs]) for part in PARTS}
    return costs


def _cost_table(costs):
    rows = []
    for name, cost in costs.items():
        rows.append([TITLES[name], *(f"{cost[part]:.0f}" for part in PARTS), f"{sum(cost.values()):.0f}"])
    return _table(["", *(NAMES.get(part, part) for part in PARTS), "sum"], rows)


def _prediction(report, costs, most):
    """Where everything shares the processors, they are what is full."""
    processors = report.machine["processors"]
    rows = []
    for name, cost in costs.items():
        calls, events = CALLS[name]
        predicted = processors * 1e6 / sum(cost.values())
        measured = report.measured.median(name, most)
        rows.append(
            [
                TITLES[name],
                f"{calls} + {events}",
                f"{cost['rabbitmq'] / (calls + events / 2):.0f} us",
                rate(predicted),
                rate(measured),
                f"{measured / predicted:.2f}",
            ]
        )
    headings = ("request", "calls + events", "RabbitMQ a call (an event: half)", "all processors busy would be", "measured", "ratio")
    return _table(headings, rows)


def _larger(costs):
    rows = []
    for name, cost in costs.items():
        needed = {part: cost[part] * WANTED_RATE / 1e6 / USABLE for part in PARTS if part != "generator"}
        rows.append([TITLES[name], *(f"{value:.1f}" for value in needed.values()), f"{sum(needed.values()):.0f}"])
    parts = [NAMES.get(part, part) for part in PARTS if part != "generator"]
    return _table([f"processors for {count(WANTED_RATE)}/s", *parts, "sum"], rows)


def text(report, result):
    """All of it.  Parts that were not measured are left out."""
    lines, most = report.lines(), max(report.connections)
    costs = _costs(report, most)
    blocks = [_machine(report, result), "**Against the targets**", _targets(lines)]
    blocks += ["**What else was measured**", _others(lines)]
    if costs:
        blocks += [f"**CPU time a request**, in microseconds, at {most} connections", _cost_table(costs)]
        blocks += ["**What it predicts here, and what came**", _prediction(report, costs, most)]
        blocks += [f"**What it predicts for a larger set-up**, each processor {USABLE:.0%} busy", _larger(costs)]
    return "\n\n".join(blocks) + "\n"

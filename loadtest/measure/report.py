"""The table against the targets, the file of results, the charts."""
import json

from . import markdown, peers, plots
from .figures import Line, Measurements, at_most, count, median, micros, most_line, percent_interval, rate, share_line, spread
from .load import TITLES
from .peers import PEERS
from .runs import FLAT_LOADS, flat_pair
from .terminal import table

# The targets, on one machine with its backing services, one process of each program.
LEAST_SHARE = {"get_product": 0.50, "post_order": 0.15, "get_order": 0.25}  # of the broker's echo, 64 in flight
GET_PRODUCT_ABOVE_ECHO_US = 60
POST_ORDER_P99_MS = 25
CHANGE_MOST = {"products": 0.05, "orders": 0.10}  # between the smallest shop and the largest
CPU_US_MOST = 25
IDLE_MB_MOST, PEAK_MB_MOST = 12, 40
MB_A_MIB = 1.048576
READY_MS_MOST = 200
WATCHED_MOST = 0.03
PEER_LEAST = {  # times its rate, by load and connections
    "nameko": {name: {64: 50, 1: 10} for name in peers.LOADS},
    "moleculer": {"get_product": {64: 3.3}, "post_order": {64: 4.5}, "get_order": {64: 4.5}},
}
PROGRAMS = ("products", "orders", "gateway")
HEADINGS = ["figure", "measured", "ceiling", "share", "of the wire's", "target", "met"]


class Report:
    def __init__(self, measured, connections, checked):
        self.measured = measured
        self.connections = connections
        self.checked = checked
        self.machine = {}
        self.durability = {}
        self.sizes = []
        self.counts = []

    @classmethod
    def from_json(cls, result):
        """A result that write() made."""
        measured = Measurements.from_json(result["measurements"])
        report = cls(measured, result["asked"]["connections"], result["checked"])
        report.machine, report.durability = result["machine"], result["durability"]
        report.sizes, report.counts = result["asked"]["sizes"], result["asked"]["counts"]
        return report

    # ---- lines -------------------------------------------------------------------------------------------------

    def lines(self):
        lines = self._rate_lines() + self._latency_lines() + self._ceiling_lines() + self._cost_lines()
        lines += self._flatness_lines() + self._watched_lines() + self._scale_lines() + self._quorum_lines()
        return lines + self._peer_lines() + self._checked_lines()

    def _checked_lines(self):
        if not self.checked["runs"] and not self.measured.worthless:
            return []
        bad = len(self.measured.worthless)
        text = "{answers:,} answers and {orders:,} orders held in {runs} runs".format(**self.checked)
        return [Line("runs with a wrong answer, an error or a broken invariant", f"{bad}; {text}", target="0", met=bad == 0)]

    def _rate_lines(self):
        lines = []
        for name in ("get_product", "post_order", "get_order", "list_orders", "mixed"):
            for connections in self.connections:
                if (name, connections) in self.measured:
                    least = LEAST_SHARE.get(name) if connections == 64 else None
                    lines.append(share_line(self.measured, name, TITLES[name], least, connections))
        return lines

    def _latency_lines(self):
        lines = []
        p50 = self.measured.median("get_product", 1, "p50_us")
        echo = self.measured.median("ceiling", 1, "p50_us")
        if p50 is not None and echo is not None:
            lines.append(
                Line(
                    f"{TITLES['get_product']}, c=1, p50",
                    micros(p50),
                    micros(echo),
                    f"+{p50 - echo:.0f} us",
                    target=f"<= echo + {GET_PRODUCT_ABOVE_ECHO_US} us",
                    met=p50 <= echo + GET_PRODUCT_ABOVE_ECHO_US,
                )
            )
        p99 = self.measured.median("post_order", 64, "p99_us")
        if p99 is not None:
            lines.append(most_line(f"{TITLES['post_order']}, c=64, p99", p99 / 1000, POST_ORDER_P99_MS, "ms"))
        for what, connections in sorted(self.measured.counted):
            if " of its peak" in what:
                lines.append(self._open_loop_line(what, connections))
        return lines

    def _open_loop_line(self, what, connections):
        name, _, share = what.partition(" at ")
        p50, p99, p999 = (self.measured.median(what, connections, f"p{share_of}_us") for share_of in ("50", "99", "999"))
        offered = self.measured.median(what, connections, "offered")
        behind = max(self.measured.values(what, connections, "unsent"))
        text = f"p50 {micros(p50)}, p99 {micros(p99)}, p99.9 {micros(p999)}"
        return Line(
            f"{TITLES[name]}, open loop at {share}",
            text + (f"; {int(behind)} requests never sent" if behind else ""),
            f"{rate(offered)} offered",
        )

    def _ceiling_lines(self):
        titles = {
            "ceiling nameko": "the broker's echo over Nameko's wire",
            "rpclib": "rpclib's echo",
            "constant": TITLES["constant"],
            "postgres create_one": "PostgreSQL: one order a statement",
            "postgres create_batch": "PostgreSQL: many orders a statement",
            "postgres select_one": "PostgreSQL: one order read",
            "redis hmget": "Redis: a product read, one at a time",
            "redis hmget pipelined": "Redis: a product read, 64 pipelined",
            "redis exists pipelined": "Redis: a product looked for, 64 pipelined",
            "redis evalsha": "Redis: the stock lowered, one at a time",
            "redis evalsha pipelined": "Redis: the stock lowered, 64 pipelined",
        }
        lines = []
        for what, title in titles.items():
            for connections in sorted(c for w, c in self.measured.counted if w == what):
                if what in ("ceiling nameko", "rpclib"):
                    lines.append(share_line(self.measured, what, title, None, connections))
                    continue
                values = self.measured.values(what, connections, "rate")
                batch = self.measured.median(what, connections, "orders_a_transaction")
                note = f", {batch:.0f} each" if batch and batch > 1 else ""
                lines.append(Line(f"{title}, c={connections}{note}", rate(median(values), spread(values))))
        return lines

    def _cpu_us(self, what, connections, programs):
        values = self.measured.values(what, connections, "cpu_us")
        return median([sum(value[program] for program in programs) for value in values]) if values else None

    def _cost_lines(self):
        most = max(self.connections)
        if ("get_product", most) not in self.measured:
            return []
        lines = [
            most_line(
                f"CPU of gateway and products, {TITLES['get_product']}, c={most}",
                self._cpu_us("get_product", most, ("gateway", "products")),
                CPU_US_MOST,
                "us",
            )
        ]
        for name in ("get_product", "post_order", "get_order"):
            if (name, most) in self.measured:
                parts = ("gateway", "products", "orders", "rabbitmq", "redis", "postgres", "generator")
                shown = ", ".join(f"{part} {self._cpu_us(name, most, (part,)):.0f}" for part in parts)
                lines.append(Line(f"CPU us a request, {TITLES[name]}, c={most}", shown))
        for name in PROGRAMS:
            idle = self._megabytes(f"start {name}", "idle_mib")
            peak = self._megabytes(f"memory {name}", "peak_mib")
            ready = self.measured.median(f"start {name}", 1, "ready_ms")
            lines += [
                most_line(f"memory of {name}, idle", idle, IDLE_MB_MOST, "MB"),
                most_line(f"memory of {name}, at its most", peak, PEAK_MB_MOST, "MB"),
                most_line(f"start of {name} to ready", ready, READY_MS_MOST, "ms"),
            ]
        return lines

    def _megabytes(self, what, name):
        mib = self.measured.median(what, 1, name)
        return None if mib is None else mib * MB_A_MIB

    def _flatness_lines(self):
        sizes = [(axis, name, size) for axis, loads in FLAT_LOADS.items() for name in loads for size in self.sizes[1:]]
        return [self._flatness_line(*one) for one in sizes]

    def _flatness_line(self, axis, name, size):
        most, is_last = CHANGE_MOST[axis], size == self.sizes[-1]
        title = f"{TITLES[name]}: {size:,} {axis} against {self.sizes[0]:,}"
        target = f"within {most * 100:.0f} %" if is_last else ""
        ratios = self._of_smallest(axis, name, size)
        if not ratios:
            return Line(title, "not measured", target=target)
        value, base = (self._rate(what, max(self.connections)) for what in flat_pair(name, axis, size))
        met = at_most([1 - ratio for ratio in ratios], most) if is_last else None
        return Line(title, value, base, percent_interval([ratio - 1 for ratio in ratios]), target=target, met=met)

    def _of_smallest(self, axis, name, size):
        """The rates of a shop of this size as shares of the smallest one's of the same turns."""
        most = max(self.connections)
        what, beside = flat_pair(name, axis, size)
        return self.measured.ratios(what, most, beside, most)

    def _rate(self, what, connections):
        return rate(self.measured.median(what, connections), self.measured.spread(what, connections))

    def _watched_lines(self):
        keys = [key for key in self.measured.counted if key[0] == "get_product watched"]
        if not keys:
            return []
        connections = keys[0][1]
        ratios = self.measured.ratios("get_product watched", connections, "get_product unwatched", connections)
        costs = [1 - ratio for ratio in ratios]
        return [
            Line("cost of metrics, logs and trace context", self._rate("get_product watched", connections),
                 self._rate("get_product unwatched", connections), percent_interval(costs),
                 target=f"<= {WATCHED_MOST * 100:.0f} %", met=at_most(costs, WATCHED_MOST)),
            self._watched_cpu_line(connections),
        ]

    def _watched_cpu_line(self, connections):
        """The same in processor time, which is steadier than the rate."""
        names = ("get_product watched", "get_product unwatched")
        watched, unwatched = (
            [sum(cpu.values()) for cpu in self.measured.values(name, connections, "cpu_us")] for name in names
        )
        costs = [one / other - 1 for one, other in zip(watched, unwatched)]
        return Line("... of all processors' time", f"{median(watched):.1f} us", f"{median(unwatched):.1f} us",
                    percent_interval(costs))

    def _scale_lines(self):
        lines = []
        for name in ("get_product", "post_order", "get_order"):
            for number in self.counts:
                for what, connections in self.measured.counted:
                    if what != f"{name} by {number}":
                        continue
                    ratio = self.measured.ratio(what, connections, f"{name} by {self.counts[0]}", connections)
                    cores = self._cores(what, connections)
                    cpu_us = self._cpu_us(what, connections, self.measured.values(what, connections, "cpu_us")[0])
                    lines.append(
                        Line(
                            f"{TITLES[name]}, {number} of each, c={connections}",
                            self._rate(what, connections),
                            share=f"x {ratio:.2f}",
                            ceiling=f"{cores:.2f} of {self.machine['processors']} processors busy, {cpu_us:.0f} us each",
                        )
                    )
        return lines

    def _quorum_lines(self):
        most = max(self.connections)
        lines = []
        for name in ("get_product", "post_order"):
            what, classic = f"{name} on quorum queues", f"{name} on classic queues"
            if (what, most) not in self.measured:
                continue
            ratio = self.measured.ratio(what, most, classic, most)
            title = f"{TITLES[name]}, on quorum queues of one node, c={most}"
            lines.append(Line(title, self._rate(what, most), self._rate(classic, most) + " on classic ones", f"x {ratio:.2f}"))
        return lines

    def _cores(self, what, connections):
        runs = [run for run in self.measured.results[(what, connections)] if "worthless" not in run]
        return median([sum(run["cpu_us"].values()) * run["rate"] / 1e6 for run in runs])

    def _peer_lines(self):
        lines = []
        for peer in PEERS.values():
            for name in peers.LOADS:
                lines += [
                    self._peer_line(peer, name, connections)
                    for connections in self.connections
                    if (f"{peer.name} {name}", connections) in self.measured
                ]
            lines += self._peer_memory_lines(peer)
        return lines

    def _peer_memory_lines(self, peer):
        found = [self.measured.median(f"memory {peer.name} {program}", 1, "peak_mib") for program in PROGRAMS]
        if None in found:
            return []
        shown = ", ".join(f"{program} {count(mib)}" for program, mib in zip(PROGRAMS, found))
        return [Line(f"memory of {peer.title}, MiB at their most", shown)]

    def _peer_line(self, peer, name, connections):
        what = f"{peer.name} {name}"
        ratio = self.measured.ratio(name, connections, what, connections)
        least = PEER_LEAST[peer.name].get(name, {}).get(connections)
        title = f"{TITLES[name]} against {peer.title}, c={connections}"
        if ratio is None:
            return Line(title, "not measured", target=f">= x {least}" if least else "")
        return Line(
            title,
            self._rate(name, connections),
            self._rate(what, connections),
            f"x {ratio:.1f}" if ratio >= 10 else f"x {ratio:.2f}",
            target=f">= x {least}" if least else "",
            met=ratio >= least if least else None,
        )

    # ---- output ------------------------------------------------------------------------------------------------

    def table(self):
        met = {True: "yes", False: "NO", None: ""}
        return table(
            [[line.what, line.figure, line.ceiling, line.share, line.of_wire, line.target, met[line.met]] for line in self.lines()],
            HEADINGS,
        )

    def write(self, path, **more):
        result = {
            "machine": self.machine,
            "durability": self.durability,
            "checked": self.checked,
            "asked": {"connections": self.connections, "sizes": self.sizes, "counts": self.counts},
            "table": [line.as_json() for line in self.lines()],
            "measurements": self.measured.as_json(),
            **more,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        written = [path, path.with_suffix(".md")]
        written[-1].write_text(markdown.text(self, result))
        charts = {
            "rate": self._rate_chart(),
            "latency": self._latency_chart(),
            "share": self._share_chart(),
            "flatness": self._flatness_chart(),
            "scale": self._scale_chart(),
        }
        for name, chart in charts.items():
            text = plots.svg(chart)
            if text is not None:
                written.append(path.with_name(f"{path.stem}-{name}.svg"))
                written[-1].write_text(text)
        return written

    def _points(self, what_of, labels, name="rate", connections=None):
        """(index, median, lowest, highest) of what there is."""
        points = []
        for index, label in enumerate(labels):
            key = what_of(label)
            values = self.measured.values(*key, name)
            if values:
                points.append((index, median(values), min(values), max(values)))
        return points

    def _rate_chart(self):
        chart = plots.Chart("Requests a second (median, lowest, highest)", "connections, or calls in flight",
                            "requests a second", self.connections, logarithmic=True)
        names = {"ceiling": "the broker's ceiling", "ceiling nameko": "on Nameko's wire", "rpclib": "rpclib's echo"}
        names.update({name: TITLES[name] for name in ("get_product", "get_order", "post_order", "list_orders", "mixed")})
        for what, title in names.items():
            chart.add(title, self._points(lambda c, what=what: (what, c), self.connections), dashed=what.startswith("ceiling"))
        return chart

    def _latency_chart(self):
        chart = plots.Chart("Latency in the closed loop: p50, and p99 dashed", "connections", "milliseconds",
                            self.connections, logarithmic=True)
        for number, name in enumerate(("ceiling", "get_product", "get_order", "post_order", "list_orders")):
            for percentile in ("p50", "p99"):
                points = self._points(lambda c, name=name: (name, c), self.connections, f"{percentile}_us")
                points = [(point[0], point[1] / 1000) for point in points]
                title = {"ceiling": "the broker's echo"}.get(name) or TITLES[name]
                chart.add(f"{title}, {percentile}", points, dashed=percentile == "p99", colour=number)
        return chart

    def _share_chart(self):
        chart = plots.Chart("Share of the broker's ceiling of the same run", "connections", "share", self.connections)
        for number, name in enumerate(("get_product", "get_order", "post_order", "list_orders", "mixed")):
            points = []
            for index, connections in enumerate(self.connections):
                share = self.measured.ratio(name, connections, "ceiling", connections)
                if share is not None:
                    points.append((index, share))
            chart.add(TITLES[name], points, colour=number)
            if points and name in LEAST_SHARE:
                chart.marks.append((LEAST_SHARE[name], f"target at 64: {LEAST_SHARE[name]:.2f}", number))
        return chart

    def _flatness_chart(self):
        labels = [f"{size:,}" for size in self.sizes]
        chart = plots.Chart("Rate by how much the shop holds; the smallest shop = 1", "products, or orders", "rate", labels)
        for number, (axis, loads) in enumerate(FLAT_LOADS.items() if len(self.sizes) > 1 else ()):
            for colour, name in enumerate(loads):
                shares = [self._of_smallest(axis, name, size) for size in self.sizes[1:]]
                points = [(i, median(share)) for i, share in enumerate(shares, 1) if share]
                title = f"{TITLES[name].partition(',')[0]}, {axis}"
                chart.add(title, [(0, 1.0), *points] if points else [], dashed=number > 0, colour=colour + 3 * number)
        return chart

    def _scale_chart(self):
        chart = plots.Chart(f"Rate by processes of each program, {self.machine['processors']} processors",
                            "processes of each", "requests a second", self.counts)
        connections = next((c for what, c in self.measured.counted if " by " in what), None)
        for name in ("get_product", "post_order", "get_order"):
            chart.add(TITLES[name], self._points(lambda n, name=name: (f"{name} by {n}", connections), self.counts))
        return chart

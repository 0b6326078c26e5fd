"""From measurements to figures: medians, spreads, shares of the ceilings, and whether the targets are met."""
import statistics
from dataclasses import dataclass


def median(values):
    return statistics.median(values)


def spread(values):
    """Half of the range, as a share of the median: 0.03 reads "within 3 % of it"."""
    middle = median(values)
    return (max(values) - min(values)) / 2 / middle if middle else 0.0


def median_interval(values):
    """Where the median lies, 19 times of 20, whatever the values are distributed like: the order statistics beside it."""
    ordered = sorted(values)
    beside = max(0, int(len(ordered) / 2 - 1.96 / 2 * len(ordered) ** 0.5))
    return ordered[beside], ordered[-1 - beside]


class Measurements:
    """(what, connections) -> one result a repetition"""

    def __init__(self):
        self.results = {}

    def add(self, what, connections, result):
        self.results.setdefault((what, connections), []).append(result)

    def __contains__(self, key):
        return any("worthless" not in result for result in self.results.get(key, []))

    @property
    def counted(self):
        """(what, connections) of all that has a run that counts."""
        return [key for key in self.results if key in self]

    @property
    def worthless(self):
        """What was wrong with each run that does not count; it keeps its place among the repetitions."""
        return [result["worthless"] for results in self.results.values() for result in results if "worthless" in result]

    def values(self, what, connections, name):
        return [result[name] for result in self.results.get((what, connections), []) if result.get(name) is not None]

    def median(self, what, connections, name="rate"):
        values = self.values(what, connections, name)
        return median(values) if values else None

    def spread(self, what, connections, name="rate"):
        values = self.values(what, connections, name)
        return spread(values) if values else None

    def ratios(self, what, connections, ceiling, ceiling_connections, name="rate"):
        """Those of each repetition: what the machine did meanwhile falls out."""
        pairs = zip(self.results.get((what, connections), []), self.results.get((ceiling, ceiling_connections), []))
        return [one[name] / base[name] for one, base in pairs if one.get(name) is not None and base.get(name)]

    def ratio(self, what, connections, ceiling, ceiling_connections, name="rate"):
        """The median of the repetitions' own ratios."""
        ratios = self.ratios(what, connections, ceiling, ceiling_connections, name)
        return median(ratios) if ratios else None

    @classmethod
    def from_json(cls, entries):
        measured = cls()
        measured.results = {(entry["what"], entry["connections"]): entry["runs"] for entry in entries}
        return measured

    def as_json(self):
        return [
            {"what": what, "connections": connections, "runs": runs}
            for (what, connections), runs in self.results.items()
        ]


@dataclass
class Line:
    """One line of the table."""

    what: str
    figure: str
    ceiling: str = ""
    share: str = ""
    of_wire: str = ""  # the share of what the broker can do with Nameko's messages
    target: str = ""
    met: object = None  # True, False, or None: no target, not measured, or the runs differ by too much to tell

    def as_json(self):
        return {name: getattr(self, name) for name in ("what", "figure", "ceiling", "share", "of_wire", "target", "met")}


def count(value):
    """12,345 or 12.3"""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def rate(value, wide=None):
    return f"{count(value)}/s" + (f" ±{wide * 100:.0f} %" if wide else "")


def micros(value):
    return f"{value / 1000:.2f} ms" if value >= 1000 else f"{value:.0f} us"


def percent_interval(changes):
    """+5.4 % (+0.5 to +9.9): their median, and where it lies"""
    low, high = median_interval(changes)
    return f"{median(changes) * 100:+.1f} % ({low * 100:+.1f} to {high * 100:+.1f})"


def at_most(costs, most):
    """Is their median at most this?  None where it lies to both sides, so that nobody can tell."""
    low, high = median_interval(costs)
    return True if high <= most else False if low > most else None


def share_line(measurements, what, title, least, connections=64):
    """A rate against the broker's echo with as many in flight."""
    value = measurements.median(what, connections)
    ceiling = measurements.median("ceiling", connections)
    if value is None or ceiling is None:
        return Line(f"{title}, c={connections}", "not measured", target=f">= {least:.2f}" if least else "")
    share = measurements.ratio(what, connections, "ceiling", connections)
    of_wire = measurements.ratio(what, connections, "ceiling nameko", connections)
    return Line(
        f"{title}, c={connections}",
        rate(value, measurements.spread(what, connections)),
        rate(ceiling, measurements.spread("ceiling", connections)),
        f"{share:.2f}",
        "" if of_wire is None or what == "ceiling nameko" else f"{of_wire:.2f}",
        f">= {least:.2f}" if least else "",
        share >= least if least else None,
    )


def most_line(title, value, most, unit):
    """A figure that has no ceiling: its share is that of what it may be at most."""
    target = f"<= {count(most)} {unit}"
    if value is None:
        return Line(title, "not measured", target=target)
    return Line(title, f"{count(value)} {unit}", share=f"{value / most:.2f} of it", target=target, met=value <= most)

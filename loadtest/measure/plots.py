"""Line charts as plain SVG text."""
import math
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 820, 460
LEFT, RIGHT, TOP, BOTTOM = 80, 250, 48, 56
COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8a5a9e", "#b8860b", "#4a4a4a", "#2a9d8f")
STYLE = "font-family: system-ui, sans-serif; font-size: 12px"


@dataclass
class Series:
    name: str
    points: list  # (index of the x label, y) or (index, y, lowest, highest)
    dashed: bool = False
    colour: int = None


@dataclass
class Chart:
    title: str
    x_title: str
    y_title: str
    x_labels: list
    series: list = field(default_factory=list)
    logarithmic: bool = False
    marks: list = field(default_factory=list)  # (y, text, colour): a line across

    def add(self, name, points, **options):
        if points:
            self.series.append(Series(name, points, **options))


def _nice_step(span, steps=6):
    rough = span / steps
    power = 10 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)


def _ticks(chart, low, high):
    if chart.logarithmic:
        return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    step = _nice_step(high - low)
    return [low + step * number for number in range(int((high - low) / step + 1e-9) + 2)]


def _text(number):
    if number >= 1_000_000:
        return f"{number / 1_000_000:g} M"
    return f"{number / 1000:g} k" if number >= 1000 else f"{number:g}"


class _Canvas:
    def __init__(self, chart):
        values = [value for series in chart.series for point in series.points for value in point[1:]]
        values += [mark[0] for mark in chart.marks]
        low = min(value for value in values if value > 0) if chart.logarithmic else 0
        self.chart = chart
        self.ticks = _ticks(chart, low, max(values) or 1)
        self.low, self.high = self.ticks[0], self.ticks[-1]
        self.out = []

    def x(self, index):
        count = len(self.chart.x_labels)
        width = WIDTH - LEFT - RIGHT
        return LEFT + width * (index + 0.5) / count

    def y(self, value):
        if self.chart.logarithmic:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    def line(self, x1, y1, x2, y2, colour, more=""):
        self.out.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{more}/>')

    def text(self, x, y, text, more=""):
        self.out.append(f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(str(text))}</text>')

    def axes(self):
        chart, right = self.chart, WIDTH - RIGHT
        self.text(LEFT, 24, chart.title, ' font-size="15" font-weight="600"')
        for tick in self.ticks:
            self.line(LEFT, self.y(tick), right, self.y(tick), "#e0e0e0")
            self.text(LEFT - 8, self.y(tick) + 4, _text(tick), ' text-anchor="end"')
        for index, label in enumerate(chart.x_labels):
            self.text(self.x(index), HEIGHT - BOTTOM + 20, label, ' text-anchor="middle"')
        self.line(LEFT, HEIGHT - BOTTOM, right, HEIGHT - BOTTOM, "#404040")
        self.text((LEFT + right) / 2, HEIGHT - 12, chart.x_title, ' text-anchor="middle"')
        middle = (TOP + HEIGHT - BOTTOM) / 2
        self.text(18, middle, chart.y_title, f' text-anchor="middle" transform="rotate(-90 18 {middle:.1f})"')

    def series(self, series, colour):
        dash = ' stroke-dasharray="5 4"' if series.dashed else ""
        path = " ".join(f"{self.x(point[0]):.1f},{self.y(point[1]):.1f}" for point in series.points)
        self.out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for point in series.points:
            x = self.x(point[0])
            self.out.append(f'<circle cx="{x:.1f}" cy="{self.y(point[1]):.1f}" r="3" fill="{colour}"/>')
            if len(point) == 4:
                self.line(x, self.y(point[2]), x, self.y(point[3]), colour, ' stroke-opacity="0.6"')

    def legend(self, number, series, colour):
        x, y = WIDTH - RIGHT + 16, TOP + 8 + 20 * number
        dash = ' stroke-width="2" stroke-dasharray="5 4"' if series.dashed else ' stroke-width="2"'
        self.line(x, y, x + 22, y, colour, dash)
        self.text(x + 30, y + 4, series.name)

    def mark(self, value, text, colour):
        self.line(LEFT, self.y(value), WIDTH - RIGHT, self.y(value), colour, ' stroke-dasharray="2 3"')
        self.text(WIDTH - RIGHT - 4, self.y(value) - 4, text, f' text-anchor="end" fill="{colour}" font-size="10"')


def svg(chart):
    """The chart as a document; None when there is nothing to draw."""
    if not chart.series:
        return None
    canvas = _Canvas(chart)
    canvas.axes()
    for value, text, colour in chart.marks:
        canvas.mark(value, text, COLOURS[colour % len(COLOURS)])
    for number, series in enumerate(chart.series):
        colour = COLOURS[(number if series.colour is None else series.colour) % len(COLOURS)]
        canvas.series(series, colour)
        canvas.legend(number, series, colour)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        f' style="{STYLE}">\n<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(canvas.out) + "\n</svg>\n"
    )

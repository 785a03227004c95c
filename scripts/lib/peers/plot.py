"""Draws what scripts/bench-peers.sh measured as an SVG of four panels: Mpps by flows, by services, of new connections, and
latency by load. Points are medians of the rounds, bars reach from the least to the most.

plot.py RESULTS.csv PICTURE.svg
"""

import math
import statistics
import sys
from collections import defaultdict
from xml.sax.saxutils import escape

from report import CEILING, latencies, read

COLOURS = {
    "pollgate": "#c0392b",
    "testpmd-macswap": "#7f8c8d",
    "ovs": "#2471a3",
    "kernel-iptables": "#1e8449",
    "kernel-nftables": "#b7950b",
}
NAMES = {"ovs": "OVS-DPDK", "testpmd-macswap": "testpmd macswap", "kernel-iptables": "kernel, iptables",
         "kernel-nftables": "kernel, nftables", "pollgate": "Pollgate"}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 620, 390, 64, 16, 58, 52


class Panel:
    """Axes with logarithmic scales, and what is drawn between them."""

    def __init__(self, place, title, x_label, y_label, x_range, y_range):
        self.origin = (place % 2 * WIDTH, place // 2 * HEIGHT)
        self.x_range, self.y_range = x_range, y_range
        self.parts = []
        self.text(WIDTH / 2, 22, title, size=15, anchor="middle", weight="bold")
        self.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_label, anchor="middle")
        middle = (TOP + HEIGHT - BOTTOM) / 2
        self.text(16, middle, y_label, anchor="middle", turn=f"rotate(-90 {self.at(16, middle)})")
        self.frame()

    def at(self, x, y):
        return f"{self.origin[0] + x:.1f} {self.origin[1] + y:.1f}"

    def text(self, x, y, words, size=12, anchor="start", weight="normal", turn=""):
        x, y = self.at(x, y).split()
        turn = f' transform="{turn}"' if turn else ""
        self.parts.append(f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}"'
                          f' fill="#222"{turn}>{escape(words)}</text>')

    def line(self, x1, y1, x2, y2, colour, width=1.0, dash=""):
        (x1, y1), (x2, y2) = self.at(x1, y1).split(), self.at(x2, y2).split()
        dash = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="{width}"{dash}/>')

    def x(self, value):
        return self.scaled(value, self.x_range, LEFT, WIDTH - RIGHT)

    def y(self, value):
        return self.scaled(value, self.y_range, HEIGHT - BOTTOM, TOP)

    @staticmethod
    def scaled(value, limits, first, last):
        low, high = (math.log10(limit) for limit in limits)
        return first + (math.log10(max(value, limits[0])) - low) / (high - low) * (last - first)

    def frame(self):
        for exponent in range(math.floor(math.log10(self.y_range[0])), math.ceil(math.log10(self.y_range[1])) + 1):
            for step in (1, 2, 5):
                value = step * 10.0**exponent
                if self.y_range[0] <= value <= self.y_range[1]:
                    self.line(LEFT, self.y(value), WIDTH - RIGHT, self.y(value), "#bbb" if step == 1 else "#e4e4e4")
                    self.text(LEFT - 6, self.y(value) + 4, f"{value:g}", size=10, anchor="end")
        self.line(LEFT, TOP, LEFT, HEIGHT - BOTTOM, "#444")
        self.line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "#444")

    def ticks(self, values, words):
        for value in values:
            x = self.x(value)
            self.line(x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 5, "#444")
            self.text(x, HEIGHT - BOTTOM + 18, words(value), size=10, anchor="middle")

    def curve(self, points, colour, dash=""):
        """Points: (x, values); the median of the values, with a bar from the least to the most."""
        places = [(self.x(x), self.y(statistics.median(values))) for x, values in points]
        for first, second in zip(places, places[1:]):
            self.line(*first, *second, colour, 2, dash)
        for (_, values), place in zip(points, places):
            self.line(place[0], self.y(min(values)), place[0], self.y(max(values)), colour, 1.2)
            x_at, y_at = self.at(*place).split()
            self.parts.append(f'<circle cx="{x_at}" cy="{y_at}" r="3" fill="{colour}"/>')

    def bar(self, x, width, values, colour):
        y = self.y(statistics.median(values))
        x_at, y_at = self.at(x, y).split()
        self.parts.append(f'<rect x="{x_at}" y="{y_at}" width="{width:.1f}" height="{HEIGHT - BOTTOM - y:.1f}"'
                          f' fill="{colour}" fill-opacity="0.75"/>')
        self.line(x + width / 2, self.y(min(values)), x + width / 2, self.y(max(values)), "#222", 1.2)
        self.text(x + width / 2, self.y(max(values)) - 5, f"{statistics.median(values):.2g}", size=10, anchor="middle")

    def legend(self, names):
        """In one line above the frame, where no curve is."""
        x = LEFT
        for name, colour, dash in names:
            self.line(x, TOP - 16, x + 16, TOP - 16, colour, 2.5, dash)
            self.text(x + 20, TOP - 12, name, size=10)
            x += 32 + 6 * len(name)


def rates_of(rows):
    """Mpps by (system, load, flows, services)."""
    rates = defaultdict(list)
    for row in rows:
        is_shown = row["system"] in COLOURS and row["purpose"] == "throughput" and row["status"] == "ok"
        if is_shown and float(row["mpps"]) > 0:
            rates[row["system"], row["load"], int(row["flows"]), int(row["services"])].append(float(row["mpps"]))
    return rates


def bounds(values, least=1e-3):
    """A little more than the values need, for a logarithmic scale."""
    values = [value for value in values if value > 0] or [1.0]
    return max(least, min(values) / 1.6), max(values) * 1.6


def curves(place, rates, title, label, wanted, axis):
    """A panel of curves over one part of the key: flows or services."""
    chosen = {key: values for key, values in rates.items() if wanted(key)}
    xs = sorted({key[axis] for key in chosen}) or [1]
    ceiling = rates.get((CEILING, "link", 64_000, 1), [])
    y_range = bounds(sum(chosen.values(), []) + ceiling)
    panel = Panel(place, title, label, "Mpps, one core", (xs[0] / 1.7, xs[-1] * 1.7), y_range)
    panel.ticks(xs, lambda value: f"{value:,}")
    legend = []
    if ceiling:
        y = panel.y(statistics.median(ceiling))
        panel.line(LEFT, y, WIDTH - RIGHT, y, COLOURS[CEILING], 1.5, "6 4")
        legend.append((NAMES[CEILING], COLOURS[CEILING], "6 4"))
    for system in COLOURS:
        points = sorted((key[axis], values) for key, values in chosen.items() if key[0] == system)
        if points:
            panel.curve(points, COLOURS[system])
            legend.append((NAMES[system], COLOURS[system], ""))
    panel.legend(legend)
    return panel


def new_connections(place, rates):
    chosen = {key: values for key, values in rates.items() if key[1] == "new"}
    counts = sorted({key[3] for key in chosen}) or [1]
    shown = [system for system in COLOURS if any(key[0] == system for key in chosen)]
    y_range = bounds(sum(chosen.values(), []))
    panel = Panel(place, "Every packet a new connection", "services", "M connections/s, one core", (1, 10), y_range)
    room = (WIDTH - LEFT - RIGHT) / len(counts)
    for group, count in enumerate(counts):
        start = LEFT + group * room
        panel.text(start + room / 2, HEIGHT - BOTTOM + 18, f"{count:,}", size=11, anchor="middle")
        width = room * 0.8 / max(1, len(shown))
        for step, system in enumerate(shown):
            values = chosen.get((system, "new", 64_000, count))
            if values:
                panel.bar(start + room * 0.1 + step * width, width * 0.9, values, COLOURS[system])
    panel.legend([(NAMES[system], COLOURS[system], "") for system in shown])
    return panel


def latency(place, points):
    points = {key: rows for key, rows in points.items() if key[0] in COLOURS}
    rows = [row for group in points.values() for row in group]
    values = [float(row[name]) for row in rows for name in ("p50_us", "p99_us")]
    loads = [float(row["sent_mpps"]) for row in rows] or [1.0]
    x_range = (min(loads) / 1.5, max(loads) * 1.5)
    panel = Panel(place, "Latency by load: p50, dashed p99", "Mpps offered", "microseconds", x_range, bounds(values, 0.1))
    ticks = [step * 10.0**exponent for exponent in range(-4, 3) for step in (1, 2, 5)]
    panel.ticks([value for value in ticks if x_range[0] <= value <= x_range[1]], lambda value: f"{value:g}")
    shown = [system for system in COLOURS if any(key[0] == system for key in points)]
    for system in shown:
        groups = [rows for (name, _), rows in points.items() if name == system]
        for name, dash in (("p50_us", ""), ("p99_us", "5 4")):
            curve = [(statistics.median(float(row["sent_mpps"]) for row in group), [float(row[name]) for row in group])
                     for group in groups]
            panel.curve(sorted(curve), COLOURS[system], dash)
    panel.legend([(NAMES[system], COLOURS[system], "") for system in shown])
    return panel


def main(results, picture):
    rows = read(results)
    rates = rates_of(rows)
    panels = [
        curves(0, rates, "DNAT, established, by flows (10 services)", "flows",
               lambda key: key[1] == "dnat" and key[3] == 10, 2),
        curves(1, rates, "DNAT, established, by services (64,000 flows)", "services",
               lambda key: key[1] == "dnat" and key[2] == 64_000, 3),
        new_connections(2, rates),
        latency(3, latencies(rows)),
    ]
    with open(picture, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {2 * HEIGHT}"'
                   ' font-family="sans-serif">\n<rect width="100%" height="100%" fill="white"/>\n')
        for panel in panels:
            file.write("\n".join(panel.parts) + "\n")
        file.write("</svg>\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

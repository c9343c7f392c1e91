"""The four charts, as SVG that takes its colours from the page and its width from the screen.

On a phone their text is drawn half as large again as here (`style.css`), so everything leaves room for that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from litehrnet_stage2.apps.reporting.markup import Markup, tag

WIDTH, LEFT, RIGHT = 640, 66, 20
BELOW = 52  # the axis: its numbers, and what they are
COLOURS = 8
MOST_TICKS = 8
MOST_POINTS = 300  # of a curve: more cannot be told apart on a screen


def colour(index: int) -> str:
    """The CSS variable of a series."""
    return f"var(--c{index % COLOURS})"


def ecdf(series: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> Markup:
    """Share of queries faster than x ms, a curve for each series; x is logarithmic."""
    height, top, bottom = 320, 14, BELOW
    low = min(min(values) for values in series.values()) / 1.05
    high = max(_percentile(values, 0.995) for values in series.values()) * 1.05
    axis = _Axis(low, high)
    parts = [axis.grid(top, height - bottom), *_percent_grid(top, height - bottom)]
    for name, values in series.items():
        ordered = sorted(values)
        ranks = [*range(0, len(ordered), max(1, len(ordered) // MOST_POINTS)), len(ordered) - 1]
        points = [(ordered[rank], (rank + 1) / len(ordered)) for rank in ranks]
        drawn = [(axis.x(v), top + (1 - share) * (height - bottom - top)) for v, share in points if v <= high]
        path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        parts.append(tag("path", tag("title", name), d=path, fill="none", stroke=colours[name], stroke_width=2))
    parts.append(_text("ms, logarithmic", (WIDTH + LEFT) / 2, height - 6, anchor="middle"))
    return _svg(height, parts, "Cumulative distribution of latencies")


def intervals(rows: Sequence[tuple[str, float, float, float]], scale: str) -> Markup:
    """Ratios with their intervals, a line each: (label, value, low, high); 1 is marked, `scale` says what they are."""
    line, top, bottom = 46, 8, BELOW
    height = top + line * len(rows) + bottom
    axis = _Axis(min(0.5, *(r[2] for r in rows)) / 1.1, max(1.1, *(r[3] for r in rows)) * 1.1)
    one = axis.x(1)
    parts = [
        axis.grid(top, height - bottom),
        tag("line", x1=one, x2=one, y1=top, y2=height - bottom, stroke="currentColor", stroke_dasharray="4 3"),
    ]
    for i, (label, value, low, high) in enumerate(rows):
        y = top + line * i + 34
        series = colour(0 if value < 1 else 1)
        parts += [
            _text(label, 0, y - 13),
            tag("line", x1=axis.x(low), x2=axis.x(high), y1=y, y2=y, stroke=series, stroke_width=3),
            tag("circle", tag("title", f"{label}: {value:.2f}"), cx=axis.x(value), cy=y, r=5, fill=series),
        ]
    parts.append(_text(scale, WIDTH / 2, height - 6, anchor="middle"))
    return _svg(height, parts, "Ratios with their intervals")


def shares(bars: Mapping[str, Sequence[tuple[str, float]]], colours: Mapping[str, str]) -> Markup:
    """Time by kind of operator, a bar for each artifact: (kind, share)."""
    line, top = 52, 4
    width = WIDTH - RIGHT
    parts = []
    for i, (name, pieces) in enumerate(bars.items()):
        y, x = top + line * i + 24, 0.0
        parts.append(_text(name, 0, y - 5))
        whole = max(1.0, sum(share for _, share in pieces))  # tracing takes time too
        for kind, share in pieces:
            size = share / whole * width
            title = tag("title", f"{name}: {kind} {share:.0%}")
            parts.append(tag("rect", title, x=x, y=y, width=max(size - 1, 0), height=22, fill=colours[kind]))
            if size >= 60:
                parts.append(_text(f"{share:.0%}", x + size / 2, y + 17, anchor="middle", fill="var(--on)"))
            x += size
    return _svg(top + line * len(bars), parts, "Share of time by kind of operator")


def histogram(counts: Mapping[int, int]) -> Markup:
    """How many codes are off by how many steps; heights are logarithmic, or one code in a million would not show."""
    height, top, bottom = 170, 16, BELOW
    reach = min(16, max((abs(step) for step in counts), default=0))
    near = dict.fromkeys(range(-reach, reach + 1), 0)
    for step, count in counts.items():
        near[max(-reach, min(reach, step))] += count
    highest = math.log10(1 + max(near.values()))
    size = (WIDTH - LEFT - RIGHT) / len(near)
    parts = []
    for i, (step, count) in enumerate(near.items()):
        tall = (height - top - bottom) * math.log10(1 + count) / highest
        x = LEFT + i * size
        title = tag("title", f"{step:+d} steps: {count:,} codes")
        parts.append(
            tag(
                "rect",
                title,
                x=x + size * 0.1,
                y=height - bottom - tall,
                width=size * 0.8,
                height=tall,
                fill=colour(0 if step == 0 else 1),
            )
        )
        if reach <= 4 or step % 4 == 0:
            parts.append(_text(f"{step:+d}" if step else "equal", x + size / 2, height - bottom + 19, anchor="middle"))
    parts.append(_text("steps off (heights logarithmic)", WIDTH / 2, height - 6, anchor="middle"))
    return _svg(height, parts, "Codes by difference from the golden ones")


class _Axis:
    """A logarithmic x axis."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = math.log(low), math.log(high)

    def x(self, value: float) -> float:
        share = (math.log(value) - self.low) / (self.high - self.low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def grid(self, top: float, bottom: float) -> Markup:
        lines = []
        for value in self._ticks():
            x = self.x(value)
            lines += [
                tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"),
                _text(f"{value:g}", x, bottom + 19, anchor="middle"),
            ]
        return tag("g", *lines)

    def _ticks(self) -> list[float]:
        decades = range(math.floor(self.low / math.log(10)), math.ceil(self.high / math.log(10)) + 1)
        for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(k / 10 for k in range(10, 100))):
            ticks = [round(step * 10.0**d, 6) for d in decades for step in steps]
            ticks = [t for t in ticks if self.low <= math.log(t) <= self.high]
            if len(ticks) >= 4:
                break
        return ticks[:: -(-len(ticks) // MOST_TICKS)]


def _percent_grid(top: float, bottom: float) -> list[Markup]:
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = top + (1 - share) * (bottom - top)
        parts += [
            tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"),
            _text(f"{share:.0%}", LEFT - 6, y + 5, anchor="end"),
        ]
    return parts


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _text(text: str, x: float, y: float, *, anchor: str = "start", fill: str = "currentColor") -> Markup:
    return tag("text", text, x=round(x, 1), y=round(y, 1), text_anchor=anchor, fill=fill)


def _svg(height: float, parts: Sequence[Markup], label: str) -> Markup:
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=label)

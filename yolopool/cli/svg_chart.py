"""Draws curves as an SVG; it does not need a charting library."""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 900, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 50
STEPS = 5
# Distinguishable for colour-blind readers (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def line_chart(
    values: Sequence[float], title: str, x_label: str, y_label: str, x_step: float = 1
) -> str:
    """Draws `values` at x_step, 2 x_step, ...; the y axis begins at 0.

    Raises ValueError for fewer than two values.
    """
    return lines_chart({"": values}, title, x_label, y_label, x_step)


def lines_chart(
    curves: Mapping[str, Sequence[float]],
    title: str,
    x_label: str,
    y_label: str,
    x_step: float = 1,
    *,
    x_names: Sequence[str] = (),
    marked: int | None = None,
    falling: bool = False,
) -> str:
    """Draws several curves by name on the same axes; their lengths may differ.

    `x_names`, one for each value of the longest curve, replace x_step; `marked` is the index of one
    of them to mark. Of `falling` curves the names are at the bottom.

    Raises ValueError as `line_chart` does, and for more curves than colours.
    """
    if min((len(values) for values in curves.values()), default=0) < 2:
        raise ValueError("a curve needs two values at least")
    count = max(len(values) for values in curves.values())
    top = max(max(values) for values in curves.values()) * 1.1 or 1.0
    lines = [
        line
        for values, colour in zip(curves.values(), _colours(len(curves)), strict=True)
        for line in _curve(values, count, top, colour)
    ]
    middle = TOP + (HEIGHT - TOP - BOTTOM) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{escape(title)}</text>',
        *_heights(top),
        *(_named(x_names, count) if x_names else _steps(count, x_step)),
        *(_mark(marked, count) if marked is not None else ()),
        *lines,
        *_legend([name for name in curves if name], falling),
        f'<text x="{LEFT + (WIDTH - LEFT - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">'
        f"{escape(x_label)}</text>",
        f'<text x="18" y="{middle}" text-anchor="middle" '
        f'transform="rotate(-90 18 {middle})">{escape(y_label)}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _colours(count: int) -> Sequence[str]:
    if count > len(COLOURS):
        raise ValueError(f"{count} curves are more than the {len(COLOURS)} colours: draw fewer")
    return COLOURS[:count]


def stacked(charts: Sequence[str]) -> str:
    """One SVG with the charts one below the other."""
    parts = [
        f'<svg y="{HEIGHT * number}" width="{WIDTH}" height="{HEIGHT}"' + chart.removeprefix("<svg")
        for number, chart in enumerate(charts)
    ]
    view = f"0 0 {WIDTH} {HEIGHT * len(charts)}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view}">\n{"".join(parts)}</svg>\n'


def _heights(top: float) -> list[str]:
    """Horizontal lines at about STEPS round numbers."""
    parts = []
    step = _round_step(top / STEPS)
    for number in range(int(top / step) + 1):
        value = number * step
        y = _y(value, top)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>')
    return parts


def _round_step(least: float) -> float:
    """The next of ..., 1, 2, 2.5, 5, 10, 20, ..."""
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= least)


def _steps(count: int, x_step: float) -> list[str]:
    indexes = [(count - 1) * step / STEPS for step in range(STEPS + 1)]
    return [_tick(index, count, f"{(index + 1) * x_step:.0f}") for index in indexes]


def _named(names: Sequence[str], count: int) -> list[str]:
    return [_tick(index, count, name) for index, name in zip(range(count), names, strict=True)]


def _tick(index: float, count: int, word: str) -> str:
    x, y = _x(index, count), HEIGHT - BOTTOM + 18
    return f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{escape(word)}</text>'


def _mark(index: int, count: int) -> list[str]:
    x = _x(index, count)
    return [
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#888" '
        'stroke-dasharray="4 4"/>'
    ]


def _curve(values: Sequence[float], count: int, top: float, colour: str) -> list[str]:
    points = " ".join(f"{_x(i, count):.1f},{_y(value, top):.1f}" for i, value in enumerate(values))
    return [f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>']


def _legend(names: Sequence[str], falling: bool) -> list[str]:
    """The names of the curves at the left, where growing or falling curves leave room."""
    top = HEIGHT - BOTTOM - 14 * (len(names) + 1) if falling else TOP
    return [
        f'<text x="{LEFT + 8}" y="{top + 14 * (number + 1)}" fill="{colour}">{escape(name)}</text>'
        for number, (name, colour) in enumerate(zip(names, COLOURS, strict=False))
    ]


def _x(index: float, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * index / (count - 1)


def _y(value: float, top: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)

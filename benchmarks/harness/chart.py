"""Curves as an SVG, for people: no library is worth having for a few lines."""

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 900, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 50
STEPS = 5
# Told apart by people who do not see all colours (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def line_chart(
    values: Sequence[float], title: str, x_label: str, y_label: str, x_step: float = 1
) -> str:
    """`values` over x_step, 2 x_step, ...; the y axis begins at 0, so that growth is seen as what
    it is.

    Raises ValueError for fewer than two values.
    """
    return lines_chart({"": values}, title, x_label, y_label, x_step)


def lines_chart(
    curves: Mapping[str, Sequence[float]],
    title: str,
    x_label: str,
    y_label: str,
    x_step: float = 1,
) -> str:
    """Several curves of one length by name, on the same axes. Raises as `line_chart`, and for
    more curves than there are colours.
    """
    count = min((len(values) for values in curves.values()), default=0)
    if count < 2:
        raise ValueError("a curve needs two values at least")
    top = max(max(values) for values in curves.values()) * 1.1 or 1.0
    lines = [
        line
        for values, colour in zip(curves.values(), _colours(len(curves)), strict=True)
        for line in _curve(values, top, colour)
    ]
    middle = TOP + (HEIGHT - TOP - BOTTOM) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{escape(title)}</text>',
        *_axes(count, top, x_step),
        *lines,
        *_legend([name for name in curves if name]),
        f'<text x="{LEFT + (WIDTH - LEFT - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">'
        f"{escape(x_label)}</text>",
        f'<text x="18" y="{middle}" text-anchor="middle" '
        f'transform="rotate(-90 18 {middle})">{escape(y_label)}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _colours(count: int) -> Sequence[str]:
    if count > len(COLOURS):
        raise ValueError(f"{count} curves can't be told apart: draw {len(COLOURS)} at most")
    return COLOURS[:count]


def _axes(count: int, top: float, x_step: float) -> list[str]:
    parts = []
    for step in range(STEPS + 1):
        value, index = top * step / STEPS, (count - 1) * step / STEPS
        y = _y(value, top)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.0f}</text>')
        parts.append(
            f'<text x="{_x(index, count):.1f}" y="{HEIGHT - BOTTOM + 18}" '
            f'text-anchor="middle">{(index + 1) * x_step:.0f}</text>'
        )
    return parts


def _curve(values: Sequence[float], top: float, colour: str) -> list[str]:
    points = " ".join(
        f"{_x(i, len(values)):.1f},{_y(value, top):.1f}" for i, value in enumerate(values)
    )
    return [f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>']


def _legend(names: Sequence[str]) -> list[str]:
    """At the top on the right, one below the other."""
    return [
        f'<text x="{WIDTH - RIGHT - 4}" y="{TOP + 14 * (number + 1)}" text-anchor="end" '
        f'fill="{colour}">{escape(name)}</text>'
        for number, (name, colour) in enumerate(zip(names, COLOURS, strict=False))
    ]


def _x(index: float, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * index / (count - 1)


def _y(value: float, top: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)

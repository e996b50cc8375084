"""A curve as an SVG, for people: no library is worth having for one line."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 900, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 50
STEPS = 5


def line_chart(
    values: Sequence[float], title: str, x_label: str, y_label: str, x_step: float = 1
) -> str:
    """`values` over x_step, 2 x_step, ...; the y axis begins at 0, so that growth is seen as what
    it is.

    Raises ValueError for fewer than two values.
    """
    if len(values) < 2:
        raise ValueError("a curve needs two values at least")
    top = max(values) * 1.1 or 1.0
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(index: float) -> float:
        return LEFT + width * index / (len(values) - 1)

    def y(value: float) -> float:
        return TOP + height * (1 - value / top)

    points = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(values))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for step in range(STEPS + 1):
        value = top * step / STEPS
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
            'stroke="#ddd"/>'
        )
        parts.append(
            f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.0f}</text>'
        )
        index = (len(values) - 1) * step / STEPS
        parts.append(
            f'<text x="{x(index):.1f}" y="{HEIGHT - BOTTOM + 18}" '
            f'text-anchor="middle">{(index + 1) * x_step:.0f}</text>'
        )
    middle = TOP + height / 2
    parts += [
        f'<polyline points="{points}" fill="none" stroke="#1f6feb" stroke-width="1.5"/>',
        f'<text x="{LEFT + width / 2}" y="{HEIGHT - 10}" text-anchor="middle">'
        f"{escape(x_label)}</text>",
        f'<text x="18" y="{middle}" text-anchor="middle" '
        f'transform="rotate(-90 18 {middle})">{escape(y_label)}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"

"""A batch-latency curve as a table, as bars for a terminal, and as an SVG."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from yolopool.cli import svg_chart
from yolopool.cli.tables import plain_table, size
from yolopool.client.fleet_records import BenchPoint
from yolopool.evaluation.knee import Knee

MAX_BAR_CHARS = 24


def by_shape(points: Sequence[BenchPoint]) -> dict[str, list[BenchPoint]]:
    """The measured points, grouped by shape in the order of the sweep."""
    shapes: dict[str, list[BenchPoint]] = {}
    for point in points:
        if not point.reason:
            shapes.setdefault(point.shape, []).append(point)
    return shapes


def is_whole(points: Sequence[BenchPoint], shapes: int) -> bool:
    """Whether a sweep of so many shapes ran to its end; otherwise larger batches may be missing."""
    return all(point.done for point in points) and len({point.shape for point in points}) >= shapes


def title(point: BenchPoint) -> str:
    return f"{point.model} {point.precision} on {point.worker}, {point.device_name}"


def table(points: Sequence[BenchPoint]) -> Table:
    """A line for each point: milliseconds of a pass and of its stages."""
    rows = plain_table(
        "SHAPE", "BATCH ", "PASSES ", "P50 ", "P99 ", "COPY ", "FORWARD ", "NMS ",
        "IMAGES/S ", "MEMORY ", "BUSY ", title=f"[bold]{escape(title(points[0]))}[/]",
    )  # fmt: skip
    for point in points:
        if point.reason:
            rows.add_row(point.shape, str(point.batch), "[yellow]left out[/]")
            continue
        times = (point.p50_ms, point.p99_ms, point.copy_ms, point.forward_ms, point.nms_ms)
        rows.add_row(
            point.shape,
            str(point.batch),
            str(point.passes),
            *(f"{value:.1f}" for value in times),
            f"{point.images_per_s:.1f}",
            size(point.workspace_bytes),
            f"{point.busy:.0%}",
        )
    return rows


def bars(points: Sequence[BenchPoint], knee: Knee) -> Text:
    """Throughput and latency of one shape by batch size, as bars; the knee is marked."""
    fastest = max(point.images_per_s for point in points)
    slowest = max(point.p50_ms for point in points)
    lines = Text(f"{'BATCH':>7}  {'IMAGES/S':<{MAX_BAR_CHARS + 9}} P50 MS\n", style="bold")
    for point in points:
        speed = _bar(point.images_per_s / fastest, f"{point.images_per_s:.1f}")
        latency = _bar(point.p50_ms / slowest, f"{point.p50_ms:.1f}")
        mark = ">" if point.batch == knee.batch else " "
        line = f"{mark} {point.batch:>5}  {speed:<{MAX_BAR_CHARS + 9}} {latency}\n"
        lines.append(line, style="green" if mark == ">" else "not bold")
    return lines


def _bar(share: float, word: str) -> str:
    return f"{'█' * max(1, round(MAX_BAR_CHARS * share))} {word}"


def picture(points: Sequence[BenchPoint], knee: Knee, whole: bool) -> str:
    """An SVG: images/s by batch size above, milliseconds of a pass below.

    Each shape has a curve; a sweep of one shape shows p50 and p99. The knee is that of the first
    shape. A sweep that is not `whole` is labelled so. Raises ValueError if no shape has two points,
    or if there are more shapes than colours.
    """
    shapes = {shape: them for shape, them in by_shape(points).items() if len(them) > 1}
    longest: list[BenchPoint] = max(shapes.values(), key=len, default=[])
    names = [str(point.batch) for point in longest]
    if len(shapes) == 1:
        latencies = {
            "p50": [point.p50_ms for point in longest],
            "p99": [point.p99_ms for point in longest],
        }
    else:
        latencies = {shape: [point.p50_ms for point in them] for shape, them in shapes.items()}
    speeds = {shape: [point.images_per_s for point in them] for shape, them in shapes.items()}
    marked = names.index(str(knee.batch)) if str(knee.batch) in names else None
    above = title(points[0]) + ("" if whole else ": cut before its end")
    below = f"knee: batch {knee.batch}, {knee.images_per_s:.3g} images/s at {knee.p50_ms:.3g} ms"
    return svg_chart.stacked(
        [
            svg_chart.lines_chart(speeds, above, "batch", "images/s", x_names=names, marked=marked),
            svg_chart.lines_chart(
                latencies, below, "batch", "ms of a pass", x_names=names, marked=marked
            ),
        ]
    )

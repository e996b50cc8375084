"""The doctor's report as one HTML file: nothing is loaded from anywhere, and no script runs."""

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from yolopool.cli.doctor.log_files import Read
from yolopool.cli.doctor.report import stand
from yolopool.cli.svg_chart import lines_chart
from yolopool.doctor.finding import Finding
from yolopool.doctor.looked import STAGES, Looked
from yolopool.doctor.rows import Numbers

BINS = 60
COLOURS = ("#0072b2", "#d55e00", "#cc79a7", "#56b4e9", "#e69f00", "#009e73", "#999999", "#dddddd")
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
section.finding { border-left: 4px solid #999; padding: .1rem 1rem; margin: 1rem 0 }
section.critical { border-color: #d55e00 } section.warning { border-color: #e69f00 }
code, pre { font: .9rem ui-monospace, monospace } pre { overflow-x: auto; white-space: pre-wrap }
.bar { display: flex; height: 1.1rem; border-radius: 3px; overflow: hidden } .bar i { height: 100% }
.key { font-size: .85rem } .key i { display: inline-block; width: .8rem; height: .8rem }
.muted { opacity: .75; font-size: .9rem } svg { max-width: 100%; height: auto }
table { border-collapse: collapse } td, th { padding: .1rem .8rem .1rem 0; text-align: left }
"""


def page(looked: Looked, found: Sequence[Finding], read: Read) -> str:
    """The whole page."""
    rows = looked.all
    minutes = (float(rows.times.max()) - float(rows.times.min())) / 60 if len(rows) else 0.0
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>Where requests spend their time</title><style>{STYLE}</style></head><body>",
        "<h1>Where requests spend their time</h1>",
        f"<p>{len(rows):,} requests in {minutes:.1f} minutes, {len(looked.ok):,} answered"
        f"{f'; {read.broken:,} lines could not be read' if read.broken else ''}.</p>",
        *(_finding(one, read) for one in found),
    ]
    if len(rows) and not found:
        parts.append("<p>Nothing stands out: no cause takes a tenth of the time.</p>")
    if len(looked.ok):
        parts += ["<h2>Stages by model and device</h2>", *_bars(looked)]
    parts += list(_charts(looked))
    return "\n".join([*parts, "</body></html>"])


def _finding(one: Finding, read: Read) -> str:
    lines = ", ".join(escape(read.place(place)) for place in one.places)
    changes = "\n".join(escape(change) for change in one.change)
    return (
        f'<section class="finding {one.severity}"><h2>{escape(one.title)}</h2>'
        f"<p>{escape(one.evidence[0].upper() + one.evidence[1:])}.</p><pre>{changes}</pre>"
        f'<p class="muted">{one.severity}, {one.cause}: {one.cost_ms:.0f} ms of each of '
        f"{one.rows:,} requests, {100 * one.share:.0f} % of their time, is the gain to expect at "
        f"most. Rests on: {lines}</p></section>"
    )


def _bars(looked: Looked) -> Iterator[str]:
    names = (*STAGES, "elsewhere_ms")
    yield (
        '<p class="key">'
        + " ".join(
            f'<i style="background:{colour}"></i> {escape(name.removesuffix("_ms"))}'
            for name, colour in zip(names, COLOURS, strict=True)
        )
        + "</p>"
    )
    told = stand(looked)
    most = max(sum(one[name] for name in names) for one in told) or 1.0
    for one in told:
        pieces = "".join(
            f'<i style="background:{colour};width:{100 * one[name] / most:.2f}%" '
            f'title="{name} {one[name]}"></i>'
            for name, colour in zip(names, COLOURS, strict=True)
        )
        yield (
            f"<p>{escape(one['model'])} on {escape(one['device'])}: {one['requests']:,} requests, "
            f"p50 {one['p50_ms']:.1f} ms, p99 {one['p99_ms']:.1f} ms</p>"
            f'<div class="bar" role="img" aria-label="mean milliseconds by stage">{pieces}</div>'
        )


def _charts(looked: Looked) -> Iterator[str]:
    ok = looked.ok
    if len(ok) < 2 or float(np.ptp(ok.times)) <= 0:
        return
    total = ok["total_ms"]
    step_s = float(np.ptp(ok.times)) / BINS
    spot = np.minimum(BINS - 1, (ok.times - ok.times.min()) / step_s).astype(int)

    def over_time(values: Numbers, part: float) -> list[float]:
        """A quantile in each bin of time; one without a request has that of the bin before."""
        told, last = [], 0.0
        for number in range(BINS):
            inside = values[spot == number]
            inside = inside[np.isfinite(inside)]
            last = float(np.quantile(inside, part)) if len(inside) else last
            told.append(last)
        return told

    curves = {"p50": over_time(total, 0.5), "p99": over_time(total, 0.99)}
    yield _chart("Latency over time", curves, "seconds", step_s)
    waits = {
        "queue": over_time(ok["queue_ms"], 0.9),
        "load": over_time(ok["load_wait_ms"], 0.9),
        "elsewhere": over_time(looked.gap, 0.9),
    }
    yield _chart("Waits over time (p90)", waits, "seconds", step_s)
    batch = ok["batch_size"]
    sizes = np.unique(batch[np.isfinite(batch)])[:BINS]
    if len(sizes) > 1:
        took = {"pass": [float(np.median(ok["inference_ms"][batch == size])) for size in sizes]}
        names = [f"{size:.0f}" for size in sizes]
        yield _chart("Batch against latency (median)", took, "images in a pass", 1.0, names)
    used = looked.used
    if np.isfinite(used).any():
        known = np.isfinite(used)
        edges = np.unique(np.quantile(used[known], np.linspace(0, 1, 13)))
        if len(edges) > 2:
            places = np.clip(np.digitize(used, edges) - 1, 0, len(edges) - 2)
            full = [
                (edge, ok["inference_ms"][known & (places == number)])
                for number, edge in enumerate(edges[1:])
            ]
            full = [one for one in full if len(one[1])]
            curve = {"pass": [float(np.median(values)) for _, values in full]}
            names = [f"{100 * edge:.0f} %" for edge, _ in full]
            yield _chart("Memory against latency (median)", curve, "memory in use", 1.0, names)


def _chart(
    title: str, curves: dict[str, list[float]], x_label: str, step: float, names: Sequence[str] = ()
) -> str:
    if len(next(iter(curves.values()))) < 2:
        return ""
    return f"<p>{lines_chart(curves, title, x_label, 'ms', step, x_names=names)}</p>"

"""The doctor's report for a terminal, and as JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from yolopool.cli.doctor.log_files import Read
from yolopool.doctor.finding import Finding, Severity
from yolopool.doctor.looked import STAGES, Looked
from yolopool.doctor.passes import groups, keyed, mean, median

COLOURS = {Severity.CRITICAL: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
MAX_GROUPS = 12


def stand(looked: Looked) -> list[dict[str, Any]]:
    """By model and device, the most requests first: how many, and where their time goes, ms."""
    ok = looked.ok
    told = []
    for index in list(groups(keyed(ok.codes["model"], ok.codes["device"])))[:MAX_GROUPS]:
        total = ok["total_ms"][index]
        stages = {name: round(mean(ok[name][index]), 2) for name in STAGES}
        told.append(
            {
                "model": looked.model(index),
                "device": looked.device(index),
                "requests": len(index),
                "p50_ms": round(median(total), 2),
                "p99_ms": round(float(np.nanquantile(total, 0.99)), 2),
                "batch": round(mean(ok["batch_size"][index]), 2),
                **stages,
                "elsewhere_ms": round(mean(looked.gap[index]), 2),
            }
        )
    return told


def as_json(looked: Looked, found: Sequence[Finding], read: Read) -> dict[str, Any]:
    """The whole report."""
    rows = looked.all
    return {
        "requests": len(rows),
        "answered": len(looked.ok),
        "lines": read.lines,
        "broken_lines": read.broken,
        "from_unix_s": float(rows.times.min()) if len(rows) else None,
        "to_unix_s": float(rows.times.max()) if len(rows) else None,
        "findings": [
            {**one.to_dict(), "lines": [read.place(place) for place in one.places]} for one in found
        ],
        "by_model_and_device": stand(looked),
    }


def rendered(looked: Looked, found: Sequence[Finding], read: Read) -> RenderableType:
    """For a terminal."""
    parts: list[RenderableType] = [_heading(looked, read)]
    if len(looked.ok):
        parts.append(_table(looked))
    if len(looked.all) and not found:
        parts.append(Text("Nothing stands out: no cause takes a tenth of the time.", "green"))
    for number, one in enumerate(found, 1):
        parts.append(_finding(number, one, read))
    return Group(*parts)


def _heading(looked: Looked, read: Read) -> Text:
    rows = looked.all
    if not len(rows):
        return Text(f"No request in {read.lines:,} lines.")
    minutes = (float(rows.times.max()) - float(rows.times.min())) / 60
    text = f"{len(rows):,} requests in {minutes:.1f} minutes, {len(looked.ok):,} answered"
    if read.broken:
        text += f"; {read.broken:,} lines can't be read"
    return Text(text + "\n")


def _table(looked: Looked) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("model")
    table.add_column("device")
    heads = ("requests", "p50", "p99", "load", "queue", "decode", "prep", "pass", "post", "else")
    for head in (*heads, "batch"):
        table.add_column(head, justify="right")
    for one in stand(looked):
        table.add_row(
            Text(one["model"]),
            Text(one["device"]),
            f"{one['requests']:,}",
            *(
                f"{one[name]:.0f}" if one[name] >= 10 else f"{one[name]:.1f}"
                for name in (
                    "p50_ms", "p99_ms", "load_wait_ms", "queue_ms", "decode_ms", "preprocess_ms",
                    "inference_ms", "postprocess_ms", "elsewhere_ms",
                )
            ),
            f"{one['batch']:.1f}",
        )  # fmt: skip
    table.caption = "milliseconds; stages are means"
    return table


def _finding(number: int, one: Finding, read: Read) -> RenderableType:
    head = Text.assemble(
        f"\n{number}. ",
        (f"{one.severity} ", COLOURS[one.severity]),
        (one.title, "bold"),
        f"  {one.cause}",
    )
    cost = (
        f"It costs {one.cost_ms:.0f} ms of each of {one.rows:,} requests, "
        f"{100 * one.share:.0f} % of their time: that is the gain to expect at most."
    )
    lines = ", ".join(read.place(place) for place in one.places)
    body = [one.evidence[0].upper() + one.evidence[1:] + ".", cost, f"Rests on: {lines}"]
    changes = [Text(f"  {change}", "green") for change in one.change]
    return Group(head, Padding(Text("\n".join(body)), (0, 0, 0, 3)), *changes)

"""Tables of the results of Detect."""

import math
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from yolopool.cli.tables import plain_table
from yolopool.client.detections import Detections, Timing
from yolopool.client.drawing import VISIBLE
from yolopool.client.masks import Mask


def results(found: Detections, name: str) -> Table:
    """A line for each object with its mask, keypoints or rotation, or for each class of a
    classification.
    """
    title = f"[bold]{escape(name)}[/] {found.model}, {found.image_size[0]}x{found.image_size[1]} px"
    if found.image_damage:
        title += f", [red]damaged: {escape(found.image_damage)}[/]"
    if found.classification is not None:
        table = plain_table("CLASS", "PROBABILITY ", title=title)
        top = found.classification
        for class_name, probability in zip(top.class_name, top.probability, strict=True):
            table.add_row(escape(class_name), f"{probability:.4f}")
        return table
    upright = ("X_MIN ", "Y_MIN ", "X_MAX ", "Y_MAX ")
    box = upright if found.xywhr is None else ("X ", "Y ", "WIDTH ", "HEIGHT ", "DEGREES ")
    more = {"segment": ("MASK ",), "pose": ("KEYPOINTS ",)}.get(found.task, ())
    table = plain_table("CLASS", "CONFIDENCE ", *box, *more, title=title)
    for item in found:
        places = item.xyxy if item.xywhr is None else _degrees(item.xywhr.tolist())
        cells = [f"{value:.1f}" for value in places]
        if item.mask is not None:
            cells.append(_mask(item.mask))
        elif item.keypoints is not None:
            cells.append(_seen(item.keypoints.tolist()))
        table.add_row(escape(item.class_name), f"{item.confidence:.3f}", *cells)
    return table


def _degrees(xywhr: list[float]) -> list[float]:
    return [*xywhr[:4], math.degrees(xywhr[4])]


def _mask(mask: Mask) -> str:
    if mask.counts:
        return f"{int(mask.to_array().sum())} px"
    points = sum(len(part) for part in mask.polygons)
    return f"{points} points" if len(mask.polygons) == 1 else f"{points} in {len(mask.polygons)}"


def _seen(points: list[list[float]]) -> str:
    seen = sum(len(point) < 3 or point[2] >= VISIBLE for point in points)
    return f"{seen} of {len(points)}"


def timing(rows: Sequence[tuple[str, Detections]]) -> Table:
    """Where the time went, ms, a line a request."""
    stages = [name.removesuffix("_ms") for name in Timing.__slots__]
    short = {"load_wait": "load", "preprocess": "pre", "inference": "infer", "postprocess": "post"}
    table = plain_table("IMAGE", "MODEL", "N ", *(f"{short.get(s, s).upper()} " for s in stages))
    for name, found in rows:
        values = [f"{value:.1f}" for value in found.timing.to_dict().values()]
        table.add_row(escape(name), found.model, str(len(found)), *values)
    return table

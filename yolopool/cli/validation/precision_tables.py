"""An evaluation as tables, and its curves as an SVG."""

from collections.abc import Sequence

import numpy as np
from rich.markup import escape
from rich.table import Table

from yolopool.cli import svg_chart
from yolopool.cli.tables import plain_table
from yolopool.evaluation.average_precision import RECALLS, ClassPrecision
from yolopool.evaluation.confusion import MIN_CONFIDENCE, MIN_OVERLAP
from yolopool.evaluation.tally import Evaluation

# A wider matrix fits no terminal: the classes that were confused most are told instead.
MAX_MATRIX, MAX_CONFUSIONS = 12, 20
NOTHING = "(nothing)"


def summary(found: Evaluation) -> str:
    """What the tables are of."""
    return (
        f"{found.images} images; precision and recall at confidence "
        f"{found.precision.confidence:.2f}; below, what was found for what, at confidence "
        f"{MIN_CONFIDENCE:g} and overlap {MIN_OVERLAP:g}"
    )


def precision(found: Evaluation, names: Sequence[str]) -> Table:
    """A line for all classes, and one for each class that occurs."""
    whole = found.precision
    table = plain_table("CLASS", "OBJECTS ", "PRECISION ", "RECALL ", "MAP50 ", "MAP50-95 ")
    objects = sum(one.truths for one in whole.classes)
    means = (whole.precision, whole.recall, whole.map50, whole.map50_95)
    table.add_row("all", str(objects), *(f"{value:.3f}" for value in means), style="bold")
    for one in whole.classes:
        values = (one.precision, one.recall, one.ap50, one.ap50_95)
        cells = (f"{value:.3f}" for value in values)
        table.add_row(escape(names[one.class_id]), str(one.truths), *cells)
    return table


def confusion(found: Evaluation, names: Sequence[str]) -> Table:
    """Counts by the class that was found and the true one; of many classes the confused pairs."""
    words, counts = [*names, NOTHING], found.confusion
    if len(names) <= MAX_MATRIX:
        table = plain_table("FOUND", *(f"{escape(word)} " for word in words))
        for word, row in zip(words, counts.tolist(), strict=True):
            table.add_row(escape(word), *(str(count) if count else "-" for count in row))
        return table
    table = plain_table("FOUND", "TRUE", "OBJECTS ")
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    for place in np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSIONS]:
        row, column = divmod(int(place), len(words))
        if wrong[row, column]:
            table.add_row(escape(words[row]), escape(words[column]), str(wrong[row, column]))
    return table


def picture(found: Evaluation, names: Sequence[str], title: str) -> str:
    """Precision by recall at IoU 0.5: the mean of the classes, and those with the least precision
    as far as there are colours.
    """
    classes = found.precision.classes
    drawn = sorted(classes, key=lambda one: one.ap50)[: len(svg_chart.COLOURS) - 1]
    mean = np.mean([one.curve for one in classes], axis=0)
    curves = {f"all classes {found.precision.map50:.3f}": mean.tolist()}
    for one in drawn:
        curves[_label(one, names)] = one.curve.tolist()
    ticks = [f"{recall:.1f}" if at % 20 == 0 else "" for at, recall in enumerate(RECALLS)]
    return svg_chart.lines_chart(
        curves, f"{title}: precision by recall, IoU 0.5", "recall", "precision",
        x_names=ticks, falling=True,
    )  # fmt: skip


def _label(one: ClassPrecision, names: Sequence[str]) -> str:
    """Names of classes may be alike: the id tells them apart."""
    return f"{names[one.class_id]} ({one.class_id}) {one.ap50:.3f}"

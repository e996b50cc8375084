"""An evaluation as tables and as a picture."""

import io
import xml.etree.ElementTree as ET

import numpy as np
from rich.console import Console

from yolopool.cli.validation import precision_tables
from yolopool.evaluation.tally import Evaluation, Found, Tally
from yolopool.evaluation.truths import read_lines


def evaluation(classes: int) -> Evaluation:
    """Of class 0 one object is found, of the last one that is taken for class 0."""
    tally = Tally("detect", classes)
    boxes = np.array([[40.0, 40, 60, 60], [0, 0, 20, 20]])
    found = Found(boxes, np.array([0.9, 0.8]), np.array([0, 0]), (100, 100))
    text = f"0 .5 .5 .2 .2\n{classes - 1} .1 .1 .2 .2"
    tally.add(found, read_lines(text, "a", "detect", classes))
    return tally.evaluation()


def printed(table: object) -> list[list[str]]:
    shown = Console(file=io.StringIO(), width=200)
    shown.print(table)
    assert isinstance(shown.file, io.StringIO)
    return [line.split() for line in shown.file.getvalue().splitlines() if line.strip()]


def test_a_line_for_all_and_one_for_each_class_that_occurs() -> None:
    rows = printed(precision_tables.precision(evaluation(3), ["a[b]", "c", "d"]))
    assert [row[0] for row in rows] == ["CLASS", "all", "a[b]", "d"]
    assert rows[1][1] == "2"
    assert (rows[2][1], rows[2][3:]) == ("1", ["1.000", "0.995", "0.995"])
    assert rows[3][4:] == ["0.000", "0.000"]


def test_few_classes_are_a_matrix_and_of_many_the_confused_are_told() -> None:
    rows = printed(precision_tables.confusion(evaluation(3), ["a", "b", "c"]))
    assert rows == [
        ["FOUND", "a", "b", "c", "(nothing)"],
        ["a", "1", "-", "1", "-"],
        ["b", "-", "-", "-", "-"],
        ["c", "-", "-", "-", "-"],
        ["(nothing)", "-", "-", "-", "-"],
    ]
    names = [f"class{n}" for n in range(30)]
    rows = printed(precision_tables.confusion(evaluation(30), names))
    assert rows == [["FOUND", "TRUE", "OBJECTS"], ["class0", "class29", "1"]]


def test_the_picture_has_the_mean_and_the_least_precise_classes() -> None:
    tally = Tally("detect", 9)
    text = "\n".join(f"{n} .5 .5 .2 .2" for n in range(9))
    box = np.array([[40.0, 40, 60, 60]])
    found = Found(box, np.array([0.9]), np.array([8]), (100, 100))
    tally.add(found, read_lines(text, "a", "detect", 9))
    drawn = precision_tables.picture(tally.evaluation(), [f"<{n}>" for n in range(9)], "x & y")
    root = ET.fromstring(drawn)
    lines = root.findall("{*}polyline")
    words = [one.text for one in root.findall("{*}text")]
    assert len(lines) == 6
    assert "all classes 0.111" in words
    assert "<0> (0) 0.000" in words
    assert "<8> (8) 0.995" not in words
    assert "x & y: precision by recall, IoU 0.5" in words

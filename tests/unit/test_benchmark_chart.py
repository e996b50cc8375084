"""The curve: it is XML, its axis begins at zero, and its points lie where the values say."""

import xml.etree.ElementTree as ET

import pytest

from benchmarks.harness.chart import HEIGHT, TOP, line_chart


def test_a_curve_is_drawn_to_scale() -> None:
    root = ET.fromstring(line_chart([0.0, 50.0, 100.0], "a < b", "cycle", "MiB"))
    tag = "{http://www.w3.org/2000/svg}"
    points = root.find(f"{tag}polyline")
    assert points is not None
    heights = [float(point.split(",")[1]) for point in points.attrib["points"].split()]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2])
    assert TOP < heights[2] < heights[0] < HEIGHT
    words = [text.text for text in root.iter(f"{tag}text")]
    assert {"a < b", "cycle", "MiB", "0", "1", "3"} <= set(words)


def test_one_value_is_no_curve() -> None:
    with pytest.raises(ValueError, match="two values"):
        line_chart([1.0], "", "", "")

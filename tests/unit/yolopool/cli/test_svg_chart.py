"""The curve: it is XML, its axis begins at zero, and its points lie where the values say."""

import xml.etree.ElementTree as ET

import pytest

from yolopool.cli.svg_chart import COLOURS, HEIGHT, TOP, WIDTH, line_chart, lines_chart, stacked


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


def test_curves_share_their_axes_and_have_their_names() -> None:
    root = ET.fromstring(lines_chart({"a": [1.0, 1.0], "b": [2.0, 2.0]}, "", "", ""))
    tag = "{http://www.w3.org/2000/svg}"
    first, second = (line.attrib["points"] for line in root.iter(f"{tag}polyline"))
    heights = [float(points.split(",")[1].split()[0]) for points in (first, second)]
    assert heights[0] > heights[1]
    assert {"a", "b"} <= {text.text for text in root.iter(f"{tag}text")}


def test_more_curves_than_colours_are_refused() -> None:
    many = {str(number): [1.0, 2.0] for number in range(len(COLOURS) + 1)}
    with pytest.raises(ValueError, match="more than the"):
        lines_chart(many, "", "", "")


def test_a_curve_may_end_early_and_have_names_on_the_axis() -> None:
    chart = lines_chart(
        {"long": [1.0, 2.0, 4.0], "short": [0.25, 0.5]}, "", "", "", x_names="abc", marked=1
    )
    root = ET.fromstring(stacked([chart, chart]))
    assert root.attrib["viewBox"] == f"0 0 {WIDTH} {2 * HEIGHT}"
    tag = "{http://www.w3.org/2000/svg}"
    first, second = root.findall(f"{tag}svg")
    assert (first.attrib["y"], second.attrib["y"]) == ("0", str(HEIGHT))
    long, short = (line.attrib["points"].split() for line in first.iter(f"{tag}polyline"))
    assert [point.split(",")[0] for point in short] == [point.split(",")[0] for point in long[:2]]
    words = [text.text for text in first.iter(f"{tag}text")]
    assert {"a", "b", "c", "0", "1", "2", "3", "4"} <= set(words)
    (mark,) = (line for line in first.iter(f"{tag}line") if "stroke-dasharray" in line.attrib)
    assert mark.attrib["x1"] == long[1].split(",")[0]


@pytest.mark.parametrize(("top", "last"), [(0.03, "0.03"), (7.0, "6"), (900.0, "800")])
def test_heights_are_round_numbers(top: float, last: str) -> None:
    root = ET.fromstring(line_chart([0.0, top], "", "", ""))
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert last in words

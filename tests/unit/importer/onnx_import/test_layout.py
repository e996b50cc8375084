"""The layout of an ONNX answer: recognised, asked for or refused, and never guessed wrongly."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from importer.onnx_import.layout import Decision, Known, Layout, Output, Undecided, decide

GRIDS = [(8, 16, 32), (16, 32), (8, 16, 32, 64)]


def cells(size: tuple[int, int], steps: tuple[int, ...]) -> int:
    return sum((size[0] // step) * (size[1] // step) for step in steps)


def graph(layout: Layout, classes: int, rows: int | None, batch: int | None) -> tuple[Output, ...]:
    """The outputs that a graph of a layout really has."""
    shapes: dict[Layout, list[tuple[str, tuple[int | None, ...]]]] = {
        Layout.OBJECTNESS: [("output", (batch, rows, 5 + classes))],
        Layout.PLAIN: [("output0", (batch, 4 + classes, rows))],
        Layout.END_TO_END: [("output0", (batch, rows, 6))],
        Layout.PAIR: [("boxes", (batch, rows, 1, 4)), ("confs", (batch, rows, classes))],
    }
    return tuple(Output(name, shape) for name, shape in shapes[layout])


@st.composite
def files(draw: st.DrawFn) -> tuple[Layout, Known, bool]:
    """A file of a known layout as an exporter may write it, and whether the number of classes that
    is believed is its own.
    """
    layout = draw(st.sampled_from(Layout))
    classes = draw(st.sampled_from([1, 2, 3, 20, 79, 80, 81, 252]) | st.integers(1, 400))
    side = st.integers(1, 20).map(lambda n: 64 * n)
    size = (draw(side), draw(side))
    free_size, in_file = draw(st.booleans()), draw(st.booleans())
    if layout is Layout.END_TO_END:
        rows = draw(st.sampled_from([100, 252, 300]) | st.integers(1, 3000))
    else:
        anchors = 1 if layout is Layout.PLAIN else 3
        rows = anchors * cells(size, draw(st.sampled_from(GRIDS)))
    said_rows = None if free_size or draw(st.booleans()) else rows
    believed = classes if in_file else draw(st.just(classes) | st.integers(1, 400))
    final = draw(st.sampled_from([None, layout is Layout.END_TO_END])) if in_file else None
    known = Known(
        outputs=graph(layout, classes, said_rows, draw(st.sampled_from([None, 1, 4]))),
        classes=believed,
        size=None if free_size else size,
        names_in_file=in_file,
        final=final,
        suppresses=draw(st.booleans()),
    )
    return layout, known, believed == classes


def outcome(known: Known, asked: Layout | None) -> Decision | None:
    try:
        return decide(known, asked)
    except Undecided:
        return None


@given(files())
def test_a_guess_is_right_or_not_made(file: tuple[Layout, Known, bool]) -> None:
    layout, known, _ = file
    right = Decision(layout, tuple(one.name for one in known.outputs))
    assert outcome(known, None) in {right, None}


@given(files())
def test_what_is_asked_for_and_fits_is_taken(file: tuple[Layout, Known, bool]) -> None:
    layout, known, honest = file
    if honest:
        assert decide(known, layout).layout is layout


@given(files(), st.sampled_from(Layout))
def test_what_contradicts_the_file_is_refused(
    file: tuple[Layout, Known, bool], asked: Layout
) -> None:
    layout, known, honest = file
    found = outcome(known, asked)
    if found is None:
        return
    assert found.layout is asked
    # One class makes rows of six with objectness too; nothing else is taken for another.
    widths = {one.shape[-1] for one in known.outputs}
    assert asked is layout or widths == {6} or not honest


@given(files())
def test_raw_maps_beside_the_answer_change_nothing(file: tuple[Layout, Known, bool]) -> None:
    layout, known, _ = file
    if layout is Layout.PAIR:
        return
    raw = tuple(Output(f"p{n}", (1, 3, 80 // n, 80 // n, 85)) for n in (1, 2, 4))
    more = replace(known, outputs=(*known.outputs, *raw))
    assert outcome(more, None) == outcome(known, None)


YOLO_640 = Known((), 80, (640, 640), False, None, False)
SEEN = {
    "YOLOv5 of its repository": (
        replace(YOLO_640, outputs=(Output("output0", (1, 25200, 85)),)),
        Layout.OBJECTNESS,
    ),
    "YOLOv5 with free sizes, named": (
        Known((Output("output0", (None, None, 85)),), 80, None, True, None, False),
        Layout.OBJECTNESS,
    ),
    "YOLOv7 with maps": (
        replace(
            YOLO_640,
            outputs=(Output("output", (1, 25200, 85)), Output("534", (1, 3, 80, 80, 85))),
        ),
        Layout.OBJECTNESS,
    ),
    "YOLOv7 with suppression": (
        Known((Output("output", (None, 7)),), 80, (640, 640), False, None, True),
        Layout.END_TO_END,
    ),
    "YOLOv8": (
        Known((Output("output0", (1, 84, 8400)),), 80, (640, 640), True, False, False),
        Layout.PLAIN,
    ),
    "YOLOv8 of one class with free sizes": (
        Known((Output("output0", (None, 5, None)),), 1, None, True, False, False),
        Layout.PLAIN,
    ),
    "YOLOv10": (
        Known((Output("output0", (1, 300, 6)),), 80, (640, 640), True, True, False),
        Layout.END_TO_END,
    ),
    "YOLOv4": (
        Known(
            (Output("boxes", (1, 10647, 1, 4)), Output("confs", (1, 10647, 80))),
            80, (416, 416), False, None, False,
        ),
        Layout.PAIR,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SEEN)
def test_files_as_they_are_met(kind: str) -> None:
    known, layout = SEEN[kind]
    assert decide(known, None).layout is layout


UNCLEAR = {
    "final boxes that nobody calls so": (
        replace(YOLO_640, outputs=(Output("output0", (1, 300, 6)),)),
        "--layout end-to-end",
    ),
    "one class, free sizes": (
        Known((Output("output", (1, None, 6)),), 1, None, True, None, False),
        "--layout objectness or --layout end-to-end",
    ),
    "YOLOX: one anchor a cell": (
        replace(YOLO_640, outputs=(Output("output", (1, 8400, 85)),)),
        "--layout objectness",
    ),
    "free sizes and names from a person": (
        Known((Output("output", (1, None, 85)),), 80, None, False, None, False),
        "--layout objectness",
    ),
    "transposed": (replace(YOLO_640, outputs=(Output("output", (1, 8400, 84)),)), "no layout"),
    "maps alone": (replace(YOLO_640, outputs=(Output("p3", (1, 255, 80, 80)),)), "--grid"),
    "masks": (replace(YOLO_640, outputs=(Output("output0", (1, 116, 8400)),)), "class names"),
    "no shape": (replace(YOLO_640, outputs=(Output("output", ()),)), "no layout"),
    "plain and final by its metadata": (
        Known((Output("output0", (1, 84, 8400)),), 80, (640, 640), True, True, False),
        "final by its metadata",
    ),
}


@pytest.mark.parametrize("kind", UNCLEAR)
def test_what_is_unclear_says_what_to_do(kind: str) -> None:
    known, words = UNCLEAR[kind]
    with pytest.raises(Undecided, match=words):
        decide(known, None)

"""Recognises the layout of an ONNX graph's output from its shapes and metadata.

Pure. A form is taken only where exactly one fits and something besides its width speaks for it;
else the user has to say it, and is refused where the shapes contradict. A guess that could be
wrong is no answer: boxes in the wrong columns look like boxes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

# (b, c, n): None for a size that the file leaves open.
Shape = tuple[int | None, ...]

MAX_FINAL_BOXES = 3_000
# Strides in pixels of the grids of heads: usually three; two for tiny models, four for models with
# small (4) or large (64) objects.
_GRIDS = ((8, 16, 32), (16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
_ANCHORS = 3  # in each cell, for families with objectness


class Layout(Enum):
    """The layouts by the name that users give. nc is the number of classes, n of rows."""

    # (b, n, 5 + nc): centre, size, objectness, classes. YOLOv5 of its own repository, YOLOv7.
    OBJECTNESS = "objectness"
    # (b, 4 + nc, n): centre, size, classes. YOLOv8 and later.
    PLAIN = "plain"
    # (b, n, 6): corners, confidence, class of final boxes; or (n, 7): image, corners, class,
    # confidence, as YOLOv7 exports with suppression inside.
    END_TO_END = "end-to-end"
    # (b, n, 1, 4) and (b, n, nc): corners as shares of the input, classes. YOLOv4.
    PAIR = "pair"


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a graph."""

    name: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about a graph without running it.

    `size`: (height, width) of the input in pixels, None where it is free. `names_in_file`: the
    number of classes is the file's own word. `final`: whether the file says that its boxes are
    final, None where it says nothing. `suppresses`: the graph has an operator of suppression.
    """

    outputs: tuple[Output, ...]
    classes: int
    size: tuple[int, int] | None
    names_in_file: bool
    final: bool | None
    suppresses: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """The layout, and the outputs that it reads, in order."""

    layout: Layout
    outputs: tuple[str, ...]


class Undecided(Exception):
    """The layout cannot be decided; the message says what the user can do."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    decision: Decision
    sure: bool  # the file says the width of its rows
    proven: bool = False  # by more than the width of its rows
    denied: bool = False  # by a number of rows that no grid gives


def decide(known: Known, asked: Layout | None) -> Decision:
    """The form of the answer. Raises Undecided where none fits, several do, the one that fits is
    not proven and was not asked for, or what was asked for does not fit.
    """
    found = [fit for fit in _candidates(known) if not _contradicted(fit, known)]
    # Exports leave the sizes of images and rows free, hardly ever the width of a row.
    found = [fit for fit in found if fit.sure] or found
    if asked is not None:
        said = [fit for fit in found if fit.decision.layout is asked]
        if len(said) != 1:
            raise Undecided(
                f"its outputs {_shown(known)} are not of the layout {asked.value} with "
                f"{known.classes} classes{_final_word(known)}: {_expected(asked, known.classes)}"
            )
        return said[0].decision
    likely = [fit for fit in found if fit.sure and not fit.denied]
    if len(likely) == 1 and likely[0].proven:
        return likely[0].decision
    if not found:
        raise Undecided(
            f"its outputs {_shown(known)} are of no layout that is known for {known.classes} "
            f"classes{_final_word(known)}: check the class names, or export it with decoded boxes "
            "(YOLOv5: export.py; YOLOv7: export.py --grid; YOLOv8 and later: format=onnx)"
        )
    words = " or ".join(f"--layout {fit.decision.layout.value}" for fit in found)
    raise Undecided(
        f"its outputs {_shown(known)} with {known.classes} classes do not say for sure how boxes "
        f"are laid out: say it with {words}"
    )


def _candidates(known: Known) -> Iterator[_Candidate]:
    rows = [output for output in known.outputs if len(output.shape) in (2, 3)]
    if (pair := _pair(known, rows)) is not None:
        yield pair
    if len(rows) != 1:
        return  # more outputs would be unread, or the masks of another task
    (output,) = rows
    if len(output.shape) == 2:
        if _may_be(output.shape[1], 7):
            sure = output.shape[1] == 7
            yield _final(output, sure, proven=sure and known.suppresses)
        return
    _, middle, last = output.shape
    if _may_be(middle, 4 + known.classes):
        sure = middle == 4 + known.classes
        yield _counted(Layout.PLAIN, (output.name,), last, 1, sure, known)
    if _may_be(last, 5 + known.classes):
        sure = last == 5 + known.classes
        yield _counted(Layout.OBJECTNESS, (output.name,), middle, _ANCHORS, sure, known)
    if _may_be(last, 6) and (middle is None or middle <= MAX_FINAL_BOXES):
        sure = last == 6
        yield _final(output, sure, proven=sure and known.final is True)


def _pair(known: Known, rows: list[Output]) -> _Candidate | None:
    corners = [
        output
        for output in known.outputs
        if len(output.shape) == 4 and _may_be(output.shape[2], 1) and _may_be(output.shape[3], 4)
    ]
    scores = [row for row in rows if len(row.shape) == 3 and _may_be(row.shape[2], known.classes)]
    if len(corners) != 1 or len(scores) != 1 or len(known.outputs) != 2:
        return None
    boxes, classes = corners[0], scores[0]
    if None not in (boxes.shape[1], classes.shape[1]) and boxes.shape[1] != classes.shape[1]:
        return None
    sure = boxes.shape[2:] == (1, 4) and classes.shape[2] == known.classes
    names = (boxes.name, classes.name)
    return _counted(Layout.PAIR, names, boxes.shape[1], _ANCHORS, sure, known)


def _final(output: Output, sure: bool, proven: bool) -> _Candidate:
    return _Candidate(Decision(Layout.END_TO_END, (output.name,)), sure, proven)


def _counted(
    layout: Layout, names: tuple[str, ...], rows: int | None, a_cell: int, sure: bool, known: Known
) -> _Candidate:
    """A layout whose rows are the cells of grids, so that their number is evidence for it."""
    counts = {a_cell * cells for cells in _cells(known.size)} if known.size else set()
    checked = rows is not None and bool(counts)
    proven = sure and (rows in counts if checked else known.names_in_file)
    return _Candidate(Decision(layout, names), sure, proven, checked and rows not in counts)


def _cells(size: tuple[int, int]) -> Iterator[int]:
    height, width = size
    for steps in _GRIDS:
        if not (height % steps[-1] or width % steps[-1]):
            yield sum((height // step) * (width // step) for step in steps)


def _contradicted(candidate: _Candidate, known: Known) -> bool:
    """Whether the file's metadata contradicts the layout."""
    is_final = candidate.decision.layout is Layout.END_TO_END
    return known.final is not None and known.final != is_final


def _may_be(found: int | None, wanted: int) -> bool:
    return found is None or found == wanted


def _shown(known: Known) -> str:
    shapes = (
        f"{output.name[:40]} ({', '.join('?' if n is None else str(n) for n in output.shape)})"
        for output in known.outputs[:6]
    )
    return ", ".join(shapes) + (", ..." if len(known.outputs) > 6 else "")


def _final_word(known: Known) -> str:
    words = {None: "", True: ", final by its metadata", False: ", not final by its metadata"}
    return words[known.final]


def _expected(layout: Layout, classes: int) -> str:
    return {
        Layout.OBJECTNESS: f"that is one output (b, n, {5 + classes})",
        Layout.PLAIN: f"that is one output (b, {4 + classes}, n)",
        Layout.END_TO_END: "that is one output (b, n, 6) or (n, 7)",
        Layout.PAIR: f"that is two outputs (b, n, 1, 4) and (b, n, {classes})",
    }[layout]

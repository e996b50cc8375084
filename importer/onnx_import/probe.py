"""Tries what an ONNX file declares: runs the graph on a few pictures and compares the answers.

A declaration that the graph does not keep is bounded to what it keeps, with a warning, or the file
is refused. What no picture shows is not believed either.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from importer.onnx_import import evidence
from importer.onnx_import.graph import Input
from importer.onnx_import.session import PassFailed, Session
from importer.refusal import UNSUPPORTED, ImportRefused
from yolopool.graphs import answers, pictures, self_test
from yolopool.graphs.answers import Form, Rows, Unreadable
from yolopool.v1.pack_pb2 import SelfTest

# Batches that a graph may have inside though it declares any.
_FIXED_INSIDE = (2, 4, 8, 16)
# Pictures in the pass of many: of graphs that suppress inside, more than a worker's largest batch,
# since their loops over images are often unrolled to the batch they were exported with.
_MANY, _MANY_SUPPRESSED = 5, 17
# Pictures of free size that take more operations than this are tried smaller, and one as large.
_MAX_GFLOPS = 100.0
# The share of the memory limit that the activations of one pass may take.
_MEMORY_SHARE = 0.25
# Largest difference between two answers to one picture, scores and shares of the picture alike.
_ROUNDING = {"float32": 2e-3, "uint8": 2e-3, "float16": 2e-2}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be tried. `sizes`: sides of squares in pixels, the version's own first; `guesses`:
    of others that the graph may keep, if the own is a guess itself. `rectangles`: images of other
    shapes are to be served. `gflops` and `activation_bytes` are those of one image of its own size.
    """

    image: Input
    form: Form
    scale: float
    sizes: Sequence[int]
    guesses: Sequence[int]
    rectangles: bool
    stride: int
    suppresses: bool
    gflops: float
    activation_bytes: int
    memory_bytes: int

    @property
    def fits_whole(self) -> bool:
        """Whether all is tried at the version's own size."""
        return bool(self.image.height) or self.gflops <= _MAX_GFLOPS

    @property
    def work_size(self) -> int:
        """The side of the squares that most is tried with."""
        share = 1.0 if self.fits_whole else math.sqrt(_MAX_GFLOPS / self.gflops)
        return max(1, int(self.sizes[0] * share) // self.stride) * self.stride

    def room(self, size: tuple[int, int]) -> int:
        """How many pictures of (height, width) fit the memory at once; one is always tried."""
        one = self.activation_bytes * size[0] * size[1] / self.sizes[0] ** 2
        return max(1, int(_MEMORY_SHARE * self.memory_bytes / max(1.0, one)))


@dataclass(frozen=True, slots=True)
class Found:
    """What the graph keeps: its input as far as it may be used, what to warn of, what was tried."""

    image: Input
    warnings: tuple[str, ...]
    tried: tuple[str, ...]
    self_test: SelfTest


def tried(session: Session, asked: Asked) -> Found:
    """Raises ImportRefused if no use of the graph is right, MemoryError."""
    probe = _Probe(session, asked)
    probe.find_lone_pass()
    probe.try_company()
    probe.try_shapes()
    return probe.found()


class _Wrong(Exception):
    """A pass contradicts what was declared; the message says how, as a sentence's end."""


class _Probe:
    def __init__(self, session: Session, asked: Asked) -> None:
        self._session, self._asked = session, asked
        self._image, self._form = asked.image, asked.form
        self._size = asked.work_size
        self._tolerance = _ROUNDING[asked.image.dtype]
        self._scale = asked.scale
        self._alone: list[Rows] = []
        self._warnings: list[str] = []
        self._tried: list[str] = []

    def found(self) -> Found:
        kept = self_test.kept(self._form, self._alone[0])
        height, width = self._shape(self._size)
        return Found(
            self._image,
            tuple(self._warnings),
            tuple(self._tried),
            SelfTest(scene=0, height=height, width=width, rows=kept),
        )

    def _shape(self, size: int) -> tuple[int, int]:
        """(height, width) of a picture of a side: a square, if the graph takes any."""
        image = self._image
        return (image.height, image.width) if image.height else (size, size)

    def find_lone_pass(self) -> None:
        """Finds a size, and a batch if it is none, at which the graph answers rightly."""
        image, wrong = self._image, ""
        others = () if image.height else (self._asked.sizes[0], *self._asked.guesses)
        batches = (1, *_FIXED_INSIDE) if not image.batch else (image.batch,)
        for size in dict.fromkeys((self._size, *others)):
            for batch in batches:
                try:
                    self._alone = self._scenes(self._shape(size), batch)
                    self._check(self._alone, self._shape(size), batch)
                except _Wrong as error:
                    wrong = wrong or str(error)
                    continue
                self._settle(size, batch)
                return
        raise ImportRefused(
            UNSUPPORTED,
            "the graph does not answer as it declares: on pictures of "
            f"{_said(self._shape(self._size))} pixels {wrong}: export it again from its .pt, and "
            "check its layout and class names",
        )

    def _settle(self, size: int, batch: int) -> None:
        seen = evidence.response(self._alone, self._form.is_final) > evidence.ANSWERS
        if not seen:
            self._warnings.append(
                "the graph gives the same answer to all pictures that it was tried on: check that "
                "it finds anything in yours"
            )
        if self._wants_bytes(size, batch):
            self._warnings.append(
                "the graph finds the objects of its pictures in values of 0 to 255, and hardly in "
                "the 0 to 1 that it is given: export it with its normalisation inside"
            )
        self._tried.append(
            f"{len(self._alone)} pictures of {_said(self._shape(size))} pixels: numbers are finite "
            "and of the layout"
            + (", boxes lie in the picture" if seen and self._form.has_boxes else "")
        )
        if size != self._size:
            self._bound_sides(size, f"it is wrong at {self._size}x{self._size}")
        if not self._image.batch and batch > 1:
            self._image = replace(self._image, batch=batch)
            self._warnings.append(
                f"the file declares any batch, the graph takes {batch} images alone: fewer are "
                "filled up; export it with a free batch (dynamic=True)"
            )

    def _wants_bytes(self, size: int, batch: int) -> bool:
        """Whether a graph that is given floats of 0..1 finds nothing, and of 0..255 all objects."""
        if self._asked.scale == 1 or not self._form.has_boxes or self._form.is_final:
            return False
        if max(float(rows.confidence.max(initial=0)) for rows in self._alone) > 0.05:
            return False
        self._scale = 1.0
        try:
            scenes = self._scenes(self._shape(size), batch)
        except _Wrong:
            return False
        finally:
            self._scale = self._asked.scale
        sure = all(float(rows.confidence.max(initial=0)) > 0.5 for rows in scenes)
        found = evidence.places(scenes, final=False)
        return sure and found is not None and evidence.are_at(found, np.array(pictures.PLACES[0]))

    def try_company(self) -> None:
        """Tries whether pictures in one pass get the answers that they get alone."""
        if self._image.batch == 1:
            self._tried.append("batch: one image in a pass, as declared")
            return
        size, batch = self._shape(self._size), self._image.batch or 1
        wanted = _MANY_SUPPRESSED if self._asked.suppresses else _MANY
        many = self._image.batch or min(wanted, self._asked.room(size))
        if not self._image.batch and (many == 1 or (many < wanted and self._asked.suppresses)):
            self._bound_batch(many, "a pass of many takes more memory than the import has")
            return
        try:
            alone = {number: rows for number, rows in enumerate(self._alone)}
            alone[pictures.DARK] = self._lone(pictures.DARK, size, batch)
            # Images after the first may get its answer, or none: they need one of their own.
            order = sorted(alone, key=lambda n: (len(alone[n].boxes), n != pictures.DARK))
            self._check_company(alone, [order[place % len(order)] for place in range(many)])
        except _Wrong as error:
            self._bound_batch(many, str(error))
            return
        if self._form.is_final and not len(alone[order[-1]].boxes):
            self._bound_batch(many, "it finds nothing in the pictures, which shows nothing")
            return
        self._tried.append(f"batch: {many} pictures in one pass get the answers they get alone")

    def _check_company(self, alone: Mapping[int, Rows], numbers: Sequence[int]) -> None:
        together = self._pass(numbers, self._shape(self._size))
        for place, (number, rows) in enumerate(zip(numbers, together, strict=True)):
            if not evidence.same(alone[number], rows, self._tolerance, self._form.is_final):
                raise _Wrong(
                    f"picture {place + 1} of {len(numbers)} in one pass gets another answer than "
                    "alone"
                )

    def _bound_batch(self, many: int, wrong: str) -> None:
        if self._image.batch:
            raise ImportRefused(
                UNSUPPORTED,
                f"the graph's passes of {many} images are not to be used: {wrong}: export it again "
                "with batch 1, or with a free batch (dynamic=True)",
            )
        self._image = replace(self._image, batch=1)
        self._warnings.append(
            f"the file declares any batch, but {wrong}: images are run one by one; export it again "
            "with a free batch (dynamic=True) and without suppression inside"
        )
        self._tried.append("batch: bounded to one image in a pass")

    def try_shapes(self) -> None:
        """Tries the other sizes and, if they are to be served, rectangles."""
        if self._image.height:
            return
        size, stride = self._size, self._asked.stride
        shapes = [(other, other) for other in self._asked.sizes if other != size]
        half = max(1, size // stride // 2) * stride
        if self._asked.rectangles and half < size:
            shapes += [(half, size), (size, half)]
        for height, width in shapes:
            try:
                rows = self._scenes((height, width), self._image.batch)
                self._check(rows, (height, width), self._image.batch)
                if self._form.is_final and not all(len(one.boxes) for one in rows):
                    raise _Wrong("it finds nothing in the pictures, which shows nothing")
            except _Wrong as error:
                self._bound_sides(size, f"at {width}x{height} {error}")
                return
        self._tried.append(
            "sizes: "
            + ", ".join(f"{width}x{height}" for height, width in [(size, size), *shapes])
            + " tried"
        )

    def _bound_sides(self, size: int, wrong: str) -> None:
        self._size = size
        self._image = replace(self._image, height=size, width=size)
        self._warnings.append(
            f"the file declares any size, but {wrong}: it is served in squares of {size} pixels "
            "alone; export it again with free sizes (dynamic=True)"
        )
        self._tried.append(f"sizes: bounded to squares of {size} pixels")

    def _check(self, scenes: Sequence[Rows], size: tuple[int, int], batch: int) -> None:
        """Raises _Wrong if what should be boxes in pictures of `size` can't be."""
        if not self._form.has_boxes:
            return
        final = self._form.is_final
        if final and all(evidence.are_sizes(rows) for rows in scenes):
            raise _Wrong("its boxes are centres and sizes, not corners")
        if not final and any(evidence.are_corners(rows) for rows in scenes):
            raise _Wrong("its boxes are corners, not centres and sizes")
        if self._asked.suppresses and final and (count := sum(map(evidence.doubles, scenes))):
            raise _Wrong(f"{count} boxes are found twice: its suppression does nothing")
        if len(scenes) > 1 and evidence.response(scenes, final) <= evidence.ANSWERS:
            return
        for rows in scenes:
            if wrong := evidence.strewn(rows, final):
                raise _Wrong(wrong)
        # By chance a network may see three objects in such places, but not three others too.
        wrong = self._misplaced(scenes, 0, size)
        if wrong and wrong == self._misplaced(self._scenes(size, batch, 1), 1, size):
            raise _Wrong(wrong)

    def _misplaced(self, scenes: Sequence[Rows], group: int, size: tuple[int, int]) -> str:
        found = evidence.places(scenes, self._form.is_final) if len(scenes) > 1 else None
        true = np.array(pictures.PLACES[group])
        return "" if found is None else evidence.misplaced(found, true, size)

    def _scenes(self, size: tuple[int, int], batch: int, group: int = 0) -> list[Rows]:
        """Three scenes: in one pass (`batch` 0), or alone in passes of `batch` of the same. One
        where that is all that time allows.
        """
        numbers = range(group * pictures.SCENES, (group + 1) * pictures.SCENES)
        if not self._asked.fits_whole and min(size) > self._asked.work_size:
            numbers = numbers[:1]
        if not batch and self._asked.room(size) >= len(numbers):
            return self._pass(numbers, size)
        return [self._lone(number, size, batch or 1) for number in numbers]

    def _lone(self, number: int, size: tuple[int, int], batch: int) -> Rows:
        return self._pass([number] * batch, size)[0]

    def _pass(self, numbers: Sequence[int], size: tuple[int, int]) -> list[Rows]:
        """One pass over pictures of `size` (height, width). Raises _Wrong."""
        images = [pictures.scene(number, *size, self._image.channels) for number in numbers]
        try:
            outputs = self._session.run(images, self._scale)
        except PassFailed as error:
            raise _Wrong(f"a pass of {len(images)} fails ({error})") from error
        try:
            return list(answers.read(self._form, outputs, len(images), size))
        except Unreadable as error:
            raise _Wrong(f"the answer to {len(images)} is not of its layout: {error}") from error


def _said(shape: tuple[int, int]) -> str:
    return f"{shape[1]}x{shape[0]}"

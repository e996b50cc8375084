"""What a sweep asks for, checked, and what its passes come to. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from worker.batching.estimates import Shape
from yolopool.errors import DeadlineExceeded, InvalidOption
from yolopool.v1 import bench_pb2

BATCHES = (1, 2, 4, 8, 16)
MOST_BATCH, MOST_POINTS = 256, 256
SMALLEST_SIDE, LARGEST_SIDE = 32, 4096
DEFAULT_S, LONGEST_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """Every batch size, ascending, at every (height, width) shape, each for so many seconds; an
    empty image: one is to be drawn.
    """

    shapes: tuple[Shape, ...]
    batches: tuple[int, ...]
    seconds: float
    image: bytes


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of a batch, in seconds, and the boxes an image it gave."""

    seconds: float
    copy_s: float
    forward_s: float
    nms_s: float
    boxes: float
    workspace_bytes: int = 0


def sweep_of(message: bench_pb2.Sweep, square: Shape, stride: int) -> Sweep:
    """Checks a sweep of a version of this stride, whose images are `square` at most.

    Raises InvalidOption.
    """
    shapes = [(one.height, one.width) for one in message.shapes] or [square]
    for side in (side for shape in shapes for side in shape):
        if side % stride or not SMALLEST_SIDE <= side <= LARGEST_SIDE:
            raise InvalidOption(
                f"a shape has a side of {side} pixels: give multiples of {stride} from "
                f"{SMALLEST_SIDE} to {LARGEST_SIDE}"
            )
    batches = sorted(set(message.batch_sizes or BATCHES))
    if not 1 <= batches[0] <= batches[-1] <= MOST_BATCH:
        raise InvalidOption(f"batch sizes are {batches}: give 1 to {MOST_BATCH}")
    if len(shapes) * len(batches) > MOST_POINTS:
        raise InvalidOption(f"{len(shapes) * len(batches)} points: {MOST_POINTS} are allowed")
    if not 0 <= message.seconds <= LONGEST_S:  # NaN neither
        raise InvalidOption(f"{message.seconds:g} seconds a point: give up to {LONGEST_S:g}")
    seconds = message.seconds or DEFAULT_S
    return Sweep(tuple(dict.fromkeys(shapes)), tuple(batches), seconds, message.image)


def point_of(
    shape: Shape, batch: int, passes: Sequence[Pass], busy: float, done: bool = False
) -> bench_pb2.BenchPoint:
    """The figures of passes (never none); `busy`: share of the time that went to requests; `done`:
    no more will come.
    """
    times = sorted(one.seconds for one in passes)
    middle = median(times)
    return bench_pb2.BenchPoint(
        shape=_shape_to(shape),
        batch=batch,
        passes=len(passes),
        p50_ms=middle * 1000,
        # The nearest rank: of fewer than 100 passes it is the slowest.
        p99_ms=times[math.ceil(0.99 * len(times)) - 1] * 1000,
        images_per_s=batch / middle,
        copy_ms=_median_ms(one.copy_s for one in passes),
        forward_ms=_median_ms(one.forward_s for one in passes),
        nms_ms=_median_ms(one.nms_s for one in passes),
        workspace_bytes=passes[-1].workspace_bytes,
        boxes=fmean(one.boxes for one in passes),
        busy=busy,
        done=done,
    )


def left_out(shape: Shape, batch: int, reason: str, message: str) -> bench_pb2.BenchPoint:
    done = reason != DeadlineExceeded.reason
    return bench_pb2.BenchPoint(
        shape=_shape_to(shape), batch=batch, reason=reason, message=message, done=done
    )


def _shape_to(shape: Shape) -> bench_pb2.Shape:
    return bench_pb2.Shape(height=shape[0], width=shape[1])


def _median_ms(seconds: Iterable[float]) -> float:
    return median(seconds) * 1000

"""Checks what a sweep asks for, and turns its passes into points. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from worker.batching.estimates import Shape
from yolopool.errors import DeadlineExceeded, InvalidOption
from yolopool.v1 import bench_pb2

BATCHES = (1, 2, 4, 8, 16)
MAX_BATCH, MAX_POINTS = 256, 256
MIN_SIDE, MAX_SIDE = 32, 4096
DEFAULT_S, MAX_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """Every batch size, ascending, at every (height, width) shape, for `seconds` each. If `image`
    is empty, a picture is drawn instead.
    """

    shapes: tuple[Shape, ...]
    batches: tuple[int, ...]
    seconds: float
    image: bytes


@dataclass(frozen=True, slots=True)
class Pass:
    """The times of one pass of a batch, and the mean number of boxes on its images."""

    seconds: float
    copy_s: float
    forward_s: float
    nms_s: float
    boxes: float
    workspace_bytes: int = 0


def sweep_of(message: bench_pb2.Sweep, square: Shape, stride: int) -> Sweep:
    """Checks a sweep of a version with this stride; `square` is its largest input shape.

    Raises InvalidOption.
    """
    shapes = [(shape.height, shape.width) for shape in message.shapes] or [square]
    for side in (side for shape in shapes for side in shape):
        if side % stride or not MIN_SIDE <= side <= MAX_SIDE:
            raise InvalidOption(
                f"a shape has a side of {side} pixels: give multiples of {stride} from "
                f"{MIN_SIDE} to {MAX_SIDE}"
            )
    batches = sorted(set(message.batch_sizes or BATCHES))
    if not 1 <= batches[0] <= batches[-1] <= MAX_BATCH:
        raise InvalidOption(f"batch sizes are {batches}: give 1 to {MAX_BATCH}")
    if len(shapes) * len(batches) > MAX_POINTS:
        raise InvalidOption(
            f"the sweep has {len(shapes) * len(batches)} points: at most {MAX_POINTS} are allowed"
        )
    if not 0 <= message.seconds <= MAX_S:  # written so that NaN fails too
        raise InvalidOption(f"{message.seconds:g} seconds a point: give up to {MAX_S:g}")
    seconds = message.seconds or DEFAULT_S
    return Sweep(tuple(dict.fromkeys(shapes)), tuple(batches), seconds, message.image)


def point_of(
    shape: Shape, batch: int, passes: Sequence[Pass], busy: float, done: bool = False
) -> bench_pb2.BenchPoint:
    """The point of at least one pass. `busy` is the share of the device's time that went to
    requests; `done` says that no later point replaces this one.
    """
    times = sorted(run.seconds for run in passes)
    middle = median(times)
    return bench_pb2.BenchPoint(
        shape=_shape_to(shape),
        batch=batch,
        passes=len(passes),
        p50_ms=middle * 1000,
        # Nearest rank: with fewer than 100 passes, p99 is the slowest one.
        p99_ms=times[math.ceil(0.99 * len(times)) - 1] * 1000,
        images_per_s=batch / middle,
        copy_ms=_median_ms(run.copy_s for run in passes),
        forward_ms=_median_ms(run.forward_s for run in passes),
        nms_ms=_median_ms(run.nms_s for run in passes),
        workspace_bytes=passes[-1].workspace_bytes,
        boxes=fmean(run.boxes for run in passes),
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

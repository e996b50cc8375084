"""Suppression alone: ours on the host, the library's fallback, and torchvision's where it imports.

    python -m benchmarks.nms --repeats 30

One thread. All ways must keep the same boxes, which is checked in the same run.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.harness import hardware, results
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.statistics import median

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
# Candidates, and how many of them are kept.
CASES = ((50, 20), (300, 75), (1_000, 100), (1_000, 250), (1_000, 800), (3_000, 750))
IOU = 0.7
SIDE = 640
LIMIT_CASE, LIMIT_MS = (1_000, 250), 2.0


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.nms", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--repeats", type=int, default=30, help="of each case and way")
    return parser


def boxes_of(rng: np.random.Generator, count: int, kept: int) -> tuple[F32, F32]:
    """Boxes (count, 4) round `kept` places that do not overlap, so many to a place by chance, and
    their scores.
    """
    row = int(np.ceil(np.sqrt(kept)))
    step = SIDE / row
    places = rng.permutation(row * row)[:kept]
    corners = np.stack((places % row, places // row), 1) * step
    of = np.concatenate((np.arange(kept), rng.integers(0, kept, count - kept)))
    centre = corners[of] + step / 2 + rng.uniform(-0.03, 0.03, (count, 2)) * step
    size = step * rng.uniform(0.92, 0.95, (count, 2))
    boxes = np.concatenate((centre - size / 2, centre + size / 2), 1)
    return boxes.astype(np.float32), rng.uniform(0.25, 1, count).astype(np.float32)


def ways() -> dict[str, Callable[[F32, F32], I64]]:
    import torch
    from ultralytics.utils.nms import TorchNMS

    from worker.postprocess import nms

    torch.set_num_threads(1)

    def library(boxes: F32, scores: F32) -> I64:
        kept = TorchNMS.nms(torch.from_numpy(boxes), torch.from_numpy(scores), IOU)
        return np.asarray(kept.numpy(), np.int64)

    known: dict[str, Callable[[F32, F32], I64]] = {
        "ours": lambda boxes, scores: nms.suppress_in_numpy(boxes, scores, IOU, len(boxes)),
        "library": library,
    }
    if nms.suppress is not nms.suppress_in_numpy:
        known["torchvision"] = lambda boxes, scores: nms.suppress(boxes, scores, IOU, len(boxes))
    return known


def run(options: argparse.Namespace) -> Result:
    """All cases, the ways in turns."""
    machine, started_at = hardware.describe(), results.now()
    with tempfile.TemporaryDirectory(prefix="yolopool-") as name:
        os.environ.update(YOLO_CONFIG_DIR=name, YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false")
        rows, equal, limit_ms = measure(ways(), options.repeats)
    what = "{} candidates, {} kept: under {} ms".format(*LIMIT_CASE, LIMIT_MS)
    return Result(
        scenario="nms",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"suppression": tuple(rows)},
        checks=(
            Check("all ways keep the same boxes in the same order", equal, f"{len(rows)} cases"),
            Check(what, limit_ms < LIMIT_MS, f"{limit_ms:.2f} ms"),
        ),
    )


def measure(
    known: dict[str, Callable[[F32, F32], I64]], repeats: int
) -> tuple[list[Row], bool, float]:
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    equal, limit_ms = True, 0.0
    for count, kept in CASES:
        times: dict[str, list[float]] = {way: [] for way in known}
        found = kept
        for _ in range(repeats):
            boxes, scores = boxes_of(rng, count, kept)
            answers = []
            for way, suppress in known.items():
                began = time.perf_counter()
                answers.append(suppress(boxes, scores))
                times[way].append(time.perf_counter() - began)
            equal = equal and all(np.array_equal(answers[0], other) for other in answers[1:])
            found = len(answers[0])
        if (count, kept) == LIMIT_CASE:
            limit_ms = 1000 * median(times["ours"])
        figures = {f"{way}_ms": 1000 * median(seconds) for way, seconds in times.items()}
        rows.append({"candidates": count, "kept": found, **figures})
    return rows, equal, limit_ms


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(run(options), options.results)


if __name__ == "__main__":
    sys.exit(main())

"""What the masks of many objects take: peak memory and time, from a pass's answer to the message.

    python -m benchmarks.mask_memory --objects 300 --image-size 1280

Each way runs in a process of its own, over the same made-up coefficients, prototypes and boxes;
the model library's own way beside ours.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import hardware, results
from benchmarks.harness.results import Check, Result, Row
from worker.postprocess.outputs import Candidates, MaskParts
from worker.postprocess.results import MaskFormat, results_of
from worker.preprocess.letterbox import Letterboxed, Origin
from worker.service import response

MOST_BYTES = 150 * 10**6
COEFFICIENTS = 32
WAYS = ("polygon", "rle", "library")
BOXES = ("mixed", "whole image")


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.mask_memory", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--objects", type=int, default=300)
    parser.add_argument("--image-size", type=int, default=1280, help="square, pixels")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--way", default="", help=argparse.SUPPRESS)  # a run in its own process
    parser.add_argument("--boxes", default="", help=argparse.SUPPRESS)
    return parser


def parts(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Coefficients, prototypes and boxes: blobs of some ten pixels of a prototype, and boxes of 20
    pixels to half the image, or all of it.
    """
    rng, size = np.random.default_rng(options.seed), options.image_size
    coarse = rng.normal(size=(COEFFICIENTS, size // 32, size // 32)).astype(np.float32)
    prototypes = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)
    centre = rng.uniform(0, size, (options.objects, 2))
    side = rng.uniform(20, size / 2, (options.objects, 2))
    boxes = np.concatenate((centre - side / 2, centre + side / 2), 1).clip(0, size)
    if options.boxes == BOXES[1]:
        boxes[:] = (0, 0, size, size)
    coefficients = rng.normal(size=(options.objects, COEFFICIENTS)).astype(np.float32)
    return coefficients, prototypes, boxes.astype(np.float32)


def ours(options: argparse.Namespace) -> Callable[[], int]:
    """From a pass's answer to bytes of a message, how many."""
    coefficients, prototypes, boxes = parts(options)
    size, count = options.image_size, options.objects
    place = Origin(
        Letterboxed(np.zeros((size, size, 3), np.uint8), (size, size)), (0, 0), (size, size)
    )

    def work() -> int:
        # The copy that each image gets of its batch's prototypes is counted.
        beside = MaskParts(coefficients, prototypes.copy())
        scores, classes = np.linspace(1, 0.3, count, dtype=np.float32), np.zeros(count, np.int64)
        candidates = Candidates(boxes, scores, classes, beside)
        told = results_of(candidates, place, MaskFormat(options.way))
        messages = response.detections_to(told, ("thing",))
        return sum(len(one.SerializeToString()) for one in messages)

    return work


def library(options: argparse.Namespace) -> Callable[[], int]:
    """Outlines as `predict` makes them, how many points in bytes."""
    import torch
    from ultralytics.utils import ops

    torch.set_num_threads(1)
    tensors = [torch.from_numpy(one) for one in parts(options)]
    shape = (options.image_size, options.image_size)

    def work() -> int:
        coefficients, prototypes, boxes = tensors
        masks = ops.process_mask(prototypes, coefficients, boxes, shape, upsample=True)
        return sum(len(one) * 8 for one in ops.masks2segments(masks))

    return work


def measure(options: argparse.Namespace) -> Row:
    """In this process: peak beyond what was there before, from the kernel's own high water mark."""
    work = library(options) if options.way == "library" else ours(options)
    before = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the mark begins anew
    began = time.perf_counter()
    size = work()
    took = time.perf_counter() - began
    peak = _status_bytes("VmHWM") - before
    return {"seconds": took, "peak_mb": peak / 1e6, "answer_mb": size / 1e6}


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/self/status has no {name}")


def in_process(options: argparse.Namespace, way: str, boxes: str) -> Row:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.mask_memory", "--way", way, "--boxes", boxes]
    command += ["--objects", str(options.objects), "--image-size", str(options.image_size)]
    command += ["--seed", str(options.seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return {"way": way, "boxes": boxes, **row}


def run(options: argparse.Namespace) -> Result:
    """All ways, all kinds of boxes."""
    machine, started_at = hardware.describe(), results.now()
    rows = [in_process(options, way, boxes) for boxes in BOXES for way in WAYS]
    own = [row for row in rows if row["way"] != "library"]
    worst = max(float(str(row["peak_mb"])) for row in own)
    check = Check(
        f"masks of {options.objects} objects at {options.image_size} px take less than "
        f"{MOST_BYTES / 1e6:.0f} MB more",
        worst * 1e6 < MOST_BYTES,
        f"{worst:.0f} MB at the peak",
    )
    return Result(
        scenario="mask_memory",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"masks": tuple(rows)},
        checks=(check,),
    )


if __name__ == "__main__":
    asked = flags().parse_args()
    if asked.way:
        print(json.dumps(measure(asked)))
    else:
        sys.exit(results.publish(run(asked), asked.results))

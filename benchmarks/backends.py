"""Backends and precisions on the trained demo model: what each finds, drifts, takes and needs.

    python -m benchmarks.backends --images 150 --repeats 40

The held-out pictures of the demo, which no training saw, drawn anew; one process, one worker's
threads, passes of one image and of four, no queue. mAP as the library's val has it.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.harness import dataset, hardware, results, weights
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.statistics import median
from examples.shapes import make_data
from worker.backends.base import Backend, LoadedModel, run
from worker.hardware.host import Host
from worker.packs.pack import Pack
from worker.packs.pack_store import PackStore
from worker.postprocess.outputs import NmsOptions
from yolopool.client.detections import Detections
from yolopool.client.model_records import Drift
from yolopool.evaluation import drift
from yolopool.evaluation.average_precision import mean_precision
from yolopool.v1.worker_pb2 import PackLocation

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
NAMES = make_data.NAMES
HELD_OUT_SEED = 3
# What int8 is calibrated on: of those that the model was trained on.
CALIBRATION_SEED, CALIBRATION_IMAGES = 1, 200
# Backend and precision, and what a worker is told for it; the first is what others are held to.
WAYS = (
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("onnx", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("onnx", "int8"),
    ("openvino", "int8"),
)
# At fp32, in pixels: sums in another order, and nothing more.
EXACT_PIXELS, EXACT_SCORE = 0.01, 0.001
SIDE, BATCH, LOADS = 320, 4, 5
LEAST_SCORE, SERVED_SCORE = 0.001, 0.25


@dataclass(frozen=True, slots=True)
class Found:
    """Boxes of one picture: float64 (n, 6) of corners, score, class."""

    rows: F64

    def served(self) -> Detections:
        """Those above the threshold of serving."""
        rows = self.rows[self.rows[:, 4] > SERVED_SCORE]
        classes = rows[:, 5].astype(np.int64)
        return Detections(
            rows[:, :4].astype(np.float32),
            rows[:, 4].astype(np.float32),
            classes,
            tuple(NAMES[number] for number in classes),
        )


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.backends", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--images", type=int, default=150, help="held-out pictures")
    parser.add_argument(
        "--repeats", type=int, default=40, help="passes of each size that are timed"
    )
    parser.add_argument("--threads", type=int, default=0, help="of a pass; 0: as a worker's")
    return parser


def pictures(count: int) -> list[tuple[str, U8, F64]]:
    """Name, BGR pixels and truths (x1, y1, x2, y2, class) of each."""
    drawn = []
    for number, (picture, shapes) in enumerate(make_data.scenes(HELD_OUT_SEED, count)):
        pixels = cv2.cvtColor(np.asarray(picture, np.uint8), cv2.COLOR_RGB2BGR)
        truths = np.array([[*one.box(), one.cls] for one in shapes], np.float64).reshape(-1, 5)
        drawn.append((str(number), np.asarray(pixels, np.uint8), truths))
    return drawn


def backend_of(threads: int) -> Backend:
    """As a CPU worker's."""
    from worker.backends.composite import CompositeBackend
    from worker.backends.onnx.onnxruntime_backend import OnnxRuntime
    from worker.backends.onnx.openvino_backend import OpenVino
    from worker.backends.pytorch.backend import TorchBackend

    return CompositeBackend(
        TorchBackend("cpu", threads), OnnxRuntime("cpu", threads), OpenVino(threads)
    )


def find(model: LoadedModel, images: Sequence[U8]) -> list[Found]:
    """One picture a pass, at the least score: average precision needs the whole curve."""
    asked = NmsOptions((LEAST_SCORE,) * len(NAMES), 0.7, 300, False)
    found = []
    for image in images:
        (one,) = run(model, [image], [asked]).candidates
        rows = np.column_stack((one.xyxy, one.confidence, one.class_id)).astype(np.float64)
        found.append(Found(rows.reshape(-1, 6)))
    return found


def rates(model: LoadedModel, images: Sequence[U8], repeats: int) -> dict[str, float]:
    """Images a second of passes of one image and of four: the median pass."""
    asked = NmsOptions((SERVED_SCORE,) * len(NAMES), 0.7, 300, False)
    figures = {}
    for batch in (1, BATCH):
        times = []
        for number in range(repeats + 3):
            some = [images[(number + one) % len(images)] for one in range(batch)]
            began = time.perf_counter()
            run(model, some, [asked] * batch)
            times.append(time.perf_counter() - began)
        figures[f"images_per_s_batch_{batch}"] = batch / median(times[3:])
    return figures


def loads(
    backend: Backend, door: PackStore, where: PackLocation, precision: str
) -> dict[str, float]:
    """From the pack's file to the first answer, ms: what a swap costs. The first load of all, which
    imports the runtime, is not among them.
    """
    load, first = [], []
    asked = NmsOptions((SERVED_SCORE,) * len(NAMES), 0.7, 300, False)
    for _ in range(LOADS + 1):
        began = time.perf_counter()
        pack = door.fetch(where)
        model = backend.load(pack, precision)
        loaded = time.perf_counter()
        run(model, [np.zeros((SIDE, SIDE, 3), np.uint8)], [asked])
        ended = time.perf_counter()
        model.close()
        pack.close()
        load.append(1e3 * (loaded - began))
        first.append(1e3 * (ended - loaded))
    return {"load_ms": median(load[1:]), "first_pass_ms": median(first[1:])}


def measure(options: argparse.Namespace, folder: Path) -> tuple[list[Row], dict[str, Drift]]:
    """A row a way; and how far each is from the first."""
    drawn = pictures(options.images)
    images = [pixels for _, pixels, _ in drawn]
    backend = backend_of(options.threads or Host().compute_threads())
    backend.open()
    door = PackStore(folder)
    packs: dict[str, PackLocation] = {}
    rows: list[Row] = []
    drifts: dict[str, Drift] = {}
    exact: list[Found] = []
    for name, precision in WAYS:
        kind = name if name == "torch" else f"{name}/{precision}"
        if kind not in packs:
            packs[kind] = built(name, precision, folder / "packs")
        figures: dict[str, Any] = loads(backend, door, packs[kind], precision)
        pack: Pack = door.fetch(packs[kind])
        model = backend.load(pack, precision)
        found = find(model, images)
        exact = exact or found
        pairs = zip(exact, found, strict=True)
        moved = drift.total(drift.compare(a.served(), b.served()) for a, b in pairs)
        drifts[f"{name}/{precision}"] = moved
        detections = {name: one.rows for (name, _, _), one in zip(drawn, found, strict=True)}
        truths = {name: wanted for name, _, wanted in drawn}
        map50, map50_95 = mean_precision(detections, truths)
        figures |= rates(model, images, options.repeats)
        rows.append(
            {
                "backend": name,
                "precision": precision,
                "map50": round(map50, 4),
                "map50_95": round(map50_95, 4),
                "boxes": moved.objects,
                "matched": moved.matched,
                "extra": moved.extra,
                "worst_px": moved.largest_px,
                "worst_score": moved.largest_confidence,
                **figures,
                "weights_mb": model.weights_bytes / 1e6,
                "private_mb": model.private_bytes / 1e6,
            }
        )
        model.close()
        pack.close()
    backend.close()
    return rows, drifts


def built(backend: str, precision: str, folder: Path) -> PackLocation:
    """The demo model's pack for a backend, made as the importer does."""
    asked = [] if backend == "torch" else [f"--backend={backend}", f"--precision={precision}"]
    if precision == "int8":
        asked.append(f"--calibration={calibration(folder.parent / 'calibration')}")
    pack = weights.pack(dataset.DEMO_WEIGHTS, folder, *asked)
    return PackLocation(uri=pack.as_uri(), digest=pack.name)


def calibration(folder: Path) -> Path:
    """A folder of pictures that are none of the held-out ones."""
    if not folder.exists():
        folder.mkdir()
        drawn = make_data.scenes(CALIBRATION_SEED, CALIBRATION_IMAGES)
        for number, (picture, _) in enumerate(drawn):
            picture.save(folder / f"{number:04}.png")
    return folder


def checks(rows: Sequence[Row], drifts: dict[str, Drift]) -> list[Check]:
    """What is demanded: at fp32 nothing drifts, and no way loses a hundredth of the precision."""
    found = []
    for name in ("onnx/fp32", "openvino/fp32"):
        one = drifts[name]
        holds = one.matched == one.objects and one.extra == 0
        holds &= one.largest_px <= EXACT_PIXELS and one.largest_confidence <= EXACT_SCORE
        said = f"{one.matched} of {one.objects}, {one.extra} extra, {one.largest_px:.4f} px"
        found.append(Check(f"{name} gives torch's boxes", holds, said))
    lost = [float(rows[0]["map50_95"] or 0) - float(row["map50_95"] or 0) for row in rows]
    found.append(
        Check("no way loses 0.01 mAP50-95", max(lost) < 0.01, f"most lost {max(lost):.4f}")
    )
    return found


def run_all(options: argparse.Namespace) -> Result:
    """All ways, one after the other."""
    machine, started_at = hardware.describe(), results.now()
    with tempfile.TemporaryDirectory(prefix="yolopool-") as name:
        os.environ.update(YOLO_CONFIG_DIR=name, YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false")
        rows, drifts = measure(options, Path(name))
    return Result(
        scenario="backends",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"backend x precision": tuple(rows)},
        checks=tuple(checks(rows, drifts)),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(run_all(options), options.results)


if __name__ == "__main__":
    sys.exit(main())

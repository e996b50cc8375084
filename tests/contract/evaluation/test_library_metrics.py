"""The numbers of an evaluation are those of the model library's `val`: from the same detections to
within rounding, and from whole runs on labelled images to within what `val` does differently.
"""

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.labels import write_labels
from tests.models import SHAPES, Zoo
from worker.backends.base import LoadedModel, run
from worker.backends.pytorch.backend import TorchBackend
from worker.packs.pack import Pack
from worker.packs.pack_store import PackStore
from worker.postprocess.outputs import NmsOptions
from worker.preprocess import letterbox
from yolopool.evaluation import rotated_overlap
from yolopool.evaluation.average_precision import THRESHOLDS, iou, match, total
from yolopool.evaluation.confusion import confusion
from yolopool.evaluation.labelled_images import labelled
from yolopool.evaluation.tally import CONFIDENCE, IOU, MAX_DETECTIONS, Found, Tally
from yolopool.vocabulary import ShapePolicy

CLASSES = 4
# What `val` does differently by default: images of a batch are padded to one shape.
BOUND = 0.01


def scene(rng: np.random.Generator, rotated: bool) -> tuple[Any, ...]:
    """Detections near truths, of sometimes another class, and others anywhere; and the truths."""
    low, high = (20, 20, 10, 10, -1.5), (300, 300, 90, 90, 1.5)
    real = rng.uniform(low, high, (int(rng.integers(0, 7)), 5))
    near = np.repeat(real, 3, axis=0) + rng.normal(0, 2, (3 * len(real), 5)) * (1, 1, 1, 1, 0.02)
    near[:, 2:4] = np.clip(near[:, 2:4], 4, None)
    far = rng.uniform(low, high, (int(rng.integers(0, 4)), 5))
    found = np.concatenate((near, far))
    classes = rng.integers(0, CLASSES, len(real))
    given = np.concatenate((np.repeat(classes, 3), rng.integers(0, CLASSES, len(far))))
    given = np.where(rng.random(len(given)) < 0.2, rng.integers(0, CLASSES, len(given)), given)
    scores = rng.permutation(np.linspace(0.01, 0.99, len(given)))
    scores += rng.uniform(0, 1e-3, len(given))  # no two are equal: their order is not defined
    order = np.argsort(-scores)
    if not rotated:
        found, real = upright(found), upright(real)
    return found[order], scores[order], given[order], real, classes


def upright(boxes: Any) -> Any:
    half = boxes[:, 2:4] / 2
    return np.column_stack((boxes[:, :2] - half, boxes[:, :2] + half))


@pytest.mark.parametrize("rotated", [False, True], ids=["boxes", "rotated boxes"])
def test_from_the_same_detections_come_the_same_numbers(rotated: bool) -> None:
    import torch
    from ultralytics.models.yolo.detect import DetectionValidator
    from ultralytics.utils.metrics import ConfusionMatrix, ap_per_class, batch_probiou, box_iou

    rng = np.random.default_rng(5)
    validator: Any = DetectionValidator.__new__(DetectionValidator)
    validator.iouv = torch.from_numpy(THRESHOLDS)
    names = {number: str(number) for number in range(CLASSES)}
    theirs = ConfusionMatrix(names, task="obb" if rotated else "detect")
    ours = np.zeros((CLASSES + 1, CLASSES + 1), np.int64)
    parts, hits, scores, classes, truths = [], [], [], [], []
    for _ in range(60):
        found, score, cls, real, wanted = scene(rng, rotated)
        overlaps = rotated_overlap.overlap(found, real) if rotated else iou(found, real)
        parts.append(match(overlaps, score, cls, wanted))
        ours += confusion(overlaps, score, cls, wanted, CLASSES)
        tensors = {
            "bboxes": torch.from_numpy(found),
            "conf": torch.from_numpy(score),
            "cls": torch.from_numpy(cls),
        }
        batch = {"bboxes": torch.from_numpy(real), "cls": torch.from_numpy(wanted)}
        theirs.process_batch(tensors, batch)
        between = (batch_probiou if rotated else box_iou)(batch["bboxes"], tensors["bboxes"])
        matched = validator.match_predictions(tensors["cls"], batch["cls"], between)
        hits.append(matched.numpy())
        scores.append(score)
        classes.append(cls)
        truths.append(wanted)
    mine = total(parts)
    columns: Any = [np.concatenate(one) for one in (hits, scores, classes, truths)]
    _, _, precision, recall, _, ap, unique, *_ = ap_per_class(*columns)
    assert [one.class_id for one in mine.classes] == unique.tolist()
    for one, p, r, of_class in zip(mine.classes, precision, recall, ap, strict=True):
        assert one.precisions == pytest.approx(of_class, abs=1e-9)
        assert (one.precision, one.recall) == pytest.approx((p, r), abs=1e-9)
    assert mine.map50 == pytest.approx(ap[:, 0].mean(), abs=1e-9)
    assert mine.map50_95 == pytest.approx(ap.mean(), abs=1e-9)
    assert 0.1 < mine.map50_95 < mine.map50 < 0.9  # neither all nor nothing was found
    assert ours.tolist() == theirs.matrix.astype(int).tolist()


def data_set(folder: Path) -> Path:
    """The demo's labelled images as the library's training wants them."""
    shutil.copytree(
        SHAPES / "images", folder / "images" / "val", ignore=shutil.ignore_patterns("*.json")
    )
    (folder / "labels").mkdir()
    write_labels(folder / "labels" / "val")
    names = json.loads((SHAPES / "images" / "gt.json").read_text())["names"]
    lines = "".join(f"  {number}: {name}\n" for number, name in names.items())
    path = folder / "data.yaml"
    path.write_text(f"path: {folder}\ntrain: images/val\nval: images/val\nnames:\n{lines}")
    return path


def found_by(pack: Pack, model: LoadedModel, file: Path) -> Found:
    """As a worker finds it."""
    import cv2

    image: Any = cv2.imread(str(file))
    assert image is not None
    settings = pack.manifest.settings
    boxed = letterbox.letterbox(image, settings.image_size, pack.manifest.stride, ShapePolicy.RECT)
    options = NmsOptions((CONFIDENCE,) * len(pack.manifest.class_names), IOU, MAX_DETECTIONS, False)
    (found,) = run(model, [boxed.image], [options]).candidates
    boxes = letterbox.to_original(found.xyxy, boxed).astype(np.float64)
    size = (image.shape[1], image.shape[0])
    return Found(boxes, found.confidence.astype(np.float64), found.class_id.astype(np.int64), size)


def test_a_whole_run_is_within_the_stated_bound_of_val(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.models import YOLO
    from ultralytics.nn.autobackend import AutoBackend
    from ultralytics.utils.nms import TorchNMS

    try:
        import torchvision.ops  # noqa: F401
    except (ImportError, RuntimeError):
        # One whose compiled part does not fit the installed torch: the library has its own.
        stub: Any = ModuleType("torchvision")
        stub.ops = SimpleNamespace(nms=TorchNMS.nms)
        monkeypatch.setitem(sys.modules, "torchvision", stub)
        monkeypatch.setattr(AutoBackend, "warmup", lambda self, **_: None)
    described = data_set(tmp_path / "data")
    # As it is by default; and with each image by itself, on the pixels that are served.
    theirs, alike = (
        YOLO(zoo.checkpoint("shapes"), task="detect").val(
            data=str(described), imgsz=320, device="cpu", batch=4, workers=0, plots=False,
            verbose=False, project=str(tmp_path), save=False, rect=rect,
        ).box
        for rect in (True, False)
    )  # fmt: skip

    backend = TorchBackend("cpu", 1)
    backend.open()
    pack = PackStore(tmp_path / "cache").fetch(zoo.pack("shapes"))
    model = backend.load(pack, "fp32")
    root = described.parent
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    files = {
        str(path.relative_to(root)): path.read_bytes for path in (*root.rglob("*.txt"), described)
    }
    tally = Tally("detect", len(pack.manifest.class_names))
    for image in labelled(names, files, "detect", pack.manifest.class_names):
        tally.add(found_by(pack, model, root / image.name), image.truths)
    mine = tally.evaluation()
    model.close()
    pack.close()
    backend.close()
    assert mine.images == 12
    mean, same = mine.precision, pytest.approx((alike.map50, alike.map), abs=1e-4)
    assert (mean.map50, mean.map50_95) == same
    assert [one.ap50_95 for one in mean.classes] == pytest.approx(alike.maps.tolist(), abs=1e-3)
    assert (mean.map50, mean.map50_95) == pytest.approx((theirs.map50, theirs.map), abs=BOUND)

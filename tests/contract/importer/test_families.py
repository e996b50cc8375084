"""Every family of the library with every head that it has: imported, built by a worker, and run
beside the library's own fused model. One small model of each; benchmarks/families.py has all.
"""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.harness import families
from importer.refusal import ImportRefused
from tests.models import build, location, picture, save
from worker.packs.pack_store import PackStore

SMALL = [
    "yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n",
    "yolo26n", "yolov8n-p2", "yolov5n-p6", "yolov8n-ghost",
    "yolov8n-seg", "yolo11n-seg", "yolo12n-seg", "yolo26n-seg",
    "yolov8n-pose", "yolo11n-pose", "yolo12n-pose", "yolo26n-pose",
    "yolov8n-obb", "yolo11n-obb", "yolo12n-obb", "yolo26n-obb",
    "yolov8n-cls", "yolo11n-cls", "yolo12n-cls", "yolo26n-cls",
]  # fmt: skip
HEADS = {
    "segment": {"mask_coefficients": 32},
    "pose": {"keypoints": 17, "keypoint_values": 3},
    "obb": {"angles": 1},
}


@pytest.mark.matrix(sample=3)
@pytest.mark.parametrize("name", SMALL)
def test_a_worker_gives_what_the_library_gives(name: str, tmp_path: Path) -> None:
    path = save(build(f"{name}.yaml", 3), tmp_path / "model.pt")
    place = families.import_here(path, tmp_path / "pack")
    pack = PackStore(tmp_path).fetch(place)
    family, task = families.parts(name)
    assert pack.manifest.task == task
    assert pack.manifest.architecture == f"{family}-{task}"
    head = {field.name: value for field, value in pack.manifest.head.ListFields()}
    assert head == HEADS.get(task, {})
    image = torch.from_numpy(picture(0, 192, 128)).permute(2, 0, 1)[None].float() / 255
    assert families.difference(path, pack, image, end_to_end=False) == 0


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("name", ["yolo26n", "yolo26n-seg", "yolo26n-pose", "yolo26n-obb"])
def test_the_end_to_end_head_of_every_task(name: str, tmp_path: Path) -> None:
    from yolopool.v1.types_pb2 import HEAD_MODE_END_TO_END

    path = save(build(f"{name}.yaml", 3), tmp_path / "model.pt")
    place = families.import_here(path, tmp_path / "pack", head_mode=HEAD_MODE_END_TO_END)
    pack = PackStore(tmp_path).fetch(place)
    assert pack.manifest.head_mode == HEAD_MODE_END_TO_END
    image = torch.from_numpy(picture(0, 192, 128)).permute(2, 0, 1)[None].float() / 255
    assert families.difference(path, pack, image, end_to_end=True) == 0


# --- what is not served ---------------------------------------------------------------------------

ODD = {
    "rtdetr-l": "stretches images",
    "yoloe-26n": "takes words",
    "yoloe-v8s-seg": "takes words",
    "yolov8n-world": "takes words",
    "yolo26n-sem": "class for each pixel",
    "yolo26n-depth": "distances",
}


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize("name", ODD)
def test_odd_ones_are_refused_and_told_why(name: str, tmp_path: Path) -> None:
    path = save(build(f"{name}.yaml", 3), tmp_path / "odd.pt")
    with pytest.raises(ImportRefused) as caught:
        families.import_here(path, tmp_path / "pack")
    assert caught.value.reason == "ARTIFACT_UNSUPPORTED"
    assert ODD[name] in caught.value.message
    assert "are served" in caught.value.message


def test_a_model_that_classifies_has_no_other_head(tmp_path: Path) -> None:
    from yolopool.v1.types_pb2 import HEAD_MODE_END_TO_END

    path = save(build("yolo11n-cls.yaml", 3), tmp_path / "cls.pt")
    with pytest.raises(ImportRefused, match="no heads to choose"):
        families.import_here(path, tmp_path / "pack", head_mode=HEAD_MODE_END_TO_END)


@pytest.mark.parametrize("shape", [[5000, 3], [17, 4], [0, 2], [17], "17x3"])
def test_odd_keypoints_are_refused(shape: Any, tmp_path: Path) -> None:
    model = build("yolov8n-pose.yaml", 3)
    model.yaml["kpt_shape"] = shape
    with pytest.raises(ImportRefused, match="kpt_shape"):
        families.import_here(save(model, tmp_path / "odd.pt"), tmp_path / "pack")


# --- what a classification was trained with -------------------------------------------------------

_TRANSFORMS = "torchvision.transforms.transforms"
_FUNCTIONAL = "torchvision.transforms.functional"


def transforms(monkeypatch: pytest.MonkeyPatch, deviation: float, mode: str) -> Any:
    """What the library's training leaves in a checkpoint, of classes that look like torchvision's:
    the file has their names and attributes, whether torchvision imports here or not.
    """
    for name in ("torchvision", "torchvision.transforms", _TRANSFORMS, _FUNCTIONAL):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    def made(module: str, name: str, **attributes: Any) -> Any:
        # As torchvision's own are: the steps are modules, what composes them is not.
        base = object if name == "Compose" else torch.nn.Module
        kind: Any = type(name, (base,), {"__module__": module})
        setattr(sys.modules[module], name, kind)
        one = kind()
        one.__dict__.update(attributes)
        return one

    class InterpolationMode:
        def __reduce__(self) -> Any:
            return type(self), (mode,)

    InterpolationMode.__module__, InterpolationMode.__qualname__ = _FUNCTIONAL, "InterpolationMode"
    setattr(sys.modules[_FUNCTIONAL], "InterpolationMode", InterpolationMode)  # noqa: B010 - no attribute of a module
    steps = [
        made(_TRANSFORMS, "Resize", size=224, interpolation=InterpolationMode(), antialias=True),
        made(_TRANSFORMS, "CenterCrop", size=(224, 224)),
        made(_TRANSFORMS, "ToTensor"),
        made(_TRANSFORMS, "Normalize", mean=torch.zeros(3), std=torch.full((3,), deviation)),
    ]
    return made(_TRANSFORMS, "Compose", transforms=steps)


@pytest.mark.parametrize(
    ("deviation", "mode", "why"),
    [(1.0, "bilinear", ""), (0.5, "bilinear", "deviation"), (1.0, "bicubic", "interpolation")],
)
def test_the_usual_preparation_alone_is_served(
    deviation: float, mode: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("yolo11n-cls.yaml", 3)
    with monkeypatch.context() as patch:
        model.transforms = transforms(patch, deviation, mode)
        path = save(model, tmp_path / "cls.pt", 224)
    if why:
        with pytest.raises(ImportRefused, match=why):
            families.import_here(path, tmp_path / "pack")
    else:
        pack = PackStore(tmp_path).fetch(families.import_here(path, tmp_path / "pack"))
        assert pack.manifest.settings.image_size == 224


# --- ONNX graphs of all of them -------------------------------------------------------------------


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("name", SMALL)
def test_the_export_keeps_what_it_declares(name: str, tmp_path: Path) -> None:
    path = save(build(f"{name}.yaml", 3), tmp_path / "model.pt")
    report = exported_here(path, tmp_path / "pack")
    graph = PackStore(tmp_path).fetch(location(tmp_path / "pack")).manifest.onnx
    assert (graph.batch, graph.height, graph.width) == (0, 0, 0), report["warnings"]
    assert any("get the answers they get alone" in line for line in report["tried"])


def exported_here(checkpoint: Path, folder: Path) -> dict[str, Any]:
    """The report of the ONNX pack of a checkpoint, made in this process as `import_here` does."""
    from importer.onnx_import import encode, export

    folder.mkdir()
    order = {
        "artifact": str(checkpoint),
        "sha256": "0" * 64,
        "settings": {},
        "architecture_yaml": "",
        "class_names": (),
        "renamed": {},
        "build": {"backend": "onnx", "precision": "fp32"},
        "memory_bytes": 2 * 1024**3,
    }
    return export.encode(encode.encode, order, checkpoint, folder, [], lambda done, what: None)

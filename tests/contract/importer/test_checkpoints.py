"""What a checkpoint may hold beside its model, how it may hold it, and what is wrong with it."""

import argparse
import collections
import datetime
import struct
import sys
import types
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from ultralytics.nn import tasks

from benchmarks.harness import families
from importer.class_names import Said
from importer.refusal import ImportRefused
from importer.torch_import import checkpoint, restricted_load
from tests.contract.importer.test_hostile import archive_of, said
from tests.contract.imports import import_in_child
from tests.models import build, save

NAN, INF = float("nan"), float("inf")
LAYERS = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]]


def tiny(classes: int = 2, channels: int = 3) -> Any:
    """A model of three convolutions and a head."""
    fields = {"nc": classes, "backbone": LAYERS, "head": [[[1, 2], 1, "Detect", ["nc"]]]}
    return tasks.DetectionModel(fields, ch=channels, verbose=False).eval()


def refused(path: Path, folder: Path) -> ImportRefused:
    with pytest.raises(ImportRefused) as caught:
        families.import_here(path, folder)
    return caught.value


# --- weights that are not finite ------------------------------------------------------------------


def first(model: Any, value: float) -> None:
    model.model[1].conv.weight.view(-1)[0] = value


def too_large(model: Any) -> None:
    """Each weight is finite, and what they give is not."""
    for layer in model.model[:3]:
        layer.conv.weight.fill_(3e38)


BROKEN: dict[str, tuple[Callable[[Any], object], str]] = {
    "NaN": (lambda model: first(model, NAN), "1.conv.weight"),
    "infinity": (lambda model: first(model, INF), "1.conv.weight"),
    "a class": (lambda m: [b[-1].bias.__setitem__(0, NAN) for b in m.model[-1].cv3], "cv3.0"),
    "boxes": (lambda m: [b[-1].bias.fill_(NAN) for b in m.model[-1].cv2], "cv2.0"),
    "one scale": (lambda m: m.model[-1].cv2[1][-1].bias.__setitem__(0, NAN), "cv2.1"),
    "statistics": (lambda m: m.model[0].bn.running_var.fill_(NAN), "model.0.conv"),
    "a variance below zero": (lambda m: m.model[0].bn.running_var.fill_(-1), "model.0.conv"),
    "an answer that overflows": (too_large, "answer to a plain image is not finite"),
}


@pytest.mark.matrix(sample=3)
@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_not_finite_is_refused_and_named(kind: str, tmp_path: Path) -> None:
    change, named = BROKEN[kind]
    model = tiny()
    with torch.no_grad():
        change(model)
    refusal = refused(save(model, tmp_path / "broken.pt"), tmp_path / "pack")
    assert refusal.reason == "ARTIFACT_INVALID"
    assert "not finite" in refusal.message
    assert named in refusal.message


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("name", ["yolo11n-seg", "yolo11n-pose", "yolo11n-obb", "yolo11n-cls"])
def test_so_is_a_model_of_every_task(name: str, tmp_path: Path) -> None:
    model = build(f"{name}.yaml", 3)
    model.model[1].conv.weight.data.view(-1)[0] = NAN
    refusal = refused(save(model, tmp_path / "broken.pt"), tmp_path / "pack")
    assert "the weights are not finite: 1 are NaN or infinite" in refusal.message


# --- class names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "read"),
    [
        ({0: 0, 1: 1}, ("0", "1")),
        ({"0": "a", "1": "b"}, ("a", "b")),
        ([True, "x"], ("True", "x")),
        ({0: np.str_("a"), 1: np.int64(3)}, ("a", "3")),
        ({0: "n01440764", 1: "n01443537"}, ("tench", "goldfish")),
        ({0: "a", 1: "b", 2: "c"}, ("a", "b")),
    ],
)
def test_names_are_read_as_the_library_reads_them(
    names: Any, read: tuple[str, ...], tmp_path: Path
) -> None:
    model = tiny()
    model.names = names
    found = checkpoint.load(save(model, tmp_path / "named.pt"))
    assert found.class_names == read
    assert bool(found.warnings) == (len(names) > 2)


def test_names_may_be_given_for_any_file(tmp_path: Path) -> None:
    model = tiny()
    model.names = {0: "a", 5: "b"}
    path = save(model, tmp_path / "named.pt")
    with pytest.raises(ImportRefused, match=r"gaps \(missing: 1\).*--names"):
        checkpoint.load(path)
    assert checkpoint.load(path, Said(("x", "y"))).class_names == ("x", "y")
    del model.names
    with pytest.raises(ImportRefused, match="0 class names for the 2 classes"):
        checkpoint.load(save(model, path))


# --- how a model is kept, and what beside it ------------------------------------------------------


def beside(model: Any, path: Path) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    torch.save(
        {
            "model": model,
            "optimizer": optimizer,
            "scheduler": schedule,
            "date": datetime.datetime(2026, 1, 2),  # noqa: DTZ001 - as trainings keep it
            "took": datetime.timedelta(seconds=3),
            "opt": argparse.Namespace(epochs=3),
            "more": types.SimpleNamespace(a=1),
            "counts": collections.defaultdict(int, {"a": 1}),
            "last": collections.deque([1, 2], 3),
            "run": uuid.UUID(int=5),
            "folder": PurePosixPath("/runs"),
            "fitness": np.float32(0.5),
            "epochs": np.int64(7),
            "name": np.str_("a"),
            "curve": np.arange(3.0),
        },
        path,
    )


def compiled(model: Any, path: Path) -> None:
    torch.save({"model": torch.compile(model, backend="eager")}, path)


KEPT: dict[str, Callable[[Any, Path], object]] = {
    "bare": torch.save,
    "parallel": lambda model, path: torch.save({"model": nn.DataParallel(model)}, path),
    "parallel, bare": lambda model, path: torch.save(nn.DataParallel(model), path),
    "as ema": lambda model, path: torch.save({"model": None, "ema": model}, path),
    "compiled": compiled,
    "beside much else": beside,
}


@pytest.mark.parametrize("kind", KEPT)
def test_a_model_is_found_where_it_is_kept(kind: str, tmp_path: Path) -> None:
    model = tiny()
    KEPT[kind](model, tmp_path / "kept.pt")
    found = checkpoint.load(tmp_path / "kept.pt").model.state_dict()
    assert found.keys() == model.state_dict().keys()
    assert all(map(torch.equal, found.values(), model.state_dict().values()))


async def test_it_is_so_in_the_sandbox(tmp_path: Path) -> None:
    beside(tiny(), tmp_path / "kept.pt")
    pack = await import_in_child(tmp_path / "kept.pt", tmp_path / "work")
    assert pack.task == "detect"


# --- what is refused, and the way out -------------------------------------------------------------


def masked(model: Any) -> Any:
    prune.l1_unstructured(model.model[1].conv, "weight", 0.3)
    return model


def thinned(model: Any) -> Any:
    """Fewer channels between two layers than the architecture says."""
    one, two = model.model[0], model.model[1]
    one.conv, one.bn = nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4)
    two.conv = nn.Conv2d(4, 16, 3, 2, 1, bias=False)
    return model


def of_class(path: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """A change of the second layer into a class of this name."""
    where, _, name = path.rpartition(".")
    parts = where.split(".")
    for count in range(1, len(parts) + 1):
        module = ".".join(parts[:count])
        if module not in sys.modules:
            monkeypatch.setitem(sys.modules, module, types.ModuleType(module))

    def change(model: Any) -> Any:
        base = type(model.model[1])
        kind = type(name, (base,), {"__module__": where})
        monkeypatch.setattr(sys.modules[where], name, kind, raising=False)
        model.model[1].__class__ = kind
        return model

    return change


WAYS_OUT = {
    "ultralytics.nn.modules.block.C3k2_Mine": "ARTIFACT_UNSUPPORTED",
    "ultralytics.nn.modules.attention.C3k2_Mine": "ARTIFACT_UNSUPPORTED",
    "ultralytics.nn.extra.C3k2_Mine": "ARTIFACT_UNSUPPORTED",
    "timm.layers.Mlp": "ARTIFACT_UNSUPPORTED",
    "models.common.Conv": "ARTIFACT_UNSUPPORTED",
    "some_yolo.nn.Mine": "ARTIFACT_UNSAFE",
}


@pytest.mark.parametrize("name", WAYS_OUT)
def test_layers_of_others_are_to_be_exported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        save(of_class(name, patch)(tiny()), tmp_path / "own.pt")
    refusal = refused(tmp_path / "own.pt", tmp_path / "pack")
    assert refusal.reason == WAYS_OUT[name]
    assert name in refusal.message
    assert "register the .onnx file" in refusal.message


CHANGED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "masks": (masked, "torch.nn.utils.prune.remove"),
    "fewer channels": (thinned, "register the .onnx file"),
    "four channels": (lambda model: tiny(channels=4), "images of 4 channels"),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_a_model_that_was_changed_is_told_how_to_go_on(kind: str, tmp_path: Path) -> None:
    change, words = CHANGED[kind]
    refusal = refused(save(change(tiny()), tmp_path / "changed.pt"), tmp_path / "pack")
    assert refusal.reason in ("ARTIFACT_UNSUPPORTED", "ARTIFACT_INVALID")
    assert words in refusal.message


def large_type(size_bytes: int, flags: int) -> bytes:
    """A text of a type that says its size and its flags: NumPy read so much of its own memory."""
    numbers = b"J" + struct.pack("<i", size_bytes) + b"K\1K" + bytes([flags])
    dtype = b"cnumpy\ndtype\n" + said("S8") + b"\x89\x88\x87R(K\3" + said("|") + b"NNN"
    data = b"c_codecs\nencode\n" + said("x" * 8) + said("latin1") + b"\x86R"
    return b"\x80\2cnumpy._core.multiarray\nscalar\n" + dtype + numbers + b"tb" + data + b"\x86R."


def test_numpy_is_not_told_sizes(tmp_path: Path) -> None:
    found = restricted_load.load(archive_of(large_type(1_000_000_000, 4), tmp_path / "large.pt"))
    assert found == b"x" * 8


def test_no_method_is_called(tmp_path: Path) -> None:
    """torch calls the first argument of this function without asking whether it may be called."""
    method = b"cbuiltins\ngetattr\nctorch.nn.modules.module\nModule\n" + said("apply") + b"\x86R"
    call = b"(" + method + b"ctorch\nTensor\n" + said("a") + said("b") + b"\x86}tR."
    words = b"\x80\2ctorch._tensor\n_rebuild_from_type_v2\n" + call
    refusal = refused(archive_of(words, tmp_path / "calls.pt"), tmp_path / "pack")
    assert refusal.reason == "ARTIFACT_UNSAFE"
    assert "getattr of 'apply'" in refusal.message


def test_another_pickle_protocol_is_named(tmp_path: Path) -> None:
    path = tmp_path / "four.pt"
    torch.save({"model": tiny()}, path, pickle_protocol=4)
    refusal = refused(path, tmp_path / "pack")
    assert refusal.reason == "ARTIFACT_UNSAFE"
    assert "without a pickle_protocol" in refusal.message
    cut = refused(archive_of(b"\x80\2X\1", path), tmp_path / "pack")
    assert cut.reason == "ARTIFACT_INVALID"

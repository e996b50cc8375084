"""Files that hold weights alone, and the choice of the head."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from importer import child
from tests.contract.imports import import_in_child, refusal_of
from tests.models import SHAPES, Zoo, build_woken, import_checkpoint, save
from worker.packs.pack_store import PackStore
from yolopool.client import uploads
from yolopool.v1.types_pb2 import (
    HEAD_MODE_END_TO_END,
    HEAD_MODE_ONE_TO_MANY,
    VersionSettings,
)

NAMES = tuple(f"class {number}" for number in range(80))
OF_V8 = child.Architecture("yolov8n.yaml", NAMES)


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = model.state_dict()
    return weights


@pytest.fixture(scope="module")
def model() -> Any:
    return build_woken("yolov8n.yaml", 7)


@pytest.fixture(scope="module")
def whole(model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of the import of its whole checkpoint."""
    folder = tmp_path_factory.mktemp("whole")
    return import_checkpoint(save(model, folder / "whole.pt"), folder / "packs")


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize(
    ("prefix", "under"),
    [
        ("", None),
        ("module.", "state_dict"),
        ("module.model.", "model"),
        ("_orig_mod.module.", None),
        ("model.module.", "state_dict"),
        ("module.model._orig_mod.", None),
    ],
)
async def test_weights_alone_give_the_pack_of_the_whole_checkpoint(
    prefix: str, under: str | None, model: Any, whole: dict[str, Any], tmp_path: Path
) -> None:
    weights = {prefix + key: value for key, value in weights_of(model).items()}
    torch.save({under: weights} if under else weights, tmp_path / "weights.pt")
    alone = await import_in_child(tmp_path / "weights.pt", tmp_path / "alone", weights_of=OF_V8)
    assert list(alone.class_names) == list(NAMES)
    assert alone.architecture == whole["architecture"] == "yolov8n-detect"
    assert alone.parameters == int(whole["parameters"])
    for name in ("weights.bin", "skeleton.json"):
        of_whole = (Path(whole["pack"]) / name).read_bytes()
        assert (tmp_path / "alone" / name).read_bytes() == of_whole


async def test_a_model_that_was_tuned_from_one_of_more_classes_keeps_its_width(
    tmp_path: Path,
) -> None:
    from ultralytics.nn.tasks import DetectionModel

    tuned: Any = DetectionModel("yolo26n.yaml", nc=3, verbose=False)
    tuned.load(DetectionModel("yolo26n.yaml", nc=80, verbose=False), verbose=False)
    tuned.names = {0: "a", 1: "b", 2: "c"}
    usual: Any = DetectionModel("yolo26n.yaml", nc=3, verbose=False)
    widths = [one.model[-1].one2one_cv3[0][-1].in_channels for one in (tuned, usual)]
    assert widths == [80, 64]
    pack = await import_in_child(save(tuned, tmp_path / "tuned.pt"), tmp_path / "pack")
    assert list(pack.class_names) == ["a", "b", "c"]
    torch.save(weights_of(tuned), tmp_path / "weights.pt")
    given = child.Architecture("yolo26n.yaml", ("a", "b", "c"))
    alone = await import_in_child(tmp_path / "weights.pt", tmp_path / "two", weights_of=given)
    assert alone.parameters == pack.parameters


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("name", ["shapes", "shapes-v8", "shapes-26"])
async def test_the_demo_models_are_imported(name: str, tmp_path: Path) -> None:
    pack = await import_in_child(SHAPES / "models" / f"{name}.pt", tmp_path / "pack")
    assert list(pack.class_names) == ["circle", "square", "triangle"]


async def test_some_classes_are_renamed_and_the_training_is_told(zoo: Zoo, tmp_path: Path) -> None:
    of = child.Architecture(renamed={1: "hex nut"})
    pack = await import_in_child(zoo.checkpoint("shapes"), tmp_path / "pack", weights_of=of)
    assert list(pack.class_names) == ["circle", "hex nut", "triangle"]
    assert (pack.training["task"], pack.training["imgsz"]) == ("detect", "320")
    of = child.Architecture(renamed={3: "x"})
    refused = await refusal_of(zoo.checkpoint("shapes"), tmp_path / "none", weights_of=of)
    assert "the model has 3 classes, 0 to 2, and no class 3" in refused.message
    # Of a graph that is made of the checkpoint, too.
    of, build = child.Architecture(renamed={0: "bolt"}), child.Build("onnx", "fp32")
    pack = await import_in_child(
        zoo.checkpoint("shapes"), tmp_path / "graph", weights_of=of, build=build
    )
    assert list(pack.class_names) == ["bolt", "square", "triangle"]


async def test_what_does_not_fit_is_listed_and_never_loaded_in_part(
    model: Any, tmp_path: Path
) -> None:
    weights = dict(weights_of(model))
    first = next(iter(weights))
    gone = [key for key in weights if key.startswith("model.9.")]
    for key in gone:
        del weights[key]
    weights[first] = torch.zeros(1, 2, 3)
    weights["extra.weight"] = torch.zeros(4)
    torch.save(weights, tmp_path / "weights.pt")
    refusal = await refusal_of(tmp_path / "weights.pt", tmp_path / "work", weights_of=OF_V8)
    assert refusal.reason == "ARTIFACT_INVALID"
    assert f"{len(gone)} missing: {gone[0]} " in refusal.message
    assert (", ..." in refusal.message) == (len(gone) > 10)
    assert "1 surplus: extra.weight 4" in refusal.message
    assert f"1 misshaped: {first} 1x2x3 instead of 16x3x3x3" in refusal.message


async def test_the_wrong_number_of_names_is_a_shape_that_does_not_fit(
    model: Any, tmp_path: Path
) -> None:
    torch.save(weights_of(model), tmp_path / "weights.pt")
    of = child.Architecture("yolov8n.yaml", ("one", "two"))
    refusal = await refusal_of(tmp_path / "weights.pt", tmp_path / "work", weights_of=of)
    assert "misshaped" in refusal.message


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, {"model": {"a": "text"}}])
async def test_what_is_no_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    refusal = await refusal_of(tmp_path / "weights.pt", tmp_path / "work", weights_of=OF_V8)
    assert refusal.reason == "ARTIFACT_INVALID"
    assert "state dict" in refusal.message


async def test_a_whole_model_is_not_taken_for_weights(model: Any, tmp_path: Path) -> None:
    path = save(model, tmp_path / "whole.pt")
    refusal = await refusal_of(path, tmp_path / "work", weights_of=OF_V8)
    assert refusal.reason == "ARTIFACT_INVALID"
    assert "without --arch" in refusal.message


async def test_layers_that_no_worker_builds_are_refused(tmp_path: Path) -> None:
    from ultralytics.nn.tasks import DetectionModel

    layers = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [32, 3, 2]], [-1, 1, "C3TR", [32]]]
    fields = {"nc": 1, "backbone": layers, "head": [[[1, 2], 1, "Detect", ["nc"]]]}
    path = save(DetectionModel(fields, verbose=False), tmp_path / "transformer.pt")
    refusal = await refusal_of(path, tmp_path / "work")
    assert refusal.reason == "ARTIFACT_UNSUPPORTED"
    assert "transformer" in refusal.message


async def test_an_activation_of_torch_is_used(tmp_path: Path) -> None:
    from ultralytics.nn.tasks import DetectionModel

    made: Any = DetectionModel("yolov8n.yaml", nc=1, verbose=False)
    made.yaml["activation"] = "nn.LeakyReLU(0.1, inplace=True)"
    for module in made.modules():
        if isinstance(getattr(module, "act", None), torch.nn.SiLU):
            module.act = torch.nn.LeakyReLU(0.1, inplace=True)
    pack = await import_in_child(save(made, tmp_path / "leaky.pt"), tmp_path / "work")
    assert pack.digest
    assert "LeakyReLU" in (tmp_path / "work" / "skeleton.json").read_text()


def test_the_command_line_takes_a_file_with_its_scale(model: Any, tmp_path: Path) -> None:
    import ultralytics

    source = Path(ultralytics.__file__).parent / "cfg" / "models" / "v8" / "yolov8.yaml"
    yaml = tmp_path / "yolov8n.yaml"
    yaml.write_text(source.read_text())
    assert uploads.read_architecture(yaml).startswith("scale: n\n")
    torch.save(weights_of(model), tmp_path / "weights.pt")
    done = subprocess.run(
        [
            sys.executable, "-m", "importer", str(tmp_path / "weights.pt"), f"--arch={yaml}",
            f"--names={','.join(NAMES)}", f"--out={tmp_path}/packs",
        ],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["class_names"] == list(NAMES)
    # yolov8n at 640: 8.7 GFLOPs by the library's own count, a quarter of it at 320.
    assert report["gflops"] * (640 / report["settings"]["image_size"]) ** 2 == pytest.approx(
        8.7, rel=0.05
    )


@pytest.mark.parametrize("name", ["yolov8n", "yolo12n", "yolo26n"])
def test_operations_are_those_of_a_whole_pass(name: str) -> None:
    """Counted in full at a size that is none of the two that the importer looks at."""
    from torch.utils.flop_counter import FlopCounterMode
    from ultralytics.nn.tasks import DetectionModel

    from importer.torch_import import profile

    made: Any = DetectionModel(f"{name}.yaml", verbose=False).eval().fuse(verbose=False)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        made(torch.zeros(1, 3, 640, 640))
    whole = counter.get_total_flops() / 1e9
    assert profile.gflops(made, 32, 640) == pytest.approx(whole, rel=1e-6)


# --- the head -------------------------------------------------------------------------------------


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("name", ["yolo26n", "yolov10n"])
def test_the_head_is_the_one_that_is_asked_for(name: str, zoo: Zoo, tmp_path: Path) -> None:
    digests, packs = set(), PackStore(tmp_path)
    for flags, made in (
        ((), HEAD_MODE_ONE_TO_MANY),
        (("--head=one-to-many",), HEAD_MODE_ONE_TO_MANY),
        (("--head=end-to-end",), HEAD_MODE_END_TO_END),
    ):
        place = zoo.pack(name, *flags)
        pack = packs.fetch(place)
        assert pack.manifest.head_mode == made
        digests.add(place.digest)
        pack.close()
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("name", "asked", "other"),
    [
        ("yolov8n", HEAD_MODE_END_TO_END, "--head one-to-many"),
        ("yolo26n-end-to-end", HEAD_MODE_ONE_TO_MANY, "--head end-to-end"),
    ],
)
async def test_a_head_that_is_not_there_is_refused(
    name: str, asked: Any, other: str, zoo: Zoo, tmp_path: Path
) -> None:
    settings = VersionSettings(head_mode=asked)
    refusal = await refusal_of(zoo.checkpoint(name), tmp_path / "work", settings=settings)
    assert refusal.reason == "ARTIFACT_UNSUPPORTED"
    assert other in refusal.message


async def test_a_file_with_one_head_alone_keeps_it(zoo: Zoo, tmp_path: Path) -> None:
    pack = await import_in_child(zoo.checkpoint("yolo26n-end-to-end"), tmp_path / "work")
    assert pack.settings.head_mode == HEAD_MODE_END_TO_END

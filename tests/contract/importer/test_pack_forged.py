"""What a broken-in importer could leave in the store: packs that are whole by every digest, and
made to run code, to reach beyond their bytes, or to be taken for another. No worker takes one.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from importer.torch_import import skeleton_writer
from tests.contract.forging import Change, build, first_layer, rewrite, rewrite_text
from tests.models import Zoo, location, picture
from worker.backends.base import run
from worker.backends.pytorch import skeleton
from worker.backends.pytorch.architecture import Architecture
from worker.backends.pytorch.backend import TorchBackend
from worker.packs.pack_store import PackStore
from worker.postprocess.outputs import NmsOptions
from yolopool.errors import DigestMismatch, PackInvalid
from yolopool.v1.worker_pb2 import PackLocation

POSE = "yolo11n-pose"


@pytest.fixture
def folder(zoo: Zoo, tmp_path: Path) -> Path:
    """A copy of the demo model's pack, to be forged."""
    source = Path(zoo.pack("shapes").uri.removeprefix("file://"))
    return Path(shutil.copytree(source, tmp_path / "pack"))


@pytest.fixture
def door(tmp_path: Path) -> PackStore:
    return PackStore(tmp_path / "data")


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that any code of a forged pack would make."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


def test_writer_and_reader_know_the_same_layers() -> None:
    assert skeleton_writer.LAYER_MODULES == skeleton.LAYER_MODULES
    assert skeleton_writer.ROOT_CLASSES == skeleton.ROOT_CLASSES
    assert skeleton_writer.FORMAT == skeleton.FORMAT


def attribute(value: Any) -> Change:
    return lambda tree: first_layer(tree)["attributes"].update(x=value)


def of_class(path: Any) -> Change:
    return lambda tree: first_layer(tree).update({"class": path})


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


# The words of `code` run if anything evaluates, unpickles or calls them.
CODE: dict[str, Callable[[str], Change]] = {
    "class": of_class,
    "class with a call": lambda code: of_class(f"torch.nn.modules.conv.Conv2d({code})"),
    "class of an import": lambda code: of_class("torch.nn.modules.conv.os.system"),
    "method as class": lambda code: of_class("torch.nn.modules.conv.Conv2d.__init__"),
    "class with a newline": lambda code: of_class("torch.nn.modules.conv.Conv2d\n"),
    "relative class": lambda code: of_class("..conv.Conv2d"),
    "class as list": lambda code: of_class(["os.system", [code]]),
    "forward": lambda code: lambda tree: first_layer(tree).update(forward=code),
    "forward of an object": lambda code: lambda tree: first_layer(tree).update(
        forward="forward_fuse.__globals__"
    ),
    "forward of another class": lambda code: lambda tree: first_layer(tree).update(
        forward="forward_split"
    ),
    "eval": lambda code: attribute({"eval": code}),
    "object": lambda code: attribute({"py/object/apply:os.system": [code]}),
    "reduce": lambda code: attribute({"__reduce__": ["os.system", [code]]}),
    "dtype": lambda code: attribute({"dtype": code}),
    "tuple of code": lambda code: attribute({"tuple": code}),
    "tensor of code": lambda code: attribute(
        {"tensor": {"dtype": "float32", "shape": [1], "data": [code]}}
    ),
    "globals": lambda code: lambda tree: first_layer(tree)["attributes"].update(
        __globals__={"dict": [["x", code]]}
    ),
    "getattr": lambda code: lambda tree: first_layer(tree)["attributes"].update(
        __getattr__=code
    ),
    "hooks": lambda code: lambda tree: first_layer(tree)["attributes"].update(
        _forward_pre_hooks={"dict": [[1, code]]}
    ),
    "parameters for modules": lambda code: lambda tree: first_layer(tree).update(
        parameters={"_modules": {"tensor": 0, "shape": [16, 3, 3, 3]}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CODE)
def test_code_in_a_skeleton_is_refused(
    kind: str, folder: Path, door: PackStore, canary: Path
) -> None:
    code = f"__import__('os').system('touch {canary}')"
    place = rewrite(folder, CODE[kind](code), "skeleton.json")
    with pytest.raises(PackInvalid, match="skeleton"):
        build(door, place)


def weight(**fields: Any) -> Change:
    return lambda tree: first_layer(tree)["children"]["conv"]["parameters"]["weight"].update(fields)


SHAPES: dict[str, Change] = {
    "giant": weight(shape=[2**40] * 4),
    "beyond 64 bits": weight(shape=[10**30]),
    "negative": weight(shape=[-16, -3, 3, 3]),
    "of words": weight(shape=["16", "3", "3", "3"]),
    "of fewer dimensions": weight(shape=[432]),
    "none": lambda tree: first_layer(tree)["children"]["conv"]["parameters"]["weight"].pop("shape"),
    "another tensor": weight(tensor=1),
    "a tensor by word": weight(tensor="0"),
    "a tensor by truth": weight(tensor=False),
    "a negative tensor": weight(tensor=-1),
    "a small tensor that overflows": attribute(
        {"tensor": {"dtype": "uint8", "shape": [1], "data": [2**70]}}
    ),
    "a small tensor of nothing": attribute({"tensor": {}}),
    "a small tensor of lists": attribute(
        {"tensor": {"dtype": "float32", "shape": [1], "data": [[1]]}}
    ),
    "a nested attribute": attribute(nested(100)),
    "a key that is a list": attribute({"dict": [[["a"], 1]]}),
    "two kinds at once": attribute({"tuple": [], "size": []}),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_and_values_that_can_not_be_are_refused(
    kind: str, folder: Path, door: PackStore
) -> None:
    with pytest.raises(PackInvalid, match="skeleton"):
        build(door, rewrite(folder, SHAPES[kind], "skeleton.json"))


TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "not UTF-8": lambda text: text.replace(b'"format"', b'"form\xffat"', 1),
    "a byte order mark of nothing": lambda text: b"\xff\xfe" + text,
    "two classes": lambda text: text.replace(
        b'"class":"ultralytics.nn.modules.conv.Conv"',
        b'"class":"ultralytics.nn.modules.conv.Conv","class":"os.system"',
        1,
    ),
    "a number of many digits": lambda text: text.replace(b'"format":1', b'"format":' + b"9" * 6000),
    "no number": lambda text: text.replace(b'"format":1', b'"format":NaN'),
    "two values": lambda text: text + b"{}",
    "cut short": lambda text: text[:-100],
    "nested lists": lambda text: b"[" * 200_000 + b"]" * 200_000,
    "nested objects": lambda text: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_skeleton_that_is_none_is_refused(kind: str, folder: Path, door: PackStore) -> None:
    text = TEXTS[kind]((folder / "skeleton.json").read_bytes())
    with pytest.raises(PackInvalid, match="skeleton"):
        build(door, rewrite_text(folder, text))


def swap_shapes(manifest: dict[str, Any]) -> None:
    """Two tensors of one size, each in the form of the other."""
    tensors = manifest["tensors"]
    first, second = tensors[0], next(t for t in tensors if len(t["shape"]) == 1)
    first["shape"], second["shape"] = second["shape"], first["shape"]
    first["strides"], second["strides"] = second["strides"], first["strides"]


TENSORS: dict[str, Change] = {
    "strides of 63 bits": lambda m: m["tensors"][0].update(strides=[str(2**63)] * 4),
    "strides of 64 bits": lambda m: m["tensors"][0].update(strides=[str(2**64)] * 4),
    "negative strides": lambda m: m["tensors"][0].update(strides=["-1"] * 4),
    "negative shape": lambda m: m["tensors"][0].update(shape=["-1"] * 4),
    "no elements": lambda m: m["tensors"][0].update(shape=["0"] * 4),
    "shape whose product wraps": lambda m: m["tensors"][0].update(shape=[str(2**32)] * 4),
    "offset of 64 bits": lambda m: m["tensors"][0].update(offset=str(2**64)),
    "one more tensor": lambda m: m["tensors"].append(
        {"name": "more", "dtype": "uint8", "shape": ["0"], "strides": ["1"]}
    ),
    "one tensor less": lambda m: m["tensors"].pop(),
    "shapes of each other": swap_shapes,
    "another order": lambda m: m["tensors"].reverse(),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_that_are_not_the_skeletons_are_refused(
    kind: str, folder: Path, door: PackStore
) -> None:
    with pytest.raises(PackInvalid):
        build(door, rewrite(folder, TENSORS[kind]))


def test_a_manifest_that_says_a_thing_twice_is_refused(folder: Path, door: PackStore) -> None:
    text = (folder / "manifest.json").read_text()
    assert '"format":1' in text
    (folder / "manifest.json").write_text(text.replace('"format":1', '"format":2,"format":1'))
    with pytest.raises(PackInvalid, match="duplicate"):
        door.fetch(location(folder))


def test_a_class_name_that_is_no_text_is_refused(folder: Path, door: PackStore) -> None:
    data = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(data.replace(b'"circle"', b'"circ\xff"', 1))
    with pytest.raises(PackInvalid):
        door.fetch(location(folder))


# --- a head that is not the manifest's ------------------------------------------------------------


def head(tree: dict[str, Any]) -> dict[str, Any]:
    layers = tree["root"]["children"]["model"]["children"]
    found: dict[str, Any] = layers[max(layers, key=int)]["attributes"]
    return found


HEADS: dict[str, tuple[str, str, Change]] = {
    "one more class": ("shapes", "manifest.json", lambda m: m["class_names"].append("more")),
    "fewer classes": ("shapes", "skeleton.json", lambda t: head(t).update(nc=2)),
    "classes as text": ("shapes", "skeleton.json", lambda t: head(t).update(nc="3")),
    "no classes": ("shapes", "skeleton.json", lambda t: head(t).pop("nc")),
    "another task": (
        "shapes",
        "manifest.json",
        lambda m: m.update(task="segment", head={"mask_coefficients": 32}),
    ),
    "fewer keypoints": (POSE, "manifest.json", lambda m: m["head"].update(keypoints=3)),
    "keypoints of two": (POSE, "manifest.json", lambda m: m["head"].update(keypoint_values=2)),
    "keypoints of none": (POSE, "skeleton.json", lambda t: head(t).update(kpt_shape=[17, 0])),
    "half a shape": (POSE, "skeleton.json", lambda t: head(t).update(kpt_shape=[17])),
    "a shape that is none": (POSE, "skeleton.json", lambda t: head(t).update(kpt_shape=17)),
    "more coefficients": (
        "yolo11n-seg",
        "manifest.json",
        lambda m: m["head"].update(mask_coefficients=33),
    ),
    "another number of coefficients": (
        "yolo11n-seg",
        "skeleton.json",
        lambda t: head(t).update(nm=31),
    ),
}


def copied(zoo: Zoo, name: str, tmp_path: Path) -> Path:
    source = Path(zoo.pack(name).uri.removeprefix("file://"))
    return Path(shutil.copytree(source, tmp_path / name))


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize("kind", HEADS)
def test_a_head_that_the_manifest_does_not_say_is_refused_at_load(
    kind: str, zoo: Zoo, door: PackStore, tmp_path: Path
) -> None:
    name, file, change = HEADS[kind]
    place = rewrite(copied(zoo, name, tmp_path), change, file)
    with pytest.raises(PackInvalid, match="head"):
        TorchBackend("cpu", 1).load(door.fetch(place), "fp32")


def test_layers_that_give_other_classes_are_refused_with_the_first_pass(
    zoo: Zoo, door: PackStore, tmp_path: Path
) -> None:
    """Where head and manifest agree, and the weights are of fewer."""
    folder = copied(zoo, "yolo11n-cls", tmp_path)

    def one_more(tree: dict[str, Any]) -> None:
        layers = tree["root"]["children"]["model"]["children"]
        linear = layers[max(layers, key=int)]["children"]["linear"]["attributes"]
        linear["out_features"] += 1

    rewrite(folder, one_more, "skeleton.json")
    pack = door.fetch(rewrite(folder, lambda m: m["class_names"].append("more")))
    model = TorchBackend("cpu", 1).load(pack, "fp32")
    asked = NmsOptions((0.25,) * len(pack.manifest.class_names), 0.7, 300, False)
    with pytest.raises(PackInvalid, match="its head says"):
        run(model, [picture(0, 224, 224)], [asked])


def test_other_prototypes_than_coefficients_are_refused(zoo: Zoo, door: PackStore) -> None:
    shared = Architecture(door.fetch(zoo.pack("yolo11n-seg")).skeleton)
    shared.check_answer(torch.zeros(1, 116, 84), torch.zeros(1, 32, 16, 16))
    with pytest.raises(PackInvalid, match="31 classes or prototypes"):
        shared.check_answer(torch.zeros(1, 116, 84), torch.zeros(1, 31, 16, 16))


# --- files that are not the pack's ----------------------------------------------------------------


def test_a_manifest_of_another_pack_does_not_fit(zoo: Zoo, folder: Path, door: PackStore) -> None:
    other, own = zoo.pack("yolov8n"), location(folder)
    shutil.copy(Path(other.uri.removeprefix("file://")) / "manifest.json", folder)
    for digest in (own.digest, other.digest):
        with pytest.raises((DigestMismatch, PackInvalid)):
            door.fetch(PackLocation(uri=folder.as_uri(), digest=digest))


@pytest.mark.parametrize("name", ["skeleton.json", "weights.bin"])
def test_a_file_of_another_pack_does_not_fit(
    name: str, zoo: Zoo, folder: Path, door: PackStore
) -> None:
    shutil.copy(Path(zoo.pack("yolov8n").uri.removeprefix("file://")) / name, folder)
    with pytest.raises((DigestMismatch, PackInvalid), match=name):
        door.fetch(location(folder))


def test_files_in_each_others_place_are_refused(folder: Path, door: PackStore) -> None:
    place = location(folder)
    (folder / "manifest.json").rename(folder / "other")
    (folder / "skeleton.json").rename(folder / "manifest.json")
    (folder / "other").rename(folder / "skeleton.json")
    with pytest.raises(DigestMismatch):
        door.fetch(place)
    with pytest.raises(PackInvalid):
        door.fetch(location(folder))


@pytest.mark.parametrize("name", ["manifest.json", "skeleton.json", "weights.bin"])
@pytest.mark.parametrize("target", ["secret", "/dev/zero", "/proc/self/environ"])
def test_a_link_to_something_else_is_not_read_as_a_pack(
    name: str, target: str, folder: Path, door: PackStore, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("a password")
    place = location(folder)
    (folder / name).unlink()
    (folder / name).symlink_to(tmp_path / target)
    with pytest.raises((DigestMismatch, PackInvalid)) as caught:
        door.fetch(place)
    assert "a password" not in str(caught.value)

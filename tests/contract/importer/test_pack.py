"""A pack is read as it was written, and a damaged or hostile one is refused."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from importer.torch_import import checkpoint
from tests.contract.forging import Change, build, first_layer, rewrite
from tests.models import Zoo, location, picture
from worker.backends.pytorch import skeleton
from worker.packs.host_memory import HostMemory
from worker.packs.pack_store import PackStore
from yolopool.errors import DigestMismatch, PackInvalid, PackNotFound
from yolopool.v1.worker_pb2 import PackLocation


@pytest.fixture
def folder(zoo: Zoo, tmp_path: Path) -> Path:
    """A copy of the demo model's pack, to be damaged."""
    source = Path(zoo.pack("shapes").uri.removeprefix("file://"))
    return Path(shutil.copytree(source, tmp_path / "pack"))


@pytest.fixture
def door(tmp_path: Path) -> PackStore:
    return PackStore(tmp_path / "data")


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize("name", ["shapes", "yolov8n", "yolov10n", "yolo26n-end-to-end"])
def test_round_trip_gives_the_same_module(name: str, zoo: Zoo, door: PackStore) -> None:
    loaded = checkpoint.load(zoo.checkpoint(name)).model
    original = checkpoint.fuse(loaded, end_to_end=name.endswith("end-to-end"))
    rebuilt = build(door, zoo.pack(name))
    image = torch.from_numpy(picture(0, 320, 256)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        before, after = original(image)[0], rebuilt(image)[0]
    assert torch.equal(before, after)
    strides = {key: value.stride() for key, value in original.named_parameters()}
    assert {key: value.stride() for key, value in rebuilt.named_parameters()} == strides
    assert not any(parameter.requires_grad for parameter in rebuilt.parameters())
    assert not rebuilt.training


def test_weights_are_views_of_one_block(zoo: Zoo, door: PackStore) -> None:
    pack = door.fetch(zoo.pack("shapes"))
    flat = torch.frombuffer(pack.weights_buffer, dtype=torch.uint8)
    begin, end = flat.data_ptr(), flat.data_ptr() + flat.numel()
    for tensor in skeleton.Skeleton(pack.skeleton).views(pack.places, flat):
        assert begin <= tensor.data_ptr() < end
        assert tensor.data_ptr() % 256 == begin % 256 == 0
    assert not pack.weights.flags.writeable
    assert pack.weights.shape == (pack.manifest.weights_bytes,)


def test_models_of_one_architecture_share_a_skeleton(zoo: Zoo, tmp_path: Path) -> None:
    from tests.models import build_woken, import_checkpoint, save

    # The zoo's has another seed.
    path = save(build_woken("yolov8n.yaml", 1), tmp_path / "1.pt")
    folders = [
        import_checkpoint(path, tmp_path / "packs")["pack"],
        zoo.pack("yolov8n").uri.removeprefix("file://"),
    ]
    reports = [json.loads((Path(folder) / "manifest.json").read_text()) for folder in folders]
    assert reports[0]["architecture_key"] == reports[1]["architecture_key"]
    assert reports[0]["weights_sha256"] != reports[1]["weights_sha256"]
    assert reports[0]["tensors"] == reports[1]["tensors"]


def test_without_weights_only_the_rest_is_read(folder: Path, door: PackStore) -> None:
    (folder / "weights.bin").unlink()
    pack = door.fetch(location(folder), weights=False)
    assert pack.manifest.task == "detect"
    with pytest.raises(ValueError, match="without its weights"):
        _ = pack.weights


def test_memory_goes_back_with_the_pack(zoo: Zoo, door: PackStore) -> None:
    def is_mapped(address: int) -> bool:
        lines = Path("/proc/self/maps").read_text().splitlines()
        places = [line.split()[0].split("-") for line in lines]
        return any(int(begin, 16) <= address < int(end, 16) for begin, end in places)

    pack = door.fetch(zoo.pack("shapes"))
    assert pack.memory is not None
    middle = pack.memory.array.ctypes.data + pack.manifest.weights_bytes // 2
    assert is_mapped(middle)
    pack.close()
    pack.close()
    assert not is_mapped(middle)
    with pytest.raises(ValueError, match="given back"):
        _ = pack.weights


def test_a_view_keeps_the_memory_until_it_goes() -> None:
    memory = HostMemory(8192)
    memory.buffer[:4] = b"abcd"
    view = memory.array
    memory.close()
    assert bytes(view[:4]) == b"abcd"


def test_a_store_elsewhere_is_cached_here(folder: Path, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/far/pack", recursive=True)
    digest = location(folder).digest
    place = PackLocation(uri="memory://far/pack", digest=digest)
    door = PackStore(tmp_path / "data")
    assert door.fetch(place, weights=False).memory is None
    first = door.fetch(place)
    store.rm("/far", recursive=True)
    again = door.fetch(place)
    np.testing.assert_array_equal(first.weights, again.weights)
    assert [path.name for path in (tmp_path / "data" / "packs").iterdir()] == [digest]


def test_a_damaged_copy_is_thrown_away(folder: Path, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/away/pack", recursive=True)
    place = PackLocation(uri="memory://away/pack", digest=location(folder).digest)
    door = PackStore(tmp_path / "data")
    door.fetch(place).close()
    os.truncate(tmp_path / "data" / "packs" / place.digest / "weights.bin", 1000)
    with pytest.raises(DigestMismatch):
        door.fetch(place)
    door.fetch(place).close()
    store.rm("/away", recursive=True)


def test_the_cache_is_bounded(folder: Path, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    door = PackStore(tmp_path / "data", cache_bytes=1)
    for index in range(3):
        place = rewrite(folder, lambda fields, n=index: fields.update(release=f"0.{n}"))  # type: ignore[misc]  # n is bound at once
        store.put(str(folder), f"/many/{index}", recursive=True)
        place.uri = f"memory://many/{index}"
        door.fetch(place).close()
    assert [path.name for path in (tmp_path / "data" / "packs").iterdir()] == [place.digest]
    store.rm("/many", recursive=True)


def test_what_is_in_use_stays_in_the_cache(folder: Path, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    used: list[str] = []
    door = PackStore(tmp_path / "data", cache_bytes=1, in_use=lambda: used)
    for index in range(3):
        place = rewrite(folder, lambda fields, n=index: fields.update(release=f"1.{n}"))  # type: ignore[misc]  # n is bound at once
        store.put(str(folder), f"/used/{index}", recursive=True)
        place.uri = f"memory://used/{index}"
        door.prepare(place)
        if index == 0:
            used.append(place.digest)
    assert {path.name for path in (tmp_path / "data" / "packs").iterdir()} == {
        used[0],
        place.digest,
    }
    store.rm("/used", recursive=True)


def test_a_file_that_changed_is_verified_again(folder: Path, door: PackStore) -> None:
    place = location(folder)
    door.prepare(place)
    door.fetch(place).close()
    data = bytearray((folder / "weights.bin").read_bytes())
    data[1000] ^= 1
    (folder / "weights.bin").write_bytes(data)
    for again in (door.fetch, door.prepare):
        with pytest.raises(DigestMismatch, match="weights"):
            again(place)


def test_what_a_crash_left_in_the_cache_is_swept(folder: Path, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/swept/pack", recursive=True)
    packs = tmp_path / "data" / "packs"
    for name, age_s in ((".incoming-old", 7200), (".incoming-new", 60)):
        (packs / name).mkdir(parents=True)
        then = time.time() - age_s
        os.utime(packs / name, (then, then))
    place = PackLocation(uri="memory://swept/pack", digest=location(folder).digest)
    PackStore(tmp_path / "data").prepare(place)
    assert {path.name for path in packs.iterdir()} == {".incoming-new", place.digest}
    store.rm("/swept", recursive=True)


@pytest.mark.parametrize(
    "uri", ["", "/plain/path", "file:///nowhere/at/all", "nosuch://x/y", "zip::file:///a.zip"]
)
def test_no_pack_there(uri: str, door: PackStore) -> None:
    with pytest.raises(PackNotFound):
        door.fetch(PackLocation(uri=uri, digest="0" * 64))


@pytest.mark.parametrize("name", ["manifest.json", "skeleton.json", "weights.bin"])
def test_a_missing_file_is_no_pack(name: str, folder: Path, door: PackStore) -> None:
    place = location(folder)
    (folder / name).unlink()
    with pytest.raises(PackNotFound, match=name):
        door.fetch(place)


@pytest.mark.parametrize("name", ["manifest.json", "skeleton.json", "weights.bin"])
@pytest.mark.parametrize("kind", ["truncated", "flipped"])
def test_damage_is_noticed(name: str, kind: str, folder: Path, door: PackStore) -> None:
    place = location(folder)
    data = bytearray((folder / name).read_bytes())
    if kind == "truncated":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(DigestMismatch, match=name):
        door.fetch(place)


@pytest.mark.parametrize("digest", ["", "0" * 63, "G" * 64, "../../../etc"])
def test_a_digest_is_a_digest(digest: str, folder: Path, door: PackStore) -> None:
    with pytest.raises(PackInvalid):
        door.fetch(PackLocation(uri=folder.as_uri(), digest=digest))


def test_another_digest_is_another_pack(folder: Path, door: PackStore) -> None:
    with pytest.raises(DigestMismatch):
        door.fetch(PackLocation(uri=folder.as_uri(), digest="0" * 64))


HOSTILE_MANIFESTS: dict[str, Change] = {
    "format": lambda m: m.update(format=2),
    "unknown field": lambda m: m.update(run="me"),
    "task": lambda m: m.update(task="semantic"),
    "task without its head": lambda m: m.update(task="segment"),
    "head of another task": lambda m: m.update(head={"mask_coefficients": 32}),
    "keypoints": lambda m: m.update(task="pose", head={"keypoints": 9, "keypoint_values": 4}),
    "stride": lambda m: m.update(stride=0),
    "head": lambda m: m.pop("head_mode"),
    "no classes": lambda m: m.update(class_names=[]),
    "long class": lambda m: m.update(class_names=["x" * 1001]),
    "activation": lambda m: m.update(activation_bytes_per_megapixel=str(2**60)),
    "huge weights": lambda m: m.update(weights_bytes=str(2**50)),
    "image size": lambda m: m["settings"].update(image_size=100_000),
    "half a rectangle": lambda m: m["settings"].update(image_height=320),
    "another rectangle": lambda m: m["settings"].update(image_height=320, image_width=640),
    "a rectangle of sizes": lambda m: m["settings"].update(
        image_height=192, image_width=320, image_sizes=[640]
    ),
    "channels": lambda m: m.update(channels=4),
    "iou not set": lambda m: m["settings"].pop("iou"),
    "confidence": lambda m: m["settings"].update(confidence=1.5),
    "not a number": lambda m: m["settings"].update(confidence="NaN"),
    "max detections": lambda m: m["settings"].update(max_detections=0),
    "policy": lambda m: m["settings"].pop("shape_policy"),
    "dtype": lambda m: m["tensors"][0].update(dtype="object"),
    "unaligned": lambda m: m["tensors"][1].update(offset="8"),
    "beyond": lambda m: m["tensors"][-1].update(offset=m["weights_bytes"]),
    "far beyond": lambda m: m["tensors"][-1].update(offset=str(2**63)),
    "overlap": lambda m: m["tensors"][1].update(offset=m["tensors"][0].get("offset", "0")),
    "negative": lambda m: m["tensors"][0].update(offset="-256"),
    "strides": lambda m: m["tensors"][0].update(strides=["0", "0", "0", "0"]),
    "long strides": lambda m: m["tensors"][0].update(strides=["1000000000"] * 4),
    "fewer strides": lambda m: m["tensors"][0].update(strides=["1"]),
    "big shape": lambda m: m["tensors"][0].update(shape=[str(2**40)] * 4),
    "same name": lambda m: m["tensors"][1].update(name=m["tensors"][0]["name"]),
    "name": lambda m: m["tensors"][0].update(name="../x"),
    "no tensors": lambda m: m.update(tensors=[]),
}


@pytest.mark.parametrize("kind", HOSTILE_MANIFESTS)
def test_a_hostile_manifest_is_refused(kind: str, folder: Path, door: PackStore) -> None:
    with pytest.raises(PackInvalid):
        door.fetch(rewrite(folder, HOSTILE_MANIFESTS[kind]))


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff\xfe", b"null"])
def test_a_manifest_that_is_none_is_refused(text: bytes, folder: Path, door: PackStore) -> None:
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(PackInvalid):
        door.fetch(location(folder))


def deep(tree: dict[str, Any]) -> None:
    node = first_layer(tree)
    for _ in range(60):
        child = {"class": "torch.nn.modules.linear.Identity"}
        node["children"] = {"0": child}
        node = child


HOSTILE_SKELETONS: dict[str, Change] = {
    "os.system": lambda s: first_layer(s).update({"class": "os.system"}),
    "subprocess": lambda s: first_layer(s).update({"class": "subprocess.Popen"}),
    "builtin": lambda s: first_layer(s).update({"class": "builtins.eval"}),
    "not a layer": lambda s: first_layer(s).update({"class": "torch.nn.modules.conv.Tensor"}),
    "imported there": lambda s: first_layer(s).update(
        {"class": "ultralytics.nn.modules.block.torch"}
    ),
    "loads models": lambda s: first_layer(s).update(
        {"class": "ultralytics.nn.modules.block.TorchVision"}
    ),
    "another root": lambda s: s["root"].update({"class": "torch.nn.modules.container.Sequential"}),
    "a model within": lambda s: first_layer(s).update(
        {"class": "ultralytics.nn.tasks.DetectionModel"}
    ),
    "no class": lambda s: first_layer(s).pop("class"),
    "class is no text": lambda s: first_layer(s).update({"class": 7}),
    "unknown field": lambda s: first_layer(s).update(code="print()"),
    "dunder": lambda s: first_layer(s)["attributes"].update(__class__="x"),
    "internals": lambda s: first_layer(s)["attributes"].update(_forward_hooks={"dict": []}),
    "shadows a method": lambda s: first_layer(s)["attributes"].update(train="x"),
    "method": lambda s: first_layer(s).update(forward="__init__"),
    "method of another": lambda s: first_layer(s).update(forward="forward_nothing"),
    "unknown kind": lambda s: first_layer(s)["attributes"].update(x={"eval": "1"}),
    "big tensor": lambda s: first_layer(s)["attributes"].update(
        x={"tensor": {"dtype": "float32", "shape": [5000], "data": [0] * 5000}}
    ),
    "tensor of lies": lambda s: first_layer(s)["attributes"].update(
        x={"tensor": {"dtype": "float32", "shape": [-1, -4], "data": [0] * 4}}
    ),
    "no such tensor": lambda s: first_layer(s)["children"]["conv"]["parameters"].update(
        weight={"tensor": 10_000, "shape": [1]}
    ),
    "another shape": lambda s: first_layer(s)["children"]["conv"]["parameters"]["weight"].update(
        shape=[1, 1, 1, 1]
    ),
    "unused tensors": lambda s: first_layer(s).update(children={}),
    "deep": deep,
    "format": lambda s: s.update(format=2),
    "no root": lambda s: s.pop("root"),
}


@pytest.mark.parametrize("kind", HOSTILE_SKELETONS)
def test_a_hostile_skeleton_is_refused(kind: str, folder: Path, door: PackStore) -> None:
    place = rewrite(folder, HOSTILE_SKELETONS[kind], "skeleton.json")
    with pytest.raises(PackInvalid, match="skeleton"):
        build(door, place)

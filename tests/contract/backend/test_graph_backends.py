"""Graphs in a worker: ONNX Runtime and OpenVINO give what torch gives, in every layout; what they
can not do is said.
"""

import hashlib
import os
import struct
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from importer import child
from importer.processes import fresh_child, running
from importer.refusal import ImportRefused
from tests import onnx_graphs
from tests.contract.backend.test_backend import boxed, on_the_cpu, options
from tests.contract.backend.test_layouts import Boxes
from tests.contract.forging import rewrite_weights
from tests.contract.importer.test_onnx import BY_HAND, NAMES, OF_THREE, V8, outputs_of, rows_of
from tests.contract.imports import forked, import_in_child, refusal_of
from tests.contract.worker.test_worker import Start
from tests.contract.worker.test_worker import start as start
from tests.lying_graphs import LIES, TRUE
from tests.models import SHAPES, Zoo, build, location, picture, save
from worker.backends.base import Backend, run
from worker.backends.composite import CompositeBackend
from worker.backends.onnx.onnxruntime_backend import OnnxRuntime
from worker.backends.onnx.openvino_backend import OpenVino
from worker.backends.pytorch.backend import TorchBackend
from worker.backends.simulated import SimulatedBackend
from worker.hardware import host
from worker.packs.pack import Pack
from worker.packs.pack_store import PackStore
from worker.postprocess.outputs import Candidates
from yolopool.client import uploads
from yolopool.client.detections import Detections
from yolopool.errors import InferenceFailed, InvalidOption, LoadFailed
from yolopool.evaluation import drift
from yolopool.graphs import pictures
from yolopool.v1 import importing_pb2 as pb
from yolopool.v1.pack_pb2 import PackManifest
from yolopool.v1.types_pb2 import (
    HEAD_MODE_END_TO_END,
    OUTPUT_LAYOUT_PLAIN,
    VersionSettings,
)

GRAPHS = ("onnx", "openvino")


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    backend = on_the_cpu()
    backend.open()
    yield backend
    backend.close()


async def pack_of(model: onnx.ModelProto, folder: Path, backend: str, **changes: Any) -> Pack:
    path = onnx_graphs.write(model, folder / f"{backend}.onnx")
    build = child.Build(backend)
    await import_in_child(path, folder / backend, build=build, **changes)
    return PackStore(folder).fetch(location(folder / backend))


def found(backend: Backend, pack: Pack, *images: Any, confidence: float = 0.25) -> Any:
    model = backend.load(pack, "fp32")
    asked = [options(pack, confidence)] * len(images)
    candidates = run(model, images, asked).candidates
    model.close()
    return candidates


def assert_same(one: Candidates, other: Candidates, pixels: float = 1e-2) -> None:
    np.testing.assert_array_equal(one.class_id, other.class_id)
    np.testing.assert_allclose(one.xyxy, other.xyxy, rtol=0, atol=pixels)
    np.testing.assert_allclose(one.confidence, other.confidence, rtol=0, atol=1e-4)


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("shapes", "one-to-many"),
        ("shapes-v8", "one-to-many"),
        ("shapes-26", "one-to-many"),
        ("shapes-26", "end-to-end"),
    ],
)
def test_what_torch_finds_is_found(
    name: str, head: str, kind: str, backend: Backend, zoo: Zoo, tmp_path: Path
) -> None:
    """Alone and in a batch, squares and rectangles; with either head."""
    door = PackStore(tmp_path)
    left, right = (door.fetch(zoo.built(name, one, head=head)) for one in ("torch", kind))
    assert right.manifest.head_mode == left.manifest.head_mode
    count = 0
    for height, width in ((320, 320), (200, 320)):
        images = [boxed(seed, height, width) for seed in range(3)]
        together = found(backend, right, *images)
        for image, one in zip(images, together, strict=True):
            (expected,) = found(backend, left, image)
            (alone,) = found(backend, right, image)
            assert_same(alone, expected)
            assert_same(one, expected)
            count += len(expected.confidence)
    assert count > 6


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("by_hand", BY_HAND)
async def test_known_boxes_come_out_of_every_layout(
    by_hand: str, kind: str, backend: Backend, tmp_path: Path
) -> None:
    """Of a file that takes one image at a time: a batch of three is three passes."""
    layout, metadata = BY_HAND[by_hand]
    model = onnx_graphs.answering(outputs_of(layout), metadata=metadata)
    of = child.Architecture() if metadata else OF_THREE
    pack = await pack_of(model, tmp_path, kind, weights_of=of)
    boxes = Boxes(5, 1, rows_of(layout), len(NAMES))
    (one, *others) = found(backend, pack, *[boxed(seed) for seed in range(3)])
    assert len(one.confidence)
    assert one.confidence[0] == pytest.approx(boxes.score[0].max(), abs=1e-5)
    for other in others:
        assert_same(one, other, 0)


def black_is_not_finite(batch: int) -> onnx.ModelProto:
    """Scores are divided by the brightest pixel of each image: a black one gives 0 / 0."""
    rows = outputs_of(OUTPUT_LAYOUT_PLAIN)["output"]
    size = (batch or "batch", 3, 320, 320)
    shapes = {"output": (batch or "batch", *rows.shape[1:])}
    model = onnx_graphs.answering({"output": rows}, size=size, shapes=shapes, metadata=V8)
    brightest = [
        helper.make_node("ReduceMax", ["cast"], ["light"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Squeeze", ["light", "axis"], ["of_image"]),
        helper.make_node("Div", ["of_image", "of_image"], ["one"]),
        helper.make_node("Mul", ["values", "one"], ["output"]),
    ]
    model.graph.node[-1].output[0] = "values"
    model.graph.node.extend(brightest)
    model.graph.initializer.add().CopyFrom(numpy_helper.from_array(np.array([3]), "axis"))
    return model


@pytest.mark.parametrize("batch", [3, 0])
@pytest.mark.parametrize("kind", GRAPHS)
async def test_an_answer_that_is_not_finite_fails_its_own_image(
    kind: str, batch: int, backend: Backend, tmp_path: Path
) -> None:
    model = black_is_not_finite(batch)
    pack = await pack_of(model, tmp_path, kind)
    black = np.zeros((320, 320, 3), np.uint8)
    first, second, third = found(backend, pack, boxed(0), black, boxed(2))
    assert second.failure is not None
    assert second.failure.reason == "ANSWER_NOT_FINITE"
    assert "not finite" in second.failure.message
    for one in (first, third):
        assert one.failure is None
        assert len(one.confidence)


@pytest.mark.parametrize("kind", GRAPHS)
async def test_a_fixed_batch_is_filled_up(kind: str, backend: Backend, tmp_path: Path) -> None:
    """Of four: five images are two passes, and nobody gets the answer of what filled them up."""
    pack = await pack_of(TRUE["batches of four"].model(), tmp_path, kind)
    images = [pictures.scene(number % 3, 320, 320) for number in range(5)]
    alone = [found(backend, pack, image, confidence=0.6)[0] for image in images[:3]]
    assert [one.class_id[0] for one in alone] == [0, 1, 2]
    for number, one in enumerate(found(backend, pack, *images, confidence=0.6)):
        assert_same(one, alone[number % 3])


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8])
async def test_pixels_arrive_as_the_graph_takes_them(
    kind: str, dtype: int, backend: Backend, tmp_path: Path
) -> None:
    """The confidence that it answers is the red of the first pixel, as it came, of 0..1."""
    graph = onnx_graphs.answering(outputs_of(OUTPUT_LAYOUT_PLAIN), dtype=dtype, metadata=V8)
    tell_red(graph.graph, scale=1 / 255 if dtype == TensorProto.UINT8 else 1)
    pack = await pack_of(graph, tmp_path, kind)
    image = np.zeros((320, 320, 3), np.uint8)
    image[0, 0] = (10, 20, 204)
    (one,) = found(backend, pack, image, confidence=0.5)
    assert one.confidence[0] == pytest.approx(0.8, abs=1e-3)


def tell_red(graph: onnx.GraphProto, scale: float) -> None:
    """Every score of every row becomes the red of the first pixel times `scale`."""
    constants: dict[str, Any] = {
        "starts": np.zeros(4, np.int64),
        "ends": np.ones(4, np.int64),
        "scale": np.array(scale, np.float32),
        "form": np.array([1, 1, 1], np.int64),
        "of boxes": np.array([1] * 4 + [0] * 3, np.float32).reshape(1, 7, 1),
        "of scores": np.array([0] * 4 + [1] * 3, np.float32).reshape(1, 7, 1),
    }
    for name, value in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    last = graph.node[-1]
    last.output[0] = "rows"
    graph.node.extend(
        [
            helper.make_node("Slice", ["cast", "starts", "ends"], ["pixel"]),
            helper.make_node("Mul", ["pixel", "scale"], ["red"]),
            helper.make_node("Reshape", ["red", "form"], ["of image"]),
            helper.make_node("Mul", ["of scores", "of image"], ["scores"]),
            helper.make_node("Mul", ["rows", "of boxes"], ["boxes"]),
            helper.make_node("Add", ["boxes", "scores"], ["output"]),
        ]
    )


@pytest.mark.parametrize("kind", GRAPHS)
async def test_another_size_than_the_file_fixes_is_refused(
    kind: str, backend: Backend, tmp_path: Path
) -> None:
    graph = onnx_graphs.answering(outputs_of(OUTPUT_LAYOUT_PLAIN), metadata=V8)
    pack = await pack_of(graph, tmp_path, kind)
    with pytest.raises(InvalidOption, match=r"320x320 pixels alone.*was to be 320x224"):
        found(backend, pack, boxed(0, 200, 320))


@pytest.mark.parametrize("kind", GRAPHS)
async def test_an_answer_of_another_layout_is_an_error(
    kind: str, backend: Backend, tmp_path: Path
) -> None:
    """On pictures that the import did not try, say."""
    await pack_of(TRUE["one fixed size"].model(), tmp_path, kind)
    logits = LIES["scores that are logits"].model().SerializeToString()
    pack = PackStore(tmp_path).fetch(rewrite_weights(tmp_path / kind, logits))
    with pytest.raises(InferenceFailed, match="not of its layout"):
        found(backend, pack, boxed(0))


@pytest.mark.parametrize("kind", GRAPHS)
async def test_a_graph_that_a_runtime_does_not_take_is_refused(
    kind: str, backend: Backend, tmp_path: Path
) -> None:
    """Valid ONNX, of an operator that the one has for no bf16, and the other not at all. The import
    has another version of the one, and never the other.
    """
    graph = onnx_graphs.answering(outputs_of(OUTPUT_LAYOUT_PLAIN), metadata=V8)
    (cast,) = [node for node in graph.graph.node if node.op_type == "Cast"]
    cast.output[0] = "before"
    strange = {
        "onnx": [
            helper.make_node("Cast", ["before"], ["half"], to=TensorProto.BFLOAT16),
            helper.make_node("Erf", ["half"], ["odd"]),
            helper.make_node("Cast", ["odd"], ["cast"], to=TensorProto.FLOAT),
        ],
        "openvino": [helper.make_node("Det", ["before"], ["cast"])],
    }
    for number, node in enumerate(strange[kind]):
        graph.graph.node.insert(1 + number, node)
    await pack_of(TRUE["one fixed size"].model(), tmp_path, kind)
    place = rewrite_weights(tmp_path / kind, graph.SerializeToString())
    pack = PackStore(tmp_path).fetch(place)
    with pytest.raises(LoadFailed, match=f"{kind} does not take this graph"):
        found(backend, pack, boxed(0))


@pytest.mark.parametrize(
    ("kind", "library", "extra"),
    [("onnx", "onnxruntime", "yolopool[onnx]"), ("openvino", "openvino", "yolopool[openvino]")],
)
def test_a_missing_library_is_named_with_its_extra(
    kind: str,
    library: str,
    extra: str,
    zoo: Zoo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # as where it is not installed
    pack = PackStore(tmp_path).fetch(zoo.built("shapes", kind))
    with pytest.raises(LoadFailed) as caught:
        on_the_cpu().load(pack, "fp32")
    assert extra in caught.value.message


def policies() -> dict[int, int]:
    """By which the kernel schedules all threads of this process, by their ids."""
    found = {}
    for folder in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has just ended
            found[int(folder.name)] = os.sched_getscheduler(int(folder.name))
    return found


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_graph_is_made_at_a_low_priority_and_run_at_that_of_the_worker(
    kind: str, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "others_leave_time", lambda: True)
    own = os.sched_getscheduler(0)
    pack = PackStore(tmp_path).fetch(zoo.built("shapes", kind))
    backend = CompositeBackend(TorchBackend("cpu", 2), OnnxRuntime("cpu", 2), OpenVino(2))
    loads_beside = backend.loads_beside(pack.manifest)
    assert loads_beside is not None
    assert backend.loads_beside(PackManifest(backend="torch")) is None
    before = policies()
    for _ in range(2):
        loading = loads_beside(pack, "fp32")
        loading.prepare()
        loading.begin()
        classes, done = set[int](), threading.Event()

        def look(classes: set[int] = classes, done: threading.Event = done) -> None:
            while not done.is_set():
                classes.update(policies().values())
                time.sleep(0.001)

        looking = threading.Thread(target=look)
        looking.start()
        loading.make()
        done.set()
        looking.join()
        assert os.SCHED_IDLE in classes
        assert loading.try_out((320, 320), ask=True) == ""
        model = loading.end()
        run(model, [boxed(0)], [options(pack)])
        assert os.sched_getscheduler(0) == own
        until = time.monotonic() + 10
        while os.SCHED_IDLE in (now := policies()).values():  # threads that ended may linger
            assert time.monotonic() < until, now
            time.sleep(0.01)
        assert {now[key] for key in now.keys() - before.keys()} <= {own}
        model.close()


@pytest.mark.parametrize("kind", GRAPHS)
def test_the_bytes_of_a_graph_are_its_own_though_another_goes_meanwhile(
    kind: str, backend: Backend, zoo: Zoo, tmp_path: Path
) -> None:
    pack = PackStore(tmp_path).fetch(zoo.built("shapes", kind))
    loads_beside = backend.loads_beside(pack.manifest)
    assert loads_beside is not None
    backend.load(pack, "fp32").close()  # what any model needs is there
    other = backend.load(pack, "fp32")
    alone = other.weights_bytes + other.private_bytes
    loading = loads_beside(pack, "fp32")
    loading.prepare()
    loading.begin()
    thread = threading.Thread(target=loading.make)
    thread.start()
    loading.leave_out(-alone)
    other.close()
    thread.join()
    model = loading.end()
    assert model.weights_bytes + model.private_bytes == pytest.approx(alone, rel=0.2)
    model.close()


UNABLE: dict[str, tuple[Callable[[], Backend], str]] = {
    "no runtime": (
        lambda: CompositeBackend(TorchBackend("cpu", 1)),
        r"this cpu worker does not run packs.*torch",
    ),
    "no provider": (
        lambda: CompositeBackend(TorchBackend("cpu", 1), OnnxRuntime("cuda", used_bytes=lambda: 0)),
        "no CUDAExecutionProvider: install onnxruntime-gpu",
    ),
}


@pytest.mark.parametrize("kind", UNABLE)
def test_a_worker_that_can_not_run_a_pack_says_why(kind: str, zoo: Zoo, tmp_path: Path) -> None:
    make, words = UNABLE[kind]
    pack = PackStore(tmp_path).fetch(zoo.built("shapes", "onnx"))
    with pytest.raises(LoadFailed, match=words):
        make().load(pack, "fp32")


def test_what_runs_beside_torch_on_a_device_of_its_own_is_counted(zoo: Zoo, tmp_path: Path) -> None:
    device = SimulatedBackend(0, 2**30, sleep=lambda _: None)
    backend = CompositeBackend(device, OnnxRuntime("cpu", 1))
    before = backend.memory().used_bytes
    model = backend.load(PackStore(tmp_path).fetch(zoo.built("shapes", "onnx")), "fp32")
    held = model.weights_bytes + model.private_bytes
    assert backend.memory().used_bytes == before + held
    model.close()
    assert backend.memory().used_bytes == before


async def test_a_precision_that_a_backend_lacks_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    refusal = await refusal_of(
        zoo.graph("shapes"), tmp_path / "work", build=child.Build("onnx", "bf16")
    )
    assert "onnx packs are not built in bf16 but in fp32 or int8" in refusal.message


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("name", ["yolo11n-seg", "yolov8n-pose", "yolo26n-obb", "yolo11n-cls"])
def test_every_task_is_as_torch_has_it(
    name: str, kind: str, backend: Backend, zoo: Zoo, tmp_path: Path
) -> None:
    """Alone and in a batch, squares and rectangles."""
    door = PackStore(tmp_path)
    left, right = (door.fetch(zoo.pack(name, *more)) for more in ((), (f"--backend={kind}",)))
    assert (left.manifest.task, left.manifest.head) == (right.manifest.task, right.manifest.head)
    assert left.manifest.head_mode == right.manifest.head_mode
    objects = again = 0
    for height, width in ((320, 320), (192, 320)):
        images = [picture(seed, height, width) for seed in range(3)]
        expected, together = (found(backend, pack, *images) for pack in (left, right))
        for image, one, wanted in zip(images, together, expected, strict=True):
            (alone,) = found(backend, right, image)
            for answer in (one, alone):
                objects += len(wanted.confidence)
                again += found_again(wanted, answer)
    # Of hundreds that are all but equally sure, a few change places and suppress others.
    assert again > 0.95 * objects > 100 or name.endswith("cls")


def found_again(wanted: Candidates, answer: Candidates) -> int:
    """How many objects are in both, with all that the task gives of them."""
    left, right = wanted.task_output, answer.task_output
    assert left is not None
    assert type(left) is type(right)
    rows = {one.name: (getattr(left, one.name), getattr(right, one.name)) for one in fields(left)}
    for name in ("prototypes", "values"):  # of the whole image
        if name in rows:
            np.testing.assert_allclose(*rows.pop(name), rtol=1e-3, atol=1e-3)
    count = 0
    for index, box in enumerate(wanted.xyxy):
        apart = np.abs(answer.xyxy - box).max(1)
        apart[answer.class_id != wanted.class_id[index]] = np.inf
        nearest = int(apart.argmin())
        if apart[nearest] < 0.05:
            count += all(
                np.allclose(one[index], other[nearest], rtol=1e-3, atol=0.05)
                for one, other in rows.values()
            )
    return count


async def test_an_end_to_end_head_of_another_task_is_for_torch_alone(
    zoo: Zoo, tmp_path: Path
) -> None:
    refusal = await refusal_of(
        zoo.checkpoint("yolo26n-pose"),
        tmp_path / "work",
        build=child.Build("onnx"),
        settings=VersionSettings(head_mode=HEAD_MODE_END_TO_END),
    )
    assert "pose is built for torch alone" in refusal.message


async def test_int8_is_of_models_that_detect(tmp_path: Path) -> None:
    path = save(build("yolo11n-seg.yaml", 1), tmp_path / "segment.pt")
    uploads.write_calibration_archive(SHAPES / "images", tmp_path / "images.zip")
    digest = hashlib.sha256((tmp_path / "images.zip").read_bytes()).hexdigest()
    asked = child.Build("onnx", "int8", str(tmp_path / "images.zip"), digest)
    refusal = await refusal_of(path, tmp_path / "work", build=asked)
    assert "int8 is built for detection alone" in refusal.message


@pytest.mark.parametrize("kind", GRAPHS)
async def test_a_worker_serves_a_graph_beside_torch(kind: str, start: Start, zoo: Zoo) -> None:
    """Answers say what made them, the ledger counts what was measured, and all of it comes back."""
    worker = await start(on_the_cpu())
    await worker.assign(zoo)
    assigned = await worker.assign(zoo, "graph", pack=zoo.built("shapes", kind))
    replica, footprint = assigned.replica, assigned.replica.footprint
    assert (replica.variant.backend, replica.variant.precision) == (kind, "fp32")
    assert footprint.private_bytes == assigned.ledger.backend_private_bytes > 0
    answers = [(await worker.infer(name)).result for name in ("shapes", "graph")]
    made = [(one.variant.backend, one.variant.precision) for one in answers]
    assert made == [("torch", "fp32"), (kind, "fp32")]
    left, right = (one.detections for one in answers)
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert one.box.x_min == pytest.approx(other.box.x_min, abs=0.01)
        assert one.class_id == other.class_id
    released = await worker.release("graph")
    assert released.ledger.backend_private_bytes == 0


# --- int8 -----------------------------------------------------------------------------------------


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("head", ["one-to-many", "end-to-end"])
def test_int8_finds_what_fp32_finds(
    head: str, kind: str, backend: Backend, zoo: Zoo, tmp_path: Path
) -> None:
    """All but one in twenty, within a few pixels, alone and in a batch; in less memory than its
    float weights have.
    """
    name = "shapes-26" if head == "end-to-end" else "shapes-v8"
    door = PackStore(tmp_path)
    exact, small = (door.fetch(zoo.built(name, kind, one, head)) for one in ("fp32", "int8"))
    assert small.manifest.weights_bytes < exact.manifest.weights_bytes / 2
    assert small.manifest.parameters == exact.manifest.parameters
    assert any(one.startswith("nncf") for one in small.manifest.made_with)
    images = [boxed(seed, 320, 320) for seed in range(12)]
    count = again = extra = 0
    for one, together in zip(images, found(backend, small, *images), strict=True):
        (expected,) = found(backend, exact, one)
        (alone,) = found(backend, small, one)
        assert_same(together, alone)
        matched = drift.compare(seen(expected), seen(alone))
        assert matched.largest_px < 4
        assert matched.largest_confidence < 0.25
        count += matched.objects
        again += matched.matched
        extra += matched.extra
    assert count > 30
    assert again >= 0.95 * count
    assert extra <= 0.05 * count


def seen(found: Candidates) -> Detections:
    names = tuple(map(str, found.class_id))
    return Detections(found.xyxy, found.confidence, found.class_id, names)


async def calibrated(
    path: Path, folder: Path, images: Path, digest: str = "", begin: running.Start = forked
) -> ImportRefused:
    """The refusal of an int8 build with this as its images."""
    build = child.Build("onnx", "int8", str(images), digest or sha256(images))
    return await refusal_of(path, folder, build=build, start=begin)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def of_the_demo(folder: Path) -> Path:
    """A zip of its pictures."""
    path = folder / "images.zip"
    uploads.write_calibration_archive(SHAPES / "images", path)
    return path


async def test_int8_without_images_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    build = child.Build("onnx", "int8")
    refusal = await refusal_of(zoo.graph("shapes"), tmp_path / "work", build=build)
    assert refusal.reason == "CALIBRATION_INVALID"
    assert "add --calibration FOLDER" in refusal.message


async def test_images_that_are_none_end_the_build(zoo: Zoo, tmp_path: Path) -> None:
    """Of their bytes nothing reaches a library but what begins as JPEG and PNG do."""
    images = tmp_path / "images.zip"
    with zipfile.ZipFile(images, "w") as archive:
        archive.writestr("a.png", "no image")
    refusal = await calibrated(zoo.graph("shapes"), tmp_path / "work", images)
    assert refusal.reason == "CALIBRATION_INVALID"
    assert "no JPEG or PNG image" in refusal.message


async def test_an_image_of_too_many_pixels_is_not_decoded(zoo: Zoo, tmp_path: Path) -> None:
    """A whole PNG of 110 million of them, in a few bytes."""
    rows = zlib.compress(bytes((1 + 11_000 // 8) * 10_000))
    png = b"\x89PNG\r\n\x1a\n"
    size = struct.pack(">IIBBBBB", 11_000, 10_000, 1, 0, 0, 0, 0)
    for chunk in (b"IHDR" + size, b"IDAT" + rows, b"IEND"):
        png += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    images = tmp_path / "images.zip"
    with zipfile.ZipFile(images, "w") as archive:
        archive.writestr("a.png", png)
    refusal = await calibrated(zoo.graph("shapes"), tmp_path / "work", images)
    assert refusal.reason == "CALIBRATION_INVALID"
    assert "'a.png'" in refusal.message


async def test_images_that_changed_are_refused(zoo: Zoo, tmp_path: Path) -> None:
    images = of_the_demo(tmp_path)
    path = zoo.graph("shapes")
    refusal = await calibrated(path, tmp_path / "work", images, "0" * 64)
    assert refusal.reason == "DIGEST_MISMATCH"
    assert "images.zip" in refusal.message


async def test_a_missing_quantiser_is_named_with_its_extra(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "packages"  # as an installed one looks: the child reads no other
    (folder / "nncf-0.dist-info").mkdir(parents=True)
    (folder / "nncf.py").write_text("raise ImportError('No module named nncf')")
    monkeypatch.syspath_prepend(str(folder))
    images = of_the_demo(tmp_path)
    work = tmp_path / "work"
    refusal = await calibrated(zoo.graph("shapes"), work, images, begin=fresh_child.start)
    assert refusal.reason == "ARTIFACT_UNSUPPORTED"
    assert "yolopool[int8]" in refusal.message


async def test_a_graph_that_can_not_be_put_into_int8_says_so(tmp_path: Path) -> None:
    model = onnx_graphs.answering(outputs_of(OUTPUT_LAYOUT_PLAIN), metadata=V8, opset=12)
    path = onnx_graphs.write(model, tmp_path / "old.onnx")
    images = of_the_demo(tmp_path)
    refusal = await calibrated(path, tmp_path / "work", images)
    assert "opset 12, int8 needs 13" in refusal.message


async def test_progress_is_told_while_it_calibrates(zoo: Zoo, tmp_path: Path) -> None:
    images = of_the_demo(tmp_path)
    told: list[tuple[str, float]] = []

    async def note(progress: pb.ImportProgress) -> None:
        told.append((progress.step, progress.fraction))

    build = child.Build("openvino", "int8", str(images), sha256(images))
    path = zoo.checkpoint("shapes")
    pack = await import_in_child(path, tmp_path / "work", build=build, on_progress=note)
    assert len([step for step, _ in told if step == "calibrate"]) >= 12
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert pack.weights_bytes < zoo.graph("shapes").stat().st_size / 2

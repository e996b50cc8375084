"""Rectangles and grey models answer as the model library's `predict`, through the worker's own
preprocessing: by torch, by ONNX Runtime and by OpenVINO.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.harness import families
from importer import child
from tests.contract.importer.test_onnx import export
from tests.contract.imports import import_in_child
from tests.models import SHAPES, U8, build_woken, location, picture, save
from worker.backends.base import Backend, run
from worker.backends.composite import CompositeBackend
from worker.backends.onnx.onnxruntime_backend import OnnxRuntime
from worker.backends.onnx.openvino_backend import OpenVino
from worker.backends.pytorch.backend import TorchBackend
from worker.packs.manifest import channels_of
from worker.packs.pack import Pack
from worker.packs.pack_store import PackStore
from worker.postprocess.outputs import NmsOptions
from worker.preprocess import arena, letterbox
from worker.preprocess.arena import Arena
from worker.preprocess.decode import ChannelOrder, ImageLimits
from worker.preprocess.prepared import PreprocessSpec, RawPixels
from worker.preprocess.preprocessor import Preprocessor
from worker.service.options import output_options
from yolopool.v1 import detection_pb2, types_pb2
from yolopool.vocabulary import ShapePolicy

pytestmark = pytest.mark.e2e
F32 = npt.NDArray[np.float32]
RECTANGLE = (192, 320)  # height, width
SIZES = [(320, 320), (200, 333), (501, 260)]


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    backend = CompositeBackend(TorchBackend("cpu", 1), OnnxRuntime("cpu", 1), OpenVino(1))
    backend.open()
    yield backend
    backend.close()


@pytest.fixture
async def preprocessor() -> AsyncIterator[Preprocessor]:
    memory = Arena(arena.private(8 * 3 * 640 * 640))
    made = Preprocessor(1, 4, ImageLimits(10**7, 10**7), memory, time.monotonic)
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints for colours, and for grey as if it came in colours. The demo's finds
    the few shapes there are, the woken one dozens of boxes.
    """
    folder = tmp_path_factory.mktemp("models")
    return {
        "colours": save(build_woken("yolov8n.yaml", 7), folder / "colours.pt"),
        "grey": save(of_grey(build_woken("yolov8n.yaml", 7)), folder / "grey.pt"),
        "shapes": save(demo(), folder / "demo.pt"),
        "grey shapes": save(of_grey(demo()), folder / "grey-demo.pt"),
    }


def demo() -> Any:
    import torch

    held = torch.load(SHAPES / "models" / "shapes.pt", map_location="cpu", weights_only=False)
    return (held.get("ema") or held["model"]).float().eval()


def of_grey(model: Any) -> Any:
    import torch

    layer = model.model[0]
    summed = layer.conv.weight.detach().sum(1, keepdim=True)
    layer.conv = torch.nn.Conv2d(1, len(summed), 3, 2, 1, bias=False)
    layer.conv.weight.data.copy_(summed)
    model.yaml["channels"] = 1
    return model


@pytest.fixture(scope="module")
def library(files: dict[str, Path]) -> Callable[[str], Any]:
    from ultralytics.models import YOLO
    from ultralytics.nn.autobackend import AutoBackend

    try:
        import torchvision.ops  # noqa: F401
    except (ImportError, RuntimeError):
        AutoBackend.warmup = lambda self, **_: None
    known = {name: YOLO(path, task="detect") for name, path in files.items()}
    return known.__getitem__


async def ours(
    backend: Backend, preprocessor: Preprocessor, pack: Pack, image: bytes | RawPixels
) -> F32:
    """Rows of x_min, y_min, x_max, y_max, confidence, class."""
    manifest, settings = pack.manifest, pack.manifest.settings
    square = settings.shape_policy == types_pb2.SHAPE_POLICY_SQUARE
    spec = PreprocessSpec(
        output_options(detection_pb2.DetectOptions(), settings, manifest.task).image_size,
        max(manifest.stride, 32),
        ShapePolicy.SQUARE if square else ShapePolicy.RECT,
        channels=channels_of(manifest),
    )
    boxed = (await preprocessor.prepare(image, None, spec)).letterboxed
    classes = len(manifest.class_names)
    options = NmsOptions(
        (settings.confidence,) * classes, settings.iou, settings.max_detections, False
    )
    model = backend.load(pack, "fp32")
    (found,) = run(model, [boxed.image], [options]).candidates
    model.close()
    assert found.failure is None
    boxes = letterbox.to_original(found.xyxy, boxed)
    return np.column_stack((boxes, found.confidence, found.class_id)).astype(np.float32)


def theirs(model: Any, image: Any, **options: Any) -> F32:
    (result,) = model.predict(image, verbose=False, device="cpu", save=False, **options)
    return np.asarray(result.boxes.data.numpy(), np.float32)


def assert_same(left: F32, right: F32, pixels: float = 1e-3, scores: float = 1e-5) -> None:
    assert left.shape == right.shape
    assert len(left)
    np.testing.assert_array_equal(left[:, 5], right[:, 5])
    np.testing.assert_allclose(left[:, 4], right[:, 4], rtol=0, atol=scores)
    np.testing.assert_allclose(left[:, :4], right[:, :4], rtol=0, atol=pixels)


def raw(image: U8) -> RawPixels:
    order = ChannelOrder.GRAY if image.ndim == 2 else ChannelOrder.BGR
    return RawPixels(image.tobytes(), image.shape[0], image.shape[1], order)


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize("policy", ["rect", "square"])
@pytest.mark.parametrize("name", ["colours", "grey"])
async def test_a_rectangle_is_the_librarys(
    name: str,
    policy: str,
    files: dict[str, Path],
    library: Callable[[str], Any],
    backend: Backend,
    preprocessor: Preprocessor,
    tmp_path: Path,
) -> None:
    place = families.import_here(
        files[name],
        tmp_path / "pack",
        image_height=RECTANGLE[0],
        image_width=RECTANGLE[1],
        shape_policy=types_pb2.ShapePolicy.Value(f"SHAPE_POLICY_{policy.upper()}"),
    )
    pack = PackStore(tmp_path).fetch(place)
    assert pack.manifest.settings.image_size == max(RECTANGLE)
    for seed, (height, width) in enumerate(SIZES):
        image = picture(seed, height, width)
        image = image[..., 1] if name == "grey" else image
        expected = theirs(library(name), image, imgsz=list(RECTANGLE), rect=policy == "rect")
        found = await ours(backend, preprocessor, pack, raw(np.ascontiguousarray(image)))
        assert_same(found, expected)


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp", ".bmp"])
async def test_a_grey_model_reads_files_as_the_library_does(
    extension: str,
    files: dict[str, Path],
    library: Callable[[str], Any],
    backend: Backend,
    preprocessor: Preprocessor,
    tmp_path: Path,
) -> None:
    pack = PackStore(tmp_path).fetch(families.import_here(files["grey"], tmp_path / "pack"))
    assert channels_of(pack.manifest) == 1
    path = tmp_path / f"picture{extension}"
    cv2.imwrite(str(path), picture(1, 200, 333))
    expected = theirs(library("grey"), path, imgsz=320)
    assert_same(await ours(backend, preprocessor, pack, path.read_bytes()), expected)


async def test_colours_sent_to_a_grey_model_are_made_grey(
    files: dict[str, Path],
    library: Callable[[str], Any],
    backend: Backend,
    preprocessor: Preprocessor,
    tmp_path: Path,
) -> None:
    """The library fails on such an array, and takes what OpenCV makes grey of it."""
    pack = PackStore(tmp_path).fetch(families.import_here(files["grey"], tmp_path / "pack"))
    image = picture(2, 320, 320)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    expected = theirs(library("grey"), grey, imgsz=320)
    assert_same(await ours(backend, preprocessor, pack, raw(image)), expected)


@pytest.mark.matrix(sample=2)
@pytest.mark.filterwarnings("ignore")  # of torch's exporter, which is on its way out
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
@pytest.mark.parametrize("name", ["shapes", "grey shapes"])
async def test_a_graph_of_one_rectangle_is_the_librarys(
    name: str,
    kind: str,
    files: dict[str, Path],
    library: Callable[[str], Any],
    backend: Backend,
    preprocessor: Preprocessor,
    tmp_path: Path,
) -> None:
    grey = name.startswith("grey")
    model, channels = of_grey(demo()) if grey else demo(), 1 if grey else 3
    model = model.fuse(verbose=False).eval()
    export(model, tmp_path / "fixed.onnx", free=False, shape=(channels, *RECTANGLE))
    await import_in_child(tmp_path / "fixed.onnx", tmp_path / "pack", build=child.Build(kind))
    pack = PackStore(tmp_path).fetch(location(tmp_path / "pack"))
    graph, settings = pack.manifest.onnx, pack.manifest.settings
    assert (graph.height, graph.width) == RECTANGLE
    assert (settings.image_height, settings.image_width) == RECTANGLE
    assert channels_of(pack.manifest) == channels
    for seed, (height, width) in enumerate(SIZES):
        image = picture(seed, height, width)
        image = image[..., 1] if grey else image
        expected = theirs(library(name), image, imgsz=list(RECTANGLE), rect=False)
        found = await ours(backend, preprocessor, pack, raw(np.ascontiguousarray(image)))
        assert_same(found, expected, 1e-2, 1e-4)

"""At fp32 the answer equals the model library's own `predict`: boxes, confidences, classes.

The pipeline is the worker's: letterbox, import, backend, suppression, back to original pixels.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.models import U8, Zoo, picture
from worker.backends.base import LoadedModel, run
from worker.backends.pytorch.backend import TorchBackend
from worker.packs.pack import Pack
from worker.packs.pack_store import PackStore
from worker.postprocess.outputs import NmsOptions
from worker.preprocess import letterbox
from yolopool.v1.types_pb2 import HEAD_MODE_END_TO_END
from yolopool.vocabulary import ShapePolicy

pytestmark = pytest.mark.e2e
F32 = npt.NDArray[np.float32]
# The demo model finds the few shapes there are; the woken ones find dozens of boxes.
MODELS = {
    "shapes": 1,
    "yolov8n": 30,
    "yolo11n": 30,
    "yolov10n": 30,
    "yolo26n": 30,
    "yolo26n-end-to-end": 30,
}
POLICIES = [ShapePolicy.RECT, ShapePolicy.SQUARE]
SIZES = [(320, 320), (200, 333), (501, 260)]


def same(image: U8) -> U8:
    return image


def swap_channels(image: U8) -> U8:
    return np.ascontiguousarray(image[..., ::-1])


@pytest.fixture(scope="module")
def backend() -> Iterator[TorchBackend]:
    backend = TorchBackend("cpu", 1)
    backend.open()
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def library(zoo: Zoo) -> Callable[[str], Any]:
    from ultralytics.models import YOLO
    from ultralytics.nn.autobackend import AutoBackend

    try:
        import torchvision.ops  # noqa: F401
    except (ImportError, RuntimeError):
        # Its warm-up only makes sure that torchvision is imported; suppression works without.
        AutoBackend.warmup = lambda self, **_: None
    known: dict[str, Any] = {}

    def model(name: str) -> Any:
        # A name with a head is a model of its own: the library drops the other head when it fuses.
        if name not in known:
            known[name] = YOLO(zoo.checkpoint(name.partition(" ")[0]), task="detect")
        return known[name]

    return model


@pytest.fixture(scope="module")
def loaded(
    zoo: Zoo, backend: TorchBackend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], tuple[Pack, LoadedModel]]]:
    door = PackStore(tmp_path_factory.mktemp("cache"))
    known: dict[str, tuple[Pack, LoadedModel]] = {}

    def load(name: str) -> tuple[Pack, LoadedModel]:
        if name not in known:
            checkpoint, *flags = name.split()
            pack = door.fetch(zoo.pack(checkpoint, *flags))
            known[name] = pack, backend.load(pack, "fp32")
        return known[name]

    yield load
    for pack, model in known.values():
        model.close()
        pack.close()


def ours(
    loaded: tuple[Pack, LoadedModel],
    image: U8,
    policy: ShapePolicy,
    change: Callable[[U8], U8] = same,
) -> F32:
    """Rows of x_min, y_min, x_max, y_max, confidence, class."""
    pack, model = loaded
    settings = pack.manifest.settings
    boxed = letterbox.letterbox(change(image), settings.image_size, pack.manifest.stride, policy)
    options = NmsOptions(
        (settings.confidence,) * len(pack.manifest.class_names),
        settings.iou,
        settings.max_detections,
        False,
    )
    (found,) = run(model, [boxed.image], [options]).candidates
    boxes = letterbox.to_original(found.xyxy, boxed)
    return np.column_stack((boxes, found.confidence, found.class_id)).astype(np.float32)


def theirs(model: Any, image: U8, policy: ShapePolicy, **options: Any) -> F32:
    rect = policy is ShapePolicy.RECT
    (result,) = model.predict(
        image, imgsz=320, rect=rect, verbose=False, device="cpu", save=False, **options
    )
    return np.asarray(result.boxes.data.numpy(), np.float32)


def assert_same(left: F32, right: F32) -> None:
    assert left.shape == right.shape
    np.testing.assert_array_equal(left[:, 5], right[:, 5])
    np.testing.assert_allclose(left[:, 4], right[:, 4], rtol=0, atol=1e-5)
    np.testing.assert_allclose(left[:, :4], right[:, :4], rtol=0, atol=1e-3)


@pytest.mark.matrix(sample=3)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", MODELS)
def test_boxes_equal_the_librarys(
    name: str,
    policy: ShapePolicy,
    loaded: Callable[[str], tuple[Pack, LoadedModel]],
    library: Callable[[str], Any],
) -> None:
    for seed, (height, width) in enumerate(SIZES):
        image = picture(seed, height, width)
        expected = theirs(library(name), image, policy)
        assert len(expected) >= MODELS[name]
        assert_same(ours(loaded(name), image, policy), expected)


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("checkpoint", ["yolo26n", "yolov10n"])
def test_boxes_of_the_end_to_end_head_equal_the_librarys(
    checkpoint: str,
    policy: ShapePolicy,
    loaded: Callable[[str], tuple[Pack, LoadedModel]],
    library: Callable[[str], Any],
) -> None:
    name = f"{checkpoint} --head=end-to-end"
    assert loaded(name)[0].manifest.head_mode == HEAD_MODE_END_TO_END
    for seed, (height, width) in enumerate(SIZES):
        image = picture(seed, height, width)
        expected = theirs(library(name), image, policy, nms=False)
        assert len(expected) >= 30
        assert_same(ours(loaded(name), image, policy), expected)
        # The other head's are not the same, or the choice would prove nothing.
        other = theirs(library(checkpoint), image, policy)
        assert not np.array_equal(other, expected)


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("name", MODELS)
def test_swapped_channels_are_noticed(
    name: str, loaded: Callable[[str], tuple[Pack, LoadedModel]], library: Callable[[str], Any]
) -> None:
    image, policy = picture(1, 200, 333), ShapePolicy.SQUARE
    expected = theirs(library(name), image, policy)
    with pytest.raises(AssertionError):
        assert_same(ours(loaded(name), image, policy, swap_channels), expected)


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("name", MODELS)
def test_another_padding_is_noticed(
    name: str,
    loaded: Callable[[str], tuple[Pack, LoadedModel]],
    library: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image, policy = picture(1, 200, 333), ShapePolicy.SQUARE
    expected = theirs(library(name), image, policy)
    monkeypatch.setattr(letterbox, "PADDING", 0)
    with pytest.raises(AssertionError):
        assert_same(ours(loaded(name), image, policy), expected)


def test_options_equal_the_librarys(
    loaded: Callable[[str], tuple[Pack, LoadedModel]], library: Callable[[str], Any]
) -> None:
    image = picture(2, 320, 320)
    pack, model = loaded("yolo11n")
    nc = len(pack.manifest.class_names)
    some = list(range(0, nc, 2))
    confidence = tuple(0.4 if index in some else 2.0 for index in range(nc))
    boxed = letterbox.letterbox(image, 320, pack.manifest.stride, ShapePolicy.RECT)
    (found,) = run(model, [boxed.image], [NmsOptions(confidence, 0.3, 9, True)]).candidates
    (result,) = library("yolo11n").predict(
        image, imgsz=320, conf=0.4, iou=0.3, max_det=9, classes=some, agnostic_nms=True,
        verbose=False, device="cpu",
    )  # fmt: skip
    rows = np.column_stack(
        (letterbox.to_original(found.xyxy, boxed), found.confidence, found.class_id)
    )
    assert len(rows)
    assert_same(rows.astype(np.float32), np.asarray(result.boxes.data.numpy(), np.float32))


def test_the_demo_model_sees_its_trained_size(zoo: Zoo, tmp_path: Path) -> None:
    pack = PackStore(tmp_path).fetch(zoo.pack("shapes"), weights=False)
    assert pack.manifest.settings.image_size == 320
    assert list(pack.manifest.class_names) == ["circle", "square", "triangle"]

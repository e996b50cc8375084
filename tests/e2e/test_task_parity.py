"""At fp32 masks, keypoints, rotated boxes and classes equal the model library's own `predict`.

The pipeline is the worker's, from the framing of the image to results in its pixels. Boxes of
models that only detect: test_parity.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.models import U8, Zoo, picture
from worker.backends.base import LoadedModel, run
from worker.backends.pytorch.backend import TorchBackend
from worker.packs.pack import Pack
from worker.packs.pack_store import PackStore
from worker.postprocess import mask_encoding, results
from worker.postprocess.mask_encoding import RunLengths
from worker.postprocess.outputs import NmsOptions
from worker.postprocess.results import MaskFormat, Results
from worker.preprocess import letterbox
from worker.preprocess.letterbox import Origin
from worker.service import response
from yolopool.client.detections import Detections, from_response
from yolopool.client.masks import Mask
from yolopool.v1 import detection_pb2
from yolopool.vocabulary import ShapePolicy

pytestmark = pytest.mark.e2e
FAMILIES = ("yolov8n", "yolo11n", "yolo26n")
END_TO_END = " --head=end-to-end"
BOXED = [
    f"{family}-{task}{head}"
    for family in FAMILIES
    for task in ("seg", "pose", "obb")
    for head in (("", END_TO_END) if family == "yolo26n" else ("",))
]
CLASSIFIED = [f"{family}-cls" for family in FAMILIES]
SIZES = [(320, 320), (501, 260)]
Loaded = Callable[[str], tuple[Pack, LoadedModel]]
Library = Callable[[str], Any]


@pytest.fixture(scope="module")
def loaded(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    backend, known = TorchBackend("cpu", 1), dict[str, tuple[Pack, LoadedModel]]()
    backend.open()
    door = PackStore(tmp_path_factory.mktemp("cache"))

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
    backend.close()


@pytest.fixture(scope="module")
def library(zoo: Zoo) -> Library:
    from ultralytics.models import YOLO
    from ultralytics.nn.autobackend import AutoBackend

    try:
        import torchvision.ops  # noqa: F401
    except (ImportError, RuntimeError):
        AutoBackend.warmup = lambda self, **_: None
    known: dict[str, Any] = {}

    def model(name: str) -> Any:
        # A name with a head is a model of its own: the library drops the other head when it fuses.
        if name not in known:
            known[name] = YOLO(zoo.checkpoint(name.partition(" ")[0]))
        return known[name]

    return model


@pytest.fixture
def transforms() -> Iterator[None]:
    """torchvision's transforms for the library's classifier, also where its operators do not fit
    this torch: they are Python on PIL images. Gone after, since its NMS must not be taken then.
    """
    try:
        import torchvision.ops
    except RuntimeError:
        _forget_torchvision()
        sys.modules["torchvision._meta_registrations"] = ModuleType("no operators")
        import torchvision.transforms  # noqa: F401

        yield
        _forget_torchvision()
    else:
        yield


def _forget_torchvision() -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


def place_of(pack: Pack, image: U8, policy: ShapePolicy) -> Origin:
    size, stride = pack.manifest.settings.image_size, max(pack.manifest.stride, 32)
    if pack.manifest.task == "classify":
        boxed = letterbox.centre_crop(image, size, stride)
    else:
        boxed = letterbox.letterbox(image, size, stride, policy)
    return Origin(boxed, (0, 0), (image.shape[0], image.shape[1]))


def asked(pack: Pack) -> NmsOptions:
    settings = pack.manifest.settings
    thresholds = (settings.confidence,) * len(pack.manifest.class_names)
    return NmsOptions(thresholds, settings.iou, settings.max_detections, False)


def ours(
    one: tuple[Pack, LoadedModel],
    images: list[U8],
    policy: ShapePolicy,
    mask_format: MaskFormat = MaskFormat.POLYGON,
) -> list[Results]:
    pack, model = one
    places = [place_of(pack, image, policy) for image in images]
    passed = run(model, [place.letterboxed.image for place in places], [asked(pack)] * len(images))
    return [
        results.results_of(found, place, mask_format)
        for found, place in zip(passed.candidates, places, strict=True)
    ]


def theirs(model: Any, name: str, image: U8, policy: ShapePolicy, retina: bool = False) -> Any:
    options = {"nms": False} if name.endswith(END_TO_END) else {}
    rect = policy is ShapePolicy.RECT
    (result,) = model.predict(
        image, imgsz=320, rect=rect, verbose=False, device="cpu", save=False,
        retina_masks=retina, **options,
    )  # fmt: skip
    return result


def pixels(mask: Any) -> Any:
    assert isinstance(mask, RunLengths)
    return Mask((mask.width, mask.height), counts=mask.counts).to_array()


def points_of(outline: Any) -> set[tuple[float, float]]:
    return {(round(x, 3), round(y, 3)) for x, y in outline.tolist()}


def assert_same(found: Results, result: Any, name: str) -> None:
    """Boxes to 1e-3 pixels, with all that the task gives beside them."""
    if "-cls" in name:
        assert found.probabilities is not None
        expected = result.probs.data.numpy()
        np.testing.assert_allclose(found.probabilities, expected, rtol=1e-4, atol=1e-7)
        return
    rotated = "-obb" in name
    rows = (result.obb if rotated else result.boxes).data.numpy()
    assert len(found.confidence) == len(rows)
    boxes = found.rotated if rotated else found.xyxy
    assert boxes is not None
    np.testing.assert_array_equal(found.class_id, rows[:, -1])
    np.testing.assert_allclose(found.confidence, rows[:, -2], rtol=0, atol=1e-5)
    np.testing.assert_allclose(boxes, rows[:, :-2], rtol=0, atol=1e-3)
    if found.keypoints is not None:
        points = result.keypoints.data.numpy()
        np.testing.assert_allclose(found.keypoints[..., :2], points[..., :2], rtol=0, atol=1e-3)
        np.testing.assert_allclose(found.keypoints[..., 2], points[..., 2], rtol=0, atol=1e-5)


@pytest.mark.matrix(sample=3)
@pytest.mark.parametrize("policy", list(ShapePolicy))
@pytest.mark.parametrize("name", BOXED)
def test_results_equal_the_librarys(
    name: str, policy: ShapePolicy, loaded: Loaded, library: Library
) -> None:
    for seed, (height, width) in enumerate(SIZES):
        image = picture(seed, height, width)
        (found,) = ours(loaded(name), [image], policy)
        result = theirs(library(name), name, image, policy)
        assert len(found.confidence) >= 30
        assert_same(found, result, name)


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("policy", list(ShapePolicy))
@pytest.mark.parametrize("name", [one for one in BOXED if "-seg" in one])
def test_masks_equal_the_librarys(
    name: str, policy: ShapePolicy, loaded: Loaded, library: Library
) -> None:
    for seed, (height, width) in enumerate(SIZES):
        image = picture(seed, height, width)
        (outlined,) = ours(loaded(name), [image], policy)
        result = theirs(library(name), name, image, policy)
        assert outlined.masks is not None
        for mask, merged in zip(outlined.masks, result.masks.xy, strict=True):
            assert isinstance(mask, tuple)
            if len(mask) == 1:
                np.testing.assert_allclose(mask[0], merged, rtol=0, atol=1e-3)
            # The library joins the parts of a mask to one outline; we tell them apart.
            assert points_of(np.concatenate(mask)) == points_of(merged)
        (exact,) = ours(loaded(name), [image], policy, MaskFormat.RLE)
        result = theirs(library(name), name, image, policy, retina=True)
        assert_same(exact, result, name)
        assert exact.masks is not None
        for mask, expected in zip(exact.masks, result.masks.data.numpy(), strict=True):
            np.testing.assert_array_equal(pixels(mask), expected.astype(bool))


def told(found: Results, task: str, names: Sequence[str], size: tuple[int, int]) -> Detections:
    """The results as a caller gets them."""
    message = detection_pb2.DetectResponse(
        detections=response.detections_to(found, names),
        image_width=size[0],
        image_height=size[1],
        task=task,
    )
    if found.probabilities is not None:
        top = response.classification_to(found.probabilities, names, 5, False)
        message.classification.CopyFrom(top)
    return from_response(message)


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize("name", [*(one for one in BOXED if "yolo11n" in one), CLASSIFIED[1]])
def test_labels_and_rows_equal_the_librarys(
    name: str, loaded: Loaded, library: Library, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """`to_yolo` writes what `save_txt` does, `to_pandas` has what `summary` does."""
    if name in CLASSIFIED:
        request.getfixturevalue("transforms")
    pack = loaded(name)[0].manifest
    for seed, (height, width) in enumerate(SIZES):
        image = picture(seed, height, width)
        (found,) = ours(loaded(name), [image], ShapePolicy.RECT)
        result = theirs(library(name), name, image, ShapePolicy.RECT)
        mine = told(found, pack.task, pack.class_names, (width, height))
        file = tmp_path / f"{seed}.txt"
        result.save_txt(file, save_conf=True)
        lines = mine.to_yolo(with_confidence=True).splitlines()
        for line, expected in zip(lines, file.read_text().splitlines(), strict=True):
            assert_same_label(line, expected, pack.task)
        table = mine.to_pandas()
        for row, one in zip(table.to_dict("records"), result.summary(), strict=True):
            assert (row["class_id"], row["class_name"]) == (one["class"], one["name"])
            sure = row["confidence" if "confidence" in row else "probability"]
            assert sure == pytest.approx(one["confidence"], abs=2e-5)
            if pack.task in ("segment", "pose"):
                box = [row[side] for side in ("x_min", "y_min", "x_max", "y_max")]
                assert box == pytest.approx(list(one["box"].values()), abs=2e-3)


def assert_same_label(line: str, expected: str, task: str) -> None:
    """Numbers to the digits that are written. Of a mask, the same points: the library joins its
    parts by another way round.
    """
    if task == "classify":
        assert line == expected
        return
    mine, theirs = ([float(word) for word in text.split()] for text in (line, expected))
    if task == "segment":
        assert (mine[0], mine[-1]) == pytest.approx((theirs[0], theirs[-1]), abs=1e-5)
        corners = [
            {(round(x, 4), round(y, 4)) for x, y in np.reshape(values[1:-1], (-1, 2)).tolist()}
            for values in (mine, theirs)
        ]
        # A digit at its edge may be written either way.
        assert len(corners[0] ^ corners[1]) <= 2 + len(corners[1]) // 20
        return
    assert mine == pytest.approx(theirs, abs=1e-5)


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("name", CLASSIFIED)
def test_classes_equal_the_librarys(
    name: str, loaded: Loaded, library: Library, transforms: None
) -> None:
    for seed, (height, width) in enumerate([*SIZES, (200, 333), (64, 1000)]):
        image = picture(seed, height, width)
        (found,) = ours(loaded(name), [image], ShapePolicy.RECT)
        assert_same(found, theirs(library(name), name, image, ShapePolicy.RECT), name)


@pytest.mark.parametrize("size", [64, 224, 320])
def test_a_centre_crop_has_the_librarys_pixels(size: int, transforms: None) -> None:
    import torchvision.transforms as tv
    from PIL import Image
    from ultralytics.data.augment import classify_transforms

    rng = np.random.default_rng(size)
    their = tv.Compose(classify_transforms(size).transforms[:2])
    shapes = [(size, size), (size, 300), *rng.integers(8, 700, (12, 2)).tolist()]
    for height, width in shapes:
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        expected = np.array(their(Image.fromarray(image)))
        np.testing.assert_array_equal(letterbox.centre_crop(image, size, 32).image, expected)


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("name", BOXED)
def test_a_batch_gives_what_single_images_give(name: str, loaded: Loaded) -> None:
    """But for rounding, since a batch may be computed by other kernels: of boxes as sure as each
    other the order may change, and one of hundreds may cross a threshold.
    """
    images = [picture(seed, 320, 320) for seed in range(3)]
    together = ours(loaded(name), images, ShapePolicy.RECT, MaskFormat.RLE)
    for image, found in zip(images, together, strict=True):
        (alone,) = ours(loaded(name), [image], ShapePolicy.RECT, MaskFormat.RLE)
        apart = np.abs(found.xyxy[:, None] - alone.xyxy[None]).max(2)
        apart[found.class_id[:, None] != alone.class_id[None]] = np.inf
        partner = apart.argmin(1)
        matched = np.flatnonzero(apart.min(1) < 0.01)
        assert len(matched) >= max(len(found.confidence), len(alone.confidence)) - 2
        same = alone.select(partner)
        np.testing.assert_allclose(
            found.confidence[matched], same.confidence[matched], rtol=0, atol=1e-4
        )
        if found.keypoints is not None and same.keypoints is not None:
            points, others = found.keypoints[matched], same.keypoints[matched]
            np.testing.assert_allclose(points, others, rtol=0, atol=0.01)
        if found.masks is not None and same.masks is not None:
            for index in matched:
                one, other = pixels(found.masks[index]), pixels(same.masks[index])
                assert (one & other).sum() >= 0.99 * (one | other).sum() - 1


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("name", CLASSIFIED)
def test_a_batch_is_classified_as_single_images_are(name: str, loaded: Loaded) -> None:
    images = [picture(seed, 320, 320) for seed in range(3)]
    for image, found in zip(images, ours(loaded(name), images, ShapePolicy.RECT), strict=True):
        (alone,) = ours(loaded(name), [image], ShapePolicy.RECT)
        assert found.probabilities is not None
        assert alone.probabilities is not None
        np.testing.assert_allclose(found.probabilities, alone.probabilities, rtol=1e-4)


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("name", BOXED)
def test_swapped_channels_are_noticed(name: str, loaded: Loaded, library: Library) -> None:
    assert_swapped_channels_are_noticed(name, loaded, library)


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("name", CLASSIFIED)
def test_swapped_channels_are_noticed_in_classes(
    name: str, loaded: Loaded, library: Library, transforms: None
) -> None:
    assert_swapped_channels_are_noticed(name, loaded, library)


def assert_swapped_channels_are_noticed(name: str, loaded: Loaded, library: Library) -> None:
    image, policy = picture(1, 501, 260), ShapePolicy.SQUARE
    result = theirs(library(name), name, image, policy)
    (found,) = ours(loaded(name), [np.ascontiguousarray(image[..., ::-1])], policy)
    with pytest.raises(AssertionError):
        assert_same(found, result, name)


def test_a_mask_without_its_crop_is_noticed(
    loaded: Loaded, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison of masks sees one pixel."""
    name, image = "yolo11n-seg", picture(0, 320, 320)
    result = theirs(library(name), name, image, ShapePolicy.RECT, retina=True)
    true = mask_encoding.run_lengths
    monkeypatch.setattr(
        mask_encoding, "run_lengths", lambda crop, shape: true(replace(crop, x=crop.x - 1), shape)
    )
    (found,) = ours(loaded(name), [image], ShapePolicy.RECT, MaskFormat.RLE)
    assert found.masks is not None
    differ = [
        not np.array_equal(pixels(mask), expected.astype(bool))
        for mask, expected in zip(found.masks, result.masks.data.numpy(), strict=True)
    ]
    assert all(differ)

"""A real worker over real gRPC answers for every task, in tiles, at sizes the version allows."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest

from tests.models import Zoo, picture
from worker.app import App
from worker.backends.pytorch.backend import TorchBackend
from worker.settings import read_settings
from yolopool import errors
from yolopool.client import detections
from yolopool.client.detections import Detections
from yolopool.status import error_from_rpc
from yolopool.v1 import detection_pb2, types_pb2, worker_pb2, worker_pb2_grpc

SETTINGS = types_pb2.VersionSettings(
    image_size=320,
    confidence=0.25,
    iou=0.7,
    max_detections=300,
    shape_policy=types_pb2.SHAPE_POLICY_RECT,
    image_sizes=[160, 640],
)
FORMATS = detection_pb2.MaskFormat
Options = detection_pb2.DetectOptions


class Running:
    """A worker on the CPU: orders go to it, images to whoever takes them for it."""

    def __init__(
        self, zoo: Zoo, app: App, orders: grpc.aio.Channel, images: grpc.aio.Channel
    ) -> None:
        self.app = app
        self._zoo = zoo
        self._assign: Any = worker_pb2_grpc.WorkerServiceStub(orders).Assign
        self._infer: Any = worker_pb2_grpc.WorkerServiceStub(images).Infer
        self._assigned: set[str] = set()

    async def detect(
        self, name: str, image: Any, options: Options | None = None, timeout: float = 60
    ) -> Detections:
        version = types_pb2.VersionKey(model=name, version=1)
        if name not in self._assigned:
            order = worker_pb2.AssignRequest(
                version=version,
                settings=SETTINGS,
                pack=await asyncio.to_thread(self._zoo.pack, name),
                variant=types_pb2.Variant(precision="fp32"),
            )
            await self._assign(order, timeout=60)
            self._assigned.add(name)
        encoded = cv2.imencode(".png", image)[1].tobytes()
        request = worker_pb2.InferRequest(version=version, encoded=encoded, options=options)
        try:
            answer = await self._infer(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from None
        return detections.from_response(answer.result, encoded)


@pytest.fixture
async def worker(
    request: pytest.FixtureRequest, zoo: Zoo, tmp_path: Path
) -> AsyncIterator[Running]:
    """Without I/O processes, unless a test says that it wants one."""
    processes = getattr(request, "param", 0)
    flags = ["--device=cpu", "--control-planes=127.0.0.1:1", f"--io-processes={processes}"]
    app = App(read_settings([*flags, f"--data-dir={tmp_path}"]), TorchBackend("cpu", 1))
    await app.start()
    identity = app.identity()
    addresses = (identity.address, identity.io_addresses[0] if processes else identity.address)
    orders, images = (grpc.aio.insecure_channel(address) for address in addresses)
    yield Running(zoo, app, orders, images)
    await images.close()
    await orders.close()
    await app.stop()


either_way = pytest.mark.parametrize(
    "worker", [0, 1], indirect=True, ids=["in process", "I/O process"]
)
IMAGE = picture(1, 240, 320)


@either_way
async def test_masks_in_every_form(worker: Running) -> None:
    outlined = await worker.detect("yolo11n-seg", IMAGE)
    exact = await worker.detect("yolo11n-seg", IMAGE, Options(mask_format=FORMATS.MASK_FORMAT_RLE))
    none = await worker.detect("yolo11n-seg", IMAGE, Options(mask_format=FORMATS.MASK_FORMAT_NONE))
    assert outlined.task == exact.task == "segment"
    assert outlined.masks is not None
    assert exact.masks is not None
    assert none.masks is None
    assert len(none) >= len(exact) >= 30
    for one in exact:
        assert one.mask is not None
        rows, columns = np.nonzero(one.mask.to_array())
        x_min, y_min, x_max, y_max = one.xyxy
        # Pixels of a mask are within its box.
        assert x_min <= columns.min() <= columns.max() < x_max
        assert y_min <= rows.min() <= rows.max() < y_max
    assert outlined.plot().size == (320, 240)


async def test_keypoints(worker: Running) -> None:
    found = await worker.detect("yolo11n-pose", IMAGE)
    assert found.keypoints is not None
    assert found.keypoints.shape == (len(found), 17, 3)
    assert len(found) >= 30
    assert found.keypoints[..., 2].max() <= 1
    assert found.plot().size == (320, 240)


async def test_rotated_boxes(worker: Running) -> None:
    found = await worker.detect("yolo11n-obb", IMAGE)
    assert found.xywhr is not None
    assert found.corners is not None
    assert len(found) >= 30
    np.testing.assert_allclose(found.corners.mean(1), found.xywhr[:, :2], atol=1e-2)
    assert found.plot().size == (320, 240)


@either_way
async def test_classes(worker: Running) -> None:
    options = Options(top_k=3, all_probabilities=True)
    found = await worker.detect("yolo11n-cls", IMAGE, options)
    top = found.classification
    assert top is not None
    assert len(top.class_name) == 3
    assert top.probabilities.sum() == pytest.approx(1, abs=1e-4)
    assert top.probability.tolist() == sorted(top.probabilities.tolist(), reverse=True)[:3]
    assert len(found) == 0


async def test_a_size_that_the_version_allows(worker: Running) -> None:
    usual = await worker.detect("shapes", IMAGE)
    larger = await worker.detect("shapes", IMAGE, Options(image_size=640))
    assert usual.xyxy.tolist() != larger.xyxy.tolist()
    with pytest.raises(errors.InvalidOption, match="160, 320, 640"):
        await worker.detect("shapes", IMAGE, Options(image_size=512))


@either_way
async def test_tiles_find_what_single_images_find(worker: Running) -> None:
    """Four pictures side by side, at a tile each."""
    pictures = [picture(seed, 320, 320) for seed in range(4)]
    large = np.vstack((np.hstack(pictures[:2]), np.hstack(pictures[2:])))
    tiling = detection_pb2.Tiling(overlap=0)
    tiled = await worker.detect("shapes", large, Options(tiling=tiling))
    assert tiled.tiles == 4
    expected = []
    for index, one in enumerate(pictures):
        alone = await worker.detect("shapes", one)
        shift = np.tile([320 * (index % 2), 320 * (index // 2)], 2)
        expected += (alone.xyxy + shift).tolist()
    assert len(expected) >= 4
    found = sorted(tiled.xyxy.tolist())
    np.testing.assert_allclose(found, sorted(expected), rtol=0, atol=0.05)


async def test_tiles_that_overlap_find_each_object_once(worker: Running) -> None:
    """A picture within a large one, where borders of tiles cut it."""
    large = np.full((500, 700, 3), 114, np.uint8)
    large[90:410, 170:490] = picture(0, 320, 320)
    alone = await worker.detect("shapes", picture(0, 320, 320))
    tiling = detection_pb2.Tiling(tile_size=320, overlap=0.5)
    tiled = await worker.detect("shapes", large, Options(tiling=tiling, iou=0.5))
    assert tiled.tiles == 12
    moved = alone.xyxy + np.array([170, 90, 170, 90])
    for box, name in zip(moved, alone.class_name, strict=True):
        near = np.abs(tiled.xyxy - box).max(1) < 6
        assert [tiled.class_name[index] for index in np.flatnonzero(near)] == [name]


async def test_tiles_with_masks(worker: Running) -> None:
    options = Options(tiling=detection_pb2.Tiling(), mask_format=FORMATS.MASK_FORMAT_RLE)
    found = await worker.detect("yolo11n-seg", picture(0, 400, 600), options)
    assert found.tiles == 6
    assert found.masks is not None
    assert {mask.size for mask in found.masks} == {(600, 400)}
    assert len(found) >= 30


@either_way
async def test_too_many_tiles_and_late_ones_are_refused(worker: Running) -> None:
    tiny = Options(tiling=detection_pb2.Tiling(tile_size=32))
    with pytest.raises(errors.InvalidOption, match="at most 64"):
        await worker.detect("shapes", IMAGE, Options(tiling=detection_pb2.Tiling(tile_size=32)))
    image = picture(0, 200, 200)
    await worker.detect("shapes", image, tiny)
    with pytest.raises(errors.DeadlineExceeded):
        await worker.detect("shapes", image, tiny, timeout=0.01)
    # Nothing of them stays behind.
    async with asyncio.timeout(10):
        while worker.app.engine.load().outstanding:  # noqa: ASYNC110 - as its load reports say
            await asyncio.sleep(0.01)


async def test_options_of_another_task_are_refused(worker: Running) -> None:
    with pytest.raises(errors.InvalidOption, match="models that segment"):
        await worker.detect("shapes", IMAGE, Options(mask_format=FORMATS.MASK_FORMAT_RLE))
    with pytest.raises(errors.InvalidOption, match="models that find objects"):
        await worker.detect("yolo11n-cls", IMAGE, Options(tiling=detection_pb2.Tiling()))

"""Evaluates a version on the images of a gate: each is a Detect of the pool, at bulk priority."""

import asyncio
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from control_plane.caller import Origin, Principal
from control_plane.convert.validation import infer_request
from control_plane.routing.router import Router
from control_plane.types.access.api_key import Role
from control_plane.types.policy import Validation
from control_plane.types.version import ModelVersion, Pack
from control_plane.validation.labelled_zip import (
    MAX_IMAGE_BYTES,
    open_zip,
    read_bounded,
    read_labelled,
)
from yolopool.evaluation import tally
from yolopool.evaluation.labelled_images import LabelledImage
from yolopool.evaluation.tally import Found, Tally
from yolopool.evaluation.truths import OBB
from yolopool.names import parse_ref
from yolopool.server.clock import Clock
from yolopool.server.time_limits import ended
from yolopool.v1 import detection_pb2, types_pb2

# Images on their way at a time: enough for a batch, and little beside what callers ask.
WINDOW = 4
# Of one image, with the load of the version.
IMAGE_S = 300.0
ORIGIN = Origin(Principal("gate", Role.DETECT), "validation")


class Evaluator:
    def __init__(self, router: Router, clock: Clock) -> None:
        self._router = router
        self._clock = clock

    async def evaluate(
        self, version: ModelVersion, pack: Pack, path: Path, data: str
    ) -> Validation:
        """How the version does on the zip at `path`. Raises what the first image that fails does,
        InvalidOption for images that are not of this model, OSError.
        """
        with await asyncio.to_thread(open_zip, path) as archive:
            images = await asyncio.to_thread(read_labelled, archive, pack)
            counted = Tally(pack.task, len(pack.class_names))
            for first in range(0, len(images), WINDOW):
                part = images[first : first + WINDOW]
                found = await self._detected(version, pack, archive, part)
                for one, image in zip(found, part, strict=True):
                    await asyncio.to_thread(counted.add, one, image.truths)
        evaluation = await asyncio.to_thread(counted.evaluation)
        precision = evaluation.precision
        objects = sum(one.truths for one in precision.classes)
        return Validation(
            data,
            self._clock.unix(),
            len(images),
            objects,
            precision.map50,
            precision.map50_95,
        )

    async def _detected(
        self,
        version: ModelVersion,
        pack: Pack,
        archive: zipfile.ZipFile,
        images: Sequence[LabelledImage],
    ) -> list[Found]:
        tasks = [
            asyncio.create_task(self._detect(version, pack, archive, image.name))
            for image in images
        ]
        try:
            return await asyncio.gather(*tasks)
        finally:
            await ended(tasks)

    async def _detect(
        self, version: ModelVersion, pack: Pack, archive: zipfile.ZipFile, name: str
    ) -> Found:
        encoded = await asyncio.to_thread(read_bounded, archive, name, MAX_IMAGE_BYTES)
        request = detection_pb2.DetectRequest(
            model=str(version.key),
            encoded=encoded,
            options=detection_pb2.DetectOptions(
                confidence=tally.CONFIDENCE, iou=tally.IOU, max_detections=tally.MAX_DETECTIONS
            ),
            priority=types_pb2.PRIORITY_BULK,
        )
        if pack.task == "segment":
            request.options.mask_format = detection_pb2.MASK_FORMAT_NONE
        body = infer_request(request, encoded, MAX_IMAGE_BYTES, 0)
        body.weight = 1.0
        deadline_s = self._clock.monotonic() + IMAGE_S
        answer = await self._router.detect(
            request, parse_ref(request.model), body, ORIGIN, deadline_s, len(encoded)
        )
        return found_in(answer, pack.task)


def found_in(answer: detection_pb2.DetectResponse, task: str) -> Found:
    objects = answer.detections
    boxes: list[tuple[float, ...]] = [
        (b.x_min, b.y_min, b.x_max, b.y_max) for b in (one.box for one in objects)
    ]
    if task == OBB:
        turned = [one.rotated_box for one in objects]
        boxes = [(b.center_x, b.center_y, b.width, b.height, b.rotation) for b in turned]
    width = 5 if task == OBB else 4
    return Found(
        np.array(boxes, np.float64).reshape(-1, width),
        np.array([one.confidence for one in objects], np.float64),
        np.array([one.class_id for one in objects], np.int64),
        (answer.image_width, answer.image_height),
    )

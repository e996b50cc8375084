"""Run by Python at its start where this folder is on PYTHONPATH: workers that answer at once.

No image is decoded and no device is asked; the answer is as long as a real one. What is left of a
request is its way through client, control plane and worker: the floor of everything else. One of
bulk sleeps in the middle, and says in `inference_ms` how long.
"""

import asyncio
import os
import sys
import time
from typing import Any

BOXES = int(os.environ.get("YOLOPOOL_ECHO_BOXES", "6"))
SLEEP_S = float(os.environ.get("YOLOPOOL_ECHO_SLEEP_S", "0"))

# Of the processes of a pool, a worker's own alone.
if any(word.startswith("--device=") for word in sys.orig_argv):
    from worker.service import convert
    from worker.service.service import WorkerService
    from yolopool.v1 import detection_pb2, types_pb2, worker_pb2

    async def answer(
        self: WorkerService, request: worker_pb2.InferRequest, context: Any
    ) -> worker_pb2.InferResponse:
        """Replaces WorkerService.Infer."""
        began = time.perf_counter()
        if request.priority == types_pb2.PRIORITY_BULK:
            await asyncio.sleep(SLEEP_S)
        slept_ms = 1e3 * (time.perf_counter() - began)
        identity = self._identity()
        found = [
            detection_pb2.Detection(
                box=types_pb2.Box(x_min=1.5, y_min=2.5, x_max=300.5, y_max=200.5),
                confidence=0.5,
                class_id=1,
                class_name="triangle",
            )
            for _ in range(BOXES)
        ]
        result = detection_pb2.DetectResponse(
            detections=found,
            image_width=640,
            image_height=480,
            version=request.version,
            variant=types_pb2.Variant(backend="echo", precision="fp32", device_kind="sim"),
            worker=identity.id,
            device=identity.device,
            batch_size=1,
            timing=detection_pb2.Timing(queue_ms=1.5, decode_ms=1.5, inference_ms=slept_ms),
            request_id=request.request_id,
        )
        return worker_pb2.InferResponse(result=result, load=convert.load_to(self._engine))

    WorkerService.Infer = answer  # type: ignore[method-assign] # the whole point of this file

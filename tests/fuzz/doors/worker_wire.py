"""Every rpc of a worker, as bytes by a real connection; on a simulated device."""

import asyncio
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor

from tests.fuzz.doors import packs, pool
from tests.fuzz.doors.pool import WORDS
from tests.fuzz.doors.wire import Connection
from tests.fuzz.target import Target, own_loop
from tests.unit.worker.preprocess.encoded_images import ALL
from worker.app import App
from worker.backends.simulated import SimulatedBackend, TimeCurve
from worker.settings import read_settings
from yolopool.v1 import detection_pb2, types_pb2, worker_pb2

_PATH = f"/{pool.WORKER}/"
_DRAIN = f"{_PATH}Drain\n".encode()
# Inputs release the model, or fence out whoever would assign it.
_ASSIGNED_EVERY, _DRAINED_EVERY = 20, 100
_FAST = TimeCurve(fixed_s=0.0, per_image_s=0.0, load_fixed_s=0.0)


class Worker:
    """Holds the model a@1. One that was drained is started anew, which takes the time of many
    executions: so that not every input that drains does.
    """

    def __init__(self, folder: Path) -> None:
        self.loop = own_loop()
        self._folder, self._runs, self._started = folder, 0, 0
        text = json_format.MessageToJson(packs.manifest()).encode()
        self._order = _assign(packs.write_pack(folder / "pack", text))
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        flags = {
            "device": "sim:0", "data_dir": self._folder / "data", "control_planes": "127.0.0.1:1",
            "host": "127.0.0.1", "port": 0, "max_image_pixels": 2_000_000,
        }  # fmt: skip
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
        self._app = App(read_settings(arguments), SimulatedBackend(0, 8 * 1024**3, _FAST))
        await self._app.start()
        self._connection = Connection(self._app.identity().address, _methods())
        await self._assign()

    async def _assign(self) -> None:
        """As the leader would: after what it was told to release, and whatever token it obeys."""
        self._app.rpc.fence.highest = types_pb2.FencingToken()
        await self._connection.call(pool.joined(f"{_PATH}Assign", self._order.SerializeToString()))

    def run(self, data: bytes) -> str:
        self._runs += 1
        if data.startswith(_DRAIN):
            if self._runs - self._started < _DRAINED_EVERY:
                return "left out: Drain"
            self._started = self._runs
        if self._app.rpc.told_to_end.is_set():
            self.loop.run_until_complete(self._stop())
            self.loop.run_until_complete(self._start())
        elif self._runs % _ASSIGNED_EVERY == 0:
            self.loop.run_until_complete(self._assign())
        return self.loop.run_until_complete(self._connection.call(data))

    async def _stop(self) -> None:
        await self._connection.close()
        await self._app.stop()

    def close(self) -> None:
        self.loop.run_until_complete(self._stop())
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))


def _methods() -> dict[str, MethodDescriptor]:
    return pool.methods(pool.WORKER)


def _assign(place: worker_pb2.PackLocation) -> worker_pb2.AssignRequest:
    return worker_pb2.AssignRequest(
        version=types_pb2.VersionKey(model="a", version=1),
        settings=packs.manifest().settings,
        pack=place,
        variant=types_pb2.Variant(precision="fp32"),
    )


def _seeds() -> list[bytes]:
    version = types_pb2.VersionKey(model="a", version=1)
    raw = types_pb2.RawImage(data=bytes(12), height=2, width=2)
    raw.channel_order = types_pb2.CHANNEL_ORDER_RGB
    options = detection_pb2.DetectOptions(
        confidence=0.5, iou=0.5, max_detections=5, classes=[0, 1], image_size=320,
        region_of_interest=types_pb2.Box(x_min=1, y_min=1, x_max=9, y_max=9),
        tiling=detection_pb2.Tiling(tile_size=32, overlap=0.2),
    )  # fmt: skip
    asked = [
        worker_pb2.InferRequest(version=version, encoded=image)
        for image in (ALL["jpeg grey"], ALL["png 1 bit"], ALL["gif grey"], b"")
    ]
    asked.append(worker_pb2.InferRequest(version=version, raw=raw))
    asked.append(worker_pb2.InferRequest(version=version, encoded=ALL["jpeg"], options=options))
    return [
        *pool.seeds(_methods(), WORDS),
        *(pool.joined(f"{_PATH}Infer", one.SerializeToString()) for one in asked),
    ]


TARGETS = {
    "worker": Target(
        name="worker",
        about="every rpc of a worker's port",
        open=Worker,
        seeds=_seeds,
        share=20,
        mutate=pool.changed(_methods(), WORDS),
        max_bytes=32 * 1024,
        reopen_after=1000,
        examples=60,
    )
}

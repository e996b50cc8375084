"""A scripted worker whose images say how long they take."""

import asyncio
from typing import Any

from tests.contract.control_plane_rig import Rig, ScriptedWorker
from yolopool.v1 import worker_pb2


class TimedWorker(ScriptedWorker):
    """Takes as many seconds for an image as its bytes say; `running` and `most` count what it runs
    at a time, `padding` makes its answers large, and while `gate` is shut none leaves.
    """

    def __init__(self) -> None:
        super().__init__("w1")
        self.running = self.most = 0
        self.padding = ""
        self.gate = asyncio.Event()
        self.gate.set()

    async def serve(self, rig: Rig, *also: str) -> None:
        """Joins, and has the model `shapes` loaded."""
        await self.start(rig.addresses.grpc, *also)
        await rig.ready("shapes")
        await rig.detect("shapes", encoded=b"0")
        self.inferred.clear()
        self.most = 0

    async def Infer(self, request: worker_pb2.InferRequest, context: Any) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(float(request.encoded or 0))
            answer = await super().Infer(request, context)
            await self.gate.wait()
        finally:
            self.running -= 1
        answer.result.image_damage = self.padding
        return answer

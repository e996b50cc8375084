"""Who calls a pool during a soak, beside the unary callers of `tests.chaos.traffic`: by HTTP, by
streams, and those whose models come and go.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from random import Random
from types import TracebackType

import httpx
from google.protobuf import json_format

from tests.chaos.doors import ControlPlaneDoor
from tests.chaos.pictures import Picture, boxes_of
from yolopool.client.detections import Detections, from_response
from yolopool.client.streams.frames import Frame
from yolopool.error_table import rebuild
from yolopool.errors import DeadlineExceeded, Unavailable, YolopoolError
from yolopool.v1 import detection_pb2


class HttpDoor:
    """A control plane asked by POST /v1/detect, over connections that are kept."""

    def __init__(self, name: str, http: str) -> None:
        self.name = f"{name} by HTTP"
        self._client = httpx.AsyncClient(base_url=http, trust_env=False)

    async def ask(self, model: str, image: bytes, timeout_s: float) -> Detections:
        """Raises YolopoolError."""
        try:
            answer = await self._client.post(
                "/v1/detect",
                params={"model": model},
                content=image,
                headers={"Content-Type": "image/png"},
                timeout=max(timeout_s, 0.001),
            )
        except httpx.TimeoutException as error:
            raise DeadlineExceeded(f"{self.name}: {type(error).__name__}") from error
        except httpx.TransportError as error:
            raise Unavailable(f"{self.name}: {type(error).__name__}: {error}") from error
        told = answer.json()
        if answer.status_code != httpx.codes.OK:
            details = {key: str(value) for key, value in told.get("details", {}).items()}
            raise rebuild(told["code"], told["reason"], told["detail"], details=details)
        response = detection_pb2.DetectResponse()
        json_format.ParseDict(told, response, ignore_unknown_fields=True)
        return from_response(response, image)

    async def close(self) -> None:
        await self._client.aclose()


class Visitors:
    """`async with`: callers that count outcomes and never stop for one; `outcomes` by who and what.

    `streams`: of models that stay, with right answers checked. `strollers`: who ask for one of many
    models by turns, so that models are loaded and make room; a failure of theirs is no fault while
    something that loads need is away.
    """

    def __init__(
        self,
        doors: Sequence[ControlPlaneDoor],
        models: Sequence[str],
        many: Sequence[str],
        pictures: Sequence[Picture],
        rng: Random,
    ) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self._doors, self._models, self._many = tuple(doors), tuple(models), tuple(many)
        self._pictures, self._rng = tuple(pictures), rng
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Visitors":
        for number, door in enumerate(self._doors):
            model = self._models[number % len(self._models)]
            self._tasks.append(asyncio.create_task(self._streams(door, model)))
            self._tasks.append(asyncio.create_task(self._stroll(door)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended  # a visitor that broke is a fault of this file

    async def _streams(self, door: ControlPlaneDoor, model: str) -> None:
        """One stream after the other, some hundred frames each."""
        while not self._stopping:
            asked: list[Picture] = []
            try:
                stream = door.client.detect_stream(self._frames(asked), model, timeout_s=15.0)
                async for result in stream:
                    if result.error is not None:
                        self.outcomes["stream", _reason(result.error)] += 1
                        continue
                    assert result.detections is not None, "a frame has either"
                    right = asked[int(result.id)].is_answered_by(boxes_of(result.detections))
                    self.outcomes["stream", "OK" if right else "WRONG"] += 1
                self.outcomes["streams", "ended"] += 1
            except YolopoolError as error:
                self.outcomes["streams", error.reason] += 1
            await asyncio.sleep(0.2)

    async def _frames(self, asked: list[Picture]) -> AsyncIterator[Frame]:
        for number in range(self._rng.randrange(50, 200)):
            picture = self._rng.choice(self._pictures)
            asked.append(picture)
            yield Frame(picture.encoded, id=number)
            await asyncio.sleep(0.1)

    async def _stroll(self, door: ControlPlaneDoor) -> None:
        weights = [1.0 / (1 + rank) for rank in range(len(self._many))]
        while not self._stopping:
            (model,) = self._rng.choices(self._many, weights)
            picture = self._rng.choice(self._pictures)
            try:
                found = await door.ask(model, picture.encoded, 15.0)
            except YolopoolError as error:
                self.outcomes["many models", error.reason] += 1
            else:
                right = picture.is_answered_by(boxes_of(found))
                self.outcomes["many models", "OK" if right else "WRONG"] += 1
            await asyncio.sleep(self._rng.uniform(0.05, 0.4))


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, YolopoolError) else type(error).__name__

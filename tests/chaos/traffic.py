"""Callers that never stop: so many at once, each request on record whatever becomes of it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Protocol

from tests.chaos.account import OK, Attempt, Request
from tests.chaos.pictures import Picture, boxes_of
from yolopool.client.detections import Detections
from yolopool.errors import NotAssigned, YolopoolError

# Codes after which another door is asked: nothing was run, or nobody answered.
AGAIN = ("UNAVAILABLE", "DEADLINE_EXCEEDED")


class Door(Protocol):
    """Where a model can be asked: a control plane, or a worker that holds it."""

    name: str

    async def ask(self, model: str, image: bytes, timeout_s: float) -> Detections:
        """Raises YolopoolError."""
        ...


Route = tuple[Door, str]
Resolve = Callable[[], Awaitable[Sequence[Route]]]


@dataclass(frozen=True, slots=True)
class Rate:
    """Callers at once, the pause of each between two requests, the time each request has, that of
    its first attempt, and the time beyond it to end by itself before it counts as lost.
    """

    callers: int = 4
    pause_s: float = 0.04
    deadline_s: float = 10.0
    first_s: float = 4.0
    grace_s: float = 3.0


class Traffic:
    """`async with Traffic(...) as traffic`: calls come from entering until leaving.

    `routes` (door, model) are taken in turn. A request that ends UNAVAILABLE, or is not answered
    within `first_s`, is sent once more, within its deadline, to another door of its model, as a
    careful user's would be. One that is NOT_ASSIGNED looks with `resolve` where its model is now.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        pictures: Sequence[Picture],
        rate: Rate,
        rng: Random,
        resolve: Resolve | None = None,
    ) -> None:
        self._routes = tuple(routes)
        self._resolve = resolve
        self._pictures = tuple(pictures)
        self._rate = rate
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._open: dict[int, Request] = {}
        self._ended: list[Request] = []
        self._sent = 0
        self._stopping = False
        self._callers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Traffic":
        self._callers = [asyncio.create_task(self._call()) for _ in range(self._rate.callers)]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Sends no more and waits for what is open, which has a deadline."""
        self._stopping = True
        await asyncio.wait(self._callers, timeout=self._rate.deadline_s + self._rate.grace_s)
        for caller in self._callers:
            caller.cancel()
        for ended in await asyncio.gather(*self._callers, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended  # a caller that broke is a fault of this file

    @property
    def callers(self) -> int:
        return self._rate.callers

    def now(self) -> float:
        """Seconds since the first caller."""
        return self._loop.time() - self._began

    def requests(self) -> list[Request]:
        """All that were sent; those without an outcome too."""
        return [*self._ended, *self._open.values()]

    def failed_since(self, moment_s: float) -> bool:
        """Whether an attempt has failed since then, be it made good elsewhere."""
        return any(
            attempt.outcome != OK and attempt.ended_s >= moment_s
            for request in reversed(self._ended)
            for attempt in request.attempts
        )

    async def _call(self) -> None:
        # Not all at once, and not in step.
        await asyncio.sleep(self._rng.uniform(0, self._rate.pause_s))
        while not self._stopping:
            number, self._sent = self._sent, self._sent + 1
            door, model = self._routes[number % len(self._routes)]
            picture = self._rng.choice(self._pictures)
            request = Request(number, model, self.now())
            self._open[number] = request
            ended = await self._request(request, door, picture)
            del self._open[number]
            self._ended.append(ended)
            await asyncio.sleep(self._rate.pause_s)

    async def _request(self, request: Request, door: Door, picture: Picture) -> Request:
        until_s = request.sent_s + self._rate.deadline_s
        first_s = request.sent_s + self._rate.first_s
        limit_s = until_s if self._other(door, request.model) is None else min(first_s, until_s)
        attempt, code, right = await self._attempt(door, request.model, picture, limit_s)
        attempts = [attempt]
        if attempt.outcome == NotAssigned.reason and self._resolve is not None:
            self._routes = tuple(await self._resolve()) or self._routes
            code = AGAIN[0]
        other = self._other(door, request.model)
        if code in AGAIN and other is not None and self.now() < until_s:
            attempt, _, right = await self._attempt(other, request.model, picture, until_s)
            attempts.append(attempt)
        return Request(request.number, request.model, request.sent_s, tuple(attempts), right)

    async def _attempt(
        self, door: Door, model: str, picture: Picture, until_s: float
    ) -> tuple[Attempt, str, bool]:
        """The attempt, the gRPC code of its failure, and whether an answer was right."""
        sent_s, outcome, code, right = self.now(), OK, "", True
        try:
            found = await door.ask(model, picture.encoded, until_s - sent_s)
            right = found.model == f"{model}@1" and picture.is_answered_by(boxes_of(found))
        except YolopoolError as error:
            outcome, code = error.reason, error.code
        except Exception as error:  # a fault of the client's is an outcome too, and shown
            outcome = f"{type(error).__name__}: {error}"
        return Attempt(door.name, sent_s, self.now(), outcome), code, right

    def _other(self, door: Door, model: str) -> Door | None:
        others = [one for one, held in self._routes if held == model and one.name != door.name]
        return others[0] if others else None
